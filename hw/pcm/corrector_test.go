package pcm

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// A card is a simulated sound card whose clock is off. Its samples are a
// function of the true time at which they were taken.
type card struct {
	ppm    float64
	jitter time.Duration               // of the stamps, either way
	sound  func(t float64) float64     // -1…1, t in seconds of true time
	onAir  func(from, to float64) bool // says whether sound can be other than zero in between; nil = always
	begin  time.Duration               // true time of sample 0
	taken  int
	rnd    *rand.Rand
	block  [960]int16
}

func newCard(ppm float64, jitter time.Duration, sound func(float64) float64) *card {
	return &card{ppm: ppm, jitter: jitter, sound: sound, begin: 1000 * time.Second, rnd: rand.New(rand.NewPCG(1, 2))}
}

// at returns the true time of the n-th sample, in seconds since begin.
func (c *card) at(n int) float64 { return float64(n) / (rate * (1 + c.ppm*1e-6)) }

// read returns the next 10 ms and their stamp.
func (c *card) read() ([]int16, time.Duration) {
	first, last := c.at(c.taken), c.at(c.taken+480)
	if c.onAir == nil || c.onAir(first, last) {
		for i := range 480 {
			v := int16(math.Round(32000 * c.sound(c.at(c.taken+i))))
			c.block[2*i], c.block[2*i+1] = v, v
		}
	} else {
		clear(c.block[:])
	}
	c.taken += 480
	stamp := c.begin + time.Duration(first*1e9)
	if c.jitter > 0 {
		stamp += time.Duration(c.rnd.Int64N(int64(2*c.jitter))) - c.jitter
	}
	return c.block[:], stamp
}

// lose drops what the card takes in d, as an overrun does.
func (c *card) lose(d time.Duration) { c.taken += int(d.Seconds() * rate * (1 + c.ppm*1e-6)) }

// A tape collects output and checks that stamps count samples exactly.
type tape struct {
	tb    testing.TB
	start time.Duration
	n     int64
	buf   [4096]int16
	heard func(at float64, pcm []int16) // at: seconds since the card's begin
}

func (p *tape) take(c *Corrector, begin time.Duration) {
	p.tb.Helper()
	for {
		frames, stamp := c.Take(p.buf[:])
		if frames == 0 {
			return
		}
		if p.n == 0 {
			p.start = stamp
		}
		if want := p.start + time.Duration(float64(p.n)*1e9/rate); (stamp - want).Abs() > 1 {
			p.tb.Fatalf("sample %d is stamped %v, want %v", p.n, stamp, want)
		}
		p.heard((p.start-begin).Seconds()+float64(p.n)/rate, p.buf[:2*frames])
		p.n += int64(frames)
	}
}

// beeps measures how far beeps of 2 ms, once in every period of seconds, come
// out from the time at which they sounded.
type beeps struct {
	period float64
	seen   func(at, off float64)
	loud   bool
}

const beepLength = 0.002

func (b *beeps) sound(t float64) float64 {
	if math.Mod(t, b.period) < beepLength {
		return 1
	}
	return 0
}

func (b *beeps) onAir(from, to float64) bool {
	return math.Mod(from, b.period) < beepLength || math.Floor(from/b.period) != math.Floor(to/b.period)
}

func (b *beeps) heard(at float64, pcm []int16) {
	for i := 0; i < len(pcm); i += 2 {
		loud := pcm[i] > 16000
		if loud && !b.loud {
			t := at + float64(i/2)/rate
			b.seen(t, t-b.period*math.Round(t/b.period))
		}
		b.loud = loud
	}
}

// skim does what Add does with a block of silence that follows on silence, but
// moves the filter's place at once instead of sample by sample, so that hours
// of sound pass in seconds.
func (c *Corrector) skim(frames int, stamp time.Duration) (made int64) {
	c.steer(c.late(stamp), float64(frames)/rate)
	end := float64(c.line.frames() + frames - c.line.k.half)
	steps := math.Ceil((end - c.line.pos) / c.step)
	c.line.pos += steps*c.step - float64(frames)
	made = int64(steps)
	c.made += made
	return made
}

// canSkim reports whether c is in the middle of sound that goes on.
func (c *Corrector) canSkim(stamp time.Duration) bool {
	return c.attached && c.line.frames() >= 2*c.line.k.half-1 && !c.jumped(c.late(stamp))
}

// play lets c hear card for the given seconds, and skims over silence.
func play(c *Corrector, card *card, tape *tape, seconds float64) {
	loud := func(v int16) bool { return v != 0 }
	for silent := false; card.at(card.taken) < seconds; {
		before := silent
		pcm, stamp := card.read()
		if silent = !slices.ContainsFunc(pcm, loud); silent && before && c.canSkim(stamp) {
			tape.n += c.skim(len(pcm)/2, stamp)
			continue
		}
		c.Add(pcm, stamp)
		tape.take(c, card.begin)
	}
}

func TestBeepsStayInPlace(t *testing.T) {
	tests := []struct {
		ppm     float64
		jitter  time.Duration
		seconds float64
	}{
		{-500, 2 * time.Millisecond, 7200},
		{+500, 2 * time.Millisecond, 7200},
		{-500, 0, 240},
		{-120, 5 * time.Millisecond, 240},
		{0, 0, 120},
		{+60, time.Millisecond, 240},
		{+500, 5 * time.Millisecond, 240},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("card at %+g ppm with %v of jitter for %g s", tt.ppm, tt.jitter, tt.seconds), func(t *testing.T) {
			t.Parallel()
			worst, settled, count := 0.0, 0.0, 0
			b := &beeps{period: 5, seen: func(at, off float64) {
				count++
				worst = max(worst, math.Abs(off))
				if at > 60 {
					settled = max(settled, math.Abs(off))
				}
			}}
			card := newCard(tt.ppm, tt.jitter, b.sound)
			card.onAir = b.onAir
			tape := &tape{tb: t, heard: b.heard}
			c := NewCorrector()
			play(c, card, tape, tt.seconds)
			t.Logf("worst %.3f ms, settled %.3f ms, measured %+.1f ppm, %d beeps", worst*1e3, settled*1e3, c.PPM(), count)
			if worst > 10e-3 || settled > 1e-3 {
				t.Errorf("beeps were off by %.2f ms at worst and %.2f ms after a minute, want 10 and 1", worst*1e3, settled*1e3)
			}
			if math.Abs(c.PPM()-tt.ppm) > 20 {
				t.Errorf("measured %+.1f ppm, want %+g", c.PPM(), tt.ppm)
			}
			if want := int(tt.seconds / 5); count < want-1 || count > want+1 {
				t.Errorf("heard %d beeps, want %d", count, want)
			}
			if s := c.Stats(); s != (CorrectorStats{}) {
				t.Errorf("sound was thrown away or made up: %+v", s)
			}
		})
	}
}

func TestCorrectionIsInaudible(t *testing.T) {
	const hz = 997
	tests := []struct {
		name   string
		ppm    float64
		jitter time.Duration
		window int     // sample frames; the sine's frequency is taken as known, so it must be right
		after  float64 // seconds
		want   float64
	}{
		{"+300 ppm, one second at a time", 300, 0, rate, 240, 75},
		{"-300 ppm, one second at a time", -300, 0, rate, 240, 75},
		{"+300 ppm with 1 ms of jitter, 20 ms at a time", 300, time.Millisecond, rate / 50, 60, 60},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			card := newCard(tt.ppm, tt.jitter, func(s float64) float64 { return math.Sin(2 * math.Pi * hz * s) })
			card.onAir = func(from, _ float64) bool { return from > tt.after-1 }
			worst, lo, hi := math.Inf(1), math.Inf(1), 0.0
			var window []int16
			tape := &tape{tb: t, heard: func(at float64, pcm []int16) {
				if at < tt.after {
					return
				}
				for window = append(window, pcm...); len(window) >= 2*tt.window; window = window[2*tt.window:] {
					amplitude, _, snr := fit(window[:2*tt.window], hz)
					worst, lo, hi = min(worst, snr), min(lo, amplitude), max(hi, amplitude)
				}
			}}
			c := NewCorrector()
			play(c, card, tape, tt.after+20)
			t.Logf("worst signal to noise %.1f dB, amplitude %.0f to %.0f", worst, lo, hi)
			if worst < tt.want {
				t.Errorf("signal to noise %.1f dB, want %.0f", worst, tt.want)
			}
			if lo < 31900 || hi > 32100 {
				t.Errorf("amplitude went from %.0f to %.0f, want 32000", lo, hi)
			}
		})
	}
}

func TestOverrunsLeaveNoShift(t *testing.T) {
	var after float64 // time of the latest overrun
	settled, worst := 0.0, 0.0
	b := &beeps{period: 1, seen: func(at, off float64) {
		worst = max(worst, math.Abs(off))
		if at > 60 && at > after+1 {
			settled = max(settled, math.Abs(off))
		}
	}}
	card := newCard(120, 500*time.Microsecond, b.sound)
	card.onAir = b.onAir
	tape := &tape{tb: t, heard: b.heard}
	c := NewCorrector()
	lost := 0.0
	for i := range 40 {
		play(c, card, tape, card.at(card.taken)+7)
		d := time.Duration(80+13*i) * time.Millisecond
		card.lose(d)
		lost += d.Seconds()
		after = card.at(card.taken)
	}
	play(c, card, tape, after+7)
	if worst > 10e-3 || settled > 1.2e-3 {
		t.Errorf("beeps were off by %.2f ms at worst, %.2f ms a second after an overrun", worst*1e3, settled*1e3)
	}
	if filled := float64(c.Stats().Silence) / rate; math.Abs(filled-lost) > 0.05 {
		t.Errorf("%.3f s of silence for %.3f s of lost sound", filled, lost)
	}
	if s := c.Stats(); s.Dropped != 0 || s.Gaps != 40 || s.Steps != 0 {
		t.Errorf("got %+v, want 40 gaps, and no frame dropped, for none was surplus", s)
	}
}

// A card's first stamps after an overrun are off by the grain of its position
// or worse. That must neither be taken for drift nor leave sound out of place.
func TestBadStampsAfterAnOverrunDoNoHarm(t *testing.T) {
	for _, ms := range []int{2, 8, 12, 18, 30, 60, 200} {
		late := time.Duration(ms) * time.Millisecond
		t.Run(fmt.Sprintf("three stamps are %v late", late), func(t *testing.T) {
			t.Parallel()
			c := NewCorrector()
			var overrun, worst float64
			b := &beeps{period: 1, seen: func(at, off float64) {
				if at > overrun+15 {
					worst = max(worst, math.Abs(off))
				}
			}}
			card := newCard(60, 500*time.Microsecond, b.sound)
			card.onAir = b.onAir
			tape := &tape{tb: t, heard: b.heard}
			play(c, card, tape, 60)
			drift := 0.0
			for range 8 {
				card.lose(400 * time.Millisecond)
				overrun = card.at(card.taken)
				for range 3 {
					pcm, stamp := card.read()
					c.Add(pcm, stamp+late)
					tape.take(c, card.begin)
				}
				for range 20 {
					play(c, card, tape, card.at(card.taken)+1)
					drift = max(drift, math.Abs(c.PPM()-60))
				}
			}
			t.Logf("drift off by up to %.1f ppm, beeps by up to %.2f ms", drift, worst*1e3)
			if drift > 20 {
				t.Errorf("measured drift was off by up to %.1f ppm, want 20", drift)
			}
			if worst > 2e-3 {
				t.Errorf("beeps were off by %.2f ms 15 s after an overrun, want 2", worst*1e3)
			}
		})
	}
}

func TestCardGoneAndBack(t *testing.T) {
	tests := []struct {
		name   string
		filled time.Duration // how far beyond the card's return somebody filled up
		gone   time.Duration
	}{
		{"silence ends before the card is back", -100 * time.Millisecond, 10 * time.Second},
		{"silence ends as the card is back", 0, 10 * time.Second},
		{"silence reaches into the card's new sound", 35 * time.Millisecond, 10 * time.Second},
		{"gone for an instant", 0, 100 * time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			quiet, last := 0, 0.0
			b := &beeps{period: 1, seen: func(at, off float64) {
				if math.Abs(off) > 1.5e-3 {
					t.Errorf("beep at %.3f s is off by %.2f ms", at, off*1e3)
				}
				last = at
			}}
			card := newCard(-80, 0, func(s float64) float64 { return 0.8*b.sound(s+0.5) + 0.1 })
			tape := &tape{tb: t, heard: func(at float64, pcm []int16) {
				b.heard(at+0.5, pcm)
				for i := 0; i < len(pcm); i += 2 {
					if pcm[i] == 0 {
						quiet++
					}
				}
			}}
			c := NewCorrector()
			run := func(blocks int) {
				for range blocks {
					c.Add(card.read())
					tape.take(c, card.begin)
				}
			}
			run(2000)
			left := card.begin + time.Duration(card.at(card.taken)*1e9)
			card.lose(tt.gone)
			for d := 10 * time.Millisecond; d <= tt.gone+tt.filled; d += 10 * time.Millisecond {
				c.FillTo(left + d)
				tape.take(c, card.begin)
			}
			run(300)
			gone := tt.gone + max(tt.filled, 0)
			if got := float64(quiet) / rate; math.Abs(got-gone.Seconds()) > 0.012 {
				t.Errorf("%.3f s of silence, want %v", got, gone)
			}
			if end := card.at(card.taken); last < end-1 {
				t.Errorf("no beep after %.1f s although sound goes on to %.1f s", last, end)
			}
			if made, want := float64(tape.n)/rate, card.at(card.taken); math.Abs(made-want) > 0.002 {
				t.Errorf("%.4f s came out of %.4f s", made, want)
			}
		})
	}
}

func TestSilenceBeforeTheFirstCard(t *testing.T) {
	c := NewCorrector()
	c.FillTo(5 * time.Second)
	if c.Buffered() != 0 {
		t.Errorf("%d frames before time began", c.Buffered())
	}
	c.FillTo(6 * time.Second)
	buf := make([]int16, 2*rate)
	if n, stamp := c.Take(buf); n != rate || stamp != 5*time.Second {
		t.Errorf("got %d frames at %v, want a second from 5 s on", n, stamp)
	}
	c.FillTo(5500 * time.Millisecond)
	if c.Buffered() != 0 {
		t.Errorf("filling the past gave %d frames", c.Buffered())
	}
}

// Whatever happens, the n-th sample that comes out belongs to start + n/48000,
// and output keeps up with input. The tape checks the stamps.
func FuzzStampsAreContiguous(f *testing.F) {
	f.Add([]byte{0, 10, 0, 10, 1, 200, 0, 10, 2, 200, 0, 10})
	f.Add([]byte{2, 1, 0, 0, 3, 255, 0, 1, 3, 90, 0, 9, 2, 255, 3, 255, 0, 3})
	f.Add([]byte{0, 1, 3, 5, 0, 1, 1, 19, 0, 30, 1, 81, 2, 3, 0, 30, 0, 255})
	f.Fuzz(func(t *testing.T, script []byte) {
		c := NewCorrector()
		now := time.Hour
		latest := now
		tape := &tape{tb: t, heard: func(float64, []int16) {}}
		pcm := make([]int16, 2*1024)
		for i := 0; i+1 < min(len(script), 400); i += 2 {
			amount := time.Duration(script[i+1]) * time.Millisecond
			switch script[i] % 4 {
			case 0: // a block
				frames := 4 * int(script[i+1])
				c.Add(pcm[:2*frames], now)
				now += time.Duration(frames) * time.Second / rate
			case 1: // lost sound
				now += amount
			case 2:
				c.FillTo(now + amount)
				latest = max(latest, now+amount)
			case 3: // stamps go back
				now -= amount
			}
			latest = max(latest, now)
			tape.take(c, 0)
		}
		if end := tape.start + time.Duration(tape.n)*time.Second/rate; tape.n > 0 && end > latest+100*time.Millisecond {
			t.Errorf("output reaches %v, %v beyond what came in", end, end-latest)
		}
	})
}

func TestStepOnlyBeyondEightyMilliseconds(t *testing.T) {
	tests := []struct {
		name        string
		jump        time.Duration
		gaps, steps uint64
	}{
		{"10 ms later is steered", 10 * time.Millisecond, 0, 0},
		{"70 ms earlier is steered", -70 * time.Millisecond, 0, 0},
		{"90 ms earlier steps", -90 * time.Millisecond, 0, 1},
		{"30 ms later is lost sound", 30 * time.Millisecond, 1, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := NewCorrector()
			card := newCard(0, 0, func(float64) float64 { return 0.5 })
			tape := &tape{tb: t, heard: func(float64, []int16) {}}
			for i := range 400 {
				pcm, stamp := card.read()
				if i >= 300 {
					stamp += tt.jump
				}
				c.Add(pcm, stamp)
				tape.take(c, card.begin)
			}
			s := c.Stats()
			if s.Gaps != tt.gaps || s.Steps != tt.steps || (s.Silence > 0) != (tt.gaps > 0) || (s.Dropped > 0) != (tt.steps > 0) {
				t.Errorf("got %+v, want %d gaps and %d steps", s, tt.gaps, tt.steps)
			}
		})
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	c := NewCorrector()
	card := newCard(100, time.Millisecond, func(float64) float64 { return 0.1 })
	buf := make([]int16, 2048)
	var m Meter
	once := func() {
		c.Add(card.read())
		n, _ := c.Take(buf)
		m.Add(buf[:2*n])
		m.Read()
	}
	once()
	if n := testing.AllocsPerRun(200, once); n != 0 {
		t.Errorf("%v allocations a block", n)
	}
}

func ExampleCorrector() {
	c := NewCorrector()
	c.Add(make([]int16, 2*480), 5*time.Second) // 10 ms of a card
	c.FillTo(5*time.Second + 20*time.Millisecond)
	buf := make([]int16, 2*960)
	frames, stamp := c.Take(buf)
	fmt.Println(frames, stamp)
	// Output: 960 5s
}

func BenchmarkCorrector(b *testing.B) {
	c := NewCorrector()
	pcm := sine(997, 20000, rate, 0, 480)
	buf := make([]int16, 2048)
	stamp := time.Duration(0)
	b.ReportAllocs()
	for b.Loop() {
		c.Add(pcm, stamp)
		stamp += 10*time.Millisecond - time.Microsecond
		for n := 1; n > 0; {
			n, _ = c.Take(buf)
		}
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/1e7*100, "%cpu")
}

func BenchmarkConvert(b *testing.B) {
	for _, f := range []Format{S16, S24In3, S32} {
		b.Run(f.String(), func(b *testing.B) {
			src, dst := make([]byte, 480*2*f.Bytes()), make([]int16, 960)
			b.ReportAllocs()
			for b.Loop() {
				Convert(dst, src, f, 2, 0, 1)
			}
		})
	}
}

func BenchmarkMeter(b *testing.B) {
	var m Meter
	pcm := sine(997, 20000, rate, 0, 480)
	b.ReportAllocs()
	for b.Loop() {
		m.Add(pcm)
	}
}
