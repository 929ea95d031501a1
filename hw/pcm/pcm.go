// Package pcm turns what a sound card delivers into the sound of the box:
// interleaved S16, two channels, 48 kHz of CLOCK_MONOTONIC. It is arithmetic
// only: no descriptors, no goroutines, no clock of its own.
//
//	card's bytes ─► Convert ─► Resampler ─► Corrector ─► Fader ─► Meter, encoder
//	               (format,    (44.1 kHz    (drift, gaps, (gain,
//	                channels)   and others)  card gone)    mute)
//
// Slices that go in are read during the call and not kept. Slices that come
// out belong to the caller. Nothing here allocates once its buffers have grown
// to the size of a block.
package pcm

import (
	"encoding/binary"
	"fmt"
	"math"
)

// The sound of the box, as in package hw.
const (
	rate     = 48000
	channels = 2
)

// A Format is how a card codes one sample; all are little-endian.
type Format uint8

// The formats that cards deliver (include/uapi/sound/asound.h,
// SNDRV_PCM_FORMAT_*).
const (
	S16    Format = iota // S16_LE
	S24In3               // S24_3LE: three bytes
	S24                  // S24_LE: the low three bytes of four, the top one is undefined
	S32                  // S32_LE
)

// formats is the one table of formats, by Format.
var formats = [...]struct {
	name   string
	bytes  int
	sample func([]byte) int16
}{
	S16:    {"S16_LE", 2, func(b []byte) int16 { return int16(binary.LittleEndian.Uint16(b)) }},
	S24In3: {"S24_3LE", 3, func(b []byte) int16 { return narrow(uint32(b[0])<<8 | uint32(b[1])<<16 | uint32(b[2])<<24) }},
	S24:    {"S24_LE", 4, func(b []byte) int16 { return narrow(binary.LittleEndian.Uint32(b) << 8) }},
	S32:    {"S32_LE", 4, func(b []byte) int16 { return narrow(binary.LittleEndian.Uint32(b)) }},
}

// Bytes returns the size of one sample.
func (f Format) Bytes() int { return formats[f].bytes }

// String returns ALSA's name of the format.
func (f Format) String() string {
	if int(f) >= len(formats) {
		return fmt.Sprintf("format(%d)", uint8(f))
	}
	return formats[f].name
}

// narrow rounds left-justified 32 bits to the nearest 16, without wrapping.
func narrow(v uint32) int16 {
	x := (int64(int32(v)) + 1<<15) >> 16
	return int16(min(x, int64(math.MaxInt16)))
}

// Convert decodes src, whole interleaved sample frames of f with n channels,
// into interleaved S16 stereo, and returns how many sample frames it wrote: as
// many as src holds and dst has room for. left and right are the channels that
// are heard there, counted from 0 and below n. Wider samples are rounded to the
// nearest; S16 comes through bit for bit. n is at least 1.
func Convert(dst []int16, src []byte, f Format, n, left, right int) int {
	size, sample := formats[f].bytes, formats[f].sample
	frames := min(len(dst)/channels, len(src)/(size*n))
	for i := range frames {
		frame := src[i*size*n:][:size*n]
		dst[2*i] = sample(frame[left*size:])
		dst[2*i+1] = sample(frame[right*size:])
	}
	return frames
}

// Crossfade turns from into to, both interleaved stereo, over the length of
// from: it begins with from and ends with to. to must be as long.
func Crossfade(from, to []int16) {
	n := len(from) / channels
	for i := range n {
		share := float32(i+1) / float32(n+1)
		for ch := range channels {
			at := channels*i + ch
			from[at] = round16(float32(from[at]) + share*(float32(to[at])-float32(from[at])))
		}
	}
}
