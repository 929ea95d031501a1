package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"encoderd.example/daemon/panel"
	"encoderd.example/daemon/supervise"
)

// An Action is something that people can order: by key, page, command line,
// fleet. They all get it from this table.
type Action struct {
	Name string
	// Args names what must be given, as NAME=VALUE, and Options what may be.
	Args, Options []string
	// Text is for people.
	Text string
	// check, if set, says what is wrong with the arguments.
	check func(map[string]string) error
	// available, if set, says whether this box has it.
	available func(*Daemon) bool
	do        func(context.Context, *Daemon, map[string]string) error
}

// actions is the one list.
func actions() []Action {
	return []Action{
		{Name: "stream.start", Text: "start all outputs", do: func(_ context.Context, d *Daemon, _ map[string]string) error {
			return d.setAll(func(bool) bool { return true }, "")
		}},
		{Name: "stream.stop", Options: []string{"grace"}, check: checkGrace, Text: "stop all outputs; with grace=20s they stay connected so long, and a start goes on with the same broadcast", do: func(_ context.Context, d *Daemon, a map[string]string) error {
			return d.setAll(func(bool) bool { return false }, a["grace"])
		}},
		{Name: "stream.toggle", Options: []string{"grace"}, check: checkGrace, Text: "stop all outputs if one is on, else start them", do: func(_ context.Context, d *Daemon, a map[string]string) error {
			return d.setAll(func(on bool) bool { return !on }, a["grace"])
		}},
		{Name: "output.start", Args: []string{"name"}, Text: "start one output", do: func(_ context.Context, d *Daemon, a map[string]string) error { return d.startOne(a["name"], true) }},
		{Name: "output.stop", Args: []string{"name"}, Text: "stop one output", do: func(_ context.Context, d *Daemon, a map[string]string) error { return d.startOne(a["name"], false) }},
		{Name: "record.start", Text: "start recording", do: func(_ context.Context, d *Daemon, _ map[string]string) error {
			return d.setRecord(func(bool) bool { return true })
		}},
		{Name: "record.stop", Text: "stop recording; without one, nothing happens", do: func(_ context.Context, d *Daemon, _ map[string]string) error {
			return d.setRecord(func(bool) bool { return false })
		}},
		{Name: "record.toggle", Text: "start recording, or stop it", do: func(_ context.Context, d *Daemon, _ map[string]string) error {
			return d.setRecord(func(on bool) bool { return !on })
		}},
		{Name: "audio.mute", Text: "send silence", do: func(_ context.Context, d *Daemon, _ map[string]string) error {
			return d.mute(func(bool) bool { return true })
		}},
		{Name: "audio.unmute", Text: "send sound", do: func(_ context.Context, d *Daemon, _ map[string]string) error {
			return d.mute(func(bool) bool { return false })
		}},
		{Name: "audio.toggle", Text: "mute or unmute", do: func(_ context.Context, d *Daemon, _ map[string]string) error {
			return d.mute(func(m bool) bool { return !m })
		}},
		{Name: "config.reload", Text: "read the config file again", do: func(_ context.Context, d *Daemon, _ map[string]string) error { return d.reload() }},
		{Name: "box.identify", Text: "blink all lamps for ten seconds", do: func(_ context.Context, d *Daemon, _ map[string]string) error { return d.identifyBox() }},
		{Name: "box.restart", Text: "restart the daemon; what is on air comes back", do: func(_ context.Context, d *Daemon, _ map[string]string) error { d.Restart(); return nil }},
		{Name: "ptz.preset", Options: []string{"recall", "store"}, Text: "move the camera to a preset, or store one", available: hasPTZ, check: checks(preset), do: ptz(preset)},
		{Name: "ptz.move", Options: []string{"pan", "tilt"}, Text: "turn the camera, from -1 to 1; it stops at zero", available: hasPTZ, check: checks(move), do: ptz(move)},
		{Name: "ptz.zoom", Options: []string{"speed"}, Text: "zoom, from -1 to 1; it stops at zero", available: hasPTZ, check: checks(zoom), do: ptz(zoom)},
		{Name: "ptz.home", Text: "turn the camera to its middle", available: hasPTZ, check: checks(home), do: ptz(home)},
		{Name: "network.reset", Text: "take the network settings back to those of a new box", do: func(_ context.Context, d *Daemon, _ map[string]string) error { return d.resetNetwork() }},
		{Name: "factory.reset", Text: "forget all settings, keys and passwords and start as a new box; recordings stay", do: func(_ context.Context, d *Daemon, _ map[string]string) error { return d.resetAll() }},
		{
			Name: "board.fault", Args: []string{"name", "on"}, Text: "break the software board on purpose, on=true or false",
			available: func(d *Daemon) bool { return d.Board.Faults != nil },
			do: func(_ context.Context, d *Daemon, a map[string]string) error {
				if a["on"] != "true" && a["on"] != "false" {
					return fmt.Errorf("%w: on is true or false", ErrBadArgument)
				}
				if err := d.Board.Faults(a["name"], a["on"] == "true"); err != nil {
					return fmt.Errorf("%w: %w", ErrBadArgument, err)
				}
				return nil
			},
		},
	}
}

// Errors of Do.
var (
	ErrNoAction    = errors.New("no such action")
	ErrBadArgument = errors.New("bad argument")
)

// Actions lists what this box can be ordered to do.
func (d *Daemon) Actions() []Action {
	return slices.DeleteFunc(actions(), func(a Action) bool { return a.available != nil && !a.available(d) })
}

// Do carries out an action; by says who ordered it, for the log. It returns
// when the order is given, not when its effect is there: status tells that.
func (d *Daemon) Do(ctx context.Context, name string, args map[string]string, by string) error {
	a, err := find(d.Actions(), name, args)
	if err != nil {
		return err
	}
	err = a.do(ctx, d, args)
	d.Log.Info("action", "action", name, "by", by, "err", err)
	return err
}

// CheckOrder says what is wrong with an order as keys have them: an action that
// any box knows, then its arguments.
func CheckOrder(text string) error {
	o, err := panel.ParseOrder(text)
	if err != nil {
		return err
	}
	_, err = find(actions(), o.Action, o.Args)
	return err
}

// find returns the action of that name if it can be given those arguments.
func find(known []Action, name string, args map[string]string) (Action, error) {
	i := slices.IndexFunc(known, func(a Action) bool { return a.Name == name })
	if i < 0 {
		return Action{}, fmt.Errorf("%q: %w; this box knows %s", name, ErrNoAction, names(known))
	}
	a := known[i]
	for _, want := range a.Args {
		if args[want] == "" {
			return a, fmt.Errorf("%w: %s needs %s=…", ErrBadArgument, name, want)
		}
	}
	for given := range args {
		if !slices.Contains(a.Args, given) && !slices.Contains(a.Options, given) {
			return a, fmt.Errorf("%w: %s takes no %q", ErrBadArgument, name, given)
		}
	}
	if a.check != nil {
		return a, a.check(args)
	}
	return a, nil
}

func names(list []Action) string {
	var s []string
	for _, a := range list {
		s = append(s, a.Name)
	}
	return strings.Join(s, ", ")
}

// wish changes what is wanted, moves the box there, and remembers it. change
// runs under the lock.
func (d *Daemon) wish(change func(*Wanted)) error {
	d.mu.Lock()
	change(&d.wanted)
	d.mu.Unlock()
	d.change()
	d.notes.kick()
	return d.remember()
}

// setAll starts or stops every output; change is told whether one is on. Those
// that are on air stop once the time that text names is over.
func (d *Daemon) setAll(change func(bool) bool, text string) error {
	wait, err := parseGrace(text)
	if err != nil {
		return err
	}
	d.mu.Lock()
	outputs := d.config.Outputs
	d.mu.Unlock()
	if len(outputs) == 0 {
		return fmt.Errorf("%w: no output is configured; add an [[output]] to the config", ErrBadArgument)
	}
	return d.wish(func(w *Wanted) {
		on := change(slices.ContainsFunc(outputs, w.on))
		if on {
			d.goOn()
		} else {
			d.linger(wait)
		}
		for _, o := range outputs {
			w.set(o.Name, on, d.rests(o.Name))
		}
	})
}

func (d *Daemon) startOne(name string, on bool) error {
	d.mu.Lock()
	var known []string
	for _, o := range d.config.Outputs {
		known = append(known, o.Name)
	}
	d.mu.Unlock()
	if !slices.Contains(known, name) {
		return fmt.Errorf("%w: no output %q; there are: %s", ErrBadArgument, name, cmp.Or(strings.Join(known, ", "), "none"))
	}
	return d.wish(func(w *Wanted) {
		if on {
			d.endShow() // one that goes on air again ends the still, for all
		}
		d.drop(name)
		w.set(name, on, d.rests(name))
	})
}

// set turns an output on or off. Turning one on that rests starts it again at
// once; one that is on air does not notice.
func (w Wanted) set(name string, on, rests bool) {
	w.Outputs[name] = on
	if on && rests {
		w.Restarts[name]++
	}
}

// rests reports whether an output waits for its next try or ended for good. The
// caller holds mu.
func (d *Daemon) rests(output string) bool {
	s := d.services["push/"+output]
	return s != nil && s.State != supervise.Starting && s.State != supervise.Live
}

func (d *Daemon) mute(change func(bool) bool) error {
	d.mu.Lock()
	d.wanted.Muted = change(d.wanted.Muted)
	d.mixer.muted.Store(d.wanted.Muted)
	d.mu.Unlock()
	d.notes.kick()
	return d.remember()
}

func (d *Daemon) reload() error {
	c, err := d.Reload()
	if err != nil {
		return err
	}
	d.Apply(c)
	return nil
}

// identifyTime is how long the lamps say "it is me".
const identifyTime = 10 * time.Second

func (d *Daemon) identifyBox() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.identify = time.Now().Add(identifyTime)
	d.notes.kick()
	return nil
}
