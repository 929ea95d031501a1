package stream

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An attempt hands memory to a TCP socket without waiting, by one system call.
//
// The calls are raw: the runtime does not learn of them. They last for
// microseconds and never sleep for the network, and a goroutine that makes
// some thousand a second pays an eighth less CPU that way than by those that
// the runtime prepares for.
type attempt struct {
	once  func(fd uintptr) // run, bound once
	what  [][]byte
	iov   []unix.Iovec
	msg   unix.Msghdr
	n     int
	errno syscall.Errno
}

// mostPieces is how many pieces go by one call (linux/uio.h, UIO_MAXIOV).
const mostPieces = 1024

// write returns how many bytes of pieces, of which the first is not empty, the
// socket took: 0 if it is full.
func (a *attempt) write(raw syscall.RawConn, pieces [][]byte) (int, error) {
	a.what = pieces[:min(len(pieces), mostPieces)]
	err := raw.Control(a.once) // Write would only keep writers apart, which Line does
	a.what = nil
	if err != nil {
		return 0, err
	}
	return took(a.n, a.errno)
}

// took returns what a call took: nothing, without an error, if the socket is
// full.
func took(n int, errno syscall.Errno) (int, error) {
	switch errno {
	case 0:
	case unix.EAGAIN, unix.EINTR, unix.ENOBUFS, unix.ENOMEM:
		return 0, nil
	default:
		return 0, os.NewSyscallError("send", errno)
	}
	if n == 0 {
		return 0, errNothingSent
	}
	return n, nil
}

var errNothingSent = errors.New("send took nothing")

const sendFlags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL

// run makes the call.
func (a *attempt) run(fd uintptr) {
	if len(a.what) == 1 {
		a.n, a.errno = send(fd, a.what[0])
		return
	}
	a.gather()
	n, _, errno := syscall.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&a.msg)), sendFlags) //nolint:gosec // the kernel reads msg during the call
	a.n, a.errno = int(n), errno
}

// send makes the call for one piece, which is not empty.
func send(fd uintptr, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), sendFlags, 0, 0) //nolint:gosec // the kernel reads p during the call
	return int(n), errno
}

// gather lists the pieces for the kernel.
func (a *attempt) gather() {
	a.iov = a.iov[:0]
	for _, p := range a.what {
		if len(p) == 0 {
			continue
		}
		v := unix.Iovec{Base: &p[0]}
		v.SetLen(len(p))
		a.iov = append(a.iov, v)
	}
	a.msg.Iov = &a.iov[0]
	a.msg.SetIovlen(len(a.iov))
}
