package soft

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"encoderd.example/hw"
	"encoderd.example/stream"
	"encoderd.example/stream/h264"
)

// keyUnit returns one key picture as ffmpeg's libx264 codes it.
func keyUnit(tb testing.TB, width, height int, args ...string) *stream.Unit {
	tb.Helper()
	command := append([]string{"-f", "lavfi", "-i", fmt.Sprintf("testsrc=s=%dx%d", width, height), "-frames:v", "1", "-pix_fmt", "yuv420p", "-c:v", "libx264"}, args...)
	u := &stream.Unit{Key: true, PTS: 7 * time.Second}
	var sps, pps []byte
	for nal := range h264.AnnexB(peer(tb, nil, "ffmpeg", append(command, "-f", "h264", "-")...)) {
		switch h264.Type(nal) {
		case h264.TypeSPS:
			sps = nal
		case h264.TypePPS:
			pps = nal
		}
		u.Data = h264.AppendNAL(u.Data, nal)
	}
	setup, err := h264.ConfigRecord(sps, pps)
	if err != nil {
		tb.Fatal(err)
	}
	u.Track = &stream.Track{Codec: stream.H264, Setup: setup, Width: width, Height: height}
	return u
}

func TestKeyPicturesDecodeAsFFmpegDecodesThem(t *testing.T) {
	for _, c := range []struct {
		name string
		w, h int
		args []string
		full bool
		want hw.Matrix
	}{
		{"high profile with B pictures to come", 640, 360, []string{"-profile:v", "high", "-bf", "3"}, false, hw.MatrixUnsaid},
		{"baseline", 320, 180, []string{"-profile:v", "baseline"}, false, hw.MatrixUnsaid},
		{"main, four slices", 640, 360, []string{"-profile:v", "main", "-slices", "4"}, false, hw.MatrixUnsaid},
		{"cropped lines", 1920, 1080, []string{"-preset", "ultrafast", "-colorspace", "bt709"}, false, hw.BT709},
		{"full range", 320, 180, []string{"-color_range", "pc", "-colorspace", "smpte170m"}, true, hw.BT601},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := keyUnit(t, c.w, c.h, c.args...)
			f, err := DecodeKey(u)
			if err != nil {
				t.Fatalf("%v: make test installs it", err)
			}
			defer f.Release()
			if f.Width != c.w || f.Height != c.h || f.Stamp != u.PTS || f.FullRange != c.full || f.Matrix != c.want {
				t.Errorf("%s, range %t, %v, stamp %v", f.Mode, f.FullRange, f.Matrix, f.Stamp)
			}
			var args []string
			if c.full { // which ffmpeg 5 narrows by itself, and 7 does not
				args = []string{"-vf", "scale=out_range=limited"}
			}
			want := decode(t, []*stream.Unit{u}, args...)
			if len(want) != 1 {
				t.Fatalf("ffmpeg decodes %d pictures", len(want))
			}
			if c.full {
				if d := psnr(planar(t, []*hw.Frame{f}, c.w, c.h)[0], want[0]); d < 45 {
					t.Errorf("%.1f dB against what ffmpeg decodes", d)
				}
			} else if !bytes.Equal(visible(f), want[0]) {
				t.Error("ffmpeg decodes something else")
			}
		})
	}
}

func TestManyDecodeKeyPicturesAtATime(t *testing.T) {
	u := keyUnit(t, 320, 180)
	want := decode(t, []*stream.Unit{u})[0]
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 5 {
				f, err := DecodeKey(u)
				if err != nil {
					t.Error(err)
					return
				}
				if !bytes.Equal(visible(f), want) {
					t.Error("another picture")
				}
				f.Release()
			}
		})
	}
	all.Wait()
}

func TestWhatIsNoKeyPictureIsRefused(t *testing.T) {
	good := keyUnit(t, 320, 180)
	change := func(f func(u *stream.Unit)) *stream.Unit {
		u, track := *good, *good.Track
		u.Track, u.Data = &track, bytes.Clone(u.Data)
		f(&u)
		return &u
	}
	for name, c := range map[string]struct {
		unit *stream.Unit
		want error
	}{
		"not a key":         {change(func(u *stream.Unit) { u.Key = false }), hw.ErrUnsupported},
		"another codec":     {change(func(u *stream.Unit) { u.Track.Codec = stream.H265 }), hw.ErrUnsupported},
		"no track":          {change(func(u *stream.Unit) { u.Track = nil }), hw.ErrUnsupported},
		"no parameter sets": {change(func(u *stream.Unit) { u.Track.Setup = nil }), ErrNoStill},
		"no picture":        {change(func(u *stream.Unit) { u.Data = nil }), ErrNoStill},
		"cut off":           {change(func(u *stream.Unit) { u.Data = h264.AppendNAL(nil, []byte{h264.TypeIDR | 0x60, 0x88}) }), ErrNoStill},
	} {
		if f, err := DecodeKey(c.unit); !errors.Is(err, c.want) || f != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if f, err := DecodeKey(good); err != nil {
		t.Errorf("after all these: %v", err)
	} else {
		f.Release()
	}
}

func TestWithoutADecoderTheErrorNamesThePackage(t *testing.T) {
	u := keyUnit(t, 320, 180)
	_, err := newOpenH264([]string{"libopenh264-not-here.so.7"}).decode(u)
	if !errors.Is(err, hw.ErrMissing) || !strings.Contains(err.Error(), "apt-get install libopenh264-7") {
		t.Errorf("missing: %v", err)
	}
	if _, err := newOpenH264([]string{"libm.so.6"}).decode(u); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("another library: %v", err)
	}
}
