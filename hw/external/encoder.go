package external

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/external/memory"
	"encoderd.example/hw/external/wire"
	"encoderd.example/hw/yuv"
	"encoderd.example/stream"
)

const (
	// maxInflight bounds how many pictures a device may hold, whatever it asks
	// for: each may be a buffer that the camera waits for.
	maxInflight = 8
	// unitDepth is how many coded units wait for Next.
	unitDepth = 4
)

// An encoder is a running encoder program; it implements [hw.Encoder].
//
//	Submit ─► queue ─► send: attach or copy ─► device ─► receive ─┬─ Returned: release
//	                                                              └─ Unit: out of the ring ─► units ─► Next
//
// A device holds no more pictures than it said it would: Submit drops what is
// beyond. If nobody takes units, receive waits, the ring fills up, the device
// stops returning pictures, and Submit drops too.
type encoder struct {
	importer

	cfg    hw.EncoderConfig
	layout hw.Layout // of every picture that the device gets
	limit  int
	proc   *process
	ring   ring
	queue  chan request
	units  chan *stream.Unit
	params parameters // of receive

	key    atomic.Bool
	wanted atomic.Int64 // bit/s

	submitted, coded, dropped, swallowed, copied atomic.Uint64

	closing chan struct{}
	once    sync.Once
	failed  chan struct{} // closed when err is set
	failing sync.Once
	err     error
	ended   chan struct{} // closed when all of it is over

	mu     sync.Mutex
	closed bool
	begun  bool
	last   time.Duration   // stamp of the latest frame taken
	inside int             // frames queued or at the device
	slots  slots           // what the device has been given
	stamps []time.Duration // sent, no unit yet, rising
}

// A request is a frame to code; the encoder owns one reference.
type request struct {
	frame *hw.Frame
	stamp time.Duration // as it was when the frame was submitted
	key   bool
}

// open starts the program and brings it to coding.
func (im importer) open(cfg hw.EncoderConfig) (*encoder, error) {
	layout, err := im.check(cfg)
	if err != nil {
		return nil, err
	}
	e := &encoder{
		importer: im, cfg: cfg, layout: layout,
		units:   make(chan *stream.Unit, unitDepth),
		closing: make(chan struct{}), failed: make(chan struct{}), ended: make(chan struct{}),
	}
	e.params = parameters{width: cfg.Width, height: cfg.Height, fps: cfg.FPS.Float()}
	e.wanted.Store(int64(cfg.Bitrate))
	ctx := context.Background()
	p, hello, err := im.start(ctx)
	if err != nil {
		return nil, err
	}
	e.proc = p
	if err := e.negotiate(ctx, hello); err != nil {
		p.stop()
		return nil, errors.Join(err, e.ring.close())
	}
	e.queue = make(chan request, e.limit)
	go e.run()
	return e, nil
}

// check refuses what cannot be coded, and chooses the layout of the pictures:
// that of the camera if the device reads it, else one that we convert to.
func (im importer) check(cfg hw.EncoderConfig) (hw.Layout, error) {
	var bad string
	switch {
	case cfg.Codec != stream.H264:
		bad = "it codes h264, not " + cfg.Codec.String()
	case cfg.FPS.Num < 1 || cfg.FPS.Den < 1:
		bad = fmt.Sprintf("frame rate %d/%d", cfg.FPS.Num, cfg.FPS.Den)
	case cfg.GOP < 1:
		bad = fmt.Sprintf("%d frames from key to key", cfg.GOP)
	case len(cfg.Profile) >= len(wire.OpenEncoder{}.Profile):
		bad = fmt.Sprintf("profile %q", cfg.Profile)
	case cfg.Width%2+cfg.Height%2 > 0:
		bad = fmt.Sprintf("size %dx%d is not even", cfg.Width, cfg.Height)
	}
	if bad != "" {
		return hw.Layout{}, fmt.Errorf("%s: %w", bad, hw.ErrUnsupported)
	}
	if err := checkBitrate(cfg.Bitrate); err != nil {
		return hw.Layout{}, err
	}
	if cfg.Input.Width == cfg.Width && cfg.Input.Height == cfg.Height {
		if l, err := im.Layout(cfg.Input); err == nil && l == cfg.Input {
			return l, nil
		}
	}
	return im.Layout(hw.Layout{Pixel: im.convertible(), Width: cfg.Width, Height: cfg.Height})
}

// convertible names the best format that the CPU can convert to, else the best
// of all.
func (im importer) convertible() hw.PixelFormat {
	for _, p := range im.Takes() {
		if p == hw.NV12 || p == hw.I420 {
			return p
		}
	}
	return im.Takes()[0]
}

// checkBitrate bounds a video bit rate by what level 6.2 allows (H.264 table
// A-1) at the upper end.
func checkBitrate(bps int) error {
	if bps < 1000 || bps > 800_000_000 {
		return fmt.Errorf("%d bit/s must be 1000 to 800000000: %w", bps, hw.ErrUnsupported)
	}
	return nil
}

// negotiate opens the encoder in the program.
func (e *encoder) negotiate(ctx context.Context, hello wire.Message) error {
	if _, err := readEncoder(hello); err != nil {
		return err
	}
	if err := e.ring.make(e.cfg.Width, e.cfg.Height); err != nil {
		return err
	}
	m := wire.OpenEncoder{
		Codec: wire.CodecH264, Width: uint32(e.cfg.Width), Height: uint32(e.cfg.Height),
		RateNum: uint32(e.cfg.FPS.Num), RateDen: uint32(e.cfg.FPS.Den),
		GOP: uint32(e.cfg.GOP), Bitrate: uint32(e.cfg.Bitrate),
		RingSize: uint32(len(e.ring.mem)), Layout: wire.LayoutOf(e.layout),
	}
	wire.PutText(m.Profile[:], e.cfg.Profile)
	err := e.proc.send(m, e.ring.fd)
	if err != nil {
		return err
	}
	opened, err := expect[wire.EncoderOpened](ctx, e.proc)
	if err != nil {
		return err
	}
	if opened.Inflight < 1 {
		return violation("an encoder that holds no picture")
	}
	e.limit = int(min(opened.Inflight, maxInflight))
	return nil
}

// Submit implements [hw.Encoder].
func (e *encoder) Submit(f *hw.Frame) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-e.failed:
		return e.err
	default:
	}
	if e.closed {
		return e.errClosed()
	}
	if err := e.acceptable(f); err != nil {
		e.dropped.Add(1)
		return fmt.Errorf("%s: %w", e.id, err)
	}
	// Room is counted here alone, and the queue is as long as the limit.
	e.inside++
	e.queue <- request{f.Retain(), f.Stamp, e.key.Swap(false)}
	e.begun, e.last = true, f.Stamp
	e.submitted.Add(1)
	return nil
}

// acceptable says whether a frame can be taken now, under mu.
func (e *encoder) acceptable(f *hw.Frame) error {
	if e.begun && f.Stamp <= e.last {
		return fmt.Errorf("frame stamped %s after one stamped %s: stamps must rise: %w", f.Stamp, e.last, hw.ErrUnsupported)
	}
	if _, _, direct := e.direct(f); !direct {
		if err := e.copyable(f); err != nil {
			return err
		}
	}
	if e.inside >= e.limit {
		return hw.ErrBusy
	}
	return nil
}

// direct reports whether the device can read f in place, and by which
// descriptors.
func (e *encoder) direct(f *hw.Frame) (fds [3]int, buffers int, ok bool) {
	if f.FullRange || len(f.Planes) == 0 || f.Planes[0].FD < 0 {
		return fds, 0, false
	}
	l, fds, err := memory.LayoutOf(f)
	if err != nil || l.Planes != e.layout.Planes || l.Pixel != e.layout.Pixel || l.Width != e.layout.Width || l.Height != e.layout.Height {
		return fds, 0, false
	}
	need := uint32(wire.ReadsShared | wire.Allocates) // memfds in frames come from its own pools
	if memory.IsDMABuf(fds[0]) {
		need = wire.ReadsDMABuf
	}
	if e.flags&need == 0 {
		return fds, 0, false
	}
	return fds, l.Buffers(), true
}

// copyable says whether the CPU can bring f to the device's layout.
func (e *encoder) copyable(f *hw.Frame) error {
	if err := yuv.Whole(f); err != nil {
		return err
	}
	if p := e.layout.Pixel; p != hw.NV12 && p != hw.I420 && (f.Pixel != p || f.Width != e.layout.Width || f.Height != e.layout.Height || f.FullRange) {
		return fmt.Errorf("it reads %s only: %w", e.layout, hw.ErrUnsupported)
	}
	return nil
}

// Next implements [hw.Encoder].
func (e *encoder) Next(ctx context.Context) (*stream.Unit, error) {
	select {
	case u := <-e.units:
		return u, nil
	case <-e.failed:
		return nil, e.err
	case <-e.closing:
		return nil, e.errClosed()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (e *encoder) errClosed() error { return fmt.Errorf("%s: %w", e.id, os.ErrClosed) }

// SetBitrate implements [hw.Encoder].
func (e *encoder) SetBitrate(bps int) error {
	if err := checkBitrate(bps); err != nil {
		return fmt.Errorf("%s: %w", e.id, err)
	}
	e.wanted.Store(int64(bps))
	return nil
}

// ForceKey implements [hw.Encoder].
func (e *encoder) ForceKey() { e.key.Store(true) }

// Stats implements [hw.Encoder].
func (e *encoder) Stats() hw.EncoderStats {
	return hw.EncoderStats{
		Submitted:   e.submitted.Load(),
		Coded:       e.coded.Load(),
		Dropped:     e.dropped.Load(),
		Swallowed:   e.swallowed.Load(),
		CopiedBytes: e.copied.Load(),
	}
}

// Close implements [hw.Encoder]. A program that does not end is killed, which
// takes some seconds. It may be called more than once.
func (e *encoder) Close() error {
	e.once.Do(func() {
		e.mu.Lock()
		e.closed = true
		e.mu.Unlock()
		close(e.closing)
		e.proc.stop()
	})
	<-e.ended
	return nil
}

// run keeps both directions going until one of them fails or Close is called,
// and gives back everything.
func (e *encoder) run() {
	defer close(e.ended)
	var sending sync.WaitGroup
	sending.Go(func() {
		s := sender{encoder: e, bitrate: e.cfg.Bitrate}
		e.fail(s.run())
		e.closePool(s.pool)
	})
	e.fail(e.receive())
	sending.Wait()
	e.giveBack()
	if err := e.ring.close(); err != nil {
		e.log.Warn("a ring stays mapped", "device", e.id, "err", err)
	}
}

func (e *encoder) closePool(p *memory.Pool) {
	if p == nil {
		return
	}
	if err := p.Close(); err != nil {
		e.log.Warn("a buffer stays mapped", "device", e.id, "err", err)
	}
}

// fail keeps the first error and ends the program: a device that has failed
// once is opened anew.
func (e *encoder) fail(err error) {
	if err == nil {
		return
	}
	e.failing.Do(func() {
		defer close(e.failed)
		select {
		case <-e.closing: // Close ends it
			e.err = e.errClosed()
			return
		default:
		}
		e.err = fmt.Errorf("%s: %w", e.id, err)
		if errors.Is(err, wire.ErrProtocol) {
			e.log.Error("a device program broke the protocol and is ended", "device", e.id, "err", err)
		}
		e.proc.signal(unix.SIGKILL)
	})
}

// giveBack releases every frame that is still inside.
func (e *encoder) giveBack() {
	e.mu.Lock()
	e.closed = true
	frames := e.slots.clear()
	e.mu.Unlock()
	for {
		select {
		case r := <-e.queue:
			frames = append(frames, r.frame)
			continue
		default:
		}
		break
	}
	for _, f := range frames {
		f.Release()
	}
}

// receive takes what the device sends until it ends or Close is called.
func (e *encoder) receive() error {
	for {
		m, fds, err := e.proc.receive(context.Background(), forever)
		if err != nil {
			return err
		}
		if len(fds) > 0 {
			wire.CloseAll(fds)
			return violation("%s with descriptors while it runs", wire.Name(m))
		}
		switch m := m.(type) {
		case wire.Returned:
			err = e.returned(m)
		case wire.Unit:
			err = e.unit(m)
		case wire.Bye:
			err = fmt.Errorf("it has said goodbye: %w", hw.ErrGone)
		default:
			err = violation("%s while it runs", wire.Name(m))
		}
		if err != nil {
			return err
		}
	}
}

// returned takes a picture back.
func (e *encoder) returned(m wire.Returned) error {
	e.mu.Lock()
	f, ok := e.slots.take(m.Index)
	if ok {
		e.inside--
	}
	e.mu.Unlock()
	if !ok {
		return violation("picture %d comes back, which it does not have", m.Index)
	}
	if f != nil {
		f.Release()
	}
	return nil
}

// unit takes a coded picture out of the ring.
func (e *encoder) unit(m wire.Unit) error {
	stamp := time.Duration(m.Stamp)
	if err := e.settle(stamp); err != nil {
		return err
	}
	coded, err := e.ring.take(m.Position, m.Length)
	if err != nil {
		return err
	}
	if err := e.proc.send(wire.Taken{Position: m.Position + uint64(m.Length)}); err != nil {
		return err
	}
	u, err := e.params.unit(coded, int(e.wanted.Load()))
	if err != nil {
		return err
	}
	u.PTS, u.DTS = stamp, stamp
	e.coded.Add(1)
	select {
	case e.units <- u:
	case <-e.closing:
	case <-e.failed:
	}
	return nil
}

// settle finds the picture that a unit came from. Those before it are not
// coming any more.
func (e *encoder) settle(stamp time.Duration) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i, s := range e.stamps {
		if s == stamp {
			e.swallowed.Add(uint64(i))
			e.stamps = append(e.stamps[:0], e.stamps[i+1:]...)
			return nil
		}
	}
	return violation("a unit stamped %s, which no picture was that waits for one", stamp)
}
