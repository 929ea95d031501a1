package convert

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
)

// wantImports is how many names for dma-bufs the input asks for: drivers attach
// a dma-buf anew whenever it comes under another name, so that a camera's
// buffers shall all have their own. They cost no memory.
const wantImports = 16

// An input is the OUTPUT queue. It is for the owner's goroutine.
type input struct {
	sys    v4l2.Sys
	queue  *v4l2.Queue
	layout hw.Layout // as the device reads; zero of coded pictures
	slots  []slot
	clock  uint64 // counts uses of slots

	// copies is memory for pictures that the device cannot read in place, made
	// when the first comes; spare are its buffers that are free.
	makeCopies func() (hw.Pool, error)
	copies     hw.Pool
	spare      []int
	refused    error // why the device does not read the dma-bufs that it was shown
}

// A slot is one index of the queue.
type slot struct {
	busy  bool
	frame *hw.Frame // read in place
	spare int       // the buffer of copies that is read, or -1
	fds   [3]int    // that it carried last
	used  uint64    // when that was
}

// newInput makes the buffers of the format that is set. Drivers that import
// nothing get copies in memory of their own, as do coded pictures, which are
// small.
func newInput(sys v4l2.Sys, d *v4l2.Device, typ uint32, g grant, l hw.Layout) (*input, error) {
	in := &input{sys: sys, layout: l}
	split := 0
	if multiplanar(typ) {
		split = len(g.mems)
	}
	var err error
	if !g.coded() {
		in.queue, err = v4l2.NewImportQueue(d, typ, wantImports, split)
	}
	if g.coded() || errors.Is(err, unix.EINVAL) {
		in.queue, err = v4l2.NewQueue(d, typ, mostInside, split)
	}
	if err != nil {
		return nil, err
	}
	if in.queue.Len() == 0 {
		return nil, fmt.Errorf("open %s: the driver makes no buffers: %w", d.Path(), hw.ErrBusy)
	}
	for range in.queue.Len() {
		in.slots = append(in.slots, slot{spare: -1, fds: [3]int{-1, -1, -1}})
	}
	return in, nil
}

// choose returns the free slot that carried these dma-bufs before, else the one
// that was not used for longest, or -1 if none is free.
func (in *input) choose(fds [3]int) int {
	best := -1
	for i, s := range in.slots {
		switch {
		case s.busy:
		case s.fds == fds:
			return i
		case best < 0, s.used < in.slots[best].used:
			best = i
		}
	}
	return best
}

// put queues f under k and returns how many bytes of it were copied: first in
// place, then, if that does not go, as a copy.
func (in *input) put(f *hw.Frame, k cookie) (copied int, err error) {
	b, ok := in.inPlace(f)
	if !ok {
		return in.copy(f, k)
	}
	switch err := in.lend(b, slot{frame: f, spare: -1}, k); {
	case err == nil:
		f.Retain()
		return 0, nil
	case refuses(err):
		in.refused = err
		return in.copy(f, k)
	default:
		return 0, err
	}
}

// refuses says that a driver cannot use a dma-buf that it was shown.
func refuses(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EFAULT)
}

// A shared is the dma-bufs of a picture.
type shared struct {
	fds   [3]int // -1 where there is none
	sizes [3]int // of the whole dma-bufs, in bytes
}

// inPlace returns the dma-bufs of f if the device can read it where it is.
func (in *input) inPlace(f *hw.Frame) (shared, bool) {
	have := hw.Layout{Pixel: f.Pixel, Width: f.Width, Height: f.Height}
	b := shared{fds: [3]int{-1, -1, -1}}
	if !in.queue.Imports() || in.refused != nil {
		return b, false
	}
	n := 0
	for i, p := range f.Planes {
		if p.FD < 0 {
			return b, false
		}
		at := slices.Index(b.fds[:n], p.FD)
		if at < 0 {
			size, err := in.sys.Size(p.FD)
			if err != nil {
				return b, false
			}
			at, n = n, n+1
			b.fds[at], b.sizes[at] = p.FD, int(size)
		}
		have.Planes[i] = hw.PlaneLayout{Buffer: at, Offset: p.Offset, Stride: p.Stride}
	}
	have.Sizes = b.sizes
	return b, in.layout.Reads(have)
}

// lend queues the dma-bufs of b, which belong to what s says.
func (in *input) lend(b shared, s slot, k cookie) error {
	i := in.choose(b.fds)
	if err := in.queue.EnqueueData(i, k.stamp(), b.data(in.layout)); err != nil {
		return err
	}
	in.clock++
	s.busy, s.fds, s.used = true, b.fds, in.clock
	in.slots[i] = s
	return nil
}

// data names b to a driver. The length of a dma-buf is always told in full: vb2
// refuses less than the size of the format.
func (b shared) data(l hw.Layout) []v4l2.PlaneData {
	data := make([]v4l2.PlaneData, l.Buffers())
	for i := range data {
		data[i] = v4l2.PlaneData{FD: b.fds[i], Length: b.sizes[i], Used: l.Sizes[i]}
	}
	return data
}

// measure returns the dma-bufs of a pool's buffer.
func measure(sys v4l2.Sys, b hw.Buffer) (shared, error) {
	s := shared{fds: b.FDs}
	for i, fd := range b.FDs {
		if fd < 0 {
			continue
		}
		size, err := sys.Size(fd)
		if err != nil {
			return s, fmt.Errorf("ask for the size of a dma-buf: %w", err)
		}
		s.sizes[i] = int(size)
	}
	return s, nil
}

// copy queues a copy of f.
func (in *input) copy(f *hw.Frame, k cookie) (copied int, err error) {
	for _, p := range f.Planes {
		if p.Data == nil {
			return 0, fmt.Errorf("a picture that cannot be read in place is not mapped either: %w", cmp.Or(in.refused, hw.ErrUnsupported))
		}
	}
	hw.BeginAccess(f.Planes, hw.Reading)
	defer hw.EndAccess(f.Planes, hw.Reading)
	if in.queue.Imports() {
		return in.copyToSpare(f, k)
	}
	i := in.choose([3]int{-1, -1, -1})
	mem := in.queue.Memory(i)
	data := make([]v4l2.PlaneData, len(mem))
	if f.Pixel == hw.MJPEG {
		copied, err = copyCoded(mem[0], f.Planes[0].Data)
		data[0].Used = copied
	} else {
		copied, err = copyRaw(in.layout, mem, f)
		for p := range data {
			data[p].Used = in.layout.Sizes[p]
		}
	}
	if err == nil {
		err = in.queue.EnqueueData(i, k.stamp(), data)
	}
	if err != nil {
		return 0, err
	}
	in.slots[i].busy = true
	return copied, nil
}

// copyToSpare copies into memory of the device's that another context made.
func (in *input) copyToSpare(f *hw.Frame, k cookie) (int, error) {
	if in.copies == nil {
		p, err := in.makeCopies()
		if err != nil {
			return 0, err
		}
		in.copies = p
		for i := range p.Buffers() {
			in.spare = append(in.spare, i)
		}
	}
	n := in.spare[len(in.spare)-1]
	b := in.copies.Buffers()[n]
	planes := frame(in.layout, b)
	hw.BeginAccess(planes, hw.Writing)
	copied, err := copyRaw(in.layout, b.Mem[:], f)
	hw.EndAccess(planes, hw.Writing)
	if err != nil {
		return 0, err
	}
	theirs, err := measure(in.sys, b)
	if err == nil {
		err = in.lend(theirs, slot{spare: n}, k)
	}
	if err != nil {
		return 0, err
	}
	in.spare = in.spare[:len(in.spare)-1]
	return copied, nil
}

// copyRaw writes the lines of f into buffers that lie as l says, and returns
// how many bytes that were.
func copyRaw(l hw.Layout, mem [][]byte, f *hw.Frame) (copied int, err error) {
	shapes := l.Pixel.Planes()
	for i, from := range f.Planes {
		to := l.Planes[i]
		line, lines := shapes[i].Line(l.Width), shapes[i].Lines(l.Height)
		room := mem[to.Buffer]
		if from.Stride < line || len(from.Data) < from.Stride*(lines-1)+line || len(room) < to.Offset+to.Stride*(lines-1)+line {
			return 0, fmt.Errorf("plane %d of %s has %d bytes, and %d to go to: %w", i, l, len(from.Data), len(room), hw.ErrUnsupported)
		}
		for y := range lines {
			copied += copy(room[to.Offset+y*to.Stride:][:line], from.Data[y*from.Stride:])
		}
	}
	return copied, nil
}

// done takes a slot back after the hardware has read it and releases what it
// held.
func (in *input) done(index int) {
	s := &in.slots[index]
	if s.frame != nil {
		s.frame.Release()
	}
	if s.spare >= 0 {
		in.spare = append(in.spare, s.spare)
	}
	s.busy, s.frame, s.spare = false, nil, -1
}

// release takes back what the hardware will not read any more.
func (in *input) release() {
	for i, s := range in.slots {
		if s.busy {
			in.done(i)
		}
	}
}

// discard frees the buffers of a queue that is stopped.
func (in *input) discard() error {
	in.release()
	err := unlessGone(in.queue.Discard())
	if in.copies != nil {
		err = errors.Join(err, in.copies.Close())
		in.copies = nil
	}
	return err
}
