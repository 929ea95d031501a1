package external

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/external/memory"
	"encoderd.example/hw/external/wire"
)

// wantBuffers is how many pictures a camera is asked for; see hw/v4l2.
const wantBuffers = 6

// minBuffers is how few a camera can live with: one at the device, one at the
// reader.
const minBuffers = 2

// A Camera is a camera in a process of its own; it implements
// [hw.SharingCamera] and [hw.PreferringCamera]. The process lives from Open to
// Close. Its methods may be called from any goroutine.
type Camera struct {
	program

	traitsOfCamera

	takes []hw.PixelFormat
	gone  func() // told when the device turns out not to be there
	rest  *rest
}

// traitsOfCamera are what a camera told of itself.
type traitsOfCamera struct {
	name   string
	parent string
	modes  []hw.Mode
}

// ID implements [hw.Camera]: "external:" and the name of the program.
func (c *Camera) ID() string { return c.id }

// Name implements [hw.Camera]: what the program calls itself.
func (c *Camera) Name() string { return c.name }

// Parent implements [hw.Attached]: what the program told, or "".
func (c *Camera) Parent() string { return c.parent }

// Modes implements [hw.Camera]: what the program told when it was found.
func (c *Camera) Modes() ([]hw.Mode, error) { return slices.Clone(c.modes), nil }

// Preferring implements [hw.PreferringCamera].
func (c *Camera) Preferring(takes []hw.PixelFormat) hw.Camera {
	other := *c
	other.takes = slices.Clone(takes)
	return &other
}

// Open implements [hw.Camera].
func (c *Camera) Open(ctx context.Context, want hw.Mode) (hw.CameraStream, error) {
	s, err := c.open(ctx, want, nil)
	if err != nil {
		return nil, err // not a nil *capture in an interface
	}
	return s, nil
}

// OpenShared implements [hw.SharingCamera].
//
//	hello ─► open ─► opened ─► decide ─┬─► start ─► buffers (theirs)
//	                                   └─► buffers (the pool's) ─► start ─► buffers (none)
func (c *Camera) OpenShared(ctx context.Context, want hw.Mode, decide func(hw.BufferSource) hw.BufferPlan) (hw.SharedStream, error) {
	s, err := c.open(ctx, want, decide)
	if err != nil {
		return nil, err // not a nil *capture in an interface
	}
	return s, nil
}

// open opens the camera, and once more without the pool if the program cannot
// write into it after all.
func (c *Camera) open(ctx context.Context, want hw.Mode, decide func(hw.BufferSource) hw.BufferPlan) (*capture, error) {
	if decide == nil {
		decide = func(hw.BufferSource) hw.BufferPlan { return hw.BufferPlan{} }
	}
	s, err := c.begin(ctx, want, decide)
	if refused := (poolRefusedError{}); errors.As(err, &refused) {
		plan := hw.BufferPlan{Way: hw.Copy, Reason: fmt.Sprintf("%s does not write into the encoder's memory: %v", c.id, refused.error)}
		s, err = c.begin(ctx, want, func(hw.BufferSource) hw.BufferPlan { return plan })
	}
	if err != nil {
		if errors.Is(err, hw.ErrGone) {
			c.gone()
		}
		return nil, fmt.Errorf("open camera %s: %w", c.id, err)
	}
	return s, nil
}

// poolRefusedError marks the error of a program that does not take a pool.
type poolRefusedError struct{ error }

func (p poolRefusedError) Unwrap() error { return p.error }

// begin starts the program and brings it to streaming.
func (c *Camera) begin(ctx context.Context, want hw.Mode, decide func(hw.BufferSource) hw.BufferPlan) (*capture, error) {
	p, hello, err := c.start(ctx)
	if err != nil {
		return nil, err
	}
	s, err := c.negotiate(ctx, p, hello, want, decide)
	if err != nil {
		p.stop()
		return nil, err
	}
	go s.run() //nolint:contextcheck // the stream lives until Close, not until Open is done
	return s, nil
}

func (c *Camera) negotiate(ctx context.Context, p *process, hello wire.Message, want hw.Mode, decide func(hw.BufferSource) hw.BufferPlan) (*capture, error) {
	if _, err := readCamera(hello); err != nil {
		return nil, err
	}
	if err := p.send(wire.OpenCamera{Mode: wire.ModeOf(c.prefer(want)), Buffers: wantBuffers}); err != nil {
		return nil, err
	}
	opened, err := expect[wire.CameraOpened](ctx, p)
	if err != nil {
		return nil, err
	}
	source, err := c.source(opened)
	if err != nil {
		return nil, err
	}
	plan := decide(source)
	if plan.Way == hw.Import && plan.Pool != nil && source.Imports {
		return c.importPool(ctx, p, source, plan)
	}
	return c.ownBuffers(ctx, p, source, plan, opened.Layout.Layout())
}

// prefer names the pixel format of a wish that leaves it open.
func (c *Camera) prefer(want hw.Mode) hw.Mode {
	if want.Pixel != 0 {
		return want
	}
	for _, pixel := range c.takes {
		offers := func(m hw.Mode) bool { return m.Pixel == pixel && pixel != hw.H264 }
		if slices.ContainsFunc(c.modes, offers) {
			want.Pixel = pixel
			break
		}
	}
	return want
}

// source checks what was granted and says it in our words.
func (c *Camera) source(o wire.CameraOpened) (hw.BufferSource, error) {
	src := hw.BufferSource{Driver: c.id, Mode: o.Mode.Mode()}
	layout := o.Layout.Layout()
	switch {
	case checkMode(src.Mode) != nil:
		return src, checkMode(src.Mode)
	case layout.Pixel != src.Mode.Pixel || layout.Width != src.Mode.Width || layout.Height != src.Mode.Height:
		return src, violation("mode %s with a layout of %s", src.Mode, layout)
	}
	if _, err := memory.Needs(layout); err != nil {
		return src, violation("%v", err)
	}
	if layout.Pixel.Coded() {
		src.Private = "its pictures are coded"
		return src, nil
	}
	src.Layout = layout
	src.Imports = o.Flags&wire.Imports != 0
	if src.Exports = o.Flags&wire.Exports != 0; !src.Exports {
		src.Private = "its memory is that of a program, no device reads it"
	}
	return src, nil
}

// importPool lets the program write into the pool.
func (c *Camera) importPool(ctx context.Context, p *process, src hw.BufferSource, plan hw.BufferPlan) (*capture, error) {
	pool := plan.Pool
	layout, buffers := pool.Layout(), pool.Buffers()
	if err := fits(layout, src.Mode); err != nil {
		return nil, poolRefusedError{err}
	}
	buffers = buffers[:min(len(buffers), wire.MaxBuffers)]
	var fds []int
	var flags uint32
	for _, b := range buffers {
		fds = append(fds, b.FDs[:layout.Buffers()]...)
	}
	if len(fds) > 0 && memory.IsDMABuf(fds[0]) {
		flags = wire.DMABuf
	}
	err := errors.Join(
		p.send(wire.Buffers{Count: uint32(len(buffers)), Flags: flags, Layout: wire.LayoutOf(layout)}, fds...),
		p.send(wire.Start{Flags: wire.UseSent}))
	if err != nil {
		return nil, err
	}
	got, err := expect[wire.Buffers](ctx, p)
	switch {
	case errors.Is(err, hw.ErrUnsupported):
		return nil, poolRefusedError{err}
	case err != nil:
		return nil, err
	case got.Count != 0:
		return nil, violation("%d buffers of its own beside those it was given", got.Count)
	}
	return newCapture(c, p, src.Mode, layout, plan, buffers, nil)
}

// fits checks that pictures of m can be written to layout.
func fits(layout hw.Layout, m hw.Mode) error {
	if layout.Pixel != m.Pixel || layout.Width != m.Width || layout.Height != m.Height {
		return fmt.Errorf("the encoder's memory is for %s, the camera gives %s: %w", layout, m, hw.ErrUnsupported)
	}
	_, err := memory.Needs(layout)
	return err
}

// ownBuffers takes over the program's buffers.
func (c *Camera) ownBuffers(ctx context.Context, p *process, src hw.BufferSource, plan hw.BufferPlan, layout hw.Layout) (*capture, error) {
	if err := p.send(wire.Start{}); err != nil {
		return nil, err
	}
	got, fds, err := expectFDs[wire.Buffers](ctx, p)
	if err != nil {
		return nil, err
	}
	if err := checkBuffers(got, layout, len(fds)); err != nil {
		wire.CloseAll(fds)
		return nil, err
	}
	pool, err := memory.Adopt(layout, fds, false)
	if err != nil {
		return nil, violation("%v", err)
	}
	shared := got.Flags&wire.DMABuf != 0
	for _, b := range pool.Buffers() {
		for i := range layout.Buffers() {
			shared = shared && memory.IsDMABuf(b.FDs[i])
		}
	}
	if !shared && (plan.Way == hw.Export || plan.Way == hw.Import) {
		plan = hw.BufferPlan{Way: hw.Copy, Reason: c.id + " lends ordinary memory, which the encoder cannot read in place"}
	}
	buffers := slices.Clone(pool.Buffers())
	for i := range buffers {
		if !shared { // a Frame's descriptors are dma-bufs
			buffers[i].FDs = [3]int{-1, -1, -1}
		}
	}
	s, err := newCapture(c, p, src.Mode, layout, plan, buffers, pool)
	if err != nil {
		return nil, errors.Join(err, pool.Close())
	}
	return s, nil
}

// checkBuffers checks that a message carries what it says, and enough.
func checkBuffers(b wire.Buffers, layout hw.Layout, fds int) error {
	switch {
	case b.Layout.Layout() != layout:
		return violation("buffers of %s, %s was agreed", b.Layout.Layout(), layout)
	case b.Count < minBuffers || b.Count > wire.MaxBuffers:
		return violation("%d buffers, %d to %d are possible", b.Count, minBuffers, wire.MaxBuffers)
	case int(b.Count)*layout.Buffers() != fds:
		return violation("%d descriptors for %d buffers", fds, b.Count)
	}
	return nil
}

// checkMode says whether a mode that a program told is possible.
func checkMode(m hw.Mode) error {
	const maxSide, maxTerm = 8192, 1 << 30
	switch {
	case m.Width < 1 || m.Height < 1 || m.Width > maxSide || m.Height > maxSide:
		return violation("a picture of %dx%d", m.Width, m.Height)
	case m.FPS.Num < 0 || m.FPS.Den < 0 || m.FPS.Num > maxTerm || m.FPS.Den > maxTerm:
		return violation("a rate of %d/%d", m.FPS.Num, m.FPS.Den)
	case m.Pixel.Coded():
		return nil
	}
	if _, _, err := m.Layout(); err != nil {
		return violation("%v", err)
	}
	return nil
}

// A signalCamera is a Camera whose input can be without a signal.
type signalCamera struct{ *Camera }

// Preferring implements [hw.PreferringCamera]; what it returns is still a
// [hw.SignalCamera].
func (c signalCamera) Preferring(takes []hw.PixelFormat) hw.Camera {
	other := *c.Camera
	other.takes = slices.Clone(takes)
	return signalCamera{&other}
}

// AwaitSignal implements [hw.SignalCamera]: it runs the program without
// opening a mode until there is a signal. A program that does not start, or
// ends, is given time before its error is returned: 0.5 s, and twice that each
// time, up to 30 s. One that ran for that long is forgiven.
func (c signalCamera) AwaitSignal(ctx context.Context) error {
	begun, longest := time.Now(), longestRest
	err := c.awaitSignal(ctx)
	if err == nil || time.Since(begun) >= longestRest {
		c.rest.end()
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, hw.ErrNoSignal):
		longest = signalRest
	}
	if err := c.rest.take(ctx, longest); err != nil {
		return err
	}
	return fmt.Errorf("wait for a signal of camera %s: %w", c.id, err)
}

func (c signalCamera) awaitSignal(ctx context.Context) error {
	p, hello, err := c.start(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	if h, ok := hello.(wire.HelloCamera); !ok || h.Flags&wire.SignalThere != 0 {
		return nil // or it is another device by now
	}
	for {
		m, fds, err := p.receive(ctx, forever)
		wire.CloseAll(fds)
		if err != nil {
			return err
		}
		if s, ok := m.(wire.Signal); ok && s.There != 0 {
			return nil
		}
	}
}
