package alsa

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/pcm"
)

func openFake(t *testing.T, f *fake) *Stream {
	t.Helper()
	mic, err := f.card().Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := mic.(*Stream)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func mustRead(t *testing.T, s *Stream, buf []int16) (int, time.Duration) {
	t.Helper()
	n, stamp, err := s.Read(t.Context(), buf)
	if err != nil {
		t.Fatal(err)
	}
	if n < 1 {
		t.Fatal("read nothing, and no error")
	}
	return n, stamp
}

func TestTheNearestFormatIsChosen(t *testing.T) {
	all := []uint{formatS16, formatS24In, formatS24, formatS32}
	tests := []struct {
		name     string
		rates    []uint32
		formats  []uint
		channels [2]uint32
		want     string // or the error
	}{
		{"everything offered", []uint32{8000, 44100, 48000, 96000}, all, [2]uint32{1, 8}, "S16_LE, 2 channels, 48000 Hz"},
		{"the rate counts more than the format", []uint32{44100, 48000}, []uint{formatS32}, [2]uint32{2, 2}, "S32_LE, 2 channels, 48000 Hz"},
		{"three packed bytes before four", []uint32{48000}, all[1:], [2]uint32{2, 2}, "S24_3LE, 2 channels, 48000 Hz"},
		{"24 in 32 bits", []uint32{48000}, all[2:], [2]uint32{2, 2}, "S24_LE, 2 channels, 48000 Hz"},
		{"an old card at 44.1 kHz", []uint32{22050, 44100}, all[:1], [2]uint32{2, 2}, "S16_LE, 2 channels, 44100 Hz"},
		{"96 kHz before 32", []uint32{32000, 96000}, all[:1], [2]uint32{2, 2}, "S16_LE, 2 channels, 96000 Hz"},
		{"a webcam with one microphone at 16 kHz", []uint32{16000}, all[:1], [2]uint32{1, 1}, "S16_LE, 1 channels, 16000 Hz"},
		{"a mixer with 18 inputs and no fewer", []uint32{48000}, all[3:], [2]uint32{18, 18}, "S32_LE, 18 channels, 48000 Hz"},
		{"four to ten channels take the fewest", []uint32{48000}, all[:1], [2]uint32{4, 10}, "S16_LE, 4 channels, 48000 Hz"},
		{"float only", []uint32{48000}, []uint{14}, [2]uint32{2, 2}, "1 formats (mask [0x4000 0x0]), 48000 to 48000 Hz, 2 to 2 channels: not supported"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			f.rates, f.formats, f.channels = tt.rates, tt.formats, tt.channels
			s, err := f.card().open()
			if err != nil {
				if !strings.HasSuffix(err.Error(), tt.want) || !errors.Is(err, hw.ErrUnsupported) {
					t.Errorf("got error %v, want %s", err, tt.want)
				}
				return
			}
			defer s.Close()
			if got := s.Format(); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if s.period != s.rate/50 || s.buffer != 16*s.period {
				t.Errorf("period %d and buffer %d frames, want 20 and 320 ms", s.period, s.buffer)
			}
		})
	}
}

func TestSamplesComeThroughInOrder(t *testing.T) {
	for _, size := range []int{2, 7, 960, 4096} {
		t.Run(fmt.Sprintf("slice of %d", size), func(t *testing.T) {
			f := newFake(t)
			s := openFake(t, f)
			buf := make([]int16, size)
			for want := 0; want < 5000; {
				n, _ := mustRead(t, s, buf)
				for i := range n {
					if buf[2*i] != int16(want) || buf[2*i+1] != int16(want) {
						t.Fatalf("frame %d is %d, %d", want, buf[2*i], buf[2*i+1])
					}
					want++
				}
			}
		})
	}
}

func TestStampsAreSteady(t *testing.T) {
	tests := []struct {
		name  string
		ppm   float64
		grain time.Duration
		rate  uint32
		mean  time.Duration // by how much the grain makes stamps late on average
	}{
		{"exact card", 0, 0, 48000, 0},
		{"card 300 ppm fast", 300, 0, 48000, 0},
		{"position in steps of 4 ms, 200 ppm slow", -200, 4 * time.Millisecond, 48000, time.Millisecond},
		{"position in steps of 1 ms", 50, time.Millisecond, 48000, 0},
		{"44.1 kHz card 100 ppm fast", 100, 0, 44100, 0},
		{"16 kHz card", 0, 0, 16000, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			f.ppm, f.grain, f.rates = tt.ppm, tt.grain, []uint32{tt.rate}
			s := openFake(t, f)
			buf := make([]int16, 4096)
			lo, hi := math.Inf(1), math.Inf(-1)
			var last time.Duration
			for total := 0; total < 60*48000; {
				n, stamp := mustRead(t, s, buf)
				if stamp <= last {
					t.Fatalf("stamp %v after %v", stamp, last)
				}
				last = stamp
				truth := f.started.Seconds() + float64(total)/48000/(1+tt.ppm*1e-6)
				if total > 20*48000 {
					off := (stamp.Seconds() - truth) * 1e3
					lo, hi = min(lo, off), max(hi, off)
				}
				total += n
			}
			t.Logf("stamps are %.3f to %.3f ms late", lo, hi)
			if hi-lo > 0.3 {
				t.Errorf("stamps wander by %.3f ms, want below 0.3", hi-lo)
			}
			resampling := 17.0 / float64(tt.rate) * 1e3 // place of the first output sample
			if most := tt.grain.Seconds()*1e3 + 0.2 + resampling; hi > most || lo < -0.2-resampling {
				t.Errorf("stamps are %.3f to %.3f ms late, want 0 to %.3f", lo, hi, most)
			}
		})
	}
}

func TestAnOverrunIsCountedAndShowsAsAJump(t *testing.T) {
	f := newFake(t)
	s := openFake(t, f)
	buf := make([]int16, 1920)
	var next time.Duration
	for range 200 {
		n, stamp := mustRead(t, s, buf)
		next = stamp + time.Duration(n)*time.Second/48000
	}
	f.now += time.Second // nobody reads
	at := f.now
	_, stamp := mustRead(t, s, buf)
	if got := s.Stats().Xruns; got != 1 {
		t.Errorf("%d overruns, want 1", got)
	}
	if off := (stamp - at).Abs(); off > time.Millisecond {
		t.Errorf("sound goes on at %v, stamped %v", at, stamp)
	}
	if gap := stamp - next; gap < 900*time.Millisecond {
		t.Errorf("stamps jump by %v, want about a second", gap)
	}
	for range 200 {
		mustRead(t, s, buf)
	}
	if got := s.Stats().Xruns; got != 1 {
		t.Errorf("%d overruns in the end, want 1", got)
	}
}

func TestTroubleAtEveryCall(t *testing.T) {
	type want int
	const (
		goesOn want = iota
		ends        // with the error named
	)
	tests := []struct {
		name  string
		call  string
		errno unix.Errno
		want  want
		err   error
		xruns uint64
	}{
		{"unplugged while waiting", "poll", unix.ENODEV, ends, hw.ErrGone, 0},
		{"unplugged at the status", "STATUS_EXT", unix.ENODEV, ends, hw.ErrGone, 0},
		{"unplugged at the read", fakeRead, unix.ENODEV, ends, hw.ErrGone, 0},
		{"overrun at the read", fakeRead, unix.EPIPE, goesOn, nil, 1},
		{"overrun at the status", "STATUS_EXT", unix.EPIPE, goesOn, nil, 1},
		{"suspended at the read", fakeRead, unix.ESTRPIPE, goesOn, nil, 0},
		{"nothing there after all", fakeRead, unix.EAGAIN, goesOn, nil, 0},
		{"out of state for an instant", fakeRead, unix.EBADFD, ends, errStopped, 0},
		{"input/output error", fakeRead, unix.EIO, ends, unix.EIO, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			s := openFake(t, f)
			buf := make([]int16, 1920)
			for range 10 {
				mustRead(t, s, buf)
			}
			once := true
			f.fail = func(call string) error {
				if call == tt.call && once {
					once = false
					return tt.errno
				}
				return nil
			}
			_, _, err := s.Read(t.Context(), buf)
			if !errors.Is(err, tt.err) || once {
				t.Fatalf("got %v, want %v (tried: %v)", err, tt.err, !once)
			}
			if tt.want == goesOn {
				for range 10 {
					mustRead(t, s, buf)
				}
			}
			if got := s.Stats().Xruns; got != tt.xruns {
				t.Errorf("%d overruns, want %d", got, tt.xruns)
			}
		})
	}
}

// Unplugging at the n-th call of any kind must end with hw.ErrGone and without
// a descriptor left, wherever it falls.
func TestUnplugAnywhere(t *testing.T) {
	for n := range 60 {
		f := newFake(t)
		left := n
		f.fail = func(string) error {
			if left--; left < 0 {
				return unix.ENODEV
			}
			return nil
		}
		mic, err := f.card().Open(t.Context())
		if err == nil {
			buf := make([]int16, 1920)
			for err == nil {
				_, _, err = mic.Read(t.Context(), buf)
			}
			if err := mic.Close(); err != nil {
				t.Errorf("call %d: close: %v", n, err)
			}
		}
		if !errors.Is(err, hw.ErrGone) && !strings.Contains(err.Error(), "eventfd") {
			t.Errorf("unplugged at call %d (%s): %v", n, f.calls[len(f.calls)-1], err)
		}
		if len(f.fds) != 0 {
			t.Errorf("unplugged at call %d: %v left open", n, f.fds)
		}
	}
}

func TestStatesThatAreNotErrors(t *testing.T) {
	tests := []struct {
		name  string
		state int32
		err   error
	}{
		{"suspended and woken", stateSuspended, nil},
		{"disconnected", stateDisconnected, hw.ErrGone},
		{"stopped by the other end", stateDraining, errStopped},
		{"set up anew by the other end", stateSetup, errStopped},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			s := openFake(t, f)
			buf := make([]int16, 1920)
			mustRead(t, s, buf)
			f.state = tt.state
			if _, _, err := s.Read(t.Context(), buf); !errors.Is(err, tt.err) {
				t.Errorf("got %v, want %v", err, tt.err)
			}
		})
	}
}

func TestASuspendedCardIsAskedUntilItWakes(t *testing.T) {
	tests := []struct {
		name  string
		last  error  // what RESUME says in the end
		calls string // after it was asked
	}{
		{"wakes", nil, ""},
		{"cannot be woken, so it starts anew", unix.ENOSYS, "PREPARE START"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			s := openFake(t, f)
			buf := make([]int16, 1920)
			mustRead(t, s, buf)
			f.state, f.calls = stateSuspended, nil
			asked := 0
			f.fail = func(call string) error {
				if call != "RESUME" {
					return nil
				}
				if asked++; asked < 4 {
					return unix.EAGAIN
				}
				return tt.last
			}
			before := f.now
			mustRead(t, s, buf)
			var got []string
			for _, c := range f.calls {
				if c == "PREPARE" || c == "START" {
					got = append(got, c)
				}
			}
			if strings.Join(got, " ") != tt.calls || asked != 4 {
				t.Errorf("asked %d times, then called %q; want 4 and %q", asked, got, tt.calls)
			}
			if d := f.now - before; d < 3*resumeEvery {
				t.Errorf("asked every %v, want %v", d/3, resumeEvery)
			}
		})
	}
}

func TestACardWithoutAClockHasNoSignal(t *testing.T) {
	f := newFake(t)
	s := openFake(t, f)
	f.state = statePrepared // it never starts to take samples
	before := f.now
	if _, _, err := s.Read(t.Context(), make([]int16, 1920)); !errors.Is(err, hw.ErrNoSignal) {
		t.Errorf("got %v, want hw.ErrNoSignal", err)
	}
	if d := f.now - before; d != silenceLimit {
		t.Errorf("waited %v, want %v", d, silenceLimit)
	}
}

func TestOpenSaysWhatToDo(t *testing.T) {
	tests := []struct {
		name  string
		call  string
		errno unix.Errno
		err   error
		words string
	}{
		{"used by another program", "open", unix.EBUSY, hw.ErrBusy, "open sound card alsa:Fake: another program uses it"},
		{"taken between open and set-up", "HW_PARAMS", unix.EBUSY, hw.ErrBusy, "another program uses it"},
		{"node is gone", "open", unix.ENOENT, hw.ErrGone, "open sound card alsa:Fake: device is gone"},
		{"not allowed", "open", unix.EACCES, unix.EACCES, "add the service's user to the group audio"},
		{"no descriptors left", "eventfd", unix.EMFILE, unix.EMFILE, "make an eventfd: too many open files"},
		{"driver refuses stamps", "TTSTAMP", unix.ENOTTY, unix.ENOTTY, "ask for monotonic stamps"},
		{"driver refuses to start", "START", unix.EIO, unix.EIO, "start capture: input/output error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			f.fail = func(call string) error {
				if call == tt.call {
					return tt.errno
				}
				return nil
			}
			_, err := f.card().Open(t.Context())
			if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.words) {
				t.Errorf("got %v, want %v and the words %q", err, tt.err, tt.words)
			}
		})
	}
}

func TestASubdeviceIsChosenAtTheControlNode(t *testing.T) {
	for sub, fine := range map[int]bool{3: true, 4: false} { // the fake always opens 3
		f := newFake(t)
		c := f.card()
		c.sub = sub
		s, err := c.open()
		if (err == nil) != fine {
			t.Errorf("subdevice %d: %v", sub, err)
		}
		if err == nil {
			if len(f.fds) != 2 {
				t.Errorf("open: %v, want the node and the bell", f.fds)
			}
			s.Close()
		}
	}
}

func TestReadEndsWithItsContext(t *testing.T) {
	f := newFake(t)
	s := openFake(t, f)
	why := errors.New("the box shuts down")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, _, err := s.Read(ctx, make([]int16, 1920)); !errors.Is(err, why) {
		t.Errorf("got %v, want the cause", err)
	}
	mustRead(t, s, make([]int16, 1920)) // and goes on with another
}

func TestReadAfterClose(t *testing.T) {
	f := newFake(t)
	s := openFake(t, f)
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if _, _, err := s.Read(t.Context(), make([]int16, 1920)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v, want os.ErrClosed", err)
	}
}

// The whole way: a card that is off, overruns now and then and changes state;
// what comes out of the corrector must keep step with the clock.
func TestCardAndCorrectorKeepStep(t *testing.T) {
	f := newFake(t)
	f.ppm, f.grain = 250, time.Millisecond
	s := openFake(t, f)
	c := pcm.NewCorrector()
	buf := make([]int16, 4096)
	var start time.Duration
	made := 0
	for i := range 12000 { // two minutes
		if i%3000 == 2999 {
			f.now += 700 * time.Millisecond
		}
		n, stamp := mustRead(t, s, buf)
		c.Add(buf[:2*n], stamp)
		for {
			n, stamp := c.Take(buf)
			if n == 0 {
				break
			}
			if made == 0 {
				start = stamp
			}
			made += n
		}
	}
	behind := f.now - start - time.Duration(made)*time.Second/48000
	if behind < -2*time.Millisecond || behind > 5*time.Millisecond {
		t.Errorf("output is %v behind the clock", behind)
	}
	if math.Abs(c.PPM()-250) > 20 {
		t.Errorf("measured %+.1f ppm, want 250", c.PPM())
	}
	if got := s.Stats().Xruns; got != 4 {
		t.Errorf("%d overruns, want 4", got)
	}
}

// Each sample of the fake says its number, so that what comes out tells when it
// was taken.
func TestTenOverrunsInARowLeaveNoShift(t *testing.T) {
	f := newFake(t)
	f.ppm, f.grain = -300, time.Millisecond
	s := openFake(t, f)
	c := pcm.NewCorrector()
	buf := make([]int16, 4096)
	origin := f.started.Seconds() // instant of sample 0
	worst := 0.0
	run := func(long time.Duration) {
		worst = 0
		for end := f.now + long; f.now < end; {
			n, stamp := mustRead(t, s, buf)
			c.Add(buf[:2*n], stamp)
			for {
				n, stamp := c.Take(buf)
				if n == 0 {
					break
				}
				number := (stamp.Seconds() - origin) * 48000 * (1 - 300e-6)
				if want := math.Remainder(number, 1<<16); math.Abs(want) < 30000 && buf[0] != 0 { // else it wraps, or is silence
					worst = max(worst, math.Abs(float64(buf[0])-want)/48)
				}
			}
		}
	}
	run(2 * time.Minute)
	for range 10 {
		f.now += 400 * time.Millisecond // nobody reads
		run(50 * time.Millisecond)
	}
	lost := float64(c.Stats().Silence) / 48000
	run(20 * time.Second)
	t.Logf("%.3f s of silence, sound at most %.2f ms off its place", lost, worst)
	if got := s.Stats().Xruns; got != 10 || c.Stats().Gaps != 10 || c.Stats().Steps != 0 {
		t.Errorf("%d overruns, %+v; want 10 of each and no step", got, c.Stats())
	}
	if worst > 1 || worst == 0 {
		t.Errorf("sound is %.2f ms off its place", worst)
	}
}

func BenchmarkRead(b *testing.B) {
	f := &fake{rates: []uint32{48000}, formats: []uint{formatS16}, channels: [2]uint32{2, 2}, fds: map[int]string{}}
	s, err := f.card().open()
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	buf := make([]int16, 1920)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.Read(ctx, buf); err != nil {
			b.Fatal(err)
		}
		f.calls = f.calls[:0]
	}
}
