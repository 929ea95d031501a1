// Package obs asks OBS Studio (release 28 or newer) by its websocket, protocol
// version 5, whether a scene or an input is on program or preview.
//
//	events ──► what they say counts at once ─┐
//	   └─ look again ─► requests ─► answers ─┴─► stage ─► tally.Desk
//
// Events tell of changes, but not of all: a scene that is nested in another, or
// still seen during a transition, is found only by asking. So every event that
// matters, and every third of the timeout, OBS is asked for the whole stage.
// That is the keep-alive, too: it takes OBS itself to answer, where a websocket
// ping would be answered by its network thread.
package obs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"

	"encoderd.example/daemon/tally"
)

// DefaultPort is that of OBS's websocket server.
const DefaultPort = 4455

const (
	dialPatience = 5 * time.Second
	// maxMessage is far more than the largest scene that was seen.
	maxMessage = 4 << 20
)

// A Link is a connection to one OBS.
type Link struct {
	URL      string // ws://HOST, ws://HOST:PORT or wss://…; ws is at DefaultPort if it names none
	Password string // "" if OBS asks for none
	// Sources maps their names to what they follow.
	Sources map[string]Input
	// Timeout is how long OBS may take to answer; it is asked three times as
	// often.
	Timeout time.Duration
	// Client makes the connection; nil is one without a proxy.
	Client *http.Client
}

// Run implements [tally.Link]. It gives up for good when OBS throws us out, as
// its protocol demands. A wrong password or an old OBS may be put right at the
// far side, of which nobody tells us: those are tried again.
func (l Link) Run(ctx context.Context, d tally.Desk) error {
	conn, err := l.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseNow() }()
	if err := l.greet(ctx, conn); err != nil {
		return tally.Ended(ctx, refusal(err))
	}
	d.Up()
	return tally.Ended(ctx, refusal(newSession(l, conn, d).run(ctx)))
}

func (l Link) dial(ctx context.Context) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	client := l.Client
	if client == nil {
		client = &http.Client{Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
	}
	address, err := withPort(l.URL)
	if err != nil {
		return nil, err
	}
	conn, _, err := websocket.Dial(ctx, address, &websocket.DialOptions{ //nolint:bodyclose // the library does
		HTTPClient: client, Subprotocols: []string{"obswebsocket.json"},
	})
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(maxMessage)
	return conn, nil
}

// withPort adds OBS's port to an address without one. OBS itself speaks no TLS:
// behind wss is a proxy, at the usual port of its own.
func withPort(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", errors.New("the address is no URL") // it may hold a secret
	}
	if u.Scheme == "ws" && u.Port() == "" {
		u.Host = strings.TrimSuffix(u.Host, ":") + ":" + strconv.Itoa(DefaultPort)
	}
	return u.String(), nil
}

// greet gets us let in: Hello, Identify, Identified.
func (l Link) greet(ctx context.Context, conn *websocket.Conn) error {
	ctx, cancel := context.WithTimeoutCause(ctx, dialPatience, errors.New("OBS does not greet: is it obs-websocket 5?"))
	defer cancel()
	var h hello
	if err := receive(ctx, conn, opHello, &h); err != nil {
		return err
	}
	if h.RPCVersion < rpcVersion {
		return errVersion
	}
	id := identify{RPCVersion: rpcVersion, Events: wanted}
	if a := h.Authentication; a != nil {
		if l.Password == "" {
			return errNoPassword
		}
		id.Authentication = answer(l.Password, a.Salt, a.Challenge)
	}
	b, err := frame(opIdentify, id)
	if err != nil {
		return err
	}
	if err := conn.Write(ctx, websocket.MessageText, b); err != nil {
		return err
	}
	return receive(ctx, conn, opIdentified, &struct{}{})
}

// receive reads one message, which has to be of an operation.
func receive(ctx context.Context, conn *websocket.Conn, op int, v any) error {
	_, b, err := conn.Read(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	if err != nil {
		return err
	}
	var m message
	if err := json.Unmarshal(b, &m); err != nil {
		return fmt.Errorf("OBS sends no JSON: %w", err)
	}
	if m.Op != op {
		return fmt.Errorf("OBS says operation %d where %d is due", m.Op, op)
	}
	if err := json.Unmarshal(m.Data, v); err != nil {
		return fmt.Errorf("operation %d: %w", op, err)
	}
	return nil
}

var (
	errNoPassword = errors.New("OBS wants a password: write that of its menu Tools, WebSocket Server Settings")
	errPassword   = errors.New("OBS does not accept the password: write that of its menu Tools, WebSocket Server Settings")
	errVersion    = errors.New("this OBS does not speak obs-websocket 5: update it to release 28 or newer")
	errKicked     = fmt.Errorf("%w: somebody has thrown this box out of OBS: restart the box to come back", tally.ErrRefused)
)

// refusal gives words to why OBS has closed the connection.
func refusal(err error) error {
	switch websocket.CloseStatus(err) {
	case closedPassword:
		return errPassword
	case closedVersion:
		return errVersion
	case closedKicked:
		return errKicked
	default:
		return err
	}
}
