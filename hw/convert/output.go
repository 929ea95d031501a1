package convert

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/uapi"
)

// wantOutputs is how many buffers pictures come out in: two at the hardware,
// and what an encoder and a reader hold.
const (
	wantOutputs = 6
	minOutputs  = 2
)

// An output is the CAPTURE queue with its memory. A buffer goes round:
//
//	hardware ──Dequeue──► lent as hw.Frame ──last Release──► returned
//	   ▲                                                        │
//	   └───────────────────────Enqueue──────────────────────────┘
//
// Only the owner's goroutine talks to the queue until stopped. After that a
// buffer that comes back is freed by whoever releases it.
type output struct {
	sys    v4l2.Sys
	queue  *v4l2.Queue
	layout hw.Layout
	full   bool // the driver says that luma is full range
	pool   []hw.Buffer
	theirs [][]v4l2.PlaneData // how the pool's buffers are named to the driver
	frames []*hw.Frame        // one for each buffer, lent again and again
	fds    [][]int            // exported, and ours to close

	// Guarded by the converter's mu.
	state   []place
	stopped bool
}

type place uint8

const (
	ours place = iota
	atHardware
	lent
)

// newOutput makes the buffers of the format that is set: the device's own, or
// those of pool if that is not nil.
func newOutput(sys v4l2.Sys, d *v4l2.Device, typ uint32, g grant, l hw.Layout, pool hw.Pool, free func(*output, int)) (*output, error) {
	o := &output{sys: sys, layout: l, full: g.full}
	split := 0
	if multiplanar(typ) {
		split = len(g.mems)
	}
	var err error
	if pool != nil {
		o.pool = pool.Buffers()
		o.queue, err = v4l2.NewImportQueue(d, typ, len(o.pool), split)
	} else {
		o.queue, err = v4l2.NewQueue(d, typ, wantOutputs, split)
	}
	if err != nil {
		return nil, err
	}
	if n := o.queue.Len(); n < minOutputs {
		return nil, errors.Join(fmt.Errorf("open %s: the driver makes only %d buffers, %d are needed: %w", d.Path(), n, minOutputs, hw.ErrBusy), o.queue.Discard())
	}
	o.state = make([]place, o.queue.Len())
	o.fds = make([][]int, o.queue.Len())
	if err := o.makeFrames(free); err != nil {
		o.stopped = true
		return nil, errors.Join(err, o.release(), o.queue.Free())
	}
	return o, nil
}

func (o *output) makeFrames(free func(*output, int)) error {
	for i := range o.state {
		b, err := o.buffer(i)
		if err != nil {
			return err
		}
		f := hw.NewFrame(func(*hw.Frame) { free(o, i) })
		f.Pixel, f.Width, f.Height = o.layout.Pixel, o.layout.Width, o.layout.Height
		f.Planes = frame(o.layout, b)
		if f.Planes == nil {
			return fmt.Errorf("buffers of %d bytes are too small for %s", len(b.Mem[0]), o.layout)
		}
		o.frames = append(o.frames, f)
	}
	return nil
}

// buffer returns the memory behind an index. Buffers that the driver cannot
// export are mapped only.
func (o *output) buffer(index int) (hw.Buffer, error) {
	if o.pool != nil {
		s, err := measure(o.sys, o.pool[index])
		o.theirs = append(o.theirs, s.data(o.layout))
		return o.pool[index], err
	}
	b := hw.Buffer{FDs: [3]int{-1, -1, -1}}
	copy(b.Mem[:], o.queue.Memory(index))
	fds, err := o.queue.Export(index)
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOTTY):
		return b, nil
	case err != nil:
		return b, err
	}
	o.fds[index] = fds
	copy(b.FDs[:], fds)
	for i, fd := range fds {
		b.Shared[i] = hw.NewDMABuf(fd, o.sys)
	}
	return b, nil
}

// frame returns the planes of a picture in b, or nil if b is too small.
func frame(l hw.Layout, b hw.Buffer) []hw.Plane {
	var list []hw.Plane
	for i, shape := range l.Pixel.Planes() {
		p := l.Planes[i]
		line, lines := shape.Line(l.Width), shape.Lines(l.Height)
		mem := b.Mem[p.Buffer]
		need := p.Offset + p.Stride*(lines-1) + line
		if mem != nil && need > len(mem) {
			return nil
		}
		q := hw.Plane{Stride: p.Stride, FD: b.FDs[p.Buffer], Offset: p.Offset}
		if mem != nil {
			end := min(p.Offset+p.Stride*lines, len(mem))
			q.Data, q.Shared = mem[p.Offset:end:end], b.Shared[p.Buffer]
		}
		list = append(list, q)
	}
	return list
}

// enqueue gives a buffer to the hardware.
func (o *output) enqueue(index int) error {
	if o.pool == nil {
		return o.queue.Enqueue(index)
	}
	return o.queue.EnqueueImport(index, o.theirs[index])
}

// whole reports whether the hardware wrote a picture.
func (o *output) whole(d v4l2.Done) bool {
	return d.Flags&uapi.BufFlagError == 0 && d.Used[0] > 0 && d.DataStart[0] == 0
}

// release frees the buffers that are not lent, under the converter's mu.
func (o *output) release() error {
	var errs []error
	for i, at := range o.state {
		if at != lent {
			errs = append(errs, o.drop(i))
		}
	}
	return errors.Join(errs...)
}

// drop frees a buffer that nobody holds any more, now or after the device is
// closed.
func (o *output) drop(index int) error {
	errs := []error{o.queue.Unmap(index)}
	for _, fd := range o.fds[index] {
		if err := o.sys.Close(fd); err != nil {
			errs = append(errs, fmt.Errorf("close a dma-buf: %w", err))
		}
	}
	o.fds[index] = nil
	return errors.Join(errs...)
}
