package pcm

import (
	"math"
	"slices"
)

// A line is the delay line of a resampler: input that outputs still need.
//
//	x: |<- half ->| samples … … … |
//	         ^ pos: place of the next output
type line struct {
	k   *kernel
	x   []float32 // interleaved stereo
	pos float64   // in sample frames of x
	end int       // sample frames of x from here on are silence
}

// reset forgets all input. The next output will lie early sample frames, 0 to
// 1, before the first sample pushed; what lies before that is silence.
func (l *line) reset(early float64) {
	l.x, l.end = l.x[:0], 0
	l.pushSilence(l.k.half)
	l.pos = float64(l.k.half) - early
}

func (l *line) frames() int { return len(l.x) / channels }

// lead is how far the next sample pushed lies after the next output, in sample
// frames of the input.
func (l *line) lead() float64 { return float64(l.frames()) - l.pos }

func (l *line) push(pcm []int16) {
	l.x = slices.Grow(l.x, len(pcm))
	for _, v := range pcm {
		l.x = append(l.x, float32(v))
		if v != 0 {
			l.end = (len(l.x) + 1) / channels
		}
	}
}

func (l *line) pushSilence(frames int) {
	at := len(l.x)
	l.x = slices.Grow(l.x, channels*frames)[:at+channels*frames]
	clear(l.x[at:])
}

// render appends to dst every output that the input suffices for, step input
// frames apart, and forgets input that no later output needs. Silence takes no
// arithmetic.
func (l *line) render(dst []int16, step float64) []int16 {
	for last := l.frames() - l.k.half; int(l.pos) < last; l.pos += step {
		if int(l.pos)-l.k.half+1 >= l.end {
			dst = append(dst, 0, 0)
			continue
		}
		left, right := l.k.at(l.x, l.pos)
		dst = append(dst, round16(left), round16(right))
	}
	if done := min(int(l.pos)-l.k.half+1, l.frames()); done > 0 {
		l.x = l.x[:copy(l.x, l.x[channels*done:])]
		l.pos -= float64(done)
		l.end = max(l.end-done, 0)
	}
	return dst
}

// round16 rounds to the nearest and clips.
func round16(v float32) int16 {
	v = min(max(v, math.MinInt16), math.MaxInt16)
	return int16(int32(v+(1<<15)+0.5) - 1<<15)
}
