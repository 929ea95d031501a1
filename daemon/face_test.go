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
	synctest.Test(t, func(t *testing.T) {
		p.lit = map[string]hw.Color{}
		b := hw.Board{OpenPanel: func([]hw.KeyWire, []hw.LampWire) (hw.Panel, error) { return p, nil }}
		for _, name := range p.lamps {
			b.Lamps = append(b.Lamps, hw.LampWire{Name: name, Pin: hw.Pin("gpio:" + name)})
		}
		d := New(Options{Board: b, State: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
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
	p := &lampBox{lamps: []string{"A", "B"}}
	var state string
	withLamps(t, p, func(t *testing.T, d *Daemon) {
		state = d.State
		want := []hw.LampWire{{Name: "A", Pin: "gpio:A"}, {Name: "B", Pin: "gpio:B"}}
		if got := RememberedLamps(state); !slices.Equal(got, want) {
			t.Errorf("remembered %+v", got)
		}
		info, err := os.Stat(filepath.Join(state, lampFile))
		if err != nil || info.Mode() != 0o600 {
			t.Fatalf("%v, %v", info, err)
		}
		// What is not new is not written again: the medium wears out.
		if err := rememberLamps(state, want); err != nil {
			t.Error(err)
		}
		again, err := os.Stat(filepath.Join(state, lampFile))
		if err != nil || !os.SameFile(info, again) {
			t.Errorf("the file was written again: %v", err)
		}
		all := append(want, hw.LampWire{Name: "C", Red: "led:r", Blue: "led:b", ActiveLow: true})
		if err := rememberLamps(state, all); err != nil || !slices.Equal(RememberedLamps(state), all) {
			t.Errorf("remembered %+v, %v", RememberedLamps(state), err)
		}
	})
}

func TestADamagedMemoryOfLampsIsNone(t *testing.T) {
	dir := t.TempDir()
	for _, doc := range []string{"", "[{", `{"Name": "A"}`, `[{"Name": 7}]`, "\x00\x00"} {
		if err := os.WriteFile(filepath.Join(dir, lampFile), []byte(doc), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := RememberedLamps(dir); got != nil {
			t.Errorf("%q: %+v", doc, got)
		}
	}
	if got := RememberedLamps(filepath.Join(dir, "none")); got != nil {
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
