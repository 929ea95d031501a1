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

// What a driver may have of its own.
const (
	cidHeading = uapi.CtrlClassUser | 1
	cidHue     = uapi.CtrlClassUser | 0x903
	cidOff     = uapi.CtrlClassUser | 0x904
	cidBig     = uapi.CtrlClassUser | 0x1001
	cidRate    = uapi.CtrlClassUser | 0x1002
	cidMatrix  = uapi.CtrlClassUser | 0x1003
	cidSensed  = uapi.CtrlClassUser | 0x1004
	cidLocked  = uapi.CtrlClassUser | 0x1005
)

// knobs is a camera with controls of all kinds.
func knobs() *fakevb2.Node {
	n := webcam()
	n.Controls = []fakevb2.Control{
		{ID: uapi.CIDH264EntropyMode, Name: "H264 Entropy Mode", Type: uapi.CtrlTypeMenu, Max: 2, Menu: []string{"CAVLC", "", "CABAC"}},
		{ID: cidHue, Name: "Hue", Min: -180, Max: 180, Step: 4, Default: -4},
		{ID: cidHeading, Name: "User Controls", Type: uapi.CtrlTypeClass, Flags: uapi.CtrlFlagReadOnly},
		{ID: cidOff, Name: "Gone", Flags: uapi.CtrlFlagDisabled},
		{ID: cidBig, Name: "Big", Type: uapi.CtrlTypeInteger64, Min: -1 << 40, Max: 1 << 40, Default: 1 << 33},
		{ID: cidRate, Name: "Rates", Type: uapi.CtrlTypeIntegerMenu, Max: 1, Numbers: []int64{-44100, 1 << 34}},
		{ID: cidMatrix, Name: "Matrix", Type: uapi.CtrlTypeCompound},
		{ID: cidSensed, Name: "Audio Present", Type: uapi.CtrlTypeBoolean, Max: 1, Default: 1, Flags: uapi.CtrlFlagReadOnly},
		{ID: cidLocked, Name: "Profile", Max: 3, Flags: uapi.CtrlFlagGrabbed},
		{ID: uapi.CIDForceKeyFrame, Name: "Force Key Frame", Type: uapi.CtrlTypeButton, Flags: uapi.CtrlFlagWriteOnly},
	}
	return n
}

// knobbed opens a node; the test fails if anything is left at its end.
func knobbed(t *testing.T, n *fakevb2.Node) (*fakevb2.Kernel, *v4l2.Device) {
	t.Helper()
	k := fakevb2.New(n)
	d := openDevice(t, k, n.Path)
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		nothingLeft(t, k)
	})
	return k, d
}

func TestControlsAreListed(t *testing.T) {
	names := func(list []v4l2.Control) string {
		var s []string
		for _, c := range list {
			s = append(s, c.Name)
		}
		return strings.Join(s, ", ")
	}
	_, d := knobbed(t, knobs())
	list, err := d.Controls()
	if err != nil || names(list) != "Hue, Big, Rates, Matrix, Audio Present, Profile, Force Key Frame, H264 Entropy Mode" {
		t.Errorf("%s; %v", names(list), err)
	}
	want := v4l2.Control{ID: cidHue, Name: "Hue", Type: uapi.CtrlTypeInteger, Min: -180, Max: 180, Step: 4, Default: -4}
	if diff := cmp.Diff(want, list[0]); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(v4l2.Control{ID: cidBig, Name: "Big", Type: uapi.CtrlTypeInteger64, Min: -1 << 40, Max: 1 << 40, Step: 1, Default: 1 << 33}, list[1]); diff != "" {
		t.Error(diff)
	}

	old := knobs()
	old.OldControls = true
	_, d = knobbed(t, old)
	list, err = d.Controls()
	if err != nil || !strings.HasPrefix(names(list), "Hue, ") || strings.Contains(names(list), "Matrix") {
		t.Errorf("by the old calls: %s; %v", names(list), err)
	}
	if diff := cmp.Diff(want, list[0]); diff != "" {
		t.Error(diff)
	}

	_, d = knobbed(t, webcam())
	if list, err := d.Controls(); len(list) != 0 || err != nil {
		t.Errorf("a device without: %s; %v", names(list), err)
	}
}

func TestAListThatDoesNotRiseIsAnError(t *testing.T) {
	n := knobs()
	n.StuckControls = true
	_, d := knobbed(t, n)
	if list, err := d.Controls(); err == nil || len(list) != 1 {
		t.Errorf("%d controls, %v", len(list), err)
	}
}

func TestControlsAreSetAndRead(t *testing.T) {
	tests := []struct {
		name string
		id   uint32
		set  int64
		got  int64
		err  error
	}{
		{"a number", cidHue, 20, 20, nil},
		{"a negative number", cidHue, -100, -100, nil},
		{"moved into its limits", cidHue, -1000, -180, nil},
		{"64 bits", cidBig, -1 << 35, -1 << 35, nil},
		{"a menu", uapi.CIDH264EntropyMode, 2, 2, nil},
		{"a gap of a menu", uapi.CIDH264EntropyMode, 1, 0, hw.ErrUnsupported},
		{"outside a menu", uapi.CIDH264EntropyMode, 3, 0, hw.ErrUnsupported},
		{"not there", uapi.CIDBitrate, 1, 0, hw.ErrUnsupported},
		{"read only", cidSensed, 0, 1, unix.EACCES},
		{"not now", cidLocked, 1, 0, hw.ErrBusy},
	}
	for _, old := range []bool{false, true} {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				if old && tt.id == cidBig {
					return // the old calls have no 64 bits
				}
				n := knobs()
				n.OldControls = old
				_, d := knobbed(t, n)
				if err := d.SetControl(tt.id, tt.set); !errors.Is(err, tt.err) {
					t.Errorf("set: got %v, want %v", err, tt.err)
				} else if err != nil && !strings.Contains(err.Error(), "control 0x") {
					t.Errorf("%v does not say which control", err)
				}
				got, err := d.GetControl(tt.id)
				if missing := tt.id == uapi.CIDBitrate; got != tt.got || missing != errors.Is(err, hw.ErrUnsupported) {
					t.Errorf("read %d, %v; want %d", got, err, tt.got)
				}
			})
		}
	}
}

func TestAButtonIsPressed(t *testing.T) {
	n := knobs()
	k, d := knobbed(t, n)
	if err := d.SetControl(uapi.CIDForceKeyFrame, 1); err != nil {
		t.Error(err)
	}
	k.Do(func() {
		if diff := cmp.Diff([]fakevb2.Setting{{ID: uapi.CIDForceKeyFrame, Value: 1}}, n.Settings()); diff != "" {
			t.Error(diff)
		}
	})
	if _, err := d.GetControl(uapi.CIDForceKeyFrame); err == nil {
		t.Error("a button has a value")
	}
}

func TestMenusAreRead(t *testing.T) {
	_, d := knobbed(t, knobs())
	tests := []struct {
		name  string
		id    uint32
		index int
		want  string
		err   error
	}{
		{"words", uapi.CIDH264EntropyMode, 2, "CABAC", nil},
		{"a gap", uapi.CIDH264EntropyMode, 1, "", unix.EINVAL},
		{"its end", uapi.CIDH264EntropyMode, 3, "", unix.EINVAL},
		{"a negative number", cidRate, 0, "-44100", nil},
		{"a large number", cidRate, 1, "17179869184", nil},
		{"no such control", uapi.CIDBitrate, 0, "", hw.ErrUnsupported},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := d.Menu(tt.id, tt.index); got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}
