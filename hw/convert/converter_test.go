package convert

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"syscall"
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

func code(s string) uint32 { return uint32(hw.FourCC(s)) }

// scalerNode is a converter like those of SoCs.
func scalerNode() *fakevb2.Node {
	formats := []fakevb2.Format{
		{Code: code("NV12"), BytesPerPixel: 1.5, Align: 32},
		{Code: code("YUYV"), BytesPerPixel: 2},
	}
	return &fakevb2.Node{
		Path: "/dev/video12", Driver: "pxp", Card: "pxp", BusInfo: "platform:pxp",
		Caps: uapi.CapVideoM2M | uapi.CapStreaming, Type: uapi.BufTypeVideoCapture,
		Converter: &fakevb2.Converter{In: formats, Out: formats, Most: [2]int{1920, 1088}},
	}
}

func finder(k *fakevb2.Kernel, nodes ...string) Finder {
	root := fstest.MapFS{}
	for _, n := range nodes {
		root[classDir+"/"+n+"/dev"] = &fstest.MapFile{Sys: &syscall.Stat_t{Ino: 7}}
	}
	return Finder{Root: root, Sys: k, Log: slog.New(slog.DiscardHandler), Known: &Known{}}
}

func find(t *testing.T, k *fakevb2.Kernel) *Device {
	t.Helper()
	all, err := finder(k, "video12").devices()
	if err != nil || len(all) != 1 {
		t.Fatalf("devices %v, %v", all, err)
	}
	return all[0]
}

// nothingLeft checks that all was given back, but for the dma-bufs of sources.
func nothingLeft(t *testing.T, k *fakevb2.Kernel, kept int) {
	t.Helper()
	if fds, maps := k.Left(); fds != kept || maps != 0 {
		t.Errorf("%d descriptors and %d mappings are left, want %d and none", fds, maps, kept)
	}
}

var (
	large = hw.Layout{Pixel: hw.NV12, Width: 640, Height: 360}
	small = hw.Layout{Pixel: hw.NV12, Width: 320, Height: 180}
)

// A source makes frames that lie in one dma-buf each, or on the heap.
type source struct {
	k      *fakevb2.Kernel
	layout hw.Layout
	fds    []int
	count  int
	free   int // frames that have come back
}

// frame returns a frame whose luma begins with 16 times v. fd < 0 puts it on
// the heap.
func (s *source) frame(fd int, v byte) *hw.Frame {
	s.count++
	f := hw.NewFrame(func(*hw.Frame) { s.free++ })
	f.Mode = hw.Mode{Pixel: s.layout.Pixel, Width: s.layout.Width, Height: s.layout.Height, FPS: hw.Rate{Num: 30, Den: 1}}
	f.Stamp, f.Seq = time.Duration(s.count)*time.Second/30, uint32(s.count)
	mem := make([]byte, s.layout.Sizes[0])
	if fd >= 0 {
		mem = s.k.Look(fd)
	}
	copy(mem, slices.Repeat([]byte{v}, 16))
	for i := range s.layout.Pixel.Planes() {
		p := s.layout.Planes[i]
		f.Planes = append(f.Planes, hw.Plane{Data: mem[p.Offset:], Stride: p.Stride, FD: fd, Offset: p.Offset})
	}
	return f.Lend()
}

func (s *source) buffers(n int) {
	for range n {
		s.fds = append(s.fds, s.k.DMABuf(s.layout.Sizes[0]))
	}
}

// shared returns a source whose pictures the device reads in place.
func shareable(t *testing.T, k *fakevb2.Kernel, d *Device, like hw.Layout) *source {
	t.Helper()
	l, err := d.Layout(like)
	if err != nil {
		t.Fatal(err)
	}
	s := &source{k: k, layout: l}
	s.buffers(4)
	return s
}

func open(t *testing.T, d *Device, in, out hw.Layout) *Converter {
	t.Helper()
	c, err := d.Open(in, out)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func take(t *testing.T, c *Converter) *hw.Frame {
	t.Helper()
	f, err := c.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func shut(t *testing.T, c *Converter) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestPicturesAreReadAndWrittenInPlace(t *testing.T) {
	k := fakevb2.New(scalerNode())
	d := find(t, k)
	src := shareable(t, k, d, large)
	c := open(t, d, large, small)
	for i := range 12 {
		f := src.frame(src.fds[i%4], byte(i))
		if err := c.Submit(f); err != nil {
			t.Fatal(err)
		}
		out := take(t, c)
		switch {
		case out.Stamp != f.Stamp || out.Seq != f.Seq || out.FPS != f.FPS:
			t.Errorf("picture %d: stamp %v, number %d, rate %v", i, out.Stamp, out.Seq, out.FPS)
		case out.Pixel != hw.NV12 || out.Width != 320 || out.Height != 180 || len(out.Planes) != 2:
			t.Errorf("picture %d is %s", i, out.Mode)
		case out.Planes[0].FD < 0 || out.Planes[1].FD != out.Planes[0].FD || out.Planes[1].Offset != 320*180 || out.Planes[1].Stride != 320:
			t.Errorf("picture %d lies at %+v", i, out.Planes)
		case out.Planes[0].Data[0] != byte(16*i) || out.Planes[1].Data[320*90-1] != byte(16*i):
			t.Errorf("picture %d was made of another", i)
		}
		out.Release()
		f.Release()
	}
	if st := c.Stats(); st != (Stats{Submitted: 12, Converted: 12}) {
		t.Errorf("%+v", st)
	}
	shut(t, c)
	if src.free != 12 {
		t.Errorf("%d of 12 frames came back", src.free)
	}
	if n := k.Attached(); n != 4 {
		t.Errorf("dma-bufs were attached %d times, want each of 4 once", n)
	}
	nothingLeft(t, k, 4)
}

func TestWhatCannotBeReadInPlaceIsCopiedAndCounted(t *testing.T) {
	const bytes = 640 * 360 * 3 / 2
	padded := func(l hw.Layout) hw.Layout {
		l.Planes[0].Stride, l.Planes[1].Stride = 704, 704
		l.Planes[1].Offset = 704 * 360
		l.Sizes[0] = 704 * 540
		return l
	}
	for name, tt := range map[string]struct {
		node   func(*fakevb2.Node)
		opened func(*fakevb2.Node)
		layout func(hw.Layout) hw.Layout
		heap   bool
		copied uint64
		reason bool
	}{
		"on the heap":               {heap: true, copied: bytes},
		"in other lines":            {layout: padded, copied: bytes},
		"the driver imports none":   {node: func(n *fakevb2.Node) { n.NoImport = true }, copied: bytes},
		"the driver refuses one":    {opened: func(n *fakevb2.Node) { n.RefuseQBuf = 1 }, copied: bytes, reason: true},
		"nothing of all that":       {},
		"on the heap, none imports": {heap: true, node: func(n *fakevb2.Node) { n.NoImport = true }, copied: bytes},
	} {
		t.Run(name, func(t *testing.T) {
			n := scalerNode()
			k := fakevb2.New(n)
			d := find(t, k)
			src := shareable(t, k, d, large)
			if tt.layout != nil {
				src.layout = tt.layout(src.layout)
				src.buffers(4)
			}
			if tt.node != nil {
				k.Do(func() { tt.node(n) })
			}
			c := open(t, d, large, small)
			if tt.opened != nil {
				k.Do(func() { tt.opened(n) })
			}
			for i := range 8 {
				fd := src.fds[len(src.fds)-1-i%4]
				if tt.heap {
					fd = -1
				}
				f := src.frame(fd, byte(3*i+1))
				if err := c.Submit(f); err != nil {
					t.Fatal(err)
				}
				f.Release()
				out := take(t, c)
				if v := byte(16 * (3*i + 1)); out.Planes[0].Data[0] != v || out.Planes[1].Data[5] != v {
					t.Errorf("picture %d holds %d, want %d", i, out.Planes[0].Data[0], v)
				}
				out.Release()
			}
			if got := c.Stats().CopiedBytes; got != 8*tt.copied {
				t.Errorf("%d bytes copied, want %d", got, 8*tt.copied)
			}
			if why := c.CopyReason(); (why != "") != tt.reason {
				t.Errorf("reason %q", why)
			}
			shut(t, c)
			if src.free != 8 {
				t.Errorf("%d of 8 frames came back", src.free)
			}
			nothingLeft(t, k, len(src.fds))
		})
	}
}

func TestPicturesGoIntoAPoolOfTheReader(t *testing.T) {
	k := fakevb2.New(scalerNode())
	d := find(t, k)
	l, err := d.Layout(small)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := d.Allocate(l, 3)
	if err != nil {
		t.Fatal(err)
	}
	src := shareable(t, k, d, large)
	c, err := d.OpenInto(large, pool)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for i := range 9 {
		f := src.frame(src.fds[0], byte(i))
		if err := c.Submit(f); err != nil {
			t.Fatal(err)
		}
		f.Release()
		out := take(t, c)
		at := slices.IndexFunc(pool.Buffers(), func(b hw.Buffer) bool { return b.FDs[0] == out.Planes[0].FD })
		if at < 0 || pool.Buffers()[at].Mem[0][0] != byte(16*i) || out.Planes[0].Data[0] != byte(16*i) {
			t.Fatalf("picture %d is not in the pool", i)
		}
		seen[at] = true
		out.Release()
	}
	if len(seen) != 3 {
		t.Errorf("only buffers %v of 3 were used", seen)
	}
	shut(t, c)
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, k, 4)
}

func TestPoolThatTheDeviceCannotWriteIsRefused(t *testing.T) {
	k := fakevb2.New(scalerNode())
	d := find(t, k)
	pool := otherPool{hw.Layout{
		Pixel: hw.NV12, Width: 320, Height: 180, Sizes: [3]int{512 * 270},
		Planes: [3]hw.PlaneLayout{{Stride: 512}, {Stride: 512, Offset: 512 * 180}},
	}}
	if _, err := d.OpenInto(large, pool); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("a pool with longer lines: %v", err)
	}
	nothingLeft(t, k, 0)
}

type otherPool struct{ l hw.Layout }

func (p otherPool) Layout() hw.Layout    { return p.l }
func (p otherPool) Buffers() []hw.Buffer { return make([]hw.Buffer, 4) }
func (p otherPool) Close() error         { return nil }

// Next is for one goroutine; this one only submits.
func TestSubmitDropsWhenTheHardwareIsBehind(t *testing.T) {
	n := scalerNode()
	n.Idle = true
	k := fakevb2.New(n)
	d := find(t, k)
	src := shareable(t, k, d, large)
	c := open(t, d, large, small)
	var errs []error
	for i := range 5 {
		f := src.frame(src.fds[i%4], 1)
		errs = append(errs, c.Submit(f))
		f.Release()
	}
	for i, err := range errs {
		if want := i >= mostInside; errors.Is(err, hw.ErrBusy) != want {
			t.Errorf("picture %d: %v", i, err)
		}
	}
	k.Do(func() { n.Idle = false })
	for range mostInside {
		take(t, c).Release()
	}
	if st := c.Stats(); st != (Stats{Submitted: mostInside, Converted: mostInside, Dropped: 2}) {
		t.Errorf("%+v", st)
	}
	shut(t, c)
	nothingLeft(t, k, 4)
}

func TestAllBuffersLentOutStopNothing(t *testing.T) {
	k := fakevb2.New(scalerNode())
	d := find(t, k)
	src := shareable(t, k, d, large)
	c := open(t, d, large, small)
	var held []*hw.Frame
	for i := range wantOutputs {
		f := src.frame(src.fds[i%4], byte(i))
		if err := c.Submit(f); err != nil {
			t.Fatal(err)
		}
		f.Release()
		held = append(held, take(t, c))
	}
	f := src.frame(src.fds[0], 77)
	if err := c.Submit(f); err != nil {
		t.Fatal(err)
	}
	f.Release()
	k.AwaitSleep() // the picture is at the hardware, which has nothing to write to
	for i, h := range held {
		if h.Planes[0].Data[0] != byte(16*i) {
			t.Errorf("held picture %d was written over", i)
		}
		h.Release()
	}
	if out := take(t, c); out.Planes[0].Data[0] != byte(77*16%256) {
		t.Error("another picture came out")
	} else {
		out.Release()
	}
	shut(t, c)
	nothingLeft(t, k, 4)
}

func TestFramesOutliveClose(t *testing.T) {
	k := fakevb2.New(scalerNode())
	d := find(t, k)
	src := shareable(t, k, d, large)
	c := open(t, d, large, small)
	f := src.frame(src.fds[0], 5)
	if err := c.Submit(f); err != nil {
		t.Fatal(err)
	}
	f.Release()
	out := take(t, c)
	shut(t, c)
	if out.Planes[0].Data[0] != 80 {
		t.Error("the picture is spoilt")
	}
	if err := c.Submit(f); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("submit after close: %v", err)
	}
	if _, err := c.Next(t.Context()); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("next after close: %v", err)
	}
	out.Release()
	nothingLeft(t, k, 4)
}

func TestFaultsOfTheHardwareCostOnlyTheirPicture(t *testing.T) {
	type fault = fakevb2.ConversionFault
	for name, tt := range map[string]struct {
		fault fault
		stats Stats
	}{
		"swallowed":       {fault{Dropped: true}, Stats{Submitted: 4, Converted: 3, Swallowed: 1}},
		"refused":         {fault{Refused: true}, Stats{Submitted: 4, Converted: 3, Damaged: 1}},
		"damaged":         {fault{Error: true}, Stats{Submitted: 4, Converted: 3, Damaged: 1}},
		"without a stamp": {fault{NoStamp: true}, Stats{Submitted: 4, Converted: 3, Damaged: 1, Swallowed: 1}},
		"empty":           {fault{Empty: true}, Stats{Submitted: 4, Converted: 3, Damaged: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			n := scalerNode()
			n.Converter.Script = []fault{{}, tt.fault}
			k := fakevb2.New(n)
			d := find(t, k)
			src := shareable(t, k, d, large)
			c := open(t, d, large, small)
			var got []uint32
			for i := range 4 {
				f := src.frame(src.fds[i], byte(i))
				if err := c.Submit(f); err != nil {
					t.Fatal(err)
				}
				f.Release()
				if i == 1 {
					continue
				}
				out := take(t, c)
				got = append(got, out.Seq)
				out.Release()
			}
			if !slices.Equal(got, []uint32{1, 3, 4}) {
				t.Errorf("pictures %v came out", got)
			}
			if st := c.Stats(); st != tt.stats {
				t.Errorf("%+v, want %+v", st, tt.stats)
			}
			shut(t, c)
			if src.free != 4 {
				t.Errorf("%d of 4 frames came back", src.free)
			}
			nothingLeft(t, k, 4)
		})
	}
}

func TestDriverThatGivesUpEndsTheConverter(t *testing.T) {
	n := scalerNode()
	n.Converter.Script = []fakevb2.ConversionFault{{Fatal: true}}
	k := fakevb2.New(n)
	d := find(t, k)
	src := shareable(t, k, d, large)
	c := open(t, d, large, small)
	f := src.frame(src.fds[0], 1)
	if err := c.Submit(f); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Next(t.Context()); !errors.Is(err, unix.EIO) {
		t.Errorf("next: %v", err)
	}
	if err := c.Submit(f); !errors.Is(err, unix.EIO) {
		t.Errorf("submit: %v", err)
	}
	f.Release()
	shut(t, c)
	nothingLeft(t, k, 4)
}

func TestNextEndsWithItsContext(t *testing.T) {
	k := fakevb2.New(scalerNode())
	c := open(t, find(t, k), large, small)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if _, err := c.Next(ctx); !errors.Is(err, why) {
		t.Errorf("next: %v", err)
	}
	shut(t, c)
	nothingLeft(t, k, 0)
}

func TestWrongPicturesAreRefused(t *testing.T) {
	k := fakevb2.New(scalerNode())
	d := find(t, k)
	src := shareable(t, k, d, small)
	c := open(t, d, large, small)
	f := src.frame(src.fds[0], 1)
	if err := c.Submit(f); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("a picture of another size: %v", err)
	}
	f.Release()
	shut(t, c)
}

func TestSizesAreRoundedWithinReason(t *testing.T) {
	wide := hw.Layout{Pixel: hw.NV12, Width: 1920, Height: 1080}
	t.Run("what goes in is cropped", func(t *testing.T) {
		n := scalerNode()
		n.Converter.In[0].AlignLines = 16
		d := find(t, fakevb2.New(n))
		l, err := d.Layout(wide)
		if err != nil || l.Height != 1080 || l.Planes[1].Offset != 1920*1088 {
			t.Errorf("%+v, %v", l, err)
		}
	})
	t.Run("or refused where that cannot be", func(t *testing.T) {
		n := scalerNode()
		n.Converter.In[0].AlignLines = 16
		n.Refuse = map[string]unix.Errno{"s_selection": unix.ENOTTY}
		k := fakevb2.New(n)
		if _, err := find(t, k).Layout(wide); !errors.Is(err, hw.ErrUnsupported) {
			t.Errorf("%v", err)
		}
		nothingLeft(t, k, 0)
	})
	for composes, name := range map[bool]string{true: "what comes out is composed", false: "or refused"} {
		t.Run(name, func(t *testing.T) {
			n := scalerNode()
			n.Converter.Composes = composes
			n.Converter.Out = []fakevb2.Format{{Code: code("NV12"), BytesPerPixel: 1.5, AlignLines: 16}}
			k := fakevb2.New(n)
			c, err := find(t, k).Open(large, wide)
			if (err == nil) != composes {
				t.Fatalf("open: %v", err)
			}
			if err == nil {
				if l := c.Layout(); l.Height != 1080 || l.Planes[1].Offset != 1920*1088 {
					t.Errorf("%+v", l)
				}
				shut(t, c)
			}
			nothingLeft(t, k, 0)
		})
	}
	t.Run("too large a picture is refused", func(t *testing.T) {
		k := fakevb2.New(scalerNode())
		if _, err := find(t, k).Open(large, hw.Layout{Pixel: hw.NV12, Width: 3840, Height: 2160}); !errors.Is(err, hw.ErrUnsupported) {
			t.Errorf("open: %v", err)
		}
		nothingLeft(t, k, 0)
	})
}

// A stop that hangs must not hold up whoever closes, and what is left is given
// back if it ever returns.
func TestStopThatHangsIsAbandoned(t *testing.T) {
	n := scalerNode()
	k := fakevb2.New(n)
	d := find(t, k)
	src := shareable(t, k, d, large)
	d.trait.patience = time.Millisecond
	c := open(t, d, large, small)
	f := src.frame(src.fds[0], 1)
	if err := c.Submit(f); err != nil {
		t.Fatal(err)
	}
	f.Release()
	take(t, c).Release()
	k.Do(func() { n.HangStreamOff = true })
	if err := c.Close(); !errors.Is(err, ErrStuck) {
		t.Errorf("close: %v", err)
	}
	k.Do(func() { n.HangStreamOff = false })
	<-c.left
	nothingLeft(t, k, 4)
}

// The device may vanish, or any call fail, at any moment: Open or Next says so,
// and nothing is left behind.
func TestDeviceVanishesAtEveryCall(t *testing.T) {
	everyCall(t, func(k *fakevb2.Kernel, n int) { k.UnplugAt = n }, hw.ErrGone)
}

func TestEveryCallMayFail(t *testing.T) {
	everyCall(t, func(k *fakevb2.Kernel, n int) { k.FailAt, k.FailWith = n, unix.EIO }, unix.EIO)
}

func everyCall(t *testing.T, spoil func(*fakevb2.Kernel, int), want error) {
	t.Helper()
	for n := 1; ; n++ {
		k := fakevb2.New(scalerNode())
		spoil(k, n)
		kept, err := session(t, k)
		if fds, maps := k.Left(); fds != kept || maps != 0 {
			t.Fatalf("call %d (%s): %d descriptors and %d mappings are left", n, k.Calls()[n-1], fds-kept, maps)
		}
		if len(k.Calls()) < n {
			if n < 40 {
				t.Fatalf("a session of %d calls is none", n)
			}
			if err != nil {
				t.Errorf("undisturbed: %v", err)
			}
			return
		}
		if err != nil && !errors.Is(err, want) {
			t.Errorf("call %d (%s): %v, want %v", n, k.Calls()[n-1], err, want)
		}
	}
}

// A reliable kernel has event descriptors that never fail, which is true of
// Linux: a call that was chosen to fail is made again.
type reliable struct{ *fakevb2.Kernel }

func (r reliable) Notify(fd int) error {
	if r.Kernel.Notify(fd) == nil {
		return nil
	}
	return r.Kernel.Notify(fd)
}

// session converts four pictures and returns how many descriptors of sources
// are left, and the first error.
func session(t *testing.T, k *fakevb2.Kernel) (kept int, first error) {
	t.Helper()
	note := func(err error) bool {
		if err != nil && first == nil && !errors.Is(err, fs.ErrClosed) {
			first = err
		}
		return err != nil
	}
	f := finder(k, "video12")
	f.Sys = reliable{k}
	all, err := f.Scalers()
	if note(err) || len(all) == 0 {
		return 0, first
	}
	l, err := all[0].Layout(large)
	if note(err) {
		return 0, first
	}
	src := &source{k: k, layout: l}
	src.buffers(2)
	c, err := all[0].Open(large, small)
	if note(err) {
		return 2, first
	}
	defer func() { note(c.Close()) }()
	for i := range 4 {
		fd := src.fds[i%2]
		if i == 3 {
			fd = -1
		}
		f := src.frame(fd, byte(i))
		err := c.Submit(f)
		f.Release()
		if note(err) {
			return 2, first
		}
		out, err := c.Next(t.Context())
		if note(err) {
			return 2, first
		}
		out.Release()
	}
	return 2, first
}

func TestFinderTellsConvertersFromOthers(t *testing.T) {
	raw := []fakevb2.Format{{Code: code("NV12"), BytesPerPixel: 1.5}, {Code: code("NM12"), Split: 2, BytesPerPixel: 1}}
	node := func(n int, caps uint32, in, out []fakevb2.Format) *fakevb2.Node {
		return &fakevb2.Node{
			Path: "/dev/video" + string(rune('0'+n)), Driver: "d" + string(rune('0'+n)), Caps: caps, Type: uapi.BufTypeVideoCaptureMplane,
			Converter: &fakevb2.Converter{In: in, Out: out},
		}
	}
	coded := func(s string) []fakevb2.Format { return []fakevb2.Format{{Code: code(s)}} }
	const m2m = uapi.CapVideoM2MMplane | uapi.CapStreaming
	k := fakevb2.New(
		node(0, m2m, raw, raw),
		node(1, m2m, coded("MJPG"), raw),
		node(2, m2m, coded("JPEG"), raw),
		node(3, m2m, append(coded("H264"), coded("MJPG")...), raw), // a decoder of video knows JPEG too
		node(4, m2m, coded("H264"), raw),                           // and one does not
		node(5, m2m, raw, coded("H264")),                           // an encoder
		node(6, m2m, raw, coded("JPEG")),                           // an encoder of JPEG
		node(7, uapi.CapVideoCaptureMplane|uapi.CapStreaming, nil, raw),
		node(8, m2m, []fakevb2.Format{{Code: code("BA81")}}, raw), // a sensor's pictures only
	)
	f := finder(k, "video0", "video1", "video2", "video3", "video4", "video5", "video6", "video7", "video8", "v4l-subdev0")
	names := func(list []*Device, err error) (names []string) {
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range list {
			names = append(names, d.Name())
		}
		return names
	}
	if got := names(f.Scalers()); !slices.Equal(got, []string{"v4l2:d0"}) {
		t.Errorf("scalers: %v", got)
	}
	if got := names(f.Decoders()); !slices.Equal(got, []string{"v4l2:d1", "v4l2:d2", "v4l2:d3"}) {
		t.Errorf("decoders: %v", got)
	}
	nothingLeft(t, k, 0)
}

func TestNodeThatCannotBeAskedHidesNoOther(t *testing.T) {
	locked := scalerNode()
	locked.Path, locked.Locked = "/dev/video3", true
	k := fakevb2.New(locked, scalerNode())
	list, err := finder(k, "video12", "video3", "video4").Scalers() // video4 has just gone
	if !errors.Is(err, unix.EACCES) || len(list) != 1 || list[0].Path() != "/dev/video12" || list[0].Card() != "pxp" {
		t.Errorf("%v, %v", list, err)
	}
	if list, err := (Finder{Root: fstest.MapFS{}, Sys: k}).Scalers(); err != nil || len(list) != 0 {
		t.Errorf("without a video driver: %v, %v", list, err)
	}
}

func TestNodesThatAreKnownAreNotOpenedAgain(t *testing.T) {
	k := fakevb2.New(webcamNode(t), scalerNode())
	f := finder(k, "video0", "video12")
	look := func(f Finder) (opened int) {
		t.Helper()
		before := len(k.Calls())
		if list, err := f.Scalers(); err != nil || len(list) != 1 || list[0].Path() != "/dev/video12" {
			t.Errorf("%v, %v", list, err)
		}
		for _, call := range k.Calls()[before:] {
			if call == "open" {
				opened++
			}
		}
		return opened
	}
	if n := look(f); n != 2 {
		t.Errorf("%d nodes were opened at the first look", n)
	}
	if n := look(f); n != 0 {
		t.Errorf("%d nodes were opened at the second look", n)
	}
	f.Root.(fstest.MapFS)[classDir+"/video12/dev"].Sys = &syscall.Stat_t{Ino: 8} // plugged in anew
	if n := look(f); n != 1 {
		t.Errorf("%d nodes were opened for one that is new", n)
	}
	f.Known = nil
	if n := look(f); n != 2 {
		t.Errorf("%d nodes were opened without memory", n)
	}
	nothingLeft(t, k, 0)
}

// A device that hangs is not waited for by whoever looks for others.
func TestADeviceThatHangsHidesNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, other := scalerNode(), scalerNode()
		n.LocksOpen, other.Path = true, "/dev/video13"
		k := fakevb2.New(n, other)
		f := finder(k, "video12")
		list, err := f.Scalers()
		if err != nil || len(list) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
		c := open(t, list[0], large, small)
		k.Do(func() { n.HangStreamOff = true })
		if err := c.Close(); !errors.Is(err, ErrStuck) {
			t.Errorf("close: %v", err)
		}
		f.Root.(fstest.MapFS)[classDir+"/video13/dev"] = &fstest.MapFile{Sys: &syscall.Stat_t{Ino: 9}}
		list, err = f.Scalers()
		if err != nil || len(list) != 2 {
			t.Fatalf("%v, %v", list, err)
		}
		if _, err := list[0].Open(large, small); !errors.Is(err, ErrStuck) {
			t.Errorf("open while it hangs: %v", err)
		}
		k.Do(func() { n.HangStreamOff = false })
		for _, d := range list {
			end := open(t, d, large, small)
			if err := end.Close(); err != nil {
				t.Error(err)
			}
		}
		nothingLeft(t, k, 0)
	})
}

// Pictures in memory of a buffer for each plane.
func TestSplitMemory(t *testing.T) {
	n := scalerNode()
	n.Caps, n.Type = uapi.CapVideoM2MMplane|uapi.CapStreaming, uapi.BufTypeVideoCaptureMplane
	n.Converter.In = []fakevb2.Format{{Code: code("NM12"), Split: 2, BytesPerPixel: 1}}
	n.Converter.Out = n.Converter.In
	k := fakevb2.New(n)
	d := find(t, k)
	l, err := d.Layout(large)
	if err != nil || l.Buffers() != 2 || l.Planes[1] != (hw.PlaneLayout{Buffer: 1, Stride: 640}) {
		t.Fatalf("%+v, %v", l, err)
	}
	c := open(t, d, large, small)
	fds := [2]int{k.DMABuf(l.Sizes[0]), k.DMABuf(l.Sizes[1])}
	f := hw.NewFrame(nil)
	f.Mode = hw.Mode{Pixel: hw.NV12, Width: 640, Height: 360}
	for i, fd := range fds {
		f.Planes = append(f.Planes, hw.Plane{Data: k.Look(fd), Stride: 640, FD: fd, Offset: l.Planes[i].Offset})
	}
	f.Planes[0].Data[3] = 9
	f.Lend()
	if err := c.Submit(f); err != nil {
		t.Fatal(err)
	}
	f.Release()
	out := take(t, c)
	if len(out.Planes) != 2 || out.Planes[0].FD == out.Planes[1].FD || out.Planes[1].FD < 0 || out.Planes[1].Data[0] != 9 {
		t.Errorf("%+v", out.Planes)
	}
	out.Release()
	if st := c.Stats(); st.CopiedBytes != 0 {
		t.Errorf("%+v", st)
	}
	shut(t, c)
	nothingLeft(t, k, 2)
}

var (
	_ hw.Importer = (*Device)(nil)
	_ v4l2.Sys    = (*fakevb2.Kernel)(nil)
)

// Cameras may stamp two pictures alike, or go back; each is still matched with
// what is made of it, and keeps its own stamp.
func TestStampsNeedNotRise(t *testing.T) {
	k := fakevb2.New(scalerNode())
	d := find(t, k)
	src := shareable(t, k, d, large)
	c := open(t, d, large, small)
	for i, stamp := range []time.Duration{time.Second, time.Second, time.Second + 300, time.Millisecond, 0} {
		f := src.frame(src.fds[i%4], byte(i))
		f.Stamp = stamp
		if err := c.Submit(f); err != nil {
			t.Fatal(err)
		}
		f.Release()
		out := take(t, c)
		if out.Stamp != stamp || out.Seq != uint32(i+1) || out.Planes[0].Data[0] != byte(16*i) {
			t.Errorf("picture %d: number %d, stamp %v, want %v", i, out.Seq, out.Stamp, stamp)
		}
		out.Release()
	}
	if st := c.Stats(); st != (Stats{Submitted: 5, Converted: 5}) {
		t.Errorf("%+v", st)
	}
	shut(t, c)
	nothingLeft(t, k, 4)
}

func TestSubmitNextReleaseAndCloseMayRunAtOnce(t *testing.T) {
	k := fakevb2.New(scalerNode())
	d := find(t, k)
	for range 20 {
		src := shareable(t, k, d, small)
		c := open(t, d, small, small)
		var busy sync.WaitGroup
		busy.Go(func() {
			for i := 0; ; i++ {
				f := hw.NewFrame(nil).Lend()
				f.Mode = hw.Mode{Pixel: hw.NV12, Width: 320, Height: 180}
				f.Stamp = time.Duration(i) * time.Millisecond
				for p := range 2 {
					f.Planes = append(f.Planes, hw.Plane{FD: src.fds[i%4], Offset: src.layout.Planes[p].Offset, Stride: src.layout.Planes[p].Stride})
				}
				err := c.Submit(f)
				f.Release()
				if err != nil && !errors.Is(err, hw.ErrBusy) {
					return
				}
				runtime.Gosched()
			}
		})
		came := make(chan *hw.Frame, wantOutputs)
		busy.Go(func() {
			defer close(came)
			for {
				f, err := c.Next(context.WithoutCancel(t.Context()))
				if err != nil {
					return
				}
				came <- f
			}
		})
		var last time.Duration
		for range 30 {
			f := <-came
			if f.Stamp < last {
				t.Errorf("stamp %v after %v", f.Stamp, last)
			}
			last = f.Stamp
			f.Release()
		}
		busy.Go(func() { shut(t, c) })
		for f := range came {
			f.Release()
		}
		busy.Wait()
		for _, fd := range src.fds {
			if err := k.Close(fd); err != nil {
				t.Error(err)
			}
		}
	}
	nothingLeft(t, k, 0)
}
