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

func TestKeysAreReportedInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, b *sim.Board) {
		if err := b.Panel.Press(sim.KeyMute); err != nil { // before anybody listens
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var edges []hw.Edge
		ended := make(chan error)
		go func() { ended <- b.Panel.Run(ctx, func(e hw.Edge) { edges = append(edges, e) }) }()
		synctest.Wait()
		if err := b.Panel.Run(ctx, func(hw.Edge) {}); !errors.Is(err, hw.ErrBusy) {
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
		go func() {
			wait(t, time.Second)
			_ = b.Panel.Light(sim.LampTally, hw.Light{Color: hw.Red})
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
