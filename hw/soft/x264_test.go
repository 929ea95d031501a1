package soft

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"encoderd.example/hw"
	"encoderd.example/stream"
	"encoderd.example/stream/h264"
)

func config(width, height, bitrate int) hw.EncoderConfig {
	return hw.EncoderConfig{Codec: stream.H264, Width: width, Height: height, FPS: hw.Rate{Num: 30, Den: 1}, GOP: 60, Bitrate: bitrate}
}

func mode(pixel hw.PixelFormat, width, height int) hw.Mode {
	return hw.Mode{Pixel: pixel, Width: width, Height: height, FPS: hw.Rate{Num: 30, Den: 1}}
}

func open(tb testing.TB, cfg hw.EncoderConfig) hw.Encoder {
	tb.Helper()
	e, err := X264().Open(cfg)
	if err != nil {
		tb.Fatalf("%v: install it, make test does", err)
	}
	tb.Cleanup(func() {
		if err := e.Close(); err != nil {
			tb.Error(err)
		}
	})
	return e
}

// codeOne lends f to e, waits for its unit, and checks that f came back.
func codeOne(tb testing.TB, e hw.Encoder, f *hw.Frame) *stream.Unit {
	tb.Helper()
	f.Lend()
	if err := e.Submit(f); err != nil {
		tb.Fatal(err)
	}
	f.Release()
	u, err := e.Next(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	return u
}

func codeAll(tb testing.TB, e hw.Encoder, frames []*hw.Frame) []*stream.Unit {
	tb.Helper()
	var units []*stream.Unit
	for _, f := range frames {
		units = append(units, codeOne(tb, e, f))
	}
	return units
}

// planar returns frames as 4:2:0 at the size of the rendition, by swscale.
func planar(tb testing.TB, frames []*hw.Frame, width, height int) [][]byte {
	tb.Helper()
	var raw []byte
	for _, f := range frames {
		for _, p := range f.Planes {
			raw = append(raw, p.Data...)
		}
	}
	m := frames[0].Mode
	in := "limited"
	if m.FullRange {
		in = "full"
	}
	raw = peer(tb, raw, "ffmpeg", "-f", "rawvideo", "-s", fmt.Sprintf("%dx%d", m.Width, m.Height), "-pix_fmt", pixNames[m.Pixel], "-i", "-",
		"-vf", fmt.Sprintf("scale=%d:%d:flags=area:in_range=%s:out_range=limited", width, height, in), "-pix_fmt", "yuv420p", "-f", "rawvideo", "-")
	size := width * height * 3 / 2
	var pictures [][]byte
	for ; len(raw) >= size; raw = raw[size:] {
		pictures = append(pictures, raw[:size])
	}
	return pictures
}

func TestEveryInputComesOutOfFFmpegAsItWentIn(t *testing.T) {
	full := mode(hw.I422, 640, 360)
	full.FullRange = true
	rgb := mode(hw.BGR24, 640, 360)
	rgb.FullRange = true
	for _, c := range []struct {
		name   string
		in     hw.Mode
		w, h   int
		copied int // bytes a frame
	}{
		{"NV12 as it is", mode(hw.NV12, 640, 360), 640, 360, 0},
		{"I420 as it is", mode(hw.I420, 640, 360), 640, 360, 0},
		{"YUYV", mode(hw.YUYV, 640, 360), 640, 360, 640 * 360 * 3 / 2},
		{"RGB", rgb, 640, 360, 640 * 360 * 3 / 2},
		{"4:4:4", mode(hw.NV24, 640, 360), 640, 360, 640 * 360 / 2},
		{"I422 copies chroma only", mode(hw.I422, 640, 360), 640, 360, 640 * 360 / 2},
		{"full range", full, 640, 360, 640 * 360 * 3 / 2},
		{"1080p down to 360p", mode(hw.YUYV, 1920, 1080), 640, 360, 640 * 360 * 3 / 2},
		{"360p up to 720p", mode(hw.NV12, 640, 360), 1280, 720, 1280 * 720 * 3 / 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			const n = 12
			frames := scene(t, c.in, n)
			e := open(t, config(c.w, c.h, 8_000_000))
			units := codeAll(t, e, frames)
			got, want := decode(t, units), planar(t, frames, c.w, c.h)
			if len(got) != n {
				t.Fatalf("ffmpeg decodes %d of %d pictures", len(got), n)
			}
			for i := range got {
				if d := psnr(got[i], want[i]); d < 32 {
					t.Errorf("picture %d: %.1f dB against the input", i, d)
				}
			}
			for i, u := range units {
				if u.PTS != frames[i].Stamp || u.DTS != u.PTS || u.Key != (i == 0) || u.Track != units[0].Track {
					t.Errorf("unit %d: pts %s dts %s key %t, want stamp %s", i, u.PTS, u.DTS, u.Key, frames[i].Stamp)
				}
			}
			s := e.Stats()
			if want := (hw.EncoderStats{Submitted: n, Coded: n, CopiedBytes: uint64(n * c.copied)}); s != want {
				t.Errorf("stats %+v, want %+v", s, want)
			}
		})
	}
}

func TestTrackSaysWhatFFprobeReads(t *testing.T) {
	for _, c := range []struct{ profile, want string }{{"", "High"}, {"high", "High"}, {"main", "Main"}, {"baseline", "Constrained Baseline"}} {
		t.Run("profile "+c.profile, func(t *testing.T) {
			cfg := config(854, 480, 1_000_000)
			cfg.Profile, cfg.FPS = c.profile, hw.Rate{Num: 30000, Den: 1001}
			e := open(t, cfg)
			units := codeAll(t, e, scene(t, mode(hw.NV12, 854, 480), 4))
			_, info := probe(t, units)
			for key, want := range map[string]any{
				"width": 854.0, "height": 480.0, "profile": c.want, "pix_fmt": "yuv420p", "has_b_frames": 0.0, "r_frame_rate": "30000/1001",
				"color_range": "tv", "color_space": "smpte170m", "color_primaries": "bt709", "color_transfer": "bt709",
			} {
				if info[key] != want {
					t.Errorf("%s is %v, want %v", key, info[key], want)
				}
			}
			track := units[0].Track
			if track.Codec != stream.H264 || track.Width != 854 || track.Height != 480 || track.Bitrate != 1_000_000 || track.FPS < 29.96 || track.FPS > 29.98 {
				t.Errorf("track %+v", track)
			}
			sps, pps, err := h264.ParameterSets(track.Setup)
			if err != nil || len(sps) == 0 || len(pps) == 0 {
				t.Errorf("setup %x: %v", track.Setup, err)
			}
		})
	}
}

func TestParameterSetsSayTheMatrixOfThePictures(t *testing.T) {
	const bt709, smpte170m = 1, 6 // H.264 table E-5
	said := func(pixel hw.PixelFormat, height int, m hw.Matrix) hw.Mode {
		s := mode(pixel, height*16/9, height)
		s.Matrix = m
		return s
	}
	e := open(t, config(320, 180, 1_000_000))
	var track *stream.Track
	for i, step := range []struct {
		name string
		in   hw.Mode
		want byte
	}{
		{"a test picture of high definition, scaled down", said(hw.NV12, 720, hw.MatrixUnsaid), bt709},
		{"a USB camera at any size", said(hw.YUYV, 720, hw.BT601), smpte170m},
		{"a slate goes with the camera", said(hw.I420, 180, hw.MatrixUnsaid), smpte170m},
		{"so does a slate of another size", said(hw.I420, 720, hw.MatrixUnsaid), smpte170m},
		{"RGB is mixed to go with it", said(hw.RGB24, 720, hw.MatrixUnsaid), smpte170m},
		{"HDMI after it", said(hw.UYVY, 720, hw.BT709), bt709},
		{"RGB after that", said(hw.BGR24, 360, hw.MatrixUnsaid), bt709},
	} {
		for n := range 2 {
			f, err := hw.NewMemoryFrame(step.in, nil)
			if err != nil {
				t.Fatal(err)
			}
			f.Stamp = time.Duration(2*i+n+1) * time.Second
			u := codeOne(t, e, f)
			sps, _, err := h264.ParameterSets(u.Track.Setup)
			if err != nil {
				t.Fatal(err)
			}
			info, err := h264.ParseSPS(sps)
			if err != nil {
				t.Fatal(err)
			}
			if info.Matrix != step.want || info.FullRange {
				t.Errorf("%s: matrix %d, want %d", step.name, info.Matrix, step.want)
			}
			if changed := u.Track != track; changed != u.Key {
				t.Errorf("%s: a new track: %v, a key picture: %v", step.name, changed, u.Key)
			}
			track = u.Track
		}
	}
	if s := e.Stats(); s.Submitted != 14 || s.Coded != 14 || s.Dropped+s.Swallowed != 0 {
		t.Errorf("%+v", s)
	}
}

func TestKeyFramesComeByTheGOPAndOnDemandOnly(t *testing.T) {
	cfg := config(320, 180, 500_000)
	cfg.GOP = 20
	e := open(t, cfg)
	frames := scene(t, mode(hw.NV12, 320, 180), 60)
	// A cut to another picture in mid-GOP must not make a key frame.
	for _, p := range frames[10].Planes {
		for i := range p.Data {
			p.Data[i] = byte(i * 7)
		}
	}
	var units []*stream.Unit
	var keys []int
	for i, f := range frames {
		if i == 25 {
			e.ForceKey()
		}
		units = append(units, codeOne(t, e, f))
		if units[i].Key {
			keys = append(keys, i)
		}
	}
	if want := "[0 20 25 45]"; fmt.Sprint(keys) != want {
		t.Errorf("key frames at %v, want %s", keys, want)
	}
	packets, _ := probe(t, units)
	for i, p := range packets {
		if strings.HasPrefix(p.Flags, "K") != units[i].Key {
			t.Errorf("packet %d: ffprobe says %q, unit says key %t", i, p.Flags, units[i].Key)
		}
	}
	for _, k := range keys {
		var types []byte
		for nal := range h264.NALs(units[k].Data) {
			types = append(types, h264.Type(nal))
		}
		if !bytes.Contains(types, []byte{h264.TypeSPS, h264.TypePPS}) {
			t.Errorf("key unit %d holds NAL types %v, no parameter sets", k, types)
		}
	}
}

// rate returns bit/s of units at 30 frames a second.
func rate(units []*stream.Unit) int {
	n := 0
	for _, u := range units {
		n += len(u.Data)
	}
	return n * 8 * 30 / len(units)
}

func TestBitrateIsHeldAndTurnsWhileCoding(t *testing.T) {
	e := open(t, config(640, 360, 2_000_000))
	frames := noisy(t, mode(hw.NV12, 640, 360), 360)
	var measured []int
	for i, want := range []int{2_000_000, 600_000, 3_000_000} {
		if err := e.SetBitrate(want); err != nil {
			t.Fatal(err)
		}
		units := codeAll(t, e, frames[i*120:(i+1)*120])
		got := rate(units[30:]) // after one second of settling
		measured = append(measured, got)
		if got < want*80/100 || got > want*115/100 {
			t.Errorf("at %d bit/s it codes %d", want, got)
		}
	}
	t.Logf("measured %v bit/s", measured)
	if err := e.SetBitrate(0); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("a rate of zero: %v", err)
	}
}

// noisy is a scene that needs every bit that it can get.
func noisy(tb testing.TB, m hw.Mode, n int) []*hw.Frame {
	tb.Helper()
	frames := scene(tb, m, n)
	seed := uint32(1)
	for _, f := range frames {
		for i := range f.Planes[0].Data {
			seed = seed*1664525 + 1013904223
			f.Planes[0].Data[i] = f.Planes[0].Data[i]/2 + byte(seed>>26) + 40
		}
	}
	return frames
}

func TestChangedInputKeepsTheTrack(t *testing.T) {
	e := open(t, config(640, 360, 1_000_000))
	a, b := scene(t, mode(hw.NV12, 640, 360), 3), scene(t, mode(hw.YUYV, 640, 480), 3)
	for i, f := range b {
		f.Stamp += time.Second + time.Duration(i)
	}
	units := codeAll(t, e, append(a, b...))
	for i, u := range units {
		if u.Track != units[0].Track {
			t.Errorf("unit %d has another track", i)
		}
	}
	if n := len(decode(t, units)); n != 6 {
		t.Errorf("ffmpeg decodes %d of 6 pictures", n)
	}
}

func TestSubmitDropsInsteadOfBlockingAndCloseGivesFramesBack(t *testing.T) {
	e := open(t, config(320, 180, 500_000))
	m := mode(hw.NV12, 320, 180)
	const n = 30
	var back sync.WaitGroup
	busy := 0
	for i := range n {
		back.Add(1)
		f, err := hw.NewMemoryFrame(m, func(*hw.Frame) { back.Done() })
		if err != nil {
			t.Fatal(err)
		}
		f.Stamp = time.Duration(i+1) * m.FPS.Period()
		f.Lend()
		if err := e.Submit(f); errors.Is(err, hw.ErrBusy) {
			busy++
		} else if err != nil {
			t.Fatal(err)
		}
		f.Release()
	}
	s := e.Stats()
	// One in work, two waiting, two or three units that nobody takes.
	if busy < n-2*queueDepth-2 || s.Dropped != uint64(busy) || s.Submitted != uint64(n-busy) {
		t.Errorf("%d of %d frames were refused, stats %+v", busy, n, s)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	back.Wait() // hangs if a frame is not given back
	f, _ := hw.NewMemoryFrame(m, nil)
	f.Stamp = time.Hour
	if err := e.Submit(f.Lend()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("submit after close: %v", err)
	}
}

func TestCloseWhileOthersCall(t *testing.T) {
	for round := range 20 {
		e := open(t, config(160, 90, 200_000))
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := 1; ; i++ {
				f, _ := hw.NewMemoryFrame(mode(hw.YUYV, 160, 90), nil)
				f.Stamp = time.Duration(i)
				err := e.Submit(f.Lend())
				f.Release()
				if errors.Is(err, os.ErrClosed) {
					return
				}
				if err != nil && !errors.Is(err, hw.ErrBusy) {
					t.Error(err)
					return
				}
				e.ForceKey()
				runtime.Gosched()
			}
		})
		got := make(chan struct{})
		wg.Go(func() {
			defer close(got)
			for i := 0; ; i++ {
				if _, err := e.Next(context.Background()); err != nil {
					if !errors.Is(err, os.ErrClosed) {
						t.Error(err)
					}
					return
				}
				if i == round {
					got <- struct{}{}
				}
			}
		})
		<-got
		wg.Go(func() { _ = e.Close() })
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
	}
}

func TestNextEndsWithItsContext(t *testing.T) {
	e := open(t, config(160, 90, 200_000))
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := e.Next(ctx); !errors.Is(err, cause) {
		t.Errorf("got %v, want the cause", err)
	}
}

func TestMainAndSubRunAtOnce(t *testing.T) {
	frames := scene(t, mode(hw.YUYV, 1280, 720), 20)
	for _, f := range frames {
		f.Lend()
	}
	var wg sync.WaitGroup
	for _, c := range []struct{ w, h, bitrate int }{{1280, 720, 3_000_000}, {640, 360, 800_000}, {320, 180, 300_000}} {
		e := open(t, config(c.w, c.h, c.bitrate))
		wg.Go(func() {
			var units []*stream.Unit
			for _, f := range frames {
				if err := e.Submit(f); err != nil {
					t.Error(err)
					return
				}
				u, err := e.Next(context.Background())
				if err != nil {
					t.Error(err)
					return
				}
				units = append(units, u)
			}
			if n := len(decode(t, units)); n != len(frames) {
				t.Errorf("%dx%d: ffmpeg decodes %d of %d pictures", c.w, c.h, n, len(frames))
			}
		})
	}
	wg.Wait()
}

func TestFramesThatCannotBeCodedAreRefused(t *testing.T) {
	e := open(t, config(160, 90, 200_000))
	good := scene(t, mode(hw.NV12, 160, 90), 2)
	codeOne(t, e, good[1])
	for _, c := range []struct {
		name   string
		damage func(*hw.Frame)
	}{
		{"a stamp that does not rise", func(*hw.Frame) {}},
		{"JPEG", func(f *hw.Frame) { f.Stamp, f.Pixel = time.Hour, hw.MJPEG }},
		{"a dma-buf that is not mapped", func(f *hw.Frame) { f.Stamp, f.Planes[0].Data = time.Hour, nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := hw.NewMemoryFrame(mode(hw.NV12, 160, 90), nil)
			if err != nil {
				t.Fatal(err)
			}
			f.Stamp = good[0].Stamp
			c.damage(f)
			if err := e.Submit(f.Lend()); !errors.Is(err, hw.ErrUnsupported) {
				t.Errorf("got %v, want an error that wraps ErrUnsupported", err)
			}
			f.Release() // panics if the encoder kept it
		})
	}
	if s := e.Stats(); s.Dropped != 3 || s.Submitted != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestConfigsThatCannotBeCodedAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(*hw.EncoderConfig){
		"another codec":       func(c *hw.EncoderConfig) { c.Codec = stream.H265 },
		"an odd width":        func(c *hw.EncoderConfig) { c.Width = 161 },
		"no height":           func(c *hw.EncoderConfig) { c.Height = 0 },
		"no frame rate":       func(c *hw.EncoderConfig) { c.FPS = hw.Rate{} },
		"no GOP":              func(c *hw.EncoderConfig) { c.GOP = 0 },
		"no bit rate":         func(c *hw.EncoderConfig) { c.Bitrate = 0 },
		"an unknown preset":   func(c *hw.EncoderConfig) { c.Preset = "warp" },
		"an unknown profile":  func(c *hw.EncoderConfig) { c.Profile = "higher" },
		"a picture too large": func(c *hw.EncoderConfig) { c.Width = 100_000 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(160, 90, 200_000)
			spoil(&cfg)
			if _, err := X264().Open(cfg); !errors.Is(err, hw.ErrUnsupported) {
				t.Errorf("got %v, want an error that wraps ErrUnsupported", err)
			}
		})
	}
}

func TestMissingLibraryNamesThePackage(t *testing.T) {
	_, err := x264Driver([]string{"libx264-not-here.so.164", "libx264-nor-here.so.163"}).Open(config(160, 90, 200_000))
	if !errors.Is(err, hw.ErrMissing) || !strings.Contains(err.Error(), "apt-get install libx264-164") {
		t.Errorf("got %v", err)
	}
	// A library that is there but is another one.
	if _, err := x264Driver([]string{"libm.so.6"}).Open(config(160, 90, 200_000)); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("got %v, want an error that wraps ErrUnsupported", err)
	}
}

func TestAFrameCostsFewAllocations(t *testing.T) {
	e := open(t, config(160, 90, 200_000))
	frames := scene(t, mode(hw.YUYV, 160, 90), 1)
	f := frames[0]
	n := testing.AllocsPerRun(100, func() {
		f.Stamp += f.FPS.Period()
		codeOne(t, e, f)
	})
	t.Logf("%.1f allocations a frame", n)
	if n > 4 {
		t.Errorf("%.1f allocations a frame: want the unit and its bytes only", n)
	}
}

// BenchmarkX264BesideFFmpeg codes the same 720p30 pictures by this package and
// by ffmpeg with one thread, and reports the ratio of the CPU time that the two
// processes use.
func BenchmarkX264BesideFFmpeg(b *testing.B) {
	const n = 300
	for _, pixel := range []hw.PixelFormat{hw.YUYV, hw.NV12, hw.I420, hw.I422} {
		b.Run(pixel.String(), func(b *testing.B) {
			frames := scene(b, mode(pixel, 1280, 720), n)
			var raw []byte
			for _, f := range frames {
				for _, p := range f.Planes {
					raw = append(raw, p.Data...)
				}
			}
			cfg := config(1280, 720, 3_000_000)
			cfg.Threads = 1
			var ours, theirs time.Duration
			for b.Loop() {
				e, err := X264().Open(cfg)
				if err != nil {
					b.Fatal(err)
				}
				before := cpuTime(b)
				codeAll(b, e, frames)
				ours += cpuTime(b) - before
				if err := e.Close(); err != nil {
					b.Fatal(err)
				}
				theirs += peerTime(b, raw, "ffmpeg", "-threads", "1", "-f", "rawvideo", "-s", "1280x720", "-r", "30", "-pix_fmt", pixNames[pixel], "-i", "-",
					"-pix_fmt", "yuv420p", "-threads", "1", "-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency",
					"-b:v", "3M", "-maxrate", "3M", "-bufsize", "3M", "-g", "60", "-f", "null", "-")
			}
			b.ReportMetric(ours.Seconds()/theirs.Seconds(), "ratio")
			b.ReportMetric(ours.Seconds()*1000/float64(n*b.N), "cpu-ms/frame")
			b.ReportMetric(theirs.Seconds()*1000/float64(n*b.N), "ffmpeg-ms/frame")
		})
	}
}
