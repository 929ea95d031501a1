package webrtc

import (
	"context"
	"net"
	"time"

	"encoderd.example/stream"
)

// farewell is how long a TCP line may hold up the end of the server.
const farewell = time.Second

// lines is a listener whose connections keep their places from the first word
// that they are sent: only a visitor's is answered. One that takes nothing for
// patience, or for farewell once ctx has ended, is closed.
type lines struct {
	net.Listener

	ctx      context.Context //nolint:containedctx // the life of Run, which Accept is not told
	patience time.Duration
}

func (l lines) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &line{Conn: nc, lines: l, place: stream.PlaceOf(nc), turn: make(chan struct{}, 1)}
	c.forget = context.AfterFunc(l.ctx, func() { _ = c.within(farewell) }) // one that is closed has no need of it
	return c, nil
}

type line struct {
	net.Conn

	lines  lines
	place  *stream.Place
	forget func() bool
	turn   chan struct{} // of one who writes: nobody else moves its deadline
}

// Write writes b within the line's patience. A line that does not take all of
// it is closed, for a part of a frame would spoil what follows, and ICE writes
// on after errors.
func (c *line) Write(b []byte) (int, error) {
	c.place.Keep()
	c.turn <- struct{}{}
	defer func() { <-c.turn }()
	err := c.within(c.lines.patience)
	if c.lines.ctx.Err() != nil { // looked at last: if it ends later, it moves the deadline itself
		err = c.within(farewell)
	}
	if err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(b)
	if err != nil {
		_ = c.Close() // the error of the write says why
	}
	return n, err
}

func (c *line) within(d time.Duration) error { return c.SetWriteDeadline(time.Now().Add(d)) }

func (c *line) Close() error {
	c.forget()
	return c.Conn.Close()
}
