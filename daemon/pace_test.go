package daemon

import (
	"testing"
	"testing/synctest"
	"time"
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
