package v4l2

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/uapi"
)

// How many buffers a capture asks for, and how few it can live with: one at
// the driver, one at the reader. Encoders hold two or three, and the picture
// that is repeated when the camera stops is another.
const (
	wantBuffers = 6
	minBuffers  = 2
)

// A Camera is one input of a video capture node; it implements [hw.Camera],
// [hw.SharingCamera], [hw.PreferringCamera], [hw.SignalCamera],
// [hw.SoundCamera], [hw.Attached] and [hw.Instanced]. It holds no descriptor
// between calls and may be used from any goroutine.
type Camera struct {
	sys    Sys
	log    *slog.Logger
	now    func() time.Duration
	id     string
	name   string
	path   string
	since  uint64 // Instance of the node
	parent string // the folder of the USB device, or ""
	typ    uint32 // the buffer type that the node captures to
	driver string
	traits trait
	input  int // -1 leaves it as it is
	names  nodeNames
	route  *route // how pictures come to the node; nil if it sees to that itself
	subdev string // the subdevice that sees the cable, if the node does not
	port   uint32 // its pad that the cable is at
	edid   []byte // what sources are told that we take
	takes  []hw.PixelFormat
}

// ID implements [hw.Camera]: "v4l2:" and then the link below /dev/v4l/by-path,
// or, without one, the name of the place on the bus.
func (c *Camera) ID() string { return c.id }

// Name implements [hw.Camera]: what the driver calls the card.
func (c *Camera) Name() string { return c.name }

// Path returns the device node, such as /dev/video0. Numbers are given out
// anew at every boot.
func (c *Camera) Path() string { return c.path }

// Parent implements [hw.Attached]: the folder of the USB device, such as
// "/sys/devices/platform/soc/3f980000.usb/usb1/1-1/1-1.4", as it was when the
// camera was found; "" of cameras that are not on USB.
func (c *Camera) Parent() string { return c.parent }

// Instance implements [hw.Instanced], as it was when the camera was found.
func (c *Camera) Instance() uint64 { return c.since }

// Input returns the same camera, set to one of its inputs while it is open.
// Without it a camera keeps the input that is selected.
func (c *Camera) Input(n int) *Camera {
	other := *c
	other.input = n
	other.id = fmt.Sprintf("%s#%d", c.id, n)
	return &other
}

// Preferring implements [hw.PreferringCamera].
func (c *Camera) Preferring(takes []hw.PixelFormat) hw.Camera {
	other := *c
	other.takes = slices.Clone(takes)
	return &other
}

// Modes implements [hw.Camera]. Of ranges it lists common sizes and rates. An
// input that dictates the picture lists what it saw last.
func (c *Camera) Modes() (_ []hw.Mode, err error) {
	d, err := OpenDevice(c.sys, c.path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	restore, err := c.visitInput(d)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, restore()) }()
	r, err := c.receiver(d)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.recall(); err != nil {
		return nil, err
	}
	p, err := c.pipeline(d)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	offers, err := c.offers(d, p, r, hw.Mode{})
	if err != nil {
		return nil, err
	}
	var modes []hw.Mode
	seen := map[hw.Mode]bool{}
	for _, o := range offers {
		if !seen[o.Mode] {
			seen[o.Mode] = true
			modes = append(modes, o.Mode)
		}
	}
	return modes, nil
}

// Open implements [hw.Camera].
func (c *Camera) Open(ctx context.Context, want hw.Mode) (hw.CameraStream, error) {
	return c.open(ctx, want, nil)
}

// OpenShared implements [hw.SharingCamera]. H.264, which only comes if want
// asks for it, arrives with its parameter sets before each key picture.
func (c *Camera) OpenShared(ctx context.Context, want hw.Mode, decide func(hw.BufferSource) hw.BufferPlan) (hw.SharedStream, error) {
	return c.open(ctx, want, decide)
}

// open goes
//
//	open → input → signal → list → choose → links, pads → format → rate → decide → buffers → queue all → start
func (c *Camera) open(ctx context.Context, want hw.Mode, decide func(hw.BufferSource) hw.BufferPlan) (*cameraStream, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	d, err := OpenDevice(c.sys, c.path)
	if err != nil {
		return nil, err
	}
	s, err := c.start(d, want, decide)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return s, nil
}

// start brings an open device to streaming. On error the device is as it was.
func (c *Camera) start(d *Device, want hw.Mode, decide func(hw.BufferSource) hw.BufferPlan) (*cameraStream, error) {
	restore, err := c.visitInput(d)
	if err != nil {
		return nil, err
	}
	r, err := c.receiver(d)
	if err != nil {
		return nil, errors.Join(err, restore())
	}
	s, err := c.startInput(d, r, want, decide)
	if err != nil {
		return nil, errors.Join(err, r.close(), restore())
	}
	s.restore = restore
	return s, nil
}

// startInput is the part of start that follows on the choice of the input.
func (c *Camera) startInput(d *Device, r *receiver, want hw.Mode, decide func(hw.BufferSource) hw.BufferPlan) (_ *cameraStream, err error) {
	if err := r.lock(); err != nil {
		return nil, err
	}
	p, err := c.pipeline(d)
	if err != nil {
		return nil, err
	}
	defer func() { _ = p.close() }() // what was set stays, and nothing was buffered
	o, set, err := c.choose(d, p, r, want)
	if err != nil {
		return nil, err
	}
	plan := hw.BufferPlan{Way: hw.Heap, Reason: "nobody asked to share the camera's memory"}
	if decide != nil {
		if set, plan, err = c.decide(d, o, set, decide); err != nil {
			return nil, err
		}
	}
	set.mode.FPS = r.rate(set.mode.FPS)
	return c.stream(d, r, set, plan)
}

// pipeline opens the subdevices behind the node, nil if it sees to them itself.
func (c *Camera) pipeline(d *Device) (*pipeline, error) {
	if c.route == nil {
		return nil, nil
	}
	return openPipeline(c.sys, c.names, *c.route, d, c.typ)
}

// offers lists what there is at the input, best first.
func (c *Camera) offers(d *Device, p *pipeline, r *receiver, want hw.Mode) ([]offer, error) {
	if p != nil {
		return p.offers(r, want)
	}
	offers, err := listOffers(d, c.typ, r.wish(want))
	return r.within(offers), err
}

// choose sets the device to the offer next to want. An input that dictates the
// format, whatever is asked for, gets its way if want leaves it open.
func (c *Camera) choose(d *Device, p *pipeline, r *receiver, want hw.Mode) (offer, setting, error) {
	offers, err := c.offers(d, p, r, want)
	if err != nil {
		return offer{}, setting{}, err
	}
	o, err := nearest(offers, r.wish(want), c.takes)
	if err != nil {
		return offer{}, setting{}, fmt.Errorf("open %s: %w", c.path, err)
	}
	set, err := c.setMode(d, o, nil)
	dictated, ok := errors.AsType[*formatError](err)
	if !ok {
		return o, set, err
	}
	offers = slices.DeleteFunc(offers, func(o offer) bool { return o.code != dictated.given })
	if other, none := nearest(offers, r.wish(want), c.takes); none == nil {
		o = other
		set, err = c.setMode(d, o, nil)
	}
	return o, set, err
}

// A formatError says that a driver grants another format than it was asked for.
type formatError struct{ given hw.PixelFormat }

func (e *formatError) Error() string {
	return fmt.Sprintf("the driver gives %s instead: %v", e.given, hw.ErrUnsupported)
}

func (e *formatError) Unwrap() error { return hw.ErrUnsupported }

// decide asks how pictures of set are to be shared. Where they are to be
// written into a pool with other lines the format is set once more.
func (c *Camera) decide(d *Device, o offer, set setting, ask func(hw.BufferSource) hw.BufferPlan) (setting, hw.BufferPlan, error) {
	imports, err := c.imports(d)
	if err != nil {
		return set, hw.BufferPlan{}, err
	}
	private := c.traits.private
	if o.pixel.Coded() {
		private = "coded pictures are not shared"
	}
	plan := ask(hw.BufferSource{
		Driver: c.driver, Layout: set.layout, Mode: set.mode,
		Exports: private == "", Private: private, Imports: imports && !o.pixel.Coded(),
	})
	if plan.Way != hw.Import || fits(set.layout, plan.Pool) == nil {
		return set, plan, nil
	}
	if padded, err := c.pad(d, o, plan.Pool); err == nil {
		return padded, plan, nil
	} else if errors.Is(err, hw.ErrGone) {
		return set, plan, err
	}
	set, err = c.setMode(d, o, nil) // as it was; that it does not fit shows with the buffers
	return set, plan, err
}

// pad asks for lines as long as those of the pool.
func (c *Camera) pad(d *Device, o offer, pool hw.Pool) (setting, error) {
	if pool == nil {
		return setting{}, fmt.Errorf("set %s to the lines of a pool: there is none", c.path)
	}
	set, err := c.setMode(d, o, strides(pool.Layout()))
	if err != nil {
		return setting{}, err
	}
	return set, fits(set.layout, pool)
}

// stream makes buffers, queues them and starts. If they cannot be shared as
// planned it makes ones that are copied.
func (c *Camera) stream(d *Device, r *receiver, set setting, plan hw.BufferPlan) (*cameraStream, error) {
	s, err := c.prepare(d, r, set, plan)
	if sharing := plan.Way == hw.Export || plan.Way == hw.Import; err != nil && sharing && !errors.Is(err, hw.ErrGone) {
		plan = hw.BufferPlan{Way: hw.Copy, Reason: fmt.Sprintf("%s is not possible: %v", plan.Way, err)}
		s, err = c.prepare(d, r, set, plan)
	}
	if err != nil {
		return nil, err
	}
	if err := s.memory.queue.StreamOn(); err != nil {
		return nil, errors.Join(explainStart(c.route, err), s.memory.discard())
	}
	return s, nil
}

// prepare makes a stream whose buffers are all queued. On error the device is
// as it was.
func (c *Camera) prepare(d *Device, r *receiver, set setting, plan hw.BufferPlan) (*cameraStream, error) {
	m, err := newMemory(d, c.typ, set, plan)
	if err != nil {
		return nil, err
	}
	s, err := newStream(c, d, m, set)
	if err == nil {
		err = s.queueAll()
	}
	if err != nil {
		return nil, errors.Join(err, m.discard())
	}
	s.plan, s.signal = plan, r
	s.lag = c.traits.lag(set.mode.FPS, r.blanking())
	return s, nil
}

// visitInput selects the camera's own input, if it has one, until restore is
// called: whoever opens the node as it is finds the input that he left.
func (c *Camera) visitInput(d *Device) (restore func() error, err error) {
	stay := func() error { return nil }
	if c.input < 0 {
		return stay, nil
	}
	before, err := d.Input()
	if err != nil || before == c.input {
		return stay, err
	}
	restore = func() error {
		err := unlessGone(d.SetInput(before))
		if errors.Is(err, hw.ErrBusy) { // somebody has taken the device since, and chooses
			return nil
		}
		return err
	}
	return restore, d.SetInput(c.input)
}

// A setting is what a driver granted.
type setting struct {
	mode   hw.Mode
	mems   []MemoryPlane
	planes []plane
	layout hw.Layout
}

// setMode asks for o, with lines of these lengths if there are any, and returns
// what was granted. The format comes first: it may reset the rate.
func (c *Camera) setMode(d *Device, o offer, lines []int) (setting, error) {
	fail := func(err error) (setting, error) {
		return setting{}, fmt.Errorf("set %s to %s: %w", c.path, o, err)
	}
	var f uapi.Format
	wish(&f, c.typ, o, lines)
	if o.way != nil {
		comes, granted, err := o.way.set(o.Mode)
		if err != nil {
			return fail(err)
		}
		paint(&f, comes)
		o.Mode = granted
	}
	if err := Ioctl(d, "set the format of", uapi.SetFmt, &f); err != nil {
		return setting{}, err
	}
	g, err := granted(&f)
	switch {
	case err != nil:
		return fail(err)
	case g.code != o.code:
		return fail(&formatError{g.code})
	case len(g.mems) != o.split:
		return fail(fmt.Errorf("the driver gives %d memory planes instead of %d: %w", len(g.mems), o.split, hw.ErrUnsupported))
	case g.field == uapi.FieldAlternate:
		return fail(fmt.Errorf("the input is interlaced with a buffer for each half picture: %w", hw.ErrUnsupported))
	case g.width < 1 || g.height < 1:
		return fail(fmt.Errorf("the driver gives an empty picture: %w", hw.ErrUnsupported))
	}
	m := hw.Mode{Pixel: o.pixel, Width: g.width, Height: g.height, FullRange: g.fullRange(), Matrix: g.matrix()}
	if m.FPS, err = setRate(d, c.typ, o.FPS); err != nil {
		return setting{}, err
	}
	if o.way != nil { // the source sets the pace, and what it sends must fit to the pixel
		m.FPS = o.FPS
		if m.Width != o.Width || m.Height != o.Height {
			return fail(fmt.Errorf("the driver gives %dx%d instead: %w", m.Width, m.Height, hw.ErrUnsupported))
		}
	}
	planes, err := layout(o.Format, m, g.mems)
	if err != nil {
		return fail(err)
	}
	return setting{mode: m, mems: g.mems, planes: planes, layout: shared(m, planes, g.mems)}, nil
}

// setRate asks for a rate and returns the one that the driver then tells, zero
// if it tells none.
func setRate(d *Device, typ uint32, want hw.Rate) (hw.Rate, error) {
	p := uapi.StreamParm{Type: typ}
	ok, err := entry(Ioctl(d, "ask for the frame rate of", uapi.GetParm, &p))
	if err != nil || !ok {
		return hw.Rate{}, err
	}
	if want.Num > 0 && p.Capability&uapi.CapTimePerFrame != 0 {
		p = uapi.StreamParm{Type: typ, TimePerFrame: uapi.Fract{Num: uint32(want.Den), Den: uint32(want.Num)}}
		if _, err := entry(Ioctl(d, "set the frame rate of", uapi.SetParm, &p)); err != nil {
			return hw.Rate{}, err
		}
	}
	return rateOf(p.TimePerFrame), nil
}
