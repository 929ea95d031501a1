package daemon

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/hw"
)

// Slates stand where the timer fired, a camera's frames on the camera's grid:
// the first frame may follow the last slate closely.
func TestTheFirstFrameAfterTheSlateIsNotThinnedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStudio(t)
		defer s.stop()
		time.Sleep(time.Second)
		time.Sleep(30 * time.Millisecond) // slates come every 100 ms
		s.enc.take()
		s.shoot(1)
		if n, _ := s.enc.take(); n != 1 {
			t.Error("the camera's first frame did not reach the encoder")
		}
	})
}

// A camera at the rate asked for is never thinned out, however unevenly its
// frames come: each one that is left out would be a loss that nobody counts.
func TestJitterIsNoReasonToThinOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStudio(t)
		defer s.stop()
		s.shoot(0)
		time.Sleep(100 * time.Millisecond)
		s.enc.take()
		const frames = 200
		for i := range frames {
			s.shoot(uint32(i))
			early := time.Duration(i%4*15) * time.Millisecond // up to half a period
			time.Sleep(100*time.Millisecond - early)
			s.shoot(uint32(i))
			time.Sleep(100*time.Millisecond + early)
		}
		if n, _ := s.enc.take(); n != 2*frames || !s.live() {
			t.Errorf("%d of %d frames reached the encoder, live %v", n, 2*frames, s.live())
		}
	})
}

// An encoder is given as many pictures as it is told of, evenly, though stamps
// and arrivals vary: one of the next rate, 30 for 25, is thinned out, too.
func TestARenditionHasTheRateThatItsEncoderIsToldOf(t *testing.T) {
	const length = 20 * time.Second
	tests := []struct{ rendition, source hw.Rate }{
		{fps(25, 1), fps(30, 1)},
		{fps(50, 1), fps(60, 1)},
		{fps(25, 1), fps(30000, 1001)},
		{fps(25, 1), fps(50, 1)},
		{fps(30, 1), fps(50, 1)},
		{fps(24, 1), fps(25, 1)},
		{fps(30, 1), fps(30000, 1001)},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%.4g of %.4g", tt.rendition.Float(), tt.source.Float()), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStudioAt(t, tt.rendition)
				defer s.stop()
				s.begin(tt.source)
				s.shoot(0)
				s.enc.take()
				begin, jitter := time.Now(), rand.New(rand.NewPCG(1, 2))
				for i := uint32(1); ; i++ {
					at := time.Duration(float64(i) * float64(time.Second) / tt.source.Float())
					if at > length {
						break
					}
					at += time.Duration(jitter.Int64N(int64(4*time.Millisecond))) - 2*time.Millisecond
					time.Sleep(time.Until(begin.Add(at)))
					s.shoot(i)
				}
				widest := s.enc.widest()
				n, _ := s.enc.take()
				told := rateOf(tt.rendition, tt.source)
				if got := float64(n) / length.Seconds(); math.Abs(got-told.Float()) > 0.1 || s.rate() != tt.source {
					t.Errorf("%.2f pictures a second, the encoder is told %v; the source's rate is %v", got, told, s.rate())
				}
				if most := told.Period() + tt.source.Period() + 4*time.Millisecond; widest > most {
					t.Errorf("%v between two pictures, want at most %v", widest, most)
				}
			})
		})
	}
}

// widest is the longest time between two pictures.
func (r *recorder) widest() (most time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := 1; i < len(r.stamps); i++ {
		most = max(most, r.stamps[i]-r.stamps[i-1])
	}
	return most
}

// Where nothing varies, 25 of 30 are each picture but the sixth.
func TestThirtyAreThinnedOutToTwentyFiveEvenly(t *testing.T) {
	p := pacer{period: time.Second / 25}
	var left []int
	for i := range 600 {
		if !p.due(time.Hour + time.Duration(i)*time.Second/30) {
			left = append(left, i)
		}
	}
	for i := 1; i < len(left); i++ {
		if left[i]-left[i-1] != 6 {
			t.Errorf("left out: %v, want each sixth", left)
			break
		}
	}
	if len(left) != 100 {
		t.Errorf("%d of 600 left out, want 100", len(left))
	}
}

func TestAFasterCameraIsThinnedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStudio(t)
		defer s.stop()
		for i := range 400 { // twice the rate asked for
			s.shoot(uint32(i))
			time.Sleep(50 * time.Millisecond)
		}
		if n, _ := s.enc.take(); n < 198 || n > 230 {
			t.Errorf("%d of 400 frames reached the encoder, want about 200", n)
		}
	})
}
