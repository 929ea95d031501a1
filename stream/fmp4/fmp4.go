// Package fmp4 writes coded units as fragmented MP4: an init segment that says
// what the tracks are, then fragments of media (ISO/IEC 14496-12 and, for what
// CMAF players expect, 23000-19).
//
//	*stream.Track ─► AppendInit ─► ftyp moov
//	*stream.Unit  ─► SampleOf ─► Run ─► Fragment ─► moof mdat │ Data │ Data │ …
//
// No media is copied: a fragment is a list of byte slices of which the first
// is the fragment's own and the others are the units', immutable and shared.
// All functions may be called from any goroutine.
package fmp4

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strings"
	"time"

	"encoderd.example/stream"
)

// videoScale is the clock of pictures in Hz: that of RTP and MPEG-TS, too.
const videoScale = 90000

// opusScale is the clock of Opus, whatever was coded (RFC 7845, 4).
const opusScale = 48000

// ErrTrack says that a track cannot be described: its codec has no place here,
// or its setup cannot be read.
var ErrTrack = errors.New("track cannot be written as MP4")

// Scale returns how many ticks a second a track's times count: 90000 for
// pictures, the sample rate for sound.
func Scale(t *stream.Track) uint32 {
	switch {
	case t.Codec.Video():
		return videoScale
	case t.Codec == stream.Opus || t.Rate <= 0:
		return opusScale
	default:
		return uint32(t.Rate)
	}
}

// Ticks returns a reading of the media clock in ticks of scale, rounded to the
// nearest. It counts from the absolute value, so that rounding does not add up;
// readings before zero count as zero, and what 64 bits cannot count as the most
// they can.
func Ticks(d time.Duration, scale uint32) uint64 {
	hi, lo := bits.Mul64(uint64(max(d, 0)), uint64(scale))
	lo, carry := bits.Add64(lo, uint64(time.Second/2), 0)
	if hi += carry; hi >= uint64(time.Second) {
		return math.MaxUint64
	}
	q, _ := bits.Div64(hi, lo, uint64(time.Second))
	return q
}

// Time returns the media clock's reading at a number of ticks, rounded to the
// nearest: the inverse of [Ticks].
func Time(ticks uint64, scale uint32) time.Duration {
	hi, lo := bits.Mul64(ticks, uint64(time.Second))
	lo, carry := bits.Add64(lo, uint64(scale/2), 0)
	q, _ := bits.Div64((hi+carry)%uint64(scale), lo, uint64(scale))
	return time.Duration(q)
}

// Codec returns what stands for a track in "codecs" of playlists, manifests and
// MIME types (RFC 6381). The error wraps [ErrTrack].
func Codec(t *stream.Track) (string, error) {
	switch t.Codec {
	case stream.H264:
		if len(t.Setup) < 4 {
			return "", fmt.Errorf("%w: avcC of %d bytes", ErrTrack, len(t.Setup))
		}
		return fmt.Sprintf("avc1.%02x%02x%02x", t.Setup[1], t.Setup[2], t.Setup[3]), nil
	case stream.H265:
		return codecH265(t.Setup)
	case stream.AAC:
		return codecAAC(t.Setup)
	case stream.Opus:
		return "opus", nil
	default:
		return "", fmt.Errorf("%w: %v", ErrTrack, t.Codec)
	}
}

// codecH265 follows ISO/IEC 14496-15, E.3: profile, compatibility in reversed
// order of bits, tier with level, and the constraint bytes up to the last that
// is not zero.
func codecH265(hvcC []byte) (string, error) {
	if len(hvcC) < 13 {
		return "", fmt.Errorf("%w: hvcC of %d bytes", ErrTrack, len(hvcC))
	}
	space := [...]string{"", "A", "B", "C"}[hvcC[1]>>6]
	tier := [...]string{"L", "H"}[hvcC[1]>>5&1]
	compatible := uint32(hvcC[2])<<24 | uint32(hvcC[3])<<16 | uint32(hvcC[4])<<8 | uint32(hvcC[5])
	var s strings.Builder
	fmt.Fprintf(&s, "hvc1.%s%d.%X.%s%d", space, hvcC[1]&0x1f, bits.Reverse32(compatible), tier, hvcC[12])
	constraints := hvcC[6:12]
	for len(constraints) > 0 && constraints[len(constraints)-1] == 0 {
		constraints = constraints[:len(constraints)-1]
	}
	for _, c := range constraints {
		fmt.Fprintf(&s, ".%X", c)
	}
	return s.String(), nil
}

// codecAAC reads the audio object type (ISO/IEC 14496-3, 1.6.2.1).
func codecAAC(setup []byte) (string, error) {
	const escape = 31
	if len(setup) < 2 {
		return "", fmt.Errorf("%w: AudioSpecificConfig of %d bytes", ErrTrack, len(setup))
	}
	object := int(setup[0] >> 3)
	if object == escape {
		object = 32 + int(setup[0]&7)<<3 + int(setup[1]>>5)
	}
	return fmt.Sprintf("mp4a.40.%d", object), nil
}
