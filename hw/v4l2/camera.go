package v4l2

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/uapi"
)

// How many buffers a capture asks for, and how few it can live with: one at
// the driver, one at the reader. Encoders hold two or three, and the picture
// that is repeated when the camera stops is another.
const (
	wantBuffers = 6
	minBuffers  = 2
)

// A Camera is a video capture node; it implements [hw.Camera]. It holds no
// descriptor between calls and may be used from any goroutine.
type Camera struct {
	sys   Sys
	log   *slog.Logger
	now   func() time.Duration
	id    string
	name  string
	path  string
	typ   uint32 // the buffer type that the node captures to
	input int    // -1 leaves it as it is
}

// ID implements [hw.Camera]: "v4l2:" and then the link below /dev/v4l/by-path,
// or, without one, the name of the place on the bus.
func (c *Camera) ID() string { return c.id }

// Name implements [hw.Camera]: what the driver calls the card.
func (c *Camera) Name() string { return c.name }

// Path returns the device node, such as /dev/video0. Numbers are given out
// anew at every boot.
func (c *Camera) Path() string { return c.path }

// Input returns the same camera, set to one of its inputs when it is opened.
// Without it a camera keeps the input that is selected.
func (c *Camera) Input(n int) *Camera {
	other := *c
	other.input = n
	other.id = fmt.Sprintf("%s#%d", c.id, n)
	return &other
}

// Modes implements [hw.Camera]. Of ranges it lists common sizes and rates.
func (c *Camera) Modes() (_ []hw.Mode, err error) {
	d, err := OpenDevice(c.sys, c.path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := c.selectInput(d); err != nil {
		return nil, err
	}
	offers, err := listOffers(d, c.typ, hw.Mode{})
	if err != nil {
		return nil, err
	}
	var modes []hw.Mode
	seen := map[hw.Mode]bool{}
	for _, o := range offers {
		if !seen[o.Mode] {
			seen[o.Mode] = true
			modes = append(modes, o.Mode)
		}
	}
	return modes, nil
}

// Open implements [hw.Camera].
//
// open → input → list → choose → format → rate → buffers → queue all → start
func (c *Camera) Open(ctx context.Context, want hw.Mode) (hw.CameraStream, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	d, err := OpenDevice(c.sys, c.path)
	if err != nil {
		return nil, err
	}
	s, err := c.start(d, want)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return s, nil
}

// start brings an open device to streaming. On error the device is as it was.
func (c *Camera) start(d *Device, want hw.Mode) (*cameraStream, error) {
	if err := c.selectInput(d); err != nil {
		return nil, err
	}
	offers, err := listOffers(d, c.typ, want)
	if err != nil {
		return nil, err
	}
	chosen, err := nearest(offers, want)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", c.path, err)
	}
	mode, planes, err := c.setMode(d, chosen)
	if err != nil {
		return nil, err
	}
	split := 0
	if multiplanar(c.typ) {
		split = chosen.split
	}
	q, err := NewQueue(d, c.typ, wantBuffers, split)
	if err != nil {
		return nil, err
	}
	s, err := newStream(c, d, q, mode, planes)
	if err == nil {
		err = s.run()
	}
	if err != nil {
		return nil, errors.Join(err, q.Discard())
	}
	return s, nil
}

func (c *Camera) selectInput(d *Device) error {
	if c.input < 0 {
		return nil
	}
	n := int32(c.input)
	return Ioctl(d, "select the input of", uapi.SetInput, &n)
}

// setMode asks for o and returns what was granted. The format comes first: it
// may reset the rate.
func (c *Camera) setMode(d *Device, o offer) (hw.Mode, []plane, error) {
	fail := func(err error) (hw.Mode, []plane, error) {
		return hw.Mode{}, nil, fmt.Errorf("set %s to %s: %w", c.path, o, err)
	}
	var f uapi.Format
	wish(&f, c.typ, o.code, o.Width, o.Height)
	if err := Ioctl(d, "set the format of", uapi.SetFmt, &f); err != nil {
		return hw.Mode{}, nil, err
	}
	g, err := granted(&f)
	switch {
	case err != nil:
		return fail(err)
	case g.code != o.code:
		return fail(fmt.Errorf("the driver gives %s instead: %w", g.code, hw.ErrUnsupported))
	case len(g.mems) != o.split:
		return fail(fmt.Errorf("the driver gives %d memory planes instead of %d: %w", len(g.mems), o.split, hw.ErrUnsupported))
	case g.field == uapi.FieldAlternate:
		return fail(fmt.Errorf("the input is interlaced with a buffer for each half picture: %w", hw.ErrUnsupported))
	case g.width < 1 || g.height < 1:
		return fail(fmt.Errorf("the driver gives an empty picture: %w", hw.ErrUnsupported))
	}
	m := hw.Mode{Pixel: o.pixel, Width: g.width, Height: g.height, FullRange: g.fullRange()}
	if m.FPS, err = setRate(d, c.typ, o.FPS); err != nil {
		return hw.Mode{}, nil, err
	}
	planes, err := layout(o.format, m, g.mems)
	if err != nil {
		return fail(err)
	}
	return m, planes, nil
}

// setRate asks for a rate and returns the one that the driver then tells, zero
// if it tells none.
func setRate(d *Device, typ uint32, want hw.Rate) (hw.Rate, error) {
	p := uapi.StreamParm{Type: typ}
	ok, err := entry(Ioctl(d, "ask for the frame rate of", uapi.GetParm, &p))
	if err != nil || !ok {
		return hw.Rate{}, err
	}
	if want.Num > 0 && p.Capability&uapi.CapTimePerFrame != 0 {
		p = uapi.StreamParm{Type: typ, TimePerFrame: uapi.Fract{Num: uint32(want.Den), Den: uint32(want.Num)}}
		if _, err := entry(Ioctl(d, "set the frame rate of", uapi.SetParm, &p)); err != nil {
			return hw.Rate{}, err
		}
	}
	return rateOf(p.TimePerFrame), nil
}
