package encode

import (
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/pion/mediadevices/pkg/codec"
	"github.com/pion/mediadevices/pkg/io/audio"
	"github.com/pion/mediadevices/pkg/prop"
	"github.com/pion/mediadevices/pkg/wave"

	"encoderd.example/hw"
	"encoderd.example/stream"
)

// Opus codes sound with one of the box's encoders. It implements
// [codec.AudioEncoderBuilder]. BitRate (bit/s) of zero is the driver's default.
type Opus struct {
	codec.BaseParams

	Driver hw.AudioEncoderDriver
}

// packet is how long the sound in one packet is: the box's, and what browsers
// expect.
const packet = 20 * time.Millisecond

// RTPCodec describes the stream to peers: 48 kHz, stereo, packets of 20 ms.
func (o Opus) RTPCodec() *codec.RTPCodec {
	c := codec.NewRTPOpusCodec(hw.SampleRate)
	c.Latency = packet
	return c
}

// BuildAudioEncoder opens the encoder for the sound of r: 48 kHz, one channel
// or two. It fails as the driver's Open does.
//
// Each Read of the result gives one packet; the memory is the caller's. It
// fails as r does, with [hw.ErrUnsupported] at sound of another rate, and with
// [io.EOF] after Close, which may be called from any goroutine and more than
// once. There is no controller.
func (o Opus) BuildAudioEncoder(r audio.Reader, _ prop.Media) (codec.ReadCloser, error) {
	if o.Driver.Codec != stream.Opus {
		return nil, fmt.Errorf("%s for mediadevices: %w", o.Driver.Name, hw.ErrUnsupported)
	}
	enc, err := o.Driver.Open(o.BitRate)
	if err != nil {
		return nil, err
	}
	return &voice{enc: enc, source: r}, nil
}

// A voice is one running sound encoder.
type voice struct {
	source  audio.Reader
	pcm     []int16  // of the chunk in work
	packets [][]byte // of the chunk before; not more than it held

	mu     sync.Mutex
	enc    hw.AudioEncoder
	closed bool
}

// Read implements [codec.ReadCloser].
func (v *voice) Read() ([]byte, func(), error) {
	for len(v.packets) == 0 {
		if err := v.code(); err != nil {
			return nil, nothing, err
		}
	}
	p := v.packets[0]
	v.packets = v.packets[1:]
	return p, nothing, nil
}

// code codes one chunk of the source.
func (v *voice) code() error {
	chunk, release, err := v.source.Read()
	if err != nil {
		return err
	}
	v.pcm, err = interleave(v.pcm[:0], chunk)
	release()
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return errClosed
	}
	return v.enc.Encode(v.pcm, stream.Monotonic(), func(u *stream.Unit) { v.packets = append(v.packets, u.Data) })
}

// interleave appends a chunk in the box's format.
func interleave(pcm []int16, chunk wave.Audio) ([]int16, error) {
	info := chunk.ChunkInfo()
	if info.SamplingRate != hw.SampleRate || info.Channels < 1 || info.Channels > hw.Channels {
		return nil, fmt.Errorf("sound of %d Hz, %d channels: %w", info.SamplingRate, info.Channels, hw.ErrUnsupported)
	}
	if own, ok := chunk.(*wave.Int16Interleaved); ok && info.Channels == hw.Channels {
		return append(pcm, own.Data...), nil
	}
	for i := range info.Len {
		for ch := range hw.Channels {
			s := chunk.At(i, min(ch, info.Channels-1))
			// Int is of 32 bits, but floats may go beyond.
			pcm = append(pcm, int16(min(max(s.Int()>>16, math.MinInt16), math.MaxInt16)))
		}
	}
	return pcm, nil
}

// Close implements [codec.ReadCloser].
func (v *voice) Close() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil
	}
	v.closed = true
	return v.enc.Close()
}

// Controller implements [codec.Controllable].
func (*voice) Controller() codec.EncoderController { return nil }
