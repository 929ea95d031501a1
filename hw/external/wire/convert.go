package wire

import "encoderd.example/hw"

// ModeOf returns m as it is sent.
func ModeOf(m hw.Mode) Mode {
	w := Mode{
		Pixel: uint32(m.Pixel), Width: uint32(m.Width), Height: uint32(m.Height),
		RateNum: uint32(m.FPS.Num), RateDen: uint32(m.FPS.Den),
	}
	if m.FullRange {
		w.Flags = FullRange
	}
	return w
}

// Mode returns what m says, unchecked.
func (m Mode) Mode() hw.Mode {
	return hw.Mode{
		Pixel: hw.PixelFormat(m.Pixel), Width: int(m.Width), Height: int(m.Height),
		FPS:       hw.Rate{Num: int(m.RateNum), Den: int(m.RateDen)},
		FullRange: m.Flags&FullRange != 0,
	}
}

// LayoutOf returns l as it is sent.
func LayoutOf(l hw.Layout) Layout {
	w := Layout{Pixel: uint32(l.Pixel), Width: uint32(l.Width), Height: uint32(l.Height)}
	for i := range l.Planes {
		w.Planes[i] = Plane{uint32(l.Planes[i].Buffer), uint32(l.Planes[i].Offset), uint32(l.Planes[i].Stride)}
		w.Sizes[i] = uint32(l.Sizes[i])
	}
	return w
}

// Layout returns what l says, unchecked.
func (l Layout) Layout() hw.Layout {
	h := hw.Layout{Pixel: hw.PixelFormat(l.Pixel), Width: int(l.Width), Height: int(l.Height)}
	for i := range l.Planes {
		h.Planes[i] = hw.PlaneLayout{Buffer: int(l.Planes[i].Buffer), Offset: int(l.Planes[i].Offset), Stride: int(l.Planes[i].Stride)}
		h.Sizes[i] = int(l.Sizes[i])
	}
	return h
}
