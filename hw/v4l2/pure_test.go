package v4l2

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/uapi"
)

// parseMode reads "NV12 1920x1080 30", "" for no wish; rates in whole Hz or as
// a fraction.
func parseMode(t *testing.T, s string) hw.Mode {
	t.Helper()
	var m hw.Mode
	for word := range strings.FieldsSeq(s) {
		if len(word) == 4 {
			if _, ok := FormatOf(hw.FourCC(word)); ok {
				m.Pixel = hw.FourCC(word)
				continue
			}
		}
		if w, h, ok := strings.Cut(word, "x"); ok {
			m.Width, m.Height = number(t, w), number(t, h)
			continue
		}
		num, den, ok := strings.Cut(word, "/")
		m.FPS = hw.Rate{Num: number(t, num), Den: 1}
		if ok {
			m.FPS.Den = number(t, den)
		}
	}
	return m
}

func number(t *testing.T, s string) int {
	t.Helper()
	n := 0
	for _, c := range s {
		if c < '0' || c > '9' {
			t.Fatalf("%q is no number", s)
		}
		n = 10*n + int(c-'0')
	}
	return n
}

func parseOffers(t *testing.T, s string) []offer {
	t.Helper()
	var offers []offer
	for item := range strings.SplitSeq(s, ",") {
		m := parseMode(t, item)
		f, ok := FormatOf(m.Pixel)
		if !ok {
			t.Fatalf("no format in %q", item)
		}
		m.Pixel = f.pixel
		offers = append(offers, offer{f, m, nil})
	}
	return offers
}

func TestNearest(t *testing.T) {
	const usb2 = "MJPG 1920x1080 30, YUYV 640x480 30, YUYV 1280x720 10, YUYV 1920x1080 5, MJPG 1280x720 60, MJPG 1280x720 30, MJPG 640x480 30"
	tests := []struct{ name, offers, want, chosen string }{
		{"exact mode", "NV12 1280x720 30, NV12 1920x1080 30, NV12 1920x1080 60", "1920x1080 30", "NV12 1920x1080 30"},
		{"raw where it is as fast", usb2, "640x480 30", "YUYV 640x480 30"},
		{"raw though it is faster than asked", "MJPG 1280x720 30, YUYV 1280x720 60", "1280x720 30", "YUYV 1280x720 60"},
		{"MJPEG where raw is too slow", usb2, "1920x1080 30", "MJPG 1920x1080 30"},
		{"MJPEG of the right size before raw of half of it", "MJPG 1920x1080 30, YUYV 1280x720 30", "1920x1080 30", "MJPG 1920x1080 30"},
		{"a format asked for is a must", usb2, "YUYV 1920x1080 30", "YUYV 640x480 30"},
		{"29.97 is 30", "NV12 1280x720 30000/1001, NV12 1280x720 60", "1280x720 30", "NV12 1280x720 30000/1001"},
		{"25 is nearer to 30 than 15 and 60 of less", "NV12 1920x1080 25, NV12 1920x1080 15, NV12 1280x720 60", "1920x1080 30", "NV12 1920x1080 25"},
		{"smaller and moving before larger and jerky", "NV12 1920x1080 5, NV12 1280x720 30", "1920x1080 30", "NV12 1280x720 30"},
		{"scaling down before scaling up", "NV12 1280x720 30, NV12 1920x1080 30", "1600x900 30", "NV12 1920x1080 30"},
		{"the smallest of those that cover", "NV12 3840x2160 30, NV12 1920x1080 30, NV12 1280x720 30", "1024x576 30", "NV12 1280x720 30"},
		{"the largest of those that are too small", "NV12 640x360 30, NV12 1280x720 30", "1920x1080 30", "NV12 1280x720 30"},
		{"the same shape before a little more", "NV12 1280x960 30, NV12 1280x720 30", "1240x698 30", "NV12 1280x720 30"},
		{"60 of 60", "NV12 1920x1080 30, MJPG 1920x1080 60", "1920x1080 60", "MJPG 1920x1080 60"},
		{"a rate that the driver does not tell", "NV12 1920x1080", "1280x720 30", "NV12 1920x1080"},
		{"no wish takes the first", "NV12 1920x1080 30, NV12 1280x720 30", "", "NV12 1920x1080 30"},
		{"only a rate", "NV12 1920x1080 30, NV12 1280x720 60", "60", "NV12 1280x720 60"},
		{"contiguous memory before split", "NV12 1280x720 30, NM12 1280x720 30", "1280x720 30", "NV12 1280x720 30"},
		{"split memory if there is nothing else", "NM12 1280x720 30, MJPG 1280x720 30", "NV12 1280x720 30", "NM12 1280x720 30"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := nearest(parseOffers(t, tt.offers), parseMode(t, tt.want), nil)
			if want := parseOffers(t, tt.chosen)[0]; err != nil || got != want {
				t.Errorf("got %s (%s), %v; want %s (%s)", got, got.code, err, want, want.code)
			}
		})
	}
}

func TestPreferenceOfTheEncoder(t *testing.T) {
	const usb3 = "YUYV 1920x1080 30, NV12 1920x1080 30, MJPG 1920x1080 60, H264 1920x1080 60"
	tests := []struct{ name, offers, takes, want, chosen string }{
		{"what it takes first", usb3, "YUYV NV12", "1920x1080 30", "YUYV 1920x1080 30"},
		{"in its order", usb3, "NV12 YUYV", "1920x1080 30", "NV12 1920x1080 30"},
		{"what it takes at twice the rate before conversion", "YUYV 1280x720 30, NV12 1280x720 60", "NV12", "1280x720 30", "NV12 1280x720 60"},
		{"conversion before half the rate", "YUYV 1280x720 30, NV12 1280x720 15", "NV12", "1280x720 30", "YUYV 1280x720 30"},
		{"conversion before decoding", "MJPG 1280x720 30, YUYV 1280x720 30", "NV12", "1280x720 30", "YUYV 1280x720 30"},
		{"decoding before half the rate", "MJPG 1280x720 30, YUYV 1280x720 10", "YUYV", "1280x720 30", "MJPG 1280x720 30"},
		{"a decoder in hardware", "MJPG 1280x720 30, YU12 1280x720 30", "MJPG", "1280x720 30", "MJPG 1280x720 30"},
		{"H.264 is never preferred", usb3, "H264 NV12", "1920x1080 60", "MJPG 1920x1080 60"},
		{"H.264 is there for who asks", usb3, "NV12", "H264 1920x1080 60", "H264 1920x1080 60"},
		{"a format asked for stands above", usb3, "NV12", "YUYV 1920x1080 30", "YUYV 1920x1080 30"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var takes []hw.PixelFormat
			for s := range strings.FieldsSeq(tt.takes) {
				takes = append(takes, hw.FourCC(s))
			}
			got, err := nearest(parseOffers(t, tt.offers), parseMode(t, tt.want), takes)
			if want := parseOffers(t, tt.chosen)[0]; err != nil || got != want {
				t.Errorf("got %s, %v; want %s", got, err, want)
			}
		})
	}
}

func TestRGBIsTakenOnlyIfThereIsNothingElse(t *testing.T) {
	for _, tt := range []struct{ offers, chosen string }{
		{"RGB3 1280x720 30, BGR3 1280x720 30, NV24 1280x720 30, 422P 1280x720 30", "422P 1280x720 30"},
		{"RGBP 1280x720 30, BGR3 1280x720 30, NV24 1280x720 30", "NV24 1280x720 30"},
		{"RGBP 1280x720 30, BGR3 1280x720 30", "BGR3 1280x720 30"},
		{"BGR3 1280x720 30, UYVY 640x360 30", "BGR3 1280x720 30"},
	} {
		for _, takes := range [][]hw.PixelFormat{nil, {hw.NV12}} {
			offers := parseOffers(t, tt.offers)
			slices.SortStableFunc(offers, better)
			got, err := nearest(offers, parseMode(t, "1280x720 30"), takes)
			if want := parseOffers(t, tt.chosen)[0]; err != nil || got != want {
				t.Errorf("of %s for %v: got %s, %v; want %s", tt.offers, takes, got, err, want)
			}
		}
	}
}

func TestH264IsListedLast(t *testing.T) {
	offers := parseOffers(t, "H264 3840x2160 60, YUYV 640x480 5, MJPG 1280x720 30")
	slices.SortStableFunc(offers, better)
	if got := offers[2].pixel; got != hw.H264 {
		t.Errorf("%v", offers)
	}
}

func TestWhatIsImpossibleNamesWhatThereIs(t *testing.T) {
	tests := []struct {
		name   string
		offers []offer
		want   []string
	}{
		{"another format", parseOffers(t, "YUYV 640x480 30, MJPG 1280x720 30"), []string{"640x480 30 fps YUYV", "1280x720 30 fps MJPG"}},
		{"long lists are cut", parseOffers(t, "YUYV 1x100 1, YUYV 2x100 1, YUYV 3x100 1, YUYV 4x100 1, YUYV 5x100 1, YUYV 6x100 1, YUYV 7x100 1"), []string{"and 1 more"}},
		{"nothing at all", nil, []string{"none of the formats"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := nearest(tt.offers, hw.Mode{Pixel: hw.NV12}, nil)
			if !errors.Is(err, hw.ErrUnsupported) {
				t.Fatalf("got %v", err)
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
		})
	}
}

func TestLayout(t *testing.T) {
	tests := []struct {
		name, mode string
		mems       []MemoryPlane
		want       []plane
		bad        bool
	}{
		{"packed", "YUYV 640x480", []MemoryPlane{{1280, 614400}}, []plane{{0, 0, 1280, 614400, 614400}}, false},
		{"packed with padding", "YUYV 848x480", []MemoryPlane{{1728, 829440}}, []plane{{0, 0, 1728, 829408, 829440}}, false},
		{"last line without padding", "YUYV 848x480", []MemoryPlane{{1728, 829408}}, []plane{{0, 0, 1728, 829408, 829408}}, false},
		{"no stride told", "YUYV 640x480", []MemoryPlane{{0, 614400}}, []plane{{0, 0, 1280, 614400, 614400}}, false},
		{"NV12", "NV12 320x180", []MemoryPlane{{320, 86400}}, []plane{{0, 0, 320, 57600, 57600}, {0, 57600, 320, 28800, 28800}}, false},
		{"NV12 with padding", "NV12 300x180", []MemoryPlane{{320, 86400}}, []plane{{0, 0, 320, 57580, 57600}, {0, 57600, 320, 28780, 28800}}, false},
		{"I420", "YU12 320x180", []MemoryPlane{{320, 86400}}, []plane{{0, 0, 320, 57600, 57600}, {0, 57600, 160, 14400, 14400}, {0, 72000, 160, 14400, 14400}}, false},
		{"4:4:4", "NV24 320x180", []MemoryPlane{{352, 190080}}, []plane{{0, 0, 352, 63328, 63360}, {0, 63360, 704, 126656, 126720}}, false},
		{"RGB with padding", "BGR3 300x180", []MemoryPlane{{960, 172800}}, []plane{{0, 0, 960, 172740, 172800}}, false},
		{"words of RGB", "RGBP 320x180", []MemoryPlane{{640, 115200}}, []plane{{0, 0, 640, 115200, 115200}}, false},
		{"4:2:2 planar", "422P 320x180", []MemoryPlane{{320, 115200}}, []plane{{0, 0, 320, 57600, 57600}, {0, 57600, 160, 28800, 28800}, {0, 86400, 160, 28800, 28800}}, false},
		{"NV12 in two memories", "NM12 320x180", []MemoryPlane{{384, 69120}, {384, 34560}}, []plane{{0, 0, 384, 69056, 69120}, {1, 0, 384, 34496, 34560}}, false},
		{"I420 in three memories", "YM12 320x180", []MemoryPlane{{320, 57600}, {192, 17280}, {192, 17280}}, []plane{{0, 0, 320, 57600, 57600}, {1, 0, 192, 17248, 17280}, {2, 0, 192, 17248, 17280}}, false},
		{"JPEG has no lines", "MJPG 320x180", []MemoryPlane{{0, 100000}}, []plane{{0, 0, 0, 1, 100000}}, false},
		{"buffers that are too small", "NV12 320x180", []MemoryPlane{{320, 86399}}, nil, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := parseOffers(t, tt.mode)[0]
			got, err := layout(o.Format, o.Mode, tt.mems)
			if (err != nil) != tt.bad {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(plane{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLayoutsThatAreShared(t *testing.T) {
	type places = [3]hw.PlaneLayout
	at := func(buffer, offset, stride int) hw.PlaneLayout {
		return hw.PlaneLayout{Buffer: buffer, Offset: offset, Stride: stride}
	}
	tests := []struct {
		name, mode string
		mems       []MemoryPlane
		want       hw.Layout
	}{
		{"packed", "YUYV 848x480", []MemoryPlane{{1728, 829440}}, hw.Layout{Planes: places{{Stride: 1728}}, Sizes: [3]int{829440}}},
		{"NV12", "NV12 320x180", []MemoryPlane{{320, 90112}}, hw.Layout{Planes: places{at(0, 0, 320), at(0, 57600, 320)}, Sizes: [3]int{90112}}},
		{"I420", "YU12 320x180", []MemoryPlane{{320, 86400}}, hw.Layout{Planes: places{at(0, 0, 320), at(0, 57600, 160), at(0, 72000, 160)}, Sizes: [3]int{86400}}},
		{"NV12 in two memories", "NM12 320x180", []MemoryPlane{{384, 69120}, {384, 34560}}, hw.Layout{Planes: places{at(0, 0, 384), at(1, 0, 384)}, Sizes: [3]int{69120, 34560}}},
		{"JPEG has none", "MJPG 320x180", []MemoryPlane{{0, 100000}}, hw.Layout{}},
		{"nor has H.264", "H264 320x180", []MemoryPlane{{0, 100000}}, hw.Layout{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := parseOffers(t, tt.mode)[0]
			planes, err := layout(o.Format, o.Mode, tt.mems)
			if err != nil {
				t.Fatal(err)
			}
			if tt.want.Sizes[0] > 0 {
				tt.want.Pixel, tt.want.Width, tt.want.Height = o.pixel, o.Width, o.Height
			}
			if got := shared(o.Mode, planes, tt.mems); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestEDIDsThatDifferInTheirPlaceOnly(t *testing.T) {
	ours := NewEDID(EDIDOptions{})
	change := func(at int, v byte) []byte {
		b := bytes.Clone(ours)
		b[at] ^= v
		b[len(b)-1] ^= v // and the checksum
		return b
	}
	placed := bytes.Index(ours, []byte{3, 12, 0}) + 3
	tests := []struct {
		name string
		have []byte
		same bool
	}{
		{"the same", ours, true},
		{"none", nil, false},
		{"half", ours[:128], false},
		{"another mode", change(128+6, 1), false},
		{"another place in the tree", change(placed, 0x30), true},
	}
	for _, tt := range tests {
		if got := sameEDID(tt.have, ours); got != tt.same {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestStampsRiseAndLieOnTheMonotonicClock(t *testing.T) {
	const mono, other = uapi.BufFlagTimestampMonotonic, 0x4000
	type step struct {
		flags           uint32
		stamp, now, out int // ms
		own             bool
	}
	at := func(ms int) time.Duration { return time.Duration(ms) * time.Millisecond }
	tests := []struct {
		name  string
		steps []step
	}{
		{"good ones pass", []step{{mono, 1000, 1030, 1000, true}, {mono, 1040, 1070, 1040, true}}},
		{"no clock told: time of the dequeue", []step{{0, 1000, 1030, 1030, false}, {0, 1040, 1070, 1070, false}}},
		{"copied from another queue", []step{{other, 1000, 1030, 1030, false}}},
		{"zero", []step{{mono, 100000, 100030, 100000, true}, {mono, 0, 100070, 100040, false}}},
		{"in the future", []step{{mono, 1000, 1030, 1000, true}, {mono, 5000, 1070, 1040, false}, {mono, 1080, 1110, 1080, true}}},
		{"too old", []step{{mono, 1000, 11001, 11001, false}}},
		{"just not too old", []step{{mono, 1000, 11000, 1000, true}}},
		{"going back once does not spoil those after", []step{{mono, 1000, 1030, 1000, true}, {mono, 900, 1070, 1040, false}, {mono, 1081, 1110, 1081, true}}},
		{"going back for good is replaced for good", []step{{mono, 9000, 9030, 9000, true}, {mono, 4040, 9070, 9040, false}, {mono, 4080, 9110, 9080, false}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var s stamps
			for i, st := range tt.steps {
				got, own := s.next(st.flags, at(st.stamp), at(st.now))
				if got != at(st.out) || own != st.own {
					t.Errorf("step %d: got %v, own %v; want %v, %v", i, got, own, at(st.out), st.own)
				}
			}
		})
	}
	t.Run("two in one instant still rise", func(t *testing.T) {
		var s stamps
		a, _ := s.next(0, 0, at(50))
		b, _ := s.next(0, 0, at(50))
		if b <= a {
			t.Errorf("%v after %v", b, a)
		}
	})
}

// picture is the smallest thing that passes for a JPEG: a header with a
// thumbnail that holds an EOI, a scan, its end.
var picture = []byte("\xFF\xD8\xFF\xE1\x00\x08ab\xFF\xD9cd\xFF\xDA\x00\x04xy\x12\xFF\x00\x34\xFF\xD9")

func TestTrimJPEG(t *testing.T) {
	cut := len(picture) - 2
	tests := []struct {
		name string
		in   []byte
		ok   bool
	}{
		{"whole", picture, true},
		{"padded with zeros", append(bytes.Clone(picture), make([]byte, 100)...), true},
		{"padded with ones", append(bytes.Clone(picture), bytes.Repeat([]byte{0xFF}, 100)...), true},
		{"broken off: the thumbnail's end is not the picture's", picture[:cut], false},
		{"broken off in the header", picture[:8], false},
		{"begins late", append([]byte{0}, picture...), false},
		{"only the begin", []byte{0xFF, 0xD8}, false},
		{"a segment of no length", []byte("\xFF\xD8\xFF\xE1\x00\x01aaaaaaaaaa\xFF\xD9"), false},
		{"empty", nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := trimJPEG(tt.in)
			if ok != tt.ok || ok && !bytes.Equal(got, picture) {
				t.Errorf("got %x, %v", got, ok)
			}
		})
	}
}

func FuzzTrimJPEG(f *testing.F) {
	f.Add(picture)
	f.Add(append(bytes.Clone(picture), 0, 0, 0))
	f.Add([]byte("\xFF\xD8\xFF\xFF\xFF\xE0\x00\x02\xFF\xDA\x00\x02\xFF\xD9"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, ok := trimJPEG(b)
		if ok && (!bytes.HasPrefix(b, got) || !bytes.HasPrefix(got, []byte{0xFF, 0xD8}) || !bytes.HasSuffix(got, []byte{0xFF, 0xD9})) {
			t.Errorf("%x out of %x", got, b)
		}
	})
}

func TestSizesWithinARange(t *testing.T) {
	e := &uapi.FrmSizeEnum{MinWidth: 16, MaxWidth: 1000, StepWidth: 8, MinHeight: 16, MaxHeight: 600, StepHeight: 2}
	got := sizesWithin(e, hw.Mode{Width: 701, Height: 401})
	want := []size{{960, 540}, {800, 600}, {720, 576}, {720, 480}, {640, 480}, {640, 360}, {320, 240}, {320, 180}, {1000, 600}, {696, 400}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(size{})); diff != "" {
		t.Error(diff)
	}
}

func TestRange(t *testing.T) {
	tests := []struct {
		name string
		g    grant
		full bool
	}{
		{"video is limited", grant{code: hw.YUYV}, false},
		{"unless the driver says full", grant{code: hw.YUYV, quantization: uapi.QuantizationFull}, true},
		{"or names JPEG's colours", grant{code: hw.YUYV, colorspace: uapi.ColorspaceJPEG}, true},
		{"JPEG is full", grant{code: hw.MJPEG}, true},
		{"unless the driver says limited", grant{code: hw.MJPEG, quantization: uapi.QuantizationLimit}, false},
		{"RGB is full", grant{code: hw.BGR24}, true},
		{"unless HDMI says limited", grant{code: hw.BGR24, quantization: uapi.QuantizationLimit}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.g.fullRange(); got != tt.full {
				t.Errorf("full range: %v", got)
			}
		})
	}
}

func TestMatrix(t *testing.T) {
	const srgb, hd, wide = 8, 3, 10
	tests := []struct {
		name string
		g    grant
		want hw.Matrix
	}{
		{"a USB camera is of BT.601 at any size", grant{code: hw.YUYV, width: 1920, height: 1080, colorspace: srgb}, hw.BT601},
		{"HDMI of high definition is not", grant{code: hw.UYVY, colorspace: hd}, hw.BT709},
		{"the encoding goes first", grant{code: hw.UYVY, colorspace: srgb, encoding: 2}, hw.BT709},
		{"nothing said", grant{code: hw.NV12}, hw.MatrixUnsaid},
		{"BT.2020 is not ours", grant{code: hw.NV12, colorspace: wide}, hw.MatrixUnsaid},
		{"RGB has none", grant{code: hw.RGB24, colorspace: srgb}, hw.MatrixUnsaid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.g.matrix(); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}

func TestAPollErrorWithoutABuffer(t *testing.T) {
	s := &cameraStream{dev: &Device{path: "/dev/video0"}}
	if err := s.broken(unix.POLLERR | unix.POLLHUP | unix.POLLPRI); !errors.Is(err, hw.ErrGone) {
		t.Errorf("hung up: %v", err)
	}
	if err := s.broken(unix.POLLERR); errors.Is(err, hw.ErrGone) || !errors.Is(err, unix.EIO) {
		t.Errorf("only an error: %v", err)
	}
}
