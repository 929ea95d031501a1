package device

import (
	"context"
	"errors"
	"fmt"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/external/memory"
	"encoderd.example/hw/external/wire"
)

// A Source makes the pictures of a camera. One that is an [hw.Attached] tells
// the box which device it is a part of. Its methods are called by one
// goroutine at a time, in this order: Grant, then Fill again and again, then
// Close.
type Source interface {
	// Modes lists what there is, best first: 1 to [wire.MaxModes]. Its error is
	// what the box is told instead of hello, such as [hw.ErrGone].
	Modes(ctx context.Context) ([]hw.Mode, error)
	// Grant starts the mode nearest to want, and returns it. Zero fields of
	// want leave the choice to the source.
	Grant(ctx context.Context, want hw.Mode) (hw.Mode, error)
	// Fill waits for the next picture and writes it to planes, which are laid
	// out as the mode granted, with any strides; nil planes pass it over. It
	// returns the CLOCK_MONOTONIC stamp and the number of the picture.
	Fill(ctx context.Context, planes []hw.Plane) (stamp time.Duration, seq uint32, err error)
	// Close ends what Grant began.
	Close() error
}

// Camera serves src until the box ends the session or ctx ends. Pictures are
// raw. While the box holds all buffers they are passed over.
func Camera(ctx context.Context, conn *wire.Conn, name string, src Source) error {
	return report(conn, serveCamera(ctx, conn, name, src))
}

func serveCamera(ctx context.Context, conn *wire.Conn, name string, src Source) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	modes, err := src.Modes(ctx)
	if err != nil {
		return err
	}
	hello := helloCamera(name, modes)
	if a, ok := src.(hw.Attached); ok {
		wire.PutText(hello.Parent[:], a.Parent())
	}
	if err := conn.Send(hello); err != nil {
		return err
	}
	c := &camera{conn: conn, src: src, inbox: receive(ctx, conn)}
	defer func() {
		cancel() // lets go of a source that hangs
		c.close()
	}()
	for c.frames == nil {
		l, err := c.next(ctx)
		if err != nil || l.m == nil {
			return err
		}
		if err := c.prepare(ctx, l); err != nil {
			return err
		}
	}
	return c.stream(ctx, cancel)
}

func helloCamera(name string, modes []hw.Mode) wire.HelloCamera {
	h := wire.HelloCamera{Version: wire.Version}
	wire.PutText(h.Name[:], name)
	for _, m := range modes[:min(len(modes), wire.MaxModes)] {
		h.Mode[h.Modes] = wire.ModeOf(m)
		h.Modes++
	}
	return h
}

// A camera is one session.
type camera struct {
	conn  *wire.Conn
	src   Source
	inbox *inbox

	mode   hw.Mode
	wanted int
	pool   *memory.Pool // ours or the box's
	frames [][]hw.Plane // of each buffer; nil until started
	free   chan int     // buffers to fill
}

func (c *camera) close() {
	if c.mode.Width > 0 {
		_ = c.src.Close() // nobody is left to tell
	}
	if c.pool != nil {
		_ = c.pool.Close()
	}
}

// next waits for a message. It returns none, and no error, at the end of the
// session.
func (c *camera) next(ctx context.Context) (letter, error) {
	select {
	case l, open := <-c.inbox.letters:
		if !open {
			return letter{}, c.inbox.ended()
		}
		if _, stop := l.m.(wire.Stop); stop {
			return letter{}, nil
		}
		return l, nil
	case <-ctx.Done():
		return letter{}, nil
	}
}

// prepare handles what comes before the first picture.
func (c *camera) prepare(ctx context.Context, l letter) error {
	switch m := l.m.(type) {
	case wire.OpenCamera:
		return c.open(ctx, m)
	case wire.Buffers:
		if c.mode.Width == 0 || c.pool != nil || m.Count < 2 || m.Count > wire.MaxBuffers {
			wire.CloseAll(l.fds)
			return unexpected(m)
		}
		pool, err := memory.Adopt(m.Layout.Layout(), l.fds, true)
		c.pool = pool
		return err
	case wire.Start:
		if c.mode.Width == 0 {
			return unexpected(m)
		}
		return c.start(m)
	default:
		wire.CloseAll(l.fds)
		return unexpected(m)
	}
}

func (c *camera) open(ctx context.Context, m wire.OpenCamera) error {
	if c.mode.Width > 0 {
		return unexpected(m)
	}
	mode, err := c.src.Grant(ctx, m.Mode.Mode())
	if err != nil {
		return err
	}
	c.mode, c.wanted = mode, min(max(int(m.Buffers), 2), wire.MaxBuffers)
	layout, err := memory.Tight(mode.Pixel, mode.Width, mode.Height, 1, 1, 0)
	if err != nil {
		return err
	}
	return c.conn.Send(wire.CameraOpened{Mode: wire.ModeOf(mode), Flags: wire.Imports, Layout: wire.LayoutOf(layout)})
}

// start makes the buffers, or takes those of the box.
func (c *camera) start(m wire.Start) error {
	answer := wire.Buffers{}
	var fds []int
	if m.Flags&wire.UseSent == 0 {
		layout, err := memory.Tight(c.mode.Pixel, c.mode.Width, c.mode.Height, 1, 1, 0)
		if err != nil {
			return err
		}
		if c.pool, err = memory.NewPool(layout, c.wanted); err != nil {
			return err
		}
		answer = wire.Buffers{Count: uint32(c.wanted), Layout: wire.LayoutOf(layout)}
		for _, b := range c.pool.Buffers() {
			fds = append(fds, b.FDs[:layout.Buffers()]...)
		}
	}
	if err := c.lay(); err != nil {
		return err
	}
	return c.conn.Send(answer, fds...)
}

// lay makes planes of the buffers.
func (c *camera) lay() error {
	if c.pool == nil {
		return fmt.Errorf("%w: start without buffers", wire.ErrProtocol)
	}
	l := c.pool.Layout()
	if l.Pixel != c.mode.Pixel || l.Width != c.mode.Width || l.Height != c.mode.Height {
		return fmt.Errorf("buffers for %s, the camera gives %s: %w", l, c.mode, hw.ErrUnsupported)
	}
	buffers := c.pool.Buffers()
	c.free = make(chan int, len(buffers))
	for i, b := range buffers {
		if b.Mem[0] == nil {
			return fmt.Errorf("buffers that the CPU cannot write to: %w", hw.ErrUnsupported)
		}
		c.frames = append(c.frames, memory.Planes(l, b))
		c.free <- i
	}
	return nil
}

// stream sends pictures and takes buffers back until the session ends.
func (c *camera) stream(ctx context.Context, cancel func()) error {
	var failed error
	done := make(chan struct{})
	go func() {
		defer close(done)
		failed = c.fillAll(ctx)
	}()
	err := c.takeBack(ctx, done)
	cancel()
	<-done
	if err == nil && !errors.Is(failed, context.Canceled) {
		return failed
	}
	return err
}

// takeBack handles messages while pictures are sent.
func (c *camera) takeBack(ctx context.Context, done <-chan struct{}) error {
	for {
		select {
		case l, open := <-c.inbox.letters:
			if !open {
				return c.inbox.ended()
			}
			wire.CloseAll(l.fds)
			if _, stop := l.m.(wire.Stop); stop {
				return nil
			}
			r, ok := l.m.(wire.Release)
			if !ok || int64(r.Index) >= int64(len(c.frames)) || len(c.free) == cap(c.free) {
				return unexpected(l.m)
			}
			c.free <- int(r.Index)
		case <-done:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// fillAll fills buffers and sends them until ctx ends or the source fails.
func (c *camera) fillAll(ctx context.Context) error {
	used := c.pool.Layout().Sizes
	for ctx.Err() == nil {
		index := -1
		select {
		case index = <-c.free:
		default: // the box has them all
		}
		stamp, seq, err := c.fill(ctx, index)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		}
		if index < 0 {
			continue
		}
		m := wire.Frame{Index: uint32(index), Seq: seq, Stamp: int64(stamp)}
		for i, n := range used {
			m.Used[i] = uint32(n)
		}
		if err := c.conn.Send(m); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

func (c *camera) fill(ctx context.Context, index int) (time.Duration, uint32, error) {
	if index < 0 {
		return c.src.Fill(ctx, nil)
	}
	hw.BeginAccess(c.frames[index], hw.Writing)
	defer hw.EndAccess(c.frames[index], hw.Writing)
	return c.src.Fill(ctx, c.frames[index])
}
