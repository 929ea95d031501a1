//go:build board

package daemon

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/hw"
	"encoderd.example/hw/boards"
)

// onBoard runs the daemon on the virtual board's devices, as changed, without
// listeners.
func onBoard(t *testing.T, doc string, change ...func(*hw.Board)) *rig {
	t.Helper()
	b, err := boards.Find("virt", os.DirFS("/"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(&b)
	}
	r := &rig{t: t, ended: make(chan error, 1)}
	r.Daemon = New(Options{Board: b, State: t.TempDir(), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	r.Apply(parse(t, doc))
	ctx, cancel := context.WithCancel(context.Background())
	r.end = cancel
	go func() { r.ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		r.end()
		if err := <-r.ended; err != nil {
			t.Error(err)
		}
	})
	return r
}

const vivid = `
[video]
source = "v4l2:platform:vivid-000#0"
width = 320
height = 180
fps = 5
[audio]
source = "none"
[[rendition]]
name = "main"
bitrate = "4M"
preset = "ultrafast"
[serve]
web = ""
rtsp = ""
`

// module sets a parameter of the encoder's driver.
func module(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile("/sys/module/vh264enc/parameters/"+name, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

func TestBoardCopiesNothingFromTheFirstSlateOn(t *testing.T) {
	r := onBoard(t, vivid)
	b := r.until("pictures", func(b status.Box) bool { return onDuty(b) && b.Input.Frames > 20 })
	from := b.Renditions[0].Frames
	b = r.until("more pictures", func(b status.Box) bool { return b.Renditions[0].Frames >= from+30 })
	v := b.Renditions[0]
	if v.Encoder != "v4l2:vh264enc" || v.Buffers.Way != string(hw.Export) || v.CopiedBytes != 0 || b.Has(status.EncoderFallback) {
		t.Errorf("%+v by %+v, faults %+v", v, v.Buffers, b.Faults)
	}
	t.Logf("%d pictures by %s, %s: %d bytes copied; %d slates", v.Frames, v.Encoder, v.Buffers.Way, v.CopiedBytes, b.Input.Slate)
}

func TestBoardFallsBackWhenTheEncoderHangsForEver(t *testing.T) {
	r := onBoard(t, vivid)
	r.until("pictures", func(b status.Box) bool {
		return onDuty(b) && b.Input.Frames > 20 && b.Renditions[0].Encoder == "v4l2:vh264enc"
	})
	v := r.view("main")
	began := time.Now()
	module(t, "hang", "1")
	b := r.until("software", by("libx264"))
	t.Logf("software codes after %v: %s", time.Since(began).Round(time.Millisecond), b.Renditions[0].EncoderReason)
	if !b.Has(status.EncoderFallback) || !strings.Contains(b.Renditions[0].EncoderReason, "vh264enc") {
		t.Errorf("%+v", b.Faults)
	}
	from := b.Renditions[0].Frames
	r.until("pictures of software", func(b status.Box) bool { return b.Renditions[0].Frames >= from+10 })
	v.on(t)
	module(t, "hang", "0")
	r.until("the end of what hung", func(b status.Box) bool { return !b.Has(status.DriverHangs) })
}
