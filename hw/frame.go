package hw

import (
	"fmt"
	"sync/atomic"
	"time"
)

// A Plane is one plane of a frame.
type Plane struct {
	// Data is mapped memory, valid until the last Release; nil if the frame is
	// only a dma-buf. Read it, never write to it; between [BeginAccess] and
	// [EndAccess], always.
	Data []byte
	// Stride is the distance from line to line in bytes; zero for MJPEG.
	Stride int
	// FD is a dma-buf descriptor that the driver owns, or -1; Offset is where
	// the plane begins in it, in bytes.
	FD, Offset int
	// Shared is the dma-buf that Data is mapped from, also where FD is withheld;
	// nil if Data is nil, or no device but the frame's own touches it.
	Shared *DMABuf
}

// A Frame is one raw picture, borrowed from a driver.
//
// Whoever receives a Frame as a result owns one reference and releases it.
// Whoever receives it as an argument may use it during the call and calls
// Retain to keep it. The last Release gives the memory back to the driver;
// touching the planes after that is a bug.
type Frame struct {
	Mode
	// Planes: NV12, NV16 and NV24 have two, I420 and I422 three, the others one.
	Planes []Plane
	// Stamp is the CLOCK_MONOTONIC time at which the picture was taken.
	Stamp time.Duration
	// Seq counts frames at the source; a gap means lost frames.
	Seq uint32

	refs atomic.Int32
	free func(*Frame)
}

// NewFrame returns a frame with no reference. free is called, from whichever
// goroutine releases last, when the memory may be used again.
func NewFrame(free func(*Frame)) *Frame { return &Frame{free: free} }

// Lend gives the frame its first reference. Drivers call it each time they
// hand the frame out; the frame must be free.
func (f *Frame) Lend() *Frame {
	if !f.refs.CompareAndSwap(0, 1) {
		panic("hw: frame lent twice")
	}
	return f
}

// Retain adds a reference and returns f.
func (f *Frame) Retain() *Frame {
	if f.refs.Add(1) < 2 {
		panic("hw: retain of a released frame")
	}
	return f
}

// Release drops a reference.
func (f *Frame) Release() {
	switch n := f.refs.Add(-1); {
	case n < 0:
		panic("hw: frame released too often")
	case n == 0 && f.free != nil:
		f.free(f)
	}
}

// Layout says how many bytes each plane of m has at the tightest stride.
func (m Mode) Layout() ([]Plane, int, error) {
	shapes := m.Pixel.Planes()
	if len(shapes) == 0 {
		return nil, 0, fmt.Errorf("layout of %s: %w", m, ErrUnsupported)
	}
	planes := make([]Plane, len(shapes))
	total := 0
	for i, s := range shapes {
		planes[i] = Plane{Stride: s.Line(m.Width), FD: -1, Offset: total}
		total += planes[i].Stride * s.Lines(m.Height)
	}
	return planes, total, nil
}

// NewMemoryFrame returns a frame of m on the heap, with no reference.
func NewMemoryFrame(m Mode, free func(*Frame)) (*Frame, error) {
	planes, size, err := m.Layout()
	if err != nil {
		return nil, err
	}
	mem := make([]byte, size)
	for i := range planes {
		end := size
		if i+1 < len(planes) {
			end = planes[i+1].Offset
		}
		planes[i].Data = mem[planes[i].Offset:end:end]
		planes[i].Offset = 0
	}
	f := NewFrame(free)
	f.Mode, f.Planes = m, planes
	return f, nil
}
