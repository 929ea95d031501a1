package alsa

import (
	"errors"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// system is the kernel as this package sees it: the seam at which tests put a
// card that fails to order. Errors are unix.Errno.
type system interface {
	open(path string) (fd int, err error)
	close(fd int) error
	ioctl(fd int, request uint, arg unsafe.Pointer) error
	// poll waits until fd is readable or in trouble, bell has rung, or the
	// time is over; zero fd events and no ring mean the last.
	poll(fd, bell int, timeout time.Duration) (events int16, rung bool, err error)
	newBell() (fd int, err error)
	ring(bell int)
	// unring makes a bell that has rung silent again.
	unring(bell int)
}

type kernel struct{}

func (kernel) open(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

func (kernel) close(fd int) error { return unix.Close(fd) }

func (kernel) ioctl(fd int, request uint, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(request), uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

func (kernel) poll(fd, bell int, timeout time.Duration) (events int16, rung bool, err error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(bell), Events: unix.POLLIN}}
	limit := unix.NsecToTimespec(int64(timeout))
	_, err = unix.Ppoll(fds, &limit, nil)
	if errors.Is(err, unix.EINTR) {
		return 0, true, nil // as good as a ring: the caller looks and comes back
	}
	return fds[0].Revents, fds[1].Revents != 0, err
}

func (kernel) newBell() (int, error) {
	return unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
}

func (kernel) ring(bell int) {
	one := [8]byte{1, 1, 1, 1, 1, 1, 1, 1}
	_, _ = unix.Write(bell, one[:]) // full means that it rings already
}

func (kernel) unring(bell int) {
	var count [8]byte
	_, _ = unix.Read(bell, count[:]) // empty means that it is silent already
}
