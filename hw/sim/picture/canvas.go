package picture

import (
	"fmt"
	"math"

	"encoderd.example/hw"
)

func paintable(m hw.Mode) error {
	if m.Pixel != hw.NV12 && m.Pixel != hw.I420 {
		return fmt.Errorf("%s: only NV12 and I420 are painted: %w", m, hw.ErrUnsupported)
	}
	if m.Width < 2 || m.Height < 2 {
		return fmt.Errorf("%s: smaller than 2x2: %w", m, hw.ErrUnsupported)
	}
	return nil
}

// fill sets all of b to v; doubling copies are several times faster than a
// loop over bytes.
func fill(b []byte, v byte) {
	if len(b) == 0 {
		return
	}
	b[0] = v
	for n := 1; n < len(b); n *= 2 {
		copy(b[n:], b[:n])
	}
}

// fillPairs sets b to cb, cr, cb, cr, …
func fillPairs(b []byte, cb, cr byte) {
	if len(b) < 2 {
		return
	}
	b[0], b[1] = cb, cr
	for n := 2; n < len(b); n *= 2 {
		copy(b[n:], b[:n])
	}
}

// repeatLine copies the first line of r to its other lines.
func repeatLine(p hw.Plane, r rect) {
	first := p.Data[r.y0*p.Stride+r.x0 : r.y0*p.Stride+r.x1]
	for y := r.y0 + 1; y < r.y1; y++ {
		copy(p.Data[y*p.Stride+r.x0:], first)
	}
}

func fillLuma(p hw.Plane, r rect, level byte) {
	if r.x0 >= r.x1 || r.y0 >= r.y1 {
		return
	}
	fill(p.Data[r.y0*p.Stride+r.x0:r.y0*p.Stride+r.x1], level)
	repeatLine(p, r)
}

// fillChroma colours every chroma sample that r touches. r is in luma samples.
func fillChroma(f *hw.Frame, r rect, cb, cr byte) {
	c := rect{r.x0 / 2, r.y0 / 2, (r.x1 + 1) / 2, (r.y1 + 1) / 2}
	if c.x0 >= c.x1 || c.y0 >= c.y1 {
		return
	}
	if f.Pixel == hw.NV12 {
		p := f.Planes[1]
		fillPairs(p.Data[c.y0*p.Stride+2*c.x0:c.y0*p.Stride+2*c.x1], cb, cr)
		repeatLine(p, rect{2 * c.x0, c.y0, 2 * c.x1, c.y1})
		return
	}
	fillLuma(f.Planes[1], c, cb)
	fillLuma(f.Planes[2], c, cr)
}

// A stroke is a line with round ends and smooth edges. Lengths are in luma
// samples.
type stroke struct{ x0, y0, x1, y1, radius float64 }

// draw lights the plane, which is ground or brighter, up to level. Strokes may
// overlap without a seam. w and h are the plane's size.
func (s stroke) draw(p hw.Plane, w, h int, ground, level byte) {
	rise := float64(level) - float64(ground)
	s.each(w, h, func(x, y int, cover float64) {
		at := y*p.Stride + x
		p.Data[at] = max(p.Data[at], ground+byte(rise*cover+0.5))
	})
}

// erase takes the plane back to ground.
func (s stroke) erase(p hw.Plane, w, h int, ground byte) {
	s.each(w, h, func(x, y int, cover float64) {
		at := y*p.Stride + x
		old := float64(p.Data[at])
		p.Data[at] = byte(old + (float64(ground)-old)*cover + 0.5)
	})
}

// each calls do with the samples that the stroke covers and how much of each.
func (s stroke) each(w, h int, do func(x, y int, cover float64)) {
	reach := s.radius + 1
	left, right := max(int(min(s.x0, s.x1)-reach), 0), min(int(max(s.x0, s.x1)+reach)+1, w)
	top, bottom := max(int(min(s.y0, s.y1)-reach), 0), min(int(max(s.y0, s.y1)+reach)+1, h)
	for y := top; y < bottom; y++ {
		for x := left; x < right; x++ {
			cover := s.radius + 0.5 - s.distance(float64(x)+0.5, float64(y)+0.5)
			if cover > 0 {
				do(x, y, min(cover, 1))
			}
		}
	}
}

// distance is how far the point lies from the stroke's middle line.
func (s stroke) distance(x, y float64) float64 {
	dx, dy := s.x1-s.x0, s.y1-s.y0
	along := 0.0
	if length := dx*dx + dy*dy; length > 0 {
		along = min(max(((x-s.x0)*dx+(y-s.y0)*dy)/length, 0), 1)
	}
	x, y = x-s.x0-along*dx, y-s.y0-along*dy
	return math.Sqrt(x*x + y*y)
}
