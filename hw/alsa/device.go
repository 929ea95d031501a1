package alsa

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
)

// A device is an open PCM node and the bell that wakes who waits for it.
type device struct {
	sys  system
	fd   int
	bell int
}

func (c *Card) openDevice() (*device, error) {
	fd, err := c.openNode()
	if err != nil {
		return nil, meaning(err)
	}
	bell, err := c.sys.newBell()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make an eventfd: %w", err), c.sys.close(fd))
	}
	return &device{sys: c.sys, fd: fd, bell: bell}, nil
}

func (d *device) close() error {
	return errors.Join(d.sys.close(d.fd), d.sys.close(d.bell))
}

func (d *device) ioctl(request uint, arg unsafe.Pointer) error {
	return d.sys.ioctl(d.fd, request, arg)
}

func (c *Card) node(form string, numbers ...any) string {
	return filepath.Join(c.root, "dev/snd", fmt.Sprintf(form, numbers...))
}

// openNode opens the PCM node. A subdevice is chosen by a wish at the card's
// control node, which the kernel grants to the thread that made it while that
// node is open.
func (c *Card) openNode() (fd int, err error) {
	if c.sub < 0 {
		return c.sys.open(c.node("pcmC%dD%dc", c.number, c.device))
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	control, err := c.sys.open(c.node("controlC%d", c.number))
	if err != nil {
		return -1, err
	}
	defer func() { err = errors.Join(err, c.sys.close(control)) }()
	sub := int32(c.sub)
	if err := c.sys.ioctl(control, ioPreferSub, unsafe.Pointer(&sub)); err != nil { //nolint:gosec // an ioctl takes an address
		return -1, err
	}
	fd, err = c.sys.open(c.node("pcmC%dD%dc", c.number, c.device))
	if err != nil {
		return -1, err
	}
	var info pcmInfo
	if err = c.sys.ioctl(fd, ioPCMInfo, unsafe.Pointer(&info)); err == nil && info.subdevice != uint32(sub) { //nolint:gosec // an ioctl takes an address
		err = fmt.Errorf("no subdevice %d: %w", sub, hw.ErrUnsupported)
	}
	if err != nil {
		return -1, errors.Join(err, c.sys.close(fd))
	}
	return fd, nil
}

// start brings a card that is open, stopped or overrun to run.
func (d *device) start() error {
	if err := d.ioctl(ioPrepare, nil); err != nil {
		return fmt.Errorf("prepare capture: %w", meaning(err))
	}
	if err := d.ioctl(ioStart, nil); err != nil {
		return fmt.Errorf("start capture: %w", meaning(err))
	}
	return nil
}

// status returns the state and, while the card runs, the stamp of the next
// sample frame to be read and how many wait. The kernel takes position and
// time in one step.
func (d *device) status() (pcmStatus, error) {
	var st pcmStatus
	err := d.ioctl(ioStatusExt, unsafe.Pointer(&st)) //nolint:gosec // an ioctl takes an address
	return st, err
}

func (s *pcmStatus) stampOfNext(rate int) time.Duration {
	now := time.Duration(s.tstamp.sec)*time.Second + time.Duration(s.tstamp.nsec)
	return now - time.Duration(s.avail)*time.Second/time.Duration(rate)
}

// readFrames reads up to frames sample frames into buf and never waits.
func (d *device) readFrames(buf []byte, frames int) (int, error) {
	x := xferi{buf: unsafe.Pointer(unsafe.SliceData(buf)), frames: uint(frames)} //nolint:gosec // buf lives as long as x
	err := d.ioctl(ioReadFrames, unsafe.Pointer(&x))                             //nolint:gosec // an ioctl takes an address
	return x.result, err
}

// wait returns once the card has something to say, the bell has rung, ctx has
// ended or the time is over (false). Its error is the cause of ctx.
func (d *device) wait(ctx context.Context, timeout time.Duration) (bool, error) {
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		d.sys.ring(d.bell)
		close(done)
	})
	events, rung, err := d.sys.poll(d.fd, d.bell, timeout)
	if !stop() {
		<-done // it uses the descriptor
		d.sys.unring(d.bell)
		return false, context.Cause(ctx)
	}
	if err != nil {
		return false, fmt.Errorf("wait for sound: %w", meaning(err))
	}
	if events&unix.POLLNVAL != 0 {
		return false, hw.ErrGone
	}
	return events != 0 || rung, nil
}

// meaning puts the words of package hw to an error of the kernel.
func meaning(err error) error {
	switch {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EAGAIN):
		return fmt.Errorf("another program uses it, stop that one or choose another card: %w", hw.ErrBusy)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENXIO):
		return hw.ErrGone
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("not allowed, add the service's user to the group audio: %w", err)
	default:
		return err
	}
}
