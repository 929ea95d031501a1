package daemon

import (
	"context"
	"slices"
	"strings"
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
	return newStudioAt(t, ten.FPS)
}

// newStudioAt returns one whose picture and encoder have that rate.
func newStudioAt(t *testing.T, rate hw.Rate) *studio {
	t.Helper()
	s := &studio{hub: newHub(), t: t, enc: &recorder{}}
	s.now = bubbleClock()
	s.attach(s.enc, rate)
	c := ten
	c.FPS = rate
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.run(ctx, c, func() {}) }()
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

// silence films so many frames whose arrival is uneven by the jitters in turn,
// stops, and returns when the slate came after the last one, and how many came
// between the first and the last.
func (s *studio) silence(frames int, jitter ...time.Duration) (after time.Duration, slates uint64) {
	s.t.Helper()
	grid := time.Now()
	var last time.Time
	var first uint64
	for i := range frames {
		grid = grid.Add(100 * time.Millisecond)
		time.Sleep(time.Until(grid.Add(jitter[i%len(jitter)])))
		s.shoot(uint32(i))
		last = time.Now()
		if i == 0 {
			first = s.slates.Load()
		}
	}
	slates = s.slates.Load() - first
	for s.live() {
		time.Sleep(time.Millisecond)
		synctest.Wait()
	}
	return time.Since(last), slates
}

func TestTheSlateComesWithinTwoFramesAndWhatTheCameraIsLate(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	tests := []struct {
		name        string
		frames      int
		jitter      []time.Duration
		least, most time.Duration
	}{
		{"a camera that is not known yet", 3, []time.Duration{0}, ms(290), ms(301)},
		{"an even camera", 300, []time.Duration{0}, ms(200), ms(206)},
		{"an even camera that was seen for two seconds", 50, []time.Duration{0}, ms(200), ms(251)},
		{"a camera that is up to 10 ms late", 300, []time.Duration{0, ms(10), 0, ms(5)}, ms(230), ms(260)},
		{"a camera that is up to 80 ms late", 300, []time.Duration{0, ms(80), 0, 0}, ms(290), ms(301)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStudio(t)
				defer s.stop()
				time.Sleep(time.Second)
				got, slates := s.silence(tt.frames, tt.jitter...)
				if got < tt.least || got > tt.most {
					t.Errorf("the slate came after %v, want %v to %v", got, tt.least, tt.most)
				}
				if slates > 0 {
					t.Errorf("%d slates while the camera was there", slates)
				}
			})
		})
	}
}

func TestATimerThatIsLateSaysThatTheMachineIsBusy(t *testing.T) {
	tests := []struct {
		name        string
		uneven      time.Duration
		least, most time.Duration // to wait once more
	}{
		{"a camera that is not known", firstJitter, 70 * time.Millisecond, mostMargin},
		{"an even camera", 0, 45 * time.Millisecond, 50 * time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub()
				h.now = bubbleClock()
				slate, err := h.easel.slate(ten, noSignal)
				if err != nil {
					t.Fatal(err)
				}
				v := newView(h, tempo{rate: ten.FPS})
				v.jitter, v.uneven = leastMargin, tt.uneven
				v.hub.setSignal(true)
				time.Sleep(v.await() + 70*time.Millisecond) // nobody came to look in time
				if wait := v.late(slate); wait < tt.least || wait > tt.most || h.slates.Load() > 0 {
					t.Errorf("waits for %v more, %d slates", wait, h.slates.Load())
				}
				if v.late(slate); h.slates.Load() != 1 || h.live() {
					t.Errorf("at the second time %d slates, live %v", h.slates.Load(), h.live())
				}
			})
		})
	}
}

// ordered is what a recorder was given, as letters: c of the camera, s of the slate.
func (r *recorder) ordered() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, seq := range r.seqs {
		if seq >= cameraSeq {
			b.WriteByte('c')
		} else {
			b.WriteByte('s')
		}
	}
	return b.String()
}

// cameraSeq is above the numbers of all slates.
const cameraSeq = 1 << 20

func TestTheLastFramesOfACameraPassBeforeItsSlate(t *testing.T) {
	for i := range 50 { // a wrong order would be a matter of chance
		synctest.Test(t, func(t *testing.T) {
			s := newStudio(t)
			defer s.stop()
			time.Sleep(time.Second)
			s.shoot(cameraSeq)
			time.Sleep(100 * time.Millisecond)
			s.enc.take()
			s.enc.seqs = nil
			for n := range uint32(2) { // both wait while the hub has no time
				f, err := hw.NewMemoryFrame(hw.Mode{Pixel: hw.I420, Width: 64, Height: 36}, nil)
				if err != nil {
					t.Fatal(err)
				}
				f.Stamp, f.Seq = s.now()+time.Duration(n), cameraSeq+n
				s.deliver(f.Lend())
			}
			s.lost()
			time.Sleep(350 * time.Millisecond)
			synctest.Wait()
			if got := s.enc.ordered(); got != "ccssss" && got != "ccsss" {
				t.Errorf("try %d: the encoder was given %q, want the camera's two and then slates", i, got)
			}
			if _, keys := s.enc.take(); keys != 1 {
				t.Errorf("try %d: %d key frames were asked for", i, keys)
			}
		})
	}
}

func TestACameraThatIsBackAtOnceNeedsNoSlate(t *testing.T) {
	q := newQueue()
	frame := func(seq uint32) arrival {
		f := hw.NewFrame(nil)
		f.Seq = seq
		return arrival{frame: f.Lend()}
	}
	for i, a := range []arrival{frame(1), {gone: true}, {rate: ten.FPS}, {gone: true}, {rate: ten.FPS}, frame(2), frame(3)} {
		if ok := q.put(a); ok != (i != 6) {
			t.Errorf("arrival %d: there was room: %v", i, ok)
		}
	}
	var got []any
	for a, ok := q.next(); ok; a, ok = q.next() {
		switch {
		case a.frame != nil:
			got = append(got, a.frame.Seq)
		case a.gone:
			got = append(got, "gone")
		default:
			got = append(got, a.rate)
		}
	}
	if want := []any{uint32(1), ten.FPS, uint32(2)}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestTheSlateKeepsTheCamerasRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStudio(t)
		defer s.stop()
		s.begin(hw.Rate{Num: 5, Den: 1})
		for i := range uint32(20) {
			s.shoot(i)
			time.Sleep(200 * time.Millisecond)
		}
		if got := s.rate(); got != (hw.Rate{Num: 5, Den: 1}) {
			t.Errorf("rate %v", got)
		}
		s.lost()
		time.Sleep(time.Second)
		s.enc.take()
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if n, _ := s.enc.take(); n < 19 || n > 21 {
			t.Errorf("%d slates in four seconds after a camera of 5 fps", n)
		}
	})
}

// A camera that was only late shall not make the picture flicker again and
// again.
func TestACameraThatWasNotLostIsTrustedWithMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStudio(t)
		defer s.stop()
		film := func(frames int) {
			for range frames {
				s.shoot(0)
				time.Sleep(100 * time.Millisecond)
			}
		}
		film(100)
		late := func() (slates uint64) {
			before := s.slates.Load()
			time.Sleep(170 * time.Millisecond) // 270 ms in all
			film(50)
			return s.slates.Load() - before
		}
		if n := late(); n == 0 {
			t.Error("an even camera that stayed away for more than two and a half frames brought no slate")
		}
		if n := late(); n > 0 {
			t.Errorf("%d slates at the second time", n)
		}
		film(int(doubtTime / (100 * time.Millisecond)))
		if n := late(); n == 0 {
			t.Error("it is not trusted again")
		}
	})
}
