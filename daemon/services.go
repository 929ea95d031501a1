package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"encoderd.example/daemon/supervise"
	"encoderd.example/hw"
	"encoderd.example/hw/soft"
	"encoderd.example/stream"
	"encoderd.example/stream/out"
	"encoderd.example/stream/rtsp"
)

type run = func(ctx context.Context, live func()) error

// bind gives a planned service its Run.
func (d *Daemon) bind(s *supervise.Service) {
	switch c := s.Config.(type) {
	case deviceConfig:
		s.Run = d.devices.run
	case cameraConfig:
		s.Run = d.capture(c)
	case pictureConfig:
		s.Run = func(ctx context.Context, live func()) error { return d.hub.run(ctx, c, live) }
	case micConfig:
		s.Run = d.listen(c)
	case soundConfig:
		s.Run = d.sound(c)
	case encodeConfig:
		d.rendition(c)
		s.Run = d.encode(c)
	case pushConfig:
		s.Run = d.push(c)
	case rtspConfig:
		s.Run = d.serveRTSP(c)
	case panelConfig:
		s.Run = d.panel
	case webConfig:
		s.Run = d.web(c)
	}
}

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
			d.hub.lost()
			if ctx.Err() != nil {
				return err
			}
			switch {
			case errors.Is(err, hw.ErrNoSignal):
				d.awaitSignal(ctx, cam)
			case errors.Is(err, hw.ErrGone) && time.Since(began) >= steady:
				d.Log.Warn("camera is gone", "service", "camera", "camera", cam.ID())
				d.devices.scan()
			default:
				return fmt.Errorf("camera %s: %w", cam.ID(), err)
			}
		}
	}
}

// signalEvery is how often an input without a signal is tried. That is no
// failure, so it knows no back-off: who plugs the cable in wants to see it.
const signalEvery = time.Second

// awaitSignal waits until the camera is to be tried again.
func (d *Daemon) awaitSignal(ctx context.Context, cam hw.Camera) {
	d.Log.Debug("no signal", "service", "camera", "camera", cam.ID())
	timer := time.NewTimer(signalEvery)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (d *Daemon) captureFrom(ctx context.Context, cam hw.Camera, c cameraConfig, live func()) (err error) {
	s, err := cam.Open(ctx, hw.Mode{Width: c.Width, Height: c.Height, FPS: c.FPS})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	d.noteCamera(cam, s)
	d.Log.Info("camera opened", "service", "camera", "camera", cam.ID(), "mode", s.Mode().String())
	if s.Mode().Pixel == hw.MJPEG {
		return d.captureJPEG(ctx, s, live)
	}
	for {
		f, err := s.Read(ctx)
		if err != nil {
			return err
		}
		live()
		d.hub.deliver(f)
	}
}

// captureJPEG decodes once, before the renditions part.
func (d *Daemon) captureJPEG(ctx context.Context, s hw.CameraStream, live func()) (err error) {
	dec := soft.NewJPEGDecoder()
	defer func() { err = errors.Join(err, dec.Close()) }()
	decoded := false
	for {
		f, err := s.Read(ctx)
		if err != nil {
			return err
		}
		raw, err := dec.Decode(f)
		f.Release()
		switch {
		case errors.Is(err, hw.ErrUnsupported) && !decoded:
			return err // it is no damage: the next one will be no better
		case err != nil:
			d.noteBadPicture()
			continue
		}
		decoded = true
		live()
		d.hub.deliver(raw)
	}
}

// listen finds the microphone, again and again, and feeds the mixer.
func (d *Daemon) listen(c micConfig) run {
	return func(ctx context.Context, live func()) error {
		for {
			mic, err := d.devices.mic(ctx, c.Source)
			if err != nil {
				return err // ctx has ended
			}
			began := time.Now()
			err = d.listenTo(ctx, mic, live)
			d.noteMic(nil, nil)
			if ctx.Err() != nil {
				return err
			}
			if !errors.Is(err, hw.ErrGone) || time.Since(began) < steady {
				return fmt.Errorf("sound card %s: %w", mic.ID(), err)
			}
			d.Log.Warn("sound card is gone", "service", "mic", "mic", mic.ID())
			d.devices.scan()
		}
	}
}

func (d *Daemon) listenTo(ctx context.Context, mic hw.Mic, live func()) (err error) {
	s, err := mic.Open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	d.noteMic(mic, s)
	d.Log.Info("sound card opened", "service", "mic", "mic", mic.ID())
	return d.mixer.record(ctx, s, live)
}

// sound codes what the mixer has for all renditions.
func (d *Daemon) sound(c soundConfig) run {
	return func(ctx context.Context, live func()) error {
		enc, err := d.openSound(c)
		if err != nil {
			return err
		}
		defer func() { _ = enc.Close() }()
		return d.mixer.run(ctx, enc, func(u *stream.Unit) {
			live()
			d.publishSound(u)
		})
	}
}

func (d *Daemon) openSound(c soundConfig) (hw.AudioEncoder, error) {
	var errs []error
	for _, driver := range d.Board.AudioEncoders {
		if driver.Codec != stream.AAC {
			continue
		}
		enc, err := driver.Open(c.Bitrate)
		if err == nil {
			return enc, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", driver.Name, err))
	}
	if len(errs) == 0 {
		return nil, fmt.Errorf("this board has no encoder for %s: %w", stream.AAC, hw.ErrMissing)
	}
	return nil, errors.Join(errs...)
}

// encode runs one rendition's encoder.
func (d *Daemon) encode(c encodeConfig) run {
	return func(ctx context.Context, live func()) (err error) {
		r := d.Rendition(c.Rendition)
		if r == nil {
			return supervise.Permanent(fmt.Errorf("%q: %w", c.Rendition, ErrNoRendition))
		}
		opened := d.target(c.Rendition)
		c.Bitrate = opened
		driver, enc, err := d.openEncoder(c)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, enc.Close()) }()
		note := d.noteEncoder(c.Rendition, driver, enc, opened)
		defer d.noteEncoderEnd(note)
		defer d.hub.attach(enc, c.FPS)()
		for {
			u, err := enc.Next(ctx)
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				return fmt.Errorf("encoder %s: %w", driver.Name, err)
			}
			r.Publish(u)
			note.frames.Add(1)
			note.bytes.Add(uint64(len(u.Data)))
			live()
		}
	}
}

// openEncoder opens the first of the board's encoders that the choice allows
// and that works.
func (d *Daemon) openEncoder(c encodeConfig) (hw.EncoderDriver, hw.Encoder, error) {
	var errs []error
	for _, driver := range d.Board.Encoders {
		if !allowed(driver, c) {
			continue
		}
		enc, err := driver.Open(c.EncoderConfig)
		if err == nil {
			return driver, enc, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", driver.Name, err))
	}
	if len(errs) == 0 {
		kind := strings.TrimPrefix(c.Choice+" encoder", "auto ")
		return hw.EncoderDriver{}, nil, fmt.Errorf("this board has no %s for %s: %w", kind, c.Codec, hw.ErrMissing)
	}
	return hw.EncoderDriver{}, nil, errors.Join(errs...)
}

func allowed(driver hw.EncoderDriver, c encodeConfig) bool {
	switch c.Choice {
	case "hardware":
		if !driver.Hardware {
			return false
		}
	case "software":
		if driver.Hardware {
			return false
		}
	}
	return slices.Contains(driver.Codecs, c.Codec)
}

// target is the bit rate that the config has now.
func (d *Daemon) target(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, _ := d.config.Rendition(name)
	return int(r.Bitrate)
}

// push carries a rendition to a destination.
func (d *Daemon) push(c pushConfig) run {
	return func(ctx context.Context, live func()) error {
		r := d.Rendition(c.Rendition)
		if r == nil {
			return supervise.Permanent(fmt.Errorf("%q: %w", c.Rendition, ErrNoRendition))
		}
		p, err := out.Open(c.URL.Reveal(), c.Key.Reveal(), d.Log.With("service", "push/"+c.Output))
		if err != nil {
			return supervise.Permanent(err)
		}
		note := d.noteOutput(c.Output)
		err = p.Run(ctx, r, func(report stream.PushReport) {
			if report.State >= stream.PushSending {
				live()
			}
			d.notePush(note, report)
		})
		if errors.Is(err, stream.ErrRefused) {
			return supervise.Permanent(err)
		}
		return err
	}
}

func (d *Daemon) serveRTSP(c rtspConfig) run {
	return func(ctx context.Context, live func()) error {
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Addr)
		if err != nil {
			return portRemedy(fmt.Errorf("listen on %s: %w", c.Addr, err))
		}
		live()
		s := rtsp.Server{
			Listener: ln, Find: d.Rendition, Audience: &d.audience,
			Log: d.Log.With("service", "rtsp"), MaxConnsPerIP: rtsp.DefaultMaxConns / 2,
		}
		return s.Run(ctx)
	}
}

func (d *Daemon) web(c webConfig) run {
	return func(ctx context.Context, live func()) error {
		d.mu.Lock()
		conf := d.config
		d.mu.Unlock()
		return portRemedy(d.Web(ctx, c.Addr, conf, d, live))
	}
}

// portRemedy adds to a port that is taken what can be done about it.
func portRemedy(err error) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	return fmt.Errorf("%w; ss -ltnp shows by which program, [serve] in the config names another port", err)
}
