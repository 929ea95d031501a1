package v4l2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/uapi"
)

// How long signals are waited for.
const (
	// settled is how long a new signal must be the same before it is opened:
	// sources flicker when they change their picture.
	settled = 300 * time.Millisecond
	// lookAgain is how often chips are asked that do not tell by themselves.
	lookAgain = time.Second
	// late is how much a picture may be late, beyond two periods, before the
	// signal is looked at. It costs a few transfers on a slow bus.
	late = 100 * time.Millisecond
)

// errQuiet ends a wait in which no picture came.
var errQuiet = errors.New("no picture comes")

// A receiver is what sees the cable of an HDMI input: the capture node itself,
// or a subdevice behind a media controller, which answers the same calls. It
// is nil for all other inputs, where its methods do nothing.
//
//	EDID ──► source sends ──► measure ──► set timings ──► capture
//	            ▲                            │ source change, or no picture and
//	            └── AwaitSignal ◄────────────┘ another measurement
//
// It is for one goroutine.
type receiver struct {
	dev     *Device
	apart   bool   // dev is a subdevice, and ours to close
	port    uint32 // the input of a node, the pad of a subdevice
	deaf    bool   // the driver tells no changes
	edid    []byte
	log     *slog.Logger
	timings Timings // that the capture is set to
}

// receiver returns what sees the cable of the input that is selected.
func (c *Camera) receiver(node *Device) (*receiver, error) {
	r := &receiver{dev: node, edid: c.edid, log: c.log.With("camera", c.id)}
	if c.subdev != "" {
		d, err := OpenDevice(c.sys, c.subdev)
		r.dev, r.apart, r.port = d, true, c.port
		return r, err
	}
	n, err := node.Input()
	if more, err := entry(err); err != nil || !more {
		return nil, err
	}
	in, err := node.EnumInput(n)
	if more, err := entry(err); err != nil || !more || !in.HasTimings() {
		return nil, err
	}
	r.port = uint32(n)
	return r, nil
}

// close closes what is not the node's.
func (r *receiver) close() error {
	if r == nil || !r.apart {
		return nil
	}
	return r.dev.Close()
}

// lock sets the capture to what comes in, and from then on hears of changes.
func (r *receiver) lock() error {
	if r == nil {
		return nil
	}
	if err := r.attend(); err != nil {
		return err
	}
	t, err := r.dev.QueryTimings()
	if err != nil {
		return err
	}
	if t.Interlaced() {
		return fmt.Errorf("the source sends %s, half pictures: set it to a progressive format: %w", t, hw.ErrUnsupported)
	}
	r.timings = t
	return r.dev.SetTimings(t)
}

// attend tells sources what they may send, and asks to be told of changes.
func (r *receiver) attend() error {
	if err := r.offer(); err != nil {
		return err
	}
	r.deaf = true
	for _, id := range slices.Compact([]uint32{r.port, 0}) { // some drivers say 0 whichever input it is
		heard, err := entry(r.dev.Subscribe(uapi.EventSourceChange, id))
		if err != nil {
			return err
		}
		r.deaf = r.deaf && !heard
	}
	return nil
}

// offer writes the EDID unless it is there already: with each write the source
// sees the cable pulled.
func (r *receiver) offer() error {
	have, err := r.dev.EDID(int(r.port))
	switch {
	case errors.Is(err, hw.ErrGone):
		return err
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EINVAL), err == nil && sameEDID(have, r.edid):
		return nil
	}
	if err := r.dev.SetEDID(int(r.port), r.edid); errors.Is(err, hw.ErrGone) {
		return err
	} else if err != nil {
		r.log.Warn("sources cannot be told what this input takes", "err", err)
	}
	return nil
}

// sameEDID compares without the place in the HDMI tree, which drivers fill in,
// and the checksums that follow from it.
func sameEDID(a, b []byte) bool { return bytes.Equal(placeless(a), placeless(b)) }

func placeless(edid []byte) []byte {
	const block = 128
	hdmi := []byte{0x03, 0x0C, 0x00} // the vendor block's registration number, lowest byte first
	e := slices.Clone(edid)
	for at := 0; at+block <= len(e); at += block {
		b := e[at : at+block]
		b[block-1] = 0
		if i := bytes.Index(b, hdmi); at > 0 && i >= 0 && i+5 <= block {
			b[i+3], b[i+4] = 0, 0
		}
	}
	return e
}

// wish turns a wish for any size, or for more than comes in, into one for what
// comes in: to make a picture larger serves nobody.
func (r *receiver) wish(want hw.Mode) hw.Mode {
	if !r.measured() {
		return want
	}
	w, h := r.timings.Width(), r.timings.Height()
	if want.Width <= 0 || want.Height <= 0 || want.Width > w || want.Height > h {
		want.Width, want.Height = w, h
	}
	return want
}

// within drops the offers of a scaler that are larger than what comes in.
func (r *receiver) within(offers []offer) []offer {
	if !r.measured() {
		return offers
	}
	return slices.DeleteFunc(offers, func(o offer) bool { return o.Width > r.timings.Width() || o.Height > r.timings.Height() })
}

func (r *receiver) measured() bool {
	return r != nil && r.timings.Width() > 0 && r.timings.Height() > 0
}

// recall takes what the receiver is set to for what comes in.
func (r *receiver) recall() error {
	if r == nil {
		return nil
	}
	t, err := r.dev.Timings()
	if more, err := entry(err); err != nil || !more {
		return err
	}
	r.timings = t
	return nil
}

// rate returns pictures a second, if told is what the capture driver says.
func (r *receiver) rate(told hw.Rate) hw.Rate {
	if r == nil || r.timings.Rate().Num == 0 {
		return told
	}
	return r.timings.Rate()
}

// blanking returns the share of a period in which no line comes, as far as it
// is known.
func (r *receiver) blanking() float64 {
	if r == nil {
		return 0
	}
	b := &r.timings.raw.BT
	idle := float64(b.VFrontPorch) + float64(b.VSync) + float64(b.VBackPorch)
	return idle / math.Max(idle+float64(b.Height), 1)
}

// wait waits for a picture from node or for a change of the signal. If neither
// comes in time it measures the signal.
func (r *receiver) wait(ctx context.Context, node *Device) (int16, error) {
	events := int16(unix.POLLIN)
	if !r.apart && !r.deaf {
		events |= unix.POLLPRI
	}
	patient, cancel := context.WithTimeoutCause(ctx, 2*r.timings.Rate().Period()+late, errQuiet)
	defer cancel()
	came, err := node.Wait(patient, events)
	if errors.Is(err, errQuiet) {
		return 0, r.check()
	}
	return came, err
}

// unchanged fails with [hw.ErrNoSignal] if the driver has told that something
// else or nothing comes in now.
func (r *receiver) unchanged() error {
	if r == nil || r.deaf {
		return nil
	}
	changed, err := r.news()
	if err != nil || !changed {
		return err
	}
	return r.check()
}

// news takes all events and reports whether one tells of a change.
func (r *receiver) news() (changed bool, _ error) {
	for {
		e, err := r.dev.DequeueEvent()
		switch {
		case errors.Is(err, unix.ENOENT):
			return changed, nil
		case err != nil:
			return changed, err
		}
		changed = changed || e.Type == uapi.EventSourceChange && e.Changes&uapi.EventSourceResolution != 0
	}
}

// check fails unless what comes in is still what the capture is set to.
func (r *receiver) check() error {
	now, err := r.dev.QueryTimings()
	if err != nil {
		return err
	}
	if !alike(now, r.timings) {
		return fmt.Errorf("read %s: the source now sends %s instead of %s: %w", r.dev.Path(), now, r.timings, hw.ErrNoSignal)
	}
	return nil
}

// alike compares two measurements: clocks are never measured the same twice.
func alike(a, b Timings) bool {
	const clocks = 0.005
	return a.Width() == b.Width() && a.Height() == b.Height() && a.Interlaced() == b.Interlaced() &&
		math.Abs(a.Rate().Float()-b.Rate().Float()) <= clocks*b.Rate().Float()
}

// AwaitSignal implements [hw.SignalCamera]: a signal counts once it has been
// the same for a moment. An input that sees no cable is waited for a second.
func (c *Camera) AwaitSignal(ctx context.Context) error {
	err := c.await(ctx)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil: // Open will say it; only not at once again
		return pause(ctx, settled)
	}
	return nil
}

func (c *Camera) await(ctx context.Context) (err error) {
	d, err := OpenDevice(c.sys, c.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	restore, err := c.visitInput(d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, restore()) }()
	r, err := c.receiver(d)
	if err != nil {
		return err
	}
	if r == nil {
		return pause(ctx, lookAgain)
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.attend(); err != nil {
		return err
	}
	return r.await(ctx)
}

// await returns nil once a signal has settled, and an error if it will be none
// that can be opened.
func (r *receiver) await(ctx context.Context) error {
	var before Timings
	seen := false
	for {
		now, err := r.dev.QueryTimings()
		next := settled
		switch {
		case errors.Is(err, hw.ErrNoSignal):
			seen, next = false, lookAgain
		case err != nil:
			return err
		case seen && alike(now, before):
			return nil
		default:
			before, seen = now, true
		}
		changed, err := r.listen(ctx, next)
		if err != nil {
			return err
		}
		seen = seen && !changed
	}
}

// listen waits for news, but not longer than d, and reports whether they tell
// of a change.
func (r *receiver) listen(ctx context.Context, d time.Duration) (changed bool, _ error) {
	var events int16
	if !r.deaf {
		events = unix.POLLPRI
	}
	patient, cancel := context.WithTimeoutCause(ctx, d, errQuiet)
	defer cancel()
	came, err := r.dev.Wait(patient, events)
	switch {
	case errors.Is(err, errQuiet):
		return false, nil
	case err != nil:
		return false, err
	case came&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0:
		return false, fmt.Errorf("wait for a signal on %s: %w", r.dev.Path(), hw.ErrGone)
	}
	return r.news()
}

// pause waits d, or fails when ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
