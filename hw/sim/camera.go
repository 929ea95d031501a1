package sim

import (
	"context"
	"fmt"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/sim/picture"
)

// Limits of what the camera grants.
const (
	minSize, maxSize = 2, 4096
	minFPS, maxFPS   = 1, 120
	// maxTerm of a rate's fraction keeps the arithmetic of instants exact.
	maxTerm = 1_000_000
)

// queue is how many frames wait for a late reader, as in a driver; after that
// the camera skips.
const queue = 4

// A camera is one place to open a stream; like a real one it can be open once.
type camera struct {
	board    *Board
	id, name string
	inUse    atomic.Bool
}

func (c *camera) ID() string   { return c.id }
func (c *camera) Name() string { return c.name }

// Modes returns examples: any size of even numbers up to 4096x4096 and any
// rate from 1 to 120 frames per second is granted.
func (c *camera) Modes() ([]hw.Mode, error) {
	if on, _ := c.board.faults.get(); on.has(cameraUnplugged) {
		return nil, fmt.Errorf("modes of camera %s: %w", c.id, hw.ErrGone)
	}
	var modes []hw.Mode
	for _, pixel := range []hw.PixelFormat{hw.NV12, hw.I420} {
		for _, m := range []struct{ width, height, fps int }{
			{1920, 1080, 30},
			{1920, 1080, 60},
			{1920, 1080, 25},
			{3840, 2160, 30},
			{1280, 720, 30},
			{640, 360, 30},
		} {
			modes = append(modes, hw.Mode{Pixel: pixel, Width: m.width, Height: m.height, FPS: hw.Rate{Num: m.fps, Den: 1}})
		}
	}
	return modes, nil
}

// Open implements [hw.Camera].
func (c *camera) Open(ctx context.Context, want hw.Mode) (hw.CameraStream, error) {
	s, err := c.open(ctx, grant(want))
	if err != nil {
		return nil, fmt.Errorf("open camera %s: %w", c.id, err)
	}
	return s, nil
}

func (c *camera) open(ctx context.Context, mode hw.Mode) (*cameraStream, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	switch on, _ := c.board.faults.get(); {
	case on.has(cameraUnplugged):
		return nil, hw.ErrGone
	case on.has(cameraBusy):
		return nil, hw.ErrBusy
	}
	pattern, err := picture.NewPattern(mode, c.board.name)
	if err != nil {
		return nil, err
	}
	if !c.inUse.CompareAndSwap(false, true) {
		return nil, hw.ErrBusy
	}
	first := frameAfter(mode.FPS, c.board.now())
	return &cameraStream{
		camera: c, mode: mode, pattern: pattern,
		first: first, next: first, closed: make(chan struct{}),
	}, nil
}

// grant returns the nearest mode that can be painted.
func grant(want hw.Mode) hw.Mode {
	got := hw.Mode{Pixel: want.Pixel, Width: size(want.Width, 1920), Height: size(want.Height, 1080), FPS: want.FPS}
	if got.Pixel != hw.I420 {
		got.Pixel = hw.NV12
	}
	switch fps := got.FPS.Float(); {
	case got.FPS.Num <= 0 || got.FPS.Den <= 0:
		got.FPS = hw.Rate{Num: 30, Den: 1}
	case fps < minFPS:
		got.FPS = hw.Rate{Num: minFPS, Den: 1}
	case fps > maxFPS:
		got.FPS = hw.Rate{Num: maxFPS, Den: 1}
	case max(got.FPS.Num, got.FPS.Den) > maxTerm:
		got.FPS = hw.Rate{Num: int(math.Round(fps * 1000)), Den: 1000}
	}
	return got
}

// size makes a wanted size even, as 4:2:0 likes it, and keeps it in bounds.
func size(want, usual int) int {
	if want <= 0 {
		return usual
	}
	return min(max((want+1)&^1, minSize), maxSize)
}

// instant returns when frame n of CLOCK_MONOTONIC's own grid is taken: frame 0
// at zero. It is computed from the whole number, so no rounding adds up.
func instant(fps hw.Rate, n int64) time.Duration {
	den, num := int64(fps.Den), int64(fps.Num)
	return time.Duration(n*den/num)*time.Second + time.Duration(n*den%num)*time.Second/time.Duration(num)
}

// frameAfter returns the first frame of the grid that is taken at or after at.
func frameAfter(fps hw.Rate, at time.Duration) int64 {
	n := int64(at.Seconds() * fps.Float())
	for n > 0 && instant(fps, n-1) >= at {
		n--
	}
	for instant(fps, n) < at {
		n++
	}
	return n
}

// A cameraStream takes frames on a grid of instants that begins at zero of
// CLOCK_MONOTONIC, so that at whole rates a frame falls on each whole second,
// where the flash begins.
type cameraStream struct {
	camera  *camera
	mode    hw.Mode
	pattern *picture.Pattern
	first   int64 // frame of the grid with Seq 0
	next    int64 // frame to deliver; of Read's goroutine only

	closing sync.Once
	closed  chan struct{}

	frames, missed, damaged atomic.Uint64
}

func (s *cameraStream) Mode() hw.Mode { return s.mode }

func (s *cameraStream) Stats() hw.CameraStats {
	return hw.CameraStats{Frames: s.frames.Load(), Missed: s.missed.Load(), Damaged: s.damaged.Load()}
}

// Close implements [hw.CameraStream]. It ends a Read that waits.
func (s *cameraStream) Close() error {
	s.closing.Do(func() {
		close(s.closed)
		s.camera.inUse.Store(false)
	})
	return nil
}

// Read implements [hw.CameraStream].
func (s *cameraStream) Read(ctx context.Context) (*hw.Frame, error) {
	f, err := s.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("read camera %s: %w", s.camera.id, err)
	}
	return f, nil
}

func (s *cameraStream) read(ctx context.Context) (*hw.Frame, error) {
	for {
		on, wake := s.camera.board.faults.get()
		if err := s.failure(ctx, on); err != nil {
			return nil, err
		}
		at := instant(s.mode.FPS, s.next)
		if on.has(cameraFrozen) {
			at = forever
		}
		if s.camera.board.now() < at {
			if err := s.camera.board.until(ctx, at, s.closed, wake); err != nil {
				return nil, err
			}
			continue
		}
		if f := s.take(on); f != nil {
			return f, nil
		}
	}
}

// forever is an instant that no clock here reaches.
const forever = 1 << 62

// failure says why nothing can be read.
func (s *cameraStream) failure(ctx context.Context, on faults) error {
	select {
	case <-s.closed:
		return os.ErrClosed
	default:
	}
	switch {
	case on.has(cameraUnplugged):
		return hw.ErrGone
	case on.has(cameraNoSignal):
		return hw.ErrNoSignal
	default:
		return context.Cause(ctx)
	}
}

// take returns the frame that is due, or nil if it is lost: empty, or no
// buffer is free.
func (s *cameraStream) take(on faults) *hw.Frame {
	s.skip()
	n := s.next
	s.next++
	if on.has(cameraEmpty) && n%2 == 1 {
		s.damaged.Add(1)
		return nil
	}
	at := instant(s.mode.FPS, n)
	f := s.pattern.Frame(uint32(n-s.first), at, s.camera.board.timeOfDay(at))
	if f == nil {
		s.missed.Add(1)
		return nil
	}
	if on.has(cameraNoiseStamps) {
		f.Stamp += noise(n, s.mode.FPS.Period())
	}
	s.frames.Add(1)
	return f
}

// skip gives up what a late reader has let slip: all but the latest frame.
func (s *cameraStream) skip() {
	latest := frameAfter(s.mode.FPS, s.camera.board.now()+1) - 1
	if latest-s.next >= queue {
		s.missed.Add(uint64(latest - s.next))
		s.next = latest
	}
}

// noise returns up to ±2/5 of period, the same for the same n.
func noise(n int64, period time.Duration) time.Duration {
	h := uint64(n) * 0x9e3779b97f4a7c15 // the constants of SplitMix64
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	const half = 1 << 15
	return period * 2 / 5 * (time.Duration(h>>48) - half) / half
}

// timeOfDay returns the wall-clock time of at since local midnight.
func (b *Board) timeOfDay(at time.Duration) time.Duration {
	t := time.Now().Add(at - b.now())
	h, m, s := t.Clock()
	return time.Duration(h)*time.Hour + time.Duration(m)*time.Minute +
		time.Duration(s)*time.Second + time.Duration(t.Nanosecond())
}
