package soft

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"sync"

	"encoderd.example/hw"
	"encoderd.example/hw/yuv"
)

// Bounds of a JPEG from a camera: a picture of DCI 4K, and what it can weigh.
const (
	maxJPEGPixels = 4096 * 2304
	maxJPEGBytes  = 16 << 20
)

// ErrDamaged says that a JPEG is cut off or broken. The next one may be good.
var ErrDamaged = errors.New("damaged JPEG")

// A JPEGDecoder turns MJPEG frames into raw ones. It uses libturbojpeg where
// that is installed and Go's image/jpeg where not, which takes about four
// times as long. It is for one goroutine; the frames that it returns may be
// released by any.
type JPEGDecoder struct {
	codec   jpegCodec
	pool    framePool
	written uint64
}

// A jpegCodec is one JPEG library.
type jpegCodec interface {
	// decode writes the picture into a frame from take, which it calls once it
	// knows the mode; Width and Height are those of the JPEG.
	decode(data []byte, take func(hw.Mode) (*hw.Frame, error)) (*hw.Frame, error)
	// passes is how often each byte of a picture is written.
	passes() int
	close()
}

// NewJPEGDecoder returns a decoder by the fastest library that is installed.
func NewJPEGDecoder() *JPEGDecoder { return newJPEGDecoder([]string{"libturbojpeg.so.0"}) }

func newJPEGDecoder(names []string) *JPEGDecoder {
	t, err := openTurbo(names)
	if err != nil {
		return &JPEGDecoder{codec: goJPEG{}}
	}
	return &JPEGDecoder{codec: t}
}

// Fast reports whether libturbojpeg is in use.
func (d *JPEGDecoder) Fast() bool {
	_, slow := d.codec.(goJPEG)
	return !slow
}

// Decode returns the picture in f, an MJPEG frame, as a frame of I420 or I422
// in full range by BT.601 with the stamp of f. The caller owns one reference; the last
// Release gives the memory back to the decoder. Anything but a whole 4:2:0,
// 4:2:2 or grey baseline or progressive JPEG of at most 4096×2304 pixels is an
// error, which wraps [ErrDamaged] or [hw.ErrUnsupported].
func (d *JPEGDecoder) Decode(f *hw.Frame) (*hw.Frame, error) {
	if f.Pixel != hw.MJPEG || len(f.Planes) != 1 {
		return nil, fmt.Errorf("decode jpeg: frame of %s: %w", f.Mode, hw.ErrUnsupported)
	}
	hw.BeginAccess(f.Planes, hw.Reading)
	defer hw.EndAccess(f.Planes, hw.Reading)
	data := f.Planes[0].Data
	if len(data) < 4 || data[0] != 0xff || data[1] != 0xd8 || len(data) > maxJPEGBytes {
		return nil, fmt.Errorf("decode jpeg: %d bytes without a start or too many: %w", len(data), ErrDamaged)
	}
	out, err := d.codec.decode(data, func(m hw.Mode) (*hw.Frame, error) {
		m.FPS, m.FullRange, m.Matrix = f.FPS, true, hw.BT601
		return d.pool.take(m)
	})
	if err != nil {
		return nil, fmt.Errorf("decode jpeg: %w", err)
	}
	out.Stamp, out.Seq = f.Stamp, f.Seq
	if _, size, err := out.Layout(); err == nil {
		d.written += uint64(size * d.codec.passes())
	}
	return out, nil
}

// Written returns how many bytes of raw pictures the decoder has written since
// it was made: each good picture once with libturbojpeg, and twice without, when
// it is decoded first and then copied. It is for the goroutine of Decode.
func (d *JPEGDecoder) Written() uint64 { return d.written }

// Close frees the library's memory. Frames still retained stay readable.
func (d *JPEGDecoder) Close() error {
	d.codec.close()
	d.codec = goJPEG{}
	return nil
}

// checkJPEGSize refuses pictures before memory is taken for them.
func checkJPEGSize(width, height int) error {
	if width < 1 || height < 1 || width > yuv.MaxSide || height > yuv.MaxSide || width*height > maxJPEGPixels {
		return fmt.Errorf("picture of %dx%d: at most %d pixels: %w", width, height, maxJPEGPixels, hw.ErrUnsupported)
	}
	return nil
}

// goJPEG decodes by the standard library.
type goJPEG struct{}

func (goJPEG) decode(data []byte, take func(hw.Mode) (*hw.Frame, error)) (*hw.Frame, error) {
	head, err := jpeg.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := checkJPEGSize(head.Width, head.Height); err != nil {
		return nil, err
	}
	picture, err := jpeg.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	m := hw.Mode{Pixel: hw.I420, Width: head.Width, Height: head.Height}
	switch p := picture.(type) {
	case *image.Gray:
		out, err := take(m)
		if err != nil {
			return nil, err
		}
		copyPlane(out.Planes[0], p.Pix, p.Stride, m.Width, m.Height)
		greyChroma(out)
		return out, nil
	case *image.YCbCr:
		return takeYCbCr(p, m, take)
	default:
		return nil, fmt.Errorf("picture of %T: %w", picture, hw.ErrUnsupported)
	}
}

func (goJPEG) passes() int { return 2 }

func (goJPEG) close() {}

func takeYCbCr(p *image.YCbCr, m hw.Mode, take func(hw.Mode) (*hw.Frame, error)) (*hw.Frame, error) {
	lines := (m.Height + 1) / 2
	switch p.SubsampleRatio {
	case image.YCbCrSubsampleRatio420:
	case image.YCbCrSubsampleRatio422:
		m.Pixel, lines = hw.I422, m.Height
	default:
		return nil, fmt.Errorf("chroma of %s: %w", p.SubsampleRatio, hw.ErrUnsupported)
	}
	out, err := take(m)
	if err != nil {
		return nil, err
	}
	copyPlane(out.Planes[0], p.Y, p.YStride, m.Width, m.Height)
	copyPlane(out.Planes[1], p.Cb, p.CStride, (m.Width+1)/2, lines)
	copyPlane(out.Planes[2], p.Cr, p.CStride, (m.Width+1)/2, lines)
	return out, nil
}

func copyPlane(to hw.Plane, from []byte, stride, width, lines int) {
	for y := range lines {
		copy(to.Data[y*to.Stride:][:width], from[y*stride:])
	}
}

func greyChroma(f *hw.Frame) {
	for _, p := range f.Planes[1:] {
		for i := range p.Data {
			p.Data[i] = 128
		}
	}
}

// A framePool lends frames of the latest mode and takes them back. Its zero
// value is ready; frames may be released by any goroutine.
type framePool struct {
	mu   sync.Mutex
	mode hw.Mode
	free []*hw.Frame
}

// poolDepth is how many free frames are kept: what an encoder or two hold.
const poolDepth = 8

// take lends a frame of m. Its planes have even sizes, because libturbojpeg
// writes whole pairs of samples.
func (p *framePool) take(m hw.Mode) (*hw.Frame, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mode != m {
		p.mode, p.free = m, nil
	}
	if n := len(p.free); n > 0 {
		f := p.free[n-1]
		p.free = p.free[:n-1]
		return f.Lend(), nil
	}
	even := m
	even.Width, even.Height = (m.Width+1)&^1, (m.Height+1)&^1
	f, err := hw.NewMemoryFrame(even, p.put)
	if err != nil {
		return nil, err
	}
	f.Mode = m
	return f.Lend(), nil
}

func (p *framePool) put(f *hw.Frame) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.Mode == p.mode && len(p.free) < poolDepth {
		p.free = append(p.free, f)
	}
}
