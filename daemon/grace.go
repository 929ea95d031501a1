package daemon

import (
	"fmt"
	"time"

	"encoderd.example/daemon/config"
	"encoderd.example/daemon/supervise"
)

// The time to think again after a stop.
const maxGrace = 5 * time.Minute

// A grace is the time after a stop in which a start goes on with the same
// broadcast: outputs that were on air stay connected, and everybody sees a
// still and hears nothing. What is wanted is written down as stopped at once:
// after a power cut the show stays off.
//
//	stop ──► lingering ── start ─► on air, at once
//	             │
//	             └─ time, or another stop ─► closing ── no output is left ─► camera and sound are back
type grace struct {
	outputs map[string]bool // that stay until then
	until   time.Time       // zero outside of that time
	closing bool            // it is over: outputs are about to stop, still behind the still
	timer   *time.Timer     // fires then
}

func newGrace() grace {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return grace{outputs: map[string]bool{}, timer: t}
}

func checkGrace(args map[string]string) error {
	_, err := parseGrace(args["grace"])
	return err
}

func parseGrace(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	g, err := time.ParseDuration(s)
	if err != nil || g < 0 || g > maxGrace {
		return 0, fmt.Errorf("%w: grace is a time up to %v, for example grace=20s", ErrBadArgument, maxGrace)
	}
	return g, nil
}

// linger keeps what is on air connected for a while; with no time, or for the
// second time, nothing waits. The caller holds mu.
func (d *Daemon) linger(wait time.Duration) {
	if wait == 0 || !d.grace.until.IsZero() {
		d.endShow()
		return
	}
	for _, o := range d.config.Outputs {
		if s := d.services["push/"+o.Name]; d.wanted.on(o) && s != nil && s.State == supervise.Live {
			d.grace.outputs[o.Name] = true
		}
	}
	if len(d.grace.outputs) == 0 {
		return
	}
	d.grace.until, d.grace.closing = time.Now().Add(wait), false
	d.grace.timer.Reset(wait)
	d.hub.drawCurtain(true)
	d.mixer.hushed.Store(true)
}

// goOn is for a start of all outputs: the show goes on at once. The caller holds
// mu.
func (d *Daemon) goOn() {
	clear(d.grace.outputs)
	d.openCurtain()
}

// endShow lets go of what lingers. Viewers keep the still until the outputs have
// stopped. The caller holds mu and tells Run of the change.
func (d *Daemon) endShow() {
	clear(d.grace.outputs)
	d.grace.closing = !d.grace.until.IsZero()
	d.grace.timer.Stop()
}

// openCurtain shows and sounds the hall again. The caller holds mu.
func (d *Daemon) openCurtain() {
	d.grace.until, d.grace.closing = time.Time{}, false
	d.grace.timer.Stop()
	d.hub.drawCurtain(false)
	d.mixer.hushed.Store(false)
}

// graceOver ends the show for good, when nobody has thought again.
func (d *Daemon) graceOver() {
	d.mu.Lock()
	// A start, and a stop after it, may have come while the timer fired.
	due := !d.grace.until.IsZero() && !d.grace.closing && !time.Now().Before(d.grace.until)
	if due {
		d.endShow()
	}
	d.mu.Unlock()
	if due {
		d.Log.Info("the show is over", "service", "panel")
		d.change()
	}
}

// stopped takes note that no output runs any more but those that are wanted and
// those that lingered.
func (d *Daemon) stopped(lingered map[string]bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.grace.closing && len(lingered) == 0 {
		d.openCurtain()
	}
	d.notes.kick()
}

// keepGrace lets go of what lingers and is another output in a new config. The
// caller holds mu.
func (d *Daemon) keepGrace(before, now []config.Output) {
	same := map[config.Output]bool{}
	for _, o := range before {
		same[o] = true
	}
	stays := map[string]bool{}
	for _, o := range now {
		stays[o.Name] = same[o]
	}
	for name := range d.grace.outputs {
		if !stays[name] {
			d.drop(name)
		}
	}
}

// drop lets go of one output that lingers; without any, the show is over. The
// caller holds mu and tells Run of the change.
func (d *Daemon) drop(name string) {
	delete(d.grace.outputs, name)
	if len(d.grace.outputs) == 0 {
		d.endShow()
	}
}

// graceEnds says when the show is over, or nil. The caller holds mu.
func (d *Daemon) graceEnds() *time.Time {
	if d.grace.until.IsZero() {
		return nil
	}
	until := d.grace.until
	return &until
}
