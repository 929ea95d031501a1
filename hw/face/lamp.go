package face

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"encoderd.example/hw"
)

// A lamp is one lamp of a panel, of one part or several.
type lamp struct {
	name string

	mu    sync.Mutex
	parts []*part
	shows hw.Light
	wrong error // its wire, for good
}

// lamp opens a lamp; what cannot be opened is tried again when it is lit.
func (m Maker) lamp(w hw.LampWire) *lamp {
	l := &lamp{name: w.Name}
	parts, err := w.Parts()
	if err != nil {
		l.wrong = err
		return l
	}
	for _, wired := range parts {
		p := &part{
			colors: wired.Colors,
			open:   func() (Lamp, error) { return m.openLamp(wired.Pin, w.ActiveLow) },
		}
		_ = p.ready() // the first Light says so
		l.parts = append(l.parts, p)
	}
	return l
}

// blinks: parts that blink each by itself would be out of step.
func (l *lamp) blinks() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.parts) == 1 && l.parts[0].lamp != nil && l.parts[0].lamp.Blinks()
}

func (l *lamp) light(light hw.Light) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shows = light
	return l.show()
}

// again shows what the lamp is to show, should it be another one now, and
// returns why it does not. anew says that there is a reason not to wait.
func (l *lamp) again(anew bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if anew {
		for _, p := range l.parts {
			p.rhythm, p.due = rhythm{}, time.Time{}
		}
	}
	if l.wrong != nil { // for good: nothing to look after
		return nil
	}
	return l.show()
}

func (l *lamp) show() error {
	if l.wrong != nil {
		return l.wrong
	}
	if (l.shows.On != 0 || l.shows.Off != 0) && len(l.parts) > 1 {
		return fmt.Errorf("lamp %s does not blink by itself: %w", l.name, hw.ErrUnsupported)
	}
	var errs []error
	color := l.mixed(l.shows.Color)
	for _, p := range l.parts {
		light := l.shows
		light.Color = color & p.colors
		errs = append(errs, p.light(light))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("lamp %s: %w", l.name, err)
	}
	return nil
}

// mixed is what a lamp shows of a color. One that has nothing of it shines with
// all it has: it is not dark.
func (l *lamp) mixed(c hw.Color) hw.Color {
	var all hw.Color
	for _, p := range l.parts {
		all |= p.colors
	}
	if c != hw.Dark && c&all == hw.Dark {
		return all
	}
	return c
}

func (l *lamp) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, p := range l.parts {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}

// A part is one line or LED. It is guarded by its lamp.
type part struct {
	colors hw.Color
	open   func() (Lamp, error)
	lamp   Lamp // nil while it cannot be had

	err    error // why not
	due    time.Time
	rhythm rhythm
}

// ready opens the part, if it is time to.
func (p *part) ready() error {
	if p.lamp != nil {
		return nil
	}
	if time.Now().Before(p.due) {
		return p.err
	}
	lamp, err := p.open()
	if err != nil {
		p.failed(err)
		return err
	}
	p.lamp, p.err = lamp, nil
	return nil
}

func (p *part) failed(err error) {
	p.err, p.due = err, time.Now().Add(p.rhythm.next())
}

// light shows a light. A part that fails may have been taken out and put back:
// it is opened once more at once.
func (p *part) light(light hw.Light) error {
	was := p.lamp
	if err := p.ready(); err != nil {
		return err
	}
	err := p.lamp.Light(light)
	if err == nil {
		p.rhythm = rhythm{}
		return nil
	}
	if errors.Is(err, hw.ErrUnsupported) { // nothing is wrong with the lamp
		return err
	}
	err = errors.Join(err, p.lamp.Close())
	p.lamp = nil
	if was == nil { // it was opened a moment ago
		p.failed(err)
		return err
	}
	p.due = time.Time{}
	return p.light(light)
}

func (p *part) close() error {
	if p.lamp == nil {
		return nil
	}
	defer func() { p.lamp = nil }()
	return p.lamp.Close()
}
