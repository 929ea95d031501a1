package external

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/external/memory"
	"encoderd.example/hw/external/wire"
	"encoderd.example/stream"
)

// childArg makes the test program play a device program.
const childArg = "device-program"

// A child is a scripted device program: well-behaved but for the part that its
// script changes.
type child struct {
	conn *wire.Conn
	mode hw.Mode
	pool *memory.Pool

	hello   func(*wire.HelloCamera)
	opened  func(*wire.CameraOpened)
	buffers func(*wire.Buffers, []int) []int
	play    func() error
}

var small = hw.Mode{Pixel: hw.NV12, Width: 64, Height: 36, FPS: hw.Rate{Num: 30, Den: 1}}

// runChild plays a script and returns the exit code.
func runChild(script string) int {
	rawFD, _ = unix.Dup(wire.FD)
	conn, err := wire.NewConn(wire.FD)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	play, known := scripts[script]
	if !known {
		play, known = encoderScripts[script]
	}
	if !known {
		fmt.Fprintln(os.Stderr, "no such script")
		return 1
	}
	if err := play(&child{conn: conn, mode: small}); err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	return 0
}

func hang() error {
	signal.Ignore(unix.SIGTERM)
	select {}
}

func now() int64 { return int64(stream.Monotonic()) }

func (c *child) expect(want wire.Message) (wire.Message, error) {
	for {
		m, fds, err := c.conn.Receive()
		wire.CloseAll(fds)
		if err != nil {
			return nil, err
		}
		if fmt.Sprintf("%T", m) == fmt.Sprintf("%T", want) {
			return m, nil
		}
		if _, stop := m.(wire.Stop); stop {
			return nil, io.EOF
		}
	}
}

func (c *child) layout() hw.Layout {
	l, err := memory.Tight(c.mode.Pixel, c.mode.Width, c.mode.Height, 1, 1, 0)
	if err != nil {
		panic(err)
	}
	return l
}

// camera plays a camera.
func (c *child) camera() error {
	h := wire.HelloCamera{Version: wire.Version, Modes: 1}
	wire.PutText(h.Name[:], "a scripted camera")
	h.Mode[0] = wire.ModeOf(c.mode)
	if c.hello != nil {
		c.hello(&h)
	}
	if err := c.conn.Send(h); err != nil {
		return err
	}
	if _, err := c.expect(wire.OpenCamera{}); err != nil {
		return err
	}
	o := wire.CameraOpened{Mode: wire.ModeOf(c.mode), Layout: wire.LayoutOf(c.layout())}
	if c.opened != nil {
		c.opened(&o)
	}
	if err := c.conn.Send(o); err != nil {
		return err
	}
	if _, err := c.expect(wire.Start{}); err != nil {
		return err
	}
	pool, err := memory.NewPool(c.layout(), 4)
	if err != nil {
		return err
	}
	c.pool = pool
	b := wire.Buffers{Count: 4, Layout: wire.LayoutOf(c.layout())}
	var fds []int
	for _, buffer := range pool.Buffers() {
		fds = append(fds, buffer.FDs[0])
	}
	if c.buffers != nil {
		fds = c.buffers(&b, fds)
	}
	if err := c.conn.Send(b, fds...); err != nil {
		return err
	}
	if c.play == nil {
		c.play = c.steady
	}
	if err := c.play(); err != nil {
		return err
	}
	_, err = c.expect(wire.Stop{})
	return err
}

// frame sends a good picture, changed by change.
func (c *child) frame(index, seq uint32, change func(*wire.Frame)) error {
	f := wire.Frame{Index: index, Seq: seq, Stamp: now(), Used: [3]uint32{uint32(c.layout().Sizes[0])}}
	if change != nil {
		change(&f)
	}
	return c.conn.Send(f)
}

// steady sends pictures as buffers come back, until Stop.
func (c *child) steady() error {
	for i := range uint32(4) {
		if err := c.frame(i, i, nil); err != nil {
			return err
		}
	}
	for seq := uint32(4); ; seq++ {
		m, err := c.expect(wire.Release{})
		if err != nil {
			return err
		}
		if err := c.frame(m.(wire.Release).Index, seq, nil); err != nil {
			return err
		}
	}
}

// rawFD is the socket beside its Conn.
var rawFD int

// raw sends bytes that are no message of package wire, and descriptors.
func raw(b []byte, fds ...int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	return unix.Sendmsg(rawFD, b, rights, nil, 0)
}

// unsealed is memory that its maker can cut short.
func unsealed(size int64) int {
	fd, err := unix.MemfdCreate("unsealed", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err == nil {
		err = unix.Ftruncate(fd, size)
	}
	if err != nil {
		panic(err)
	}
	return fd
}

// playing runs a camera that sends pictures, changed by change.
func playing(change func(*wire.Frame)) func(*child) error {
	return func(c *child) error {
		c.play = func() error { return c.frame(0, 0, change) }
		return c.camera()
	}
}

// scripts are what cameras do.
var scripts = map[string]func(*child) error{
	"good": (*child).camera,

	// no session
	"exits at once":       func(*child) error { fmt.Fprintln(os.Stderr, "no sensor found"); return errors.New("giving up") },
	"hangs at once":       func(*child) error { return hang() },
	"begins with garbage": func(*child) error { return errors.Join(raw([]byte("hello, world")), hang()) },
	"begins with bye":     func(c *child) error { return errors.Join(c.conn.Send(wire.Bye{}), hang()) },
	"sends a short hello": func(*child) error {
		return errors.Join(raw(wire.Append(nil, wire.HelloCamera{})[:500]), hang())
	},
	"sends a huge datagram": func(*child) error { return errors.Join(raw(make([]byte, 100_000)), hang()) },
	"sends descriptors with its hello": func(*child) error {
		fd := unsealed(10)
		return errors.Join(raw(wire.Append(nil, wire.HelloCamera{Version: 1, Modes: 1}), fd, fd, fd), hang())
	},
	"sends two hundred descriptors": func(*child) error {
		fds := make([]int, 200)
		for i := range fds {
			fds[i] = unsealed(10)
		}
		return errors.Join(raw(wire.Append(nil, wire.Buffers{Count: 4}), fds...), hang())
	},
	"speaks version 9": func(c *child) error { c.hello = func(h *wire.HelloCamera) { h.Version = 9 }; return c.camera() },
	"has no mode":      func(c *child) error { c.hello = func(h *wire.HelloCamera) { h.Modes = 0 }; return c.camera() },
	"has 4000000000 modes": func(c *child) error {
		c.hello = func(h *wire.HelloCamera) { h.Modes = 4_000_000_000 }
		return c.camera()
	},
	"has an endless picture": func(c *child) error {
		c.hello = func(h *wire.HelloCamera) { h.Mode[0].Width = 1 << 31 }
		return c.camera()
	},
	"says that it is busy": func(c *child) error {
		m := wire.Error{Code: wire.Busy}
		wire.PutText(m.Text[:], "the sensor is used\nby\x1b[31m another program")
		return c.conn.Send(m)
	},

	// while it is opened
	"grants another layout": func(c *child) error {
		c.opened = func(o *wire.CameraOpened) { o.Layout.Width = 32 }
		return c.camera()
	},
	"grants a plane outside": func(c *child) error {
		c.opened = func(o *wire.CameraOpened) { o.Layout.Planes[1].Offset = 1 << 30 }
		return c.camera()
	},
	"grants a stride too short": func(c *child) error {
		c.opened = func(o *wire.CameraOpened) { o.Layout.Planes[0].Stride = 63 }
		return c.camera()
	},
	"grants a huge buffer": func(c *child) error {
		c.opened = func(o *wire.CameraOpened) { o.Layout.Sizes[0] = 1 << 31 }
		return c.camera()
	},
	"never answers": func(c *child) error {
		c.opened = func(*wire.CameraOpened) { hang() }
		return c.camera()
	},
	"sends too few descriptors": func(c *child) error {
		c.buffers = func(_ *wire.Buffers, fds []int) []int { return fds[:3] }
		return c.camera()
	},
	"sends too many descriptors": func(c *child) error {
		c.buffers = func(_ *wire.Buffers, fds []int) []int { return append(fds, fds...) }
		return c.camera()
	},
	"sends one buffer": func(c *child) error {
		c.buffers = func(b *wire.Buffers, fds []int) []int { b.Count = 1; return fds[:1] }
		return c.camera()
	},
	"sends buffers of another layout": func(c *child) error {
		c.buffers = func(b *wire.Buffers, fds []int) []int { b.Layout.Sizes[0]++; return fds }
		return c.camera()
	},
	"sends memory that is not sealed": func(c *child) error {
		c.buffers = func(_ *wire.Buffers, fds []int) []int { fds[2] = unsealed(1 << 20); return fds }
		return c.camera()
	},
	"sends memory that is too short": func(c *child) error {
		c.buffers = func(_ *wire.Buffers, fds []int) []int {
			fds[3], _ = memory.Create("short", 100)
			return fds
		}
		return c.camera()
	},
	"sends a file": func(c *child) error {
		c.buffers = func(_ *wire.Buffers, fds []int) []int {
			fds[0], _ = unix.Open("/proc/self/exe", unix.O_RDONLY, 0)
			return fds
		}
		return c.camera()
	},
	"sends sockets": func(c *child) error {
		c.buffers = func(_ *wire.Buffers, fds []int) []int { fds[1] = rawFD; return fds }
		return c.camera()
	},

	// while it runs
	"sends a buffer that is not there": playing(func(f *wire.Frame) { f.Index = 4 }),
	"sends a buffer far out":           playing(func(f *wire.Frame) { f.Index = 1<<32 - 1 }),
	"uses more than there is":          playing(func(f *wire.Frame) { f.Used[0] = 1<<32 - 1 }),
	"stamps by the wall clock":         playing(func(f *wire.Frame) { f.Stamp = time.Now().UnixNano() }),
	"stamps the past":                  playing(func(f *wire.Frame) { f.Stamp = -1 << 63 }),
	"lends a buffer twice": func(c *child) error {
		c.play = func() error { return errors.Join(c.frame(1, 0, nil), c.frame(1, 1, nil)) }
		return c.camera()
	},
	"says hello again": func(c *child) error {
		c.play = func() error { return c.conn.Send(wire.HelloCamera{}) }
		return c.camera()
	},
	"sends buffers again": func(c *child) error {
		c.play = func() error { return c.conn.Send(wire.Buffers{}, c.pool.Buffers()[0].FDs[0]) }
		return c.camera()
	},

	// devices with troubles of their own
	"loses its signal": func(c *child) error {
		c.hello = func(h *wire.HelloCamera) { h.Flags = wire.SignalInput | wire.SignalThere }
		c.play = func() error { return c.conn.Send(wire.Signal{}) }
		return c.camera()
	},
	"has no signal at first": func(c *child) error {
		c.hello = func(h *wire.HelloCamera) {
			h.Flags = wire.SignalInput
			go func() { // after the hello has left
				<-time.After(50 * time.Millisecond)
				_ = c.conn.Send(wire.Signal{There: 1})
			}()
		}
		return c.camera()
	},
	"is a part of another": func(c *child) error {
		c.hello = func(h *wire.HelloCamera) {
			h.Flags = wire.SignalInput
			wire.PutText(h.Parent[:], "/sys/devices/platform/usb1/1-1")
		}
		return c.camera()
	},
	"is a part of nowhere": func(c *child) error {
		c.hello = func(h *wire.HelloCamera) { wire.PutText(h.Parent[:], "/sys/devices/../../etc") }
		return c.camera()
	},
	"never gets a signal": func(c *child) error {
		c.hello = func(h *wire.HelloCamera) { h.Flags = wire.SignalInput }
		return c.camera()
	},
	"dies of an error": func(c *child) error {
		c.play = func() error {
			m := wire.Error{Code: wire.Failed}
			wire.PutText(m.Text[:], "sensor timeout")
			return errors.Join(c.conn.Send(m), hang())
		}
		return c.camera()
	},
	"hangs while it runs": func(c *child) error {
		c.play = func() error { return errors.Join(c.frame(0, 0, nil), hang()) }
		return c.camera()
	},
	"exits while it runs": func(c *child) error {
		c.play = func() error { os.Exit(42); return nil }
		return c.camera()
	},
	"damages pictures": func(c *child) error {
		c.play = func() error {
			return errors.Join(
				c.frame(0, 10, nil),
				c.frame(1, 11, func(f *wire.Frame) { f.Flags = wire.Damaged }),
				c.frame(2, 12, func(f *wire.Frame) { f.Used[0] = 100 }),
				c.frame(3, 15, nil))
		}
		return c.camera()
	},
	"refuses the pool": func(c *child) error {
		c.opened = func(o *wire.CameraOpened) { o.Flags = wire.Imports }
		c.buffers = nil
		return c.refusing()
	},
	"floods its log": func(c *child) error {
		fmt.Fprintln(os.Stderr, "first words")
		fmt.Fprintln(os.Stderr, strings.Repeat("long ", 10_000))
		for i := range 5000 {
			fmt.Fprintln(os.Stderr, "line", i, "\x1b[2J")
		}
		return c.camera()
	},
	"leaves a child behind": func(c *child) error {
		pid, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "1000"}, nil)
		if err != nil {
			return err
		}
		c.hello = func(h *wire.HelloCamera) { wire.PutText(h.Name[:], fmt.Sprint(pid)) }
		return c.camera()
	},
	// a box of its own, to be killed: its device must not outlive it
	"is a box": func(c *child) error {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		p := program{id: "inner", path: self, args: []string{childArg, "hangs at once"}, log: discard, patience: usual}
		r, err := p.launch()
		if err != nil {
			return err
		}
		h := wire.HelloCamera{Version: wire.Version, Modes: 1}
		wire.PutText(h.Name[:], fmt.Sprint(r.pid))
		return errors.Join(c.conn.Send(h), hang())
	},
	"tells its surroundings": func(c *child) error {
		group, _ := unix.Getpgid(0)
		dir, _ := os.Getwd()
		open, _ := os.ReadDir("/proc/self/fd")
		text := fmt.Sprint(len(os.Environ()), " ", group == os.Getpid(), " ", dir, " ", os.Getenv("ENCODERD_DEVICE"))
		for _, e := range open {
			if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.Contains(to, "memfd") {
				text += " inherited " + to
			}
		}
		c.hello = func(h *wire.HelloCamera) { wire.PutText(h.Name[:], text) }
		return c.camera()
	},
}

// refusing is a camera that promises to write into pools, and does not.
func (c *child) refusing() error {
	h := wire.HelloCamera{Version: wire.Version, Modes: 1}
	h.Mode[0] = wire.ModeOf(c.mode)
	if err := c.conn.Send(h); err != nil {
		return err
	}
	o := wire.CameraOpened{Mode: wire.ModeOf(c.mode), Flags: wire.Imports, Layout: wire.LayoutOf(c.layout())}
	if _, err := c.expect(wire.OpenCamera{}); err != nil {
		return err
	}
	if err := c.conn.Send(o); err != nil {
		return err
	}
	m, err := c.expect(wire.Start{})
	if err != nil {
		return err
	}
	if m.(wire.Start).Flags&wire.UseSent != 0 {
		e := wire.Error{Code: wire.Unsupported}
		wire.PutText(e.Text[:], "not contiguous")
		return c.conn.Send(e)
	}
	pool, err := memory.NewPool(c.layout(), 4)
	if err != nil {
		return err
	}
	c.pool = pool
	var fds []int
	for _, buffer := range pool.Buffers() {
		fds = append(fds, buffer.FDs[0])
	}
	if err := c.conn.Send(wire.Buffers{Count: 4, Layout: wire.LayoutOf(c.layout())}, fds...); err != nil {
		return err
	}
	return c.steady()
}
