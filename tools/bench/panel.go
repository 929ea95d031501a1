package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"encoderd.example/daemon"
	"encoderd.example/daemon/config"
	"encoderd.example/hw"
	"encoderd.example/hw/sim"
	"encoderd.example/hw/soft"
)

const (
	// presses is how often the key is pressed.
	presses = 200
	// panelTarget is the most that the 99th percentile may be, in ms: nobody sees
	// that a light is later.
	panelTarget = 20
)

// muteLamp is the bench's own: the software board has none for the sound.
const (
	muteLamp    = "MUTE"
	panelConfig = boxConfig + `
[[lamp]]
name = "MUTE"
pin = "sim:MUTE"
shows = "mute"
`
)

// A keyed is when what a press brings about was seen, from the movement of the
// key. Order is the daemon's own note of the order that the key gave.
type keyed struct{ order, action, lamp time.Duration }

// panel presses MUTE on the software board, in this process, while the box codes
// as it always does.
//
//	Move ─► edge ─► order ─► action ─► status ─► lamp
//	  └────── to the action ────────────┘         │
//	                  └── to the lamp ────────────┘
//
// Where the action is done is not seen, so it counts as done when the status
// tells of it; and the way to the lamp begins with the order, before the status
// can have changed: either time is the most that it can have been.
func (b *bench) panel(ctx context.Context) error {
	seen, err := b.pressMute(ctx, presses)
	if err != nil {
		return err
	}
	b.tellPanel(seen)
	return nil
}

// pressMute runs a box and presses its key so many times.
func (b *bench) pressMute(ctx context.Context, times int) ([]keyed, error) {
	board := sim.New(sim.Options{})
	h := board.Hardware()
	h.Encoders, h.AudioEncoders = []hw.EncoderDriver{soft.X264()}, []hw.AudioEncoderDriver{soft.AAC()}
	c, err := config.Parse(fmt.Appendf(nil, panelConfig, width, height, fps, soundKbps, kbps, 1000*gop/fps, "", ""), config.Rules{})
	if err != nil {
		return nil, fmt.Errorf("configure: %w", err)
	}
	d := daemon.New(daemon.Options{Board: h, State: b.dir, Log: slog.New(slog.DiscardHandler)})
	d.Apply(c)
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	running.Go(func() { _ = d.Run(ctx) })
	if err := await(ctx, "the box to code", func() bool { return coding(d) }); err != nil {
		return nil, err
	}
	return pressAll(ctx, d, board.Panel, times)
}

func coding(d *daemon.Daemon) bool {
	s, _ := d.Status()
	return len(s.Renditions) == 1 && s.Renditions[0].Frames > 0 && s.Keys[sim.KeyMute].Error == ""
}

// pressAll presses the key and waits for what each press does. A key that moves
// more often than ten times a second counts as bouncing; and presses come at no
// time of pictures or reports.
func pressAll(ctx context.Context, d *daemon.Daemon, p *sim.Panel, times int) (seen []keyed, err error) {
	for i := range times {
		k, err := pressOnce(ctx, d, p, i%2 == 0)
		if err != nil {
			return nil, fmt.Errorf("press %d: %w", i+1, err)
		}
		seen = append(seen, k)
		if err := wait(ctx, untilUp()); err != nil {
			return nil, err
		}
		if err := p.Move(sim.KeyMute, false); err != nil {
			return nil, fmt.Errorf("let go: %w", err)
		}
		if err := wait(ctx, untilUp()); err != nil {
			return nil, err
		}
	}
	return seen, nil
}

func untilUp() time.Duration { return 110*time.Millisecond + rand.N(50*time.Millisecond) }

// pressTime is how long a press may take to do something.
const pressTime = 30 * time.Second

var errNothing = errors.New("nothing came of it")

// pressOnce presses the key; mute is what that is to order.
func pressOnce(ctx context.Context, d *daemon.Daemon, p *sim.Panel, mute bool) (k keyed, err error) {
	var lamp sync.WaitGroup
	defer lamp.Wait()
	ctx, cancel := context.WithTimeoutCause(ctx, pressTime, errNothing)
	defer cancel()
	box, version := d.Status()
	var lampErr error
	began := time.Now()
	lamp.Go(func() {
		lampErr = p.WaitLit(ctx, muteLamp, mute)
		k.lamp = time.Since(began)
	})
	if err := p.Move(sim.KeyMute, true); err != nil {
		return k, err
	}
	for box.Sound.Muted != mute {
		if box, version, err = d.Wait(ctx, version); err != nil {
			return k, fmt.Errorf("wait for the action: %w", err)
		}
	}
	k.action = time.Since(began)
	if lamp.Wait(); lampErr != nil {
		return k, lampErr
	}
	k.order = box.Keys[sim.KeyMute].At.Sub(began)
	return k, nil
}

// tellPanel adds the lines of the presses.
func (b *bench) tellPanel(seen []keyed) {
	for _, line := range []struct {
		what string
		of   func(keyed) time.Duration
	}{
		{"key down to action", func(k keyed) time.Duration { return k.action }},
		{"status to lamp", func(k keyed) time.Duration { return k.lamp - k.order }},
		{"key down to lamp", func(k keyed) time.Duration { return k.lamp }},
	} {
		var ms []float64
		for _, k := range seen {
			ms = append(ms, line.of(k).Seconds()*1000)
		}
		b.table.tell("panel, "+line.what+", median", "ms", median(ms), panelTarget)
		b.table.tell("panel, "+line.what+", 99th percentile", "ms", quantile(ms, 0.99), panelTarget)
		fmt.Fprintf(b.out, "  %-20s median %5.2f ms, 99th percentile %5.2f, most %5.2f\n", line.what, median(ms), quantile(ms, 0.99), quantile(ms, 1))
	}
	b.table.note("panel: %d presses of MUTE on the software board while it codes %dx%d at %d a second; the action is done when the status tells of it, the way from status to lamp begins with the order", len(seen), width, height, fps)
}
