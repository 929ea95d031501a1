package m2m_test

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/m2m"
	"encoderd.example/hw/v4l2/fakevb2"
	"encoderd.example/hw/v4l2/uapi"
	"encoderd.example/stream"
	"encoderd.example/stream/h264"
)

// heap returns pictures in memory that nobody shares.
func heap(t *testing.T, m hw.Mode) *reel {
	t.Helper()
	r, err := newReel(m, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// play opens the rig's encoder for pictures of 64×48 in memory of its own.
func (r *rig) play(t *testing.T, cfg hw.EncoderConfig) *show {
	t.Helper()
	pictures, l := reelOf(t, r.driver, hw.Layout{Pixel: hw.NV12, Width: cfg.Width, Height: cfg.Height})
	cfg.Input = l
	e, err := r.driver.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return newShow(t, e, pictures)
}

// padded codes grey pictures that are not so short that half of one is nothing.
func padded(p fakevb2.Picture) []byte {
	return append(fakevb2.Grey(p), bytes.Repeat([]byte{0x55}, 64)...)
}

func small() hw.EncoderConfig { return config(64, 48) }

func smallHEVC() hw.EncoderConfig {
	cfg := config(fakevb2.WidthHEVC, fakevb2.HeightHEVC)
	cfg.Codec = stream.H265
	return cfg
}

// codecs are what encoders are tried with.
var codecs = map[string]struct {
	node   func(driver string) *fakevb2.Node
	config func() hw.EncoderConfig
}{
	"H.264": {codec, small},
	"HEVC":  {codecHEVC, smallHEVC},
}

func TestPicturesInSharedMemoryAreNotCopied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, codec("vh264enc"))
		s := r.play(t, small())
		units := s.pass(10)
		if len(units) != 10 || fmt.Sprint(keys(units)) != "[0]" {
			t.Fatalf("%d units, keys %v", len(units), keys(units))
		}
		checkTrack(t, units[0].Track, small())
		if units[9].Track != units[0].Track {
			t.Error("a new track without need")
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
		if got, want := s.e.Stats(), (hw.EncoderStats{Submitted: 10, Coded: 10}); got != want {
			t.Errorf("%+v", got)
		}
	})
}

// TestWhateverTheEncoderDoesTheShowGoesOn runs 12 pictures past each fault of
// the fourth one, and looks which come out.
func TestWhateverTheEncoderDoesTheShowGoesOn(t *testing.T) {
	without := func(missing ...int) (list []int) {
		for i := 1; i <= 12; i++ {
			if !slices.Contains(missing, i) {
				list = append(list, i)
			}
		}
		return list
	}
	for _, tt := range []struct {
		name   string
		fault  fakevb2.CodingFault
		first  bool // the first picture suffers, not the fourth
		driver string
		want   []int
		keys   []int // pictures that come as key units
	}{
		{name: "dropped without a sign", fault: fakevb2.CodingFault{Dropped: true}, want: without(4), keys: []int{1}},
		{name: "the first is dropped", fault: fakevb2.CodingFault{Dropped: true}, first: true, want: without(1, 2), keys: []int{3}},
		{name: "headers in a buffer of their own", fault: fakevb2.CodingFault{HeaderOnly: true}, first: true, want: without(), keys: []int{1}},
		{name: "headers alone, no picture", fault: fakevb2.CodingFault{HeaderOnly: true, Dropped: true}, want: without(4), keys: []int{1}},
		{name: "an empty picture", fault: fakevb2.CodingFault{Empty: true}, want: without(4), keys: []int{1, 5}},
		{name: "the flags lie", fault: fakevb2.CodingFault{WrongKey: true}, want: without(), keys: []int{1}},
		{name: "a damaged picture", fault: fakevb2.CodingFault{Error: true}, want: without(4), keys: []int{1, 5}},
		{name: "a stamp is lost", fault: fakevb2.CodingFault{NoStamp: true}, want: without(4), keys: []int{1, 5}},
		{name: "garbage first", fault: fakevb2.CodingFault{Garbage: true}, first: true, want: without(), keys: []int{1}},
		// That a picture was cut shows when its rest comes: one cut picture is sent,
		// and from then on each waits for the next one, the last in vain.
		{name: "split for no reason", fault: fakevb2.CodingFault{Split: true}, want: without(12), keys: []int{1, 5}},
		{name: "damaged, no order for key pictures", fault: fakevb2.CodingFault{Error: true}, driver: "allegro", want: without(4), keys: []int{1, 5}},
	} {
		for name, c := range codecs {
			t.Run(name+" "+tt.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := c.node(cmp.Or(tt.driver, "vh264enc"))
					n.Encoder.Script = []fakevb2.CodingFault{{}, {}, {}, tt.fault}
					if tt.first {
						n.Encoder.Script = []fakevb2.CodingFault{tt.fault}
					}
					n.Encoder.Code = padded
					s := newRig(t, n).play(t, c.config())
					s.pass(12)
					if err := s.close(); err != nil {
						t.Error(err)
					}
					s.came(tt.want, tt.keys)
				})
			})
		}
	}
}

// came compares the pictures that came, and those of them that are key units.
func (s *show) came(want, wantKeys []int) {
	s.t.Helper()
	got, keyed := at(s.units), []int(nil)
	for _, i := range keys(s.units) {
		keyed = append(keyed, got[i])
	}
	if !slices.Equal(got, want) || !slices.Equal(keyed, wantKeys) {
		s.t.Errorf("pictures %d came, %d as key units", got, keyed)
	}
	st := s.e.Stats()
	if st.Coded != uint64(len(want)) || st.Coded+st.Swallowed != uint64(want[len(want)-1]) || st.Dropped+st.CopiedBytes != 0 {
		s.t.Errorf("%+v", st)
	}
}

func TestKeyPicturesOnDemand(t *testing.T) {
	for _, tt := range []struct {
		name, driver string
		adapt        func(*fakevb2.Node)
	}{
		{"by order", "vh264enc", func(*fakevb2.Node) {}},
		{"by a new GOP", "wave5", func(*fakevb2.Node) {}},
		{"by a new GOP, the last picture says so", "iris_driver", func(n *fakevb2.Node) { n.Encoder.LastOnPicture = true }},
		{"by a new GOP, pictures stay inside", "wave5", func(n *fakevb2.Node) { n.Encoder.Latency = 1 }},
		{"by a new GOP, no order to drain", "hva", func(n *fakevb2.Node) { n.Encoder.NoStop = true }},
		{"the driver lacks the order", "unheard-of", func(n *fakevb2.Node) {
			n.Controls = slices.DeleteFunc(n.Controls, func(c fakevb2.Control) bool { return c.ID == uapi.CIDForceKeyFrame })
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := codec(tt.driver)
				tt.adapt(n)
				s := newRig(t, n).play(t, config(256, 128))
				s.pass(4)
				s.e.ForceKey()
				s.pass(4)
				s.e.ForceKey()
				s.pass(4)
				late := s.reel.count - len(s.units) // pictures that stay inside
				if err := s.close(); err != nil {
					t.Error(err)
				}
				if got := fmt.Sprint(keys(s.units)); got != "[0 4 8]" || late != n.Encoder.Latency {
					t.Errorf("keys %s, %d pictures inside, %d", got, late, at(s.units))
				}
				if s.units[8].Track != s.units[0].Track {
					t.Error("a new track without need")
				}
			})
		})
	}
}

func TestRatesWhileItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, codec("vh264enc"))
		s := r.play(t, small())
		s.pass(2)
		if err := s.e.SetBitrate(1_234_567); err != nil {
			t.Error(err)
		}
		if err := s.e.(*m2m.Encoder).SetRate(hw.Rate{Num: 30000, Den: 1001}); err != nil {
			t.Error(err)
		}
		s.pass(2)
		if err := s.e.SetBitrate(50_000_000); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		r.Do(func() {
			for _, want := range []int64{1_234_567, 5_000_000} { // level 2.1, high profile
				if got := r.node.Settings(); !slices.Contains(got, fakevb2.Setting{ID: uapi.CIDBitrate, Value: want}) {
					t.Errorf("settings %v without a bit rate of %d", got, want)
				}
			}
		})
		if fmt.Sprint(keys(s.units)) != "[0 2]" {
			t.Errorf("keys %v", keys(s.units))
		}
		want := small()
		want.FPS = hw.Rate{Num: 30000, Den: 1001}
		checkTrack(t, s.units[3].Track, want)
		for what, err := range map[string]error{"no rate": s.e.SetBitrate(0), "no frame rate": s.e.(*m2m.Encoder).SetRate(hw.Rate{})} {
			if !errors.Is(err, hw.ErrUnsupported) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := newRig(t, codec("wave5")).play(t, config(256, 128))
		for what, err := range map[string]error{"bit rate": s.e.SetBitrate(2_000_000), "frame rate": s.e.(*m2m.Encoder).SetRate(hw.Rate{Num: 30, Den: 1})} {
			if !errors.Is(err, hw.ErrUnsupported) {
				t.Errorf("%s of hardware that cannot: %v", what, err)
			}
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
}

// TestADriverThatChangesNothingWhileItStreams keeps its rates and is not given
// up for that: the log says so once, and the next wish fails, so that the caller
// can open it anew.
func TestADriverThatChangesNothingWhileItStreams(t *testing.T) {
	for _, tt := range []struct {
		name   string
		refuse map[string]unix.Errno
		change func(e *m2m.Encoder, up bool) error
		told   string
		keys   string
	}{
		{"the frame rate is busy", map[string]unix.Errno{"s_parm": unix.EBUSY}, changeRate, "refuses a new frame rate", "[0 2 6]"},
		{"the frame rate is not known", map[string]unix.Errno{"s_parm": unix.ENOTTY}, changeRate, "refuses a new frame rate", "[0 2 6]"},
		{"the bit rate is busy", map[string]unix.Errno{"s_ext_ctrls": unix.EBUSY}, changeBitrate, "refuses a new bit rate", "[0]"},
		{"the bit rate is out of range", map[string]unix.Errno{"s_ext_ctrls": unix.ERANGE}, changeBitrate, "refuses a new bit rate", "[0]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, codec("vh264enc"))
				s := r.play(t, small())
				e := s.e.(*m2m.Encoder)
				s.pass(2)
				r.Do(func() { r.node.Refuse = tt.refuse })
				if err := tt.change(e, true); err != nil {
					t.Errorf("the first wish: %v", err)
				}
				s.pass(2)
				if err := tt.change(e, true); !errors.Is(err, hw.ErrUnsupported) {
					t.Errorf("the second wish: %v", err)
				}
				s.pass(2)
				if err := tt.change(e, false); err != nil {
					t.Errorf("back to what the driver has: %v", err)
				}
				s.pass(2)
				if len(s.units) != 8 || fmt.Sprint(keys(s.units)) != tt.keys {
					t.Errorf("%d units, keys %v, want 8 and %s", len(s.units), keys(s.units), tt.keys)
				}
				if n := strings.Count(r.log.String(), tt.told); n != 1 {
					t.Errorf("told %d times that the driver %s:\n%s", n, tt.told, &r.log)
				}
				if err := s.close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func changeRate(e *m2m.Encoder, up bool) error {
	r := small().FPS
	if up {
		r.Num *= 2
	}
	return e.SetRate(r)
}

func changeBitrate(e *m2m.Encoder, up bool) error {
	bps := small().Bitrate
	if up {
		bps += 1_000_000
	}
	return e.SetBitrate(bps)
}

// TestPicturesArriveWhole looks at what the encoder is given, by whatever way.
func TestPicturesArriveWhole(t *testing.T) {
	only := func(codes ...string) func(*fakevb2.Node) {
		return func(n *fakevb2.Node) {
			for _, code := range []string{"UYVY", "NV16"} {
				n.Encoder.Raw = append(n.Encoder.Raw, fakevb2.Format{Code: uint32(hw.FourCC(code)), BytesPerPixel: 2, Align: 16})
			}
			n.Encoder.Raw = slices.DeleteFunc(n.Encoder.Raw, func(f fakevb2.Format) bool {
				return !slices.Contains(codes, hw.PixelFormat(f.Code).String())
			})
		}
	}
	split := func(n *fakevb2.Node) {
		n.Encoder.Raw = []fakevb2.Format{{Code: uint32(hw.FourCC("NM12")), Split: 2, BytesPerPixel: 1, Align: 64, AlignLines: 16}}
	}
	for _, tt := range []struct {
		name   string
		adapt  func(*fakevb2.Node)
		in     hw.Mode
		pooled bool // in memory of the device
		copied int  // bytes a picture
	}{
		{"in place", only("NV12"), hw.Mode{Pixel: hw.NV12, Width: 64, Height: 48}, true, 0},
		{"in place, planes apart", split, hw.Mode{Pixel: hw.NV12, Width: 64, Height: 40}, true, 0},
		{"in place, the single-planar API", func(n *fakevb2.Node) {
			only("NV12")(n)
			n.Caps, n.Type = uapi.CapVideoM2M|uapi.CapStreaming, uapi.BufTypeVideoCapture
		}, hw.Mode{Pixel: hw.NV12, Width: 64, Height: 48}, true, 0},
		{"in place, packed", only("YUYV"), hw.Mode{Pixel: hw.YUYV, Width: 64, Height: 48}, true, 0},
		{"in place, packed, chroma first", only("UYVY"), hw.Mode{Pixel: hw.UYVY, Width: 64, Height: 48}, true, 0},
		{"copied", only("NV12"), hw.Mode{Pixel: hw.NV12, Width: 64, Height: 48}, false, 64 * 48 * 3 / 2},
		{"copied, planes apart", split, hw.Mode{Pixel: hw.NV12, Width: 64, Height: 40}, false, 64 * 40 * 3 / 2},
		{"copied, three planes", only("YU12"), hw.Mode{Pixel: hw.I420, Width: 64, Height: 48}, false, 64 * 48 * 3 / 2},
		{"copied into longer lines", only("NV12"), hw.Mode{Pixel: hw.NV12, Width: 72, Height: 40}, false, 72 * 40 * 3 / 2},
		{"converted", only("NV12"), hw.Mode{Pixel: hw.YUYV, Width: 64, Height: 48}, false, 64 * 48 * 3},
		{"converted to packed", only("YUYV"), hw.Mode{Pixel: hw.NV12, Width: 64, Height: 48, FullRange: true}, false, 64 * 48 * 7 / 2},
		{"converted to packed, chroma first", only("UYVY"), hw.Mode{Pixel: hw.I420, Width: 64, Height: 48}, false, 64 * 48 * 5 / 2},
		{"scaled", only("NV12"), hw.Mode{Pixel: hw.NV12, Width: 128, Height: 96}, false, 64 * 48 * 3},
		{"the driver imports nothing", func(n *fakevb2.Node) { only("NV12")(n); n.NoImport = true }, hw.Mode{Pixel: hw.NV12, Width: 64, Height: 48}, true, 64 * 48 * 3 / 2},
		{"the driver refuses the memory", func(n *fakevb2.Node) { only("NV12")(n); n.RefuseQBuf = 1 }, hw.Mode{Pixel: hw.NV12, Width: 64, Height: 48}, true, 64 * 48 * 3 / 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := codec("unheard-of")
				n.RefuseQBuf = 0
				tt.adapt(n)
				refuse := n.RefuseQBuf
				n.RefuseQBuf = 0
				var luma [][]byte
				n.Encoder.Code = func(p fakevb2.Picture) []byte {
					luma = append(luma, bytes.Clone(p.Planes[0]))
					return fakevb2.Grey(p)
				}
				r := newRig(t, n)
				cfg := config(tt.in.Width, tt.in.Height)
				if tt.name == "scaled" {
					cfg = small()
				}
				pictures := heap(t, tt.in)
				l := hw.Layout{Pixel: tt.in.Pixel, Width: tt.in.Width, Height: tt.in.Height}
				if tt.pooled {
					pictures, l = reelOf(t, r.driver, l)
				}
				cfg.Input = l
				e, err := r.driver.Open(cfg)
				if err != nil {
					t.Fatal(err)
				}
				r.Do(func() { n.RefuseQBuf = refuse })
				s := newShow(t, e, pictures)
				if units := s.pass(5); len(units) != 5 {
					t.Errorf("%d units", len(units))
				}
				if got := s.e.Stats(); got.CopiedBytes != uint64(5*tt.copied) {
					t.Errorf("copied %d bytes a picture, want %d", got.CopiedBytes/5, tt.copied)
				}
				if got := e.(*m2m.Encoder).CopyReason(); (got != "") != (refuse > 0 || n.NoImport) {
					t.Errorf("reason: %q", got)
				}
				if err := s.close(); err != nil {
					t.Error(err)
				}
				checkLuma(t, luma, tt.in, cfg, strings.HasSuffix(tt.name, "chroma first"))
			})
		})
	}
}

// checkLuma looks for the bar, and for the lines above and below the middle.
func checkLuma(t *testing.T, luma [][]byte, in hw.Mode, cfg hw.EncoderConfig, chromaFirst bool) {
	t.Helper()
	for i, plane := range luma {
		step, first, stride := 1, 0, (cfg.Width+15)/16*16
		switch {
		case in.Height == 40 && in.Width == 64:
			stride = 64
		case len(plane) == 64*48*2:
			step, stride = 2, 2*cfg.Width
		}
		if chromaFirst {
			first = 1
		}
		for _, y := range []int{1, cfg.Height / 2, cfg.Height - 2} {
			line := plane[y*stride+first:]
			bar := (i*16 + 8) * cfg.Width / in.Width % cfg.Width
			rest := (bar + cfg.Width/2) % cfg.Width
			want := 64 + y*in.Height/cfg.Height%64
			if b, v := int(line[bar*step]), int(line[rest*step]); b < 215 || v < want-16 || v > want+8 {
				t.Errorf("picture %d, line %d: bar %d, rest %d, want 235 and %d", i, y, b, v, want)
			}
		}
	}
}

// TestPicturesThatOnlyDevicesCanRead are never mapped here: they go in where
// they lie, or not at all.
func TestPicturesThatOnlyDevicesCanRead(t *testing.T) {
	for _, tt := range []struct {
		name  string
		adapt func(*hw.Frame)
		coded uint64
	}{
		{"as the driver wants them", func(*hw.Frame) {}, 1},
		{"of other lines", func(f *hw.Frame) { f.Planes[1].Stride += 16 }, 0},
		{"at another place", func(f *hw.Frame) { f.Planes[1].Offset += 16 }, 0},
		{"in two pieces", func(f *hw.Frame) { f.Planes[1].FD++ }, 0},
		{"in part", func(f *hw.Frame) { f.Planes[1].FD = -1 }, 0},
		{"of another size", func(f *hw.Frame) { f.Height = 40 }, 0},
		{"in no memory at all", func(f *hw.Frame) { f.Planes[0].FD, f.Planes[1].FD = 99, 99 }, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newRig(t, codec("vh264enc")).play(t, small())
				f := s.reel.next()
				for i := range f.Planes {
					f.Planes[i].Data = nil
				}
				tt.adapt(f)
				if err := s.e.Submit(f); err != nil {
					t.Error(err)
				}
				f.Release()
				s.settle()
				if got, want := s.e.Stats(), (hw.EncoderStats{Submitted: 1, Coded: tt.coded, Dropped: 1 - tt.coded}); got != want {
					t.Errorf("%+v", got)
				}
				if err := s.close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestMemoryThatIsTooShortIsCopied: a driver would refuse it, and with it all
// that follows.
func TestMemoryThatIsTooShortIsCopied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, codec("vh264enc"))
		_, l := reelOf(t, r.driver, hw.Layout{Pixel: hw.YUYV, Width: 64, Height: 48})
		short, err := r.driver.Importer.Allocate(hw.Layout{Pixel: hw.YUYV, Width: 64, Height: 32, Planes: l.Planes, Sizes: [3]int{64 * 32 * 2}}, 1)
		if err != nil {
			t.Fatal(err)
		}
		cfg := small()
		cfg.Input = l
		e, err := r.driver.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		s := newShow(t, e, heap(t, hw.Mode{Pixel: hw.YUYV, Width: 64, Height: 48}))
		f := s.reel.next()
		f.Planes[0].FD = short.Buffers()[0].FDs[0]
		if err := e.Submit(f); err != nil {
			t.Error(err)
		}
		f.Release()
		s.settle()
		if got := e.Stats(); got.CopiedBytes != 64*48*2 || got.Coded != 1 || e.(*m2m.Encoder).CopyReason() != "" {
			t.Errorf("%+v, %q", got, e.(*m2m.Encoder).CopyReason())
		}
		if err := errors.Join(s.close(), short.Close()); err != nil {
			t.Error(err)
		}
	})
}

// TestTheRangeOfThePicturesIsTold: pictures that are read in place keep their
// range, so the parameter sets must follow; others are brought to it.
func TestTheRangeOfThePicturesIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newRig(t, codec("vh264enc")).play(t, small())
		full := func(want bool) {
			t.Helper()
			last := s.units[len(s.units)-1]
			sps, _, err := h264.ParameterSets(last.Track.Setup)
			if err != nil {
				t.Fatal(err)
			}
			if info, err := h264.ParseSPS(sps); err != nil || info.FullRange != want {
				t.Errorf("picture %d: full range %v, %v; want %v", len(s.units), info.FullRange, err, want)
			}
		}
		frames := map[*hw.Frame]bool{}
		setRange := func(v bool) {
			for range cap(s.reel.frames) {
				f := <-s.reel.frames
				f.FullRange, frames[f] = v, true
				s.reel.frames <- f
			}
		}
		setRange(true)
		s.pass(3)
		full(true)
		setRange(false)
		s.pass(3)
		full(false)
		slate := heap(t, hw.Mode{Pixel: hw.I420, Width: 32, Height: 32, FullRange: true}).next()
		slate.Stamp = stamp(7)
		if err := s.e.Submit(slate); err != nil {
			t.Error(err)
		}
		slate.Release()
		s.settle()
		full(false)
		if got := fmt.Sprint(keys(s.units)); got != "[0 3]" || s.e.Stats().Coded != 7 {
			t.Errorf("keys %s of %d", got, s.e.Stats().Coded)
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
}

// TestTheMatrixOfThePicturesIsTold, of those that are read in place and of
// copies. A slate goes with the camera, and so does RGB, which is mixed here.
func TestTheMatrixOfThePicturesIsTold(t *testing.T) {
	const bt709, smpte170m = 1, 6 // H.264 table E-5
	synctest.Test(t, func(t *testing.T) {
		s := newRig(t, codec("vh264enc")).play(t, small())
		told := func(want byte) {
			t.Helper()
			last := s.units[len(s.units)-1]
			sps, _, err := h264.ParameterSets(last.Track.Setup)
			if err != nil {
				t.Fatal(err)
			}
			if info, err := h264.ParseSPS(sps); err != nil || info.Matrix != want {
				t.Errorf("picture %d: matrix %d, %v; want %d", len(s.units), info.Matrix, err, want)
			}
		}
		say := func(m hw.Matrix) {
			for range cap(s.reel.frames) {
				f := <-s.reel.frames
				f.Matrix = m
				s.reel.frames <- f
			}
		}
		at := 0
		pass := func(n int) {
			at += n
			s.pass(n)
		}
		submit := func(m hw.Mode) {
			t.Helper()
			at++
			f := heap(t, m).next()
			f.Stamp = stamp(at)
			if err := s.e.Submit(f); err != nil {
				t.Error(err)
			}
			f.Release()
			s.settle()
		}
		say(hw.BT709)
		pass(2)
		told(bt709)
		submit(hw.Mode{Pixel: hw.I420, Width: 32, Height: 32})
		told(bt709)
		submit(hw.Mode{Pixel: hw.BGR24, Width: 64, Height: 48, FullRange: true})
		told(bt709)
		submit(hw.Mode{Pixel: hw.YUYV, Width: 64, Height: 48, Matrix: hw.BT601})
		told(smpte170m)
		if got := fmt.Sprint(keys(s.units)); got != "[0 4]" || s.e.Stats().Coded != 5 {
			t.Errorf("keys %s of %d", got, s.e.Stats().Coded)
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
}

// TestPicturesThatFillTheirBuffersAreJoined: bcm2835 continues a picture that
// is too large in the next buffer, without a word.
func TestPicturesThatFillTheirBuffersAreJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := codec("bcm2835-codec")
		n.Grants = func(f *uapi.Format) {
			if f.Type == uapi.BufTypeVideoCaptureMplane {
				f.PixMP().Planes[0].SizeImage = 8192
			}
		}
		n.Encoder.Code = func(p fakevb2.Picture) []byte {
			return append(fakevb2.Grey(p), bytes.Repeat([]byte{byte(1 + p.Number)}, 20_000*(p.Number%2))...)
		}
		s := newRig(t, n).play(t, small())
		s.pass(6)
		for i, u := range s.units {
			if want := 20_000 * (i % 2); len(u.Data) < want || len(u.Data) > want+100 {
				t.Errorf("unit %d has %d bytes, want a little more than %d", i, len(u.Data), want)
			}
		}
		if got := s.e.Stats(); got.Coded != 6 || got.Swallowed != 0 || fmt.Sprint(keys(s.units)) != "[0]" {
			t.Errorf("%+v, keys %v", got, keys(s.units))
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
}

func TestSubmitNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, codec("vh264enc"))
		s := r.play(t, small())
		s.pass(1)
		r.Do(func() { r.node.Idle = true })
		for i := range 6 {
			f := s.reel.next()
			if err := s.e.Submit(f); (err != nil) != (i >= 4) || err != nil && !errors.Is(err, hw.ErrBusy) {
				t.Errorf("frame %d: %v", i, err)
			}
			f.Release()
			s.settle()
		}
		late := s.reel.next()
		late.Stamp = stamp(2)
		coded := heap(t, hw.Mode{Pixel: hw.NV12, Width: 64, Height: 48}).next()
		coded.Pixel, coded.Stamp = hw.MJPEG, stamp(99)
		for what, f := range map[string]*hw.Frame{"a stamp that does not rise": late, "JPEG": coded} {
			if err := s.e.Submit(f); !errors.Is(err, hw.ErrUnsupported) {
				t.Errorf("%s: %v", what, err)
			}
			f.Release()
		}
		r.Do(func() { r.node.Idle = false })
		s.settle()
		s.pass(3)
		if got, want := s.e.Stats(), (hw.EncoderStats{Submitted: 8, Coded: 8, Dropped: 4}); got != want {
			t.Errorf("%+v", got)
		}
		if err := s.close(); err != nil {
			t.Error(err)
		}
		f := s.reel.next()
		if err := s.e.Submit(f); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		f.Release()
	})
}

// TestTheWayToTheFirstPicture is the order of calls that drivers expect.
func TestTheWayToTheFirstPicture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := codec("bcm2835-codec")
		n.Encoder.Raw[0].AlignLines = 32
		r := newRig(t, n)
		before := len(r.Calls())
		e, err := r.driver.Open(config(64, 48))
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		var got []string
		for _, c := range r.Calls()[before:] {
			if len(got) == 0 || got[len(got)-1] != c {
				got = append(got, c)
			}
		}
		want := []string{
			"open", "eventfd", "s_fmt", "s_parm", "s_selection", "query_ext_ctrl", "s_ext_ctrls",
			"query_ext_ctrl", "g_ext_ctrls", "s_ext_ctrls", "query_ext_ctrl", "g_ext_ctrls", "s_ext_ctrls", // profile and level are read back
			"reqbufs", "querybuf", "mmap", "querybuf", "mmap", "querybuf", "mmap", "querybuf", "mmap",
			"qbuf", "streamon", "dqbuf", "poll",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
		stopping := len(r.Calls())
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		got = slices.Compact(r.Calls()[stopping:])
		if want := []string{"notify", "drain", "streamoff", "munmap", "reqbufs", "close"}; !slices.Equal(got, want) {
			t.Errorf("the end: got %v, want %v", got, want)
		}
		r.Do(func() {
			set := map[uint32]int64{}
			for _, s := range r.node.Settings() {
				set[s.ID] = s.Value
			}
			for id, want := range map[uint32]int64{
				uapi.CIDBitrate: 4_000_000, uapi.CIDBitrateMode: uapi.BitrateModeVBR, uapi.CIDGOPSize: 30, uapi.CIDFrameRCEnable: 1,
				uapi.CIDH264Profile: uapi.H264ProfileHigh, uapi.CIDH264Level: uapi.H264Level2_1, uapi.CIDHeaderMode: uapi.HeaderModeJoined,
				uapi.CIDRepeatSeqHeader: 1, uapi.CIDH264MinQP: 10, uapi.CIDH264MaxQP: 51,
			} {
				if set[id] != want {
					t.Errorf("control %#x is set to %d, want %d", id, set[id], want)
				}
			}
		})
	})
}

func TestProfilesThatTheDriverHas(t *testing.T) {
	baseline := func() *fakevb2.Node {
		n := codec("coda")
		for i, c := range n.Controls {
			if c.ID == uapi.CIDH264Profile {
				n.Controls[i].Max = uapi.H264ProfileConstrainedBaseline
			}
		}
		return n
	}
	for _, tt := range []struct {
		profile string
		node    *fakevb2.Node
		want    int64
	}{
		{"", codec("vh264enc"), uapi.H264ProfileHigh},
		{"main", codec("vh264enc"), uapi.H264ProfileMain},
		{"baseline", codec("vh264enc"), uapi.H264ProfileConstrainedBaseline},
		{"", baseline(), uapi.H264ProfileConstrainedBaseline},
		{"high", baseline(), -1},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, tt.node)
			cfg := small()
			cfg.Profile = tt.profile
			e, err := r.driver.Open(cfg)
			if tt.want < 0 {
				if !errors.Is(err, hw.ErrUnsupported) {
					t.Errorf("profile %q: %v", tt.profile, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			r.Do(func() {
				last := int64(-1)
				for _, s := range r.node.Settings() {
					if s.ID == uapi.CIDH264Profile {
						last = s.Value
					}
				}
				if last != tt.want {
					t.Errorf("profile %q is %d, want %d", tt.profile, last, tt.want)
				}
			})
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestConfigsThatNoneCanDo(t *testing.T) {
	r := newRig(t, codec("bcm2835-codec"))
	for what, adapt := range map[string]func(*hw.EncoderConfig){
		"sound":        func(c *hw.EncoderConfig) { c.Codec = stream.AAC },
		"odd":          func(c *hw.EncoderConfig) { c.Width = 63 },
		"too small":    func(c *hw.EncoderConfig) { c.Width = 16 },
		"too large":    func(c *hw.EncoderConfig) { c.Width = 1922 },
		"no rate":      func(c *hw.EncoderConfig) { c.FPS = hw.Rate{} },
		"no GOP":       func(c *hw.EncoderConfig) { c.GOP = 0 },
		"no bits":      func(c *hw.EncoderConfig) { c.Bitrate = 0 },
		"no profile":   func(c *hw.EncoderConfig) { c.Profile = "best" },
		"over a level": func(c *hw.EncoderConfig) { c.Bitrate = 2_000_000_000 },
	} {
		cfg := small()
		adapt(&cfg)
		if _, err := r.driver.Open(cfg); !errors.Is(err, hw.ErrUnsupported) {
			t.Errorf("%s: %v", what, err)
		}
	}
	r.Unplug()
	if _, err := r.driver.Open(small()); !errors.Is(err, hw.ErrMissing) || !errors.Is(err, hw.ErrGone) {
		t.Errorf("unplugged: %v", err)
	}
}

// TestFFmpegDecodesWhatComesOut holds the units against a decoder that is not
// ours: all pictures, at once, in the right colours.
func TestFFmpegDecodesWhatComesOut(t *testing.T) {
	var annexB []byte
	synctest.Test(t, func(t *testing.T) {
		s := newRig(t, codec("vh264enc")).play(t, config(72, 40))
		s.pass(6)
		s.e.ForceKey()
		s.pass(6)
		if err := s.close(); err != nil {
			t.Error(err)
		}
		for _, u := range s.units {
			for nal := range h264.NALs(u.Data) {
				annexB = append(append(annexB, 0, 0, 0, 1), nal...)
			}
		}
	})
	cmd := exec.Command("ffprobe", "-v", "error", "-f", "h264", "-count_frames", "-of", "default=nw=1",
		"-show_entries", "stream=width,height,color_range,color_space,color_transfer,color_primaries,has_b_frames,r_frame_rate,nb_read_frames", "-")
	cmd.Stdin = bytes.NewReader(annexB)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("ffprobe: %v (make test installs it)\n%s", err, out)
	}
	const want = `width=72
height=40
has_b_frames=0
color_range=tv
color_space=smpte170m
color_transfer=bt709
color_primaries=bt709
r_frame_rate=15/1
nb_read_frames=12
`
	if string(out) != want {
		t.Errorf("ffprobe says\n%s", out)
	}
}
