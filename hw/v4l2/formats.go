package v4l2

import (
	"fmt"
	"slices"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/uapi"
)

// A Format is one of the four-character codes that this box can use. Formats
// compare with ==.
type Format struct {
	code  hw.PixelFormat
	pixel hw.PixelFormat // the codes for split memory mean the same picture
	split int            // memory planes
}

// Code returns what drivers call it.
func (f Format) Code() hw.PixelFormat { return f.code }

// Pixel returns what we call it.
func (f Format) Pixel() hw.PixelFormat { return f.pixel }

// Memories returns how many memory planes a picture has: one, or one for each
// of its planes.
func (f Format) Memories() int { return f.split }

// Formats lists them, what this box likes best first, and those in one piece of
// memory before others of the same picture.
func Formats() []Format { return slices.Clone(formats) }

// formats in order of preference: what encoders take first, then what must be
// converted, RGB last of that, then what must be decoded, then what has lost
// colours, and at last what must not be touched.
var formats = []Format{
	{hw.NV12, hw.NV12, 1},
	{hw.FourCC("NM12"), hw.NV12, 2},
	{hw.I420, hw.I420, 1},
	{hw.FourCC("YM12"), hw.I420, 3},
	{hw.YUYV, hw.YUYV, 1},
	{hw.UYVY, hw.UYVY, 1},
	{hw.NV16, hw.NV16, 1},
	{hw.FourCC("NM16"), hw.NV16, 2},
	{hw.I422, hw.I422, 1},
	{hw.FourCC("422M"), hw.I422, 3},
	{hw.NV24, hw.NV24, 1},
	{hw.RGB24, hw.RGB24, 1},
	{hw.BGR24, hw.BGR24, 1},
	{hw.MJPEG, hw.MJPEG, 1},
	{hw.FourCC("JPEG"), hw.MJPEG, 1},
	{hw.RGB565, hw.RGB565, 1},
	{hw.H264, hw.H264, 1},
}

// FormatOf returns the format of a code.
func FormatOf(code hw.PixelFormat) (Format, bool) {
	i := slices.IndexFunc(formats, func(f Format) bool { return f.code == code })
	if i < 0 {
		return Format{}, false
	}
	return formats[i], true
}

// rank orders picture formats by preference, best first.
func rank(pixel hw.PixelFormat) int {
	return slices.IndexFunc(formats, func(f Format) bool { return f.pixel == pixel })
}

// A MemoryPlane is what a driver grants for one.
type MemoryPlane struct {
	Stride, Size int // bytes
}

// A plane says where one plane of the picture lies.
type plane struct {
	mem    int // index of the memory plane
	offset int // in it
	stride int
	need   int // bytes from offset to the last pixel
	size   int // the same with the last line's padding, as far as there is room
}

// Place says where the planes of a raw picture lie in the memory that was
// granted for pictures of width × height (Linux user-space API, part I, "Planar
// YUV formats": in contiguous memory plane follows plane, and the stride of a
// chroma plane follows from that of luma). It fails if a plane reaches over the
// end of its memory; its last line needs no padding. mems are as many as
// Memories says.
func (f Format) Place(width, height int, mems []MemoryPlane) (hw.Layout, error) {
	l := hw.Layout{Pixel: f.pixel, Width: width, Height: height}
	for i, m := range mems {
		l.Sizes[i] = m.Size
	}
	end := 0
	for i, shape := range f.pixel.Planes() {
		line, lines := shape.Line(width), shape.Lines(height)
		p := hw.PlaneLayout{Offset: end, Stride: max(mems[0].Stride, f.pixel.Planes()[0].Line(width))}
		p.Stride = f.pixel.Stride(i, p.Stride)
		if f.split > 1 {
			p = hw.PlaneLayout{Buffer: i, Stride: max(mems[i].Stride, line)}
		}
		end = p.Offset + p.Stride*lines
		if end-p.Stride+line > l.Sizes[p.Buffer] {
			return hw.Layout{}, fmt.Errorf("the driver grants buffers of %d bytes, too small for plane %d", l.Sizes[p.Buffer], i)
		}
		l.Planes[i] = p
	}
	return l, nil
}

// layout places the planes of m in the memory that was granted for f.
func layout(f Format, m hw.Mode, mems []MemoryPlane) ([]plane, error) {
	if m.Pixel.Coded() {
		return []plane{{need: 1, size: mems[0].Size}}, nil
	}
	l, err := f.Place(m.Width, m.Height, mems)
	if err != nil {
		return nil, err
	}
	var planes []plane
	for i, shape := range m.Pixel.Planes() {
		p, lines := l.Planes[i], shape.Lines(m.Height)
		planes = append(planes, plane{
			mem: p.Buffer, offset: p.Offset, stride: p.Stride,
			need: p.Stride*(lines-1) + shape.Line(m.Width),
			size: min(p.Stride*lines, mems[p.Buffer].Size-p.Offset),
		})
	}
	return planes, nil
}

// shared describes the same places for devices that share the memory; the zero
// Layout for coded pictures.
func shared(m hw.Mode, planes []plane, mems []MemoryPlane) hw.Layout {
	if m.Pixel.Coded() {
		return hw.Layout{}
	}
	l := hw.Layout{Pixel: m.Pixel, Width: m.Width, Height: m.Height}
	for i, p := range planes {
		l.Planes[i] = hw.PlaneLayout{Buffer: p.mem, Offset: p.offset, Stride: p.stride}
	}
	for i, mem := range mems {
		l.Sizes[i] = mem.Size
	}
	return l
}

// A grant is what the driver made of a wish.
type grant struct {
	code         hw.PixelFormat
	width        int
	height       int
	field        uint32
	colorspace   uint32
	encoding     uint32
	quantization uint32
	mems         []MemoryPlane
}

// wish writes the format that is wanted into f. strides, one for each memory
// plane, may be left out.
func wish(f *uapi.Format, typ uint32, o offer, strides []int) {
	*f = uapi.Format{Type: typ}
	if multiplanar(typ) {
		p := f.PixMP()
		p.PixelFormat, p.Width, p.Height, p.Field = uint32(o.code), uint32(o.Width), uint32(o.Height), uapi.FieldNone
		p.NumPlanes = uint8(len(strides))
		for i, s := range strides {
			p.Planes[i].BytesPerLine = uint32(s)
		}
		return
	}
	p := f.Pix()
	p.PixelFormat, p.Width, p.Height, p.Field = uint32(o.code), uint32(o.Width), uint32(o.Height), uapi.FieldNone
	if len(strides) > 0 {
		p.BytesPerLine = uint32(strides[0])
	}
}

// granted reads what the driver wrote back.
func granted(f *uapi.Format) (grant, error) {
	if !multiplanar(f.Type) {
		p := f.Pix()
		return grant{
			hw.PixelFormat(p.PixelFormat), int(p.Width), int(p.Height), p.Field, p.Colorspace, p.YCbCrEnc, p.Quantization,
			[]MemoryPlane{{int(p.BytesPerLine), int(p.SizeImage)}},
		}, nil
	}
	p := f.PixMP()
	n := int(p.NumPlanes)
	if n < 1 || n > uapi.MaxPlanes {
		return grant{}, fmt.Errorf("the driver grants %d memory planes", n)
	}
	g := grant{hw.PixelFormat(p.PixelFormat), int(p.Width), int(p.Height), p.Field, p.Colorspace, uint32(p.YCbCrEnc), uint32(p.Quantization), nil}
	for _, m := range p.Planes[:n] {
		g.mems = append(g.mems, MemoryPlane{int(m.BytesPerLine), int(m.SizeImage)})
	}
	return g, nil
}

// fullRange says whether samples use 0–255 (V4L2_MAP_QUANTIZATION_DEFAULT). JPEG
// pictures are full range by JFIF, and drivers seldom say so.
func (g grant) fullRange() bool {
	switch g.quantization {
	case uapi.QuantizationFull:
		return true
	case uapi.QuantizationLimit:
		return false
	default:
		f, _ := FormatOf(g.code)
		return g.colorspace == uapi.ColorspaceJPEG || f.pixel == hw.MJPEG || f.pixel.RGB()
	}
}

// encodings are the matrices of enum v4l2_ycbcr_encoding, and colorspaces those
// that enum v4l2_colorspace means if the encoding is the default one
// (V4L2_MAP_YCBCR_ENC_DEFAULT). Others are not said: players could not show
// them either.
var (
	encodings   = map[uint32]hw.Matrix{1: hw.BT601, 2: hw.BT709, 3: hw.BT601, 4: hw.BT709, 5: hw.BT601}
	colorspaces = map[uint32]hw.Matrix{1: hw.BT601, 3: hw.BT709, 5: hw.BT601, 6: hw.BT601, 7: hw.BT601, 8: hw.BT601, 12: hw.BT709}
)

// matrix says how luma and chroma were made; that of RGB is for us to choose.
func (g grant) matrix() hw.Matrix {
	f, _ := FormatOf(g.code)
	switch {
	case f.pixel.RGB():
		return hw.MatrixUnsaid
	case g.encoding != 0:
		return encodings[g.encoding]
	default:
		return colorspaces[g.colorspace]
	}
}
