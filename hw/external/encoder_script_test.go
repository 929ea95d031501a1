package external

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/external/device"
	"encoderd.example/hw/external/memory"
	"encoderd.example/hw/external/wire"
	"encoderd.example/hw/soft"
)

// An openedEncoder is a scripted encoder that has been opened.
type openedEncoder struct {
	*child

	ring []byte
	open wire.OpenEncoder
}

// coder plays an encoder up to its first picture, whose submission play
// gets, and then waits for Stop.
func coder(change func(*wire.HelloEncoder, *wire.EncoderOpened), play func(*openedEncoder, wire.Submit) error) func(*child) error {
	return func(c *child) error {
		h, o := device.HelloEncoder("a scripted encoder"), wire.EncoderOpened{Inflight: 4}
		if change != nil {
			change(&h, &o)
		}
		if err := c.conn.Send(h); err != nil {
			return err
		}
		e := &openedEncoder{child: c}
		for e.ring == nil {
			m, fds, err := c.conn.Receive()
			if err != nil {
				return err
			}
			if _, stop := m.(wire.Stop); stop {
				return nil
			}
			e.open, _ = m.(wire.OpenEncoder)
			if e.ring, err = memory.Map(fds[0], int(e.open.RingSize), true); err != nil {
				return err
			}
		}
		if err := c.conn.Send(o); err != nil {
			return err
		}
		m, err := c.expect(wire.Submit{})
		if err != nil {
			return err
		}
		if err := play(e, m.(wire.Submit)); err != nil {
			return err
		}
		_, err = c.expect(wire.Stop{})
		return err
	}
}

// sends is an encoder that answers its first picture with m.
func sends(m func(wire.Submit) wire.Message) func(*child) error {
	return coder(nil, func(e *openedEncoder, s wire.Submit) error { return e.conn.Send(m(s)) })
}

// codes is an encoder that codes its first picture to coded.
func codes(coded ...byte) func(*child) error {
	return coder(nil, func(e *openedEncoder, s wire.Submit) error {
		n := copy(e.ring, coded)
		return e.conn.Send(wire.Unit{Stamp: s.Stamp, Length: uint32(n)})
	})
}

// serves is a real encoder whose driver is changed.
func serves(open func(hw.EncoderConfig) (hw.Encoder, error)) func(*child) error {
	return func(c *child) error {
		return device.Encoder(context.Background(), c.conn, device.HelloEncoder("changed"), hw.EncoderDriver{Open: open})
	}
}

// encoderScripts are what encoders do.
var encoderScripts = map[string]func(*child) error{
	"is sound": serves(soft.X264().Open),
	"allocates itself": func(c *child) error {
		h := device.HelloEncoder("allocates")
		h.Flags = wire.Allocates | wire.ReadsDMABuf
		return device.Encoder(context.Background(), c.conn, h, soft.X264())
	},
	"aligns to 64 and 16": func(c *child) error {
		h := device.HelloEncoder("aligned")
		for i := range h.Format {
			h.Format[i].StrideAlign, h.Format[i].LinesAlign, h.Format[i].Flags = 64, 16, 0
		}
		return device.Encoder(context.Background(), c.conn, h, soft.X264())
	},

	// hello and open
	"codes nothing":    func(c *child) error { return helloOf(c, func(h *wire.HelloEncoder) { h.Codecs = 0 }) },
	"reads no format":  func(c *child) error { return helloOf(c, func(h *wire.HelloEncoder) { h.Formats = 0 }) },
	"reads 99 formats": func(c *child) error { return helloOf(c, func(h *wire.HelloEncoder) { h.Formats = 99 }) },
	"reads MJPEG": func(c *child) error {
		return helloOf(c, func(h *wire.HelloEncoder) { h.Format[0].Pixel = uint32(hw.MJPEG) })
	},
	"reads no memory":            func(c *child) error { return helloOf(c, func(h *wire.HelloEncoder) { h.Flags = 0 }) },
	"aligns to 3":                func(c *child) error { return helloOf(c, func(h *wire.HelloEncoder) { h.Format[0].StrideAlign = 3 }) },
	"steps by 0":                 func(c *child) error { return helloOf(c, func(h *wire.HelloEncoder) { h.Step = 0 }) },
	"codes from 2 to 1":          func(c *child) error { return helloOf(c, func(h *wire.HelloEncoder) { h.MinWidth, h.MaxWidth = 2, 1 }) },
	"is a camera after all":      scripts["good"],
	"holds no picture":           coder(func(_ *wire.HelloEncoder, o *wire.EncoderOpened) { o.Inflight = 0 }, nil),
	"wants a million in flight":  coder(func(_ *wire.HelloEncoder, o *wire.EncoderOpened) { o.Inflight = 1_000_000 }, func(*openedEncoder, wire.Submit) error { return nil }),
	"lacks its library":          serves(func(hw.EncoderConfig) (hw.Encoder, error) { return nil, hw.ErrMissing }),
	"allocates without a buffer": func(c *child) error { return allocates(c, 0) },
	"allocates one too few":      func(c *child) error { return allocates(c, -1) },

	// at work
	"returns what it has not": sends(func(wire.Submit) wire.Message { return wire.Returned{Index: 9} }),
	"returns far out":         sends(func(wire.Submit) wire.Message { return wire.Returned{Index: 1<<32 - 1} }),
	"returns twice": coder(nil, func(e *openedEncoder, s wire.Submit) error {
		return errors.Join(e.conn.Send(wire.Returned{Index: s.Index}), e.conn.Send(wire.Returned{Index: s.Index}))
	}),
	"sends an empty unit":       sends(func(s wire.Submit) wire.Message { return wire.Unit{Stamp: s.Stamp} }),
	"sends a unit of 4 GB":      sends(func(s wire.Submit) wire.Message { return wire.Unit{Stamp: s.Stamp, Length: 1<<32 - 1} }),
	"sends a unit far out":      sends(func(s wire.Submit) wire.Message { return wire.Unit{Stamp: s.Stamp, Length: 10, Position: 1 << 62} }),
	"sends a unit over the top": sends(func(s wire.Submit) wire.Message { return wire.Unit{Stamp: s.Stamp, Length: 10, Position: 1<<64 - 5} }),
	"sends a unit over the edge": coder(nil, func(e *openedEncoder, s wire.Submit) error {
		return e.conn.Send(wire.Unit{Stamp: s.Stamp, Length: 10, Position: uint64(len(e.ring)) - 5})
	}),
	"sends a unit of nothing": sends(func(s wire.Submit) wire.Message { return wire.Unit{Stamp: s.Stamp + 1, Length: 10} }),
	"sends a unit of zeros":   codes(make([]byte, 100)...),
	"sends no parameter sets": codes(0, 0, 0, 1, 0x65, 1, 2, 3),
	"sends a broken SPS":      codes(0, 0, 0, 1, 0x67, 0xff, 0xff, 0xff, 0xff, 0, 0, 1, 0x68, 1, 0, 0, 1, 0x65, 1),
	"sends frames":            sends(func(wire.Submit) wire.Message { return wire.Frame{} }),
	"says that it has failed": sends(func(wire.Submit) wire.Message { return wire.Error{Code: wire.Gone} }),
	"exits at work":           coder(nil, func(*openedEncoder, wire.Submit) error { os.Exit(7); return nil }),
	"hangs at work":           coder(nil, func(*openedEncoder, wire.Submit) error { return hang() }),
	"codes another size": serves(func(cfg hw.EncoderConfig) (hw.Encoder, error) {
		cfg.Width *= 2
		return soft.X264().Open(cfg)
	}),
	"sends descriptors at work": coder(nil, func(e *openedEncoder, s wire.Submit) error {
		return raw(wire.Append(nil, wire.Returned{Index: s.Index}), rawFD)
	}),
	"swallows every picture": coder(nil, func(e *openedEncoder, s wire.Submit) error {
		for {
			if err := e.conn.Send(wire.Returned{Index: s.Index}); err != nil {
				return err
			}
			m, err := e.expect(wire.Submit{})
			if err != nil {
				return err
			}
			s, _ = m.(wire.Submit)
		}
	}),
	"crashes with a signal": coder(nil, func(*openedEncoder, wire.Submit) error { return unix.Kill(os.Getpid(), unix.SIGKILL) }),
}

// helloOf is an encoder with a changed hello.
func helloOf(c *child, change func(*wire.HelloEncoder)) error {
	return coder(func(h *wire.HelloEncoder, _ *wire.EncoderOpened) { change(h) }, nil)(c)
}

// allocates is an encoder that answers Allocate with too few buffers.
func allocates(c *child, more int) error {
	h := device.HelloEncoder("allocates")
	h.Flags = wire.Allocates | wire.ReadsDMABuf
	if err := c.conn.Send(h); err != nil {
		return err
	}
	m, err := c.expect(wire.Allocate{})
	if err != nil {
		return err
	}
	a, _ := m.(wire.Allocate)
	pool, err := memory.NewPool(a.Layout.Layout(), int(a.Count))
	if err != nil {
		return err
	}
	var fds []int
	for _, b := range pool.Buffers()[:int(a.Count)+more] {
		fds = append(fds, b.FDs[0])
	}
	if more == 0 {
		fds = nil
	}
	return errors.Join(c.conn.Send(wire.Buffers{Count: a.Count, Layout: a.Layout}, fds...), hang())
}
