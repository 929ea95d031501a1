package convert

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/fakevb2"
	"encoderd.example/hw/v4l2/uapi"
)

var fps30 = []uapi.Fract{{Num: 1, Den: 30}}

// webcamNode sends JPEGs of 64×48 whose last byte is the picture's number.
func webcamNode(t *testing.T) *fakevb2.Node {
	t.Helper()
	data := picture(t, 64, 48)
	return &fakevb2.Node{
		Path: "/dev/video0", Driver: "uvcvideo", Card: "cam", BusInfo: "usb-1", Inputs: 1,
		Caps: uapi.CapVideoCapture | uapi.CapStreaming, Type: uapi.BufTypeVideoCapture,
		Formats: []fakevb2.Format{{Code: code("MJPG"), BytesPerPixel: 2, Sizes: []fakevb2.Size{{Width: 64, Height: 48, Intervals: fps30}}}},
		Fill: func(frame int, planes [][]byte) []int {
			n := copy(planes[0], data)
			planes[0][n-3] = byte(frame)
			return []int{n}
		},
	}
}

// webcam returns the camera of a kernel with a decoder beside it.
func webcam(t *testing.T, k *fakevb2.Kernel) hw.SharingCamera {
	t.Helper()
	root := fstest.MapFS{classDir + "/video0/index": &fstest.MapFile{Data: []byte("0\n")}}
	log := slog.New(slog.DiscardHandler)
	list, err := v4l2.Finder{Root: root, Log: log, Sys: k, Clock: k.Now}.Cameras()
	if err != nil || len(list) != 1 {
		t.Fatalf("cameras %v, %v", list, err)
	}
	return Decoding(list[0].(hw.SharingCamera), finder(k, "video12").Decoders, log).(hw.SharingCamera)
}

// watch opens a camera and returns what was asked of whoever decides.
func watch(t *testing.T, c hw.SharingCamera, want hw.Mode) (hw.SharedStream, hw.BufferSource) {
	t.Helper()
	var asked []hw.BufferSource
	s, err := c.OpenShared(t.Context(), want, func(src hw.BufferSource) hw.BufferPlan {
		asked = append(asked, src)
		if src.Exports {
			return hw.BufferPlan{Way: hw.Export, Reason: "it is a test"}
		}
		return hw.BufferPlan{Way: hw.Decode, Reason: "it is a test"}
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(asked) != 1 {
		t.Fatalf("asked %d times", len(asked))
	}
	return s, asked[0]
}

func end(t *testing.T, s hw.CameraStream) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestCameraOfJPEGGivesRawPictures(t *testing.T) {
	k := fakevb2.New(webcamNode(t), decoderNode())
	c := webcam(t, k).(hw.PreferringCamera).Preferring([]hw.PixelFormat{hw.I420}).(hw.SharingCamera)
	s, src := watch(t, c, hw.Mode{})
	want := hw.Mode{Pixel: hw.I420, Width: 64, Height: 48, FPS: hw.Rate{Num: 30, Den: 1}, FullRange: true, Matrix: hw.BT601}
	if s.Mode() != want || src.Mode != want || src.Driver != "v4l2:bcm2835-codec" || !src.Exports || src.Imports || s.Plan().Way != hw.Export {
		t.Errorf("%s of %+v: %s", s.Mode(), src, s.Plan())
	}
	for i := range 10 {
		f, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		at := src.Layout.Planes[1]
		if f.Seq != uint32(i) || f.Planes[0].Data[0] != byte(i) || f.Planes[1].FD < 0 || f.Planes[1].Offset != at.Offset || f.Planes[1].Stride != at.Stride {
			t.Errorf("picture %d: number %d, %+v", i, f.Seq, f.Planes[1])
		}
		f.Release()
	}
	if st := s.Stats(); st != (hw.CameraStats{Frames: 10}) {
		t.Errorf("%+v", st)
	}
	end(t, s)
	nothingLeft(t, k, 0)
}

func TestCameraWithoutAUsefulDecoderStaysAsItIs(t *testing.T) {
	for name, spoil := range map[string]func(*fakevb2.Node){
		"no memory":       func(n *fakevb2.Node) { n.Refuse = map[string]unix.Errno{"reqbufs": unix.ENOMEM} },
		"none that takes": func(n *fakevb2.Node) { n.Converter.In = n.Converter.In[:1] },
		"too small":       func(n *fakevb2.Node) { n.Converter.Most = [2]int{32, 32} },
		"it refuses all of them": func(n *fakevb2.Node) {
			for range tries {
				n.Converter.Script = append(n.Converter.Script, fakevb2.ConversionFault{Refused: true})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := decoderNode()
			spoil(n)
			k := fakevb2.New(webcamNode(t), n)
			s, src := watch(t, webcam(t, k), hw.Mode{})
			if s.Mode().Pixel != hw.MJPEG || src.Mode.Pixel != hw.MJPEG || src.Driver != "uvcvideo" || s.Plan().Way != hw.Decode {
				t.Errorf("%s of %+v: %s", s.Mode(), src, s.Plan())
			}
			f, err := s.Read(t.Context())
			if err != nil || f.Pixel != hw.MJPEG {
				t.Fatalf("%v, %v", f, err)
			}
			f.Release()
			end(t, s)
			nothingLeft(t, k, 0)
		})
	}
}

func TestWhoAsksForAFormatGetsIt(t *testing.T) {
	k := fakevb2.New(webcamNode(t), decoderNode())
	s, _ := watch(t, webcam(t, k), hw.Mode{Pixel: hw.MJPEG})
	if s.Mode().Pixel != hw.MJPEG {
		t.Errorf("%s", s.Mode())
	}
	end(t, s)

	raw := webcamNode(t)
	raw.Formats = []fakevb2.Format{{Code: code("YUYV"), BytesPerPixel: 2, Sizes: []fakevb2.Size{{Width: 64, Height: 48, Intervals: fps30}}}}
	k = fakevb2.New(raw, decoderNode())
	s, src := watch(t, webcam(t, k), hw.Mode{})
	if s.Mode().Pixel != hw.YUYV || src.Driver != "uvcvideo" {
		t.Errorf("%s of %+v", s.Mode(), src)
	}
	end(t, s)
	nothingLeft(t, k, 0)
}

func TestPictureThatCannotBeDecodedCountsAsDamaged(t *testing.T) {
	n := decoderNode()
	n.Converter.Script = []fakevb2.ConversionFault{{Refused: true}, {}, {Error: true}, {}}
	k := fakevb2.New(webcamNode(t), n)
	s, err := webcam(t, k).Open(t.Context(), hw.Mode{})
	if err != nil {
		t.Fatal(err)
	}
	for _, seq := range []uint32{1, 3, 4} {
		f, err := s.Read(t.Context())
		if err != nil || f.Seq != seq {
			t.Fatalf("%v, %v, want number %d", f, err, seq)
		}
		f.Release()
	}
	if st := s.Stats(); st != (hw.CameraStats{Frames: 3, Damaged: 2}) {
		t.Errorf("%+v", st)
	}
	end(t, s)
	nothingLeft(t, k, 0)
}

// Hardware that hangs costs a second, not one for each of ten pictures, whether
// or not it can be stopped; then the pictures come as they are.
func TestDecoderThatHangsIsGivenUpAfterASecond(t *testing.T) {
	for name, stops := range map[string]bool{"and stops": true, "and does not stop": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { hang(t, stops) })
		})
	}
}

func hang(t *testing.T, stops bool) {
	t.Helper()
	n := decoderNode()
	k := fakevb2.New(webcamNode(t), n)
	c := webcam(t, k)
	s, _ := watch(t, c, hw.Mode{})
	for range 2 { // the first was decoded at the opening
		f, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		f.Release()
	}
	k.Do(func() { n.Idle, n.HangStreamOff = true, !stops })
	began := time.Now()
	if f, err := s.Read(t.Context()); err == nil || errors.Is(err, ErrDamaged) || time.Since(began) != time.Second {
		t.Errorf("read: %v, %v after %v", f, err, time.Since(began))
	}
	end(t, s)
	s, src := watch(t, c, hw.Mode{})
	if s.Mode().Pixel != hw.MJPEG || src.Mode.Pixel != hw.MJPEG || time.Since(began) != 2*time.Second {
		t.Errorf("%s of %+v after %v", s.Mode(), src, time.Since(began))
	}
	f, err := s.Read(t.Context())
	if err != nil || f.Pixel != hw.MJPEG {
		t.Fatalf("%v, %v", f, err)
	}
	f.Release()
	end(t, s)
	k.Do(func() { n.HangStreamOff = false })
	synctest.Wait() // what was left behind ends
	nothingLeft(t, k, 0)
}

func TestDecoderThatSwallowsEverythingIsGivenUpSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := decoderNode()
		for range tries {
			n.Converter.Script = append(n.Converter.Script, fakevb2.ConversionFault{Dropped: true})
		}
		k := fakevb2.New(webcamNode(t), n)
		began := time.Now()
		s, _ := watch(t, webcam(t, k), hw.Mode{})
		if s.Mode().Pixel != hw.MJPEG || time.Since(began) != swallowed*decodeLimit {
			t.Errorf("%s after %v", s.Mode(), time.Since(began))
		}
		end(t, s)
		nothingLeft(t, k, 0)
	})
}

// Whoever keeps all pictures for a while is not the hardware's fault.
func TestPicturesKeptByTheirReaderAreNoHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := fakevb2.New(decoderNode())
		d := decoder(t, k)
		data := picture(t, 64, 48)
		var held []*hw.Frame
		for i := range wantOutputs {
			held = append(held, decode(t, d, data, i))
		}
		late := mjpeg(data, wantOutputs, 1)
		if _, err := d.Decode(late); !errors.Is(err, ErrDamaged) {
			t.Errorf("%v", err)
		}
		late.Release()
		for _, f := range held {
			f.Release()
		}
		decode(t, d, data, wantOutputs+1).Release()
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		nothingLeft(t, k, 0)
	})
}

func TestCameraBehindADecoderIsLost(t *testing.T) {
	t.Run("while it is read", func(t *testing.T) {
		k := fakevb2.New(webcamNode(t), decoderNode())
		s, _ := watch(t, webcam(t, k), hw.Mode{})
		k.Unplug()
		if f, err := s.Read(t.Context()); err == nil { // the one that was decoded at the opening
			f.Release()
		}
		if _, err := s.Read(t.Context()); !errors.Is(err, hw.ErrGone) {
			t.Errorf("%v", err)
		}
		end(t, s)
		nothingLeft(t, k, 0)
	})
	t.Run("before its first picture", func(t *testing.T) {
		n := webcamNode(t)
		n.Script = []fakevb2.Fault{{Fatal: true}}
		k := fakevb2.New(n, decoderNode())
		if _, err := webcam(t, k).Open(t.Context(), hw.Mode{}); !errors.Is(err, unix.EIO) {
			t.Errorf("%v", err)
		}
		nothingLeft(t, k, 0)
	})
	t.Run("at every call", func(t *testing.T) {
		for n := 1; ; n++ {
			k := fakevb2.New(webcamNode(t), decoderNode())
			c := webcam(t, k)
			before := len(k.Calls())
			k.Do(func() { k.UnplugAt = before + n })
			err := readThree(t.Context(), c)
			if fds, maps := k.Left(); fds != 0 || maps != 0 {
				t.Fatalf("call %d: %d descriptors and %d mappings are left", n, fds, maps)
			}
			if len(k.Calls()) < before+n {
				if err != nil {
					t.Errorf("undisturbed: %v", err)
				}
				return
			}
			if err != nil && !errors.Is(err, hw.ErrGone) {
				t.Errorf("call %d: %v", n, err)
			}
		}
	})
}

func readThree(ctx context.Context, c hw.Camera) (err error) {
	s, err := c.Open(ctx, hw.Mode{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	for range 3 {
		f, err := s.Read(ctx)
		if err != nil {
			return err
		}
		f.Release()
	}
	return nil
}

func TestCloseEndsARead(t *testing.T) {
	n := webcamNode(t)
	k := fakevb2.New(n, decoderNode())
	s, _ := watch(t, webcam(t, k), hw.Mode{})
	f, err := s.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	k.Do(func() { n.Idle = true })
	var reading sync.WaitGroup
	reading.Go(func() {
		for {
			f, err := s.Read(context.WithoutCancel(t.Context()))
			if err != nil {
				if !errors.Is(err, fs.ErrClosed) {
					t.Errorf("read: %v", err)
				}
				return
			}
			f.Release()
		}
	})
	k.AwaitSleep()
	end(t, s)
	reading.Wait()
	if f.Planes[0].Data[0] != 0 {
		t.Error("a frame that was kept is spoilt")
	}
	f.Release()
	nothingLeft(t, k, 0)
}

func TestCameraBehindADecoderStaysWhatItIs(t *testing.T) {
	k := fakevb2.New(webcamNode(t), decoderNode())
	c := webcam(t, k)
	if c.ID() != "v4l2:usb-1" || c.Name() != "cam" {
		t.Errorf("%s, %s", c.ID(), c.Name())
	}
	if _, err := c.(hw.SoundCamera).SoundRate(); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("sound: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.(hw.SignalCamera).AwaitSignal(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("signal: %v", err)
	}
	bare := Decoding(onlySharing{c}, nil, nil)
	if err := bare.(hw.SignalCamera).AwaitSignal(t.Context()); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("signal of a camera that has none: %v", err)
	}
	if _, err := bare.(hw.SoundCamera).SoundRate(); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("sound of a camera that has none: %v", err)
	}
}

func TestCameraBehindADecoderIsAPartOfItsDevice(t *testing.T) {
	c := webcam(t, fakevb2.New(webcamNode(t), decoderNode()))
	on := Decoding(attached{c}, nil, nil).(hw.PreferringCamera).Preferring(nil)
	if got := on.(hw.Attached).Parent(); got != "/sys/devices/usb1/1-1" {
		t.Errorf("a part of %q", got)
	}
	bare := Decoding(onlySharing{c}, nil, nil)
	if got := bare.(hw.Attached).Parent(); got != "" {
		t.Errorf("a part of %q, but it told nothing", got)
	}
}

type onlySharing struct{ hw.SharingCamera }

type attached struct{ hw.SharingCamera }

func (attached) Parent() string { return "/sys/devices/usb1/1-1" }
