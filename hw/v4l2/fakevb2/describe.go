package fakevb2

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"encoderd.example/hw/v4l2/uapi"
)

// describing are the calls that ask or set what the node delivers.
var describing = map[uintptr]func(*Node, unsafe.Pointer) error{
	uapi.QueryCap:           func(n *Node, arg unsafe.Pointer) error { return n.querycap((*uapi.Capability)(arg)) },
	uapi.EnumFmt:            func(n *Node, arg unsafe.Pointer) error { return n.enumFmt((*uapi.FmtDesc)(arg)) },
	uapi.EnumFrameSizes:     func(n *Node, arg unsafe.Pointer) error { return n.enumSizes((*uapi.FrmSizeEnum)(arg)) },
	uapi.EnumFrameIntervals: func(n *Node, arg unsafe.Pointer) error { return n.enumIntervals((*uapi.FrmIvalEnum)(arg)) },
	uapi.GetFmt:             func(n *Node, arg unsafe.Pointer) error { return n.getFmt((*uapi.Format)(arg)) },
	uapi.SetFmt:             func(n *Node, arg unsafe.Pointer) error { return n.setFmt((*uapi.Format)(arg)) },
	uapi.GetParm:            func(n *Node, arg unsafe.Pointer) error { return n.getParm((*uapi.StreamParm)(arg)) },
	uapi.SetParm:            func(n *Node, arg unsafe.Pointer) error { return n.setParm((*uapi.StreamParm)(arg)) },
	uapi.SetInput:           func(n *Node, arg unsafe.Pointer) error { return n.setInput(*(*int32)(arg)) },
}

func (n *Node) querycap(c *uapi.Capability) error {
	*c = uapi.Capability{Capabilities: n.Caps | uapi.CapDeviceCaps, DeviceCaps: n.Caps}
	copy(c.Driver[:], n.Driver)
	copy(c.Card[:], n.Card)
	copy(c.BusInfo[:], n.BusInfo)
	return nil
}

func (n *Node) enumFmt(d *uapi.FmtDesc) error {
	if d.Type != n.Type || int(d.Index) >= len(n.Formats) {
		return unix.EINVAL
	}
	d.PixelFormat = n.Formats[d.Index].Code
	return nil
}

func (n *Node) find(code uint32) (Format, bool) {
	for _, f := range n.Formats {
		if f.Code == code {
			return f, true
		}
	}
	return Format{}, false
}

func (n *Node) enumSizes(e *uapi.FrmSizeEnum) error {
	f, ok := n.find(e.PixelFormat)
	if f.Silent {
		return unix.ENOTTY
	}
	if !ok || int(e.Index) >= len(f.Sizes) {
		return unix.EINVAL
	}
	s := f.Sizes[e.Index]
	if f.Range {
		e.Type = uapi.Stepwise
		e.MinWidth, e.MaxWidth, e.StepWidth = 16, uint32(s.Width), 2
		e.MinHeight, e.MaxHeight, e.StepHeight = 16, uint32(s.Height), 2
		return nil
	}
	e.Type, e.MinWidth, e.MaxWidth = uapi.Discrete, uint32(s.Width), uint32(s.Height)
	return nil
}

func (n *Node) enumIntervals(e *uapi.FrmIvalEnum) error {
	f, ok := n.find(e.PixelFormat)
	if !ok || f.Silent {
		return unix.EINVAL
	}
	for _, s := range f.Sizes {
		if !f.Range && (s.Width != int(e.Width) || s.Height != int(e.Height)) {
			continue
		}
		switch {
		case s.Range && e.Index == 0:
			e.Type, e.Min, e.Max = uapi.Continuous, s.Intervals[0], s.Intervals[1]
			return nil
		case !s.Range && int(e.Index) < len(s.Intervals):
			e.Type, e.Min = uapi.Discrete, s.Intervals[e.Index]
			return nil
		}
	}
	return unix.EINVAL
}

func (n *Node) getFmt(f *uapi.Format) error {
	if f.Type != n.Type {
		return unix.EINVAL
	}
	if n.format.Type == 0 && len(n.Formats) > 0 {
		first := n.Formats[0]
		n.grant(first, first.Sizes[0].Width, first.Sizes[0].Height)
	}
	*f = n.format
	return nil
}

func (n *Node) setFmt(f *uapi.Format) error {
	if f.Type != n.Type {
		return unix.EINVAL
	}
	if n.queue.busy() {
		return unix.EBUSY
	}
	code, w, h := f.Pix().PixelFormat, f.Pix().Width, f.Pix().Height // at the same places in both views
	want, ok := n.find(code)
	if !ok {
		want = n.Formats[0]
	}
	n.grant(want, int(w), int(h))
	if n.Grants != nil {
		n.Grants(&n.format)
	}
	*f = n.format
	return nil
}

// grant makes f the current format.
func (n *Node) grant(f Format, w, h int) {
	align := max(f.Align, 1)
	split := max(f.Split, 1)
	stride := w
	if f.BytesPerPixel == 2 {
		stride = 2 * w
	}
	stride = (stride + align - 1) / align * align
	size := uint32(float64(stride*h) * f.BytesPerPixel)
	if stride > w && f.BytesPerPixel == 2 {
		size = uint32(stride * h)
	}
	n.format = uapi.Format{Type: n.Type}
	if !n.queue.multiplanar() {
		p := n.format.Pix()
		p.PixelFormat, p.Width, p.Height, p.Field = f.Code, uint32(w), uint32(h), uapi.FieldNone
		p.BytesPerLine, p.SizeImage = uint32(stride), size
		return
	}
	p := n.format.PixMP()
	p.PixelFormat, p.Width, p.Height, p.Field = f.Code, uint32(w), uint32(h), uapi.FieldNone
	p.NumPlanes = uint8(split)
	for i := range split {
		p.Planes[i].BytesPerLine, p.Planes[i].SizeImage = uint32(stride), size
	}
}

func (n *Node) getParm(p *uapi.StreamParm) error {
	if p.Type != n.Type {
		return unix.EINVAL
	}
	*p = uapi.StreamParm{Type: n.Type, Capability: uapi.CapTimePerFrame, TimePerFrame: n.interval}
	return nil
}

func (n *Node) setParm(p *uapi.StreamParm) error {
	if n.queue.busy() {
		return unix.EBUSY
	}
	n.interval = p.TimePerFrame
	return n.getParm(p)
}

func (n *Node) setInput(input int32) error {
	switch {
	case int(input) >= n.Inputs:
		return unix.EINVAL
	case n.queue.busy():
		return unix.EBUSY
	}
	n.input = input
	return nil
}

// Input returns the input that was selected last, inside [Kernel.Do].
func (n *Node) Input() int { return int(n.input) }
