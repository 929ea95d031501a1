package fmp4

import (
	"encoding/binary"
	"time"

	"encoderd.example/stream"
)

// A Sample is one unit as a fragment carries it. Times are in the track's
// [Scale].
type Sample struct {
	Duration uint32
	Offset   int32 // of showing after decoding
	Key      bool  // decoding can start here; always so with sound
	Data     []byte
}

// SampleOf returns u as a sample that lasts until the next unit of the track is
// decoded. It shares u's Data.
func SampleOf(u *stream.Unit, next time.Duration) Sample {
	scale := Scale(u.Track)
	at, end := Ticks(u.DTS, scale), Ticks(next, scale)
	return Sample{
		Duration: uint32(end - min(at, end)),
		Offset:   int32(Ticks(u.PTS, scale) - at),
		Key:      u.Key || !u.Track.Codec.Video(),
		Data:     u.Data,
	}
}

// A Run is a track's part of a fragment.
type Run struct {
	Track   int    // its number, from 1, in the order of [AppendInit]
	Time    uint64 // when the first sample is decoded, in the track's [Scale]
	Samples []Sample
}

// Flags of tfhd (the first two) and trun (ISO/IEC 14496-12, 8.8.7 and 8.8.8).
const (
	baseIsMoof    = 0x020000
	hasUsualFlags = 0x000020
	hasDataOffset = 0x000001
	hasDuration   = 0x000100
	hasSize       = 0x000200
	hasFlags      = 0x000400
	hasOffset     = 0x000800
)

const boxHead = 8

// Fragment returns one movie fragment, ready for [net.Buffers]: moof and the
// head of mdat, which are new, then the Data of every sample. sequence counts
// fragments from 1. A fragment must hold less than 4 GB.
func Fragment(sequence uint32, runs ...Run) [][]byte {
	samples, media := 0, 0
	for _, r := range runs {
		samples += len(r.Samples)
		for _, s := range r.Samples {
			media += len(s.Data)
		}
	}
	w := make(boxes, 0, 64+96*len(runs)+16*samples)
	offsets := make([]int, 0, len(runs)) // where the data offset of each run stands
	w.box("moof", func() {
		w.full("mfhd", 0, 0, func() { w.u32(sequence) })
		for _, r := range runs {
			offsets = append(offsets, w.run(r))
		}
	})
	data := len(w) + boxHead
	w.u32(uint32(boxHead + media))
	w.text("mdat")
	chunk := make([][]byte, 1, 1+samples)
	for i, r := range runs {
		binary.BigEndian.PutUint32(w[offsets[i]:], uint32(data))
		for _, s := range r.Samples {
			chunk = append(chunk, s.Data)
			data += len(s.Data)
		}
	}
	chunk[0] = w
	return chunk
}

// run appends a traf and returns the place of its data offset.
func (b *boxes) run(r Run) (offset int) {
	usual := flagsOf(r.Samples)
	flags := uint32(hasDataOffset | hasDuration | hasSize)
	for _, s := range r.Samples {
		if s.flags() != usual {
			flags |= hasFlags
		}
		if s.Offset != 0 {
			flags |= hasOffset
		}
	}
	b.box("traf", func() {
		b.full("tfhd", 0, baseIsMoof|hasUsualFlags, func() { b.u32(uint32(r.Track), usual) })
		b.full("tfdt", 1, 0, func() { b.u64(r.Time) })
		b.full("trun", 1, flags, func() {
			b.u32(uint32(len(r.Samples)))
			offset = len(*b)
			b.u32(0)
			for _, s := range r.Samples {
				b.sample(s, flags)
			}
		})
	})
	return offset
}

// flagsOf returns the flags of most samples: the last is no key picture
// unless all are.
func flagsOf(samples []Sample) uint32 {
	if len(samples) == 0 {
		return flagsKey
	}
	return samples[len(samples)-1].flags()
}

func (s Sample) flags() uint32 {
	if s.Key {
		return flagsKey
	}
	return flagsOther
}

func (b *boxes) sample(s Sample, flags uint32) {
	b.u32(s.Duration, uint32(len(s.Data)))
	if flags&hasFlags != 0 {
		b.u32(s.flags())
	}
	if flags&hasOffset != 0 {
		b.u32(uint32(s.Offset))
	}
}

// ntpUnix is how many seconds NTP's epoch lies before Unix's (RFC 5905, 6).
const ntpUnix = 2_208_988_800

// AppendReferenceTime appends a prft box (ISO/IEC 14496-12, 8.16.5), which may
// stand before a fragment: the wall-clock time at which what is shown at ticks
// of a track was captured.
func AppendReferenceTime(b []byte, track int, wall time.Time, ticks uint64) []byte {
	const captured = 24 // the time told is that of capture
	w := boxes(b)
	w.full("prft", 1, captured, func() {
		w.u32(uint32(track), uint32(wall.Unix()+ntpUnix), uint32(uint64(wall.Nanosecond())<<32/uint64(time.Second)))
		w.u64(ticks)
	})
	return w
}
