package v4l2_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/fakevb2"
	"encoderd.example/hw/v4l2/uapi"
)

// socket is an HDMI receiver of one input, into which 1280x720p60 comes.
func socket() *fakevb2.Node {
	n := silent()
	n.Inputs = 1
	n.Receivers = map[int]*fakevb2.Receiver{0: {Timings: fakevb2.Timings(1280, 720, 60), EDID: v4l2.NewEDID(v4l2.EDIDOptions{})}}
	return n
}

// replace changes what comes in, without a word to anybody.
func replace(k *fakevb2.Kernel, n *fakevb2.Node, change func(*fakevb2.Receiver)) {
	k.Do(func() { change(n.Receivers[0]) })
}

// A stay is a test in a bubble of its own time, with an open HDMI camera.
type stay struct {
	t *testing.T
	k *fakevb2.Kernel
	n *fakevb2.Node
	c *v4l2.Camera
	s hw.CameraStream
}

// inBubble opens n and runs test in bubble time; what is left at its end fails
// it.
func inBubble(t *testing.T, n *fakevb2.Node, test func(stay)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		k := fakevb2.New(n)
		c := camera(t, k, n)
		s, err := c.Open(t.Context(), hw.Mode{})
		if err != nil {
			t.Fatal(err)
		}
		test(stay{t, k, n, c, s})
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		nothingLeft(t, k)
	})
}

// ended reads until the stream fails, in the background.
func ended(s hw.CameraStream) <-chan error {
	got := make(chan error, 1)
	go func() {
		for {
			f, err := s.Read(context.Background())
			if err != nil {
				got <- err
				return
			}
			f.Release()
		}
	}()
	return got
}

func TestAnHDMIInputCapturesWhatComesIn(t *testing.T) {
	inBubble(t, socket(), func(b stay) {
		t := b.t
		if got := b.s.Mode().String(); got != "1280x720 60 fps NV12" {
			t.Errorf("granted %s", got)
		}
		for range 10 {
			read(t, b.s).Release()
		}
	})
}

func TestAStreamEndsWhenItsSignalDoes(t *testing.T) {
	type change = func(*fakevb2.Receiver)
	tests := []struct {
		name    string
		change  change
		silent  bool // the chip has no interrupt line
		want    error
		words   string
		slowest time.Duration // until it is seen, of a stream that waits
	}{
		{"unplugged", func(r *fakevb2.Receiver) { r.Signal = fakevb2.NoSignal }, false, hw.ErrNoSignal, "nothing comes in", 0},
		{"not locked", func(r *fakevb2.Receiver) { r.Signal = fakevb2.NotLocked }, false, hw.ErrNoSignal, "not locked", 0},
		{"out of range", func(r *fakevb2.Receiver) { r.Signal = fakevb2.OutOfRange }, false, hw.ErrUnsupported, "outside", 0},
		{"another picture", func(r *fakevb2.Receiver) { r.Timings = fakevb2.Timings(1920, 1080, 30) }, false, hw.ErrNoSignal, "now sends 1920x1080p 30 Hz instead of 1280x720p 60 Hz", 0},
		{"another rate", func(r *fakevb2.Receiver) { r.Timings = fakevb2.Timings(1280, 720, 50) }, false, hw.ErrNoSignal, "1280x720p 50 Hz", 0},
		{"unplugged, and nobody tells", func(r *fakevb2.Receiver) { r.Signal = fakevb2.NoSignal }, true, hw.ErrNoSignal, "nothing comes in", 134 * time.Millisecond},
		{"another picture, and nobody tells", func(r *fakevb2.Receiver) { r.Timings = fakevb2.Timings(640, 480, 60) }, true, hw.ErrNoSignal, "640x480p", 134 * time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := socket()
			n.Receivers[0].NoEvents = tt.silent
			inBubble(t, n, func(b stay) {
				t := b.t
				read(t, b.s).Release()
				b.k.Do(func() { n.Idle = true })
				got := ended(b.s)
				synctest.Wait()
				start := time.Now()
				b.k.Change(n, 0, tt.change)
				err := <-got
				if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.words) {
					t.Errorf("got %v", err)
				}
				if took := time.Since(start); took > tt.slowest {
					t.Errorf("seen after %v", took)
				}
			})
		})
	}
}

// A chip may go on sending pictures, of noise, and the reader may never wait.
func TestAChangeIsSeenBetweenPictures(t *testing.T) {
	inBubble(t, socket(), func(b stay) {
		t := b.t
		read(t, b.s).Release()
		b.k.Change(b.n, 0, func(r *fakevb2.Receiver) { r.Signal = fakevb2.NotLocked })
		if f, err := b.s.Read(t.Context()); !errors.Is(err, hw.ErrNoSignal) {
			t.Errorf("got %v, %v", f, err)
		}
	})
}

func TestALatePictureIsWaitedFor(t *testing.T) {
	inBubble(t, socket(), func(b stay) {
		t := b.t
		b.k.Do(func() { b.n.Idle = true })
		got := make(chan *hw.Frame)
		go func() { got <- read(t, b.s) }()
		time.Sleep(5 * time.Second) // of bubble time: the signal is measured some 37 times
		b.k.Do(func() { b.n.Idle = false })
		(<-got).Release()
		measured := strings.Count(strings.Join(b.k.Calls(), " "), "query_dv_timings")
		if measured < 30 || measured > 45 {
			t.Errorf("the signal was measured %d times", measured)
		}
	})
}

func TestNewsOfTheSamePictureAreNone(t *testing.T) {
	inBubble(t, socket(), func(b stay) {
		t := b.t
		read(t, b.s).Release()
		b.k.Change(b.n, 0, func(r *fakevb2.Receiver) { // the clock is never measured the same twice
			r.Timings.BT.SetPixelClock(r.Timings.BT.PixelClock() + 3000)
		})
		b.k.Change(b.n, 0, func(r *fakevb2.Receiver) { r.Timings = fakevb2.Timings(1280, 720, 60) })
		read(t, b.s).Release()
	})
}

func TestSignalsThatCannotBeOpened(t *testing.T) {
	interlaced := fakevb2.Timings(1920, 1080, 25)
	interlaced.BT.Interlaced = uapi.DVInterlaced
	tests := []struct {
		name   string
		change func(*fakevb2.Receiver)
		want   error
		words  string
	}{
		{"none", func(r *fakevb2.Receiver) { r.Signal = fakevb2.NoSignal }, hw.ErrNoSignal, "nothing comes in"},
		{"half pictures", func(r *fakevb2.Receiver) { r.Timings = interlaced }, hw.ErrUnsupported, "1920x1080i"},
		{"too much", func(r *fakevb2.Receiver) { r.Signal = fakevb2.OutOfRange }, hw.ErrUnsupported, "outside"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := socket()
			k := fakevb2.New(n)
			replace(k, n, tt.change)
			_, err := camera(t, k, n).Open(t.Context(), hw.Mode{})
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.words) {
				t.Errorf("got %v", err)
			}
			nothingLeft(t, k)
		})
	}
}

func TestAwaitSignal(t *testing.T) {
	type at struct {
		after  time.Duration
		change func(*fakevb2.Receiver)
	}
	good := func(r *fakevb2.Receiver) { r.Signal = fakevb2.Good }
	bad := func(r *fakevb2.Receiver) { r.Signal = fakevb2.NoSignal }
	other := func(r *fakevb2.Receiver) { r.Timings = fakevb2.Timings(640, 480, 60) }
	const ms = time.Millisecond
	tests := []struct {
		name    string
		silent  bool
		steps   []at
		settles time.Duration // from the start; later by a second if nobody tells
	}{
		{"there already", false, []at{{0, good}}, 300 * ms},
		{"plugged", false, []at{{2500 * ms, good}}, 2800 * ms},
		{"plugged, and nobody tells", true, []at{{2500 * ms, good}}, 3300 * ms},
		{"flickers", false, []at{{1000 * ms, good}, {200 * ms, bad}, {200 * ms, good}}, 1700 * ms},
		{"changes its mind", false, []at{{1000 * ms, good}, {250 * ms, other}}, 1550 * ms},
		{"flickers between two looks", false, []at{{1000 * ms, good}, {100 * ms, func(*fakevb2.Receiver) {}}}, 1400 * ms},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := socket()
				n.Receivers[0].Signal, n.Receivers[0].NoEvents = fakevb2.NoSignal, tt.silent
				k := fakevb2.New(n)
				c := camera(t, k, n)
				start := time.Now()
				got := make(chan error)
				go func() { got <- c.AwaitSignal(t.Context()) }()
				for _, s := range tt.steps {
					time.Sleep(s.after)
					synctest.Wait()
					k.Change(n, 0, s.change)
				}
				if err := <-got; err != nil {
					t.Error(err)
				}
				if took := time.Since(start); took != tt.settles {
					t.Errorf("settled after %v, want %v", took, tt.settles)
				}
				nothingLeft(t, k)
			})
		})
	}
}

func TestWaitingForASignalEnds(t *testing.T) {
	tests := []struct {
		name  string
		node  func() *fakevb2.Node
		do    func(*fakevb2.Kernel, *fakevb2.Node, context.CancelCauseFunc)
		want  error
		after time.Duration
	}{
		{"with its context", socket, func(_ *fakevb2.Kernel, _ *fakevb2.Node, cancel context.CancelCauseFunc) { cancel(unix.EINTR) }, unix.EINTR, 0},
		{"when the device goes", socket, func(k *fakevb2.Kernel, _ *fakevb2.Node, _ context.CancelCauseFunc) { k.Unplug() }, nil, 300 * time.Millisecond},
		{"when the source sends what cannot be opened", socket, func(k *fakevb2.Kernel, n *fakevb2.Node, _ context.CancelCauseFunc) {
			k.Change(n, 0, func(r *fakevb2.Receiver) { r.Signal = fakevb2.OutOfRange })
		}, nil, 300 * time.Millisecond},
		{"at a camera without a cable", webcam, func(*fakevb2.Kernel, *fakevb2.Node, context.CancelCauseFunc) {}, nil, time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := tt.node()
				if r := n.Receivers[0]; r != nil {
					r.Signal = fakevb2.NoSignal
				}
				k := fakevb2.New(n)
				c := camera(t, k, n)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				got := make(chan error)
				go func() { got <- c.AwaitSignal(ctx) }()
				synctest.Wait()
				start := time.Now()
				tt.do(k, n, cancel)
				if err := <-got; !errors.Is(err, tt.want) {
					t.Errorf("got %v", err)
				}
				if took := time.Since(start); took != tt.after {
					t.Errorf("ended after %v, want %v", took, tt.after)
				}
				nothingLeft(t, k)
			})
		})
	}
}

func TestTheWholeStoryOfACable(t *testing.T) {
	inBubble(t, socket(), func(b stay) {
		t := b.t
		got := ended(b.s)
		b.k.Change(b.n, 0, func(r *fakevb2.Receiver) { r.Signal = fakevb2.NoSignal })
		if err := <-got; !errors.Is(err, hw.ErrNoSignal) {
			t.Errorf("unplugged: %v", err)
		}
		if err := b.s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := b.c.Open(t.Context(), hw.Mode{}); !errors.Is(err, hw.ErrNoSignal) {
			t.Errorf("opened without a signal: %v", err)
		}
		back := make(chan error)
		go func() { back <- b.c.AwaitSignal(t.Context()) }()
		time.Sleep(time.Minute)
		b.k.Change(b.n, 0, func(r *fakevb2.Receiver) { r.Signal, r.Timings = fakevb2.Good, fakevb2.Timings(1920, 1080, 50) })
		if err := <-back; err != nil {
			t.Error(err)
		}
		s, err := b.c.Open(t.Context(), hw.Mode{Width: 1280, Height: 720})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Mode().String(); got != "1920x1080 50 fps NV12" {
			t.Errorf("granted %s", got)
		}
		read(t, s).Release()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestSourcesAreToldWhatWeTake(t *testing.T) {
	ours := v4l2.NewEDID(v4l2.EDIDOptions{})
	tests := []struct {
		name   string
		spoil  func(*fakevb2.Node)
		writes int
		opens  bool
	}{
		{"ours is there", func(*fakevb2.Node) {}, 0, true},
		{"none is there, and nothing came in without", func(n *fakevb2.Node) { n.Receivers[0].EDID, n.Receivers[0].NeedsEDID = nil, true }, 1, true},
		{"another one is there", func(n *fakevb2.Node) { n.Receivers[0].EDID = v4l2.NewEDID(v4l2.EDIDOptions{Name: "TV"}) }, 1, true},
		{"no room for ours", func(n *fakevb2.Node) { n.Receivers[0].EDID, n.Receivers[0].Room = nil, 1 }, 0, true},
		{"the driver has a fixed one", func(n *fakevb2.Node) { n.Refuse = map[string]unix.Errno{"g_edid": unix.ENOTTY} }, 0, true},
		{"the driver does not take it", func(n *fakevb2.Node) {
			n.Receivers[0].EDID, n.Refuse = nil, map[string]unix.Errno{"s_edid": unix.EIO}
		}, 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := socket()
			tt.spoil(n)
			k := fakevb2.New(n)
			c := camera(t, k, n)
			for range 2 {
				s, err := c.Open(t.Context(), hw.Mode{})
				if (err == nil) != tt.opens {
					t.Fatal(err)
				}
				read(t, s).Release()
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
			if r := n.Receivers[0]; r.EDIDWrites != tt.writes || tt.writes > 0 && string(r.EDID) != string(ours) {
				t.Errorf("written %d times, want %d", r.EDIDWrites, tt.writes)
			}
			nothingLeft(t, k)
		})
	}
}

// What a node cannot give in a format that is read, sources shall not send.
func TestAnInputOffersTheColoursThatItsNodeGives(t *testing.T) {
	tests := []struct {
		name    string
		formats []string
		rgb     bool
	}{
		{"a bridge that converts", []string{"RGB3", "UYVY"}, false},
		{"a receiver of RGB", []string{"BGR3", "RGB3"}, true},
		{"one that also gives what nobody here reads", []string{"BGR3", "pRAA"}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := models["tc358743"]()
			n.Formats = nil
			for _, f := range tt.formats {
				n.Formats = append(n.Formats, silently(f, 3))
			}
			_, s := open(t, n, hw.Mode{})
			read(t, s).Release()
			if want := v4l2.NewEDID(v4l2.EDIDOptions{RGBOnly: tt.rgb}); string(n.Receivers[0].EDID) != string(want) {
				t.Errorf("it says % x, want % x", n.Receivers[0].EDID[20:32], want[20:32])
			}
		})
	}
}

func TestSoundRate(t *testing.T) {
	const rateID, presentID = 0x00981000, 0x00981001
	control := func(id uint32, name string, value int64) fakevb2.Control {
		return fakevb2.Control{ID: id, Name: name, Type: uapi.CtrlTypeInteger, Max: 768000, Step: 1, Default: value}
	}
	tests := []struct {
		name     string
		controls []fakevb2.Control
		want     int
		err      error
	}{
		{"44.1 kHz", []fakevb2.Control{control(rateID, "Audio sampling rate", 44100), control(presentID, "Audio present", 1)}, 44100, nil},
		{"no sound", []fakevb2.Control{control(rateID, "Audio sampling rate", 48000), control(presentID, "Audio present", 0)}, 0, nil},
		{"a driver that only tells the rate, in capitals", []fakevb2.Control{control(rateID, "Audio Sampling Rate", 32000)}, 32000, nil},
		{"a driver that knows nothing", nil, 0, hw.ErrUnsupported},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := socket()
			n.Controls = tt.controls
			k := fakevb2.New(n)
			got, err := camera(t, k, n).SoundRate()
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("got %d, %v", got, err)
			}
			nothingLeft(t, k)
		})
	}
}

func TestAskingLeavesTheInputAlone(t *testing.T) {
	n := bridge()
	n.Receivers = map[int]*fakevb2.Receiver{1: {Timings: fakevb2.Timings(640, 480, 60)}}
	k := fakevb2.New(n)
	cameras, err := finder(k, sysfs("video1")).Cameras()
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, c := range cameras {
		ids = append(ids, c.ID()+" "+c.Name())
		if _, err := c.Modes(); err != nil {
			t.Error(err)
		}
		k.Do(func() {
			if n.Input() != 0 {
				t.Errorf("%s: input %d is selected", c.ID(), n.Input())
			}
		})
	}
	const bus = "v4l2:platform:fe801000.csi"
	if got, want := strings.Join(ids, "; "), bus+" Bridge; "+bus+"#0 Bridge, Camera 0; "+bus+"#1 Bridge, HDMI 1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	nothingLeft(t, k)
}

func TestNothingOfAnHDMIInputLeaks(t *testing.T) {
	life := func(c *v4l2.Camera) error {
		err := c.AwaitSignal(context.Background())
		s, err2 := c.Open(context.Background(), hw.Mode{})
		if err2 != nil {
			return errors.Join(err, err2)
		}
		for range 3 {
			f, err := s.Read(context.Background())
			if err != nil {
				return errors.Join(err, s.Close())
			}
			f.Release()
		}
		return errors.Join(err, s.Close())
	}
	run := func(at int, spoil func(*fakevb2.Kernel, int)) (calls []string) {
		synctest.Test(t, func(t *testing.T) {
			n := socket()
			n.Receivers[0] = &fakevb2.Receiver{Timings: fakevb2.Timings(64, 48, 60)}
			k := fakevb2.New(n)
			c := camera(t, k, n)
			before := len(k.Calls())
			if at > 0 {
				spoil(k, before+at)
			}
			err := life(c)
			if calls = k.Calls()[before:]; at == 0 && err != nil {
				t.Error(err)
			}
			if d, m := k.Left(); d != 0 || m != 0 {
				t.Errorf("call %d (%s): %d descriptors, %d mappings left (%v)", at, calls[max(at-1, 0)], d, m, err)
			}
		})
		return calls
	}
	calls := run(0, nil)
	for i, name := range calls {
		if name == "notify" { // fails only with a full counter, which ends waits all the same
			continue
		}
		for _, errno := range []unix.Errno{unix.EIO, unix.EBUSY, unix.EINVAL, unix.ENOTTY, unix.ENOLINK, unix.ENODEV} {
			run(i+1, func(k *fakevb2.Kernel, at int) { k.FailAt, k.FailWith = at, errno })
		}
		run(i+1, func(k *fakevb2.Kernel, at int) { k.UnplugAt = at })
	}
	t.Logf("%d calls, each failed in seven ways", len(calls))
}
