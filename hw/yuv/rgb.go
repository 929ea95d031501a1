package yuv

import (
	"encoding/binary"
	"fmt"
	"math"

	"encoderd.example/hw"
)

// A mixer makes 4:2:0 pictures of RGB ones of the same size. A pixel is three
// look-ups: each of its components has a table of words that hold what it adds
// to luma, Cb and Cr, so that the sum of three words is the whole pixel:
//
//	63        42        21         0
//	┌──────────┬─────────┬─────────┐
//	│ luma·2¹³ │ Cr·2⁹   │ Cb·2⁹   │
//	└──────────┴─────────┴─────────┘
//
// The lanes of chroma have room for the sum of eight pixels (1 2 1 across, of
// two lines), which is what a co-sited sample is made of. Luma overflows at the
// top meanwhile, where nobody looks.
type mixer struct {
	src    hw.Mode
	out    *hw.Frame
	tables [3]*mixTable // of the components as they stand in the pixel
	sums   []uint64     // of the pixels of two lines, one above the other
	copied int          // bytes written a picture
}

type mixTable [256]uint64

// Where the lanes of a pixel begin, and how many bits of each are fraction.
const (
	crLane, lumaLane         = 21, 42
	chromaFraction, lumaFrac = 9, 13
	chromaSum                = 3 // bits more in a sum of eight
	laneMask                 = 1<<21 - 1
)

// newMixer returns the mixer from src, an RGB mode, to the format, range and
// matrix of dst.
func newMixer(src, dst hw.Mode) (*mixer, error) {
	dst.Width, dst.Height = src.Width, src.Height
	out, err := hw.NewMemoryFrame(dst, nil)
	if err != nil {
		return nil, fmt.Errorf("convert to %s: %w", dst, err)
	}
	m := &mixer{src: src, out: out, sums: make([]uint64, src.Width)}
	for i, c := range mixes(dst.Matrix, dst.FullRange) {
		m.tables[i] = c.table(levelsOf(src, i))
	}
	if src.Pixel == hw.BGR24 {
		m.tables[0], m.tables[2] = m.tables[2], m.tables[0]
	}
	for _, p := range out.Planes {
		m.copied += len(p.Data)
	}
	return m, nil
}

// A mix is what a component of RGB, 0 to 1, adds to luma, Cb and Cr, and what
// stands there anyway.
type mix struct{ luma, cb, cr, black, grey float64 }

// mixes returns the mixes of red, green and blue (ITU-R BT.601-7, 2.5.1 and
// 3.5; BT.709-6, 3.2 to 3.4; for full range ITU-T T.871, 7). Green carries what
// does not depend on the pixel.
func mixes(matrix hw.Matrix, full bool) [3]mix {
	r, b := 0.2126, 0.0722
	if matrix == hw.BT601 {
		r, b = 0.299, 0.114
	}
	g := 1 - r - b
	black, white, swing := 16.0, 219.0, 224.0
	if full {
		black, white, swing = 0, 255, 255
	}
	cb, cr := swing/(2*(1-b)), swing/(2*(1-r))
	return [3]mix{
		{luma: white * r, cb: -cb * r, cr: swing / 2},
		{luma: white * g, cb: -cb * g, cr: -cr * g, black: black + 0.5, grey: 128 + 0.5},
		{luma: white * b, cb: swing / 2, cr: -cr * b},
	}
}

// levelsOf returns the largest value of a component of src, and the values that
// are none and all of it. What limited range has beyond is cut.
func levelsOf(src hw.Mode, component int) (largest int, none, all float64) {
	largest = 255
	if src.Pixel == hw.RGB565 {
		largest = [3]int{31, 63, 31}[component]
	}
	if src.FullRange {
		return largest, 0, float64(largest)
	}
	return largest, 16.0 / 255 * float64(largest), 235.0 / 255 * float64(largest)
}

func (c mix) table(largest int, none, all float64) *mixTable {
	t := new(mixTable)
	for v := range t[:largest+1] {
		x := min(max((float64(v)-none)/(all-none), 0), 1)
		luma := math.Round((c.luma*x + c.black) * (1 << lumaFrac))
		cb := math.Round((c.cb*x + c.grey) * (1 << chromaFraction))
		cr := math.Round((c.cr*x + c.grey) * (1 << chromaFraction))
		// Lanes below zero borrow, and the sum of the pixel pays back.
		t[v] = uint64(int64(luma)<<lumaLane + int64(cr)<<crLane + int64(cb))
	}
	return t
}

// mix returns f as 4:2:0, in memory of the mixer's. The last line of an odd
// count goes with itself.
func (m *mixer) mix(f *hw.Frame) *hw.Frame {
	from, luma := f.Planes[0], m.out.Planes[0]
	for y := 0; y < m.src.Height; y += 2 {
		clear(m.sums)
		for _, l := range [2]int{y, min(y+1, m.src.Height-1)} {
			m.addLine(luma.Data[l*luma.Stride:], from.Data[l*from.Stride:])
		}
		m.writeChroma(y / 2)
	}
	return m.out
}

// addLine looks the pixels of a line up, writes their luma and adds them to the
// sums.
func (m *mixer) addLine(luma, line []byte) {
	first, second, third, sums := m.tables[0], m.tables[1], m.tables[2], m.sums
	luma = luma[:len(sums)]
	if m.src.Pixel == hw.RGB565 {
		line = line[:2*len(sums)]
		for i := range sums {
			px := binary.LittleEndian.Uint16(line[2*i:])
			v := first[px>>11] + second[px>>5&63] + third[px&31]
			luma[i] = byte(v >> (lumaLane + lumaFrac))
			sums[i] += v
		}
		return
	}
	line = line[:3*len(sums)]
	for i := range sums {
		v := first[line[0]] + second[line[1]] + third[line[2]]
		luma[i] = byte(v >> (lumaLane + lumaFrac))
		sums[i] += v
		line = line[3:]
	}
}

// writeChroma writes line y of chroma of the sums. Beyond the edges the picture
// goes on as it ends.
func (m *mixer) writeChroma(y int) {
	cb, cr, step := m.chroma(y)
	left, sums := m.sums[0], m.sums
	for at := 0; len(sums) > 0; at += step {
		here, right := sums[0], sums[0]
		if len(sums) > 1 {
			right = sums[1]
		}
		sum := left + 2*here + right
		cb[at], cr[at] = chromaOf(sum), chromaOf(sum>>crLane)
		left, sums = right, sums[min(2, len(sums)):]
	}
}

// chroma returns where line y of Cb and Cr begins, and the distance from sample
// to sample.
func (m *mixer) chroma(y int) (cb, cr []byte, step int) {
	line := func(plane int) []byte { return m.out.Planes[plane].Data[y*m.out.Planes[plane].Stride:] }
	if m.out.Pixel == hw.NV12 {
		return line(1), line(1)[1:], 2
	}
	return line(1), line(2), 1
}

// chromaOf returns the mean in the lowest lane. Full-range blue and red come to
// 255.5 and half more, for rounding.
func chromaOf(sum uint64) byte {
	return byte(min(sum&laneMask>>(chromaFraction+chromaSum), 255))
}
