// Package m2m drives the stateful encoders of chips through V4L2's
// memory-to-memory interface: one node with two queues. OUTPUT takes raw
// pictures, CAPTURE gives the bitstream.
//
//	Submit ─► inbox ─► copy, if it must be ─► OUTPUT ─► driver ─► CAPTURE ─► join ─► Next
//	             └──────────── one goroutine that owns the device ──────────┘
//
// The two queues are never paired: encoders of this kind swallow pictures, put
// headers and parts of a picture into buffers of their own, and set flags
// wrongly. What comes out is known by its stamp and by its NAL units only.
//
// Memory: a picture in dma-bufs that the driver can read in place stays where
// it is, retained until the driver has read it. All others are copied into a
// few buffers that the device itself allocates. The bitstream is copied once,
// out of memory that may not be cached, into the unit that goes out.
//
// H.264 and HEVC are offered, each where the driver lists it. Every parameter
// set of H.264 is rewritten, because most drivers say neither colours nor that
// pictures come in order. Those of HEVC go out as the driver wrote them: what
// these lines are about stands behind everything else in them. So its pictures
// are always of limited range, which is what decoders take them for; others
// are converted.
package m2m

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/uapi"
	"encoderd.example/stream"
)

// A Finder lists encoders.
type Finder struct {
	// Root is the file system with /sys, os.DirFS("/") on a box.
	Root fs.FS
	// Sys is how devices are reached, v4l2.Kernel{} on a box.
	Sys v4l2.Sys
	Log *slog.Logger
}

// Encoders returns the encoders that are there now, in the order of
// their nodes: "v4l2:" and the driver's name, with "#2" and so on after those
// that have the same. Nodes that cannot be asked make an error beside the list
// of the others. No node is kept open.
func (f Finder) Encoders() ([]hw.EncoderDriver, error) {
	names, err := v4l2.Nodes(f.Root)
	if err != nil {
		return nil, err
	}
	var drivers []hw.EncoderDriver
	var errs []error
	twins := map[string]int{}
	for _, name := range names {
		n, err := f.node("/dev/" + name)
		switch {
		case errors.Is(err, hw.ErrGone): // unplugged since
		case err != nil:
			errs = append(errs, err)
		case n != nil:
			twins[n.name]++
			if nth := twins[n.name]; nth > 1 {
				n.name = fmt.Sprintf("%s#%d", n.name, nth)
			}
			d := n.encoder()
			d.Instance = v4l2.Instance(f.Root, name)
			drivers = append(drivers, d)
		}
	}
	return drivers, errors.Join(errs...)
}

// node returns the encoder behind a node, or nil if it is none.
func (f Finder) node(path string) (_ *node, err error) {
	d, err := v4l2.OpenDevice(f.Sys, path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	info, err := d.Info()
	if err != nil {
		return nil, err
	}
	n := &node{sys: f.Sys, path: path, name: "v4l2:" + info.Driver, quirks: quirksOf(info.Driver), log: f.Log}
	switch {
	case info.Caps&uapi.CapStreaming == 0:
		return nil, nil
	case info.Caps&uapi.CapVideoM2MMplane != 0:
		n.coded, n.raw, n.split = uapi.BufTypeVideoCaptureMplane, uapi.BufTypeVideoOutputMplane, true
	case info.Caps&uapi.CapVideoM2M != 0:
		n.coded, n.raw = uapi.BufTypeVideoCapture, uapi.BufTypeVideoOutput
	default:
		return nil, nil
	}
	if n.takes, err = listRaw(d, n.raw); err != nil || len(n.takes) == 0 {
		return nil, err
	}
	if n.codes, err = listCoded(d, n.coded); err != nil || len(n.codes) == 0 {
		return nil, err
	}
	return n, nil
}

// listRaw returns the raw formats that we can fill, in our order.
func listRaw(d *v4l2.Device, typ uint32) ([]v4l2.Format, error) {
	offered := map[hw.PixelFormat]bool{}
	err := eachFormat(d, typ, func(f *uapi.FmtDesc) { offered[hw.PixelFormat(f.PixelFormat)] = true })
	var usable []v4l2.Format
	for _, f := range v4l2.Formats() {
		if fills(f.Pixel()) && offered[f.Code()] {
			usable = append(usable, f)
		}
	}
	return usable, err
}

// listCoded returns what a driver codes of that which we know, in our order.
func listCoded(d *v4l2.Device, typ uint32) ([]*syntax, error) {
	offered := map[hw.PixelFormat]bool{}
	err := eachFormat(d, typ, func(f *uapi.FmtDesc) {
		if f.Flags&uapi.FmtFlagCompressed != 0 {
			offered[hw.PixelFormat(f.PixelFormat)] = true
		}
	})
	var codes []*syntax
	for _, s := range syntaxes {
		if offered[s.pixel] {
			codes = append(codes, s)
		}
	}
	return codes, err
}

// maxFormats bounds the walk of drivers whose lists never end.
const maxFormats = 256

func eachFormat(d *v4l2.Device, typ uint32, told func(*uapi.FmtDesc)) error {
	for i := range uint32(maxFormats) {
		f := uapi.FmtDesc{Index: i, Type: typ}
		if err := v4l2.Ioctl(d, "list the formats of", uapi.EnumFmt, &f); err != nil {
			return tolerate(err)
		}
		told(&f)
	}
	return nil
}

// A node is the device node of an encoder. It holds no descriptor and may be
// used from any goroutine.
type node struct {
	sys        v4l2.Sys
	path       string
	name       string // "v4l2:vh264enc"
	quirks     quirks
	log        *slog.Logger
	coded, raw uint32        // buffer types of its queues
	split      bool          // the multi-planar API
	takes      []v4l2.Format // raw formats, the best first
	codes      []*syntax
}

// encoder describes n for the rest of the box.
func (n *node) encoder() hw.EncoderDriver {
	return hw.EncoderDriver{
		Name:     n.name,
		Hardware: true,
		Codecs:   n.codecs(),
		Open: func(cfg hw.EncoderConfig) (hw.Encoder, error) {
			e, err := open(n, cfg)
			if err != nil {
				return nil, err
			}
			return e, nil
		},
		Importer: n,
		LiveRate: n.quirks.liveRate,
		Budget:   n.quirks.budget,
	}
}

func (n *node) codecs() (list []stream.Codec) {
	for _, s := range n.codes {
		list = append(list, s.codec)
	}
	return list
}

// syntax returns that of a codec, or nil if n does not code it.
func (n *node) syntax(c stream.Codec) *syntax {
	for _, s := range n.codes {
		if s.codec == c {
			return s
		}
	}
	return nil
}

// open opens the device. What is gone is missing too: an encoder is no camera
// that somebody plugs in again.
func (n *node) open() (*v4l2.Device, error) {
	d, err := v4l2.OpenDevice(n.sys, n.path)
	if errors.Is(err, hw.ErrGone) {
		return nil, fmt.Errorf("%s: %w: %w", n.name, hw.ErrMissing, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.name, err)
	}
	return d, nil
}

// planes is what v4l2.NewQueue wants to know of a queue with so many memory
// planes.
func (n *node) planes(count int) int {
	if n.split {
		return count
	}
	return 0
}
