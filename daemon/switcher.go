package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"encoderd.example/daemon/config"
	"encoderd.example/daemon/remote"
	"encoderd.example/daemon/status"
	"encoderd.example/daemon/supervise"
	"encoderd.example/daemon/tally"
	"encoderd.example/daemon/tally/obs"
	"encoderd.example/daemon/tally/tsl"
	"encoderd.example/daemon/tally/vmix"
	"encoderd.example/daemon/visca"
	"encoderd.example/hw/serial"
)

// tslLine is how TSL UMD 3.1 sets a serial line.
var tslLine = serial.Mode{Baud: 38400, DataBits: 8, Parity: serial.EvenParity, StopBits: 1}

func openTSL(path string) tally.Opener {
	return func(ctx context.Context) (io.ReadWriteCloser, error) { return serial.Open(ctx, path, tslLine) }
}

// listenTally keeps a link with a switcher.
func (d *Daemon) listenTally(s switcher) run {
	return func(ctx context.Context, live func()) error {
		l, err := newLink(s)
		if err != nil {
			return supervise.Permanent(err)
		}
		err = d.tracker.Keep(ctx, sources(s.tallies), l, live)
		if errors.Is(err, tally.ErrRefused) {
			return supervise.Permanent(err)
		}
		return err
	}
}

// trackTally tells of tallies that turn stale.
func (d *Daemon) trackTally(ctx context.Context, live func()) error {
	live()
	return d.tracker.Run(ctx)
}

// switcher returns the one that a link is kept with.
func (d *Daemon) switcher(link string) switcher {
	for _, s := range switchers(d.configNow()) {
		if s.key == link {
			return s
		}
	}
	return switcher{}
}

// newLink returns the link that speaks a switcher's protocol.
func newLink(s switcher) (tally.Link, error) {
	switch s.protocol {
	case config.TSL31:
		channels, err := follow(s, func(t config.Tally) (tsl.Channel, error) {
			return tsl.ParseChannel(t.Input, t.PreviewBit, t.ProgramBit)
		})
		if err != nil {
			return nil, err
		}
		return tsl.Link(s.address, tsl.V31{Sources: channels}, openTSL)
	case config.TSL5:
		places, err := follow(s, func(t config.Tally) (tsl.Place, error) { return tsl.ParsePlace(t.Input) })
		if err != nil {
			return nil, err
		}
		return tsl.Link(s.address, tsl.V5{Sources: places}, openTSL)
	case config.OBS:
		inputs, err := follow(s, func(t config.Tally) (obs.Input, error) { return obs.ParseInput(t.Input) })
		return obs.Link{URL: s.address, Password: s.password.Reveal(), Sources: inputs, Timeout: s.timeout}, err
	case config.VMix:
		inputs, err := follow(s, func(t config.Tally) (vmix.Input, error) { return vmix.ParseInput(t.Input) })
		return vmix.Link{Open: tally.Dial("tcp", strings.TrimPrefix(s.address, "tcp://")), Sources: inputs, Timeout: s.timeout}, err
	default:
		return nil, fmt.Errorf("tally %s: unknown protocol %q", s.name, s.protocol)
	}
}

// follow reads what each tally of a switcher follows.
func follow[T any](s switcher, parse func(config.Tally) (T, error)) (map[string]T, error) {
	inputs := map[string]T{}
	for _, t := range s.tallies {
		input, err := parse(t)
		if err != nil {
			return nil, fmt.Errorf("tally %s: %w", t.Name, err)
		}
		inputs[t.Name] = input
	}
	return inputs, nil
}

// watchTally tells show what the tally is, at once and at every change, until
// ctx ends.
func (d *Daemon) watchTally(ctx context.Context, show func(state string)) {
	told := ""
	for seen := uint64(0); ; {
		b, version, err := d.cell.Wait(ctx, seen)
		if err != nil {
			return
		}
		seen = version
		if b.Tally.State != told {
			told = b.Tally.State
			show(told)
		}
	}
}

// showTally lights a display elsewhere.
func (d *Daemon) showTally(c tallyOutConfig) run {
	return func(ctx context.Context, live func()) error {
		display := Display(c)
		out, err := display.out()
		if err != nil {
			return supervise.Permanent(err)
		}
		is := Lit{Displays: []Display{display}}
		d.lit.lights(is)
		err = d.withTally(ctx, out.Show, func(ctx context.Context) error { return out.Run(ctx, live) })
		if err == nil {
			d.lit.darkened(is)
		}
		return err
	}
}

// withTally does something while show is told of the tally.
func (d *Daemon) withTally(ctx context.Context, show func(string), do func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() { d.watchTally(ctx, show) })
	return do(ctx)
}

// portPath is the device of a port that a checked config names.
func portPath(port string) string { return strings.TrimPrefix(port, "serial:") }

// driveCamera keeps the serial line to a camera that moves.
func (d *Daemon) driveCamera(c config.PTZ) run {
	return func(ctx context.Context, live func()) error {
		// The link closes the port itself, once the camera's lamp is dark.
		port, err := serial.Open(context.WithoutCancel(ctx), portPath(c.Port), serial.Mode{Baud: c.Baud})
		if err != nil {
			return err
		}
		is := Elsewhere(config.Config{PTZ: c})
		d.lit.lights(is)
		l := &visca.Link{Camera: c.Camera, Model: c.Model, Log: d.Log}
		d.camera.Store(l)
		defer d.camera.CompareAndSwap(l, nil) // the next one may be there already
		live()
		err = d.withTally(ctx, l.Tally, func(ctx context.Context) error { return l.Run(ctx, port) })
		if err == nil {
			d.lit.darkened(is)
		}
		return err
	}
}

// serveRemote answers the serial line from which the box is started and stopped.
func (d *Daemon) serveRemote(c config.Remote) run {
	return func(ctx context.Context, live func()) error {
		port, err := serial.Open(ctx, portPath(c.Port), serial.Mode{Baud: c.Baud})
		if err != nil {
			return err
		}
		live()
		s := remote.Server{
			Do: func(ctx context.Context, action string) error { return d.Do(ctx, action, nil, "remote") },
			Status: func() status.Box {
				b, _ := d.Status()
				return b
			},
		}
		return s.Run(ctx, port)
	}
}
