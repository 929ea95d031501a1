package daemon

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/hw"
	"encoderd.example/stream"
)

// recorder is an encoder that notes what it is given.
type recorder struct {
	mu     sync.Mutex
	stamps []time.Duration
	seqs   []uint32
	keys   int
}

func (r *recorder) Submit(f *hw.Frame) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stamps, r.seqs = append(r.stamps, f.Stamp), append(r.seqs, f.Seq)
	return nil
}

func (r *recorder) ForceKey() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys++
}

func (r *recorder) take() (n, keys int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, keys = len(r.stamps), r.keys
	r.stamps, r.keys = nil, 0
	return n, keys
}

func (r *recorder) Next(ctx context.Context) (*stream.Unit, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
func (r *recorder) SetBitrate(int) error   { return nil }
func (r *recorder) Stats() hw.EncoderStats { return hw.EncoderStats{} }
func (r *recorder) Close() error           { return nil }

// studio is a hub under test with a camera made by hand.
type studio struct {
	*hub
	t    *testing.T
	enc  *recorder
	stop func()
}

var ten = pictureConfig{Box: "test", Width: 64, Height: 36, FPS: hw.Rate{Num: 10, Den: 1}}

func newStudio(t *testing.T) *studio {
	t.Helper()
	s := &studio{hub: newHub(), t: t, enc: &recorder{}}
	s.now = bubbleClock()
	s.attach(s.enc, ten.FPS)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.run(ctx, ten, func() {}) }()
	s.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	synctest.Wait()
	return s
}

// bubbleClock is CLOCK_MONOTONIC of a synctest bubble.
func bubbleClock() func() time.Duration {
	begin := time.Now()
	return func() time.Duration { return time.Hour + time.Since(begin) }
}

// shoot delivers one camera frame.
func (s *studio) shoot(seq uint32) *hw.Frame {
	s.t.Helper()
	f, err := hw.NewMemoryFrame(hw.Mode{Pixel: hw.I420, Width: 64, Height: 36}, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	f.Stamp, f.Seq = s.now(), seq
	s.deliver(f.Lend())
	synctest.Wait()
	return f
}

func TestABoxWithoutACameraShowsTheSlateAtTheFullRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStudio(t)
		defer s.stop()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n, _ := s.enc.take(); n < 100 || n > 102 || s.live() {
			t.Errorf("%d slates in ten seconds at 10 fps, live %v", n, s.live())
		}
	})
}

func TestTheCamerasPictureComesAndGoesAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStudio(t)
		defer s.stop()
		film := func(frames int) {
			for i := range frames {
				s.shoot(uint32(i))
				time.Sleep(100 * time.Millisecond)
			}
		}
		time.Sleep(time.Second)
		s.enc.take()

		film(20)
		if n, keys := s.enc.take(); n < 19 || keys != 1 || !s.live() { // the first may come too soon after a slate
			t.Errorf("camera came: %d frames, %d key frames asked for, live %v", n, keys, s.live())
		}
		time.Sleep(time.Second)
		if n, keys := s.enc.take(); n < 6 || n > 10 || keys != 1 || s.live() {
			t.Errorf("camera froze: %d slates, %d key frames asked for, live %v", n, keys, s.live())
		}
		film(5)
		if n, keys := s.enc.take(); n < 4 || keys != 1 || !s.live() {
			t.Errorf("camera is back: %d frames, %d key frames asked for, live %v", n, keys, s.live())
		}
	})
}

func TestALostCameraIsReplacedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStudio(t)
		defer s.stop()
		time.Sleep(10 * time.Second)
		s.shoot(1)
		s.enc.take()
		time.Sleep(20 * time.Millisecond)
		s.lost()
		time.Sleep(2 * ten.FPS.Period())
		synctest.Wait()
		if n, keys := s.enc.take(); n == 0 || keys != 1 || s.live() {
			t.Errorf("%d slates within two frames' time, %d key frames asked for, live %v", n, keys, s.live())
		}
	})
}

func TestACameraInTheDarkIsNoLostCamera(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStudio(t)
		defer s.stop()
		time.Sleep(time.Second)
		s.enc.take()
		for i := range 20 { // a third of the rate asked for
			s.shoot(uint32(i))
			time.Sleep(280 * time.Millisecond)
		}
		if n, _ := s.enc.take(); n < 19 || !s.live() {
			t.Errorf("%d pictures, live %v; want the camera's 20", n, s.live())
		}
	})
}

func TestStampsAlwaysRise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStudio(t)
		defer s.stop()
		f, err := hw.NewMemoryFrame(hw.Mode{Pixel: hw.I420, Width: 64, Height: 36}, nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(1050 * time.Millisecond)
		f.Stamp = 1 // long ago: a clock that jumped back
		s.deliver(f.Lend())
		synctest.Wait()
		s.shoot(2)
		s.enc.mu.Lock()
		defer s.enc.mu.Unlock()
		for i := 1; i < len(s.enc.stamps); i++ {
			if s.enc.stamps[i] <= s.enc.stamps[i-1] {
				t.Errorf("stamps %v", s.enc.stamps)
			}
		}
		if s.missed.Load() != 1 {
			t.Errorf("%d frames counted as missed, want the one from the past", s.missed.Load())
		}
	})
}

func TestASnapshotIsTheNextPicture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStudio(t)
		defer s.stop()
		f, err := s.shot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		f.Release()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := newHub().shot(ctx); err == nil {
			t.Error("a hub that does not run gave a picture")
		}
	})
}

func TestPacerThinsOut(t *testing.T) {
	tests := []struct {
		name     string
		in, want int // fps
	}{
		{"same rate", 30, 30}, {"half", 60, 30}, {"third", 30, 10}, {"faster than the camera", 15, 30}, {"odd", 50, 30},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pacer{period: time.Second / time.Duration(tt.want)}
			passed := 0
			for i := range 20 * tt.in {
				jitter := time.Duration(i%3-1) * 2 * time.Millisecond
				if p.due(time.Hour + time.Duration(i)*time.Second/time.Duration(tt.in) + jitter) {
					passed++
				}
			}
			want := 20 * min(tt.in, tt.want)
			if passed < want*95/100 || passed > want*102/100 {
				t.Errorf("%d of %d passed, want about %d", passed, 20*tt.in, want)
			}
		})
	}
}
