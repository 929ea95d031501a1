package soft

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"

	"encoderd.example/hw"
	"encoderd.example/hw/yuv"
)

// EncodeJPEG returns f, of any mode, as a JPEG of the given width in pixels
// (made even; zero keeps that of f) with its aspect kept, and of quality 1 to
// 100. It is for stills: it allocates a picture at each call.
func EncodeJPEG(f *hw.Frame, width, quality int) ([]byte, error) {
	if f.Pixel == hw.MJPEG {
		d := JPEGDecoder{codec: goJPEG{}}
		raw, err := d.Decode(f)
		if err != nil {
			return nil, fmt.Errorf("still: %w", err)
		}
		defer raw.Release()
		f = raw
	}
	if width < 0 || width > yuv.MaxSide || f.Width < 1 {
		return nil, fmt.Errorf("still of width %d from %s: %w", width, f.Mode, hw.ErrUnsupported)
	}
	if width == 0 {
		width = f.Width
	}
	dst := hw.Mode{Pixel: hw.I420, Width: (width + 1) &^ 1, FullRange: true, Matrix: hw.BT601}
	dst.Height = max((f.Height*dst.Width/f.Width+1)&^1, 2)
	c, err := yuv.New(f.Mode, dst)
	if err != nil {
		return nil, fmt.Errorf("still: %w", err)
	}
	hw.BeginAccess(f.Planes, hw.Reading)
	defer hw.EndAccess(f.Planes, hw.Reading)
	p, err := c.Convert(f)
	if err != nil {
		return nil, fmt.Errorf("still: %w", err)
	}
	picture := &image.YCbCr{
		Y:              p.Planes[0].Data,
		Cb:             p.Planes[1].Data,
		Cr:             p.Planes[2].Data,
		YStride:        p.Planes[0].Stride,
		CStride:        p.Planes[1].Stride,
		SubsampleRatio: image.YCbCrSubsampleRatio420,
		Rect:           image.Rect(0, 0, dst.Width, dst.Height),
	}
	if p.Planes[1].Stride != p.Planes[2].Stride {
		return nil, fmt.Errorf("still: chroma planes of strides %d and %d: %w", p.Planes[1].Stride, p.Planes[2].Stride, hw.ErrUnsupported)
	}
	var out bytes.Buffer
	if err := jpeg.Encode(&out, picture, &jpeg.Options{Quality: quality}); err != nil {
		return nil, fmt.Errorf("still: %w", err)
	}
	return out.Bytes(), nil
}
