package m2m

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/uapi"
)

// The colours that we tell the driver (enum v4l2_colorspace, v4l2_xfer_func,
// v4l2_ycbcr_encoding): BT.709.
const (
	colorspace709 = 3
	transfer709   = 1
	encoding709   = 2
)

// Takes implements [hw.Importer].
func (n *node) Takes() []hw.PixelFormat {
	var list []hw.PixelFormat
	for _, f := range n.takes {
		if !slices.Contains(list, f.Pixel()) {
			list = append(list, f.Pixel())
		}
	}
	return list
}

// candidates returns the codes for pictures of src, the likeliest to be read in
// place first.
func (n *node) candidates(src hw.Layout) []v4l2.Format {
	var list []v4l2.Format
	for _, f := range n.takes {
		if f.Pixel() == src.Pixel {
			list = append(list, f)
		}
	}
	if src.Buffers() > 1 {
		slices.SortStableFunc(list, func(a, b v4l2.Format) int { return b.Memories() - a.Memories() })
	}
	return list
}

// nearest sets the raw format of an open device to the one nearest to src and
// returns what was granted. The coded format is set before, because it may
// reset the other.
func (n *node) nearest(d *v4l2.Device, src hw.Layout) (granted, error) {
	var best granted
	var errs []error
	for _, f := range n.candidates(src) {
		g, err := n.set(d, f, src)
		switch {
		case errors.Is(err, hw.ErrGone):
			return granted{}, err
		case err != nil:
			errs = append(errs, err)
		case g.layout.Reads(src):
			return g, nil
		case best.layout.Pixel == 0:
			best = g
		}
	}
	if best.layout.Pixel == 0 {
		return granted{}, fmt.Errorf("%s takes no pictures of %s: %w", n.name, src, errors.Join(append(errs, hw.ErrUnsupported)...))
	}
	// The last one that was tried is set, which need not be the best.
	return n.set(d, best.format, src)
}

// A granted is the raw format that a driver has set.
type granted struct {
	format        v4l2.Format
	mems          int // memory planes
	layout        hw.Layout
	width, height int // of the buffer: the picture may be smaller
}

// set asks for pictures of src in the form f.
func (n *node) set(d *v4l2.Device, f v4l2.Format, src hw.Layout) (granted, error) {
	var wish uapi.Format
	n.wishRaw(&wish, f, src)
	if err := v4l2.Ioctl(d, "set the raw format of", uapi.SetFmt, &wish); err != nil {
		return granted{}, err
	}
	g, err := n.readRaw(&wish, f, src)
	if err != nil {
		return granted{}, fmt.Errorf("set %s to %s: %w", d.Path(), src, err)
	}
	return g, nil
}

// wishRaw asks for as many lines as src has in memory: decoders of JPEG pad
// 1080 to 1088.
func (n *node) wishRaw(wish *uapi.Format, f v4l2.Format, src hw.Layout) {
	*wish = uapi.Format{Type: n.raw}
	if !n.split {
		p := wish.Pix()
		p.PixelFormat, p.Width, p.Height, p.Field = uint32(f.Code()), uint32(src.Width), uint32(src.Lines()), uapi.FieldNone
		p.BytesPerLine = uint32(src.Planes[0].Stride)
		p.Colorspace, p.XferFunc, p.YCbCrEnc, p.Quantization = colorspace709, transfer709, encoding709, uapi.QuantizationLimit
		return
	}
	p := wish.PixMP()
	p.PixelFormat, p.Width, p.Height, p.Field = uint32(f.Code()), uint32(src.Width), uint32(src.Lines()), uapi.FieldNone
	p.NumPlanes = uint8(f.Memories())
	for i := range f.Memories() {
		p.Planes[i].BytesPerLine = uint32(src.Planes[i].Stride)
	}
	p.Colorspace, p.XferFunc, p.YCbCrEnc, p.Quantization = colorspace709, transfer709, encoding709, uapi.QuantizationLimit
}

// readRaw reads what the driver granted for pictures of src in the form f.
func (n *node) readRaw(got *uapi.Format, f v4l2.Format, src hw.Layout) (granted, error) {
	code, width, height := got.Pix().PixelFormat, int(got.Pix().Width), int(got.Pix().Height) // at the same places in both views
	mems := []v4l2.MemoryPlane{{Stride: int(got.Pix().BytesPerLine), Size: int(got.Pix().SizeImage)}}
	if n.split {
		mems = nil
		for _, p := range got.PixMP().Planes[:min(int(got.PixMP().NumPlanes), uapi.MaxPlanes)] {
			mems = append(mems, v4l2.MemoryPlane{Stride: int(p.BytesPerLine), Size: int(p.SizeImage)})
		}
	}
	switch {
	case hw.PixelFormat(code) != f.Code():
		return granted{}, fmt.Errorf("the driver gives %s instead of %s: %w", hw.PixelFormat(code), f.Code(), hw.ErrUnsupported)
	case len(mems) != f.Memories():
		return granted{}, fmt.Errorf("the driver gives %d memory planes instead of %d: %w", len(mems), f.Memories(), hw.ErrUnsupported)
	case width < src.Width || height < src.Height:
		return granted{}, fmt.Errorf("the driver codes at most %dx%d: %w", width, height, hw.ErrUnsupported)
	}
	l, err := f.Place(width, height, mems)
	if err != nil {
		return granted{}, fmt.Errorf("%w: %w", err, hw.ErrUnsupported)
	}
	l.Width, l.Height = src.Width, src.Height
	return granted{f, len(mems), l, width, height}, nil
}

// setCoded asks for a codec and a picture size, before the raw format: drivers
// reset that one, and some take the size from here.
func (n *node) setCoded(d *v4l2.Device, codes *syntax, width, height int) error {
	f := uapi.Format{Type: n.coded}
	room := uint32(max(smallestBuffer, width*height*3/4))
	if n.split {
		p := f.PixMP()
		p.PixelFormat, p.Width, p.Height, p.Field, p.NumPlanes = uint32(codes.pixel), uint32(width), uint32(height), uapi.FieldNone, 1
		p.Planes[0].SizeImage = room
	} else {
		p := f.Pix()
		p.PixelFormat, p.Width, p.Height, p.Field, p.SizeImage = uint32(codes.pixel), uint32(width), uint32(height), uapi.FieldNone, room
	}
	if err := v4l2.Ioctl(d, "set the coded format of", uapi.SetFmt, &f); err != nil {
		return err
	}
	if got := hw.PixelFormat(f.Pix().PixelFormat); got != codes.pixel {
		return fmt.Errorf("%s codes %s, not %s: its firmware lacks it: %w", d.Path(), got, codes.pixel, hw.ErrUnsupported)
	}
	return nil
}

// smallestBuffer holds any coded picture that is not a large one. A picture
// that exceeds its buffer comes out split or spoilt.
const smallestBuffer = 3 << 19

// tolerate drops the complaint of a driver that it does not know a call or a
// value.
func tolerate(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) || errors.Is(err, hw.ErrUnsupported) {
		return nil
	}
	return err
}

// declined reports whether an error only says that the driver does not do this,
// or not now: some change nothing while they stream.
func declined(err error) bool { return tolerate(err) == nil || errors.Is(err, hw.ErrBusy) }
