package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"encoderd.example/daemon"
	"encoderd.example/hw"
	"encoderd.example/hw/sim/picture"
	"encoderd.example/stream"
)

// What is coded to measure an encoder.
const (
	measureFrames  = 100
	measureAtMost  = 30 * time.Second // for one encoder
	measureAtLeast = 8                // pictures that must have come out
)

// measure codes pictures as fast as each hardware encoder takes them. Where a
// driver does not know its budget, what was measured is kept.
func (s *survey) measure(ctx context.Context, drivers []hw.EncoderDriver, state string) error {
	budgets, err := daemon.LoadBudgets(state)
	errs := []error{err}
	if budgets == nil {
		budgets = daemon.Budgets{}
	}
	kept := false
	for i, d := range drivers {
		if !d.Hardware {
			continue
		}
		n, err := measure(ctx, d)
		if err != nil {
			errs = append(errs, fmt.Errorf("measure %s: %w", d.Name, err))
			continue
		}
		s.Encoders[i].Measured = n
		if d.Budget == 0 || budgets[d.Name] > 0 {
			budgets[d.Name], kept = n, true
		}
	}
	if kept {
		errs = append(errs, budgets.Save(state))
	}
	return errors.Join(errs...)
}

// measure returns how many macroblocks a second an encoder codes.
func measure(ctx context.Context, d hw.EncoderDriver) (_ int, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, measureAtMost, errors.New("it gives no picture"))
	defer cancel()
	conf := hw.EncoderConfig{
		Codec: stream.H264, Width: 1280, Height: 720, FPS: hw.Rate{Num: 30, Den: 1}, GOP: 60, Bitrate: 4_000_000,
	}
	e, err := d.Open(conf)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	p, err := picture.NewPattern(hw.Mode{Pixel: hw.NV12, Width: conf.Width, Height: conf.Height, FPS: conf.FPS}, "measure")
	if err != nil {
		return 0, err
	}
	f := p.Frame(0, 0, 0)
	defer f.Release()
	return race(ctx, e, f, conf)
}

// race submits one picture again and again, and counts what comes out. The
// clock starts with the first unit: opening is no coding.
func race(ctx context.Context, e hw.Encoder, f *hw.Frame, conf hw.EncoderConfig) (int, error) {
	var began time.Time
	units := 0
	for n := 0; n < measureFrames; {
		stamped := copyOf(f, time.Duration(n+1)*conf.FPS.Period())
		err := e.Submit(stamped)
		stamped.Release()
		switch {
		case err == nil:
			n++
		case !errors.Is(err, hw.ErrBusy):
			return 0, err
		default:
			if _, err := e.Next(ctx); err != nil {
				return 0, err
			}
			if units++; units == 1 {
				began = time.Now()
			}
		}
	}
	if units < measureAtLeast {
		return 0, fmt.Errorf("only %d pictures came out of %d", units, measureFrames)
	}
	conf.FPS = hw.Rate{Num: (units - 1) * int(time.Second/time.Millisecond), Den: max(int(time.Since(began)/time.Millisecond), 1)}
	return conf.Macroblocks(), nil
}

// copyOf is the same picture at another instant.
func copyOf(f *hw.Frame, at time.Duration) *hw.Frame {
	f.Retain()
	c := hw.NewFrame(func(*hw.Frame) { f.Release() })
	c.Mode, c.Planes, c.Stamp = f.Mode, f.Planes, at
	return c.Lend()
}
