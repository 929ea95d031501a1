package v4l2

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/uapi"
)

// A Device is an open video node and the event descriptor that ends its waits.
// It owns both. Calls may come from any goroutine, Wait from one at a time;
// nothing may run beside or after Close except the unmapping of its buffers.
type Device struct {
	sys  Sys
	path string
	fd   int
	wake int // eventfd
}

// OpenDevice opens the node at path. The error wraps [hw.ErrGone] or
// [hw.ErrBusy] where that is the reason.
func OpenDevice(sys Sys, path string) (*Device, error) {
	fd, err := sys.Open(path)
	if err != nil {
		return nil, explain("open", path, err)
	}
	wake, err := sys.Eventfd()
	if err != nil {
		_ = sys.Close(fd) // nothing was set up yet
		return nil, fmt.Errorf("make an event descriptor for %s: %w", path, err)
	}
	return &Device{sys: sys, path: path, fd: fd, wake: wake}, nil
}

// Path returns the name of the node.
func (d *Device) Path() string { return d.path }

// Ioctl makes one call and repeats it if a signal broke it. req and arg belong
// together as in package uapi; what says in an error what was tried.
func Ioctl[T any](d *Device, what string, req uintptr, arg *T) error {
	for {
		err := d.sys.Ioctl(d.fd, req, unsafe.Pointer(arg)) //nolint:gosec // the one place where a struct of the ABI goes to the kernel
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EINTR):
			return explain(what, d.path, err)
		}
	}
}

// Wait waits for events (unix.POLLIN, POLLPRI …) of the device and returns
// those that came; none if Interrupt ended the wait.
func (d *Device) Wait(ctx context.Context, events int16) (int16, error) {
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		d.Interrupt()
	})
	came, err := d.poll(events)
	if !stop() {
		<-woken
		if err := d.drain(); err != nil {
			return 0, err
		}
		return 0, context.Cause(ctx)
	}
	return came, err
}

func (d *Device) poll(events int16) (int16, error) {
	fds := []unix.PollFd{{Fd: int32(d.fd), Events: events}, {Fd: int32(d.wake), Events: unix.POLLIN}}
	for {
		err := d.sys.Poll(fds)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, explain("wait for", d.path, err)
		case fds[1].Revents != 0:
			return fds[0].Revents, d.drain()
		default:
			return fds[0].Revents, nil
		}
	}
}

// Interrupt ends the Wait that runs, or else the next one.
func (d *Device) Interrupt() {
	// It can only fail when the counter is full: then the wait ends anyway.
	_ = d.sys.Notify(d.wake)
}

func (d *Device) drain() error {
	if err := d.sys.Drain(d.wake); err != nil {
		return fmt.Errorf("read the event descriptor of %s: %w", d.path, err)
	}
	return nil
}

// Close closes both descriptors. Buffers must be given back before.
func (d *Device) Close() error {
	var errs []error
	for _, fd := range []int{d.fd, d.wake} {
		// After EINTR the descriptor is closed all the same (close(2)).
		if err := d.sys.Close(fd); err != nil && !errors.Is(err, unix.EINTR) {
			errs = append(errs, fmt.Errorf("close %s: %w", d.path, err))
		}
	}
	return errors.Join(errs...)
}

// Info says what a node is.
type Info struct {
	Driver, Card, BusInfo string
	Caps                  uint32 // of this node, not of its whole driver
}

// Info asks the driver what the node is.
func (d *Device) Info() (Info, error) {
	var c uapi.Capability
	if err := Ioctl(d, "ask for the capabilities of", uapi.QueryCap, &c); err != nil {
		return Info{}, err
	}
	caps := c.Capabilities
	if caps&uapi.CapDeviceCaps != 0 {
		caps = c.DeviceCaps
	}
	return Info{Driver: text(c.Driver[:]), Card: text(c.Card[:]), BusInfo: text(c.BusInfo[:]), Caps: caps}, nil
}

// An InputInfo says what an input of a node is and how it fares.
type InputInfo struct {
	Index        int
	Name         string
	Type         uint32 // uapi.InputType…
	Status       uint32 // uapi.InStatus…; only that of the selected input is true
	Capabilities uint32 // uapi.InCap…
}

// HasTimings says that it is a digital input such as HDMI.
func (i InputInfo) HasTimings() bool { return i.Capabilities&uapi.InCapDVTimings != 0 }

// HasSignal says that nothing speaks against a signal. It is worth something on
// the selected input only, and there drivers differ: a picture is the proof.
func (i InputInfo) HasSignal() bool {
	const bad = uapi.InStatusNoPower | uapi.InStatusNoSignal | uapi.InStatusNoSync | uapi.InStatusNoHLock | uapi.InStatusNoVLock | uapi.InStatusNoCarrier
	return i.Status&bad == 0
}

// EnumInput describes one input. The error wraps [unix.EINVAL] if there is no
// such input, and [unix.ENOTTY] if the node has none.
func (d *Device) EnumInput(index int) (InputInfo, error) {
	in := uapi.Input{Index: uint32(index)}
	if err := Ioctl(d, "describe an input of", uapi.EnumInput, &in); err != nil {
		return InputInfo{}, err
	}
	return InputInfo{index, text(in.Name[:]), in.Type, in.Status, in.Capabilities}, nil
}

// maxInputs bounds the lists of drivers.
const maxInputs = 32

// Inputs lists the inputs of the node.
func (d *Device) Inputs() ([]InputInfo, error) {
	var list []InputInfo
	for i := range maxInputs {
		in, err := d.EnumInput(i)
		more, err := entry(err)
		if err != nil || !more {
			return list, err
		}
		list = append(list, in)
	}
	return list, nil
}

// Input returns the number of the input that is selected.
func (d *Device) Input() (int, error) {
	var n int32
	err := Ioctl(d, "ask for the input of", uapi.GetInput, &n)
	return int(n), err
}

// SetInput selects an input. It may reset format, rate and timings.
func (d *Device) SetInput(index int) error {
	n := int32(index)
	return Ioctl(d, "select the input of", uapi.SetInput, &n)
}

// EncoderStop has an encoder finish what it has and mark the last buffer. The
// error wraps [hw.ErrBusy] while it already does so, and [unix.ENOTTY] if it
// knows no such order.
func (d *Device) EncoderStop() error {
	return Ioctl(d, "drain", uapi.EncoderCmd, &uapi.EncoderCommand{Command: uapi.EncoderStop})
}

// SetOutputRate tells an encoder how fast pictures will come on its output
// queue, whose buffer type is typ, and returns what it made of that.
func (d *Device) SetOutputRate(typ uint32, r hw.Rate) (hw.Rate, error) {
	p := uapi.StreamParm{Type: typ, TimePerFrame: uapi.Fract{Num: uint32(r.Den), Den: uint32(r.Num)}}
	if err := Ioctl(d, "set the frame rate of", uapi.SetParm, &p); err != nil {
		return hw.Rate{}, err
	}
	return rateOf(p.TimePerFrame), nil
}

// text cuts a C string at its end.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

// explain puts an error of the kernel into words that callers can act on; the
// errno stays inside.
func explain(what, path string, err error) error {
	switch {
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENOENT) && what == "open":
		return fmt.Errorf("%s %s: %w (%w)", what, path, hw.ErrGone, err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%s %s: another program uses it: %w (%w)", what, path, hw.ErrBusy, err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%s %s: %w: add the daemon's user to the group that owns the node (video)", what, path, err)
	default:
		return fmt.Errorf("%s %s: %w", what, path, err)
	}
}
