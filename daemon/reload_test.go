package daemon

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/daemon/supervise"
	"encoderd.example/hw"
	"encoderd.example/stream"
)

// A viewer reads a rendition as long as it lives and checks its sound.
type viewer struct {
	video atomic.Int64
	ended error
	done  chan struct{}
}

func (r *rig) view(name string) *viewer {
	r.t.Helper()
	rendition := r.Rendition(name)
	if rendition == nil {
		r.t.Fatalf("there is no rendition %s", name)
	}
	v := &viewer{done: make(chan struct{})}
	rd := rendition.Reader()
	go func() {
		defer close(v.done)
		var heard time.Duration
		for {
			u, err := rd.Next(r.t.Context())
			if err != nil {
				v.ended = err
				return
			}
			if u.Track.Codec == stream.H264 {
				v.video.Add(1)
				continue
			}
			if u.DTS <= heard {
				r.t.Errorf("sound goes from %v back to %v", heard, u.DTS)
			}
			heard = u.DTS
		}
	}()
	return v
}

func TestReload(t *testing.T) {
	const two = small + "[[rendition]]\nname = \"main\"\n[[rendition]]\nname = \"sub\"\n"
	tests := []struct {
		name, before, after string
		ends                bool // for those who watch main
		check               func(*rig, status.Box)
	}{
		{"a bit rate is turned at the running encoder", small, small + "[[rendition]]\nname = \"main\"\nbitrate = \"333k\"\n", false, func(r *rig, _ status.Box) {
			if all := r.video.all(); len(all) != 1 || all[0].rate.Load() != 333_000 {
				r.t.Errorf("%d encoders, the last at %d bit/s", len(all), r.video.latest().rate.Load())
			}
		}},
		{"a new size keeps the viewers", small, small + "[[rendition]]\nname = \"main\"\nwidth = 256\nheight = 144\n", false, func(r *rig, b status.Box) {
			if e := r.video.latest(); e.Width != 256 || b.Renditions[0].Width != 256 {
				r.t.Errorf("encoder of width %d, rendition %+v", e.Width, b.Renditions[0])
			}
		}},
		{"a rendition more does not touch the other", small, two, false, func(r *rig, b status.Box) {
			if len(r.video.all()) != 2 || len(b.Renditions) != 2 {
				r.t.Errorf("%d encoders, renditions %+v", len(r.video.all()), b.Renditions)
			}
		}},
		{"a rendition that goes lets its viewers go", two, small + "[[rendition]]\nname = \"sub\"\n", true, func(r *rig, b status.Box) {
			if r.Rendition("main") != nil || len(b.Services) != 7 {
				r.t.Errorf("main is still there, or services of it: %+v", b.Services)
			}
		}},
		{"sound goes", small, small + "[audio]\nsource = \"none\"\n", true, func(r *rig, b status.Box) {
			if tracks, ok := r.Rendition("main").Tracks(); !ok || len(tracks) != 1 || b.Has(status.NoSound) {
				r.t.Errorf("tracks %v, complete %v, faults %v", tracks, ok, b.Faults)
			}
		}},
		{"sound comes", small + "[audio]\nsource = \"none\"\n", small, true, func(r *rig, _ status.Box) {
			if tracks, err := r.Rendition("main").Wait(r.t.Context()); err != nil || len(tracks) != 2 {
				r.t.Errorf("tracks %v, %v", tracks, err)
			}
		}},
		{"another sound source goes on without a break", small, small + "[audio]\nsource = \"test\"\ndelay = \"-60ms\"\n", false, func(*rig, status.Box) {}},
		{"another coding of sound goes on where the old one ended", small, small + "[audio]\nbitrate = \"96k\"\n", false, func(*rig, status.Box) {}},
		{"another size of the picture that comes in", small, strings.NewReplacer("128", "160", "72", "90").Replace(small), false, func(r *rig, b status.Box) {
			if b.Input.Width != 160 {
				r.t.Errorf("input %+v", b.Input)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inBox(t, tt.before, nil, func(r *rig) {
				v := r.view("main")
				time.Sleep(time.Second)
				seen := v.video.Load()
				r.apply(tt.after)
				time.Sleep(2 * time.Second)
				b := r.until("box on duty", onDuty)
				tt.check(r, b)
				select {
				case <-v.done:
					if !tt.ends || !errors.Is(v.ended, stream.ErrClosed) {
						r.t.Errorf("the viewer was cut off: %v", v.ended)
					}
				default:
					if tt.ends || v.video.Load() < seen+15 {
						r.t.Errorf("the viewer has seen %d, then %d pictures", seen, v.video.Load())
					}
				}
			})
		})
	}
}

func TestReloadsUnderLoadEndWithTheLast(t *testing.T) {
	inBox(t, small+outputs, nil, func(r *rig) {
		docs := []string{
			small, small + outputs, small + "[audio]\nsource = \"none\"\n",
			small + "[[rendition]]\nname = \"other\"\nbitrate = \"200k\"\n",
			small + outputs + "[[rendition]]\nname = \"main\"\nbitrate = \"222k\"\n",
		}
		for i := range 40 {
			r.apply(docs[i%len(docs)])
			r.order("audio.toggle", nil)
			time.Sleep(time.Duration(i%7) * 30 * time.Millisecond)
		}
		time.Sleep(3 * time.Second)
		b := r.until("box on duty", onDuty)
		if b.Renditions[0].Name != "main" || b.Renditions[0].Target != 222_000 || r.video.latest().rate.Load() != 222_000 {
			t.Errorf("%+v, encoder at %d", b.Renditions, r.video.latest().rate.Load())
		}
		if len(r.renditions) != 1 || len(r.services) != 7 {
			t.Errorf("%d renditions and %d services are left", len(r.renditions), len(r.services))
		}
		for _, e := range r.video.all() {
			if e.late.Load() > 0 {
				t.Errorf("an encoder was used %d times after its end", e.late.Load())
			}
		}
	})
}

func TestCountersOutliveAnEncoderThatFalls(t *testing.T) {
	inBox(t, small, nil, func(r *rig) {
		first := r.video.latest()
		time.Sleep(3 * time.Second)
		close(first.broken)
		b := r.until("fault", func(b status.Box) bool { return b.Has(status.EncoderFailed) })
		if b.State != status.Broken || !strings.Contains(b.Renditions[0].Error, "fell over") {
			t.Errorf("%+v", b)
		}
		b = r.until("box on duty again", onDuty)
		if r.video.latest() == first || b.Renditions[0].Dropped < 2000 || b.Renditions[0].Frames < 25 {
			t.Errorf("%+v", b.Renditions[0])
		}
		if first.late.Load() > 0 {
			t.Errorf("the encoder was used %d times after its end", first.late.Load())
		}
	})
}

func TestABitRateThatChangesWhileTheEncoderOpensIsNotLost(t *testing.T) {
	d := testDaemon(t)
	d.Apply(parse(t, "[[rendition]]\nname = \"main\"\nbitrate = \"2M\"\n"))
	e, err := (&videoDriver{}).open(hw.EncoderConfig{Bitrate: 1_000_000})
	if err != nil {
		t.Fatal(err)
	}
	d.noteEncoder("main", hw.EncoderDriver{}, e, 1_000_000, false)
	if fake, ok := e.(*fakeVideo); !ok || fake.rate.Load() != 2_000_000 {
		t.Errorf("it stays at %v", fake.rate.Load())
	}
}

func TestEncoderIsTheFirstThatIsAllowedAndWorks(t *testing.T) {
	missing := func(hw.EncoderConfig) (hw.Encoder, error) { return nil, hw.ErrMissing }
	busy := func(hw.EncoderConfig) (hw.Encoder, error) { return nil, hw.ErrBusy }
	good := (&videoDriver{}).open
	h264 := []stream.Codec{stream.H264}
	tests := []struct {
		name, choice string
		drivers      []hw.EncoderDriver
		want, words  string
	}{
		{"hardware first", "auto", []hw.EncoderDriver{{Name: "hard", Hardware: true, Codecs: h264, Open: good}, {Name: "soft", Codecs: h264, Open: good}}, "hard", ""},
		{"hardware is busy", "auto", []hw.EncoderDriver{{Name: "hard", Hardware: true, Codecs: h264, Open: busy}, {Name: "soft", Codecs: h264, Open: good}}, "soft", ""},
		{"hardware is busy and must be", "hardware", []hw.EncoderDriver{{Name: "hard", Hardware: true, Codecs: h264, Open: busy}, {Name: "soft", Codecs: h264, Open: good}}, "", "hard: device is busy"},
		{"software wanted", "software", []hw.EncoderDriver{{Name: "hard", Hardware: true, Codecs: h264, Open: good}, {Name: "soft", Codecs: h264, Open: good}}, "soft", ""},
		{"other codecs only", "auto", []hw.EncoderDriver{{Name: "hard", Codecs: []stream.Codec{stream.H265}, Open: good}}, "", "this board has no encoder for h264"},
		{"no hardware", "hardware", []hw.EncoderDriver{{Name: "soft", Codecs: h264, Open: good}}, "", "this board has no hardware encoder for h264"},
		{"none works", "auto", []hw.EncoderDriver{{Name: "hard", Hardware: true, Codecs: h264, Open: busy}, {Name: "soft", Codecs: h264, Open: missing}}, "", "soft: not installed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := testDaemon(t)
			d.drivers = tt.drivers
			c := encodeConfig{Rendition: "main", Choice: tt.choice, EncoderConfig: hw.EncoderConfig{Codec: stream.H264}}
			l := &ladder{names: place([]encodeConfig{c}, tt.drivers)[0].Drivers}
			got := ""
			s, err := d.openSession(c, l)
			if err == nil {
				got = s.driver.Name
				err = s.close()
			}
			if got != tt.want || (err != nil) != (tt.want == "") || !strings.Contains(text(err), tt.words) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestSoundEncoderErrorsNameEveryTry(t *testing.T) {
	d := testDaemon(t)
	if _, err := d.openSound(soundConfig{}); !errors.Is(err, hw.ErrMissing) || !strings.Contains(err.Error(), "no encoder for aac") {
		t.Errorf("got %v", err)
	}
	fail := func(int) (hw.AudioEncoder, error) { return nil, hw.ErrMissing }
	d.Board.AudioEncoders = []hw.AudioEncoderDriver{{Name: "one", Codec: stream.AAC, Open: fail}, {Name: "two", Codec: stream.Opus}, {Name: "three", Codec: stream.AAC, Open: fail}}
	if _, err := d.openSound(soundConfig{}); !errors.Is(err, hw.ErrMissing) || text(err) != "one: not installed\nthree: not installed" {
		t.Errorf("got %v", err)
	}
}

func TestABoxWithoutAnEncoderSaysSoAndComesUpOnceThereIsOne(t *testing.T) {
	inBox(t, small, func(b *hw.Board) { b.Encoders[0].Open = opensAt(b.Encoders[0].Open, time.Now().Add(5*time.Second)) }, func(r *rig) {
		if err := r.Do(context.Background(), "audio.mute", nil, "test"); err != nil {
			t.Error(err)
		}
		r.until("silence of faults", func(b status.Box) bool { return len(b.Faults) == 0 && serviceIs(b, "encode/main", supervise.Live) })
	})
}

// opensAt lets an encoder be missing until then.
func opensAt(open func(hw.EncoderConfig) (hw.Encoder, error), then time.Time) func(hw.EncoderConfig) (hw.Encoder, error) {
	return func(c hw.EncoderConfig) (hw.Encoder, error) {
		if time.Now().Before(then) {
			return nil, hw.ErrMissing
		}
		return open(c)
	}
}

const inHEVC = small + "[[rendition]]\nname = \"main\"\ncodec = \"h265\"\n[[rendition]]\nname = \"sub\"\n"

func TestARenditionIsCodedAsItsCodecSays(t *testing.T) {
	soft, chip := &videoDriver{}, &videoDriver{}
	inBox(t, small+"[[rendition]]\nname = \"main\"\n[[rendition]]\nname = \"sub\"\n", func(b *hw.Board) {
		both := chip.driver("chip", true)
		both.Codecs = []stream.Codec{stream.H265}
		b.Encoders = []hw.EncoderDriver{both, soft.driver("soft", false)}
	}, func(r *rig) {
		main, sub := r.view("main"), r.view("sub")
		r.apply(inHEVC)
		b := r.until("H.265", by("chip"))
		if c := chip.latest().Codec; c != stream.H265 || b.Renditions[1].Encoder != "soft" {
			t.Errorf("coded %s, %+v", c, b.Renditions)
		}
		tracks, ok := r.Rendition("main").Tracks()
		if !ok || len(tracks) != 2 || tracks[0].Codec != stream.H265 {
			t.Errorf("tracks %v, %+v", ok, tracks)
		}
		select {
		case <-main.done:
		default:
			t.Error("a viewer of H.264 was left with H.265")
		}
		sub.on(t)
	})
}

func TestABoardThatDoesNotCodeHEVCSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, inHEVC, nil)
		defer r.stop()
		b := r.until("fault", func(b status.Box) bool { return b.Has(status.EncoderMissing) })
		if words := faultText(b, status.EncoderMissing); !strings.Contains(words, "main: this board has no encoder for h265") || !strings.Contains(words, `write codec = "h264"`) {
			t.Errorf("fault %q", words)
		}
	})
}
