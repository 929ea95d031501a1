package external

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/external/memory"
	"encoderd.example/hw/external/wire"
	"encoderd.example/stream"
)

// forever is a limit for waits that only a context ends.
const forever = 100 * 365 * 24 * time.Hour

// Bounds of a stamp against the clock: GStreamer's v4l2src uses the same.
const (
	maxAge   = 10 * time.Second
	maxAhead = 100 * time.Millisecond
)

// A capture is a running camera; it implements [hw.SharedStream].
//
// A buffer goes round between three owners:
//
//	device ──Frame──► arrived ──Read──► lent as hw.Frame
//	  ▲                                     │ last Release, any goroutine
//	  └────────────────Release──────────────┘
//
// The device never has more pictures on the way than there are buffers, so
// arrived has room for all. After Close a buffer of the program that comes
// back is unmapped instead; a pool's is left to the pool.
type capture struct {
	id      string
	proc    *process
	mode    hw.Mode
	layout  hw.Layout
	needs   [3]int
	plan    hw.BufferPlan
	frames  []*hw.Frame // one for each buffer, lent again and again
	buffers []hw.Buffer
	own     *memory.Pool // nil if the buffers are a pool's of somebody else
	gone    func()

	arrived chan *hw.Frame
	ended   chan struct{} // closed when run has returned
	err     error         // why; read after ended

	good, missed, damaged atomic.Uint64

	// of run
	began bool
	seq   uint32
	last  time.Duration

	closing   chan struct{}
	closeOnce sync.Once

	mu     sync.Mutex
	lent   []bool // from Frame until the last Release
	closed bool
}

// newCapture builds the frames over the buffers.
func newCapture(c *Camera, p *process, m hw.Mode, l hw.Layout, plan hw.BufferPlan, buffers []hw.Buffer, own *memory.Pool) (*capture, error) {
	needs, err := memory.Needs(l)
	if err != nil {
		return nil, err
	}
	s := &capture{
		id: c.id, proc: p, mode: m, layout: l, needs: needs, plan: plan, buffers: buffers, own: own, gone: c.gone,
		arrived: make(chan *hw.Frame, len(buffers)), ended: make(chan struct{}), closing: make(chan struct{}),
		lent: make([]bool, len(buffers)),
	}
	for i, b := range buffers {
		f := hw.NewFrame(func(*hw.Frame) { s.released(i) })
		f.Mode, f.Planes = m, memory.Planes(l, b)
		s.frames = append(s.frames, f)
	}
	return s, nil
}

// Mode implements [hw.CameraStream].
func (s *capture) Mode() hw.Mode { return s.mode }

// Plan implements [hw.SharedStream].
func (s *capture) Plan() hw.BufferPlan { return s.plan }

// Stats implements [hw.CameraStream].
func (s *capture) Stats() hw.CameraStats {
	return hw.CameraStats{Frames: s.good.Load(), Missed: s.missed.Load(), Damaged: s.damaged.Load()}
}

// Read implements [hw.CameraStream]. A device that holds buffers and sends no
// picture for five seconds (or ten frames) counts as gone. After Close it
// fails with [fs.ErrClosed].
func (s *capture) Read(ctx context.Context) (*hw.Frame, error) {
	for {
		silence := time.NewTimer(max(s.proc.patience.silent, 10*s.mode.FPS.Period()))
		select {
		case f := <-s.arrived:
			silence.Stop()
			return f, nil
		case <-s.closing:
			return nil, fmt.Errorf("read camera %s: %w", s.id, fs.ErrClosed)
		case <-s.ended:
			return nil, fmt.Errorf("read camera %s: %w", s.id, s.err)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-silence.C:
			if s.starved() {
				continue
			}
			return nil, fmt.Errorf("read camera %s: the device sends nothing: %w", s.id, hw.ErrGone)
		}
	}
}

// starved reports whether the device has no buffer to send.
func (s *capture) starved() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, lent := range s.lent {
		if !lent {
			return false
		}
	}
	return true
}

// run takes what the device sends until it ends.
func (s *capture) run() {
	defer close(s.ended)
	for s.err == nil {
		s.err = s.take()
	}
	if errors.Is(s.err, hw.ErrGone) {
		s.gone()
	}
	if errors.Is(s.err, wire.ErrProtocol) {
		s.proc.log.Error("a device program broke the protocol and is ended", "device", s.id, "err", s.err)
		s.proc.signal(unix.SIGKILL)
	}
}

// take handles one message.
func (s *capture) take() error {
	m, fds, err := s.proc.receive(context.Background(), forever)
	if err != nil {
		return err
	}
	if len(fds) > 0 {
		wire.CloseAll(fds)
		return violation("%s with descriptors while it runs", wire.Name(m))
	}
	switch m := m.(type) {
	case wire.Frame:
		return s.frame(m)
	case wire.Signal:
		if m.There == 0 {
			return hw.ErrNoSignal
		}
		return nil
	case wire.Bye:
		return fmt.Errorf("it has said goodbye: %w", hw.ErrGone)
	default:
		return violation("%s while it runs", wire.Name(m))
	}
}

// frame checks a picture and hands it on.
func (s *capture) frame(m wire.Frame) error {
	stamp := time.Duration(m.Stamp)
	if age := stream.Monotonic() - stamp; age > maxAge || age < -maxAhead {
		return violation("a picture stamped %s from now", -age)
	}
	whole := stamp > s.last && m.Flags&wire.Damaged == 0
	for i := range s.layout.Buffers() {
		if int64(m.Used[i]) > int64(s.layout.Sizes[i]) {
			return violation("%d bytes used of %d", m.Used[i], s.layout.Sizes[i])
		}
		whole = whole && int(m.Used[i]) >= s.needs[i]
	}
	if err := s.lend(m.Index); err != nil {
		return err
	}
	whole = s.count(m) && whole
	f := s.frames[m.Index]
	if !whole {
		s.damaged.Add(1)
		f.Lend().Release() // the way back
		return nil
	}
	s.last = stamp
	f.Stamp, f.Seq = stamp, s.seq
	if s.mode.Pixel.Coded() {
		f.Planes[0].Data = s.buffers[m.Index].Mem[0][:m.Used[0]:m.Used[0]]
	}
	s.good.Add(1)
	s.arrived <- f.Lend()
	return nil
}

// lend marks a buffer as ours.
func (s *capture) lend(index uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if int64(index) >= int64(len(s.lent)) {
		return violation("a picture in buffer %d of %d", index, len(s.lent))
	}
	if s.lent[index] {
		return violation("a picture in buffer %d, which it has lent already", index)
	}
	s.lent[index] = true
	return nil
}

// count follows the device's numbers, counts what they leave out, and reports
// whether they rise. Ours do in any case.
func (s *capture) count(m wire.Frame) bool {
	if !s.began {
		s.began, s.seq = true, m.Seq
		return true
	}
	step := int32(m.Seq - s.seq)
	if step < 1 {
		return false
	}
	s.missed.Add(uint64(step - 1))
	s.seq = m.Seq
	return true
}

// released is the end of a lent frame.
func (s *capture) released(index int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lent[index] = false
	if s.closed {
		s.drop(index)
		return
	}
	// Where it fails the device has ended or reads nothing: Read says so.
	_ = s.proc.conn.Send(wire.Release{Index: uint32(index)})
}

// drop ends one of the program's buffers, under mu.
func (s *capture) drop(index int) {
	if s.own == nil {
		return
	}
	if err := s.own.Drop(index); err != nil {
		s.proc.log.Warn("a buffer stays mapped", "device", s.id, "err", err)
	}
}

// Close implements [hw.CameraStream]. A Read that waits returns. A device that
// does not end is killed, which takes some seconds.
func (s *capture) Close() error {
	s.closeOnce.Do(func() {
		close(s.closing)
		s.proc.stop()
		<-s.ended
		s.drain()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.closed = true
		for i, lent := range s.lent {
			if !lent {
				s.drop(i)
			}
		}
	})
	return nil
}

// drain gives back the pictures that nobody has read.
func (s *capture) drain() {
	for {
		select {
		case f := <-s.arrived:
			f.Release()
		default:
			return
		}
	}
}
