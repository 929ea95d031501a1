package hwtest

import (
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
)

// Accesses stands for the kernel of dma-bufs and watches how the CPU touches
// frames that lie in them. It may be used from any goroutine.
type Accesses struct {
	mu    sync.Mutex
	begun map[hw.Access]int
	open  int
}

// Share has the mapped planes of f lie in one dma-buf, and returns f.
func (a *Accesses) Share(f *hw.Frame) *hw.Frame {
	b := hw.NewDMABuf(-1, a)
	for i := range f.Planes {
		f.Planes[i].Shared = b
	}
	return f
}

// Ioctl implements [hw.Ioctler].
func (a *Accesses) Ioctl(_ int, req uintptr, arg unsafe.Pointer) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	flags := *(*uint64)(arg)
	switch {
	case req != hw.SyncDMABuf:
		return unix.ENOTTY
	case flags&hw.SyncEnd != 0:
		a.open--
		return nil
	}
	if a.begun == nil {
		a.begun = map[hw.Access]int{}
	}
	a.begun[hw.Access(flags)]++
	a.open++
	return nil
}

// Check fails the test unless the CPU has accessed dma-bufs so many times in
// this way since the last Check, in no other, and has ended all that.
func (a *Accesses) Check(tb testing.TB, kind hw.Access, want int) {
	tb.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	total := 0
	for _, n := range a.begun {
		total += n
	}
	if a.begun[kind] != want || total != want || a.open != 0 {
		tb.Errorf("%d accesses of kind %d of %d in all, %d of them without an end; want %d", a.begun[kind], kind, total, a.open, want)
	}
	a.begun = nil
}
