package device

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/external/memory"
	"encoderd.example/hw/external/wire"
	"encoderd.example/stream"
	"encoderd.example/stream/h264"
)

// inflight is how many pictures an encoder here holds.
const inflight = 4

// HelloEncoder returns what an encoder says of itself that runs on the CPU: it
// reads every format that the box moves, from memory of any kind, at any
// stride.
func HelloEncoder(name string) wire.HelloEncoder {
	h := wire.HelloEncoder{
		Version: wire.Version, Flags: wire.ReadsShared | wire.ReadsDMABuf, Codecs: wire.CodecH264,
		MinWidth: 16, MinHeight: 16, MaxWidth: 8192, MaxHeight: 8192, Step: 2,
	}
	wire.PutText(h.Name[:], name)
	for _, p := range []hw.PixelFormat{hw.NV12, hw.I420, hw.YUYV, hw.I422} {
		h.Format[h.Formats] = wire.Format{Pixel: uint32(p), StrideAlign: 1, LinesAlign: 1, Flags: wire.AnyStride | wire.AnyPlace}
		h.Formats++
	}
	return h
}

// Encoder serves an encoder of driver, which codes H.264, until the box ends
// the session or ctx ends. hello is what it says of itself.
func Encoder(ctx context.Context, conn *wire.Conn, hello wire.HelloEncoder, driver hw.EncoderDriver) error {
	return report(conn, serveEncoder(ctx, conn, hello, driver))
}

func serveEncoder(ctx context.Context, conn *wire.Conn, hello wire.HelloEncoder, driver hw.EncoderDriver) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := conn.Send(hello); err != nil {
		return err
	}
	e := &encoder{conn: conn, driver: driver, room: make(chan struct{}, 1)}
	defer e.close()
	inbox := receive(ctx, conn)
	for {
		select {
		case l, open := <-inbox.letters:
			if !open {
				return inbox.ended()
			}
			if _, stop := l.m.(wire.Stop); stop {
				return nil
			}
			if err := e.handle(ctx, cancel, l); err != nil {
				return err
			}
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		}
	}
}

// An encoder is one session.
type encoder struct {
	conn   *wire.Conn
	driver hw.EncoderDriver
	coder  hw.Encoder
	mode   hw.Mode // of the pictures
	layout hw.Layout
	slots  [wire.MaxBuffers]*memory.Pool // each of one buffer
	coding sync.WaitGroup

	ring []byte
	head uint64        // bytes written; of the coding goroutine
	room chan struct{} // tells that taken has grown

	mu    sync.Mutex
	taken uint64
}

func (e *encoder) close() {
	if e.coder != nil {
		_ = e.coder.Close() // gives the pictures back, so that they can be unmapped
	}
	e.coding.Wait()
	for _, p := range e.slots {
		if p != nil {
			_ = p.Close()
		}
	}
	_ = memory.Unmap(e.ring)
}

// handle handles one message.
func (e *encoder) handle(ctx context.Context, cancel context.CancelCauseFunc, l letter) error {
	switch m := l.m.(type) {
	case wire.OpenEncoder:
		return e.open(ctx, cancel, m, l.fds)
	case wire.Attach:
		return e.attach(m, l.fds)
	case wire.Allocate:
		return e.allocate(m)
	}
	wire.CloseAll(l.fds)
	if e.coder == nil {
		return unexpected(l.m)
	}
	switch m := l.m.(type) {
	case wire.Submit:
		return e.submit(m)
	case wire.Detach:
		return e.detach(m)
	case wire.Taken:
		e.free(m.Position)
		return nil
	case wire.Bitrate:
		return e.coder.SetBitrate(int(m.BitsPerSecond))
	default:
		return unexpected(m)
	}
}

func (e *encoder) open(ctx context.Context, cancel context.CancelCauseFunc, m wire.OpenEncoder, fds []int) error {
	defer wire.CloseAll(fds)
	if e.coder != nil || len(fds) != 1 || m.Codec != wire.CodecH264 {
		return unexpected(m)
	}
	if err := memory.Check(fds[0], int(m.RingSize)); err != nil {
		return err
	}
	e.layout = m.Layout.Layout()
	if _, err := memory.Needs(e.layout); err != nil {
		return err
	}
	var err error
	if e.ring, err = memory.Map(fds[0], int(m.RingSize), true); err != nil {
		return err
	}
	rate := hw.Rate{Num: int(m.RateNum), Den: int(m.RateDen)}
	e.mode = hw.Mode{Pixel: e.layout.Pixel, Width: e.layout.Width, Height: e.layout.Height, FPS: rate, Matrix: hw.BT709} // by the protocol
	e.coder, err = e.driver.Open(hw.EncoderConfig{
		Codec: stream.H264, Width: int(m.Width), Height: int(m.Height), FPS: rate,
		GOP: int(m.GOP), Bitrate: int(m.Bitrate), Profile: wire.Text(m.Profile[:]),
	})
	if err != nil {
		e.coder = nil // not a nil pointer in an interface
		return err
	}
	e.coding.Go(func() { cancel(e.code(ctx)) })
	return e.conn.Send(wire.EncoderOpened{Inflight: inflight})
}

// allocate makes buffers for the box.
func (e *encoder) allocate(m wire.Allocate) error {
	l := m.Layout.Layout()
	if m.Count < 1 || m.Count > wire.MaxBuffers {
		return unexpected(m)
	}
	pool, err := memory.NewPool(l, int(m.Count))
	if err != nil {
		return err
	}
	var fds []int
	for _, b := range pool.Buffers() {
		fds = append(fds, b.FDs[:l.Buffers()]...)
	}
	return errors.Join(e.conn.Send(wire.Buffers{Count: m.Count, Layout: m.Layout}, fds...), pool.Close())
}

func (e *encoder) attach(m wire.Attach, fds []int) error {
	if e.coder == nil || int64(m.Index) >= int64(len(e.slots)) || e.slots[m.Index] != nil || len(fds) != e.layout.Buffers() {
		wire.CloseAll(fds)
		return unexpected(m)
	}
	pool, err := memory.Adopt(e.layout, fds, false)
	e.slots[m.Index] = pool
	return err
}

func (e *encoder) detach(m wire.Detach) error {
	if int64(m.Index) >= int64(len(e.slots)) || e.slots[m.Index] == nil {
		return unexpected(m)
	}
	pool := e.slots[m.Index]
	e.slots[m.Index] = nil
	return pool.Close()
}

// submit lends a picture to the encoder. One that the encoder has no room for
// goes back at once: no unit will come of it.
func (e *encoder) submit(m wire.Submit) error {
	if int64(m.Index) >= int64(len(e.slots)) || e.slots[m.Index] == nil {
		return unexpected(m)
	}
	b := e.slots[m.Index].Buffers()[0]
	f := hw.NewFrame(func(*hw.Frame) {
		_ = e.conn.Send(wire.Returned{Index: m.Index}) // the box may have closed
	})
	f.Mode, f.Stamp, f.Planes = e.mode, time.Duration(m.Stamp), memory.Planes(e.layout, b)
	f.Lend()
	defer f.Release()
	if m.Flags&wire.KeyFrame != 0 {
		e.coder.ForceKey()
	}
	if err := e.coder.Submit(f); err != nil && !errors.Is(err, hw.ErrBusy) {
		return err
	}
	return nil
}

// code sends units until the encoder is closed.
func (e *encoder) code(ctx context.Context) error {
	for {
		u, err := e.coder.Next(ctx)
		if err != nil {
			return err
		}
		if err := e.sendUnit(ctx, u); err != nil {
			return err
		}
	}
}

// sendUnit writes a unit to the ring, in one piece, and tells the box.
func (e *encoder) sendUnit(ctx context.Context, u *stream.Unit) error {
	coded := byteStream(u.Data)
	size := uint64(len(e.ring))
	if uint64(len(coded)) > size/2 {
		return fmt.Errorf("a unit of %d bytes in a ring of %d: %w", len(coded), size, hw.ErrUnsupported)
	}
	if rest := size - e.head%size; rest < uint64(len(coded)) {
		e.head += rest
	}
	end := e.head + uint64(len(coded))
	for !e.fits(end) {
		select {
		case <-e.room:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	copy(e.ring[e.head%size:], coded)
	m := wire.Unit{Position: e.head, Stamp: int64(u.PTS), Length: uint32(len(coded))}
	e.head = end
	return e.conn.Send(m)
}

func (e *encoder) fits(end uint64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return end-e.taken <= uint64(len(e.ring))
}

// free notes what the box has read.
func (e *encoder) free(position uint64) {
	e.mu.Lock()
	e.taken = position
	e.mu.Unlock()
	select {
	case e.room <- struct{}{}:
	default:
	}
}

// byteStream returns a unit with start codes instead of lengths.
func byteStream(data []byte) []byte {
	out := make([]byte, 0, len(data))
	for nal := range h264.NALs(data) {
		out = append(append(out, 0, 0, 0, 1), nal...)
	}
	return out
}
