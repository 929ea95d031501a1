package serial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"go.bug.st/serial"
	"golang.org/x/sys/unix"

	"encoderd.example/hw"
)

// A Parity is how bytes are checked.
type Parity int

// The parities.
const (
	NoParity Parity = iota
	EvenParity
	OddParity
)

// A Mode is how a port is set. The zero Mode is 9600 baud, 8N1.
type Mode struct {
	Baud     int // bit/s, 0 = 9600
	DataBits int // 5 to 8, 0 = 8
	Parity   Parity
	StopBits int // 1 or 2, 0 = 1
}

// String returns, for example, "38400 8E1".
func (m Mode) String() string {
	m = m.filled()
	letter, ok := map[Parity]string{NoParity: "N", EvenParity: "E", OddParity: "O"}[m.Parity]
	if !ok {
		letter = "?"
	}
	return fmt.Sprintf("%d %d%s%d", m.Baud, m.DataBits, letter, m.StopBits)
}

func (m Mode) filled() Mode {
	if m.Baud == 0 {
		m.Baud = 9600
	}
	if m.DataBits == 0 {
		m.DataBits = 8
	}
	if m.StopBits == 0 {
		m.StopBits = 1
	}
	return m
}

// errMode says that no port can be set so.
var errMode = errors.New("no such mode")

// library returns m in the words of the library.
func (m Mode) library() (*serial.Mode, error) {
	m = m.filled()
	parities := []serial.Parity{serial.NoParity, serial.EvenParity, serial.OddParity}
	stops := map[int]serial.StopBits{1: serial.OneStopBit, 2: serial.TwoStopBits}
	stop, ok := stops[m.StopBits]
	if !ok || m.Parity < 0 || int(m.Parity) >= len(parities) || m.Baud < 0 || m.DataBits < 5 || m.DataBits > 8 {
		return nil, fmt.Errorf("%w: %d baud, %d data bits, parity %d, %d stop bits", errMode, m.Baud, m.DataBits, m.Parity, m.StopBits)
	}
	return &serial.Mode{BaudRate: m.Baud, DataBits: m.DataBits, Parity: parities[m.Parity], StopBits: stop}, nil
}

// Open opens a port for this program alone. A path below /dev/serial/by-path
// means the same socket after any restart; /dev/ttyUSB0 does not. The port
// closes when ctx ends. It fails with [hw.ErrBusy], with [hw.ErrGone] if it is
// not plugged in, or with fs.ErrPermission.
//
// Read waits for at least one byte. It fails with os.ErrClosed after Close or
// the end of ctx, and with [hw.ErrGone] once the port was pulled out or its
// other end hung up; so does Write, which waits until the driver has taken all
// bytes, for ever if the other end of a USB adapter is stuck. Read, Write and
// Close may be called from different goroutines.
//
// DTR and RTS are raised while the port is open. For RS-485 take an adapter
// that turns its direction by itself, or have the device tree tell the driver
// (linux,rs485-enabled-at-boot-time): nothing here does.
func Open(ctx context.Context, path string, m Mode) (io.ReadWriteCloser, error) {
	mode, err := m.library()
	if err != nil {
		return nil, fmt.Errorf("serial port %s: %w", path, err)
	}
	f, err := open(path, mode)
	if err != nil {
		return nil, fmt.Errorf("serial port %s: %w", path, explain(err))
	}
	p := &port{file: f, path: path}
	p.forget = context.AfterFunc(ctx, func() { _ = f.Close() }) // nobody is left who would hear of it
	return p, nil
}

// open opens a port and has the library set it. Bytes go past the library: it
// waits with select, which panics at descriptors from 1024 on (a thousand
// readers are connected), and it cannot tell a port that was pulled out from
// one that was closed. While we have the port open it stays as it was set.
func open(path string, mode *serial.Mode) (*os.File, error) {
	// O_NONBLOCK: neither wait for a carrier, nor hold a thread.
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	set, err := serial.Open(path, mode)
	if err == nil {
		err = set.Close()
	}
	if err == nil {
		err = claim(f)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// claim keeps others from opening the port, root aside.
func claim(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) { failed = unix.IoctlSetInt(int(fd), unix.TIOCEXCL, 0) })
	return errors.Join(err, failed)
}

// explain gives errors the names that the box knows.
func explain(err error) error {
	ours, ok := errors.AsType[*serial.PortError](err)
	switch {
	case errors.Is(err, unix.EBUSY), ok && ours.Code() == serial.PortBusy:
		return fmt.Errorf("another program has it: %w", hw.ErrBusy)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("it is not plugged in: %w", hw.ErrGone)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: the user has to be of the group that owns the port, often dialout", err)
	default:
		return err
	}
}

// A port is an open serial port.
type port struct {
	file   *os.File
	path   string
	forget func() bool
}

// Read implements [io.Reader] as [Open] says.
func (p *port) Read(b []byte) (int, error) {
	n, err := p.file.Read(b)
	return n, p.ended(err)
}

// Write implements [io.Writer] as [Open] says.
func (p *port) Write(b []byte) (int, error) {
	n, err := p.file.Write(b)
	return n, p.ended(err)
}

// ended says why there are no more bytes: the kernel ends those of a port that
// was pulled out, and fails what comes after.
func (p *port) ended(err error) error {
	for _, gone := range []error{io.EOF, unix.EIO, unix.ENXIO, unix.ENODEV} {
		if errors.Is(err, gone) {
			return fmt.Errorf("serial port %s: %w", p.path, hw.ErrGone)
		}
	}
	return err
}

// Close implements [io.Closer]; a second call does nothing.
func (p *port) Close() error {
	p.forget()
	if err := p.file.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
