package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"encoderd.example/hw"
)

const (
	// cameraPatience is how long a camera may take to open: a receiver measures,
	// a program of the board's maker starts, a decoder tries its first pictures.
	cameraPatience = 8 * time.Second
	// cameraGrace is how long a call may go on after its context has ended.
	cameraGrace = time.Second
	// signalLook is how long an input is asked to wait for a signal at a time.
	// Only at the end of it can a driver that hangs be told from a cable that is
	// not plugged in.
	signalLook = 30 * time.Second
)

// A plugging is a camera from when it was plugged in until it is pulled out.
type plugging struct {
	id       string
	instance uint64
}

func pluggingOf(c hw.Camera) plugging {
	p := plugging{id: c.ID()}
	if i, ok := c.(hw.Instanced); ok {
		p.instance = i.Instance()
	}
	return p
}

// callCamera calls f, which asks the driver of cam, and leaves it behind if it
// takes longer than patience, or ctx has ended and f does not mind. As long as
// it has not come back nobody finds that camera; what it returns then goes to
// drop.
func callCamera[T any](ctx context.Context, d *Daemon, cam hw.Camera, what string, patience time.Duration, f func() (T, error), drop func(T)) (T, error) {
	stop, forget := lag(ctx, cameraGrace)
	defer forget()
	d.devices.engage(cam)
	v, err := attempt(&d.calls, stop, patience, what+" "+cam.ID(), func() (T, error) {
		v, err := f()
		if err != nil {
			d.devices.release(cam)
		}
		return v, err
	}, func(late T) {
		drop(late)
		d.devices.release(cam)
	})
	if err == nil {
		d.devices.release(cam)
	}
	return v, err
}

// closeLate closes a camera for which nobody waits any more.
func (d *Daemon) closeLate(cam hw.Camera, in *intake) {
	d.Log.Warn("camera opened too late", "service", "camera", "camera", cam.ID())
	if err := d.calls.closeInTime("close "+cam.ID(), in.Close); err != nil {
		d.Log.Warn("camera that opened too late does not close", "service", "camera", "camera", cam.ID(), "err", err)
	}
}

// signalOf waits until an input may have a signal. The error wraps errHangs if
// its driver does not come back.
func (d *Daemon) signalOf(ctx context.Context, s hw.SignalCamera) error {
	for {
		look, end := context.WithTimeout(ctx, signalLook)
		_, err := callCamera(ctx, d, s, "wait for a signal of", signalLook+cameraGrace, func() (struct{}, error) {
			return struct{}{}, s.AwaitSignal(look)
		}, func(struct{}) {})
		over := look.Err() != nil
		end()
		if err == nil || !over || ctx.Err() != nil || errors.Is(err, errHangs) {
			return err
		}
	}
}

// engage says that the driver of a camera is asked, and may not answer.
func (d *devices) engage(c hw.Camera) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked[pluggingOf(c)]++
}

// release says that it has answered.
func (d *devices) release(c hw.Camera) {
	d.mu.Lock()
	p := pluggingOf(c)
	if d.asked[p]--; d.asked[p] == 0 {
		delete(d.asked, p)
	}
	missed := d.missed
	d.missed = false
	d.mu.Unlock()
	if missed {
		d.scans.Update(func(*struct{}) {}) // it can be found again
	}
}

// engaged reports whether the driver of a camera has been asked and has not
// answered. One that was plugged in anew has nothing to do with that.
func (d *devices) engaged(c hw.Camera) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	engaged := d.asked[pluggingOf(c)] > 0
	d.missed = d.missed || engaged
	return engaged
}

// errEngaged says that a camera is there, and its driver hangs.
var errEngaged = fmt.Errorf("the camera's driver %w", errHangs)

// free is a board's own find for cameras whose driver answers.
func (d *devices) free(find func(string) (hw.Camera, error)) func(string) (hw.Camera, error) {
	if find == nil {
		return nil
	}
	return func(source string) (hw.Camera, error) {
		c, err := find(source)
		if err == nil && d.engaged(c) {
			return nil, errEngaged
		}
		return c, err
	}
}
