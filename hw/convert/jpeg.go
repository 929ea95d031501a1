package convert

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"encoderd.example/hw"
)

// ErrDamaged says that a JPEG is cut off or broken, or that the hardware could
// not make anything of it. The next one may be good.
var ErrDamaged = errors.New("damaged JPEG")

// A JPEGDecoder turns MJPEG frames into raw ones by hardware. It opens the
// device with the first picture and again whenever their size changes. It is
// for one goroutine; the frames that it returns may be released by any.
type JPEGDecoder struct {
	device *Device
	takes  []hw.PixelFormat
	conv   *Converter
	header header // of the pictures that conv is open for
}

// NewJPEGDecoder returns a decoder on a device of [Finder].Decoders. takes are
// the formats that whoever reads the pictures likes, best first; the hardware
// may know only others.
func NewJPEGDecoder(d *Device, takes []hw.PixelFormat) *JPEGDecoder {
	return &JPEGDecoder{device: d, takes: takes}
}

// errSwallowed says that hardware took a JPEG, and nothing came of it in time.
var errSwallowed = fmt.Errorf("nothing comes of it: %w", ErrDamaged)

// errLate ends the wait for a picture.
var errLate = errors.New("the picture is late")

// decodeLimit is how long hardware may take for a picture. It needs a
// hundredth of that, but some swallow pictures without a word.
const decodeLimit = time.Second

// Decode returns the picture in f, an MJPEG frame, with the stamp of f and in
// full range. The caller owns one reference. A picture that the hardware cannot
// decode is an error that wraps [ErrDamaged] or [hw.ErrUnsupported]; the
// decoder stays usable. An error that wraps neither is the device's; hardware
// that keeps a picture for longer than a second is left behind.
func (d *JPEGDecoder) Decode(f *hw.Frame) (*hw.Frame, error) {
	fail := func(err error) (*hw.Frame, error) { return nil, fmt.Errorf("decode jpeg: %w", err) }
	if f.Pixel != hw.MJPEG || len(f.Planes) != 1 {
		return fail(fmt.Errorf("frame of %s: %w", f.Mode, hw.ErrUnsupported))
	}
	hw.BeginAccess(f.Planes, hw.Reading)
	h, err := readHeader(f.Planes[0].Data)
	hw.EndAccess(f.Planes, hw.Reading)
	if err != nil {
		return fail(err)
	}
	if err := d.open(h); err != nil {
		return fail(err)
	}
	raw, err := d.convert(f)
	if err != nil && !errors.Is(err, ErrDamaged) {
		err = errors.Join(err, d.Close()) // the next picture begins anew
	}
	if err != nil {
		return fail(err)
	}
	return raw, nil
}

// convert waits for the picture that is made of f.
func (d *JPEGDecoder) convert(f *hw.Frame) (*hw.Frame, error) {
	cookie, err := d.conv.submit(f)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), decodeLimit, errLate)
	defer cancel()
	for {
		o, err := d.conv.outcome(ctx)
		switch {
		case errors.Is(err, errLate):
			return nil, d.late()
		case err != nil:
			return nil, err
		case o.cookie != cookie: // of a picture that was given up
			if o.frame != nil {
				o.frame.Release()
			}
		case o.frame == nil:
			return nil, fmt.Errorf("%s refuses it: %w", d.device.Name(), ErrDamaged)
		default:
			return o.frame, nil
		}
	}
}

// late says what a picture that does not come means: it was swallowed, or the
// hardware hangs and is not waited for any more.
func (d *JPEGDecoder) late() error {
	if !d.conv.hangs() {
		return fmt.Errorf("%s, within %v: %w", d.device.Name(), decodeLimit, errSwallowed)
	}
	d.conv.abandon()
	d.device.behind.Store(d.conv)
	d.conv = nil
	return fmt.Errorf("%s hangs: it has kept a picture for %v", d.device.Name(), decodeLimit)
}

// open makes the device ready for pictures like h.
func (d *JPEGDecoder) open(h header) error {
	if d.conv != nil && d.header == h {
		return nil
	}
	if err := d.Close(); err != nil {
		return err
	}
	err := fmt.Errorf("%s gives no format that is known: %w", d.device.Name(), hw.ErrUnsupported)
	for _, pixel := range d.wishes() {
		d.conv, err = d.device.open(job{
			coded: true,
			in:    hw.Layout{Width: h.width, Height: h.height},
			out:   hw.Layout{Pixel: pixel, Width: h.width, Height: h.height},
		})
		if err == nil {
			d.header = h
			return nil
		}
		d.conv = nil
		if !errors.Is(err, hw.ErrUnsupported) {
			return err
		}
	}
	return err
}

// wishes lists the formats that the device gives, those first that are taken.
func (d *JPEGDecoder) wishes() []hw.PixelFormat {
	gives := d.device.Gives()
	list := slices.DeleteFunc(slices.Clone(d.takes), func(p hw.PixelFormat) bool { return !slices.Contains(gives, p) })
	for _, p := range gives {
		if !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list
}

// Stats counts since the device was opened last.
func (d *JPEGDecoder) Stats() Stats {
	if d.conv == nil {
		return Stats{}
	}
	return d.conv.Stats()
}

// Close frees the device. Frames still retained stay readable. Decode may be
// called again.
func (d *JPEGDecoder) Close() error {
	if d.conv == nil {
		return nil
	}
	err := d.conv.Close()
	d.conv = nil
	return err
}

// A header is what decides whether a decoder must be opened anew.
type header struct {
	width, height int
	sampling      uint16 // of luma relative to chroma, as in the frame header; zero of grey
}

// Markers of JPEG (ITU-T T.81, table B.1).
const (
	markSOF0 = 0xc0 // baseline
	markSOF1 = 0xc1 // extended, Huffman
	markDHT  = 0xc4
	markSOFF = 0xcf
	markSOI  = 0xd8
	markSOS  = 0xda
)

// readHeader finds the frame header of a JPEG. Hardware decodes 8-bit
// sequential pictures of one or three components; anything else is
// [hw.ErrUnsupported].
func readHeader(data []byte) (header, error) {
	damaged := func(what string) (header, error) { return header{}, fmt.Errorf("%s: %w", what, ErrDamaged) }
	if len(data) < 4 || data[0] != 0xff || data[1] != markSOI {
		return damaged("it does not begin as one")
	}
	for at := 2; at+4 <= len(data); {
		if data[at] != 0xff {
			return damaged("no marker where one must be")
		}
		mark := data[at+1]
		if mark == 0xff { // fill byte
			at++
			continue
		}
		size := int(binary.BigEndian.Uint16(data[at+2:]))
		switch {
		case mark == markSOS:
			return damaged("it has no frame header")
		case size < 2, at+2+size > len(data):
			return damaged("a segment is cut off")
		case mark >= markSOF0 && mark <= markSOFF && mark != markDHT && mark != 0xc8 && mark != 0xcc:
			return frameHeader(mark, data[at+4:at+2+size])
		}
		at += 2 + size
	}
	return damaged("it has no frame header")
}

func frameHeader(mark byte, b []byte) (header, error) {
	if len(b) < 6 || len(b) < 6+3*int(b[5]) {
		return header{}, fmt.Errorf("its frame header is cut off: %w", ErrDamaged)
	}
	h := header{width: int(binary.BigEndian.Uint16(b[3:])), height: int(binary.BigEndian.Uint16(b[1:]))}
	components := int(b[5])
	switch {
	case h.width == 0 || h.height == 0:
		return header{}, fmt.Errorf("a picture of %dx%d: %w", h.width, h.height, ErrDamaged)
	case mark != markSOF0 && mark != markSOF1, b[0] != 8, components != 1 && components != 3:
		return header{}, fmt.Errorf("a progressive picture, or one of %d bits and %d components: %w", b[0], components, hw.ErrUnsupported)
	case components == 3:
		h.sampling = uint16(b[7])<<8 | uint16(b[10])
	}
	return h, nil
}

// codedSize is how many bytes a JPEG of that size may have. Cameras stay far
// below a byte a pixel.
func codedSize(width, height int) int { return max(width*height*3/2, 64<<10) }

// copyCoded copies a JPEG and returns how many bytes that were.
func copyCoded(to, from []byte) (int, error) {
	if len(from) > len(to) {
		return 0, fmt.Errorf("a JPEG of %d bytes is larger than %d: %w", len(from), len(to), ErrDamaged)
	}
	return copy(to, from), nil
}
