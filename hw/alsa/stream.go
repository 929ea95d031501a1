package alsa

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
	"encoderd.example/hw/pcm"
)

const (
	// A running card that gives no sample for so long has no clock: an HDMI
	// input without a source, or a driver that hangs.
	silenceLimit = 2 * time.Second
	// How often a suspended card is asked whether it is awake.
	resumeEvery = 50 * time.Millisecond
)

// A Stream is a running capture.
//
//	running ──EPIPE──► overrun ──PREPARE, START──► running   counted, stamps jump
//	   │ └──ESTRPIPE─► suspended ──RESUME────────► running   or PREPARE, START
//	   └──ENODEV, POLLNVAL─► gone                            hw.ErrGone
//
// Read is for one goroutine; Stats and Close may be called from any. Close
// ends a Read that waits.
type Stream struct {
	card *Card
	dev  *device
	setup

	frames  atomic.Uint64
	xruns   atomic.Uint64
	told    atomic.Int64 // rate in Hz, 0 before TrueRate
	closing atomic.Bool

	mu        sync.Mutex // held by Read; Close takes it before it lets go of memory
	closed    bool
	raw       []byte // one period as the card delivers it
	stereo    []int16
	pick      [hw.Channels]int // input channels, from 0
	before    [hw.Channels]int // those of the block before
	other     []int16          // a block as before would have it
	hz        int              // true rate
	heeded    int64            // what of told is in use, or was
	resampler *pcm.Resampler   // nil at 48 kHz
	dll       dll
	gauge     gauge
	passed    int           // sample frames since the latest stamp
	ready     []int16       // at 48 kHz and not yet read, a part of out
	out       []int16       // the memory of ready
	stamp     time.Duration // of ready
}

var (
	_ hw.RatedMicStream   = (*Stream)(nil)
	_ hw.PickingMicStream = (*Stream)(nil)
)

func (c *Card) open() (*Stream, error) {
	dev, err := c.openDevice()
	if err != nil {
		return nil, err
	}
	s, err := newStream(c, dev)
	if err != nil {
		return nil, errors.Join(err, dev.close())
	}
	return s, nil
}

func newStream(c *Card, dev *device) (*Stream, error) {
	s := &Stream{card: c, dev: dev}
	if err := s.prepare(hw.Channels); err != nil {
		return nil, err
	}
	s.pick = s.inputs(1, hw.Channels)
	s.before = s.pick
	return s, dev.start()
}

// prepare sets the card up to deliver that many channels, or another number
// where that is the usual one.
func (s *Stream) prepare(channels int) error {
	set, err := s.dev.configure(channels)
	if err != nil {
		return meaning(err)
	}
	if err := s.dev.software(set); err != nil {
		return meaning(err)
	}
	s.setup = set
	s.raw = make([]byte, set.period*set.frameBytes())
	s.stereo = make([]int16, hw.Channels*set.period)
	s.other = make([]int16, hw.Channels*set.period)
	s.tune(set.rate)
	return nil
}

// tune makes hz the rate at which samples come.
func (s *Stream) tune(hz int) {
	s.hz, s.passed, s.resampler = hz, 0, nil
	s.dll = newDLL(hz, s.period)
	if hz != hw.SampleRate {
		s.resampler = pcm.NewResampler(hz)
	}
}

// TrueRate implements hw.RatedMicStream. A stream also finds out by itself,
// within seconds, that a card delivers another rate than it was set to.
func (s *Stream) TrueRate(hz int) { s.told.Store(int64(hz)) }

// Pick implements hw.PickingMicStream. A card that was set to fewer channels is
// set anew, which costs a moment of sound.
func (s *Stream) Pick(left, right int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("sound card %s: %w", s.card.id, os.ErrClosed)
	}
	most := max(left, right)
	if min(left, right) < 1 {
		return fmt.Errorf("sound card %s: channels count from 1: %w", s.card.id, hw.ErrUnsupported)
	}
	if most <= max(s.channels, hw.Channels) {
		s.pick = s.inputs(left, right)
		return nil
	}
	if err := s.widen(most); err != nil {
		return fmt.Errorf("sound card %s has no channel %d: %w", s.card.id, most, err)
	}
	s.pick = s.inputs(left, right)
	s.before = s.pick
	return nil
}

// inputs returns where channels, counted from 1, lie in a frame of the card.
func (s *Stream) inputs(left, right int) [hw.Channels]int {
	if s.channels == 1 {
		return [hw.Channels]int{}
	}
	return [hw.Channels]int{left - 1, right - 1}
}

// widen restarts the card with at least that many channels.
func (s *Stream) widen(channels int) error {
	if err := s.dev.ioctl(ioDrop, nil); err != nil {
		return meaning(err)
	}
	s.jump()
	if err := s.prepare(channels); err != nil {
		return err
	}
	return s.dev.start()
}

// Format describes what the card delivers, for logs: "S16_LE, 2 channels,
// 48000 Hz".
func (s *Stream) Format() string {
	return fmt.Sprintf("%s, %d channels, %d Hz", s.format, s.channels, s.rate)
}

// Read implements hw.MicStream. It waits for up to 2 s and then fails with
// hw.ErrNoSignal; hw.ErrGone says that the card was unplugged. After an error
// other than that of ctx only Close may follow.
func (s *Stream) Read(ctx context.Context, dst []int16) (frames int, stamp time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.ready) == 0 {
		if s.closed || s.closing.Load() {
			return 0, 0, fmt.Errorf("sound card %s: %w", s.card.id, os.ErrClosed)
		}
		if err := s.fetch(ctx); err != nil {
			return 0, 0, fmt.Errorf("sound card %s: %w", s.card.id, err)
		}
	}
	stamp = s.stamp
	n := copy(dst[:len(dst)/hw.Channels*hw.Channels], s.ready)
	s.ready = s.ready[n:]
	frames = n / hw.Channels
	s.stamp += time.Duration(frames) * time.Second / hw.SampleRate
	s.frames.Add(uint64(frames))
	return frames, stamp, nil
}

// Stats implements hw.MicStream.
func (s *Stream) Stats() hw.MicStats {
	return hw.MicStats{Frames: s.frames.Load(), Xruns: s.xruns.Load()}
}

// Close stops capture. Closing twice does nothing.
func (s *Stream) Close() error {
	if s.closing.Swap(true) {
		return nil
	}
	s.dev.sys.ring(s.dev.bell)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	_ = s.dev.ioctl(ioDrop, nil) // close stops it as well, and a card that is gone has stopped
	if err := s.dev.close(); err != nil {
		return fmt.Errorf("close sound card %s: %w", s.card.id, err)
	}
	return nil
}

// fetch waits for the card once and takes a period, if there is one. Trouble
// that it cures leaves ready empty.
func (s *Stream) fetch(ctx context.Context) error {
	woken, err := s.dev.wait(ctx, silenceLimit)
	if err != nil {
		return err
	}
	if !woken {
		return fmt.Errorf("card gave no sample for %v, check what is connected to it: %w", silenceLimit, hw.ErrNoSignal)
	}
	st, err := s.dev.status()
	if err != nil {
		return s.cure(ctx, err)
	}
	if err := trouble(st.state); err != nil {
		return s.cure(ctx, err)
	}
	n, err := s.dev.readFrames(s.raw, s.period)
	if err != nil {
		return s.cure(ctx, err)
	}
	if n > 0 {
		s.take(n, st.stampOfNext(s.hz))
	}
	return nil
}

// take makes n sample frames, whose first was measured to be taken at that
// time, ready to be read.
func (s *Stream) take(n int, measured time.Duration) {
	if hz := s.otherRate(measured); hz != 0 {
		s.tune(hz)
	}
	stamp := s.dll.stamp(measured, s.passed)
	s.passed = n
	block := s.convert(n)
	if s.resampler == nil {
		s.ready, s.stamp = block, stamp
		return
	}
	var offset time.Duration
	s.out, offset = s.resampler.Add(s.out[:0], block)
	s.ready, s.stamp = s.out, stamp+offset
}

// otherRate returns the rate that somebody told or that was measured, or 0 if
// it is in use already.
func (s *Stream) otherRate(measured time.Duration) int {
	seen := s.gauge.add(measured, s.passed, s.hz)
	if told := s.told.Load(); told != s.heeded {
		s.heeded = told
		seen = usualRate(float64(told)) // of what is told, nonsense is left out
	}
	if seen == s.hz {
		return 0
	}
	return seen
}

// convert returns n sample frames of raw as stereo. If other channels were
// picked, it leads over to them.
func (s *Stream) convert(n int) []int16 {
	raw := s.raw[:n*s.frameBytes()]
	block := s.stereo[:hw.Channels*pcm.Convert(s.stereo, raw, s.format, s.channels, s.before[0], s.before[1])]
	if s.before != s.pick {
		pcm.Convert(s.other, raw, s.format, s.channels, s.pick[0], s.pick[1])
		pcm.Crossfade(block, s.other)
		s.before = s.pick
	}
	return block
}

// trouble returns the error that a read in that state would give.
func trouble(state int32) error {
	switch state {
	case stateXrun:
		return unix.EPIPE
	case stateSuspended:
		return unix.ESTRPIPE
	case stateDisconnected:
		return unix.ENODEV
	case stateOpen, stateSetup, stateDraining:
		return errStopped
	default:
		return nil
	}
}

// errStopped is met when the source of a loopback or an HDMI input changes its
// format.
var errStopped = errors.New("the card was stopped from outside, perhaps for another format; open it again")

// cure brings the card to run again after err, or returns what it means.
func (s *Stream) cure(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, unix.EAGAIN):
		return nil
	case errors.Is(err, unix.EPIPE):
		s.xruns.Add(1)
		s.jump()
		return s.dev.start()
	case errors.Is(err, unix.ESTRPIPE):
		s.jump()
		return s.resume(ctx)
	case errors.Is(err, unix.EBADFD):
		return s.explain(ctx)
	default:
		return meaning(err)
	}
}

// jump forgets what does not hold beyond a gap.
func (s *Stream) jump() {
	s.dll.jump()
	s.gauge.jump()
	s.passed = 0
	if s.resampler != nil {
		s.resampler.Reset()
	}
}

// explain asks the card why it cannot be read in its state.
func (s *Stream) explain(ctx context.Context) error {
	st, err := s.dev.status()
	if err != nil {
		return meaning(err)
	}
	if err := trouble(st.state); err != nil && !errors.Is(err, unix.EBADFD) {
		return s.cure(ctx, err)
	}
	return errStopped
}

// resume wakes a suspended card, or starts it anew if it cannot be woken.
func (s *Stream) resume(ctx context.Context) error {
	for {
		err := s.dev.ioctl(ioResume, nil)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EAGAIN) {
			return s.dev.start()
		}
		if err := s.rest(ctx, resumeEvery); err != nil {
			return err
		}
		if s.closing.Load() {
			return os.ErrClosed
		}
	}
}

// rest waits on the bell alone.
func (s *Stream) rest(ctx context.Context, d time.Duration) error {
	quiet := *s.dev
	quiet.fd = -1 // poll leaves it out
	_, err := quiet.wait(ctx, d)
	return err
}
