package v4l2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/uapi"
)

// A Control is a knob of a driver.
type Control struct {
	ID             uint32 // uapi.CID…, or of the driver's own
	Name           string // as the driver says; the only way to find those of its own
	Type           uint32 // uapi.CtrlType…
	Min, Max, Step int64
	Default        int64
	Flags          uint32 // uapi.CtrlFlag…
}

// maxControls bounds the walk of drivers whose lists never end.
const maxControls = 1024

// Controls lists the controls of the device in the order of their IDs, without
// headings and those that are switched off. It is empty if the device has none.
func (d *Device) Controls() ([]Control, error) {
	var list []Control
	last := uint32(0)
	for range maxControls {
		c, err := d.query(last | uapi.CtrlFlagNextCtrl | uapi.CtrlFlagNextCompound)
		more, err := entry(err)
		switch {
		case err != nil || !more:
			return list, err
		case c.ID <= last:
			return list, fmt.Errorf("list the controls of %s: the driver names %#x after %#x", d.path, c.ID, last)
		case c.Type != uapi.CtrlTypeClass && c.Flags&uapi.CtrlFlagDisabled == 0:
			list = append(list, c)
		}
		last = c.ID
	}
	return list, nil
}

// query describes one control, or the next one if id says so.
func (d *Device) query(id uint32) (Control, error) {
	q := uapi.ExtCtrlDesc{ID: id}
	err := Ioctl(d, "ask for a control of", uapi.QueryExtCtrl, &q)
	if errors.Is(err, unix.ENOTTY) {
		return d.queryOld(id &^ uapi.CtrlFlagNextCompound)
	}
	if err != nil {
		return Control{}, err
	}
	return Control{q.ID, text(q.Name[:]), q.Type, q.Minimum, q.Maximum, int64(q.Step), q.Default, q.Flags}, nil
}

// queryOld is query for drivers without the extended calls.
func (d *Device) queryOld(id uint32) (Control, error) {
	q := uapi.CtrlDesc{ID: id}
	if err := Ioctl(d, "ask for a control of", uapi.QueryCtrl, &q); err != nil {
		return Control{}, err
	}
	return Control{q.ID, text(q.Name[:]), q.Type, int64(q.Minimum), int64(q.Maximum), int64(q.Step), int64(q.Default), q.Flags}, nil
}

// An extRequest is a list of one control. It must be on the heap, as head
// points to one.
type extRequest struct {
	head uapi.ExtControls
	one  uapi.ExtControl
}

func newExtRequest(id uint32, v int64) *extRequest {
	r := &extRequest{head: uapi.ExtControls{Class: id & uapi.CtrlClassMask, Count: 1}, one: uapi.ExtControl{ID: id}}
	r.one.SetValue(v)
	r.head.Controls = uintptr(unsafe.Pointer(&r.one)) //nolint:gosec // the kernel takes it as a number; r holds what it points to
	return r
}

// GetControl returns the value of a control that is a number. The error wraps
// [hw.ErrUnsupported] if the device has no such control.
func (d *Device) GetControl(id uint32) (int64, error) {
	c, err := d.query(id)
	if err != nil {
		return 0, explainControl("read", id, err)
	}
	r := newExtRequest(id, 0)
	err = Ioctl(d, "read a control of", uapi.GetExtCtrls, &r.head)
	if errors.Is(err, unix.ENOTTY) {
		old := uapi.Control{ID: id}
		err = Ioctl(d, "read a control of", uapi.GetCtrl, &old)
		return int64(old.Value), explainControl("read", id, err)
	}
	if c.Type == uapi.CtrlTypeInteger64 {
		return r.one.Value64(), explainControl("read", id, err)
	}
	return int64(r.one.Value()), explainControl("read", id, err)
}

// SetControl sets a control that is a number, or presses a button whatever v
// is. Most drivers move v into their limits and say nothing: read it back. The
// error wraps [hw.ErrUnsupported] if the device has no such control or cannot
// take v, and [hw.ErrBusy] if it cannot be changed now.
func (d *Device) SetControl(id uint32, v int64) error {
	r := newExtRequest(id, v)
	err := Ioctl(d, "set a control of", uapi.SetExtCtrls, &r.head)
	if errors.Is(err, unix.ENOTTY) {
		err = Ioctl(d, "set a control of", uapi.SetCtrl, &uapi.Control{ID: id, Value: int32(v)})
	}
	return explainControl("set", id, err)
}

// explainControl says which control it was, and what refusals mean.
func explainControl(what string, id uint32, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOTTY), errors.Is(err, unix.ERANGE):
		return fmt.Errorf("%s control %#x: %w: %w", what, id, hw.ErrUnsupported, err)
	default:
		return fmt.Errorf("%s control %#x: %w", what, id, err)
	}
}

// Menu returns an entry of a control of a menu type: its words, or the number
// of an integer menu. The error wraps [unix.EINVAL] if there is no such entry:
// menus may have gaps between Min and Max.
func (d *Device) Menu(id uint32, index int) (string, error) {
	c, err := d.query(id)
	if err != nil {
		return "", explainControl("read", id, err)
	}
	m := uapi.MenuEntry{ID: id, Index: uint32(index)}
	if err := Ioctl(d, "read a menu of", uapi.QueryMenu, &m); err != nil {
		return "", err
	}
	if c.Type == uapi.CtrlTypeIntegerMenu {
		return fmt.Sprint(int64(binary.NativeEndian.Uint64(m.Name[:]))), nil
	}
	return text(m.Name[:]), nil
}
