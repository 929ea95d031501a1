package sim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/sim/picture"
)

const (
	// block is how many sample frames the card delivers at once: 20 ms,
	// a usual period of USB sound.
	block = hw.SampleRate / 50
	// cardBuffer is how many wait for a late reader before they are overrun.
	cardBuffer = hw.SampleRate / 2
	// overrun is how many the fault mic-overrun loses each second.
	overrun = hw.SampleRate / 20
	// clockError is how wrong the card's clock is on demand, in ppm.
	clockError = 300
)

// A mic is one place to open a sound stream; it can be open once.
type mic struct {
	board    *Board
	id, name string
	inUse    atomic.Bool
}

func (m *mic) ID() string   { return m.id }
func (m *mic) Name() string { return m.name }

// Open implements [hw.Mic].
func (m *mic) Open(ctx context.Context) (hw.MicStream, error) {
	s, err := m.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("open microphone %s: %w", m.id, err)
	}
	return s, nil
}

func (m *mic) open(ctx context.Context) (*micStream, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	on, _ := m.board.faults.get()
	switch {
	case on.has(micUnplugged):
		return nil, hw.ErrGone
	case on.has(micBusy):
		return nil, hw.ErrBusy
	case !m.inUse.CompareAndSwap(false, true):
		return nil, hw.ErrBusy
	}
	return &micStream{
		mic: m, clock: sampleClock{start: m.board.now(), ppm: clockErrorOf(on)},
		closed: make(chan struct{}), random: 1,
	}, nil
}

// A sampleClock says when a card takes its samples.
type sampleClock struct {
	start time.Duration // of sample zero
	ppm   int64         // how much too fast
}

// instant returns when sample n is taken, from the whole number each time.
func (c sampleClock) instant(n int64) time.Duration {
	const million = 1_000_000
	rate := int64(hw.SampleRate) * (million + c.ppm) // samples in a million seconds
	return c.start + time.Duration(n*million/rate)*time.Second +
		time.Duration(float64(n*million%rate)/float64(rate)*float64(time.Second))
}

// taken returns how many samples have been taken at instant at.
func (c sampleClock) taken(at time.Duration) int64 {
	n := int64((at - c.start).Seconds() * hw.SampleRate * (1 + float64(c.ppm)/1e6))
	for c.instant(n) > at {
		n--
	}
	return n
}

func clockErrorOf(on faults) int64 {
	var ppm int64
	if on.has(micFast) {
		ppm += clockError
	}
	if on.has(micSlow) {
		ppm -= clockError
	}
	return ppm
}

// A micStream delivers very quiet noise and the beep. All fields up to next
// are of Read's goroutine only.
type micStream struct {
	mic    *mic
	random uint32
	clock  sampleClock
	next   int64 // sample of clock to deliver
	lostAt time.Duration

	closing sync.Once
	closed  chan struct{}

	frames, xruns atomic.Uint64
}

func (s *micStream) Stats() hw.MicStats {
	return hw.MicStats{Frames: s.frames.Load(), Xruns: s.xruns.Load()}
}

// Close implements [hw.MicStream]. It ends a Read that waits.
func (s *micStream) Close() error {
	s.closing.Do(func() {
		close(s.closed)
		s.mic.inUse.Store(false)
	})
	return nil
}

// errSmall says that not even one sample frame fits.
var errSmall = errors.New("the buffer holds no whole sample frame")

// Read implements [hw.MicStream]: it returns at most what is left of a block
// of 20 ms.
func (s *micStream) Read(ctx context.Context, pcm []int16) (int, time.Duration, error) {
	n, stamp, err := s.read(ctx, pcm)
	if err != nil {
		return 0, 0, fmt.Errorf("read microphone %s: %w", s.mic.id, err)
	}
	return n, stamp, nil
}

func (s *micStream) read(ctx context.Context, pcm []int16) (int, time.Duration, error) {
	if len(pcm) < hw.Channels {
		return 0, 0, errSmall
	}
	board := s.mic.board
	for {
		on, wake := board.faults.get()
		if err := s.failure(ctx, on); err != nil {
			return 0, 0, err
		}
		s.adjust(clockErrorOf(on))
		// A block is delivered when its last sample has been taken.
		end := s.next - s.next%block + block
		at := s.clock.instant(end)
		if on.has(micFrozen) {
			at = forever
		}
		if board.now() < at {
			if err := board.until(ctx, at, s.closed, wake); err != nil {
				return 0, 0, err
			}
			continue
		}
		if s.overrun(on) {
			continue
		}
		return s.take(pcm[:min(int64(len(pcm)), (end-s.next)*hw.Channels)], on)
	}
}

// failure says why nothing can be read.
func (s *micStream) failure(ctx context.Context, on faults) error {
	select {
	case <-s.closed:
		return os.ErrClosed
	default:
	}
	if on.has(micUnplugged) {
		return hw.ErrGone
	}
	return context.Cause(ctx)
}

// adjust lets the clock run at another speed from the next sample on.
func (s *micStream) adjust(ppm int64) {
	if s.clock.ppm != ppm {
		s.clock = sampleClock{start: s.clock.instant(s.next), ppm: ppm}
		s.next = 0
	}
}

// overrun loses samples, if the reader was too late or the fault wants it, and
// reports whether it did.
func (s *micStream) overrun(on faults) bool {
	now := s.mic.board.now()
	if waiting := s.clock.taken(now) - s.next; waiting > cardBuffer {
		s.lose(waiting - waiting%block)
		return true
	}
	if on.has(micOverrun) && now-s.lostAt >= time.Second {
		s.lostAt = now
		s.lose(overrun)
		return true
	}
	return false
}

func (s *micStream) lose(samples int64) {
	s.next += samples
	s.xruns.Add(1)
}

// take fills pcm.
func (s *micStream) take(pcm []int16, on faults) (int, time.Duration, error) {
	n := len(pcm) / hw.Channels
	pcm = pcm[:n*hw.Channels]
	stamp := s.clock.instant(s.next)
	s.next += int64(n)
	s.frames.Add(uint64(n))
	clear(pcm)
	if !on.has(silence) {
		s.hiss(pcm)
		picture.Sound(pcm, stamp)
	}
	return n, stamp, nil
}

// hiss writes noise of ±1, as of a converter with nothing connected: xorshift
// (G. Marsaglia, 2003).
func (s *micStream) hiss(pcm []int16) {
	for i := range pcm {
		s.random ^= s.random << 13
		s.random ^= s.random >> 17
		s.random ^= s.random << 5
		pcm[i] = int16(s.random%3) - 1
	}
}
