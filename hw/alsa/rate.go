package alsa

import (
	"math"
	"time"
)

// A gauge measures how many sample frames a second really come. A card behind
// an HDMI bridge can be set to 48 kHz and deliver 44.1.
type gauge struct {
	frames int           // since begin
	begin  time.Duration // stamp of a block, zero before the first one
	found  int           // rate that the window before showed, or 0
}

const (
	gaugeWindow = time.Second
	gaugeNear   = 0.002 // a rate so close to a usual one, relatively, is meant to be that
	gaugeFar    = 0.01  // a rate so far from the one in use is another, and no drift
)

// add takes in a block's measured stamp; passed is the number of sample frames
// since the one before. It returns a rate other than the one in use once two
// windows in a row have shown it, else 0: one window may lie, when the
// position was stale.
func (g *gauge) add(measured time.Duration, passed, inUse int) int {
	if g.begin == 0 {
		*g = gauge{begin: measured, found: g.found}
		return 0
	}
	g.frames += passed
	window := measured - g.begin
	if window < gaugeWindow {
		return 0
	}
	before, now := g.found, usualRate(float64(g.frames)/window.Seconds())
	if math.Abs(float64(now)/float64(inUse)-1) < gaugeFar {
		now = 0
	}
	*g = gauge{begin: measured, found: now}
	if now == before {
		return now
	}
	return 0
}

// jump begins a new window.
func (g *gauge) jump() { g.begin = 0 }

// usualRate returns the rate of the table that hz means, or 0.
func usualRate(hz float64) int {
	for _, r := range rates {
		if math.Abs(hz/float64(r)-1) < gaugeNear {
			return int(r)
		}
	}
	return 0
}
