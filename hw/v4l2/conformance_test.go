package v4l2_test

import (
	"context"
	"errors"
	"testing"
	"testing/fstest"

	"encoderd.example/hw"
	"encoderd.example/hw/hwtest"
	"encoderd.example/hw/v4l2/fakevb2"
	"encoderd.example/hw/v4l2/uapi"
	"encoderd.example/stream"
)

// twoCameras is a box with a webcam and a bridge.
func twoCameras() []row {
	return []row{
		{device: usb, link: "pci-usb-video-index0", bus: webBus, caps: camCap},
		{device: "platform/csi", bus: "platform:csi", caps: bridge().Caps, adapt: func(n *fakevb2.Node) {
			n.Type, n.Formats, n.Fill = bridge().Type, bridge().Formats, nil
		}},
	}
}

// TestConformance runs the suite of all boards on cameras of the fake kernel.
func TestConformance(t *testing.T) {
	tests := []struct {
		name  string
		build func() (*fakevb2.Kernel, fstest.MapFS)
	}{
		{"a webcam and a bridge", func() (*fakevb2.Kernel, fstest.MapFS) { return box(true, twoCameras()...) }},
		{"a bridge behind a media controller", func() (*fakevb2.Kernel, fstest.MapFS) { b := bay(); return b.k, b.files }},
		{"a sensor behind a media controller", func() (*fakevb2.Kernel, fstest.MapFS) {
			b := pi5(ov5640(), "ov5640 10-003c", uapi.EntityCameraSensor)
			return b.k, b.files
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			hwtest.Board(t, func() hw.Board {
				k, files := tt.build()
				k.Clock = stream.Monotonic
				return hw.Board{
					Name: "fake", Title: "cameras of a fake kernel",
					Cameras: finder(k, files).Cameras,
					Mics:    func() ([]hw.Mic, error) { return nil, nil },
					Watch:   func(ctx context.Context, _ func()) error { <-ctx.Done(); return nil },
				}
			})
		})
	}
}

func TestACameraThatComesBackHasItsNameAgain(t *testing.T) {
	k, files := box(true, twoCameras()...)
	list := func() []hw.Camera {
		t.Helper()
		cameras, err := finder(k, files).Cameras()
		if err != nil {
			t.Fatal(err)
		}
		return cameras
	}
	before := list()
	s, err := before[1].Open(t.Context(), hw.Mode{})
	if err != nil {
		t.Fatal(err)
	}
	held := read(t, s)
	k.Unplug()
	if _, err := s.Read(t.Context()); !errors.Is(err, hw.ErrGone) {
		t.Errorf("read: %v", err)
	}
	if _, err := before[1].Open(t.Context(), hw.Mode{}); !errors.Is(err, hw.ErrGone) {
		t.Errorf("open: %v", err)
	}
	if got := list(); len(got) != 0 {
		t.Errorf("%d cameras are still listed", len(got))
	}
	k.Replug()
	after := list()
	if len(after) != 2 || after[1].ID() != before[1].ID() {
		t.Fatalf("%v came back as %v", before, after)
	}
	again, err := after[1].Open(t.Context(), hw.Mode{})
	if err != nil {
		t.Fatal(err)
	}
	read(t, again).Release()
	held.Release() // of the camera's former life
	read(t, again).Release()
	if err := errors.Join(again.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	nothingLeft(t, k)
}
