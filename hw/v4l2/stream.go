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

// A cameraStream is a running capture; it implements [hw.CameraStream].
//
// A buffer goes round between three owners:
//
//	driver ──Dequeue, in Read──► reader ──good──► lent as hw.Frame
//	  ▲                            │ damaged             │ last Release,
//	  └──────────Enqueue───────────┴─────────────────────┘ any goroutine
//
// A buffer that the driver refuses to take back is parked and offered again by
// the next Read. After Close a buffer that comes back is unmapped instead.
type cameraStream struct {
	log    *slog.Logger
	now    func() time.Duration
	dev    *Device
	queue  *Queue
	mode   hw.Mode
	planes []plane
	frames []*hw.Frame // one for each buffer, lent again and again

	good, missed, damaged atomic.Uint64

	// reading is held by Read, and by Close once Read has left for good. It
	// guards what only the reader needs.
	reading sync.Mutex
	stamps  stamps
	before  Done // the last buffer that came, if any did
	began   bool
	seq     uint32 // of the last picture, as we count
	warned  bool   // about stamps

	closing   atomic.Bool // Read must leave
	closeOnce sync.Once
	errClose  error

	// mu guards where the buffers are. While stopped is false the device is open.
	mu      sync.Mutex
	stopped bool
	lent    []bool
	parked  []int
}

// newStream builds the frames over the mapped buffers.
func newStream(c *Camera, d *Device, q *Queue, m hw.Mode, planes []plane) (*cameraStream, error) {
	if q.Len() < minBuffers {
		return nil, fmt.Errorf("open %s: the driver makes only %d buffers, %d are needed: free memory or choose a smaller picture", c.path, q.Len(), minBuffers)
	}
	s := &cameraStream{log: c.log.With("camera", c.id), now: c.now, dev: d, queue: q, mode: m, planes: planes, lent: make([]bool, q.Len())}
	for i := range q.Len() {
		mem := q.Memory(i)
		for _, p := range planes {
			if p.offset+p.need > len(mem[p.mem]) {
				return nil, fmt.Errorf("open %s: a buffer of %d bytes is too small for %s", c.path, len(mem[p.mem]), m)
			}
		}
		s.frames = append(s.frames, s.newFrame(i))
	}
	return s, nil
}

func (s *cameraStream) newFrame(index int) *hw.Frame {
	f := hw.NewFrame(func(*hw.Frame) { s.released(index) })
	f.Mode = s.mode
	mem := s.queue.Memory(index)
	for _, p := range s.planes {
		end := min(p.offset+p.size, len(mem[p.mem]))
		f.Planes = append(f.Planes, hw.Plane{Data: mem[p.mem][p.offset:end:end], Stride: p.stride, FD: -1})
	}
	return f
}

// run queues all buffers and starts the camera.
func (s *cameraStream) run() error {
	for i := range s.queue.Len() {
		if err := s.queue.Enqueue(i); err != nil {
			return err
		}
	}
	return s.queue.StreamOn()
}

// Mode implements [hw.CameraStream].
func (s *cameraStream) Mode() hw.Mode { return s.mode }

// Stats implements [hw.CameraStream].
func (s *cameraStream) Stats() hw.CameraStats {
	return hw.CameraStats{Frames: s.good.Load(), Missed: s.missed.Load(), Damaged: s.damaged.Load()}
}

// Read implements [hw.CameraStream]. It waits for as long as the camera sends
// nothing or all buffers are lent. After Close it fails with [fs.ErrClosed].
func (s *cameraStream) Read(ctx context.Context) (*hw.Frame, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	var events int16
	for {
		if err := s.ready(ctx); err != nil {
			return nil, err
		}
		d, err := s.queue.Dequeue()
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
			if events, err = s.dev.Wait(ctx, unix.POLLIN); err != nil {
				return nil, err
			}
		}
	}
}

// ready says whether reading may go on, and offers parked buffers again.
func (s *cameraStream) ready(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if s.closing.Load() {
		return fmt.Errorf("read %s: %w", s.dev.Path(), fs.ErrClosed)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.parked) > 0 {
		if err := s.queue.Enqueue(s.parked[0]); err != nil {
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
	stamp, own := s.stamps.next(d.Flags, d.Stamp, s.now())
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
	mem := s.queue.Memory(d.Index)
	for i, p := range s.planes {
		used := d.Used[p.mem]
		begin := d.DataStart[p.mem] + p.offset // bytes used counts from the start of the buffer
		if used > len(mem[p.mem]) || begin+p.need > used {
			return false
		}
		end := min(begin+p.size, len(mem[p.mem]))
		if s.mode.Pixel == hw.MJPEG {
			picture, ok := trimJPEG(mem[p.mem][begin:used])
			if !ok {
				return false
			}
			end = begin + len(picture)
		}
		f.Planes[i].Data = mem[p.mem][begin:end:end]
	}
	return true
}

// released is the end of a lent frame.
func (s *cameraStream) released(index int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lent[index] = false
	if s.stopped {
		s.unmap(index)
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
	if err := s.queue.Enqueue(index); err != nil {
		s.parked = append(s.parked, index)
		s.dev.Interrupt()
	}
}

// unmap is for buffers that come back after Close.
func (s *cameraStream) unmap(index int) {
	if err := s.queue.Unmap(index); err != nil {
		s.log.Warn("a buffer stays mapped", "err", err)
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

// tearDown goes stop → unmap → free → close. Buffers that are lent stay mapped
// and are freed by the kernel after their last Release.
func (s *cameraStream) tearDown() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	errs := []error{unlessGone(s.queue.StreamOff())}
	for i, lent := range s.lent {
		if !lent {
			errs = append(errs, s.queue.Unmap(i))
		}
	}
	freed := unlessGone(s.queue.Free())
	if errors.Is(freed, hw.ErrBusy) && slices.Contains(s.lent, true) {
		freed = nil // kernels before 4.20 free them with the last mapping
	}
	return errors.Join(append(errs, freed, s.dev.Close())...)
}

// unlessGone drops the complaint that there is nothing left to stop or free.
func unlessGone(err error) error {
	if errors.Is(err, hw.ErrGone) {
		return nil
	}
	return err
}
