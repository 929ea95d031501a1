//go:build board

package v4l2_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/uapi"
)

// boardDevice opens a node of the guest for the test.
func boardDevice(t *testing.T, path string) *v4l2.Device {
	t.Helper()
	d := openDevice(t, v4l2.Kernel{}, path)
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// boardSocket opens vivid's HDMI input.
func boardSocket(t *testing.T) *v4l2.Device {
	t.Helper()
	d := boardDevice(t, load(t, "").Path())
	if err := d.SetInput(1); err != nil {
		t.Fatal(err)
	}
	return d
}

func named(t *testing.T, d *v4l2.Device, name string) v4l2.Control {
	t.Helper()
	list, err := d.Controls()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(c v4l2.Control) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no control %q among %d", name, len(list))
	}
	return list[i]
}

func TestBoardControls(t *testing.T) {
	d := boardSocket(t)
	for _, tt := range []struct {
		name     string
		set, got int64
	}{
		{"Contrast", 77, 77},
		{"Contrast", 1000, 255},
		{"Hue", -100, -100},
		{"Integer 64 Bits", -1 << 35, -1 << 35},
		{"Boolean", 1, 1},
		{"Menu", 3, 3},
	} {
		c := named(t, d, tt.name)
		if err := d.SetControl(c.ID, tt.set); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got, err := d.GetControl(c.ID); got != tt.got || err != nil {
			t.Errorf("%s: set to %d, is %d, %v", tt.name, tt.set, got, err)
		}
	}
	mode := named(t, d, signalMode)
	if words, err := d.Menu(mode.ID, signalNone); words != "No Signal" || err != nil {
		t.Errorf("%q, %v", words, err)
	}
	numbers := named(t, d, "Integer Menu")
	if words, err := d.Menu(numbers.ID, 5); words != "8" || err != nil { // Fibonacci's
		t.Errorf("%q, %v", words, err)
	}
	if words, err := d.Menu(numbers.ID, 1); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a gap: %q, %v", words, err)
	}
	if _, err := d.GetControl(uapi.CIDBitrate); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("a camera's bit rate: %v", err)
	}
	if err := d.SetControl(named(t, d, "Button").ID, 1); err != nil {
		t.Error(err)
	}
}

func TestBoardControlsOfTheEncoder(t *testing.T) {
	d := boardDevice(t, encoderPath)
	for _, tt := range []struct {
		name     string
		id       uint32
		set, got int64
	}{
		{"bit rate", uapi.CIDBitrate, 3_000_000, 3_000_000},
		{"GOP", uapi.CIDGOPSize, 9999, 600},
		{"level", uapi.CIDH264Level, uapi.H264Level3_1, uapi.H264Level3_1},
		{"profile", uapi.CIDH264Profile, uapi.H264ProfileHigh, uapi.H264ProfileHigh},
		{"header mode", uapi.CIDHeaderMode, uapi.HeaderModeJoined, uapi.HeaderModeJoined},
		{"B pictures", uapi.CIDBFrames, 2, 0},
	} {
		if err := d.SetControl(tt.id, tt.set); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got, err := d.GetControl(tt.id); got != tt.got || err != nil {
			t.Errorf("%s: set to %d, is %d, %v", tt.name, tt.set, got, err)
		}
	}
	if err := d.SetControl(uapi.CIDForceKeyFrame, 1); err != nil {
		t.Error(err)
	}
	if err := d.SetControl(uapi.CIDH264Level, uapi.H264Level6_2); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("a level outside the menu: %v", err)
	}
	if n, err := d.GetControl(uapi.CIDMinBuffersForOutput); n != 1 || err != nil {
		t.Errorf("needs %d buffers, %v", n, err)
	}
	if words, err := d.Menu(uapi.CIDH264Level, uapi.H264Level4_0); words != "4" || err != nil {
		t.Errorf("level 4.0 is called %q, %v", words, err)
	}
}

func TestBoardEvents(t *testing.T) {
	d := boardSocket(t)
	other := boardDevice(t, d.Path())
	for id, dev := range map[uint32]*v4l2.Device{1: d, 0: other} {
		if err := dev.Subscribe(uapi.EventSourceChange, id); err != nil {
			t.Fatal(err)
		}
	}
	contrast, mode := named(t, d, "Contrast").ID, named(t, d, signalMode).ID
	if err := d.Subscribe(uapi.EventCtrl, contrast); err != nil {
		t.Fatal(err)
	}
	for i, tt := range []struct {
		id    uint32
		value int64
		want  v4l2.Event
	}{
		{mode, signalNone, v4l2.Event{Type: uapi.EventSourceChange, ID: 1, Changes: uapi.EventSourceResolution}},
		{contrast, 99, v4l2.Event{Type: uapi.EventCtrl, ID: contrast, Changes: uapi.EventCtrlValue, Value: 99}},
		{mode, signalCurrent, v4l2.Event{Type: uapi.EventSourceChange, ID: 1, Changes: uapi.EventSourceResolution}},
	} {
		if err := other.SetControl(tt.id, tt.value); err != nil {
			t.Fatal(err)
		}
		got := event(t, d)
		if got.Stamp == 0 {
			t.Error("an event without a stamp")
		}
		tt.want.Stamp, tt.want.Sequence = got.Stamp, uint32(i)
		if got != tt.want {
			t.Errorf("got %+v, want %+v", got, tt.want)
		}
	}
	if _, err := other.DequeueEvent(); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a subscription of another input: %v", err)
	}
}

func TestBoardTimings(t *testing.T) {
	d := boardSocket(t)
	if in, err := d.EnumInput(1); err != nil || !in.HasTimings() || !in.HasSignal() {
		t.Errorf("%+v, %v", in, err)
	}
	list, err := d.EnumTimings(0)
	if err != nil || len(list) < 20 {
		t.Fatalf("%d timings, %v", len(list), err)
	}
	for text, rate := range map[string]hw.Rate{
		"1920x1080p 60 Hz":    {Num: 60, Den: 1},
		"1920x1080i 25 Hz":    {Num: 25, Den: 1},
		"720x480p 59.94 Hz":   {Num: 60000, Den: 1001},
		"1280x720p 50 Hz":     {Num: 50, Den: 1},
		"640x480p 59.94 Hz":   {Num: 60000, Den: 1001},
		"3840x2160p 30 Hz":    {Num: 30, Den: 1},
		"1024x768p 60 Hz":     {Num: 60, Den: 1},
		"1280x1024p 85.02 Hz": {Num: 546875, Den: 6432},
	} {
		i := slices.IndexFunc(list, func(x v4l2.Timings) bool { return x.String() == text })
		if i < 0 || list[i].Rate() != rate {
			t.Errorf("%s: entry %d", text, i)
			continue
		}
		if err := d.SetTimings(list[i]); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if got, err := d.Timings(); got != list[i] || err != nil {
			t.Errorf("%s: expects %s, %v", text, got, err)
		}
		if got, err := d.QueryTimings(); got.String() != text || err != nil {
			t.Errorf("%s: measured %s, %v", text, got, err)
		}
	}
	mode := named(t, d, signalMode).ID
	for value, tt := range map[int64]struct {
		want  error
		words string
	}{
		signalNone:     {hw.ErrNoSignal, "nothing comes in"},
		signalUnlocked: {hw.ErrNoSignal, "not locked"},
		signalTooFast:  {hw.ErrUnsupported, "outside"},
	} {
		if err := d.SetControl(mode, value); err != nil {
			t.Fatal(err)
		}
		if _, err := d.QueryTimings(); !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.words) {
			t.Errorf("mode %d: %v", value, err)
		}
	}
	if in, err := d.EnumInput(1); err != nil || in.HasSignal() {
		t.Errorf("without a signal: %+v, %v", in, err)
	}
	if _, err := boardDevice(t, encoderPath).QueryTimings(); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("of an encoder: %v", err)
	}
}

func TestBoardEDID(t *testing.T) {
	d := boardSocket(t)
	old, err := d.EDID(1)
	if err != nil || len(old) == 0 {
		t.Fatalf("%d bytes, %v", len(old), err)
	}
	edid := v4l2.NewEDID(v4l2.EDIDOptions{Name: "Stage", MaxPixels: 1920 * 1080 * 30})
	if err := d.SetEDID(1, edid); err != nil {
		t.Fatal(err)
	}
	if got, err := d.EDID(1); string(got) != string(edid) || err != nil {
		t.Errorf("%d bytes, %v:\n% x\nwant\n% x", len(got), err, got, edid)
	}
	if err := d.SetEDID(1, nil); err != nil {
		t.Error(err)
	}
	if got, err := d.EDID(1); len(got) != 0 || err != nil {
		t.Errorf("taken away: %d bytes, %v", len(got), err)
	}
	if _, err := d.EDID(0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("of the webcam input: %v", err)
	}
	if err := d.SetEDID(1, old); err != nil {
		t.Errorf("vivid's own: %v", err)
	}
}

func TestBoardCropping(t *testing.T) {
	d := boardDevice(t, encoderPath)
	const typ = uapi.BufTypeVideoOutputMplane
	setFormat(t, d, typ, code("NV12"), 320, 192)
	if got, err := d.Crop(typ); got != (v4l2.Rect{Width: 320, Height: 192}) || err != nil {
		t.Errorf("at first %+v, %v", got, err)
	}
	for range 2 {
		if got, err := d.SetCrop(typ, v4l2.Rect{Width: 320, Height: 180}); got != (v4l2.Rect{Width: 320, Height: 180}) || err != nil {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	// Drivers shorten fractions.
	want := hw.Rate{Num: 30000, Den: 1001}
	if got, err := d.SetOutputRate(typ, want); math.Abs(got.Float()/want.Float()-1) > 1e-6 || err != nil {
		t.Errorf("rate %v, %v", got, err)
	}
}

func TestBoardMemoryGoesFromQueueToQueue(t *testing.T) {
	c := boardDevice(t, load(t, "").Path())
	if err := c.SetInput(0); err != nil {
		t.Fatal(err)
	}
	setFormat(t, c, uapi.BufTypeVideoCapture, code("NV12"), 320, 180)
	b := bringUp(t, openDevice(t, v4l2.Kernel{}, encoderPath), true, true, 4, 320, 180)
	shots, err := v4l2.NewQueue(c, uapi.BufTypeVideoCapture, 4, 0)
	if err != nil {
		t.Fatal(err)
	}
	var memory []v4l2.PlaneData
	for i := range shots.Len() {
		fds, err := shots.Export(i)
		if err != nil {
			t.Fatal(err)
		}
		n, err := v4l2.Kernel{}.Size(fds[0])
		if err != nil || n < 320*180*3/2 {
			t.Fatalf("a dma-buf of %d bytes, %v", n, err)
		}
		memory = append(memory, v4l2.PlaneData{FD: fds[0], Length: int(n), Used: 320 * 180 * 3 / 2})
		if err := shots.Enqueue(i); err != nil {
			t.Fatal(err)
		}
	}
	short := memory[0]
	short.Length = 320 * 180
	if err := b.in.EnqueueData(0, 0, []v4l2.PlaneData{short}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a length that is too short: %v", err)
	}
	if err := shots.StreamOn(); err != nil {
		t.Fatal(err)
	}
	var in, out []time.Duration
	for len(in) < 60 {
		if _, err := c.Wait(t.Context(), unix.POLLIN); err != nil {
			t.Fatal(err)
		}
		d, err := shots.Dequeue()
		if err != nil {
			t.Fatal(err)
		}
		in = append(in, d.Stamp)
		if err := b.in.EnqueueData(d.Index, d.Stamp, memory[d.Index:d.Index+1]); err != nil {
			t.Fatal(err)
		}
		for len(out) < len(in) {
			for _, u := range b.turn(t) {
				out = append(out, u.Stamp)
			}
		}
		if err := shots.Enqueue(d.Index); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(in, out) {
		t.Errorf("stamps in %v\nout %v", in, out)
	}
	if err := b.EncoderStop(); err != nil {
		t.Error(err)
	}
	for last := false; !last; {
		for _, u := range b.turn(t) {
			last = u.Last
		}
	}
	if _, err := b.out.Dequeue(); !errors.Is(err, unix.EPIPE) {
		t.Errorf("after the last buffer: %v", err)
	}
	b.restart(t)
	if _, err := b.out.Dequeue(); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("after the restart: %v", err)
	}
	if err := errors.Join(shots.StreamOff(), shots.Discard()); err != nil {
		t.Error(err)
	}
	for _, m := range memory {
		if err := unix.Close(m.FD); err != nil {
			t.Error(err)
		}
	}
	b.end(t)
}
