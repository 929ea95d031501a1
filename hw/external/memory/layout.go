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

// shapesOf returns the planes of a raw picture that can be.
func shapesOf(pixel hw.PixelFormat, width, height int) ([]hw.PlaneShape, error) {
	if width < 1 || height < 1 || width > maxSide || height > maxSide {
		return nil, fmt.Errorf("picture of %dx%d: size must be 1 to %d: %w", width, height, maxSide, hw.ErrUnsupported)
	}
	shapes := pixel.Planes()
	if len(shapes) == 0 {
		return nil, fmt.Errorf("picture of %s: %w", pixel, hw.ErrUnsupported)
	}
	return shapes, nil
}

// Tight returns the layout of one buffer with the planes behind one another,
// where the first plane's stride and number of lines are multiples of
// strideAlign and linesAlign, and the stride is at least minStride. Chroma
// planes have the stride and lines that follow from their sampling.
func Tight(pixel hw.PixelFormat, width, height, strideAlign, linesAlign, minStride int) (hw.Layout, error) {
	shapes, err := shapesOf(pixel, width, height)
	if err != nil {
		return hw.Layout{}, err
	}
	// Chroma takes the half of both: even numbers keep it whole.
	stride := roundUp(max(shapes[0].Line(width), minStride), strideAlign)
	count := roundUp(height, linesAlign)
	if len(shapes) > 1 {
		stride, count = roundUp(stride, 2), roundUp(count, 2)
	}
	l := hw.Layout{Pixel: pixel, Width: width, Height: height}
	for i, shape := range shapes {
		l.Planes[i] = hw.PlaneLayout{Offset: l.Sizes[0], Stride: pixel.Stride(i, stride)}
		l.Sizes[0] += l.Planes[i].Stride * shape.Lines(count)
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
	if l.Pixel.Coded() {
		return [3]int{1}, nil
	}
	shapes, err := shapesOf(l.Pixel, l.Width, l.Height)
	if err != nil {
		return needs, err
	}
	for i, shape := range shapes {
		p, line := l.Planes[i], shape.Line(l.Width)
		if p.Buffer < 0 || p.Buffer >= buffers || p.Offset < 0 || p.Offset > maxBuffer || p.Stride < line || p.Stride > maxBuffer/maxSide {
			return needs, bad("place of a plane")
		}
		needs[p.Buffer] = max(needs[p.Buffer], p.Offset+p.Stride*(shape.Lines(l.Height)-1)+line)
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
	shapes, err := shapesOf(f.Pixel, f.Width, f.Height)
	if err != nil {
		return l, fds, err
	}
	if len(f.Planes) != len(shapes) {
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
		l.Sizes[b] = max(l.Sizes[b], p.Offset+p.Stride*(shapes[i].Lines(f.Height)-1)+shapes[i].Line(f.Width))
	}
	return l, fds, nil
}

// Planes returns the planes of a picture of l, which has passed Needs, in a
// buffer. Those in memory that is not mapped have no Data.
func Planes(l hw.Layout, b hw.Buffer) []hw.Plane {
	if l.Pixel.Coded() {
		return []hw.Plane{{Data: b.Mem[0], FD: b.FDs[0], Shared: b.Shared[0]}}
	}
	shapes, err := shapesOf(l.Pixel, l.Width, l.Height)
	if err != nil {
		return nil
	}
	planes := make([]hw.Plane, len(shapes))
	for i, shape := range shapes {
		at := l.Planes[i]
		planes[i] = hw.Plane{Stride: at.Stride, FD: b.FDs[at.Buffer], Offset: at.Offset, Shared: b.Shared[at.Buffer]}
		if m := b.Mem[at.Buffer]; m != nil {
			end := min(at.Offset+at.Stride*shape.Lines(l.Height), len(m))
			planes[i].Data = m[at.Offset:end:end]
		}
	}
	return planes
}

// Copy copies the lines of a picture from one set of planes to another of the
// same pixel format and size, and returns how many bytes. Both have passed
// Needs or [hw.Mode.Layout].
func Copy(to, from []hw.Plane, pixel hw.PixelFormat, width, height int) int {
	copied := 0
	for i, shape := range pixel.Planes() {
		line, lines := shape.Line(width), shape.Lines(height)
		if to[i].Stride == from[i].Stride {
			all := to[i].Stride*(lines-1) + line
			copied += copy(to[i].Data[:all], from[i].Data[:all])
			continue
		}
		for y := range lines {
			copied += copy(to[i].Data[y*to[i].Stride:][:line], from[i].Data[y*from[i].Stride:][:line])
		}
	}
	return copied
}
