package v4l2_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/fakevb2"
)

// A heap is a pool of dma-bufs that no camera has made.
type heap struct {
	k      *fakevb2.Kernel
	layout hw.Layout
	bufs   []hw.Buffer
}

// newHeap makes count buffers, mapped or not.
func newHeap(t *testing.T, k *fakevb2.Kernel, l hw.Layout, count int, mapped bool) *heap {
	t.Helper()
	h := &heap{k: k, layout: l}
	for range count {
		b := hw.Buffer{FDs: [3]int{-1, -1, -1}}
		for i := range l.Buffers() {
			b.FDs[i] = k.DMABuf(l.Sizes[i])
			if !mapped {
				continue
			}
			mem, err := k.Mmap(b.FDs[i], 0, l.Sizes[i])
			if err != nil {
				t.Fatal(err)
			}
			b.Mem[i], b.Shared[i] = mem, hw.NewDMABuf(b.FDs[i], k)
		}
		h.bufs = append(h.bufs, b)
	}
	return h
}

func (h *heap) Layout() hw.Layout    { return h.layout }
func (h *heap) Buffers() []hw.Buffer { return h.bufs }

func (h *heap) Close() error {
	var errs []error
	for _, b := range h.bufs {
		for i, fd := range b.FDs {
			if b.Mem[i] != nil {
				errs = append(errs, h.k.Munmap(b.Mem[i]))
			}
			if fd >= 0 {
				errs = append(errs, h.k.Close(fd))
			}
		}
	}
	return errors.Join(errs...)
}

// nv12 is what NV12 pictures of the bridge, 200 pixels wide, look like.
func nv12(height, stride int) hw.Layout {
	return hw.Layout{
		Pixel: hw.NV12, Width: 200, Height: height,
		Planes: [3]hw.PlaneLayout{{Stride: stride}, {Offset: stride * height, Stride: stride}},
		Sizes:  [3]int{stride * height * 3 / 2},
	}
}

// openShared starts a camera that shares by plan.
func openShared(t *testing.T, k *fakevb2.Kernel, n *fakevb2.Node, want hw.Mode, plan hw.BufferPlan) hw.SharedStream {
	t.Helper()
	s, err := camera(t, k, n).OpenShared(t.Context(), want, func(hw.BufferSource) hw.BufferPlan { return plan })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var exported = hw.BufferPlan{Way: hw.Export, Reason: "somebody reads it"}

func TestExportedFramesLieInDMABufs(t *testing.T) {
	tests := []struct {
		name string
		want hw.Mode
		bufs []int // of each plane: the same number is the same dma-buf
	}{
		{"one memory", hw.Mode{Pixel: hw.NV12, Width: 200, Height: 100}, []int{0, 0}},
		{"three memories", hw.Mode{Pixel: hw.I420}, []int{0, 1, 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := bridge()
			k := fakevb2.New(n)
			s := openShared(t, k, n, tt.want, exported)
			if s.Plan() != exported {
				t.Errorf("the plan is %s", s.Plan())
			}
			seen := map[int]bool{}
			for i := range 20 {
				f := read(t, s)
				checkFrame(t, f, i)
				for j, p := range f.Planes {
					theirs := k.Look(p.FD)
					if theirs == nil || !bytes.Equal(theirs[p.Offset:p.Offset+len(p.Data)], p.Data) {
						t.Errorf("frame %d: others see something else in plane %d", i, j)
					}
					if (p.FD == f.Planes[0].FD) != (tt.bufs[j] == 0) {
						t.Errorf("plane %d is in dma-buf %d, the first in %d", j, p.FD, f.Planes[0].FD)
					}
				}
				seen[f.Planes[0].FD] = true
				f.Release()
			}
			if len(seen) != 6 {
				t.Errorf("%d dma-bufs for 6 buffers", len(seen))
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			nothingLeft(t, k)
		})
	}
}

func TestExportedFramesOutliveTheirStream(t *testing.T) {
	n := bridge()
	k := fakevb2.New(n)
	s := openShared(t, k, n, hw.Mode{Pixel: hw.I420}, exported)
	held := []*hw.Frame{read(t, s), read(t, s).Retain()}
	read(t, s).Release()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if d, m := k.Left(); d != 6 || m != 6 {
		t.Errorf("%d descriptors and %d mappings left, want those of two frames of three", d, m)
	}
	for i, f := range held {
		checkFrame(t, f, i)
		if k.Look(f.Planes[2].FD) == nil {
			t.Errorf("the dma-buf of frame %d is closed", i)
		}
		f.Release()
	}
	if k.Look(held[1].Planes[0].FD) == nil {
		t.Error("a retained frame lost its dma-buf")
	}
	held[1].Release()
	nothingLeft(t, k)
}

func TestImportedFramesLieInThePool(t *testing.T) {
	for _, mapped := range []bool{true, false} {
		n := bridge()
		k := fakevb2.New(n)
		pool := newHeap(t, k, nv12(100, 200), 5, mapped)
		plan := hw.BufferPlan{Way: hw.Import, Reason: "it is the encoder's", Pool: pool}
		s := openShared(t, k, n, hw.Mode{Pixel: hw.NV12, Width: 200, Height: 100}, plan)
		if s.Plan() != plan {
			t.Errorf("the plan is %s", s.Plan())
		}
		var held []*hw.Frame
		for i := range 20 {
			f := read(t, s)
			at := slices.IndexFunc(pool.bufs, func(b hw.Buffer) bool { return b.FDs[0] == f.Planes[0].FD })
			if at < 0 || f.Planes[1].FD != f.Planes[0].FD || f.Planes[1].Offset != 20000 {
				t.Fatalf("frame %d is not in the pool: %+v", i, f.Planes)
			}
			if mapped && &f.Planes[0].Data[0] != &pool.bufs[at].Mem[0][0] || !mapped && f.Planes[0].Data != nil {
				t.Errorf("frame %d has %d bytes of somewhere", i, len(f.Planes[0].Data))
			}
			if got := k.Look(f.Planes[0].FD)[f.Planes[1].Offset]; got != byte(i) {
				t.Errorf("frame %d: the pool holds %d", i, got)
			}
			if i < 2 {
				held = append(held, f)
			} else {
				f.Release()
			}
		}
		if n := k.Attached(); n != len(pool.bufs) {
			t.Errorf("dma-bufs were attached %d times, want each once", n)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		for i, f := range held {
			if got := k.Look(f.Planes[0].FD)[0]; got != byte(i) {
				t.Errorf("held frame %d holds %d after Close", i, got)
			}
			f.Release()
		}
		if err := pool.Close(); err != nil {
			t.Errorf("the pool was no longer whole: %v", err)
		}
		nothingLeft(t, k)
	}
}

// A driver that does not stop must not hold up those who still read pictures:
// Release returns, and what came back has gone before the driver comes back.
func TestReleaseDoesNotWaitForADriverThatDoesNotStop(t *testing.T) {
	tests := []struct {
		way         hw.Way
		fds, maps   int // of the stream and the pool, while it runs
		fewer, less int // of these with each frame that comes back
	}{
		{hw.Copy, 2, 6, 0, 1},
		{hw.Export, 8, 6, 1, 1},
		{hw.Import, 6, 4, 0, 0},
	}
	for _, tt := range tests {
		t.Run(string(tt.way), func(t *testing.T) {
			n := bridge()
			k := fakevb2.New(n)
			pool, plan := &heap{k: k}, hw.BufferPlan{Way: tt.way}
			if tt.way == hw.Import {
				pool = newHeap(t, k, nv12(100, 200), 4, true)
				plan.Pool = pool
			}
			s := openShared(t, k, n, hw.Mode{Pixel: hw.NV12, Width: 200, Height: 100}, plan)
			first, second, third := read(t, s), read(t, s), read(t, s)
			k.Do(func() { n.HangStreamOff = true })
			closed := make(chan error)
			go func() { closed <- s.Close() }()
			k.AwaitHang()
			first.Release() // the test ends here if it waits for the driver
			second.Release()
			if d, m := k.Left(); d != tt.fds-2*tt.fewer || m != tt.maps-2*tt.less {
				t.Errorf("%d descriptors and %d mappings while the driver hangs", d, m)
			}
			k.Do(func() { n.HangStreamOff = false })
			if err := <-closed; err != nil {
				t.Error(err)
			}
			checkFrame(t, third, 2)
			third.Release()
			if err := pool.Close(); err != nil {
				t.Errorf("the pool is not whole: %v", err)
			}
			nothingLeft(t, k)
		})
	}
}

// Whoever releases meets Close at any point of it.
func TestReleaseBesideClose(t *testing.T) {
	for range 50 {
		n := bridge()
		k := fakevb2.New(n)
		s := openShared(t, k, n, hw.Mode{Pixel: hw.I420}, exported)
		var releasing sync.WaitGroup
		for i := range 5 {
			f := read(t, s)
			releasing.Go(func() {
				checkFrame(t, f, i)
				f.Release()
			})
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		releasing.Wait()
		nothingLeft(t, k)
	}
}

func TestLinesAreMadeAsLongAsThePoolsIfTheDriverCan(t *testing.T) {
	for _, can := range []bool{true, false} {
		n := bridge()
		n.Formats[0].AnyStride = can
		k := fakevb2.New(n)
		pool := newHeap(t, k, nv12(100, 256), 4, true)
		s := openShared(t, k, n, hw.Mode{Pixel: hw.NV12, Width: 200, Height: 100}, hw.BufferPlan{Way: hw.Import, Pool: pool})
		f := read(t, s)
		checkFrame(t, f, 0)
		way, stride := s.Plan().Way, f.Planes[0].Stride
		if can && (way != hw.Import || stride != 256) || !can && (way != hw.Copy || stride != 200) {
			t.Errorf("can: %v: %s, lines of %d bytes", can, s.Plan(), stride)
		}
		if !can && !strings.Contains(s.Plan().Reason, "200 bytes a line") {
			t.Errorf("the reason is %q", s.Plan().Reason)
		}
		f.Release()
		if err := errors.Join(s.Close(), pool.Close()); err != nil {
			t.Error(err)
		}
		nothingLeft(t, k)
	}
}

func TestWhatCannotBeSharedIsCopied(t *testing.T) {
	small := nv12(100, 200)
	small.Sizes[0] = 8192
	tests := []struct {
		name   string
		way    hw.Way
		spoil  func(*fakevb2.Node)
		layout hw.Layout
		count  int
		reason string
	}{
		{"the driver does not export", hw.Export, func(n *fakevb2.Node) { n.Refuse = map[string]unix.Errno{"expbuf": unix.EINVAL} }, hw.Layout{}, 0, "export a buffer"},
		{"the driver knows no export", hw.Export, func(n *fakevb2.Node) { n.Refuse = map[string]unix.Errno{"expbuf": unix.ENOTTY} }, hw.Layout{}, 0, "export a buffer"},
		{"the driver does not import", hw.Import, func(n *fakevb2.Node) { n.NoImport = true }, nv12(100, 200), 4, "make buffers"},
		{"a dma-buf is refused", hw.Import, func(n *fakevb2.Node) { n.RefuseQBuf = 1 }, nv12(100, 200), 4, "queue a dma-buf"},
		{"dma-bufs are too small", hw.Import, func(*fakevb2.Node) {}, small, 4, "too small"},
		{"too few", hw.Import, func(*fakevb2.Node) {}, nv12(100, 200), 1, "less than 2"},
		{"another size", hw.Import, func(*fakevb2.Node) {}, nv12(112, 200), 4, "200x112"},
		{"another format", hw.Import, func(*fakevb2.Node) {}, hw.Layout{Pixel: hw.YUYV, Width: 200, Height: 100, Planes: [3]hw.PlaneLayout{{Stride: 400}}, Sizes: [3]int{40000}}, 4, "YUYV"},
		{"more lines between the planes", hw.Import, func(*fakevb2.Node) {}, hw.Layout{
			Pixel: hw.NV12, Width: 200, Height: 100,
			Planes: [3]hw.PlaneLayout{{Stride: 200}, {Offset: 200 * 112, Stride: 200}}, Sizes: [3]int{200 * 168},
		}, 4, "is needed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := bridge()
			tt.spoil(n)
			k := fakevb2.New(n)
			plan := hw.BufferPlan{Way: tt.way}
			pool := newHeap(t, k, tt.layout, tt.count, true)
			if tt.count > 0 {
				plan.Pool = pool
			}
			s := openShared(t, k, n, hw.Mode{Pixel: hw.NV12, Width: 200, Height: 100}, plan)
			if p := s.Plan(); p.Way != hw.Copy || p.Pool != nil || !strings.Contains(p.Reason, tt.reason) {
				t.Errorf("the plan is %s, want words like %q", p, tt.reason)
			}
			for i := range 10 {
				f := read(t, s)
				checkFrame(t, f, i)
				if f.Planes[0].FD != -1 {
					t.Errorf("frame %d names dma-buf %d", i, f.Planes[0].FD)
				}
				f.Release()
			}
			if err := errors.Join(s.Close(), pool.Close()); err != nil {
				t.Error(err)
			}
			nothingLeft(t, k)
		})
	}
}

func TestWhatACameraSaysOfItsMemory(t *testing.T) {
	noImport := bridge()
	noImport.NoImport = true
	tests := []struct {
		name             string
		node             *fakevb2.Node
		want             hw.Mode
		layout           hw.Layout
		exports, imports bool
	}{
		{"a bridge", bridge(), hw.Mode{Pixel: hw.NV12, Width: 200, Height: 100}, nv12(100, 200), true, true},
		{"one that cannot import", noImport, hw.Mode{Pixel: hw.NV12, Width: 200, Height: 100}, nv12(100, 200), true, false},
		{"a webcam with padded lines", webcam(), hw.Mode{Width: 84, Height: 48}, hw.Layout{
			Pixel: hw.YUYV, Width: 84, Height: 48, Planes: [3]hw.PlaneLayout{{Stride: 192}}, Sizes: [3]int{192 * 48},
		}, false, true},
		{"coded pictures", webcam(), hw.Mode{Pixel: hw.MJPEG}, hw.Layout{}, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := fakevb2.New(tt.node)
			var asked []hw.BufferSource
			s, err := camera(t, k, tt.node).OpenShared(t.Context(), tt.want, func(src hw.BufferSource) hw.BufferPlan {
				asked = append(asked, src)
				return hw.BufferPlan{Way: hw.Copy, Reason: "as it was asked"}
			})
			if err != nil {
				t.Fatal(err)
			}
			if len(asked) != 1 {
				t.Fatalf("asked %d times", len(asked))
			}
			src := asked[0]
			if src.Driver != tt.node.Driver || src.Mode != s.Mode() || src.Layout != tt.layout || src.Exports != tt.exports || src.Imports != tt.imports {
				t.Errorf("%+v", src)
			}
			if (src.Private == "") != tt.exports || s.Plan().Reason != "as it was asked" {
				t.Errorf("%q, %s", src.Private, s.Plan())
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			nothingLeft(t, k)
		})
	}
}

// useShared goes through the life of a camera that shares, whatever fails.
func useShared(c hw.SharingCamera, plan hw.BufferPlan) (way hw.Way, frames int, err error) {
	s, err := c.OpenShared(context.Background(), hw.Mode{Pixel: hw.NV12, Width: 200, Height: 100}, func(hw.BufferSource) hw.BufferPlan { return plan })
	if err != nil {
		return "", 0, err
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
	return s.Plan().Way, frames, err
}

func TestSharedBuffersNeverLeak(t *testing.T) {
	for _, way := range []hw.Way{hw.Export, hw.Import} {
		// life runs with call number at, from OpenShared on, failing or unplugging.
		life := func(at int, spoil func(*fakevb2.Kernel, int)) (calls []string, got hw.Way, frames int, err error) {
			n := bridge()
			k := fakevb2.New(n)
			c := camera(t, k, n)
			plan := hw.BufferPlan{Way: way}
			pool := &heap{k: k}
			if way == hw.Import {
				pool = newHeap(t, k, nv12(100, 200), 4, true)
				plan.Pool = pool
			}
			before := len(k.Calls())
			if at > 0 {
				spoil(k, before+at)
			}
			got, frames, err = useShared(c, plan)
			calls = k.Calls()[before:]
			k.FailAt, k.UnplugAt = 0, 0
			if err := pool.Close(); err != nil {
				t.Errorf("%s, call %d (%s): the pool is not whole: %v", way, at, calls[max(at-1, 0)], err)
			}
			if d, m := k.Left(); d != 0 || m != 0 {
				t.Errorf("%s, call %d (%s): %d descriptors, %d mappings left (%v)", way, at, calls[max(at-1, 0)], d, m, err)
			}
			return calls, got, frames, err
		}
		calls, got, frames, err := life(0, nil)
		if got != way || frames != 8 || err != nil {
			t.Fatalf("%s: %d frames by %s, %v", way, frames, got, err)
		}
		for i, name := range calls {
			for _, errno := range []unix.Errno{unix.EIO, unix.EBUSY, unix.EINVAL, unix.EINTR, unix.ENODEV} {
				life(i+1, func(k *fakevb2.Kernel, at int) { k.FailAt, k.FailWith = at, errno })
			}
			_, _, frames, err := life(i+1, func(k *fakevb2.Kernel, at int) { k.UnplugAt = at })
			if frames < 8 && !errors.Is(err, hw.ErrGone) {
				t.Errorf("%s, unplugged at call %d (%s): %d frames, %v", way, i+1, name, frames, err)
			}
		}
		t.Logf("%s: %d calls, each failed in six ways", way, len(calls))
	}
}
