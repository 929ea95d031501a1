package alsa

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// A card that was set to one rate and delivers another.
func openWrong(t *testing.T, set, truth int) (*fake, *Stream) {
	t.Helper()
	f := newFake(t)
	f.rates = []uint32{uint32(set)}
	f.ppm = (float64(truth)/float64(set) - 1) * 1e6
	return f, openFake(t, f)
}

// hear reads for that long and returns how many sample frames came and how far
// the last stamp is from the time at which that sound was taken.
func hear(t *testing.T, f *fake, s *Stream, long time.Duration) (frames int, off time.Duration) {
	t.Helper()
	buf := make([]int16, 8192)
	for end := f.now + long; f.now < end; {
		n, stamp := mustRead(t, s, buf)
		frames += n
		off = f.now - stamp - time.Duration(n)*time.Second/48000
	}
	return frames, off
}

func checkRate(t *testing.T, frames int, off, long time.Duration) {
	t.Helper()
	if got, want := float64(frames), long.Seconds()*48000; got < want*0.998 || got > want*1.002 {
		t.Errorf("%d sample frames in %v, want 48000 a second", frames, long)
	}
	if off < -2*time.Millisecond || off > 2*time.Millisecond {
		t.Errorf("stamps are %v off", off)
	}
}

func TestATrueRateThatIsToldCountsAtOnce(t *testing.T) {
	for _, truth := range []int{32000, 44100, 48000, 96000} {
		t.Run(fmt.Sprint(truth), func(t *testing.T) {
			f, s := openWrong(t, 48000, truth)
			s.TrueRate(truth)
			for range 2 {
				s.TrueRate(truth) // again and again changes nothing
				frames, off := hear(t, f, s, 10*time.Second)
				checkRate(t, frames, off, 10*time.Second)
			}
			if x := s.Stats().Xruns; x != 0 {
				t.Errorf("%d overruns", x)
			}
		})
	}
}

func TestATrueRateIsFoundWithinSeconds(t *testing.T) {
	tests := []struct {
		set, truth    int
		grain, within time.Duration
	}{
		{48000, 44100, time.Millisecond, 3 * time.Second},
		{48000, 32000, time.Millisecond, 3 * time.Second},
		{44100, 48000, time.Millisecond, 3 * time.Second},
		{48000, 96000, time.Millisecond, 3 * time.Second},
		{48000, 44100, 7 * time.Millisecond, 6 * time.Second},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%d that says %d, position in steps of %v", tt.truth, tt.set, tt.grain), func(t *testing.T) {
			f, s := openWrong(t, tt.set, tt.truth)
			f.grain = tt.grain
			hear(t, f, s, tt.within)
			frames, off := hear(t, f, s, 10*time.Second)
			checkRate(t, frames, off, 10*time.Second)
		})
	}
}

func TestWhatIsMeasuredBeatsWhatWasTold(t *testing.T) {
	f, s := openWrong(t, 48000, 48000)
	s.TrueRate(44100) // the bridge is behind the times
	hear(t, f, s, 3*time.Second)
	s.TrueRate(44100)
	frames, off := hear(t, f, s, 10*time.Second)
	checkRate(t, frames, off, 10*time.Second)
	for _, nonsense := range []int{0, -1, 47000} {
		s.TrueRate(nonsense)
		frames, off = hear(t, f, s, 5*time.Second)
		checkRate(t, frames, off, 5*time.Second)
	}
}

func TestDriftIsNoOtherRate(t *testing.T) {
	for _, ppm := range []float64{-2000, 2000} {
		f := newFake(t)
		f.ppm, f.grain = ppm, 4*time.Millisecond
		s := openFake(t, f)
		for i := range 60 {
			hear(t, f, s, time.Second)
			if i%7 == 0 {
				f.now += 400 * time.Millisecond // an overrun
			}
			if s.hz != 48000 {
				t.Fatalf("after %d s of %+g ppm the rate is taken for %d", i+1, ppm, s.hz)
			}
		}
	}
}

func TestTheRateIsFoundInPositionsThatJitter(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 10))
	for range 100 {
		var g gauge
		at, found := time.Hour, 0
		for i := 0; found == 0 && i < 400; i++ { // 20 ms of 48 kHz, which take 21.77
			at += 960 * time.Second / 44100
			found = g.add(at+time.Duration(rnd.Int64N(int64(4*time.Millisecond))), 960, 48000)
		}
		if took := at - time.Hour; found != 44100 || took > 6*time.Second {
			t.Fatalf("found %d Hz after %v", found, took)
		}
	}
}

func TestTheRateIsFoundAfterItChanged(t *testing.T) {
	for _, normal := range []int{0, 10, 45, 3000} {
		var g gauge
		at, found, since := time.Hour, 0, time.Duration(0)
		for i := 0; found == 0 && i < normal+1000; i++ {
			if i < normal {
				at += 20 * time.Millisecond
			} else {
				at += 960 * time.Second / 32000
				since += 960 * time.Second / 32000
			}
			found = g.add(at, 960, 48000)
		}
		if found != 32000 || since > 8*time.Second {
			t.Errorf("after %d blocks of 48 kHz: found %d Hz %v after the change", normal, found, since)
		}
	}
}

func TestOneOddWindowIsNoOtherRate(t *testing.T) {
	var g gauge
	at := time.Hour
	add := func(late time.Duration) int {
		at += 10 * time.Millisecond
		return g.add(at+late, 480, 48000)
	}
	for i := range 1000 {
		late := time.Duration(0)
		if i%300 == 100 {
			late = 88 * time.Millisecond // a second now looks like one of 44.1 kHz
		}
		if hz := add(late); hz != 0 {
			t.Fatalf("block %d makes it %d Hz", i, hz)
		}
	}
}
