package daemon

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/pcm"
	"encoderd.example/stream"
)

// A mixer stands between the microphone and the sound encoder. It turns blocks
// whose card has a clock of its own into one stream that is exactly 48 kHz of
// CLOCK_MONOTONIC, and fills in silence while there is no card.
type mixer struct {
	now    func() time.Duration // reads the clock of stamps
	blocks chan block
	free   chan []int16 // buffers for blocks

	coded atomic.Uint64 // progress: audio frames published
	heard atomic.Int64  // CLOCK_MONOTONIC when the last block came
	muted atomic.Bool
	delay atomic.Int64 // ns, added to every stamp

	mu    sync.Mutex
	level soundLevel
}

// soundLevel is what the mixer measured last.
type soundLevel struct {
	at    time.Duration // when it was measured
	peak  float64       // dBFS, −∞ as [pcm.Floor]
	drift float64       // of the card's clock, ppm
	late  time.Duration // how far sound is off its instant now; + is late
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
	m := &mixer{
		now: stream.Monotonic, blocks: make(chan block, 8), free: make(chan []int16, 9),
		level: soundLevel{peak: pcm.Floor},
	}
	for range cap(m.free) {
		m.free <- make([]int16, blockFrames*hw.Channels)
	}
	return m
}

// record feeds the mixer from s until it fails or ctx ends.
func (m *mixer) record(ctx context.Context, s hw.MicStream, first func()) error {
	for {
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
	d := desk{mixer: m, enc: enc, publish: publish, line: pcm.NewCorrector(), out: make([]int16, blockFrames*hw.Channels)}
	// Silence waits for the card's first block, too: it would begin before it.
	timer := time.NewTimer(soundWait)
	defer timer.Stop()
	for {
		select {
		case b := <-m.blocks:
			d.card(b)
			timer.Reset(soundWait)
		case <-timer.C:
			d.silence()
			timer.Reset(soundTick)
		case <-ctx.Done():
			return nil
		}
		if err := d.code(ctx); err != nil {
			return err
		}
		m.measure(&d.meter, d.line)
	}
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
	publish func(*stream.Unit)
	line    *pcm.Corrector
	meter   pcm.Meter
	out     []int16
	reached time.Duration // latest instant that the line was told of
}

// card takes a block of the card.
func (d *desk) card(b block) {
	at := b.stamp + time.Duration(d.delay.Load())
	d.reach(at)
	d.line.Add(b.pcm, at)
	d.heard.Store(int64(d.now()))
	d.free <- b.pcm[:cap(b.pcm)]
}

// silence stands in for blocks that did not come.
func (d *desk) silence() {
	at := d.now() - soundWait + time.Duration(d.delay.Load())
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
		d.line = pcm.NewCorrector()
		d.enc.Reset()
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
		if d.muted.Load() {
			clear(samples)
		}
		d.meter.Add(samples)
		err := d.enc.Encode(samples, stamp, func(u *stream.Unit) {
			d.publish(u)
			d.coded.Add(1)
		})
		if err != nil {
			return fmt.Errorf("code sound: %w", err)
		}
	}
	return nil
}

func (m *mixer) measure(meter *pcm.Meter, line *pcm.Corrector) {
	levels, now := meter.Read(), m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	// The peak falls by 20 dB a second, so that a page that looks once a
	// second sees it.
	fallen := m.level.peak - 20*(now-m.level.at).Seconds()
	m.level = soundLevel{
		at: now, peak: max(levels.Peak[0], levels.Peak[1], fallen, pcm.Floor),
		drift: line.PPM(), late: line.Offset(),
	}
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
