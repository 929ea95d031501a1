package alsa

import (
	"math"
	"time"
)

// A dll smooths the stamps of a card: a delay-locked loop of second order
// (F. Adriaensen, "Using a DLL to filter time", 2005). Stamps jitter by the
// grain of the driver's position, up to a few milliseconds; the card's clock
// does not.
//
//	predicted = last + frames × period      period: seconds a sample frame
//	error     = measured − predicted
//	last      = predicted + b × error       b = √2 ω
//	period   += c × error ∕ frames          c = ω²
//
// The bandwidth begins wide and narrows as 1/time.
//
// A position can be stale, which makes a stamp late, but never ahead of the
// sound: so a late stamp counts for little until more of them agree, and a far
// too early one proves that those before were late.
type dll struct {
	rate   float64 // nominal
	limit  float64 // seconds: an error beyond it is a jump, not jitter
	period float64
	base   time.Duration // what last and age are relative to
	last   float64       // seconds since base
	age    float64       // seconds since the latest jump
	locked bool
	late   int // stamps in a row that are late beyond the limit
}

const (
	dllWidest    = 0.5 // Hz
	dllNarrowest = 0.05
	dllMaxDrift  = 2000e-6
	dllMostLate  = 0.004 // seconds that one late stamp may count for
	dllAgreed    = 5     // stamps in a row that make a jump
)

// newDLL returns a loop for a card of that rate that gives notice of sound
// once a period of frames.
func newDLL(rate, frames int) dll {
	return dll{
		rate:   float64(rate),
		limit:  max(2*float64(frames)/float64(rate), 0.020),
		period: 1 / float64(rate),
	}
}

// jump forgets the place in time but not the card's speed: the next stamp is
// taken as it is.
func (d *dll) jump() { d.locked = false }

// stamp returns the smoothed time of a block's first sample. measured is what
// the driver says of it, and passed the number of sample frames since the
// first sample of the block before.
func (d *dll) stamp(measured time.Duration, passed int) time.Duration {
	n := float64(passed)
	predicted := d.last + n*d.period
	off := (measured - d.base).Seconds() - predicted
	if off > d.limit {
		d.late++
	} else {
		d.late = 0
	}
	if !d.locked || off < -d.limit || d.late == dllAgreed {
		d.base, d.last, d.age, d.late, d.locked = measured, 0, 0, 0, true
		return measured
	}
	off = min(off, dllMostLate)
	seconds := n / d.rate
	d.age += seconds
	width := min(max(1/d.age, dllNarrowest), dllWidest)
	omega := min(2*math.Pi*width*seconds, 1)
	d.last = predicted + math.Sqrt2*omega*off
	if n > 0 {
		d.period += omega * omega * off / n
		nominal := 1 / d.rate
		d.period = min(max(d.period, nominal*(1-dllMaxDrift)), nominal*(1+dllMaxDrift))
	}
	return d.base + time.Duration(d.last*float64(time.Second))
}
