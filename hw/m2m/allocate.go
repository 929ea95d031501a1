package m2m

import (
	"errors"
	"fmt"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
)

// Layout implements [hw.Importer]: it asks the driver, in a context of its own.
func (n *node) Layout(src hw.Layout) (_ hw.Layout, err error) {
	d, err := n.open()
	if err != nil {
		return hw.Layout{}, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	g, err := n.prepare(d, src)
	return g.layout, err
}

// prepare sets both formats of an open device for pictures of src. How these
// lie does not hang on the codec: that of one device reads them all.
func (n *node) prepare(d *v4l2.Device, src hw.Layout) (granted, error) {
	if err := n.fits(src.Width, src.Height); err != nil {
		return granted{}, err
	}
	if err := n.setCoded(d, n.codes[0], src.Width, src.Height); err != nil {
		return granted{}, err
	}
	return n.nearest(d, src)
}

// fits checks a size against what is known of the device: drivers clamp
// silently.
func (n *node) fits(width, height int) error {
	q := n.quirks
	switch {
	case width < 16 || height < 16 || width < q.least.width || height < q.least.height:
		return fmt.Errorf("%s: %dx%d is too small, it codes %dx%d and more: %w", n.name, width, height, max(16, q.least.width), max(16, q.least.height), hw.ErrUnsupported)
	case q.most.width > 0 && (width > q.most.width || height > q.most.height):
		return fmt.Errorf("%s: %dx%d is too large, it codes %dx%d at most: %w", n.name, width, height, q.most.width, q.most.height, hw.ErrUnsupported)
	default:
		return nil
	}
}

// Allocate implements [hw.Importer]. The memory comes from a context of its
// own, which lives as long as the pool: it can be shared by cameras, by the
// slate and by encoders that come and go.
func (n *node) Allocate(l hw.Layout, count int) (hw.Pool, error) {
	d, err := n.open()
	if err != nil {
		return nil, err
	}
	p := &pool{sys: n.sys, dev: d, layout: l}
	if err := p.fill(n, count); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: make %d buffers of %s: %w", n.name, count, l, err), p.Close())
	}
	return p, nil
}

// A pool implements [hw.Pool].
type pool struct {
	sys    v4l2.Sys
	dev    *v4l2.Device
	queue  *v4l2.Queue
	layout hw.Layout
	bufs   []hw.Buffer
}

func (p *pool) fill(n *node, count int) error {
	g, err := n.prepare(p.dev, p.layout)
	if err != nil {
		return err
	}
	if g.layout != p.layout {
		return fmt.Errorf("the driver gives %s: %w", g.layout, hw.ErrUnsupported)
	}
	if p.queue, err = v4l2.NewQueue(p.dev, n.raw, count, n.planes(g.mems)); err != nil {
		return err
	}
	if p.queue.Len() < count {
		return fmt.Errorf("the driver makes only %d: free memory or choose a smaller picture", p.queue.Len())
	}
	for i := range count {
		if err := p.export(i); err != nil {
			return err
		}
	}
	return nil
}

func (p *pool) export(index int) error {
	fds, err := p.queue.Export(index)
	if err != nil {
		return err
	}
	b := hw.Buffer{FDs: [3]int{-1, -1, -1}}
	copy(b.FDs[:], fds)
	copy(b.Mem[:], p.queue.Memory(index))
	for i, fd := range fds {
		b.Shared[i] = hw.NewDMABuf(fd, p.sys)
	}
	p.bufs = append(p.bufs, b)
	return nil
}

// Layout implements [hw.Pool].
func (p *pool) Layout() hw.Layout { return p.layout }

// Buffers implements [hw.Pool].
func (p *pool) Buffers() []hw.Buffer { return p.bufs }

// Close implements [hw.Pool]: unmap → close the dma-bufs → free → close. The
// kernel keeps memory that other devices still hold until they let it go.
func (p *pool) Close() error {
	var errs []error
	if p.queue != nil {
		for i := range p.queue.Len() {
			errs = append(errs, p.queue.Unmap(i))
		}
	}
	for _, b := range p.bufs {
		for _, fd := range b.FDs {
			if fd >= 0 {
				errs = append(errs, p.sys.Close(fd))
			}
		}
	}
	if p.queue != nil {
		errs = append(errs, unlessGone(p.queue.Free()))
	}
	errs = append(errs, p.dev.Close())
	p.queue, p.bufs = nil, nil
	return errors.Join(errs...)
}

// unlessGone drops the complaint that there is nothing left to stop or free.
func unlessGone(err error) error {
	if errors.Is(err, hw.ErrGone) {
		return nil
	}
	return err
}
