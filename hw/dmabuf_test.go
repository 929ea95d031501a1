package hw_test

import (
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
)

// A kernel of dma-bufs that answers with the errors in its script.
type dmabufs struct {
	script []error
	fds    []int
	flags  []uint64
}

func (d *dmabufs) Ioctl(fd int, req uintptr, arg unsafe.Pointer) error {
	if req != 0x40086200 { // _IOW('b', 0, __u64)
		return unix.ENOTTY
	}
	d.fds, d.flags = append(d.fds, fd), append(d.flags, *(*uint64)(arg))
	if n := len(d.fds); n <= len(d.script) {
		return d.script[n-1]
	}
	return nil
}

func TestAccessTellsTheKernelOncePerDMABuf(t *testing.T) {
	d := &dmabufs{}
	one, two := hw.NewDMABuf(7, d), hw.NewDMABuf(8, d)
	for _, tt := range []struct {
		name   string
		planes []hw.Plane
		fds    []int
	}{
		{"on the heap", []hw.Plane{{FD: -1}, {FD: -1}}, nil},
		{"only a descriptor", []hw.Plane{{FD: 7}}, nil},
		{"both planes in one", []hw.Plane{{Shared: one}, {Shared: one}}, []int{7}},
		{"one each", []hw.Plane{{Shared: one}, {Shared: two}}, []int{7, 8}},
		{"withheld descriptor", []hw.Plane{{Shared: one, FD: -1}}, []int{7}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d.fds, d.flags = nil, nil
			hw.BeginAccess(tt.planes, hw.Reading)
			if !slices.Equal(d.fds, tt.fds) {
				t.Errorf("begun for %d, want %d", d.fds, tt.fds)
			}
			hw.EndAccess(tt.planes, hw.Reading)
			if len(d.fds) != 2*len(tt.fds) {
				t.Errorf("%d calls in all for %d dma-bufs", len(d.fds), len(tt.fds))
			}
		})
	}
}

// The flags are those of linux/dma-buf.h.
func TestAccessFlags(t *testing.T) {
	d := &dmabufs{}
	planes := []hw.Plane{{Shared: hw.NewDMABuf(7, d)}}
	for _, a := range []hw.Access{hw.Reading, hw.Writing, hw.Reading | hw.Writing} {
		hw.BeginAccess(planes, a)
		hw.EndAccess(planes, a)
	}
	if want := []uint64{1, 5, 2, 6, 3, 7}; !slices.Equal(d.flags, want) {
		t.Errorf("got flags %d, want %d", d.flags, want)
	}
}

func TestInterruptedAccessIsTriedAgain(t *testing.T) {
	for _, tt := range []struct {
		name   string
		script []error
		calls  int
	}{
		{"at once", nil, 1},
		{"after signals", []error{unix.EINTR, unix.EAGAIN, unix.EINTR}, 4},
		{"an exporter that knows no such call", []error{unix.ENOTTY}, 1},
		{"no dma-buf", []error{unix.EINVAL}, 1},
		{"for ever", slices.Repeat([]error{unix.EINTR}, 1000), 100},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &dmabufs{script: tt.script}
			hw.BeginAccess([]hw.Plane{{Shared: hw.NewDMABuf(7, d)}}, hw.Reading)
			if len(d.fds) != tt.calls {
				t.Errorf("%d calls, want %d", len(d.fds), tt.calls)
			}
		})
	}
}
