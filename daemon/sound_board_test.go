//go:build board

package daemon

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/alsa"
	"encoderd.example/stream"
)

// These tests run in a guest with snd-aloop: what is played into Loopback,0,0
// is heard from Loopback,1,0 at the same instant, on a clock that can be set
// off.
//
//	aplay ─► Loopback,0,0 ─► Loopback,1,0 ─► hw/alsa ─► mixer ─► ear
//	              │                                               │
//	              └ position and time in /proc: when a beep was played; when it is heard
//
// The player's buffer is a second party that knows the time; none of the code
// under test has a part in it.

// A player plays a beep at every 48000th frame and knows when each was played.
type player struct {
	t    *testing.T
	ppm  float64 // of the card
	mu   sync.Mutex
	seen []position
}

// A position says that frame was about to be played at an instant: that is up to
// a tick of the kernel late, and the time of a look, but never early.
type position struct {
	at    time.Duration
	frame int64
}

const playStatus = "/proc/asound/Loopback/pcm0p/sub0/status"

// play runs the player while f goes on.
func (p *player) play(f func()) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.t.Context())
	pipe, sound := io.Pipe()
	cmd := exec.CommandContext(ctx, "aplay", "-q", "-D", "hw:Loopback,0,0", "-t", "raw", "-f", "S16_LE", "-r", "48000", "-c", "2", "--buffer-time=4000000", "-")
	var said bytes.Buffer
	cmd.Stdin, cmd.Stderr = pipe, &said
	if err := cmd.Start(); err != nil {
		p.t.Fatalf("%v: install alsa-utils in the guest", err)
	}
	var helpers sync.WaitGroup
	helpers.Go(func() { writeBeeps(sound) })
	helpers.Go(func() { p.watch(ctx) })
	f()
	cancel()
	pipe.Close()
	_ = cmd.Wait() // it was killed
	helpers.Wait()
	if said.Len() > 0 {
		p.t.Errorf("aplay: %s", &said)
	}
}

// writeBeeps writes seconds that begin with a beep until nobody reads.
func writeBeeps(w io.Writer) {
	second := make([]int16, hw.SampleRate*hw.Channels)
	for i := range hw.Channels * hw.SampleRate / 500 {
		second[i] = 20000
	}
	var raw bytes.Buffer
	_ = binary.Write(&raw, binary.LittleEndian, second)
	for {
		if _, err := w.Write(raw.Bytes()); err != nil {
			return
		}
	}
}

// watch notes where the player is until ctx ends.
func (p *player) watch(ctx context.Context) {
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if at, ok := lookUp(); ok {
				p.mu.Lock()
				p.seen = append(p.seen, at)
				p.mu.Unlock()
			}
		case <-ctx.Done():
			return
		}
	}
}

var playForm = regexp.MustCompile(`(?s)state: RUNNING.*\nhw_ptr *: (\d+)\n`)

func lookUp() (position, bool) {
	text, err := os.ReadFile(playStatus)
	at := stream.Monotonic()
	m := playForm.FindSubmatch(text)
	if err != nil || m == nil {
		return position{}, false
	}
	frame, err := strconv.ParseInt(string(m[1]), 10, 64)
	return position{at, frame}, err == nil
}

// played returns when the beep nearest to an instant was played.
func (p *player) played(near time.Duration) (at time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, _ := slices.BinarySearchFunc(p.seen, near, func(s position, t time.Duration) int { return int(s.at - t) })
	if i == 0 || i == len(p.seen) {
		return 0, false
	}
	rate := hw.SampleRate * (1 + p.ppm*1e-6)
	beep := (p.seen[i].frame + hw.SampleRate/2) / hw.SampleRate * hw.SampleRate
	for _, s := range p.seen {
		if (s.at - near).Abs() > time.Second {
			continue
		}
		t := s.at + seconds(float64(beep-s.frame)/rate)
		if !ok || t < at {
			at, ok = t, true
		}
	}
	return at, ok
}

// A lazyStream is a capture that nobody reads for a while, to order.
type lazyStream struct {
	hw.MicStream
	stall chan time.Duration
}

func (s *lazyStream) Read(ctx context.Context, pcm []int16) (int, time.Duration, error) {
	select {
	case d := <-s.stall:
		<-time.After(d)
	default:
	}
	return s.MicStream.Read(ctx, pcm)
}

// A loop is the mixer on the loopback, and what was heard.
type loop struct {
	t      *testing.T
	mixer  *mixer
	stream *lazyStream
	player *player

	mu    sync.Mutex
	beeps []time.Duration
}

// shiftClock sets how fast the loopback runs. The control is by how much a
// period is stretched: 100030 makes the card 300 ppm slow.
func shiftClock(t *testing.T, ppm float64) {
	t.Helper()
	set := exec.Command("amixer", "-q", "-c", "Loopback", "cset",
		"iface=PCM,name='PCM Rate Shift 100000',device=1,subdevice=0", fmt.Sprint(100000-int(ppm/10)))
	if out, err := set.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// hear runs the whole chain while f goes on.
func hear(t *testing.T, ppm float64, f func(*loop)) {
	t.Helper()
	shiftClock(t, ppm)
	mic, err := alsa.Find("/", "alsa:Loopback,1,0")
	if err != nil {
		t.Fatalf("%v: load snd-aloop", err)
	}
	capture, err := mic.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := capture.Close(); err != nil {
			t.Error(err)
		}
	}()
	s := &loop{
		t: t, mixer: newMixer(), player: &player{t: t, ppm: ppm},
		stream: &lazyStream{MicStream: capture, stall: make(chan time.Duration, 1)},
	}
	ctx, cancel := context.WithCancel(t.Context())
	var sides sync.WaitGroup
	sides.Go(func() {
		e := &ear{tape: tape{t: t}, heard: s.note}
		if err := s.mixer.run(ctx, e, func(*stream.Unit) {}); err != nil {
			t.Error(err)
		}
	})
	sides.Go(func() {
		if err := s.mixer.record(ctx, s.stream, func() {}); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	})
	s.player.play(func() { f(s) })
	cancel()
	sides.Wait()
}

func (s *loop) note(at, _ time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beeps = append(s.beeps, at)
}

// offs returns how far each beep heard from then on is off the instant at
// which it was played; + is late.
func (s *loop) offs(since time.Duration) []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []time.Duration
	for _, at := range s.beeps {
		if at < since {
			continue
		}
		if played, ok := s.player.played(at); ok {
			list = append(list, at-played)
		}
	}
	return list
}

// check says how the beeps of the last while were, and fails the test if their
// median is off by more than most.
func (s *loop) check(what string, last, most time.Duration) {
	s.t.Helper()
	offs := s.offs(stream.Monotonic() - last)
	if len(offs) < int(last.Seconds())/2 {
		s.t.Errorf("%s: %d beeps of %d heard in %v, %d looks at the player", what, len(offs), len(s.beeps), last, len(s.player.seen))
		return
	}
	slices.Sort(offs)
	median, l := offs[len(offs)/2], s.mixer.levels()
	s.t.Logf("%s: A-V %v in the median of %d beeps, from %v to %v; %+.1f ppm, %d overruns, %d gaps, %d steps",
		what, round3(median), len(offs), round3(offs[0]), round3(offs[len(offs)-1]), l.drift, s.stream.Stats().Xruns, l.gaps, l.steps)
	if median.Abs() > most {
		s.t.Errorf("%s: sound is %v off the picture, want %v at most", what, median, most)
	}
}

func round3(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }

// The picture's stamps are of the same clock as the player's, so what sound is
// off the instant at which it was played is what it is off the picture.
func TestBoardSoundKeepsStep(t *testing.T) {
	minutes := 1.5
	if text := os.Getenv("VIRT_SOUND_MINUTES"); text != "" {
		var err error
		if minutes, err = strconv.ParseFloat(text, 64); err != nil {
			t.Fatalf("VIRT_SOUND_MINUTES=%s: want a number", text)
		}
	}
	hear(t, -300, func(s *loop) {
		for m := 0.5; m <= minutes; m += 0.5 {
			<-time.After(30 * time.Second)
			s.check(fmt.Sprintf("after %g minutes", m), 20*time.Second, 10*time.Millisecond)
		}
	})
}

func TestBoardTenOverrunsLeaveNoShift(t *testing.T) {
	hear(t, 300, func(s *loop) {
		<-time.After(25 * time.Second)
		s.check("before", 15*time.Second, 10*time.Millisecond)
		before := s.stream.Stats().Xruns
		for range 10 {
			s.stream.stall <- 600 * time.Millisecond
			<-time.After(1100 * time.Millisecond)
		}
		if n := s.stream.Stats().Xruns - before; n < 10 {
			t.Errorf("%d overruns, want 10 at least", n)
		}
		<-time.After(20 * time.Second)
		s.check("after ten overruns", 15*time.Second, 10*time.Millisecond)
	})
}
