package encode

import (
	"errors"
	"image"
	"image/color"
	"testing"

	"encoderd.example/hw"
	"encoderd.example/stream"
)

// smooth is a picture whose colours change slowly, so that the mean of
// neighbours is near each of them, and which RGB can show.
func smooth(x, y int) color.YCbCr {
	return color.YCbCr{Y: uint8(100 + x + y), Cb: uint8(110 + x), Cr: uint8(140 - y)}
}

func ycbcr(r image.Rectangle, ratio image.YCbCrSubsampleRatio) *image.YCbCr {
	img := image.NewYCbCr(r, ratio)
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			c := smooth(x, y)
			img.Y[img.YOffset(x, y)], img.Cb[img.COffset(x, y)], img.Cr[img.COffset(x, y)] = c.Y, c.Cb, c.Cr
		}
	}
	return img
}

// opaque hides what kind of image it is.
type opaque struct{ image.Image }

func TestEveryImageIsCopiedWithItsColours(t *testing.T) {
	whole := image.Rect(0, 0, 31, 17)
	rgba := image.NewRGBA(whole)
	for y := range 17 {
		for x := range 31 {
			rgba.Set(x, y, smooth(x, y))
		}
	}
	tests := []struct {
		name string
		img  image.Image
		want hw.PixelFormat
	}{
		{"4:2:0", ycbcr(whole, image.YCbCrSubsampleRatio420), hw.I420},
		{"4:2:2", ycbcr(whole, image.YCbCrSubsampleRatio422), hw.I422},
		{"4:4:4", ycbcr(whole, image.YCbCrSubsampleRatio444), hw.I420},
		{"4:4:0", ycbcr(whole, image.YCbCrSubsampleRatio440), hw.I420},
		{"4:1:1", ycbcr(whole, image.YCbCrSubsampleRatio411), hw.I420},
		{"a part of 4:2:0", ycbcr(whole, image.YCbCrSubsampleRatio420).SubImage(image.Rect(4, 2, 20, 12)), hw.I420},
		{"a part that begins between chroma samples", ycbcr(whole, image.YCbCrSubsampleRatio420).SubImage(image.Rect(5, 3, 20, 12)), hw.I420},
		{"a part of 4:2:2", ycbcr(whole, image.YCbCrSubsampleRatio422).SubImage(image.Rect(4, 3, 20, 12)), hw.I422},
		{"RGBA", rgba, hw.I420},
		{"anything", opaque{rgba}, hw.I420},
	}
	rate := hw.Rate{Num: 24, Den: 1}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := stream.Monotonic()
			f, err := new(copies).of(tt.img, rate)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Release()
			b := tt.img.Bounds()
			if f.Mode != (hw.Mode{Pixel: tt.want, Width: b.Dx(), Height: b.Dy(), FPS: rate, FullRange: true}) || f.Stamp < before {
				t.Fatalf("mode %+v, stamp %v", f.Mode, f.Stamp)
			}
			for y := range b.Dy() {
				for x := range b.Dx() {
					cy := y / 2
					if tt.want == hw.I422 {
						cy = y
					}
					got := color.YCbCr{
						Y:  f.Planes[0].Data[y*f.Planes[0].Stride+x],
						Cb: f.Planes[1].Data[cy*f.Planes[1].Stride+x/2],
						Cr: f.Planes[2].Data[cy*f.Planes[2].Stride+x/2],
					}
					if want := smooth(b.Min.X+x, b.Min.Y+y); !near(got, want) {
						t.Fatalf("pixel %d,%d is %v, want %v", x, y, got, want)
					}
				}
			}
		})
	}
}

func near(a, b color.YCbCr) bool {
	d := func(a, b uint8) bool { return a-b+3 <= 6 }
	return d(a.Y, b.Y) && d(a.Cb, b.Cb) && d(a.Cr, b.Cr)
}

func TestCopiesAreUsedAgain(t *testing.T) {
	img := ycbcr(image.Rect(0, 0, 320, 180), image.YCbCrSubsampleRatio420)
	var c copies
	n := testing.AllocsPerRun(20, func() {
		f, err := c.of(img, usualRate)
		if err != nil {
			t.Fatal(err)
		}
		f.Release()
	})
	if n > 2 {
		t.Errorf("%v allocations for a copy", n)
	}
}

func TestAnEmptyImageIsRefused(t *testing.T) {
	if _, err := new(copies).of(image.NewRGBA(image.Rectangle{}), usualRate); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
}
