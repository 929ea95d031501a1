package daemon

import (
	"fmt"
	"time"

	"encoderd.example/daemon/supervise"
)

// The time to think again after a stop.
const maxGrace = 5 * time.Minute

// A grace is the time after a stop in which a start goes on with the same
// broadcast: outputs that were on air stay connected, and everybody sees a
// still and hears nothing. What is wanted is written down as stopped at once:
// after a power cut the show stays off.
type grace struct {
	outputs map[string]bool // that stay until then
	until   time.Time       // zero outside of that time
	timer   *time.Timer     // fires then
}

func newGrace() grace {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return grace{outputs: map[string]bool{}, timer: t}
}

// stopAll stops every output: those that are on air once the given time is over, all
// others at once. A second stop in that time is meant: nothing waits for it.
func (d *Daemon) stopAll(text string) error {
	wait, err := parseGrace(text)
	if err != nil {
		return err
	}
	d.mu.Lock()
	again := !d.grace.until.IsZero()
	if wait > 0 && !again {
		d.linger(wait)
	} else {
		d.endGrace()
	}
	d.mu.Unlock()
	return d.startAll(false)
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

// linger keeps what is on air connected for a while. The caller holds mu.
func (d *Daemon) linger(wait time.Duration) {
	for _, o := range d.config.Outputs {
		if s := d.services["push/"+o.Name]; d.wanted.on(o) && s != nil && s.State == supervise.Live {
			d.grace.outputs[o.Name] = true
		}
	}
	if len(d.grace.outputs) == 0 {
		return
	}
	d.grace.until = time.Now().Add(wait)
	d.grace.timer.Reset(wait)
	d.hub.drawCurtain(true)
	d.mixer.hushed.Store(true)
}

// endGrace ends the time to think, whichever way it went. The caller holds
// mu.
func (d *Daemon) endGrace() {
	clear(d.grace.outputs)
	d.grace.until = time.Time{}
	d.grace.timer.Stop()
	d.hub.drawCurtain(false)
	d.mixer.hushed.Store(false)
}

// graceOver ends the show for good, when nobody has thought again.
func (d *Daemon) graceOver() {
	d.mu.Lock()
	// A start, and a stop after it, may have come while the timer fired.
	due := !d.grace.until.IsZero() && !time.Now().Before(d.grace.until)
	if due {
		d.endGrace()
	}
	d.mu.Unlock()
	if due {
		d.Log.Info("the show is over", "service", "panel")
		d.change()
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
