// Package face joins keys and lamps of different kinds, such as GPIO lines and
// LEDs, to one [hw.Panel]. It knows no kind itself: they are handed in.
//
// Every key has a goroutine of its own that watches it, and when it cannot be
// read tries again, after one second at first and half a minute at last. A lamp
// is opened when the panel is, and when it fails tried again in the same
// rhythm, by a goroutine of its own. What fails or hangs hinders nothing else.
//
//	           ┌ Watch ─ something was plugged in: try at once
//	           ▼
//	key   ── Kind.Key ──► told(Edge)     one goroutine each, one caller at a time
//	lamp  ◄─ Kind.Lamp ◄─ Light(Light)   each part by itself
package face

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"encoderd.example/hw"
	"encoderd.example/stream"
)

// How long to wait before a key or lamp that failed is tried again.
const (
	firstWait = time.Second
	lastWait  = 30 * time.Second
)

// A Lamp is a lamp or a part of one. It may be used by several goroutines.
type Lamp interface {
	// Light shows a light, or fails; then only Close may follow.
	Light(hw.Light) error
	// Blinks reports whether Light takes one that blinks.
	Blinks() bool
	// Close leaves the lamp as it is.
	Close() error
}

// A Kind is a way to wire keys and lamps.
type Kind struct {
	// Key reports how a key stands, then its edges, until ctx ends (nil) or it
	// cannot be read. It is nil for a kind without keys.
	Key func(ctx context.Context, w hw.KeyWire, told func(hw.Edge)) error
	// Lamp takes a lamp or a part of one and makes it dark. It is nil for a kind
	// without lamps.
	Lamp func(pin hw.Pin, activeLow bool) (Lamp, error)
}

// A Maker makes panels.
type Maker struct {
	// Kinds are found by the word before the colon of a pin.
	Kinds map[string]Kind
	// Watch, if set, calls changed whenever something that failed may work now,
	// until ctx ends. What it returns is for nobody: without it, everything is
	// found again, too.
	Watch func(ctx context.Context, changed func()) error
}

// Open joins keys and lamps and makes the lamps dark. It fails if two keys or
// two lamps have one name.
func (m Maker) Open(keys []hw.KeyWire, lamps []hw.LampWire) (hw.Panel, error) {
	p := &panel{maker: m, keys: slices.Clone(keys), bell: make(chan struct{})}
	for i, w := range keys {
		if slices.ContainsFunc(keys[:i], func(k hw.KeyWire) bool { return k.Name == w.Name }) {
			return nil, fmt.Errorf("two keys are called %q", w.Name)
		}
	}
	for i, w := range lamps {
		if slices.ContainsFunc(lamps[:i], func(l hw.LampWire) bool { return l.Name == w.Name }) {
			return nil, fmt.Errorf("two lamps are called %q", w.Name)
		}
	}
	for _, w := range lamps {
		p.lamps = append(p.lamps, m.lamp(w))
	}
	return p, nil
}

// darkPatience is how long a lamp may take to be darkened without a panel.
const darkPatience = 5 * time.Second

// Darken makes lamps dark and lets go of them, without a panel. It does all it
// can within five seconds and returns what it could not; a lamp that hangs then
// is left behind. Of lamps that share a wire the last one has the last word.
func (m Maker) Darken(lamps []hw.LampWire) error {
	groups := sharing(lamps)
	answers := make([]chan error, len(groups))
	for i, group := range groups {
		answers[i] = make(chan error, 1)
		go func() { answers[i] <- m.darken(group) }()
	}
	late, cancel := context.WithTimeout(context.Background(), darkPatience)
	defer cancel()
	var errs []error
	for i, group := range groups {
		select {
		case err := <-answers[i]:
			errs = append(errs, err)
		case <-late.Done():
			errs = append(errs, fmt.Errorf("lamp %s: its driver does not answer", group[0].Name))
		}
	}
	return errors.Join(errs...)
}

// darken makes some lamps dark, one after the other.
func (m Maker) darken(lamps []hw.LampWire) error {
	var errs []error
	for _, w := range lamps {
		l := m.lamp(w)
		errs = append(errs, l.light(hw.Light{}), l.close())
	}
	return errors.Join(errs...)
}

// sharing puts lamps that share a wire into one group, all in their order.
func sharing(lamps []hw.LampWire) (groups [][]hw.LampWire) {
	for _, w := range lamps {
		with := []hw.LampWire{}
		groups = slices.DeleteFunc(groups, func(g []hw.LampWire) bool {
			shares := slices.ContainsFunc(g, func(o hw.LampWire) bool { return share(o, w) })
			if shares {
				with = append(with, g...)
			}
			return shares
		})
		groups = append(groups, append(with, w))
	}
	return groups
}

func share(a, b hw.LampWire) bool {
	one, _ := a.Parts()
	two, _ := b.Parts()
	return slices.ContainsFunc(one, func(p hw.LampPart) bool {
		return slices.ContainsFunc(two, func(o hw.LampPart) bool { return o.Pin == p.Pin })
	})
}

// errNoKind says that no pin of that kind can be had.
var errNoKind = errors.New("this board has none of that kind")

// watchKey watches a key once.
func (m Maker) watchKey(ctx context.Context, w hw.KeyWire, told func(hw.Edge)) error {
	kind, _ := w.Pin.Kind()
	watch := m.Kinds[kind].Key
	if watch == nil {
		return fmt.Errorf("a key at %q: %w", w.Pin, errNoKind)
	}
	return watch(ctx, w, told)
}

// openLamp opens a part of a lamp.
func (m Maker) openLamp(pin hw.Pin, activeLow bool) (Lamp, error) {
	kind, _ := pin.Kind()
	open := m.Kinds[kind].Lamp
	if open == nil {
		return nil, fmt.Errorf("a lamp at %q: %w", pin, errNoKind)
	}
	return open(pin, activeLow)
}

// A panel implements [hw.Panel].
type panel struct {
	maker Maker
	keys  []hw.KeyWire
	lamps []*lamp

	mu      sync.Mutex
	running bool
	bell    chan struct{} // closed and replaced when something may have come
}

func (p *panel) Keys() []string {
	var names []string
	for _, k := range p.keys {
		names = append(names, k.Name)
	}
	return names
}

func (p *panel) Lamps() []string {
	var names []string
	for _, l := range p.lamps {
		names = append(names, l.name)
	}
	return names
}

func (p *panel) lamp(name string) *lamp {
	for _, l := range p.lamps {
		if l.name == name {
			return l
		}
	}
	return nil
}

func (p *panel) Blinks(name string) bool {
	l := p.lamp(name)
	return l != nil && l.blinks()
}

func (p *panel) Light(name string, light hw.Light) error {
	l := p.lamp(name)
	if l == nil {
		return fmt.Errorf("no lamp %q; there are %q", name, p.Lamps())
	}
	return l.light(light)
}

func (p *panel) Close() error {
	var errs []error
	for _, l := range p.lamps {
		errs = append(errs, l.close())
	}
	return errors.Join(errs...)
}

func (p *panel) Run(ctx context.Context, told func(hw.Edge)) error {
	if !p.occupy() {
		return fmt.Errorf("run the panel: %w", hw.ErrBusy)
	}
	defer p.leave()
	var telling sync.Mutex
	one := func(e hw.Edge) {
		telling.Lock()
		defer telling.Unlock()
		told(e)
	}
	var parts sync.WaitGroup
	defer parts.Wait()
	for _, w := range p.keys {
		parts.Go(func() { p.watch(ctx, w, one) })
	}
	for _, l := range p.lamps {
		parts.Go(func() { p.relight(ctx, l) })
	}
	if p.maker.Watch != nil {
		parts.Go(func() { _ = p.maker.Watch(ctx, p.ring) }) // its error is for nobody: see there
	}
	<-ctx.Done()
	return nil
}

func (p *panel) occupy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.running
	p.running = true
	return !was
}

func (p *panel) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = false
}

// watch watches a key until ctx ends.
func (p *panel) watch(ctx context.Context, w hw.KeyWire, told func(hw.Edge)) {
	var r rhythm
	said := ""
	for {
		heard := p.rings()
		err := p.maker.watchKey(ctx, w, func(e hw.Edge) {
			r, said = rhythm{}, ""
			told(e)
		})
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = hw.ErrGone
		}
		if err.Error() != said {
			said = err.Error()
			told(hw.Edge{Key: w.Name, Stamp: stream.Monotonic(), Err: err})
		}
		if r.rest(ctx, heard) {
			r = rhythm{}
		}
	}
}

// relight finds a lamp again that was taken out: nobody would light a lamp anew
// that is to go on showing what it did. It looks now and then, and often while
// the lamp fails, whose parts are tried in their own rhythm.
func (p *panel) relight(ctx context.Context, l *lamp) {
	heard := p.rings()
	timer := time.NewTimer(lastWait)
	defer timer.Stop()
	for {
		anew := false
		select {
		case <-heard:
			heard, anew = p.rings(), true
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		next := lastWait
		if l.again(anew) != nil {
			next = firstWait
		}
		timer.Reset(next)
	}
}

// ring tells everybody who waits that something may have come.
func (p *panel) ring() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.bell)
	p.bell = make(chan struct{})
}

// rings returns what will be closed at the next ring.
func (p *panel) rings() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bell
}

// A rhythm says how long to wait for the next try; it is ready to use.
type rhythm struct{ last time.Duration }

// next returns how long to wait.
func (r *rhythm) next() time.Duration {
	r.last = min(max(2*r.last, firstWait), lastWait)
	return r.last
}

// rest waits, and reports whether a bell ended that before its time.
func (r *rhythm) rest(ctx context.Context, bell <-chan struct{}) bool {
	timer := time.NewTimer(r.next())
	defer timer.Stop()
	select {
	case <-bell:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}
