package sim

import (
	"fmt"
	"strings"
	"sync"
)

// A Fault is a kind of trouble that the board can be ordered to have.
type Fault struct {
	Name string
	// Doc says what happens while it is on.
	Doc string
}

// faults is a set of faults: bit i is [Faults][i].
type faults uint32

func (f faults) has(one faults) bool { return f&one != 0 }

// The faults, in the order of the table.
const (
	cameraUnplugged faults = 1 << iota
	cameraBusy
	cameraNoSignal
	cameraFrozen
	cameraEmpty
	cameraNoiseStamps
	micUnplugged
	micBusy
	micFrozen
	micOverrun
	micFast
	micSlow
	silence
)

// Faults lists what can be ordered, by [Board.SetFault] or Faults of
// [hw.Board].
var Faults = [...]Fault{
	{"camera-unplugged", "The camera is not listed, cannot be opened, and an open stream ends with ErrGone."},
	{"camera-busy", "Opening the camera fails with ErrBusy, as if another program held it. An open stream goes on."},
	{"camera-no-signal", "The camera is there, but reading ends with ErrNoSignal."},
	{"camera-frozen", "The camera delivers no more frames and says nothing. Afterwards Seq shows a gap."},
	{"camera-empty", "Every second frame comes without content; the stream drops it and counts it as damaged."},
	{"camera-noise-stamps", "The stamps jump about by up to two fifths of a frame's time. They still rise."},
	{"mic-unplugged", "The microphone is not listed, cannot be opened, and an open stream ends with ErrGone."},
	{"mic-busy", "Opening the microphone fails with ErrBusy. An open stream goes on."},
	{"mic-frozen", "The microphone delivers no more samples and says nothing. After more than half a second an overrun is counted and the stamp jumps."},
	{"mic-overrun", "Once a second 50 ms of sound are lost, counted as an overrun; the stamp jumps."},
	{"mic-clock+300ppm", "The sound card's clock runs 300 ppm too fast: it delivers more than 48000 samples a second."},
	{"mic-clock-300ppm", "The sound card's clock runs 300 ppm too slow: it delivers less than 48000 samples a second."},
	{"silence", "The microphone delivers zeros only."},
}

// A faultSet holds the faults that are on.
type faultSet struct {
	mu   sync.Mutex
	on   faults
	wake chan struct{} // closed and replaced by every change
}

func newFaultSet() *faultSet { return &faultSet{wake: make(chan struct{})} }

// get returns the faults that are on, and a channel that is closed when they
// change.
func (s *faultSet) get() (faults, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.on, s.wake
}

func (s *faultSet) set(name string, on bool) error {
	one, err := faultNamed(name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.on
	s.on &^= one
	if on {
		s.on |= one
	}
	if s.on != before {
		close(s.wake)
		s.wake = make(chan struct{})
	}
	return nil
}

func faultNamed(name string) (faults, error) {
	names := make([]string, len(Faults))
	for i, f := range Faults {
		if f.Name == name {
			return 1 << i, nil
		}
		names[i] = f.Name
	}
	return 0, fmt.Errorf("no fault %q; there are %s", name, strings.Join(names, ", "))
}
