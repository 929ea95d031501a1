package pion

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/mediadevices/pkg/driver"
	"github.com/pion/mediadevices/pkg/frame"
	"github.com/pion/mediadevices/pkg/prop"
	"github.com/pion/mediadevices/pkg/wave"
	"go.uber.org/goleak"

	"encoderd.example/hw"
	"encoderd.example/hw/hwtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fakeCamera gives one frame after the other, as fast as they are read.
type fakeCamera struct {
	id      string
	modes   []hw.Mode
	jpegs   [][]byte // of an MJPEG camera, then it waits
	frames  uint32   // of another one; zero means three
	end     error    // after the last, instead of waiting
	want    hw.Mode  // of the last Open
	lent    atomic.Int32
	streams atomic.Int32 // open
}

func (c *fakeCamera) ID() string                { return c.id }
func (c *fakeCamera) Name() string              { return "Camera " + c.id }
func (c *fakeCamera) Modes() ([]hw.Mode, error) { return c.modes, nil }

func (c *fakeCamera) Open(ctx context.Context, want hw.Mode) (hw.CameraStream, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.want = want
	c.streams.Add(1)
	return &fakeStream{camera: c, closed: make(chan struct{})}, nil
}

type fakeStream struct {
	camera *fakeCamera
	seq    uint32
	ended  bool
	once   sync.Once
	closed chan struct{}
}

func (s *fakeStream) Mode() hw.Mode         { return s.camera.modes[0] }
func (s *fakeStream) Stats() hw.CameraStats { return hw.CameraStats{} }

func (s *fakeStream) Close() error {
	s.once.Do(func() { close(s.closed); s.camera.streams.Add(-1) })
	return nil
}

func (s *fakeStream) Read(ctx context.Context) (*hw.Frame, error) {
	m := s.Mode()
	back := func(*hw.Frame) { s.camera.lent.Add(-1) }
	var f *hw.Frame
	switch {
	case m.Pixel != hw.MJPEG && s.seq < cmp.Or(s.camera.frames, 3):
		var err error
		if f, err = hw.NewMemoryFrame(m, back); err != nil {
			return nil, err
		}
	case int(s.seq) < len(s.camera.jpegs):
		f = hw.NewFrame(back)
		f.Mode, f.Planes = m, []hw.Plane{{Data: s.camera.jpegs[s.seq], FD: -1}}
	case s.ended:
		panic("read after an error")
	case s.camera.end != nil:
		s.ended = true
		return nil, s.camera.end
	default: // waits for ever
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-s.closed:
			return nil, os.ErrClosed
		}
	}
	s.seq++
	f.Seq = s.seq
	s.camera.lent.Add(1)
	return f.Lend(), nil
}

// A fakeMic gives 480 sample frames a block, then waits.
type fakeMic struct{ id string }

func (m fakeMic) ID() string                                 { return m.id }
func (m fakeMic) Name() string                               { return "Mic " + m.id }
func (m fakeMic) Open(context.Context) (hw.MicStream, error) { return &fakeSound{}, nil }

type fakeSound struct{ blocks int }

func (s *fakeSound) Read(ctx context.Context, pcm []int16) (int, time.Duration, error) {
	if s.blocks++; s.blocks > 2 {
		<-ctx.Done()
		return 0, 0, context.Cause(ctx)
	}
	n := min(len(pcm)/hw.Channels, 300)
	for i := range n * hw.Channels {
		pcm[i] = int16(s.blocks)
	}
	return n, time.Second, nil
}

func (s *fakeSound) Stats() hw.MicStats { return hw.MicStats{} }
func (s *fakeSound) Close() error       { return nil }

var black = color.YCbCr{Cb: 128, Cr: 128}

var vga = hw.Mode{Pixel: hw.NV12, Width: 64, Height: 48, FPS: hw.Rate{Num: 30, Den: 1}}

// registry returns a registry that leaves nothing behind.
func registry(t *testing.T) *Registry {
	t.Helper()
	r := NewRegistry()
	t.Cleanup(func() {
		if err := r.Sync(nil, nil); err != nil {
			t.Error(err)
		}
		if left := r.manager.Query(func(driver.Driver) bool { return true }); len(left) > 0 {
			t.Errorf("%d drivers are left", len(left))
		}
	})
	return r
}

func plug(t *testing.T, r *Registry, mics []hw.Mic, cameras ...hw.Camera) {
	t.Helper()
	if err := r.Sync(cameras, mics); err != nil {
		t.Fatal(err)
	}
}

// listedByLabel returns what any program built on mediadevices sees.
func listedByLabel(kind driver.DeviceType) map[string]driver.Driver {
	m := map[string]driver.Driver{}
	for _, d := range driver.GetManager().Query(driver.FilterDeviceType(kind)) {
		m[d.Info().Label] = d
	}
	return m
}

func TestMediadevicesListsWhatIsPluggedIn(t *testing.T) {
	r := registry(t)
	a, b, again := &fakeCamera{id: "a"}, &fakeCamera{id: "b"}, &fakeCamera{id: "a"}
	mics := []hw.Mic{fakeMic{"m"}}
	steps := []struct {
		name string
		mics []hw.Mic
		cams []hw.Camera
	}{
		{"nothing", nil, nil},
		{"two cameras and a microphone", mics, []hw.Camera{b, a}},
		{"nothing new", mics, []hw.Camera{a, b}},
		{"one leaves", mics, []hw.Camera{b}},
		{"another comes into its socket", nil, []hw.Camera{again, b}},
		{"all leave", nil, nil},
	}
	for _, s := range steps {
		plug(t, r, s.mics, s.cams...)
		got, drivers := r.Cameras(), listedByLabel(driver.Camera)
		if len(got) != len(s.cams) || len(drivers) != len(s.cams) || len(r.Mics()) != len(s.mics) || len(listedByLabel(driver.Microphone)) != len(s.mics) {
			t.Errorf("%s: cameras %v, microphones %v", s.name, drivers, r.Mics())
		}
		for i, c := range got {
			if i > 0 && got[i-1].ID() >= c.ID() {
				t.Errorf("%s: out of order", s.name)
			}
			if drivers[c.ID()].Info().Name != c.Name() {
				t.Errorf("%s: %v", s.name, drivers[c.ID()].Info())
			}
		}
	}
}

func TestANewDeviceInTheSameSocketIsFoundUnderItsOldDriver(t *testing.T) {
	r := registry(t)
	first, second := &fakeCamera{id: "a", modes: []hw.Mode{vga}}, &fakeCamera{id: "a", modes: []hw.Mode{vga}}
	plug(t, r, nil, first)
	d := listedByLabel(driver.Camera)["a"]
	plug(t, r, nil, second)
	if cams := r.Cameras(); len(cams) != 1 || cams[0] != hw.Camera(second) {
		t.Errorf("listed %v", cams)
	}
	if err := d.Open(); err != nil {
		t.Fatal(err)
	}
	_, err := d.(driver.VideoRecorder).VideoRecord(d.Properties()[0])
	if err != nil || first.streams.Load() != 0 || second.streams.Load() != 1 {
		t.Errorf("%v: %d streams of the old device, %d of the new one", err, first.streams.Load(), second.streams.Load())
	}
	if err := d.Close(); err != nil || second.streams.Load() != 0 {
		t.Errorf("close: %v, %d streams left", err, second.streams.Load())
	}
	plug(t, r, nil)
	if err := d.Open(); !errors.Is(err, hw.ErrGone) {
		t.Errorf("once it is unplugged: %v", err)
	}
}

func TestTwoRegistriesDoNotListTheSameTwice(t *testing.T) {
	one, two := registry(t), registry(t)
	c := &fakeCamera{id: "a"}
	plug(t, one, nil, c)
	plug(t, two, nil, c)
	if n := len(one.Cameras()); n != 1 {
		t.Errorf("%d cameras listed", n)
	}
	plug(t, one, nil)
	if len(one.Cameras()) != 0 {
		t.Error("still there")
	}
}

// begin opens the camera and records from it, as mediadevices does.
func begin(t *testing.T, c *fakeCamera, change func(*prop.Media)) (driver.Driver, func() (image.Image, func(), error)) {
	t.Helper()
	plug(t, registry(t), nil, c)
	d := listedByLabel(driver.Camera)[c.id]
	if err := d.Open(); err != nil {
		t.Fatal(err)
	}
	p := d.Properties()[0]
	if change != nil {
		change(&p)
	}
	reader, err := d.(driver.VideoRecorder).VideoRecord(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, reader.Read
}

func TestPicturesAreTheDriversFramesAndGoBackToIt(t *testing.T) {
	c := &fakeCamera{id: "a", modes: []hw.Mode{vga}}
	_, read := begin(t, c, nil)
	var held []func()
	for i := range 3 {
		img, release, err := read()
		if err != nil {
			t.Fatal(err)
		}
		f := img.(interface{ Frame() *hw.Frame }).Frame()
		if f.Seq != uint32(i+1) || img.Bounds() != image.Rect(0, 0, 64, 48) || img.ColorModel() != color.YCbCrModel {
			t.Errorf("picture %d is %T %v, frame %d", i, img, img.Bounds(), f.Seq)
		}
		f.Release()
		held = append(held, release)
	}
	if c.lent.Load() != 3 {
		t.Errorf("%d frames are lent, want 3", c.lent.Load())
	}
	for _, release := range held {
		release()
	}
	if c.lent.Load() != 0 {
		t.Errorf("%d frames did not come back", c.lent.Load())
	}
}

func TestPicturesThatNobodyReleasesComeBack(t *testing.T) {
	c := &fakeCamera{id: "a", modes: []hw.Mode{vga}, frames: 7}
	d, read := begin(t, c, nil)
	var pictures []*Picture
	for range 7 {
		img, _, err := read() // as mediadevices' tracks do
		if err != nil {
			t.Fatal(err)
		}
		pictures = append(pictures, img.(*Picture))
		if n := c.lent.Load(); n > lendable {
			t.Fatalf("%d frames are out", n)
		}
	}
	for i, p := range pictures {
		f := p.Frame()
		if valid := i >= len(pictures)-lendable; valid != (f != nil) || valid == (p.At(0, 0) == black) || p.Bounds().Dx() != 64 {
			t.Errorf("picture %d: frame %v, %v", i, f, p.At(0, 0))
		}
		if f != nil {
			f.Release()
		}
	}
	held := pictures[6].Frame()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if c.lent.Load() != 1 || pictures[6].Frame() != nil {
		t.Errorf("after the end %d frames are out, want the one that is held", c.lent.Load())
	}
	held.Release()
	if c.lent.Load() != 0 {
		t.Error("the frame did not come back")
	}
}

func TestAPictureMayBeReleasedLateAndTwice(t *testing.T) {
	c := &fakeCamera{id: "a", modes: []hw.Mode{vga}, frames: 6}
	_, read := begin(t, c, nil)
	var releases []func()
	for range 6 {
		_, release, err := read()
		if err != nil {
			t.Fatal(err)
		}
		releases = append(releases, release)
	}
	for _, release := range append(releases, releases...) {
		release()
	}
	if c.lent.Load() != 0 {
		t.Errorf("%d frames are out", c.lent.Load())
	}
}

func TestAnUnpluggedCameraEndsTheRecording(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  error
		eof  bool
	}{
		{"unplugged", fmt.Errorf("read a: %w", hw.ErrGone), true},
		{"no signal", fmt.Errorf("read a: %w", hw.ErrNoSignal), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &fakeCamera{id: "a", modes: []hw.Mode{vga}, frames: 1, end: tt.end}
			_, read := begin(t, c, nil)
			if _, _, err := read(); err != nil {
				t.Fatal(err)
			}
			for range 2 { // tracks read on
				if _, _, err := read(); !errors.Is(err, tt.end) || errors.Is(err, io.EOF) != tt.eof {
					t.Errorf("got %v", err)
				}
			}
			if c.lent.Load() != 0 {
				t.Errorf("%d frames are out", c.lent.Load())
			}
		})
	}
}

func TestCodedPicturesAreNoImages(t *testing.T) {
	coded := vga
	coded.Pixel = hw.H264
	c := &fakeCamera{id: "a", modes: []hw.Mode{coded, vga}}
	plug(t, registry(t), nil, c)
	d := listedByLabel(driver.Camera)["a"]
	if err := d.Open(); err != nil {
		t.Fatal(err)
	}
	if p := d.Properties(); len(p) != 1 || p[0].FrameFormat != frame.FormatNV12 {
		t.Errorf("listed %+v", p)
	}
	if _, err := d.(driver.VideoRecorder).VideoRecord(prop.Media{}); !errors.Is(err, hw.ErrUnsupported) || c.streams.Load() != 0 {
		t.Errorf("a camera that grants H.264 gives %v, %d streams are open", err, c.streams.Load())
	}
}

// A sharingCamera notes what is done with its memory.
type sharingCamera struct {
	fakeCamera
	exports bool
	plan    hw.BufferPlan
}

type sharedStream struct {
	hw.CameraStream
	plan hw.BufferPlan
}

func (s sharedStream) Plan() hw.BufferPlan { return s.plan }

func (c *sharingCamera) OpenShared(ctx context.Context, want hw.Mode, decide func(hw.BufferSource) hw.BufferPlan) (hw.SharedStream, error) {
	s, err := c.Open(ctx, want)
	if err != nil {
		return nil, err
	}
	c.plan = decide(hw.BufferSource{Mode: s.Mode(), Exports: c.exports})
	return sharedStream{s, c.plan}, nil
}

func TestACamerasMemoryRidesAlongIfItCan(t *testing.T) {
	for exports, want := range map[bool]hw.Way{true: hw.Export, false: hw.Copy} {
		t.Run(string(want), func(t *testing.T) {
			c := &sharingCamera{fakeCamera: fakeCamera{id: "a", modes: []hw.Mode{vga}}, exports: exports}
			plug(t, registry(t), nil, c)
			d := listedByLabel(driver.Camera)["a"]
			if err := d.Open(); err != nil {
				t.Fatal(err)
			}
			if _, err := d.(driver.VideoRecorder).VideoRecord(d.Properties()[0]); err != nil || c.plan.Way != want || c.plan.Reason == "" {
				t.Errorf("%v, %v", c.plan, err)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWishesReachTheDevice(t *testing.T) {
	tests := []struct {
		name   string
		change func(*prop.Media)
		want   hw.Mode
	}{
		{"an offered mode", nil, hw.Mode{Pixel: hw.NV12, Width: 64, Height: 48, FPS: hw.Rate{Num: 30000, Den: 1000}}},
		{"no wish", func(p *prop.Media) { *p = prop.Media{} }, hw.Mode{}},
		{"YUYV at an odd rate", func(p *prop.Media) { p.FrameFormat, p.FrameRate = frame.FormatYUYV, 29.97 }, hw.Mode{Pixel: hw.YUYV, Width: 64, Height: 48, FPS: hw.Rate{Num: 29970, Den: 1000}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := &fakeCamera{id: "a", modes: []hw.Mode{vga}}
			begin(t, c, tt.change)
			if c.want != tt.want {
				t.Errorf("got %+v, want %+v", c.want, tt.want)
			}
		})
	}
}

func TestPropertiesListTheModes(t *testing.T) {
	c := &fakeCamera{id: "a", modes: []hw.Mode{vga, {Pixel: hw.MJPEG, Width: 1920, Height: 1080, FPS: hw.Rate{Num: 60, Den: 1}}}}
	d, _ := begin(t, c, nil)
	list := d.Properties()
	if len(list) != 2 || list[0].FrameFormat != frame.FormatNV12 || list[1].FrameFormat != frame.FormatMJPEG || list[1].Width != 1920 || list[1].FrameRate != 60 {
		t.Errorf("%+v", list)
	}
}

func TestCloseEndsAReadThatWaits(t *testing.T) {
	c := &fakeCamera{id: "a", modes: []hw.Mode{vga}}
	d, read := begin(t, c, nil)
	for range 3 {
		_, release, err := read()
		if err != nil {
			t.Fatal(err)
		}
		release()
	}
	ended := make(chan error)
	go func() {
		_, _, err := read()
		ended <- err
	}()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("Read gave a picture after Close")
	}
	if c.streams.Load() != 0 || c.lent.Load() != 0 {
		t.Errorf("%d streams and %d frames are left", c.streams.Load(), c.lent.Load())
	}
	if err := d.Open(); err != nil {
		t.Errorf("open again: %v", err)
	}
}

func TestADamagedJPEGIsPassedOver(t *testing.T) {
	var good bytes.Buffer
	if err := jpeg.Encode(&good, image.NewYCbCr(image.Rect(0, 0, 64, 48), image.YCbCrSubsampleRatio420), nil); err != nil {
		t.Fatal(err)
	}
	mode := vga
	mode.Pixel = hw.MJPEG
	c := &fakeCamera{id: "a", modes: []hw.Mode{mode}, jpegs: [][]byte{good.Bytes()[:200], {}, good.Bytes()}}
	_, read := begin(t, c, nil)
	img, release, err := read()
	if err != nil {
		t.Fatal(err)
	}
	release()
	if _, ok := img.(*image.YCbCr); !ok || img.Bounds().Dx() != 64 || c.lent.Load() != 0 {
		t.Errorf("%T %v, %d frames did not come back", img, img.Bounds(), c.lent.Load())
	}
}

func TestSoundIsTheBoxsFormat(t *testing.T) {
	plug(t, registry(t), []hw.Mic{fakeMic{"m"}})
	d := listedByLabel(driver.Microphone)["m"]
	if err := d.Open(); err != nil {
		t.Fatal(err)
	}
	p := d.Properties()
	if len(p) != 1 || p[0].SampleRate != hw.SampleRate || p[0].ChannelCount != hw.Channels || p[0].SampleSize != 2 {
		t.Fatalf("%+v", p)
	}
	reader, err := d.(driver.AudioRecorder).AudioRecord(p[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		chunk, release, err := reader.Read()
		if err != nil {
			t.Fatal(err)
		}
		if info := chunk.ChunkInfo(); info != (wave.ChunkInfo{Len: 300, Channels: 2, SamplingRate: hw.SampleRate}) || chunk.At(299, 1) != wave.Int16Sample(i+1) {
			t.Errorf("chunk %d: %+v, %v", i, info, chunk.At(299, 1))
		}
		release()
	}
	ended := make(chan error)
	go func() {
		_, _, err := reader.Read()
		ended <- err
	}()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if <-ended == nil {
		t.Error("Read gave sound after Close")
	}
}

func TestLostSoundComesAsSilence(t *testing.T) {
	at := func(samples int) time.Duration { return time.Duration(samples) * time.Second / hw.SampleRate }
	tests := []struct {
		name   string
		second time.Duration // stamp of the second chunk; the first has 480 samples
		gap    []int         // chunks of silence in between
	}{
		{"nothing is lost", at(480), nil},
		{"the card's stamps jitter", at(480) + 4*time.Millisecond, nil},
		{"and go back", at(470), nil},
		{"25 ms are lost", at(480 + 1200), []int{480, 480, 240}},
		{"the clock begins anew", at(480) + time.Hour, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stamps := []time.Duration{0, tt.second}
			next := func(pcm []int16) (int, time.Duration, error) {
				if len(stamps) == 0 {
					return 0, 0, hw.ErrGone
				}
				for i := range pcm {
					pcm[i] = int16(len(stamps))
				}
				stamp := stamps[0]
				stamps = stamps[1:]
				return len(pcm) / hw.Channels, stamp, nil
			}
			var h hearing
			want := append(append([]int{480}, tt.gap...), 480)
			for i, n := range want {
				c, _, err := h.read(next)
				if err != nil {
					t.Fatal(err)
				}
				silent := i > 0 && i < len(want)-1
				if c.ChunkInfo().Len != n || (c.At(n-1, 1).Int() == 0) != silent {
					t.Errorf("chunk %d: %d samples of %v, want %d, silent %v", i, c.ChunkInfo().Len, c.At(n-1, 1), n, silent)
				}
			}
			for range 2 {
				if _, _, err := h.read(next); !errors.Is(err, io.EOF) || !errors.Is(err, hw.ErrGone) {
					t.Errorf("at the end: %v", err)
				}
			}
		})
	}
}

func TestAtFindsEverySampleInEveryLayout(t *testing.T) {
	for _, pixel := range []hw.PixelFormat{hw.NV12, hw.NV16, hw.I420, hw.I422, hw.YUYV, hw.UYVY} {
		for _, size := range [][2]int{{8, 6}, {7, 5}} {
			t.Run(fmt.Sprintf("%s %dx%d", pixel, size[0], size[1]), func(t *testing.T) {
				m := hw.Mode{Pixel: pixel, Width: size[0], Height: size[1]}
				f, err := hw.NewMemoryFrame(m, nil)
				if err != nil {
					t.Fatal(err)
				}
				want := paint(f)
				p := &Picture{mode: m, frame: f}
				for y := range m.Height {
					for x := range m.Width {
						if got := p.At(x, y); got != want(x, y) {
							t.Fatalf("sample %d,%d is %v, want %v", x, y, got, want(x, y))
						}
					}
				}
				if p.At(-1, 0) != black || p.At(0, m.Height) != black {
					t.Error("outside there is something")
				}
			})
		}
	}
}

// Who rides through to an encoder that reads descriptors costs no access; who
// looks at pixels has one for all of them.
func TestPixelsInSharedMemoryAreReadBetweenBeginAndEnd(t *testing.T) {
	var a hwtest.Accesses
	m := hw.Mode{Pixel: hw.NV12, Width: 8, Height: 6}
	for _, looks := range []int{0, 1, 48} {
		f, err := hw.NewMemoryFrame(m, nil)
		if err != nil {
			t.Fatal(err)
		}
		p := &Picture{mode: m, frame: a.Share(f).Lend()}
		for i := range looks {
			p.At(i%8, i/8)
		}
		p.Frame().Release()
		p.giveBack()
		p.giveBack()
		a.Check(t, hw.Reading, min(looks, 1))
	}
}

// paint fills f by the definition of its layout (Linux user-space API, part I,
// section 2), and returns what each sample has become.
func paint(f *hw.Frame) func(x, y int) color.YCbCr {
	luma := func(x, y int) uint8 { return uint8(16*y + x) }
	cb := func(cx, cy int) uint8 { return uint8(100 + 16*cy + cx) }
	cr := func(cx, cy int) uint8 { return uint8(200 + 16*cy + cx) }
	lines := 2 // of luma for one of chroma
	if f.Pixel != hw.NV12 && f.Pixel != hw.I420 {
		lines = 1
	}
	put := func(plane, x, y int, v uint8) { f.Planes[plane].Data[y*f.Planes[plane].Stride+x] = v }
	for y := range f.Height {
		for x := range f.Width {
			cx, cy := x/2, y/lines
			switch f.Pixel {
			case hw.NV12, hw.NV16:
				put(0, x, y, luma(x, y))
				put(1, 2*cx, cy, cb(cx, cy))
				put(1, 2*cx+1, cy, cr(cx, cy))
			case hw.I420, hw.I422:
				put(0, x, y, luma(x, y))
				put(1, cx, cy, cb(cx, cy))
				put(2, cx, cy, cr(cx, cy))
			case hw.UYVY: // Cb Y0 Cr Y1
				put(0, 2*x+1, y, luma(x, y))
				put(0, 4*cx, y, cb(cx, cy))
				put(0, 4*cx+2, y, cr(cx, cy))
			default: // YUYV: Y0 Cb Y1 Cr
				put(0, 2*x, y, luma(x, y))
				put(0, 4*cx+1, y, cb(cx, cy))
				put(0, 4*cx+3, y, cr(cx, cy))
			}
		}
	}
	return func(x, y int) color.YCbCr {
		return color.YCbCr{Y: luma(x, y), Cb: cb(x/2, y/lines), Cr: cr(x/2, y/lines)}
	}
}
