package main

import (
	"io"
	"strings"
	"testing"
	"time"
)

func TestPressesAreSeenToTheLamp(t *testing.T) {
	b := &bench{out: io.Discard, dir: t.TempDir()}
	seen, err := b.pressMute(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) != 3 {
		t.Fatalf("%d presses were seen, want 3", len(seen))
	}
	for _, k := range seen {
		if k.order <= 0 || k.action <= k.order || k.lamp <= k.order {
			t.Errorf("order, action and lamp came after %v, %v and %v", k.order, k.action, k.lamp)
		}
	}
}

func TestAPanelThatIsSlowNowAndThenMissesItsTarget(t *testing.T) {
	fast, slow := keyed{time.Millisecond, 2 * time.Millisecond, 3 * time.Millisecond}, keyed{time.Millisecond, 30 * time.Millisecond, 40 * time.Millisecond}
	b := &bench{out: io.Discard}
	b.tellPanel(append(many(fast, 190), many(slow, 10)...))
	var missed []string
	for _, r := range b.table.Rows {
		if !r.Met {
			missed = append(missed, r.What)
		}
	}
	if len(b.table.Rows) != 6 || len(missed) != 3 || strings.Contains(strings.Join(missed, ""), "median") {
		t.Errorf("of %d rows these miss their target: %q", len(b.table.Rows), missed)
	}
}

func many(k keyed, n int) (all []keyed) {
	for range n {
		all = append(all, k)
	}
	return all
}
