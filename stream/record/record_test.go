package record

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"encoderd.example/stream"
	"encoderd.example/stream/streamtest"
	"encoderd.example/stream/streamtest/peer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A card is a medium in memory, which fails to order.
type card struct {
	mu     sync.Mutex
	files  map[string]*cardFile
	free   uint64
	syncs  int
	broken error         // what writing answers
	room   int           // bytes until it does; negative: for ever
	lost   bool          // files are not there any more
	hold   chan struct{} // nil: quick; calls wait until it is closed
	held   bool          // one does
}

type cardFile struct {
	card   *card
	data   []byte
	synced int // bytes
	closed bool
}

func newCard() *card { return &card{files: map[string]*cardFile{}, free: 100e9, room: -1} }

func (c *card) open(string, bool) (Medium, error) { return c, nil }

func (c *card) Create(name string) (File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.files[name] != nil {
		return nil, fs.ErrExist
	}
	f := &cardFile{card: c}
	c.files[name] = f
	return f, nil
}

func (c *card) Remove(name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.files, name)
	return nil
}

func (c *card) Names() (names []string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

func (c *card) Space() (free, total uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.free, 128e9, nil
}

func (c *card) Close() error { return nil }

// set changes the card.
func (c *card) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

// seize has the card take nothing until release is called.
func (c *card) seize() (release func()) {
	hold := make(chan struct{})
	c.set(func() { c.hold = hold })
	return func() {
		c.set(func() {
			if c.hold == hold { // it was not seized again
				c.hold = nil
			}
		})
		close(hold)
	}
}

func (c *card) wait() {
	c.mu.Lock()
	hold := c.hold
	c.held = hold != nil
	c.mu.Unlock()
	if hold == nil {
		return
	}
	<-hold
	c.set(func() { c.held = false })
}

// holds reports whether somebody waits.
func (c *card) holds() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.held
}

func (f *cardFile) Write(p []byte) (int, error) {
	f.card.mu.Lock()
	defer f.card.mu.Unlock()
	if n := f.card.room; n >= 0 && n < len(p) {
		f.data = append(f.data, p[:n]...)
		f.card.room = 0
		return n, f.card.broken
	}
	if f.card.room > 0 {
		f.card.room -= len(p)
	}
	f.data = append(f.data, p...)
	return len(p), nil
}

func (f *cardFile) Sync() error {
	f.card.wait()
	f.card.mu.Lock()
	defer f.card.mu.Unlock()
	f.card.syncs++
	f.synced = len(f.data)
	return nil
}

func (f *cardFile) Truncate(size int64) error {
	f.card.mu.Lock()
	defer f.card.mu.Unlock()
	f.data = f.data[:size]
	return nil
}

func (f *cardFile) There() error {
	f.card.mu.Lock()
	defer f.card.mu.Unlock()
	if f.card.lost {
		return ErrGone
	}
	return nil
}

func (f *cardFile) Close() error {
	f.card.mu.Lock()
	defer f.card.mu.Unlock()
	f.closed = true
	return nil
}

// A show is a rendition of tiny pictures and sounds, and somebody who records it
// on a card.
type show struct {
	t            *testing.T
	r            *stream.Rendition
	video, sound *stream.Track
	at           time.Duration // of the next picture
	n, frames    int
	gop          int
	shift        int // pictures by which all groups but the first are late
	silent       bool

	card  *card
	rec   Recorder
	to    Settings
	stop  context.CancelFunc
	ended chan error

	mu      sync.Mutex
	reports []Report
}

const (
	pictureLength = 40 * time.Millisecond
	soundLength   = 1024 * time.Second / 48000
)

func newShow(t *testing.T) *show {
	t.Helper()
	s := &show{
		t: t, gop: 50, at: time.Hour, card: newCard(), to: Settings{Name: "main"},
		video: &stream.Track{Codec: stream.H264, Setup: []byte{1, 0x64, 0, 0x1f}, Width: 640, Height: 360, FPS: 25, Bitrate: 800_000},
		sound: &stream.Track{Codec: stream.AAC, Setup: []byte{0x11, 0x90}, Rate: 48000, Channels: 2, Bitrate: 96_000},
	}
	s.r = stream.NewRendition("main", 600, stream.H264, stream.AAC)
	s.rec.Open = s.card.open
	return s
}

// roll begins to record.
func (s *show) roll() {
	ctx, cancel := context.WithCancel(s.t.Context())
	s.stop, s.ended = cancel, make(chan error, 1)
	go func() { s.ended <- s.rec.Run(ctx, s.r, s.to, s.take) }()
	synctest.Wait()
}

func (s *show) take(r Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reports = append(s.reports, r)
}

// last is the newest report.
func (s *show) last() Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.reports) == 0 {
		return Report{}
	}
	return s.reports[len(s.reports)-1]
}

// cut ends the recording, which must go well.
func (s *show) cut() {
	s.t.Helper()
	s.stop()
	if err := <-s.ended; err != nil {
		s.t.Error(err)
	}
}

// play publishes so many pictures in real time, with their sound.
func (s *show) play(pictures int) {
	for range pictures {
		s.picture()
		time.Sleep(pictureLength)
		synctest.Wait()
	}
}

// key reports whether a picture is one.
func (s *show) key(n int) bool { return n == 0 || n >= s.shift && (n-s.shift)%s.gop == 0 }

func (s *show) picture() {
	s.r.Publish(&stream.Unit{Track: s.video, Key: s.key(s.n), PTS: s.at, DTS: s.at, Data: fmt.Appendf(nil, "picture %5d;", s.n)})
	s.n++
	s.at += pictureLength
	for ; time.Hour+time.Duration(s.frames)*soundLength < s.at; s.frames++ {
		if at := time.Hour + time.Duration(s.frames)*soundLength; !s.silent {
			s.r.Publish(&stream.Unit{Track: s.sound, PTS: at, DTS: at, Duration: soundLength, Data: fmt.Appendf(nil, "sound %5d;", s.frames)})
		}
	}
}

// talk publishes so many sounds in real time, without a picture.
func (s *show) talk(sounds int) {
	for range sounds {
		at := time.Hour + time.Duration(s.frames)*soundLength
		s.r.Publish(&stream.Unit{Track: s.sound, PTS: at, DTS: at, Duration: soundLength, Data: fmt.Appendf(nil, "sound %5d;", s.frames)})
		s.frames++
		time.Sleep(soundLength)
	}
	synctest.Wait()
}

// found returns the numbers of the units of a kind in each file, in the order
// of their names.
func (s *show) found(kind string) (files [][]int) {
	s.t.Helper()
	names, _ := s.card.Names()
	for _, name := range names {
		f := s.card.files[name]
		if !f.closed {
			s.t.Errorf("%s is open", name)
		}
		var list []int
		for _, m := range regexp.MustCompile(kind+` +(\d+);`).FindAllSubmatch(f.data, -1) {
			n, _ := strconv.Atoi(string(m[1]))
			list = append(list, n)
		}
		files = append(files, list)
	}
	return files
}

// span is the numbers from one to before another.
func span(from, to int) (list []int) {
	for n := from; n < to; n++ {
		list = append(list, n)
	}
	return list
}

// brief writes numbers as spans.
func brief(files ...[]int) string {
	var b strings.Builder
	for _, list := range files {
		b.WriteString("|")
		for i, n := range list {
			if i == 0 || n != list[i-1]+1 {
				fmt.Fprintf(&b, " %d", n)
			}
			if i == len(list)-1 || n != list[i+1]-1 {
				fmt.Fprintf(&b, "–%d", n)
			}
		}
	}
	return b.String()
}

func (s *show) want(kind string, files ...[]int) {
	s.t.Helper()
	got := s.found(kind)
	if len(got) != len(files) {
		s.t.Fatalf("%d files instead of %d", len(got), len(files))
	}
	for i := range files {
		if !slices.Equal(got[i], files[i]) {
			s.t.Errorf("%ss of file %d: %s", kind, i, brief(got[i]))
		}
	}
}

// whole checks that the files hold so many pictures and sounds, each once and
// in order, and that each begins with a key picture.
func (s *show) whole(pictures, sounds int) {
	s.t.Helper()
	if got := slices.Concat(s.found("picture")...); !slices.Equal(got, span(0, pictures)) {
		s.t.Errorf("pictures: %s", brief(got))
	}
	if got := slices.Concat(s.found("sound")...); !slices.Equal(got, span(0, sounds)) {
		s.t.Errorf("sounds: %s", brief(got))
	}
	for _, f := range s.found("picture") {
		if len(f) == 0 || f[0]%s.gop != 0 {
			s.t.Errorf("a file begins with %s", brief(f))
		}
	}
}

func inBubble(t *testing.T, f func(s *show)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(newShow(t)) })
}

func TestAPowerCutCostsNoMoreThanTwoSeconds(t *testing.T) {
	inBubble(t, func(s *show) {
		s.roll()
		for range 500 {
			s.play(1)
			names, _ := s.card.Names()
			if len(names) == 0 {
				if s.n > 50 {
					t.Fatal("nothing after two seconds")
				}
				continue
			}
			f := s.card.files[names[0]]
			kept := strings.Count(string(f.data[:f.synced]), "picture")
			if lost := time.Duration(s.n-kept) * pictureLength; lost > 2*time.Second {
				t.Fatalf("after %d pictures %v would be lost", s.n, lost)
			}
		}
		s.cut()
		if s.card.syncs > 22 {
			t.Errorf("the medium was asked %d times in 20 s to have it", s.card.syncs)
		}
		s.whole(500, s.frames)
	})
}

func TestFilesRollOverWithoutALoss(t *testing.T) {
	tests := []struct {
		name  string
		to    Settings
		files int
	}{
		{"by length", Settings{Length: 5 * time.Second}, 4},
		{"by length, less than a group", Settings{Length: time.Second}, 10},
		{"by size", Settings{Size: 4000}, 4},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(s *show) {
				s.to = tt.to
				s.roll()
				s.play(500)
				s.cut()
				s.whole(500, s.frames)
				if n := len(s.found("picture")); n != tt.files {
					t.Errorf("%d files", n)
				}
			})
		})
	}
}

func TestOnlyAnotherTrackMakesAnotherFile(t *testing.T) {
	again := func(t *stream.Track) *stream.Track {
		c := *t
		c.Setup = slices.Clone(c.Setup)
		return &c
	}
	tests := []struct {
		name   string
		change func(s *show)
		files  [][]int
	}{
		{"an encoder starts anew as it was", func(s *show) { s.video, s.sound = again(s.video), again(s.sound) }, [][]int{span(0, 200)}},
		{"another bit rate", func(s *show) { s.video = again(s.video); s.video.Bitrate /= 2 }, [][]int{span(0, 200)}},
		{"another size", func(s *show) { s.video = again(s.video); s.video.Width = 320 }, [][]int{span(0, 80), span(100, 200)}},
		{"another sound", func(s *show) { s.sound = again(s.sound); s.sound.Channels = 1 }, [][]int{span(0, 100), span(100, 200)}},
		{"time goes back", func(s *show) { s.at -= time.Minute }, [][]int{span(0, 80), span(100, 200)}},
		{"a hole", func(s *show) { s.at += 3 * time.Second; s.silent = true }, [][]int{span(0, 200)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(s *show) {
				s.roll()
				s.play(80)
				tt.change(s)
				s.play(120)
				s.cut()
				s.want("picture", tt.files...)
			})
		})
	}
}

func TestSoundMayBeMissing(t *testing.T) {
	t.Run("there is none", func(t *testing.T) {
		inBubble(t, func(s *show) {
			s.r, s.silent = stream.NewRendition("main", 600, stream.H264), true
			s.roll()
			s.play(100)
			s.cut()
			s.want("picture", span(0, 100))
			s.want("sound", nil)
		})
	})
	t.Run("it comes later", func(t *testing.T) {
		inBubble(t, func(s *show) {
			s.silent = true
			s.roll()
			s.play(110)
			s.silent = false
			first := s.frames
			s.play(90)
			s.cut()
			s.want("picture", span(0, 150), span(150, 200)) // a header cannot be changed
			heard := s.found("sound")
			if n := heard[1]; len(heard[0]) > 0 || len(n) == 0 || n[0] <= first || n[len(n)-1] != s.frames-1 {
				t.Errorf("sounds: %s", brief(heard...))
			}
		})
	})
	t.Run("it ends", func(t *testing.T) {
		inBubble(t, func(s *show) {
			s.roll()
			s.play(110)
			s.silent = true
			last := s.frames
			s.play(90)
			s.cut()
			s.want("picture", span(0, 200))
			s.want("sound", span(0, last))
		})
	})
}

func TestSoundWithoutAPictureIsKept(t *testing.T) {
	inBubble(t, func(s *show) {
		s.roll()
		s.play(60)
		s.talk(3000) // a minute and more, while the encoder of pictures is away
		synctest.Wait()
		names, _ := s.card.Names()
		f := s.card.files[names[0]]
		if n := strings.Count(string(f.data[:f.synced]), "sound"); n < s.frames-200 {
			t.Errorf("%d of %d sounds are kept", n, s.frames)
		}
		s.cut()
		s.want("sound", span(0, s.frames))
	})
}

// No unit comes that would have somebody look.
func TestTheStateIsTrueWhileNothingComes(t *testing.T) {
	tests := []struct {
		name   string
		during func(s *show) (afterwards func())
		want   State
	}{
		{"a short pause", func(*show) func() { return pause(2 * time.Second) }, Recording},
		{"no unit", func(*show) func() { return pause(5 * time.Second) }, Waiting},
		{"sound alone", func(s *show) func() { s.talk(300); return func() {} }, Waiting},
		{"pictures before a key", func(s *show) func() {
			s.gop, s.video = 1e6, &stream.Track{Codec: stream.H264, Setup: s.video.Setup, Width: 320, Height: 180, FPS: 25}
			s.play(125)
			return func() { s.gop = 50 }
		}, Waiting},
		{"the medium hangs, too", func(s *show) func() {
			release := s.card.seize()
			s.play(60)
			pause(40 * time.Second)
			return release
		}, Stuck},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(s *show) {
				s.roll()
				s.play(110)
				afterwards := tt.during(s)
				synctest.Wait()
				if got := s.last().State; got != tt.want {
					t.Errorf("%d instead of %d", got, tt.want)
				}
				afterwards()
				s.play(400)
				if got := s.last().State; got != Recording {
					t.Errorf("afterwards: %d", got)
				}
				s.cut()
			})
		})
	}
}

// playOn publishes pictures until the recording ends, and returns why it did.
func (s *show) playOn() error {
	s.t.Helper()
	for range 1000 {
		select {
		case err := <-s.ended:
			return err
		default:
			s.play(1)
		}
	}
	s.t.Fatal("the recording goes on")
	return nil
}

// pause has nothing happen for so long.
func pause(d time.Duration) (afterwards func()) {
	time.Sleep(d)
	return func() {}
}

func TestASlowMediumHoldsUpNobody(t *testing.T) {
	inBubble(t, func(s *show) {
		s.to.Queue = 8000 // some ten seconds
		s.roll()
		s.play(100)
		if got := s.last(); got.State != Recording || got.Lost != 0 {
			t.Fatalf("%+v", got)
		}
		release := s.card.seize()
		began := time.Now()
		s.play(1000)
		if d := time.Since(began); d != 1000*pictureLength {
			t.Errorf("the show took %v", d)
		}
		got := s.last()
		if got.State != Stuck || got.Lost == 0 {
			t.Errorf("while it is seized: %+v", got)
		}
		release()
		synctest.Wait()
		s.play(60)
		if got := s.last(); got.State != Slow {
			t.Errorf("afterwards: %+v", got)
		}
		s.play(400)
		if got := s.last(); got.State != Recording {
			t.Errorf("long afterwards: %+v", got)
		}
		s.cut()
		s.skips(1560)
	})
}

// skips checks that what was left out of n pictures is told, and that each
// gap ends with a key picture.
func (s *show) skips(n int) {
	s.t.Helper()
	got := slices.Concat(s.found("picture")...)
	last := -1
	for _, p := range got {
		if p <= last || p != last+1 && !s.key(p) {
			s.t.Fatalf("%d after %d", p, last)
		}
		last = p
	}
	if r := s.last(); int(r.Lost)+len(got) != n || int(r.Pictures) != len(got) {
		s.t.Errorf("%d of %d pictures are there, %+v", len(got), n, r)
	}
}

// A key may come any time after the last cut: somebody asked for one.
func TestAfterAFullQueueItGoesOnWhereverKeysFall(t *testing.T) {
	for shift := range 50 {
		t.Run(strconv.Itoa(shift), func(t *testing.T) {
			inBubble(t, func(s *show) {
				s.to.Queue, s.shift = 4000, shift
				s.roll()
				s.play(250)
				release := s.card.seize()
				s.play(400)
				release()
				lost := s.last().Lost
				s.play(500)
				if got := s.last(); lost == 0 || got.Lost > lost+100 || got.State != Recording {
					t.Errorf("%d were lost at once, then %+v", lost, got)
				}
				s.cut()
				s.skips(1150)
			})
		})
	}
}

func TestAMediumThatIsAlwaysTooSlow(t *testing.T) {
	inBubble(t, func(s *show) {
		s.to.Queue = 4000
		s.roll()
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() { // every call takes three seconds
			defer close(stopped)
			for {
				release := s.card.seize()
				select {
				case <-time.After(3 * time.Second):
					release()
				case <-stop:
					release()
					return
				}
			}
		}()
		s.play(3000)
		if got := s.last(); got.State != Slow || got.Pictures == 0 {
			t.Errorf("%+v", got)
		}
		close(stop)
		<-stopped
		s.play(200)
		s.cut()
		s.skips(3200)
	})
}

func TestWhatTheRingCouldNotKeepIsTold(t *testing.T) {
	inBubble(t, func(s *show) {
		s.roll()
		s.play(60)
		for range 800 { // faster than anybody reads
			s.picture()
		}
		s.play(200)
		s.cut()
		s.skips(1060)
	})
}

func TestAMediumThatFails(t *testing.T) {
	tests := []struct {
		name  string
		fault func(*card)
		is    error
		say   string
		kept  int // pictures, at least
	}{
		{"it is full", func(c *card) { c.room, c.broken = 700, syscall.ENOSPC }, syscall.ENOSPC, "remove recordings or use a larger medium", 75},
		{"it breaks", func(c *card) { c.room, c.broken = 700, syscall.EIO }, syscall.EIO, "put the medium back in, or another one", 75},
		{"it is pulled", func(c *card) { c.lost = true }, ErrGone, "put the medium back in, or another one", 100},
		{"it gets full", func(c *card) { c.free = 1e9 }, ErrFull, "remove recordings or use a larger medium", 100},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(s *show) {
				s.roll()
				s.play(100)
				s.card.set(func() { tt.fault(s.card) })
				err := s.playOn()
				if !errors.Is(err, tt.is) || !strings.HasSuffix(err.Error(), tt.say) {
					t.Errorf("%v", err)
				}
				got := s.found("picture")
				if len(got) != 1 || len(got[0]) < tt.kept || !slices.Equal(got[0], span(0, len(got[0]))) || len(got[0])%25 != 0 {
					t.Errorf("pictures: %s", brief(got...)) // whole seconds
				}
				r := s.last()
				if !errors.Is(tt.is, ErrGone) && int(r.Pictures) != len(got[0]) || r.Lost == 0 || int(r.Pictures+r.Lost) != s.n {
					t.Errorf("%d of %d pictures are there: %+v", len(got[0]), s.n, r)
				}
			})
		})
	}
}

func TestWhatIsWrittenOfABatchThatFailsCounts(t *testing.T) {
	inBubble(t, func(s *show) {
		s.roll()
		s.play(110)
		release := s.card.seize()
		for !s.card.holds() {
			s.play(1)
		}
		s.play(100)                                                           // the next batch has more than a second
		s.card.set(func() { s.card.room, s.card.broken = 2500, syscall.EIO }) // 25 pictures and their sound are 1600
		release()
		if err := s.playOn(); !errors.Is(err, syscall.EIO) {
			t.Error(err)
		}
		got := s.found("picture")[0]
		if r := s.last(); int(r.Pictures) != len(got) || int(r.Pictures+r.Lost) != s.n {
			t.Errorf("%d of %d pictures are there: %+v", len(got), s.n, r)
		}
	})
}

func TestNothingBeginsOnAFullMedium(t *testing.T) {
	inBubble(t, func(s *show) {
		s.card.free = 1200 << 20
		s.play(60)
		s.roll()
		if err := <-s.ended; !errors.Is(err, ErrFull) {
			t.Error(err)
		}
		if names, _ := s.card.Names(); len(names) > 0 {
			t.Error(names)
		}
		if got := s.last(); got.Free != s.card.free || got.Total == 0 {
			t.Errorf("%+v", got)
		}
	})
}

func TestAFileWithNothingInItDoesNotStay(t *testing.T) {
	inBubble(t, func(s *show) {
		s.card.room, s.card.broken = 100, syscall.EIO
		s.roll()
		s.play(100)
		if err := <-s.ended; !errors.Is(err, syscall.EIO) {
			t.Error(err)
		}
		if names, _ := s.card.Names(); len(names) > 0 {
			t.Error(names)
		}
	})
}

func TestAMediumThatHangsKeepsNobody(t *testing.T) {
	inBubble(t, func(s *show) {
		s.roll()
		s.play(100)
		release := s.card.seize()
		s.play(100)
		if got := s.last(); got.State == Stuck {
			t.Errorf("%+v", got)
		}
		s.play(800)
		if got := s.last(); got.State != Stuck {
			t.Errorf("%+v", got)
		}
		began := time.Now()
		s.stop()
		if err := <-s.ended; !errors.Is(err, ErrHangs) {
			t.Error(err)
		}
		if d := time.Since(began); d > 4*time.Second {
			t.Errorf("the end took %v", d)
		}
		told := len(s.reports)
		s.roll()
		if err := <-s.ended; !errors.Is(err, ErrHangs) {
			t.Errorf("again: %v", err)
		}
		release()
		synctest.Wait()
		if len(s.reports) != told {
			t.Error("who ended long ago still tells")
		}
		s.roll()
		s.play(100)
		s.cut()
		for _, f := range s.found("picture") {
			if !slices.Equal(f, span(f[0], f[0]+len(f))) || f[0]%s.gop != 0 {
				t.Errorf("pictures: %s", brief(f))
			}
		}
	})
}

func TestAMediumThatHangsDelaysTheEndNoFurther(t *testing.T) {
	tests := []struct {
		name    string
		hung    time.Duration // before the end
		answers time.Duration // after it
		again   time.Duration // for which the next call hangs
		within  time.Duration
		err     error
	}{
		{"it has just begun to", time.Second / 2, time.Minute, 0, 4 * time.Second, ErrHangs},
		{"it has for long", 10 * time.Second, time.Minute, 0, time.Second, ErrHangs},
		{"it answers", 10 * time.Second, time.Second / 2, 0, time.Second, nil},
		{"it answers and is slow", 10 * time.Second, time.Second / 2, 2 * time.Second, 3 * time.Second, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(s *show) {
				s.roll()
				s.play(150)
				release := s.card.seize()
				for !s.card.holds() {
					s.play(1)
				}
				s.play(int(tt.hung / pictureLength))
				time.AfterFunc(tt.answers, func() {
					time.AfterFunc(tt.again, s.card.seize())
					release()
				})
				began := time.Now()
				s.stop()
				if err := <-s.ended; !errors.Is(err, tt.err) {
					t.Error(err)
				}
				if d := time.Since(began); d > tt.within {
					t.Errorf("the end took %v", d)
				}
				if r := s.last(); int(r.Pictures+r.Lost) != s.n {
					t.Errorf("of %d pictures: %+v", s.n, r)
				}
				time.Sleep(2 * time.Minute) // until the last call is back
			})
		})
	}
}

func TestTheEndOfARenditionClosesTheFile(t *testing.T) {
	inBubble(t, func(s *show) {
		s.roll()
		s.play(90)
		s.r.Close()
		if err := <-s.ended; !errors.Is(err, stream.ErrClosed) {
			t.Error(err)
		}
		s.whole(90, s.frames)
	})
}

func TestATrackThatNoFileTakes(t *testing.T) {
	inBubble(t, func(s *show) {
		s.video.Setup = nil
		s.roll()
		s.play(60)
		if err := <-s.ended; err == nil || !strings.Contains(err.Error(), "avcC") {
			t.Error(err)
		}
	})
}

func TestNames(t *testing.T) {
	w := &writer{medium: newCard(), to: Settings{Name: "main"}}
	evening := time.Date(2026, 11, 21, 21, 30, 15, 9e8, time.FixedZone("CET", 3600))
	for _, tt := range []struct {
		at   time.Time
		want string
	}{
		{evening, "2026-11-21T203015Z-main.mp4"},
		{evening, "2026-11-21T203015Z-main_2.mp4"},
		{evening, "2026-11-21T203015Z-main_3.mp4"},
		{time.Unix(12, 0), "no-clock-0001-main.mp4"},
		{time.Unix(12, 0), "no-clock-0002-main.mp4"},
		{evening.Add(time.Second), "2026-11-21T203016Z-main.mp4"},
	} {
		if _, name, err := w.create(tt.at); name != tt.want || err != nil {
			t.Errorf("%s, %v instead of %s", name, err, tt.want)
		}
	}
	full := newCard()
	for n := range 2 * maxTries {
		full.files[fmt.Sprintf("2026-11-21T203015Z-main_%d.mp4", n)] = &cardFile{}
	}
	full.files["2026-11-21T203015Z-main.mp4"] = &cardFile{}
	w.medium = full
	if _, _, err := w.create(evening); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
}

func TestReserve(t *testing.T) {
	for total, want := range map[uint64]uint64{0: 64 << 20, 1 << 30: 64 << 20, 33 << 28: 1 << 28, 1 << 40: 1 << 30} {
		if got := reserve(total); got != want {
			t.Errorf("%d of %d", got, total)
		}
	}
}

func TestAFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if _, err := OpenDir(dir, false); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	m, err := OpenDir(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(t.TempDir(), "precious")
	if err := os.Symlink(elsewhere, filepath.Join(dir, "link.mp4")); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Create("link.mp4"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("through a link: %v", err)
	}
	if _, err := os.Stat(elsewhere); err == nil {
		t.Error("a link was followed")
	}
	if f, err := m.Create("../out.mp4"); err == nil {
		t.Error("out of the folder", f.Close())
	}
	f, err := m.Create("a.mp4")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "a.mp4")); err != nil || info.Mode().Perm()&^fileMode != 0 {
		t.Error(info, err)
	}
	if names, err := m.Names(); err != nil || !slices.Equal(names, []string{"a.mp4", "link.mp4"}) {
		t.Error(names, err)
	}
	if free, total, err := m.Space(); free == 0 || free > total || err != nil {
		t.Error(free, total, err)
	}
	if err := errors.Join(f.Sync(), f.There(), f.Sync()); err != nil {
		t.Error(err)
	}
	if err := os.Rename(dir, dir+"-away"); err != nil {
		t.Fatal(err)
	}
	if err := f.There(); !errors.Is(err, ErrGone) {
		t.Errorf("the folder is not there: %v", err)
	}
	if _, _, err := m.Space(); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := errors.Join(f.Close(), m.Remove("a.mp4"), m.Close()); err != nil {
		t.Error(err)
	}
}

func TestTheNameOfAFileIsKeptAfterWhatIsInIt(t *testing.T) {
	m, err := OpenDir(t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	early, err := m.Create("early.mp4")
	if err != nil {
		t.Fatal(err)
	}
	late, err := m.Create("late.mp4")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(early.Sync(), m.Close()); err != nil {
		t.Fatal(err)
	}
	if err := early.Sync(); err != nil { // the folder is not needed any more
		t.Error(err)
	}
	if err := late.Sync(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a name that nothing kept: %v", err)
	}
	if err := errors.Join(early.Close(), late.Close()); err != nil {
		t.Error(err)
	}
}

func TestFoldersThatGrow(t *testing.T) {
	dir := t.TempDir()
	for name, want := range map[string][]string{
		"":       nil,
		"a":      {dir},
		"a/b/c/": {dir + "/a/b", dir + "/a", dir},
	} {
		if got := growing(dir + "/" + name); !slices.Equal(got, want) {
			t.Errorf("%q: %q", name, got)
		}
	}
}

func TestTheBoxsOwnDiskIsNoMedium(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	d := &folder{dir: dir, root: root}
	for place, want := range map[string]error{dir + "/..": ErrNotMounted, "/proc": nil, "/away": nil} {
		if err := d.mounted([]string{place}); !errors.Is(err, want) {
			t.Errorf("%s: %v", place, err)
		}
	}
	if err := root.Close(); err != nil {
		t.Fatal(err)
	}
	if m, err := OpenDir("/", false); !errors.Is(err, ErrNotMounted) {
		t.Error(m, err)
	}
	if m, err := OpenDir("/proc", false); err != nil {
		t.Error(err)
	} else if err := m.Close(); err != nil {
		t.Error(err)
	}
}

func TestRemediesAreSaid(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		filepath.Join(file, "x"): "choose another dir",
		t.TempDir() + "/away":    "put the medium in",
		"/":                      "no medium is mounted there; put the medium in, or to record on the box's own disk",
		"/proc/encoderd":         "",
	} {
		var r Recorder
		src := stream.NewRendition("main", 1, stream.H264)
		err := r.Run(t.Context(), src, Settings{Dir: dir, Make: strings.HasPrefix(dir, file)}, func(Report) {})
		if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

// keep records rounds of media into a folder and returns its files in order.
func keep(t *testing.T, m *streamtest.Media, to Settings, rounds int) []string {
	t.Helper()
	to.Dir, to.Make, to.Name = t.TempDir(), true, "main"
	src := m.Rendition(2 * rounds * len(m.Units))
	source := streamtest.Source{Media: m, Start: stream.Monotonic()}
	var units []*stream.Unit
	for range rounds {
		units = append(units, source.Round()...)
	}
	src.Publish(units[0]) // a key, where reading begins
	ready, ended := make(chan struct{}), make(chan error, 1)
	begin := sync.OnceFunc(func() { close(ready) })
	go func() {
		var r Recorder
		ended <- r.Run(t.Context(), src, to, func(Report) { begin() })
	}()
	<-ready
	for _, u := range units[1:] {
		src.Publish(u)
	}
	src.Close()
	if err := <-ended; !errors.Is(err, stream.ErrClosed) {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(to.Dir, "*.mp4"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	slices.SortFunc(files, func(a, b string) int { return cmp.Or(len(a)-len(b), strings.Compare(a, b)) })
	return files
}

// repeat is list so many times.
func repeat(list []string, times int) (all []string) {
	for range times {
		all = append(all, list...)
	}
	return all
}

func TestFFmpegPlaysWhatIsRecorded(t *testing.T) {
	for name, m := range map[string]*streamtest.Media{"H.264": streamtest.NewMedia(t, 75), "H.265": streamtest.NewMediaH265(t, 75)} {
		t.Run(name, func(t *testing.T) {
			const rounds = 3
			pictures := peer.PictureMD5(t, m.File)
			for files, to := range map[int]Settings{1: {}, 5: {Length: 1500 * time.Millisecond}} {
				got := keep(t, m, to, rounds)
				if len(got) != files {
					t.Errorf("%d files instead of %d", len(got), files)
				}
				var seen []string
				heard := 0
				for _, f := range got {
					seen = append(seen, peer.PictureMD5(t, f)...)
					heard += len(peer.SoundMD5(t, f))
				}
				if !slices.Equal(seen, repeat(pictures, rounds)) {
					t.Errorf("%d pictures, not the %d that came", len(seen), rounds*len(pictures))
				}
				if want := soundsIn(m) * rounds; heard != want {
					t.Errorf("%d sounds instead of %d", heard, want)
				}
			}
		})
	}
}

// soundsIn is how many sounds a round has.
func soundsIn(m *streamtest.Media) (n int) {
	for _, u := range m.Units {
		if u.Track == m.Audio && u.DTS < m.Length() {
			n++
		}
	}
	return n
}

func TestARecordingThatIsCutOffAnywherePlays(t *testing.T) {
	m := streamtest.NewMedia(t, 100)
	file := keep(t, m, Settings{}, 1)[0]
	all := peer.PictureMD5(t, file)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	header := strings.Index(string(data), "moof") - 4
	var whole []int // where fragments end
	for at := header; at < len(data); {
		for range 2 { // moof, mdat
			at += int(data[at])<<24 | int(data[at+1])<<16 | int(data[at+2])<<8 | int(data[at+3])
		}
		whole = append(whole, at)
	}
	if len(whole) != 4 {
		t.Fatalf("%d fragments", len(whole))
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 12 {
		n := whole[0] + random.IntN(len(data)-whole[0])
		torn := filepath.Join(t.TempDir(), "torn.mp4")
		if err := os.WriteFile(torn, data[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		fragments := 0
		for fragments < len(whole) && whole[fragments] <= n {
			fragments++
		}
		got := pictures(t, torn)
		if len(got) < 25*fragments || !slices.Equal(got[:25*fragments], all[:25*fragments]) {
			t.Errorf("cut off at %d of %d: %d pictures, %d are whole", n, len(data), len(got), 25*fragments)
		}
	}
}

// pictures is [peer.PictureMD5] of a file that may be torn.
func pictures(t *testing.T, file string) (sums []string) {
	t.Helper()
	out := peer.Output(t, "ffmpeg", "-v", "fatal", "-i", file, "-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framemd5", "-")
	for line := range strings.Lines(string(out)) {
		if fields := strings.Split(strings.TrimSpace(line), ","); line[0] != '#' {
			sums = append(sums, strings.TrimSpace(fields[len(fields)-1]))
		}
	}
	return sums
}
