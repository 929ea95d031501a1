package daemon

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/daemon/config"
	"encoderd.example/daemon/status"
	"encoderd.example/hw"
	"encoderd.example/stream"
)

// A fakeOpus counts what it is given.
type fakeOpus struct {
	hw.AudioEncoder

	samples, resets, closed int
	fails                   bool
}

func (f *fakeOpus) Encode(samples []int16, stamp time.Duration, emit func(*stream.Unit)) error {
	if f.fails {
		return errors.New("it broke")
	}
	f.samples += len(samples)
	emit(&stream.Unit{Track: &stream.Track{Codec: stream.Opus}, PTS: stamp})
	return nil
}
func (f *fakeOpus) Reset()       { f.resets++ }
func (f *fakeOpus) Close() error { f.closed++; return nil }

func TestOpusIsCodedWhileBrowsersAreThere(t *testing.T) {
	var audience stream.Audience
	fake := &fakeOpus{}
	opened := 0
	d := newDemand([]hw.AudioEncoderDriver{{Codec: stream.AAC}, {Codec: stream.Opus, Open: func(int) (hw.AudioEncoder, error) {
		opened++
		return fake, nil
	}}}, &audience, slog.New(slog.DiscardHandler))
	now := time.Hour
	d.now = func() time.Duration { return now }
	published := 0
	s := &second{demand: d, publish: func(*stream.Unit) { published++ }}
	code := func() {
		t.Helper()
		s.code(make([]int16, 960), now)
	}
	code()
	if opened != 0 || published != 0 {
		t.Fatal("it is coded for nobody")
	}
	if !d.wanted() {
		t.Fatal("the board has it, yet nobody gets it")
	}
	code()
	if opened != 1 || published != 1 {
		t.Errorf("opened %d times, published %d units", opened, published)
	}
	leave, err := audience.Admit(&stream.Viewer{Protocol: "webrtc"}, stream.Credentials{})
	if err != nil {
		t.Fatal(err)
	}
	now += 2 * opusLinger
	code() // it is still there
	leave()
	now += opusLinger - time.Second
	code()
	if fake.closed != 0 || published != 3 {
		t.Errorf("closed %d times, published %d units", fake.closed, published)
	}
	now += 2 * time.Second
	code()
	if fake.closed != 1 || published != 3 {
		t.Errorf("after its time closed %d times, published %d units", fake.closed, published)
	}
	d.wanted()
	code()
	if opened != 2 || published != 4 {
		t.Errorf("the second browser: opened %d times, published %d units", opened, published)
	}
	fake.fails = true
	code() // and the other sound goes on
	if d.wanted() || fake.closed != 2 {
		t.Errorf("a broken encoder is wanted, closed %d times", fake.closed)
	}
}

func TestABoxWithoutOpusIsSilentForBrowsers(t *testing.T) {
	d := newDemand([]hw.AudioEncoderDriver{{Codec: stream.Opus, Open: func(int) (hw.AudioEncoder, error) {
		return nil, errors.New("libopus is missing")
	}}}, &stream.Audience{}, slog.New(slog.DiscardHandler))
	s := &second{demand: d, publish: func(*stream.Unit) { t.Error("a unit out of nothing") }}
	d.wanted()
	s.code(make([]int16, 960), 0)
	if d.wanted() {
		t.Error("browsers wait for what does not come")
	}
	if newDemand(nil, &stream.Audience{}, slog.New(slog.DiscardHandler)).wanted() {
		t.Error("a board without a driver has Opus")
	}
}

func TestTheDoorFollowsTheConfig(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Options{State: t.TempDir(), Log: slog.New(slog.DiscardHandler), Board: hw.Board{Name: "sim"}, LinkKey: []byte("key")})
		c := config.Default()
		c.Watch.Access, c.Watch.Password = config.Password, config.NewSecret("sesame")
		d.turnDoor(c)
		if err := d.audience.Allow("192.0.2.1:1", "main", stream.Credentials{}); !errors.Is(err, stream.ErrLocked) {
			t.Errorf("nothing shown: %v", err)
		}
		if err := d.audience.Allow("192.0.2.1:1", "main", stream.Credentials{User: "viewer", Password: "sesame"}); err != nil {
			t.Errorf("the password: %v", err)
		}
		c.Renditions[0].Access = config.Link
		d.turnDoor(c)
		if err := d.audience.Allow("192.0.2.1:1", "main", stream.Credentials{User: "viewer", Password: "sesame"}); !errors.Is(err, stream.ErrDenied) {
			t.Errorf("the password where a link is asked for: %v", err)
		}
		token, until, err := d.Link("*", time.Hour)
		if err != nil || time.Until(until) > time.Hour {
			t.Fatalf("%v, %v", until, err)
		}
		if err := d.audience.Allow("192.0.2.1:1", "main", stream.Credentials{Token: token}); err == nil || !strings.Contains(err.Error(), "does not know the time") {
			t.Errorf("fake time is long ago: %v", err)
		}
		if _, _, err := d.Link("nobody", time.Hour); !errors.Is(err, ErrNoRendition) {
			t.Errorf("a link to nothing: %v", err)
		}
		if _, _, err := d.Link("*", -time.Hour); !errors.Is(err, ErrBadArgument) {
			t.Errorf("a link of no length: %v", err)
		}
	})
}

func TestEveryServerThatFailsIsAFault(t *testing.T) {
	c := config.Default()
	c.Serve = config.Serve{Web: ":1", RTSP: ":2", RTMP: ":3", WebRTC: ":4", RTSPS: ":5", RTMPS: ":6"}
	for _, s := range plan(c, hw.Board{}, Wanted{}) {
		switch s.Config.(type) {
		case rtspConfig, rtmpConfig, webrtcConfig, liveConfig, webConfig:
		default:
			continue
		}
		f := &faultList{stand: map[trouble]time.Time{}}
		f.service(status.Service{Name: s.Name, State: "backoff", Error: "address already in use"})
		if len(f.list) != 1 || f.list[0].Code != status.ServerFailed {
			t.Errorf("%s: %+v", s.Name, f.list)
		}
	}
}
