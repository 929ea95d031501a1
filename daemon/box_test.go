package daemon

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/daemon/config"
	"encoderd.example/daemon/status"
	"encoderd.example/daemon/supervise"
	"encoderd.example/hw/sim"
)

func TestABoxComesUpAndGoesDown(t *testing.T) {
	inBox(t, small, nil, func(r *rig) {
		b := r.until("sound", func(b status.Box) bool { return b.Sound.Signal })
		if b.State != status.Off || b.Input.ID != "sim-camera" || b.Input.Width != 128 || b.Sound.ID != "sim-mic" || !r.Settled() {
			t.Errorf("settled %v: %+v", r.Settled(), b)
		}
		for range 2 {
			time.Sleep(2500 * time.Millisecond)
			if !r.Alive() {
				t.Error("the watchdog would bite a healthy box")
			}
		}
	})
}

func TestOrdersBeforeTheStartAndAfterTheEndDoNoHarm(t *testing.T) {
	d := testDaemon(t)
	d.Reload = func() (config.Config, error) { return parse(t, small+outputs), nil }
	for range 2 {
		if err := d.Do(t.Context(), "config.reload", nil, "test"); err != nil {
			t.Error(err)
		}
		if err := d.Do(t.Context(), "stream.start", nil, "test"); err != nil {
			t.Error(err)
		}
		d.Board = sim.New(sim.Options{}).Hardware()
		d.devices.board = d.Board
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := d.Run(ctx); err != nil {
			t.Error(err)
		}
	}
}

// A service whose end waits for an order that it gave itself, as the page's
// server and the panel do, must not hang.
func TestAnOrderGivenFromWithinAServiceThatStopsDoesNotHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, small+outputs, nil)
		serving := func(ctx context.Context, live func()) error {
			live()
			<-ctx.Done()
			return r.Do(ctx, "output.start", named("hall"), "page")
		}
		r.Web = func(ctx context.Context, _ string, _ config.Config, _ *Daemon, live func()) error {
			return serving(ctx, live)
		}
		r.apply(`
[video]
width = 128
height = 72
fps = 10
[serve]
web = ":1"
rtsp = ""
` + outputs)
		r.until("page", func(b status.Box) bool { return serviceIs(b, "web", supervise.Live) })
		r.stop() // checks its time
	})
}

func serviceIs(b status.Box, name string, want supervise.State) bool {
	for _, s := range b.Services {
		if s.Name == name {
			return s.State == string(want)
		}
	}
	return want == ""
}

func outputIs(b status.Box, name, want string) bool {
	for _, o := range b.Outputs {
		if o.Name == name {
			return o.State == want
		}
	}
	return false
}

func TestAnOutputThatIsOffLeavesNothingBehind(t *testing.T) {
	inBox(t, small+outputs, nil, func(r *rig) {
		r.order("output.start", named("hall"))
		r.until("try", func(b status.Box) bool {
			return outputIs(b, "hall", status.Backoff) || outputIs(b, "hall", status.Starting)
		})
		r.order("output.stop", named("hall"))
		b := r.until("rest", func(b status.Box) bool { return serviceIs(b, "push/hall", "") })
		if !outputIs(b, "hall", status.Off) {
			t.Errorf("outputs %+v", b.Outputs)
		}
	})
}

func TestStartIsNoRestartForWhatIsOnAir(t *testing.T) {
	tests := []struct {
		name  string
		state supervise.State
		again bool
	}{
		{"on air", supervise.Live, false},
		{"connecting", supervise.Starting, false},
		{"refused", supervise.Failed, true},
		{"waits for its next try", supervise.Backoff, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := testDaemon(t)
			d.Apply(parse(t, outputs))
			d.noteService("push/hall", supervise.Status{State: tt.state})
			for _, action := range []string{"stream.start", "output.start"} {
				before := d.wanted.Restarts["hall"]
				args := named("hall")
				if action == "stream.start" {
					args = nil
				}
				if err := d.Do(t.Context(), action, args, "test"); err != nil {
					t.Fatal(err)
				}
				if again := d.wanted.Restarts["hall"] > before; again != tt.again {
					t.Errorf("%s: starts again %v, want %v", action, again, tt.again)
				}
			}
		})
	}
}

func TestWishesOfSeveralPeopleAreAllRemembered(t *testing.T) {
	for range 20 {
		d := testDaemon(t)
		d.Apply(parse(t, outputs))
		done := make(chan error)
		orders := []struct {
			action string
			args   map[string]string
		}{
			{"audio.mute", nil}, {"output.start", named("hall")}, {"output.start", named("church")}, {"audio.mute", nil},
		}
		for _, o := range orders {
			go func() { done <- d.Do(t.Context(), o.action, o.args, "test") }()
		}
		for range orders {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		w, err := loadWanted(d.State)
		if err != nil || !w.Muted || !w.Outputs["hall"] || !w.Outputs["church"] {
			t.Fatalf("remembered %+v, %v", w, err)
		}
	}
}

func TestAnEncoderThatDoesNotCloseIsLeftBehindAndReported(t *testing.T) {
	inBox(t, small, nil, func(r *rig) {
		first := r.video.latest()
		first.hung = make(chan struct{})
		r.apply(small + "[[rendition]]\nname = \"main\"\ngop = \"1s\"\n")
		b := r.until("fault", func(b status.Box) bool {
			return b.Has(status.DriverHangs) && r.video.latest() != first && onDuty(b)
		})
		if !r.Alive() || b.State == status.Broken || b.Has(status.ServiceStuck) {
			t.Errorf("alive %v, state %s, faults %+v", r.Alive(), b.State, b.Faults)
		}
		close(first.hung)
		b = r.until("end of it", func(b status.Box) bool { return !b.Has(status.DriverHangs) })
		if !serviceIs(b, "encode/main", supervise.Live) {
			t.Errorf("%+v", b.Services)
		}
	})
}
