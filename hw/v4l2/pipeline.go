package v4l2

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/uapi"
)

// errRaw says that a sensor sends nothing but raw pictures.
var errRaw = fmt.Errorf("it sends raw Bayer pictures, which need an image processor and a program that leads it: install the helper program (docs/external-devices.md): %w", hw.ErrUnsupported)

// errNoWay says that no format goes from a source to its video node.
var errNoWay = fmt.Errorf("no format that this box can use goes all the way: %w", hw.ErrUnsupported)

// A pipeline is the subdevices of a route, open, and the video node at its end.
// It is for one goroutine.
//
// A code is looked for by trying: each opening of a subdevice has a format of
// its own beside that of the hardware, so that looking disturbs nobody.
//
//	source pad ──code──► sink pad, source pad ──code──► … ──► video node: which formats does it write of it?
type pipeline struct {
	sys     Sys
	names   nodeNames
	route   route
	subdevs []*Device // subdevs[i] is where links[i] begins
	asides  []*Device // asides[i] is where branches[i] ends
	node    *Device
	typ     uint32
}

// A way is a code for each link of a route that passes from end to end.
type way struct {
	pipeline *pipeline
	codes    []uint32
}

// openPipeline opens the subdevices of r. node stays the caller's.
func openPipeline(sys Sys, names nodeNames, r route, node *Device, typ uint32) (*pipeline, error) {
	p := &pipeline{sys: sys, names: names, route: r, node: node, typ: typ}
	for _, l := range r.links {
		d, err := openEntity(sys, l.from.of)
		if err != nil {
			return nil, errors.Join(err, p.close())
		}
		p.subdevs = append(p.subdevs, d)
	}
	for _, b := range r.branches {
		d, err := openEntity(sys, b.to.of)
		if err != nil {
			return nil, errors.Join(err, p.close())
		}
		p.asides = append(p.asides, d)
	}
	return p, nil
}

func openEntity(sys Sys, e *entity) (*Device, error) {
	if e.path == "" {
		return nil, fmt.Errorf("open the pads of %q: it has no device node: %w", e.name, hw.ErrUnsupported)
	}
	return OpenDevice(sys, e.path)
}

// close closes the subdevices. What was set stays.
func (p *pipeline) close() error {
	if p == nil {
		return nil
	}
	var errs []error
	for _, d := range slices.Concat(p.subdevs, p.asides) {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}

func (p *pipeline) source() *Device { return p.subdevs[0] }

// start returns the format that the source has now, as a beginning of trials.
func (p *pipeline) start() (uapi.BusFormat, error) {
	f, err := p.source().padFormat(uapi.PadActive, p.route.source().index)
	if f.Width == 0 || f.Height == 0 { // nothing has come in yet: any size shows which codes pass
		f.Width, f.Height = 1280, 720
	}
	return f, err
}

// ways returns the ways that pictures can take, best first. The error wraps
// [hw.ErrUnsupported] if there is none.
func (p *pipeline) ways() ([]*way, error) {
	begin, err := p.start()
	if err != nil {
		return nil, err
	}
	pad := p.route.source().index
	codes, err := p.source().padCodes(uapi.PadActive, pad)
	if err != nil {
		return nil, err
	}
	if len(codes) == 0 { // it knows one only
		codes = []uint32{begin.Code}
	}
	var found []*way
	for _, code := range preferred(codes, p.develops()) {
		begin.Code = code
		more, err := p.leave(nil, begin)
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	switch {
	case len(found) > 0:
		return found, nil
	case !slices.ContainsFunc(codes, func(c uint32) bool { return !bayer(c) }):
		return nil, fmt.Errorf("use %q: %w", p.route.source().of.name, errRaw)
	default:
		return nil, fmt.Errorf("use %q by way of %v: %w", p.route.source().of.name, p.route, errNoWay)
	}
}

// develops says whether the route makes colours of raw pictures by a plain
// converter. An image processor does too, but shows next to nothing until a
// program leads exposure and colour.
func (p *pipeline) develops() bool {
	return slices.ContainsFunc(p.route.links, func(l link) bool { return l.to.of.function == uapi.EntityColourConverter })
}

// leave tries f at the source pad where the link after the first, whose codes
// are chosen, begins, then on the rest of the route.
func (p *pipeline) leave(codes []uint32, f uapi.BusFormat) ([]*way, error) {
	at := len(codes)
	l := p.route.links[at]
	granted, err := p.subdevs[at].setPadFormat(uapi.PadTry, l.from.index, f)
	if more, err := entry(err); err != nil || !more || granted.Code != f.Code || at > 0 && !same(granted, f) {
		return nil, err
	}
	granted.Width, granted.Height = f.Width, f.Height // a source may not know yet
	if agree, err := p.tryAsides(l, granted); err != nil || !agree {
		return nil, err
	}
	codes = append(slices.Clone(codes), f.Code)
	if at+1 == len(p.route.links) {
		return []*way{{p, codes}}, nil
	}
	return p.enter(codes, granted)
}

// enter tries f at the sink pad where the last of the links whose codes are
// chosen ends, then on the rest of the route.
func (p *pipeline) enter(codes []uint32, f uapi.BusFormat) ([]*way, error) {
	at := len(codes)
	d := p.subdevs[at]
	granted, err := d.setPadFormat(uapi.PadTry, p.route.links[at-1].to.index, f)
	if more, err := entry(err); err != nil || !more || !same(granted, f) {
		return nil, err
	}
	next, err := p.onward(d, p.route.links[at].from.index, f)
	if err != nil {
		return nil, err
	}
	var found []*way
	for _, code := range next {
		granted.Code = code
		more, err := p.leave(codes, granted)
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	return found, nil
}

// tryAsides says whether what hangs on l's source pad for good takes f too.
func (p *pipeline) tryAsides(l link, f uapi.BusFormat) (bool, error) {
	for i, b := range p.route.branches {
		if b.from != l.from || b.to.of.video {
			continue
		}
		granted, err := p.asides[i].setPadFormat(uapi.PadTry, b.to.index, f)
		if more, err := entry(err); err != nil || !more || !same(granted, f) {
			return false, err
		}
	}
	return true, nil
}

// onward returns the codes that a subdevice may send on of f, which goes in:
// what it does not list goes on as it is.
func (p *pipeline) onward(d *Device, out uint32, f uapi.BusFormat) ([]uint32, error) {
	codes, err := d.padCodes(uapi.PadTry, out)
	if err != nil {
		return nil, err
	}
	if len(codes) == 0 || slices.Contains(codes, f.Code) {
		return []uint32{f.Code}, nil
	}
	return preferred(codes, false), nil
}

// same compares what the kernel compares when it starts.
func same(a, b uapi.BusFormat) bool {
	return a.Width == b.Width && a.Height == b.Height && a.Code == b.Code
}

// offers lists what can be had of the source, best first; known is what a
// receiver measured, nil of sensors.
func (p *pipeline) offers(known *receiver, want hw.Mode) ([]offer, error) {
	ways, err := p.ways()
	if err != nil {
		return nil, err
	}
	var offers []offer
	for _, w := range ways {
		modes, err := w.modes(known, want)
		if err != nil {
			return nil, err
		}
		formats, err := w.formats()
		if err != nil {
			return nil, err
		}
		for _, f := range formats {
			for _, m := range modes {
				m.Pixel = f.pixel
				offers = append(offers, offer{f, m, w})
			}
		}
	}
	slices.SortStableFunc(offers, better)
	return offers, nil
}

// modes lists sizes and rates of the source.
func (w *way) modes(known *receiver, want hw.Mode) (modes []hw.Mode, _ error) {
	if known.measured() {
		return []hw.Mode{{Width: known.timings.Width(), Height: known.timings.Height(), FPS: known.timings.Rate()}}, nil
	}
	p := w.pipeline
	pad := p.route.source().index
	sizes, err := p.source().padSizes(pad, w.codes[0], want)
	if err != nil {
		return nil, err
	}
	if len(sizes) == 0 {
		now, err := p.start()
		if err != nil {
			return nil, err
		}
		sizes = []size{{int(now.Width), int(now.Height)}}
	}
	for _, s := range sizes {
		rates, err := p.source().padRates(pad, w.codes[0], s)
		if err != nil {
			return nil, err
		}
		if len(rates) == 0 {
			rates = []hw.Rate{{}} // the driver does not say
		}
		for _, r := range rates {
			modes = append(modes, hw.Mode{Width: s.width, Height: s.height, FPS: r})
		}
	}
	return modes, nil
}

// formats lists the formats that the video node writes of what comes to it.
func (w *way) formats() ([]Format, error) {
	code := w.codes[len(w.codes)-1]
	found, err := listFormats(w.pipeline.node, w.pipeline.typ, code)
	return slices.DeleteFunc(found, func(f Format) bool { return !f.goesWith(code) }), err
}

// set prepares the hardware for m: links first, then the pads from the source to
// the video node, each as the one before was granted, colours and all. It
// returns what comes to the node, and m with the rate that the source grants.
// The error wraps [hw.ErrBusy] if a part of the route runs for somebody else,
// and [hw.ErrGone] if the route is no longer there.
func (w *way) set(m hw.Mode) (uapi.BusFormat, hw.Mode, error) {
	p := w.pipeline
	if err := p.connect(); err != nil {
		return uapi.BusFormat{}, m, err
	}
	f, err := p.setPads(w.codes, m)
	if err != nil || m.FPS.Num == 0 {
		return f, m, err
	}
	granted, err := p.source().setPadRate(p.route.source().index, m.FPS)
	if granted.Num > 0 {
		m.FPS = granted
	}
	return f, m, err
}

// setPads sets all pads of the route for m and returns the format of the last.
func (p *pipeline) setPads(codes []uint32, m hw.Mode) (uapi.BusFormat, error) {
	f, err := p.start()
	if err != nil {
		return f, err
	}
	f.Width, f.Height, f.Field = uint32(m.Width), uint32(m.Height), uapi.FieldNone
	for i, l := range p.route.links {
		f.Code = codes[i]
		if f, err = p.setPad(p.subdevs[i], l.from, f); err != nil {
			return f, err
		}
		if err := p.setAsides(l, f); err != nil {
			return f, err
		}
		if l.to.of.video {
			break
		}
		if f, err = p.setPad(p.subdevs[i+1], l.to, f); err != nil {
			return f, err
		}
	}
	return f, nil
}

// setPad sets one pad, which must take f as it is.
func (p *pipeline) setPad(d *Device, at *pad, f uapi.BusFormat) (uapi.BusFormat, error) {
	granted, err := d.setPadFormat(uapi.PadActive, at.index, f)
	if err != nil {
		return f, err
	}
	if !same(granted, f) {
		return f, fmt.Errorf("set the pad %v to %dx%d of code %#x: it gives %dx%d of code %#x: %w",
			at, f.Width, f.Height, f.Code, granted.Width, granted.Height, granted.Code, hw.ErrUnsupported)
	}
	return granted, nil
}

// setAsides sets what hangs on l's source pad for good to f.
func (p *pipeline) setAsides(l link, f uapi.BusFormat) error {
	for i, b := range p.route.branches {
		if b.from != l.from {
			continue
		}
		if b.to.of.video {
			if err := p.asides[i].matchNode(f); err != nil {
				return err
			}
			continue
		}
		if _, err := p.setPad(p.asides[i], b.to, f); err != nil {
			return err
		}
	}
	return nil
}

// matchNode sets a video node that nobody reads to some format that it writes of
// f.
func (d *Device) matchNode(f uapi.BusFormat) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	typ, ok := captureType(info.Caps)
	if !ok {
		return nil
	}
	desc := uapi.FmtDesc{Type: typ, MbusCode: f.Code}
	if err := Ioctl(d, "list the formats of", uapi.EnumFmt, &desc); err != nil {
		return err
	}
	var want uapi.Format
	wish(&want, typ, offer{Format: Format{code: hw.PixelFormat(desc.PixelFormat)}, Mode: hw.Mode{Width: int(f.Width), Height: int(f.Height)}}, nil)
	paint(&want, f)
	return Ioctl(d, "set the format of", uapi.SetFmt, &want)
}

// connect puts in the links of the route that are not, and cuts those that are
// in the way.
func (p *pipeline) connect() (err error) {
	d, err := OpenDevice(p.sys, p.route.media)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	t, err := d.topology()
	if err != nil {
		return err
	}
	g := newGraph(p.route.media, t, p.names)
	now := g.again(p.route)
	if now == nil {
		return fmt.Errorf("connect %v: the hardware has changed: %w", p.route, hw.ErrGone)
	}
	cut, err := g.rivals(now)
	if err != nil {
		return fmt.Errorf("connect %v: %w", p.route, err)
	}
	for _, l := range cut {
		if err := d.setLink(l, false); err != nil {
			return err
		}
	}
	for _, l := range g.loose(now) {
		if err := d.setLink(l, false); err != nil && !errors.Is(err, hw.ErrBusy) {
			return err
		}
	}
	for _, l := range now.links {
		if l.enabled() {
			continue
		}
		if err := d.setLink(l, true); err != nil {
			return err
		}
	}
	return nil
}

// pixPrivMagic says that the fields on colour count (V4L2_PIX_FMT_PRIV_MAGIC).
const pixPrivMagic = 0xfeedcafe

// paint asks for the colours of b in f: some kernels compare them at the start.
func paint(f *uapi.Format, b uapi.BusFormat) {
	if multiplanar(f.Type) {
		p := f.PixMP()
		p.Colorspace, p.YCbCrEnc, p.Quantization, p.XferFunc = b.Colorspace, uint8(b.YCbCrEnc), uint8(b.Quantization), uint8(b.XferFunc)
		return
	}
	p := f.Pix()
	p.Priv = pixPrivMagic
	p.Colorspace, p.YCbCrEnc, p.Quantization, p.XferFunc = b.Colorspace, uint32(b.YCbCrEnc), uint32(b.Quantization), uint32(b.XferFunc)
}

// explainStart tells why a prepared route does not start.
func explainStart(r *route, err error) error {
	if r != nil && (errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ENOLINK) || errors.Is(err, unix.ENOTCONN)) {
		return fmt.Errorf("the pads of %v do not agree, or somebody has changed them: %w", *r, err)
	}
	return err
}
