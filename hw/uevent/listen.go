package uevent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	kernelGroup = 1        // udev sends on group 2
	maxMessage  = 64 << 10 // the kernel's own limit is 2 KiB of keys
	backlog     = 1 << 20  // a hub full of devices sends hundreds of events
)

// Listen calls told for every event of one of the subsystems, such as
// "video4linux" and "sound", until ctx ends (nil) or the socket fails. It tells
// of lost events always. told runs on the caller's goroutine; while it runs the
// kernel stores events.
func Listen(ctx context.Context, subsystems []string, told func(Event)) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return fmt.Errorf("open the kernel's event socket: %w", err)
	}
	s := newSocket(fd, fromKernel)
	defer s.close()
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, backlog); err != nil {
		return fmt.Errorf("enlarge the buffer of the kernel's event socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup}); err != nil {
		return fmt.Errorf("bind the kernel's event socket: %w", err)
	}
	return s.listen(ctx, subsystems, told)
}

// fromKernel says whether a message comes from the kernel; any process with the
// right may send to the group.
func fromKernel(from unix.Sockaddr) bool {
	nl, ok := from.(*unix.SockaddrNetlink)
	return ok && nl.Pid == 0
}

// A socket is a datagram socket that the Go runtime waits for.
type socket struct {
	file  *os.File
	trust func(unix.Sockaddr) bool
	buf   []byte
}

// newSocket takes over a descriptor that does not block.
func newSocket(fd int, trust func(unix.Sockaddr) bool) *socket {
	return &socket{file: os.NewFile(uintptr(fd), "uevent"), trust: trust, buf: make([]byte, maxMessage)}
}

func (s *socket) close() { _ = s.file.Close() } // nothing was written

func (s *socket) listen(ctx context.Context, subsystems []string, told func(Event)) error {
	stop := s.endWith(ctx)
	defer stop()
	conn, err := s.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("listen to the kernel: %w", err)
	}
	for {
		e, ok, err := s.next(conn)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("listen to the kernel: %w", err)
		case ok && (e.Lost || slices.Contains(subsystems, e.Subsystem)):
			told(e)
		}
	}
}

// endWith makes reads fail once ctx ends, until stop is called.
func (s *socket) endWith(ctx context.Context) (stop func()) {
	done := make(chan struct{})
	undo := context.AfterFunc(ctx, func() {
		defer close(done)
		// It fails only on a closed file, and then nobody reads.
		_ = s.file.SetReadDeadline(time.Unix(1, 0))
	})
	return func() {
		if !undo() {
			<-done
		}
	}
}

// next receives one message; ok is false if it is not one of the kernel's.
func (s *socket) next(conn syscall.RawConn) (e Event, ok bool, err error) {
	var n int
	var from unix.Sockaddr
	var received error
	err = conn.Read(func(fd uintptr) bool {
		n, from, received = unix.Recvfrom(int(fd), s.buf, 0)
		return !errors.Is(received, unix.EAGAIN)
	})
	if err == nil {
		err = received
	}
	switch {
	case errors.Is(err, unix.ENOBUFS):
		return Event{Lost: true}, true, nil
	case errors.Is(err, unix.EINTR):
		return Event{}, false, nil
	case err != nil:
		return Event{}, false, err
	case !s.trust(from):
		return Event{}, false, nil
	}
	e, err = Parse(s.buf[:n])
	return e, err == nil, nil // what cannot be read is not for us
}
