// Package memory makes, checks and maps the picture memory that processes
// share: sealed memfds and dma-bufs.
//
// A mapping of memory that somebody else can cut short is a trap: touching
// what is no longer there kills the process (SIGBUS). So [Check] accepts only
// dma-bufs, whose size never changes, and memfds that are sealed against
// shrinking, and looks at nothing but what the kernel says of a descriptor.
package memory

import (
	"errors"
	"fmt"
	"io"
	"unsafe"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
)

// Create makes a memfd of size bytes that can neither shrink nor grow, for the
// caller to close.
func Create(name string, size int) (int, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, fmt.Errorf("make shared memory: %w", err)
	}
	err = unix.Ftruncate(fd, int64(size))
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW)
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("make %d bytes of shared memory: %w", size, err), unix.Close(fd))
	}
	return fd, nil
}

// Map maps the first size bytes of a descriptor that has passed Check.
func Map(fd, size int, write bool) ([]byte, error) {
	prot := unix.PROT_READ
	if write {
		prot |= unix.PROT_WRITE
	}
	mem, err := unix.Mmap(fd, 0, size, prot, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of shared memory: %w", size, err)
	}
	return mem, nil
}

// Unmap ends a mapping.
func Unmap(mem []byte) error {
	if mem == nil {
		return nil
	}
	return unix.Munmap(mem)
}

// IsDMABuf reports whether fd is a dma-buf.
func IsDMABuf(fd int) bool {
	var s unix.Statfs_t
	return unix.Fstatfs(fd, &s) == nil && s.Type == unix.DMA_BUF_MAGIC
}

// Check says whether fd can be mapped safely and has at least need bytes. It
// fails with ErrUnsupported and the reason.
func Check(fd, need int) error {
	var s unix.Statfs_t
	if err := unix.Fstatfs(fd, &s); err != nil {
		return fmt.Errorf("look at shared memory: %w", err)
	}
	if s.Type != unix.DMA_BUF_MAGIC {
		if err := checkSeals(fd, s.Type == unix.TMPFS_MAGIC); err != nil {
			return err
		}
	}
	size, err := Size(fd)
	if err != nil {
		return err
	}
	if size < int64(need) {
		return fmt.Errorf("shared memory has %d bytes, the picture needs %d: %w", size, need, hw.ErrUnsupported)
	}
	return nil
}

func checkSeals(fd int, ordinary bool) error {
	// Huge pages run out when they are touched, not when they are mapped.
	if !ordinary {
		return fmt.Errorf("shared memory is neither a dma-buf nor a memfd: %w", hw.ErrUnsupported)
	}
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil || seals&unix.F_SEAL_SHRINK == 0 {
		return fmt.Errorf("shared memory is not sealed against shrinking (F_SEAL_SHRINK): %w", hw.ErrUnsupported)
	}
	return nil
}

// Size returns how many bytes are behind fd.
func Size(fd int) (int64, error) {
	size, err := unix.Seek(fd, 0, io.SeekEnd)
	if err != nil {
		return 0, fmt.Errorf("measure shared memory: %w", err)
	}
	return size, nil
}

// An Identity tells one piece of shared memory from every other that exists.
type Identity struct{ device, inode uint64 }

// Identify returns the identity of what is behind fd, whatever its number.
func Identify(fd int) (Identity, error) {
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil {
		return Identity{}, fmt.Errorf("look at shared memory: %w", err)
	}
	return Identity{s.Dev, s.Ino}, nil
}

// calls makes the calls of the running kernel; it implements [hw.Ioctler].
type calls struct{}

func (calls) Ioctl(fd int, req uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// shared describes fd to those who touch its memory: a memfd needs no care.
func shared(fd int) *hw.DMABuf {
	if !IsDMABuf(fd) {
		return nil
	}
	return hw.NewDMABuf(fd, calls{})
}

// udmabufCreate is struct udmabuf_create (linux/udmabuf.h).
type udmabufCreate struct {
	memfd, flags uint32
	offset, size uint64
}

const (
	udmabufIoctl   = 0x40187542 // UDMABUF_CREATE
	udmabufCloexec = 1
)

// DMABuf makes a dma-buf of a memfd by the kernel's udmabuf device, so that
// devices that do not need contiguous memory can use it. size is a multiple of
// the page. It fails with ErrMissing where the kernel has no such device, or
// this process may not use it.
func DMABuf(memfd, size int) (int, error) {
	dev, err := unix.Open("/dev/udmabuf", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/udmabuf: %w: %w", hw.ErrMissing, err)
	}
	defer func() { _ = unix.Close(dev) }()
	req := udmabufCreate{memfd: uint32(memfd), flags: udmabufCloexec, size: uint64(size)}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(dev), udmabufIoctl, uintptr(unsafe.Pointer(&req))) //nolint:gosec // G103: the kernel reads req during the call
	if errno != 0 {
		return -1, fmt.Errorf("make a dma-buf of shared memory: %w", errno)
	}
	return int(fd), nil
}
