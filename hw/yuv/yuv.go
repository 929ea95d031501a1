// Package yuv scales and converts raw pictures on the CPU.
//
// A [Converter] is made for one pair of modes and holds everything that the
// pair needs: filter tables, two lines of scratch and one picture of memory.
// After that it allocates nothing. Every picture takes the same short way,
// plane by plane and line by line, so that the working set stays in the first
// cache:
//
//	source rows ─► blend (vertical) ─► spread (horizontal) ─► adjust (range) ─► picture
//
// RGB is mixed to luma and chroma before, at its own size. Steps that have nothing to do are left out, and a plane that needs no change
// is lent onward without a copy. Shrinking averages the area under each pixel;
// enlarging is bilinear. Chroma is taken as co-sited with even luma samples
// horizontally and centred between them vertically (H.264 annex E, chroma
// sample location type 0), which is also what UVC cameras send.
//
// The blend and range steps work on eight bytes at once in plain 64-bit
// registers: a product of a byte and a weight of at most 256 fits a 16-bit
// lane. What the usual camera needs is in assembly for amd64 and arm64 as well.
package yuv

import (
	"fmt"

	"encoderd.example/hw"
)

// MaxSide is the largest width or height that a Converter takes.
const MaxSide = 8192

// A Picture is the result of a conversion. Its planes belong partly to the
// source frame and partly to the Converter: it is valid until the next call of
// Convert and as long as the source frame is.
type Picture struct {
	Mode   hw.Mode
	Planes []hw.Plane
	// Copied says how many bytes were written to make the picture.
	Copied int
}

// A Converter turns frames of one mode into pictures of another. It is for one
// goroutine.
type Converter struct {
	takes    hw.Mode   // what Convert is given
	mixer    *mixer    // of RGB only
	src, dst hw.Mode   // of the steps behind it
	out      *hw.Frame // our memory, with the bars painted
	planes   []hw.Plane
	jobs     []job
	line     []byte // a blended source line
	copied   int    // bytes written a picture
}

// New returns a Converter from src (any raw format and size) to dst (NV12 or
// I420, even size). A zero dst.Pixel chooses what costs least. The picture
// keeps its aspect; bars are black. Ranges are converted where src.FullRange
// and dst.FullRange differ. Pixels are taken as square.
//
// RGB is mixed by dst.Matrix, or where that is unsaid by what src.Colors says.
// What is luma and chroma already stays as it is: the picture's mode says how
// it was mixed.
func New(src, dst hw.Mode) (*Converter, error) {
	if dst.Pixel == 0 {
		dst.Pixel = cheapest(src.Pixel)
	}
	if err := check(src, dst); err != nil {
		return nil, err
	}
	dst.FPS = src.FPS
	if !src.Pixel.RGB() || dst.Matrix == hw.MatrixUnsaid {
		dst.Matrix = src.Colors()
	}
	out, err := hw.NewMemoryFrame(dst, nil)
	if err != nil {
		return nil, fmt.Errorf("convert to %s: %w", dst, err)
	}
	c := &Converter{takes: src, src: src, dst: dst, out: out, planes: make([]hw.Plane, len(out.Planes))}
	copy(c.planes, out.Planes)
	if src.Pixel.RGB() {
		if c.mixer, err = newMixer(src, dst); err != nil {
			return nil, err
		}
		c.src, c.copied = c.mixer.out.Mode, c.mixer.copied
	}
	at := fit(src.Width, src.Height, dst.Width, dst.Height)
	if at.w < dst.Width || at.h < dst.Height {
		paintBlack(out)
	}
	c.plan(at)
	return c, nil
}

// cheapest names the 4:2:0 form that shares most with src: planes that need no
// change are lent, and packed pixels fall apart into luma and CbCr pairs.
func cheapest(src hw.PixelFormat) hw.PixelFormat {
	if src == hw.I420 || src == hw.I422 {
		return hw.I420
	}
	return hw.NV12
}

func checkSource(m hw.Mode) error {
	if m.Width < 1 || m.Height < 1 || m.Width > MaxSide || m.Height > MaxSide {
		return fmt.Errorf("picture of %s: size must be 1 to %d: %w", m, MaxSide, hw.ErrUnsupported)
	}
	if _, ok := layouts[m.Pixel]; !ok {
		return fmt.Errorf("picture of %s: format: %w", m, hw.ErrUnsupported)
	}
	return nil
}

func check(src, dst hw.Mode) error {
	if err := checkSource(src); err != nil {
		return err
	}
	if dst.Width < 2 || dst.Height < 2 || dst.Width > MaxSide || dst.Height > MaxSide || dst.Width%2+dst.Height%2 > 0 {
		return fmt.Errorf("convert to %s: size must be even, 2 to %d: %w", dst, MaxSide, hw.ErrUnsupported)
	}
	if dst.Pixel != hw.NV12 && dst.Pixel != hw.I420 {
		return fmt.Errorf("convert to %s: %w", dst, hw.ErrUnsupported)
	}
	return nil
}

// Fits reports whether the Converter was made for frames of mode m; the frame
// rate does not matter.
func (c *Converter) Fits(m hw.Mode) bool {
	m.FPS = c.takes.FPS
	return m == c.takes
}

// Convert returns f in the Converter's mode. It fails if f is of another mode
// than the Converter was made for, or if its planes are not mapped or too
// short.
func (c *Converter) Convert(f *hw.Frame) (Picture, error) {
	if !c.Fits(f.Mode) {
		return Picture{}, fmt.Errorf("convert %s: converter is for %s: %w", f.Mode, c.takes, hw.ErrUnsupported)
	}
	if err := Whole(f); err != nil {
		return Picture{}, fmt.Errorf("convert: %w", err)
	}
	if c.mixer != nil {
		f = c.mixer.mix(f)
	}
	if c.unpacks() {
		c.unpack(f)
		return Picture{Mode: c.dst, Planes: c.planes, Copied: c.copied}, nil
	}
	for i := range c.jobs {
		c.run(&c.jobs[i], f)
	}
	return Picture{Mode: c.dst, Planes: c.planes, Copied: c.copied}, nil
}

// Whole checks that f is of a mode that can be converted, and that its planes
// are mapped and as long as the mode says.
func Whole(f *hw.Frame) error {
	if err := checkSource(f.Mode); err != nil {
		return err
	}
	planes := layouts[f.Pixel]
	if len(f.Planes) < len(planes) {
		return fmt.Errorf("frame of %s has %d planes, want %d: %w", f.Mode, len(f.Planes), len(planes), hw.ErrUnsupported)
	}
	for i, l := range planes {
		p, bytes, lines := f.Planes[i], l.bytes(f.Width), l.lines(f.Height)
		if p.Stride < bytes || len(p.Data) < p.Stride*(lines-1)+bytes {
			return fmt.Errorf("frame of %s: plane %d has %d bytes at stride %d, want %d lines of %d mapped bytes: %w",
				f.Mode, i, len(p.Data), p.Stride, lines, bytes, hw.ErrUnsupported)
		}
	}
	return nil
}

// A rect is a part of a picture in luma samples.
type rect struct{ x, y, w, h int }

// fit places a picture of sw×sh in dw×dh: as large as it can be with its
// aspect, on even numbers, in the middle.
func fit(sw, sh, dw, dh int) rect {
	w, h := dw, dh
	if sw*dh > sh*dw {
		h = even(dw*sh, sw, dh)
	} else {
		w = even(dh*sw, sh, dw)
	}
	return rect{x: (dw - w) / 4 * 2, y: (dh - h) / 4 * 2, w: w, h: h}
}

// even returns the even number nearest to num/den, from 2 to most.
func even(num, den, most int) int {
	return min(max((num+den)/(2*den)*2, 2), most)
}

// paintBlack fills a limited- or full-range 4:2:0 picture with black.
func paintBlack(f *hw.Frame) {
	for i, p := range f.Planes {
		v := byte(128)
		if i == 0 {
			v = 16
			if f.FullRange {
				v = 0
			}
		}
		for n := range p.Data {
			p.Data[n] = v
		}
	}
}
