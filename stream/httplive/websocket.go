package httplive

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"encoderd.example/stream"
)

// upgrades reports whether a request asks for a WebSocket.
func upgrades(r *http.Request) bool {
	return strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// A webSocket carries FLV, a message for every tag.
type webSocket struct {
	conn    *websocket.Conn
	nc      net.Conn // below conn
	write   func(message []byte) error
	hearing sync.WaitGroup
}

func (s *site) openWebSocket(ctx context.Context, w http.ResponseWriter, r *http.Request, rd *reading, f form, left func()) (link, error) {
	if f.protocol != forms["flv"].protocol {
		http.Error(w, "only FLV goes over WebSocket", http.StatusBadRequest)
		return nil, errors.New("only FLV goes over WebSocket")
	}
	taken := &taking{ResponseWriter: w}
	// Pages of other sites may read; see credentials.
	conn, err := websocket.Accept(taken, r, &websocket.AcceptOptions{InsecureSkipVerify: true, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return nil, err // it has answered
	}
	if err := stream.LimitSendBuffer(taken.nc, stream.Bitrate(rd.tracks)); err != nil {
		s.log.Debug("http send buffer stays as it is", "err", err)
	}
	k := &webSocket{conn: conn, nc: taken.nc}
	k.write = func(message []byte) error {
		ctx, cancel := context.WithTimeout(ctx, s.write)
		defer cancel()
		return conn.Write(ctx, websocket.MessageBinary, message)
	}
	k.hearing.Go(func() {
		defer left()
		k.hear(ctx)
	})
	return k, nil
}

// taking keeps the connection that is taken over.
type taking struct {
	http.ResponseWriter
	nc net.Conn
}

func (t *taking) Hijack() (nc net.Conn, rw *bufio.ReadWriter, err error) {
	nc, rw, err = http.NewResponseController(t.ResponseWriter).Hijack()
	t.nc = nc
	return nc, rw, err
}

// hear serves pings until the reader leaves or ctx ends. Who sends a message,
// however long it is to be, is told that none is taken and leaves.
func (k *webSocket) hear(ctx context.Context) {
	if _, _, err := k.conn.Reader(ctx); err == nil {
		k.farewell(websocket.StatusMessageTooBig, "no message is taken here")
	}
	_ = k.nc.Close() // if it is not yet
}

// farewell says why it is over. The far side has a second to answer: the
// library would wait for all that it announced.
func (k *webSocket) farewell(code websocket.StatusCode, reason string) {
	late := time.AfterFunc(goodbyeTime, func() { _ = k.nc.Close() })
	defer late.Stop()
	_ = k.conn.Close(code, reason) // a courtesy: it may be gone
}

// messages are the memory of messages on their way: as many as are being
// written, not as there are readers.
var messages = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// add writes the pieces as one binary message.
func (k *webSocket) add(pieces [][]byte) error {
	m, ok := messages.Get().(*bytes.Buffer)
	if !ok {
		m = new(bytes.Buffer)
	}
	defer messages.Put(m)
	m.Reset()
	for _, p := range pieces {
		m.Write(p)
	}
	if err := k.write(m.Bytes()); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// Push is [stream.Sink].
func (k *webSocket) Push() (out bool, err error) { return true, nil }

// Flush is [stream.Sink].
func (k *webSocket) Flush() error { return nil }

// Waits is [stream.Sink].
func (k *webSocket) Waits() bool { return true }

// Hold is [stream.Sink].
func (k *webSocket) Hold(serve func()) error {
	serve()
	return nil
}

// close says goodbye to a reader that still listens, and waits for what heard
// it.
func (k *webSocket) close(reason error) {
	if errors.Is(reason, errEnded) {
		k.farewell(websocket.StatusNormalClosure, "the stream ended")
	}
	_ = k.nc.Close()
	_ = k.conn.CloseNow() // frees what the library holds
	k.hearing.Wait()
}
