package daemon

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"encoderd.example/daemon/config"
	"encoderd.example/daemon/panel"
	"encoderd.example/daemon/status"
	"encoderd.example/hw"
)

// panel runs the box's face: keys order actions, contacts tell of the tally,
// lamps follow the status.
func (d *Daemon) panel(panelConfig) run {
	return func(ctx context.Context, live func()) (err error) {
		w := wire(d.configNow(), d.Board)
		face, err := d.Board.OpenPanel(w.keys, w.lamps)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, face.Close()) }()
		ctx, cancel := context.WithCancel(ctx)
		var parts sync.WaitGroup
		defer parts.Wait()
		defer cancel()
		parts.Go(func() { _ = d.keys.Run(ctx) }) // it ends with ctx only
		parts.Go(func() { d.lamps(ctx, face) })
		live()
		defer d.faceGone(w)
		return face.Run(ctx, d.edge)
	}
}

// press carries out what a key orders.
func (d *Daemon) press(ctx context.Context, key string, _ panel.Gesture, o panel.Order) error {
	err := d.Do(ctx, o.Action, o.Args, "key "+key)
	if err != nil {
		d.Log.Warn("key does nothing", "service", "panel", "key", key, "err", err)
	}
	return err
}

// edge takes in a movement of a key or a contact.
func (d *Daemon) edge(e hw.Edge) {
	name, isContact := strings.CutPrefix(e.Key, contactPrefix)
	if !isContact {
		d.keys.Edge(e)
		return
	}
	desk := d.tracker.Desk(e.Key)
	switch {
	case e.Err != nil:
		d.tracker.Broken(e.Key, e.Err)
	case e.Down:
		desk.Says(name, "", d.contactSays(name))
	default:
		desk.Says(name, "", status.Off)
	}
}

// contactSays is what a closed contact means.
func (d *Daemon) contactSays(name string) string {
	for _, t := range d.configNow().Tallies {
		if t.Name == name && t.Says == config.Preview {
			return status.Preview
		}
	}
	return status.Program
}

// errNoFace says that nobody reads the contacts.
var errNoFace = errors.New("the panel is not read")

// faceGone forgets what contacts said.
func (d *Daemon) faceGone(w wiring) {
	for _, k := range w.keys {
		if strings.HasPrefix(k.Name, contactPrefix) {
			d.tracker.Broken(k.Name, errNoFace)
		}
	}
}

// lampRetry is after what time a lamp that did not follow is tried again.
const lampRetry = time.Second

// lamps drives the lamps until ctx ends, then switches them off.
func (d *Daemon) lamps(ctx context.Context, face hw.Panel) {
	s := show{face: face, shown: map[string]hw.Light{}, told: d.noteLamp}
	defer s.dark()
	for {
		b, seen := d.cell.Get()
		next := s.light(b.Lamps, time.Now())
		wait, cancel := context.WithDeadline(ctx, next)
		_, _, _ = d.cell.Wait(wait, seen) // a change, or the time for the next step
		cancel()
		if ctx.Err() != nil {
			return
		}
	}
}

// A show is what the lamps of a face have been told.
type show struct {
	face  hw.Panel
	shown map[string]hw.Light
	told  func(lamp string, err error)
}

// light makes lamps shine as they should at an instant, and returns when the
// next one changes.
func (s *show) light(lamps map[string]status.Lamp, now time.Time) (next time.Time) {
	next = now.Add(time.Hour)
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	for _, name := range s.face.Lamps() {
		light, change := s.wanted(name, lamps[name], now)
		sooner(change)
		if was, known := s.shown[name]; known && was == light {
			continue
		}
		if err := s.set(name, light); err != nil {
			sooner(now.Add(lampRetry))
		}
	}
	return next
}

// wanted is what a lamp should show, and when that changes.
func (s *show) wanted(name string, l status.Lamp, now time.Time) (light hw.Light, change time.Time) {
	p, err := panel.ParsePattern(l.Pattern)
	if err != nil { // before the first status
		return hw.Light{}, time.Time{}
	}
	if on, off, ok := p.Blink(); ok && s.face.Blinks(name) {
		return hw.Light{Color: p.Color, On: on, Off: off}, time.Time{}
	}
	lit, change := p.At(now)
	if lit {
		light.Color = p.Color
	}
	return light, change
}

func (s *show) set(name string, l hw.Light) error {
	err := s.face.Light(name, l)
	s.told(name, err)
	delete(s.shown, name)
	if err == nil {
		s.shown[name] = l
	}
	return err
}

func (s *show) dark() {
	for _, name := range s.face.Lamps() {
		_ = s.set(name, hw.Light{})
	}
}

// noteLamp keeps why a lamp does not follow, and says so once.
func (d *Daemon) noteLamp(lamp string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.notes.lamps[lamp]
	if text(was) == text(err) {
		return
	}
	d.notes.kick()
	if err == nil {
		delete(d.notes.lamps, lamp)
		return
	}
	d.notes.lamps[lamp] = err
	d.Log.Warn("lamp does not follow", "service", "panel", "lamp", lamp, "err", err)
}

func (d *Daemon) configNow() config.Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.config
}
