package stream

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"
)

// acceptRetry is how long a listener that has run out of descriptors rests.
const acceptRetry = 100 * time.Millisecond

// acceptTold is the least time between two lines about it in the log.
const acceptTold = time.Minute

// Accept takes callers from ln, lets each one in that the limits allow, and
// runs serve for it in a goroutine of its own, until ctx ends. Then it closes
// ln, waits for every serve and returns nil; serve sees the end of its ctx and
// owns its connection, which is closed under it if its place, unless kept, is
// given to another. If the listener breaks, callers see the same, and the error
// comes back.
func (g *Gate) Accept(ctx context.Context, ln net.Listener, log *slog.Logger, serve func(context.Context, net.Conn, *Place)) error {
	var callers sync.WaitGroup
	defer callers.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	defer func() { _ = ln.Close() }()
	var told time.Time
	for {
		nc, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = nc.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil: // out of descriptors, mostly: it passes
			if time.Since(told) > acceptTold {
				log.Warn("callers have to wait", "addr", ln.Addr().String(), "err", err)
				told = time.Now()
			}
			Rest(ctx, acceptRetry)
			continue
		}
		place := g.Wait(nc.RemoteAddr().String(), func() { cutOff(nc) })
		if place == nil {
			log.Debug("connection refused: too many", "peer", nc.RemoteAddr().String())
			_ = nc.Close()
			continue
		}
		callers.Go(func() {
			defer place.Leave()
			serve(ctx, nc, place)
		})
	}
}

// cutOff closes a connection without a last word, which TLS might have to wait
// with.
func cutOff(nc net.Conn) {
	if over, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc = over.NetConn()
	}
	_ = nc.Close()
}

// Listener returns a listener that hands on those callers of ln whom the limits
// allow, and hangs up on the others. A caller counts until its connection is
// closed, which happens under it if its place, see [PlaceOf], is given to
// another. A TCP connection stays one in all that matters: [net.Buffers] go out
// by one call. While the machine is out of descriptors, Accept waits; its only
// error wraps [net.ErrClosed].
func (g *Gate) Listener(ln net.Listener) net.Listener { return &gated{ln, g} }

type gated struct {
	net.Listener
	gate *Gate
}

func (l *gated) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil, err
		}
		if err != nil { // not every server survives it
			Rest(context.Background(), acceptRetry)
			continue
		}
		place := l.gate.Wait(nc.RemoteAddr().String(), func() { cutOff(nc) })
		if place == nil {
			_ = nc.Close()
			continue
		}
		if tcp, ok := nc.(*net.TCPConn); ok {
			return &gatedTCP{tcp, place}, nil
		}
		return &gatedConn{nc, place}, nil
	}
}

// PlaceOf returns the place of a connection that a [Gate]'s Listener let in,
// and nil, which takes all calls, for any other.
func PlaceOf(nc net.Conn) *Place {
	switch c := nc.(type) {
	case *gatedTCP:
		return c.place
	case *gatedConn:
		return c.place
	}
	return nil
}

type gatedTCP struct {
	*net.TCPConn
	place *Place
}

func (c *gatedTCP) Close() error {
	defer c.place.Leave()
	return c.TCPConn.Close()
}

type gatedConn struct {
	net.Conn
	place *Place
}

func (c *gatedConn) Close() error {
	defer c.place.Leave()
	return c.Conn.Close()
}

// What the kernel may hold back of a stream on its way to one reader.
const (
	minSendBuffer = 128 << 10
	maxSendBuffer = 4 << 20
)

// LimitSendBuffer keeps what waits in the kernel for one reader to about a
// second of media of bitrate bit/s, so that neither a slow reader's delay nor
// the box's memory creeps up. Connections other than TCP, and TLS over it, stay
// as they are.
func LimitSendBuffer(nc net.Conn, bitrate int) error {
	if over, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc = over.NetConn()
	}
	tcp, ok := nc.(interface{ SetWriteBuffer(bytes int) error })
	if !ok {
		return nil
	}
	return tcp.SetWriteBuffer(min(max(bitrate/8, minSendBuffer), maxSendBuffer))
}

// assumedBitrate is that of a track that does not tell.
const assumedBitrate = 8_000_000

// Bitrate returns the nominal bit rate of tracks together, in bit/s, or a
// guess on the high side if none tells.
func Bitrate(tracks []*Track) int {
	sum := 0
	for _, t := range tracks {
		sum += t.Bitrate
	}
	if sum == 0 {
		return assumedBitrate
	}
	return sum
}
