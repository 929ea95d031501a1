package pcm

import (
	"math"
	"slices"
	"time"
)

// How the loop behaves. Angular frequencies are in rad/s: the loop settles in
// about 4/omega seconds, and 500 ppm of drift push it at most
// 500e-6/(e*omega) seconds off on the way.
const (
	omegaFast = 0.2 // at first: peak 0.9 ms at 500 ppm
	omegaSlow = 0.05
	fastFor   = 10.0 // seconds; from then on omega falls as 1/time
	settleFor = 8.0  // seconds after a gap: the first stamps of a card are its worst, so nothing is learned from them
	smoothing = 1.0  // seconds over which errors are averaged before they steer

	maxDrift = 1000e-6 // of a card; the worst real ones have 300
	maxSlew  = 1500e-6 // drift and correction together, a fortieth of a semitone

	lostSound = 0.020 // seconds: a stamp so much later than the samples say means lost samples
	maxError  = 0.080 // seconds: beyond this it steps
	misplaced = 0.003 // seconds: so large an error is pulled in, but teaches nothing about drift
	splice    = 1.0   // seconds after a gap in which an early stamp proves that the gap was measured too long
	early     = 0.010 // seconds: that is what early means
)

// A Corrector turns blocks from a card that keeps its own time into an endless
// row of samples that keeps CLOCK_MONOTONIC: sample n belongs to the instant
// start + n/48000, exactly, for as long as it lives. There is never a hole and
// never a second sample for one instant. It is for one goroutine.
//
//	detached ──Add──► attached ──Add──► attached (drift steered away)
//	   ▲                 │ │
//	   └────FillTo───────┘ └─ jump of the stamps: detach, attach again
//
// While attached, a PI loop steers a fractional resampler so that each sample
// comes out at the instant at which it was taken. Sound that was lost is
// replaced by as much silence.
type Corrector struct {
	line line
	out  []int16 // made and not yet taken, from head on
	head int

	started  bool
	start    time.Duration // instant of the first sample
	made     int64         // sample frames since start, out included
	attached bool

	fresh float64 // seconds of sound since it was attached
	age   float64 // seconds of sound from which the loop has learned the card
	error float64 // smoothed, in seconds; above zero: samples come out too early
	drift float64 // integral part: the card's clock error, 100e-6 = 100 ppm fast
	step  float64 // input frames per output frame

	stats CorrectorStats
}

// CorrectorStats counts since the beginning.
type CorrectorStats struct {
	Silence uint64 // sample frames filled in for sound that never came
	Dropped uint64 // sample frames thrown away, since their instant was already filled
	Gaps    uint64 // times that sound broke off, and silence took its place
	Steps   uint64 // times that sound was too early to be steered, and was cut
}

// NewCorrector returns a corrector that has seen nothing. The first stamp that
// Add or FillTo gets is the beginning of its output.
func NewCorrector() *Corrector {
	return &Corrector{line: line{k: newKernel(rate, rate, zeroCrossings)}, step: 1}
}

// PPM returns how fast the card's clock runs against CLOCK_MONOTONIC, in parts
// per million, as learned so far: to 5 % after a minute, and to a few ppm after
// some more.
func (c *Corrector) PPM() float64 { return c.drift * 1e6 }

// Offset returns how much later than the instant at which it was taken sound
// comes out now, smoothed; negative is early.
func (c *Corrector) Offset() time.Duration {
	return -time.Duration(c.error * float64(time.Second))
}

// Stats returns the counters.
func (c *Corrector) Stats() CorrectorStats { return c.stats }

// Buffered returns how many sample frames Take would give.
func (c *Corrector) Buffered() int { return (len(c.out) - c.head) / channels }

// Take moves up to len(dst)/2 sample frames into dst and returns their number
// and the instant of the first one. Call it after every Add and FillTo until
// it gives none: what is not taken takes memory.
func (c *Corrector) Take(dst []int16) (frames int, stamp time.Duration) {
	stamp = c.instant(c.made - int64(c.Buffered()))
	n := copy(dst[:len(dst)&^1], c.out[c.head:])
	c.head += n
	if c.head == len(c.out) {
		c.out, c.head = c.out[:0], 0
	}
	return n / channels, stamp
}

// instant returns the time of the n-th sample, from the absolute number, so
// that no rounding adds up.
func (c *Corrector) instant(n int64) time.Duration {
	const three = 3 * time.Second / rate // three samples are a whole number of ns
	return c.start + time.Duration(n)*three/3
}

// Add takes a block of interleaved stereo at 48 kHz of the card's clock. stamp
// is the CLOCK_MONOTONIC time of its first sample; a few milliseconds of
// jitter average out. Stamps that jump forward mean lost sound, which silence
// replaces, held in memory until it is taken.
func (c *Corrector) Add(pcm []int16, stamp time.Duration) {
	c.begin(stamp)
	c.compact()
	if c.attached {
		late := c.late(stamp)
		if c.jumped(late) {
			c.count(late)
			c.detach()
		} else {
			c.steer(late, float64(len(pcm)/channels)/rate)
		}
	}
	if !c.attached {
		pcm = c.attach(pcm, stamp)
	}
	if c.attached {
		c.line.push(pcm)
		c.render()
	}
}

// FillTo says that nothing was heard before stamp beyond what Add brought: the
// card is gone. Output grows, with silence, up to stamp. When the card returns,
// just Add: sound before stamp is dropped then.
func (c *Corrector) FillTo(stamp time.Duration) {
	c.begin(stamp)
	c.compact()
	if c.attached {
		if c.late(stamp) <= 0 {
			return // input reaches that far
		}
		c.stats.Gaps++
		c.detach()
		c.age = 0 // another card may come
	}
	if n := int(c.since(stamp)*rate) - int(c.made); n > 0 {
		c.quiet(n)
	}
}

func (c *Corrector) begin(stamp time.Duration) {
	if !c.started {
		c.started, c.start = true, stamp
	}
}

// since returns the seconds from the first sample to stamp.
func (c *Corrector) since(stamp time.Duration) float64 { return (stamp - c.start).Seconds() }

// late returns how much later stamp is, in seconds, than the instant at which
// the next sample pushed would come out.
func (c *Corrector) late(stamp time.Duration) float64 {
	return c.since(stamp) - (float64(c.made)+c.line.lead()/c.step)/rate
}

// jumped reports whether an error is more than the loop should steer away.
func (c *Corrector) jumped(late float64) bool {
	return late-c.error > lostSound || math.Abs(late) > maxError || c.fresh < splice && late < -early
}

// count counts a jump. An early one below the limit is none of its own: it puts
// right how long the gap before it was.
func (c *Corrector) count(late float64) {
	switch {
	case late > 0:
		c.stats.Gaps++
	case late < -maxError:
		c.stats.Steps++
	}
}

// steer is the PI loop: late is the error of a block of the given seconds.
func (c *Corrector) steer(late, seconds float64) {
	c.fresh += seconds
	c.error += (late - c.error) * min(seconds/smoothing, 1)

	omega := omegaFast
	if c.fresh > settleFor && math.Abs(c.error) < misplaced {
		c.age += seconds
		omega = min(max(omegaFast*fastFor/c.age, omegaSlow), omegaFast)
		c.drift = limit(c.drift-omega*omega*c.error*seconds, maxDrift)
	}
	c.step = 1 + limit(c.drift-2*omega*c.error, maxSlew)
}

// detach lets out what the filter still holds.
func (c *Corrector) detach() {
	c.line.pushSilence(c.line.k.half)
	c.render()
	c.attached, c.error, c.fresh = false, 0, 0
}

// attach places a block on the output's time axis: silence up to it, or its
// beginning dropped if that time has passed. It returns what is left of pcm,
// and stays detached if that is nothing.
func (c *Corrector) attach(pcm []int16, stamp time.Duration) []int16 {
	c.step = 1 + c.drift
	ahead := c.since(stamp)*rate - float64(c.made) // in output frames
	if ahead < 0 {
		drop := int(math.Ceil(-ahead * c.step))
		have := len(pcm) / channels
		c.stats.Dropped += uint64(min(drop, have))
		if drop >= have {
			return nil
		}
		pcm = pcm[channels*drop:]
		ahead = max(ahead+float64(drop)/c.step, 0)
	}
	c.quiet(int(ahead))
	c.line.reset(min((ahead-math.Floor(ahead))*c.step, 1))
	c.attached = true
	return pcm
}

func (c *Corrector) render() {
	before := len(c.out)
	c.out = c.line.render(c.out, c.step)
	c.made += int64((len(c.out) - before) / channels)
}

// quiet appends silence.
func (c *Corrector) quiet(frames int) {
	at := len(c.out)
	c.out = slices.Grow(c.out, channels*frames)[:at+channels*frames]
	clear(c.out[at:])
	c.made += int64(frames)
	c.stats.Silence += uint64(frames)
}

// compact moves what was not taken to the front.
func (c *Corrector) compact() {
	c.out, c.head = c.out[:copy(c.out, c.out[c.head:])], 0
}

func limit(v, most float64) float64 { return min(max(v, -most), most) }
