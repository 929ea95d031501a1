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
	queue  *queue               // from the camera
	shots  chan chan<- *hw.Frame
	easels chan *easel   // to paint on from now on
	drawn  chan struct{} // of one: the curtain has moved
	easel  *easel        // in use; of run's goroutine, and of end

	passed atomic.Uint64 // progress: frames handed to encoders
	slates atomic.Uint64
	missed atomic.Uint64 // frames that found the hub busy

	mu      sync.Mutex
	sinks   []*sink
	gates   []*gate
	signal  bool
	curtain bool    // the slate hides the camera
	base    hw.Rate // as configured
	tempo   hw.Rate // of what passes, for encoders; the slate keeps that of the camera before
	opened  hw.Rate // of the camera's mode; zero while there is none
}

// A sink is one encoder's place at the hub.
type sink struct {
	encoder hw.Encoder
	pace    pacer
}

func newHub() *hub {
	return &hub{
		now:    stream.Monotonic,
		queue:  newQueue(),
		shots:  make(chan chan<- *hw.Frame),
		easels: make(chan *easel, 1),
		drawn:  make(chan struct{}, 1),
		easel:  &easel{},
	}
}

// deliver hands over a camera's frame and never waits. The hub takes over the
// caller's reference.
func (h *hub) deliver(f *hw.Frame) {
	if !h.queue.put(arrival{frame: f}) {
		h.missed.Add(1)
		f.Release()
	}
}

// deliverUnit hands over a camera's unit and never waits. It reports whether
// there was room: after one that was lost, only a key unit is of use.
func (h *hub) deliverUnit(u *stream.Unit) bool {
	if !h.queue.put(arrival{unit: u}) {
		h.missed.Add(1)
		return false
	}
	return true
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

// begin says that a camera was opened, and the rate of its mode; zero if that
// is not known.
func (h *hub) begin(r hw.Rate) {
	h.setOpened(r)
	h.queue.put(arrival{rate: r})
}

// lost says that the camera is gone, so the slate need not wait for frames to
// stay away. Those that came before it still pass.
func (h *hub) lost() {
	h.setOpened(hw.Rate{})
	h.queue.put(arrival{gone: true})
}

func (h *hub) setOpened(r hw.Rate) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.opened = r
}

// rate is how many pictures a second pass, camera or slate; zero before the hub
// has run.
func (h *hub) rate() hw.Rate {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tempo
}

func (h *hub) setRate(r hw.Rate) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tempo = r
}

// startRate is the rate to begin with at a configured one. Where only the name
// of the box has changed, that is the one before.
func (h *hub) startRate(configured hw.Rate) tempo {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := tempo{rate: configured}
	if h.base == configured && h.tempo.Den > 0 {
		t.rate, t.granted = h.tempo, nominal(h.opened)
	} else {
		t.begin(h.opened)
	}
	h.base, h.tempo = configured, t.rate
	return t
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
func (e *easel) slate(c pictureConfig, words string) (*picture.Slate, error) {
	if e.pool != nil {
		l := e.pool.Layout()
		if l.Width == c.Width && l.Height == c.Height {
			return picture.NewSharedSlate(e.pool, c.FPS, words, c.Box)
		}
	}
	return picture.NewSlate(hw.Mode{Pixel: hw.I420, Width: c.Width, Height: c.Height, FPS: c.FPS}, words, c.Box)
}

// What viewers read on a slate.
const (
	noSignal = "NO SIGNAL"
	pause    = "PAUSE" // a stop that somebody may still think over
)

// drawCurtain hides the camera behind a slate, or shows it again. Frames of the
// camera are still counted as signal.
func (h *hub) drawCurtain(closed bool) {
	h.mu.Lock()
	moved := h.curtain != closed
	h.curtain = closed
	h.mu.Unlock()
	if !moved {
		return
	}
	select {
	case h.drawn <- struct{}{}:
	default: // told already
	}
}

// words are what the slate says now.
func (h *hub) words() (words string, closed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.curtain {
		return pause, true
	}
	return noSignal, false
}

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
	// evenStamps is the jitter of a camera that keeps its time; it has half a
	// frame's time at most.
	evenStamps = 2 * time.Millisecond
	// A camera that was back so soon after the slate came was not lost: for
	// the time after that it is trusted with more.
	falseAlarm = time.Second
	doubtTime  = time.Minute
)

// run forwards frames until ctx ends.
func (h *hub) run(ctx context.Context, c pictureConfig, live func()) error {
	v := newView(h, h.startRate(c.FPS))
	var words string
	words, v.curtain = h.words()
	slate, err := h.easel.slate(c, words)
	if err != nil {
		return err
	}
	defer h.drain()
	timer := time.NewTimer(0) // a box without a camera shows the slate at once
	defer timer.Stop()
	live()
	for {
		select {
		case <-h.queue.wake:
			v.arrivals(timer)
		case <-timer.C:
			if !v.arrivals(timer) { // a frame that is here goes first
				timer.Reset(v.late(slate))
			}
		case e := <-h.easels:
			h.easel.end()
			h.easel = e
			if slate, err = e.slate(c, words); err != nil {
				return err
			}
		case <-h.drawn:
			words, v.curtain = h.words()
			if slate, err = h.easel.slate(c, words); err != nil {
				return err
			}
			v.draw(timer)
		case <-ctx.Done():
			return nil
		}
	}
}

func (h *hub) drain() {
	h.setSignal(false)
	for a, ok := h.queue.next(); ok; a, ok = h.queue.next() {
		if a.frame != nil {
			a.frame.Release()
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
	tempo    tempo         // of the camera
	period   time.Duration // of slates: as configured, or the last camera's
	measured time.Duration // between camera frames, smoothed
	jitter   time.Duration // of their arrival, at its worst lately
	uneven   time.Duration // of their stamps, likewise
	last     time.Duration // stamp of the last frame that passed
	cam      time.Duration // stamp of the last camera frame
	arrived  time.Time     // when it came; zero once the camera is gone
	due      time.Time     // when the slate is to come in its place
	onSlate  bool
	curtain  bool      // the camera stays behind the slate
	lost     bool      // the camera said so
	silent   time.Time // when the slate came only because frames stayed away
	doubted  time.Time // when that was for nothing
	next     time.Time // of the next slate frame
}

func newView(h *hub, t tempo) *view {
	p := t.rate.Period()
	return &view{hub: h, tempo: t, period: p, measured: p, jitter: firstJitter, uneven: firstJitter}
}

// arrivals takes in what came from the camera, sets the time that the next
// frame may take, and reports whether there was anything.
func (v *view) arrivals(timer *time.Timer) (came bool) {
	for a, ok := v.hub.queue.next(); ok; a, ok = v.hub.queue.next() {
		if wait, told := v.take(a); told {
			timer.Reset(wait)
			came = true
		}
	}
	return came
}

// take takes in one arrival and returns how long the next may take; told is
// false if that is as before.
func (v *view) take(a arrival) (wait time.Duration, told bool) {
	switch {
	case a.frame != nil:
		return v.camera(a.frame)
	case a.unit != nil:
		return v.unit(a.unit)
	case a.gone:
		v.due, v.lost = time.Time{}, true
		if v.curtain {
			v.hub.setSignal(false)
		}
		return 0, !v.onSlate
	default:
		v.begin(a.rate)
		return 0, false
	}
}

// begin takes in the rate of a camera that was opened.
func (v *view) begin(granted hw.Rate) {
	v.tempo.begin(granted)
	v.follow()
	v.measured = v.period
}

// follow makes slates and encoders keep the camera's rate.
func (v *view) follow() {
	v.period = v.tempo.rate.Period()
	v.hub.setRate(v.tempo.rate)
}

// draw closes the curtain: a slate comes at once. Where it opens, the next frame
// of the camera ends the slate, if one comes.
func (v *view) draw(timer *time.Timer) {
	if v.curtain {
		v.onSlate, v.due = false, time.Time{}
		timer.Reset(0)
		return
	}
	v.hub.setSignal(!v.lost && !v.arrived.IsZero() && time.Since(v.arrived) < v.patience())
}

// camera passes a camera's frame on, releases it, and returns how long the next
// one may take; ok is false while the slate stays, because the curtain is closed.
func (v *view) camera(f *hw.Frame) (wait time.Duration, ok bool) {
	defer f.Release()
	v.arrive(time.Now(), f.Stamp, f.Seq)
	if v.curtain {
		v.hub.setSignal(true)
		return 0, false
	}
	if v.onSlate {
		v.onSlate = false
		v.hub.setSignal(true)
		v.hub.cut()
	}
	v.hub.setSignal(true)
	v.pass(f)
	return v.await(), true
}

// unit passes a camera's unit on and returns how long the next one may take. ok
// is false while the slate stays, because nobody can begin with that unit.
func (v *view) unit(u *stream.Unit) (wait time.Duration, ok bool) {
	if v.curtain {
		v.arrive(time.Now(), u.DTS, 0)
		v.hub.setSignal(true)
		return 0, false
	}
	if !v.hub.pass(u) {
		return 0, false
	}
	v.arrive(time.Now(), u.DTS, 0)
	v.last, v.onSlate = max(v.last, u.DTS), false
	v.hub.setSignal(true)
	return v.await(), true
}

// await returns how long the next frame may take, from now on.
func (v *view) await() time.Duration {
	wait := v.patience()
	v.due = time.Now().Add(wait)
	return wait
}

// patience is how long frames may stay away before the slate comes: two
// frames, measured at the rate at which they came, because a camera in the
// dark halves its rate, and as much more as they came unevenly.
func (v *view) patience() time.Duration {
	if !v.doubted.IsZero() && time.Since(v.doubted) < doubtTime {
		return 2*v.measured + mostMargin
	}
	return 2*v.measured + min(max(4*v.jitter, leastMargin), v.mostMargin())
}

// mostMargin is what a frame may be late at most.
func (v *view) mostMargin() time.Duration {
	if v.uneven < evenStamps {
		return min(mostMargin, v.measured/2)
	}
	return mostMargin
}

// arrive measures how often and how unevenly frames come. The worst counts, and is forgotten
// slowly: one late frame says that more may follow.
func (v *view) arrive(now time.Time, stamp time.Duration, seq uint32) {
	if !v.silent.IsZero() && now.Sub(v.silent) < falseAlarm {
		v.doubted = now
	}
	v.silent, v.lost = time.Time{}, false
	if d := stamp - v.cam; v.cam > 0 && d > 0 && d < time.Second {
		v.uneven = max(v.uneven-v.uneven/16, (d - v.measured).Abs())
		v.measured += (d - v.measured) / 16
	}
	v.cam = stamp
	if !v.arrived.IsZero() {
		off := (now.Sub(v.arrived) - v.measured).Abs()
		v.jitter = max(v.jitter-v.jitter/64, min(off, mostMargin))
	}
	v.arrived = now
	if v.tempo.picture(stamp, seq) {
		v.follow()
	}
}

// late is called when frames stay away; it returns the time until the next
// call. A timer that fires late itself says that this machine is busy, and that
// the frame may be on its way.
func (v *view) late(s *picture.Slate) time.Duration {
	if behind := time.Since(v.due); !v.onSlate && !v.due.IsZero() && behind > leastMargin {
		v.due = time.Time{}
		v.jitter = max(v.jitter, min(behind, mostMargin))
		return min(behind, v.mostMargin())
	}
	return v.slate(s)
}

// slate passes a slate and returns the time until the next.
func (v *view) slate(s *picture.Slate) time.Duration {
	if !v.onSlate {
		v.onSlate, v.next = true, time.Now()
		if !v.lost && !v.arrived.IsZero() && !v.curtain {
			v.silent = v.next
		}
		v.measured, v.arrived = v.period, time.Time{}
		v.jitter, v.uneven = max(v.jitter, firstJitter), firstJitter
		if !v.curtain {
			v.hub.setSignal(false)
		}
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
	v.hub.fanOut(f, v.tempo.rate.Period())
	select {
	case got := <-v.hub.shots:
		got <- f.Retain()
	default:
	}
}

// fanOut hands f to every encoder that is due. Which ones are not given all
// pictures goes by the period that encoders are told of, see [rateOf], and not
// by one that jitter moves.
func (h *hub) fanOut(f *hw.Frame, period time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sinks {
		if !thins(period, s.pace.period) || s.pace.due(f.Stamp) {
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
