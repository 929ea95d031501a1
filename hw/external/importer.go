package external

import (
	"context"
	"errors"
	"fmt"
	"math/bits"

	"encoderd.example/hw"
	"encoderd.example/hw/external/memory"
	"encoderd.example/hw/external/wire"
	"encoderd.example/stream"
)

// maxAlign bounds the alignments that are believed.
const maxAlign = 4096

// traits are what an encoder told of itself.
type traits struct {
	parent              string
	flags               uint32
	minWidth, minHeight int
	maxWidth, maxHeight int
	step                int
	budget              int
	formats             []wire.Format
}

// readEncoder checks the hello of an encoder.
func readEncoder(m wire.Message) (traits, error) {
	h, ok := m.(wire.HelloEncoder)
	switch {
	case !ok:
		return traits{}, violation("it begins with %s", wire.Name(m))
	case h.Version != wire.Version:
		return traits{}, fmt.Errorf("it speaks version %d of the protocol, this encoderd speaks %d: %w", h.Version, wire.Version, hw.ErrUnsupported)
	case h.Codecs&wire.CodecH264 == 0:
		return traits{}, fmt.Errorf("it does not code H.264: %w", hw.ErrUnsupported)
	case h.Formats < 1 || h.Formats > wire.MaxFormats:
		return traits{}, violation("an encoder that reads %d formats", h.Formats)
	case h.Flags&(wire.ReadsShared|wire.Allocates) == 0:
		return traits{}, violation("an encoder that neither reads shared memory nor allocates")
	case h.MinWidth < 1 || h.MinHeight < 1 || h.MaxWidth < h.MinWidth || h.MaxHeight < h.MinHeight || h.MaxWidth > 8192 || h.MaxHeight > 8192:
		return traits{}, violation("an encoder for sizes of %dx%d to %dx%d", h.MinWidth, h.MinHeight, h.MaxWidth, h.MaxHeight)
	case h.Step < 1 || h.Step > 64 || h.Budget > 1<<30:
		return traits{}, violation("an encoder with a step of %d and a budget of %d", h.Step, h.Budget)
	}
	for _, f := range h.Format[:h.Formats] {
		if bits.OnesCount32(f.StrideAlign) != 1 || bits.OnesCount32(f.LinesAlign) != 1 || f.StrideAlign > maxAlign || f.LinesAlign > maxAlign {
			return traits{}, violation("a format aligned to %d bytes and %d lines", f.StrideAlign, f.LinesAlign)
		}
		if _, err := memory.Tight(hw.PixelFormat(f.Pixel), 16, 16, 1, 1, 0); err != nil {
			return traits{}, violation("an encoder that reads %q", hw.PixelFormat(f.Pixel))
		}
	}
	parent, err := readParent(h.Parent)
	if err != nil {
		return traits{}, err
	}
	return traits{
		parent:   parent,
		flags:    h.Flags,
		minWidth: int(h.MinWidth), minHeight: int(h.MinHeight),
		maxWidth: int(h.MaxWidth), maxHeight: int(h.MaxHeight),
		step: int(h.Step), budget: int(h.Budget),
		formats: append([]wire.Format(nil), h.Format[:h.Formats]...),
	}, nil
}

// driver returns the encoder as the daemon sees it.
func (p program) driver(t traits, gone func()) hw.EncoderDriver {
	im := importer{program: p, traits: t}
	return hw.EncoderDriver{
		Name:     p.id,
		Hardware: true,
		Codecs:   []stream.Codec{stream.H264},
		Open: func(cfg hw.EncoderConfig) (hw.Encoder, error) {
			e, err := im.open(cfg)
			if err != nil {
				if errors.Is(err, hw.ErrGone) {
					gone()
				}
				return nil, fmt.Errorf("open %s: %w", p.id, err)
			}
			return e, nil
		},
		Importer: im,
		Budget:   t.budget,
	}
}

// An importer is the input side of an encoder; it implements [hw.Importer].
type importer struct {
	program
	traits
}

// Parent implements [hw.Attached]: what the program told, or "".
func (im importer) Parent() string { return im.parent }

// Takes implements [hw.Importer].
func (im importer) Takes() []hw.PixelFormat {
	var list []hw.PixelFormat
	for _, f := range im.formats {
		list = append(list, hw.PixelFormat(f.Pixel))
	}
	return list
}

// Layout implements [hw.Importer].
func (im importer) Layout(src hw.Layout) (hw.Layout, error) {
	if err := im.checkSize(src.Width, src.Height); err != nil {
		return hw.Layout{}, err
	}
	for _, f := range im.formats {
		if hw.PixelFormat(f.Pixel) == src.Pixel {
			return layoutFor(f, src)
		}
	}
	return hw.Layout{}, fmt.Errorf("%s reads %v, not %s: %w", im.id, im.Takes(), src.Pixel, hw.ErrUnsupported)
}

func (im importer) checkSize(w, h int) error {
	if w < im.minWidth || h < im.minHeight || w > im.maxWidth || h > im.maxHeight || w%im.step+h%im.step > 0 {
		return fmt.Errorf("%s codes %dx%d to %dx%d in steps of %d, not %dx%d: %w",
			im.id, im.minWidth, im.minHeight, im.maxWidth, im.maxHeight, im.step, w, h, hw.ErrUnsupported)
	}
	return nil
}

// layoutFor returns src if an encoder that reads f can read it in place, else
// the tightest layout that it can.
func layoutFor(f wire.Format, src hw.Layout) (hw.Layout, error) {
	tight := func(stride int) (hw.Layout, error) {
		return memory.Tight(src.Pixel, src.Width, src.Height, int(f.StrideAlign), int(f.LinesAlign), stride)
	}
	if _, err := memory.Needs(src); err != nil {
		return tight(0) // no whole layout: only a wish
	}
	aligned := src.Planes[0].Stride%int(f.StrideAlign) == 0
	if f.Flags&wire.AnyPlace != 0 && aligned {
		return src, nil
	}
	if f.Flags&wire.AnyStride != 0 && aligned {
		if l, err := tight(src.Planes[0].Stride); err != nil || l.Reads(src) {
			return src, err
		}
	}
	l, err := tight(0)
	if err == nil && l.Reads(src) {
		return src, nil
	}
	return l, err
}

// Allocate implements [hw.Importer]: sealed memfds, made dma-bufs where the
// kernel can, or buffers that the program makes.
func (im importer) Allocate(l hw.Layout, count int) (hw.Pool, error) {
	if count < 1 || count > wire.MaxBuffers {
		return nil, fmt.Errorf("%s: %d buffers, 1 to %d are possible: %w", im.id, count, wire.MaxBuffers, hw.ErrUnsupported)
	}
	if got, err := im.Layout(l); err != nil || got != l {
		return nil, errors.Join(fmt.Errorf("%s does not read %s: %w", im.id, l, hw.ErrUnsupported), err)
	}
	pool, err := im.allocate(l, count)
	if err != nil {
		return nil, fmt.Errorf("%s: make %d buffers: %w", im.id, count, err)
	}
	return pool, nil
}

func (im importer) allocate(l hw.Layout, count int) (*memory.Pool, error) {
	if im.flags&wire.ReadsShared == 0 {
		return im.borrow(l, count)
	}
	pool, err := memory.NewPool(l, count)
	if err == nil && im.flags&wire.ReadsDMABuf != 0 {
		pool.Share()
	}
	return pool, err
}

// borrow runs the program once to make buffers; they outlive it.
func (im importer) borrow(l hw.Layout, count int) (*memory.Pool, error) {
	ctx := context.Background()
	p, hello, err := im.start(ctx)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	if _, err := readEncoder(hello); err != nil {
		return nil, err
	}
	if err := p.send(wire.Allocate{Count: uint32(count), Layout: wire.LayoutOf(l)}); err != nil {
		return nil, err
	}
	got, fds, err := expectFDs[wire.Buffers](ctx, p)
	if err != nil {
		return nil, err
	}
	if int(got.Count) != count || got.Layout.Layout() != l || len(fds) != count*l.Buffers() {
		wire.CloseAll(fds)
		return nil, violation("%d buffers of %s with %d descriptors instead of %d of %s", got.Count, got.Layout.Layout(), len(fds), count, l)
	}
	return memory.Adopt(l, fds, true)
}
