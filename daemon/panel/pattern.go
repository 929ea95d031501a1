package panel

import (
	"fmt"
	"strings"
	"time"

	"encoderd.example/hw"
)

// A Rhythm is how a lamp shines in time. Every rhythm can be told from every
// other one without colors.
type Rhythm uint8

// The rhythms.
const (
	Steady       Rhythm = iota
	Pulse               // half a second on, half a second off
	Fast                // four flashes a second
	DoubleFlash         // two flashes a second, close together
	Occulting           // on, with a short gap every two seconds
	LongShort           // one long, one short
	LongTwoShort        // one long, two short
	Call                // three short, one long
	Blink1              // so many flashes every two seconds
	Blink2
	Blink3
	Blink4
	Blink5
	Blink6
)

// flash is the shortest time of light and of darkness.
const flash = 125 * time.Millisecond

// rhythms holds, for each: its name, what it looks like, and the times of light
// and darkness in turn. These add up to a divisor of two seconds.
var rhythms = [...]struct {
	name, words string
	times       []time.Duration
}{
	Steady:       {"", "steady", nil},
	Pulse:        {"pulse", "slowly on and off", []time.Duration{4 * flash, 4 * flash}},
	Fast:         {"fast", "quick flicker", []time.Duration{flash, flash}},
	DoubleFlash:  {"double", "double flash", []time.Duration{flash, flash, flash, 5 * flash}},
	Occulting:    {"occulting", "on, with short gaps", []time.Duration{14 * flash, 2 * flash}},
	LongShort:    {"long-short", "one long, one short", []time.Duration{6 * flash, 2 * flash, 2 * flash, 6 * flash}},
	LongTwoShort: {"long-short-short", "one long, two short", []time.Duration{6 * flash, 2 * flash, 2 * flash, 2 * flash, 2 * flash, 2 * flash}},
	Call:         {"call", "three short, one long", []time.Duration{flash, flash, flash, flash, flash, flash, 6 * flash, 4 * flash}},
	Blink1:       {"blink 1", "1 blink, pause", blinks(1)},
	Blink2:       {"blink 2", "2 blinks, pause", blinks(2)},
	Blink3:       {"blink 3", "3 blinks, pause", blinks(3)},
	Blink4:       {"blink 4", "4 blinks, pause", blinks(4)},
	Blink5:       {"blink 5", "5 blinks, pause", blinks(5)},
	Blink6:       {"blink 6", "6 blinks, pause", blinks(6)},
}

// blinks are n flashes and a pause, two seconds together.
func blinks(n int) []time.Duration {
	var times []time.Duration
	for range 2 * n {
		times = append(times, flash)
	}
	times[2*n-1] += 2*time.Second - time.Duration(2*n)*flash
	return times
}

// colors are the names of the colors, by their value.
var colors = [...]string{
	hw.Dark: "off", hw.Red: "red", hw.Green: "green", hw.Amber: "amber", hw.Blue: "blue",
	hw.Red | hw.Blue: "magenta", hw.Green | hw.Blue: "cyan", hw.White: "white",
}

// A Pattern is how a lamp shines. The zero Pattern is dark.
type Pattern struct {
	Color  hw.Color
	Rhythm Rhythm
}

// String returns "off", or the color and then, if it is not steady, the rhythm:
// "red", "amber pulse", "amber blink 3".
func (p Pattern) String() string {
	name := colors[p.Color&hw.White]
	if p.Color == hw.Dark || p.Rhythm == Steady || int(p.Rhythm) >= len(rhythms) {
		return name
	}
	return name + " " + rhythms[p.Rhythm].name
}

// ParsePattern reads what [Pattern.String] writes.
func ParsePattern(s string) (Pattern, error) {
	color, rhythm, _ := strings.Cut(s, " ")
	for c, name := range colors {
		if name != color {
			continue
		}
		for r, row := range rhythms {
			if p := (Pattern{hw.Color(c), Rhythm(r)}); row.name == rhythm && p.String() == s {
				return p, nil
			}
		}
		return Pattern{}, fmt.Errorf("no rhythm %q", rhythm)
	}
	return Pattern{}, fmt.Errorf("no color %q", color)
}

// At reports whether a lamp of this pattern shines at an instant, and when that
// changes next: the zero Time if never. Rhythms count from the epoch of wall
// time, so that all lamps, and all boxes whose clocks agree, blink together.
func (p Pattern) At(t time.Time) (lit bool, next time.Time) {
	times := p.times()
	if len(times) == 0 {
		return p.Color != hw.Dark, time.Time{}
	}
	var period time.Duration
	for _, d := range times {
		period += d
	}
	// Two seconds are whole periods of every rhythm.
	since := (time.Duration(t.Unix()&1)*time.Second + time.Duration(t.Nanosecond())) % period
	for i, d := range times {
		if since < d {
			return i%2 == 0, t.Add(d - since)
		}
		since -= d
	}
	panic("a rhythm is shorter than its period") // since < period
}

// Blink returns the times of light and darkness for a lamp that blinks by
// itself, and whether such a lamp can show this pattern: not what is steady or
// has several flashes in a row.
func (p Pattern) Blink() (on, off time.Duration, ok bool) {
	times := p.times()
	if len(times) != 2 {
		return 0, 0, false
	}
	return times[0], times[1], true
}

// times are of light and darkness in turn, none if nothing changes.
func (p Pattern) times() []time.Duration {
	if p.Color == hw.Dark || int(p.Rhythm) >= len(rhythms) {
		return nil
	}
	return rhythms[p.Rhythm].times
}
