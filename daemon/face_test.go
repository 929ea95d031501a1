//nolint:thelper // what runs in a bubble is a test: failures belong to their own lines
package daemon

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"encoderd.example/daemon/config"
	"encoderd.example/daemon/status"
	"encoderd.example/hw"
)

// A lampBox is a panel of lamps only, of which some fail or hang.
type lampBox struct {
	lamps []string
	fails map[string]error

	mu    sync.Mutex
	hangs map[string]chan struct{} // until it is closed
	lit   map[string]hw.Color
}

func (p *lampBox) Keys() []string     { return nil }
func (p *lampBox) Lamps() []string    { return slices.Clone(p.lamps) }
func (p *lampBox) Blinks(string) bool { return false }
func (p *lampBox) Close() error       { return nil }
func (p *lampBox) shows(l string) (c hw.Color) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lit[l]
}

func (p *lampBox) Run(ctx context.Context, _ func(hw.Edge)) error {
	<-ctx.Done()
	return nil
}

func (p *lampBox) Light(lamp string, l hw.Light) error {
	p.mu.Lock()
	hangs := p.hangs[lamp]
	p.mu.Unlock()
	if hangs != nil {
		<-hangs
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lit[lamp] = l.Color
	return p.fails[lamp]
}

// withLamps runs a test with a daemon whose panel runs, under fake time.
func withLamps(t *testing.T, p *lampBox, test func(t *testing.T, d *Daemon)) {
	t.Helper()
	state := t.TempDir() // longer than the bubble
	synctest.Test(t, func(t *testing.T) {
		p.lit = map[string]hw.Color{}
		b := hw.Board{OpenPanel: func([]hw.KeyWire, []hw.LampWire) (hw.Panel, error) { return p, nil }}
		for _, name := range p.lamps {
			b.Lamps = append(b.Lamps, hw.LampWire{Name: name, Pin: hw.Pin("gpio:" + name)})
		}
		d := New(Options{Board: b, State: state, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- d.panel(panelConfig{})(ctx, func() {}) }()
		synctest.Wait()
		test(t, d)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		for _, name := range p.lamps {
			if p.shows(name) != hw.Dark {
				t.Errorf("%s shines after the end", name)
			}
		}
		if len(d.notes.lamps) > 0 {
			t.Errorf("the panel is gone and what was wrong with it stands: %v", d.notes.lamps)
		}
	})
}

// tell puts patterns of lamps into the status.
func tell(d *Daemon, patterns map[string]string) {
	d.cell.Update(func(b *status.Box) {
		b.Lamps = map[string]status.Lamp{}
		for name, p := range patterns {
			b.Lamps[name] = status.Lamp{Pattern: p}
		}
	})
	synctest.Wait()
}

// saysItHangs looks for the fault of the lamp that hangs.
func saysItHangs(d *Daemon) bool {
	for _, f := range d.box(time.Now()).Faults {
		if f.Code == status.PanelWire && strings.Contains(f.Text, "HANGS: its driver") {
			return true
		}
	}
	return false
}

func TestALampThatHangsFreezesNoOther(t *testing.T) {
	p := &lampBox{lamps: []string{"A", "HANGS", "Z"}}
	withLamps(t, p, func(t *testing.T, d *Daemon) {
		hung := make(chan struct{})
		p.mu.Lock()
		p.hangs = map[string]chan struct{}{"HANGS": hung}
		p.mu.Unlock()
		tell(d, map[string]string{"A": "red", "HANGS": "red", "Z": "green"})
		if p.shows("A") != hw.Red || p.shows("Z") != hw.Green {
			t.Errorf("lamps show %v", p.lit)
		}
		time.Sleep(5 * time.Second)
		if saysItHangs(d) {
			t.Error("a slow lamp is taken for one that hangs")
		}
		tell(d, map[string]string{"A": "off", "HANGS": "off", "Z": "amber"})
		if p.shows("A") != hw.Dark || p.shows("Z") != hw.Amber {
			t.Errorf("lamps show %v", p.lit)
		}
		time.Sleep(time.Second)
		if !saysItHangs(d) {
			t.Error("nobody notices the lamp that hangs")
		}
		close(hung)
		synctest.Wait()
		if saysItHangs(d) {
			t.Error("the lamp has followed and is said to hang")
		}
	})
}

func TestTheFaultOfALampEndsWithItsPanel(t *testing.T) {
	p := &lampBox{lamps: []string{"A", "B"}, fails: map[string]error{"B": errors.New("no such LED")}}
	withLamps(t, p, func(t *testing.T, d *Daemon) {
		tell(d, map[string]string{"A": "red", "B": "red"})
		d.mu.Lock()
		defer d.mu.Unlock()
		if err := d.notes.lamps["B"]; err == nil || d.notes.lamps["A"] != nil {
			t.Errorf("noted: %v", d.notes.lamps)
		}
	})
}

// What darkens the lamps after a crash has this file if it has no config.
func TestThePanelLeavesWordOfItsLamps(t *testing.T) {
	p := &lampBox{lamps: []string{"A", "B", "BROKEN"}, fails: map[string]error{"BROKEN": errors.New("gone")}}
	var state string
	withLamps(t, p, func(t *testing.T, d *Daemon) {
		state = d.State
		want := []hw.LampWire{{Name: "A", Pin: "gpio:A"}, {Name: "B", Pin: "gpio:B"}, {Name: "BROKEN", Pin: "gpio:BROKEN"}}
		if got, ok := ReadLit(state); !ok || !slices.Equal(got.Lamps, want) {
			t.Errorf("remembered %+v", got)
		}
		if info, err := os.Stat(filepath.Join(state, lampFile)); err != nil || info.Mode() != 0o600 {
			t.Fatalf("%v, %v", info, err)
		}
	})
	// They may be somebody else's now, but for one that may still shine.
	if got, ok := ReadLit(state); !ok || len(got.Lamps) != 1 || got.Lamps[0].Name != "BROKEN" {
		t.Errorf("after the end of the panel %+v is remembered", got)
	}
}

func TestWhatIsLitIsWrittenDownOnceAndForgottenInTheDark(t *testing.T) {
	dir := t.TempDir()
	a, b := hw.LampWire{Name: "A", Pin: "gpio:A"}, hw.LampWire{Name: "B", Red: "led:r", Blue: "led:b", ActiveLow: true}
	camera := config.PTZ{Port: "serial:/dev/ttyS1", Baud: 9600, Camera: 1, Model: "sony"}
	display := Display{Address: "udp://10.0.0.5:8900", Input: 3, Text: "Hall"}
	before := newLitFile(dir, slog.New(slog.DiscardHandler))
	before.lights(Lit{Lamps: []hw.LampWire{{Name: "OLD", Pin: "gpio:O"}}}) // and then it was killed

	f := newLitFile(dir, slog.New(slog.DiscardHandler))
	wants := func(want Lit) os.FileInfo {
		t.Helper()
		got, ok := ReadLit(dir)
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); !ok || diff != "" {
			t.Errorf("- want, + got:\n%s", diff)
		}
		info, err := os.Stat(filepath.Join(dir, lampFile))
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	f.begin() // a config without any lamp leaves none behind
	wants(Lit{})
	f.lights(Lit{Lamps: []hw.LampWire{a, b}})
	f.lights(Lit{Cameras: []config.PTZ{camera}, Displays: []Display{display}})
	once := wants(Lit{Lamps: []hw.LampWire{a, b}, Cameras: []config.PTZ{camera}, Displays: []Display{display}})
	f.lights(Lit{Displays: []Display{display}})
	if again := wants(Lit{Lamps: []hw.LampWire{a, b}, Cameras: []config.PTZ{camera}, Displays: []Display{display}}); !os.SameFile(once, again) {
		t.Error("what is not new was written again: the medium wears out")
	}
	f.darkened(Lit{Lamps: []hw.LampWire{a}, Displays: []Display{display}})
	wants(Lit{Lamps: []hw.LampWire{b}, Cameras: []config.PTZ{camera}})
}

func TestADamagedMemoryOfLampsIsNone(t *testing.T) {
	dir := t.TempDir()
	for _, doc := range []string{"", "{", `[{"Name": "A"}]`, `{"Lamps": [{"Name": 7}]}`, "\x00\x00"} {
		if err := os.WriteFile(filepath.Join(dir, lampFile), []byte(doc), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, ok := ReadLit(dir); ok {
			t.Errorf("%q: %+v", doc, got)
		}
	}
	if got, ok := ReadLit(filepath.Join(dir, "none")); ok {
		t.Errorf("without a file: %+v", got)
	}
}

func TestLampsFollowTheirPatterns(t *testing.T) {
	p := &lampBox{lamps: []string{"A", "B"}}
	withLamps(t, p, func(t *testing.T, d *Daemon) {
		tell(d, map[string]string{"A": "amber pulse", "B": "red"})
		var seen []hw.Color
		for range 4 {
			seen = append(seen, p.shows("A"))
			time.Sleep(500 * time.Millisecond)
			synctest.Wait()
		}
		if want := []hw.Color{hw.Amber, hw.Dark, hw.Amber, hw.Dark}; !slices.Equal(seen, want) {
			t.Errorf("pulses as %v, not %v", seen, want)
		}
		if p.shows("B") != hw.Red {
			t.Error("a steady lamp does not shine")
		}
	})
}

// A switcher that says something else with every packet must not keep the box
// busy with telling of it, nor keep it from telling.
func TestChangesWithoutEndAreToldAFewHundredTimesASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Options{State: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { d.report(ctx); close(ended) }()
		synctest.Wait()
		_, before := d.cell.Get()
		for range 4000 {
			d.notes.kick()
			time.Sleep(100 * time.Microsecond)
		}
		if _, after := d.cell.Get(); after-before < 90 || after-before > 110 {
			t.Errorf("told %d times in 400 ms", after-before)
		}
		cancel()
		<-ended
	})
}
