//nolint:thelper // what runs in a bubble is a test: failures belong to their own lines
package sim_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/sim"
)

func TestKeysAreReportedInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, b *sim.Board) {
		if err := b.Panel.Press(sim.KeyMute); err != nil { // before anybody listens
			t.Fatal(err)
		}
		p := open(t, b, sim.Keys(), nil)
		ctx, cancel := context.WithCancel(t.Context())
		var edges []hw.Edge
		ended := make(chan error)
		go func() {
			ended <- p.Run(ctx, func(e hw.Edge) {
				if !e.Level {
					edges = append(edges, e)
				}
			})
		}()
		synctest.Wait()
		if err := p.Run(ctx, func(hw.Edge) {}); !errors.Is(err, hw.ErrBusy) {
			t.Errorf("second Run: %v", err)
		}
		if err := b.Panel.Hold(ctx, sim.KeyReset, 5*time.Second); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		want := []hw.Edge{{Key: "MUTE", Down: true}, {Key: "MUTE"}, {Key: "RESET", Down: true}, {Key: "RESET"}}
		if !slices.EqualFunc(edges, want, func(a, b hw.Edge) bool { return a.Key == b.Key && a.Down == b.Down }) {
			t.Fatalf("edges %+v", edges)
		}
		if held := edges[3].Stamp - edges[2].Stamp; held != 5*time.Second {
			t.Errorf("held for %v", held)
		}
	})
}

func TestPanelRefuses(t *testing.T) {
	p := sim.New(sim.Options{}).Panel
	if p.Press("SELF-DESTRUCT") == nil || p.Hold(t.Context(), "", 0) == nil {
		t.Error("a key that does not exist was pressed")
	}
	var err error
	for range 1000 {
		err = errors.Join(err, p.Press(sim.KeyStream))
	}
	if err == nil {
		t.Error("1000 presses without a listener were accepted")
	}
}

func TestLampsCanBeWaitedFor(t *testing.T) {
	bubble(t, func(t *testing.T, b *sim.Board) {
		p := open(t, b, nil, sim.Lamps())
		go func() {
			wait(t, time.Second)
			_ = p.Light(sim.LampTally, hw.Light{Color: hw.Red})
		}()
		if b.Panel.Lit(sim.LampTally) {
			t.Error("lit from the start")
		}
		if err := b.Panel.WaitLit(t.Context(), sim.LampTally, true); err != nil || !b.Panel.Lit(sim.LampTally) {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Panel.WaitLit(ctx, sim.LampTally, false); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waited until %v", err)
		}
	})
}

func TestAKeyIsFoundAsItRests(t *testing.T) {
	b := sim.New(sim.Options{})
	if err := b.Panel.Rest(sim.KeyReset, true); err != nil {
		t.Fatal(err)
	}
	p := open(t, b, sim.Keys(), nil)
	ctx, cancel := context.WithCancel(t.Context())
	found := make(map[string]bool)
	err := p.Run(ctx, func(e hw.Edge) {
		if !e.Level || e.Err != nil {
			t.Errorf("told of %+v", e)
		}
		if found[e.Key] = e.Down; len(found) == 4 {
			cancel()
		}
	})
	want := map[string]bool{"STREAM": false, "REC": false, "MUTE": false, "RESET": true}
	if err != nil || !maps.Equal(found, want) {
		t.Errorf("found %v, %v", found, err)
	}
	if b.Panel.Rest("SELF-DESTRUCT", true) == nil {
		t.Error("a key that does not exist was moved")
	}
}

func TestAnythingCanBeWired(t *testing.T) {
	bubble(t, func(t *testing.T, b *sim.Board) {
		if b.Panel.Press("DOOR") == nil {
			t.Error("a key was pressed before it was wired")
		}
		p := open(t, b,
			[]hw.KeyWire{{Name: "GO", Pin: "sim:STREAM"}, {Name: "CUE", Pin: "sim:DOOR"}},
			[]hw.LampWire{{Name: "ON AIR", Red: "sim:R", Green: "sim:G"}, {Name: "RELAY", Pin: "sim:OUT"}})
		ctx, cancel := context.WithCancel(t.Context())
		var edges []hw.Edge
		ended := make(chan error)
		go func() { ended <- p.Run(ctx, func(e hw.Edge) { edges = append(edges, e) }) }()
		for _, key := range []string{sim.KeyStream, sim.KeyMute, "DOOR"} { // MUTE is not wired
			if err := b.Panel.Move(key, true); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		want := []hw.Edge{{Key: "GO", Level: true}, {Key: "CUE", Level: true}, {Key: "GO", Down: true}, {Key: "CUE", Down: true}}
		if !slices.EqualFunc(edges, want, func(a, b hw.Edge) bool {
			return a.Key == b.Key && a.Down == b.Down && a.Level == b.Level && a.Err == nil
		}) {
			t.Errorf("edges %+v", edges)
		}
		for color, lit := range map[hw.Color][2]bool{hw.Amber: {true, true}, hw.Red: {true, false}, hw.Green: {false, true}, hw.Dark: {}, hw.Blue: {}} {
			if err := p.Light("ON AIR", hw.Light{Color: color}); err != nil {
				t.Error(err)
			}
			if got := [2]bool{b.Panel.Lit("R"), b.Panel.Lit("G")}; got != lit {
				t.Errorf("color %d: red and green are %v, not %v", color, got, lit)
			}
		}
		if err := p.Light("RELAY", hw.Light{Color: hw.Amber}); err != nil || b.Panel.Shows("OUT") != hw.Amber {
			t.Errorf("%v, and the relay is %v", err, b.Panel.Shows("OUT"))
		}
	})
}

func TestLampsAreDarkenedWithoutAPanel(t *testing.T) {
	b := sim.New(sim.Options{})
	p := open(t, b, nil, sim.Lamps())
	if err := p.Light(sim.LampTally, hw.Light{Color: hw.Red}); err != nil || !b.Panel.Lit(sim.LampTally) {
		t.Fatal(err)
	}
	bad := hw.LampWire{Name: "X", Pin: "gpio:X"}
	err := b.Hardware().Darken(append([]hw.LampWire{bad}, sim.Lamps()...))
	if !errors.Is(err, hw.ErrUnsupported) || b.Panel.Lit(sim.LampTally) {
		t.Errorf("got %v, and the lamp is lit: %v", err, b.Panel.Lit(sim.LampTally))
	}
}

// open opens the board's face.
func open(t *testing.T, b *sim.Board, keys []hw.KeyWire, lamps []hw.LampWire) hw.Panel {
	t.Helper()
	p, err := b.Hardware().OpenPanel(keys, lamps)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
