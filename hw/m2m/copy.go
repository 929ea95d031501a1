package m2m

import (
	"errors"
	"fmt"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/yuv"
)

// shared reports whether any plane of a frame is in a dma-buf. Descriptor 0 is
// none: it is what literals leave out.
func shared(f *hw.Frame) bool {
	for _, p := range f.Planes {
		if p.FD > 0 {
			return true
		}
	}
	return false
}

// fdsOf names the memory of a picture.
func fdsOf(planes []v4l2.PlaneData) (fds [3]int) {
	for i, p := range planes {
		fds[i] = p.FD
	}
	return fds
}

// shares returns the memory of a picture as OUTPUT wants it, or nil if the
// picture does not lie as the driver reads it.
func (s *session) shares(f *hw.Frame) []v4l2.PlaneData {
	l := s.raw.layout
	if f.Pixel != l.Pixel || f.Width != l.Width || f.Height != l.Height {
		return nil
	}
	planes := make([]v4l2.PlaneData, l.Buffers())
	for i, p := range f.Planes {
		want := l.Planes[i]
		if p.FD <= 0 || p.Offset != want.Offset || p.Stride != want.Stride {
			return nil
		}
		d := &planes[want.Buffer]
		if d.FD != 0 && d.FD != p.FD {
			return nil
		}
		d.FD = p.FD
	}
	for b := range planes {
		size, err := s.node.sys.Size(planes[b].FD)
		if err != nil || int(size) < l.Sizes[b] {
			return nil
		}
		planes[b].Length, planes[b].Used = int(size), l.Sizes[b]
	}
	return planes
}

// A copier brings pictures into memory that the driver reads: scaled and
// converted to the coded size and the layout of OUTPUT.
type copier struct {
	*session

	pool    hw.Pool // of an OUTPUT queue that imports; made when it is needed
	taken   [mostInside]bool
	convert *yuv.Converter
	made    colors // of convert
}

// A copied picture.
type copied struct {
	slot   int // of the OUTPUT queue, as it was asked for
	own    int // index in the pool, or -1 if it is in the slot's own memory
	planes []v4l2.PlaneData
	bytes  int // that the CPU wrote
}

// copy makes a copy of f in the given range, of RGB by the given matrix. slot
// is a free one. The error wraps [hw.ErrUnsupported] if it is the picture that
// does not fit.
func (c *copier) copy(slot int, f *hw.Frame, as colors) (copied, error) {
	out := copied{slot: slot, own: -1}
	var to hw.Buffer
	if c.in.Imports() {
		b, err := c.pick(&out)
		if err != nil {
			return copied{}, err
		}
		to = b
	} else {
		copy(to.Mem[:], c.in.Memory(slot))
		for i := range c.raw.mems {
			out.planes = append(out.planes, v4l2.PlaneData{Used: c.raw.layout.Sizes[i]})
		}
	}
	var err error
	if out.bytes, err = c.write(to, f, as); err != nil {
		return copied{}, err
	}
	if out.own >= 0 {
		c.taken[out.own] = true
	}
	return out, nil
}

// pick chooses a buffer of the pool.
func (c *copier) pick(out *copied) (hw.Buffer, error) {
	if c.pool == nil {
		p, err := c.node.Allocate(c.raw.layout, mostInside)
		if err != nil {
			return hw.Buffer{}, fmt.Errorf("make memory for copies: %v", err) //nolint:errorlint // it is no fault of the picture, whatever it wraps
		}
		c.pool = p
	}
	for i, b := range c.pool.Buffers() {
		if c.taken[i] {
			continue
		}
		out.own = i
		for j, used := range c.raw.layout.Sizes[:c.raw.mems] {
			size, err := c.node.sys.Size(b.FDs[j])
			if err != nil {
				return hw.Buffer{}, fmt.Errorf("measure memory for copies: %w", err)
			}
			out.planes = append(out.planes, v4l2.PlaneData{FD: b.FDs[j], Length: int(size), Used: used})
		}
		return b, nil
	}
	return hw.Buffer{}, errFull
}

// errFull says that all memory for copies is at the driver.
var errFull = errors.New("no memory for copies is free")

// free takes back a copy that the driver has read; -1 is none.
func (c *copier) free(own int) {
	if own >= 0 {
		c.taken[own] = false
	}
}

func (c *copier) close() error {
	if c.pool == nil {
		return nil
	}
	return c.pool.Close()
}

// write copies f into a buffer and returns how many bytes the CPU wrote.
func (c *copier) write(to hw.Buffer, f *hw.Frame, as colors) (int, error) {
	l := c.raw.layout
	dst := make([]hw.Plane, 0, len(l.Planes))
	for i := range l.Pixel.Planes() {
		p := l.Planes[i]
		dst = append(dst, hw.Plane{Data: to.Mem[p.Buffer][p.Offset:], Stride: p.Stride, Shared: to.Shared[p.Buffer]})
	}
	if err := yuv.Whole(f); err != nil {
		return 0, err
	}
	hw.BeginAccess(f.Planes, hw.Reading)
	defer hw.EndAccess(f.Planes, hw.Reading)
	hw.BeginAccess(dst, hw.Writing)
	defer hw.EndAccess(dst, hw.Writing)
	if f.Pixel == l.Pixel && f.Width == l.Width && f.Height == l.Height && f.FullRange == as.full {
		return copyPlanes(dst, f.Planes, l), nil
	}
	p, err := c.converted(f, as)
	if err != nil {
		return 0, err
	}
	if expand, ok := expansions[l.Pixel]; ok {
		expand(dst, p.Planes, l.Width, l.Height)
		return p.Copied + 2*l.Width*l.Height, nil
	}
	return p.Copied + copyPlanes(dst, p.Planes, l), nil
}

// converted returns f in the coded size and in the format of OUTPUT, or in NV12
// if that has more chroma.
func (c *copier) converted(f *hw.Frame, as colors) (yuv.Picture, error) {
	want := hw.Mode{Pixel: c.raw.layout.Pixel, Width: c.raw.layout.Width, Height: c.raw.layout.Height, FullRange: as.full, Matrix: as.matrix}
	if expansions[want.Pixel] != nil {
		want.Pixel = hw.NV12
	}
	if c.convert == nil || !c.convert.Fits(f.Mode) || c.made != as {
		made, err := yuv.New(f.Mode, want)
		if err != nil {
			return yuv.Picture{}, err
		}
		c.convert, c.made = made, as
	}
	return c.convert.Convert(f)
}

// copyPlanes copies a picture of layout l line by line, or whole planes where
// both have the same stride.
func copyPlanes(dst, src []hw.Plane, l hw.Layout) (bytes int) {
	for i, shape := range l.Pixel.Planes() {
		n, rows := shape.Line(l.Width), shape.Lines(l.Height)
		if dst[i].Stride == src[i].Stride {
			n, rows = (rows-1)*dst[i].Stride+n, 1
		}
		for y := range rows {
			bytes += copy(dst[i].Data[y*dst[i].Stride:][:n], src[i].Data[y*src[i].Stride:])
		}
	}
	return bytes
}

// fills reports whether pictures of a format can be made of others.
func fills(pixel hw.PixelFormat) bool {
	return pixel == hw.NV12 || pixel == hw.I420 || expansions[pixel] != nil
}

// expansions make pictures with chroma in each line of NV12 ones of even size.
var expansions = map[hw.PixelFormat]func(dst, src []hw.Plane, width, height int){
	hw.YUYV: func(dst, src []hw.Plane, width, height int) { pack(dst[0], src, width, height, 0) },
	hw.UYVY: func(dst, src []hw.Plane, width, height int) { pack(dst[0], src, width, height, 1) },
	hw.NV16: double,
}

// pack makes packed 4:2:2 with the luma of each pair of bytes at place 0 or 1.
func pack(dst hw.Plane, src []hw.Plane, width, height, place int) {
	for y := range height {
		luma, chroma := src[0].Data[y*src[0].Stride:][:width], src[1].Data[y/2*src[1].Stride:][:width]
		line := dst.Data[y*dst.Stride:][:2*width]
		for x, v := range luma {
			line[2*x+place], line[2*x+1-place] = v, chroma[x]
		}
	}
}

// double makes NV16: every line of chroma twice.
func double(dst, src []hw.Plane, width, height int) {
	for y := range height {
		copy(dst[0].Data[y*dst[0].Stride:][:width], src[0].Data[y*src[0].Stride:])
		copy(dst[1].Data[y*dst[1].Stride:][:width], src[1].Data[y/2*src[1].Stride:])
	}
}
