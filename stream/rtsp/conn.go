package rtsp

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/rtp"
)

// A conn is one player's connection. Its goroutine alone touches session.
type conn struct {
	*service
	nc    net.Conn
	place *stream.Place // kept while it plays
	br    *bufio.Reader
	log   *slog.Logger
	peer  netip.Addr // not valid on networks without addresses
	local netip.Addr

	line *stream.Line // one response or one batch at a time

	began   time.Time
	seen    atomic.Int64 // when the player last showed life, nanoseconds after began
	session *session     // nil: init

	secure    bool               // TLS
	described func()             // gives the feed back that was described, or nil
	nonce     string             // of the challenge, "" until there was one
	refusals  int                // wrong credentials so far
	shown     stream.Credentials // what opened the rendition opened
	opened    string
}

var errIdle = errors.New("no sign of life")

// serve talks to one player until it leaves, falls silent or ctx ends.
func (sv *service) serve(ctx context.Context, nc net.Conn, place *stream.Place) {
	c := &conn{
		service: sv,
		nc:      nc,
		place:   place,
		br:      bufio.NewReaderSize(nc, maxLine),
		log:     sv.log.With("peer", nc.RemoteAddr().String()),
		peer:    hostOf(nc.RemoteAddr()),
		local:   hostOf(nc.LocalAddr()).WithZone(""),
		line:    stream.NewLine(nc, sv.limits.write),
		began:   time.Now(),
	}
	_, c.secure = nc.(interface{ NetConn() net.Conn })
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(ctx, func() {
		_ = nc.SetReadDeadline(time.Unix(1, 0))
		_ = nc.SetWriteDeadline(time.Now().Add(2 * goodbyeTimeout)) // the batch on its way, and the goodbye
	})
	err := c.requests(ctx, cancel)
	stop()
	cancel(err)
	c.finish(context.WithoutCancel(ctx))
	c.log.Debug("rtsp connection ended", "reason", context.Cause(ctx))
}

// finish ends the session with a goodbye, if the player can still take one,
// and closes the connection.
func (c *conn) finish(ctx context.Context) {
	if s := c.session; s != nil && s.playing != nil {
		s.playing.stop()
		patience := time.NewTimer(goodbyeTimeout)
		defer patience.Stop()
		select {
		case <-s.playing.done:
			if c.goodbye(ctx, s) {
				c.farewell(ctx)
			}
		case <-patience.C: // stuck in a write: closing ends it
		}
	}
	_ = c.nc.Close()
	c.endSession()
	if c.described != nil {
		c.described()
	}
}

// goodbye tells the player that no more will come, if it is still there, and
// reports whether it could. Over UDP it arrives at another port than the last
// packets, and players that see it first do not look for them.
func (c *conn) goodbye(ctx context.Context, s *session) bool {
	p := s.playing
	if p.broken || p.to == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, goodbyeTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = c.nc.Close() })
	defer stop()
	if s.by == udp {
		stream.Rest(ctx, goodbyeDelay)
	}
	bye, err := s.bye()
	if err == nil {
		_, err = p.to.send(ctx, bye)
	}
	if err != nil {
		c.log.Debug("rtsp goodbye not sent", "err", err)
	}
	return err == nil
}

// atTheEnd is what a player may still ask once it was told that no more comes.
const atTheEnd = "|OPTIONS|GET_PARAMETER|PAUSE|TEARDOWN|"

// farewell lets the player end its session, and close: some take a connection
// that we close first for a fault, and with what they have said unread, closing
// would take our goodbye from them.
func (c *conn) farewell(ctx context.Context) {
	end := time.AfterFunc(goodbyeTimeout, func() { _ = c.nc.Close() })
	defer end.Stop()
	_ = c.nc.SetReadDeadline(time.Time{}) // fails on a closed connection only
	for c.session != nil {
		if skipped, err := c.skip(); err != nil {
			return
		} else if skipped {
			continue
		}
		req, err := readRequest(c.br)
		if err != nil || !strings.Contains(atTheEnd, "|"+req.method+"|") {
			return
		}
		res := c.handle(ctx, call{req, func(error) {}})
		if c.line.Write(res.marshal(req.cseq())) != nil {
			return
		}
	}
	c.linger()
}

// bye returns the batch that ends what the session plays.
func (s *session) bye() (*rtp.Batch, error) {
	bye := s.feed.packer.Goodbye()
	if !s.secure {
		return bye, nil
	}
	seal, err := s.feed.sealed()
	if err != nil {
		return nil, err
	}
	return seal.batch(bye)
}

// requests answers requests until one ends the connection.
func (c *conn) requests(ctx context.Context, cancel context.CancelCauseFunc) error {
	for first := true; ; first = false {
		if err := c.await(ctx, first); err != nil {
			return err
		}
		if err := c.patience(ctx, c.limits.request); err != nil {
			return err
		}
		if skipped, err := c.skip(); err != nil {
			return err
		} else if skipped {
			continue
		}
		req, err := readRequest(c.br)
		if err != nil {
			return c.reject(err)
		}
		c.alive()
		res := c.handle(ctx, call{req, cancel})
		if err := c.line.Write(res.marshal(req.cseq())); err != nil {
			return err
		}
		if res.after != nil {
			res.after()
		}
	}
}

// reject answers a request that cannot be read and ends the connection: where
// the next one starts is anybody's guess.
func (c *conn) reject(err error) error {
	if bad, ok := errors.AsType[*statusError](err); ok {
		if c.line.Write(answer(bad.status, "Connection: close").marshal("")) == nil {
			c.linger()
		}
	}
	return fmt.Errorf("read request: %w", err)
}

// linger lets the far side read our last words: closing at once, with
// something of its own unread, would take them from it.
func (c *conn) linger() {
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(goodbyeTimeout)) // fails on a closed connection only
	_, _ = io.CopyN(io.Discard, c.nc, maxUnread)
}

// await waits for the first byte of a request, as long as the player shows
// life in other ways.
func (c *conn) await(ctx context.Context, first bool) error {
	limit := c.limits.session
	if first {
		limit = c.limits.firstRequest
	}
	for {
		left := limit - (time.Since(c.began) - time.Duration(c.seen.Load()))
		if c.streamsTCP() {
			left = limit // its acknowledgements are life enough: see write
		}
		if left <= 0 {
			return errIdle
		}
		if err := c.patience(ctx, left); err != nil {
			return err
		}
		_, err := c.br.Peek(1)
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

func (c *conn) streamsTCP() bool {
	return c.session != nil && c.session.playing != nil && c.session.by == interleaved
}

// patience sets how long reading may take from now on. It returns why ctx has
// ended, whose end unblocks reading too.
func (c *conn) patience(ctx context.Context, d time.Duration) error {
	if err := c.nc.SetReadDeadline(time.Now().Add(d)); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// alive notes that the player is there. Any goroutine may call it.
func (c *conn) alive() { c.seen.Store(int64(time.Since(c.began))) }

// skip reads past what is no request: one byte of an empty line, which some
// players send in between, or one interleaved frame. Over TCP, receiver
// reports tell nothing that the connection does not know better, and without a
// session they are not even life.
func (c *conn) skip() (bool, error) {
	head, err := c.br.Peek(1)
	switch {
	case err != nil:
		return false, err
	case head[0] == '\r' || head[0] == '\n':
		_, err = c.br.Discard(1)
		return true, err
	case head[0] != '$':
		return false, nil
	}
	if head, err = c.br.Peek(4); err != nil {
		return false, err
	}
	if _, err = c.br.Discard(4 + int(binary.BigEndian.Uint16(head[2:]))); err != nil {
		return false, err
	}
	if c.session != nil {
		c.alive()
	}
	return true, nil
}
