package hw_test

import (
	"errors"
	"sync"
	"testing"

	"encoderd.example/hw"
)

func TestTheLastReleaseGivesTheMemoryBackOnce(t *testing.T) {
	freed := 0
	f := hw.NewFrame(func(*hw.Frame) { freed++ }).Lend()
	var readers sync.WaitGroup
	for range 20 {
		f.Retain()
		readers.Go(f.Release)
	}
	readers.Wait()
	if freed != 0 {
		t.Error("freed while the owner still holds it")
	}
	f.Release()
	if freed != 1 {
		t.Errorf("freed %d times", freed)
	}
	f.Lend().Release() // it may be lent again
	if freed != 2 {
		t.Errorf("freed %d times after the second loan", freed)
	}
}

func TestMisuseOfAFramePanics(t *testing.T) {
	lent := func() *hw.Frame { return hw.NewFrame(nil).Lend() }
	for name, misuse := range map[string]func(){
		"lent twice":               func() { lent().Lend() },
		"released too often":       func() { f := lent(); f.Release(); f.Release() },
		"retained after its end":   func() { f := lent(); f.Release(); f.Retain() },
		"retained before its loan": func() { hw.NewFrame(nil).Retain() },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			misuse()
		}()
	}
}

func TestLayouts(t *testing.T) {
	tests := []struct {
		pixel   hw.PixelFormat
		w, h    int
		size    int
		strides []int
	}{
		{hw.NV12, 1920, 1080, 1920 * 1080 * 3 / 2, []int{1920, 1920}},
		{hw.I420, 1920, 1080, 1920 * 1080 * 3 / 2, []int{1920, 960, 960}},
		{hw.I422, 640, 360, 640 * 360 * 2, []int{640, 320, 320}},
		{hw.YUYV, 640, 360, 640 * 360 * 2, []int{1280}},
		{hw.UYVY, 640, 360, 640 * 360 * 2, []int{1280}},
		{hw.NV16, 640, 360, 640 * 360 * 2, []int{640, 640}},
		{hw.NV16, 5, 3, 5*3 + 6*3, []int{5, 6}},
		{hw.I420, 5, 3, 5*3 + 2*3*2, []int{5, 3, 3}},
		{hw.NV24, 5, 3, 5*3 + 10*3, []int{5, 10}},
		{hw.RGB24, 5, 3, 15 * 3, []int{15}},
		{hw.BGR24, 640, 360, 640 * 360 * 3, []int{1920}},
		{hw.RGB565, 5, 3, 10 * 3, []int{10}},
	}
	for _, tt := range tests {
		m := hw.Mode{Pixel: tt.pixel, Width: tt.w, Height: tt.h}
		f, err := hw.NewMemoryFrame(m, nil)
		if err != nil {
			t.Fatal(err)
		}
		size := 0
		for i, p := range f.Planes {
			size += len(p.Data)
			if p.Stride != tt.strides[i] {
				t.Errorf("%s: plane %d has stride %d, want %d", m, i, p.Stride, tt.strides[i])
			}
		}
		if size != tt.size || len(f.Planes) != len(tt.strides) {
			t.Errorf("%s: %d planes of %d bytes, want %d of %d", m, len(f.Planes), size, len(tt.strides), tt.size)
		}
	}
	if _, _, err := (hw.Mode{Pixel: hw.MJPEG}).Layout(); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("layout of a JPEG: %v", err)
	}
}

func TestColorsOfAPictureThatDoesNotSayGoByItsHeight(t *testing.T) {
	for _, tt := range []struct {
		m    hw.Mode
		want hw.Matrix
	}{
		{hw.Mode{Height: 719}, hw.BT601},
		{hw.Mode{Height: 720}, hw.BT709},
		{hw.Mode{Height: 1080, Matrix: hw.BT601}, hw.BT601},
		{hw.Mode{Height: 480, Matrix: hw.BT709}, hw.BT709},
	} {
		if got := tt.m.Colors(); got != tt.want {
			t.Errorf("%d lines, %s: %s, want %s", tt.m.Height, tt.m.Matrix, got, tt.want)
		}
	}
}

func TestLinesOfALayout(t *testing.T) {
	l := hw.Layout{Pixel: hw.NV12, Width: 1920, Height: 1080, Planes: [3]hw.PlaneLayout{{Stride: 1920}, {Stride: 1920, Offset: 1920 * 1088}}}
	split := l
	split.Planes[1] = hw.PlaneLayout{Buffer: 1, Stride: 1920}
	for want, l := range map[int]hw.Layout{1088: l, 1080: split, 720: {Pixel: hw.YUYV, Width: 1280, Height: 720}} {
		if got := l.Lines(); got != want {
			t.Errorf("%+v has %d lines, want %d", l, got, want)
		}
	}
}

func TestALayoutInWordsTellsWhatLayoutsDifferBy(t *testing.T) {
	l := hw.Layout{Pixel: hw.NV12, Width: 1920, Height: 1080, Planes: [3]hw.PlaneLayout{{Stride: 1920}, {Stride: 1920, Offset: 1920 * 1080}}}
	padded := l
	padded.Planes[1].Offset = 1920 * 1088
	for want, l := range map[string]hw.Layout{
		"1920x1080 NV12, 1920 bytes a line":             l,
		"1920x1080 NV12, 1920 bytes a line, 1088 lines": padded,
	} {
		if got := l.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestNamesForPeople(t *testing.T) {
	m := hw.Mode{Pixel: hw.FourCC("NV12"), Width: 1280, Height: 720, FPS: hw.Rate{Num: 30000, Den: 1001}}
	if m.Pixel != hw.NV12 || m.String() != "1280x720 29.97 fps NV12" {
		t.Errorf("got %q", m)
	}
	if (hw.Rate{}).Float() != 0 || (hw.Rate{}).Period() != 0 {
		t.Error("a zero rate is no rate")
	}
}
