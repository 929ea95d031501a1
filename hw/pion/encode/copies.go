package encode

import (
	"fmt"
	"image"
	"image/color"

	"encoderd.example/hw"
	"encoderd.example/stream"
)

// spare is how many copies wait to be filled again; an encoder holds about as
// many.
const spare = 4

// Copies are frames with the pixels of images that carry none. The frames
// are used again. The zero value is ready; of is for one goroutine.
type copies struct {
	mode hw.Mode
	free chan *hw.Frame
}

// of returns a copy of img, which the caller releases: 4:2:0 and 4:2:2 plane by
// plane, all else as 4:2:0. Images know no time: the stamp is now.
func (c *copies) of(img image.Image, rate hw.Rate) (*hw.Frame, error) {
	size := img.Bounds().Size()
	mode := hw.Mode{Pixel: hw.I420, Width: size.X, Height: size.Y, FPS: rate, FullRange: true}
	planar, _ := img.(*image.YCbCr)
	if planar != nil && !aligned(planar) {
		planar = nil
	}
	if planar != nil && planar.SubsampleRatio == image.YCbCrSubsampleRatio422 {
		mode.Pixel = hw.I422
	}
	f, err := c.frame(mode)
	if err != nil {
		return nil, err
	}
	if planar != nil {
		copyPlanes(f, planar)
	} else {
		subsample(f, img)
	}
	f.Stamp = stream.Monotonic()
	return f, nil
}

// frame returns a frame to fill, with one reference.
func (c *copies) frame(m hw.Mode) (*hw.Frame, error) {
	if m.Width < 1 || m.Height < 1 {
		return nil, fmt.Errorf("image of %dx%d: %w", m.Width, m.Height, hw.ErrUnsupported)
	}
	if m != c.mode {
		c.mode, c.free = m, make(chan *hw.Frame, spare)
	}
	free := c.free
	select {
	case f := <-free:
		return f.Lend(), nil
	default:
	}
	f, err := hw.NewMemoryFrame(m, func(f *hw.Frame) {
		select {
		case free <- f:
		default: // enough wait: the collector takes it
		}
	})
	if err != nil {
		return nil, err
	}
	return f.Lend(), nil
}

// aligned reports whether the planes of img are those of a frame: its first
// pixel has chroma of its own.
func aligned(img *image.YCbCr) bool {
	switch img.SubsampleRatio {
	case image.YCbCrSubsampleRatio420:
		return img.Rect.Min.X%2 == 0 && img.Rect.Min.Y%2 == 0
	case image.YCbCrSubsampleRatio422:
		return img.Rect.Min.X%2 == 0
	default:
		return false
	}
}

// copyPlanes copies an image of f's layout line by line.
func copyPlanes(f *hw.Frame, img *image.YCbCr) {
	first := img.Rect.Min
	y, c := img.YOffset(first.X, first.Y), img.COffset(first.X, first.Y)
	for i, from := range [][]byte{img.Y[y:], img.Cb[c:], img.Cr[c:]} {
		stride := img.CStride
		if i == 0 {
			stride = img.YStride
		}
		to := f.Planes[i]
		for line := range len(to.Data) / to.Stride {
			copy(to.Data[line*to.Stride:][:to.Stride], from[line*stride:])
		}
	}
}

// subsample converts any image: each chroma sample is the mean of its pixels.
func subsample(f *hw.Frame, img image.Image) {
	at, origin := sampler(img), img.Bounds().Min
	for cy := range (f.Height + 1) / 2 {
		for cx := range (f.Width + 1) / 2 {
			var cb, cr, n int
			for y := 2 * cy; y < min(2*cy+2, f.Height); y++ {
				for x := 2 * cx; x < min(2*cx+2, f.Width); x++ {
					s := at(origin.X+x, origin.Y+y)
					f.Planes[0].Data[y*f.Planes[0].Stride+x] = s.Y
					cb, cr, n = cb+int(s.Cb), cr+int(s.Cr), n+1
				}
			}
			f.Planes[1].Data[cy*f.Planes[1].Stride+cx] = byte((cb + n/2) / n)
			f.Planes[2].Data[cy*f.Planes[2].Stride+cx] = byte((cr + n/2) / n)
		}
	}
}

// sampler returns how to read a pixel of img, for the usual kinds without a
// value on the heap for each.
func sampler(img image.Image) func(x, y int) color.YCbCr {
	switch img := img.(type) {
	case *image.YCbCr:
		return img.YCbCrAt
	case *image.RGBA:
		return func(x, y int) color.YCbCr {
			c := img.RGBAAt(x, y)
			luma, cb, cr := color.RGBToYCbCr(c.R, c.G, c.B)
			return color.YCbCr{Y: luma, Cb: cb, Cr: cr}
		}
	default:
		return func(x, y int) color.YCbCr {
			return color.YCbCrModel.Convert(img.At(x, y)).(color.YCbCr) //nolint:errcheck // what the model promises
		}
	}
}
