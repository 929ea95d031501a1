package hw_test

import (
	"testing"

	"encoderd.example/hw"
)

// The rules for planes in one piece of memory (Linux user-space API, part I,
// section 2): lines of chroma have "as many padding bytes" as those of luma,
// or half as many where chroma has half the samples.
func TestStridesOfChromaFollowFromThoseOfLuma(t *testing.T) {
	for _, tt := range []struct {
		pixel        hw.PixelFormat
		first, other int
	}{
		{hw.NV12, 1984, 1984},
		{hw.NV16, 1984, 1984},
		{hw.NV24, 1984, 3968},
		{hw.I420, 1984, 992},
		{hw.I420, 33, 17},
		{hw.I422, 1984, 992},
	} {
		for plane := range tt.pixel.Planes() {
			want := tt.other
			if plane == 0 {
				want = tt.first
			}
			if got := tt.pixel.Stride(plane, tt.first); got != want {
				t.Errorf("%s plane %d: %d bytes where luma has %d, want %d", tt.pixel, plane, got, tt.first, want)
			}
		}
	}
}

func TestAPictureIsRawOrCoded(t *testing.T) {
	for pixel, planes := range map[hw.PixelFormat]int{
		hw.NV12: 2, hw.NV16: 2, hw.NV24: 2, hw.I420: 3, hw.I422: 3, hw.YUYV: 1, hw.UYVY: 1,
		hw.RGB24: 1, hw.BGR24: 1, hw.RGB565: 1, hw.MJPEG: 0, hw.H264: 0, hw.FourCC("HEVC"): 0,
	} {
		if got := len(pixel.Planes()); got != planes {
			t.Errorf("%s has %d planes, want %d", pixel, got, planes)
		}
		if coded := pixel == hw.MJPEG || pixel == hw.H264; pixel.Coded() != coded {
			t.Errorf("%s is coded: %t", pixel, pixel.Coded())
		}
	}
}
