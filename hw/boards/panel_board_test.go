//go:build board

// Tests of the virtual board's face on its kernel.

package boards

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"encoderd.example/hw"
)

// patience is for a slow emulation: nothing takes that long.
const facePatience = 90 * time.Second

// The lines of the panel that the face has.
var (
	keyLines  = map[string]int{"STREAM": 0, "REC": 2, "MUTE": 3, "RESET": 4}
	lampLines = map[string]int{"TALLY": 1, "STREAM": 5, "REC": 6, "STAGE": 7}
)

// A faceRig is the board's face, which runs until the test ends, and the hands
// and eyes before it.
type faceRig struct {
	*testing.T
	hw.Panel
	edges chan hw.Edge
	stood map[string]hw.Edge // the last of each key
}

func runFace(t *testing.T) *faceRig {
	t.Helper()
	b := virtBoard(nil)
	p, err := b.OpenPanel(b.Keys, b.Lamps)
	if err != nil {
		t.Fatal(err)
	}
	r := &faceRig{T: t, Panel: p, edges: make(chan hw.Edge, 1000), stood: map[string]hw.Edge{}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx, func(e hw.Edge) { r.edges <- e }) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, p.Close()); err != nil {
			t.Error(err)
		}
	})
	for key := range keyLines {
		r.untilKey(key, func(e hw.Edge) bool { return e.Level && !e.Down && e.Err == nil })
	}
	return r
}

// untilKey waits until the last that was told of a key is so.
func (r *faceRig) untilKey(key string, is func(hw.Edge) bool) {
	r.Helper()
	timer := time.NewTimer(facePatience)
	defer timer.Stop()
	for {
		if e, ok := r.stood[key]; ok && is(e) {
			return
		}
		select {
		case e := <-r.edges:
			r.stood[e.Key] = e
		case <-timer.C:
			r.Fatalf("key %s: the last was %+v", key, r.stood[key])
		}
	}
}

func sysfs(line int, file string) string {
	return fmt.Sprintf("/run/panel/sim_gpio%d/%s", line, file)
}

// pull presses a key ("down") or lets it go ("up").
func pull(t *testing.T, line int, to string) {
	t.Helper()
	if err := os.WriteFile(sysfs(line, "pull"), []byte("pull-"+to), 0o644); err != nil {
		t.Fatal(err)
	}
}

// lit returns which lamps shine.
func lit(t *testing.T) map[string]bool {
	t.Helper()
	shine := make(map[string]bool)
	for lamp, line := range lampLines {
		b, err := os.ReadFile(sysfs(line, "value"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(string(b)) == "1" {
			shine[lamp] = true
		}
	}
	return shine
}

func TestBoardFaceHasItsKeysAndLamps(t *testing.T) {
	r := runFace(t)
	for key, line := range keyLines {
		pull(t, line, "down")
		r.untilKey(key, func(e hw.Edge) bool { return e.Down && !e.Level })
		pull(t, line, "up")
		r.untilKey(key, func(e hw.Edge) bool { return !e.Down && !e.Level })
		for other := range keyLines {
			if r.stood[other].Down {
				t.Errorf("%s is down, and %s was pressed", other, key)
			}
		}
	}
	for lamp := range lampLines {
		if err := r.Light(lamp, hw.Light{Color: hw.Red}); err != nil {
			t.Error(err)
		}
		if got := lit(t); len(got) != 1 || !got[lamp] {
			t.Errorf("lamp %s is to shine, and so do %v", lamp, got)
		}
		if err := r.Light(lamp, hw.Light{}); err != nil {
			t.Error(err)
		}
	}
}

func TestBoardFaceThatIsPulledOutAndPutBack(t *testing.T) {
	r := runFace(t)
	if err := r.Light("STREAM", hw.Light{Color: hw.Red}); err != nil {
		t.Fatal(err)
	}
	live(t, "0")
	for key := range keyLines {
		r.untilKey(key, func(e hw.Edge) bool { return e.Err != nil })
	}
	if err := r.Light("REC", hw.Light{Color: hw.Red}); err == nil {
		t.Error("a lamp shines on a chip that is not there")
	}
	live(t, "1")
	for key, line := range keyLines { // a new chip pulls its lines down
		r.untilKey(key, func(e hw.Edge) bool { return e.Level && e.Down && e.Err == nil })
		pull(t, line, "up")
		r.untilKey(key, func(e hw.Edge) bool { return !e.Down && !e.Level })
		pull(t, line, "down")
		r.untilKey(key, func(e hw.Edge) bool { return e.Down && !e.Level })
		pull(t, line, "up")
		r.untilKey(key, func(e hw.Edge) bool { return !e.Down })
	}
	deadline := time.Now().Add(facePatience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for got := lit(t); !got["STREAM"] || !got["REC"]; got = lit(t) {
		if <-tick.C; time.Now().After(deadline) {
			t.Fatalf("of the lamps that shone, these do again: %v", got)
		}
	}
}

// live plugs the panel in or out.
func live(t *testing.T, on string) {
	t.Helper()
	const config = "/sys/kernel/config/gpio-sim/panel/"
	if err := os.WriteFile(config+"live", []byte(on), 0o644); err != nil {
		t.Fatal(err)
	}
	if on == "0" {
		return
	}
	var names []string
	for _, file := range []string{"dev_name", "bank0/chip_name"} {
		b, err := os.ReadFile(config + file)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, strings.TrimSpace(string(b)))
	}
	device := filepath.Join("/sys/devices/platform", names[0], names[1])
	if err := errors.Join(os.Remove("/run/panel"), os.Symlink(device, "/run/panel")); err != nil {
		t.Fatal(err)
	}
}

// holdLamps is set for the process that lights all lamps and waits to be killed.
const holdLamps = "VIRT_HOLD_LAMPS"

func TestBoardLampsAfterAKill(t *testing.T) {
	b := virtBoard(nil)
	if os.Getenv(holdLamps) != "" {
		holdAll(t, b)
		return
	}
	held := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run", "^TestBoardLampsAfterAKill$")
	held.Env = append(os.Environ(), holdLamps+"=1")
	out, err := held.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := held.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "lit\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	if got := lit(t); len(got) != len(lampLines) {
		t.Errorf("only %v shine", got)
	}
	if err := b.Darken(b.Lamps); !errors.Is(err, hw.ErrBusy) {
		t.Errorf("lamps that another process has were darkened: %v", err)
	}
	// What a driver does that keeps a line's level: gpio-sim gives it back to its pull.
	for _, line := range lampLines {
		pull(t, line, "up")
	}
	if err := held.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = held.Wait() // killed
	if got := lit(t); len(got) != len(lampLines) {
		t.Fatalf("of the lamps of a process that was killed only %v shine: this shows nothing", got)
	}
	if err := b.Darken(b.Lamps); err != nil || len(lit(t)) != 0 {
		t.Errorf("got %v, and %v shine", err, lit(t))
	}
}

// holdAll lights all lamps until somebody kills the process.
func holdAll(t *testing.T, b hw.Board) {
	t.Helper()
	p, err := b.OpenPanel(b.Keys, b.Lamps)
	if err != nil {
		t.Fatal(err)
	}
	for _, lamp := range p.Lamps() {
		if err := p.Light(lamp, hw.Light{Color: hw.Red}); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Println("lit") // to the other process
	<-t.Context().Done()
}

func TestBoardLampsOfAKilledProcessFallToTheirPull(t *testing.T) {
	b := virtBoard(nil)
	p, err := b.OpenPanel(nil, b.Lamps)
	if err != nil {
		t.Fatal(err)
	}
	for _, lamp := range p.Lamps() {
		if err := p.Light(lamp, hw.Light{Color: hw.Red}); err != nil {
			t.Error(err)
		}
	}
	// The kernel closes lines of a process that was killed as it does these.
	if err := p.Close(); err != nil || len(lit(t)) != 0 {
		t.Errorf("got %v, and %v shine", err, lit(t))
	}
}
