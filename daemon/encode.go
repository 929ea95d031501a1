package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"encoderd.example/daemon/config"
	"encoderd.example/daemon/supervise"
	"encoderd.example/hw"
	"encoderd.example/stream"
)

// How long a driver may take before it is left behind: well below the 10 s of
// the watchdog, which is not to bite while the ladder works.
const (
	openPatience  = 4 * time.Second
	closePatience = 2500 * time.Millisecond
)

// The causes for which an encoder is exchanged while its rendition stays on
// air.
var (
	errStuck     = errors.New("takes pictures and gives nothing")
	errNewLayout = errors.New("the camera's pictures lie differently in memory")
	errNewRate   = errors.New("the camera's pictures come at another rate")
)

// exchanged reports whether an encoder is to be opened anew though nothing is
// wrong with it. One that did not stop is no such: opened a second time, a chip
// that hangs may take the box down.
func exchanged(err error) bool {
	return !errors.Is(err, errHangs) && (errors.Is(err, errNewLayout) || errors.Is(err, errNewRate))
}

// encode runs one rendition's encoders, one after the other: see [ladder].
func (d *Daemon) encode(c encodeConfig) run {
	l := &ladder{names: strings.Fields(c.Drivers)}
	return func(ctx context.Context, live func()) error {
		r := d.Rendition(c.Rendition)
		if r == nil {
			return supervise.Permanent(fmt.Errorf("%q: %w", c.Rendition, ErrNoRendition))
		}
		g := &gate{rendition: r, live: live, camera: c.Choice == config.Camera}
		defer d.hub.join(g)()
		for {
			s, err := d.openSession(c, l)
			if err != nil {
				return err
			}
			g.note.Store(s.note)
			err = errors.Join(s.run(ctx, g), s.close())
			switch {
			case ctx.Err() != nil:
				return nil
			case exchanged(err):
				d.Log.Info("encoder opens anew", "rendition", c.Rendition, "encoder", s.driver.Name, "why", err)
			case d.step(s, l, err):
			default:
				return fmt.Errorf("encoder %s: %w", s.driver.Name, err)
			}
		}
	}
}

// step takes in that an encoder failed and reports whether another try may
// follow at once. Where no other encoder is left, the supervisor's pauses are
// better than a loop.
func (d *Daemon) step(s *session, l *ladder, err error) bool {
	stands := errors.Is(err, errStuck)
	if !stands && l.rung+1 >= len(l.names) {
		return false
	}
	before := l.rung
	if errors.Is(err, hw.ErrGone) && !errors.Is(err, errHangs) {
		d.mu.Lock()
		d.departures.add(s.driver.Name)
		d.mu.Unlock()
	}
	hopeless := errors.Is(err, errHangs) || errors.Is(err, hw.ErrGone)
	l.strike(fmt.Sprintf("%s: %s: %v", s.config.Rendition, s.driver.Name, err), hopeless)
	d.Log.Warn("encoder failed", "rendition", s.config.Rendition, "encoder", s.driver.Name, "err", err, "next", l.name())
	if l.rung > before {
		s.note.steps.Add(1)
	}
	return true
}

// A session is one encoder at work.
type session struct {
	d      *Daemon
	config encodeConfig
	driver hw.EncoderDriver
	enc    hw.Encoder
	note   *encoderNote
	ladder *ladder
	units  atomic.Uint64
	opened time.Time
	pace   pace

	seen   uint64 // version of the source that input is for
	input  hw.Layout
	raised bool // the bit rate is above its target for a while
	lost   bool // nothing is left to be done
	copies bool // the driver refused the camera's memory
}

// openSession opens the encoder on which the ladder stands, or one below it.
func (d *Daemon) openSession(c encodeConfig, l *ladder) (*session, error) {
	if len(l.names) == 0 {
		return nil, d.noEncoder(c)
	}
	c.Bitrate = d.target(c.Rendition)
	var errs []error
	for before := *l; ; {
		d.noteStep(c.Rendition)
		s, err := d.tryEncoder(c, l)
		if err == nil {
			return s, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", l.name(), err))
		if l.rung+1 >= len(l.names) {
			*l = before
			return nil, errors.Join(errs...)
		}
		l.fall(fmt.Sprintf("%s: %s: %v", c.Rendition, l.name(), err))
	}
}

// noEncoder says why a rendition has none.
func (d *Daemon) noEncoder(c encodeConfig) error {
	d.mu.Lock()
	reason := d.placed[c.Rendition].Reason
	d.mu.Unlock()
	if reason != "" {
		return fmt.Errorf("%w: %s", errOverload, reason)
	}
	kind := strings.TrimPrefix(c.Choice+" encoder", "auto ")
	err := fmt.Errorf("this board has no %s for %s: %w", kind, c.Codec, hw.ErrMissing)
	if c.Codec != stream.H264 {
		err = fmt.Errorf(`%w; write codec = "h264"`, err)
	}
	return err
}

func (d *Daemon) tryEncoder(c encodeConfig, l *ladder) (*session, error) {
	driver, ok := d.driver(l.name())
	if !ok {
		return nil, hw.ErrGone
	}
	if err := d.book(c, driver); err != nil {
		return nil, err
	}
	s := &session{d: d, config: c, driver: driver, ladder: l, opened: time.Now()}
	var plan hw.BufferPlan
	plan, s.input, s.seen = d.buffersFor(driver, c.EncoderConfig)
	source := d.hub.rate()
	s.pace = newPace(c.EncoderConfig, source, driver.LiveRate && !l.fixed)
	conf := s.pace.opened
	conf.Input = s.input
	open := func() (hw.Encoder, error) { return driver.Open(conf) }
	enc, err := within(&d.calls, openPatience, "open "+driver.Name, open, func(e hw.Encoder) { _ = e.Close() })
	if err != nil {
		return nil, err
	}
	s.enc = enc
	if rate := rateOf(c.FPS, source); rate != s.pace.rate() {
		s.tell(rate)
	}
	s.note = d.noteEncoder(c.Rendition, driver, enc, c.Bitrate, l.left)
	l.left = false
	d.noteBuffers(s.note, plan, l.reason)
	s.note.steps.Add(1)
	d.paint(c.Rendition, s.input)
	return s, nil
}

// run publishes what the encoder codes until ctx ends, the encoder fails, or
// it has to be exchanged.
func (s *session) run(ctx context.Context, g *gate) error {
	ctx, end := context.WithCancelCause(ctx)
	detach := s.d.hub.attach(s.enc, s.config.FPS)
	var guard sync.WaitGroup
	guard.Go(func() { s.guard(ctx, end, g.rendition.KeyWanted()) })
	defer guard.Wait()
	defer end(nil)
	defer detach()
	for {
		u, err := s.enc.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		}
		s.units.Add(1)
		if s.pace.keyDue(u) {
			s.enc.ForceKey()
		}
		g.encoded(u)
	}
}

// close gives the encoder up. A device that hangs may hold its closer for
// ever; then the box goes on without it.
func (s *session) close() error {
	s.d.noteEncoderEnd(s.note)
	err := s.d.calls.closeInTime("close "+s.driver.Name, s.enc.Close)
	if errors.Is(err, errHangs) {
		s.d.Log.Error("encoder is left behind", "rendition", s.config.Rendition, "encoder", s.driver.Name, "err", err)
		s.ladder.left = true
	}
	return err
}

// guard looks after the encoder until ctx ends, and ends it with the cause for
// which it has to be exchanged. It passes the wishes of readers on.
func (s *session) guard(ctx context.Context, end context.CancelCauseFunc, keyWanted <-chan struct{}) {
	look := newStall(s.driver.Hardware, s.pace.rate())
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-keyWanted:
			s.enc.ForceKey()
			continue
		case <-ctx.Done():
			return
		}
		if s.outdated() {
			end(errNewLayout)
			return
		}
		switch changed, err := s.follow(); {
		case err != nil:
			end(err)
			return
		case changed:
			look.setRate(s.pace.rate())
		}
		s.lookAtCopies()
		st := s.enc.Stats()
		switch look.look(s.units.Load(), st.Submitted+st.Dropped) {
		case nudge:
			s.nudge()
		case stuck:
			if !s.ladder.last() {
				s.note.steps.Add(1)
				end(errStuck)
				return
			}
			s.giveUp()
		case wait:
			s.relax(look)
		}
	}
}

// A copier is an encoder that may have to copy what it was to read in place.
type copier interface {
	// CopyReason says why in words, or "".
	CopyReason() string
}

// lookAtCopies corrects the plan if the driver refused the camera's memory.
func (s *session) lookAtCopies() {
	c, ok := s.enc.(copier)
	if !ok || s.copies {
		return
	}
	if why := c.CopyReason(); why != "" {
		s.copies = true
		s.d.noteBuffers(s.note, hw.BufferPlan{Way: hw.Copy, Reason: why}, s.ladder.reason)
		s.d.Log.Warn("encoder copies pictures", "rendition", s.config.Rendition, "encoder", s.driver.Name, "why", why)
	}
}

// giveUp leaves the rest to the watchdog: the encoder may yet come back.
func (s *session) giveUp() {
	if !s.lost {
		s.d.Log.Error("encoder hangs and no other is left", "rendition", s.config.Rendition, "encoder", s.driver.Name)
	}
	s.lost = true
}

// nudge gives the encoder more bits, where it is hardware, and a new start.
func (s *session) nudge() {
	s.d.noteRecovering(s.note, true)
	if s.ladder.last() {
		return // all has been tried: the watchdog shall see it
	}
	s.note.steps.Add(1)
	target := s.d.target(s.config.Rendition)
	if s.driver.Hardware && s.enc.SetBitrate(target+target/4) == nil {
		s.raised = true
	}
	s.enc.ForceKey()
	s.d.Log.Warn("encoder is nudged", "rendition", s.config.Rendition, "encoder", s.driver.Name, "raised", s.raised)
}

// relax takes back what was done about an encoder that runs well again.
func (s *session) relax(look *stall) {
	if look.good > 0 {
		s.d.noteRecovering(s.note, false)
	}
	if !look.well() {
		return
	}
	s.ladder.forgive()
	if s.raised && s.enc.SetBitrate(s.d.target(s.config.Rendition)) == nil {
		s.raised = false
	}
}

// reopenAfter is how long an encoder is kept at least before it is opened anew
// for another layout: some hardware does not like to be opened often.
const reopenAfter = 3 * time.Second

// outdated reports whether the encoder is to be opened anew because a camera
// came whose pictures lie differently in memory and could be read in place.
func (s *session) outdated() bool {
	if s.d.sourceVersion() == s.seen || s.driver.Importer != nil && time.Since(s.opened) < reopenAfter {
		return false
	}
	plan, input, seen := s.d.buffersFor(s.driver, s.config.EncoderConfig)
	if input != s.input && (shares(plan.Way) || plan.Way == hw.Copy) {
		return true
	}
	s.seen = seen
	if !s.copies {
		s.d.noteBuffers(s.note, plan, s.ladder.reason)
	}
	return false
}

// target is the bit rate that the config has now.
func (d *Daemon) target(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, _ := d.config.Rendition(name)
	return int(r.Bitrate)
}
