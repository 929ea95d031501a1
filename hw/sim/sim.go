// Package sim is a board of software: everything above the drivers runs on it
// without a device.
//
// Camera and microphone carry the test picture and the beep of
// [encoderd.example/hw/sim/picture], so that loss, order and A/V sync can be
// read from the box's output. Keys can be pressed, lamps can be looked at, and
// faults come to order; see [Faults].
//
//	           faults ──┬───────────┬──────────┐
//	                    ▼           ▼          ▼
//	clock ─► camera: picture   mic: beep    device list ─► Watch
//	                    │           │
//	                    └── both from the same CLOCK_MONOTONIC
//
// All time comes from one clock, and everything waits for absolute instants of
// it: nothing drifts. Memory: frames belong to the stream that lent them and
// stay readable until their last Release, also after Close.
package sim

import (
	"context"
	"time"

	"encoderd.example/hw"
	"encoderd.example/stream"
)

// The names of keys and lamps, as printed on the box's face.
const (
	KeyStream = "STREAM"
	KeyRecord = "REC"
	KeyMute   = "MUTE"
	KeyReset  = "RESET"

	LampStream = "STREAM"
	LampRecord = "REC"
	LampTally  = "TALLY"
	LampStage  = "STAGE"
)

// Options say how a software board differs from the usual one.
type Options struct {
	// Name is shown in the test picture; empty means "encoderd".
	Name string
	// Now reads the clock that the board lives by; nil means
	// [stream.Monotonic]. It must advance as Go's timers do.
	Now func() time.Duration
}

// A Board is a software board. Its methods may be called from any goroutine.
type Board struct {
	// Panel is the board's face, to press keys and look at lamps.
	Panel *Panel

	name   string
	now    func() time.Duration
	faults *faultSet

	camera, testCamera *camera
	mic, testMic       *mic
}

// New returns a board with a camera and a microphone plugged in.
func New(o Options) *Board {
	if o.Name == "" {
		o.Name = "encoderd"
	}
	if o.Now == nil {
		o.Now = stream.Monotonic
	}
	b := &Board{Panel: newPanel(o.Now), name: o.Name, now: o.Now, faults: newFaultSet()}
	b.camera = &camera{board: b, id: "sim-camera", name: "Software camera"}
	b.testCamera = &camera{board: b, id: "test", name: "Test picture"}
	b.mic = &mic{board: b, id: "sim-mic", name: "Software microphone"}
	b.testMic = &mic{board: b, id: "test", name: "Test sound"}
	return b
}

// Hardware returns the board as the daemon sees it; encoders are the caller's
// to fill in. Faults strike the test camera and the test microphone too.
func (b *Board) Hardware() hw.Board {
	return hw.Board{
		Name:       "sim",
		Title:      "Software board",
		Cameras:    b.cameras,
		Mics:       b.mics,
		Watch:      b.watch,
		TestCamera: b.testCamera,
		TestMic:    b.testMic,
		Keys:       Keys(),
		Lamps:      Lamps(),
		OpenPanel:  b.Panel.open,
		Darken:     b.Panel.darken,
		Faults:     b.SetFault,
	}
}

// SetFault turns a fault of [Faults] on or off.
func (b *Board) SetFault(name string, on bool) error { return b.faults.set(name, on) }

func (b *Board) cameras() ([]hw.Camera, error) {
	if on, _ := b.faults.get(); on.has(cameraUnplugged) {
		return nil, nil
	}
	return []hw.Camera{b.camera}, nil
}

func (b *Board) mics() ([]hw.Mic, error) {
	if on, _ := b.faults.get(); on.has(micUnplugged) {
		return nil, nil
	}
	return []hw.Mic{b.mic}, nil
}

// watch implements Watch of [hw.Board]. It calls changed once at the start, so
// that nothing that happened since the last listing is missed.
func (b *Board) watch(ctx context.Context, changed func()) error {
	plugged := func(f faults) [2]bool { return [2]bool{f.has(cameraUnplugged), f.has(micUnplugged)} }
	before, wake := b.faults.get()
	changed()
	for {
		select {
		case <-wake:
		case <-ctx.Done():
			return nil
		}
		var after faults
		after, wake = b.faults.get()
		if plugged(after) != plugged(before) {
			changed()
		}
		before = after
	}
}

// until waits for instant at of the board's clock, or for one of the other
// reasons to look again. It returns an error only if ctx has ended.
func (b *Board) until(ctx context.Context, at time.Duration, closed, wake <-chan struct{}) error {
	timer := time.NewTimer(at - b.now())
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-closed:
	case <-wake:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}
