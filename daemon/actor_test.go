package daemon

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/hw"
	"encoderd.example/stream"
)

// An actor is a camera that does what a test says.
type actor struct {
	mode    hw.Mode // that it grants, but for the rate
	rate    atomic.Pointer[hw.Rate]
	clock   func() time.Duration
	fails   chan error    // what the next Read says, at once
	opens   chan error    // what Open says from now on; empty: well
	seldom  atomic.Int32  // only each so many-th picture comes, if not zero
	silent  atomic.Bool   // none comes
	opened  atomic.Int32  // times that it was
	closed  atomic.Int32  // times that it was
	opening hunt          // hangs with the driver
	closing time.Duration // that Close takes
}

func newActor(rate hw.Rate) *actor {
	a := &actor{mode: hw.Mode{Pixel: hw.NV12, Width: 128, Height: 72}}
	a.rate.Store(&rate)
	return a
}

// granted is the mode that it grants.
func (a *actor) granted() hw.Mode {
	m := a.mode
	m.FPS = *a.rate.Load()
	return m
}

func (a *actor) ID() string                { return "actor" }
func (a *actor) Name() string              { return "Actor" }
func (a *actor) Modes() ([]hw.Mode, error) { return []hw.Mode{a.granted()}, nil }

func (a *actor) Open(context.Context, hw.Mode) (hw.CameraStream, error) {
	a.opened.Add(1)
	a.opening.wait()
	select {
	case err := <-a.opens:
		return nil, err
	default:
		return &take{actor: a, mode: a.granted(), at: a.clock()}, nil
	}
}

// A take is an actor's capture.
type take struct {
	*actor
	mode hw.Mode
	at   time.Duration // of the last picture
	seq  atomic.Uint32
}

func (s *take) Mode() hw.Mode         { return s.mode }
func (s *take) Stats() hw.CameraStats { return hw.CameraStats{Frames: uint64(s.seq.Load())} }

func (s *take) Close() error {
	time.Sleep(s.closing)
	s.closed.Add(1)
	return nil
}

func (s *take) Read(ctx context.Context) (*hw.Frame, error) {
	s.at += s.mode.FPS.Period() * time.Duration(max(s.seldom.Load(), 1))
	timer := time.NewTimer(s.at - s.clock())
	defer timer.Stop()
	for {
		select {
		case err := <-s.fails:
			return nil, err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-timer.C:
		}
		if !s.silent.Load() {
			break
		}
		timer.Reset(s.mode.FPS.Period())
	}
	f, err := hw.NewMemoryFrame(s.mode, nil)
	if err != nil {
		return nil, err
	}
	f.Stamp, f.Seq = s.at, s.seq.Add(1)
	return f.Lend(), nil
}

// A theatre is a box with an actor before it and an encoder that notes when a
// slate goes in.
type theatre struct {
	*rig
	actor *actor
	hard  *ratedDriver
	spare *videoDriver // software, if set before

	mu     sync.Mutex
	slates map[time.Duration]bool // stamps
}

// A ratedDriver makes encoders that can be told the rate.
type ratedDriver struct {
	videoDriver
	fixed  atomic.Bool // they cannot; its driver says so if that was set before the box ran
	mu     sync.Mutex
	rates  []hw.Rate // told
	slated func(*hw.Frame)
}

type ratedVideo struct {
	*fakeVideo
	driver *ratedDriver
}

func (d *ratedDriver) open(c hw.EncoderConfig) (hw.Encoder, error) {
	e, err := d.videoDriver.open(c)
	if err != nil {
		return nil, err
	}
	return ratedVideo{e.(*fakeVideo), d}, nil
}

// told returns the rates that encoders were told.
func (d *ratedDriver) told() []hw.Rate {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]hw.Rate(nil), d.rates...)
}

func (e ratedVideo) SetRate(r hw.Rate) error {
	if e.driver.fixed.Load() {
		return fmt.Errorf("rate: %w", hw.ErrUnsupported)
	}
	e.driver.mu.Lock()
	defer e.driver.mu.Unlock()
	e.driver.rates = append(e.driver.rates, r)
	return nil
}

func (e ratedVideo) Submit(f *hw.Frame) error {
	e.driver.slated(f)
	return e.fakeVideo.Submit(f)
}

// inTheatre runs a test on a box before which an actor plays.
func inTheatre(t *testing.T, doc string, a *actor, camera func(*actor) hw.Camera, before func(*theatre), test func(*theatre)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		th := &theatre{actor: a, hard: &ratedDriver{}, slates: map[time.Duration]bool{}}
		a.clock, a.fails, a.opens = bubbleClock(), make(chan error), make(chan error, 1)
		th.hard.slated = func(f *hw.Frame) {
			if f.Pixel != hw.NV12 {
				th.mu.Lock()
				defer th.mu.Unlock()
				th.slates[f.Stamp] = true
			}
		}
		if before != nil {
			before(th)
		}
		th.rig = newRig(t, doc, func(b *hw.Board) {
			b.Cameras = func() ([]hw.Camera, error) { return []hw.Camera{camera(a)}, nil }
			b.Encoders = []hw.EncoderDriver{{Name: "enc", Hardware: true, Codecs: []stream.Codec{stream.H264}, Open: th.hard.open, LiveRate: !th.hard.fixed.Load()}}
			if th.spare != nil {
				b.Encoders = append(b.Encoders, th.spare.driver("spare", false))
			}
		})
		defer th.stop()
		th.until("box on duty", onDuty)
		test(th)
	})
}

// plain is the actor as any camera.
func plain(a *actor) hw.Camera { return a }

// slate waits for the first unit of a slate that was painted from now on, and
// returns how long that took.
func (th *theatre) slate() time.Duration {
	th.t.Helper()
	rd, began := th.Rendition("main").Reader(), th.actor.clock()
	for {
		u, err := rd.Next(th.t.Context())
		if err != nil {
			th.t.Fatal(err)
		}
		th.mu.Lock()
		is := th.slates[u.PTS] && u.Track.Codec.Video()
		th.mu.Unlock()
		if is && u.PTS >= began {
			return th.actor.clock() - began
		}
	}
}
