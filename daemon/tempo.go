package daemon

import (
	"math"
	"time"

	"encoderd.example/hw"
)

// A tempo knows at which rate a source gives pictures: that of its mode, until
// its stamps say for long enough that it is another one. A camera in the dark
// halves its rate and says nothing; one late picture says nothing either.
type tempo struct {
	rate    hw.Rate // the one that encoders are to know
	granted hw.Rate // of the mode; zero if it is not known
	taken   time.Duration
	now     stretch
	before  float64 // pictures a second in the stretch before; zero if there is none
}

// A stretch is a time in which pictures are counted, by their stamps.
type stretch struct {
	begin, last time.Duration
	pictures    int
	seq         uint32
}

// What it takes to believe a measured rate: two stretches that agree, and some
// time since the last change. A rate that no camera is built for may be on its
// way to another one.
const (
	stretchTime  = time.Second
	agreement    = 0.02
	rateHold     = 5 * time.Second
	nominalShift = 0.03 // from the rate before, to a nominal one
	oddShift     = 0.1  // to any other
	mostGap      = 30   // frames that a gap in the sequence is believed to be
)

// begin starts with a camera that was opened, and its mode's rate.
func (t *tempo) begin(granted hw.Rate) {
	t.granted = nominal(granted)
	if t.granted.Float() > 0 {
		t.rate = t.granted
	}
	t.now, t.before, t.taken = stretch{}, 0, 0
}

// picture takes in a picture and reports whether the rate is another one from
// here on. Pictures that were lost on their way to us count by their sequence.
func (t *tempo) picture(stamp time.Duration, seq uint32) (changed bool) {
	s := &t.now
	if gap := stamp - s.last; s.begin == 0 || gap <= 0 || gap > stretchTime {
		t.now, t.before = stretch{begin: stamp, last: stamp, seq: seq}, 0
		return false
	}
	lost := seq - s.seq
	if lost == 0 || lost > mostGap {
		lost = 1
	}
	s.pictures += int(lost)
	s.last, s.seq = stamp, seq
	if s.last-s.begin < stretchTime {
		return false
	}
	fps := float64(s.pictures) / (s.last - s.begin).Seconds()
	before := t.before
	t.now, t.before = stretch{begin: stamp, last: stamp, seq: seq}, fps
	if before == 0 || off(fps, before) > agreement {
		return false
	}
	return t.settle((fps+before)/2, stamp)
}

// settle takes a measured rate if it is clearly another one.
func (t *tempo) settle(fps float64, at time.Duration) (changed bool) {
	if t.taken > 0 && at-t.taken < rateHold {
		return false
	}
	rate, named := measured(fps, t.granted)
	shift := off(rate.Float(), t.rate.Float())
	if shift <= nominalShift || !named && shift <= oddShift {
		return false
	}
	t.rate, t.taken = rate, at
	return true
}

// off is how far a is from b, as a part of b.
func off(a, b float64) float64 { return math.Abs(a-b) / b }

// nominals are the rates that pictures are made for.
var nominals = []hw.Rate{
	{Num: 5, Den: 1},
	{Num: 15, Den: 2},
	{Num: 10, Den: 1},
	{Num: 12, Den: 1},
	{Num: 25, Den: 2},
	{Num: 15, Den: 1},
	{Num: 20, Den: 1},
	{Num: 24, Den: 1},
	{Num: 25, Den: 1},
	{Num: 30, Den: 1},
	{Num: 48, Den: 1},
	{Num: 50, Den: 1},
	{Num: 60, Den: 1},
	{Num: 90, Den: 1},
	{Num: 100, Den: 1},
	{Num: 120, Den: 1},
}

// The distance within which a rate is taken for a nominal one: a driver rounds
// the time from picture to picture to 100 ns, a measurement knows less.
const (
	roundedBy  = 0.0003
	measuredBy = 0.015
)

// nominal returns the rate that a driver means, zero if it means none. It
// knows NTSC's, too, which are 0.1 % below the whole ones.
func nominal(r hw.Rate) hw.Rate {
	f := r.Float()
	for _, n := range nominals {
		ntsc := hw.Rate{Num: n.Num * 1000, Den: n.Den * 1001}
		switch {
		case off(f, n.Float()) < roundedBy:
			return n
		case off(f, ntsc.Float()) < roundedBy:
			return ntsc
		}
	}
	if f < 1 || f > 240 {
		return hw.Rate{}
	}
	return r
}

// measured returns the rate that was most likely measured: rather the mode's,
// or else a nominal one, which named reports.
func measured(fps float64, granted hw.Rate) (rate hw.Rate, named bool) {
	if granted.Den > 0 && off(fps, granted.Float()) < measuredBy {
		return granted, true
	}
	for _, n := range nominals {
		if off(fps, n.Float()) < measuredBy {
			return n, true
		}
	}
	return hw.Rate{Num: max(int(math.Round(fps*100)), 1), Den: 100}, false
}

// thins reports whether a source of that period gives too many pictures for a
// rendition of the other. Only one that is clearly faster is thinned out, such
// as 30 for 25: where both have one rate, a picture that comes early is jitter.
func thins(source, rendition time.Duration) bool { return source <= rendition*9/10 }

// rateOf is how many pictures a second of a source reach the encoder of a
// rendition.
func rateOf(rendition, source hw.Rate) hw.Rate {
	if source.Float() == 0 || thins(source.Period(), rendition.Period()) {
		return rendition
	}
	return source
}

// faster returns the higher of two rates.
func faster(a, b hw.Rate) hw.Rate {
	if b.Float() > a.Float() {
		return b
	}
	return a
}
