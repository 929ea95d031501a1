package tsl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/daemon/status"
	"encoderd.example/daemon/tally"
	"encoderd.example/daemon/tally/tallytest"
)

// follow31 follows addresses 4 and 5; follow5 indices 3 and 4.
var (
	follow31 = V31{Sources: map[string]Channel{"cam": {4, 1, 2}, "other": {5, 1, 2}}}
	follow5  = V5{Sources: map[string]Place{"cam": {AnyScreen, 3}, "other": {AnyScreen, 4}}}
)

// say31 is a packet that makes an address program, preview or off.
func say31(address int, state string) []byte {
	return NewOut(nil, Channel{address, 1, 2}, "CAM").display(state).Append(nil)
}

func say5(index int, state string) []byte {
	lamp := map[string]Lamp5{status.Program: LampRed, status.Preview: LampGreen}[state]
	return packet5(Packet5{Displays: []Display5{{Index: index, Text: lamp}}}, false)
}

// dialects are both, with what a sender writes by datagram and by stream.
var dialects = []struct {
	name     string
	dialect  Dialect
	datagram func(source, state string) []byte
	stream   func(source, state string) []byte
}{
	{
		"tsl3.1", follow31,
		func(source, state string) []byte { return say31(map[string]int{"cam": 4, "other": 5}[source], state) },
		func(source, state string) []byte { return say31(map[string]int{"cam": 4, "other": 5}[source], state) },
	},
	{
		"tsl5", follow5,
		func(source, state string) []byte { return say5(map[string]int{"cam": 3, "other": 4}[source], state) },
		func(source, state string) []byte {
			return wrap(say5(map[string]int{"cam": 3, "other": 4}[source], state))
		},
	},
}

// listenPackets is a UDP port of our own, and how to open it.
func listenPackets(t *testing.T) (string, func(context.Context) (net.PacketConn, error)) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.LocalAddr().String(), func(context.Context) (net.PacketConn, error) { return conn, nil }
}

func listen(t *testing.T) (string, func(context.Context) (net.Listener, error)) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String(), func(context.Context) (net.Listener, error) { return l, nil }
}

func dial(t *testing.T, network, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func write(t *testing.T, w io.Writer, b []byte) {
	t.Helper()
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
}

func TestByUDP(t *testing.T) {
	for _, tt := range dialects {
		t.Run(tt.name, func(t *testing.T) {
			address, open := listenPackets(t)
			room := tallytest.New(t, "cam", "other")
			room.Start(Packets{Dialect: tt.dialect, Open: open})
			switcher := dial(t, "udp", address)
			write(t, switcher, tt.datagram("cam", status.Program))
			room.Await("cam=program other=unknown")
			write(t, switcher, []byte("garbage"))
			write(t, switcher, make([]byte, 3000))
			write(t, switcher, tt.datagram("other", status.Preview))
			room.Await("cam=program other=preview")
			write(t, switcher, tt.datagram("cam", status.Off))
			room.Await("cam=off other=preview")
			if n := room.Bad(); n != 2 {
				t.Errorf("%d bad datagrams, not 2", n)
			}
			if got := room.Now(time.Now()).Sources[0].Sender; got != "127.0.0.1" {
				t.Errorf("the sender is %q", got)
			}
		})
	}
}

func TestSeveralConnectInAndOneThatLeavesTakesItsWordAlong(t *testing.T) {
	for _, tt := range dialects {
		t.Run(tt.name, func(t *testing.T) {
			address, open := listen(t)
			room := tallytest.New(t, "cam", "other")
			room.Start(Listener{Dialect: tt.dialect, Open: open})
			one, two := dial(t, "tcp", address), dial(t, "tcp", address)
			write(t, one, tt.stream("cam", status.Program))
			write(t, two, append([]byte("garbage"), tt.stream("other", status.Preview)...))
			room.Await("cam=program other=preview")
			if got, want := room.Now(time.Now()).Sources[0].Sender, one.LocalAddr().String(); got != want {
				t.Errorf("the sender is %q, not %q", got, want)
			}
			one.Close()
			room.Await("cam=unknown other=preview")
			if got := room.Errors(); got != "the far side has closed the connection" {
				t.Errorf("says %q", got)
			}
			write(t, dial(t, "tcp", address), tt.stream("cam", status.Off))
			room.Await("cam=off other=preview")
		})
	}
}

func TestWhoSaysNothingMakesRoomForTheSwitcher(t *testing.T) {
	address, open := listen(t)
	room := tallytest.New(t, "cam", "other")
	room.Start(Listener{Dialect: follow31, Open: open})
	switcher := dial(t, "tcp", address)
	write(t, switcher, say31(4, status.Program))
	room.Await("cam=program other=unknown")
	write(t, switcher, say31(5, status.Off)) // by now it is known for the first word
	room.Await("cam=program other=off")
	var mute []net.Conn
	for range 3 * maxSenders {
		mute = append(mute, dial(t, "tcp", address))
	}
	for _, c := range mute[:len(mute)-maxSenders+1] { // those that made room, in their order
		if err := c.SetReadDeadline(time.Now().Add(tallytest.Patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("is still connected: %v", err)
		}
	}
	write(t, switcher, say31(5, status.Preview))
	room.Await("cam=program other=preview")
}

// One host that takes all places, and chatters, does not throw out the switcher.
func TestAHostThatConnectsWithoutEndThrowsOutItself(t *testing.T) {
	address, open := listen(t)
	room := tallytest.New(t, "cam", "other")
	room.Start(Listener{Dialect: follow31, Open: open})
	switcher := dial(t, "tcp", address)
	write(t, switcher, say31(4, status.Program))
	room.Await("cam=program other=unknown")
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	for range 3 * maxSenders {
		c, err := from.DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = c.Write(say31(5, status.Off)) // later than the switcher spoke
	}
	room.Await("cam=program other=off")
	write(t, switcher, say31(4, status.Preview))
	room.Await("cam=preview other=off")
}

// A flood costs the processor no more than many switchers would.
func TestAFloodIsHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		room := tallytest.New(t, "cam", "other")
		over := room.Start(Stream{Dialect: follow31, Open: opens(near)})
		say := bytes.Repeat(say31(4, status.Program), 100)
		begin, sent := time.Now(), 0
		for time.Since(begin) < time.Second/2 {
			write(t, far, say)
			sent += len(say)
		}
		if sent < 4*bytesPerSecond/10 || sent > 6*bytesPerSecond/10 {
			t.Errorf("took %d bytes in half a second, not %d", sent, bytesPerSecond/2)
		}
		far.Close()
		<-over
	})
	synctest.Test(t, func(t *testing.T) {
		flood := flood{make(chan struct{}), 0}
		room := tallytest.New(t, "cam", "other")
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan error, 1)
		go func() {
			over <- Packets{Dialect: follow31, Open: func(context.Context) (net.PacketConn, error) { return &flood, nil }}.Run(ctx, room.Desk())
		}()
		time.Sleep(time.Second/2 - paceTime/2) // while it rests
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
		if n := flood.packets; n < 4*packetsPerSecond/10 || n > 6*packetsPerSecond/10 {
			t.Errorf("took %d packets in half a second, not %d", n, packetsPerSecond/2)
		}
	})
}

// A flood is a port at which packets come as fast as they are taken.
type flood struct {
	closed  chan struct{}
	packets int
}

func (f *flood) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case <-f.closed:
		return 0, nil, net.ErrClosed
	default:
		f.packets++
		return copy(b, say31(4, status.Program)), &net.UDPAddr{IP: net.IPv4(10, 0, 0, 1)}, nil
	}
}

func (f *flood) Close() error                          { close(f.closed); return nil }
func (f *flood) WriteTo([]byte, net.Addr) (int, error) { return 0, errors.ErrUnsupported }
func (f *flood) LocalAddr() net.Addr                   { return &net.UDPAddr{} }
func (f *flood) SetDeadline(time.Time) error           { return errors.ErrUnsupported }
func (f *flood) SetReadDeadline(time.Time) error       { return errors.ErrUnsupported }
func (f *flood) SetWriteDeadline(time.Time) error      { return errors.ErrUnsupported }

func TestAStreamOfGarbageIsGivenUp(t *testing.T) {
	for _, tt := range dialects {
		t.Run(tt.name, func(t *testing.T) {
			room := tallytest.New(t, "cam", "other")
			near, far := net.Pipe()
			over := room.Start(Stream{Dialect: tt.dialect, Open: opens(near)})
			go func() {
				for {
					if _, err := far.Write(bytes.Repeat([]byte{0x55}, 100)); err != nil {
						return
					}
				}
			}()
			if err := <-over; !errors.Is(err, errOnlyGarbage) {
				t.Errorf("ended by %v", err)
			}
			if room.Bad() != 1 {
				t.Errorf("%d times bad: garbage that lasts is told once", room.Bad())
			}
		})
	}
}

func opens(c io.ReadWriteCloser) tally.Opener {
	return func(context.Context) (io.ReadWriteCloser, error) { return c, nil }
}

func TestAConnectionThatIsMadeOut(t *testing.T) {
	for _, tt := range dialects {
		t.Run(tt.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			link, err := Link("tcp://"+l.Addr().String(), tt.dialect, nil)
			if err != nil {
				t.Fatal(err)
			}
			room := tallytest.New(t, "cam", "other")
			over := room.Start(link)
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			write(t, conn, tt.stream("cam", status.Program))
			room.Await("cam=program other=unknown")
			conn.Close()
			if err := <-over; err == nil {
				t.Error("ended well")
			}
			if got := room.States(); got != "cam=unknown other=unknown" {
				t.Errorf("at once: %s", got)
			}
		})
	}
}

// openPty makes a pair of pseudo terminals: a serial port and its far side.
func openPty(t *testing.T) (port, far *os.File) {
	t.Helper()
	far = openFile(t, "/dev/ptmx")
	var n int
	control(t, far, func(fd int) (err error) {
		if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err == nil {
			n, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		}
		return err
	})
	port = openFile(t, "/dev/pts/"+strconv.Itoa(n))
	control(t, port, func(fd int) error {
		raw, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return err
		}
		raw.Iflag, raw.Oflag, raw.Lflag, raw.Cflag = 0, 0, 0, unix.CS8|unix.CREAD
		raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
		return unix.IoctlSetTermios(fd, unix.TCSETS, raw)
	})
	return port, far
}

func openFile(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// control uses the descriptor without making it block, as Fd would: Close has
// to wake a Read.
func control(t *testing.T, f *os.File, use func(fd int) error) {
	t.Helper()
	c, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if e := c.Control(func(fd uintptr) { err = use(int(fd)) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
}

func TestBySerialLine(t *testing.T) {
	port, far := openPty(t)
	link, err := Link("serial:/dev/ttyUSB0", follow31, func(path string) tally.Opener {
		if path != "/dev/ttyUSB0" {
			t.Errorf("opens %s", path)
		}
		return opens(port)
	})
	if err != nil {
		t.Fatal(err)
	}
	room := tallytest.New(t, "cam", "other")
	over := room.Start(link)
	write(t, far, say31(5, status.Off)[7:]) // we came in the middle
	write(t, far, slices.Concat(say31(5, status.Off), say31(4, status.Program)))
	room.Await("cam=program other=off")
	write(t, far, say31(4, status.Preview)[:5])
	write(t, far, say31(5, status.Preview))
	room.Await("cam=program other=preview")
	if room.Bad() == 0 {
		t.Error("nothing was bad")
	}
	far.Close() // the adapter is pulled out
	if err := <-over; err == nil {
		t.Error("ended well")
	}
	if got := room.States(); got != "cam=unknown other=unknown" {
		t.Errorf("at once: %s", got)
	}
}

// A quiet port reads nothing, without an error, whenever its time is over.
type quiet struct {
	io.WriteCloser
	reads chan []byte
}

func (q quiet) Read(b []byte) (int, error) {
	select {
	case from := <-q.reads:
		return copy(b, from), nil
	case <-time.After(time.Second):
		return 0, nil
	}
}

func (q quiet) Close() error { return nil }

func TestAQuietLineTurnsUnknownAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		port := quiet{reads: make(chan []byte)}
		room := tallytest.New(t, "cam", "other")
		over := room.Start(Stream{Dialect: follow31, Open: opens(port)})
		want := func(states string) {
			t.Helper()
			synctest.Wait()
			if got := room.States(); got != states {
				t.Errorf("%s, not %s", got, states)
			}
		}
		port.reads <- slices.Concat(say31(4, status.Program), say31(5, status.Off))
		want("cam=program other=off")
		for range 5 { // somebody else's display is traffic, too
			time.Sleep(tallytest.Timeout - time.Millisecond)
			port.reads <- say31(99, status.Off)
		}
		want("cam=program other=off")
		time.Sleep(tallytest.Timeout - time.Nanosecond)
		want("cam=program other=off")
		time.Sleep(time.Nanosecond)
		want("cam=unknown other=unknown")
		port.reads <- []byte("garbage is no sign of life")
		want("cam=unknown other=unknown")
		port.reads <- say31(99, status.Off)
		want("cam=unknown other=unknown")
		port.reads <- say31(4, status.Preview)
		want("cam=preview other=unknown")
		select {
		case err := <-over:
			t.Errorf("silence ended the link: %v", err)
		default:
		}
	})
}

// A hall is a listener of connections within the process.
type hall struct{ conns chan net.Conn }

func (h hall) Accept() (net.Conn, error) {
	c, ok := <-h.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (h hall) Close() error   { return nil }
func (h hall) Addr() net.Addr { return &net.TCPAddr{} }

func TestASenderWithoutASensibleWordIsThrownOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hall{conns: make(chan net.Conn)}
		room := tallytest.New(t, "cam", "other")
		over := room.Start(Listener{Dialect: follow5, Open: func(context.Context) (net.Listener, error) { return h, nil }})
		mute, far1 := net.Pipe()
		switcher, far2 := net.Pipe()
		h.conns <- mute
		h.conns <- switcher
		write(t, far2, wrap(say5(3, status.Program)))
		begin := time.Now()
		write(t, far1, []byte("GET / HTTP/1.1\r\n"))
		if _, err := far1.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || time.Since(begin) != firstWord {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		time.Sleep(time.Hour) // the switcher may be silent: it is unknown then, but connected
		write(t, far2, wrap(say5(3, status.Preview)))
		synctest.Wait()
		if got := room.States(); got != "cam=preview other=unknown" {
			t.Error(got)
		}
		close(h.conns)
		far2.Close()
		<-over
	})
}

func TestAddresses(t *testing.T) {
	serial := func(string) tally.Opener { return nil }
	tests := []struct{ address, link, far string }{
		{"udp://:8900", "tsl.Packets", "names no far side"},
		{"udp://10.0.0.1:8900", "tsl.Packets", ""},
		{"tcp://:8901", "tsl.Listener", "names no far side"},
		{"tcp://10.0.0.1:8901", "tsl.Stream", ""},
		{"tcp://[fe80::1%25eth0]:8901", "tsl.Stream", ""},
		{"serial:/dev/ttyUSB0", "tsl.Stream", ""},
		{"tcp://10.0.0.1", "has no port", "has no port"},
		{"http://10.0.0.1:80", "is neither", "is neither"},
		{"", "is neither", "is neither"},
	}
	for _, tt := range tests {
		link, err := Link(tt.address, follow31, serial)
		if got := described(link, err); !strings.Contains(got, tt.link) {
			t.Errorf("%s is %s, not %s", tt.address, got, tt.link)
		}
		_, err = Far(tt.address, serial)
		if got := described(nil, err); !strings.Contains(got, tt.far) {
			t.Errorf("%s is far %s, not %s", tt.address, got, tt.far)
		}
	}
}

func described(link tally.Link, err error) string {
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%T", link)
}
