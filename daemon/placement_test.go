package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/hw"
	"encoderd.example/stream"
)

// pi is a board whose one hardware encoder has the budget of a Raspberry Pi's.
func pi() []hw.EncoderDriver {
	h264 := []stream.Codec{stream.H264}
	return []hw.EncoderDriver{
		{Name: "v4l2:bcm2835-codec", Hardware: true, Codecs: h264, Budget: 245760},
		{Name: "libx264", Codecs: h264},
	}
}

func TestHardwareCodesWhatItHasRoomFor(t *testing.T) {
	const (
		hard = "v4l2:bcm2835-codec libx264"
		soft = "libx264"
		sub  = "\n[[rendition]]\nname = \"sub\"\nwidth = 640\nheight = 360\n"
	)
	tests := []struct {
		name, doc string
		want      []string // drivers of each rendition
		reason    string   // of the last
	}{
		{"1080p30 fits alone", "", []string{hard}, ""},
		{"sub finds no room", "[[rendition]]\nname = \"main\"" + sub, []string{hard, soft}, "main 1920x1080 30 fps 244800 + sub 640x360 30 fps 27600 = 272400, v4l2:bcm2835-codec codes 245760 macroblocks a second"},
		{"two small ones", "[video]\nwidth = 1280\nheight = 720\n[[rendition]]\nname = \"main\"" + sub, []string{hard, hard}, ""},
		{"software by choice leaves room", "[[rendition]]\nname = \"main\"\nencoder = \"software\"" + sub, []string{soft, hard}, ""},
		{"who must have hardware is served first", "[[rendition]]\nname = \"main\"" + sub + "encoder = \"hardware\"", []string{soft, "v4l2:bcm2835-codec"}, ""},
		{"no room even alone", "[video]\nfps = 60\n[[rendition]]\nname = \"main\"\nencoder = \"hardware\"", []string{""}, "main 1920x1080 60 fps 489600, v4l2:bcm2835-codec codes 245760 macroblocks a second"},
		{"a codec that nobody has", "[[rendition]]\nname = \"main\"\nprofile = \"main\"\n", []string{hard}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := parse(t, tt.doc)
			p := planner{config: c, fps: hw.Rate(c.Video.FPS)}
			placed := p.place(pi())
			var got []string
			for _, at := range placed {
				got = append(got, strings.Join(at.Drivers, " "))
			}
			if last := placed[len(placed)-1]; !slices.Equal(got, tt.want) || last.Reason != tt.reason {
				t.Errorf("got %q because of %q, want %q because of %q", got, last.Reason, tt.want, tt.reason)
			}
		})
	}
}

func TestAnUnknownBudgetIsNoLimit(t *testing.T) {
	drivers := pi()
	drivers[0].Budget = 0
	c := parse(t, "[video]\nwidth = 3840\nheight = 2160\nfps = 60\n")
	p := planner{config: c, fps: hw.Rate(c.Video.FPS)}
	if at := p.place(drivers)[0]; len(at.Drivers) != 2 || at.Reason != "" {
		t.Errorf("%+v", at)
	}
}

func TestOverloadIsToldWithTheSumAndARemedy(t *testing.T) {
	const two = "[[rendition]]\nname = \"main\"\nencoder = \"hardware\"\n[[rendition]]\nname = \"sub\"\nwidth = 640\nheight = 360\nencoder = \"hardware\"\n"
	i, wrong, do, ok := Overload(parse(t, two), pi())
	if ok || i != 1 || wrong != "main 1920x1080 30 fps 244800 + sub 640x360 30 fps 27600 = 272400, v4l2:bcm2835-codec codes 245760 macroblocks a second" ||
		do != "make sub smaller, or set its encoder to software" {
		t.Errorf("%v, rendition %d: %s: %s", ok, i, wrong, do)
	}
	for name, drivers := range map[string][]hw.EncoderDriver{"no device there now": nil, "software only": pi()[1:]} {
		if _, wrong, _, ok := Overload(parse(t, two), drivers); !ok {
			t.Errorf("%s: %s", name, wrong)
		}
	}
	if _, wrong, _, ok := Overload(parse(t, strings.ReplaceAll(two, "hardware", "auto")), pi()); !ok {
		t.Errorf("auto: %s", wrong)
	}
}

func TestMeasuredBudgetsCountWhereTheDriverKnowsNone(t *testing.T) {
	state := t.TempDir()
	if err := (Budgets{"v4l2:vh264enc": 100_000, "v4l2:bcm2835-codec": 1, "libx264": 5}).Save(state); err != nil {
		t.Fatal(err)
	}
	b := hw.Board{
		FindEncoders: func() ([]hw.EncoderDriver, error) {
			return []hw.EncoderDriver{{Name: "v4l2:bcm2835-codec", Hardware: true, Budget: 245760}, {Name: "v4l2:vh264enc", Hardware: true}}, nil
		},
		Encoders: []hw.EncoderDriver{{Name: "libx264"}},
	}
	drivers, err := Encoders(b, state)
	var got []int
	for _, d := range drivers {
		got = append(got, d.Budget)
	}
	if err != nil || !slices.Equal(got, []int{245760, 100_000, 0}) {
		t.Errorf("budgets %v, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(state, budgetFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.FindEncoders = func() ([]hw.EncoderDriver, error) { return nil, hw.ErrBusy }
	drivers, err = Encoders(b, state)
	if len(drivers) != 1 || !errors.Is(err, hw.ErrBusy) || !strings.Contains(err.Error(), "probe --measure") {
		t.Errorf("%d drivers, %v; want the software and both reasons", len(drivers), err)
	}
}

// twoChips are hardware encoders that carry three renditions of 128x72 at 10 fps
// (400 macroblocks a second) and one, and software.
func twoChips(first, second, soft *videoDriver) func(*hw.Board) {
	return func(b *hw.Board) {
		b.FindEncoders = func() ([]hw.EncoderDriver, error) {
			big, little := first.driver("big", true), second.driver("little", true)
			big.Budget, little.Budget = 1200, 500
			return []hw.EncoderDriver{big, little}, nil
		}
		b.Encoders = []hw.EncoderDriver{soft.driver("soft", false)}
	}
}

func TestAFallBackToHardwareNeedsRoomThere(t *testing.T) {
	const doc = small + "[[rendition]]\nname = \"one\"\n[[rendition]]\nname = \"two\"\n"
	first, second, soft := &videoDriver{}, &videoDriver{}, &videoDriver{}
	inBox(t, doc, twoChips(first, second, soft), func(r *rig) {
		time.Sleep(5 * time.Second)
		for _, v := range r.now().Renditions {
			if v.Encoder != "big" {
				t.Errorf("%s is coded by %s", v.Name, v.Encoder)
			}
		}
		for _, e := range first.all() { // both fall at the same time
			e.depart()
		}
		first.busy.Store(true)
		b := r.until("spare encoders", func(b status.Box) bool {
			return onDuty(b) && b.Renditions[0].Encoder != "big" && b.Renditions[1].Encoder != "big"
		})
		by := map[string]status.Rendition{}
		for _, v := range b.Renditions {
			by[v.Encoder] = v
		}
		if len(by) != 2 || by["little"].Name == "" || by["soft"].Name == "" {
			t.Fatalf("renditions %+v, want one on each spare encoder", b.Renditions)
		}
		loser, winner := by["soft"], by["little"]
		want := fmt.Sprintf("%s 128x72 10 fps 400 + %s 128x72 10 fps 400 = 800, little codes 500 macroblocks a second", winner.Name, loser.Name)
		if !strings.Contains(loser.EncoderReason, want) || !strings.Contains(loser.EncoderReason, "big: device is gone") {
			t.Errorf("reason %q, want %q", loser.EncoderReason, want)
		}
	})
}

func TestARenditionThatMustHaveHardwareSaysWhyItHasNone(t *testing.T) {
	const doc = small + "[[rendition]]\nname = \"one\"\nencoder = \"hardware\"\n[[rendition]]\nname = \"two\"\nencoder = \"hardware\"\n"
	first, second, soft := &videoDriver{}, &videoDriver{}, &videoDriver{}
	inBox(t, doc, twoChips(first, second, soft), func(r *rig) {
		time.Sleep(5 * time.Second)
		for _, e := range first.all() {
			e.depart()
		}
		first.busy.Store(true)
		r.until("refusal", func(b status.Box) bool {
			return strings.Contains(faultText(b, status.EncoderMissing), "= 800, little codes 500 macroblocks a second")
		})
		if len(soft.all()) > 0 || len(second.all()) != 1 {
			t.Errorf("%d encoders of software, %d on the little chip", len(soft.all()), len(second.all()))
		}
	})
}

// What is not thinned out has to be coded.
func TestASourceThatIsALittleFasterCostsWhatItGives(t *testing.T) {
	tests := []struct {
		name   string
		source hw.Rate
		refuse string // with that sum
	}{
		{"as configured", fps(10, 1), ""},
		{"in the dark", fps(5, 1), ""},
		{"a little faster", fps(11, 1), "main 128x72 11 fps 440, chip codes 420 macroblocks a second"},
		{"thinned out", fps(12, 1), ""},
		{"not known yet", hw.Rate{}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := New(Options{State: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
			d.config = parse(t, small)
			d.hub.setRate(tt.source)
			p := planner{config: d.config, fps: hw.Rate(d.config.Video.FPS)}
			err := d.book(p.encode(d.config.Renditions[0]), hw.EncoderDriver{Name: "chip", Hardware: true, Budget: 420})
			if refused := errors.Is(err, errOverload); refused != (tt.refuse != "") || refused && !strings.Contains(err.Error(), tt.refuse) {
				t.Errorf("%v, want %q", err, tt.refuse)
			}
		})
	}
}
