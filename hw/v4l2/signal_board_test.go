//go:build board

package v4l2_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
)

// What vivid's control "DV Timings Signal Mode" makes of the cable.
const (
	signalCurrent  = 0
	signalNone     = 1
	signalUnlocked = 2
	signalTooFast  = 3
	signalSelected = 4 // by "DV Timings", a list as in the kernel's v4l2-dv-timings.c
)

// Entries of that list.
const (
	timings640x480  = 0
	timings720x480i = 1
)

const signalMode = "DV Timings Signal Mode"

// hdmi loads vivid and returns its HDMI input, with a signal. It stays selected
// when the camera is closed, as controls belong to the selected input.
func hdmi(t *testing.T) *v4l2.Camera {
	t.Helper()
	load(t, "")
	c := vivid(t)
	command(t, "v4l2-ctl -d "+c.Path()+" -i 1")
	return c.Input(1)
}

// failure reads until the stream ends.
func failure(t *testing.T, s hw.CameraStream) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		f, err := s.Read(ctx)
		if err != nil {
			return err
		}
		f.Release()
	}
}

// awaitSignal waits for a while, short if it should be in vain.
func awaitSignal(t *testing.T, c hw.SignalCamera, while time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), while)
	defer cancel()
	return c.AwaitSignal(ctx)
}

func TestBoardSignalGoesAndComesBack(t *testing.T) {
	c := hdmi(t)
	for name, mode := range map[string]int32{"no signal": signalNone, "not locked": signalUnlocked} {
		t.Run(name, func(t *testing.T) {
			s := start(t, c, small)
			capture(t, s, 10)
			control(t, c.Path(), signalMode, mode)
			err := failure(t, s)
			if !errors.Is(err, hw.ErrNoSignal) || errors.Is(err, hw.ErrGone) {
				t.Errorf("the stream ends with %v", err)
			}
			t.Log(err)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if _, err := c.Open(t.Context(), small); !errors.Is(err, hw.ErrNoSignal) {
				t.Errorf("open without a signal: %v", err)
			}
			if err := awaitSignal(t, c, 2*time.Second); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("waiting without a signal ends with %v", err)
			}
			back := make(chan error)
			go func() { back <- awaitSignal(t, c, patience) }()
			control(t, c.Path(), signalMode, signalCurrent)
			if err := <-back; err != nil {
				t.Errorf("waiting ends with %v", err)
			}
			capture(t, start(t, c, small), 10)
		})
	}
}

func TestBoardAnotherPictureComesIn(t *testing.T) {
	c := hdmi(t)
	s := start(t, c, hw.Mode{})
	if m := s.Mode(); m.Width != 1280 || m.Height != 720 || m.FPS != (hw.Rate{Num: 60, Den: 1}) {
		t.Errorf("granted %s, but 1280x720 60 fps comes in", m)
	}
	next(t, s).Release()
	control(t, c.Path(), "DV Timings", timings640x480)
	control(t, c.Path(), signalMode, signalSelected)
	err := failure(t, s)
	if !errors.Is(err, hw.ErrNoSignal) || !strings.Contains(err.Error(), "640x480p") {
		t.Errorf("the stream ends with %v", err)
	}
	t.Log(err)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := awaitSignal(t, c, patience); err != nil {
		t.Error(err)
	}
	again := start(t, c, hw.Mode{})
	if m := again.Mode(); m.Width != 640 || m.Height != 480 {
		t.Errorf("granted %s, but 640x480 comes in", m)
	}
	capture(t, again, 5)
}

func TestBoardSignalsThatCannotBeTaken(t *testing.T) {
	c := hdmi(t)
	for _, tt := range []struct {
		name    string
		timings int32
		mode    int32
		words   string
	}{
		{"out of range", timings640x480, signalTooFast, "outside what the receiver takes"},
		{"interlaced", timings720x480i, signalSelected, "half pictures"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			control(t, c.Path(), "DV Timings", tt.timings)
			control(t, c.Path(), signalMode, tt.mode)
			_, err := c.Open(t.Context(), small)
			if !errors.Is(err, hw.ErrUnsupported) || !strings.Contains(err.Error(), tt.words) {
				t.Errorf("open: %v", err)
			}
			if err := awaitSignal(t, c, patience); err != nil {
				t.Errorf("there is something for Open to say, but waiting ends with %v", err)
			}
		})
	}
}

func TestBoardSourcesAreToldOnceWhatWeTake(t *testing.T) {
	c := hdmi(t)
	read := func() string {
		t.Helper()
		d := must[*v4l2.Device](t)(v4l2.OpenDevice(v4l2.Kernel{}, c.Path()))
		defer d.Close()
		return string(must[[]byte](t)(d.EDID(1)))
	}
	before := read()
	start(t, c, small).Close()
	ours := read()
	if ours == before || !strings.Contains(ours, "encoder") {
		t.Errorf("the EDID is %q", ours)
	}
	start(t, c, small).Close()
	if read() != ours {
		t.Error("it was written once more, in another way")
	}
}

func TestBoardAskingDoesNotSwitchTheInput(t *testing.T) {
	load(t, "")
	c := vivid(t)
	selected := func() int {
		t.Helper()
		d := must[*v4l2.Device](t)(v4l2.OpenDevice(v4l2.Kernel{}, c.Path()))
		defer d.Close()
		return must[int](t)(d.Input())
	}
	if modes, err := c.Input(1).Modes(); err != nil || len(modes) == 0 || modes[0].Width != 1280 {
		t.Errorf("%v, %v", modes, err)
	}
	if got := selected(); got != 0 {
		t.Errorf("input %d is selected", got)
	}
	s := start(t, c.Input(1), small)
	if got := selected(); got != 1 {
		t.Errorf("input %d is selected while the other is open", got)
	}
	if err := s.Close(); err != nil || selected() != 0 {
		t.Errorf("input %d is left behind; %v", selected(), err)
	}
	if _, err := c.SoundRate(); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("sound rate: %v", err)
	}
}

func TestBoardSharingFaults(t *testing.T) {
	export := func(hw.BufferSource) hw.BufferPlan { return hw.BufferPlan{Way: hw.Export} }
	for _, tt := range []struct {
		fault string
		plan  hw.Way
	}{
		{"Inject VIDIOC_REQBUFS Error", hw.Copy},
		{"Inject VIDIOC_QBUF Error", hw.Copy},
		{"Inject VIDIOC_STREAMON Error", ""},
	} {
		t.Run(tt.fault, func(t *testing.T) {
			c := load(t, "")
			control(t, c.Path(), tt.fault, 1)
			s, err := c.OpenShared(t.Context(), small, export)
			if (err == nil) != (tt.plan != "") {
				t.Fatal(err)
			}
			if err == nil {
				t.Log(s.Plan())
				capture(t, s, 5)
				if err := s.Close(); err != nil || s.Plan().Way != tt.plan {
					t.Errorf("%s, %v", s.Plan(), err)
				}
			}
			s, err = c.OpenShared(t.Context(), small, export)
			if err != nil {
				t.Fatal(err)
			}
			capture(t, s, 5)
			if err := s.Close(); err != nil || s.Plan().Way != hw.Export {
				t.Errorf("%s, %v", s.Plan(), err)
			}
		})
	}
	t.Run("while it runs", func(t *testing.T) {
		c := load(t, "")
		s := share(t, c, planar, hw.BufferPlan{Way: hw.Export})
		next(t, s).Release()
		control(t, c.Path(), "Inject VIDIOC_QBUF Error", 1)
		control(t, c.Path(), "Percentage of Dropped Buffers", 30)
		capture(t, s, 30)
		if got := s.Stats(); got.Damaged != 0 || got.Missed < 3 {
			t.Errorf("%+v", got)
		}
		held := next(t, s)
		control(t, c.Path(), "Disconnect", 1)
		if err := failure(t, s); !errors.Is(err, hw.ErrGone) {
			t.Errorf("the stream ends with %v", err)
		}
		if err := s.Close(); err != nil || flat(held.Planes[0].Data) {
			t.Errorf("the held frame is one colour: %v; %v", flat(held.Planes[0].Data), err)
		}
		held.Release()
	})
}
