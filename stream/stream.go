// Package stream moves coded media from one writer to many readers.
//
// An encoder publishes [Unit] values into a [Rendition] and never waits.
// Outputs and servers read from it, each at its own place and pace; one that
// falls behind skips to a key unit and delays nobody.
//
// A unit is immutable once published. It is ordinary garbage-collected memory:
// share it, keep it, never write to it.
package stream

import (
	"errors"
	"fmt"
	"time"
)

// ErrRefused marks an error that trying again will not cure, such as a stream
// key that the far side does not know. Wrap it with the far side's words.
var ErrRefused = errors.New("refused")

// Codec names the coding of a track.
type Codec uint8

// The codecs that a rendition can carry.
const (
	H264 Codec = iota + 1
	H265
	AAC
	Opus
)

// Video reports whether c codes pictures.
func (c Codec) Video() bool { return c == H264 || c == H265 }

// String returns the name used in config, API and metrics.
func (c Codec) String() string {
	switch c {
	case H264:
		return "h264"
	case H265:
		return "h265"
	case AAC:
		return "aac"
	case Opus:
		return "opus"
	default:
		return fmt.Sprintf("codec(%d)", uint8(c))
	}
}

// A Track describes one elementary stream. It is immutable: when the encoder
// changes its parameters, later units point to a new Track, and a reader that
// sees a new pointer writes a new header.
type Track struct {
	Codec Codec
	// Setup is avcC (ISO/IEC 14496-15, 5.3.3.1), hvcC, AudioSpecificConfig
	// (ISO/IEC 14496-3, 1.6.2.1) or empty for Opus.
	Setup    []byte
	Width    int     // of video, in luma samples after cropping
	Height   int     // of video
	FPS      float64 // nominal, of video
	Rate     int     // sample rate in Hz, of sound
	Channels int     // of sound
	Bitrate  int     // nominal, bit/s, when the track began
}

// A Unit is one coded picture (access unit) or one audio frame.
type Unit struct {
	Track *Track
	Key   bool // decoding can start here; for sound always false
	// PTS and DTS are readings of CLOCK_MONOTONIC, nanoseconds since the
	// kernel's start, as the capture drivers stamp them; see [Monotonic]. They
	// never jump when the wall clock is set. Outputs subtract their own start.
	PTS, DTS time.Duration
	// Duration of sound; zero for video.
	Duration time.Duration
	// Data of video is in length-prefixed form: four bytes of big-endian
	// length before each NAL unit. FLV and MP4 send it as it is; RTP and
	// MPEG-TS walk it. Parameter sets stand in Track.Setup and, for key units,
	// may also stand in Data.
	Data []byte
}
