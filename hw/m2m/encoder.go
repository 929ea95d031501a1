package m2m

import (
	"context"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/yuv"
	"encoderd.example/stream"
)

// ErrStuck says that the driver did not return from the call that stops it. The
// call is left behind; if it ever returns, the device is closed then. Until
// then the frames that it was given are not released.
var ErrStuck = fmt.Errorf("the encoder hangs: %w", hw.ErrStuck)

// closeWithin is how long Close waits for the driver.
const closeWithin = 2 * time.Second

// errClosed is what calls after Close fail with.
var errClosed = fmt.Errorf("encoder: %w", fs.ErrClosed)

// An Encoder is a running encoder; it implements [hw.Encoder]. Beyond that it
// tells why it copies pictures, and follows a new frame rate.
type Encoder struct {
	node     *node
	units    chan *stream.Unit
	closing  chan struct{} // closed by Close
	over     chan struct{} // closed when no more pictures go in or out
	err      error         // why, if it was not Close; read after over
	stopped  chan struct{} // closed when the device is closed
	errClose error         // what that said; read after stopped

	key     atomic.Bool // the next frame submitted is to be a key frame
	bitrate atomic.Int64
	rate    atomic.Pointer[hw.Rate]
	refused atomic.Pointer[string]
	// What the driver stays at since it has refused to change it while it runs;
	// zero until then.
	fixedBitrate atomic.Int64
	fixedRate    atomic.Pointer[hw.Rate]

	submitted, coded, dropped, swallowed, copied atomic.Uint64

	// mu guards the inbox. The device may be interrupted while open is true.
	mu     sync.Mutex
	open   bool
	closed bool // Close was called
	inside int  // frames that the device or the inbox holds
	inbox  []request
	last   time.Duration // stamp of the latest frame taken
	begun  bool
	wake   func()
}

// A request is a frame to code; whoever holds the request owns a reference.
type request struct {
	frame *hw.Frame
	key   bool
}

// open starts an encoder.
func open(n *node, cfg hw.EncoderConfig) (*Encoder, error) {
	if err := check(n, cfg); err != nil {
		return nil, err
	}
	s, err := newSession(n, cfg)
	if err != nil {
		return nil, err
	}
	e := &Encoder{
		node:    n,
		units:   make(chan *stream.Unit, mostInside+codedBuffers),
		closing: make(chan struct{}),
		over:    make(chan struct{}),
		stopped: make(chan struct{}),
		open:    true,
		wake:    s.dev.Interrupt,
	}
	e.bitrate.Store(int64(cfg.Bitrate))
	e.rate.Store(&cfg.FPS)
	w := newWorker(e, s)
	go func() {
		defer close(e.stopped)
		e.err = w.run()
		close(e.over)
		e.errClose = w.end(e.err)
	}()
	return e, nil
}

// Submit implements [hw.Encoder]. A frame in dma-bufs that the driver reads in
// place is not copied; it is released once the driver has read it.
func (e *Encoder) Submit(f *hw.Frame) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-e.over:
		return e.why()
	default:
	}
	if e.closed {
		return errClosed
	}
	if e.begun && f.Stamp <= e.last {
		e.dropped.Add(1)
		return fmt.Errorf("%s: frame stamped %s after one stamped %s: stamps must rise: %w", e.node.name, f.Stamp, e.last, hw.ErrUnsupported)
	}
	if err := yuv.Whole(f); err != nil && !shared(f) {
		e.dropped.Add(1)
		return fmt.Errorf("%s: %w", e.node.name, err)
	}
	if e.inside >= mostInside {
		e.dropped.Add(1)
		return fmt.Errorf("%s: %w", e.node.name, hw.ErrBusy)
	}
	e.inside++
	e.inbox = append(e.inbox, request{f.Retain(), e.key.Swap(false)})
	e.begun, e.last = true, f.Stamp
	e.submitted.Add(1)
	e.poke()
	return nil
}

// poke ends a wait of the worker. The caller holds mu.
func (e *Encoder) poke() {
	if e.open {
		e.wake()
	}
}

// nudge is poke for those who do not hold mu.
func (e *Encoder) nudge() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.poke()
}

// Next implements [hw.Encoder].
func (e *Encoder) Next(ctx context.Context) (*stream.Unit, error) {
	select {
	case u := <-e.units:
		return u, nil
	case <-e.over:
		return nil, e.why()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// why says why the worker returned; only after over.
func (e *Encoder) why() error {
	if e.err != nil {
		return e.err
	}
	return errClosed
}

// SetBitrate implements [hw.Encoder]. bps is moved into the limits of the driver
// and of the level that the encoder was opened with. The error wraps
// [hw.ErrUnsupported] if the hardware must be opened anew for that. Whether it
// must may show only when a driver refuses the first change: that one is told in
// the log, and the encoder goes on as it was.
func (e *Encoder) SetBitrate(bps int) error {
	fixed := e.fixedBitrate.Load()
	switch {
	case bps <= 0:
		return fmt.Errorf("%s: %d bit/s: %w", e.node.name, bps, hw.ErrUnsupported)
	case e.node.quirks.liveBitrate == no, fixed != 0 && fixed != int64(bps):
		return fmt.Errorf("%s cannot change its bit rate while it runs: %w", e.node.name, hw.ErrUnsupported)
	}
	e.bitrate.Store(int64(bps))
	e.nudge()
	return nil
}

// SetRate tells the encoder that pictures come at another rate from now on; it
// begins a new GOP with that rate in its parameter sets. The error wraps
// [hw.ErrUnsupported] if the hardware must be opened anew for that, which may
// show only when a driver refuses the first change, as with SetBitrate: its rate
// control then counts on by the rate before.
func (e *Encoder) SetRate(r hw.Rate) error {
	fixed := e.fixedRate.Load()
	switch {
	case r.Num <= 0 || r.Den <= 0:
		return fmt.Errorf("%s: %.4g fps: %w", e.node.name, r.Float(), hw.ErrUnsupported)
	case !e.node.quirks.liveRate, fixed != nil && *fixed != r:
		return fmt.Errorf("%s cannot change its frame rate while it runs: %w", e.node.name, hw.ErrUnsupported)
	}
	e.rate.Store(&r)
	e.nudge()
	return nil
}

// ForceKey implements [hw.Encoder]. Hardware that has no such order begins its
// GOP anew, which costs the time of the pictures inside.
func (e *Encoder) ForceKey() { e.key.Store(true) }

// CopyReason says in words why the driver does not read pictures that lie in
// memory of the right kind and layout; all are copied then. It is empty while
// none was refused.
func (e *Encoder) CopyReason() string {
	if why := e.refused.Load(); why != nil {
		return *why
	}
	return ""
}

// Stats implements [hw.Encoder]. Pictures that came out damaged, and those that
// cannot be shown without them, count as swallowed.
func (e *Encoder) Stats() hw.EncoderStats {
	return hw.EncoderStats{
		Submitted:   e.submitted.Load(),
		Coded:       e.coded.Load(),
		Dropped:     e.dropped.Load(),
		Swallowed:   e.swallowed.Load(),
		CopiedBytes: e.copied.Load(),
	}
}

// Close implements [hw.Encoder]. It waits at most two seconds for the driver,
// and then returns an error that wraps [ErrStuck]. It may be called more than
// once. What the encoder died of is no error of Close.
func (e *Encoder) Close() error {
	e.mu.Lock()
	if !e.closed {
		e.closed = true
		close(e.closing)
		e.poke()
	}
	e.mu.Unlock()
	timer := time.NewTimer(closeWithin)
	defer timer.Stop()
	select {
	case <-e.stopped:
		return e.errClose
	case <-timer.C:
		return fmt.Errorf("close %s: %w: it was given %s to stop", e.node.name, ErrStuck, closeWithin)
	}
}
