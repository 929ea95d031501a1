package soft

import (
	"fmt"
	"time"

	"encoderd.example/hw"
	"encoderd.example/stream"
)

// A soundCodec codes frames of a fixed count of samples.
type soundCodec interface {
	// encode returns the coded form of one frame of interleaved S16, or
	// nothing while the codec fills up. The bytes are valid until the next
	// call.
	encode(frame []int16) ([]byte, error)
	// reset forgets what came before.
	reset() error
	close()
}

// A soundEncoder is the part that all sound encoders share: it cuts sound into
// frames and counts time. It implements [hw.AudioEncoder].
//
// A decoder gives sample n of the input as its sample n+delay. So the first
// unit begins delay samples before the stamp of the first sample, and whoever
// plays units by their PTS hears everything in its place.
type soundEncoder struct {
	codec soundCodec
	track *stream.Track
	size  int // samples a frame
	delay int // samples, see above

	frame []int16 // collected so far, capacity one frame
	begun bool
	base  time.Duration // stamp of sample 0
	next  int64         // number of the first sample of the next unit
}

func newSoundEncoder(codec soundCodec, track *stream.Track, size, delay int) *soundEncoder {
	return &soundEncoder{codec: codec, track: track, size: size, delay: delay, frame: make([]int16, 0, size*hw.Channels)}
}

// Track implements [hw.AudioEncoder].
func (e *soundEncoder) Track() *stream.Track { return e.track }

// Encode implements [hw.AudioEncoder].
func (e *soundEncoder) Encode(pcm []int16, stamp time.Duration, emit func(*stream.Unit)) error {
	if len(pcm)%hw.Channels != 0 {
		return fmt.Errorf("encode %s: %d samples are not whole frames of %d channels: %w", e.track.Codec, len(pcm), hw.Channels, hw.ErrUnsupported)
	}
	if !e.begun && len(pcm) > 0 {
		e.begun, e.base, e.next = true, stamp, int64(-e.delay)
	}
	for len(pcm) > 0 {
		n := min(cap(e.frame)-len(e.frame), len(pcm))
		e.frame = append(e.frame, pcm[:n]...)
		pcm = pcm[n:]
		if len(e.frame) < cap(e.frame) {
			break
		}
		coded, err := e.codec.encode(e.frame)
		e.frame = e.frame[:0]
		if err != nil {
			return fmt.Errorf("encode %s: %w", e.track.Codec, err)
		}
		if len(coded) > 0 {
			emit(e.unit(coded))
		}
	}
	return nil
}

// unit copies coded and moves time on.
func (e *soundEncoder) unit(coded []byte) *stream.Unit {
	pts := e.base + samples(e.next)
	e.next += int64(e.size)
	data := make([]byte, len(coded))
	copy(data, coded)
	return &stream.Unit{Track: e.track, PTS: pts, DTS: pts, Duration: samples(int64(e.size)), Data: data}
}

// samples returns how long n samples last. It counts from the absolute number
// and does not overflow.
func samples(n int64) time.Duration {
	return time.Duration(n/hw.SampleRate)*time.Second + time.Duration(n%hw.SampleRate)*time.Second/hw.SampleRate
}

// Reset implements [hw.AudioEncoder]. If the codec cannot start anew, the next
// Encode fails.
func (e *soundEncoder) Reset() {
	e.frame, e.begun = e.frame[:0], false
	if err := e.codec.reset(); err != nil {
		e.codec.close()
		e.codec = brokenCodec{err}
	}
}

// Close implements [hw.AudioEncoder]. It may be called more than once.
func (e *soundEncoder) Close() error {
	e.codec.close()
	e.codec = brokenCodec{errClosed}
	return nil
}

// A brokenCodec says why there is none.
type brokenCodec struct{ err error }

func (b brokenCodec) encode([]int16) ([]byte, error) { return nil, b.err }
func (b brokenCodec) reset() error                   { return b.err }
func (brokenCodec) close()                           {}

// soundRate returns bps, or the default for zero, and refuses what no
// listener can want.
func soundRate(codec stream.Codec, bps, usual, least, most int) (int, error) {
	if bps == 0 {
		bps = usual
	}
	if bps < least || bps > most {
		return 0, fmt.Errorf("%s: %d bit/s must be %d to %d: %w", codec, bps, least, most, hw.ErrUnsupported)
	}
	return bps, nil
}
