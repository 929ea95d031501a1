package hw

// NewSharedFrame returns a frame whose planes lie in a buffer of layout l, with
// no reference. The buffer stays the caller's and must be good for as long as
// the frame is in use. free is as for [NewFrame].
func NewSharedFrame(l Layout, b Buffer, fps Rate, free func(*Frame)) *Frame {
	f := NewFrame(free)
	f.Mode = Mode{Pixel: l.Pixel, Width: l.Width, Height: l.Height, FPS: fps}
	for _, p := range l.Planes {
		if p.Stride == 0 {
			break
		}
		plane := Plane{Stride: p.Stride, FD: b.FDs[p.Buffer], Offset: p.Offset}
		if mem := b.Mem[p.Buffer]; mem != nil {
			end := l.end(p)
			plane.Data = mem[p.Offset:end:end]
			plane.Shared = b.Shared[p.Buffer]
		}
		f.Planes = append(f.Planes, plane)
	}
	return f
}

// end returns where the memory of a plane ends: where the next one begins, or
// at the end of the buffer.
func (l Layout) end(p PlaneLayout) int {
	end := l.Sizes[p.Buffer]
	for _, o := range l.Planes {
		if o.Stride > 0 && o.Buffer == p.Buffer && o.Offset > p.Offset {
			end = min(end, o.Offset)
		}
	}
	return end
}
