package daemon

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/hw"
	"encoderd.example/stream"
)

// A beeper is a sound card whose clock is off and which hears a beep at every
// full second of the box's clock. Reads take as long as sound takes.
type beeper struct {
	now   func() time.Duration
	ppm   float64
	stall func(at time.Duration) time.Duration // how long nobody reads before the block at that time

	begin float64 // seconds
	taken int     // sample frames, lost ones included
	lost  uint64
	rnd   *rand.Rand
}

func newBeeper(now func() time.Duration, ppm float64) *beeper {
	return &beeper{
		now: now, ppm: ppm, begin: now().Seconds(), rnd: rand.New(rand.NewPCG(7, 8)),
		stall: func(time.Duration) time.Duration { return 0 },
	}
}

// at is the instant of the n-th sample, in seconds.
func (b *beeper) at(n int) float64 { return b.begin + float64(n)/(hw.SampleRate*(1+b.ppm*1e-6)) }

const beepSeconds = 0.002

func (b *beeper) Read(ctx context.Context, pcm []int16) (int, time.Duration, error) {
	first := b.at(b.taken)
	if gap := b.stall(seconds(first)); gap > 0 {
		b.taken += int(gap.Seconds() * hw.SampleRate * (1 + b.ppm*1e-6))
		b.lost++
		first = b.at(b.taken)
	}
	n := len(pcm) / hw.Channels
	timer := time.NewTimer(seconds(b.at(b.taken+n)) - b.now())
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return 0, 0, errPulled
	}
	b.hear(pcm)
	jitter := time.Duration(b.rnd.Int64N(int64(2 * time.Millisecond)))
	return n, seconds(first) + jitter - time.Millisecond, nil
}

// hear fills pcm with what the card hears now.
func (b *beeper) hear(pcm []int16) {
	clear(pcm)
	n := len(pcm) / hw.Channels
	_, since := math.Modf(b.at(b.taken))
	if since < beepSeconds || since > 1-2*float64(n)/hw.SampleRate { // else there is no beep in it
		for i := range n {
			if _, since := math.Modf(b.at(b.taken + i)); since < beepSeconds {
				pcm[2*i], pcm[2*i+1] = 20000, 20000
			}
		}
	}
	b.taken += n
}

func (b *beeper) Stats() hw.MicStats { return hw.MicStats{Xruns: b.lost} }
func (b *beeper) Close() error       { return nil }

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// An ear is a sound encoder that hears how far beeps are off their full second.
type ear struct {
	tape
	loud  bool
	heard func(at time.Duration, off time.Duration) // + is late
}

func (e *ear) Encode(pcm []int16, stamp time.Duration, emit func(*stream.Unit)) error {
	for i := 0; i < len(pcm); i += hw.Channels {
		loud := pcm[i] > 10000
		if loud && !e.loud {
			at := stamp + time.Duration(i/hw.Channels)*time.Second/hw.SampleRate
			e.heard(at, at-at.Round(time.Second))
		}
		e.loud = loud
	}
	return e.tape.Encode(pcm, stamp, emit)
}

// listen has the mixer hear card for that long. heard gets every beep.
func (d *desktop) listen(card *beeper, long time.Duration, heard func(at, off time.Duration)) {
	d.t.Helper()
	e := &ear{tape: tape{t: d.t}, heard: heard}
	ctx, cancel := context.WithTimeout(d.t.Context(), long)
	defer cancel()
	coded := make(chan error, 1)
	go func() { coded <- d.run(ctx, e, func(*stream.Unit) {}) }()
	_ = d.record(ctx, card, func() {}) // ends with ctx
	if err := <-coded; err != nil {
		d.t.Error(err)
	}
}

// Pictures are stamped with the box's clock, so what a beep is off its full
// second is what sound is off the picture.
func TestSoundKeepsStepForTenMinutes(t *testing.T) {
	for _, ppm := range []float64{-500, -300, 300, 500} {
		t.Run(fmt.Sprintf("card at %+g ppm", ppm), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := newDesktop(t)
				const minutes = 10
				var worst [minutes + 1]time.Duration
				beeps, begin := 0, d.now()
				d.listen(newBeeper(d.now, ppm), minutes*time.Minute, func(at, off time.Duration) {
					minute := int((at - begin) / time.Minute)
					worst[minute] = max(worst[minute], off.Abs())
					beeps++
				})
				l := d.levels()
				t.Logf("%d beeps, worst A-V of each minute %v, measured %+.1f ppm", beeps, worst[:minutes], l.drift)
				for minute, off := range worst {
					if off > 10*time.Millisecond {
						t.Errorf("in minute %d sound is %v off the picture", minute+1, off)
					}
				}
				if beeps < minutes*60-2 || beeps > minutes*60 {
					t.Errorf("%d beeps in %d minutes", beeps, minutes)
				}
				if math.Abs(l.drift-ppm) > 20 || l.gaps != 0 || l.steps != 0 {
					t.Errorf("measured %+.1f ppm, %d gaps, %d steps; want %+g and none", l.drift, l.gaps, l.steps, ppm)
				}
				d.buffers()
			})
		})
	}
}

func TestTenOverrunsLeaveNoShift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesktop(t)
		card := newBeeper(d.now, 300)
		begin := d.now()
		next := begin + 30*time.Second
		card.stall = func(at time.Duration) time.Duration {
			if card.lost == 10 || at < next {
				return 0
			}
			next = at + 500*time.Millisecond
			return 330*time.Millisecond + time.Duration(card.lost)*17*time.Millisecond
		}
		var after, worst time.Duration
		d.listen(card, time.Minute, func(at, off time.Duration) {
			worst = max(worst, off.Abs())
			if at-begin > 45*time.Second {
				after = max(after, off.Abs())
			}
		})
		t.Logf("worst A-V %v, after the overruns %v", worst, after)
		if worst > 10*time.Millisecond || after > 2*time.Millisecond || after == 0 {
			t.Errorf("sound was up to %v off the picture, and %v after the overruns; want 10 and 2 ms", worst, after)
		}
		if l := d.levels(); l.gaps != 10 || l.steps != 0 {
			t.Errorf("%d gaps and %d steps for %d overruns", l.gaps, l.steps, card.lost)
		}
	})
}
