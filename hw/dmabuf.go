package hw

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A DMABuf is memory that devices share and the CPU has mapped. Where the CPU's
// cache does not follow what devices do, it reads stale lines and devices read
// what it has not yet written back: so each access of the CPU stands between
// [BeginAccess] and [EndAccess]. Who only hands the descriptor on needs neither.
//
// It does not own the descriptor. It may be used from any goroutine.
type DMABuf struct {
	fd     int
	kernel Ioctler
}

// An Ioctler makes system calls on descriptors: v4l2.Sys is one. Errors are bare
// [unix.Errno] values.
type Ioctler interface {
	Ioctl(fd int, req uintptr, arg unsafe.Pointer) error
}

// NewDMABuf describes the dma-buf behind fd, which must stay open for as long as
// the memory is in use. Calls go to kernel.
func NewDMABuf(fd int, kernel Ioctler) *DMABuf { return &DMABuf{fd: fd, kernel: kernel} }

// An Access is what the CPU does to memory; both may be joined by |.
type Access uint64

// The kinds of access (DMA_BUF_SYNC_READ, DMA_BUF_SYNC_WRITE).
const (
	Reading Access = 1 << iota
	Writing
)

// SyncDMABuf is the number of DMA_BUF_IOCTL_SYNC (linux/dma-buf.h). Its argument
// is an [Access] in 64 bits, with SyncEnd where the access ends.
const (
	SyncDMABuf = 0x40086200
	SyncEnd    = 1 << 2
)

// BeginAccess makes what devices have written to the planes visible to the CPU,
// or what it is about to write possible. It costs a system call for each dma-buf
// that is mapped, and nothing where no plane has a [Plane.Shared].
func BeginAccess(planes []Plane, a Access) { access(planes, uint64(a)) }

// EndAccess ends what BeginAccess began with the same arguments, and makes what
// the CPU has written visible to devices.
func EndAccess(planes []Plane, a Access) { access(planes, uint64(a)|SyncEnd) }

func access(planes []Plane, flags uint64) {
	for i, p := range planes {
		if p.Shared == nil || i > 0 && planes[i-1].Shared == p.Shared {
			continue
		}
		p.Shared.sync(flags)
	}
}

// attempts bounds how often a call is made that a signal has interrupted.
const attempts = 100

// sync has nobody to complain to: an exporter that does not know the call has
// memory that needs none, and where it fails otherwise a picture is stale.
func (b *DMABuf) sync(flags uint64) {
	for range attempts {
		err := b.kernel.Ioctl(b.fd, SyncDMABuf, unsafe.Pointer(&flags)) //nolint:gosec // G103: the kernel reads eight bytes during the call
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return
		}
	}
}
