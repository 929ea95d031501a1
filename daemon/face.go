package daemon

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"encoderd.example/daemon/panel"
	"encoderd.example/daemon/status"
	"encoderd.example/hw"
)

// lampTick is the shortest time that a pattern has.
const lampTick = 125 * time.Millisecond

// panel runs the box's face: keys order actions, lamps follow the status.
func (d *Daemon) panel(ctx context.Context, live func()) (err error) {
	face, err := d.Board.OpenPanel(d.Board.Keys, d.Board.Lamps)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, face.Close()) }()
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	keys := panel.NewKeys(panel.DefaultKeys(), func(ctx context.Context, key string, _ panel.Gesture, o panel.Order) error {
		err := d.Do(ctx, o.Action, o.Args, "key "+key)
		if err != nil {
			d.Log.Warn("key does nothing", "service", "panel", "key", key, "err", err)
		}
		return err
	}, d.notes.kick)
	parts.Go(func() { _ = keys.Run(ctx) }) // it ends with ctx only
	parts.Go(func() { d.lamps(ctx, face) })
	live()
	return face.Run(ctx, keys.Edge)
}

// lamps drives the lamps until ctx ends, then switches them off.
func (d *Daemon) lamps(ctx context.Context, face hw.Panel) {
	tick := time.NewTicker(lampTick)
	defer tick.Stop()
	have := face.Lamps()
	set := d.lampSetter(face)
	for {
		b, _ := d.cell.Get()
		for name, lamp := range b.Lamps {
			if slices.Contains(have, name) {
				set(name, colorNow(lamp))
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			for _, name := range have {
				set(name, hw.Dark)
			}
			return
		}
	}
}

// colorNow is how a lamp shines at this moment.
func colorNow(l status.Lamp) hw.Color {
	p, err := panel.ParsePattern(l.Pattern)
	if lit, _ := p.At(time.Now()); err == nil && lit {
		return p.Color
	}
	return hw.Dark
}

// lampSetter returns a function that switches a lamp if it has to, and says
// once if that does not work.
func (d *Daemon) lampSetter(face hw.Panel) func(lamp string, c hw.Color) {
	lit, dead := map[string]hw.Color{}, map[string]bool{}
	return func(lamp string, c hw.Color) {
		if was, known := lit[lamp]; known && was == c {
			return
		}
		err := face.Light(lamp, hw.Light{Color: c})
		if err != nil && !dead[lamp] {
			d.Log.Warn("lamp does not follow", "service", "panel", "lamp", lamp, "err", err)
		}
		if dead[lamp] = err != nil; !dead[lamp] {
			lit[lamp] = c
		}
	}
}
