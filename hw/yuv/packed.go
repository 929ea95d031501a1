package yuv

import (
	"encoding/binary"

	"encoderd.example/hw"
)

// unpacks reports whether the pair is YUYV or UYVY to 4:2:0 of the same even
// size: what USB cameras and HDMI bridges give and the encoder takes. It has a
// way of its own, which reads the source once instead of two or three times.
func (c *Converter) unpacks() bool {
	packed := c.src.Pixel == hw.YUYV || c.src.Pixel == hw.UYVY
	return packed && c.src.Width == c.dst.Width && c.src.Height == c.dst.Height
}

// unpack makes the picture two lines at a time.
func (c *Converter) unpack(f *hw.Frame) {
	w, from, luma := c.src.Width, f.Planes[0], c.planes[0]
	first := layouts[c.src.Pixel][0][0].offset
	lumaRange := rangeOf(c.src.FullRange, c.dst.FullRange, true)
	chromaRange := rangeOf(c.src.FullRange, c.dst.FullRange, false)
	for y := 0; y < c.src.Height; y += 2 {
		a, b := from.Data[y*from.Stride:][:2*w], from.Data[(y+1)*from.Stride:][:2*w]
		ya, yb := luma.Data[y*luma.Stride:][:w], luma.Data[(y+1)*luma.Stride:][:w]
		uv := c.pairs(y / 2)
		unpackPair(ya, yb, uv, a, b, first)
		lumaRange.adjust(ya)
		lumaRange.adjust(yb)
		chromaRange.adjust(uv)
		c.part(y/2, uv)
	}
}

// pairs returns where line y of CbCr pairs is to be written: into the picture,
// or of I420 into scratch.
func (c *Converter) pairs(y int) []byte {
	if c.dst.Pixel == hw.NV12 {
		return c.planes[1].Data[y*c.planes[1].Stride:][:c.dst.Width]
	}
	return c.line[:c.dst.Width]
}

// part brings line y of CbCr pairs into the planes of I420.
func (c *Converter) part(y int, uv []byte) {
	if c.dst.Pixel == hw.NV12 {
		return
	}
	u, v := c.planes[1], c.planes[2]
	everySecond(u.Data[y*u.Stride:][:len(uv)/2], uv)
	everySecond(v.Data[y*v.Stride:][:len(uv)/2], uv[1:])
}

// unpackPairPortable is unpackPair in plain Go.
func unpackPairPortable(ya, yb, uv, a, b []byte, first int) {
	luma, chroma := 8*uint(first), 8-8*uint(first)
	for len(a) >= 16 && len(b) >= 16 && len(ya) >= 8 && len(yb) >= 8 && len(uv) >= 8 {
		a0, a1 := binary.LittleEndian.Uint64(a), binary.LittleEndian.Uint64(a[8:])
		b0, b1 := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		binary.LittleEndian.PutUint64(ya, squeeze(a0>>luma)|squeeze(a1>>luma)<<32)
		binary.LittleEndian.PutUint64(yb, squeeze(b0>>luma)|squeeze(b1>>luma)<<32)
		c0 := ((a0>>chroma)&evens + (b0>>chroma)&evens + ones) >> 1
		c1 := ((a1>>chroma)&evens + (b1>>chroma)&evens + ones) >> 1
		binary.LittleEndian.PutUint64(uv, squeeze(c0)|squeeze(c1)<<32)
		a, b, ya, yb, uv = a[16:], b[16:], ya[8:], yb[8:], uv[8:]
	}
	for i := range ya {
		ya[i], yb[i] = a[2*i+first], b[2*i+first]
		uv[i] = byte((int(a[2*i+1-first]) + int(b[2*i+1-first]) + 1) >> 1)
	}
}
