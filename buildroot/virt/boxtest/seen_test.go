//go:build box

package boxtest

import (
	_ "embed"
	"strconv"
	"strings"
	"testing"

	"encoderd.example/stream/streamtest/peer"
)

// What vivid writes into its pictures: a line of text in cells of 8×16 pixels,
// " 00:01:02:345 678 ", white on black. The number behind the time counts the
// camera's pictures.
const (
	cellWidth, cellHeight = 8, 16
	textX, textY          = 16, 16
	cells                 = 24
	numberCell            = 14
)

// glyphs are the digits of vivid's font (VGA 8×16) and the colon, each a line
// with its character and sixteen lines of picture.
//
//go:embed testdata/digits.txt
var glyphs string

type glyph struct {
	char byte
	lit  [cellWidth * cellHeight]bool
}

func font(t *testing.T) []glyph {
	t.Helper()
	lines := strings.Fields(glyphs)
	if len(lines) != 11*(1+cellHeight) {
		t.Fatalf("the font has %d lines", len(lines))
	}
	var all []glyph
	for ; len(lines) > 0; lines = lines[1+cellHeight:] {
		g := glyph{char: lines[0][0]}
		for i, c := range strings.Join(lines[1:1+cellHeight], "") {
			g.lit[i] = c == '#'
		}
		all = append(all, g)
	}
	return all
}

// difference is how many pixels of the cell are wrong, greys in parts.
func (g glyph) difference(row []byte, cell int) float64 {
	const black, white = 16, 235
	wrong := 0
	for y := range cellHeight {
		for x := range cellWidth {
			v := min(max(int(row[y*cells*cellWidth+cell*cellWidth+x]), black), white)
			if g.lit[y*cellWidth+x] {
				wrong += white - v
			} else {
				wrong += v - black
			}
		}
	}
	return float64(wrong) / (white - black)
}

// char returns what stands in a cell, 0 if nothing that can be read for sure.
func char(font []glyph, row []byte, cell int) byte {
	const good, apart = 14, 2 // pixels of 128
	best, second := font[0], 1e9
	least := 1e9
	for _, g := range font {
		switch d := g.difference(row, cell); {
		case d < least:
			best, least, second = g, d, least
		case d < second:
			second = d
		}
	}
	if least > good || second-least < apart {
		return 0
	}
	return best.char
}

// What stands for a picture's number in a list of them.
const (
	noNumber   = -1 // the slate, for example
	sameNumber = -2 // the camera has given a number twice: vivid does when the host gives it no time
)

// caption reads the camera's clock and count out of the text's row. A picture
// without them, such as the slate, has noNumber; a clock that is not sharp is "".
func caption(font []glyph, row []byte) (clock string, n int) {
	var text [cells]byte
	for cell := range text {
		text[cell] = char(font, row, cell)
	}
	if text[3] != ':' || text[6] != ':' || text[9] != ':' {
		return "", noNumber
	}
	digits, _, _ := strings.Cut(string(text[numberCell:]), "\x00")
	n, err := strconv.Atoi(digits)
	if err != nil {
		return "", noNumber
	}
	clock = string(text[1 : numberCell-1])
	if strings.Contains(clock, "\x00") {
		return "", n
	}
	return clock, n
}

// pictures returns each picture of a file as luma of a part of it, decoded by
// ffmpeg, which fails at damaged ones.
func pictures(t *testing.T, file, filter string, size int) [][]byte {
	t.Helper()
	raw := peer.Output(t, "ffmpeg", "-v", "error", "-err_detect", "explode", "-i", file, "-map", "0:v",
		"-vf", "extractplanes=y,"+filter, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "gray", "-")
	if len(raw)%size != 0 {
		t.Fatalf("%d bytes are no pictures of %d", len(raw), size)
	}
	var all [][]byte
	for ; len(raw) > 0; raw = raw[size:] {
		all = append(all, raw[:size])
	}
	return all
}

// numbers reads the camera's count out of each picture of a file.
func numbers(t *testing.T, file string) []int {
	t.Helper()
	font := font(t)
	var all []int
	before, last := "", noNumber
	for _, row := range pictures(t, file, "crop="+strconv.Itoa(cells*cellWidth)+":16:16:16", cells*cellWidth*cellHeight) {
		clock, n := caption(font, row)
		if n >= 0 && n == last && clock != "" && before != "" && clock != before {
			all = append(all, sameNumber)
		} else {
			all = append(all, n)
		}
		before, last = clock, n
	}
	return all
}

// stamps returns the presentation times of a stream's packets, in seconds.
func stamps(t *testing.T, file, stream string) []float64 {
	t.Helper()
	out := peer.Output(t, "ffprobe", "-v", "error", "-select_streams", stream, "-show_entries", "packet=pts_time", "-of", "csv=p=0", file)
	var all []float64
	for line := range strings.Lines(string(out)) {
		s, err := strconv.ParseFloat(strings.Trim(line, ",\n"), 64)
		if err != nil {
			t.Fatalf("ffprobe says %q: %v", line, err)
		}
		all = append(all, s)
	}
	return all
}
