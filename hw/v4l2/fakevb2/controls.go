package fakevb2

import (
	"encoding/binary"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"encoderd.example/hw/v4l2/uapi"
)

// A Control is a knob of a node. Its value is the node's, or of an encoder each
// opening's own.
type Control struct {
	ID       uint32
	Name     string
	Type     uint32 // uapi.CtrlType…; integer if zero
	Min, Max int64
	Step     int64 // 1 if zero
	Default  int64
	Flags    uint32
	Menu     []string // of a menu; "" is a gap
	Numbers  []int64  // of an integer menu
	Refuse   unix.Errno
}

// A Setting is a control that was set, as it was asked for.
type Setting struct {
	ID    uint32
	Value int64
}

// Settings returns what was set so far, inside [Kernel.Do].
func (n *Node) Settings() []Setting { return slices.Clone(n.settings) }

// SetControl has the driver change the value of a camera's control, and tells
// those who want to know.
func (k *Kernel) SetControl(n *Node, id uint32, value int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	n.shared.values[id] = value
	k.controlChanged(n, id, value, nil)
}

func (k *Kernel) controlChanged(n *Node, id uint32, value int64, by *file) {
	c := n.control(id)
	k.tell(n, uapi.Event{Type: uapi.EventCtrl, ID: id, Data: [16]uint32{
		uapi.EventCtrlValue, c.kind(), uint32(value), uint32(value >> 32), c.Flags, uint32(c.Min), uint32(c.Max), uint32(c.step()), uint32(c.Default),
	}}, by)
}

func (n *Node) control(id uint32) *Control {
	for i := range n.Controls {
		if n.Controls[i].ID == id {
			return &n.Controls[i]
		}
	}
	return nil
}

func (c *Control) kind() uint32 {
	if c.Type == 0 {
		return uapi.CtrlTypeInteger
	}
	return c.Type
}

func (c *Control) step() int64 { return max(c.Step, 1) }

// take says what the driver makes of a value: v4l2-ctrls moves numbers into
// their limits and refuses entries that are not in a menu.
func (c *Control) take(v int64) (int64, error) {
	switch {
	case c.Refuse != 0:
		return 0, c.Refuse
	case c.Flags&uapi.CtrlFlagReadOnly != 0:
		return 0, unix.EACCES
	case c.Flags&uapi.CtrlFlagGrabbed != 0:
		return 0, unix.EBUSY
	}
	switch c.kind() {
	case uapi.CtrlTypeBoolean:
		return min(max(v, -v), 1), nil
	case uapi.CtrlTypeButton:
		return 0, nil
	case uapi.CtrlTypeMenu, uapi.CtrlTypeIntegerMenu:
		switch {
		case v < c.Min || v > c.Max:
			return 0, unix.ERANGE
		case int(v) < len(c.Menu) && c.Menu[v] == "":
			return 0, unix.EINVAL
		}
		return v, nil
	default:
		v = min(max(v, c.Min), c.Max)
		return c.Min + (v-c.Min+c.step()/2)/c.step()*c.step(), nil
	}
}

// set follows S_CTRL for one control.
func (k *Kernel) set(f *file, id uint32, v int64) error {
	c := f.node.control(id)
	if c == nil {
		return unix.EINVAL
	}
	f.node.settings = append(f.node.settings, Setting{id, v})
	taken, err := c.take(v)
	if err != nil {
		return err
	}
	f.inst.values[id] = taken
	if f.inst.job != nil && id == uapi.CIDForceKeyFrame {
		f.inst.job.force = true
	}
	k.controlChanged(f.node, id, taken, f)
	return nil
}

// following returns the control that a query means: the one of that ID, or the
// next one.
func (n *Node) following(id uint32) *Control {
	const next = uapi.CtrlFlagNextCtrl | uapi.CtrlFlagNextCompound
	if id&next == 0 {
		return n.control(id)
	}
	if n.StuckControls && len(n.Controls) > 0 {
		return &n.Controls[0]
	}
	var first *Control
	for i := range n.Controls {
		c := &n.Controls[i]
		compound := c.kind() >= uapi.CtrlTypeCompound
		asked := compound && id&uapi.CtrlFlagNextCompound != 0 || !compound && id&uapi.CtrlFlagNextCtrl != 0
		if asked && c.ID > id&^next && (first == nil || c.ID < first.ID) {
			first = c
		}
	}
	return first
}

func (k *Kernel) queryExtCtrl(f *file, arg *uapi.ExtCtrlDesc) error {
	if f.node.OldControls {
		return unix.ENOTTY
	}
	c := f.node.following(arg.ID)
	if c == nil {
		return unix.EINVAL
	}
	*arg = uapi.ExtCtrlDesc{
		ID: c.ID, Type: c.kind(), Minimum: c.Min, Maximum: c.Max, Step: uint64(c.step()), Default: c.Default,
		Flags: c.Flags, ElemSize: 4, Elems: 1,
	}
	copy(arg.Name[:], c.Name)
	return nil
}

func (k *Kernel) queryCtrl(f *file, arg *uapi.CtrlDesc) error {
	c := f.node.following(arg.ID)
	if c == nil {
		return unix.EINVAL
	}
	*arg = uapi.CtrlDesc{
		ID: c.ID, Type: c.kind(), Minimum: int32(c.Min), Maximum: int32(c.Max), Step: int32(c.step()), Default: int32(c.Default), Flags: c.Flags,
	}
	copy(arg.Name[:], c.Name)
	return nil
}

func (k *Kernel) queryMenu(f *file, arg *uapi.MenuEntry) error {
	c := f.node.control(arg.ID)
	i := int(arg.Index)
	switch {
	case c == nil, int64(i) < c.Min, int64(i) > c.Max:
		return unix.EINVAL
	case i < len(c.Menu) && c.Menu[i] != "":
		arg.Name = [32]byte{}
		copy(arg.Name[:], c.Menu[i])
		return nil
	case i < len(c.Numbers):
		arg.Name = [32]byte{}
		binary.NativeEndian.PutUint64(arg.Name[:], uint64(c.Numbers[i]))
		return nil
	default:
		return unix.EINVAL
	}
}

// list is the kernel's view of a pointer that user space stored as a number.
func list(arg *uapi.ExtControls) []uapi.ExtControl {
	return unsafe.Slice(*(**uapi.ExtControl)(unsafe.Pointer(&arg.Controls)), arg.Count) //nolint:gosec // user space vouches for its size
}

// check follows check_ext_ctrls: all must be of the class that is named.
func (n *Node) check(arg *uapi.ExtControls) error {
	if n.OldControls {
		return unix.ENOTTY
	}
	for i, c := range list(arg) {
		if n.control(c.ID) == nil || arg.Class != 0 && c.ID&uapi.CtrlClassMask != arg.Class {
			arg.ErrorIdx = uint32(i)
			return unix.EINVAL
		}
	}
	return nil
}

func (k *Kernel) getExtCtrls(f *file, arg *uapi.ExtControls) error {
	if err := f.node.check(arg); err != nil {
		return err
	}
	for i, c := range list(arg) {
		if f.node.control(c.ID).Flags&uapi.CtrlFlagWriteOnly != 0 {
			return unix.EACCES
		}
		f.put(&list(arg)[i])
	}
	return nil
}

// put writes the current value into c: of 32 bits only the lower half of the
// union.
func (f *file) put(c *uapi.ExtControl) {
	v := f.inst.values[c.ID]
	if f.node.control(c.ID).kind() != uapi.CtrlTypeInteger64 {
		v = c.Value64()&^0xffffffff | int64(uint32(v))
	}
	c.SetValue(v)
}

func (k *Kernel) setExtCtrls(f *file, arg *uapi.ExtControls) error {
	if err := f.node.check(arg); err != nil {
		return err
	}
	for i, c := range list(arg) {
		v := c.Value64()
		if f.node.control(c.ID).kind() != uapi.CtrlTypeInteger64 {
			v = int64(c.Value())
		}
		if err := k.set(f, c.ID, v); err != nil {
			arg.ErrorIdx = uint32(i)
			return err
		}
		f.put(&list(arg)[i])
	}
	return nil
}

func (k *Kernel) getCtrl(f *file, arg *uapi.Control) error {
	if f.node.control(arg.ID) == nil {
		return unix.EINVAL
	}
	arg.Value = int32(f.inst.values[arg.ID])
	return nil
}

func (k *Kernel) setCtrl(f *file, arg *uapi.Control) error {
	if err := k.set(f, arg.ID, int64(arg.Value)); err != nil {
		return err
	}
	arg.Value = int32(f.inst.values[arg.ID])
	return nil
}
