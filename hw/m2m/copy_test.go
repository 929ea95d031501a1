package m2m

import (
	"slices"
	"testing"

	"encoderd.example/hw"
)

func TestExpansions(t *testing.T) {
	src := []hw.Plane{{Data: []byte{1, 2, 9, 3, 4, 9, 5, 6, 9, 7, 8, 9}, Stride: 3}, {Data: []byte{0xb1, 0xd1, 9, 0xb2, 0xd2, 9}, Stride: 3}}
	for pixel, want := range map[hw.PixelFormat][]byte{
		hw.YUYV: {1, 0xb1, 2, 0xd1, 3, 0xb1, 4, 0xd1, 5, 0xb2, 6, 0xd2, 7, 0xb2, 8, 0xd2},
		hw.UYVY: {0xb1, 1, 0xd1, 2, 0xb1, 3, 0xd1, 4, 0xb2, 5, 0xd2, 6, 0xb2, 7, 0xd2, 8},
		hw.NV16: {1, 2, 3, 4, 5, 6, 7, 8, 0xb1, 0xd1, 0xb1, 0xd1, 0xb2, 0xd2, 0xb2, 0xd2},
	} {
		got := make([]byte, 16)
		dst := []hw.Plane{{Data: got, Stride: 4}}
		if pixel == hw.NV16 {
			dst = []hw.Plane{{Data: got[:8], Stride: 2}, {Data: got[8:], Stride: 2}}
		}
		expansions[pixel](dst, src, 2, 4)
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %x, want %x", pixel, got, want)
		}
	}
}
