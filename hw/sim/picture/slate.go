package picture

import (
	"fmt"
	"math"
	"time"

	"encoderd.example/hw"
)

// Colours of the slate: one dark blue hue, told apart by luma only.
const (
	slateGround = 34
	slateCb     = 136
	slateCr     = 123
	slateTrack  = 54
	slateDim    = 140
	slateBright = 222
)

// A Slate paints the picture that viewers see while no camera's picture comes
// in: calm and dark, a crossed-out camera, two lines of text, and a bar that
// glides to and fro, so that nobody takes it for a frozen picture. Its methods
// are for one goroutine; the frames may be released from any.
type Slate struct {
	mode  hw.Mode
	unit  float64 // a ninth of the height, or a sixteenth of the width
	lines [2][]byte
	pool  *pool
}

// NewSlate returns a painter of slates of mode, which is NV12 or I420;
// anything else is [hw.ErrUnsupported]. line1 is large ("NO SIGNAL"), line2
// small (the box's name).
func NewSlate(mode hw.Mode, line1, line2 string) (*Slate, error) {
	s, err := newSlate(mode, line1, line2)
	if err != nil {
		return nil, err
	}
	s.pool = newPool(s.mode, s.background)
	return s, nil
}

// NewSharedSlate returns a painter of slates in a pool's buffers, all of which
// must be mapped, so that an encoder can read them where they lie. The pool
// stays the caller's, who closes it after the last frame has been released.
func NewSharedSlate(pool hw.Pool, fps hw.Rate, line1, line2 string) (*Slate, error) {
	l := pool.Layout()
	s, err := newSlate(hw.Mode{Pixel: l.Pixel, Width: l.Width, Height: l.Height, FPS: fps}, line1, line2)
	if err != nil {
		return nil, err
	}
	for i, b := range pool.Buffers() {
		for n := range l.Buffers() {
			if len(b.Mem[n]) < l.Sizes[n] {
				return nil, fmt.Errorf("paint the slate: buffer %d is not mapped: %w", i, hw.ErrUnsupported)
			}
		}
	}
	s.pool = newSharedPool(pool, fps, s.background)
	return s, nil
}

func newSlate(mode hw.Mode, line1, line2 string) (*Slate, error) {
	mode.FullRange = false
	if err := paintable(mode); err != nil {
		return nil, fmt.Errorf("paint the slate: %w", err)
	}
	return &Slate{
		mode:  mode,
		unit:  min(float64(mode.Width)/16, float64(mode.Height)/9),
		lines: [2][]byte{printable(line1), printable(line2)},
	}, nil
}

// Mode is the mode of the frames.
func (s *Slate) Mode() hw.Mode { return s.mode }

// glide is the time that the bar needs to and fro.
const glide = 3200 * time.Millisecond

// Frame returns the slate at instant t, which is also its stamp, or nil while
// all buffers are lent. The caller sets Seq, and releases the frame.
func (s *Slate) Frame(t time.Duration) *hw.Frame {
	f := s.pool.lend()
	if f == nil {
		return nil
	}
	hw.BeginAccess(f.Planes, hw.Writing)
	defer hw.EndAccess(f.Planes, hw.Writing)
	f.Stamp = t
	u := s.unit
	x, y := s.centre()
	y += 2.15 * u
	r, half, bar := 0.035*u, 2.2*u, 0.42*u
	s.clear(f, x, y, half+2*r+1, 2*r+1)
	at := x - (half-bar)*math.Cos(2*math.Pi*float64(t%glide)/float64(glide))
	s.stroke(f, stroke{x - half, y, x + half, y, r}, slateTrack)
	s.stroke(f, stroke{at - bar, y, at + bar, y, r}, slateBright)
	return f
}

func (s *Slate) centre() (x, y float64) {
	return float64(s.mode.Width) / 2, float64(s.mode.Height) / 2
}

// clear paints the ground around a point.
func (s *Slate) clear(f *hw.Frame, x, y, halfWidth, halfHeight float64) {
	fillLuma(f.Planes[0], rect{
		max(int(x-halfWidth), 0), max(int(y-halfHeight), 0),
		min(int(x+halfWidth)+1, s.mode.Width), min(int(y+halfHeight)+1, s.mode.Height),
	}, slateGround)
}

func (s *Slate) stroke(f *hw.Frame, st stroke, level byte) {
	st.draw(f.Planes[0], s.mode.Width, s.mode.Height, slateGround, level)
}

// background paints all but the bar.
func (s *Slate) background(f *hw.Frame) {
	w, h := s.mode.Width, s.mode.Height
	fillLuma(f.Planes[0], rect{0, 0, w, h}, slateGround)
	fillChroma(f, rect{0, 0, w, h}, slateCb, slateCr)
	x, y := s.centre()
	s.camera(f, x, y-1.75*s.unit)
	s.text(f, s.lines[0], y+0.15*s.unit, 0.15*s.unit, slateBright)
	s.text(f, s.lines[1], y+1.3*s.unit, 0.06*s.unit, slateDim)
}

// cameraStrokes draw a camera, seen from its side, in slate units.
var cameraStrokes = [...]stroke{
	{-0.75, -0.42, 0.35, -0.42, 0},
	{0.35, -0.42, 0.35, 0.42, 0},
	{0.35, 0.42, -0.75, 0.42, 0},
	{-0.75, 0.42, -0.75, -0.42, 0},
	{0.35, -0.1, 0.8, -0.36, 0},
	{0.8, -0.36, 0.8, 0.36, 0},
	{0.8, 0.36, 0.35, 0.1, 0},
}

func (s *Slate) camera(f *hw.Frame, x, y float64) {
	u := s.unit
	for _, c := range cameraStrokes {
		s.stroke(f, stroke{x + c.x0*u, y + c.y0*u, x + c.x1*u, y + c.y1*u, 0.05 * u}, slateDim)
	}
	slash := stroke{x - 0.8*u, y - 0.75*u, x + 0.8*u, y + 0.75*u, 0.15 * u}
	slash.erase(f.Planes[0], s.mode.Width, s.mode.Height, slateGround)
	slash.radius = 0.05 * u
	s.stroke(f, slash, slateBright)
}

// text writes a centred line; dot is the distance of the font's dots. Long
// text is made smaller.
func (s *Slate) text(f *hw.Frame, text []byte, y, dot float64, level byte) {
	if len(text) == 0 {
		return
	}
	columns := float64(len(text)*charPitch - 1)
	dot = min(dot, 0.9*float64(s.mode.Width)/columns)
	x, _ := s.centre()
	x -= (columns - 1) / 2 * dot
	y -= (fontHeight - 1) / 2 * dot
	for _, c := range text {
		s.letter(f, glyph(c), x, y, dot, level)
		x += charPitch * dot
	}
}

// letter joins neighbouring dots of a glyph by strokes, which turns dots into
// round handwriting at any size.
func (s *Slate) letter(f *hw.Frame, g [fontWidth]byte, x, y, dot float64, level byte) {
	for col := range fontWidth {
		for row := range fontHeight {
			if !dotAt(g, col, row) {
				continue
			}
			for _, n := range joins(g, col, row) {
				s.stroke(f, stroke{
					x + float64(col)*dot, y + float64(row)*dot,
					x + float64(col+n[0])*dot, y + float64(row+n[1])*dot,
					0.4 * dot,
				}, level)
			}
		}
	}
}

// joins says where strokes go from a dot: to the right, down, and across where
// no dot beside makes the corner; to itself, for a dot that stands alone.
func joins(g [fontWidth]byte, col, row int) [][2]int {
	to := [][2]int{{0, 0}}
	if dotAt(g, col+1, row) {
		to = append(to, [2]int{1, 0})
	}
	if dotAt(g, col, row+1) {
		to = append(to, [2]int{0, 1})
	}
	for _, dx := range []int{-1, 1} {
		if dotAt(g, col+dx, row+1) && !dotAt(g, col+dx, row) && !dotAt(g, col, row+1) {
			to = append(to, [2]int{dx, 1})
		}
	}
	return to
}

func dotAt(g [fontWidth]byte, col, row int) bool {
	return col >= 0 && col < fontWidth && row < fontHeight && g[col]>>row&1 == 1
}
