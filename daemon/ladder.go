package daemon

import (
	"time"

	"encoderd.example/hw"
)

// A step is what is done about an encoder that is given pictures and gives
// nothing back.
//
//	1 s   nudge: a higher bit rate, because hardware that cannot keep its rate
//	      drops pictures, and a key frame
//	2 s   stuck: it is closed and opened again
//	4 s   stuck again, or it cannot be opened: the next encoder of the list
//	      nothing is left: the watchdog ends the program
type step int

const (
	wait step = iota
	nudge
	stuck
)

// lookEvery is how often an encoder is looked at. Time is counted in looks, so
// that a machine that slept, or had no time for us, does not look like an
// encoder that hangs.
const lookEvery = 250 * time.Millisecond

// The patience with an encoder. Software is slow on a busy machine, above all
// with its first picture; it never hangs for want of bits.
const (
	nudgeAfter    = time.Second
	stuckAfter    = 2 * time.Second
	softwareStart = 5 * time.Second
	// forgiveAfter is how long an encoder must have run well for the past to
	// be forgiven.
	forgiveAfter = 10 * time.Second
)

// A stall notices that an encoder gives nothing though it is fed.
type stall struct {
	hardware     bool
	first, later limits // until the first unit, and from there on
	idle, good   int    // looks since the last unit, and since the last trouble
	units        uint64 // at the last look that saw a new one
	offered      uint64 // pictures, at that look
	nudged       bool
	began        bool
}

// Limits are numbers of looks until each step.
type limits struct{ nudge, stuck int }

// newStall returns one for an encoder of that kind and rate.
func newStall(hardware bool, rate hw.Rate) *stall {
	s := &stall{hardware: hardware}
	s.setRate(rate)
	return s
}

// setRate takes in how often pictures come. A slow rendition has two pictures
// inside for long, and that is no fault.
func (s *stall) setRate(rate hw.Rate) {
	slow := func(d time.Duration, periods int) int {
		return int(max(d, time.Duration(periods)*rate.Period()) / lookEvery)
	}
	p := limits{slow(nudgeAfter, 4), slow(stuckAfter, 8)}
	s.first, s.later = p, p
	if !s.hardware {
		s.first = limits{slow(softwareStart/2, 4), slow(softwareStart, 8)}
	}
}

// look takes in how many units have come and how many pictures were offered
// since the encoder was opened.
func (s *stall) look(units, offered uint64) step {
	if units != s.units {
		s.began, s.nudged = true, false
		s.units, s.offered, s.idle = units, offered, 0
		s.good++
		return wait
	}
	if offered < s.offered+2 {
		return wait // it is not fed
	}
	s.idle++
	s.good = 0
	p := s.later
	if !s.began {
		p = s.first
	}
	switch {
	case s.idle >= p.stuck:
		s.idle = 0
		return stuck
	case s.idle >= p.nudge && !s.nudged:
		s.nudged = true
		return nudge
	default:
		return wait
	}
}

// well reports whether the encoder has run well for long enough to be trusted.
func (s *stall) well() bool { return s.good >= int(forgiveAfter/lookEvery) }

// A ladder is the list of encoders that a rendition may use, from the one that
// is wanted down to the last resort, and where on it the rendition stands. It
// never goes up: hardware that hung once may take the box down with it, and is
// tried again only when something about it has changed.
type ladder struct {
	names   []string
	rung    int
	strikes int    // of the encoder on this rung, lately
	reason  string // why the first is not in use, or ""
	left    bool   // the encoder before was left behind with what it holds
	fixed   bool   // the encoder on this rung does not take another rate while it runs
}

// name returns the encoder to use, or "" if none is left.
func (l *ladder) name() string {
	if l.rung < len(l.names) {
		return l.names[l.rung]
	}
	return ""
}

// last reports whether nothing is left to be done about the encoder in use.
func (l *ladder) last() bool { return l.strikes > 0 && l.rung+1 >= len(l.names) }

// strike takes in that the encoder in use failed, and why; at the second time
// the next one takes over. hopeless skips the second chance.
func (l *ladder) strike(why string, hopeless bool) {
	l.strikes++
	if (hopeless || l.strikes > 1) && l.rung+1 < len(l.names) {
		l.fall(why)
	}
}

// fall goes down one rung.
func (l *ladder) fall(why string) {
	l.rung++
	l.strikes, l.fixed = 0, false
	if l.reason != "" {
		why = l.reason + "; " + why
	}
	l.reason = why
}

// forgive forgets past strikes.
func (l *ladder) forgive() { l.strikes = 0 }
