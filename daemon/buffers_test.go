package daemon

import (
	"testing"

	"encoderd.example/hw"
)

// shared is a layout of one buffer with NV12's planes in it.
func shared(width, height, stride int) hw.Layout {
	return hw.Layout{
		Pixel: hw.NV12, Width: width, Height: height,
		Planes: [3]hw.PlaneLayout{{Stride: stride}, {Offset: stride * height, Stride: stride}},
		Sizes:  [3]int{stride * height * 3 / 2},
	}
}

func TestPlanBuffers(t *testing.T) {
	full, wide, small := shared(1920, 1080, 1920), shared(1920, 1080, 2048), shared(640, 360, 640)
	yuyv := hw.Layout{Pixel: hw.YUYV, Width: 1920, Height: 1080, Planes: [3]hw.PlaneLayout{{Stride: 3840}}, Sizes: [3]int{3840 * 1080}}
	hard := reader{Name: "v4l2:enc", Imports: true, Width: 1920, Height: 1080, Layout: full}
	sub := reader{Name: "v4l2:enc", Imports: true, Width: 640, Height: 360, Layout: full}
	scaled := reader{Name: "v4l2:enc", Imports: true, Width: 640, Height: 360, Layout: full, Scaler: "isp"}
	soft := reader{Name: "libx264", Width: 1920, Height: 1080}
	of := func(l hw.Layout) hw.BufferSource {
		return hw.BufferSource{Driver: "cam", Layout: l, Mode: hw.Mode{Pixel: l.Pixel, Width: l.Width, Height: l.Height, FPS: hw.Rate{Num: 30, Den: 1}}}
	}
	exports := func(s hw.BufferSource) hw.BufferSource { s.Exports = true; return s }
	imports := func(s hw.BufferSource) hw.BufferSource { s.Imports = true; return s }
	private := func(s hw.BufferSource) hw.BufferSource { s.Private = "the camera's memory is not contiguous"; return s }
	coded := func(p hw.PixelFormat) hw.BufferSource {
		return hw.BufferSource{Mode: hw.Mode{Pixel: p, Width: 1920, Height: 1080, FPS: hw.Rate{Num: 30, Den: 1}}}
	}
	tests := []struct {
		name string
		src  hw.BufferSource
		r    reader
		only hw.Way
		want string
	}{
		{"one layout, and the camera shares", exports(of(full)), hard, "", "export: v4l2:enc reads the camera's memory"},
		{"both ways are open", imports(exports(of(full))), hard, "", "export: v4l2:enc reads the camera's memory"},
		{"a USB camera", imports(private(of(full))), hard, "", "import: the camera writes into the memory of v4l2:enc"},
		{"lines of another length, but the camera takes the encoder's", imports(exports(of(wide))), hard, "", "import: the camera writes into the memory of v4l2:enc"},
		{"lines of another length", exports(of(wide)), hard, "", "copy: the camera gives 1920x1080 NV12, 2048 bytes a line, v4l2:enc reads 1920x1080 NV12, 1920 bytes a line: 93.3 MB a second"},
		{"nothing is shared", private(of(full)), hard, "", "copy: the camera's memory is not contiguous: v4l2:enc cannot read it: 93.3 MB a second"},
		{"nothing is shared, for no reason", of(full), hard, "", "copy: the camera shares no memory with v4l2:enc: 93.3 MB a second"},
		{"another format", exports(of(yuyv)), hard, "", "convert: v4l2:enc takes no YUYV, which the processor converts: 124.4 MB a second"},
		{"another size", exports(of(full)), sub, "", "convert: the processor scales 1920x1080 to 640x360: 10.4 MB a second"},
		{"another size, and hardware that scales", exports(of(full)), scaled, "", "export: isp, which scales for v4l2:enc, reads the camera's memory"},
		{"a scaler that cannot read the camera's memory", imports(private(of(full))), scaled, "", "copy: the camera's memory is not contiguous: isp, which scales for v4l2:enc, cannot read it: 93.3 MB a second"},
		{"a camera smaller than asked for", exports(of(small)), hard, "", "convert: the processor scales 640x360 to 1920x1080: 93.3 MB a second"},
		{"JPEG", coded(hw.MJPEG), hard, "", "decode: the camera sends JPEG, which the processor decodes: 93.3 MB a second"},
		{"JPEG to software", coded(hw.MJPEG), soft, "", "decode: the camera sends JPEG, which the processor decodes: 93.3 MB a second"},
		{"coded by the camera", coded(hw.H264), soft, "", "through: the camera codes by itself"},
		{"software", exports(of(full)), soft, "", "heap: libx264 is software: pictures are passed by reference"},
		{"a format that only hardware knows", of(hw.Layout{Pixel: hw.FourCC("Y41P"), Width: 1920, Height: 1080}), sub, "", "convert: the processor scales 1920x1080 to 640x360: 13.8 MB a second"},

		{"export, as the config wants", imports(exports(of(full))), hard, hw.Export, "export: asked for by the config; v4l2:enc reads the camera's memory"},
		{"export, and lines of another length", imports(exports(of(wide))), hard, hw.Export, "copy: export is asked for by the config, but the camera gives 1920x1080 NV12, 2048 bytes a line, v4l2:enc reads 1920x1080 NV12, 1920 bytes a line: 93.3 MB a second"},
		{"export from a USB camera", imports(private(of(full))), hard, hw.Export, "copy: export is asked for by the config, but the camera's memory is not contiguous: v4l2:enc cannot read it: 93.3 MB a second"},
		{"import, as the config wants", imports(exports(of(full))), hard, hw.Import, "import: asked for by the config; the camera writes into the memory of v4l2:enc"},
		{"import by a camera that cannot", exports(of(full)), hard, hw.Import, "copy: import is asked for by the config, but the camera does not write into memory of others: 93.3 MB a second"},
		{"import to a scaler", imports(exports(of(full))), scaled, hw.Import, "copy: import is asked for by the config, but isp, which scales for v4l2:enc, has no memory that a camera writes into: 93.3 MB a second"},
		{"copy, as the config wants", imports(exports(of(full))), hard, hw.Copy, "copy: asked for by the config: 93.3 MB a second"},
		{"import, and nothing to share", imports(exports(of(full))), soft, hw.Import, "heap: libx264 is software: pictures are passed by reference"},
	}
	for _, tt := range tests {
		if got := planBuffers(tt.src, tt.r, tt.only); got.String() != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
}
