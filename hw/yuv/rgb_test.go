package yuv_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"encoderd.example/hw"
	"encoderd.example/hw/yuv"
)

var rgbFormats = []hw.PixelFormat{hw.RGB24, hw.BGR24, hw.RGB565}

// bars are the colours of 100 % bars and what BT.709-6, 3.4 and BT.601-7, 2.5.3
// make of them in limited range.
var bars = []struct {
	name     string
	r, g, b  byte
	hd, sd   [3]byte // Y, Cb, Cr of BT.709 and BT.601
	fullHigh [3]byte // of BT.709 in full range
}{
	{"white", 255, 255, 255, [3]byte{235, 128, 128}, [3]byte{235, 128, 128}, [3]byte{255, 128, 128}},
	{"yellow", 255, 255, 0, [3]byte{219, 16, 138}, [3]byte{210, 16, 146}, [3]byte{237, 0, 140}},
	{"cyan", 0, 255, 255, [3]byte{188, 154, 16}, [3]byte{170, 166, 16}, [3]byte{201, 157, 0}},
	{"green", 0, 255, 0, [3]byte{173, 42, 26}, [3]byte{145, 54, 34}, [3]byte{182, 29, 12}},
	{"magenta", 255, 0, 255, [3]byte{78, 214, 230}, [3]byte{107, 202, 222}, [3]byte{73, 226, 243}},
	{"red", 255, 0, 0, [3]byte{63, 102, 240}, [3]byte{82, 90, 240}, [3]byte{54, 99, 255}},
	{"blue", 0, 0, 255, [3]byte{32, 240, 118}, [3]byte{41, 240, 110}, [3]byte{18, 255, 116}},
	{"black", 0, 0, 0, [3]byte{16, 128, 128}, [3]byte{16, 128, 128}, [3]byte{0, 128, 128}},
}

// paint fills f with one colour.
func paint(f *hw.Frame, r, g, b byte) {
	p := f.Planes[0]
	for y := range f.Height {
		line := p.Data[y*p.Stride:]
		for x := range f.Width {
			switch f.Pixel {
			case hw.RGB24:
				line[3*x], line[3*x+1], line[3*x+2] = r, g, b
			case hw.BGR24:
				line[3*x], line[3*x+1], line[3*x+2] = b, g, r
			default:
				binary.LittleEndian.PutUint16(line[2*x:], uint16(r>>3)<<11|uint16(g>>2)<<5|uint16(b>>3))
			}
		}
	}
}

func near(a, b byte, by int) bool { return int(a)-int(b) <= by && int(b)-int(a) <= by }

func TestColourBarsAreWhatTheRecommendationsSay(t *testing.T) {
	for _, c := range []struct {
		name          string
		width, height int
		src, dst      hw.Mode
		matrix        hw.Matrix
		of            func(i int) [3]byte
	}{
		{"720 lines are of BT.709", 64, 720, hw.Mode{FullRange: true}, hw.Mode{}, hw.BT709, func(i int) [3]byte { return bars[i].hd }},
		{"480 lines are of BT.601", 64, 480, hw.Mode{FullRange: true}, hw.Mode{}, hw.BT601, func(i int) [3]byte { return bars[i].sd }},
		{"480 lines of BT.709 if it is wanted", 64, 480, hw.Mode{FullRange: true}, hw.Mode{Matrix: hw.BT709}, hw.BT709, func(i int) [3]byte { return bars[i].hd }},
		{"full range", 64, 720, hw.Mode{FullRange: true}, hw.Mode{FullRange: true}, hw.BT709, func(i int) [3]byte { return bars[i].fullHigh }},
	} {
		for _, pixel := range rgbFormats {
			for i, bar := range bars {
				src, dst := c.src, c.dst
				src.Pixel, src.Width, src.Height = pixel, c.width, c.height
				dst.Pixel, dst.Width, dst.Height = hw.I420, c.width, c.height
				y, cb, cr, m := flatColour(t, src, dst, bar.r, bar.g, bar.b)
				want := c.of(i)
				if !near(y, want[0], 1) || !near(cb, want[1], 1) || !near(cr, want[2], 1) || m != c.matrix {
					t.Errorf("%s, %s %s: %d %d %d by %s, want %v by %s", c.name, pixel, bar.name, y, cb, cr, m, want, c.matrix)
				}
			}
		}
	}
}

// flatColour converts a picture of one colour and checks that it is one still.
func flatColour(t *testing.T, src, dst hw.Mode, r, g, b byte) (y, cb, cr byte, m hw.Matrix) {
	t.Helper()
	conv, err := yuv.New(src, dst)
	if err != nil {
		t.Fatal(err)
	}
	f, err := hw.NewMemoryFrame(src, nil)
	if err != nil {
		t.Fatal(err)
	}
	paint(f, r, g, b)
	got, err := conv.Convert(f)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range got.Planes {
		lines, n := dst.Height, dst.Width
		if i > 0 {
			lines, n = lines/2, n/2
		}
		for l := range lines {
			for x, v := range p.Data[l*p.Stride:][:n] {
				if v != p.Data[0] {
					t.Fatalf("%s: plane %d is %d at %d,%d and %d at its begin", src, i, v, x, l, p.Data[0])
				}
			}
		}
	}
	return got.Planes[0].Data[0], got.Planes[1].Data[0], got.Planes[2].Data[0], got.Mode.Matrix
}

// TestEveryColourOfRGBIsWithinOneOfTheEquations goes through a cube of colours.
func TestEveryColourOfRGBIsWithinOneOfTheEquations(t *testing.T) {
	for _, c := range []struct {
		full   bool
		matrix hw.Matrix
		kr, kb float64
	}{{true, hw.BT709, 0.2126, 0.0722}, {false, hw.BT709, 0.2126, 0.0722}, {true, hw.BT601, 0.299, 0.114}, {false, hw.BT601, 0.299, 0.114}} {
		src := hw.Mode{Pixel: hw.RGB24, Width: 2, Height: 2, FullRange: c.full}
		conv, err := yuv.New(src, hw.Mode{Pixel: hw.I420, Width: 2, Height: 2, Matrix: c.matrix})
		if err != nil {
			t.Fatal(err)
		}
		f, err := hw.NewMemoryFrame(src, nil)
		if err != nil {
			t.Fatal(err)
		}
		level := func(v int) float64 {
			if c.full {
				return float64(v) / 255
			}
			return min(max(float64(v-16)/219, 0), 1)
		}
		for n := range 18 * 18 * 18 {
			r, g, b := n%18*15, n/18%18*15, n/324*15
			paint(f, byte(r), byte(g), byte(b))
			got, err := conv.Convert(f)
			if err != nil {
				t.Fatal(err)
			}
			y := c.kr*level(r) + (1-c.kr-c.kb)*level(g) + c.kb*level(b)
			want := [3]float64{16 + 219*y, 128 + 112*(level(b)-y)/(1-c.kb), 128 + 112*(level(r)-y)/(1-c.kr)}
			for i, v := range want {
				if d := float64(got.Planes[i].Data[0]) - v; math.Abs(d) > 0.51 {
					t.Fatalf("%s, full range %v: plane %d of %d,%d,%d is %d, want %.2f", c.matrix, c.full, i, r, g, b, got.Planes[i].Data[0], v)
				}
			}
		}
	}
}

func TestRGBMatchesSwscale(t *testing.T) {
	for _, c := range []struct {
		pixel hw.PixelFormat
		w, h  int
		mean  float64 // most that luma and chroma may be off on average
	}{
		{hw.RGB24, 1280, 720, 0.35},
		{hw.BGR24, 1280, 720, 0.35},
		{hw.RGB565, 1280, 720, 0.35},
		{hw.RGB24, 638, 358, 0.35},
		{hw.BGR24, 320, 180, 0.35},
	} {
		t.Run(fmt.Sprintf("%s %dx%d", c.pixel, c.w, c.h), func(t *testing.T) {
			src := hw.Mode{Pixel: c.pixel, Width: c.w, Height: c.h, FullRange: true}
			raw := scene(t, src)
			conv, err := yuv.New(src, hw.Mode{Pixel: hw.I420, Width: c.w, Height: c.h})
			if err != nil {
				t.Fatal(err)
			}
			got, err := conv.Convert(frame(t, src, raw))
			if err != nil {
				t.Fatal(err)
			}
			matrix := "bt709"
			if got.Mode.Matrix == hw.BT601 {
				matrix = "bt601"
			}
			pixel := c.pixel
			if pixel == hw.RGB565 { // swscale takes 31 for 248, not for 255
				pixel, raw = hw.RGB24, spread565(raw)
			}
			// 4:4:4 first: of RGB itself swscale takes every second pixel only.
			want := ffmpeg(t, raw, "-f", "rawvideo", "-s", fmt.Sprintf("%dx%d", c.w, c.h), "-pix_fmt", pixNames[pixel], "-i", "-",
				"-vf", "scale=flags=area+accurate_rnd+full_chroma_int+full_chroma_inp:out_color_matrix="+matrix+":out_range=limited,format=yuv444p,"+
					"scale=flags=area+accurate_rnd+full_chroma_int:out_h_chr_pos=0:out_v_chr_pos=128",
				"-pix_fmt", "yuv420p", "-f", "rawvideo", "-")
			have := flat(got)
			if len(have) != len(want) {
				t.Fatalf("picture of %d bytes, swscale makes %d", len(have), len(want))
			}
			compare(t, "luma", have[:c.w*c.h], want[:c.w*c.h], c.mean)
			compare(t, "chroma", have[c.w*c.h:], want[c.w*c.h:], c.mean)
		})
	}
}

// spread565 makes RGB24 of RGB565.
func spread565(words []byte) (rgb []byte) {
	for i := 0; i < len(words); i += 2 {
		v := int(binary.LittleEndian.Uint16(words[i:]))
		rgb = append(rgb, byte((v>>11*255+15)/31), byte((v>>5&63*255+31)/63), byte((v&31*255+15)/31))
	}
	return rgb
}

func compare(t *testing.T, what string, have, want []byte, mean float64) {
	t.Helper()
	sum, most := 0, 0
	for i := range have {
		d := int(have[i]) - int(want[i])
		sum, most = sum+max(d, -d), max(most, d, -d)
	}
	off := float64(sum) / float64(len(have))
	t.Logf("%s is off by %.3f on average, %d at most", what, off, most)
	if off > mean || most > 2 {
		t.Errorf("%s is off by %.3f on average, %d at most; want %.2f and 2", what, off, most, mean)
	}
}

// TestRGBOfOddSizesAndWideLinesIsTheSame compares padded lines and odd sizes
// with a plain even picture of the same colours.
func TestRGBOfOddSizesAndWideLinesIsTheSame(t *testing.T) {
	for _, pixel := range rgbFormats {
		for _, size := range [][2]int{{1, 1}, {3, 5}, {17, 9}, {33, 31}} {
			src := hw.Mode{Pixel: pixel, Width: size[0], Height: size[1], FullRange: true}
			tight, err := hw.NewMemoryFrame(src, nil)
			if err != nil {
				t.Fatal(err)
			}
			for i := range tight.Planes[0].Data {
				tight.Planes[0].Data[i] = byte(37 * i)
			}
			wide := hw.NewFrame(nil)
			p := tight.Planes[0]
			padded := hw.Plane{Stride: p.Stride + 13, FD: -1}
			for y := range src.Height {
				padded.Data = append(padded.Data, p.Data[y*p.Stride:][:p.Stride]...)
				if y+1 < src.Height {
					padded.Data = append(padded.Data, "not a picture"...)
				}
			}
			wide.Mode, wide.Planes = src, []hw.Plane{padded}
			dst := hw.Mode{Pixel: hw.NV12, Width: 34, Height: 32}
			var made [2][]byte
			for i, f := range []*hw.Frame{tight, wide} {
				conv, err := yuv.New(src, dst)
				if err != nil {
					t.Fatal(err)
				}
				got, err := conv.Convert(f)
				if err != nil {
					t.Fatal(err)
				}
				made[i] = flat(got)
			}
			if string(made[0]) != string(made[1]) {
				t.Errorf("%s: padding shows in the picture", src)
			}
		}
	}
}

func TestColourOfAnEdgeStandsAtTheLeftPixel(t *testing.T) {
	src := hw.Mode{Pixel: hw.RGB24, Width: 8, Height: 2, FullRange: true}
	f, err := hw.NewMemoryFrame(src, nil)
	if err != nil {
		t.Fatal(err)
	}
	for y := range 2 {
		for x := 4; x < 8; x++ { // black | blue
			f.Planes[0].Data[y*24+3*x+2] = 255
		}
	}
	conv, err := yuv.New(src, hw.Mode{Pixel: hw.I420, Width: 8, Height: 2})
	if err != nil {
		t.Fatal(err)
	}
	got, err := conv.Convert(f)
	if err != nil {
		t.Fatal(err)
	}
	// The third sample stands at the first blue pixel and takes a quarter of
	// the black one beside it.
	if cb := got.Planes[1].Data[:4]; cb[0] != 128 || cb[1] != 128 || cb[2] != 128+84 || cb[3] != 240 {
		t.Errorf("Cb is %v, want 128 128 212 240", cb)
	}
}
