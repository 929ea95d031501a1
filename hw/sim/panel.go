package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"encoderd.example/hw"
)

// edgeQueue is how many edges wait for Run.
const edgeQueue = 64

// A Panel is the board's face. Keys are pressed and lamps looked at by tests
// and by people at the page. All methods may be called from any goroutine.
type Panel struct {
	now   func() time.Duration
	edges chan hw.Edge

	mu      sync.Mutex
	running bool
	lit     map[string]hw.Light
	wake    chan struct{} // closed and replaced when a lamp changes
}

func newPanel(now func() time.Duration) *Panel {
	return &Panel{
		now:   now,
		edges: make(chan hw.Edge, edgeQueue),
		lit:   make(map[string]hw.Light),
		wake:  make(chan struct{}),
	}
}

// Keys implements [hw.Panel].
func (p *Panel) Keys() []string { return []string{KeyStream, KeyRecord, KeyMute, KeyReset} }

// Lamps implements [hw.Panel].
func (p *Panel) Lamps() []string { return []string{LampStream, LampRecord, LampTally, LampStage} }

// Run implements [hw.Panel]. Edges from before Run are reported first. A
// second Run at the same time fails with [hw.ErrBusy].
func (p *Panel) Run(ctx context.Context, told func(hw.Edge)) error {
	if !p.occupy() {
		return fmt.Errorf("run the panel: %w", hw.ErrBusy)
	}
	defer p.leave()
	for {
		select {
		case e := <-p.edges:
			told(e)
		case <-ctx.Done():
			return nil
		}
	}
}

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
	if !slices.Contains(p.Keys(), key) {
		return fmt.Errorf("no key %q; there are %s", key, strings.Join(p.Keys(), ", "))
	}
	select {
	case p.edges <- hw.Edge{Key: key, Down: down, Stamp: p.now()}:
		return nil
	default:
		return fmt.Errorf("move key %s: %w", key, errDeaf)
	}
}

// Blinks implements [hw.Panel]: no lamp here does.
func (p *Panel) Blinks(string) bool { return false }

// Light implements [hw.Panel].
func (p *Panel) Light(lamp string, l hw.Light) error {
	if !slices.Contains(p.Lamps(), lamp) {
		return fmt.Errorf("no lamp %q; there are %s", lamp, strings.Join(p.Lamps(), ", "))
	}
	if l.On != 0 || l.Off != 0 {
		return fmt.Errorf("lamp %s does not blink by itself: %w", lamp, hw.ErrUnsupported)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lit[lamp] != l {
		p.lit[lamp] = l
		close(p.wake)
		p.wake = make(chan struct{})
	}
	return nil
}

// Close implements [hw.Panel]. The board's face can be run again.
func (p *Panel) Close() error { return nil }

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
