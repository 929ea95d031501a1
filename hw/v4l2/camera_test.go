package v4l2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/fakevb2"
	"encoderd.example/hw/v4l2/uapi"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var fps25 = []uapi.Fract{{Num: 1, Den: 25}, {Num: 1, Den: 5}}

func code(s string) uint32 { return uint32(hw.FourCC(s)) }

// webcam is a USB camera: raw pictures and, larger, MJPEG.
func webcam() *fakevb2.Node {
	return &fakevb2.Node{
		Path: "/dev/video0", Driver: "uvcvideo", Card: "Test Cam: Test Cam", BusInfo: "usb-0000:00:14.0-1",
		Caps: uapi.CapVideoCapture | uapi.CapStreaming, Type: uapi.BufTypeVideoCapture, Inputs: 1,
		Formats: []fakevb2.Format{
			{Code: code("YUYV"), BytesPerPixel: 2, Align: 64, Sizes: []fakevb2.Size{{Width: 64, Height: 48, Intervals: fps25}, {Width: 84, Height: 48, Intervals: fps25}}},
			{Code: code("MJPG"), BytesPerPixel: 2, Sizes: []fakevb2.Size{{Width: 128, Height: 96, Intervals: fps25}}},
			{Code: code("GREY"), BytesPerPixel: 1, Sizes: []fakevb2.Size{{Width: 64, Height: 48, Intervals: fps25}}},
		},
		Fill: fillPicture,
	}
}

// fillPicture writes frame numbers everywhere but makes it a JPEG where the
// buffer is that of the MJPEG size.
func fillPicture(frame int, planes [][]byte) []int {
	mem := planes[0]
	fakevb2.Paint(mem, byte(frame))
	if len(mem) == 128*96*2 {
		copy(mem, "\xFF\xD8\xFF\xDA\x00\x02")
		copy(mem[1000:], "\xFF\xD9\x00\x00\x00\x00") // and padding
		return []int{1100}
	}
	return []int{len(mem)}
}

// bridge is an HDMI bridge that speaks the multi-planar API.
func bridge() *fakevb2.Node {
	return &fakevb2.Node{
		Path: "/dev/video1", Driver: "bridge", Card: "Bridge", BusInfo: "platform:fe801000.csi",
		Caps: uapi.CapVideoCaptureMplane | uapi.CapStreaming, Type: uapi.BufTypeVideoCaptureMplane, Inputs: 2,
		Formats: []fakevb2.Format{
			{Code: code("NV12"), BytesPerPixel: 1.5, Range: true, Sizes: []fakevb2.Size{{Width: 256, Height: 128, Range: true, Intervals: []uapi.Fract{{Num: 1, Den: 60}, {Num: 1, Den: 1}}}}},
			{Code: code("YM12"), BytesPerPixel: 1, Split: 3, Align: 32, Sizes: []fakevb2.Size{{Width: 100, Height: 50, Intervals: fps25}}},
		},
	}
}

// silent is an HDMI bridge that tells only the picture that comes in now.
func silent() *fakevb2.Node {
	n := bridge()
	n.Formats = []fakevb2.Format{{Code: code("NV12"), BytesPerPixel: 1.5, Silent: true, Sizes: []fakevb2.Size{{Width: 720, Height: 576}}}}
	return n
}

// finder sees the nodes of k.
func finder(k *fakevb2.Kernel, files fstest.MapFS) v4l2.Finder {
	return v4l2.Finder{Root: files, Log: slog.New(slog.DiscardHandler), Sys: k, Clock: k.Now}
}

func sysfs(nodes ...string) fstest.MapFS {
	files := fstest.MapFS{}
	for _, n := range nodes {
		files["sys/class/video4linux/"+n+"/index"] = &fstest.MapFile{Data: []byte("0\n")}
	}
	return files
}

// camera returns the camera of a kernel with one node, whichever input is
// selected.
func camera(t *testing.T, k *fakevb2.Kernel, n *fakevb2.Node) *v4l2.Camera {
	t.Helper()
	cameras, err := finder(k, sysfs(strings.TrimPrefix(n.Path, "/dev/"))).Cameras()
	if err != nil || len(cameras) == 0 { // its inputs may follow
		t.Fatalf("%d cameras, %v", len(cameras), err)
	}
	return cameras[0].(*v4l2.Camera)
}

// open starts a camera; the test fails if anything is left at its end.
func open(t *testing.T, n *fakevb2.Node, want hw.Mode) (*fakevb2.Kernel, hw.CameraStream) {
	t.Helper()
	k := fakevb2.New(n)
	s, err := camera(t, k, n).Open(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		nothingLeft(t, k)
	})
	return k, s
}

func nothingLeft(t *testing.T, k *fakevb2.Kernel) {
	t.Helper()
	if d, m := k.Left(); d != 0 || m != 0 {
		t.Errorf("%d descriptors and %d mappings were not given back", d, m)
	}
}

func read(t *testing.T, s hw.CameraStream) *hw.Frame {
	t.Helper()
	f, err := s.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFramesCarryTheGrantedPicture(t *testing.T) {
	type p struct{ stride, size int }
	tests := []struct {
		name   string
		node   *fakevb2.Node
		want   hw.Mode
		mode   string
		planes []p
	}{
		{"packed", webcam(), hw.Mode{Width: 64, Height: 48}, "64x48 25 fps YUYV", []p{{128, 128 * 48}}},
		{"packed with padded lines", webcam(), hw.Mode{Width: 84, Height: 48}, "84x48 25 fps YUYV", []p{{192, 192 * 48}}},
		{"MJPEG without its padding", webcam(), hw.Mode{Pixel: hw.MJPEG}, "128x96 25 fps MJPG", []p{{0, 1002}}},
		{"multi-planar API, one memory", bridge(), hw.Mode{Pixel: hw.NV12, Width: 200, Height: 100, FPS: hw.Rate{Num: 50, Den: 1}}, "200x100 50 fps NV12", []p{{200, 20000}, {200, 10000}}},
		{"multi-planar API, three memories", bridge(), hw.Mode{Pixel: hw.I420}, "100x50 25 fps YU12", []p{{128, 6400}, {128, 3200}, {128, 3200}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, s := open(t, tt.node, tt.want)
			if got := s.Mode().String(); got != tt.mode {
				t.Errorf("granted %s, want %s", got, tt.mode)
			}
			for i := range 20 {
				f := read(t, s)
				checkFrame(t, f, i)
				for n, plane := range f.Planes {
					if got := (p{plane.Stride, len(plane.Data)}); got != tt.planes[n] || plane.FD != -1 {
						t.Errorf("plane %d: %v, want %v", n, got, tt.planes[n])
					}
				}
				f.Release()
			}
			if got := s.Stats(); got != (hw.CameraStats{Frames: 20}) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// checkFrame checks that f is frame number i of the fake.
func checkFrame(t *testing.T, f *hw.Frame, i int) {
	t.Helper()
	if f.Seq != uint32(i) || f.Stamp != time.Hour+time.Duration(i+1)*fakevb2.Step-fakevb2.Delay {
		t.Errorf("frame %d: sequence %d, stamp %v", i, f.Seq, f.Stamp)
	}
	for _, p := range f.Planes {
		if f.Pixel != hw.MJPEG && !bytes.Equal(p.Data, bytes.Repeat([]byte{byte(i)}, len(p.Data))) {
			t.Errorf("frame %d: holds something else", i)
		}
	}
	if f.Pixel == hw.MJPEG && (f.Planes[0].Data[6] != byte(i) || !f.FullRange) {
		t.Errorf("frame %d: holds something else", i)
	}
}

func TestSpoiledFramesAreCountedAndNotReturned(t *testing.T) {
	late := func(n int) time.Duration { return time.Hour + time.Duration(n)*fakevb2.Step - fakevb2.Delay }
	type f = fakevb2.Fault
	tests := []struct {
		name   string
		script []f
		seqs   []uint32
		want   hw.CameraStats
	}{
		{"error flag", []f{{}, {Error: true}, {}}, []uint32{0, 2, 3}, hw.CameraStats{Frames: 3, Damaged: 1}},
		{"empty at the start", []f{{Empty: true}, {Empty: true}}, []uint32{2, 3, 4}, hw.CameraStats{Frames: 3, Damaged: 2}},
		{"one byte short", []f{{}, {Short: 1}}, []uint32{0, 2, 3}, hw.CameraStats{Frames: 3, Damaged: 1}},
		{"repeated", []f{{}, {Repeat: true}}, []uint32{0, 1, 2}, hw.CameraStats{Frames: 3, Damaged: 1}},
		{"lost before us", []f{{}, {Skip: 4}}, []uint32{0, 5, 6}, hw.CameraStats{Frames: 3, Missed: 4}},
		{"lost and damaged", []f{{}, {Skip: 2, Error: true}}, []uint32{0, 4, 5}, hw.CameraStats{Frames: 3, Missed: 2, Damaged: 1}},
		{"sequence of 32 bits turns over", []f{{Skip: -1}, {}, {Skip: 1}}, []uint32{0xFFFFFFFF, 0, 2}, hw.CameraStats{Frames: 3, Missed: 1}},
		{"number given twice", []f{{}, {Skip: -1}}, []uint32{0, 1, 2}, hw.CameraStats{Frames: 3}},
		{"numbers begin anew", []f{{}, {}, {Skip: -2}}, []uint32{0, 1, 2, 3}, hw.CameraStats{Frames: 4}},
		{"stamp in the future is repaired", []f{{}, {Jump: time.Minute}}, []uint32{0, 1, 2}, hw.CameraStats{Frames: 3}},
		{"stamp of long ago is repaired", []f{{}, {Jump: -time.Minute}}, []uint32{0, 1, 2}, hw.CameraStats{Frames: 3}},
		{"stamp on no clock is replaced", []f{{}, {NoClock: true}}, []uint32{0, 1, 2}, hw.CameraStats{Frames: 3}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := webcam()
			n.Script = tt.script
			_, s := open(t, n, hw.Mode{Width: 64, Height: 48})
			var seqs []uint32
			before := time.Duration(0)
			for range tt.want.Frames {
				f := read(t, s)
				seqs = append(seqs, f.Seq)
				if f.Stamp <= before || f.Stamp > late(20) {
					t.Errorf("stamp %v after %v", f.Stamp, before)
				}
				before = f.Stamp
				f.Release()
			}
			if got := s.Stats(); got != tt.want || !slices.Equal(seqs, tt.seqs) {
				t.Errorf("frames %d, %+v; want %d, %+v", seqs, got, tt.seqs, tt.want)
			}
		})
	}
}

func TestReplacedStampsAreLoggedOnce(t *testing.T) {
	n := webcam()
	n.Script = []fakevb2.Fault{{NoClock: true}, {NoClock: true}, {NoClock: true}}
	k := fakevb2.New(n)
	var log bytes.Buffer
	find := finder(k, sysfs("video0"))
	find.Log = slog.New(slog.NewTextHandler(&log, nil))
	cameras, err := find.Cameras()
	if err != nil {
		t.Fatal(err)
	}
	s, err := cameras[0].Open(t.Context(), hw.Mode{})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		read(t, s).Release()
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if got := strings.Count(log.String(), "time stamps are replaced"); got != 1 {
		t.Errorf("logged %d times:\n%s", got, &log)
	}
}

func TestAllBuffersLentOnlyWaits(t *testing.T) {
	k, s := open(t, webcam(), hw.Mode{})
	var held []*hw.Frame
	for range 6 {
		held = append(held, read(t, s))
	}
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error)
	go func() {
		_, err := s.Read(ctx)
		got <- err
	}()
	k.AwaitSleep()
	cancel()
	if err := <-got; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	next := make(chan *hw.Frame)
	go func() { next <- read(t, s) }()
	k.AwaitSleep()
	held[3].Release() // from another goroutine than the reader's
	f := <-next
	if f.Seq != 6 || s.Stats() != (hw.CameraStats{Frames: 7}) {
		t.Errorf("frame %d, %+v", f.Seq, s.Stats())
	}
	for _, h := range append(slices.Delete(held, 3, 4), f) {
		h.Release()
	}
}

func TestARefusedBufferWakesTheReaderThatWaitsForIt(t *testing.T) {
	n := webcam()
	k, s := open(t, n, hw.Mode{})
	var held []*hw.Frame
	for range 6 {
		held = append(held, read(t, s))
	}
	next := make(chan *hw.Frame)
	go func() { next <- read(t, s) }()
	k.AwaitSleep()
	k.Do(func() { n.RefuseQBuf = 1 })
	held[0].Release()
	for _, f := range append(held[1:], <-next) {
		f.Release()
	}
}

func TestReadEndsWithItsContextAndGoesOnWithAnother(t *testing.T) {
	n := webcam()
	n.Idle = true
	k, s := open(t, n, hw.Mode{})
	why := errors.New("changed my mind")
	ctx, cancel := context.WithCancelCause(t.Context())
	got := make(chan error)
	go func() {
		_, err := s.Read(ctx)
		got <- err
	}()
	k.AwaitSleep()
	cancel(why)
	if err := <-got; !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	k.Do(func() { n.Idle = false })
	read(t, s).Release()
}

func TestCloseEndsARead(t *testing.T) {
	n := webcam()
	n.Idle = true
	k, s := open(t, n, hw.Mode{})
	got := make(chan error)
	go func() {
		_, err := s.Read(context.Background())
		got <- err
	}()
	k.AwaitSleep()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-got; !errors.Is(err, fs.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestFramesOutliveTheirStream(t *testing.T) {
	tests := []struct {
		name  string
		after func(*testing.T, *fakevb2.Kernel, hw.CameraStream)
	}{
		{"closed", func(*testing.T, *fakevb2.Kernel, hw.CameraStream) {}},
		{"unplugged", func(t *testing.T, k *fakevb2.Kernel, s hw.CameraStream) {
			t.Helper()
			k.Unplug()
			if _, err := s.Read(t.Context()); !errors.Is(err, hw.ErrGone) {
				t.Errorf("got %v", err)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k, s := open(t, webcam(), hw.Mode{Width: 64, Height: 48})
			first, second := read(t, s), read(t, s)
			tt.after(t, k, s)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if d, m := k.Left(); d != 0 || m != 2 {
				t.Errorf("%d descriptors and %d mappings left, want those of two frames", d, m)
			}
			checkFrame(t, first, 0)
			checkFrame(t, second.Retain(), 1)
			first.Release()
			second.Release()
			checkFrame(t, second, 1)
			second.Release()
		})
	}
}

func TestOpenAgainWhileAnOldFrameIsHeld(t *testing.T) {
	n := webcam()
	k := fakevb2.New(n)
	c := camera(t, k, n)
	s, err := c.Open(t.Context(), hw.Mode{Width: 64, Height: 48})
	if err != nil {
		t.Fatal(err)
	}
	held := read(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := c.Open(t.Context(), hw.Mode{Width: 84, Height: 48})
	if err != nil {
		t.Fatal(err)
	}
	read(t, again).Release()
	checkFrame(t, held, 0)
	held.Release()
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, k)
}

func TestTwiceIsBusy(t *testing.T) {
	n := webcam()
	k := fakevb2.New(n)
	c := camera(t, k, n)
	s, err := c.Open(t.Context(), hw.Mode{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Open(t.Context(), hw.Mode{})
	if !errors.Is(err, hw.ErrBusy) || !strings.Contains(err.Error(), "another program uses it") {
		t.Errorf("got %v", err)
	}
	read(t, s).Release() // the first goes on
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, k)
}

func TestABufferThatIsRefusedIsOfferedAgain(t *testing.T) {
	n := webcam()
	k, s := open(t, n, hw.Mode{})
	f := read(t, s)
	k.Do(func() { n.RefuseQBuf = 1 })
	f.Release()
	for range 12 { // twice round all buffers
		read(t, s).Release()
	}
	f = read(t, s)
	k.Do(func() { n.RefuseQBuf = 2 })
	f.Release()
	if _, err := s.Read(t.Context()); !errors.Is(err, unix.EINVAL) {
		t.Errorf("got %v", err)
	}
}

func TestTheEndOfADevice(t *testing.T) {
	tests := []struct {
		name string
		do   func(*fakevb2.Kernel, *fakevb2.Node)
		want error
	}{
		{"unplugged", func(k *fakevb2.Kernel, _ *fakevb2.Node) { k.Unplug() }, hw.ErrGone},
		{"the driver gives up", func(k *fakevb2.Kernel, n *fakevb2.Node) {
			k.Do(func() { n.Script, n.Idle = []fakevb2.Fault{{}, {Fatal: true}}, false })
		}, unix.EIO},
		{"the driver ends the stream", func(k *fakevb2.Kernel, n *fakevb2.Node) {
			k.Do(func() { n.Script, n.Idle = []fakevb2.Fault{{}, {Last: true, Empty: true}}, false })
		}, unix.EPIPE},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := webcam()
			k, s := open(t, n, hw.Mode{})
			f := read(t, s)
			k.Do(func() { n.Idle = true })
			got := make(chan error)
			go func() {
				_, err := s.Read(t.Context())
				got <- err
			}()
			k.AwaitSleep()
			tt.do(k, n)
			if err := <-got; !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			f.Release()
		})
	}
}

func TestWhatTheDriverMustNotGrant(t *testing.T) {
	tests := []struct {
		name   string
		spoil  func(*fakevb2.Node)
		unfit  bool // the error wraps ErrUnsupported
		phrase string
	}{
		{"another format", func(n *fakevb2.Node) {
			n.Grants = func(f *uapi.Format) { f.Pix().PixelFormat = code("GREY") }
		}, true, "gives GREY instead"},
		{"half pictures", func(n *fakevb2.Node) {
			n.Grants = func(f *uapi.Format) { f.Pix().Field = uapi.FieldAlternate }
		}, true, "interlaced"},
		{"no picture", func(n *fakevb2.Node) { n.Grants = func(f *uapi.Format) { f.Pix().Height = 0 } }, true, "empty"},
		{"too small buffers", func(n *fakevb2.Node) { n.Grants = func(f *uapi.Format) { f.Pix().SizeImage-- } }, false, "too small"},
		{"a single buffer", func(n *fakevb2.Node) { n.MostBuffers = 1 }, false, "free memory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := webcam()
			tt.spoil(n)
			k := fakevb2.New(n)
			_, err := camera(t, k, n).Open(t.Context(), hw.Mode{Width: 64, Height: 48})
			if err == nil || errors.Is(err, hw.ErrUnsupported) != tt.unfit || !strings.Contains(err.Error(), tt.phrase) {
				t.Errorf("got %v", err)
			}
			nothingLeft(t, k)
		})
	}
}

func TestTheInputIsKeptUnlessAsked(t *testing.T) {
	n := bridge()
	k := fakevb2.New(n)
	c := camera(t, k, n)
	for _, tt := range []struct {
		c    *v4l2.Camera
		id   string
		want int
	}{
		{c.Input(1), "v4l2:platform:fe801000.csi#1", 1},
		{c, "v4l2:platform:fe801000.csi", 0},
		{c.Input(0), "v4l2:platform:fe801000.csi#0", 0},
	} {
		s, err := tt.c.Open(t.Context(), hw.Mode{})
		if err != nil {
			t.Fatal(err)
		}
		k.Do(func() {
			if n.Input() != tt.want || tt.c.ID() != tt.id {
				t.Errorf("%s: input %d", tt.c.ID(), n.Input())
			}
		})
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		k.Do(func() {
			if n.Input() != 0 {
				t.Errorf("%s: input %d is left behind", tt.c.ID(), n.Input())
			}
		})
	}
	if _, err := c.Input(7).Open(t.Context(), hw.Mode{}); err == nil || !strings.Contains(err.Error(), "select the input") {
		t.Errorf("got %v", err)
	}
	nothingLeft(t, k)
}

func TestModesAreListedBestFirst(t *testing.T) {
	tests := []struct {
		name string
		node *fakevb2.Node
		want []string
	}{
		{"lists", webcam(), []string{
			"128x96 25 fps MJPG", "84x48 25 fps YUYV", "64x48 25 fps YUYV",
			"128x96 5 fps MJPG", "84x48 5 fps YUYV", "64x48 5 fps YUYV",
		}},
		{"an input that dictates the picture", silent(), []string{"720x576 0 fps NV12"}},
		{"ranges", bridge(), []string{
			"256x128 60 fps NV12", "256x128 50 fps NV12", "256x128 30 fps NV12", "256x128 25 fps NV12", "100x50 25 fps YU12",
			"256x128 15 fps NV12", "256x128 10 fps NV12", "256x128 5 fps NV12", "100x50 5 fps YU12",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := fakevb2.New(tt.node)
			modes, err := camera(t, k, tt.node).Modes()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, m := range modes {
				got = append(got, m.String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			nothingLeft(t, k)
		})
	}
}

// use goes through a camera's whole life, whatever fails on the way.
func use(k *fakevb2.Kernel, files fstest.MapFS) (frames int, err error) {
	cameras, err := finder(k, files).Cameras()
	if err != nil || len(cameras) == 0 {
		return 0, fmt.Errorf("no camera: %w", err)
	}
	if _, err := cameras[0].Modes(); err != nil {
		return 0, err
	}
	s, err := cameras[0].Open(context.Background(), hw.Mode{})
	if err != nil {
		return 0, err
	}
	var held []*hw.Frame
	for frames < 8 && err == nil {
		var f *hw.Frame
		if f, err = s.Read(context.Background()); err == nil {
			frames++
			held = append(held, f)
		}
		if len(held) > 2 {
			held[0].Release()
			held = held[1:]
		}
	}
	err = errors.Join(err, s.Close())
	for _, f := range held {
		f.Release()
	}
	return frames, err
}

func TestNothingLeaksWhicheverCallFails(t *testing.T) {
	for _, node := range []func() *fakevb2.Node{webcam, bridge} {
		files := sysfs(strings.TrimPrefix(node().Path, "/dev/"))
		whole := fakevb2.New(node())
		if frames, err := use(whole, files); frames != 8 || err != nil {
			t.Fatalf("%d frames, %v", frames, err)
		}
		nothingLeft(t, whole)
		calls := whole.Calls()
		for _, errno := range []unix.Errno{unix.EIO, unix.EBUSY, unix.EINTR, unix.ENODEV} {
			for i, name := range calls {
				k := fakevb2.New(node())
				k.FailAt, k.FailWith = i+1, errno
				frames, err := use(k, files)
				if d, m := k.Left(); d != 0 || m != 0 {
					t.Errorf("call %d (%s) fails with %v: %d descriptors, %d mappings left (%v)", i+1, name, errno, d, m, err)
				}
				repeated := errno == unix.EINTR && name != "open" && name != "eventfd" && name != "mmap"
				if repeated && frames != 8 && name != "notify" {
					t.Errorf("call %d (%s) broken by a signal: %d frames, %v", i+1, name, frames, err)
				}
			}
		}
		t.Logf("%s: %d calls, each failed in four ways", node().Driver, len(calls))
	}
}

func TestNothingLeaksWheneverItIsUnplugged(t *testing.T) {
	whole := fakevb2.New(webcam())
	if _, err := use(whole, sysfs("video0")); err != nil {
		t.Fatal(err)
	}
	for i, name := range whole.Calls() {
		k := fakevb2.New(webcam())
		k.UnplugAt = i + 1
		frames, err := use(k, sysfs("video0"))
		if d, m := k.Left(); d != 0 || m != 0 {
			t.Errorf("unplugged at call %d (%s): %d descriptors, %d mappings left", i+1, name, d, m)
		}
		if frames < 8 && err == nil || err != nil && frames > 0 && !errors.Is(err, hw.ErrGone) {
			t.Errorf("unplugged at call %d (%s): %d frames, %v", i+1, name, frames, err)
		}
	}
}

// Many goroutines hold frames for a while and give them back, while one reads
// and another closes: the race detector and the fake's poison watch.
func TestReleaseFromAnywhereRacesWithNothing(t *testing.T) {
	for range 50 {
		k, s := open(t, webcam(), hw.Mode{Width: 64, Height: 48})
		frames := make(chan *hw.Frame)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for f := range frames {
					if b := f.Planes[0].Data; b[0] != b[len(b)-1] || b[0] != byte(f.Seq) {
						t.Errorf("frame %d holds %d … %d", f.Seq, b[0], b[len(b)-1])
					}
					f.Release()
				}
			})
		}
		wg.Go(func() {
			defer close(frames)
			for {
				f, err := s.Read(context.Background())
				if err != nil {
					return
				}
				frames <- f
			}
		})
		for s.Stats().Frames < 30 {
			runtime.Gosched()
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		nothingLeft(t, k)
	}
}
