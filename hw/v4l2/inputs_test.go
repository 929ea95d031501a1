package v4l2_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/fakevb2"
	"encoderd.example/hw/v4l2/uapi"
)

func TestInputsAreListed(t *testing.T) {
	k, n, d := plugged(t)
	list, err := d.Inputs()
	want := []v4l2.InputInfo{
		{Name: "Camera 0", Type: uapi.InputTypeCamera},
		{Index: 1, Name: "HDMI 1", Type: uapi.InputTypeCamera, Capabilities: uapi.InCapDVTimings},
	}
	if diff := cmp.Diff(want, list); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if list[0].HasTimings() || !list[1].HasTimings() || !list[1].HasSignal() {
		t.Errorf("%+v", list)
	}
	if n, err := d.Input(); n != 1 || err != nil {
		t.Errorf("input %d, %v", n, err)
	}
	for _, s := range []fakevb2.Signal{fakevb2.NoSignal, fakevb2.NotLocked, fakevb2.OutOfRange} {
		k.Change(n, 1, func(r *fakevb2.Receiver) { r.Signal = s })
		if in, err := d.EnumInput(1); in.HasSignal() || err != nil {
			t.Errorf("signal %d: %+v, %v", s, in, err)
		}
	}
	if err := d.SetInput(2); !errors.Is(err, unix.EINVAL) {
		t.Errorf("got %v", err)
	}
	if _, err := d.EnumInput(2); !errors.Is(err, unix.EINVAL) {
		t.Errorf("got %v", err)
	}

	_, enc := knobbed(t, codec(false))
	if list, err := enc.Inputs(); len(list) != 0 || err != nil {
		t.Errorf("inputs of an encoder: %+v, %v", list, err)
	}
}

func TestTheSignalIsMeasured(t *testing.T) {
	tests := []struct {
		name   string
		change func(*fakevb2.Receiver)
		want   []error
		words  string
	}{
		{"nothing comes in", func(r *fakevb2.Receiver) { r.Signal = fakevb2.NoSignal }, []error{hw.ErrNoSignal, unix.ENOLINK}, "nothing comes in"},
		{"no lock", func(r *fakevb2.Receiver) { r.Signal = fakevb2.NotLocked }, []error{hw.ErrNoSignal, unix.ENOLCK}, "not locked"},
		{"too much", func(r *fakevb2.Receiver) { r.Signal = fakevb2.OutOfRange }, []error{hw.ErrUnsupported, unix.ERANGE}, "outside what the receiver takes"},
		{"no EDID yet", func(r *fakevb2.Receiver) { r.NeedsEDID = true }, []error{hw.ErrNoSignal}, "nothing comes in"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k, n, d := plugged(t)
			if got := mustQuery(t, d).String(); got != "1920x1080p 60 Hz" {
				t.Errorf("before: %s", got)
			}
			k.Change(n, 1, tt.change)
			_, err := d.QueryTimings()
			for _, want := range tt.want {
				if !errors.Is(err, want) || !strings.Contains(err.Error(), tt.words) {
					t.Errorf("got %v, want %v", err, want)
				}
			}
			if tt.name == "no EDID yet" {
				if err := d.SetEDID(1, v4l2.NewEDID(v4l2.EDIDOptions{})); err != nil {
					t.Fatal(err)
				}
				mustQuery(t, d)
			}
		})
	}
	t.Run("an input without timings", func(t *testing.T) {
		_, d := knobbed(t, hdmiBridge())
		if _, err := d.QueryTimings(); !errors.Is(err, hw.ErrUnsupported) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a device without timings", func(t *testing.T) {
		_, d := knobbed(t, webcam())
		if _, err := d.QueryTimings(); !errors.Is(err, hw.ErrUnsupported) {
			t.Errorf("got %v", err)
		}
		if list, err := d.EnumTimings(0); len(list) != 0 || err != nil {
			t.Errorf("%v, %v", list, err)
		}
	})
}

func TestTimingsDictateThePicture(t *testing.T) {
	k, n, d := plugged(t)
	list, err := d.EnumTimings(0)
	if err != nil || len(list) != 2 || list[1].String() != "1280x720p 50 Hz" {
		t.Fatalf("%v, %v", list, err)
	}
	if list[0] != mustQuery(t, d) {
		t.Error("equal timings differ")
	}
	k.Change(n, 1, func(r *fakevb2.Receiver) { r.Timings = fakevb2.Timings(1280, 720, 50) })
	if err := d.SetTimings(mustQuery(t, d)); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Timings(); got != list[1] || err != nil {
		t.Errorf("expects %s, %v", got, err)
	}
	f := setFormat(t, d, n.Type, code("NV12"), 64, 48)
	if f.PixMP().Width != 1280 || f.PixMP().Height != 720 {
		t.Errorf("the picture is %dx%d", f.PixMP().Width, f.PixMP().Height)
	}
	q, err := v4l2.NewQueue(d, n.Type, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.SetTimings(list[0]); !errors.Is(err, hw.ErrBusy) {
		t.Errorf("while there are buffers: %v", err)
	}
	if err := q.Discard(); err != nil {
		t.Error(err)
	}
}

func TestCropping(t *testing.T) {
	_, d := knobbed(t, codec(true))
	const typ = uapi.BufTypeVideoOutputMplane
	f := setFormat(t, d, typ, code("NV12"), 1920, 1080)
	if f.PixMP().Height != 1088 {
		t.Fatalf("granted %d lines", f.PixMP().Height)
	}
	if got, err := d.Crop(typ); got != (v4l2.Rect{Width: 1920, Height: 1088}) || err != nil {
		t.Errorf("at first %+v, %v", got, err)
	}
	for _, tt := range []struct{ want, got v4l2.Rect }{
		{v4l2.Rect{Width: 1920, Height: 1080}, v4l2.Rect{Width: 1920, Height: 1080}},
		{v4l2.Rect{Left: 8, Top: 8, Width: 4000, Height: 1080}, v4l2.Rect{Width: 1920, Height: 1080}},
	} {
		if got, err := d.SetCrop(typ, tt.want); got != tt.got || err != nil {
			t.Errorf("wanted %+v, got %+v, %v", tt.want, got, err)
		}
		if got, err := d.Crop(typ); got != tt.got || err != nil {
			t.Errorf("then it is %+v, %v", got, err)
		}
	}
	if _, err := d.SetCrop(uapi.BufTypeVideoCaptureMplane, v4l2.Rect{}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("the coded side: %v", err)
	}
	_, cam := knobbed(t, webcam())
	if _, err := cam.Crop(uapi.BufTypeVideoCapture); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("a camera: %v", err)
	}
}

func TestTheOutputRate(t *testing.T) {
	tests := []struct {
		name  string
		whole bool
		want  hw.Rate
	}{{"as asked", false, hw.Rate{Num: 30000, Den: 1001}}, {"cut to whole pictures", true, hw.Rate{Num: 29, Den: 1}}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := codec(true)
			n.Encoder.WholeRates = tt.whole
			_, d := knobbed(t, n)
			if got, err := d.SetOutputRate(uapi.BufTypeVideoOutputMplane, hw.Rate{Num: 30000, Den: 1001}); got != tt.want || err != nil {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestTheEDIDOfAnInput(t *testing.T) {
	_, n, d := plugged(t)
	if got, err := d.EDID(1); len(got) != 0 || err != nil {
		t.Errorf("at first %d bytes, %v", len(got), err)
	}
	edid := v4l2.NewEDID(v4l2.EDIDOptions{Name: "Stage"})
	if err := d.SetEDID(1, edid); err != nil {
		t.Fatal(err)
	}
	if got, err := d.EDID(1); string(got) != string(edid) || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	n.Receivers[1].Room = 1
	if err := d.SetEDID(1, edid); !errors.Is(err, hw.ErrUnsupported) || !strings.Contains(err.Error(), "room for 1 blocks") {
		t.Errorf("got %v", err)
	}
	if err := d.SetEDID(1, nil); err != nil {
		t.Error(err)
	}
	if got, err := d.EDID(1); len(got) != 0 || err != nil {
		t.Errorf("taken away: %d bytes, %v", len(got), err)
	}
	if _, err := d.EDID(0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("of the camera input: %v", err)
	}
	_, cam := knobbed(t, webcam())
	if _, err := cam.EDID(0); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("of a webcam: %v", err)
	}
}
