package v4l2

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/uapi"
)

// A cameraStream is a running capture; it implements [hw.SharedStream].
//
// A buffer goes round between three owners:
//
//	driver ──Dequeue, in Read──► reader ──good──► lent as hw.Frame
//	  ▲                            │ damaged             │ last Release,
//	  └──────────Enqueue───────────┴─────────────────────┘ any goroutine
//
// A buffer that the driver refuses to take back is parked and offered again by
// the next Read. From Close on a buffer that comes back is unmapped instead, and
// its dma-bufs are closed: Release never waits for the driver to stop.
type cameraStream struct {
	log    *slog.Logger
	now    func() time.Duration
	dev    *Device
	memory *memory
	mode   hw.Mode
	planes []plane
	plan   hw.BufferPlan
	lag    time.Duration // from the begin of a picture to its stamp
	frames []*hw.Frame   // one for each buffer, lent again and again
	signal *receiver     // nil but on inputs that see a cable
	// restore selects the input that was selected before.
	restore func() error

	good, missed, damaged atomic.Uint64

	// reading is held by Read, and by Close once Read has left for good. It
	// guards what only the reader needs.
	reading sync.Mutex
	stamps  stamps
	before  Done // the last buffer that came, if any did
	began   bool
	seq     uint32 // of the last picture, as we count
	warned  bool   // about stamps
	headers headers

	closing   atomic.Bool // Read must leave
	closeOnce sync.Once
	errClose  error

	// mu guards where the buffers are, and their mappings. While stopped is false
	// the device is open. It is never held over a call that may take its time.
	mu      sync.Mutex
	stopped bool
	lent    []bool
	parked  []int
}

// newStream builds the frames over the buffers.
func newStream(c *Camera, d *Device, m *memory, set setting) (*cameraStream, error) {
	if m.len() < minBuffers {
		return nil, fmt.Errorf("open %s: the driver makes only %d buffers, %d are needed: free memory or choose a smaller picture", c.path, m.len(), minBuffers)
	}
	s := &cameraStream{log: c.log.With("camera", c.id), now: c.now, dev: d, memory: m, mode: set.mode, planes: set.planes, lent: make([]bool, m.len())}
	for i := range m.len() {
		for _, p := range set.planes {
			if size := m.bufs[i].size[p.mem]; p.offset+p.need > size {
				return nil, fmt.Errorf("open %s: a buffer of %d bytes is too small for %s", c.path, size, set.mode)
			}
		}
		s.frames = append(s.frames, s.newFrame(i))
	}
	return s, nil
}

func (s *cameraStream) newFrame(index int) *hw.Frame {
	f := hw.NewFrame(func(*hw.Frame) { s.released(index) })
	f.Mode = s.mode
	f.Planes = make([]hw.Plane, len(s.planes))
	return f
}

// queueAll gives all buffers to the driver.
func (s *cameraStream) queueAll() error {
	for i := range s.memory.len() {
		if err := s.memory.enqueue(i); err != nil {
			return err
		}
	}
	return nil
}

// Plan implements [hw.SharedStream].
func (s *cameraStream) Plan() hw.BufferPlan { return s.plan }

// Mode implements [hw.CameraStream].
func (s *cameraStream) Mode() hw.Mode { return s.mode }

// Stats implements [hw.CameraStream].
func (s *cameraStream) Stats() hw.CameraStats {
	return hw.CameraStats{Frames: s.good.Load(), Missed: s.missed.Load(), Damaged: s.damaged.Load()}
}

// Read implements [hw.CameraStream]. It waits for as long as the camera sends
// nothing or all buffers are lent; on inputs that see a cable it fails with
// [hw.ErrNoSignal] once the signal has gone or is another one. After Close it
// fails with [fs.ErrClosed].
func (s *cameraStream) Read(ctx context.Context) (*hw.Frame, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	var events int16
	for {
		if err := s.ready(ctx); err != nil {
			return nil, err
		}
		d, err := s.memory.queue.Dequeue()
		switch {
		case err == nil:
			events = 0
			if f := s.accept(d); f != nil {
				return f, nil
			}
		case !errors.Is(err, unix.EAGAIN):
			return nil, err
		case events&(unix.POLLERR|unix.POLLHUP) != 0:
			return nil, s.broken(events)
		default:
			if events, err = s.wait(ctx); err != nil {
				return nil, err
			}
		}
	}
}

// wait waits for a buffer or for news of the signal.
func (s *cameraStream) wait(ctx context.Context) (int16, error) {
	if s.signal == nil {
		return s.dev.Wait(ctx, unix.POLLIN)
	}
	return s.signal.wait(ctx, s.dev)
}

// ready says whether reading may go on, and offers parked buffers again.
func (s *cameraStream) ready(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if s.closing.Load() {
		return fmt.Errorf("read %s: %w", s.dev.Path(), fs.ErrClosed)
	}
	if err := s.signal.unchanged(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.parked) > 0 {
		if err := s.memory.enqueue(s.parked[0]); err != nil {
			return err
		}
		s.parked = s.parked[1:]
	}
	return nil
}

// broken explains a poll that reports an error while no buffer does.
func (s *cameraStream) broken(events int16) error {
	if events&unix.POLLHUP != 0 {
		return fmt.Errorf("read %s: %w", s.dev.Path(), hw.ErrGone)
	}
	return fmt.Errorf("read %s: the driver has stopped: %w", s.dev.Path(), unix.EIO)
}

// accept turns a buffer into a lent frame, or counts it as damaged, gives it
// back to the driver and returns nil.
func (s *cameraStream) accept(d Done) *hw.Frame {
	repeated := s.count(d)
	f := s.frames[d.Index]
	if repeated || d.Flags&uapi.BufFlagError != 0 || !s.fill(f, d) {
		s.damaged.Add(1)
		s.giveBack(d.Index)
		return nil
	}
	stamp, own := s.stamps.next(d.Flags, s.begin(d), s.now())
	if !own && !s.warned {
		s.warned = true
		s.log.Warn("the camera's time stamps are replaced", "stamp", d.Stamp, "used", stamp)
	}
	f.Stamp, f.Seq = stamp, s.seq
	s.mu.Lock()
	s.lent[d.Index] = true
	s.mu.Unlock()
	s.good.Add(1)
	return f.Lend()
}

// begin returns when the picture of d began, as the driver says.
func (s *cameraStream) begin(d Done) time.Duration {
	if d.Flags&stampsBegin != 0 {
		return d.Stamp
	}
	return d.Stamp - s.lag
}

// count follows the driver's numbers and counts what they leave out. Ours rise
// with every picture: some drivers repeat a number when they are late, count
// from zero again, or do not count. It reports whether the driver sent the
// picture before once more.
func (s *cameraStream) count(d Done) (repeated bool) {
	defer func() { s.before, s.began = d, true }()
	if !s.began {
		s.seq = d.Sequence
		return false
	}
	if d.Sequence == s.before.Sequence && d.Stamp == s.before.Stamp {
		return true
	}
	step := max(int32(d.Sequence-s.before.Sequence), 1)
	s.missed.Add(uint64(step - 1))
	s.seq += uint32(step)
	return false
}

// fill sets the planes of f to the bytes that the driver wrote and reports
// whether they are a whole picture.
func (s *cameraStream) fill(f *hw.Frame, d Done) bool {
	for i, p := range s.planes {
		used, size := d.Used[p.mem], s.memory.bufs[d.Index].size[p.mem]
		begin := d.DataStart[p.mem] + p.offset // bytes used counts from the start of the buffer
		if used > size || begin+p.need > used {
			return false
		}
		end := min(begin+p.size, size)
		if s.mode.Pixel.Coded() {
			end = used
		}
		f.Planes[i] = s.memory.plane(d.Index, p.mem, begin, end)
		f.Planes[i].Stride = p.stride
	}
	if s.mode.Pixel.Coded() {
		return s.trim(&f.Planes[0])
	}
	return true
}

// trim cuts a coded picture out of what the camera sent, and reports whether
// there is one.
func (s *cameraStream) trim(p *hw.Plane) (ok bool) {
	if s.mode.Pixel == hw.H264 {
		p.Data, ok = s.headers.complete(p.Data)
	} else {
		p.Data, ok = trimJPEG(p.Data)
	}
	return ok
}

// released is the end of a lent frame.
func (s *cameraStream) released(index int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lent[index] = false
	if s.stopped {
		s.letGo(index)
		return
	}
	s.enqueue(index)
}

func (s *cameraStream) giveBack(index int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enqueue(index)
}

// enqueue hands a buffer to the driver, under mu. What the driver says to a
// second offer is Read's to report.
func (s *cameraStream) enqueue(index int) {
	if err := s.memory.enqueue(index); err != nil {
		s.parked = append(s.parked, index)
		s.dev.Interrupt()
	}
}

// letGo is for buffers that come back after Close.
func (s *cameraStream) letGo(index int) {
	if err := s.memory.letGo(index); err != nil {
		s.log.Warn("a buffer stays in memory", "err", err)
	}
}

// Close implements [hw.CameraStream]. A Read that waits returns.
func (s *cameraStream) Close() error {
	s.closeOnce.Do(func() {
		s.closing.Store(true)
		s.dev.Interrupt()
		s.reading.Lock()
		defer s.reading.Unlock()
		s.errClose = s.tearDown()
	})
	return s.errClose
}

// tearDown goes stop → unmap → close dma-bufs → free → input → close. Buffers that are
// lent stay as they are until their last Release; then the kernel frees them. A
// driver may take long to stop, or never come back.
func (s *cameraStream) tearDown() error {
	s.mu.Lock()
	s.stopped = true // from here on nothing is queued
	s.mu.Unlock()
	off := unlessGone(s.memory.queue.StreamOff())
	held, dropped := s.drop()
	freed := unlessGone(s.memory.free())
	if errors.Is(freed, hw.ErrBusy) && held {
		freed = nil // kernels before 4.20 free them with the last mapping
	}
	return errors.Join(off, dropped, freed, s.restore(), s.signal.close(), s.dev.Close())
}

// drop lets go of the buffers that are not lent, and reports whether any are.
func (s *cameraStream) drop() (held bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for i, lent := range s.lent {
		if !lent { // what came back since Close has gone already, and goes only once
			errs = append(errs, s.memory.letGo(i))
		}
	}
	return slices.Contains(s.lent, true), errors.Join(errs...)
}

// unlessGone drops the complaint that there is nothing left to stop or free.
func unlessGone(err error) error {
	if errors.Is(err, hw.ErrGone) {
		return nil
	}
	return err
}
