//go:build board

// Tests with a real kernel's dma-bufs: the guest of the virtual board, where
// vivid is the camera and libx264, in a process of its own, the encoder.

package external

import (
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/external/memory"
	"encoderd.example/hw/v4l2"
	"encoderd.example/stream"
)

func vivid(t *testing.T) hw.SharingCamera {
	t.Helper()
	finder := v4l2.Finder{Root: os.DirFS("/"), Log: slog.New(slog.DiscardHandler), Sys: v4l2.Kernel{}}
	list, err := finder.Cameras()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		if c, ok := c.(*v4l2.Camera); ok && strings.HasPrefix(c.Name(), "vivid") {
			return c.Input(0)
		}
	}
	t.Fatalf("no vivid among %d cameras", len(list))
	return nil
}

// unhurried is libx264 in a process, which has the time that it needs under
// emulation.
func unhurried(t *testing.T) hw.EncoderDriver {
	t.Helper()
	p := scripted(t, "is sound")
	p.patience = patience{hello: time.Minute, answer: time.Minute, end: 10 * time.Second, silent: time.Minute}
	a := p.ask(func() {})
	if a.err != nil || a.driver == nil {
		t.Fatalf("no encoder: %v", a.err)
	}
	return *a.driver
}

func TestDMABufsOfACameraReachTheProgram(t *testing.T) {
	noLeaks(t)
	want := hw.Mode{Pixel: hw.NV12, Width: 320, Height: 180, FPS: hw.Rate{Num: 10, Den: 1}}
	for _, way := range []hw.Way{hw.Export, hw.Import} {
		t.Run(string(way), func(t *testing.T) {
			driver := unhurried(t)
			var layout hw.Layout
			s, err := vivid(t).OpenShared(t.Context(), want, func(src hw.BufferSource) hw.BufferPlan {
				var err error
				if layout, err = driver.Importer.Layout(src.Layout); err != nil || layout != src.Layout {
					t.Errorf("the camera's layout %+v becomes %+v: %v", src.Layout, layout, err)
				}
				plan := hw.BufferPlan{Way: way, Reason: "a test"}
				if way == hw.Import {
					if plan.Pool, err = driver.Importer.Allocate(layout, 6); err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = plan.Pool.Close() })
					if !memory.IsDMABuf(plan.Pool.Buffers()[0].FDs[0]) {
						t.Error("the kernel makes no dma-bufs of the pool")
					}
				}
				return plan
			})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if p := s.Plan(); p.Way != way {
				t.Errorf("plan %s", p)
			}
			codeVivid(t, driver, s, layout)
		})
	}
}

// codeVivid codes a second of what a camera shows, and checks that nothing was
// copied and that the pictures are those of the camera.
func codeVivid(t *testing.T, driver hw.EncoderDriver, s hw.SharedStream, layout hw.Layout) {
	t.Helper()
	cfg := hw.EncoderConfig{
		Codec: stream.H264, Width: layout.Width, Height: layout.Height, FPS: hw.Rate{Num: 10, Den: 1},
		GOP: 10, Bitrate: 1_000_000, Preset: "ultrafast", Input: layout,
	}
	e := openEncoder(t, driver, cfg)
	const n = 20
	bytes := 0
	for range n {
		f, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stamp := f.Stamp
		if !memory.IsDMABuf(f.Planes[0].FD) {
			t.Fatalf("the picture's memory %d is no dma-buf", f.Planes[0].FD)
		}
		err = e.Submit(f)
		f.Release()
		if err != nil {
			t.Fatal(err)
		}
		u := next(t, e)
		if u.PTS != stamp {
			t.Errorf("stamped %s, comes out stamped %s", stamp, u.PTS)
		}
		bytes += len(u.Data)
	}
	if got, want := e.Stats(), (hw.EncoderStats{Submitted: n, Coded: n}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
	// Colour bars with a text that moves: an empty picture takes some hundred.
	if bytes < n*300 {
		t.Errorf("%d pictures take %d bytes: they are empty", n, bytes)
	}
}
