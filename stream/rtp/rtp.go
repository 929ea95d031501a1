// Package rtp cuts coded units into RTP packets. It opens no socket.
//
//	stream.Unit ─► Packetizer ─► Batch ─┬─► Bytes:   one write to a TCP reader
//	               (one per rendition)  └─► Packets: one sendmmsg to a UDP reader
//
// A [Batch] is one unit in one piece of memory, already in the framing of RTSP
// over TCP (RFC 2326, 10.12); the packets that UDP sends are slices of it. All
// readers of a rendition get the same bytes: the same sequence numbers, time
// stamps and sender reports.
//
// A batch is immutable once returned and is ordinary garbage-collected memory:
// share it, keep it, never write to it. It holds no reference to its unit.
package rtp

import (
	"crypto/rand"
	"encoding/binary"
	"time"

	"encoderd.example/stream"
)

// DefaultSize is the largest RTP packet in bytes, its header included: with
// IPv6 and UDP headers it stays below the 1500 bytes of Ethernet, with room
// for a tunnel.
const DefaultSize = 1400

// MinSize is the smallest packet size that a [Packetizer] accepts.
const MinSize = 128

// Payload types, from the dynamic range (RFC 3551, section 6).
const (
	VideoType = 96
	SoundType = 97
)

// VideoClock is the RTP clock rate of every picture format used here, in Hz.
const VideoClock = 90000

// OpusClock is the RTP clock rate of Opus in Hz, whatever the sound's own rate
// (RFC 7587, 4.1).
const OpusClock = 48000

const (
	frameSize  = 4  // "$", channel, length
	headerSize = 12 // RTP header without extensions
)

// A Medium is one of the two RTP streams of a session.
type Medium uint8

// The media of a session. A medium's RTP packets travel on interleaved channel
// 2×medium, its RTCP packets on the channel after it.
const (
	Video Medium = iota
	Sound
	mediums
)

// A Set is a set of media.
type Set uint8

// With returns s and m together.
func (s Set) With(m Medium) Set { return s | 1<<m }

// Has reports whether m is in s.
func (s Set) Has(m Medium) bool { return s&(1<<m) != 0 }

// MediumOf returns the medium that carries c.
func MediumOf(c stream.Codec) Medium {
	if c.Video() {
		return Video
	}
	return Sound
}

// Clock returns the RTP clock rate of t in Hz.
func Clock(t *stream.Track) int {
	switch {
	case t.Codec.Video():
		return VideoClock
	case t.Codec == stream.Opus:
		return OpusClock
	default:
		return t.Rate
	}
}

// flow is the state of one RTP stream (RFC 3550, 5.1).
type flow struct {
	payloadType byte
	ssrc        uint32
	seq         uint32 // of the next packet, with the count of rollovers above its 16 bits
	offset      uint32 // of the time stamps
	clock       int
	packets     uint32 // sent so far, for sender reports
	octets      uint32 // of payload
}

// stamp returns the RTP time stamp of a reading of the media clock. It is
// computed from the absolute value, rounded to nearest, so that no error adds
// up; seconds and rest apart, so that nothing overflows.
func (f *flow) stamp(at time.Duration) uint32 {
	clock := int64(f.clock)
	ticks := int64(at/time.Second)*clock + (int64(at%time.Second)*clock+int64(time.Second)/2)/int64(time.Second)
	return f.offset + uint32(ticks)
}

// random returns what RFC 3550, 5.1 wants unguessable.
func random() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return binary.BigEndian.Uint32(b[:])
}
