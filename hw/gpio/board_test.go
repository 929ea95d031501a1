//go:build board

// Tests on the virtual board's kernel, with chips of gpio-sim.

package gpio

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"encoderd.example/hw"
	"encoderd.example/stream"
)

// patience is for a slow emulation: nothing takes that long.
const patience = time.Minute

func TestBoardPanelIsListed(t *testing.T) {
	chips, err := List()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(chips, func(c Chip) bool {
		return slices.ContainsFunc(c.Lines, func(l Line) bool { return l.Name == "GO_LIVE" })
	})
	if i < 0 {
		t.Fatalf("no line GO_LIVE in %+v", chips)
	}
	var names []string
	for offset, l := range chips[i].Lines {
		if names = append(names, l.Name); l.Offset != offset || l.Consumer != "" {
			t.Errorf("line %d is %+v", offset, l)
		}
	}
	const want = "GO_LIVE TALLY REC MUTE RESET LAMP_STREAM LAMP_REC LAMP_STAGE"
	if got := strings.Join(names, " "); !strings.HasPrefix(got, want) {
		t.Errorf("the panel is %s", got)
	}
}

// A simChip is a chip of gpio-sim with lines of those names.
type simChip struct {
	*testing.T
	config, device string
}

// newChip plugs a chip in until the test ends.
func newChip(t *testing.T, label string, lines ...string) *simChip {
	t.Helper()
	c := &simChip{T: t, config: "/sys/kernel/config/gpio-sim/" + label}
	bank := c.config + "/bank0"
	for i, name := range lines {
		folder := fmt.Sprintf("%s/line%d", bank, i)
		c.must(os.MkdirAll(folder, 0o755))
		c.write(folder+"/name", name)
	}
	c.write(bank+"/num_lines", strconv.Itoa(len(lines)))
	c.write(bank+"/label", label)
	c.plug()
	t.Cleanup(func() {
		c.write(c.config+"/live", "0")
		for i := range lines {
			c.must(os.Remove(fmt.Sprintf("%s/line%d", bank, i)))
		}
		c.must(os.Remove(bank))
		c.must(os.Remove(c.config))
	})
	return c
}

func (c *simChip) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

func (c *simChip) write(file, text string) {
	c.Helper()
	c.must(os.WriteFile(file, []byte(text), 0o644))
}

func (c *simChip) read(file string) string {
	c.Helper()
	b, err := os.ReadFile(file)
	c.must(err)
	return strings.TrimSpace(string(b))
}

func (c *simChip) plug() {
	c.Helper()
	c.write(c.config+"/live", "1")
	c.device = filepath.Join("/sys/devices/platform", c.read(c.config+"/dev_name"), c.read(c.config+"/bank0/chip_name"))
	node := "/dev/" + c.read(c.config+"/bank0/chip_name")
	c.until(node, func() bool { _, err := os.Stat(node); return err == nil })
}

func (c *simChip) unplug() {
	c.Helper()
	c.write(c.config+"/live", "0")
}

// until waits for a condition that nobody tells of.
func (c *simChip) until(what string, is func() bool) {
	c.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		if <-tick.C; time.Now().After(deadline) {
			c.Fatalf("no %s within %v", what, patience)
		}
	}
}

// pull is what the wire does to a line: "up" or "down".
func (c *simChip) pull(line int, to string) {
	c.Helper()
	c.write(fmt.Sprintf("%s/sim_gpio%d/pull", c.device, line), "pull-"+to)
}

// value is what a line is driven to, or pulled.
func (c *simChip) value(line int) string {
	c.Helper()
	return c.read(fmt.Sprintf("%s/sim_gpio%d/value", c.device, line))
}

// A watched key.
type watched struct {
	*testing.T
	edges chan hw.Edge
	end   context.CancelFunc
	ended chan error
}

func watch(t *testing.T, w hw.KeyWire) *watched {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	k := &watched{T: t, edges: make(chan hw.Edge, 1000), end: cancel, ended: make(chan error, 1)}
	go func() {
		defer close(k.edges)
		k.ended <- WatchKey(ctx, w, func(e hw.Edge) { k.edges <- e })
	}()
	t.Cleanup(cancel)
	return k
}

// next returns the next edge.
func (k *watched) next() hw.Edge {
	k.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case e, ok := <-k.edges:
		if !ok {
			k.Fatalf("the watch has ended: %v", <-k.ended)
		}
		return e
	case <-timer.C:
		k.Fatalf("no edge within %v", patience)
	}
	return hw.Edge{}
}

// must waits for an edge, and says what it should have been.
func (k *watched) must(down, level bool) hw.Edge {
	k.Helper()
	e := k.next()
	if e.Down != down || e.Level != level || e.Key != "K" || e.Err != nil {
		k.Fatalf("got %+v; down should be %v and level %v", e, down, level)
	}
	return e
}

// stop ends the watch and returns its error.
func (k *watched) stop() error {
	k.Helper()
	k.end()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case err := <-k.ended:
		return err
	case <-timer.C:
		k.Fatal("the watch does not end")
		return nil
	}
}

func TestBoardPressesHaveTheKernelsStamps(t *testing.T) {
	c := newChip(t, "test", "A", "B")
	for _, tt := range []struct {
		name        string
		wire        hw.KeyWire
		press, rest string
	}{
		{"active low", hw.KeyWire{Pin: "gpio:A", ActiveLow: true}, "down", "up"},
		{"active high, debounced, by label", hw.KeyWire{Pin: "gpio:test:1", Debounce: 5 * time.Millisecond}, "up", "down"},
	} {
		line := strings.Index("AB", string(tt.wire.Pin[5]))
		if line < 0 {
			line = 1
		}
		c.pull(line, tt.rest)
		tt.wire.Name = "K"
		k := watch(t, tt.wire)
		last := k.must(false, true).Stamp
		for range 5 {
			for _, down := range []bool{true, false} {
				before := stream.Monotonic()
				c.pull(line, map[bool]string{true: tt.press, false: tt.rest}[down])
				e := k.must(down, false)
				if after := stream.Monotonic(); e.Stamp < before || e.Stamp > after || e.Stamp <= last {
					t.Errorf("%s: stamp %v of an edge between %v and %v, after %v", tt.name, e.Stamp, before, after, last)
				}
				last = e.Stamp
			}
		}
		if err := k.stop(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestBoardAKeyThatIsHeldIsFoundDown(t *testing.T) {
	c := newChip(t, "test", "A")
	c.pull(0, "down")
	k := watch(t, hw.KeyWire{Name: "K", Pin: "gpio:A", ActiveLow: true, Debounce: 5 * time.Millisecond})
	k.must(true, true)
	c.pull(0, "up")
	k.must(false, false)
}

func TestBoardThePullIsThatOfTheWire(t *testing.T) {
	newChip(t, "test", "A")
	for _, tt := range []struct {
		pull hw.Pull
		down bool
	}{{hw.PullUp, false}, {hw.PullDown, true}} {
		k := watch(t, hw.KeyWire{Name: "K", Pin: "gpio:A", ActiveLow: true, Pull: tt.pull})
		k.must(tt.down, true)
		if err := k.stop(); err != nil {
			t.Error(err)
		}
	}
}

func TestBoardABouncingKeyIsOnePress(t *testing.T) {
	const debounce = 500 * time.Millisecond
	c := newChip(t, "test", "A")
	for range 20 { // a slow machine may not bounce quickly enough
		c.pull(0, "up")
		k := watch(t, hw.KeyWire{Name: "K", Pin: "gpio:A", ActiveLow: true, Debounce: debounce})
		k.must(false, true)
		longest, last := time.Duration(0), stream.Monotonic()
		for i := range 21 {
			c.pull(0, []string{"down", "up"}[i%2])
			now := stream.Monotonic()
			longest, last = max(longest, now-last), now
		}
		down := k.must(true, false)
		if longest < debounce/2 {
			if held := down.Stamp - last; held < debounce/2 {
				t.Errorf("the press counted %v after the last bounce, debounced by %v", held, debounce)
			}
			c.pull(0, "up")
			k.must(false, false)
			return
		}
		if err := k.stop(); err != nil {
			t.Fatal(err)
		}
	}
	t.Error("this machine was never quick enough to bounce")
}

func TestBoardLostEdgesAreALevel(t *testing.T) {
	c := newChip(t, "test", "A")
	c.pull(0, "up")
	edges, moved := make(chan hw.Edge, 1000), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- WatchKey(ctx, hw.KeyWire{Name: "K", Pin: "gpio:A", ActiveLow: true}, func(e hw.Edge) {
			edges <- e
			if !e.Level {
				<-moved // the kernel keeps 16 edges for us, and no more
			}
		})
	}()
	k := &watched{T: t, edges: edges, end: cancel, ended: ended}
	k.must(false, true)
	c.pull(0, "down")
	k.must(true, false)
	for i := range 200 {
		c.pull(0, []string{"up", "down"}[i%2])
	}
	close(moved)
	e := k.next()
	for !e.Level {
		e = k.next()
	}
	if !e.Down {
		t.Errorf("found as %+v, and the key is down", e)
	}
	c.pull(0, "up")
	k.must(false, false)
	if err := k.stop(); err != nil {
		t.Error(err)
	}
}

func TestBoardAChipThatIsPulledOut(t *testing.T) {
	c := newChip(t, "test", "A", "L")
	k := watch(t, hw.KeyWire{Name: "K", Pin: "gpio:A", Debounce: 5 * time.Millisecond})
	k.must(false, true)
	l, err := OpenLamp("gpio:L", false)
	if err != nil {
		t.Fatal(err)
	}
	c.unplug()
	select {
	case err := <-k.ended:
		if !errors.Is(err, hw.ErrGone) {
			t.Errorf("the watch ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("nobody noticed")
	}
	if err := l.Light(hw.Light{Color: hw.Red}); !errors.Is(err, hw.ErrGone) {
		t.Errorf("the lamp was lit: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := OpenLamp("gpio:L", false); !errors.Is(err, ErrNoLine) {
		t.Errorf("the lamp was opened: %v", err)
	}
	c.plug()
	k = watch(t, hw.KeyWire{Name: "K", Pin: "gpio:A"})
	k.must(false, true)
	c.pull(0, "up")
	k.must(true, false)
}

func TestBoardALineThatAnotherProgramHas(t *testing.T) {
	c := newChip(t, "test", "A")
	other := exec.CommandContext(t.Context(), "gpioset", "--consumer", "other", "A=1")
	c.must(other.Start())
	c.until("other program", func() bool { return c.value(0) == "1" })
	for _, err := range []error{
		WatchKey(t.Context(), hw.KeyWire{Name: "K", Pin: "gpio:A"}, nil),
		func() error { _, err := OpenLamp("gpio:A", false); return err }(),
	} {
		if !errors.Is(err, hw.ErrBusy) || !strings.Contains(err.Error(), "in use by other") {
			t.Errorf("got %v", err)
		}
	}
	c.must(other.Process.Kill())
	_ = other.Wait() // killed
	k := watch(t, hw.KeyWire{Name: "K", Pin: "gpio:A"})
	k.must(false, true)
}

func TestBoardNamesThatAreNotUnique(t *testing.T) {
	one, two := newChip(t, "one", "A", "TWIN"), newChip(t, "two", "TWIN", "TWIN")
	for _, pin := range []hw.Pin{"gpio:TWIN", "gpio:one:2", "gpio:three:0"} {
		_, err := OpenLamp(pin, false)
		want := ErrNoLine
		if pin == "gpio:TWIN" {
			want = ErrManyLines
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", pin, err)
		}
	}
	chip := two.read(two.config + "/bank0/chip_name")
	for pin, value := range map[hw.Pin]func() string{
		"gpio:one:1":                  func() string { return one.value(1) },
		"gpio:two:0":                  func() string { return two.value(0) },
		hw.Pin("gpio:" + chip + ":1"): func() string { return two.value(1) },
	} {
		l, err := OpenLamp(pin, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Light(hw.Light{Color: hw.Red}); err != nil || value() != "1" {
			t.Errorf("%s: %v, and the line is %s", pin, err, value())
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestBoardLampsAreReadBack(t *testing.T) {
	c := newChip(t, "test", "HIGH", "LOW")
	c.pull(0, "up") // both would shine if nobody held them
	c.pull(1, "down")
	for line, activeLow := range []bool{false, true} {
		dark, lit := "0", "1"
		if activeLow {
			dark, lit = lit, dark
		}
		l, err := OpenLamp(hw.Pin("gpio:"+[]string{"HIGH", "LOW"}[line]), activeLow)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.value(line); got != dark {
			t.Errorf("line %d is %s when it is opened", line, got)
		}
		for _, color := range []hw.Color{hw.Red, hw.Dark, hw.White, hw.White, hw.Blue} {
			want := lit
			if color == hw.Dark {
				want = dark
			}
			if err := l.Light(hw.Light{Color: color}); err != nil || c.value(line) != want {
				t.Errorf("line %d, color %d: %v, and it is %s", line, color, err, c.value(line))
			}
		}
		if err := l.Light(hw.Light{Color: hw.Red, On: time.Second, Off: time.Second}); !errors.Is(err, hw.ErrUnsupported) {
			t.Errorf("a line that blinks: %v", err)
		}
		// gpio-sim gives a line back to its pull, which is that of a dark lamp now.
		if err := l.Close(); err != nil || c.value(line) != dark {
			t.Errorf("line %d is %s when it is closed, %v", line, c.value(line), err)
		}
	}
}
