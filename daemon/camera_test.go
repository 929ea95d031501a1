package daemon

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/hw"
)

// A pluggedActor is an actor under a name, at the same place as others before it.
type pluggedActor struct {
	*actor
	id       string
	instance uint64
}

func (a pluggedActor) ID() string       { return a.id }
func (a pluggedActor) Instance() uint64 { return a.instance }

// The wings are a box with cameras that come and go.
type wings struct {
	*rig
	cameras atomic.Pointer[[]hw.Camera]
}

// actor returns one more camera that can be plugged in.
func (s *wings) actor(id string, instance uint64) pluggedActor {
	a := newActor(fps(10, 1))
	a.clock, a.fails, a.opens = s.hub.now, make(chan error), make(chan error, 1)
	return pluggedActor{a, id, instance}
}

// plug makes these the cameras that are there.
func (s *wings) plug(cameras ...hw.Camera) {
	s.cameras.Store(&cameras)
	s.devices.changed()
}

// inWings runs a test on a box without a camera.
func inWings(t *testing.T, test func(*wings)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &wings{}
		s.cameras.Store(&[]hw.Camera{})
		s.rig = newRig(t, small, func(b *hw.Board) {
			b.Cameras = func() ([]hw.Camera, error) { return *s.cameras.Load(), nil }
			b.FindCamera = nil
		})
		defer s.stop()
		test(s)
	})
}

// hangs waits for the fault of a driver that hangs.
func (s *wings) hangs(want string) {
	s.t.Helper()
	s.until("fault "+want, func(b status.Box) bool { return strings.Contains(faultText(b, status.DriverHangs), want) })
}

func (s *wings) answers() {
	s.t.Helper()
	s.until("end of the fault", func(b status.Box) bool { return !b.Has(status.DriverHangs) })
}

func TestACameraThatHangsAsItOpensIsLeftBehindUntilItAnswers(t *testing.T) {
	inWings(t, func(s *wings) {
		cam := s.actor("cam", 0)
		free := cam.opening.hang()
		s.plug(cam)
		began := time.Now()
		s.hangs("open cam")
		if d := time.Since(began); d < cameraPatience || d > cameraPatience+2*time.Second {
			t.Errorf("it was left behind after %v", d)
		}
		time.Sleep(time.Minute)
		if n := cam.opened.Load(); n != 1 {
			t.Errorf("it was asked %d times while it hung", n)
		}
		if b := s.now(); b.Input.Signal || !b.Has(status.NoPicture) {
			t.Errorf("input %+v, faults %+v", b.Input, b.Faults)
		}
		free()
		s.until("picture", onDuty)
		s.answers()
		if opened, closed := cam.opened.Load(), cam.closed.Load(); opened != 2 || closed != 1 {
			t.Errorf("opened %d times, closed %d times; want what came too late closed, and another opening", opened, closed)
		}
	})
}

func TestACameraThatIsPluggedInWhileAnotherHangsIsUsed(t *testing.T) {
	inWings(t, func(s *wings) {
		hung, other := s.actor("a", 0), s.actor("b", 0)
		free := hung.opening.hang()
		s.plug(hung)
		s.hangs("open a")
		s.plug(hung, other)
		s.until("picture", onDuty)
		free()
		s.answers()
		if opened, closed, used := hung.opened.Load(), hung.closed.Load(), other.opened.Load(); opened != 1 || closed != 1 || used != 1 {
			t.Errorf("the one that hung was opened %d times and closed %d times, the other opened %d times", opened, closed, used)
		}
	})
}

func TestACameraThatIsPluggedInAnewIsUsedThoughItHungBefore(t *testing.T) {
	inWings(t, func(s *wings) {
		before, after := s.actor("cam", 1), s.actor("cam", 2)
		free := before.opening.hang()
		s.plug(before)
		s.hangs("open cam")
		s.plug(after)
		s.until("picture", onDuty)
		free()
		s.answers()
		if opened, closed := after.opened.Load(), after.closed.Load(); opened != 1 || closed != 0 {
			t.Errorf("the new one was opened %d times and closed %d times", opened, closed)
		}
	})
}

func TestABoxStopsWhileACameraHangsAsItOpens(t *testing.T) {
	var cam pluggedActor
	var free func()
	inWings(t, func(s *wings) {
		cam = s.actor("cam", 0)
		free = cam.opening.hang()
		s.plug(cam)
		time.Sleep(cameraPatience / 2)
		s.stop() // which may not take long
		free()
		synctest.Wait()
		if n := cam.closed.Load(); n != 1 {
			t.Errorf("what opened too late was closed %d times", n)
		}
		s.ended <- nil // for the stop that follows
	})
}

func TestAnotherConfigWaitsForTheCameraThatIsBeingOpened(t *testing.T) {
	inWings(t, func(s *wings) {
		cam := s.actor("cam", 0)
		free := cam.opening.hang()
		s.plug(cam)
		time.Sleep(time.Second)
		s.apply(strings.Replace(small, "fps = 10", "fps = 5", 1))
		time.Sleep(3 * time.Second)
		if n := cam.opened.Load(); n != 1 {
			t.Errorf("it was opened %d times at once", n)
		}
		free()
		s.until("picture", onDuty)
		if opened, closed := cam.opened.Load(), cam.closed.Load(); opened != 2 || closed != 1 {
			t.Errorf("opened %d times, closed %d times", opened, closed)
		}
	})
}

// What an encoder gave for a camera that hangs goes back, whatever becomes of it.
func TestTheMemoryForACameraThatHangsGoesBack(t *testing.T) {
	src := hw.BufferSource{Layout: shared(128, 72, 128), Imports: true}
	for name, fails := range map[string]bool{"it opens too late": false, "it fails too late": true} {
		t.Run(name, func(t *testing.T) {
			onStage(t, small, src, nil, func(s *stage) {
				s.until("plan", wayIs(0, hw.Import))
				free := s.start.hang()
				s.fault("camera-unplugged", true)
				time.Sleep(5 * time.Second)
				if n := s.chip.open(poolBuffers); n != 0 {
					t.Errorf("%d pools for a camera that is gone", n)
				}
				s.fault("camera-unplugged", false)
				s.until("fault", func(b status.Box) bool { return strings.Contains(faultText(b, status.DriverHangs), "open ") })
				if n := s.chip.open(poolBuffers); n != 1 {
					t.Errorf("%d pools for a camera that hangs", n)
				}
				made := len(s.chip.made(poolBuffers))
				s.fails.Store(fails)
				free()
				s.until("the end of it", func(b status.Box) bool { return !b.Has(status.DriverHangs) })
				s.fails.Store(false)
				s.until("picture", onDuty)
				if n := s.chip.made(poolBuffers)[made-1]; !n.closed.Load() {
					t.Error("the pool for the camera that hung was kept")
				}
			})
		})
	}
}

// A deafActor is behind an input whose driver may hang instead of waiting.
type deafActor struct {
	pluggedActor
	waits *hunt
}

func (a deafActor) AwaitSignal(ctx context.Context) error {
	a.waits.wait()
	<-ctx.Done()
	return context.Cause(ctx)
}

func TestAnInputThatHangsInsteadOfWaitingIsLeftBehind(t *testing.T) {
	inWings(t, func(s *wings) {
		hdmi, other := deafActor{s.actor("a", 0), &hunt{}}, s.actor("b", 0)
		for range cap(hdmi.opens) {
			hdmi.opens <- fmt.Errorf("%w: nothing comes in", hw.ErrNoSignal)
		}
		free := hdmi.waits.hang()
		s.plug(hdmi)
		s.hangs("wait for a signal of a")
		s.plug(hdmi, other)
		s.until("picture", onDuty)
		free()
		s.answers()
		if n := hdmi.opened.Load(); n != 1 {
			t.Errorf("it was opened %d times", n)
		}
	})
}

// A muteActor does not say at which rate its sound comes.
type muteActor struct {
	hw.Camera
	rate *hunt
}

func (m muteActor) SoundRate() (int, error) {
	m.rate.wait()
	return 44100, nil
}

func TestACameraThatDoesNotTellItsSoundHoldsNobodyUp(t *testing.T) {
	inWings(t, func(s *wings) {
		cam := muteActor{s.actor("hdmi", 0), &hunt{}}
		s.plug(cam)
		s.until("picture", onDuty)
		free := cam.rate.hang()
		card := card{part: part{id: "hdmi"}}
		for range 3 {
			if hz := s.soundRate(s.t.Context(), card); hz != 0 {
				t.Errorf("%d Hz", hz)
			}
		}
		s.hangs("ask for the sound of hdmi")
		if n := cam.rate.calls.Load(); n != 1 {
			t.Errorf("it was asked %d times while it hung", n)
		}
		free()
		s.answers()
		if hz := s.soundRate(s.t.Context(), card); hz != 44100 {
			t.Errorf("%d Hz", hz)
		}
	})
}
