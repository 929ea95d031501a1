package daemon

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"encoderd.example/daemon/config"
	"encoderd.example/daemon/supervise"
	"encoderd.example/hw"
	"encoderd.example/stream"
	"encoderd.example/stream/out"
	"encoderd.example/stream/rtmp"
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
	case recordConfig:
		s.Run = d.record(c)
	case rtspConfig:
		s.Run = d.serveRTSP(c)
	case rtmpConfig:
		s.Run = d.serveRTMP(c)
	case webrtcConfig:
		s.Run = d.serveWebRTC(c)
	case liveConfig:
		s.Run = d.serveLive(c)
	case panelConfig:
		s.Run = d.panel(c)
	case tallyConfig:
		s.Run = d.trackTally
	case switcherConfig:
		s.Run = d.listenTally(d.switcher(c.Link))
	case tallyOutConfig:
		s.Run = d.showTally(c)
	case ptzConfig:
		s.Run = d.driveCamera(config.PTZ(c))
	case remoteConfig:
		s.Run = d.serveRemote(config.Remote(c))
	case webConfig:
		s.Run = d.web(c)
	}
}

// listen finds the microphone, again and again, and feeds the mixer.
func (d *Daemon) listen(c micConfig) run {
	return func(ctx context.Context, live func()) error {
		for {
			mic, err := d.devices.mic(ctx, c.Source, d.cameraParent(ctx))
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
			d.devices.refresh(ctx)
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
	ctx, end := context.WithCancel(ctx)
	var telling sync.WaitGroup
	defer telling.Wait()
	defer end()
	telling.Go(func() { d.tellRate(ctx, mic, s) })
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
		ln, err := d.listener(ctx, c.Addr, c.Secure)
		if err != nil {
			return err
		}
		s := rtsp.Server{
			Listener: ln, Find: d.Rendition, Audience: &d.audience, Log: d.Log.With("service", "rtsp"), Live: live,
			MaxConns: maxCallers, MaxConnsPerIP: maxCallersEach, Multicast: c.Multicast, MulticastSeed: machine(),
		}
		return portRemedy(s.Run(ctx))
	}
}

// machine is a name that this box has and no other, as far as it knows: what it
// is called for people may change while players watch.
func machine() string {
	if id, err := os.ReadFile("/etc/machine-id"); err == nil && len(id) > 1 {
		return string(id)
	}
	name, _ := os.Hostname() // "" is a name, too
	return name
}

func (d *Daemon) serveRTMP(c rtmpConfig) run {
	return func(ctx context.Context, live func()) error {
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Addr)
		if err != nil {
			return portRemedy(fmt.Errorf("listen on %s: %w", c.Addr, err))
		}
		s := rtmp.Server{
			Listener: ln, Find: d.Rendition, Audience: &d.audience, Log: d.Log.With("service", "rtmp"),
			MaxConns: maxCallers, MaxConnsPerIP: maxCallersEach,
		}
		if c.Secure {
			if s.TLS, err = d.tlsConfig(); err != nil {
				return errors.Join(err, ln.Close())
			}
		}
		live()
		return s.Run(ctx)
	}
}

// How many connections a server takes, of viewers and of those who do not say
// yet what they want: how many may watch is for the audience to say, whose
// limits change without a restart.
const (
	maxCallers     = 4096
	maxCallersEach = 1024 // of one IPv4 address or IPv6 /64
)

// listener listens, by TLS if secure.
func (d *Daemon) listener(ctx context.Context, addr string, secure bool) (net.Listener, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, portRemedy(fmt.Errorf("listen on %s: %w", addr, err))
	}
	if !secure {
		return ln, nil
	}
	conf, err := d.tlsConfig()
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return tls.NewListener(ln, conf), nil
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
