package daemon

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/hw"
)

// A hunt is a board whose search for something may hang.
type hunt struct {
	hung  atomic.Pointer[chan struct{}]
	calls atomic.Int32
}

// wait counts a call and hangs if it is to.
func (h *hunt) wait() {
	h.calls.Add(1)
	if c := h.hung.Load(); c != nil {
		<-*c
	}
}

// hang makes calls from now on hang until the result is called.
func (h *hunt) hang() (free func()) {
	c := make(chan struct{})
	h.hung.Store(&c)
	return func() {
		h.hung.Store(nil)
		close(c)
	}
}

// hunting makes all searches of a board hunts. other is a camera that is there,
// too, once plugged is set.
func hunting(cameras, mics, encoders *hunt, plugged *atomic.Bool, other hw.Camera, hard *videoDriver) func(*hw.Board) {
	return func(b *hw.Board) {
		findCameras, findMics := b.Cameras, b.Mics
		b.Cameras = func() ([]hw.Camera, error) {
			cameras.wait()
			list, err := findCameras()
			if plugged.Load() {
				list = append(list, other)
			}
			return list, err
		}
		b.Mics = func() ([]hw.Mic, error) {
			mics.wait()
			return findMics()
		}
		b.FindEncoders = func() ([]hw.EncoderDriver, error) {
			encoders.wait()
			if hard.gone.Load() {
				return nil, nil
			}
			return []hw.EncoderDriver{hard.driver("hard", true)}, nil
		}
	}
}

func TestASearchThatHangsHoldsUpNobody(t *testing.T) {
	var cameras, mics, encoders hunt
	var plugged atomic.Bool
	other, hard := newActor(fps(10, 1)), &videoDriver{}
	hard.gone.Store(true)
	inBox(t, small, hunting(&cameras, &mics, &encoders, &plugged, other, hard), func(r *rig) {
		other.clock, other.fails, other.opens = r.hub.now, make(chan error), make(chan error, 1)
		r.apply(small + "[audio]\nsource = \"none\"\n") // the encoder is opened anew for that
		time.Sleep(10 * time.Second)
		free := cameras.hang()
		b := r.until("fault", func(b status.Box) bool { return faultText(b, status.DriverHangs) != "" })
		if got := faultText(b, status.DriverHangs); got[:len(findCameras)] != findCameras {
			t.Errorf("fault %q", got)
		}
		hard.gone.Store(false) // an encoder is plugged in meanwhile
		r.devices.changed()
		r.until("hardware", by("hard"))
		heard, asked := mics.calls.Load(), cameras.calls.Load()
		time.Sleep(time.Minute)
		if mics.calls.Load()-heard < 10 || cameras.calls.Load() != asked {
			t.Errorf("in a minute sound cards were looked for %d times, cameras %d times", mics.calls.Load()-heard, cameras.calls.Load()-asked)
		}
		if b := r.now(); !onDuty(b) {
			t.Errorf("the camera that was there is not used: %+v", b.Input)
		}
		plugged.Store(true)
		free() // and what it finds counts
		synctest.Wait()
		if n := len(r.devices.registry.Cameras()); n != 2 {
			t.Errorf("%d cameras in the list", n)
		}
		r.until("end of the fault", func(b status.Box) bool { return !b.Has(status.DriverHangs) })
	})
}

func TestABoxStopsAndCapturesWhileASearchHangs(t *testing.T) {
	var cameras, mics, encoders hunt
	var plugged atomic.Bool
	var free func()
	hard := &videoDriver{}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, small, hunting(&cameras, &mics, &encoders, &plugged, nil, hard))
		r.until("box on duty", onDuty)
		time.Sleep(10 * time.Second)
		free = cameras.hang()
		r.fault("camera-unplugged", true) // the camera asks for a new list
		time.Sleep(100 * time.Millisecond)
		r.stop() // which may not take long
		free()
	})
}

func TestABoxComesUpWithSoftwareWhileTheSearchForHardwareHangs(t *testing.T) {
	var cameras, mics, encoders hunt
	var plugged atomic.Bool
	hard := &videoDriver{}
	synctest.Test(t, func(t *testing.T) {
		free := encoders.hang()
		r := newRig(t, small, hunting(&cameras, &mics, &encoders, &plugged, nil, hard))
		defer r.stop()
		b := r.until("software", by("fake"))
		if got := faultText(b, status.DriverHangs); got == "" {
			t.Errorf("faults %+v", b.Faults)
		}
		time.Sleep(10 * time.Second)
		free()
		r.until("hardware", by("hard"))
		if n := encoders.calls.Load(); n > 2 {
			t.Errorf("hardware was looked for %d times while the search hung", n)
		}
	})
}

func TestEncodersAreNotOpenedAgainAndAgainToFindThem(t *testing.T) {
	var cameras, mics, encoders hunt
	var plugged atomic.Bool
	inBox(t, small, hunting(&cameras, &mics, &encoders, &plugged, nil, &videoDriver{}), func(r *rig) {
		time.Sleep(10 * time.Second)
		before := encoders.calls.Load()
		time.Sleep(rescanEncoders - 20*time.Second)
		if n := encoders.calls.Load() - before; n > 0 {
			t.Errorf("they were looked for %d times though nothing happened", n)
		}
		r.devices.changed()
		time.Sleep(time.Second)
		if n := encoders.calls.Load() - before; n != 1 {
			t.Errorf("they were looked for %d times after an event", n)
		}
		time.Sleep(3 * rescanEncoders)
		if n := encoders.calls.Load() - before; n < 3 || n > 5 {
			t.Errorf("they were looked for %d times in three minutes, in case an event was lost", n-1)
		}
	})
}
