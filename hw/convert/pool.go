package convert

import (
	"errors"
	"fmt"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
)

// Layout implements [hw.Importer]: what the scaler reads, asked of a context of
// its own that is closed again.
func (d *Device) Layout(src hw.Layout) (_ hw.Layout, err error) {
	node, err := v4l2.OpenDevice(d.sys, d.path)
	if err != nil {
		return hw.Layout{}, err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	_, l, err := d.setInput(node, src)
	return l, err
}

// setInput asks for pictures like src and returns how the device wants them.
func (d *Device) setInput(node *v4l2.Device, src hw.Layout) (grant, hw.Layout, error) {
	g, err := d.in.askAny(node, wish{pixel: src.Pixel, width: src.Width, height: src.Lines(), layout: src})
	if err != nil {
		return grant{}, hw.Layout{}, err
	}
	if g.width != src.Width || g.height != src.Height {
		r, err := node.SetCrop(d.in.typ, v4l2.Rect{Width: src.Width, Height: src.Height})
		if err != nil || r.Width != src.Width || r.Height != src.Height || r.Left != 0 || r.Top != 0 {
			return grant{}, hw.Layout{}, fmt.Errorf("set %s to %dx%d %s: it reads %dx%d and does not crop: %w", d.path, src.Width, src.Height, src.Pixel, g.width, g.height, hw.ErrUnsupported)
		}
	}
	l, err := g.layout(src.Width, src.Height)
	return g, l, err
}

// Allocate implements [hw.Importer]: buffers of a context that is used for
// nothing else. The pool holds the device open.
func (d *Device) Allocate(l hw.Layout, count int) (_ hw.Pool, err error) {
	node, err := v4l2.OpenDevice(d.sys, d.path)
	if err != nil {
		return nil, err
	}
	p := &pool{sys: d.sys, node: node}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	g, have, err := d.setInput(node, l)
	switch {
	case err != nil:
		return nil, err
	case !l.Reads(have) || !have.Reads(l):
		return nil, fmt.Errorf("make buffers of %s: the driver makes them for %s: %w", d.path, have, hw.ErrUnsupported)
	}
	p.layout = have
	split := 0
	if multiplanar(d.in.typ) {
		split = len(g.mems)
	}
	if p.queue, err = v4l2.NewQueue(node, d.in.typ, count, split); err != nil {
		return nil, err
	}
	for i := range p.queue.Len() {
		b := hw.Buffer{FDs: [3]int{-1, -1, -1}}
		copy(b.Mem[:], p.queue.Memory(i))
		fds, err := p.queue.Export(i)
		if err != nil {
			return nil, err
		}
		copy(b.FDs[:], fds)
		for j, fd := range fds {
			b.Shared[j] = hw.NewDMABuf(fd, d.sys)
		}
		p.buffers = append(p.buffers, b)
	}
	if len(p.buffers) < count {
		return nil, fmt.Errorf("make buffers of %s: the driver makes only %d of %d: %w", d.path, len(p.buffers), count, hw.ErrBusy)
	}
	return p, nil
}

// A pool is memory of an idle context; it implements [hw.Pool].
type pool struct {
	sys     v4l2.Sys
	node    *v4l2.Device
	queue   *v4l2.Queue
	layout  hw.Layout
	buffers []hw.Buffer
}

func (p *pool) Layout() hw.Layout    { return p.layout }
func (p *pool) Buffers() []hw.Buffer { return p.buffers }

// Close goes unmap → close dma-bufs → free → close.
func (p *pool) Close() error {
	var errs []error
	if p.queue != nil {
		for i := range p.queue.Len() {
			errs = append(errs, p.queue.Unmap(i))
		}
	}
	for _, b := range p.buffers {
		for _, fd := range b.FDs {
			if fd >= 0 {
				errs = append(errs, p.sys.Close(fd))
			}
		}
	}
	if p.queue != nil {
		errs = append(errs, unlessGone(p.queue.Free()))
	}
	return errors.Join(append(errs, p.node.Close())...)
}

// unlessGone drops the complaint that there is nothing left to stop or free.
func unlessGone(err error) error {
	if errors.Is(err, hw.ErrGone) {
		return nil
	}
	return err
}
