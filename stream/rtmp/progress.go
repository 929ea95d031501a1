package rtmp

import (
	"log/slog"
	"sync/atomic"
	"time"

	"encoderd.example/stream"
)

// progress carries figures from the sender to the reporter.
type progress struct {
	session atomic.Pointer[baseline] // set once media may flow

	sent, lost atomic.Uint64
	newest     atomic.Int64 // DTS of the newest unit sent
	delay      atomic.Int64 // of encoder and ring: least time from DTS to here
	busy       atomic.Bool  // a unit is being written, or more wait

	wake chan struct{} // of the reporter; one is enough
}

// baseline is a session and the counts at which its media began.
type baseline struct {
	*session
	acked, tcp uint64
}

func newProgress() *progress {
	p := &progress{wake: make(chan struct{}, 1)}
	p.delay.Store(int64(1<<63 - 1))
	return p
}

func (p *progress) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// begin notes that media begins now on s.
func (p *progress) begin(s *session) {
	_, handed := s.wire.tcpCounts()
	// Servers differ in whether they count the handshake.
	p.session.Store(&baseline{session: s, acked: s.w.count() + 1 + 2*handshakeSize, tcp: handed})
	p.nudge()
}

// taken notes that the sender has begun with u.
func (p *progress) taken(u *stream.Unit, lost uint64) {
	p.busy.Store(true)
	p.lost.Store(lost)
	p.delay.Store(min(p.delay.Load(), int64(stream.Monotonic()-u.DTS)))
}

// done notes that u has been handed to the network.
func (p *progress) done(u *stream.Unit, behind int) {
	p.newest.Store(int64(u.DTS))
	p.busy.Store(behind > 0)
}

// lag is exact while the sender keeps up, and otherwise an estimate from the
// clock: the source goes on by real time.
func (p *progress) lag() time.Duration {
	newest := p.newest.Load()
	if !p.busy.Load() || newest == 0 {
		return 0
	}
	return max(stream.Monotonic()-time.Duration(p.delay.Load())-time.Duration(newest), 0)
}

// A reporter turns progress into reports.
type reporter struct {
	*progress
	log     *slog.Logger
	receipt receipt
	start   time.Time
	last    stream.PushState
}

func (r *reporter) report() stream.PushReport {
	report := stream.PushReport{Sent: r.sent.Load(), Lost: r.lost.Load(), Lag: r.lag()}
	if b := r.session.Load(); b != nil {
		report.State = r.receipt.update(r.evidence(b))
	}
	if report.State != r.last {
		r.note(report.State)
	}
	return report
}

func (r *reporter) evidence(b *baseline) evidence {
	tcp, _ := b.wire.tcpCounts()
	return evidence{
		now: time.Since(r.start), sent: r.sent.Load(), busy: r.busy.Load(),
		acked: beyond(b.session.acked.Load(), b.acked), tcp: beyond(tcp, b.tcp),
	}
}

func beyond(count, base uint64) uint64 { return max(count, base) - base }

// note logs an edge.
func (r *reporter) note(state stream.PushState) {
	switch {
	case state == stream.PushConfirmed:
		proof := "tcp"
		if r.receipt.acked > 0 {
			proof = "server"
		}
		r.log.Info("receipt confirmed", "proof", proof)
	case r.last == stream.PushConfirmed:
		r.log.Warn("receipt not confirmed any more")
	default:
		r.log.Info("sending")
	}
	r.last = state
}

// run tells about once a second and at every nudge until done is closed.
func (r *reporter) run(done <-chan struct{}, tell func(stream.PushReport)) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		tell(r.report())
		select {
		case <-done:
			return
		case <-r.wake:
		case <-tick.C:
		}
	}
}
