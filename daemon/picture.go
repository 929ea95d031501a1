package daemon

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/sim/picture"
	"encoderd.example/stream"
)

// A hub stands between the camera and the encoders:
//
//	camera ─ deliver ─►┐
//	                   ├─► pass ─► each encoder at its own rate
//	slate  ─ timer ───►┘
//
// It outlives all of them. While frames come in it forwards them; when they
// stop, the slate takes their place, so that encoders never starve and no
// connection ends because of a cable.
type hub struct {
	now    func() time.Duration // reads the clock of stamps
	frames chan *hw.Frame
	coded  chan *stream.Unit // of a camera that codes by itself
	gone   chan struct{}     // the camera said that it is gone
	shots  chan chan<- *hw.Frame
	easels chan *easel // to paint on from now on
	easel  *easel      // in use; of run's goroutine, and of end

	passed atomic.Uint64 // progress: frames handed to encoders
	slates atomic.Uint64
	missed atomic.Uint64 // frames that found the hub busy

	mu     sync.Mutex
	sinks  []*sink
	gates  []*gate
	signal bool
}

// codedQueue is how many units a camera may be ahead of a busy machine.
const codedQueue = 32

// A sink is one encoder's place at the hub.
type sink struct {
	encoder hw.Encoder
	pace    pacer
}

func newHub() *hub {
	return &hub{
		now:    stream.Monotonic,
		frames: make(chan *hw.Frame, 2),
		coded:  make(chan *stream.Unit, codedQueue),
		gone:   make(chan struct{}, 1),
		shots:  make(chan chan<- *hw.Frame),
		easels: make(chan *easel, 1),
		easel:  &easel{},
	}
}

// deliver hands over a camera's frame and never waits. The hub takes over the
// caller's reference.
func (h *hub) deliver(f *hw.Frame) {
	select {
	case h.frames <- f:
	default:
		h.missed.Add(1)
		f.Release()
	}
}

// deliverUnit hands over a camera's unit and never waits. It reports whether
// there was room: after one that was lost, only a key unit is of use.
func (h *hub) deliverUnit(u *stream.Unit) bool {
	select {
	case h.coded <- u:
		return true
	default:
		h.missed.Add(1)
		return false
	}
}

// join adds a gate.
func (h *hub) join(g *gate) (leave func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gates = append(h.gates, g)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.gates = slices.DeleteFunc(slices.Clone(h.gates), func(o *gate) bool { return o == g })
	}
}

// pass hands a camera's unit to the gates and reports whether one took it.
func (h *hub) pass(u *stream.Unit) (taken bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, g := range h.gates {
		taken = g.through(u) || taken
	}
	if taken {
		h.passed.Add(1)
	}
	return taken
}

// lost says that the camera is gone, so the slate need not wait for frames to
// stay away.
func (h *hub) lost() {
	select {
	case h.gone <- struct{}{}:
	default:
	}
}

// An easel is what slates are painted on: memory of the encoder that reads
// most of them, so that nobody copies, or the heap if it has no pool.
type easel struct {
	pool   hw.Pool
	lender *lender
}

// paintOn makes the hub paint its slates in memory that it closes by give, after
// the last frame, once it paints elsewhere. A nil pool is the heap. It is for
// one goroutine at a time.
func (h *hub) paintOn(pool hw.Pool, give func(hw.Pool)) {
	e := &easel{}
	if pool != nil {
		e = &easel{pool: pool, lender: newLender(pool, give)}
	}
	select {
	case old := <-h.easels:
		old.end()
	default:
	}
	h.easels <- e
}

// slate returns a painter for the easel in use, or for the heap if that does
// not fit.
func (e *easel) slate(c pictureConfig) (*picture.Slate, error) {
	if e.pool != nil {
		l := e.pool.Layout()
		if l.Width == c.Width && l.Height == c.Height {
			return picture.NewSharedSlate(e.pool, c.FPS, noSignal, c.Box)
		}
	}
	return picture.NewSlate(hw.Mode{Pixel: hw.I420, Width: c.Width, Height: c.Height, FPS: c.FPS}, noSignal, c.Box)
}

// noSignal is what viewers read.
const noSignal = "NO SIGNAL"

// lend passes on a frame that was painted here.
func (e *easel) lend(f *hw.Frame) *hw.Frame {
	if f == nil || e.lender == nil || f.Planes[0].FD < 0 {
		return f
	}
	return e.lender.lend(f)
}

func (e *easel) end() {
	if e.lender != nil {
		e.lender.end()
	}
}

// end gives back what slates were painted on; run must have returned.
func (h *hub) end() {
	h.drain()
	select {
	case e := <-h.easels:
		e.end()
	default:
	}
	h.easel.end()
	h.easel = &easel{}
}

// attach adds an encoder that takes up to rate frames a second.
func (h *hub) attach(e hw.Encoder, rate hw.Rate) (detach func()) {
	s := &sink{encoder: e, pace: pacer{period: rate.Period()}}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sinks = append(h.sinks, s)
	return sync.OnceFunc(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		for i, o := range h.sinks {
			if o == s {
				h.sinks = append(h.sinks[:i:i], h.sinks[i+1:]...)
				return
			}
		}
	})
}

// live reports whether a camera's picture is on.
func (h *hub) live() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.signal
}

// errNoFrame says that no frame passed in time for a snapshot.
var errNoFrame = errors.New("no picture yet")

// shot returns the next frame that passes; the caller releases it.
func (h *hub) shot(ctx context.Context) (*hw.Frame, error) {
	got := make(chan *hw.Frame, 1)
	select {
	case h.shots <- got:
		return <-got, nil
	case <-ctx.Done():
		return nil, errNoFrame
	}
}

// What a busy machine or an uneven camera may delay a frame beyond two frames'
// time before the slate comes.
const (
	leastMargin = 5 * time.Millisecond
	mostMargin  = 100 * time.Millisecond
	// firstJitter is what a camera is trusted with before it is known.
	firstJitter = mostMargin / 4
)

// patience is how long frames may stay away before the slate comes: two
// frames, measured at the rate at which they came, because a camera in the
// dark halves its rate, and as much more as they came unevenly.
func patience(period, jitter time.Duration) time.Duration {
	return 2*period + min(max(4*jitter, leastMargin), mostMargin)
}

// run forwards frames until ctx ends.
func (h *hub) run(ctx context.Context, c pictureConfig, live func()) error {
	slate, err := h.easel.slate(c)
	if err != nil {
		return err
	}
	v := &view{hub: h, period: c.FPS.Period(), measured: c.FPS.Period(), jitter: firstJitter}
	defer h.drain()
	timer := time.NewTimer(0) // a box without a camera shows the slate at once
	defer timer.Stop()
	live()
	for {
		select {
		case f := <-h.frames:
			timer.Reset(v.camera(f))
		case u := <-h.coded:
			if wait, ok := v.unit(u); ok {
				timer.Reset(wait)
			}
		case <-h.gone:
			v.gone()
			timer.Reset(0)
		case <-timer.C:
			timer.Reset(v.late(slate))
		case e := <-h.easels:
			h.easel.end()
			h.easel = e
			if slate, err = e.slate(c); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (h *hub) drain() {
	h.setSignal(false)
	for {
		select {
		case f := <-h.frames:
			f.Release()
		case <-h.coded:
		default:
			return
		}
	}
}

func (h *hub) setSignal(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.signal = on
}

// A view is what run knows between frames.
type view struct {
	hub      *hub
	period   time.Duration // as configured
	measured time.Duration // between camera frames, smoothed
	jitter   time.Duration // of their arrival, at its worst lately
	last     time.Duration // stamp of the last frame that passed
	cam      time.Duration // stamp of the last camera frame
	arrived  time.Time     // when it came; zero once the camera is gone
	due      time.Time     // when the slate is to come in its place
	onSlate  bool
	next     time.Time // of the next slate frame
}

// camera passes a camera's frame on, releases it, and returns how long the next
// one may take.
func (v *view) camera(f *hw.Frame) time.Duration {
	defer f.Release()
	v.arrive(time.Now(), f.Stamp)
	if v.onSlate {
		v.onSlate = false
		v.hub.setSignal(true)
		v.hub.cut()
	}
	v.hub.setSignal(true)
	v.pass(f)
	return v.await()
}

// unit passes a camera's unit on and returns how long the next one may take. ok
// is false while the slate stays, because nobody can begin with that unit.
func (v *view) unit(u *stream.Unit) (wait time.Duration, ok bool) {
	if !v.hub.pass(u) {
		return 0, false
	}
	v.arrive(time.Now(), u.DTS)
	v.last, v.onSlate = max(v.last, u.DTS), false
	v.hub.setSignal(true)
	return v.await(), true
}

// await returns how long the next frame may take, from now on.
func (v *view) await() time.Duration {
	wait := patience(v.measured, v.jitter)
	v.due = time.Now().Add(wait)
	return wait
}

// arrive measures how often and how unevenly frames come. The worst counts, and is forgotten
// slowly: one late frame says that more may follow.
func (v *view) arrive(now time.Time, stamp time.Duration) {
	if d := stamp - v.cam; v.cam > 0 && d > 0 && d < time.Second {
		v.measured += (d - v.measured) / 16
	}
	v.cam = stamp
	if !v.arrived.IsZero() {
		off := (now.Sub(v.arrived) - v.measured).Abs()
		v.jitter = max(v.jitter-v.jitter/64, min(off, mostMargin))
	}
	v.arrived = now
}

// gone says that the camera is known to be lost.
func (v *view) gone() { v.due = time.Time{} }

// late is called when frames stay away; it returns the time until the next
// call. A timer that fires late itself says that this machine is busy, and that
// the frame may be on its way.
func (v *view) late(s *picture.Slate) time.Duration {
	if behind := time.Since(v.due); !v.onSlate && !v.due.IsZero() && behind > leastMargin {
		v.due = time.Time{}
		v.jitter = max(v.jitter, min(behind, mostMargin))
		return min(behind, mostMargin)
	}
	return v.slate(s)
}

// slate passes a slate and returns the time until the next.
func (v *view) slate(s *picture.Slate) time.Duration {
	if !v.onSlate {
		v.onSlate, v.next = true, time.Now()
		v.measured, v.jitter, v.arrived = v.period, max(v.jitter, firstJitter), time.Time{}
		v.hub.setSignal(false)
		v.hub.cut()
		v.hub.showSlate()
	}
	if f := v.hub.easel.lend(s.Frame(v.hub.now())); f != nil {
		v.pass(f)
		v.hub.slates.Add(1)
		f.Release()
	}
	// Absolute deadlines keep the rate; a machine that slept starts anew.
	v.next = v.next.Add(v.period)
	if time.Until(v.next) < -time.Second {
		v.next = time.Now()
	}
	return max(time.Until(v.next), 0)
}

// pass hands f to the encoders if its stamp rises.
func (v *view) pass(f *hw.Frame) {
	if f.Stamp <= v.last {
		v.hub.missed.Add(1)
		return
	}
	v.last = f.Stamp
	v.hub.fanOut(f, v.measured)
	select {
	case got := <-v.hub.shots:
		got <- f.Retain()
	default:
	}
}

// fanOut hands f to every encoder that is due. Only a source that is clearly
// faster than a rendition is thinned out: where both have one rate, a frame
// that comes early is jitter, not one too many.
func (h *hub) fanOut(f *hw.Frame, interval time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sinks {
		if interval > s.pace.period*5/6 || s.pace.due(f.Stamp) {
			_ = s.encoder.Submit(f) // a drop is counted by the encoder
		}
	}
	h.passed.Add(1)
}

// cut asks for key frames where the picture changes altogether, and starts the
// pace anew: slates do not stand on the camera's grid, and no frame shall be
// thinned out for that.
func (h *hub) cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sinks {
		s.encoder.ForceKey()
		s.pace.next = 0
	}
}

// showSlate lets encoders take the place of a camera's own units.
func (h *hub) showSlate() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, g := range h.gates {
		g.slate()
	}
}

// A pacer thins frames out to a rate.
type pacer struct {
	period time.Duration
	next   time.Duration
}

// due reports whether the frame of that stamp is wanted. Jitter of a quarter
// of a period is forgiven.
func (p *pacer) due(stamp time.Duration) bool {
	if p.period == 0 {
		return true
	}
	if stamp < p.next-p.period/4 && stamp > p.next-2*p.period {
		return false
	}
	p.next += p.period
	if stamp >= p.next || stamp <= p.next-2*p.period {
		p.next = stamp + p.period
	}
	return true
}
