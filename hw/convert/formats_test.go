package convert

import (
	"testing"

	"encoderd.example/hw"
)

// TestTightMemoryOfEveryFormatIsWhatItsModeSays holds the table against the
// sums of package hw.
func TestTightMemoryOfEveryFormatIsWhatItsModeSays(t *testing.T) {
	for pixel, s := range shapes {
		m := hw.Mode{Pixel: pixel, Width: 64, Height: 34}
		tight, size, err := m.Layout()
		if err != nil {
			t.Fatal(err)
		}
		g := grant{format: format{pixel, pixel, false}, width: 64, height: 34, strides: []int{s.bytes * 64}, sizes: []int{size}}
		l, err := g.layout(64, 34)
		if err != nil {
			t.Errorf("%s: %v", pixel, err)
			continue
		}
		for i, p := range tight {
			if l.Planes[i] != (hw.PlaneLayout{Offset: p.Offset, Stride: p.Stride}) {
				t.Errorf("%s: plane %d at %+v, want %+v", pixel, i, l.Planes[i], p)
			}
		}
		g.sizes[0]--
		if _, err := g.layout(64, 34); err == nil || len(tight) != planes(pixel) {
			t.Errorf("%s: %d planes, and a buffer that lacks a byte: %v", pixel, len(tight), err)
		}
	}
}
