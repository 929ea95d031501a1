package soft

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"testing"
	"time"

	"encoderd.example/hw"
)

// decoders returns both, so that they are held to the same.
func decoders(tb testing.TB) map[string]*JPEGDecoder {
	tb.Helper()
	fast := NewJPEGDecoder()
	if !fast.Fast() {
		tb.Fatal("libturbojpeg0: install it, make test does")
	}
	both := map[string]*JPEGDecoder{"libturbojpeg": fast, "image/jpeg": newJPEGDecoder([]string{"libturbojpeg-not-here.so.0"})}
	if both["image/jpeg"].Fast() {
		tb.Fatal("a library that is not there is in use")
	}
	tb.Cleanup(func() {
		for _, d := range both {
			if err := d.Close(); err != nil {
				tb.Error(err)
			}
		}
	})
	return both
}

// picture returns one JPEG of a test picture by ffmpeg.
func picture(tb testing.TB, width, height int, pix string) []byte {
	tb.Helper()
	return peer(tb, nil, "ffmpeg", "-f", "lavfi", "-i", fmt.Sprintf("testsrc=s=%dx%d", width, height), "-vf", "gblur=sigma=1",
		"-frames:v", "1", "-pix_fmt", pix, "-c:v", "mjpeg", "-huffman", "default", "-q:v", "3", "-f", "image2pipe", "-")
}

func mjpeg(data []byte) *hw.Frame {
	f := hw.NewFrame(nil)
	f.Mode = hw.Mode{Pixel: hw.MJPEG, Width: 640, Height: 480, FPS: hw.Rate{Num: 25, Den: 1}}
	f.Planes = []hw.Plane{{Data: data, FD: -1}}
	f.Stamp, f.Seq = 7*time.Second, 42
	return f
}

// visible returns the samples of f line by line.
func visible(f *hw.Frame) []byte {
	var out []byte
	for i, p := range f.Planes {
		n, lines := f.Width, f.Height
		if i > 0 {
			n = (n + 1) / 2
			if f.Pixel == hw.I420 {
				lines = (lines + 1) / 2
			}
		}
		for y := range lines {
			out = append(out, p.Data[y*p.Stride:][:n]...)
		}
	}
	return out
}

func TestJPEGsDecodeAsFFmpegDecodesThem(t *testing.T) {
	for name, d := range decoders(t) {
		for _, c := range []struct {
			w, h  int
			pix   string
			pixel hw.PixelFormat
		}{
			{1280, 720, "yuvj422p", hw.I422},
			{1280, 720, "yuvj420p", hw.I420},
			{101, 77, "yuvj420p", hw.I420},
			{101, 77, "yuvj422p", hw.I422},
		} {
			t.Run(fmt.Sprintf("%s %dx%d %s", name, c.w, c.h, c.pix), func(t *testing.T) {
				data := picture(t, c.w, c.h, c.pix)
				want := peer(t, data, "ffmpeg", "-f", "mjpeg", "-i", "-", "-pix_fmt", c.pix, "-f", "rawvideo", "-")
				f, err := d.Decode(mjpeg(data))
				if err != nil {
					t.Fatal(err)
				}
				defer f.Release()
				if f.Pixel != c.pixel || f.Width != c.w || f.Height != c.h || !f.FullRange || f.Matrix != hw.BT601 || f.Stamp != 7*time.Second || f.Seq != 42 || f.FPS.Num != 25 {
					t.Errorf("frame of %+v stamped %s", f.Mode, f.Stamp)
				}
				got := visible(f)
				if len(got) != len(want) {
					t.Fatalf("%d bytes, ffmpeg makes %d", len(got), len(want))
				}
				if p := psnr(got, want); p < 45 {
					t.Errorf("%.1f dB against ffmpeg", p)
				}
			})
		}
	}
}

func TestADecoderCountsWhatItWrites(t *testing.T) {
	const picture422 = 2 * 64 * 48
	for name, d := range decoders(t) {
		t.Run(name, func(t *testing.T) {
			before := d.Written()
			data := picture(t, 64, 48, "yuvj422p")
			for _, data := range [][]byte{data, data[:20], data} {
				if f, err := d.Decode(mjpeg(data)); err == nil {
					f.Release()
				}
			}
			want := uint64(2 * picture422) // of two good pictures
			if !d.Fast() {
				want *= 2
			}
			if got := d.Written() - before; got != want {
				t.Errorf("%d bytes written, want %d", got, want)
			}
		})
	}
}

func TestGreyJPEGHasGreyChroma(t *testing.T) {
	for name, d := range decoders(t) {
		t.Run(name, func(t *testing.T) {
			f, err := d.Decode(mjpeg(greyJPEG(t)))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Release()
			if f.Pixel != hw.I420 || f.Planes[1].Data[5] != 128 || f.Planes[2].Data[5] != 128 {
				t.Errorf("chroma %d %d", f.Planes[1].Data[5], f.Planes[2].Data[5])
			}
		})
	}
}

func TestFramesOfAJPEGDecoderComeBackToIt(t *testing.T) {
	for name, d := range decoders(t) {
		t.Run(name, func(t *testing.T) {
			data := picture(t, 320, 240, "yuvj422p")
			a, err := d.Decode(mjpeg(data))
			if err != nil {
				t.Fatal(err)
			}
			b, err := d.Decode(mjpeg(data))
			if err != nil {
				t.Fatal(err)
			}
			if a == b {
				t.Fatal("a frame was lent twice")
			}
			a.Release()
			c, err := d.Decode(mjpeg(data))
			if err != nil {
				t.Fatal(err)
			}
			if c != a {
				t.Error("a free frame was not used again")
			}
			b.Release()
			c.Release()
		})
	}
}

func TestDamagedJPEGsAreErrors(t *testing.T) {
	good := picture(t, 320, 240, "yuvj422p")
	huge := bytes.Clone(good)
	at := bytes.Index(huge, []byte{0xff, 0xc0})
	copy(huge[at+5:], []byte{0xea, 0x60, 0xea, 0x60}) // 60000×60000
	beyond := bytes.Clone(good)
	copy(beyond[at+5:], []byte{0xff, 0xff, 0xff, 0xff}) // libjpeg ends at 65500
	noisy := bytes.Clone(good)
	for i := len(noisy) / 2; i < len(noisy)-2; i += 3 {
		noisy[i] = byte(i * 37)
	}
	for _, c := range []struct {
		name string
		data []byte
		want error
	}{
		{"no bytes", nil, ErrDamaged},
		{"no JPEG", []byte("this is a line of text"), ErrDamaged},
		{"a start only", []byte{0xff, 0xd8, 0xff, 0xd9}, ErrDamaged},
		{"cut in the header", good[:100], ErrDamaged},
		{"cut in the picture", good[:len(good)/2], ErrDamaged},
		{"noise in the picture", noisy, ErrDamaged},
		{"a picture of 4 gigapixels", huge, hw.ErrUnsupported},
		{"a picture that the library refuses in the header", beyond, nil},
		{"too many bytes", append([]byte{0xff, 0xd8}, make([]byte, maxJPEGBytes)...), ErrDamaged},
		{"4:4:4", picture(t, 64, 64, "yuvj444p"), hw.ErrUnsupported},
	} {
		for name, d := range decoders(t) {
			t.Run(c.name+" "+name, func(t *testing.T) {
				if f, err := d.Decode(mjpeg(c.data)); err == nil || c.want != nil && !errors.Is(err, c.want) {
					t.Errorf("got %v, %v; want an error that wraps %v", f, err, c.want)
				}
				f, err := d.Decode(mjpeg(good))
				if err != nil {
					t.Fatalf("the next good one: %v", err)
				}
				f.Release()
			})
		}
	}
	raw, _ := hw.NewMemoryFrame(mode(hw.NV12, 64, 64), nil)
	if _, err := NewJPEGDecoder().Decode(raw); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("a raw frame: %v", err)
	}
}

func TestWhatCamerasDoToJPEGsIsForgiven(t *testing.T) {
	good := picture(t, 320, 240, "yuvj422p")
	d := NewJPEGDecoder()
	defer d.Close()
	end := len(good) - 2
	for name, data := range map[string][]byte{
		"zero bytes behind the end":     append(bytes.Clone(good), make([]byte, 500)...),
		"stuffing before the end":       append(append(bytes.Clone(good[:end]), make([]byte, 40)...), 0xff, 0xd9),
		"no Huffman tables, as in AVI1": withoutSegment(good, 0xc4),
	} {
		t.Run(name, func(t *testing.T) {
			want, err := d.Decode(mjpeg(good))
			if err != nil {
				t.Fatal(err)
			}
			defer want.Release()
			got, err := d.Decode(mjpeg(data))
			if err != nil {
				t.Fatal(err)
			}
			defer got.Release()
			if !bytes.Equal(visible(got), visible(want)) {
				t.Error("another picture")
			}
		})
	}
}

// withoutSegment cuts all segments of a marker out of a JPEG's header.
func withoutSegment(data []byte, marker byte) []byte {
	out := bytes.Clone(data[:2])
	for at := 2; ; {
		n := 2 + int(data[at+2])<<8 + int(data[at+3])
		if data[at+1] == 0xda {
			return append(out, data[at:]...)
		}
		if data[at+1] != marker {
			out = append(out, data[at:at+n]...)
		}
		at += n
	}
}

func greyJPEG(tb testing.TB) []byte {
	tb.Helper()
	g := image.NewGray(image.Rect(0, 0, 64, 48))
	for i := range g.Pix {
		g.Pix[i] = byte(i)
	}
	var out bytes.Buffer
	if err := jpeg.Encode(&out, g, nil); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

func TestStillsKeepAspectAndContent(t *testing.T) {
	src := scene(t, mode(hw.YUYV, 1280, 720), 1)[0]
	fast := NewJPEGDecoder()
	defer fast.Close()
	for _, c := range []struct {
		name          string
		frame         *hw.Frame
		width         int
		wantW, wantH  int
		againstScaled bool
	}{
		{"as large as the frame", src, 0, 1280, 720, true},
		{"smaller", src, 320, 320, 180, true},
		{"of an odd width", src, 321, 322, 182, false},
		{"from MJPEG", mjpeg(picture(t, 640, 480, "yuvj422p")), 160, 160, 120, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			data, err := EncodeJPEG(c.frame, c.width, 90)
			if err != nil {
				t.Fatal(err)
			}
			head, err := jpeg.DecodeConfig(bytes.NewReader(data))
			if err != nil || head.Width != c.wantW || head.Height != c.wantH {
				t.Fatalf("%dx%d, %v", head.Width, head.Height, err)
			}
			if !c.againstScaled {
				return
			}
			got := peer(t, data, "ffmpeg", "-f", "mjpeg", "-i", "-", "-vf", "scale=in_range=full:out_range=limited", "-pix_fmt", "yuv420p", "-f", "rawvideo", "-")
			want := planar(t, []*hw.Frame{src}, c.wantW, c.wantH)[0]
			if p := psnr(got, want); p < 30 {
				t.Errorf("%.1f dB against the frame", p)
			}
		})
	}
	if _, err := EncodeJPEG(src, -1, 90); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("a negative width: %v", err)
	}
	if _, err := EncodeJPEG(mjpeg([]byte("none")), 0, 90); !errors.Is(err, ErrDamaged) {
		t.Errorf("a broken JPEG: %v", err)
	}
}

func FuzzJPEGDecode(f *testing.F) {
	for _, pix := range []string{"yuvj420p", "yuvj422p", "yuvj444p"} {
		f.Add(picture(f, 48, 32, pix))
	}
	good := picture(f, 48, 32, "yuvj422p")
	f.Add(good[:len(good)/2])
	f.Add(withoutSegment(good, 0xc4))
	f.Add(withoutSegment(good, 0xdb))
	f.Add(greyJPEG(f))
	both := decoders(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		// Always in the same order, so that coverage is a matter of data only.
		for _, name := range []string{"libturbojpeg", "image/jpeg"} {
			out, err := both[name].Decode(mjpeg(data))
			if err != nil {
				continue
			}
			if out.Width*out.Height > maxJPEGPixels {
				t.Errorf("a picture of %s", out.Mode)
			}
			out.Release()
		}
	})
}

func BenchmarkJPEGDecode1080p(b *testing.B) {
	for name, d := range decoders(b) {
		for _, pix := range []string{"yuvj422p", "yuvj420p"} {
			b.Run(name+" "+pix, func(b *testing.B) {
				in := mjpeg(picture(b, 1920, 1080, pix))
				b.ReportAllocs()
				for b.Loop() {
					f, err := d.Decode(in)
					if err != nil {
						b.Fatal(err)
					}
					f.Release()
				}
			})
		}
	}
}
