package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"encoderd.example/hw"
)

// edgeQueue is how many edges wait for Run.
const edgeQueue = 64

// A Panel is the board's face. Keys are pressed and lamps looked at by tests
// and by people at the page; the daemon has them as a [hw.Panel], by
// OpenPanel of [Board.Hardware]. A key or lamp at the pin "sim:NAME" is called
// NAME here, whatever the daemon calls it; those that the board does not have
// are there once they were wired. All methods may be called from any goroutine.
type Panel struct {
	now   func() time.Duration
	edges chan hw.Edge // Key is a pin's name

	mu      sync.Mutex
	running bool
	keys    map[string]bool // by name of the pin: down, when Run last told of it
	lit     map[string]hw.Light
	wake    chan struct{} // closed and replaced when a lamp changes
}

func newPanel(now func() time.Duration) *Panel {
	p := &Panel{
		now:   now,
		edges: make(chan hw.Edge, edgeQueue),
		keys:  make(map[string]bool),
		lit:   make(map[string]hw.Light),
		wake:  make(chan struct{}),
	}
	for _, w := range Keys() {
		p.keys[pinName(w.Pin)] = false
	}
	for _, w := range Lamps() {
		p.lit[pinName(w.Pin)] = hw.Light{}
	}
	return p
}

// Keys returns how the keys on the board's face are wired.
func Keys() []hw.KeyWire {
	var wires []hw.KeyWire
	for _, name := range []string{KeyStream, KeyRecord, KeyMute, KeyReset} {
		wires = append(wires, hw.KeyWire{Name: name, Pin: hw.Pin("sim:" + name)})
	}
	return wires
}

// Lamps returns how the lamps on the board's face are wired.
func Lamps() []hw.LampWire {
	var wires []hw.LampWire
	for _, name := range []string{LampStream, LampRecord, LampTally, LampStage} {
		wires = append(wires, hw.LampWire{Name: name, Pin: hw.Pin("sim:" + name)})
	}
	return wires
}

// pinName returns NAME of "sim:NAME", else "".
func pinName(pin hw.Pin) string {
	if kind, name := pin.Kind(); kind == "sim" {
		return name
	}
	return ""
}

// Press presses a key and lets it go at once.
func (p *Panel) Press(key string) error {
	if err := p.Move(key, true); err != nil {
		return err
	}
	return p.Move(key, false)
}

// Hold presses a key and lets it go after d, or when ctx ends.
func (p *Panel) Hold(ctx context.Context, key string, d time.Duration) error {
	if err := p.Move(key, true); err != nil {
		return err
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return p.Move(key, false)
}

// errDeaf says that the queue of edges is full.
var errDeaf = errors.New("nobody runs the panel")

// Move presses a key down or lets it go.
func (p *Panel) Move(key string, down bool) error {
	if err := p.mustHave(key); err != nil {
		return err
	}
	select {
	case p.edges <- hw.Edge{Key: key, Down: down, Stamp: p.now()}:
		return nil
	default:
		return fmt.Errorf("move key %s: %w", key, errDeaf)
	}
}

// Rest moves a key without an edge: that is how the next Run finds it, as one
// that was held down while the box started.
func (p *Panel) Rest(key string, down bool) error {
	if err := p.mustHave(key); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys[key] = down
	return nil
}

func (p *Panel) mustHave(key string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.keys[key]; !ok {
		return fmt.Errorf("no key %q; there are %s", key, names(p.keys))
	}
	return nil
}

func names[T any](of map[string]T) string {
	return strings.Join(slices.Sorted(maps.Keys(of)), ", ")
}

// Lit reports whether a lamp is on.
func (p *Panel) Lit(lamp string) bool { return p.Shows(lamp) != hw.Dark }

// Shows returns the color of a lamp.
func (p *Panel) Shows(lamp string) hw.Color {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lit[lamp].Color
}

// WaitLit waits until a lamp is on or off.
func (p *Panel) WaitLit(ctx context.Context, lamp string, on bool) error {
	for {
		p.mu.Lock()
		is, wake := p.lit[lamp].Color != hw.Dark, p.wake
		p.mu.Unlock()
		if is == on {
			return nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return fmt.Errorf("wait for lamp %s: %w", lamp, context.Cause(ctx))
		}
	}
}

// occupy and leave see to it that one Run reads the edges.
func (p *Panel) occupy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.running
	p.running = true
	return !was
}

func (p *Panel) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = false
}

// stands returns how a key was told to stand.
func (p *Panel) stands(key string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.keys[key]
}

func (p *Panel) tell(key string, down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys[key] = down
}

// shine lights a lamp.
func (p *Panel) shine(lamp string, l hw.Light) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lit[lamp] != l {
		p.lit[lamp] = l
		close(p.wake)
		p.wake = make(chan struct{})
	}
}

// open wires keys and lamps; it implements OpenPanel of [hw.Board].
func (p *Panel) open(keys []hw.KeyWire, lamps []hw.LampWire) (hw.Panel, error) {
	w := &wired{face: p, keys: slices.Clone(keys), lamps: slices.Clone(lamps)}
	if name := twice(w.Keys()); name != "" {
		return nil, fmt.Errorf("two keys are called %q", name)
	}
	if name := twice(w.Lamps()); name != "" {
		return nil, fmt.Errorf("two lamps are called %q", name)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range keys {
		name := pinName(k.Pin)
		if _, known := p.keys[name]; name != "" && !known {
			p.keys[name] = false
		}
	}
	for _, l := range lamps {
		parts, _ := l.Parts() // lighting it says what is wrong
		for _, part := range parts {
			if name := pinName(part.Pin); name != "" {
				p.lit[name] = hw.Light{}
			}
		}
	}
	return w, nil
}

func twice(names []string) string {
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return name
		}
	}
	return ""
}

// darken implements Darken of [hw.Board].
func (p *Panel) darken(lamps []hw.LampWire) error {
	w := &wired{face: p, lamps: lamps}
	var errs []error
	for _, l := range lamps {
		errs = append(errs, w.Light(l.Name, hw.Light{}))
	}
	return errors.Join(errs...)
}

// wired is the face as somebody has wired it: a [hw.Panel].
type wired struct {
	face  *Panel
	keys  []hw.KeyWire
	lamps []hw.LampWire
}

// Keys implements [hw.Panel].
func (w *wired) Keys() []string {
	var names []string
	for _, k := range w.keys {
		names = append(names, k.Name)
	}
	return names
}

// Lamps implements [hw.Panel].
func (w *wired) Lamps() []string {
	var names []string
	for _, l := range w.lamps {
		names = append(names, l.Name)
	}
	return names
}

// Blinks implements [hw.Panel]: no lamp here does.
func (w *wired) Blinks(string) bool { return false }

// Run implements [hw.Panel]. Edges from before Run are told, after how each key
// stood before them.
func (w *wired) Run(ctx context.Context, told func(hw.Edge)) error {
	if !w.face.occupy() {
		return fmt.Errorf("run the panel: %w", hw.ErrBusy)
	}
	defer w.face.leave()
	for _, k := range w.keys {
		told(w.found(k))
	}
	for {
		select {
		case e := <-w.face.edges:
			w.face.tell(e.Key, e.Down)
			w.tell(e, told)
		case <-ctx.Done():
			return nil
		}
	}
}

func (w *wired) found(k hw.KeyWire) hw.Edge {
	e := hw.Edge{Key: k.Name, Stamp: w.face.now(), Level: true}
	name := pinName(k.Pin)
	if name == "" {
		return hw.Edge{Key: k.Name, Stamp: e.Stamp, Err: notOurs(k.Pin)}
	}
	e.Down = w.face.stands(name)
	return e
}

// tell tells of an edge by the name of the key that is wired there, if any is.
func (w *wired) tell(e hw.Edge, told func(hw.Edge)) {
	for _, k := range w.keys {
		if pinName(k.Pin) == e.Key {
			told(hw.Edge{Key: k.Name, Down: e.Down, Stamp: e.Stamp})
		}
	}
}

func notOurs(pin hw.Pin) error {
	return fmt.Errorf("%q: the software board has pins sim:NAME only: %w", pin, hw.ErrUnsupported)
}

// Light implements [hw.Panel].
func (w *wired) Light(lamp string, l hw.Light) error {
	i := slices.IndexFunc(w.lamps, func(wire hw.LampWire) bool { return wire.Name == lamp })
	if i < 0 {
		return fmt.Errorf("no lamp %q; there are %s", lamp, strings.Join(w.Lamps(), ", "))
	}
	if l.On != 0 || l.Off != 0 {
		return fmt.Errorf("lamp %s does not blink by itself: %w", lamp, hw.ErrUnsupported)
	}
	parts, err := w.lamps[i].Parts()
	for _, part := range parts {
		name := pinName(part.Pin)
		if name == "" {
			err = errors.Join(err, fmt.Errorf("lamp %s: %w", lamp, notOurs(part.Pin)))
			continue
		}
		w.face.shine(name, hw.Light{Color: l.Color & part.Colors})
	}
	return err
}

// Close implements [hw.Panel]. The face can be opened again.
func (w *wired) Close() error { return nil }
