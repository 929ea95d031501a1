package soft

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/yuv"
	"encoderd.example/stream"
	"encoderd.example/stream/h264"
)

// queueDepth is how many frames may wait for the encoder beside the one that
// is being coded, and how many coded units for Next. A busy machine hands
// frames over in bursts: four bridge 100 ms at 30 fps, and leave a V4L2 camera
// two of its six buffers.
const queueDepth = 3

// X264 returns the driver of the system's libx264: H.264, preset veryfast and
// tune zerolatency unless asked otherwise, one unit out for each frame in, no
// B frames, limited range. Key frames come at the GOP and on demand, with their
// parameter sets in front, and with pictures of another matrix, which the
// parameter sets then say. The rate is held over any second (VBV).
//
// Open fails with an error that wraps [hw.ErrMissing] if the library is not
// installed, and [hw.ErrUnsupported] if its build or the config does not fit.
func X264() hw.EncoderDriver { return x264Driver(x264Names()) }

func x264Driver(names []string) hw.EncoderDriver {
	lib := &lazy[x264Lib]{load: func() (*x264Lib, error) { return loadX264(names) }}
	return hw.EncoderDriver{
		Name:   "libx264",
		Codecs: []stream.Codec{stream.H264},
		Open: func(cfg hw.EncoderConfig) (hw.Encoder, error) {
			l, err := lib.get()
			if err != nil {
				return nil, err
			}
			return openX264(l, cfg)
		},
	}
}

// An x264Encoder is one running encoder.
//
//	Submit ─► queue (3 retained frames) ─► work: convert, encode, release ─► units (3) ─► Next
//
// If nobody takes units, work waits, the queue fills up and Submit drops.
type x264Encoder struct {
	cfg     hw.EncoderConfig
	queue   chan request
	units   chan *stream.Unit
	stop    chan struct{} // closed by Close
	stopped chan struct{} // closed when work has returned
	err     error         // why work returned; read after stopped

	key     atomic.Bool  // the next frame submitted is to be a key frame
	bitrate atomic.Int64 // wanted, bit/s

	submitted, coded, dropped, swallowed, copied atomic.Uint64

	mu     sync.Mutex
	closed bool
	last   time.Duration // stamp of the latest frame taken
	begun  bool
}

// A request is a frame to code; work owns one reference.
type request struct {
	frame *hw.Frame
	key   bool
}

func openX264(lib *x264Lib, cfg hw.EncoderConfig) (*x264Encoder, error) {
	cfg, err := checkX264(cfg)
	if err != nil {
		return nil, err
	}
	matrix := hw.Mode{Height: cfg.Height}.Colors() // a guess: no picture has been seen
	session, err := lib.session(cfg, matrix)
	if err != nil {
		return nil, err
	}
	e := &x264Encoder{
		cfg:     cfg,
		queue:   make(chan request, queueDepth),
		units:   make(chan *stream.Unit, queueDepth),
		stop:    make(chan struct{}),
		stopped: make(chan struct{}),
	}
	e.bitrate.Store(int64(cfg.Bitrate))
	go func() {
		defer close(e.stopped)
		w := x264Worker{x264Encoder: e, session: session, signalled: matrix, bitrate: cfg.Bitrate}
		e.err = w.run()
	}()
	return e, nil
}

// Submit implements [hw.Encoder].
func (e *x264Encoder) Submit(f *hw.Frame) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-e.stopped:
		return e.why()
	default:
	}
	if e.closed {
		return errClosed
	}
	if e.begun && f.Stamp <= e.last {
		e.dropped.Add(1)
		return fmt.Errorf("libx264: frame stamped %s after one stamped %s: stamps must rise: %w", f.Stamp, e.last, hw.ErrUnsupported)
	}
	if err := yuv.Whole(f); err != nil {
		e.dropped.Add(1)
		return fmt.Errorf("libx264: %w", err)
	}
	// Only Submit sends, under the lock: room that is seen stays.
	if len(e.queue) == cap(e.queue) {
		e.dropped.Add(1)
		return fmt.Errorf("libx264: %w", hw.ErrBusy)
	}
	e.queue <- request{f.Retain(), e.key.Swap(false)}
	e.begun, e.last = true, f.Stamp
	e.submitted.Add(1)
	return nil
}

// Next implements [hw.Encoder].
func (e *x264Encoder) Next(ctx context.Context) (*stream.Unit, error) {
	select {
	case u := <-e.units:
		return u, nil
	case <-e.stopped:
		return nil, e.why()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// why says why work returned; only after stopped.
func (e *x264Encoder) why() error {
	if e.err != nil {
		return e.err
	}
	return errClosed
}

// SetBitrate implements [hw.Encoder].
func (e *x264Encoder) SetBitrate(bps int) error {
	if err := checkBitrate(bps); err != nil {
		return err
	}
	e.bitrate.Store(int64(bps))
	return nil
}

// ForceKey implements [hw.Encoder].
func (e *x264Encoder) ForceKey() { e.key.Store(true) }

// Stats implements [hw.Encoder].
func (e *x264Encoder) Stats() hw.EncoderStats {
	return hw.EncoderStats{
		Submitted:   e.submitted.Load(),
		Coded:       e.coded.Load(),
		Dropped:     e.dropped.Load(),
		Swallowed:   e.swallowed.Load(),
		CopiedBytes: e.copied.Load(),
	}
}

// Close implements [hw.Encoder]. It waits for the frame that is being coded
// and may be called more than once.
func (e *x264Encoder) Close() error {
	e.mu.Lock()
	if !e.closed {
		e.closed = true
		close(e.stop)
	}
	e.mu.Unlock()
	<-e.stopped
	return nil
}

// An x264Worker is the goroutine that owns the session.
type x264Worker struct {
	*x264Encoder

	session   *x264Session
	signalled hw.Matrix // by the session
	convert   *yuv.Converter
	matrix    hw.Matrix // of the pictures so far, at first unsaid
	bitrate   int       // that the session works at
	track     *stream.Track
	sps       []byte
	pps       []byte
}

// run codes until Close or an error, and gives back what is left.
func (w *x264Worker) run() error {
	defer func() { w.session.close() }()
	defer w.drain()
	for {
		select {
		case <-w.stop:
			return nil
		case r := <-w.queue:
			u, err := w.code(r)
			if err != nil {
				return err
			}
			if u == nil {
				continue
			}
			select {
			case w.units <- u:
			case <-w.stop:
				return nil
			}
		}
	}
}

// drain shuts the door and releases the frames that were not coded.
func (w *x264Worker) drain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for {
		select {
		case r := <-w.queue:
			r.frame.Release()
		default:
			return
		}
	}
}

// code codes one frame and releases it. It returns nil if nothing came out.
func (w *x264Worker) code(r request) (*stream.Unit, error) {
	defer r.frame.Release()
	if err := w.adapt(r.frame.Mode); err != nil {
		return nil, err
	}
	hw.BeginAccess(r.frame.Planes, hw.Reading)
	defer hw.EndAccess(r.frame.Planes, hw.Reading)
	picture, err := w.convert.Convert(r.frame)
	if err != nil {
		return nil, fmt.Errorf("libx264: %w", err)
	}
	w.copied.Add(uint64(picture.Copied))
	coded, stamp, err := w.session.encode(picture, int64(r.frame.Stamp), r.key)
	if err != nil {
		return nil, err
	}
	if len(coded) == 0 {
		w.swallowed.Add(1)
		return nil, nil //nolint:nilnil // no unit is not an error: the encoder swallowed the frame
	}
	u := &stream.Unit{Data: make([]byte, len(coded)), PTS: time.Duration(stamp), DTS: time.Duration(stamp)}
	copy(u.Data, coded)
	if err := w.describe(u); err != nil {
		return nil, err
	}
	w.coded.Add(1)
	return u, nil
}

// adapt follows the wanted bit rate and the mode of the frames.
func (w *x264Worker) adapt(m hw.Mode) error {
	if bps := int(w.x264Encoder.bitrate.Load()); bps != w.bitrate {
		if err := w.session.setRate(bps); err != nil {
			return err
		}
		w.bitrate = bps
	}
	if w.convert != nil && w.convert.Fits(m) {
		return nil
	}
	// A picture that does not say, such as a slate, goes with those before it.
	w.matrix = cmp.Or(m.Matrix, w.matrix, m.Colors())
	c, err := yuv.New(m, hw.Mode{Width: w.cfg.Width, Height: w.cfg.Height, Matrix: w.matrix})
	if err != nil {
		return fmt.Errorf("libx264: %w", err)
	}
	w.convert = c
	return w.signal()
}

// signal makes the parameter sets say the matrix of the pictures. libx264 takes
// it at the beginning only.
func (w *x264Worker) signal() error {
	if w.matrix == w.signalled {
		return nil
	}
	cfg := w.cfg
	cfg.Bitrate = w.bitrate
	next, err := w.session.lib.session(cfg, w.matrix)
	if err != nil {
		return err
	}
	w.session.close()
	w.session, w.signalled = next, w.matrix
	return nil
}

// describe finds out whether u is a key unit and which track it belongs to.
func (w *x264Worker) describe(u *stream.Unit) error {
	var sps, pps []byte
	for nal := range h264.NALs(u.Data) {
		switch h264.Type(nal) {
		case h264.TypeIDR:
			u.Key = true
		case h264.TypeSPS:
			sps = nal
		case h264.TypePPS:
			pps = nal
		}
	}
	if sps != nil && pps != nil && (string(sps) != string(w.sps) || string(pps) != string(w.pps)) {
		if err := w.newTrack(sps, pps); err != nil {
			return err
		}
	}
	if w.track == nil {
		return errors.New("libx264: the first picture has no parameter sets")
	}
	u.Track = w.track
	return nil
}

// newTrack begins a track. That the size in the parameter set is the one that
// was asked for is the last check that C and we agree on its structures.
func (w *x264Worker) newTrack(sps, pps []byte) error {
	info, err := h264.ParseSPS(sps)
	if err != nil {
		return fmt.Errorf("libx264: %w", err)
	}
	if info.Width != w.cfg.Width || info.Height != w.cfg.Height {
		return fmt.Errorf("%s codes %dx%d instead of %dx%d: %w",
			w.session.lib.name, info.Width, info.Height, w.cfg.Width, w.cfg.Height, hw.ErrUnsupported)
	}
	setup, err := h264.ConfigRecord(sps, pps)
	if err != nil {
		return fmt.Errorf("libx264: %w", err)
	}
	w.sps, w.pps = sps, pps
	w.track = &stream.Track{
		Codec:   stream.H264,
		Setup:   setup,
		Width:   info.Width,
		Height:  info.Height,
		FPS:     w.cfg.FPS.Float(),
		Bitrate: w.bitrate,
	}
	return nil
}
