package picture

import (
	"fmt"
	"strings"
	"time"

	"encoderd.example/hw"
)

// A label is the test picture's text: two lines that stay and two that change.
type label struct {
	at     rect
	scale  int // size of a dot in samples; zero = no room for text
	static [2][]byte
}

const (
	labelLines = 4
	labelChars = 22
	linePitch  = fontHeight + 2
	charPitch  = fontWidth + 1
)

func newLabel(at rect, name string, mode hw.Mode) label {
	l := label{at: at, scale: min(
		(at.y1-at.y0)/(labelLines*linePitch+2),
		(at.x1-at.x0)/(labelChars*charPitch+2),
	)}
	l.static[0] = clip(printable(name), labelChars)
	l.static[1] = clip(printable(strings.ToUpper(fmt.Sprintf("%dx%d %.4g fps %s",
		mode.Width, mode.Height, mode.FPS.Float(), mode.Pixel))), labelChars)
	return l
}

func clip(text []byte, n int) []byte { return text[:min(len(text), n)] }

func (l label) paintStatic(luma hw.Plane) {
	for i, text := range l.static {
		l.line(luma, i, text)
	}
}

// paint writes the lines that change. It allocates nothing.
func (l label) paint(luma hw.Plane, seq uint32, timeOfDay time.Duration) {
	frame := [...]byte{'F', 'R', 'A', 'M', 'E', ' ', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	digits(frame[6:], uint64(seq))
	l.line(luma, 2, frame[:])

	clock := [...]byte{0, 0, ':', 0, 0, ':', 0, 0, '.', 0, 0, 0}
	ms := uint64(timeOfDay / time.Millisecond)
	digits(clock[0:2], ms/3600000)
	digits(clock[3:5], ms/60000%60)
	digits(clock[6:8], ms/1000%60)
	digits(clock[9:12], ms%1000)
	l.line(luma, 3, clock[:])
}

// digits fills b with the last decimal digits of v.
func digits(b []byte, v uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = '0' + byte(v%10)
		v /= 10
	}
}

// line writes text as line n: each row of dots once, then copies of it.
func (l label) line(luma hw.Plane, n int, text []byte) {
	s := l.scale
	if s == 0 {
		return
	}
	x0 := l.at.x0 + 2*s
	y0 := l.at.y0 + (2+n*linePitch)*s
	x1 := x0 + len(text)*charPitch*s
	for row := range fontHeight {
		r := rect{x0, y0 + row*s, x1, y0 + (row+1)*s}
		line := luma.Data[r.y0*luma.Stride+x0 : r.y0*luma.Stride+x1]
		fill(line, dark)
		for i, c := range text {
			paintDots(line[i*charPitch*s:], glyph(c), row, s)
		}
		repeatLine(luma, r)
	}
}

func paintDots(line []byte, g [fontWidth]byte, row, scale int) {
	for col, dots := range g {
		if dots>>row&1 == 1 {
			fill(line[col*scale:(col+1)*scale], white)
		}
	}
}
