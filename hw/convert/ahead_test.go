package convert

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/m2m"
	"encoderd.example/hw/v4l2/fakevb2"
	"encoderd.example/hw/v4l2/uapi"
	"encoderd.example/stream"
)

// encoderNode is an encoder that takes NV12.
func encoderNode() *fakevb2.Node {
	return &fakevb2.Node{
		Path: "/dev/video20", Driver: "hantro", Card: "hantro", BusInfo: "platform:hantro",
		Caps: uapi.CapVideoM2MMplane | uapi.CapStreaming, Type: uapi.BufTypeVideoCaptureMplane,
		Encoder: &fakevb2.Encoder{Raw: []fakevb2.Format{{Code: code("NV12"), BytesPerPixel: 1.5}}},
	}
}

// both returns the encoder of a board that has a scaler too.
func both(t *testing.T, k *fakevb2.Kernel) hw.EncoderDriver {
	t.Helper()
	root := fstest.MapFS{classDir + "/video20/name": &fstest.MapFile{}}
	drivers, err := m2m.Finder{Root: root, Sys: k, Log: slog.New(slog.DiscardHandler)}.Encoders()
	if err != nil || len(drivers) != 1 {
		t.Fatalf("encoders %v, %v", drivers, err)
	}
	return Ahead(drivers[0], finder(k, "video12").Scalers)
}

// sub is a rendition of a quarter of the picture.
func sub(in hw.Layout) hw.EncoderConfig {
	return hw.EncoderConfig{Codec: stream.H264, Width: 320, Height: 180, FPS: hw.Rate{Num: 30, Den: 1}, GOP: 30, Bitrate: 1e6, Input: in}
}

// scaled returns a source whose pictures the scaler reads, and opens the
// encoder behind it.
func scaled(t *testing.T, k *fakevb2.Kernel, d hw.EncoderDriver) (*source, hw.Encoder) {
	t.Helper()
	l, name, err := d.Importer.(hw.ScalingImporter).Scaled(large, 320, 180)
	if err != nil || name != "v4l2:pxp" {
		t.Fatalf("scaled: %v, %q, %v", l, name, err)
	}
	src := &source{k: k, layout: l}
	src.buffers(4)
	e, err := d.Open(sub(l))
	if err != nil {
		t.Fatal(err)
	}
	return src, e
}

// code codes one picture of a source and returns the stamp of its unit.
func codeOne(t *testing.T, e hw.Encoder, f *hw.Frame) time.Duration {
	t.Helper()
	err := e.Submit(f)
	f.Release()
	if err != nil {
		t.Fatal(err)
	}
	u, err := e.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return u.PTS
}

func shutEncoder(t *testing.T, e hw.Encoder) {
	t.Helper()
	for range 2 {
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}

func TestScalerAheadOfAnEncoderCopiesNothing(t *testing.T) {
	for name, change := range map[string]func(scaler, encoder *fakevb2.Node){
		"in the encoder's memory": func(_, _ *fakevb2.Node) {},
		"in the scaler's memory": func(s, e *fakevb2.Node) {
			s.Converter.Out = []fakevb2.Format{{Code: code("NV12"), BytesPerPixel: 1.5, Align: 512}}
			e.Encoder.Raw[0].AnyStride = true
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, n := scalerNode(), encoderNode()
			change(s, n)
			k := fakevb2.New(s, n)
			src, e := scaled(t, k, both(t, k))
			for i := range 12 {
				f := src.frame(src.fds[i%4], byte(i))
				if want, got := f.Stamp, codeOne(t, e, f); got != want {
					t.Errorf("unit %d: stamp %v, want %v", i, got, want)
				}
			}
			if st := e.Stats(); st != (hw.EncoderStats{Submitted: 12, Coded: 12}) {
				t.Errorf("%+v: %s", st, e.(*encoder).CopyReason())
			}
			shutEncoder(t, e)
			if src.free != 12 {
				t.Errorf("%d of 12 frames came back", src.free)
			}
			nothingLeft(t, k, 4)
		})
	}
}

func TestEncoderDoesWithoutAScaler(t *testing.T) {
	for name, change := range map[string]func(scaler, encoder *fakevb2.Node){
		"that writes other lines than it reads": func(_, e *fakevb2.Node) { e.Encoder.Raw[0].Align = 512 },
		"that gives nothing it takes": func(s, _ *fakevb2.Node) {
			s.Converter.Out = []fakevb2.Format{{Code: code("YUYV"), BytesPerPixel: 2}}
		},
		"that is too small": func(s, _ *fakevb2.Node) { s.Converter.Most = [2]int{320, 240} },
		"that is busy":      func(s, _ *fakevb2.Node) { s.MostBuffers = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			s, n := scalerNode(), encoderNode()
			change(s, n)
			k := fakevb2.New(s, n)
			d := both(t, k)
			l, err := d.Importer.Layout(large)
			if err != nil {
				t.Fatal(err)
			}
			e, err := d.Open(sub(l))
			if err != nil {
				t.Fatal(err)
			}
			src := &source{k: k, layout: l}
			src.buffers(1)
			f := src.frame(src.fds[0], 1)
			if want, got := f.Stamp, codeOne(t, e, f); got != want {
				t.Errorf("stamp %v, want %v", got, want)
			}
			if st := e.Stats(); st.CopiedBytes == 0 || st.Coded != 1 {
				t.Errorf("%+v: the processor should have scaled", st)
			}
			shutEncoder(t, e)
			nothingLeft(t, k, 1)
		})
	}
}

func TestPictureThatTheEncoderTakesNeedsNoScaler(t *testing.T) {
	k := fakevb2.New(scalerNode(), encoderNode())
	d := both(t, k)
	l, err := d.Importer.Layout(small)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []hw.EncoderConfig{sub(l), sub(hw.Layout{})} {
		e, err := d.Open(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, ahead := e.(*encoder); ahead {
			t.Errorf("a scaler for %s", c.Input)
		}
		shutEncoder(t, e)
	}
	software := hw.EncoderDriver{Name: "libx264"}
	if d := Ahead(software, nil); d.Importer != nil || d.Open != nil {
		t.Error("a scaler before software, which cannot share memory")
	}
	nothingLeft(t, k, 0)
}

// A deinterlacer turns raw pictures into raw ones, too, but of their own size.
func TestScalerThatScalesIsFound(t *testing.T) {
	deinterlacer := scalerNode()
	deinterlacer.Path, deinterlacer.Driver = "/dev/video11", "deinterlacer"
	deinterlacer.Grants = func(f *uapi.Format) {
		f.Pix().Width, f.Pix().Height = 640, 360
	}
	k := fakevb2.New(deinterlacer, scalerNode(), encoderNode())
	root := fstest.MapFS{classDir + "/video20/name": &fstest.MapFile{}}
	drivers, err := m2m.Finder{Root: root, Sys: k, Log: slog.New(slog.DiscardHandler)}.Encoders()
	if err != nil {
		t.Fatal(err)
	}
	src, e := scaled(t, k, Ahead(drivers[0], finder(k, "video11", "video12").Scalers))
	codeOne(t, e, src.frame(src.fds[0], 1))
	if st := e.Stats(); st.CopiedBytes != 0 {
		t.Errorf("%+v", st)
	}
	shutEncoder(t, e)
	nothingLeft(t, k, 4)
}

func TestScalerKeepsTheAspect(t *testing.T) {
	k := fakevb2.New(scalerNode(), encoderNode())
	in := both(t, k).Importer.(hw.ScalingImporter)
	hd := hw.Layout{Pixel: hw.NV12, Width: 1280, Height: 720}
	for _, tt := range []struct {
		width, height int
		ok            bool
	}{{640, 360, true}, {426, 240, true}, {854, 480, true}, {640, 480, false}, {400, 240, false}, {0, 0, false}} {
		_, _, err := in.Scaled(hd, tt.width, tt.height)
		if ok := err == nil; ok != tt.ok || !ok && !errors.Is(err, hw.ErrUnsupported) {
			t.Errorf("1280x720 to %dx%d: %v", tt.width, tt.height, err)
		}
	}
}

func TestScalerThatFailsIsReplacedByTheProcessor(t *testing.T) {
	s := scalerNode()
	s.Converter.Script = []fakevb2.ConversionFault{{}, {Fatal: true}}
	k := fakevb2.New(s, encoderNode())
	src, e := scaled(t, k, both(t, k))
	codeOne(t, e, src.frame(src.fds[0], 1))
	lost := src.frame(src.fds[1], 2)
	if err := e.Submit(lost); err != nil {
		t.Fatal(err)
	}
	lost.Release()
	e.(*encoder).pump.Wait() // it has seen the failure
	f := src.frame(src.fds[2], 3)
	if want, got := f.Stamp, codeOne(t, e, f); got != want {
		t.Errorf("stamp %v, want %v", got, want)
	}
	if st := e.Stats(); st.CopiedBytes == 0 || st.Submitted != 3 || st.Coded != 2 {
		t.Errorf("%+v", st)
	}
	if why := e.(*encoder).CopyReason(); !strings.Contains(why, "the scaler failed") {
		t.Errorf("reason %q", why)
	}
	shutEncoder(t, e)
	nothingLeft(t, k, 4)
}

// The slate is of no layout that the scaler knows. It goes past it, and what it
// overtakes is dropped: stamps rise at the encoder.
func TestOtherPicturesGoPastTheScaler(t *testing.T) {
	s := scalerNode()
	s.Idle = true
	k := fakevb2.New(s, encoderNode())
	src, e := scaled(t, k, both(t, k))
	inside := src.frame(src.fds[0], 1)
	if err := e.Submit(inside); err != nil {
		t.Fatal(err)
	}
	inside.Release()
	slate, err := hw.NewMemoryFrame(hw.Mode{Pixel: hw.I420, Width: 320, Height: 180}, nil)
	if err != nil {
		t.Fatal(err)
	}
	slate.Stamp = inside.Stamp + time.Second/60
	if got := codeOne(t, e, slate.Lend()); got != slate.Stamp {
		t.Errorf("stamp %v of a slate with %v", got, slate.Stamp)
	}
	k.Do(func() { s.Idle = false })
	f := src.frame(src.fds[1], 2)
	if want, got := f.Stamp, codeOne(t, e, f); got != want {
		t.Errorf("stamp %v, want %v", got, want)
	}
	if st := e.Stats(); st.Submitted != 3 || st.Coded != 2 || st.Dropped != 1 || st.CopiedBytes == 0 {
		t.Errorf("%+v", st)
	}
	shutEncoder(t, e)
	nothingLeft(t, k, 4)
}

// A decoder pads 1080 lines to 1088. An encoder or a scaler that does not reads
// them all the same, and cuts the rest off.
func TestDecodedPictureIsReadWhereItLies(t *testing.T) {
	decoding := decoderNode()
	scaling := scalerNode()
	scaling.Path = "/dev/video13"
	k := fakevb2.New(decoding, scaling, encoderNode())
	d := decoder(t, k, hw.NV12)
	raw := decode(t, d, picture(t, 1920, 1080), 1)
	l := d.conv.Layout()
	if l.Lines() != 1088 {
		t.Fatalf("%+v has %d lines", l, l.Lines())
	}
	root := fstest.MapFS{classDir + "/video20/name": &fstest.MapFile{}}
	drivers, err := m2m.Finder{Root: root, Sys: k, Log: slog.New(slog.DiscardHandler)}.Encoders()
	if err != nil {
		t.Fatal(err)
	}
	behind := Ahead(drivers[0], finder(k, "video13").Scalers)
	for _, c := range []hw.EncoderConfig{
		{Codec: stream.H264, Width: 1920, Height: 1080, FPS: hw.Rate{Num: 30, Den: 1}, GOP: 30, Bitrate: 1e6, Input: l},
		{Codec: stream.H264, Width: 640, Height: 360, FPS: hw.Rate{Num: 30, Den: 1}, GOP: 30, Bitrate: 1e6, Input: l},
	} {
		e, err := behind.Open(c)
		if err != nil {
			t.Fatal(err)
		}
		if got := codeOne(t, e, raw.Retain()); got != raw.Stamp {
			t.Errorf("stamp %v, want %v", got, raw.Stamp)
		}
		if st := e.Stats(); st != (hw.EncoderStats{Submitted: 1, Coded: 1}) {
			t.Errorf("%dx%d: %+v", c.Width, c.Height, st)
		}
		shutEncoder(t, e)
	}
	raw.Release()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, k, 0)
}

var _ hw.ScalingImporter = importer{}

func TestEncoderBehindAScalerIsAPartOfItsDevice(t *testing.T) {
	k := fakevb2.New(scalerNode(), encoderNode())
	stick := both(t, k)
	stick.Importer = Ahead(hw.EncoderDriver{Importer: attachedImporter{stick.Importer}}, nil).Importer
	if got := stick.Importer.(hw.Attached).Parent(); got != "/sys/devices/usb1/1-1" {
		t.Errorf("a part of %q", got)
	}
	if got := both(t, k).Importer.(hw.Attached).Parent(); got != "" {
		t.Errorf("a part of %q, but it told nothing", got)
	}
}

type attachedImporter struct{ hw.Importer }

func (attachedImporter) Parent() string { return "/sys/devices/usb1/1-1" }
