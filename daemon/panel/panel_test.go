package panel

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/hw"
)

func TestGestures(t *testing.T) {
	type move struct {
		after time.Duration
		edge  hw.Edge
	}
	down, up := hw.Edge{Key: "STREAM", Down: true}, hw.Edge{Key: "STREAM"}
	press, hold := Gesture{Key: "STREAM"}, Gesture{Key: "STREAM", Hold: true}
	tests := []struct {
		name  string
		moves []move
		want  []Gesture
	}{
		{"press", []move{{0, down}, {time.Second, up}}, []Gesture{press}},
		{"hold is told before the finger leaves", []move{{0, down}}, []Gesture{hold}},
		{"hold, then release, is one gesture", []move{{0, down}, {5 * time.Second, up}}, []Gesture{hold}},
		{"two presses", []move{{0, down}, {time.Second, up}, {time.Second, down}, {time.Second, up}}, []Gesture{press, press}},
		{"a release without a press is nothing", []move{{0, up}}, nil},
		{"a key that says down twice", []move{{0, down}, {time.Second, down}, {time.Second, up}}, []Gesture{press}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				edges := make(chan hw.Edge)
				ctx, cancel := context.WithCancel(t.Context())
				var got []Gesture
				go Gestures(ctx, edges, func(g Gesture) { got = append(got, g) })
				for _, m := range tt.moves {
					time.Sleep(m.after)
					edges <- m.edge
				}
				time.Sleep(10 * time.Second)
				cancel()
				synctest.Wait()
				if !slices.Equal(got, tt.want) {
					t.Errorf("got %v, want %v", got, tt.want)
				}
			})
		})
	}
}

func TestTheStreamLampIsNeverRedTooEarly(t *testing.T) {
	out := func(states ...string) status.Box {
		var b status.Box
		for _, s := range states {
			b.Outputs = append(b.Outputs, status.Output{Name: "x", State: s})
		}
		return b
	}
	tests := []struct {
		name string
		box  status.Box
		want string
	}{
		{"nothing configured", status.Box{}, Off},
		{"off", out(status.Off), Off},
		{"connecting", out(status.Starting), Pulse},
		{"sent, not confirmed", out(status.Unconfirmed), Pulse},
		{"confirmed", out(status.Live), On},
		{"one of two confirmed", out(status.Live, status.Unconfirmed), Pulse},
		{"one of two away", out(status.Live, status.Backoff), Blink},
		{"refused", out(status.Failed), Blink},
	}
	for _, tt := range tests {
		if got := Lamps(tt.box, false)["STREAM"]; got.Pattern != tt.want || got.Reason == "" {
			t.Errorf("%s: %v, want %s", tt.name, got, tt.want)
		}
	}
	coded := func(boxState, rendition string) status.Box {
		b := out(status.Live)
		b.State, b.Outputs[0].Rendition = boxState, "main"
		b.Renditions = []status.Rendition{{Name: "sub", State: status.Live}, {Name: "main", State: rendition}}
		return b
	}
	for _, tt := range []struct {
		name           string
		box            status.Box
		pattern, words string
	}{
		{"pictures are coded", coded(status.Live, status.Live), On, "on air"},
		{"the slate is on", coded(status.Degraded, status.Live), On, "on air"},
		{"encoder failed", coded(status.Broken, status.Backoff), Blink, "no pictures of main are coded"},
		{"encoder missing", coded(status.Broken, status.Failed), Blink, "no pictures of main are coded"},
		{"encoder hangs", coded(status.Degraded, status.Recovering), Blink, "no pictures of main are coded"},
		{"encoder starts again", coded(status.Starting, status.Starting), Blink, "no pictures of main are coded"},
		{"something else hangs", coded(status.Broken, status.Live), Blink, "the box has a fault"},
	} {
		if got := Lamps(tt.box, false)["STREAM"]; got.Pattern != tt.pattern || got.Reason != tt.words {
			t.Errorf("%s: %v, want %s, %s", tt.name, got, tt.pattern, tt.words)
		}
	}
	for name, l := range Lamps(status.Box{}, true) {
		if l.Pattern != Blink {
			t.Errorf("%s does not say who it is", name)
		}
	}
}

func TestPatternsInTime(t *testing.T) {
	at := time.Unix(0, 0)
	count := func(pattern string) (lit int) {
		for i := range 1000 {
			if Lit(pattern, at.Add(time.Duration(i)*time.Millisecond)) {
				lit++
			}
		}
		return lit
	}
	for pattern, want := range map[string]int{Off: 0, On: 1000, Pulse: 500, Blink: 500} {
		if got := count(pattern); got != want {
			t.Errorf("%s shines %d ms of a second, want %d", pattern, got, want)
		}
	}
}
