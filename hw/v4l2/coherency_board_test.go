//go:build board

package v4l2_test

import (
	"slices"
	"sync"
	"testing"
	"unsafe"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
)

// A witness is the kernel, and notes what it says to accesses of the CPU to
// dma-bufs.
type witness struct {
	v4l2.Kernel

	mu    sync.Mutex
	flags []uint64
	errs  []error
}

func (w *witness) Ioctl(fd int, req uintptr, arg unsafe.Pointer) error {
	err := w.Kernel.Ioctl(fd, req, arg)
	if req == hw.SyncDMABuf {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.flags, w.errs = append(w.flags, *(*uint64)(arg)), append(w.errs, err)
	}
	return err
}

// The kernel takes what we tell it of the CPU's accesses, for reading and for
// writing; of pictures that nobody looks at it hears nothing.
func TestBoardKernelIsToldOfAccesses(t *testing.T) {
	path := load(t, "").Path()
	w := &witness{}
	finder := boardFinder
	finder.Sys = w
	found, err := finder.Cameras()
	at := slices.IndexFunc(found, func(c hw.Camera) bool { return c.(*v4l2.Camera).Path() == path })
	if at < 0 {
		t.Fatalf("vivid is not among %d cameras, %v", len(found), err)
	}
	s := share(t, found[at].(*v4l2.Camera).Input(0), planar, hw.BufferPlan{Way: hw.Export, Reason: "a test reads it"})
	for i := range 10 {
		f := next(t, s)
		if i >= 6 {
			for _, a := range []hw.Access{hw.Reading, hw.Writing} {
				hw.BeginAccess(f.Planes, a)
				hw.EndAccess(f.Planes, a)
			}
		}
		f.Release()
	}
	if len(w.flags) != 16 {
		t.Errorf("%d calls for 4 pictures that were looked at twice: %d", len(w.flags), w.flags)
	}
	for i, err := range w.errs {
		if err != nil {
			t.Errorf("call %d, flags %d: %v", i, w.flags[i], err)
		}
	}
}
