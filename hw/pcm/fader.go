package pcm

import "math"

// A Mix says how much of each channel is heard on each side, as factors:
// Mix[side][channel], left first.
type Mix [channels][channels]float32

// Through is the mix that changes nothing.
var Through = Mix{{1, 0}, {0, 1}}

// Scaled returns m louder by db.
func (m Mix) Scaled(db float64) Mix {
	factor := float32(math.Pow(10, db/20))
	for side := range m {
		for ch := range m[side] {
			m[side][ch] *= factor
		}
	}
	return m
}

// rampFrames is how long a fader takes from one mix to another: 10 ms, too
// slow for a click and too quick for a fade.
const rampFrames = rate / 100

// A Fader applies a mix, and goes over to another one without a click. The
// zero value needs a Set first. It is for one goroutine.
type Fader struct {
	now, to Mix
	left    int // frames until now is to
	set     bool
}

// Set chooses the mix. The first one counts at once, others are reached 10 ms
// later.
func (f *Fader) Set(m Mix) {
	switch {
	case !f.set:
		f.now, f.to, f.set = m, m, true
	case m != f.to:
		f.to, f.left = m, rampFrames
	}
}

// Apply mixes interleaved stereo in place. What is too loud is clipped.
// Samples come out of [Through] bit for bit.
func (f *Fader) Apply(pcm []int16) {
	for f.left > 0 && len(pcm) >= channels {
		f.step()
		f.now.apply(pcm[:channels])
		pcm = pcm[channels:]
	}
	if f.now != Through {
		f.now.apply(pcm)
	}
}

// step goes one frame of the ramp.
func (f *Fader) step() {
	if f.left--; f.left == 0 {
		f.now = f.to
		return
	}
	for side := range f.now {
		for ch := range f.now[side] {
			f.now[side][ch] += (f.to[side][ch] - f.now[side][ch]) / float32(f.left+1)
		}
	}
}

func (m Mix) apply(pcm []int16) {
	for i := 0; i+1 < len(pcm); i += channels {
		left, right := float32(pcm[i]), float32(pcm[i+1])
		pcm[i] = round16(m[0][0]*left + m[0][1]*right)
		pcm[i+1] = round16(m[1][0]*left + m[1][1]*right)
	}
}
