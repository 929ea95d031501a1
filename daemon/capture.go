package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/soft"
)

// steady is how long a device must have worked for its loss to be the
// cable's fault: the box then waits for it without back-off.
const steady = 2 * time.Second

// capture finds the camera, again and again, and feeds the hub.
func (d *Daemon) capture(c cameraConfig) run {
	return func(ctx context.Context, live func()) error {
		for {
			cam, err := d.devices.camera(ctx, c.Source)
			if err != nil {
				return err // ctx has ended
			}
			began := time.Now()
			err = d.captureFrom(ctx, cam, c, live)
			d.noteCamera(nil, nil)
			d.noteSignal(cam, err)
			if ctx.Err() != nil {
				return err
			}
			switch {
			case errors.Is(err, errHangs):
				return fmt.Errorf("camera %s: %w", cam.ID(), err)
			case errors.Is(err, errReplan), errors.Is(err, errBehind), errors.Is(err, errSilent):
				d.Log.Warn("camera opens anew", "service", "camera", "camera", cam.ID(), "why", err)
			case errors.Is(err, hw.ErrNoSignal), notTaken(cam, err):
				if err := d.awaitSignal(ctx, cam); err != nil {
					d.noteSignal(cam, nil)
					return fmt.Errorf("camera %s: %w", cam.ID(), err)
				}
			case errors.Is(err, hw.ErrGone) && time.Since(began) >= steady:
				d.Log.Warn("camera is gone", "service", "camera", "camera", cam.ID())
				d.devices.refresh(ctx)
			default:
				return fmt.Errorf("camera %s: %w", cam.ID(), err)
			}
		}
	}
}

// notTaken reports whether an input has a signal that the box cannot take, such
// as half pictures. That ends when somebody sets the player to another format,
// and the input tells of it as it tells of a cable.
func notTaken(cam hw.Camera, err error) bool {
	_, tells := cam.(hw.SignalCamera)
	return tells && errors.Is(err, hw.ErrUnsupported) && !errors.Is(err, errUndecodable)
}

// signalEvery is how often an input without a signal is tried. That is no
// failure, so it knows no back-off: who plugs the cable in wants to see it.
const signalEvery = time.Second

// signalPause is the least time between two tries, for an input that claims a
// signal and has none.
const signalPause = 200 * time.Millisecond

// awaitSignal waits until the camera is to be tried again: until it says so,
// if it can. It fails only if its driver hangs.
func (d *Daemon) awaitSignal(ctx context.Context, cam hw.Camera) error {
	d.Log.Debug("no signal", "service", "camera", "camera", cam.ID())
	pause := signalEvery
	if s, ok := cam.(hw.SignalCamera); ok {
		err := d.signalOf(ctx, s)
		switch {
		case errors.Is(err, errHangs):
			return err
		case err == nil:
			pause = signalPause
		}
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil
}

func (d *Daemon) captureFrom(ctx context.Context, cam hw.Camera, c cameraConfig, live func()) (err error) {
	in, err := d.openCamera(ctx, cam, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.calls.closeInTime("close "+cam.ID(), in.Close)) }()
	d.hub.begin(in.Mode().FPS)
	defer d.hub.lost() // before the camera is closed, which may take long
	d.noteCamera(cam, in)
	d.Log.Info("camera opened", "service", "camera", "camera", cam.ID(), "mode", in.Mode().String(), "buffers", in.src.way())
	ctx, end := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer end(nil)
	watching.Go(func() { d.replan(ctx, in, end) })
	watching.Go(func() { in.overhear(ctx, end) })
	if c.Coded {
		return d.captureCoded(ctx, in, live)
	}
	if in.Mode().Pixel == hw.MJPEG {
		return d.captureJPEG(ctx, in, live)
	}
	for {
		f, err := in.Read(ctx)
		if err != nil {
			return orCause(ctx, err)
		}
		in.heard.Add(1)
		live()
		d.hub.deliver(f)
	}
}

// orCause returns why ctx has ended, if it has, instead of what came of it.
func orCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// errUndecodable says that a camera's JPEG is of a kind that nothing here
// decodes.
var errUndecodable = errors.New("the camera's JPEG cannot be decoded")

// captureJPEG decodes once, before the renditions part.
func (d *Daemon) captureJPEG(ctx context.Context, in *intake, live func()) (err error) {
	dec := soft.NewJPEGDecoder()
	defer func() { err = errors.Join(err, dec.Close()) }()
	decoded := false
	for {
		f, err := in.Read(ctx)
		if err != nil {
			return orCause(ctx, err)
		}
		before := dec.Written()
		raw, err := dec.Decode(f)
		f.Release()
		switch {
		case errors.Is(err, hw.ErrUnsupported) && !decoded:
			return fmt.Errorf("%w: %w", errUndecodable, err) // the next one will be no better
		case err != nil:
			d.noteBadPicture()
			continue
		}
		decoded = true
		in.heard.Add(1)
		d.noteDecoded(dec.Written() - before)
		live()
		d.hub.deliver(raw)
	}
}
