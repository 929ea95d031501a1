package serial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.bug.st/serial"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"encoderd.example/hw"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestListWorksOnEveryMachine(t *testing.T) {
	ports, err := List()
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range ports {
		if !strings.HasPrefix(p.Path, "/dev/") || i > 0 && ports[i-1].Path >= p.Path {
			t.Errorf("ports %v", ports)
		}
	}
}

func TestPortsHaveTheNameOfTheirSocket(t *testing.T) {
	dir := t.TempDir()
	device := filepath.Join(dir, "ttyUSB0")
	links := filepath.Join(dir, "by-path")
	err := errors.Join(os.WriteFile(device, nil, 0o600), os.Mkdir(links, 0o700),
		os.Symlink("../ttyUSB0", filepath.Join(links, "a-usb-0:1")), os.Symlink("../ttyUSB0", filepath.Join(links, "b-usbv2-0:1")),
		os.Symlink("../ttyUSB9", filepath.Join(links, "gone")))
	if err != nil {
		t.Fatal(err)
	}
	if device, err = filepath.EvalSymlinks(device); err != nil {
		t.Fatal(err)
	}
	if got := byPath(links); len(got) != 1 || got[device] != filepath.Join(links, "a-usb-0:1") {
		t.Errorf("got %v", got)
	}
}

// pair returns the far end of a pseudo terminal and the path of the near one,
// which behaves as a serial port.
func pair(t *testing.T) (far *os.File, path string) {
	t.Helper()
	far, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() }) // tests may have closed it
	number := 0
	control(t, far, func(fd int) (err error) {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	return far, fmt.Sprintf("/dev/pts/%d", number)
}

func control(t *testing.T, f *os.File, what func(fd int) error) {
	t.Helper()
	conn, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = conn.Control(func(fd uintptr) { failed = what(int(fd)) })
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
}

func TestBytesGoBothWays(t *testing.T) {
	far, path := pair(t)
	p, err := Open(t.Context(), path, Mode{Baud: 38400, Parity: EvenParity})
	if err != nil {
		t.Fatal(err)
	}
	// All that a terminal would make something of.
	message := []byte("\x00\x03\x04\x0a\x0d\x11\x13\x1a\x7f\x80\xff")
	got := make([]byte, len(message))
	if _, err := p.Write(message); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(far, got); err != nil || string(got) != string(message) {
		t.Errorf("the far end read %q, %v", got, err)
	}
	if _, err := far.Write(message); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(p, got); err != nil || string(got) != string(message) {
		t.Errorf("the near end read %q, %v", got, err)
	}
	if err := errors.Join(p.Close(), p.Close()); err != nil {
		t.Error(err)
	}
	for _, f := range []func([]byte) (int, error){p.Read, p.Write} {
		if _, err := f(got); !errors.Is(err, os.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

func TestThePortIsSetAndOurs(t *testing.T) {
	far, path := pair(t)
	p, err := Open(t.Context(), path, Mode{Baud: 38400})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	control(t, far, func(fd int) error { // of a pseudo terminal, both ends have one state
		set, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err == nil && (set.Cflag&unix.CBAUD != unix.B38400 || set.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != 0) {
			t.Errorf("the port is set to %+v", set)
		}
		return err
	})
	near, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if errors.Is(err, unix.EBUSY) {
		return // we are not root: what others get
	}
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	control(t, near, func(fd int) error {
		exclusive, err := unix.IoctlGetInt(fd, unix.TIOCGEXCL)
		if exclusive == 0 {
			t.Error("others can open the port")
		}
		return err
	})
}

// A reader waits for bytes; what it got comes by the channel.
func reader(p io.Reader) <-chan error {
	ended := make(chan error, 1)
	go func() {
		_, err := p.Read(make([]byte, 16))
		ended <- err
	}()
	return ended
}

func TestReadEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(p io.Closer, far io.Closer, cancel func()) error
		want error
	}{
		{"when the port is closed", func(p, _ io.Closer, _ func()) error { return p.Close() }, os.ErrClosed},
		{"when nobody wants it anymore", func(_, _ io.Closer, cancel func()) error { cancel(); return nil }, os.ErrClosed},
		{"when the far end hangs up", func(_, far io.Closer, _ func()) error { return far.Close() }, hw.ErrGone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			far, path := pair(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			p, err := Open(ctx, path, Mode{})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			ended := reader(p)
			if err := tt.end(p, far, cancel); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; !errors.Is(err, tt.want) {
				t.Errorf("Read: %v", err)
			}
			if err := <-reader(p); !errors.Is(err, tt.want) {
				t.Errorf("Read again: %v", err)
			}
		})
	}
}

func TestAPortAmongAThousandConnections(t *testing.T) {
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close() //nolint:gocritic // all of them, at the end
		if f.Fd() > 1100 {
			break
		}
	}
	far, path := pair(t)
	p, err := Open(t.Context(), path, Mode{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := far.WriteString("\x80"); err != nil {
		t.Fatal(err)
	}
	if err := <-reader(p); err != nil {
		t.Error(err)
	}
}

func TestPortsThatCannotBeOpened(t *testing.T) {
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), plain, Mode{}); err == nil {
		t.Error("a file was opened as a port")
	}
	if _, err := Open(t.Context(), plain+"-gone", Mode{}); !errors.Is(err, hw.ErrGone) {
		t.Errorf("a port that is not there: %v", err)
	}
	_, path := pair(t)
	for _, m := range []Mode{{Baud: -1}, {DataBits: 9}, {DataBits: 4}, {Parity: 3}, {Parity: -1}, {StopBits: 3}} {
		if _, err := Open(t.Context(), path, m); !errors.Is(err, errMode) {
			t.Errorf("mode %v: %v", m, err)
		}
	}
	for _, tt := range []struct{ err, want error }{
		{unix.EBUSY, hw.ErrBusy},
		{unix.ENXIO, hw.ErrGone},
		{&os.PathError{Err: unix.EACCES}, fs.ErrPermission},
		{errMode, errMode},
	} {
		if got := explain(tt.err); !errors.Is(got, tt.want) {
			t.Errorf("%v is explained as %v", tt.err, got)
		}
	}
}

func TestModesInWords(t *testing.T) {
	for _, tt := range []struct {
		mode Mode
		want string
	}{
		{Mode{}, "9600 8N1"},
		{Mode{Baud: 38400, Parity: EvenParity}, "38400 8E1"},
		{Mode{Baud: 300, DataBits: 7, Parity: OddParity, StopBits: 2}, "300 7O2"},
		{Mode{Parity: 7}, "9600 8?1"},
	} {
		if got := tt.mode.String(); got != tt.want {
			t.Errorf("%q, not %q", got, tt.want)
		}
	}
	m, err := Mode{Baud: 38400, Parity: EvenParity, StopBits: 2}.library()
	if err != nil || *m != (serial.Mode{BaudRate: 38400, DataBits: 8, Parity: serial.EvenParity, StopBits: serial.TwoStopBits}) {
		t.Errorf("the library is told %+v, %v", m, err)
	}
}
