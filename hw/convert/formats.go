package convert

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/uapi"
)

// A format is one of the four-character codes that this box can use.
type format struct {
	code  hw.PixelFormat // what the driver calls it
	pixel hw.PixelFormat // what we call it: the codes for split memory mean the same picture
	split bool           // each plane has a buffer of its own
}

// coded says that pictures of that format have no lines.
func (f format) coded() bool { return f.pixel == hw.MJPEG }

// formats in order of preference: what encoders take comes first.
var formats = []format{
	{hw.NV12, hw.NV12, false},
	{hw.FourCC("NM12"), hw.NV12, true},
	{hw.I420, hw.I420, false},
	{hw.FourCC("YM12"), hw.I420, true},
	{hw.YUYV, hw.YUYV, false},
	{hw.UYVY, hw.UYVY, false},
	{hw.NV16, hw.NV16, false},
	{hw.FourCC("NM16"), hw.NV16, true},
	{hw.I422, hw.I422, false},
	{hw.FourCC("422M"), hw.I422, true},
	{hw.NV24, hw.NV24, false},
	{hw.RGB24, hw.RGB24, false},
	{hw.BGR24, hw.BGR24, false},
	{hw.RGB565, hw.RGB565, false},
	{hw.MJPEG, hw.MJPEG, false},
	{hw.FourCC("JPEG"), hw.MJPEG, false},
}

func formatOf(code hw.PixelFormat) (format, bool) {
	i := slices.IndexFunc(formats, func(f format) bool { return f.code == code })
	if i < 0 {
		return format{}, false
	}
	return formats[i], true
}

// A shape says how the planes of a format lie in memory (Linux user-space API,
// part I, section 2): the first plane has bytes for each pixel, the others
// follow from its stride and lines.
type shape struct {
	bytes  int
	chroma []ratio
}

// A ratio tells a plane from the first one: its stride in halves of that one's,
// and by what the lines are divided.
type ratio struct{ halves, lines int }

var shapes = map[hw.PixelFormat]shape{
	hw.NV12:   {1, []ratio{{2, 2}}},
	hw.I420:   {1, []ratio{{1, 2}, {1, 2}}},
	hw.I422:   {1, []ratio{{1, 1}, {1, 1}}},
	hw.NV16:   {1, []ratio{{2, 1}}},
	hw.NV24:   {1, []ratio{{4, 1}}},
	hw.YUYV:   {2, nil},
	hw.UYVY:   {2, nil},
	hw.RGB24:  {3, nil},
	hw.BGR24:  {3, nil},
	hw.RGB565: {2, nil},
}

// extent returns bytes that a line holds and lines of a plane, without padding.
func extent(pixel hw.PixelFormat, width, height, plane int) (line, lines int) {
	s := shapes[pixel]
	width = (width + 1) &^ 1 // chroma of a pair
	if plane == 0 {
		return s.bytes * width, height
	}
	r := s.chroma[plane-1]
	return width * r.halves / 2, (height + r.lines - 1) / r.lines
}

// planes returns how many planes pictures of a format have.
func planes(pixel hw.PixelFormat) int { return 1 + len(shapes[pixel].chroma) }

// maxFormats bounds the lists of drivers.
const maxFormats = 128

// listFormats returns the formats of a queue that this box can use, in order of
// preference.
func listFormats(d *v4l2.Device, typ uint32) ([]format, error) {
	codes := map[hw.PixelFormat]bool{}
	for i := range maxFormats {
		desc := uapi.FmtDesc{Index: uint32(i), Type: typ}
		err := v4l2.Ioctl(d, "list the formats of", uapi.EnumFmt, &desc)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) {
			break
		}
		if err != nil {
			return nil, err
		}
		codes[hw.PixelFormat(desc.PixelFormat)] = true
	}
	return slices.DeleteFunc(slices.Clone(formats), func(f format) bool { return !codes[f.code] }), nil
}

// A wish is what is asked of a queue. Zero strides and size leave the choice to
// the driver.
type wish struct {
	format
	width, height int
	layout        hw.Layout // of the memory, if it is to be a certain one
	size          int       // of a coded picture's buffer in bytes
}

func (w wish) write(f *uapi.Format, typ uint32) {
	*f = uapi.Format{Type: typ}
	if !multiplanar(typ) {
		p := f.Pix()
		p.PixelFormat, p.Width, p.Height, p.Field = uint32(w.code), uint32(w.width), uint32(w.height), uapi.FieldNone
		p.BytesPerLine, p.SizeImage = uint32(w.layout.Planes[0].Stride), uint32(w.size)
		return
	}
	p := f.PixMP()
	p.PixelFormat, p.Width, p.Height, p.Field = uint32(w.code), uint32(w.width), uint32(w.height), uapi.FieldNone
	p.NumPlanes = 1
	p.Planes[0].SizeImage = uint32(w.size)
	if w.split {
		p.NumPlanes = uint8(planes(w.pixel))
	}
	for i := range int(p.NumPlanes) {
		p.Planes[i].BytesPerLine = uint32(w.layout.Planes[i].Stride)
	}
}

// A grant is what the driver made of a wish.
type grant struct {
	format
	width, height int // of the memory
	full          bool
	strides       []int // for each memory plane
	sizes         []int
}

func granted(f *uapi.Format) (grant, error) {
	// The codes stand at the same place in both views.
	code := hw.PixelFormat(f.Pix().PixelFormat)
	fm, ok := formatOf(code)
	if !ok {
		return grant{}, fmt.Errorf("the driver gives %s: %w", code, hw.ErrUnsupported)
	}
	g := grant{format: fm, width: int(f.Pix().Width), height: int(f.Pix().Height)}
	if !multiplanar(f.Type) {
		p := f.Pix()
		g.full = p.Quantization == uapi.QuantizationFull
		g.strides, g.sizes = []int{int(p.BytesPerLine)}, []int{int(p.SizeImage)}
		return g, nil
	}
	p := f.PixMP()
	n, want := int(p.NumPlanes), 1
	if fm.split {
		want = planes(fm.pixel)
	}
	if n != want {
		return grant{}, fmt.Errorf("the driver gives %s in %d buffers: %w", code, n, hw.ErrUnsupported)
	}
	g.full = p.Quantization == uapi.QuantizationFull
	for _, m := range p.Planes[:n] {
		g.strides, g.sizes = append(g.strides, int(m.BytesPerLine)), append(g.sizes, int(m.SizeImage))
	}
	return g, nil
}

// layout places a picture of width × height in the memory that was granted,
// which may have more lines.
func (g grant) layout(width, height int) (hw.Layout, error) {
	l := hw.Layout{Pixel: g.pixel, Width: width, Height: height}
	s := shapes[g.pixel]
	end := 0
	for i := range planes(g.pixel) {
		line, _ := extent(g.pixel, g.width, g.height, i)
		p := hw.PlaneLayout{Offset: end, Stride: max(g.strides[0], s.bytes*width)}
		if i > 0 {
			p.Stride = p.Stride * s.chroma[i-1].halves / 2
		}
		if g.split {
			p = hw.PlaneLayout{Buffer: i, Stride: max(g.strides[i], line)}
		}
		_, lines := extent(g.pixel, g.width, g.height, i)
		end = p.Offset + p.Stride*lines
		l.Planes[i] = p
		if need := p.Offset + p.Stride*(lines-1) + line; need > g.sizes[p.Buffer] {
			return hw.Layout{}, fmt.Errorf("%s: the driver wants buffers of %d bytes, too small for plane %d", l, g.sizes[p.Buffer], i)
		}
	}
	copy(l.Sizes[:], g.sizes)
	return l, nil
}

// ask sets the format of a queue and returns what the driver made of it: the
// format that was asked for, in memory of at least that size.
func ask(d *v4l2.Device, typ uint32, w wish) (grant, error) {
	fail := func(err error) (grant, error) {
		return grant{}, fmt.Errorf("set %s to %dx%d %s: %w", d.Path(), w.width, w.height, w.code, err)
	}
	var f uapi.Format
	w.write(&f, typ)
	if err := v4l2.Ioctl(d, "set the format of", uapi.SetFmt, &f); err != nil {
		if errors.Is(err, unix.EINVAL) {
			return fail(fmt.Errorf("%w (%w)", hw.ErrUnsupported, err))
		}
		return grant{}, err
	}
	g, err := granted(&f)
	switch {
	case err != nil:
		return fail(err)
	case g.code != w.code:
		return fail(fmt.Errorf("the driver takes %s instead: %w", g.code, hw.ErrUnsupported))
	case g.width < w.width, g.height < w.height:
		return fail(fmt.Errorf("the driver has room for %dx%d: %w", g.width, g.height, hw.ErrUnsupported))
	}
	return g, nil
}

// askAny tries the forms of a pixel format that the driver has: in one buffer
// first.
func (s side) askAny(d *v4l2.Device, w wish) (grant, error) {
	err := fmt.Errorf("set %s to %s: %w", d.Path(), w.pixel, hw.ErrUnsupported)
	for _, f := range s.formats {
		if f.pixel != w.pixel {
			continue
		}
		w.format = f
		var g grant
		if g, err = ask(d, s.typ, w); err == nil || !errors.Is(err, hw.ErrUnsupported) {
			return g, err
		}
	}
	return grant{}, err
}

// current returns the format of a queue as it is.
func current(d *v4l2.Device, typ uint32) (grant, error) {
	f := uapi.Format{Type: typ}
	if err := v4l2.Ioctl(d, "ask for the format of", uapi.GetFmt, &f); err != nil {
		return grant{}, err
	}
	g, err := granted(&f)
	if err != nil {
		return grant{}, fmt.Errorf("ask for the format of %s: %w", d.Path(), err)
	}
	return g, nil
}

// selectionCompose is V4L2_SEL_TGT_COMPOSE: where in its memory a picture is
// written.
const selectionCompose = 0x100

// compose has the device write pictures of that size into larger memory.
func compose(d *v4l2.Device, typ uint32, width, height int) error {
	s := uapi.Selection{Type: typ, Target: selectionCompose, Rect: uapi.Rect{Width: uint32(width), Height: uint32(height)}}
	if multiplanar(typ) {
		s.Type = uapi.BufTypeVideoCapture // some drivers compare with that one only
	}
	if err := v4l2.Ioctl(d, "set the size of pictures of", uapi.SetSelection, &s); err != nil {
		return err
	}
	if got := s.Rect; got.Left != 0 || got.Top != 0 || got.Width != uint32(width) || got.Height != uint32(height) {
		return fmt.Errorf("set the size of pictures of %s to %dx%d: the driver gives %dx%d: %w", d.Path(), width, height, got.Width, got.Height, hw.ErrUnsupported)
	}
	return nil
}

func multiplanar(typ uint32) bool {
	return typ == uapi.BufTypeVideoCaptureMplane || typ == uapi.BufTypeVideoOutputMplane
}
