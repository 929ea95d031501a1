//nolint:thelper // what runs in a bubble is a test: failures belong to their own lines
package sim_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"encoderd.example/hw"
	"encoderd.example/hw/hwtest"
	"encoderd.example/hw/sim"
	"encoderd.example/hw/sim/picture"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	hwtest.Board(t, func() hw.Board { return sim.New(sim.Options{}).Hardware() })
}

// bubble runs f with a board whose clock is that of a synctest bubble.
func bubble(t *testing.T, f func(t *testing.T, b *sim.Board)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		f(t, sim.New(sim.Options{Name: "Main hall", Now: func() time.Duration {
			return 1000*time.Hour + 123456789 + time.Since(start)
		}}))
	})
}

func openCamera(t *testing.T, b *sim.Board, want hw.Mode) hw.CameraStream {
	t.Helper()
	s, err := b.Hardware().TestCamera.Open(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func openMic(t *testing.T, b *sim.Board) hw.MicStream {
	t.Helper()
	s, err := b.Hardware().TestMic.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func small(fps hw.Rate) hw.Mode { return hw.Mode{Width: 64, Height: 36, FPS: fps} }

var thirty = small(hw.Rate{Num: 30, Den: 1})

// next reads a frame and gives it back.
func next(t *testing.T, s hw.CameraStream) (seq uint32, stamp time.Duration, code picture.Code) {
	t.Helper()
	f, err := s.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	code, ok := picture.Read(f.Planes[0].Data, f.Planes[0].Stride, f.Width, f.Height)
	if !ok {
		t.Fatalf("frame %d cannot be read", f.Seq)
	}
	return f.Seq, f.Stamp, code
}

func order(t *testing.T, b *sim.Board, fault string, on bool) {
	t.Helper()
	if err := b.SetFault(fault, on); err != nil {
		t.Fatal(err)
	}
}

func wait(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

func TestNearestModeIsGranted(t *testing.T) {
	tests := []struct {
		name string
		want hw.Mode
		got  string
	}{
		{"nothing wanted", hw.Mode{}, "1920x1080 30 fps NV12"},
		{"as wanted", hw.Mode{Pixel: hw.I420, Width: 640, Height: 360, FPS: hw.Rate{Num: 60000, Den: 1001}}, "640x360 59.94 fps YU12"},
		{"odd sizes become even", hw.Mode{Width: 641, Height: 1}, "642x2 30 fps NV12"},
		{"too large and fast", hw.Mode{Width: 9999, Height: 5000, FPS: hw.Rate{Num: 1000, Den: 1}}, "4096x4096 120 fps NV12"},
		{"too slow", hw.Mode{Width: 2, Height: 2, FPS: hw.Rate{Num: 1, Den: 3}}, "2x2 1 fps NV12"},
		{"layout unknown", hw.Mode{Pixel: hw.MJPEG, Width: 320, Height: 180, FullRange: true}, "320x180 30 fps NV12"},
		{"clumsy fraction", hw.Mode{Width: 64, Height: 36, FPS: hw.Rate{Num: 29_970_029, Den: 1_000_000}}, "64x36 29.97 fps NV12"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := openCamera(t, sim.New(sim.Options{}), tt.want).Mode()
			if got.String() != tt.got || got.FullRange {
				t.Errorf("granted %s, want %s", got, tt.got)
			}
		})
	}
}

func TestCameraNeverDrifts(t *testing.T) {
	rates := []struct {
		name string
		fps  hw.Rate
	}{
		{"1 fps", hw.Rate{Num: 1, Den: 1}},
		{"23.976 fps", hw.Rate{Num: 24000, Den: 1001}},
		{"30 fps", hw.Rate{Num: 30, Den: 1}},
		{"59.94 fps", hw.Rate{Num: 60000, Den: 1001}},
		{"120 fps", hw.Rate{Num: 120, Den: 1}},
	}
	for _, r := range rates {
		t.Run(r.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, b *sim.Board) {
				s := openCamera(t, b, small(r.fps))
				_, first, _ := next(t, s)
				const frames = 5000
				for i := uint32(1); i <= frames; i++ {
					seq, stamp, code := next(t, s)
					exact := first + time.Duration(float64(i)*float64(time.Second)/r.fps.Float())
					if seq != i || (stamp-exact).Abs() > time.Microsecond {
						t.Fatalf("frame %d at %v, want frame %d at %v", seq, stamp, i, exact)
					}
					if code.Counter != seq || code.Clock(stamp) != stamp.Truncate(time.Millisecond) || code.Flash != picture.Flashing(stamp) {
						t.Fatalf("frame %d at %v shows %+v", seq, stamp, code)
					}
				}
				if st := s.Stats(); st != (hw.CameraStats{Frames: frames + 1}) {
					t.Errorf("stats %+v", st)
				}
			})
		})
	}
}

func TestFlashBeginsOnTheWholeSecond(t *testing.T) {
	bubble(t, func(t *testing.T, b *sim.Board) {
		s := openCamera(t, b, thirty)
		was := true
		onsets := 0
		for range 95 {
			_, stamp, code := next(t, s)
			if code.Flash && !was {
				onsets++
				if stamp%time.Second != 0 {
					t.Errorf("flash begins at %v", stamp)
				}
			}
			was = code.Flash
		}
		if onsets != 3 {
			t.Errorf("%d flashes in 95 frames", onsets)
		}
	})
}

func TestLateReader(t *testing.T) {
	tests := []struct {
		name   string
		late   time.Duration
		seq    uint32 // of the frame read then
		missed uint64
	}{
		{"a little finds its frame waiting", 110 * time.Millisecond, 1, 0},
		{"too late skips to the latest", time.Second, 30, 29},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, b *sim.Board) {
				s := openCamera(t, b, thirty)
				next(t, s)
				wait(t, tt.late)
				if seq, _, _ := next(t, s); seq != tt.seq || s.Stats().Missed != tt.missed {
					t.Errorf("frame %d, %d missed; want %d, %d", seq, s.Stats().Missed, tt.seq, tt.missed)
				}
			})
		})
	}
}

func TestFramesAreDroppedWhileAllAreLent(t *testing.T) {
	bubble(t, func(t *testing.T, b *sim.Board) {
		s := openCamera(t, b, thirty)
		var lent []*hw.Frame
		for range picture.Buffers {
			f, err := s.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			lent = append(lent, f)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Read(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("read without a free buffer: %v", err)
		}
		for _, f := range lent {
			f.Release()
		}
		seq, _, _ := next(t, s)
		if want := uint32(picture.Buffers) + uint32(s.Stats().Missed); seq != want || s.Stats().Missed < 29 {
			t.Errorf("frame %d after %d missed, want %d", seq, s.Stats().Missed, want)
		}
	})
}

func TestSoundAndPictureAreInStep(t *testing.T) {
	for _, fault := range []string{"", "mic-clock+300ppm", "mic-clock-300ppm"} {
		t.Run("with fault "+fault, func(t *testing.T) {
			bubble(t, func(t *testing.T, b *sim.Board) {
				if fault != "" {
					order(t, b, fault, true)
				}
				const seconds = 60
				pcm, stamps, s := record(t, b, seconds*hw.SampleRate)
				beeps := picture.FindBeeps(pcm)
				if len(beeps) != seconds {
					t.Fatalf("%d beeps in %d s", len(beeps), seconds)
				}
				for _, n := range beeps {
					at := stamps[n/960] + time.Duration(n%960)*time.Second/hw.SampleRate
					if off := at - at.Round(time.Second); off.Abs() > time.Millisecond/2 {
						t.Errorf("a beep begins %v beside the whole second", off)
					}
				}
				if st := s.Stats(); st.Xruns != 0 || st.Frames != uint64(len(pcm)/2) {
					t.Errorf("stats %+v", st)
				}
			})
		})
	}
}

// record reads frames sample frames in blocks of 20 ms and their stamps.
func record(t *testing.T, b *sim.Board, frames int) (pcm []int16, stamps []time.Duration, s hw.MicStream) {
	t.Helper()
	s = openMic(t, b)
	pcm = make([]int16, frames*hw.Channels)
	for at := 0; at < len(pcm); {
		n, stamp, err := s.Read(t.Context(), pcm[at:])
		if err != nil || n != 960 {
			t.Fatal(n, err)
		}
		stamps = append(stamps, stamp)
		at += n * hw.Channels
	}
	return pcm, stamps, s
}

func TestMicClockError(t *testing.T) {
	tests := []struct {
		fault string
		ppm   float64
	}{
		{"mic-frozen", 0}, // off again: no error at all
		{"mic-clock+300ppm", 300},
		{"mic-clock-300ppm", -300},
	}
	for _, tt := range tests {
		t.Run(tt.fault, func(t *testing.T) {
			bubble(t, func(t *testing.T, b *sim.Board) {
				order(t, b, tt.fault, tt.ppm != 0)
				_, stamps, _ := record(t, b, 100*hw.SampleRate)
				took := stamps[len(stamps)-1] - stamps[0]
				nominal := time.Duration(len(stamps)-1) * 20 * time.Millisecond
				if got := (float64(nominal)/float64(took) - 1) * 1e6; got-tt.ppm > 0.5 || tt.ppm-got > 0.5 {
					t.Errorf("clock is %.2f ppm fast, want %v", got, tt.ppm)
				}
			})
		})
	}
}

func TestCloseEndsAWaitingRead(t *testing.T) {
	bubble(t, func(t *testing.T, b *sim.Board) {
		order(t, b, "camera-frozen", true)
		order(t, b, "mic-frozen", true)
		camera, mic := openCamera(t, b, thirty), openMic(t, b)
		errs := make(chan error, 2)
		go func() {
			_, err := camera.Read(t.Context())
			errs <- err
		}()
		go func() {
			_, _, err := mic.Read(t.Context(), make([]int16, 960))
			errs <- err
		}()
		synctest.Wait()
		for _, s := range []interface{ Close() error }{camera, mic} {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if err := <-errs; !errors.Is(err, os.ErrClosed) {
				t.Errorf("read ended with %v", err)
			}
		}
	})
}

func TestRealClockAndSteadyStateAllocateNothing(t *testing.T) {
	b := sim.New(sim.Options{})
	s := openCamera(t, b, small(hw.Rate{Num: 120, Den: 1}))
	next(t, s)
	// The timer is all that a Read needs.
	if n := testing.AllocsPerRun(30, func() {
		f, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		f.Release()
	}); n > 5 {
		t.Errorf("%v allocations a frame", n)
	}
}

func TestFaultNamesAreUniqueAndExplained(t *testing.T) {
	var names []string
	for _, f := range sim.Faults {
		if slices.Contains(names, f.Name) || !strings.HasSuffix(f.Doc, ".") {
			t.Errorf("fault %q is named twice or not explained: %q", f.Name, f.Doc)
		}
		names = append(names, f.Name)
		b := sim.New(sim.Options{})
		order(t, b, f.Name, true)
		order(t, b, f.Name, false)
	}
	err := sim.New(sim.Options{}).SetFault("camera-unpluged", true)
	if err == nil || !strings.Contains(err.Error(), "camera-unplugged") {
		t.Errorf("a misspelt name gives %v, which does not help", err)
	}
}
