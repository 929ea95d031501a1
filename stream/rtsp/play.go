package rtsp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/rtp"
)

// A sender sends what one player wants of batches, whole ones.
type sender interface {
	stream.Sink[*rtp.Batch]
	// send sends b and waits until it is out, or ctx demands haste.
	send(ctx context.Context, b *rtp.Batch) (bytes int, err error)
}

// A tcpSender interleaves media with responses on the session's connection.
type tcpSender struct {
	*stream.Line
	want rtp.Set
}

// Take is [stream.Sink]. A batch needs no plate: it is the same for all.
func (s *tcpSender) Take(b *rtp.Batch, _ *stream.Plate) (int, error) {
	data := b.Bytes(s.want)
	if len(data) > 0 {
		s.OfferPiece(data)
	}
	return len(data), nil
}

func (s *tcpSender) send(_ context.Context, b *rtp.Batch) (int, error) {
	data := b.Bytes(s.want)
	return len(data), s.Write(data)
}

// A player plays for one session, from PLAY to PAUSE or the end.
type player struct {
	to     sender  // nil of a player that listens to a caster
	cast   *caster // or nil
	rd     *stream.Reader[*rtp.Batch]
	fan    *stream.Fanout[*rtp.Batch]
	feed   *feed
	viewer *stream.Viewer
	stop   context.CancelFunc
	leave  []func() // out of feed, audience and sockets; only after done

	done   chan struct{} // closed when serve returns
	broken bool          // a send failed; for reading after done
}

// newPlayer enters the audience, the feed and, over UDP, the sockets. Call
// close once it is no longer wanted. The error is the audience's.
func (c *conn) newPlayer(ctx context.Context, stop context.CancelFunc, s *session) (*player, error) {
	p := &player{fan: &c.fan, feed: s.feed, stop: stop, done: make(chan struct{})}
	p.viewer = &stream.Viewer{Protocol: s.by.protocol(), Rendition: s.feed.Source.Name, Peer: c.nc.RemoteAddr().String(), Since: time.Now()}
	leave, err := c.Audience.Admit(p.viewer, c.shown)
	if err != nil {
		return nil, err
	}
	c.place.Keep()
	p.leave = append(p.leave, leave, c.place.Yield)
	if s.by == multicast {
		if err := c.listen(ctx, p, s); err != nil {
			p.depart()
			return nil, err
		}
		return p, nil
	}
	rd, unwatch, err := s.watch(ctx)
	if err != nil {
		p.depart()
		return nil, err
	}
	p.rd, p.leave = rd, append(p.leave, unwatch)
	if s.by == udp {
		if err := c.sendByUDP(ctx, p, s); err != nil {
			p.depart()
			return nil, err
		}
		return p, nil
	}
	p.to = &tcpSender{Line: c.line, want: s.want}
	if err := c.line.Play(s.feed.bitrate()); err != nil {
		c.log.Debug("rtsp send buffer stays as it is", "err", err)
	}
	return p, nil
}

// sendByUDP gives p its socket and the receiver reports.
func (c *conn) sendByUDP(ctx context.Context, p *player, s *session) error {
	to := newUDPSender(c.udp, s.want, c.peer, c.local, s.ports, s.feed.bitrate())
	leave, err := to.part(ctx, c.peer, c.local)
	if err != nil {
		return err
	}
	p.to, p.leave = to, append(p.leave, leave, c.udp.join(s.rtcpSources(c.peer), c.reported))
	return nil
}

// watch returns a reader of what the session plays.
func (s *session) watch(ctx context.Context) (rd *stream.Reader[*rtp.Batch], leave func(), err error) {
	if s.secure {
		return s.feed.watchSealed(ctx)
	}
	rd, leave = s.feed.Watch(ctx)
	return rd, leave, nil
}

// listen makes p a member of its group's caster.
func (c *conn) listen(ctx context.Context, p *player, s *session) error {
	key := casterKey{s.feed, c.local}
	cast, leave, err := c.cast.join(ctx, key, p.viewer, func() (groupSender, error) {
		return newGroupSender(ctx, c.group(s.name), c.local, s.feed.bitrate())
	})
	if err != nil {
		return err
	}
	p.cast, p.leave = cast, append(p.leave, leave)
	return nil
}

// reported notes receiver reports that came by UDP.
func (c *conn) reported(reports []rtp.ReceiverReport) {
	c.alive()
	for _, r := range reports {
		c.log.Debug("rtsp receiver report", "ssrc", r.SSRC, "fraction_lost", float64(r.Fraction)/256, "lost", r.Lost, "jitter", r.Jitter)
	}
}

// close ends the player and waits for it: for the batch on its way at most.
func (p *player) close() {
	p.stop()
	<-p.done
	p.depart()
}

func (p *player) depart() {
	for _, leave := range p.leave {
		leave()
	}
	p.leave = nil
}

// info returns the RTP-Info line (RFC 2326, 12.33) for playing from here on,
// or none if no batch comes in time to tell.
func (p *player) info(ctx context.Context, base string, want rtp.Set) []string {
	if p.rd == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, firstBatchTimeout)
	defer cancel()
	b, err := p.rd.Peek(ctx)
	if err != nil {
		return nil
	}
	var parts []string
	for _, m := range []rtp.Medium{rtp.Video, rtp.Sound} {
		if want.Has(m) {
			parts = append(parts, fmt.Sprintf("url=%s%s%d;seq=%d;rtptime=%d", base, controlPrefix, m, b.Seq[m], b.Time[m]))
		}
	}
	return []string{"RTP-Info: " + strings.Join(parts, ",")}
}

var errStreamEnded = errors.New("the stream ended")

// serve plays from begin, when the response to PLAY is out, until ctx ends. A
// player that ends otherwise ends its connection through cancel.
func (p *player) serve(ctx context.Context, begin <-chan struct{}, cancel context.CancelCauseFunc) {
	defer close(p.done)
	select {
	case <-begin:
	case <-ctx.Done():
		return
	}
	if err := p.run(ctx); err != nil {
		cancel(err)
	}
}

// run sends until ctx ends, which is no error. Only a broken connection makes
// it end inside a batch.
func (p *player) run(ctx context.Context) error {
	if p.cast != nil {
		return p.cast.wait(ctx)
	}
	err := p.fan.Serve(ctx, p.rd, p.viewer, p.to)
	switch {
	case errors.Is(err, stream.ErrClosed):
		return errStreamEnded
	case ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		return nil
	default:
		p.broken = true
		return err
	}
}
