package v4l2

import (
	"encoding/binary"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sys is everything that this package asks of the kernel: the seam for
// fakes. Errors are bare [unix.Errno] values. All methods may be called from
// any goroutine.
type Sys interface {
	// Open opens a device node for reading and writing, without blocking, and
	// without Go's poller: its poll starts the driver's read() emulator, after
	// which the node is busy for everybody.
	Open(path string) (fd int, err error)
	// Eventfd returns a new descriptor that Notify makes readable and Drain
	// makes quiet again.
	Eventfd() (fd int, err error)
	Notify(eventfd int) error
	Drain(eventfd int) error
	// Ioctl makes one call; req and arg belong together as in package uapi.
	Ioctl(fd int, req uintptr, arg unsafe.Pointer) error
	// Mmap maps length bytes of a buffer, shared, for reading and writing.
	Mmap(fd int, offset int64, length int) ([]byte, error)
	Munmap(mem []byte) error
	// Poll waits without limit until a descriptor is ready and fills Revents.
	Poll(fds []unix.PollFd) error
	// Size returns how many bytes a dma-buf has.
	Size(fd int) (int64, error)
	Close(fd int) error
}

// Kernel is the Sys of the running kernel.
type Kernel struct{}

// Open implements [Sys].
func (Kernel) Open(path string) (int, error) {
	return unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
}

// Eventfd implements [Sys].
func (Kernel) Eventfd() (int, error) {
	return unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
}

// Notify implements [Sys].
func (Kernel) Notify(eventfd int) error {
	_, err := unix.Write(eventfd, binary.NativeEndian.AppendUint64(nil, 1))
	return err
}

// Drain implements [Sys].
func (Kernel) Drain(eventfd int) error {
	var count [8]byte
	_, err := unix.Read(eventfd, count[:])
	if errors.Is(err, unix.EAGAIN) {
		return nil
	}
	return err
}

// Ioctl implements [Sys].
func (Kernel) Ioctl(fd int, req uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}

// Mmap implements [Sys].
func (Kernel) Mmap(fd int, offset int64, length int) ([]byte, error) {
	return unix.Mmap(fd, offset, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

// Munmap implements [Sys].
func (Kernel) Munmap(mem []byte) error { return unix.Munmap(mem) }

// Poll implements [Sys].
func (Kernel) Poll(fds []unix.PollFd) error {
	_, err := unix.Ppoll(fds, nil, nil)
	return err
}

// Size implements [Sys].
func (Kernel) Size(fd int) (int64, error) { return unix.Seek(fd, 0, unix.SEEK_END) }

// Close implements [Sys].
func (Kernel) Close(fd int) error { return unix.Close(fd) }
