package daemon

import (
	"slices"
	"strings"
	"testing"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/hw"
	"encoderd.example/stream"
)

const thirty = "[video]\nwidth = 128\nheight = 72\nfps = 30\n[serve]\nweb = \"\"\nrtsp = \"\"\n[audio]\nsource = \"none\"\n[[rendition]]\nname = \"main\"\ngop = \"2s\"\n"

func TestTheEncoderIsOpenedAtTheRateOfTheCamera(t *testing.T) {
	const sub = "[[rendition]]\nname = \"sub\"\nwidth = 64\nheight = 64\nfps = 10\n"
	inTheatre(t, thirty+sub, newActor(fps(25, 1)), plain, func(th *theatre) { th.hard.fixed.Store(true) }, func(th *theatre) {
		time.Sleep(5 * time.Second)
		for _, e := range th.hard.all() {
			if e.closed.Load() {
				continue
			}
			rate, gop := fps(25, 1), 50
			if e.Width == 64 {
				rate, gop = fps(10, 1), 20
			}
			if e.FPS != rate || e.GOP != gop {
				t.Errorf("width %d: the encoder believes in %v, a key frame each %d; want %v, %d", e.Width, e.FPS, e.GOP, rate, gop)
			}
		}
		b, _ := th.Status()
		near := func(got, want float64) bool { return got >= want-0.6 && got <= want+0.6 } // one picture of two seconds
		if !near(b.Input.FPS, 25) || !near(b.Renditions[0].FPS, 25) || !near(b.Renditions[1].FPS, 10) {
			t.Errorf("status says %v, %v and %v fps", b.Input.FPS, b.Renditions[0].FPS, b.Renditions[1].FPS)
		}
	})
}

func TestAnEncoderIsToldTheRateOrOpenedAnew(t *testing.T) {
	tests := []struct {
		name   string
		fixed  bool // it has no such knob
		claims bool // and its driver says that it has
		opened int  // encoders in all
		told   []hw.Rate
	}{
		{"an encoder with a knob", false, true, 1, []hw.Rate{fps(15, 1), fps(30, 1)}},
		{"an encoder without", true, false, 3, nil},
		{"an encoder that refuses", true, true, 3, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inTheatre(t, thirty, newActor(fps(30, 1)), plain, func(th *theatre) { th.hard.fixed.Store(tt.fixed && !tt.claims) }, func(th *theatre) {
				th.hard.fixed.Store(tt.fixed)
				time.Sleep(10 * time.Second)
				v := th.view("main")
				if n := len(th.hard.all()); n != 1 {
					t.Errorf("%d encoders for a camera that gives what it was asked for", n)
				}
				th.actor.seldom.Store(2) // night
				time.Sleep(10 * time.Second)
				if got := th.hub.rate(); got != fps(15, 1) {
					t.Errorf("at night the rate is %v", got)
				}
				th.actor.seldom.Store(1)
				time.Sleep(10 * time.Second)
				if got, n := th.hard.told(), len(th.hard.all()); !slices.Equal(got, tt.told) || n != tt.opened {
					t.Errorf("%d encoders, told %v; want %d, %v", n, got, tt.opened, tt.told)
				}
				if last := th.hard.latest(); last.FPS != fps(30, 1) || last.GOP != 60 {
					t.Errorf("the last one was opened for %v, a key frame each %d", last.FPS, last.GOP)
				}
				v.on(t)
			})
		})
	}
}

// An encoder's level is that of the rate at which it was opened: one that can be
// told another rate is opened for what the config foresees, so that a hall that
// gets light needs no new one.
func TestAnEncoderThatWasOpenedInTheDarkIsThereByDay(t *testing.T) {
	dark, day := fps(15, 1), fps(30, 1)
	tests := []struct {
		name   string
		fixed  bool // it has no such knob
		claims bool // and its driver says that it has
		opened []hw.Rate
		told   []hw.Rate // of the last one
	}{
		{"an encoder with a knob", false, true, []hw.Rate{day}, []hw.Rate{dark, day}},
		{"an encoder without", true, false, []hw.Rate{dark, day}, nil},
		{"an encoder that refuses", true, true, []hw.Rate{day, dark, day}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inTheatre(t, thirty, newActor(dark), plain, func(th *theatre) { th.hard.fixed.Store(tt.fixed && !tt.claims) }, func(th *theatre) {
				th.hard.fixed.Store(tt.fixed)
				time.Sleep(10 * time.Second)
				before, told := len(th.hard.all()), len(th.hard.told())
				th.apply(strings.Replace(thirty, `gop = "2s"`, `gop = "1s"`, 1)) // opens it anew
				time.Sleep(10 * time.Second)
				th.actor.rate.Store(&day)
				th.actor.fails <- hw.ErrGone
				time.Sleep(10 * time.Second)
				var opened []hw.Rate
				for _, e := range th.hard.all()[before:] {
					opened = append(opened, e.FPS)
					if e.GOP != int(e.FPS.Float()) {
						t.Errorf("opened for %v with a key frame each %d, want each second", e.FPS, e.GOP)
					}
				}
				if got := th.hard.told()[told:]; !slices.Equal(opened, tt.opened) || !slices.Equal(got, tt.told) {
					t.Errorf("opened for %v and told %v, want %v and %v", opened, got, tt.opened, tt.told)
				}
			})
		})
	}
}

// Hardware that did not stop is not opened again, whatever it was closed for.
func TestAnEncoderThatHangsWhenItIsExchangedIsLeftBehind(t *testing.T) {
	before := func(th *theatre) {
		th.hard.free, th.spare = make(chan struct{}), &videoDriver{}
		th.hard.fixed.Store(true)
	}
	inTheatre(t, thirty, newActor(fps(30, 1)), plain, before, func(th *theatre) {
		time.Sleep(10 * time.Second)
		v := th.view("main")
		th.hard.latest().stuck = true
		th.actor.seldom.Store(2)
		b := th.until("software", by("spare"))
		if n := len(th.spare.all()); n != 1 {
			t.Errorf("%d encoders of software", n)
		}
		if !b.Has(status.DriverHangs) || !strings.Contains(b.Renditions[0].EncoderReason, "close enc: hangs") {
			t.Errorf("%+v, faults %+v", b.Renditions[0], b.Faults)
		}
		time.Sleep(20 * time.Second)
		if n := len(th.hard.all()); n != 1 || !by("spare")(th.now()) {
			t.Errorf("hardware was opened %d times, %+v", n, th.now().Renditions[0])
		}
		v.on(t)
		close(th.hard.free)
		th.until("the end of what hung", func(b status.Box) bool { return !b.Has(status.DriverHangs) })
	})
}

func TestAJitteringCameraCostsNoEncoder(t *testing.T) {
	for _, fault := range []string{"camera-noise-stamps", "camera-empty"} {
		inBox(t, small, nil, func(r *rig) {
			time.Sleep(5 * time.Second)
			r.fault(fault, true)
			time.Sleep(20 * time.Second)
			if n := len(r.video.all()); n != 1 {
				t.Errorf("%s: %d encoders", fault, n)
			}
		})
	}
}

func TestKeyFramesAreAskedForByTimeWhereTheEncoderCountsFrames(t *testing.T) {
	conf := hw.EncoderConfig{FPS: fps(30, 1), GOP: 60}
	tests := []struct {
		name         string
		source, then hw.Rate
		live         bool
		want         int // of ten seconds
	}{
		{"the rate of the beginning", fps(30, 1), fps(30, 1), false, 0},
		{"half of it", fps(30, 1), fps(15, 1), false, 5},
		{"opened at that", fps(15, 1), fps(15, 1), false, 0},
		{"more than that", fps(15, 1), fps(30, 1), false, 0},
		{"opened in the dark for the day", fps(15, 1), fps(15, 1), true, 5},
		{"day", fps(15, 1), fps(30, 1), true, 0},
	}
	for _, tt := range tests {
		p := newPace(conf, tt.source, tt.live)
		p.now.Store(&tt.then)
		asked, count := 0, 0
		for at := time.Hour; at < time.Hour+10*time.Second; at += tt.then.Period() {
			if p.keyDue(&stream.Unit{DTS: at, Key: count%p.opened.GOP == 0}) {
				asked, count = asked+1, -1 // the next one is a key unit
			}
			count++
		}
		if asked != tt.want && asked != tt.want-1 {
			t.Errorf("%s: asked for %d key frames in ten seconds, want %d", tt.name, asked, tt.want)
		}
	}
}
