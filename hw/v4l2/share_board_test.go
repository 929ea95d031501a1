//go:build board

package v4l2_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/uapi"
)

const encoderPath = "/dev/v4l/by-path/platform-vh264enc.0-video-index0"

// planar is small in a format that the encoder takes as well.
var planar = hw.Mode{Pixel: hw.NV12, Width: small.Width, Height: small.Height, FPS: small.FPS}

// share opens the camera with a plan and expects that it comes to be.
func share(t *testing.T, c hw.Camera, want hw.Mode, plan hw.BufferPlan) hw.SharedStream {
	t.Helper()
	s, err := c.(hw.SharingCamera).OpenShared(t.Context(), want, func(src hw.BufferSource) hw.BufferPlan {
		if src.Driver != "vivid" || !src.Exports || !src.Imports || src.Layout.Buffers() != 1 || src.Mode != granted(want) {
			t.Errorf("the camera says %+v", src)
		}
		return plan
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if got := s.Plan(); got != plan {
		t.Errorf("pictures are shared by %s, want %s", got, plan)
	}
	return s
}

// shareMany captures n frames of which each plane must lie in a dma-buf, and
// hands each to use.
func shareMany(t *testing.T, s hw.SharedStream, n int, use func(*hw.Frame)) {
	t.Helper()
	before := time.Duration(0)
	for i := range n {
		f := next(t, s)
		if f.Stamp <= before {
			t.Errorf("frame %d: stamp %v after %v", i, f.Stamp, before)
		}
		before = f.Stamp
		for p, plane := range f.Planes {
			if plane.FD < 0 || flat(plane.Data) {
				t.Fatalf("frame %d, plane %d: dma-buf %d, one colour: %v", i, p, plane.FD, flat(plane.Data))
			}
		}
		use(f)
		f.Release()
	}
	if got := s.Stats(); got.Frames != uint64(n) || got.Damaged != 0 {
		t.Errorf("%+v", got)
	}
}

func TestBoardExportsWhatItCaptures(t *testing.T) {
	s := share(t, load(t, ""), planar, hw.BufferPlan{Way: hw.Export, Reason: "a test reads it"})
	seen := map[int]bool{}
	shareMany(t, s, 60, func(f *hw.Frame) {
		seen[f.Planes[0].FD] = true
		size := f.Planes[1].Offset + len(f.Planes[1].Data)
		theirs, err := unix.Mmap(f.Planes[0].FD, 0, size, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Munmap(theirs)
		for i, p := range f.Planes {
			if p.FD != f.Planes[0].FD || !bytes.Equal(theirs[p.Offset:p.Offset+len(p.Data)], p.Data) {
				t.Errorf("frame %d: others see another plane %d", f.Seq, i)
			}
		}
	})
	if len(seen) < 2 || len(seen) > 6 {
		t.Errorf("%d dma-bufs, want one a buffer and always the same", len(seen))
	}
	held := next(t, s)
	was := string(held.Planes[0].Data)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if string(held.Planes[0].Data) != was {
		t.Error("a held frame has changed")
	}
	fd := held.Planes[0].FD
	if _, err := unix.Seek(fd, 0, unix.SEEK_END); err != nil {
		t.Errorf("the dma-buf of a held frame: %v", err)
	}
	held.Release()
	if _, err := unix.Seek(fd, 0, unix.SEEK_END); !errors.Is(err, unix.EBADF) {
		t.Errorf("the dma-buf of a released frame: %v", err)
	}
}

func TestBoardWritesIntoTheEncodersMemory(t *testing.T) {
	e := openEncoder(t, planar)
	s := share(t, load(t, ""), planar, hw.BufferPlan{Way: hw.Import, Reason: "a test reads it", Pool: e.pool})
	encodeAll(t, e, s)
}

func TestBoardExportsToTheEncoder(t *testing.T) {
	e := openEncoder(t, planar)
	s := share(t, load(t, ""), planar, hw.BufferPlan{Way: hw.Export, Reason: "a test reads it"})
	encodeAll(t, e, s)
}

// encodeAll has 60 frames coded without a copy, and compares their stamps.
func encodeAll(t *testing.T, e *encoder, s hw.SharedStream) {
	t.Helper()
	var in []time.Duration
	shareMany(t, s, 60, func(f *hw.Frame) {
		in = append(in, f.Stamp.Truncate(time.Microsecond))
		e.encode(t, f)
	})
	if !slices.Equal(e.out, in) {
		t.Errorf("%d units with stamps %v, want %v", len(e.out), e.out, in)
	}
	t.Logf("%d frames, %d bytes of H.264", len(e.out), e.bytes)
}

// An encoder codes frames that lie in dma-bufs, each before the next comes.
// Its pool is another context's input memory.
type encoder struct {
	dev      *v4l2.Device
	raw, es  *v4l2.Queue
	pool     *pool
	out      []time.Duration
	bytes    int
	previous map[int]int // index of a dma-buf
}

type pool struct {
	layout hw.Layout
	bufs   []hw.Buffer
}

func (p *pool) Layout() hw.Layout    { return p.layout }
func (p *pool) Buffers() []hw.Buffer { return p.bufs }
func (*pool) Close() error           { return nil }

func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// openContext opens the encoder and sets both formats; it returns the size of
// an input picture.
func openContext(t *testing.T, m hw.Mode) (*v4l2.Device, int) {
	t.Helper()
	d := must[*v4l2.Device](t)(v4l2.OpenDevice(v4l2.Kernel{}, encoderPath))
	t.Cleanup(func() { d.Close() })
	size := 0
	for typ, pixel := range map[uint32]hw.PixelFormat{uapi.BufTypeVideoCaptureMplane: hw.H264, uapi.BufTypeVideoOutputMplane: m.Pixel} {
		f := uapi.Format{Type: typ}
		p := f.PixMP()
		p.PixelFormat, p.Width, p.Height, p.NumPlanes = uint32(pixel), uint32(m.Width), uint32(m.Height), 1
		if err := v4l2.Ioctl(d, "set the format of", uapi.SetFmt, &f); err != nil {
			t.Fatal(err)
		}
		if pixel == m.Pixel {
			size = int(p.Planes[0].SizeImage)
			if p.Planes[0].BytesPerLine != uint32(m.Width) || int(p.Height) != m.Height {
				t.Fatalf("the encoder takes lines of %d bytes, %d of them", p.Planes[0].BytesPerLine, p.Height)
			}
		}
	}
	return d, size
}

func openEncoder(t *testing.T, m hw.Mode) *encoder {
	t.Helper()
	other, size := openContext(t, m)
	mem := must[*v4l2.Queue](t)(v4l2.NewQueue(other, uapi.BufTypeVideoOutputMplane, 6, 1))
	t.Cleanup(func() { mem.Discard() })
	p := &pool{layout: hw.Layout{Pixel: m.Pixel, Width: m.Width, Height: m.Height, Sizes: [3]int{size}}}
	p.layout.Planes = [3]hw.PlaneLayout{{Stride: m.Width}, {Offset: m.Width * m.Height, Stride: m.Width}}
	for i := range mem.Len() {
		fds := must[[]int](t)(mem.Export(i))
		t.Cleanup(func() { unix.Close(fds[0]) })
		p.bufs = append(p.bufs, hw.Buffer{FDs: [3]int{fds[0], -1, -1}, Mem: [3][]byte{mem.Memory(i)[0]}})
	}
	d, _ := openContext(t, m)
	e := &encoder{dev: d, pool: p, previous: map[int]int{}}
	e.raw = must[*v4l2.Queue](t)(v4l2.NewImportQueue(d, uapi.BufTypeVideoOutputMplane, 6, 1))
	e.es = must[*v4l2.Queue](t)(v4l2.NewQueue(d, uapi.BufTypeVideoCaptureMplane, 2, 1))
	t.Cleanup(func() { e.es.Discard() })
	t.Cleanup(func() { e.raw.Free() })
	for i := range e.es.Len() {
		if err := e.es.Enqueue(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(e.raw.StreamOn(), e.es.StreamOn()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { errors.Join(e.raw.StreamOff(), e.es.StreamOff()) })
	return e
}

// encode waits until the picture is coded and the encoder has let go of it.
func (e *encoder) encode(t *testing.T, f *hw.Frame) {
	t.Helper()
	fd := f.Planes[0].FD
	index, known := e.previous[fd]
	if !known {
		index = len(e.previous)
		e.previous[fd] = index
	}
	size := int(must[int64](t)(v4l2.Kernel{}.Size(fd)))
	used := f.Planes[1].Offset + len(f.Planes[1].Data)
	if err := e.raw.EnqueueData(index, f.Stamp, []v4l2.PlaneData{{FD: fd, Length: size, Used: used}}); err != nil {
		t.Fatal(err)
	}
	unit := e.await(t, e.es)
	e.out = append(e.out, unit.Stamp)
	e.bytes += unit.Used[0]
	if err := e.es.Enqueue(unit.Index); err != nil {
		t.Fatal(err)
	}
	if back := e.await(t, e.raw); back.Index != index {
		t.Errorf("buffer %d came back for %d", back.Index, index)
	}
}

func (e *encoder) await(t *testing.T, q *v4l2.Queue) v4l2.Done {
	t.Helper()
	for {
		d, err := q.Dequeue()
		if err == nil {
			return d
		}
		if !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
		if _, err := e.dev.Wait(t.Context(), unix.POLLIN|unix.POLLOUT); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBoardCopiesWhatCannotBeShared(t *testing.T) {
	e := openEncoder(t, planar)
	larger := planar
	larger.Width, larger.Height = 640, 360
	s, err := load(t, "").OpenShared(t.Context(), larger, func(hw.BufferSource) hw.BufferPlan {
		return hw.BufferPlan{Way: hw.Import, Pool: e.pool}
	})
	if err != nil {
		t.Fatal(err)
	}
	if p := s.Plan(); p.Way != hw.Copy || !strings.Contains(p.Reason, "640x360") {
		t.Errorf("the plan is %s", p)
	}
	capture(t, s, 5)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
