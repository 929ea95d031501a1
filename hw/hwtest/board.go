// Package hwtest is the suite that every board passes, be it real, emulated or
// software: what [hw.Board] and the types it is made of promise, checked
// against a board that works.
//
// A new board's test is one call:
//
//	func TestConformance(t *testing.T) { hwtest.Board(t, newBoard) }
//
// The suite reads in real time and takes a few seconds for each device. It
// checks that no goroutine outlives what started it.
//
//nolint:thelper // most functions are checks: failures belong to their own lines
package hwtest

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"encoderd.example/hw"
)

// patience is how long a device may take for its next frame, block or word;
// prompt is how long it may take to give up.
const (
	patience = 10 * time.Second
	prompt   = 2 * time.Second
)

// Names of the faults that a board with Faults knows; see hw/sim.
const (
	unplugCamera = "camera-unplugged"
	unplugMic    = "mic-unplugged"
)

// Board runs the suite. newBoard returns a fresh board with all its devices
// plugged in; it is called once for each check. Unplugging is checked on
// boards that have Faults.
func Board(t *testing.T, newBoard func() hw.Board) {
	t.Helper()
	check(t, "names its devices uniquely and always alike", newBoard, namesDevices)
	check(t, "stops watching when told to", newBoard, stopsWatching)
	if newBoard().OpenPanel != nil {
		check(t, "panel names keys and lamps and lights them", newBoard, lightsLamps)
		check(t, "panel refuses two of one name", newBoard, refusesTwins)
		check(t, "panel with a wire that leads nowhere has the others", newBoard, survivesBadWires)
		check(t, "panel stops when told to", newBoard, stopsPanel)
	}
	if newBoard().Faults != nil {
		check(t, "unknown fault is refused", newBoard, refusesFault)
		check(t, "camera leaves and comes back", newBoard, replugsCamera)
		check(t, "microphone leaves and comes back", newBoard, replugsMic)
	}
	cameras(t, newBoard)
	mics(t, newBoard)
}

// check runs one check on a fresh board and looks for leaked goroutines.
func check(t *testing.T, name string, newBoard func() hw.Board, f func(*testing.T, hw.Board)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		before := goleak.IgnoreCurrent()
		f(t, newBoard())
		goleak.VerifyNone(t, before)
	})
}

// within fails the test if f is not prompt.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	timer := time.NewTimer(prompt)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		t.Fatalf("%s: not done after %v", what, prompt)
	}
}

func must[T any](t *testing.T, what string) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return v
	}
}

func namesDevices(t *testing.T, b hw.Board) {
	if b.Name == "" || b.Title == "" {
		t.Errorf("board has name %q and title %q", b.Name, b.Title)
	}
	first, second := cameraIDs(t, b), cameraIDs(t, b)
	compareNames(t, "camera", first, second)
	first, second = micIDs(t, b), micIDs(t, b)
	compareNames(t, "microphone", first, second)
}

// compareNames compares two listings of the same devices.
func compareNames(t *testing.T, what string, first, second []string) {
	t.Helper()
	if len(first) != len(second) {
		t.Fatalf("%s listed as %q, then as %q", what, first, second)
	}
	seen := make(map[string]bool)
	for i, id := range first {
		if id == "" || seen[id] {
			t.Errorf("%s %d: the ID %q is empty or not its own", what, i, id)
		}
		if second[i] != id {
			t.Errorf("%s %d is %q, then %q", what, i, id, second[i])
		}
		seen[id] = true
	}
}

func cameraIDs(t *testing.T, b hw.Board) []string {
	t.Helper()
	var ids []string
	if b.Cameras == nil {
		return nil
	}
	for _, c := range must[[]hw.Camera](t, "list cameras")(b.Cameras()) {
		ids = append(ids, c.ID())
		if c.Name() == "" {
			t.Errorf("camera %q has no name", c.ID())
		}
	}
	return ids
}

func micIDs(t *testing.T, b hw.Board) []string {
	t.Helper()
	var ids []string
	if b.Mics == nil {
		return nil
	}
	for _, m := range must[[]hw.Mic](t, "list microphones")(b.Mics()) {
		ids = append(ids, m.ID())
		if m.Name() == "" {
			t.Errorf("microphone %q has no name", m.ID())
		}
	}
	return ids
}

func stopsWatching(t *testing.T, b hw.Board) {
	if b.Watch == nil {
		return
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	within(t, "Watch with an ended context", func() {
		if err := b.Watch(ctx, func() {}); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("watch: %v", err)
		}
	})
}

func lightsLamps(t *testing.T, b hw.Board) {
	p := openPanel(t, b)
	compareNames(t, "key", p.Keys(), p.Keys())
	compareNames(t, "lamp", p.Lamps(), p.Lamps())
	for _, lamp := range p.Lamps() {
		for _, color := range []hw.Color{hw.Red, hw.Red, hw.Amber, hw.Dark} {
			if err := p.Light(lamp, hw.Light{Color: color}); err != nil {
				t.Errorf("light %s: %v", lamp, err)
			}
		}
	}
	if p.Light("no such lamp", hw.Light{Color: hw.Red}) == nil {
		t.Error("a lamp that does not exist was lit")
	}
}

func openPanel(t *testing.T, b hw.Board) hw.Panel {
	t.Helper()
	p := must[hw.Panel](t, "open the panel")(b.OpenPanel(b.Keys, b.Lamps))
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close the panel: %v", err)
		}
	})
	return p
}

// refusesTwins checks that names lead to one key or lamp.
func refusesTwins(t *testing.T, b hw.Board) {
	if len(b.Keys) > 0 {
		if _, err := b.OpenPanel(append(b.Keys[:1:1], b.Keys...), nil); err == nil {
			t.Error("two keys of one name were taken")
		}
	}
	if len(b.Lamps) > 0 {
		if _, err := b.OpenPanel(nil, append(b.Lamps[:1:1], b.Lamps...)); err == nil {
			t.Error("two lamps of one name were taken")
		}
	}
}

// survivesBadWires checks that a wire that leads nowhere hinders no other.
func survivesBadWires(t *testing.T, b hw.Board) {
	keys := append([]hw.KeyWire{{Name: "LOST", Pin: "nowhere:1"}}, b.Keys...)
	lamps := append([]hw.LampWire{{Name: "LOST", Pin: "nowhere:1"}, {Name: "BARE"}}, b.Lamps...)
	b.Keys, b.Lamps = keys, lamps
	p := openPanel(t, b)
	for _, lamp := range p.Lamps() {
		err := p.Light(lamp, hw.Light{Color: hw.Dark})
		if bad := lamp == "LOST" || lamp == "BARE"; bad != (err != nil) {
			t.Errorf("light %s: %v", lamp, err)
		}
	}
	stood := make(map[string]hw.Edge)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := p.Run(ctx, func(e hw.Edge) {
		if stood[e.Key] = e; len(stood) == len(keys) {
			cancel()
		}
	})
	if err != nil {
		t.Errorf("run: %v", err)
	}
	for _, k := range keys {
		if e, ok := stood[k.Name]; !ok || (e.Err != nil) != (k.Name == "LOST") || (e.Err == nil) != e.Level {
			t.Errorf("key %s was told of as %+v", k.Name, e)
		}
	}
}

func stopsPanel(t *testing.T, b hw.Board) {
	p := openPanel(t, b)
	for range 2 { // it can run again
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx, func(hw.Edge) {}) }()
		cancel()
		within(t, "panel with an ended context", func() {
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("run: %v", err)
			}
		})
	}
}

func refusesFault(t *testing.T, b hw.Board) {
	if b.Faults("no such fault", true) == nil {
		t.Error("a fault that does not exist was accepted")
	}
}
