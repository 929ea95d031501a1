package memory

import (
	"fmt"

	"encoderd.example/hw"
)

// Limits of what is believed of a picture.
const (
	maxSide   = 8192
	maxBuffer = 256 << 20
)

// A line describes the lines of one plane at its tightest.
type line struct{ bytes, count int }

func linesOf(pixel hw.PixelFormat, width, height int) ([]line, error) {
	if width < 1 || height < 1 || width > maxSide || height > maxSide {
		return nil, fmt.Errorf("picture of %dx%d: size must be 1 to %d: %w", width, height, maxSide, hw.ErrUnsupported)
	}
	planes, total, err := hw.Mode{Pixel: pixel, Width: width, Height: height}.Layout()
	if err != nil {
		return nil, err
	}
	lines := make([]line, len(planes))
	for i, p := range planes {
		end := total
		if i+1 < len(planes) {
			end = planes[i+1].Offset
		}
		lines[i] = line{bytes: p.Stride, count: (end - p.Offset) / p.Stride}
	}
	return lines, nil
}

// Coded reports whether pictures of pixel are a string of bytes, without
// planes.
func Coded(pixel hw.PixelFormat) bool { return pixel == hw.MJPEG || pixel == hw.H264 }

// Tight returns the layout of one buffer with the planes behind one another,
// where the first plane's stride and number of lines are multiples of
// strideAlign and linesAlign, and the stride is at least minStride. Chroma
// planes have the stride and lines that follow from their sampling.
func Tight(pixel hw.PixelFormat, width, height, strideAlign, linesAlign, minStride int) (hw.Layout, error) {
	lines, err := linesOf(pixel, width, height)
	if err != nil {
		return hw.Layout{}, err
	}
	// Chroma takes the half of both: even numbers keep it whole.
	stride := roundUp(max(lines[0].bytes, minStride), strideAlign)
	count := roundUp(lines[0].count, linesAlign)
	if len(lines) > 1 {
		stride, count = roundUp(stride, 2), roundUp(count, 2)
	}
	l := hw.Layout{Pixel: pixel, Width: width, Height: height}
	for i := range lines {
		s, n := stride, count
		if i > 0 && 2*lines[i].bytes <= lines[0].bytes+1 {
			s = stride / 2
		}
		if i > 0 && lines[i].count < lines[0].count {
			n = count / 2
		}
		l.Planes[i] = hw.PlaneLayout{Offset: l.Sizes[0], Stride: s}
		l.Sizes[0] += s * n
	}
	return l, nil
}

func roundUp(n, to int) int {
	if to < 2 {
		return n
	}
	return (n + to - 1) / to * to
}

// Needs returns how many bytes of each buffer a picture of l covers. It fails
// with ErrUnsupported if l is not possible: a plane that overlaps its end, a
// stride shorter than a line, buffers left out.
func Needs(l hw.Layout) ([3]int, error) {
	var needs [3]int
	bad := func(what string) error { return fmt.Errorf("layout %s: %s: %w", l, what, hw.ErrUnsupported) }
	buffers := l.Buffers()
	for i, size := range l.Sizes {
		if size < 0 || size > maxBuffer || size > 0 && i >= buffers {
			return needs, bad("size of a buffer")
		}
	}
	if buffers == 0 {
		return needs, bad("no buffer")
	}
	if Coded(l.Pixel) {
		return [3]int{1}, nil
	}
	lines, err := linesOf(l.Pixel, l.Width, l.Height)
	if err != nil {
		return needs, err
	}
	for i, n := range lines {
		p := l.Planes[i]
		if p.Buffer < 0 || p.Buffer >= buffers || p.Offset < 0 || p.Offset > maxBuffer || p.Stride < n.bytes || p.Stride > maxBuffer/maxSide {
			return needs, bad("place of a plane")
		}
		needs[p.Buffer] = max(needs[p.Buffer], p.Offset+p.Stride*(n.count-1)+n.bytes)
		if needs[p.Buffer] > l.Sizes[p.Buffer] {
			return needs, bad("a plane reaches over the end of its buffer")
		}
	}
	for i := range buffers {
		if needs[i] == 0 {
			return needs, bad("a buffer without a plane")
		}
	}
	return needs, nil
}

// LayoutOf returns the layout of a frame whose planes carry descriptors, and
// these descriptors by buffer. It fails with ErrUnsupported if a plane has
// none. Sizes are what the picture needs.
func LayoutOf(f *hw.Frame) (hw.Layout, [3]int, error) {
	l := hw.Layout{Pixel: f.Pixel, Width: f.Width, Height: f.Height}
	fds := [3]int{-1, -1, -1}
	lines, err := linesOf(f.Pixel, f.Width, f.Height)
	if err != nil {
		return l, fds, err
	}
	if len(f.Planes) != len(lines) {
		return l, fds, fmt.Errorf("frame of %s has %d planes: %w", f.Mode, len(f.Planes), hw.ErrUnsupported)
	}
	buffers := 0
	for i, p := range f.Planes {
		if p.FD < 0 {
			return l, fds, fmt.Errorf("frame of %s has no descriptor: %w", f.Mode, hw.ErrUnsupported)
		}
		b := 0
		for b < buffers && fds[b] != p.FD {
			b++
		}
		if b == buffers {
			fds[b] = p.FD
			buffers++
		}
		l.Planes[i] = hw.PlaneLayout{Buffer: b, Offset: p.Offset, Stride: p.Stride}
		l.Sizes[b] = max(l.Sizes[b], p.Offset+p.Stride*(lines[i].count-1)+lines[i].bytes)
	}
	return l, fds, nil
}

// Planes returns the planes of a picture of l, which has passed Needs, in a
// buffer. Those in memory that is not mapped have no Data.
func Planes(l hw.Layout, b hw.Buffer) []hw.Plane {
	if Coded(l.Pixel) {
		return []hw.Plane{{Data: b.Mem[0], FD: b.FDs[0], Shared: b.Shared[0]}}
	}
	lines, err := linesOf(l.Pixel, l.Width, l.Height)
	if err != nil {
		return nil
	}
	planes := make([]hw.Plane, len(lines))
	for i, n := range lines {
		at := l.Planes[i]
		planes[i] = hw.Plane{Stride: at.Stride, FD: b.FDs[at.Buffer], Offset: at.Offset, Shared: b.Shared[at.Buffer]}
		if m := b.Mem[at.Buffer]; m != nil {
			end := min(at.Offset+at.Stride*n.count, len(m))
			planes[i].Data = m[at.Offset:end:end]
		}
	}
	return planes
}

// Copy copies the lines of a picture from one set of planes to another of the
// same pixel format and size, and returns how many bytes. Both have passed
// Needs or [hw.Mode.Layout].
func Copy(to, from []hw.Plane, pixel hw.PixelFormat, width, height int) int {
	lines, err := linesOf(pixel, width, height)
	if err != nil {
		return 0
	}
	copied := 0
	for i, n := range lines {
		if to[i].Stride == from[i].Stride {
			all := to[i].Stride*(n.count-1) + n.bytes
			copied += copy(to[i].Data[:all], from[i].Data[:all])
			continue
		}
		for y := range n.count {
			copied += copy(to[i].Data[y*to[i].Stride:][:n.bytes], from[i].Data[y*from[i].Stride:][:n.bytes])
		}
	}
	return copied
}
