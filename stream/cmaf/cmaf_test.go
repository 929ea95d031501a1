package cmaf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"encoderd.example/stream"
	"encoderd.example/stream/streamtest"
	"encoderd.example/stream/streamtest/peer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run runs a segmenter until the test ends or stop is called.
func run(tb testing.TB, s *Segmenter) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx); err != nil {
			tb.Error(err)
		}
	})
	for { // until Run has begun
		s.mu.Lock()
		begun := s.spawn != nil
		s.mu.Unlock()
		if begun {
			break
		}
	}
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	tb.Cleanup(stop)
	return stop
}

// A fake is an encoder of tiny pictures and sounds.
type fake struct {
	r            *stream.Rendition
	video, sound *stream.Track
	n            int // pictures
	gop          int
	key          func(n int) bool // nil: by gop
	lag          int              // frames of sound that it is late by
	shift        time.Duration    // of all stamps
	silent       bool
	times        int // that a picture's bytes are repeated, to make it large
	frames       int // of sound
}

func newFake() *fake {
	return &fake{
		r:     stream.NewRendition("main", 1024, stream.H264, stream.AAC),
		video: &stream.Track{Codec: stream.H264, Setup: []byte{1, 0x64, 0, 0x1f}, Width: 640, Height: 360, FPS: 25, Bitrate: 800_000},
		sound: &stream.Track{Codec: stream.AAC, Setup: []byte{0x11, 0x90}, Rate: 48000, Channels: 2, Bitrate: 96_000},
		gop:   25, shift: time.Hour,
	}
}

func (f *fake) isKey() bool {
	if f.key != nil {
		return f.key(f.n)
	}
	return f.n%f.gop == 0
}

// publish publishes so many pictures of 40 ms, with their sound.
func (f *fake) publish(pictures int) {
	for range pictures {
		at := time.Duration(f.n) * 40 * time.Millisecond
		f.r.Publish(&stream.Unit{
			Track: f.video, Key: f.isKey(), PTS: at + f.shift, DTS: at + f.shift,
			Data: bytes.Repeat(fmt.Appendf(nil, "picture %5d;", f.n), max(f.times, 1)),
		})
		f.n++
		for {
			due := time.Duration(f.frames) * 1024 * time.Second / 48000
			if due+time.Duration(f.lag)*21*time.Millisecond >= at+40*time.Millisecond {
				break
			}
			if !f.silent {
				f.r.Publish(&stream.Unit{
					Track: f.sound, PTS: due + f.shift, DTS: due + f.shift, Duration: 1024 * time.Second / 48000,
					Data: fmt.Appendf(nil, "sound %5d;", f.frames),
				})
			}
			f.frames++
		}
	}
}

// until waits for a number of complete segments since the first ones.
func until(complete int) func(*Sequence) bool {
	return func(s *Sequence) bool { return len(s.Complete()) >= complete }
}

func wait(tb testing.TB, st *Stream, m Medium, enough func(*Sequence) bool) *Sequence {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	seq, err := st.Wait(ctx, m, enough)
	if err != nil {
		tb.Fatalf("%v: %v", m, err)
	}
	return seq
}

// unbroken checks that parts follow one another without a gap in time.
func unbroken(t *testing.T, s *Sequence) {
	t.Helper()
	next := s.Segments[0].Time
	for i, g := range s.Segments {
		if g.Number != s.Segments[0].Number+uint64(i) {
			t.Errorf("segment %d is followed by %d", s.Segments[0].Number, g.Number)
		}
		for j, p := range g.Parts {
			if p.Time != next {
				t.Errorf("%v %d.%d begins at %d, but what is before ends at %d", s.Medium, g.Number, j, p.Time, next)
			}
			next = p.Time + p.Length
			if p.Duration > s.PartTarget {
				t.Errorf("%v %d.%d lasts %v, more than the target of %v", s.Medium, g.Number, j, p.Duration, s.PartTarget)
			}
			// RFC 8216bis, 4.4.4.9: at least 85 % of the target, except a segment's last.
			if j < len(g.Parts)-1 && p.Duration < s.PartTarget*85/100 {
				t.Errorf("%v %d.%d lasts %v, too little for a target of %v", s.Medium, g.Number, j, p.Duration, s.PartTarget)
			}
		}
		if g.Duration.Round(time.Second) > s.Target {
			t.Errorf("segment %d lasts %v, more than the target of %v", g.Number, g.Duration, s.Target)
		}
	}
}

func TestSegmentsBeginAtKeyPicturesAndSoundIsCutWithThem(t *testing.T) {
	for _, lag := range []int{0, 15, -10} {
		t.Run(fmt.Sprintf("sound %d frames late", lag), func(t *testing.T) {
			f, sg := newFake(), &Segmenter{}
			f.lag = lag
			run(t, sg)
			f.publish(4*25 + 20)
			st := sg.Of(f.r)
			video, sound := wait(t, st, Video, until(4)), wait(t, st, Sound, until(4))
			unbroken(t, video)
			unbroken(t, sound)
			for i, g := range video.Complete() {
				if g.Duration != time.Second || len(g.Parts) != 5 || !g.Parts[0].Independent || g.Parts[1].Independent {
					t.Errorf("segment %d lasts %v in %d parts", g.Number, g.Duration, len(g.Parts))
				}
				s := sound.Segments[i]
				from, to := time.Duration(g.Time)*time.Second/90000, time.Duration(s.Time)*time.Second/48000
				if s.Number != g.Number || to-from < 0 || to-from > 22*time.Millisecond {
					t.Errorf("sound of segment %d begins %v after the picture", g.Number, to-from)
				}
			}
		})
	}
}

func TestOddPictureRatesKeepThePartTarget(t *testing.T) {
	f, sg := newFake(), &Segmenter{Part: 170 * time.Millisecond}
	run(t, sg)
	f.publish(60)
	video := wait(t, sg.Of(f.r), Video, until(2))
	unbroken(t, video)
	if got := video.Segments[0].Parts[0].Duration; got != 160*time.Millisecond {
		t.Errorf("parts of %v", got)
	}
}

func TestTheFirstToAskGetsThePastAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, sg := newFake(), &Segmenter{}
		run(t, sg)
		f.publish(90)
		begin := time.Now()
		if seq := wait(t, sg.Of(f.r), Video, until(3)); len(seq.Segments) != 4 {
			t.Errorf("%d segments", len(seq.Segments))
		}
		if waited := time.Since(begin); waited > 0 {
			t.Errorf("waited %v", waited)
		}
	})
}

func TestNobodyAsksAndItRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, sg := newFake(), &Segmenter{}
		run(t, sg)
		f.publish(60)
		st := sg.Of(f.r)
		if st.Running() {
			t.Error("runs before anybody asks")
		}
		first := wait(t, st, Video, until(2))
		time.Sleep(20 * time.Second)
		wait(t, st, Video, until(2))
		time.Sleep(20 * time.Second)
		if !st.Running() {
			t.Error("rests 20 s after somebody asked")
		}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if st.Running() || st.Latest(Video) != nil {
			t.Error("still runs 35 s after somebody asked")
		}
		again := wait(t, st, Video, until(1))
		if again.Segments[0].Number <= first.Last().Number {
			t.Errorf("number %d comes again", again.Segments[0].Number)
		}
		if first.Segments[0].Discontinuity || !again.Segments[0].Discontinuity || again.Segments[1].Discontinuity {
			t.Error("the first segment after a rest, and no other, is to be a discontinuity")
		}
	})
}

func TestNumbersNeverGoBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // begins in the year 2000: numbers do not come by the clock
		time.Sleep(time.Until(numbersBegin.Add(24 * time.Hour)))
		sg, f := &Segmenter{}, newFake()
		run(t, sg)
		f.gop = 13
		before := uint64(0)
		for range 5 {
			for range 100 {
				f.publish(13)
				time.Sleep(520 * time.Millisecond)
				before = wait(t, sg.Of(f.r), Video, until(0)).Last().Number
			}
			time.Sleep(31 * time.Second) // it rests, and then the past is cut again
		}
		if first := sg.Of(newFake().r).next; first <= before {
			t.Errorf("a rendition made anew begins at %d after %d", first, before)
		}
		if first := (&Segmenter{}).Of(newFake().r).next; first <= before {
			t.Errorf("a program that starts anew begins at %d after %d", first, before)
		}
		sg.numbers.used(1 << 40) // as if the clock had been set back since
		if first := sg.Of(newFake().r).next; first != 1<<40+1 {
			t.Errorf("after the clock was set back numbers begin at %d", first)
		}
	})
}

func TestClosedRenditionsAreNotKept(t *testing.T) {
	sg := &Segmenter{}
	run(t, sg)
	for i := range 50 {
		f := newFake()
		f.publish(30)
		if st := sg.Of(f.r); i%2 == 0 {
			wait(t, st, Video, until(1)) // the others stay idle
		}
		f.r.Close()
	}
	sg.Of(newFake().r)
	sg.mu.Lock()
	defer sg.mu.Unlock()
	if n := len(sg.streams); n != 1 {
		t.Errorf("%d streams are kept, but one rendition is open", n)
	}
}

func TestWaitersSleepThroughARestAndWakeByTheNextPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, sg := newFake(), &Segmenter{}
		run(t, sg)
		f.publish(30)
		st := sg.Of(f.r)
		last := wait(t, st, Video, until(1)).Last().Number
		got := make(chan *Sequence)
		go func() {
			seq, _ := st.Wait(t.Context(), Video, func(s *Sequence) bool { return s.Last().Number > last+1 })
			got <- seq
		}()
		time.Sleep(time.Minute) // the waiter asks anew
		f.shift += time.Minute
		f.publish(100)
		if seq := <-got; seq == nil {
			t.Error("the waiter got nothing")
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	for name, sg := range map[string]*Segmenter{
		"by segments": {Keep: 3},
		"by bytes":    {Memory: 3 * (25*14 + 1200)},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			run(t, sg)
			f.publish(30)
			st := sg.Of(f.r)
			first := wait(t, st, Video, until(1)).Segments[0].Number
			for i := range 30 {
				f.publish(25)
				wait(t, st, Video, func(s *Sequence) bool { return s.Has(first+uint64(i)+1, -1) })
			}
			seq := wait(t, st, Video, until(1))
			if n := len(seq.held); n > 16+spare+1 {
				t.Errorf("%d segments are held", n)
			}
			if n := len(seq.Long); n != 16 && n != 17 && name == "by segments" {
				t.Errorf("%d segments of a second are for who loads seldom, want 16 s", n)
			}
			if n := len(seq.Complete()); n != 3 && name == "by segments" {
				t.Errorf("%d segments are listed", n)
			}
			if old := seq.held[0]; seq.Segment(old.Number) != old || seq.At(old.began()) != old || seq.Segment(old.Number-1) != nil || seq.At(7) != nil {
				t.Error("held segments are not found, or others are")
			}
		})
	}
}

func TestANewHeaderIsADiscontinuityOfBothMedia(t *testing.T) {
	tests := []struct {
		name   string
		change func(*fake)
		breaks uint64
		at     uint64 // segment of the window
	}{
		{"encoder starts anew as it was", func(f *fake) { video := *f.video; f.video = &video }, 0, 0},
		{"other picture", func(f *fake) { video := *f.video; video.Width = 320; f.video = &video }, 1, 2},
		// The change shows after the key picture of segment 2.
		{"other sound", func(f *fake) { sound := *f.sound; sound.Channels = 1; f.sound = &sound }, 1, 3},
		{"a hole of two seconds", func(f *fake) { f.shift += 2 * time.Second }, 1, 2},
		{"time steps back", func(f *fake) { f.shift -= time.Minute }, 1, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f, sg := newFake(), &Segmenter{}
			run(t, sg)
			f.publish(50)
			test.change(f)
			f.publish(80)
			st := sg.Of(f.r)
			for _, m := range []Medium{Video, Sound} {
				seq := wait(t, st, m, func(s *Sequence) bool { return len(s.Segments) >= 5 || len(s.Complete()) == 4 })
				first, breaks := seq.Segments[0].Number, uint64(0)
				for _, g := range seq.Segments {
					if g.Discontinuity {
						breaks++
						if g.Number != first+test.at {
							t.Errorf("%v: segment %d of the window breaks", m, g.Number-first)
						}
					}
				}
				if breaks != test.breaks {
					t.Errorf("%v: %d discontinuities, want %d", m, breaks, test.breaks)
				}
				if inits := seq.Segments[0].Init != seq.Segments[3].Init; inits && seq.Init(seq.Segments[0].Init.ID) == nil {
					t.Errorf("%v: the old header is gone", m)
				}
			}
		})
	}
}

func TestDiscontinuitiesThatLeftAreCounted(t *testing.T) {
	f, sg := newFake(), &Segmenter{Keep: 2}
	run(t, sg)
	st := sg.Of(f.r)
	f.publish(50)
	f.shift += 2 * time.Second
	f.publish(120)
	if seq := wait(t, st, Video, func(s *Sequence) bool { return s.Discontinuities > 0 }); seq.Segments[0].Discontinuity {
		t.Error("counted and listed")
	}
}

func TestMissingSoundIsAGapAndHoldsNothingUp(t *testing.T) {
	f, sg := newFake(), &Segmenter{}
	run(t, sg)
	f.publish(50)
	f.silent = true
	f.publish(100)
	f.silent = false
	f.publish(50)
	sound := wait(t, sg.Of(f.r), Sound, until(6))
	gaps := 0
	for _, g := range sound.Segments {
		if g.Complete && len(g.Parts) == 0 {
			gaps++
			if g.Duration != time.Second {
				t.Errorf("a gap of %v", g.Duration)
			}
		}
	}
	if gaps != 4 {
		t.Errorf("%d gaps", gaps)
	}
}

func TestErrorsSayWhatIsMissing(t *testing.T) {
	f, sg := newFake(), &Segmenter{}
	st := sg.Of(f.r)
	always := func(*Sequence) bool { return true }
	if _, err := st.Wait(t.Context(), Video, always); !errors.Is(err, ErrStopped) {
		t.Errorf("before Run: %v", err)
	}
	stop := run(t, sg)
	mute := stream.NewRendition("mute", 64, stream.H264)
	mute.Publish(&stream.Unit{Track: f.video, Key: true})
	if _, err := sg.Of(mute).Wait(t.Context(), Sound, always); !errors.Is(err, ErrNoSound) {
		t.Errorf("sound of a mute rendition: %v", err)
	}
	radio := stream.NewRendition("radio", 64, stream.AAC)
	radio.Publish(&stream.Unit{Track: f.sound})
	if _, err := sg.Of(radio).Wait(t.Context(), Video, always); !errors.Is(err, ErrNoVideo) {
		t.Errorf("a rendition of sound: %v", err)
	}
	f.publish(30)
	f.r.Close()
	if _, err := st.Wait(t.Context(), Video, func(s *Sequence) bool { return len(s.Segments) > 9 }); !errors.Is(err, stream.ErrClosed) {
		t.Errorf("a closed rendition: %v", err)
	}
	if sg.Of(f.r) == st {
		t.Error("a closed rendition's stream is kept")
	}
	stop()
	if _, err := sg.Of(f.r).Wait(t.Context(), Video, always); !errors.Is(err, ErrStopped) {
		t.Errorf("after Run: %v", err)
	}
}

func TestPartsThatArePlayedInOrderAreTheWholeMedia(t *testing.T) {
	for name, newMedia := range map[string]func(testing.TB, int) *streamtest.Media{"h264": streamtest.NewMedia, "h265": streamtest.NewMediaH265} {
		t.Run(name, func(t *testing.T) {
			m := newMedia(t, 5*streamtest.FPS)
			r, sg := m.Rendition(2048), &Segmenter{Keep: 20}
			run(t, sg)
			source := &streamtest.Source{Media: m, Start: 300 * time.Hour}
			source.PublishAll(r)
			source.PublishAll(r) // so that the first round is complete
			st := sg.Of(r)
			for m, compare := range map[Medium]func(file string){
				Video: func(file string) {
					if got, want := peer.PictureMD5(t, file), peer.PictureMD5(t, m.File); !slices.Equal(got, want) {
						t.Errorf("%d pictures differ from the %d made", len(got), len(want))
					}
				},
				Sound: func(file string) {
					got, want := peer.SoundMD5(t, file), peer.SoundMD5(t, m.File)
					if n := len(got) - 1; n < len(want)-3 || !slices.Equal(got[1:n], want[1:n]) {
						t.Errorf("%d frames of sound differ from the %d made", len(got), len(want))
					}
				},
			} {
				seq := wait(t, st, m, until(5))
				file := seq.Segments[0].Init.Data
				for _, g := range seq.Segments[:5] {
					file = append(slices.Clip(file), contents(t, g, g.Parts)...)
				}
				path := filepath.Join(t.TempDir(), "out.mp4")
				if err := os.WriteFile(path, file, 0o600); err != nil {
					t.Fatal(err)
				}
				compare(path)
			}
		})
	}
}

// An encoder that has begun has no whole group of pictures yet.
func TestTheFirstToAskDoesNotWaitForTheEndOfALongGroup(t *testing.T) {
	f, sg := newFake(), &Segmenter{}
	run(t, sg)
	f.gop = 1 << 30
	f.publish(120)
	got := make(chan *Sequence, 1)
	st := sg.Of(f.r)
	go func() { got <- wait(t, st, Video, until(1)) }()
	tick := time.NewTicker(10 * time.Millisecond) // wishes soon after a key picture are passed over
	defer tick.Stop()
	for wished := false; !wished; {
		select {
		case <-f.r.KeyWanted():
			wished = true
		case seq := <-got:
			t.Fatalf("%d segments without a key picture", len(seq.Segments))
		case <-tick.C:
			f.publish(5)
		}
	}
	f.gop = f.n // the next one is a key picture
	length := time.Duration(f.n) * 40 * time.Millisecond
	f.publish(1)
	if g := (<-got).Segments[0]; g.Duration != length || !g.Parts[0].Independent {
		t.Errorf("the first segment lasts %v, want %v", g.Duration, length)
	}
}

// A camera that takes the slate's place begins with a key picture.
func TestAKeyPictureThatComesEarlyBeginsASegmentOnce(t *testing.T) {
	f, sg := newFake(), &Segmenter{}
	run(t, sg)
	for _, pictures := range []int{8, 50, 5, 5, 5, 5, 5, 5, 5, 5, 5} {
		f.shift += time.Duration(f.n) * 40 * time.Millisecond
		f.n, f.frames, f.gop = 0, 0, pictures
		f.publish(pictures)
	}
	var lengths []time.Duration
	for _, g := range wait(t, sg.Of(f.r), Video, until(4)).Complete() {
		lengths = append(lengths, g.Duration)
	}
	want := []time.Duration{320 * time.Millisecond, 2 * time.Second, 200 * time.Millisecond, 600 * time.Millisecond}
	if !slices.Equal(lengths, want) {
		t.Errorf("segments of %v, want %v", lengths, want)
	}
}
