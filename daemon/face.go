package daemon

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"encoderd.example/daemon/config"
	"encoderd.example/daemon/panel"
	"encoderd.example/daemon/status"
	"encoderd.example/daemon/tally"
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
		d.lit.lights(Lit{Lamps: w.lamps})
		ctx, cancel := context.WithCancel(ctx)
		defer d.forgetLamps()
		var parts sync.WaitGroup
		defer parts.Wait()
		defer cancel()
		parts.Go(func() { _ = d.keys.Run(ctx) }) // it ends with ctx only
		parts.Go(func() { d.lamps(ctx, face, w.lamps) })
		live()
		defer d.faceGone(w)
		return face.Run(ctx, func(e hw.Edge) { d.edge(w, e) })
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

// edge takes in a movement of a key or a contact of w.
func (d *Daemon) edge(w wiring, e hw.Edge) {
	contact, isContact := w.says[e.Key]
	switch desk := d.tracker.Desk(contact); {
	case !isContact:
		d.keys.Edge(e)
	case e.Err != nil:
		d.tracker.Broken([]tally.Source{contact}, e.Err)
	case e.Down:
		desk.Says(contact.Name, "", contact.Input)
	default:
		desk.Says(contact.Name, "", status.Off)
	}
}

// errNoFace says that nobody reads the contacts.
var errNoFace = errors.New("the panel is not read")

// faceGone forgets what contacts said.
func (d *Daemon) faceGone(w wiring) {
	d.tracker.Broken(slices.Collect(maps.Values(w.says)), errNoFace)
}

// lampRetry is after what time a lamp that did not follow is tried again.
const lampRetry = time.Second

// lamps drives the lamps until ctx ends, then switches them off. Each has a
// goroutine of its own: one that hangs on its bus must not leave the others
// telling what was.
func (d *Daemon) lamps(ctx context.Context, face hw.Panel, wires []hw.LampWire) {
	var parts sync.WaitGroup
	defer parts.Wait()
	for _, w := range wires {
		parts.Go(func() {
			s := show{d: d, face: face, name: w.Name}
			d.lamp(ctx, &s)
			if s.set(hw.Light{}) == nil {
				d.lit.darkened(Lit{Lamps: []hw.LampWire{w}})
			}
		})
	}
}

func (d *Daemon) lamp(ctx context.Context, s *show) {
	for {
		b, seen := d.cell.Get()
		next := s.light(b.Lamps[s.name], time.Now())
		wait, cancel := context.WithDeadline(ctx, next)
		_, _, _ = d.cell.Wait(wait, seen) // a change, or the time for the next step
		cancel()
		if ctx.Err() != nil {
			return
		}
	}
}

// A show is what a lamp of a face has been told.
type show struct {
	d     *Daemon
	face  hw.Panel
	name  string
	shown hw.Light
	known bool // it shows that
}

// light makes the lamp shine as it should at an instant, and returns when that
// changes.
func (s *show) light(l status.Lamp, now time.Time) (next time.Time) {
	next = now.Add(time.Hour)
	light, change := s.wanted(l, now)
	if !change.IsZero() {
		next = change
	}
	if s.known && s.shown == light {
		return next
	}
	if retry := now.Add(lampRetry); s.set(light) != nil && retry.Before(next) {
		next = retry
	}
	return next
}

// wanted is what the lamp should show, and when that changes.
func (s *show) wanted(l status.Lamp, now time.Time) (light hw.Light, change time.Time) {
	p, err := panel.ParsePattern(l.Pattern)
	if err != nil { // before the first status
		return hw.Light{}, time.Time{}
	}
	if on, off, ok := p.Blink(); ok && s.blinks() {
		return hw.Light{Color: p.Color, On: on, Off: off}, time.Time{}
	}
	lit, change := p.At(now)
	if lit {
		light.Color = p.Color
	}
	return light, change
}

func (s *show) blinks() bool {
	defer s.d.noteLighting(s.name)()
	return s.face.Blinks(s.name)
}

func (s *show) set(l hw.Light) error {
	lit := s.d.noteLighting(s.name)
	err := s.face.Light(s.name, l)
	lit()
	s.d.noteLamp(s.name, err)
	s.shown, s.known = l, err == nil
	return err
}

// lampHang is how long a lamp may take to be lit. An LED that is to blink may
// wait for udev for most of it.
const lampHang = 5 * time.Second

// noteLighting says that a lamp is being told something, until the function that
// it returns is called.
func (d *Daemon) noteLighting(lamp string) (told func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.notes.lighting[lamp] = time.Now()
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.notes.lighting, lamp)
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

// forgetLamps is for the end of a panel: the next one may have other lamps.
func (d *Daemon) forgetLamps() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.notes.lamps)
	d.notes.kick()
}

func (d *Daemon) configNow() config.Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.config
}
