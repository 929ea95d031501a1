package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrFull says that a message was not sent because the other side does not
// read its messages.
var ErrFull = errors.New("the other side does not read its messages")

// A Conn is one end of the socket. Send may be called from any goroutine,
// Receive from one.
type Conn struct {
	sock *net.UnixConn
	raw  interface {
		Write(send func(fd uintptr) (done bool)) error
	}
	data, control []byte // of Receive
}

// Pair returns the two ends of a new socket: ours, and a file that a program
// inherits as descriptor [FD].
func Pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "device socket")
	c, err := NewConn(fds[0])
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return c, theirs, nil
}

// NewConn returns a Conn over a connected SOCK_SEQPACKET socket, which it
// owns from then on, also if it fails.
func NewConn(fd int) (*Conn, error) {
	f := os.NewFile(uintptr(fd), "box socket")
	defer func() { _ = f.Close() }()
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_SEQPACKET {
		return nil, fmt.Errorf("descriptor %d is no SOCK_SEQPACKET socket: this program is started by encoderd", fd)
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("use the socket: %w", err)
	}
	sock, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("descriptor %d is no unix socket", fd), c.Close())
	}
	raw, err := sock.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, sock.Close())
	}
	return &Conn{
		sock: sock, raw: raw,
		data:    make([]byte, MaxMessage+1),
		control: make([]byte, unix.CmsgSpace(4*(MaxFDs+1))),
	}, nil
}

// Send sends m and descriptors, which stay the caller's. It never waits: if
// there is no room it fails with ErrFull.
func (c *Conn) Send(m Message, fds ...int) error {
	datagram := Append(make([]byte, 0, 128), m)
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	var failed error
	err := c.raw.Write(func(fd uintptr) bool {
		_, failed = unix.SendmsgN(int(fd), datagram, rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		return !errors.Is(failed, unix.EINTR)
	})
	switch {
	case err != nil:
		return fmt.Errorf("send %s: %w", Name(m), err)
	case errors.Is(failed, unix.EAGAIN):
		return fmt.Errorf("send %s: %w", Name(m), ErrFull)
	case failed != nil:
		return fmt.Errorf("send %s: %w", Name(m), failed)
	}
	return nil
}

// Receive waits for the next message and returns it with the descriptors that
// came along, which are the caller's. It fails with [io.EOF] when the other
// side has closed, with ErrProtocol, or with [os.ErrDeadlineExceeded]. Of a
// message that it refuses all descriptors are closed.
func (c *Conn) Receive() (Message, []int, error) {
	n, controls, flags, _, err := c.sock.ReadMsgUnix(c.data, c.control)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("receive: %w", err)
	}
	fds, err := rights(c.control[:controls])
	if err != nil {
		return nil, nil, err
	}
	m, err := c.message(n, flags, len(fds))
	if err != nil {
		CloseAll(fds)
		return nil, nil, err
	}
	return m, fds, nil
}

func (c *Conn) message(n, flags, fds int) (Message, error) {
	switch {
	case n == 0:
		return nil, io.EOF // an empty datagram says the same
	case flags&unix.MSG_CTRUNC != 0:
		return nil, fmt.Errorf("%w: more than %d descriptors, or no room for them in this process", ErrProtocol, MaxFDs)
	case flags&unix.MSG_TRUNC != 0:
		return nil, fmt.Errorf("%w: a datagram of more than %d bytes", ErrProtocol, MaxMessage)
	}
	m, err := Decode(c.data[:n])
	if err != nil {
		return nil, err
	}
	if most := shapes[m.kind()].fds; fds > most {
		return nil, fmt.Errorf("%w: %s comes with %d descriptors, %d are allowed", ErrProtocol, Name(m), fds, most)
	}
	return m, nil
}

// rights takes the descriptors out of control messages.
func rights(control []byte) ([]int, error) {
	if len(control) == 0 {
		return nil, nil
	}
	list, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, fmt.Errorf("%w: control data: %w", ErrProtocol, err)
	}
	var fds []int
	for i := range list {
		if got, err := unix.ParseUnixRights(&list[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	return fds, nil
}

// SetDeadline ends a Receive that waits at t; the zero time lets it wait.
func (c *Conn) SetDeadline(t time.Time) error { return c.sock.SetReadDeadline(t) }

// Close closes this end. A Receive that waits fails, and so does the next one
// of the other side.
func (c *Conn) Close() error { return c.sock.Close() }

// CloseAll closes descriptors.
func CloseAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd) // nothing was written to it
	}
}
