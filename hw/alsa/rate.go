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
	next   time.Duration // length of the window at the next look
	found  int           // rate that the look before showed, or 0
}

const (
	gaugeLook    = time.Second
	gaugeLongest = 5 * time.Second // a window that shows nothing by then holds a change
	gaugeNear    = 0.002           // a rate so close to a usual one, relatively, is meant to be that
	gaugeFar     = 0.01            // a rate so far from the one in use is another, and no drift
)

// add takes in a block's measured stamp; passed is the number of sample frames
// since the one before. It returns a rate other than the one in use once two
// looks in a row have shown it, else 0: one may lie, when the position was
// stale. The window grows from look to look, so that the grain of positions
// counts for less and less.
func (g *gauge) add(measured time.Duration, passed, inUse int) int {
	if g.begin == 0 {
		*g = gauge{begin: measured, next: gaugeLook}
		return 0
	}
	g.frames += passed
	window := measured - g.begin
	if window < g.next {
		return 0
	}
	hz := float64(g.frames) / window.Seconds()
	now, before := usualRate(hz), g.found
	g.found, g.next = now, window+gaugeLook
	switch {
	case math.Abs(hz/float64(inUse)-1) < gaugeFar:
		*g = gauge{begin: measured, next: gaugeLook}
	case now != 0 && now == before:
		*g = gauge{begin: measured, next: gaugeLook}
		return now
	case window >= gaugeLongest:
		*g = gauge{begin: measured, next: gaugeLook}
	}
	return 0
}

// jump begins a new window.
func (g *gauge) jump() { *g = gauge{} }

// usualRate returns the rate of the table that hz means, or 0.
func usualRate(hz float64) int {
	for _, r := range rates {
		if math.Abs(hz/float64(r)-1) < gaugeNear {
			return int(r)
		}
	}
	return 0
}
