package fakevb2

import (
	"slices"

	"golang.org/x/sys/unix"

	"encoderd.example/hw/v4l2/uapi"
)

func (k *Kernel) querycap(f *file, c *uapi.Capability) error {
	n := f.node
	*c = uapi.Capability{Capabilities: n.Caps | uapi.CapDeviceCaps, DeviceCaps: n.Caps}
	copy(c.Driver[:], n.Driver)
	copy(c.Card[:], n.Card)
	copy(c.BusInfo[:], n.BusInfo)
	return nil
}

// compressed are the formats that are flagged so.
var compressed = []uint32{fourCC("MJPG"), fourCC("JPEG"), fourCC("H264"), fourCC("HEVC")}

// planar are the formats whose lines hold one byte a pixel and more planes
// follow; the others are packed.
var planar = []uint32{
	fourCC("NV12"), fourCC("NV21"), fourCC("NV16"), fourCC("NV61"), fourCC("NV24"), fourCC("YU12"), fourCC("YV12"), fourCC("422P"),
	fourCC("NM12"), fourCC("NM21"), fourCC("YM12"), fourCC("YM21"),
}

func fourCC(s string) uint32 {
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}

func (k *Kernel) enumFmt(f *file, d *uapi.FmtDesc) error {
	s := f.inst.side(d.Type)
	if s == nil {
		return unix.EINVAL
	}
	formats := f.node.written(s.formats, d.MbusCode)
	if int(d.Index) >= len(formats) {
		return unix.EINVAL
	}
	d.PixelFormat, d.Flags = formats[d.Index].Code, 0
	if slices.Contains(compressed, d.PixelFormat) {
		d.Flags = uapi.FmtFlagCompressed
	}
	return nil
}

// written returns the formats that a node behind a media controller writes of
// code; zero asks for all.
func (n *Node) written(formats []Format, code uint32) (list []Format) {
	if code == 0 || n.Caps&uapi.CapIOMC == 0 {
		return formats
	}
	for _, f := range formats {
		if slices.Contains(n.Writes, BusPixel{code, f.Code}) {
			list = append(list, f)
		}
	}
	return list
}

func (s *side) offer(code uint32) (Format, bool) {
	for _, f := range s.formats {
		if f.Code == code {
			return f, true
		}
	}
	return Format{}, false
}

// format returns a format of either side.
func (i *instance) format(code uint32) (Format, bool) {
	if f, ok := i.out.offer(code); ok || i.in == nil {
		return f, ok
	}
	return i.in.offer(code)
}

func (k *Kernel) enumSizes(f *file, e *uapi.FrmSizeEnum) error {
	format, ok := f.inst.format(e.PixelFormat)
	if format.Silent {
		return unix.ENOTTY
	}
	if !ok || int(e.Index) >= len(format.Sizes) {
		return unix.EINVAL
	}
	s := format.Sizes[e.Index]
	if format.Range {
		e.Type = uapi.Stepwise
		e.MinWidth, e.MaxWidth, e.StepWidth = 16, uint32(s.Width), 2
		e.MinHeight, e.MaxHeight, e.StepHeight = 16, uint32(s.Height), 2
		return nil
	}
	e.Type, e.MinWidth, e.MaxWidth = uapi.Discrete, uint32(s.Width), uint32(s.Height)
	return nil
}

func (k *Kernel) enumIntervals(f *file, e *uapi.FrmIvalEnum) error {
	format, ok := f.inst.format(e.PixelFormat)
	if !ok || format.Silent {
		return unix.EINVAL
	}
	for _, s := range format.Sizes {
		if !format.Range && (s.Width != int(e.Width) || s.Height != int(e.Height)) {
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

func (k *Kernel) getFmt(f *file, arg *uapi.Format) error {
	s := f.inst.side(arg.Type)
	if s == nil || len(s.formats) == 0 {
		return unix.EINVAL
	}
	if s.format.Type == 0 {
		s.reset(f.inst)
	}
	*arg = s.format
	return nil
}

// reset makes the first format current.
func (s *side) reset(i *instance) {
	first := s.formats[0]
	w := wish{width: 64, height: 48}
	if len(first.Sizes) > 0 {
		w.width, w.height = first.Sizes[0].Width, first.Sizes[0].Height
	}
	s.format = i.grant(s, first, w)
	s.crop = whole(&s.format)
}

func (k *Kernel) setFmt(f *file, arg *uapi.Format) error {
	s := f.inst.side(arg.Type)
	switch {
	case s == nil || len(s.formats) == 0:
		return unix.EINVAL
	case s.busy():
		return unix.EBUSY
	}
	s.format = f.inst.try(s, arg)
	s.crop = whole(&s.format)
	if f.inst.job != nil {
		f.inst.job.formatSet(s)
	}
	*arg = s.format
	return nil
}

func (k *Kernel) tryFmt(f *file, arg *uapi.Format) error {
	s := f.inst.side(arg.Type)
	if s == nil || len(s.formats) == 0 {
		return unix.EINVAL
	}
	*arg = f.inst.try(s, arg)
	return nil
}

// privMagic says that the fields on colour count.
const privMagic = 0xfeedcafe

// A wish is what S_FMT asks for; zero leaves it to the driver.
type wish struct{ width, height, stride, size int }

// try returns what the driver makes of a format that is asked for.
func (i *instance) try(s *side, arg *uapi.Format) uapi.Format {
	p := arg.Pix()
	w := wish{int(p.Width), int(p.Height), int(p.BytesPerLine), int(p.SizeImage)}
	if s.multiplanar() {
		mp := arg.PixMP()
		w.stride, w.size = int(mp.Planes[0].BytesPerLine), int(mp.Planes[0].SizeImage)
	}
	want, ok := s.offer(p.PixelFormat) // at the same place in both views
	if !ok {
		want = s.formats[0]
	}
	granted := i.grant(s, want, w)
	if i.node.Caps&uapi.CapIOMC != 0 && p.Priv == privMagic {
		granted.Pix().Colorspace = p.Colorspace
	}
	if i.node.Grants != nil {
		i.node.Grants(&granted)
	}
	return granted
}

// grant returns f in the size that comes nearest to w.
func (i *instance) grant(s *side, f Format, w wish) uapi.Format {
	w = i.limit(w)
	height := up(w.height, f.AlignLines)
	var stride, size int
	switch {
	case slices.Contains(compressed, f.Code) && i.job != nil:
		size = max(w.size, i.node.Encoder.sizeImage())
	case slices.Contains(compressed, f.Code) && i.conv != nil:
		stride, size = 0, max(w.size, i.node.Converter.sizeImage())
	case slices.Contains(planar, f.Code):
		stride = s.stride(f, w.width, w)
		size = int(float64(stride*height) * f.BytesPerPixel)
	default:
		stride = s.stride(f, int(float64(w.width)*f.BytesPerPixel), w)
		size = stride * height
	}
	g := uapi.Format{Type: s.typ}
	if !s.multiplanar() {
		p := g.Pix()
		p.PixelFormat, p.Width, p.Height, p.Field = f.Code, uint32(w.width), uint32(height), uapi.FieldNone
		p.BytesPerLine, p.SizeImage = uint32(stride), uint32(size)
		return g
	}
	p := g.PixMP()
	p.PixelFormat, p.Width, p.Height, p.Field = f.Code, uint32(w.width), uint32(height), uapi.FieldNone
	p.NumPlanes = uint8(max(f.Split, 1))
	for i := range p.NumPlanes {
		p.Planes[i].BytesPerLine, p.Planes[i].SizeImage = uint32(stride), uint32(size)
	}
	return g
}

// limit moves w into what the device can do: a receiver dictates the picture.
func (i *instance) limit(w wish) wish {
	if r := i.node.receiver(); r != nil {
		w.width, w.height = int(r.expected.BT.Width), int(r.expected.BT.Height)
	}
	if e := i.node.Encoder; e != nil && e.Most[0] > 0 {
		w.width, w.height = min(w.width, e.Most[0]), min(w.height, e.Most[1])
	}
	if c := i.node.Converter; c != nil && c.Most[0] > 0 {
		w.width, w.height = min(w.width, c.Most[0]), min(w.height, c.Most[1])
	}
	return w
}

func (s *side) stride(f Format, tight int, w wish) int {
	if f.AnyStride {
		tight = max(tight, w.stride)
	}
	return up(tight, f.Align)
}

// up rounds v up to a multiple of step, if there is one.
func up(v, step int) int {
	step = max(step, 1)
	return (v + step - 1) / step * step
}

func whole(f *uapi.Format) uapi.Rect {
	return uapi.Rect{Width: f.Pix().Width, Height: f.Pix().Height} // at the same places in both views
}

func (k *Kernel) getParm(f *file, p *uapi.StreamParm) error {
	s := f.inst.side(p.Type)
	if s == nil || f.inst.in != nil && s == f.inst.out {
		return unix.EINVAL
	}
	*p = uapi.StreamParm{Type: p.Type, Capability: uapi.CapTimePerFrame, TimePerFrame: s.interval}
	return nil
}

func (k *Kernel) setParm(f *file, p *uapi.StreamParm) error {
	s := f.inst.side(p.Type)
	switch {
	case s == nil || f.inst.in != nil && s == f.inst.out:
		return unix.EINVAL
	case s.busy() && f.inst.job == nil:
		return unix.EBUSY
	}
	s.interval = p.TimePerFrame
	if e := f.node.Encoder; e != nil && e.WholeRates && s.interval.Num > 0 {
		s.interval = uapi.Fract{Num: 1, Den: s.interval.Den / s.interval.Num}
	}
	return k.getParm(f, p)
}

// cropped returns the side of a selection, which names the single-planar type
// whatever the queue's is.
func (i *instance) cropped(typ uint32) (*side, error) {
	switch {
	case i.in == nil:
		return nil, unix.ENOTTY
	case typ != uapi.BufTypeVideoOutput && typ != i.in.typ:
		return nil, unix.EINVAL
	}
	if i.in.format.Type == 0 {
		i.in.reset(i)
	}
	return i.in, nil
}

func (k *Kernel) getSelection(f *file, arg *uapi.Selection) error {
	s, err := f.inst.cropped(arg.Type)
	switch {
	case err != nil:
		return err
	case arg.Target == uapi.SelectionCrop:
		arg.Rect = s.crop
	case arg.Target == uapi.SelectionCropDefault, arg.Target == uapi.SelectionCropBounds:
		arg.Rect = whole(&s.format)
	default:
		return unix.EINVAL
	}
	return nil
}

// setSelection takes what begins at the top left corner only, as most encoders
// do.
func (k *Kernel) setSelection(f *file, arg *uapi.Selection) error {
	if f.inst.conv != nil && arg.Target == selectionCompose {
		return f.inst.conv.compose(arg)
	}
	s, err := f.inst.cropped(arg.Type)
	switch {
	case err != nil:
		return err
	case arg.Target != uapi.SelectionCrop:
		return unix.EINVAL
	case s.busy():
		return unix.EBUSY
	}
	most := whole(&s.format)
	s.crop = uapi.Rect{Width: min(max(arg.Rect.Width, 16), most.Width), Height: min(max(arg.Rect.Height, 16), most.Height)}
	arg.Rect = s.crop
	return nil
}
