//go:build board

// Tests on real kernel devices: the guest of the virtual board, with vivid.

package v4l2_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/hwtest"
	"encoderd.example/hw/uevent"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/uapi"
	"encoderd.example/hw/yuv"
	"encoderd.example/stream"
)

var boardFinder = v4l2.Finder{Root: os.DirFS("/"), Log: slog.New(slog.DiscardHandler), Sys: v4l2.Kernel{}}

// patience is for emulated time, which is real time on a slow machine.
const patience = time.Minute

func command(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

// load starts vivid anew and returns its first camera, set to the webcam input.
func load(t *testing.T, options string) *v4l2.Camera {
	t.Helper()
	command(t, "modprobe -r vivid")
	command(t, "modprobe vivid n_devs=2 node_types=0x1,0x1 num_inputs=2,1 input_types=0xc,0x0 "+options)
	command(t, "udevadm settle")
	return vivid(t).Input(0)
}

// vivid returns the camera of vivid's first device.
func vivid(t *testing.T) *v4l2.Camera {
	t.Helper()
	cameras, err := boardFinder.Cameras()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cameras {
		if c := c.(*v4l2.Camera); strings.HasPrefix(c.Name(), "vivid") && deviceInfo(t, c.Path()).BusInfo == "platform:vivid-000" {
			return c
		}
	}
	t.Fatalf("vivid is not among %d cameras", len(cameras))
	return nil
}

func deviceInfo(t *testing.T, path string) v4l2.Info {
	t.Helper()
	d, err := v4l2.OpenDevice(v4l2.Kernel{}, path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	info, err := d.Info()
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// control sets one of vivid's controls by name.
func control(t *testing.T, path, name string, value int32) {
	t.Helper()
	d, err := v4l2.OpenDevice(v4l2.Kernel{}, path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for id := uint32(0); ; {
		desc := uapi.CtrlDesc{ID: id | uapi.CtrlFlagNextCtrl}
		if err := v4l2.Ioctl(d, "list the controls of", uapi.QueryCtrl, &desc); err != nil {
			t.Fatalf("control %q: %v", name, err)
		}
		id = desc.ID
		if strings.TrimRight(string(desc.Name[:]), "\x00") != name {
			continue
		}
		c := uapi.Control{ID: id, Value: value}
		if err := v4l2.Ioctl(d, "set a control of", uapi.SetCtrl, &c); err != nil {
			t.Fatalf("control %q: %v", name, err)
		}
		return
	}
}

// small is what an emulated guest can draw in time.
var small = hw.Mode{Pixel: hw.YUYV, Width: 320, Height: 180, FPS: hw.Rate{Num: 15, Den: 1}}

// granted is a mode as vivid's webcam grants it: of sRGB, which means BT.601.
func granted(m hw.Mode) hw.Mode {
	m.Matrix = hw.BT601
	return m
}

func start(t *testing.T, c hw.Camera, want hw.Mode) hw.CameraStream {
	t.Helper()
	s, err := c.Open(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func next(t *testing.T, s hw.CameraStream) *hw.Frame {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	f, err := s.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// capture reads n frames and checks order, stamps and layout.
func capture(t *testing.T, s hw.CameraStream, n int) {
	t.Helper()
	tight, _, err := s.Mode().Layout()
	if err != nil {
		t.Fatal(err)
	}
	var before, first time.Duration
	var seq uint32
	var gaps, missed uint64
	for i := range n {
		f := next(t, s)
		if i == 0 {
			missed = s.Stats().Missed
		} else if gap := int32(f.Seq - seq); gap > 1 { // vivid may also repeat a number when it is late
			gaps += uint64(gap - 1)
		}
		seq = f.Seq
		if f.Stamp <= before || f.Stamp > stream.Monotonic() {
			t.Errorf("frame %d: stamp %v after %v", i, f.Stamp, before)
		}
		if len(f.Planes) != len(tight) {
			t.Fatalf("%d planes, want %d", len(f.Planes), len(tight))
		}
		for p, plane := range f.Planes {
			if plane.Stride < tight[p].Stride || flat(plane.Data) {
				t.Errorf("frame %d, plane %d: stride %d, want %d; %d bytes of one colour: %v", i, p, plane.Stride, tight[p].Stride, len(plane.Data), flat(plane.Data))
			}
		}
		if before = f.Stamp; i == 0 {
			first = f.Stamp
		}
		f.Release()
	}
	if got := s.Stats().Missed - missed; got != gaps {
		t.Errorf("%d missed, but %d numbers are missing", got, gaps)
	}
	t.Logf("%s: %d frames, %.2f fps by their stamps, %+v", s.Mode(), n, float64(n-1)/(before-first).Seconds(), s.Stats())
}

// flat says that no picture was drawn: all bytes are equal.
func flat(b []byte) bool {
	return strings.Count(string(b), string(b[:1])) == len(b)
}

func TestBoardFindsCamerasOnly(t *testing.T) {
	load(t, "")
	cameras, err := boardFinder.Cameras()
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, c := range cameras {
		modes, err := c.Modes()
		if err != nil {
			t.Error(err)
		}
		t.Logf("%s %q: %d modes, best %v", c.ID(), c.Name(), len(modes), modes[0])
		ids[c.ID()] = true
	}
	want := map[string]bool{
		"v4l2:platform:vivid-000": true, "v4l2:platform:vivid-000#0": true, "v4l2:platform:vivid-000#1": true,
		"v4l2:platform:vivid-001": true,
	}
	if !maps.Equal(ids, want) || cameras[0].ID() != "v4l2:platform:vivid-000" {
		t.Errorf("found %v, want %v: the inputs of the first, and not the encoder", ids, want)
	}
}

func TestBoardConformance(t *testing.T) {
	load(t, "")
	hwtest.Board(t, func() hw.Board {
		return hw.Board{Name: "vivid", Title: "the kernel's test driver", Cameras: boardFinder.Cameras, Mics: func() ([]hw.Mic, error) { return nil, nil }, Watch: uevent.Watch}
	})
}

func TestBoardCapturesEveryFormat(t *testing.T) {
	tests := []struct {
		name, options string
		formats       []hw.PixelFormat
	}{
		{"single-planar API", "", []hw.PixelFormat{hw.YUYV, hw.NV12, hw.I420, hw.I422, hw.NV24, hw.RGB24, hw.BGR24, hw.RGB565}},
		{"multi-planar API", "multiplanar=2,2", []hw.PixelFormat{hw.YUYV, hw.NV12, hw.I420}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := load(t, tt.options)
			for _, pixel := range tt.formats {
				want := granted(small)
				want.Pixel = pixel
				if pixel.RGB() {
					want.FullRange, want.Matrix = true, hw.MatrixUnsaid
				}
				s := start(t, c, want)
				if s.Mode() != want {
					t.Errorf("granted %s, want %s", s.Mode(), want)
				}
				capture(t, s, 60)
				// Not none missed: the emulated driver itself is late when the host is busy.
				if got := s.Stats(); got.Damaged != 0 || got.Frames != 60 {
					t.Errorf("%s: %+v", pixel, got)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// The first pattern of vivid is colour bars of 75 %: white, yellow, cyan, green,
// magenta, red, blue and black. They come out of our conversion with the colours
// that BT.601 gives them.
func TestBoardColoursOfRGBAndOf444(t *testing.T) {
	bars := [][3]int{{180, 128, 128}, {162, 44, 142}, {131, 156, 44}, {112, 72, 58}, {84, 184, 198}, {65, 100, 212}, {35, 212, 114}, {16, 128, 128}}
	c := load(t, "")
	control(t, c.Path(), "OSD Text Mode", 2) // none
	for _, pixel := range []hw.PixelFormat{hw.YUYV, hw.NV24, hw.RGB24, hw.BGR24, hw.RGB565} {
		want := small
		want.Pixel = pixel
		s := start(t, c, want)
		f := next(t, s)
		conv, err := yuv.New(f.Mode, hw.Mode{Pixel: hw.I420, Width: f.Width, Height: f.Height})
		if err != nil {
			t.Fatal(err)
		}
		p, err := conv.Convert(f)
		if err != nil {
			t.Fatal(err)
		}
		if p.Mode.Matrix != hw.BT601 {
			t.Errorf("%s comes out as %s", f.Mode, p.Mode.Matrix)
		}
		for i, bar := range bars {
			x, y := (2*i+1)*f.Width/16, f.Height/2
			got := [3]int{int(p.Planes[0].Data[y*p.Planes[0].Stride+x])}
			for k := 1; k < 3; k++ {
				got[k] = int(p.Planes[k].Data[y/2*p.Planes[k].Stride+x/2])
			}
			if !close3(got, bar, 6) { // five bits of RGB565 are 8 of 255
				t.Errorf("%s: bar %d is %v, want %v", pixel, i, got, bar)
			}
		}
		f.Release()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func close3(a, b [3]int, by int) bool {
	for i := range a {
		if a[i]-b[i] > by || b[i]-a[i] > by {
			return false
		}
	}
	return true
}

func TestBoardChangesSizeAndRate(t *testing.T) {
	c := load(t, "")
	for _, want := range []hw.Mode{
		{Pixel: hw.YUYV, Width: 640, Height: 360, FPS: hw.Rate{Num: 15, Den: 1}},
		{Pixel: hw.NV12, Width: 320, Height: 180, FPS: hw.Rate{Num: 30, Den: 1}},
		{Pixel: hw.I420, Width: 640, Height: 480, FPS: hw.Rate{Num: 10, Den: 1}},
	} {
		s := start(t, c, want)
		if s.Mode() != granted(want) {
			t.Errorf("granted %s, want %s", s.Mode(), want)
		}
		capture(t, s, 10)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if s := start(t, c, hw.Mode{Pixel: hw.NV12, Width: 400, Height: 225, FPS: hw.Rate{Num: 30, Den: 1}}); s.Mode().Width != 640 {
		t.Errorf("granted %s, want the next larger size", s.Mode())
	}
}

func TestBoardOpenTwiceIsBusy(t *testing.T) {
	c := load(t, "")
	s := start(t, c, small)
	if _, err := c.Open(t.Context(), small); !errors.Is(err, hw.ErrBusy) {
		t.Errorf("got %v", err)
	} else {
		t.Log(err)
	}
	capture(t, s, 5)
}

func TestBoardOpensAgainWhileAnOldFrameIsHeld(t *testing.T) {
	c := load(t, "")
	s := start(t, c, small)
	held := next(t, s)
	was := string(held.Planes[0].Data)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	larger := small
	larger.Width, larger.Height = 640, 360
	again := start(t, c, larger)
	capture(t, again, 10)
	if string(held.Planes[0].Data) != was {
		t.Error("the held frame has changed")
	}
	held.Release()
}

func TestBoardReadEndsWithItsContext(t *testing.T) {
	s := start(t, load(t, ""), small)
	var held []*hw.Frame
	for range 6 {
		held = append(held, next(t, s))
	}
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error)
	go func() {
		_, err := s.Read(ctx)
		got <- err
	}()
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	for _, f := range held {
		f.Release()
	}
	capture(t, s, 10)
}

func TestBoardUnplugEndsARead(t *testing.T) {
	c := load(t, "")
	s := start(t, c, small)
	held := next(t, s)
	go func() { control(t, c.Path(), "Disconnect", 1) }()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		f, err := s.Read(ctx)
		cancel()
		if err == nil {
			f.Release()
			continue
		}
		if !errors.Is(err, hw.ErrGone) {
			t.Errorf("got %v", err)
		}
		t.Log(err)
		break
	}
	if flat(held.Planes[0].Data) {
		t.Error("the held frame is empty")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	held.Release()
}

func TestBoardComesBackUnderTheSameName(t *testing.T) {
	c := load(t, "")
	var calls atomic.Int32
	called := make(chan struct{}, 8)
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error)
	go func() {
		over <- uevent.Watch(ctx, func() { calls.Add(1); called <- struct{}{} })
	}()
	for range 2 {
		again := load(t, "")
		for range 2 { // once devices stop coming, and once udev is done
			select {
			case <-called:
			case <-time.After(patience):
				t.Fatal("nothing was heard of the camera")
			}
		}
		if again.ID() != c.ID() || again.Name() != c.Name() {
			t.Errorf("came back as %s %q, was %s %q", again.ID(), again.Name(), c.ID(), c.Name())
		}
	}
	cancel()
	if err := <-over; err != nil {
		t.Error(err)
	}
	t.Logf("%s, %d calls for two reloads", c.ID(), calls.Load())
}

func TestBoardFaults(t *testing.T) {
	t.Run("a refused buffer is offered again", func(t *testing.T) {
		c := load(t, "")
		s := start(t, c, small)
		next(t, s).Release()
		control(t, c.Path(), "Inject VIDIOC_QBUF Error", 1)
		capture(t, s, 20)
		if got := s.Stats(); got.Damaged != 0 {
			t.Errorf("%+v", got)
		}
	})
	t.Run("dropped frames show as missed", func(t *testing.T) {
		c := load(t, "")
		s := start(t, c, small)
		next(t, s).Release()
		control(t, c.Path(), "Percentage of Dropped Buffers", 50)
		capture(t, s, 60)
		if got := s.Stats(); got.Missed < 20 {
			t.Errorf("%+v", got)
		}
	})
	t.Run("an error flag shows as damaged", func(t *testing.T) {
		c := load(t, "")
		s := start(t, c, small)
		next(t, s).Release()
		// vivid marks the picture that it is at, and none if that has no buffer
		ordered := uint64(0)
		for ; ordered < 5 && s.Stats().Damaged == 0; ordered++ {
			control(t, c.Path(), "Inject V4L2_BUF_FLAG_ERROR", 1)
			capture(t, s, 20)
		}
		if got := s.Stats(); got.Damaged == 0 || got.Damaged > ordered {
			t.Errorf("%+v after %d orders", got, ordered)
		}
	})
	t.Run("a driver that gives up is not gone", func(t *testing.T) {
		c := load(t, "")
		s := start(t, c, small)
		next(t, s).Release()
		control(t, c.Path(), "Inject Fatal Streaming Error", 1)
		var err error
		for err == nil {
			var f *hw.Frame
			if f, err = s.Read(t.Context()); err == nil {
				f.Release()
			}
		}
		if errors.Is(err, hw.ErrGone) || errors.Is(err, hw.ErrBusy) {
			t.Errorf("got %v", err)
		}
		t.Log(err)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		capture(t, start(t, c, small), 10)
	})
	t.Run("streaming cannot start", func(t *testing.T) {
		c := load(t, "")
		control(t, c.Path(), "Inject VIDIOC_STREAMON Error", 1)
		if _, err := c.Open(t.Context(), small); err == nil {
			t.Error("it did")
		} else {
			t.Log(err)
		}
		capture(t, start(t, c, small), 10)
	})
}
