package rtmp

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/flv"
	"encoderd.example/stream/flv/amf0"
)

// A caller is one player's connection to a [Server].
//
//	       greet            connect               createStream
//	(Run) ──────► nameless ────────► connected ───────────────► ready ◄─────────┐
//	                                     ▲                      │  ▲            │
//	                                     └──── deleteStream ────┤  │ refused    │ closeStream
//	                                                       play └──┴─► playing ─┘
//	                                                                   │  ▲ pause
//	                                                                   ▼  │
//	                                                                  paused
//
// One goroutine reads commands and answers them; while it plays, a lane sends
// media. Both write by the same line, a whole message at a time.
type caller struct {
	*service
	wire   *wire
	conn   net.Conn      // wire, or TLS over it
	place  *stream.Place // kept while it has a player
	r      *reader
	w      *writer
	log    *slog.Logger
	began  time.Time
	hangUp context.CancelCauseFunc

	// For the reading goroutine alone.
	stage    stage
	query    string // of the application: credentials, perhaps
	enhanced bool   // it takes H.265
	refusals int
	window   uint32 // it wants an acknowledgement for so many bytes
	told     uint64 // bytes acknowledged
	player   *player
}

type stage byte

const (
	nameless stage = iota
	connected
	ready
)

const (
	// onlyStream is the number of the one message stream that a caller gets.
	onlyStream = 1
	// csStream carries what is said about it.
	csStream = 5
	// maxRefusals is how often one connection may ask for what it cannot have:
	// guessing passwords takes a connection for every few.
	maxRefusals = 3
	// application is the first part of our addresses.
	application = "live"
)

// User control events that a server sends (RTMP 1.0, 7.1.7).
const (
	eventBegin = 0
	eventEOF   = 1
)

var (
	errLeft    = errors.New("the player left")
	errRefused = errors.New("refused too often")
)

// serve talks to one player until it leaves or ctx ends.
func (sv *service) serve(ctx context.Context, nc net.Conn, place *stream.Place) {
	log := sv.log.With("peer", nc.RemoteAddr().String())
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		log.Warn("rtmp connection is not TCP")
		_ = nc.Close()
		return
	}
	w := &wire{TCPConn: tcp}
	c := &caller{service: sv, wire: w, conn: w, place: place, log: log, began: time.Now()}
	ctx, c.hangUp = context.WithCancelCause(ctx)
	stop := context.AfterFunc(ctx, func() {
		_ = w.SetReadDeadline(time.Unix(1, 0))
		_ = w.SetWriteDeadline(time.Now().Add(farewellTime)) // for an answer that nobody takes
	})
	err := c.talk(ctx)
	stop()
	c.hangUp(err)
	c.finish()
	log.Debug("rtmp connection ended", "reason", context.Cause(ctx))
}

// talk answers commands until one ends the connection.
func (c *caller) talk(ctx context.Context) error {
	if err := c.wire.readBy(c.began.Add(c.limits.arrival)); err != nil {
		return err
	}
	if c.TLS != nil {
		t := tls.Server(c.wire, c.TLS)
		if err := t.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("tls: %w", err)
		}
		c.conn = t
	}
	if err := greet(c.conn); err != nil {
		return err
	}
	c.r, c.w = newPlayerReader(c.conn), newWriter(c.conn, c.limits.write)
	for {
		if err := c.await(ctx); err != nil {
			return err
		}
		m, err := c.r.next()
		if errors.Is(err, errHungUp) {
			return errLeft
		}
		if err != nil {
			return err
		}
		if err := c.take(ctx, m); err != nil {
			return err
		}
	}
}

// await sets how long the next message may take. It returns why ctx has ended,
// whose end unblocks reading too. A player that gets media shows that it is
// there by taking it.
func (c *caller) await(ctx context.Context) error {
	by := time.Now().Add(c.limits.idle)
	switch {
	case c.player == nil:
		by = c.began.Add(c.limits.arrival)
	case c.player.running():
		by = time.Time{}
	}
	if err := c.wire.readBy(by); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// take serves one message. Kinds that are not known mean nothing to us.
func (c *caller) take(ctx context.Context, m message) error {
	if err := c.acknowledge(); err != nil {
		return err
	}
	switch {
	case m.kind == msgCommand:
		return c.command(ctx, m.body)
	case m.kind == msgCommandAMF3:
		return c.command(ctx, m.body[min(1, len(m.body)):])
	case m.kind == msgWindow && len(m.body) >= 4:
		c.window = binary.BigEndian.Uint32(m.body)
	case m.kind == msgUser && len(m.body) >= 6 && binary.BigEndian.Uint16(m.body) == eventPing:
		return c.control(eventPong, m.body[2:6])
	}
	return nil
}

func (c *caller) acknowledge() error {
	if c.window == 0 || c.r.count-c.told < uint64(c.window)/2 {
		return nil
	}
	c.told = c.r.count
	return c.w.control(msgAck, uint32(c.told))
}

// A service that a command asks for.
type request struct {
	from stage // the earliest in which it makes sense
	do   func(*caller, context.Context, command) error
}

// requests are what is served. Commands that are not listed, such as
// bandwidth checks, go without an answer, as with most servers.
var requests = map[string]request{
	"connect":         {nameless, (*caller).connect},
	"createStream":    {connected, (*caller).create},
	"FCSubscribe":     {connected, (*caller).subscribe},
	"getStreamLength": {connected, (*caller).streamLength},
	"play":            {ready, (*caller).play},
	"pause":           {ready, (*caller).pause},
	"closeStream":     {ready, (*caller).closeStream},
	"deleteStream":    {ready, (*caller).deleteStream},
	"publish":         {ready, (*caller).publish},
}

func (c *caller) command(ctx context.Context, body []byte) error {
	cmd, err := parseCommand(body)
	if err != nil {
		return err
	}
	r, ok := requests[cmd.name]
	switch {
	case !ok:
		return nil
	case c.stage < r.from:
		return fmt.Errorf("%w: %q comes too early", errProtocol, cmd.name)
	default:
		return r.do(c, ctx, cmd)
	}
}

func (c *caller) connect(_ context.Context, cmd command) error {
	if c.stage != nameless {
		return fmt.Errorf("%w: a second connect", errProtocol)
	}
	about := cmd.object()
	app, query, _ := strings.Cut(about.Text("app"), "?")
	if strings.Trim(app, "/") != application {
		err := c.call(0, csCommand, "_error", cmd.id, amf0.Null{},
			status{"error", "NetConnection.Connect.InvalidApp", "the address is rtmp://HOST/" + application + "/NAME"}.object())
		return errors.Join(err, errRefused)
	}
	c.query, c.enhanced = query, takesHEVC(about)
	c.stage = connected
	welcome := status{"status", "NetConnection.Connect.Success", ""}.object()
	welcome = append(welcome, amf0.Property{Name: "objectEncoding", Value: amf0.Number(0)})
	if c.enhanced {
		welcome = append(welcome, amf0.Property{Name: "fourCcList", Value: amf0.List{amf0.String(flv.FourCCHEVC)}})
	}
	return errors.Join(
		c.w.control(msgWindow, peerWindow),
		c.w.control(msgPeerWindow, peerWindow, bandDynamic),
		c.w.setChunk(),
		c.call(0, csCommand, "_result", cmd.id, amf0.Object{
			{Name: "fmsVer", Value: amf0.String("FMS/4,5,0,1")}, // old players look for a server that they know
			{Name: "capabilities", Value: amf0.Number(31)},
		}, welcome),
	)
}

// takesHEVC reads what a player says about itself (Enhanced RTMP v1,
// fourCcList; v2, videoFourCcInfoMap).
func takesHEVC(about amf0.Object) bool {
	list, _ := about.Get("fourCcList").(amf0.List)
	for _, v := range list {
		if v == amf0.String(flv.FourCCHEVC) || v == amf0.String("*") {
			return true
		}
	}
	can, _ := about.Get("videoFourCcInfoMap").(amf0.Object)
	return can.Get(flv.FourCCHEVC) != nil || can.Get("*") != nil
}

func (c *caller) create(_ context.Context, cmd command) error {
	if c.stage == ready {
		return c.call(0, csCommand, "_error", cmd.id, amf0.Null{},
			status{"error", "NetConnection.Call.Failed", "one stream for each connection"}.object())
	}
	c.stage = ready
	return c.call(0, csCommand, "_result", cmd.id, amf0.Null{}, amf0.Number(onlyStream))
}

func (c *caller) subscribe(context.Context, command) error {
	return c.call(0, csCommand, "onFCSubscribe", 0, amf0.Null{}, status{"status", "NetStream.Play.Start", ""}.object())
}

// streamLength is zero for what has no end.
func (c *caller) streamLength(_ context.Context, cmd command) error {
	return c.call(0, csCommand, "_result", cmd.id, amf0.Null{}, amf0.Number(0))
}

func (c *caller) publish(context.Context, command) error {
	err := c.tell(status{"error", "NetStream.Publish.Denied", "this box sends streams and takes none"})
	return errors.Join(err, errRefused)
}

func (c *caller) closeStream(context.Context, command) error {
	c.endPlay()
	return nil
}

func (c *caller) deleteStream(context.Context, command) error {
	c.endPlay()
	c.stage = connected
	return nil
}

// endPlay waits for the message that is on its way.
func (c *caller) endPlay() {
	if c.player != nil {
		c.player.close()
		c.player = nil
		c.began = time.Now() // to play something else, there is as much time
	}
}

// finish ends the player, tells the far side what it can still take, and
// closes the connection. A message on its way gets as long as the goodbye.
func (c *caller) finish() {
	c.wire.finish(time.Now().Add(farewellTime))
	whole := true
	if p := c.player; p != nil {
		p.stop()
		whole = !p.broken
		if whole {
			_ = p.goodbye() // a courtesy: it may be gone
		}
		c.endPlay()
	}
	if whole && c.w != nil {
		c.hangUpGently()
	}
	_ = c.wire.Close() // everything that counts has been said
}

// hangUpGently lets the far side read our last words: closing at once, with
// something of its own unread, would take them from it.
func (c *caller) hangUpGently() {
	if t, ok := c.conn.(*tls.Conn); ok {
		_ = t.CloseWrite()
	}
	if c.wire.CloseWrite() == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(c.wire.TCPConn, maxMessage))
	}
}

func (c *caller) call(stream uint32, chunkStream byte, name string, id float64, values ...amf0.Value) error {
	body := amf0.Append(nil, amf0.String(name), amf0.Number(id))
	return c.w.message(chunkStream, msgCommand, stream, 0, amf0.Append(body, values...), nil)
}

// tell says what became of the stream.
func (c *caller) tell(s status) error {
	return c.call(onlyStream, csStream, "onStatus", 0, amf0.Null{}, s.object())
}

func (c *caller) control(event byte, data []byte) error {
	return c.w.message(csControl, msgUser, 0, 0, []byte{0, event}, data)
}
