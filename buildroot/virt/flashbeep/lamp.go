//go:build board && (arm64 || amd64)

package main

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// linux/videodev2.h
const (
	cidBrightness = 0x00980900 // V4L2_CID_BRIGHTNESS
	queryCtrl     = 0xc0445624 // VIDIOC_QUERYCTRL, struct v4l2_queryctrl
	sCtrl         = 0xc008561c // VIDIOC_S_CTRL, struct v4l2_control
)

type v4l2Control struct {
	id    uint32
	value int32
}

type v4l2QueryCtrl struct {
	id               uint32
	_                [36]byte // type, name
	minimum, maximum int32
	_                int32
	defaultValue     int32
	_                [3]uint32
}

// lamp is the brightness of a vivid camera, whose picture the light is. It
// shares the camera with whoever captures from it.
type lamp struct {
	fd           int
	dark, bright int32
	before       int32
}

func openLamp(device string) (*lamp, error) {
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", device, err)
	}
	// The range depends on the input: vivid has one brightness for each.
	q := v4l2QueryCtrl{id: cidBrightness}
	if err := ioctl(fd, queryCtrl, &q); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("%s has no brightness (%w): is it vivid?", device, err)
	}
	l := &lamp{fd: fd, dark: q.minimum, bright: q.maximum, before: q.defaultValue}
	if err := l.set(l.dark); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *lamp) set(value int32) error {
	c := v4l2Control{id: cidBrightness, value: value}
	if err := ioctl(l.fd, sCtrl, &c); err != nil {
		return fmt.Errorf("set the brightness to %d: %w", value, err)
	}
	return nil
}

func (l *lamp) close() {
	_ = l.set(l.before)
	_ = unix.Close(l.fd)
}

// ioctl hands the kernel a struct of the layout that request names.
func ioctl[T any](fd int, request uintptr, arg *T) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(arg))) //nolint:gosec // that is how ioctl works
	if errno != 0 {
		return errno
	}
	return nil
}
