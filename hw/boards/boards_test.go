package boards

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"

	"encoderd.example/hw"
	"encoderd.example/hw/hwtest"
	"encoderd.example/hw/v4l2"
	"encoderd.example/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSimPassesTheSuite(t *testing.T) {
	hwtest.Board(t, func() hw.Board { return simBoard(slog.New(slog.DiscardHandler)) })
}

func TestBoardIsFoundByNameOrByDeviceTree(t *testing.T) {
	tree := func(names ...string) fstest.MapFS {
		return fstest.MapFS{"proc/device-tree/compatible": {Data: []byte(strings.Join(names, "\x00") + "\x00")}}
	}
	tests := []struct {
		name, given string
		root        fstest.MapFS
		want        string
	}{
		{"a PC has no device tree", "", fstest.MapFS{}, "generic"},
		{"an unknown machine", "", tree("acme,toaster", "acme,soc"), "generic"},
		{"a known one", "", tree("linux,dummy-virt"), "virt"},
		{"a known one under its family name", "", tree("acme,new-virt", "linux,dummy-virt"), "virt"},
		{"an empty property", "", fstest.MapFS{"proc/device-tree/compatible": {}}, "generic"},
		{"a part of a name is no match", "", tree("linux,dummy-virt2"), "generic"},
		{"the name given wins", "sim", tree("linux,dummy-virt"), "sim"},
	}
	for _, tt := range tests {
		b, err := Find(tt.given, tt.root, nil)
		if err != nil || b.Name != tt.want {
			t.Errorf("%s: got %q, %v; want %q", tt.name, b.Name, err, tt.want)
		}
	}
	_, err := Find("smi", fstest.MapFS{}, nil)
	if !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), `"smi"`) || !strings.Contains(err.Error(), "sim, virt, raspberrypi") {
		t.Errorf("an unknown name gives %v", err)
	}
}

func TestMostExactNameWins(t *testing.T) {
	names := []string{"acme,board-v2", "acme,board"}
	boards := []hw.Board{{Name: "old", Compatible: names[1:]}, {Name: "new", Compatible: names[:1]}, {Name: "generic"}}
	var makers []maker
	for _, b := range boards {
		makers = append(makers, func(*slog.Logger) hw.Board { return b })
	}
	for range 2 {
		if b := detect(makers, names, nil); b.Name != "new" {
			t.Errorf("got %q", b.Name)
		}
		slices.Reverse(makers[:2]) // whatever their order
	}
}

func TestEveryBoardIsWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range all {
		b := m(nil)
		if b.Name == "" || b.Title == "" || seen[b.Name] {
			t.Errorf("name %q, title %q, twice %v", b.Name, b.Title, seen[b.Name])
		}
		seen[b.Name] = true
		if b.Cameras == nil || b.Mics == nil || b.Watch == nil || b.TestCamera == nil || b.TestMic == nil {
			t.Errorf("%s has not everything", b.Name)
		}
		aac := slices.ContainsFunc(b.AudioEncoders, func(d hw.AudioEncoderDriver) bool { return d.Codec == stream.AAC })
		h264 := slices.ContainsFunc(b.Encoders, func(d hw.EncoderDriver) bool { return slices.Contains(d.Codecs, stream.H264) })
		if !aac || !h264 {
			t.Errorf("%s codes AAC %v, H.264 %v", b.Name, aac, h264)
		}
	}
}

// The video codes of CTA-861 in the data blocks of an EDID's extension.
func videoCodes(edid []byte) (codes []byte) {
	cta := edid[128:]
	for at := 4; at < int(cta[2]); at += int(cta[at]&31) + 1 {
		if cta[at]>>5 == 2 {
			codes = cta[at+1 : at+1+int(cta[at]&31)]
		}
	}
	return codes
}

func TestSourcesAreToldWhatABoardTakes(t *testing.T) {
	const p60, p50, p30 = 16, 31, 34
	for name, fast := range map[string]bool{"raspberrypi": false, "raspberrypi5": true, "rockchip": true, "generic": true} {
		b, err := Find(name, fstest.MapFS{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		edid := v4l2.NewEDID(inputs(nil, b).Takes)
		codes := videoCodes(edid)
		if slices.Contains(codes, p60) != fast || !slices.Contains(codes, p50) || !slices.Contains(codes, p30) {
			t.Errorf("%s takes %v", name, codes)
		}
		// The first detailed timing is the preferred one: lines of 1080p60 have
		// 280 pixels of blanking, those of 1080p50 720.
		if blank := int(edid[57]) + int(edid[58]&15)<<8; (blank == 280) != fast || !fast && blank != 720 {
			t.Errorf("%s prefers lines with %d pixels of blanking", name, blank)
		}
	}
}

func TestAHungEncoderTakesFramesAndGivesNothing(t *testing.T) {
	b := simBoard(nil)
	e, err := b.Encoders[0].Open(hw.EncoderConfig{
		Codec: stream.H264, Width: 128, Height: 72, FPS: hw.Rate{Num: 30, Den: 1}, GOP: 30, Bitrate: 200_000, Preset: "ultrafast", Threads: 1,
	})
	if err != nil {
		t.Fatalf("%v: install libx264-164, make test does", err)
	}
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	released := 0
	f, err := hw.NewMemoryFrame(hw.Mode{Pixel: hw.I420, Width: 128, Height: 72}, func(*hw.Frame) { released++ })
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Faults(encoderHung, true); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		f.Lend().Stamp = time.Duration(i+1) * time.Second
		if err := e.Submit(f); err != nil {
			t.Error(err)
		}
		f.Release()
	}
	if st := e.Stats(); released != 3 || st.Submitted != 3 || st.Swallowed != 3 || st.Coded != 0 {
		t.Errorf("%d frames came back, %+v", released, st)
	}
	if err := b.Faults(encoderHung, false); err != nil {
		t.Fatal(err)
	}
	f.Lend().Stamp = 4 * time.Second
	if err := e.Submit(f); err != nil {
		t.Fatal(err)
	}
	f.Release()
	if u, err := e.Next(t.Context()); err != nil || u.PTS != 4*time.Second {
		t.Errorf("once it is over: %v, %v", u, err)
	}
}
