package convert

import (
	"testing"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
)

// TestTightMemoryOfEveryFormatIsWhatItsModeSays holds what is made of a grant
// against the sums of package hw, for pictures that fill the memory and for
// those that have fewer lines.
func TestTightMemoryOfEveryFormatIsWhatItsModeSays(t *testing.T) {
	for _, f := range v4l2.Formats() {
		if f.Pixel().Coded() || f.Memories() > 1 {
			continue
		}
		m := hw.Mode{Pixel: f.Pixel(), Width: 64, Height: 34}
		tight, size, err := m.Layout()
		if err != nil {
			t.Fatal(err)
		}
		g := grant{format: f, width: 64, height: 34, mems: []v4l2.MemoryPlane{{Stride: tight[0].Stride, Size: size}}}
		for _, height := range []int{34, 30} {
			l, err := g.layout(64, height)
			if err != nil || l.Height != height || l.Sizes != [3]int{size} {
				t.Errorf("%s: %v, %v", f.Pixel(), l, err)
			}
			for i, p := range tight {
				if l.Planes[i] != (hw.PlaneLayout{Offset: p.Offset, Stride: p.Stride}) {
					t.Errorf("%s: plane %d at %+v, want %+v", f.Pixel(), i, l.Planes[i], p)
				}
			}
		}
		g.mems[0].Size--
		if _, err := g.layout(64, 34); err == nil {
			t.Errorf("%s: a buffer that lacks a byte is taken", f.Pixel())
		}
	}
}
