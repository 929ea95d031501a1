package yuv_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"testing"

	"encoderd.example/hw"
	"encoderd.example/hw/yuv"
)

var pixNames = map[hw.PixelFormat]string{
	hw.NV12: "nv12", hw.I420: "yuv420p", hw.YUYV: "yuyv422", hw.I422: "yuv422p", hw.UYVY: "uyvy422",
	hw.NV24: "nv24", hw.RGB24: "rgb24", hw.BGR24: "bgr24", hw.RGB565: "rgb565le",
}

// ffmpeg runs the peer that conversions are compared with.
func ffmpeg(tb testing.TB, in []byte, args ...string) []byte {
	tb.Helper()
	path, err := exec.LookPath("ffmpeg")
	if err != nil {
		tb.Fatal("ffmpeg: install it, make test does")
	}
	var out, msg bytes.Buffer
	cmd := exec.CommandContext(tb.Context(), path, append([]string{"-v", "error"}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &msg
	if err := cmd.Run(); err != nil {
		tb.Fatalf("ffmpeg %q: %v: %s", args, err, &msg)
	}
	return out.Bytes()
}

// scene returns a picture with structure in all planes.
func scene(tb testing.TB, m hw.Mode) []byte {
	tb.Helper()
	return ffmpeg(tb, nil, "-f", "lavfi", "-i", fmt.Sprintf("testsrc2=s=%dx%d,gblur=sigma=1.2", m.Width, m.Height),
		"-frames:v", "1", "-pix_fmt", pixNames[m.Pixel], "-f", "rawvideo", "-")
}

// frame wraps tightly packed bytes.
func frame(tb testing.TB, m hw.Mode, raw []byte) *hw.Frame {
	tb.Helper()
	f, err := hw.NewMemoryFrame(m, nil)
	if err != nil {
		tb.Fatal(err)
	}
	for _, p := range f.Planes {
		raw = raw[copy(p.Data, raw):]
	}
	if len(raw) > 0 {
		tb.Fatalf("%d bytes left over for %s", len(raw), m)
	}
	return f.Lend()
}

// flat returns the planes' lines without padding.
func flat(p yuv.Picture) []byte {
	var out []byte
	for i, pl := range p.Planes {
		n, lines := p.Mode.Width, p.Mode.Height
		if i > 0 {
			lines /= 2
			if p.Mode.Pixel == hw.I420 {
				n /= 2
			}
		}
		for y := range lines {
			out = append(out, pl.Data[y*pl.Stride:][:n]...)
		}
	}
	return out
}

func psnr(a, b []byte) float64 {
	var sum float64
	for i := range a {
		d := float64(a[i]) - float64(b[i])
		sum += d * d
	}
	return 10 * math.Log10(255*255*float64(len(a))/max(sum, 1e-9))
}

func TestPicturesMatchSwscale(t *testing.T) {
	const (
		area     = "area+accurate_rnd+full_chroma_int"
		bilinear = "bilinear+accurate_rnd+full_chroma_int"
	)
	for _, c := range []struct {
		name   string
		src    hw.Mode
		w, h   int
		filter string
		want   float64 // dB
	}{
		{"YUYV keeps its size", hw.Mode{Pixel: hw.YUYV, Width: 1280, Height: 720}, 1280, 720, area, 90},
		{"full-range YUYV of an uneven count of words", hw.Mode{Pixel: hw.YUYV, Width: 630, Height: 474, FullRange: true}, 630, 474, area, 60},
		{"UYVY keeps its size", hw.Mode{Pixel: hw.UYVY, Width: 1280, Height: 720}, 1280, 720, area, 90},
		{"full-range UYVY of an uneven count of words", hw.Mode{Pixel: hw.UYVY, Width: 630, Height: 474, FullRange: true}, 630, 474, area, 60},
		{"UYVY from 1080p to 360p", hw.Mode{Pixel: hw.UYVY, Width: 1920, Height: 1080}, 640, 360, area, 60},
		{"NV24 keeps its size", hw.Mode{Pixel: hw.NV24, Width: 1280, Height: 720}, 1280, 720, area, 50},
		{"NV24 from 1080p to 360p", hw.Mode{Pixel: hw.NV24, Width: 1920, Height: 1080}, 640, 360, area, 50},
		{"I422 keeps its size", hw.Mode{Pixel: hw.I422, Width: 1280, Height: 720}, 1280, 720, area, 90},
		{"NV12 keeps its size", hw.Mode{Pixel: hw.NV12, Width: 1280, Height: 720}, 1280, 720, area, 90},
		{"I420 keeps its size", hw.Mode{Pixel: hw.I420, Width: 1280, Height: 720}, 1280, 720, area, 90},
		{"full-range I422 becomes limited", hw.Mode{Pixel: hw.I422, Width: 640, Height: 480, FullRange: true}, 640, 480, area, 60},
		{"full-range I420 becomes limited", hw.Mode{Pixel: hw.I420, Width: 640, Height: 480, FullRange: true}, 640, 480, area, 60},
		{"NV12 from 1080p to 360p", hw.Mode{Pixel: hw.NV12, Width: 1920, Height: 1080}, 640, 360, area, 60},
		{"YUYV from 1080p to 360p", hw.Mode{Pixel: hw.YUYV, Width: 1920, Height: 1080}, 640, 360, area, 60},
		{"I420 from 1080p to 720p", hw.Mode{Pixel: hw.I420, Width: 1920, Height: 1080}, 1280, 720, area, 60},
		{"full-range I422 from 1080p to 360p", hw.Mode{Pixel: hw.I422, Width: 1920, Height: 1080, FullRange: true}, 640, 360, area, 60},
		{"NV12 from 360p up to 720p", hw.Mode{Pixel: hw.NV12, Width: 640, Height: 360}, 1280, 720, bilinear, 60},
		{"YUYV from 480p up to 1080p", hw.Mode{Pixel: hw.YUYV, Width: 854, Height: 480}, 1920, 1080, bilinear, 60},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw := scene(t, c.src)
			conv, err := yuv.New(c.src, hw.Mode{Width: c.w, Height: c.h})
			if err != nil {
				t.Fatal(err)
			}
			got, err := conv.Convert(frame(t, c.src, raw))
			if err != nil {
				t.Fatal(err)
			}
			in := "limited"
			if c.src.FullRange {
				in = "full"
			}
			want := ffmpeg(t, raw, "-f", "rawvideo", "-s", fmt.Sprintf("%dx%d", c.src.Width, c.src.Height), "-pix_fmt", pixNames[c.src.Pixel], "-i", "-",
				"-vf", fmt.Sprintf("scale=%d:%d:flags=%s:in_range=%s:out_range=limited:in_h_chr_pos=0:out_h_chr_pos=0", c.w, c.h, c.filter, in),
				"-pix_fmt", pixNames[got.Mode.Pixel], "-f", "rawvideo", "-")
			have := flat(got)
			if len(have) != len(want) {
				t.Fatalf("picture of %d bytes, swscale makes %d", len(have), len(want))
			}
			luma := c.w * c.h
			y, uv := psnr(have[:luma], want[:luma]), psnr(have[luma:], want[luma:])
			t.Logf("luma %.1f dB, chroma %.1f dB", y, uv)
			if y < c.want || uv < c.want {
				t.Errorf("luma %.1f dB, chroma %.1f dB against swscale, want %.0f", y, uv, c.want)
			}
		})
	}
}

// NV16 is compared with I422, since swscale cannot make it.
func TestNV16IsI422WithItsChromaSideBySide(t *testing.T) {
	for _, size := range [][2]int{{640, 360}, {320, 180}, {800, 450}} {
		planar := hw.Mode{Pixel: hw.I422, Width: 640, Height: 360, FullRange: true}
		pairs := planar
		pairs.Pixel = hw.NV16
		a := frame(t, planar, scene(t, planar))
		b, err := hw.NewMemoryFrame(pairs, nil)
		if err != nil {
			t.Fatal(err)
		}
		copy(b.Planes[0].Data, a.Planes[0].Data)
		for i := range a.Planes[1].Data {
			b.Planes[1].Data[2*i], b.Planes[1].Data[2*i+1] = a.Planes[1].Data[i], a.Planes[2].Data[i]
		}
		var made [][]byte
		for _, f := range []*hw.Frame{a, b} {
			conv, err := yuv.New(f.Mode, hw.Mode{Pixel: hw.I420, Width: size[0], Height: size[1]})
			if err != nil {
				t.Fatal(err)
			}
			p, err := conv.Convert(f)
			if err != nil {
				t.Fatal(err)
			}
			made = append(made, flat(p))
		}
		if !bytes.Equal(made[0], made[1]) {
			t.Errorf("%v: the pictures differ: %.1f dB", size, psnr(made[1], made[0]))
		}
	}
}

func TestPackedPicturesAreTheSameInBoth420Forms(t *testing.T) {
	for _, src := range []hw.Mode{
		{Pixel: hw.YUYV, Width: 638, Height: 66},
		{Pixel: hw.UYVY, Width: 638, Height: 66},
		{Pixel: hw.YUYV, Width: 18, Height: 2, FullRange: true},
	} {
		f := frame(t, src, scene(t, src))
		var made [2]yuv.Picture
		for i, pixel := range []hw.PixelFormat{hw.NV12, hw.I420} {
			conv, err := yuv.New(src, hw.Mode{Pixel: pixel, Width: src.Width, Height: src.Height})
			if err != nil {
				t.Fatal(err)
			}
			if made[i], err = conv.Convert(f); err != nil {
				t.Fatal(err)
			}
		}
		pairs, planar := made[0].Planes, made[1].Planes
		if !bytes.Equal(pairs[0].Data, planar[0].Data) {
			t.Errorf("%s: luma differs", src)
		}
		for i := range planar[1].Data {
			if pairs[1].Data[2*i] != planar[1].Data[i] || pairs[1].Data[2*i+1] != planar[2].Data[i] {
				t.Fatalf("%s: chroma sample %d differs", src, i)
			}
		}
	}
}

func TestWhatFitsIsLentAndNotCopied(t *testing.T) {
	const luma, chroma = 1280 * 720, 640 * 360
	for _, c := range []struct {
		name   string
		src    hw.Mode
		copied int
		lent   []int
	}{
		{"NV12", hw.Mode{Pixel: hw.NV12}, 0, []int{0, 1}},
		{"I420", hw.Mode{Pixel: hw.I420}, 0, []int{0, 1, 2}},
		{"I422 lends luma", hw.Mode{Pixel: hw.I422}, 2 * chroma, []int{0}},
		{"NV16 lends luma", hw.Mode{Pixel: hw.NV16}, 2 * chroma, []int{0}},
		{"NV24 lends luma", hw.Mode{Pixel: hw.NV24}, 2 * chroma, []int{0}},
		{"RGB is written once", hw.Mode{Pixel: hw.RGB24}, luma + 2*chroma, nil},
		{"YUYV lends nothing", hw.Mode{Pixel: hw.YUYV}, luma + 2*chroma, nil},
		{"another range lends nothing", hw.Mode{Pixel: hw.I420, FullRange: true}, luma + 2*chroma, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.src.Width, c.src.Height = 1280, 720
			conv, err := yuv.New(c.src, hw.Mode{Width: 1280, Height: 720})
			if err != nil {
				t.Fatal(err)
			}
			f, err := hw.NewMemoryFrame(c.src, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := conv.Convert(f)
			if err != nil {
				t.Fatal(err)
			}
			if got.Copied != c.copied {
				t.Errorf("copied %d bytes, want %d", got.Copied, c.copied)
			}
			for _, i := range c.lent {
				if &got.Planes[i].Data[0] != &f.Planes[i].Data[0] {
					t.Errorf("plane %d was copied", i)
				}
			}
		})
	}
}

func TestAspectIsKeptBetweenBlackBars(t *testing.T) {
	for _, c := range []struct {
		name       string
		sw, sh     int
		dw, dh     int
		x, y, w, h int
	}{
		{"4:3 in 16:9 stands between pillars", 640, 480, 1280, 720, 160, 0, 960, 720},
		{"16:9 in 4:3 lies between bars", 1280, 720, 640, 480, 0, 60, 640, 360},
		{"the same aspect has no bars", 1920, 1080, 640, 360, 0, 0, 640, 360},
		{"an almost equal aspect has no bars", 1920, 1080, 854, 480, 0, 0, 854, 480},
		{"a tall picture is a strip", 90, 1000, 160, 100, 74, 0, 10, 100},
	} {
		for _, pixel := range []hw.PixelFormat{hw.NV12, hw.I420, hw.YUYV, hw.UYVY, hw.NV16, hw.I422, hw.NV24} {
			t.Run(c.name+" "+pixel.String(), func(t *testing.T) {
				src := hw.Mode{Pixel: pixel, Width: c.sw, Height: c.sh}
				conv, err := yuv.New(src, hw.Mode{Pixel: hw.I420, Width: c.dw, Height: c.dh})
				if err != nil {
					t.Fatal(err)
				}
				f, err := hw.NewMemoryFrame(src, nil)
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range f.Planes {
					for i := range p.Data {
						p.Data[i] = 200
					}
				}
				got, err := conv.Convert(f)
				if err != nil {
					t.Fatal(err)
				}
				for i, p := range got.Planes {
					sub, black := 1, byte(16)
					if i > 0 {
						sub, black = 2, 128
					}
					for y := range c.dh / sub {
						for x := range c.dw / sub {
							want := black
							if x*sub >= c.x && x*sub < c.x+c.w && y*sub >= c.y && y*sub < c.y+c.h {
								want = 200
							}
							if v := p.Data[y*p.Stride+x]; v != want {
								t.Fatalf("plane %d at %d,%d is %d, want %d", i, x, y, v, want)
							}
						}
					}
				}
			})
		}
	}
}

func TestEveryOddSizeAndPairOfFormatsIsConverted(t *testing.T) {
	for _, src := range []hw.PixelFormat{hw.NV12, hw.I420, hw.YUYV, hw.UYVY, hw.NV16, hw.I422, hw.NV24, hw.RGB24, hw.BGR24, hw.RGB565} {
		for _, dst := range []hw.PixelFormat{hw.NV12, hw.I420} {
			for _, s := range [][2]int{{1, 1}, {2, 2}, {3, 5}, {17, 9}, {33, 31}, {64, 48}, {127, 200}} {
				for _, d := range [][2]int{{2, 2}, {16, 16}, {34, 32}, {64, 48}, {128, 2}} {
					for _, full := range []bool{false, true} {
						m := hw.Mode{Pixel: src, Width: s[0], Height: s[1], FullRange: full}
						conv, err := yuv.New(m, hw.Mode{Pixel: dst, Width: d[0], Height: d[1], FullRange: full})
						if err != nil {
							t.Fatal(err)
						}
						f, err := hw.NewMemoryFrame(m, nil)
						if err != nil {
							t.Fatal(err)
						}
						if _, err := conv.Convert(f); err != nil {
							t.Fatalf("%s to %dx%d: %v", m, d[0], d[1], err)
						}
					}
				}
			}
		}
	}
}

func TestFullRangeComesBackFromLimited(t *testing.T) {
	full := hw.Mode{Pixel: hw.I420, Width: 256, Height: 4, FullRange: true}
	limited := full
	limited.FullRange = false
	there, err := yuv.New(full, limited)
	if err != nil {
		t.Fatal(err)
	}
	back, err := yuv.New(limited, full)
	if err != nil {
		t.Fatal(err)
	}
	f, err := hw.NewMemoryFrame(full, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range f.Planes {
		for i := range p.Data {
			p.Data[i] = byte(i % p.Stride * 255 / (p.Stride - 1))
		}
	}
	a, err := there.Convert(f)
	if err != nil {
		t.Fatal(err)
	}
	y := a.Planes[0].Data
	if y[0] != 16 || y[255] != 235 || a.Planes[1].Data[0] != 16 || a.Planes[1].Data[127] != 240 {
		t.Errorf("limited range is %d to %d, chroma %d to %d", y[0], y[255], a.Planes[1].Data[0], a.Planes[1].Data[127])
	}
	mid, err := hw.NewMemoryFrame(limited, nil)
	if err != nil {
		t.Fatal(err)
	}
	mid.Planes = a.Planes
	b, err := back.Convert(mid)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range b.Planes {
		for n, v := range p.Data {
			if d := int(v) - int(f.Planes[i].Data[n]); d < -1 || d > 1 {
				t.Fatalf("plane %d: %d came back as %d", i, f.Planes[i].Data[n], v)
			}
		}
	}
}

func TestFramesThatDoNotFitAreRefused(t *testing.T) {
	m := hw.Mode{Pixel: hw.NV12, Width: 64, Height: 48}
	for _, c := range []struct {
		name   string
		damage func(*hw.Frame)
	}{
		{"planes that are dma-bufs only", func(f *hw.Frame) { f.Planes[1].Data = nil }},
		{"a plane that is one byte short", func(f *hw.Frame) { f.Planes[0].Data = f.Planes[0].Data[:64*48-1] }},
		{"a stride below the width", func(f *hw.Frame) { f.Planes[0].Stride = 63 }},
		{"a missing plane", func(f *hw.Frame) { f.Planes = f.Planes[:1] }},
		{"another mode", func(f *hw.Frame) { f.Width = 62 }},
		{"JPEG", func(f *hw.Frame) { f.Pixel = hw.MJPEG }},
	} {
		t.Run(c.name, func(t *testing.T) {
			conv, err := yuv.New(m, hw.Mode{Width: 64, Height: 48})
			if err != nil {
				t.Fatal(err)
			}
			f, err := hw.NewMemoryFrame(m, nil)
			if err != nil {
				t.Fatal(err)
			}
			c.damage(f)
			if _, err := conv.Convert(f); !errors.Is(err, hw.ErrUnsupported) {
				t.Errorf("got %v, want an error that wraps ErrUnsupported", err)
			}
		})
	}
	for _, dst := range []hw.Mode{{Width: 63, Height: 48}, {Width: 0, Height: 48}, {Width: 64, Height: yuv.MaxSide + 2}, {Pixel: hw.YUYV, Width: 64, Height: 48}} {
		if _, err := yuv.New(m, dst); !errors.Is(err, hw.ErrUnsupported) {
			t.Errorf("to %s: got %v, want an error that wraps ErrUnsupported", dst, err)
		}
	}
}

func TestConvertAllocatesNothing(t *testing.T) {
	src := hw.Mode{Pixel: hw.YUYV, Width: 1280, Height: 720}
	conv, err := yuv.New(src, hw.Mode{Width: 640, Height: 360})
	if err != nil {
		t.Fatal(err)
	}
	f, err := hw.NewMemoryFrame(src, nil)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(20, func() {
		if _, err := conv.Convert(f); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%.0f allocations a frame, want none", n)
	}
}

func BenchmarkConvert(b *testing.B) {
	for _, c := range []struct {
		name     string
		src, dst hw.Mode
	}{
		{"YUYV 1080p", hw.Mode{Pixel: hw.YUYV, Width: 1920, Height: 1080}, hw.Mode{Width: 1920, Height: 1080}},
		{"I422 1080p", hw.Mode{Pixel: hw.I422, Width: 1920, Height: 1080}, hw.Mode{Width: 1920, Height: 1080}},
		{"full-range I422 1080p", hw.Mode{Pixel: hw.I422, Width: 1920, Height: 1080, FullRange: true}, hw.Mode{Width: 1920, Height: 1080}},
		{"NV12 1080p to I420", hw.Mode{Pixel: hw.NV12, Width: 1920, Height: 1080}, hw.Mode{Pixel: hw.I420, Width: 1920, Height: 1080}},
		{"NV12 1080p to 360p", hw.Mode{Pixel: hw.NV12, Width: 1920, Height: 1080}, hw.Mode{Width: 640, Height: 360}},
		{"I420 1080p to 360p", hw.Mode{Pixel: hw.I420, Width: 1920, Height: 1080}, hw.Mode{Width: 640, Height: 360}},
		{"YUYV 1080p to 360p", hw.Mode{Pixel: hw.YUYV, Width: 1920, Height: 1080}, hw.Mode{Width: 640, Height: 360}},
		{"YUYV 1080p to I420", hw.Mode{Pixel: hw.YUYV, Width: 1920, Height: 1080}, hw.Mode{Pixel: hw.I420, Width: 1920, Height: 1080}},
		{"NV24 1080p", hw.Mode{Pixel: hw.NV24, Width: 1920, Height: 1080}, hw.Mode{Width: 1920, Height: 1080}},
		{"RGB24 1080p", hw.Mode{Pixel: hw.RGB24, Width: 1920, Height: 1080, FullRange: true}, hw.Mode{Width: 1920, Height: 1080}},
		{"RGB565 1080p", hw.Mode{Pixel: hw.RGB565, Width: 1920, Height: 1080, FullRange: true}, hw.Mode{Width: 1920, Height: 1080}},
		{"NV12 1080p to 720p", hw.Mode{Pixel: hw.NV12, Width: 1920, Height: 1080}, hw.Mode{Width: 1280, Height: 720}},
		{"NV12 720p to 1080p", hw.Mode{Pixel: hw.NV12, Width: 1280, Height: 720}, hw.Mode{Width: 1920, Height: 1080}},
	} {
		b.Run(c.name, func(b *testing.B) {
			conv, err := yuv.New(c.src, c.dst)
			if err != nil {
				b.Fatal(err)
			}
			f, err := hw.NewMemoryFrame(c.src, nil)
			if err != nil {
				b.Fatal(err)
			}
			_, size, _ := c.src.Layout()
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := conv.Convert(f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
