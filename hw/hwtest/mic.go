//nolint:thelper // most functions are checks: failures belong to their own lines
package hwtest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"encoderd.example/hw"
	"encoderd.example/stream"
)

// micChecks are run on every microphone and on the test microphone.
var micChecks = []struct {
	name string
	run  func(*testing.T, hw.Mic)
}{
	{"stamps follow the count of samples", countsSamples},
	{"a buffer of any size is filled by whole sample frames", fillsAnyBuffer},
	{"cancel ends a waiting Read", cancelsListening},
	{"a second Open leaves the first alone", listensTwice},
	{"can be opened again after Close", relistens},
}

func mics(t *testing.T, newBoard func() hw.Board) {
	t.Helper()
	for _, id := range micIDs(t, newBoard()) {
		for _, c := range micChecks {
			check(t, "microphone "+id+": "+c.name, newBoard, func(t *testing.T, b hw.Board) {
				c.run(t, findMic(t, b, id))
			})
		}
	}
	if newBoard().TestMic == nil {
		return
	}
	for _, c := range micChecks {
		check(t, "test microphone: "+c.name, newBoard, func(t *testing.T, b hw.Board) { c.run(t, b.TestMic) })
	}
}

func findMic(t *testing.T, b hw.Board, id string) hw.Mic {
	t.Helper()
	list := must[[]hw.Mic](t, "list microphones")(b.Mics())
	i := slices.IndexFunc(list, func(m hw.Mic) bool { return m.ID() == id })
	if i < 0 {
		t.Fatalf("microphone %q is no longer listed", id)
	}
	return list[i]
}

func listen(t *testing.T, m hw.Mic) hw.MicStream {
	t.Helper()
	return must[hw.MicStream](t, "open")(m.Open(t.Context()))
}

func hear(t *testing.T, s hw.MicStream, pcm []int16) (frames int, stamp time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	frames, stamp, err := s.Read(ctx, pcm)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	if frames < 1 || frames > len(pcm)/hw.Channels {
		t.Fatalf("%d sample frames read into room for %d", frames, len(pcm)/hw.Channels)
	}
	return frames, stamp
}

// countsSamples checks half a second: the clock of a sound card is good to
// 0.1 %, stamps jitter by less than 20 ms.
func countsSamples(t *testing.T, m hw.Mic) {
	s := listen(t, m)
	defer closeStream(t, s)
	pcm := make([]int16, 1024*hw.Channels)
	total := 0
	var first time.Duration
	for total < hw.SampleRate/2 {
		n, stamp := hear(t, s, pcm)
		if total == 0 {
			first = stamp
		}
		want := first + time.Duration(total)*time.Second/hw.SampleRate
		if off := stamp - want; off.Abs() > 20*time.Millisecond && s.Stats().Xruns == 0 {
			t.Errorf("after %d samples the stamp is off by %v", total, off)
		}
		if age := stream.Monotonic() - stamp; age < -20*time.Millisecond || age > patience {
			t.Errorf("stamp is %v before now on CLOCK_MONOTONIC", age)
		}
		total += n
	}
	if st := s.Stats(); st.Frames < uint64(total) {
		t.Errorf("%d sample frames counted, %d read", st.Frames, total)
	}
}

func fillsAnyBuffer(t *testing.T, m hw.Mic) {
	s := listen(t, m)
	defer closeStream(t, s)
	const mark = 0x5a5a
	for _, size := range []int{2, 3, 7, 960, 20001} {
		pcm := slices.Repeat([]int16{mark}, size)
		n, _ := hear(t, s, pcm)
		for i := n * hw.Channels; i < size; i++ {
			if pcm[i] != mark {
				t.Fatalf("room for %d samples: %d sample frames reported, sample %d written", size, n, i)
			}
		}
	}
}

func cancelsListening(t *testing.T, m hw.Mic) {
	s := listen(t, m)
	defer closeStream(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		pcm := make([]int16, 960)
		for {
			if _, _, err := s.Read(ctx, pcm); err != nil {
				ended <- err
				return
			}
		}
	}()
	cancel()
	within(t, "Read", func() {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("read ended with %v", err)
		}
	})
}

func listensTwice(t *testing.T, m hw.Mic) {
	first := listen(t, m)
	defer closeStream(t, first)
	second, err := m.Open(t.Context())
	if err == nil {
		defer closeStream(t, second)
	} else if !errors.Is(err, hw.ErrBusy) {
		t.Errorf("second Open fails with %v; want ErrBusy or none", err)
	}
	hear(t, first, make([]int16, 960))
}

func relistens(t *testing.T, m hw.Mic) {
	for range 3 {
		s := listen(t, m)
		hear(t, s, make([]int16, 960))
		closeStream(t, s)
	}
}

func replugsMic(t *testing.T, b hw.Board) {
	ids := micIDs(t, b)
	if len(ids) == 0 {
		t.Fatal("the board knows no microphone to unplug")
	}
	m := findMic(t, b, ids[0])
	s := listen(t, m)
	hear(t, s, make([]int16, 960))
	replug(t, b, unplugMic, func() []string { return micIDs(t, b) }, func() {
		within(t, "Read of an unplugged microphone", func() {
			pcm := make([]int16, 960)
			_, _, err := s.Read(t.Context(), pcm)
			for err == nil {
				_, _, err = s.Read(t.Context(), pcm)
			}
			if !errors.Is(err, hw.ErrGone) {
				t.Errorf("read of an unplugged microphone: %v; want ErrGone", err)
			}
		})
		closeStream(t, s)
		if _, err := m.Open(t.Context()); !errors.Is(err, hw.ErrGone) {
			t.Errorf("open of an unplugged microphone: %v; want ErrGone", err)
		}
	})
	relistens(t, findMic(t, b, ids[0]))
}
