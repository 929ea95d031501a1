package hw_test

import (
	"testing"

	"encoderd.example/hw"
)

func TestSharedFrameLiesWhereTheLayoutSays(t *testing.T) {
	one := hw.Layout{
		Pixel: hw.I420, Width: 4, Height: 4, Sizes: [3]int{200},
		Planes: [3]hw.PlaneLayout{{Stride: 16}, {Offset: 64, Stride: 8}, {Offset: 80, Stride: 8}},
	}
	two := hw.Layout{
		Pixel: hw.NV12, Width: 4, Height: 4, Sizes: [3]int{64, 40},
		Planes: [3]hw.PlaneLayout{{Stride: 16}, {Buffer: 1, Stride: 16}},
	}
	tests := []struct {
		name    string
		layout  hw.Layout
		fds     []int
		offsets []int
		lengths []int
	}{
		{"one buffer", one, []int{7, 7, 7}, []int{0, 64, 80}, []int{64, 16, 120}},
		{"a buffer for each plane", two, []int{7, 8}, []int{0, 0}, []int{64, 40}},
	}
	for _, tt := range tests {
		b := hw.Buffer{FDs: [3]int{7, 8, 9}}
		for i, size := range tt.layout.Sizes {
			if size > 0 {
				b.Mem[i] = make([]byte, size)
			}
		}
		back := false
		f := hw.NewSharedFrame(tt.layout, b, hw.Rate{Num: 30, Den: 1}, func(*hw.Frame) { back = true })
		if len(f.Planes) != len(tt.fds) || f.Pixel != tt.layout.Pixel || f.Width != 4 || f.FPS.Num != 30 {
			t.Fatalf("%s: %d planes, mode %v", tt.name, len(f.Planes), f.Mode)
		}
		for i, p := range f.Planes {
			if p.FD != tt.fds[i] || p.Offset != tt.offsets[i] || len(p.Data) != tt.lengths[i] || p.Stride != tt.layout.Planes[i].Stride {
				t.Errorf("%s: plane %d is %d bytes at %d of %d, %d a line", tt.name, i, len(p.Data), p.Offset, p.FD, p.Stride)
			}
		}
		f.Lend().Release()
		if !back {
			t.Errorf("%s: it did not come back", tt.name)
		}
		b.Mem = [3][]byte{}
		if f := hw.NewSharedFrame(tt.layout, b, hw.Rate{}, nil); f.Planes[0].Data != nil {
			t.Errorf("%s: memory that is not mapped can be read", tt.name)
		}
	}
}
