package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"encoderd.example/daemon/config"
	"encoderd.example/daemon/tally/tsl"
	"encoderd.example/daemon/visca"
	"encoderd.example/hw"
	"encoderd.example/hw/serial"
)

// lampFile is in the state directory. It holds what the daemon lights: whoever
// darkens that after a daemon that could not may have no config to find it by.
const lampFile = "lamps.json"

// Lit is what a daemon lights, and what may go on shining after its death.
type Lit struct {
	Lamps    []hw.LampWire // of the box
	Cameras  []config.PTZ  // that have tally lamps
	Displays []Display
}

// A Display is one elsewhere that shows the tally by TSL 3.1.
type Display struct {
	Address string // udp://, tcp:// or serial:
	Input   int    // its address there, 0–126
	Text    string // what it says beside
}

// ReadLit returns what the last daemon with this state directory lit and has
// not darkened; ok is false if there was none, or what tells of it is damaged.
func ReadLit(state string) (l Lit, ok bool) {
	b, err := os.ReadFile(filepath.Join(state, lampFile))
	if err != nil {
		return Lit{}, false
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return Lit{}, false
	}
	return l, true
}

// Elsewhere returns what a config lights that is no lamp of the box.
func Elsewhere(c config.Config) (l Lit) {
	if c.PTZ.Port != "" && visca.Models[c.PTZ.Model].Off != nil {
		l.Cameras = append(l.Cameras, c.PTZ)
	}
	for _, o := range c.TallyOuts {
		l.Displays = append(l.Displays, Display{o.Address, o.Input, c.Box.Name})
	}
	return l
}

// darkPatience is how long one camera or display may take to be darkened. The
// daemon is not started again before.
const darkPatience = 3 * time.Second

// DarkenElsewhere makes cameras and displays dark, all at once, after a daemon
// that could not. It returns within four seconds which of them could not be
// reached; one that hangs is left behind.
func (l Lit) DarkenElsewhere(ctx context.Context) error {
	var parts sync.WaitGroup
	errs := make([]error, len(l.Cameras)+len(l.Displays))
	for i, c := range l.Cameras {
		parts.Go(func() { errs[i] = inTime(ctx, "the camera at "+c.Port, darkenCamera(c)) })
	}
	for i, o := range l.Displays {
		parts.Go(func() {
			name := fmt.Sprintf("display %d at %s", o.Input, o.Address)
			errs[len(l.Cameras)+i] = inTime(ctx, name, o.darken)
		})
	}
	parts.Wait()
	return errors.Join(errs...)
}

func darkenCamera(c config.PTZ) func(context.Context) error {
	return func(ctx context.Context) error {
		port, err := serial.Open(context.WithoutCancel(ctx), portPath(c.Port), serial.Mode{Baud: c.Baud})
		if err != nil {
			return err
		}
		return visca.Darken(ctx, port, c.Camera, c.Model)
	}
}

func (o Display) darken(ctx context.Context) error {
	out, err := o.out()
	if err != nil {
		return err
	}
	return out.Darken(ctx)
}

// out is what lights the display.
func (o Display) out() (*tsl.Out, error) {
	open, err := tsl.Far(o.Address, openTSL)
	if err != nil {
		return nil, err
	}
	return tsl.NewOut(open, tsl.Channel{Address: o.Input, PreviewBit: 1, ProgramBit: 2}, o.Text), nil
}

// inTime darkens what has a name. What hangs in the kernel is left behind.
func inTime(ctx context.Context, name string, darken func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, darkPatience)
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- darken(ctx) }()
	late := time.NewTimer(darkPatience + time.Second)
	defer late.Stop()
	err := errors.New("it does not answer")
	select {
	case err = <-answer:
	case <-late.C:
	}
	if err != nil {
		return fmt.Errorf("darken %s: %w", name, err)
	}
	return nil
}

// A litFile keeps word of what is lit, where a later process finds it. Its
// methods may be called from any goroutine.
type litFile struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	lit     Lit
	written []byte
}

func newLitFile(dir string, log *slog.Logger) *litFile {
	return &litFile{path: filepath.Join(dir, lampFile), log: log}
}

// begin forgets what an earlier daemon lit: that was darkened after its end, and
// may belong to others by now.
func (f *litFile) begin() { f.change(func(*Lit) {}) }

// lights takes note of what is about to be lit.
func (f *litFile) lights(some Lit) {
	f.change(func(l *Lit) {
		l.Lamps = with(l.Lamps, some.Lamps)
		l.Cameras = with(l.Cameras, some.Cameras)
		l.Displays = with(l.Displays, some.Displays)
	})
}

// darkened takes note of what is dark, and lit no more.
func (f *litFile) darkened(some Lit) {
	f.change(func(l *Lit) {
		l.Lamps = without(l.Lamps, some.Lamps)
		l.Cameras = without(l.Cameras, some.Cameras)
		l.Displays = without(l.Displays, some.Displays)
	})
}

func with[T comparable](list, more []T) []T { return append(without(list, more), more...) }

func without[T comparable](list, less []T) []T {
	return slices.DeleteFunc(list, func(v T) bool { return slices.Contains(less, v) })
}

// change writes the file, if what it says is new: its medium wears out.
func (f *litFile) change(change func(*Lit)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.lit)
	b, err := json.Marshal(f.lit)
	if err == nil && bytes.Equal(b, f.written) {
		return
	}
	if err == nil {
		err = renameio.WriteFile(f.path, b, 0o600)
	}
	if err != nil {
		f.log.Warn("lamps may stay lit if the daemon dies", "service", "panel", "err", err)
		return
	}
	f.written = b
}
