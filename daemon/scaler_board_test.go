//go:build board

package daemon

import (
	"context"
	"os/exec"
	"strings"
	"testing"

	"encoderd.example/daemon/status"
	"encoderd.example/hw"
)

// A colourful camera gives RGB of those formats that it has: the kernel's own
// scaler, vim2m, reads nothing else.
type colourful struct{ hw.SharingCamera }

func (c colourful) OpenShared(ctx context.Context, want hw.Mode, decide func(hw.BufferSource) hw.BufferPlan) (hw.SharedStream, error) {
	want.Pixel = hw.RGB565
	return c.SharingCamera.OpenShared(ctx, want, decide)
}

func colours(b *hw.Board) {
	cameras := b.Cameras
	b.Cameras = func() ([]hw.Camera, error) {
		list, err := cameras()
		for i, c := range list {
			if s, ok := c.(hw.SharingCamera); ok {
				list[i] = colourful{s}
			}
		}
		return list, err
	}
}

func modprobe(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("modprobe", args...).CombinedOutput(); err != nil {
		t.Fatalf("modprobe %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestBoardScalesInHardware codes two sizes of pictures that the encoder does
// not take: vivid → vim2m → vh264enc, and the processor touches none.
func TestBoardScalesInHardware(t *testing.T) {
	modprobe(t, "vim2m", "default_transtime=1")
	t.Cleanup(func() { modprobe(t, "-r", "vim2m") }) // fails if anybody still holds it
	r := onBoard(t, strings.NewReplacer("width = 320", "width = 640", "height = 180", "height = 360").Replace(vivid)+`
[[rendition]]
name = "sub"
width = 320
height = 180
bitrate = "2M"
preset = "ultrafast"
`, colours)
	scaled := func(v status.Rendition) bool {
		return v.Encoder == "v4l2:vh264enc" && v.Buffers != nil && v.Buffers.Way == string(hw.Export) && strings.Contains(v.Buffers.Reason, "v4l2:vim2m")
	}
	b := r.until("both sizes from the scaler", func(b status.Box) bool {
		return b.Input.Signal && b.Input.Frames > 10 && len(b.Renditions) == 2 && scaled(b.Renditions[0]) && scaled(b.Renditions[1])
	})
	if b.Input.Format != hw.RGB565.String() {
		t.Errorf("the camera gives %s", b.Input.Format)
	}
	last := r.until("more pictures", func(now status.Box) bool {
		return now.Renditions[0].Frames >= b.Renditions[0].Frames+30 && now.Renditions[1].Frames >= b.Renditions[1].Frames+30
	})
	for i, v := range last.Renditions {
		before := b.Renditions[i]
		if v.CopiedBytes != before.CopiedBytes || !scaled(v) {
			t.Errorf("%d bytes were copied: %+v by %+v", v.CopiedBytes-before.CopiedBytes, v, v.Buffers)
		}
		t.Logf("%s: %d pictures of %dx%d by %s, %s: %s", v.Name, v.Frames, v.Width, v.Height, v.Encoder, v.Buffers.Way, v.Buffers.Reason)
	}
}
