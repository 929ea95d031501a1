package memory

import (
	"bytes"
	"errors"
	"math"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"encoderd.example/hw"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTightLayouts(t *testing.T) {
	for _, c := range []struct {
		pixel              hw.PixelFormat
		width, height      int
		stride, lines, min int
		strides, offsets   [3]int
		size               int
	}{
		{hw.NV12, 1920, 1080, 1, 1, 0, [3]int{1920, 1920}, [3]int{0, 1920 * 1080}, 1920 * 1620},
		{hw.NV12, 1920, 1080, 64, 16, 0, [3]int{1920, 1920}, [3]int{0, 1920 * 1088}, 1920 * 1632},
		{hw.I420, 1296, 972, 64, 1, 0, [3]int{1344, 672, 672}, [3]int{0, 1344 * 972, 1344*972 + 672*486}, 1344 * 1458},
		{hw.I420, 1296, 972, 1, 1, 2048, [3]int{2048, 1024, 1024}, [3]int{0, 2048 * 972, 2048*972 + 1024*486}, 2048 * 1458},
		{hw.I422, 640, 360, 1, 1, 0, [3]int{640, 320, 320}, [3]int{0, 640 * 360, 960 * 360}, 1280 * 360},
		{hw.YUYV, 640, 360, 1, 1, 0, [3]int{1280}, [3]int{}, 1280 * 360},
		{hw.I420, 5, 3, 1, 1, 0, [3]int{6, 3, 3}, [3]int{0, 24, 30}, 36},
	} {
		l, err := Tight(c.pixel, c.width, c.height, c.stride, c.lines, c.min)
		if err != nil {
			t.Errorf("%s %dx%d: %v", c.pixel, c.width, c.height, err)
			continue
		}
		for i, p := range l.Planes {
			if p.Stride != c.strides[i] || p.Offset != c.offsets[i] || p.Buffer != 0 {
				t.Errorf("%s: plane %d is %+v", l, i, p)
			}
		}
		if l.Sizes != [3]int{c.size} {
			t.Errorf("%s: sizes %v, want %d", l, l.Sizes, c.size)
		}
		if needs, err := Needs(l); err != nil || needs[0] > c.size {
			t.Errorf("%s needs %v: %v", l, needs, err)
		}
	}
	for _, bad := range [][2]int{{0, 1}, {1, 0}, {8193, 1}, {1, -1}} {
		if _, err := Tight(hw.NV12, bad[0], bad[1], 1, 1, 0); !errors.Is(err, hw.ErrUnsupported) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestImpossibleLayoutsAreRefused(t *testing.T) {
	good, err := Tight(hw.I420, 64, 36, 1, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*hw.Layout){
		"a size below zero":             func(l *hw.Layout) { l.Sizes[0] = -1 },
		"a huge size":                   func(l *hw.Layout) { l.Sizes[0] = math.MaxInt },
		"no size":                       func(l *hw.Layout) { l.Sizes[0] = 0 },
		"a byte too few":                func(l *hw.Layout) { l.Sizes[0]-- },
		"a hole among the sizes":        func(l *hw.Layout) { l.Sizes[2] = 10 },
		"a buffer without a plane":      func(l *hw.Layout) { l.Sizes[1] = 10 },
		"a plane in no buffer":          func(l *hw.Layout) { l.Planes[2].Buffer = 1 },
		"a plane in buffer -1":          func(l *hw.Layout) { l.Planes[2].Buffer = -1 },
		"an offset below zero":          func(l *hw.Layout) { l.Planes[1].Offset = -1 },
		"an offset that overflows":      func(l *hw.Layout) { l.Planes[1].Offset = math.MaxInt },
		"a stride below a line":         func(l *hw.Layout) { l.Planes[1].Stride = 31 },
		"a stride that overflows":       func(l *hw.Layout) { l.Planes[1].Stride = math.MaxInt },
		"a picture too wide":            func(l *hw.Layout) { l.Width = math.MaxInt },
		"a format that we do not know":  func(l *hw.Layout) { l.Pixel = hw.FourCC("ABCD") },
		"a picture of no height at all": func(l *hw.Layout) { l.Height = 0 },
	} {
		l := good
		spoil(&l)
		if needs, err := Needs(l); !errors.Is(err, hw.ErrUnsupported) {
			t.Errorf("%s: needs %v, %v", name, needs, err)
		}
		if pool, err := NewPool(l, 1); err == nil {
			t.Errorf("%s: made %d buffers", name, len(pool.Buffers()))
		}
	}
}

func TestCopyFollowsTheLines(t *testing.T) {
	const w, h = 34, 18
	for _, pixel := range []hw.PixelFormat{hw.NV12, hw.I420, hw.I422, hw.YUYV} {
		from, err := hw.NewMemoryFrame(hw.Mode{Pixel: pixel, Width: w, Height: h}, nil)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, p := range from.Planes {
			for i := range p.Data {
				p.Data[i] = byte(i*3 + 1)
				n++
			}
		}
		l, err := Tight(pixel, w, h, 128, 8, 0)
		if err != nil {
			t.Fatal(err)
		}
		pool, err := NewPool(l, 1)
		if err != nil {
			t.Fatal(err)
		}
		b := pool.Buffers()[0]
		wide := Planes(l, b)
		back, err := hw.NewMemoryFrame(hw.Mode{Pixel: pixel, Width: w, Height: h}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if a, b := Copy(wide, from.Planes, pixel, w, h), Copy(back.Planes, wide, pixel, w, h); a != n || b != n {
			t.Errorf("%s: %d and %d bytes copied of %d", pixel, a, b, n)
		}
		for i := range back.Planes {
			if !bytes.Equal(back.Planes[i].Data, from.Planes[i].Data) {
				t.Errorf("%s: plane %d differs", pixel, i)
			}
		}
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestMemoryThatCanBeCutShortIsRefused(t *testing.T) {
	open := func(get func() (int, error)) int {
		t.Helper()
		fd, err := get()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	}
	sealed := open(func() (int, error) { return Create("sealed", 4096) })
	if err := unix.Ftruncate(sealed, 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("our own memory can be cut: %v", err)
	}
	if err := Check(sealed, 4096); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		fd   int
		need int
		text string
	}{
		"a byte too few": {sealed, 4097, "4096 bytes"},
		"not sealed": {open(func() (int, error) {
			fd, err := unix.MemfdCreate("open", unix.MFD_ALLOW_SEALING)
			return fd, errors.Join(err, unix.Ftruncate(fd, 8192))
		}), 4096, "F_SEAL_SHRINK"},
		"sealed against growing only": {open(func() (int, error) {
			fd, err := unix.MemfdCreate("grow", unix.MFD_ALLOW_SEALING)
			_, err2 := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW)
			return fd, errors.Join(err, err2)
		}), 0, "F_SEAL_SHRINK"},
		"a file":   {open(func() (int, error) { return unix.Open("/proc/self/exe", unix.O_RDONLY, 0) }), 1, "neither"},
		"a device": {open(func() (int, error) { return unix.Open("/dev/zero", unix.O_RDONLY, 0) }), 1, ""},
		"nothing":  {-1, 1, "look at"},
	} {
		if err := Check(c.fd, c.need); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %q", name, err, c.text)
		}
	}
	file, err := os.CreateTemp(t.TempDir(), "picture")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := errors.Join(file.Truncate(8192), Check(int(file.Fd()), 4096)); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("a file of the disk: %v", err)
	}
}

func TestIdentityIsThatOfTheMemory(t *testing.T) {
	a, err := Create("a", 4096)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(a)
	b, err := Create("b", 4096)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(b)
	again, err := unix.Dup(a)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(again)
	var ids []Identity
	for _, fd := range []int{a, b, again} {
		id, err := Identify(fd)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if ids[0] != ids[2] || ids[0] == ids[1] {
		t.Errorf("identities %v", ids)
	}
}

func TestAdoptClosesWhatItRefuses(t *testing.T) {
	l, err := Tight(hw.NV12, 64, 36, 1, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	count := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := count()
	var fds []int
	for _, size := range []int{1 << 16, 1 << 16, 100, 1 << 16} { // the third is too short
		fd, err := Create("adopted", size)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	if _, err := Adopt(l, fds, true); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("got %v", err)
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// Where the kernel has udmabuf, memory becomes dma-bufs with the same content;
// where it has not, everything stays as it is.
func TestShareKeepsTheMemory(t *testing.T) {
	l, err := Tight(hw.NV12, 64, 36, 1, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := NewPool(l, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	shared := pool.Share()
	t.Logf("dma-bufs: %t", shared)
	for i, b := range pool.Buffers() {
		if IsDMABuf(b.FDs[0]) != shared {
			t.Errorf("buffer %d: dma-buf %t", i, !shared)
		}
		if err := Check(b.FDs[0], l.Sizes[0]); err != nil {
			t.Error(err)
		}
		mem, err := Map(b.FDs[0], l.Sizes[0], false)
		if err != nil {
			t.Fatal(err)
		}
		if (b.Shared[0] != nil) != shared {
			t.Errorf("buffer %d: a dma-buf for those who touch it: %t", i, !shared)
		}
		planes := Planes(l, b)
		hw.BeginAccess(planes, hw.Writing)
		b.Mem[0][7] = byte(i + 1)
		hw.EndAccess(planes, hw.Writing)
		if mem[7] != byte(i+1) {
			t.Errorf("buffer %d: %d is read where %d was written", i, mem[7], i+1)
		}
		if err := Unmap(mem); err != nil {
			t.Error(err)
		}
	}
}
