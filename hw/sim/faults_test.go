//nolint:thelper // what runs in a bubble is a test: failures belong to their own lines
package sim_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/sim"
)

// faultTests say what each fault of the table does.
var faultTests = map[string]func(t *testing.T, b *sim.Board){
	"camera-unplugged": func(t *testing.T, b *sim.Board) {
		cameraEndsWith(t, b, "camera-unplugged", hw.ErrGone)
		order(t, b, "camera-unplugged", true)
		if list, err := b.Hardware().Cameras(); len(list) != 0 || err != nil {
			t.Errorf("listed %v, %v", list, err)
		}
		if _, err := b.Hardware().TestCamera.Open(t.Context(), thirty); !errors.Is(err, hw.ErrGone) {
			t.Errorf("open: %v", err)
		}
		if _, err := b.Hardware().TestCamera.Modes(); !errors.Is(err, hw.ErrGone) {
			t.Errorf("modes: %v", err)
		}
		order(t, b, "camera-unplugged", false)
		next(t, openCamera(t, b, thirty))
	},
	"camera-busy": func(t *testing.T, b *sim.Board) {
		s := openCamera(t, b, thirty)
		order(t, b, "camera-busy", true)
		next(t, s)
		c, err := b.Hardware().Cameras()
		if err != nil || len(c) != 1 {
			t.Fatal(c, err)
		}
		if _, err := c[0].Open(t.Context(), thirty); !errors.Is(err, hw.ErrBusy) {
			t.Errorf("open: %v", err)
		}
	},
	"camera-no-signal": func(t *testing.T, b *sim.Board) {
		cameraEndsWith(t, b, "camera-no-signal", hw.ErrNoSignal)
		if list, err := b.Hardware().Cameras(); len(list) != 1 || err != nil {
			t.Errorf("listed %v, %v", list, err)
		}
	},
	"camera-frozen": func(t *testing.T, b *sim.Board) {
		s := openCamera(t, b, thirty)
		next(t, s)
		order(t, b, "camera-frozen", true)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := s.Read(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("read: %v", err)
		}
		order(t, b, "camera-frozen", false)
		if seq, _, _ := next(t, s); seq != 300 || s.Stats().Missed != 299 {
			t.Errorf("frame %d after 10 s, %+v", seq, s.Stats())
		}
	},
	"camera-empty": func(t *testing.T, b *sim.Board) {
		s := openCamera(t, b, thirty)
		next(t, s)
		order(t, b, "camera-empty", true)
		before, _, _ := next(t, s)
		for range 10 {
			seq, _, _ := next(t, s)
			if seq != before+2 {
				t.Errorf("frame %d follows %d", seq, before)
			}
			before = seq
		}
		if st := s.Stats(); st.Damaged < 10 || st.Missed != 0 {
			t.Errorf("stats %+v", st)
		}
	},
	"camera-noise-stamps": func(t *testing.T, b *sim.Board) {
		s := openCamera(t, b, thirty)
		order(t, b, "camera-noise-stamps", true)
		_, last, _ := next(t, s)
		var shortest, longest time.Duration = time.Hour, 0
		for range 300 {
			_, stamp, _ := next(t, s)
			shortest, longest = min(shortest, stamp-last), max(longest, stamp-last)
			last = stamp
		}
		if shortest <= 0 || shortest > 20*time.Millisecond || longest < 45*time.Millisecond {
			t.Errorf("from %v to %v between stamps", shortest, longest)
		}
	},
	"mic-unplugged": func(t *testing.T, b *sim.Board) {
		micEndsWith(t, b, "mic-unplugged", hw.ErrGone)
		order(t, b, "mic-unplugged", true)
		if list, err := b.Hardware().Mics(); len(list) != 0 || err != nil {
			t.Errorf("listed %v, %v", list, err)
		}
		if _, err := b.Hardware().TestMic.Open(t.Context()); !errors.Is(err, hw.ErrGone) {
			t.Errorf("open: %v", err)
		}
	},
	"mic-busy": func(t *testing.T, b *sim.Board) {
		order(t, b, "mic-busy", true)
		if _, err := b.Hardware().TestMic.Open(t.Context()); !errors.Is(err, hw.ErrBusy) {
			t.Errorf("open: %v", err)
		}
	},
	"mic-frozen": func(t *testing.T, b *sim.Board) {
		s := openMic(t, b)
		before := hear(t, s)
		order(t, b, "mic-frozen", true)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, _, err := s.Read(ctx, make([]int16, 960)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("read: %v", err)
		}
		order(t, b, "mic-frozen", false)
		if after := hear(t, s); after-before < 9*time.Second || s.Stats().Xruns != 1 {
			t.Errorf("stamp %v follows %v, %+v", after, before, s.Stats())
		}
	},
	"mic-overrun": func(t *testing.T, b *sim.Board) {
		s := openMic(t, b)
		order(t, b, "mic-overrun", true)
		jumps := 0
		last := hear(t, s)
		start := last
		for last-start < 10*time.Second {
			stamp := hear(t, s)
			if stamp-last > 59*time.Millisecond && stamp-last < 61*time.Millisecond {
				jumps++
			}
			last = stamp
		}
		if jumps < 9 || jumps > 11 || s.Stats().Xruns < uint64(jumps) {
			t.Errorf("%d jumps in 10 s, %+v", jumps, s.Stats())
		}
	},
	"mic-clock+300ppm": func(t *testing.T, b *sim.Board) { changesPace(t, b, "mic-clock+300ppm", 9997001) },
	"mic-clock-300ppm": func(t *testing.T, b *sim.Board) { changesPace(t, b, "mic-clock-300ppm", 10003001) },
	"silence": func(t *testing.T, b *sim.Board) {
		order(t, b, "silence", true)
		pcm, _, _ := record(t, b, 2*hw.SampleRate)
		if slices.Min(pcm) != 0 || slices.Max(pcm) != 0 {
			t.Error("silence is not silent")
		}
	},
}

func TestFaults(t *testing.T) {
	for _, f := range sim.Faults {
		t.Run(f.Name, func(t *testing.T) {
			test := faultTests[f.Name]
			if test == nil {
				t.Fatal("no test for this fault")
			}
			bubble(t, test)
		})
	}
}

// cameraEndsWith checks that the fault ends a Read that waits.
func cameraEndsWith(t *testing.T, b *sim.Board, fault string, want error) {
	t.Helper()
	s, err := b.Hardware().TestCamera.Open(t.Context(), small(hw.Rate{Num: 1, Den: 1}))
	if err != nil {
		t.Fatal(err)
	}
	next(t, s)
	ended := make(chan error, 1)
	go func() {
		_, err := s.Read(t.Context())
		ended <- err
	}()
	synctest.Wait()
	order(t, b, fault, true)
	if err := <-ended; !errors.Is(err, want) {
		t.Errorf("read: %v; want %v", err, want)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	order(t, b, fault, false)
}

func micEndsWith(t *testing.T, b *sim.Board, fault string, want error) {
	t.Helper()
	s := openMic(t, b)
	ended := make(chan error, 1)
	go func() {
		_, _, err := s.Read(t.Context(), make([]int16, 960))
		ended <- err
	}()
	synctest.Wait()
	order(t, b, fault, true)
	if err := <-ended; !errors.Is(err, want) {
		t.Errorf("read: %v; want %v", err, want)
	}
	order(t, b, fault, false)
}

func hear(t *testing.T, s hw.MicStream) time.Duration {
	t.Helper()
	_, stamp, err := s.Read(t.Context(), make([]int16, 960))
	if err != nil {
		t.Fatal(err)
	}
	return stamp
}

// changesPace turns a clock error on while the card runs: stamps go on without
// a jump, at the new pace of step nanoseconds a block.
func changesPace(t *testing.T, b *sim.Board, fault string, step time.Duration) {
	t.Helper()
	s := openMic(t, b)
	hear(t, s)
	last := hear(t, s)
	order(t, b, fault, true)
	if stamp := hear(t, s); (stamp - last - 10*time.Millisecond).Abs() > time.Microsecond {
		t.Errorf("the stamp jumps by %v", stamp-last)
	} else {
		last = stamp
	}
	for range 1000 {
		stamp := hear(t, s)
		if got := stamp - last; (got - step).Abs() > 2*time.Nanosecond {
			t.Fatalf("%d ns from block to block, want %d", got, step)
		}
		last = stamp
	}
}

func TestWatchTellsOfPluggingOnly(t *testing.T) {
	bubble(t, func(t *testing.T, b *sim.Board) {
		ctx, cancel := context.WithCancel(t.Context())
		told, ended := 0, make(chan error)
		go func() { ended <- b.Hardware().Watch(ctx, func() { told++ }) }()
		steps := []struct {
			fault string
			on    bool
			told  int
		}{
			{"silence", true, 1}, // the first call comes at the start
			{"camera-unplugged", true, 2},
			{"camera-unplugged", true, 2},
			{"mic-unplugged", true, 3},
			{"camera-unplugged", false, 4},
			{"camera-frozen", true, 4},
			{"mic-unplugged", false, 5},
		}
		for _, s := range steps {
			synctest.Wait()
			order(t, b, s.fault, s.on)
			synctest.Wait()
			if told != s.told {
				t.Errorf("%s %v: told %d times, want %d", s.fault, s.on, told, s.told)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
