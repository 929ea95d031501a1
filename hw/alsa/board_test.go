//go:build board

package alsa_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/alsa"
	"encoderd.example/hw/pcm"
	"encoderd.example/stream"
)

// These tests run in a guest with snd-aloop: what is played into
// Loopback,0,0 is captured from Loopback,1,0. Time there is that of a slow
// machine, so they assert counts and order, and times only with wide margins.

const loopback = "alsa:Loopback,1,0"

func open(t *testing.T) hw.MicStream {
	t.Helper()
	mic, err := alsa.Find("/", loopback)
	if err != nil {
		t.Fatalf("%v: load snd-aloop", err)
	}
	s, err := mic.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func read(t *testing.T, s hw.MicStream, buf []int16) (int, time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	n, stamp, err := s.Read(ctx, buf)
	if err != nil {
		t.Fatal(err)
	}
	return n, stamp
}

// noise returns seconds of stereo in which no sample is zero, and writes it as
// raw S16_LE to the file that it names.
func noise(t *testing.T, seconds int) (samples []int16, file string) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(3, 4))
	samples = make([]int16, seconds*hw.SampleRate*hw.Channels)
	for i := range samples {
		samples[i] = int16(rnd.IntN(32767)) + 1
		if rnd.IntN(2) == 0 {
			samples[i] = -samples[i]
		}
	}
	var raw bytes.Buffer
	binary.Write(&raw, binary.LittleEndian, samples)
	file = filepath.Join(t.TempDir(), "noise.raw")
	if err := os.WriteFile(file, raw.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return samples, file
}

// An emulated machine may stall for longer than the card's buffer lasts, or so
// that the card's clock is read late and stamps step back, so the recording has
// three tries.
func TestBoardRecordsWhatIsPlayedBitForBit(t *testing.T) {
	want, file := noise(t, 4)
	for try := 1; ; try++ {
		got, worst, stalls := record(t, file, len(want))
		if stalls > 0 && try < 3 {
			t.Logf("try %d: %d stalls", try, stalls)
			continue
		}
		if !slices.Equal(got[:min(len(got), len(want))], want) {
			t.Fatalf("what was recorded is not what was played; %d stalls", stalls)
		}
		if stalls > 0 {
			t.Fatalf("%d stalls in the third try, too", stalls)
		}
		t.Logf("%d samples equal, stamps at most %v off the count of samples", len(want), worst)
		if worst > 20*time.Millisecond {
			t.Errorf("stamps are up to %v off the count of samples", worst)
		}
		return
	}
}

// record plays file and returns what was heard from the first sample that is
// not zero on, until there are enough, how far stamps strayed from the
// count of samples, and how often the machine stalled.
func record(t *testing.T, file string, enough int) (got []int16, worst time.Duration, stalls uint64) {
	t.Helper()
	s := open(t)
	defer s.Close()
	play := exec.Command("aplay", "-q", "-D", "hw:Loopback,0,0", "-t", "raw", "-f", "S16_LE", "-r", "48000", "-c", "2", "--buffer-time=1000000", file)
	var said bytes.Buffer
	play.Stderr = &said
	if err := play.Start(); err != nil {
		t.Fatalf("%v: install alsa-utils in the guest", err)
	}
	defer func() {
		if err := play.Wait(); err != nil {
			t.Errorf("aplay: %v %s", err, &said)
		}
	}()

	buf := make([]int16, 4096)
	var first, last time.Duration
	for total := 0; len(got) < enough && total < 30*hw.SampleRate; {
		n, stamp := read(t, s, buf)
		if total == 0 {
			first = stamp
		} else if stamp <= last {
			t.Logf("stamp %v after %v", stamp, last)
			stalls++
		}
		last = stamp
		worst = max(worst, (stamp - first - time.Duration(total)*time.Second/hw.SampleRate).Abs())
		total += n
		block := buf[:2*n]
		for len(got) == 0 && len(block) > 0 && block[0] == 0 {
			block = block[2:]
		}
		got = append(got, block...)
	}
	return got, worst, stalls + s.Stats().Xruns
}

func TestBoardCountsAnOverrunAndShowsTheGap(t *testing.T) {
	s := open(t)
	buf := make([]int16, 960)
	var next time.Duration
	for range 100 {
		n, stamp := read(t, s, buf)
		next = stamp + time.Duration(n)*time.Second/hw.SampleRate
	}
	xruns := s.Stats().Xruns // a slow machine may have stalled by itself
	<-time.After(1500 * time.Millisecond)
	before := stream.Monotonic()
	_, stamp := read(t, s, buf)
	if x := s.Stats().Xruns - xruns; x != 1 {
		t.Errorf("%d overruns counted, want 1", x)
	}
	t.Logf("gap of %v; capture began again %v after Read was called", stamp-next, stamp-before)
	if stamp < before-10*time.Millisecond || stamp > stream.Monotonic() {
		t.Errorf("first block after the stall is stamped %v, read between %v and %v", stamp, before, stream.Monotonic())
	}
	if gap := stamp - next; gap < time.Second {
		t.Errorf("stamps jump by %v only", gap)
	}
}

func TestBoardSecondOpenIsBusy(t *testing.T) {
	open(t)
	mic, err := alsa.Find("/", loopback)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := mic.Open(t.Context()); !errors.Is(err, hw.ErrBusy) {
		if err == nil {
			s.Close()
		}
		t.Errorf("got %v, want hw.ErrBusy", err)
	} else {
		t.Log(err)
	}
}

func TestBoardListsTheLoopback(t *testing.T) {
	mics, err := alsa.Discover("/")
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, m := range mics {
		ids = append(ids, m.ID()+" = "+m.Name())
	}
	if !slices.Contains(ids, "alsa:Loopback = Loopback") {
		t.Errorf("got %q, want the loopback card among them", ids)
	}
	t.Logf("%q", ids)
}

func TestBoardRefusesASubdeviceThatIsNotThere(t *testing.T) {
	if _, err := alsa.Find("/", "alsa:Loopback,1,99"); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("got %v, want hw.ErrUnsupported", err)
	}
}

func TestBoardCloseEndsAReadThatWaits(t *testing.T) {
	s := open(t)
	buf := make([]int16, 8192)
	ended := make(chan error)
	go func() {
		for {
			if _, _, err := s.Read(context.Background(), buf); err != nil {
				ended <- err
				return
			}
		}
	}()
	<-time.After(50 * time.Millisecond)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v, want os.ErrClosed", err)
	}
}

// shiftClock sets by how much a period of the loopback is stretched: 100030
// makes the card 300 ppm slow (sound/drivers/aloop.c, byte_pos).
func shiftClock(t *testing.T, shift int) {
	t.Helper()
	set := exec.Command("amixer", "-q", "-c", "Loopback", "cset",
		"iface=PCM,name='PCM Rate Shift 100000',device=1,subdevice=0", fmt.Sprint(shift))
	if out, err := set.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// A card behind an HDMI bridge is set to 48 kHz while the source sends 44.1.
func TestBoardTakesTheRateThatReallyComes(t *testing.T) {
	const rate = 44100
	shiftClock(t, 100000*hw.SampleRate/rate)
	for _, told := range []bool{true, false} {
		t.Run(fmt.Sprintf("told %v", told), func(t *testing.T) {
			s := open(t)
			if told {
				s.(hw.RatedMicStream).TrueRate(rate)
			}
			buf := make([]int16, 8192)
			for try := range 20 {
				n, first := read(t, s, buf)
				total, stamp := 0, first
				for total < 2*hw.SampleRate {
					total += n
					n, stamp = read(t, s, buf)
				}
				perSecond := float64(total) / (stamp - first).Seconds()
				t.Logf("%.0f sample frames a second of the stamps, %d overruns", perSecond, s.Stats().Xruns)
				if math.Abs(perSecond/hw.SampleRate-1) < 0.005 {
					return
				}
				if told && try == 5 {
					break // lost sound spoils a try, not six
				}
			}
			t.Errorf("never 48000 sample frames a second")
		})
	}
}

// The card is heard until a minute has passed without an overrun or a stall of
// the machine.
func TestBoardMeasuresTheCardsClock(t *testing.T) {
	for shift, want := range map[int]float64{99970: 300, 100030: -300} {
		t.Run(fmt.Sprintf("rate shift %d", shift), func(t *testing.T) {
			shiftClock(t, shift)
			s := open(t)
			c := pcm.NewCorrector()
			buf := make([]int16, 8192)
			breaks, calm := uint64(0), 0
			for total := 0; calm < 60*hw.SampleRate && total < 240*hw.SampleRate; {
				n, stamp := read(t, s, buf)
				c.Add(buf[:2*n], stamp)
				for k := 1; k > 0; {
					k, _ = c.Take(buf)
				}
				total += n
				calm += n
				if n := s.Stats().Xruns + c.Stats().Gaps + c.Stats().Steps; n != breaks {
					breaks, calm = n, 0
				}
			}
			t.Logf("measured %+.1f ppm, %d overruns, %+v", c.PPM(), s.Stats().Xruns, c.Stats())
			if math.Abs(c.PPM()-want) > 30 {
				t.Errorf("measured %+.1f ppm, want %+g", c.PPM(), want)
			}
		})
	}
}
