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

// coded says that pictures of a format are JPEGs, the only coded ones that
// converters take.
func coded(f v4l2.Format) bool { return f.Pixel() == hw.MJPEG }

// maxFormats bounds the lists of drivers.
const maxFormats = 128

// listFormats returns the formats of a queue that this box can use, in order of
// preference.
func listFormats(d *v4l2.Device, typ uint32) ([]v4l2.Format, error) {
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
	return slices.DeleteFunc(v4l2.Formats(), func(f v4l2.Format) bool { return !codes[f.Code()] || f.Pixel() == hw.H264 }), nil
}

// A wish is what is asked of a queue. Zero strides and size leave the choice to
// the driver.
type wish struct {
	pixel         hw.PixelFormat
	format        v4l2.Format // of pixel
	width, height int
	layout        hw.Layout // of the memory, if it is to be a certain one
	size          int       // of a coded picture's buffer in bytes
}

func (w wish) write(f *uapi.Format, typ uint32) {
	*f = uapi.Format{Type: typ}
	if !multiplanar(typ) {
		p := f.Pix()
		p.PixelFormat, p.Width, p.Height, p.Field = uint32(w.format.Code()), uint32(w.width), uint32(w.height), uapi.FieldNone
		p.BytesPerLine, p.SizeImage = uint32(w.layout.Planes[0].Stride), uint32(w.size)
		return
	}
	p := f.PixMP()
	p.PixelFormat, p.Width, p.Height, p.Field = uint32(w.format.Code()), uint32(w.width), uint32(w.height), uapi.FieldNone
	p.Planes[0].SizeImage = uint32(w.size)
	p.NumPlanes = uint8(w.format.Memories())
	for i := range int(p.NumPlanes) {
		p.Planes[i].BytesPerLine = uint32(w.layout.Planes[i].Stride)
	}
}

// A grant is what the driver made of a wish.
type grant struct {
	format        v4l2.Format
	width, height int // of the memory
	full          bool
	mems          []v4l2.MemoryPlane
}

// coded says that it is for coded pictures.
func (g grant) coded() bool { return coded(g.format) }

func granted(f *uapi.Format) (grant, error) {
	// The codes stand at the same place in both views.
	code := hw.PixelFormat(f.Pix().PixelFormat)
	fm, ok := v4l2.FormatOf(code)
	if !ok || fm.Pixel() == hw.H264 {
		return grant{}, fmt.Errorf("the driver gives %s: %w", code, hw.ErrUnsupported)
	}
	g := grant{format: fm, width: int(f.Pix().Width), height: int(f.Pix().Height)}
	if !multiplanar(f.Type) {
		p := f.Pix()
		g.full = p.Quantization == uapi.QuantizationFull
		g.mems = []v4l2.MemoryPlane{{Stride: int(p.BytesPerLine), Size: int(p.SizeImage)}}
		return g, nil
	}
	p := f.PixMP()
	n := int(p.NumPlanes)
	if n != fm.Memories() {
		return grant{}, fmt.Errorf("the driver gives %s in %d buffers: %w", code, n, hw.ErrUnsupported)
	}
	g.full = p.Quantization == uapi.QuantizationFull
	for _, m := range p.Planes[:n] {
		g.mems = append(g.mems, v4l2.MemoryPlane{Stride: int(m.BytesPerLine), Size: int(m.SizeImage)})
	}
	return g, nil
}

// layout places a picture of width × height in the memory that was granted,
// which may have more lines.
func (g grant) layout(width, height int) (hw.Layout, error) {
	l, err := g.format.Place(g.width, g.height, g.mems)
	if err != nil {
		return hw.Layout{}, fmt.Errorf("%dx%d %s: %w", width, height, g.format.Pixel(), err)
	}
	l.Width, l.Height = width, height
	return l, nil
}

// ask sets the format of a queue and returns what the driver made of it: the
// format that was asked for, in memory of at least that size.
func ask(d *v4l2.Device, typ uint32, w wish) (grant, error) {
	fail := func(err error) (grant, error) {
		return grant{}, fmt.Errorf("set %s to %dx%d %s: %w", d.Path(), w.width, w.height, w.format.Code(), err)
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
	case g.format != w.format:
		return fail(fmt.Errorf("the driver takes %s instead: %w", g.format.Code(), hw.ErrUnsupported))
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
		if f.Pixel() != w.pixel {
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
