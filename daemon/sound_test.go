package daemon

import (
	"context"
	"reflect"
	"strings"
	"testing"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/hw"
	"encoderd.example/hw/pcm"
	"encoderd.example/stream"
)

// stoppingEncoder ends the mixer's context at its first block.
type stoppingEncoder struct {
	stop  context.CancelFunc
	calls int
}

func (e *stoppingEncoder) Encode([]int16, time.Duration, func(*stream.Unit)) error {
	e.calls++
	e.stop()
	return nil
}

func (e *stoppingEncoder) Track() *stream.Track { return nil }
func (e *stoppingEncoder) Reset()               {}
func (e *stoppingEncoder) Close() error         { return nil }

func TestMixerStopsAtOnceHoweverMuchSoundWaits(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	m := newMixer()
	var clock time.Duration
	m.now = func() time.Duration { // each look at it is 4 s later
		clock += 4 * time.Second
		return clock
	}
	enc := &stoppingEncoder{stop: stop}
	if err := m.run(ctx, enc, func(*stream.Unit) {}); err != nil {
		t.Fatal(err)
	}
	if enc.calls != 1 {
		t.Errorf("%d blocks were coded after the order to stop", enc.calls-1)
	}
}

func TestTheStatusTellsOfTheSound(t *testing.T) {
	d := testDaemon(t)
	d.config = parse(t, "[audio]\nsilence = '-50dB'\nsilence_after = '1m'")
	d.start = time.Now().Add(-time.Minute)
	d.mixer.heard.Store(int64(d.mixer.now()))
	d.noteMic(&fakeMic{}, &tone{})
	d.mixer.level = soundLevel{
		Levels: pcm.Levels{
			Peak: [2]float64{-61.04, -58.96}, RMS: [2]float64{-70, pcm.Floor}, Momentary: -66.66, ShortTerm: -65.55,
		},
		drift: 299.96, late: 4 * time.Millisecond, gaps: 3, steps: 1, silent: true,
	}
	want := status.Sound{
		Source: "auto", ID: "alsa:Fake", Name: "Fake card", Signal: true, Silent: true, PeakDBFS: -59,
		Channels:     [2]status.SoundChannel{{PeakDBFS: -61, RMSDBFS: -70}, {PeakDBFS: -59, RMSDBFS: -120}},
		LoudnessLUFS: -65.6, MomentaryLUFS: -66.7, DriftPPM: 300, Gaps: 3, Steps: 1,
	}
	b := d.box(time.Now())
	if b.Sound != want || b.AVOffsetMS != 4 {
		t.Errorf("got  %+v, offset %v ms\nwant %+v", b.Sound, b.AVOffsetMS, want)
	}
	check := func(name string, want bool) {
		t.Helper()
		b := d.box(time.Now())
		found := false
		for _, f := range b.Faults {
			found = found || f.Code == status.SilentSound && strings.HasPrefix(f.Text, "alsa:Fake has given nothing above -50dBFS for 1m0s. Check")
		}
		if found != want {
			t.Errorf("%s: fault %v, want %v: %v", name, found, want, b.Faults)
		}
	}
	check("silent", true)
	d.wanted.Muted = true
	check("muted", false)
	d.wanted.Muted = false
	d.mixer.heard.Store(0)
	check("no card", false)
	d.config.Audio.Source = "none"
	none := status.SoundChannel{PeakDBFS: -120, RMSDBFS: -120}
	if got, want := d.box(time.Now()).Sound, (status.Sound{
		Source: "none", PeakDBFS: -120, Channels: [2]status.SoundChannel{none, none}, LoudnessLUFS: -120, MomentaryLUFS: -120,
	}); got != want {
		t.Errorf("without sound: got %+v", got)
	}
}

type fakeMic struct{ hw.Mic }

func (*fakeMic) ID() string   { return "alsa:Fake" }
func (*fakeMic) Name() string { return "Fake card" }

func TestTheCheckNamesWhatIsNotUsual(t *testing.T) {
	tests := []struct{ doc, want string }{
		{"", ""},
		{"audio.channels = 'stereo'", ""},
		{"audio={channels='3+4', gain='-3.5dB', delay='40ms'}", ", channels 3+4, gain -3.5dB, delay 40ms"},
		{"audio.silence = -70", ", silent below -70dB for 30s"},
	}
	for _, tt := range tests {
		if got := soundSettings(parse(t, tt.doc).Audio); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.doc, got, tt.want)
		}
	}
}

func TestTurningTheSoundRestartsNothing(t *testing.T) {
	usual := plan(parse(t, ""), hw.Board{}, Wanted{})
	turned := plan(parse(t, "audio={channels='mono', gain=6, delay='40ms', silence=-70, silence_after='5s'}"), hw.Board{}, Wanted{})
	if !reflect.DeepEqual(turned, usual) {
		t.Errorf("got %v, want %v", turned, usual)
	}
}
