package fakevb2

import (
	"slices"

	"golang.org/x/sys/unix"

	"encoderd.example/hw/v4l2/uapi"
)

// firstPads returns the formats of pads as the driver makes them.
func (n *Node) firstPads() []uapi.BusFormat {
	var list []uapi.BusFormat
	for _, p := range n.Pads {
		f := uapi.BusFormat{Width: 640, Height: 480, Field: uapi.FieldNone, Colorspace: p.Colorspace}
		if len(p.Sizes) > 0 {
			f.Width, f.Height = uint32(p.Sizes[0].Width), uint32(p.Sizes[0].Height)
		}
		if len(p.Codes) > 0 {
			f.Code = p.Codes[0]
		}
		list = append(list, f)
	}
	return list
}

// pads returns the pads of one opening, or of the hardware, and checks the number.
func (f *file) pads(which, pad uint32) ([]uapi.BusFormat, error) {
	switch {
	case int(pad) >= len(f.node.Pads):
		return nil, unix.EINVAL
	case which == uapi.PadActive:
		return f.node.pads, nil
	case f.try == nil:
		f.try = f.node.firstPads()
	}
	return f.try, nil
}

// begins says that nothing goes in at n.
func (n *Node) begins() bool {
	return !slices.ContainsFunc(n.Pads, func(p Pad) bool { return p.Sink })
}

// padFormat returns the format of a pad: that of a receiver's source is what
// the timings say.
func (n *Node) padFormat(pads []uapi.BusFormat, pad int) uapi.BusFormat {
	f := pads[pad]
	if r := n.Receivers[0]; r != nil && !n.Pads[pad].Sink {
		f.Width, f.Height = r.expected.BT.Width, r.expected.BT.Height
	}
	return f
}

func (k *Kernel) getPad(f *file, arg *uapi.PadFormat) error {
	pads, err := f.pads(arg.Which, arg.Pad)
	if err != nil {
		return err
	}
	arg.Format = f.node.padFormat(pads, int(arg.Pad))
	return nil
}

func (k *Kernel) setPad(f *file, arg *uapi.PadFormat) error {
	pads, err := f.pads(arg.Which, arg.Pad)
	if err != nil {
		return err
	}
	if m, at := k.media(f.node); arg.Which == uapi.PadActive && m != nil && k.running(m, at) {
		return unix.EBUSY
	}
	n, i := f.node, int(arg.Pad)
	switch p := n.Pads[i]; {
	case p.Sink:
		n.setSink(pads, i, arg.Format)
	case n.begins():
		n.setSource(pads, i, arg.Format)
	case p.Own && slices.Contains(p.Codes, arg.Format.Code):
		pads[i].Code = arg.Format.Code
	}
	arg.Format = n.padFormat(pads, i)
	return nil
}

// setSink sets a sink pad, and what follows from it.
func (n *Node) setSink(pads []uapi.BusFormat, i int, want uapi.BusFormat) {
	if !slices.Contains(n.Pads[i].Codes, want.Code) {
		want.Code = n.Pads[i].Codes[0]
	}
	pads[i] = want
	for j, p := range n.Pads {
		if p.Sink || p.Of != i {
			continue
		}
		pads[j] = want
		if p.Own && !slices.Contains(p.Codes, want.Code) {
			pads[j].Code = p.Codes[0]
		}
	}
}

// setSource sets the pad of a sensor or receiver, whose colours are its own.
func (n *Node) setSource(pads []uapi.BusFormat, i int, want uapi.BusFormat) {
	p := n.Pads[i]
	if slices.Contains(p.Codes, want.Code) {
		pads[i].Code = want.Code
	}
	for _, s := range p.Sizes {
		if s.Width == int(want.Width) && s.Height == int(want.Height) {
			pads[i].Width, pads[i].Height = want.Width, want.Height
		}
	}
	pads[i].Colorspace = p.Colorspace
}

// enumCodes lists what a pad takes or gives: of a source pad that follows its
// sink, what came in there.
func (k *Kernel) enumCodes(f *file, arg *uapi.PadCodeEnum) error {
	pads, err := f.pads(arg.Which, arg.Pad)
	if err != nil {
		return err
	}
	codes := f.node.Pads[arg.Pad].Codes
	if p := f.node.Pads[arg.Pad]; !p.Sink && !p.Own && !f.node.begins() {
		codes = []uint32{pads[arg.Pad].Code}
	}
	if int(arg.Index) >= len(codes) {
		return unix.EINVAL
	}
	arg.Code = codes[arg.Index]
	return nil
}

func (k *Kernel) enumPadSizes(f *file, arg *uapi.PadSizeEnum) error {
	if int(arg.Pad) >= len(f.node.Pads) {
		return unix.EINVAL
	}
	p := f.node.Pads[arg.Pad]
	switch {
	case len(p.Sizes) == 0:
		return unix.ENOTTY
	case int(arg.Index) >= len(p.Sizes), !slices.Contains(p.Codes, arg.Code):
		return unix.EINVAL
	}
	s := p.Sizes[arg.Index]
	arg.MinWidth, arg.MaxWidth, arg.MinHeight, arg.MaxHeight = uint32(s.Width), uint32(s.Width), uint32(s.Height), uint32(s.Height)
	return nil
}

func (k *Kernel) enumPadIntervals(f *file, arg *uapi.PadIntervalEnum) error {
	if int(arg.Pad) >= len(f.node.Pads) {
		return unix.EINVAL
	}
	p := f.node.Pads[arg.Pad]
	switch {
	case len(p.Intervals) == 0:
		return unix.ENOTTY
	case int(arg.Index) >= len(p.Intervals):
		return unix.EINVAL
	}
	arg.Interval = p.Intervals[arg.Index]
	return nil
}

func (k *Kernel) getPadInterval(f *file, arg *uapi.PadInterval) error {
	if int(arg.Pad) >= len(f.node.Pads) || len(f.node.Pads[arg.Pad].Intervals) == 0 {
		return unix.ENOTTY
	}
	arg.Interval = f.node.interval
	return nil
}

// setPadInterval grants the fastest that is not faster than what is asked for,
// of intervals that are listed from the fastest.
func (k *Kernel) setPadInterval(f *file, arg *uapi.PadInterval) error {
	if int(arg.Pad) >= len(f.node.Pads) || len(f.node.Pads[arg.Pad].Intervals) == 0 {
		return unix.ENOTTY
	}
	for _, i := range f.node.Pads[arg.Pad].Intervals {
		f.node.interval = i
		if i.Num*arg.Interval.Den >= arg.Interval.Num*i.Den {
			break
		}
	}
	arg.Interval = f.node.interval
	return nil
}
