package daemon

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"encoderd.example/daemon/config"
	"encoderd.example/daemon/status"
	"encoderd.example/hw"
	"encoderd.example/hw/pcm"
	"encoderd.example/stream"
)

// A mixer stands between the microphone and the sound encoder. It turns blocks
// whose card has a clock of its own into one stream that is exactly 48 kHz of
// CLOCK_MONOTONIC, and fills in silence while there is no card.
//
//	card ─► record ─► Corrector ─► Fader ──► Fader ─► Meter, encoder
//	        (inputs)  (delay,      (channels, (mute)
//	                   drift)       gain)
type mixer struct {
	now    func() time.Duration // reads the clock of stamps
	blocks chan block
	free   chan []int16 // buffers for blocks
	opus   *demand      // for browsers

	coded atomic.Uint64 // progress: audio frames published
	heard atomic.Int64  // CLOCK_MONOTONIC when the last block came
	muted atomic.Bool
	// hushed is silence that ends by itself, with the show or with the next start.
	hushed atomic.Bool
	knobs  atomic.Pointer[knobs]

	mu    sync.Mutex
	level soundLevel
}

// knobs are what changes while sound goes on.
type knobs struct {
	delay  time.Duration // added to every stamp
	inputs [2]int        // of the card, from 1
	mix    pcm.Mix       // of these two, with the gain
	quiet  int           // samples below it are silence
	after  time.Duration // silence for so long is a fault; 0: never
}

// soundLevel is what the mixer measured last.
type soundLevel struct {
	pcm.Levels
	drift       float64       // of the card's clock, ppm
	late        time.Duration // how far sound is off its instant now; + is late
	gaps, steps uint64        // see [pcm.CorrectorStats]
	silent      bool          // a card is there, but has been silent for too long
}

// A block is sound from the card.
type block struct {
	pcm   []int16
	stamp time.Duration
}

// blockFrames is the size of a block: 20 ms, about one coded frame, so that
// sound wakes the box no more often than it must.
const blockFrames = hw.SampleRate / 50

func newMixer() *mixer {
	m := &mixer{opus: &demand{}, now: stream.Monotonic, blocks: make(chan block, 8), free: make(chan []int16, 9)}
	m.level.Levels = new(pcm.Meter).Read()
	m.turn(config.Default().Audio)
	for range cap(m.free) {
		m.free <- make([]int16, blockFrames*hw.Channels)
	}
	return m
}

// turn sets what may change while sound goes on.
func (m *mixer) turn(a config.Audio) {
	k := &knobs{
		delay:  a.Delay.Duration(),
		inputs: [2]int{a.Channels.Left, a.Channels.Right},
		mix:    pcm.Through,
		quiet:  int(math.Pow(10, float64(a.Silence)/20) * (math.MaxInt16 + 1)),
		after:  a.SilenceAfter.Duration(),
	}
	if max(k.inputs[0], k.inputs[1]) <= hw.Channels {
		// The first two are mixed here, whatever the card: that makes no click.
		k.mix = pcm.Mix{}
		k.mix[0][k.inputs[0]-1], k.mix[1][k.inputs[1]-1] = 1, 1
		k.inputs = [2]int{1, 2}
	}
	if a.Channels.Mono {
		k.mix = pcm.Mix{{0.5, 0.5}, {0.5, 0.5}}
	}
	k.mix = k.mix.Scaled(float64(a.Gain))
	m.knobs.Store(k)
}

// soundSettings says what turn would change, for people.
func soundSettings(a config.Audio) string {
	usual, text := config.Default().Audio, ""
	if a.Channels != usual.Channels {
		text += fmt.Sprintf(", channels %s", a.Channels)
	}
	if a.Gain != usual.Gain {
		text += fmt.Sprintf(", gain %s", a.Gain)
	}
	if a.Delay != usual.Delay {
		text += fmt.Sprintf(", delay %s", a.Delay)
	}
	if a.Silence != usual.Silence || a.SilenceAfter != usual.SilenceAfter {
		text += fmt.Sprintf(", silent below %s for %s", a.Silence, a.SilenceAfter)
	}
	return text
}

// record feeds the mixer from s until it fails or ctx ends.
func (m *mixer) record(ctx context.Context, s hw.MicStream, first func()) error {
	inputs := [2]int{1, 2}
	for {
		if want := m.knobs.Load().inputs; want != inputs {
			if err := pick(s, want); err != nil {
				return err
			}
			inputs = want
		}
		var buf []int16
		select {
		case buf = <-m.free:
		case <-ctx.Done():
			return nil
		}
		n, stamp, err := s.Read(ctx, buf[:cap(buf)])
		if err != nil {
			m.free <- buf
			return err
		}
		first()
		select {
		case m.blocks <- block{buf[:n*hw.Channels], stamp}:
		case <-ctx.Done():
			m.free <- buf
			return nil
		}
	}
}

// pick has s give other inputs of its card.
func pick(s hw.MicStream, inputs [2]int) error {
	p, ok := s.(hw.PickingMicStream)
	if !ok {
		return fmt.Errorf("it has channels 1 and 2 only, choose others than %d and %d: %w", inputs[0], inputs[1], hw.ErrUnsupported)
	}
	return p.Pick(inputs[0], inputs[1])
}

const (
	// soundTick is how often silence is coded while there is no card.
	soundTick = 20 * time.Millisecond
	// soundWait is how long a card's block may take to arrive; after that
	// silence stands in for it.
	soundWait = 150 * time.Millisecond
)

// run codes sound and gives each unit to publish until ctx ends.
func (m *mixer) run(ctx context.Context, enc hw.AudioEncoder, publish func(*stream.Unit)) error {
	m.drain()
	second := &second{demand: m.opus, publish: publish}
	defer second.close()
	d := desk{
		mixer: m, enc: enc, publish: publish, line: pcm.NewCorrector(), out: make([]int16, blockFrames*hw.Channels),
		past: m.levels(), second: second,
	}
	// Silence waits for the card's first block, too: it would begin before it.
	wait := newBlockWait(soundWait)
	defer wait.timer.Stop()
	for {
		select {
		case b := <-m.blocks:
			d.card(b)
			wait.reset(soundWait)
		case <-wait.timer.C:
			if wait.overslept() {
				continue
			}
			d.silence()
			wait.reset(soundTick)
		case <-ctx.Done():
			return nil
		}
		if err := d.code(ctx); err != nil {
			return err
		}
		d.measure()
	}
}

// A blockWait waits for a block. A machine that stood still wakes up to find the
// time over, before the card's side could say what it has; so when it is over
// by far, the wait is a tick longer, once.
type blockWait struct {
	timer *time.Timer
	begin time.Time
	wait  time.Duration
	again bool // the tick is the longer wait
}

func newBlockWait(wait time.Duration) *blockWait {
	return &blockWait{timer: time.NewTimer(wait), begin: time.Now(), wait: wait}
}

func (w *blockWait) reset(wait time.Duration) {
	w.timer.Reset(wait)
	w.begin, w.wait, w.again = time.Now(), wait, false
}

// overslept reports whether the wait goes on, now that the timer has told.
func (w *blockWait) overslept() bool {
	if w.again || time.Since(w.begin) < w.wait+soundTick {
		return false
	}
	w.reset(soundTick)
	w.again = true
	return true
}

// drain throws away blocks that waited while nothing ran: their time is over.
func (m *mixer) drain() {
	for {
		select {
		case b := <-m.blocks:
			m.free <- b.pcm[:cap(b.pcm)]
		default:
			return
		}
	}
}

// A desk is what run works with.
type desk struct {
	*mixer

	enc     hw.AudioEncoder
	second  *second
	publish func(*stream.Unit)
	line    *pcm.Corrector
	fader   pcm.Fader // channels and gain
	mute    pcm.Fader
	meter   pcm.Meter
	out     []int16
	reached time.Duration // latest instant that the line was told of
	loud    time.Duration // instant at which there was sound, or no card, last
	silent  bool
	past    soundLevel // as the line before this one left it
}

// card takes a block of the card.
func (d *desk) card(b block) {
	at := b.stamp + d.knobs.Load().delay
	d.reach(at)
	d.line.Add(b.pcm, at)
	d.heard.Store(int64(d.now()))
	d.free <- b.pcm[:cap(b.pcm)]
}

// silence stands in for blocks that did not come.
func (d *desk) silence() {
	at := d.now() - soundWait + d.knobs.Load().delay
	d.reach(at)
	d.line.FillTo(at)
}

// maxGap is the longest time without sound that is filled in. After a longer
// one, when the machine stood still, sound begins anew: hours of silence would
// fill the memory, and drive everything else out of the renditions.
const maxGap = 10 * time.Second

// reach begins anew if instant at lies too far behind the one before.
func (d *desk) reach(at time.Duration) {
	if d.reached != 0 && at-d.reached > maxGap {
		d.past = d.levels()
		d.line = pcm.NewCorrector()
		d.enc.Reset()
		d.second.reset()
	}
	d.reached = max(d.reached, at)
}

// code takes what the line has ready through the encoder, or less if ctx ends:
// on a machine that is too slow there is no end of it.
func (d *desk) code(ctx context.Context) error {
	for ctx.Err() == nil {
		n, stamp := d.line.Take(d.out)
		if n == 0 {
			break
		}
		samples := d.out[:n*hw.Channels]
		d.mix(samples, stamp)
		d.meter.Add(samples)
		err := d.enc.Encode(samples, stamp, func(u *stream.Unit) {
			d.publish(u)
			d.coded.Add(1)
		})
		if err != nil {
			return fmt.Errorf("code sound: %w", err)
		}
		d.second.code(samples, stamp)
	}
	return nil
}

// mix applies channels, gain and mute. Silence is looked for in between: what is
// muted is silent for a reason.
func (d *desk) mix(samples []int16, stamp time.Duration) {
	k := d.knobs.Load()
	d.fader.Set(k.mix)
	d.fader.Apply(samples)
	if d.loud == 0 || !d.signal() || loudest(samples) >= k.quiet {
		d.loud = stamp
	}
	d.silent = k.after > 0 && stamp-d.loud >= k.after
	if d.muted.Load() || d.hushed.Load() {
		d.mute.Set(pcm.Mix{})
	} else {
		d.mute.Set(pcm.Through)
	}
	d.mute.Apply(samples)
}

func loudest(samples []int16) int {
	peak := 0
	for _, v := range samples {
		peak = max(peak, int(v), -int(v))
	}
	return peak
}

// measure tells what the page shows.
func (d *desk) measure() {
	stats := d.line.Stats()
	l := soundLevel{
		Levels: d.meter.Read(), drift: d.line.PPM(), late: d.line.Offset(), silent: d.silent,
		gaps: d.past.gaps + stats.Gaps, steps: d.past.steps + stats.Steps,
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.level = l
}

// signal reports whether a card gave sound within the last second.
func (m *mixer) signal() bool {
	heard := m.heard.Load()
	return heard > 0 && m.now()-time.Duration(heard) < time.Second
}

func (m *mixer) levels() soundLevel {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.level
}

// soundNow says how the sound is. The caller holds mu.
func (d *Daemon) soundNow() status.Sound {
	s := status.Sound{Source: d.config.Audio.Source, Muted: d.wanted.Muted}
	l := soundLevel{Levels: new(pcm.Meter).Read()}
	if s.Source != "none" {
		l, s.Signal = d.mixer.levels(), d.mixer.signal()
	}
	for i := range s.Channels {
		s.Channels[i] = status.SoundChannel{PeakDBFS: round(l.Peak[i]), RMSDBFS: round(l.RMS[i])}
	}
	s.PeakDBFS = max(s.Channels[0].PeakDBFS, s.Channels[1].PeakDBFS)
	s.LoudnessLUFS, s.MomentaryLUFS = round(l.ShortTerm), round(l.Momentary)
	s.Silent = s.Signal && l.silent
	s.DriftPPM, s.Gaps, s.Steps = round(l.drift), l.gaps, l.steps
	if m := d.notes.micStream; m != nil && s.Source != "none" {
		s.ID, s.Name, s.Xruns = d.notes.mic.ID(), d.notes.mic.Name(), m.Stats().Xruns
	}
	return s
}

// silence says in words what is wrong with silent sound.
func silence(s status.Sound, a config.Audio) string {
	return fmt.Sprintf("%s has given nothing above %sFS for %s", cmp.Or(s.ID, s.Source), a.Silence, a.SilenceAfter)
}
