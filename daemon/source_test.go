package daemon

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/daemon/config"
	"encoderd.example/daemon/status"
	"encoderd.example/hw"
	"encoderd.example/hw/sim"
	"encoderd.example/stream"
)

// A chip is the input side of a hardware encoder whose lines have a certain
// alignment.
type chip struct {
	align  int
	broken atomic.Bool   // it has no memory to give
	hung   chan struct{} // if set, it does not answer until this is closed

	mu    sync.Mutex
	pools []*memory
}

func (c *chip) Takes() []hw.PixelFormat { return []hw.PixelFormat{hw.NV12} }

func (c *chip) Layout(src hw.Layout) (hw.Layout, error) {
	if c.hung != nil {
		<-c.hung
	}
	if src.Pixel != hw.NV12 {
		return hw.Layout{}, hw.ErrUnsupported
	}
	stride := (max(src.Width, src.Planes[0].Stride) + c.align - 1) / c.align * c.align
	return shared(src.Width, src.Height, stride), nil
}

func (c *chip) Allocate(l hw.Layout, count int) (hw.Pool, error) {
	if c.broken.Load() {
		return nil, errors.New("out of contiguous memory")
	}
	m := &memory{layout: l, buffers: make([]hw.Buffer, count)}
	for i := range m.buffers {
		m.buffers[i] = hw.Buffer{FDs: [3]int{100*count + i, -1, -1}}
		m.buffers[i].Mem[0] = make([]byte, l.Sizes[0])
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pools = append(c.pools, m)
	return m, nil
}

// open counts the pools for so many buffers that were not closed.
func (c *chip) open(buffers int) (n int) {
	for _, m := range c.made(buffers) {
		if !m.closed.Load() {
			n++
		}
	}
	return n
}

// made returns the pools for so many buffers.
func (c *chip) made(buffers int) (list []*memory) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.pools {
		if len(m.buffers) == buffers {
			list = append(list, m)
		}
	}
	return list
}

type memory struct {
	layout  hw.Layout
	buffers []hw.Buffer
	closed  atomic.Bool
}

func (m *memory) Layout() hw.Layout    { return m.layout }
func (m *memory) Buffers() []hw.Buffer { return m.buffers }
func (m *memory) Close() error {
	if m.closed.Swap(true) {
		return errors.New("closed twice")
	}
	return nil
}

// A sharingCamera is the software board's camera with memory of another kind.
type sharingCamera struct {
	hw.Camera
	source *atomic.Pointer[hw.BufferSource] // what it says of its memory
	fails  *atomic.Bool                     // sharing fails in the end
	takes  []hw.PixelFormat
	asked  *atomic.Pointer[[]hw.PixelFormat]
	opened *atomic.Int32
	hung   *atomic.Pointer[chan struct{}]
	start  *hunt // hangs where the driver starts
}

func (c sharingCamera) Preferring(takes []hw.PixelFormat) hw.Camera {
	c.takes = takes
	return c
}

func (c sharingCamera) OpenShared(ctx context.Context, want hw.Mode, decide func(hw.BufferSource) hw.BufferPlan) (hw.SharedStream, error) {
	c.asked.Store(&c.takes)
	s, err := c.Open(ctx, want)
	if err != nil {
		return nil, err
	}
	src := *c.source.Load()
	src.Mode = s.Mode()
	plan := decide(src)
	if c.start.wait(); ctx.Err() != nil && c.fails.Load() {
		return nil, errors.Join(hw.ErrGone, s.Close())
	}
	if c.fails.Load() && shares(plan.Way) {
		plan = hw.BufferPlan{Way: hw.Copy, Reason: "the driver refuses dma-bufs"}
	}
	c.opened.Add(1)
	shared := &sharedStream{CameraStream: s, plan: plan}
	if hung := c.hung.Load(); hung != nil {
		shared.hung = *hung
	}
	return shared, nil
}

type sharedStream struct {
	hw.CameraStream
	plan hw.BufferPlan
	hung chan struct{} // if set, Close waits for it
}

func (s *sharedStream) Plan() hw.BufferPlan { return s.plan }

func (s *sharedStream) Close() error {
	if s.hung != nil {
		<-s.hung
	}
	return s.CameraStream.Close()
}

// A stage is a hall with a camera and a chip that may share memory.
type stage struct {
	hall
	chip   *chip
	source atomic.Pointer[hw.BufferSource]
	fails  atomic.Bool
	asked  atomic.Pointer[[]hw.PixelFormat]
	opened atomic.Int32                  // times that the camera was
	hung   atomic.Pointer[chan struct{}] // what closers of cameras that are opened from now on wait for
	start  hunt                          // where cameras that start hang
}

// onStage runs a test on a box with a camera whose memory is src.
func onStage(t *testing.T, doc string, src hw.BufferSource, before func(*stage), test func(*stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &stage{chip: &chip{align: 64}, hall: hall{hard: &videoDriver{free: make(chan struct{})}, soft: &videoDriver{}}}
		s.source.Store(&src)
		if before != nil {
			before(s)
		}
		s.rig = newRig(t, doc, func(b *hw.Board) {
			cameras := b.Cameras
			b.Cameras = func() ([]hw.Camera, error) {
				list, err := cameras()
				for i, c := range list {
					list[i] = sharingCamera{Camera: c, source: &s.source, fails: &s.fails, asked: &s.asked, opened: &s.opened, hung: &s.hung, start: &s.start}
				}
				return list, err
			}
			b.FindEncoders = func() ([]hw.EncoderDriver, error) {
				d := s.hard.driver("hard", true)
				d.Importer = s.chip
				return []hw.EncoderDriver{d}, nil
			}
			b.Encoders = []hw.EncoderDriver{s.soft.driver("soft", false)}
		})
		func() {
			defer s.stop()
			s.until("box on duty", onDuty)
			test(s)
		}()
		if cam, slate := s.chip.open(poolBuffers), s.chip.open(slateBuffers); cam+slate > 0 {
			t.Errorf("%d pools of cameras and %d of slates were not closed", cam, slate)
		}
	})
}

// wayIs asks for the way of a rendition's pictures.
func wayIs(i int, want hw.Way) func(status.Box) bool {
	return func(b status.Box) bool {
		return onDuty(b) && b.Renditions[i].Buffers != nil && b.Renditions[i].Buffers.Way == string(want)
	}
}

func TestCameraAndEncoderShareMemory(t *testing.T) {
	fits, odd := shared(128, 72, 128), shared(128, 72, 130)
	tests := []struct {
		name   string
		src    hw.BufferSource
		before func(*stage)
		want   hw.Way
		words  string
		input  hw.Layout // that the encoder is opened for in the end
		pools  int
	}{
		{"the encoder reads the camera's memory", hw.BufferSource{Layout: fits, Exports: true}, nil, hw.Export, "hard reads the camera's memory", fits, 0},
		{"the camera writes into the encoder's", hw.BufferSource{Layout: fits, Imports: true, Private: "the camera's memory is not contiguous"}, nil, hw.Import, "writes into the memory of hard", fits, 1},
		{"lines of the encoder's length", hw.BufferSource{Layout: odd, Exports: true, Imports: true}, nil, hw.Import, "writes into", shared(128, 72, 192), 1},
		{"memory that cannot be shared", hw.BufferSource{Layout: fits, Private: "the camera's memory is not contiguous"}, nil, hw.Copy, "is not contiguous: hard cannot read it", fits, 0},
		{"an encoder without memory", hw.BufferSource{Layout: fits, Imports: true}, func(s *stage) { s.chip.broken.Store(true) }, hw.Copy, "out of contiguous memory", fits, 0},
		{"a driver that refuses in the end", hw.BufferSource{Layout: fits, Imports: true}, func(s *stage) { s.fails.Store(true) }, hw.Copy, "the driver refuses dma-bufs", fits, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			onStage(t, small, tt.src, tt.before, func(s *stage) {
				v := s.view("main")
				time.Sleep(2 * reopenAfter)
				b := s.until("plan", wayIs(0, tt.want))
				if got := b.Renditions[0].Buffers.Reason; !strings.Contains(got, tt.words) {
					t.Errorf("reason %q, want %q", got, tt.words)
				}
				if e := s.hard.latest(); e.Input != tt.input {
					t.Errorf("the encoder was opened for %v, want %v", e.Input, tt.input)
				}
				if n, pools := len(s.hard.all()), len(s.chip.made(poolBuffers)); n > 2 || pools != tt.pools {
					t.Errorf("%d encoders, %d pools", n, pools)
				}
				if takes := *s.asked.Load(); !slices.Equal(takes, s.chip.Takes()) {
					t.Errorf("the camera was told that the encoder takes %v", takes)
				}
				v.on(t)
			})
		})
	}
}

// ordered is small with a way of sharing that the config allows alone.
func ordered(way hw.Way) string {
	return strings.Replace(small, "[video]", "[video]\nbuffers = \""+string(way)+"\"", 1)
}

func TestTheConfigOrdersHowMemoryIsShared(t *testing.T) {
	fits, odd := shared(128, 72, 128), shared(128, 72, 130)
	tests := []struct {
		name   string
		src    hw.BufferSource
		only   hw.Way
		before func(*stage)
		want   hw.Way
		words  string
		pools  int
	}{
		{"export", hw.BufferSource{Layout: fits, Exports: true, Imports: true}, hw.Export, nil, hw.Export, "asked for by the config; hard reads", 0},
		{"export that does not fit", hw.BufferSource{Layout: odd, Exports: true, Imports: true}, hw.Export, nil, hw.Copy, "export is asked for by the config, but the camera gives", 0},
		{"import", hw.BufferSource{Layout: fits, Exports: true, Imports: true}, hw.Import, nil, hw.Import, "asked for by the config; the camera writes", 1},
		{"import by a camera that cannot", hw.BufferSource{Layout: fits, Exports: true}, hw.Import, nil, hw.Copy, "import is asked for by the config, but the camera does not write", 0},
		{"import that the driver refuses", hw.BufferSource{Layout: fits, Imports: true}, hw.Import, func(s *stage) { s.fails.Store(true) }, hw.Copy, "the driver refuses dma-bufs", 1},
		{"copy", hw.BufferSource{Layout: fits, Exports: true, Imports: true}, hw.Copy, nil, hw.Copy, "asked for by the config: ", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			onStage(t, ordered(tt.only), tt.src, tt.before, func(s *stage) {
				time.Sleep(2 * reopenAfter)
				b := s.until("plan", wayIs(0, tt.want))
				if got := b.Renditions[0].Buffers.Reason; !strings.Contains(got, tt.words) {
					t.Errorf("reason %q, want %q", got, tt.words)
				}
				if pools := len(s.chip.made(poolBuffers)); pools != tt.pools {
					t.Errorf("%d pools", pools)
				}
			})
		})
	}
}

func TestAnotherWayOfSharingReopensTheCameraOnly(t *testing.T) {
	src := hw.BufferSource{Layout: shared(128, 72, 128), Exports: true, Imports: true}
	onStage(t, small, src, nil, func(s *stage) {
		v := s.view("main")
		time.Sleep(2 * reopenAfter)
		s.until("plan", wayIs(0, hw.Export))
		encoders, cameras := len(s.hard.all()), s.opened.Load()
		for i, way := range []hw.Way{hw.Copy, hw.Import, hw.Export} {
			s.apply(ordered(way))
			s.until("plan", wayIs(0, way))
			time.Sleep(2 * reopenAfter)
			if n, opened := len(s.hard.all()), s.opened.Load(); n != encoders || opened != cameras+int32(i)+1 {
				t.Errorf("%s: %d encoders, camera opened %d times; want %d and %d", way, n, opened, encoders, cameras+int32(i)+1)
			}
		}
		v.on(t)
	})
}

func TestEncodersAreNotToldOfMemoryThatTheyShallNotRead(t *testing.T) {
	l := newLender(nil, func(hw.Pool) {})
	l.private = true
	f := hw.NewFrame(nil)
	f.Planes = []hw.Plane{{FD: 7, Data: []byte{1}, Stride: 2}, {FD: 8}}
	lent := l.lend(f.Lend())
	defer lent.Release()
	if p := lent.Planes; p[0].FD != -1 || p[0].Stride != 2 || len(p[0].Data) != 1 || f.Planes[0].FD != 7 {
		t.Errorf("lent %+v of %+v", p, f.Planes)
	}
	if lent.Planes[1].FD != 8 {
		t.Error("a plane that is not mapped cannot be copied without its descriptor")
	}
}

func TestAnEncoderIsOpenedAnewForAnotherLayoutAndNotForTheSlate(t *testing.T) {
	onStage(t, small, hw.BufferSource{Layout: shared(128, 72, 128), Exports: true}, nil, func(s *stage) {
		v := s.view("main")
		time.Sleep(2 * reopenAfter)
		before := len(s.hard.all())
		for range 3 { // the same camera comes and goes
			s.fault("camera-unplugged", true)
			s.until("slate", func(b status.Box) bool { return !b.Input.Signal })
			time.Sleep(5 * time.Second)
			s.fault("camera-unplugged", false)
			s.until("picture", onDuty)
			time.Sleep(5 * time.Second)
		}
		if n := len(s.hard.all()); n != before {
			t.Errorf("%d encoders for the same camera, want %d", n, before)
		}
		wide := shared(128, 72, 256)
		s.fault("camera-unplugged", true)
		s.source.Store(&hw.BufferSource{Layout: wide, Exports: true})
		time.Sleep(5 * time.Second)
		s.fault("camera-unplugged", false)
		s.until("picture", wayIs(0, hw.Export))
		time.Sleep(5 * time.Second)
		if e := s.hard.latest(); e.Input != wide || len(s.hard.all()) != before+1 {
			t.Errorf("%d encoders, the last for %v, want one more, for %v", len(s.hard.all()), e.Input, wide)
		}
		v.on(t)
	})
}

func TestACameraLeavesTheMemoryOfAnEncoderThatHangs(t *testing.T) {
	onStage(t, small, hw.BufferSource{Layout: shared(128, 72, 128), Imports: true}, nil, func(s *stage) {
		v := s.view("main")
		s.until("plan", wayIs(0, hw.Import))
		s.hard.mute.Store(true)
		s.until("software", by("soft"))
		s.until("plan", wayIs(0, hw.Heap))
		time.Sleep(5 * time.Second)
		if cam, slate := s.chip.open(poolBuffers), s.chip.open(slateBuffers); cam+slate > 0 {
			t.Errorf("%d pools of cameras and %d of slates are open", cam, slate)
		}
		if b, _ := s.Status(); !onDuty(b) {
			t.Errorf("%+v", b)
		}
		v.on(t)
	})
}

func TestEachRenditionHasItsOwnWay(t *testing.T) {
	const doc = small + "[[rendition]]\nname = \"main\"\n[[rendition]]\nname = \"sub\"\nwidth = 64\nheight = 64\n[[rendition]]\nname = \"twin\"\n"
	onStage(t, doc, hw.BufferSource{Layout: shared(128, 72, 128), Imports: true}, nil, func(s *stage) {
		v := s.view("twin")
		time.Sleep(2 * reopenAfter)
		b := s.until("plan", wayIs(0, hw.Import))
		v.on(t)
		if !wayIs(1, hw.Convert)(b) || !strings.Contains(b.Renditions[1].Buffers.Reason, "scales 128x72 to 64x64") || !wayIs(2, hw.Import)(b) {
			t.Errorf("sub %v, twin %v", b.Renditions[1].Buffers, b.Renditions[2].Buffers)
		}
	})
}

func TestTheLenderClosesItsPoolAfterTheLastFrame(t *testing.T) {
	var given atomic.Int32
	pool := &memory{}
	l := newLender(pool, func(p hw.Pool) {
		if p == pool {
			given.Add(1)
		}
	})
	back := 0
	f := hw.NewFrame(func(*hw.Frame) { back++ })
	f.Stamp, f.Mode = time.Second, hw.Mode{Pixel: hw.NV12, Width: 2, Height: 2}
	first := l.lend(f.Lend())
	if first.Stamp != time.Second || first.Mode != f.Mode || back != 0 {
		t.Errorf("%+v, %d came back", first.Mode, back)
	}
	first.Release()
	second := l.lend(f.Lend())
	second.Retain()
	second.Release()
	l.end()
	if given.Load() != 0 {
		t.Error("the pool is closed while a frame is out")
	}
	second.Release()
	if given.Load() != 1 || back != 2 || first != second {
		t.Errorf("closed %d times, %d frames came back", given.Load(), back)
	}
}

// copying is an encoder whose driver refuses shared memory.
type copying struct{ hw.Encoder }

func (copying) CopyReason() string { return "the driver refuses the dma-buf: invalid argument" }

func TestARefusalOfTheDriverIsTold(t *testing.T) {
	inBox(t, small, func(b *hw.Board) {
		open := b.Encoders[0].Open
		b.Encoders[0].Open = func(c hw.EncoderConfig) (hw.Encoder, error) {
			e, err := open(c)
			return copying{e}, err
		}
	}, func(r *rig) {
		b := r.until("plan", wayIs(0, hw.Copy))
		if got := b.Renditions[0].Buffers.Reason; !strings.Contains(got, "refuses the dma-buf") || b.Renditions[0].Codec != stream.H264.String() {
			t.Errorf("reason %q", got)
		}
	})
}

func TestPairsArePlannedByLookingAtTheCamera(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		board := sim.New(sim.Options{Now: bubbleClock()})
		cameras, err := board.Hardware().Cameras()
		if err != nil {
			t.Fatal(err)
		}
		c := sharingCamera{
			Camera: cameras[0], source: &atomic.Pointer[hw.BufferSource]{}, fails: &atomic.Bool{},
			asked: &atomic.Pointer[[]hw.PixelFormat]{}, opened: &atomic.Int32{}, hung: &atomic.Pointer[chan struct{}]{}, start: &hunt{},
		}
		c.source.Store(&hw.BufferSource{Layout: shared(1920, 1080, 1920), Exports: true})
		drivers := []hw.EncoderDriver{{Name: "hard", Hardware: true, Importer: &chip{align: 64}}, {Name: "soft"}}
		for _, tt := range []struct {
			cam  hw.Camera
			want [2]hw.Way
		}{{c, [2]hw.Way{hw.Export, hw.Heap}}, {cameras[0], [2]hw.Way{hw.Copy, hw.Heap}}} {
			plans, err := PlanPairs(t.Context(), tt.cam, drivers, config.Auto)
			if err != nil || len(plans) != 2 || plans[0].Way != tt.want[0] || plans[1].Way != tt.want[1] || plans[1].Encoder != "soft" {
				t.Errorf("%+v, %v; want %v", plans, err, tt.want)
			}
		}
		if err := board.SetFault("camera-busy", true); err != nil {
			t.Fatal(err)
		}
		if _, err := PlanPairs(t.Context(), c, drivers, config.Auto); !errors.Is(err, hw.ErrBusy) {
			t.Errorf("got %v", err)
		}
	})
}

func TestSlatesLieInTheEncodersMemory(t *testing.T) {
	wide := hw.BufferSource{Layout: shared(128, 72, 256), Exports: true}
	onStage(t, small, wide, func(s *stage) { s.hard.slates = make(chan hw.Plane, 1000) }, func(s *stage) {
		time.Sleep(2 * reopenAfter)
		slate := func(stride int) {
			t.Helper()
			for len(s.hard.slates) > 0 {
				<-s.hard.slates
			}
			s.fault("camera-unplugged", true)
			s.until("slate", func(b status.Box) bool { return !b.Input.Signal })
			time.Sleep(time.Second)
			s.fault("camera-unplugged", false)
			s.until("picture", onDuty)
			if n := len(s.hard.slates); n < 8 {
				t.Errorf("%d slates went to the encoder", n)
			}
			if p := <-s.hard.slates; p.FD < 100*slateBuffers || p.Stride != stride {
				t.Errorf("a slate lies in %d, %d bytes a line; want an encoder's memory, %d a line", p.FD, p.Stride, stride)
			}
		}
		slate(256)
		s.apply(strings.Replace(small, "[video]", "[box]\nname = \"other\"\n[video]", 1)) // only the slate changes
		s.until("picture", onDuty)
		time.Sleep(time.Second)
		slate(256)
		if made, open := len(s.chip.made(slateBuffers)), s.chip.open(slateBuffers); made > 2 || open != 1 {
			t.Errorf("%d pools of slates, %d of them open; want at most one for the first layout, closed, and one for the camera's", made, open)
		}
	})
}

// A scalingChip has a scaler before it.
type scalingChip struct{ *chip }

func (c scalingChip) Scaled(src hw.Layout, width, height int) (hw.Layout, string, error) {
	if width > src.Width {
		return hw.Layout{}, "", hw.ErrUnsupported
	}
	l, err := c.Layout(src)
	return l, "isp", err
}

func TestReaderAsksTheScalerOnlyWhereTheEncoderNeedsOne(t *testing.T) {
	d := hw.EncoderDriver{Name: "hard", Importer: scalingChip{&chip{align: 64}}}
	tests := []struct {
		name          string
		src           hw.Layout
		width, height int
		scaler        string
		reads         bool
	}{
		{"its own size", shared(128, 72, 128), 128, 72, "", true},
		{"a smaller one", shared(128, 72, 128), 64, 36, "isp", true},
		{"a larger one", shared(128, 72, 128), 256, 144, "", true},
		{"a format that nobody takes", hw.Layout{Pixel: hw.YUYV, Width: 128, Height: 72}, 128, 72, "", false},
		{"coded pictures", hw.Layout{}, 128, 72, "", false},
	}
	for _, tt := range tests {
		r := readerOf(d, hw.EncoderConfig{Width: tt.width, Height: tt.height}, tt.src)
		if r.Scaler != tt.scaler || r.Layout.Reads(tt.src) != tt.reads && tt.src.Pixel != 0 || r.Width != tt.width {
			t.Errorf("%s: %+v", tt.name, r)
		}
	}
}

func TestADriverThatDoesNotAnswerAboutItsMemoryIsLeftBehind(t *testing.T) {
	onStage(t, small, hw.BufferSource{Layout: shared(128, 72, 128), Exports: true}, func(s *stage) { s.chip.hung = make(chan struct{}) }, func(s *stage) {
		if b := s.until("plan", wayIs(0, hw.Convert)); !b.Has(status.DriverHangs) {
			t.Errorf("faults %+v", b.Faults)
		}
		close(s.chip.hung)
		s.until("the end of it", func(b status.Box) bool { return !b.Has(status.DriverHangs) })
	})
}

func TestSoftwareThatWasThereBeforeTheCameraTellsItsWayToo(t *testing.T) {
	inBox(t, small, func(b *hw.Board) {
		if err := b.Faults("camera-unplugged", true); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(10*time.Second, func() { _ = b.Faults("camera-unplugged", false) })
	}, func(r *rig) { r.until("plan", wayIs(0, hw.Heap)) })
}

func TestACameraLeavesWhatAnEncoderThatWasLeftBehindKeeps(t *testing.T) {
	onStage(t, small, hw.BufferSource{Layout: shared(128, 72, 128), Exports: true}, nil, func(s *stage) {
		v := s.view("main")
		s.until("plan", wayIs(0, hw.Export))
		before := s.opened.Load()
		s.hard.latest().stuck = true
		s.hard.mute.Store(true)
		s.until("software", by("soft"))
		time.Sleep(3 * time.Second)
		if n := s.opened.Load() - before; n != 1 {
			t.Errorf("the camera was opened %d times more, want once", n)
		}
		if b, _ := s.Status(); !by("soft")(b) {
			t.Errorf("%+v", b)
		}
		v.on(t)
		close(s.hard.free)
		s.until("the end of what hung", func(b status.Box) bool { return !b.Has(status.DriverHangs) })
	})
}

func TestASilentCameraIsOpenedAnew(t *testing.T) {
	onStage(t, small, hw.BufferSource{Layout: shared(128, 72, 128), Exports: true}, nil, func(s *stage) {
		before := s.opened.Load()
		s.fault("camera-frozen", true)
		time.Sleep(4 * time.Second)
		if n := s.opened.Load() - before; n != 0 {
			t.Errorf("the camera was opened %d times more within its patience", n)
		}
		time.Sleep(57 * time.Second)
		if n := s.opened.Load() - before; n < 10 || n > 12 {
			t.Errorf("the camera was opened %d times more in a minute", n)
		}
		s.fault("camera-frozen", false)
		s.until("picture", onDuty)
		before = s.opened.Load()
		time.Sleep(30 * time.Second)
		if n := s.opened.Load() - before; n != 0 {
			t.Errorf("a camera that works was opened %d times", n)
		}
	})
}

func TestACameraThatDoesNotCloseHoldsNobodyUp(t *testing.T) {
	var hung chan struct{}
	onStage(t, small, hw.BufferSource{Layout: shared(128, 72, 128), Exports: true}, func(s *stage) {
		hung = make(chan struct{})
		s.hung.Store(&hung)
	}, func(s *stage) {
		s.hung.Store(nil)
		s.fault("camera-unplugged", true)
		time.Sleep(5 * time.Second)
		if b, _ := s.Status(); !b.Has(status.DriverHangs) || !strings.Contains(faultText(b, status.DriverHangs), "close ") {
			t.Errorf("faults %+v", b.Faults)
		}
		s.fault("camera-unplugged", false)
		close(hung)
		s.until("the end of it", func(b status.Box) bool { return onDuty(b) && !b.Has(status.DriverHangs) })
	})
}

func faultText(b status.Box, code status.FaultCode) string {
	i := slices.IndexFunc(b.Faults, func(f status.Fault) bool { return f.Code == code })
	if i < 0 {
		return ""
	}
	return b.Faults[i].Text
}
