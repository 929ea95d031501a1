package soft

import (
	"fmt"
	"unsafe"

	aac "github.com/tphakala/go-aac"
	aacpcm "github.com/tphakala/go-aac/pcm"

	"encoderd.example/hw"
	"encoderd.example/stream"
)

// Bit rates of AAC-LC in stereo at 48 kHz, bit/s: below the least even the
// low-pass cannot save it, and above the most a decoder's buffer ends (6144
// bits a frame and channel, ISO/IEC 14496-3, 4.5.3).
const (
	aacUsual, aacLeast, aacMost = 128_000, 32_000, 512_000

	aacFrame = 1024 // samples
)

// AAC returns the driver of AAC-LC in pure Go, by go-aac: always there. A bit
// rate of zero means 128 kbit/s. The first unit lies 1024 samples before the
// first stamp.
func AAC() hw.AudioEncoderDriver {
	return hw.AudioEncoderDriver{
		Name:  "go-aac",
		Codec: stream.AAC,
		Open: func(bitrate int) (hw.AudioEncoder, error) {
			bitrate, err := soundRate(stream.AAC, bitrate, aacUsual, aacLeast, aacMost)
			if err != nil {
				return nil, err
			}
			c := &goAAC{config: aacpcm.Config{
				SampleRate: hw.SampleRate,
				BitDepth:   16,
				Channels:   hw.Channels,
				Bitrate:    bitrate,
				Coder:      aac.CoderFast,
			}}
			if c.encoder, err = aacpcm.NewFrameEncoder(c.config); err != nil {
				return nil, fmt.Errorf("open go-aac: %w", err)
			}
			c.keep = func(au []byte, _ int) error {
				c.au = au
				return nil
			}
			return newSoundEncoder(c, aacTrack(c.encoder.AudioSpecificConfig(), bitrate), aacFrame, c.encoder.Delay()), nil
		},
	}
}

func aacTrack(setup []byte, bitrate int) *stream.Track {
	return &stream.Track{Codec: stream.AAC, Setup: setup, Rate: hw.SampleRate, Channels: hw.Channels, Bitrate: bitrate}
}

// A goAAC is a soundCodec over go-aac.
type goAAC struct {
	config  aacpcm.Config
	encoder *aacpcm.FrameEncoder
	au      []byte // borrowed from encoder
	keep    func(au []byte, samples int) error
}

func (c *goAAC) encode(frame []int16) ([]byte, error) {
	c.au = nil
	// The encoder wants little-endian bytes, which is the host's order on
	// every machine that this package is built for.
	raw := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(frame))), 2*len(frame)) //nolint:gosec // G103: the same memory seen as bytes
	if err := c.encoder.EncodeInterleaved(raw, c.keep); err != nil {
		return nil, fmt.Errorf("go-aac: %w", err)
	}
	return c.au, nil
}

func (c *goAAC) reset() error { return c.encoder.Reset(c.config) }
func (*goAAC) close()         {}
