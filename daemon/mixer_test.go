package daemon

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/daemon/config"
	"encoderd.example/hw"
	"encoderd.example/hw/pcm"
	"encoderd.example/stream"
)

// A tape is a sound encoder that keeps what it gets and checks that it follows
// without a gap, in samples and in stamps.
type tape struct {
	t      *testing.T
	begin  time.Duration // stamp of the first sample since Reset
	frames int64         // since Reset
	loud   int64         // sample frames that are not silent
	jump   int           // largest from sample to sample on one side
	last   [hw.Channels]int16
	resets int
	nap    time.Duration // that every fiftieth call takes
	calls  int
	err    error
}

func (e *tape) Encode(pcm []int16, stamp time.Duration, emit func(*stream.Unit)) error {
	if e.err != nil {
		return e.err
	}
	if e.calls++; e.calls%50 == 0 {
		time.Sleep(e.nap)
	}
	if e.frames == 0 {
		e.begin = stamp
	}
	if off := stamp - e.end(); off.Abs() > time.Nanosecond {
		e.t.Errorf("sample %d is stamped %v off its place", e.frames, off)
	}
	e.frames += int64(len(pcm) / hw.Channels)
	for i, v := range pcm {
		if v != 0 {
			e.loud++
		}
		before := &e.last[i%hw.Channels]
		e.jump = max(e.jump, int(v)-int(*before), int(*before)-int(v))
		*before = v
	}
	emit(&stream.Unit{PTS: stamp})
	return nil
}

// end is the instant at which what was coded ends.
func (e *tape) end() time.Duration {
	return e.begin + time.Duration(e.frames)*time.Second/hw.SampleRate
}

func (e *tape) Track() *stream.Track { return nil }
func (e *tape) Reset()               { e.frames = 0; e.resets++ }
func (e *tape) Close() error         { return nil }

// A tone is a sound card that is always in time.
type tone struct {
	now  func() time.Duration
	next time.Duration
	give [hw.Channels]int16 // every sample
}

var errPulled = errors.New("pulled out")

func (s *tone) Read(ctx context.Context, pcm []int16) (int, time.Duration, error) {
	const block = 20 * time.Millisecond
	if s.next == 0 {
		s.next = s.now()
	}
	stamp := s.next
	s.next += block
	timer := time.NewTimer(s.next - s.now())
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return 0, 0, errPulled
	}
	n := hw.SampleRate / 50
	for i := range n {
		copy(pcm[hw.Channels*i:], s.give[:])
	}
	return n, stamp, nil
}

func (s *tone) Stats() hw.MicStats { return hw.MicStats{} }
func (s *tone) Close() error       { return nil }

// A desktop is a mixer under test.
type desktop struct {
	*mixer
	t    *testing.T
	tape *tape
	tone [hw.Channels]int16 // of the card
}

func newDesktop(t *testing.T) *desktop {
	t.Helper()
	d := &desktop{mixer: newMixer(), t: t, tape: &tape{t: t}, tone: [hw.Channels]int16{1000, -200}}
	d.now = bubbleClock()
	return d
}

// during runs the mixer's encoding side while f goes on.
func (d *desktop) during(f func()) {
	d.t.Helper()
	ctx, cancel := context.WithCancel(d.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.run(ctx, d.tape, func(*stream.Unit) {}) }()
	f()
	synctest.Wait()
	cancel()
	if err := <-ended; err != nil {
		d.t.Error(err)
	}
}

// plugged has a card plugged in for a while.
func (d *desktop) plugged(long time.Duration) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), long)
	defer cancel()
	err := d.record(ctx, &tone{now: d.now, give: d.tone}, func() {})
	if err != nil && !errors.Is(err, errPulled) {
		d.t.Error(err)
	}
}

// buffers fails the test if one has got lost.
func (d *desktop) buffers() {
	d.t.Helper()
	if have := len(d.free) + len(d.blocks); have != cap(d.free) {
		d.t.Errorf("%d buffers of %d are left", have, cap(d.free))
	}
}

func TestMixer(t *testing.T) {
	tests := []struct {
		name string
		run  func(*desktop)
	}{
		{"without a card there is silence in real time", mixesSilence},
		{"sound takes its place in silence, twice", mixesCard},
		{"muted means silence", mixesMuted},
		{"channels, gain and mute turn without a click", turnsKnobs},
		{"silence that lasts is noticed", noticesSilence},
		{"other inputs are asked of the card", picksInputs},
		{"a new encoder goes on where the old one ended", goesOn},
		{"a delay moves the sound without a second one for an instant", delays},
		{"a machine that stands still for a moment loses no sound", naps},
		{"sound of long ago is not made up for", forgetsOldBlocks},
		{"a machine that stood still begins anew", beginsAnew},
		{"the encoder's error comes out", failsWithEncoder},
		{"the card's side ends when nobody codes", endsRecording},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDesktop(t)
				tt.run(d)
				d.buffers()
			})
		})
	}
}

// seconds fails the test unless about so much was coded.
func (d *desktop) seconds(what string, frames int64, want time.Duration) {
	d.t.Helper()
	if got := time.Duration(frames) * time.Second / hw.SampleRate; (got - want).Abs() > 50*time.Millisecond {
		d.t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func mixesSilence(d *desktop) {
	d.during(func() { time.Sleep(10 * time.Second) })
	d.seconds("coded", d.tape.frames, 10*time.Second-soundWait)
	if d.tape.loud != 0 || d.signal() || d.levels().Peak != [2]float64{pcm.Floor, pcm.Floor} {
		d.t.Errorf("%d samples are loud, signal %v, peak %v", d.tape.loud, d.signal(), d.levels().Peak)
	}
}

func mixesCard(d *desktop) {
	d.during(func() {
		for range 2 {
			time.Sleep(3 * time.Second)
			d.plugged(5 * time.Second)
			if !d.signal() {
				d.t.Error("sound is not noticed")
			}
		}
		time.Sleep(2 * time.Second)
	})
	d.seconds("coded", d.tape.frames, 18*time.Second-soundWait)
	d.seconds("of it loud", d.tape.loud/hw.Channels, 10*time.Second)
	if d.signal() {
		d.t.Error("that the card has gone is not noticed")
	}
}

func mixesMuted(d *desktop) {
	d.muted.Store(true)
	d.during(func() { d.plugged(5 * time.Second) })
	d.seconds("coded", d.tape.frames, 5*time.Second)
	if d.tape.loud != 0 {
		d.t.Errorf("%d samples are loud", d.tape.loud)
	}
}

func turnsKnobs(d *desktop) {
	tests := []struct {
		channels config.Channels
		gain     config.Level
		muted    bool
		want     [hw.Channels]int16
	}{
		{config.Stereo, 6, false, [2]int16{1995, -399}},
		{config.Stereo, 6, true, [2]int16{}},
		{config.Channels{Left: 2, Right: 1}, 0, false, [2]int16{-200, 1000}},
		{config.Channels{Left: 1, Right: 1}, -20, false, [2]int16{100, 100}},
		{config.Channels{Left: 2, Right: 2}, 24, false, [2]int16{-3170, -3170}},
		{config.Channels{Left: 1, Right: 2, Mono: true}, 0, false, [2]int16{400, 400}},
		{config.Stereo, 0, false, [2]int16{1000, -200}},
	}
	card := make(chan struct{})
	go func() { defer close(card); d.plugged(time.Duration(len(tests)+2) * time.Second) }()
	d.during(func() {
		time.Sleep(time.Second)
		synctest.Wait()
		d.tape.jump = 0 // the card's beginning is one
		for _, tt := range tests {
			d.turn(config.Audio{Channels: tt.channels, Gain: tt.gain})
			d.muted.Store(tt.muted)
			time.Sleep(time.Second)
			synctest.Wait()
			if d.tape.last != tt.want {
				d.t.Errorf("%s %s muted %v: %v is heard, want %v", tt.channels, tt.gain, tt.muted, d.tape.last, tt.want)
			}
			if d.tape.jump > 3600/480+1 { // the longest way in 10 ms
				d.t.Errorf("%s %s muted %v: it clicks by %d", tt.channels, tt.gain, tt.muted, d.tape.jump)
			}
		}
	})
	<-card
	d.seconds("coded", d.tape.frames, time.Duration(len(tests)+1)*time.Second)
}

func noticesSilence(d *desktop) {
	tests := []struct {
		name  string
		audio config.Audio
		tone  int16 // on one side
		muted bool
		card  time.Duration // 0: there is none
		want  bool
	}{
		{"sound", config.Audio{Silence: -60, SilenceAfter: 10e9}, 40, false, 15 * time.Second, false},
		{"silence", config.Audio{Silence: -60, SilenceAfter: 10e9}, 30, false, 11 * time.Second, true},
		{"not yet", config.Audio{Silence: -60, SilenceAfter: 10e9}, 30, false, 9 * time.Second, false},
		{"sound that is muted", config.Audio{Silence: -60, SilenceAfter: 10e9}, 40, true, 15 * time.Second, false},
		{"loud by the gain", config.Audio{Silence: -60, SilenceAfter: 10e9, Gain: 6}, 30, false, 15 * time.Second, false},
		{"nobody wants to know", config.Audio{Silence: -60}, 0, false, 15 * time.Second, false},
		{"no card is another trouble", config.Audio{Silence: -60, SilenceAfter: 10e9}, 0, false, 0, false},
	}
	for _, tt := range tests {
		tt.audio.Channels = config.Stereo
		d.turn(tt.audio)
		d.muted.Store(tt.muted)
		d.tone = [hw.Channels]int16{0, -tt.tone}
		d.during(func() {
			if tt.card == 0 {
				time.Sleep(20 * time.Second)
			} else {
				d.plugged(tt.card)
			}
			synctest.Wait()
			if got := d.levels().silent; got != tt.want {
				d.t.Errorf("%s: noticed %v, want %v", tt.name, got, tt.want)
			}
		})
		d.tape.Reset()
	}
}

// A console is a sound card with many inputs.
type console struct {
	tone
	picked [][2]int
	err    error
}

func (c *console) Pick(left, right int) error {
	c.picked = append(c.picked, [2]int{left, right})
	return c.err
}

func picksInputs(d *desktop) {
	many := config.Audio{Channels: config.Channels{Left: 3, Right: 18}}
	d.turn(many)
	c := &console{tone: tone{now: d.now, give: d.tone}}
	ctx, cancel := context.WithTimeout(d.t.Context(), 10*time.Second)
	defer cancel()
	d.during(func() {
		time.AfterFunc(5*time.Second, func() { d.turn(config.Audio{Channels: config.Channels{Left: 2, Right: 2}}) })
		_ = d.record(ctx, c, func() {}) // ends with ctx
	})
	if want := [][2]int{{3, 18}, {1, 2}}; !slices.Equal(c.picked, want) {
		d.t.Errorf("picked %v, want %v", c.picked, want)
	}
	if want := [2]int16{d.tone[1], d.tone[1]}; d.tape.last != want {
		d.t.Errorf("heard %v in the end, want %v", d.tape.last, want)
	}
	d.turn(many)
	if err := d.record(d.t.Context(), &tone{now: d.now}, func() {}); !errors.Is(err, hw.ErrUnsupported) {
		d.t.Errorf("a card without other inputs: got %v", err)
	}
	c.err = errors.New("no channel 18")
	if err := d.record(d.t.Context(), c, func() {}); !errors.Is(err, c.err) {
		d.t.Errorf("a card that refuses: got %v", err)
	}
}

func goesOn(d *desktop) {
	card := make(chan struct{})
	go func() { defer close(card); d.plugged(20 * time.Second) }()
	d.during(func() { time.Sleep(5 * time.Second) })
	end := d.tape.end()
	d.tape.Reset()
	d.during(func() { time.Sleep(5 * time.Second) })
	if gap := d.tape.begin - end; gap < 0 || gap > 50*time.Millisecond {
		d.t.Errorf("the new one begins %v after the old one ended", gap)
	}
	<-card
}

func delays(d *desktop) {
	d.during(func() {
		for _, delay := range []time.Duration{100 * time.Millisecond, -100 * time.Millisecond, 0} {
			d.plugged(3 * time.Second)
			d.turn(config.Audio{Delay: config.Span(delay), Channels: config.Stereo})
		}
		d.plugged(time.Second)
	})
	d.seconds("coded", d.tape.frames, 10*time.Second)
}

func naps(d *desktop) {
	d.tape.nap = 300 * time.Millisecond // the card holds 320 ms
	d.during(func() { d.plugged(20 * time.Second) })
	if l := d.levels(); l.gaps != 0 {
		d.t.Errorf("%d gaps", l.gaps)
	}
	if quiet := d.tape.frames - d.tape.loud/hw.Channels; quiet > 0 {
		d.t.Errorf("%d sample frames of silence", quiet)
	}
	d.seconds("coded", d.tape.frames, 20*time.Second)
}

func forgetsOldBlocks(d *desktop) {
	d.plugged(time.Second) // nobody codes
	time.Sleep(maxGap / 2)
	d.during(func() { d.plugged(5 * time.Second) })
	d.seconds("coded", d.tape.frames, 5*time.Second)
}

func beginsAnew(d *desktop) {
	var slept atomic.Int64
	clock := d.now
	d.now = func() time.Duration { return clock() + time.Duration(slept.Load()) }
	d.during(func() {
		time.Sleep(3 * time.Second)
		synctest.Wait()
		slept.Store(int64(time.Hour))
		time.Sleep(5 * time.Second)
	})
	d.seconds("coded since", d.tape.frames, 5*time.Second)
	if d.tape.resets != 1 {
		d.t.Errorf("the encoder was told %d times to begin anew", d.tape.resets)
	}
}

func failsWithEncoder(d *desktop) {
	d.tape.err = errors.New("out of memory")
	if err := d.run(d.t.Context(), d.tape, func(*stream.Unit) {}); !errors.Is(err, d.tape.err) {
		d.t.Errorf("got %v", err)
	}
}

func endsRecording(d *desktop) {
	d.plugged(time.Minute) // ends with its context, though all buffers are full
	if len(d.blocks) != cap(d.blocks) {
		d.t.Errorf("%d blocks wait", len(d.blocks))
	}
}
