package m2m_test

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/m2m"
	"encoderd.example/hw/v4l2/fakevb2"
	"encoderd.example/hw/v4l2/uapi"
)

// TestFinderGoesByWhatNodesCanDo: of a Raspberry Pi's and other boards' many
// nodes only some code H.264 or HEVC, and their numbers say nothing.
func TestFinderGoesByWhatNodesCanDo(t *testing.T) {
	var nodes []*fakevb2.Node
	var names []string
	add := func(driver string, adapt func(*fakevb2.Node)) {
		n := codec(driver)
		names = append(names, fmt.Sprintf("video%d", len(nodes)))
		n.Path = "/dev/" + names[len(nodes)]
		adapt(n)
		nodes = append(nodes, n)
	}
	code := func(s string) uint32 { return uint32(hw.FourCC(s)) }
	same := func(*fakevb2.Node) {}
	add("uvcvideo", func(n *fakevb2.Node) {
		n.Caps, n.Type, n.Encoder = uapi.CapVideoCapture|uapi.CapStreaming, uapi.BufTypeVideoCapture, nil
		n.Formats = []fakevb2.Format{{Code: code("H264")}}
	})
	add("bcm2835-codec", func(n *fakevb2.Node) { // decoder
		n.Encoder.Raw, n.Encoder.Coded = []fakevb2.Format{{Code: code("H264")}}, []uint32{code("YU12"), code("NV12")}
	})
	add("bcm2835-codec", same)
	add("bcm2835-codec", func(n *fakevb2.Node) { n.Encoder.Coded = []uint32{code("NV12")} }) // scaler
	add("bcm2835-codec", func(n *fakevb2.Node) { n.Encoder.Coded = []uint32{code("MJPG")} })
	add("wave5-enc", func(n *fakevb2.Node) {
		n.Caps, n.Type = uapi.CapVideoM2M|uapi.CapStreaming, uapi.BufTypeVideoCapture
		n.Encoder.Coded = []uint32{code("HEVC"), code("H264")}
	})
	add("wave5-enc", func(n *fakevb2.Node) { n.Encoder.Coded = []uint32{code("HEVC")} })
	add("busy", func(n *fakevb2.Node) { n.Locked = true })
	add("exotic", func(n *fakevb2.Node) { n.Encoder.Raw = []fakevb2.Format{{Code: code("QC08")}} })
	for range 2 { // video10 stands after video9
		add("vh264enc", same)
	}
	k := fakevb2.New(nodes...)
	drivers, err := m2m.Finder{Root: sysfs(append(names, "v4l-subdev0", "radio0")...), Sys: k, Log: slog.New(slog.DiscardHandler)}.Encoders()
	if !errors.Is(err, unix.EACCES) {
		t.Errorf("a node that may not be opened: %v", err)
	}
	var got []string
	for _, d := range drivers {
		got = append(got, fmt.Sprintf("%s %d %v live=%v", d.Name, d.Budget, d.Codecs, d.LiveRate))
		if !d.Hardware || d.Importer == nil {
			t.Errorf("%+v", d)
		}
	}
	want := []string{
		"v4l2:bcm2835-codec 245760 [h264] live=true", "v4l2:wave5-enc 0 [h264 h265] live=false", "v4l2:wave5-enc#2 0 [h265] live=false",
		"v4l2:vh264enc 0 [h264] live=true", "v4l2:vh264enc#2 0 [h264] live=true",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if fds, maps := k.Left(); fds+maps != 0 {
		t.Errorf("%d descriptors and %d mappings are left", fds, maps)
	}
	none, err := m2m.Finder{Root: sysfs(), Sys: k}.Encoders()
	if len(none) != 0 || err != nil {
		t.Errorf("without video drivers: %v, %v", none, err)
	}
}

func TestLayoutIsWhatTheDriverReads(t *testing.T) {
	n := codec("unheard-of")
	n.Encoder.Raw[0].Align, n.Encoder.Raw[0].AlignLines = 64, 16
	r := newRig(t, n)
	if got := r.driver.Importer.Takes(); !slices.Equal(got, []hw.PixelFormat{hw.NV12, hw.I420, hw.YUYV}) {
		t.Errorf("takes %v", got)
	}
	at := func(pixel hw.PixelFormat, w, h int, strides [3]int, offsets [3]int, size int) hw.Layout {
		l := hw.Layout{Pixel: pixel, Width: w, Height: h, Sizes: [3]int{size}}
		for i := range strides {
			l.Planes[i] = hw.PlaneLayout{Offset: offsets[i], Stride: strides[i]}
		}
		return l
	}
	for _, tt := range []struct{ src, want hw.Layout }{
		{
			hw.Layout{Pixel: hw.NV12, Width: 1920, Height: 1080},
			at(hw.NV12, 1920, 1080, [3]int{1920, 1920}, [3]int{0, 1920 * 1088}, 1920*1088*3/2),
		},
		{ // longer lines, as the camera has them
			at(hw.NV12, 1920, 1088, [3]int{2048, 2048}, [3]int{0, 2048 * 1088}, 2048*1088*3/2),
			at(hw.NV12, 1920, 1088, [3]int{2048, 2048}, [3]int{0, 2048 * 1088}, 2048*1088*3/2),
		},
		{
			hw.Layout{Pixel: hw.I420, Width: 320, Height: 180},
			at(hw.I420, 320, 180, [3]int{320, 160, 160}, [3]int{0, 320 * 180, 320*180 + 160*90}, 320*180*3/2),
		},
		{ // more lines, as a decoder of JPEG has them
			at(hw.I420, 320, 180, [3]int{320, 160, 160}, [3]int{0, 320 * 192, 320*192 + 160*96}, 320*192*3/2),
			at(hw.I420, 320, 180, [3]int{320, 160, 160}, [3]int{0, 320 * 192, 320*192 + 160*96}, 320*192*3/2),
		},
		{
			hw.Layout{Pixel: hw.YUYV, Width: 320, Height: 180},
			at(hw.YUYV, 320, 180, [3]int{640}, [3]int{}, 640*180),
		},
	} {
		got, err := r.driver.Importer.Layout(tt.src)
		if err != nil || got != tt.want {
			t.Errorf("%s: got %+v, %v\nwant %+v", tt.src, got, err, tt.want)
		}
	}
	for what, l := range map[string]hw.Layout{"format": {Pixel: hw.I422, Width: 64, Height: 48}, "size": {Pixel: hw.NV12, Width: 8, Height: 8}} {
		if _, err := r.driver.Importer.Layout(l); !errors.Is(err, hw.ErrUnsupported) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := r.driver.Importer.Allocate(hw.Layout{Pixel: hw.NV12, Width: 64, Height: 48}, 2); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("a layout of nobody: %v", err)
	}
}
