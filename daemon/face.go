package daemon

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"encoderd.example/daemon/panel"
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
	edges := make(chan hw.Edge, 64)
	parts.Go(func() {
		panel.Gestures(ctx, edges, func(g panel.Gesture) {
			action, ok := panel.ActionOf[g]
			if !ok {
				return
			}
			if err := d.Do(ctx, action, nil, "key "+g.Key); err != nil {
				d.Log.Warn("key does nothing", "service", "panel", "key", g.Key, "err", err)
			}
		})
	})
	parts.Go(func() { d.lamps(ctx, face) })
	live()
	return face.Run(ctx, func(e hw.Edge) {
		select {
		case edges <- e:
		default: // 64 edges wait already: a key that bounces for ever
		}
	})
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
				set(name, panel.Lit(lamp.Pattern, time.Now()))
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			for _, name := range have {
				set(name, false)
			}
			return
		}
	}
}

// lampSetter returns a function that switches a lamp if it has to, and says
// once if that does not work.
func (d *Daemon) lampSetter(face hw.Panel) func(lamp string, on bool) {
	lit, dead := map[string]bool{}, map[string]bool{}
	return func(lamp string, on bool) {
		if was, known := lit[lamp]; known && was == on {
			return
		}
		light := hw.Light{}
		if on {
			light.Color = hw.White
		}
		err := face.Light(lamp, light)
		if err != nil && !dead[lamp] {
			d.Log.Warn("lamp does not follow", "service", "panel", "lamp", lamp, "err", err)
		}
		if dead[lamp] = err != nil; !dead[lamp] {
			lit[lamp] = on
		}
	}
}
