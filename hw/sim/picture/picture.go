// Package picture paints the box's own pictures and reads them back: the test
// picture, which measures everything behind it, and the no-signal slate.
//
// The test picture, in sixteenths of its height (h) and width (w):
//
//	0  ┌────────────────────────────────┐
//	   │ 32 cells: frame counter, CRC-8 │
//	1  ├────────────────────────────────┤
//	   │ 32 cells: clock in ms, CRC-8   │
//	2  ├────────────────────────────────┤
//	   │ eight colour bars, 75 %        │
//	9  ├────────────────────────────────┤
//	   │ a white block, 4 s from left   │
//	   │ to right                       │
//	11 ├───────────────────┬────────────┤
//	   │ name, mode,       │ flash      │
//	   │ frame, time       │            │
//	16 └───────────────────┴────────────┘
//	   0                   10          16
//
// A row of cells is one 32-bit word, most significant bit left: 24 bits of
// value, then their CRC-8/I-432-1 (polynomial 0x07, start 0, result XOR 0x55;
// ITU-T I.432.1), so that no row is ever all black or all white. A one is a
// white cell (luma 235), a zero a black one (luma 16); chroma is neutral. Cell
// i covers the columns i·w/32 to (i+1)·w/32. The first row is the frame's
// sequence number, the second the frame's nominal instant, CLOCK_MONOTONIC in
// milliseconds; both modulo 2²⁴. [Read] accepts pictures scaled down as far as
// 64x36 and coded at low rates.
//
// The flash box is white while that instant lies less than 100 ms after a
// whole second of CLOCK_MONOTONIC, else black. [Sound] beeps at 1 kHz during
// the same 100 ms. So at any output
//
//	(time of a beep's onset) − (time of the frame with a given clock)
//
// tells how far sound and picture are apart, to the millisecond.
//
// Memory: frames come from a fixed set of buffers that belongs to the painter.
// A frame is lent until its last Release, also after the painter is forgotten.
package picture

import (
	"fmt"
	"time"

	"encoderd.example/hw"
)

// FlashLength is how long flash and beep last, from each whole second on.
const FlashLength = 100 * time.Millisecond

// Flashing reports whether flash and beep are on at instant at.
func Flashing(at time.Duration) bool { return at%time.Second < FlashLength }

// Levels of luma (ITU-R BT.709, 8 bit, limited range) and neutral chroma.
const (
	black   = 16
	white   = 235
	dark    = 28
	neutral = 128
)

// A rect covers columns x0 to x1 and lines y0 to y1, the ends excluded.
type rect struct{ x0, y0, x1, y1 int }

// A layout says where in a picture the parts of the test picture stand.
type layout struct {
	counter, clock, bars, strip, text, flash rect
}

func layoutOf(w, h int) layout {
	x := func(sixteenths int) int { return sixteenths * w / 16 }
	y := func(sixteenths int) int { return sixteenths * h / 16 }
	return layout{
		counter: rect{0, y(0), w, y(1)},
		clock:   rect{0, y(1), w, y(2)},
		bars:    rect{0, y(2), w, y(9)},
		strip:   rect{0, y(9), w, y(11)},
		text:    rect{0, y(11), x(10), h},
		flash:   rect{x(10), y(11), w, h},
	}
}

// cell returns the columns of cell i of a row.
func (r rect) cell(i int) rect {
	w := r.x1 - r.x0
	return rect{r.x0 + i*w/cells, r.y0, r.x0 + (i+1)*w/cells, r.y1}
}

// middle returns the inner half of r in both directions, at least one sample.
func (r rect) middle() rect {
	w, h := r.x1-r.x0, r.y1-r.y0
	m := rect{r.x0 + w/4, r.y0 + h/4, r.x1 - w/4, r.y1 - h/4}
	m.x1, m.y1 = max(m.x1, m.x0+1), max(m.y1, m.y0+1)
	return m
}

// A Pattern paints the test picture. Its methods are for one goroutine; the
// frames may be released from any.
type Pattern struct {
	mode  hw.Mode
	parts layout
	label label
	pool  *pool
}

// NewPattern returns a painter of pictures of mode, which is NV12 or I420;
// anything else is [hw.ErrUnsupported]. name is shown in the picture.
func NewPattern(mode hw.Mode, name string) (*Pattern, error) {
	mode.FullRange = false
	if err := paintable(mode); err != nil {
		return nil, fmt.Errorf("paint the test picture: %w", err)
	}
	p := &Pattern{mode: mode, parts: layoutOf(mode.Width, mode.Height)}
	p.label = newLabel(p.parts.text, name, mode)
	p.pool = newPool(mode, p.background)
	return p, nil
}

// Mode is the mode of the frames.
func (p *Pattern) Mode() hw.Mode { return p.mode }

// Frame returns the picture of instant stamp with sequence number seq, or nil
// while all buffers are lent. timeOfDay is for people to read. The caller
// releases the frame.
func (p *Pattern) Frame(seq uint32, stamp, timeOfDay time.Duration) *hw.Frame {
	f := p.pool.lend()
	if f == nil {
		return nil
	}
	hw.BeginAccess(f.Planes, hw.Writing)
	defer hw.EndAccess(f.Planes, hw.Writing)
	f.Seq, f.Stamp = seq, stamp
	luma := f.Planes[0]
	paintWord(luma, p.parts.counter, word(seq))
	paintWord(luma, p.parts.clock, word(uint32(stamp/time.Millisecond)))
	paintMover(luma, p.parts.strip, stamp)
	p.label.paint(luma, seq, timeOfDay)
	level := byte(black)
	if Flashing(stamp) {
		level = white
	}
	fillLuma(luma, p.parts.flash, level)
	return f
}

// background paints what is the same in every picture.
func (p *Pattern) background(f *hw.Frame) {
	w, h := p.mode.Width, p.mode.Height
	fillLuma(f.Planes[0], rect{0, 0, w, h}, black)
	fillChroma(f, rect{0, 0, w, h}, neutral, neutral)
	paintBars(f, p.parts.bars)
	fillLuma(f.Planes[0], p.parts.text, dark)
	p.label.paintStatic(f.Planes[0])
}

// paintWord paints one row of cells: its first line, then copies of it.
func paintWord(luma hw.Plane, row rect, bits uint32) {
	if row.y0 == row.y1 {
		return
	}
	for i := range cells {
		level := byte(black)
		if bits>>(cells-1-i)&1 == 1 {
			level = white
		}
		c := row.cell(i)
		fill(luma.Data[row.y0*luma.Stride+c.x0:row.y0*luma.Stride+c.x1], level)
	}
	repeatLine(luma, row)
}

// crossing is the time that the block needs from left to right.
const crossing = 4 * time.Second

func paintMover(luma hw.Plane, strip rect, stamp time.Duration) {
	if strip.y0 == strip.y1 {
		return
	}
	w := strip.x1 - strip.x0
	x := int(int64(stamp%crossing) * int64(w) / int64(crossing))
	line := luma.Data[strip.y0*luma.Stride+strip.x0:][:w]
	fill(line, dark)
	fill(line[x:min(x+max(w/32, 2), w)], white)
	repeatLine(luma, strip)
}

// barColors are the bars from left to right as 75 % red, green and blue.
var barColors = [8][3]bool{
	{true, true, true},
	{true, true, false},
	{false, true, true},
	{false, true, false},
	{true, false, true},
	{true, false, false},
	{false, false, true},
	{false, false, false},
}

func paintBars(f *hw.Frame, r rect) {
	for i, color := range barColors {
		// Even columns, so that bars share no chroma sample.
		bar := rect{i * r.x1 / 8 &^ 1, r.y0, (i + 1) * r.x1 / 8 &^ 1, r.y1}
		if i == len(barColors)-1 {
			bar.x1 = r.x1
		}
		y, cb, cr := ycbcr(color, f.Height)
		fillLuma(f.Planes[0], bar, y)
		fillChroma(f, bar, cb, cr)
	}
}

// ycbcr converts a 75 % colour by the matrix that players assume for pictures
// of that height: ITU-R BT.601 below 720 lines, else BT.709.
func ycbcr(rgb [3]bool, height int) (y, cb, cr byte) {
	kr, kb := 0.2126, 0.0722
	if height < 720 {
		kr, kb = 0.299, 0.114
	}
	var v [3]float64
	for i, on := range rgb {
		if on {
			v[i] = 0.75
		}
	}
	l := kr*v[0] + (1-kr-kb)*v[1] + kb*v[2]
	return byte(16.5 + 219*l), byte(128.5 + 112*(v[2]-l)/(1-kb)), byte(128.5 + 112*(v[0]-l)/(1-kr))
}
