package fakevb2

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/uapi"
)

// A call is one that a node serves.
type call struct {
	name  string // as Calls returns it
	on    kind   // who answers it
	serve func(*Kernel, *file, unsafe.Pointer) error
}

// A kind is a set of kinds of nodes.
type kind int

const (
	video kind = 1 << iota
	subdev
	media
)

// kind says which a node is.
func (n *Node) kind() kind {
	switch {
	case n.Media != nil:
		return media
	case n.Subdev:
		return subdev
	default:
		return video
	}
}

// of types the argument of a call.
func of[T any](serve func(*Kernel, *file, *T) error) func(*Kernel, *file, unsafe.Pointer) error {
	return func(k *Kernel, f *file, arg unsafe.Pointer) error { return serve(k, f, (*T)(arg)) }
}

// calls are all that nodes serve; what an individual node has not is ENOTTY.
var calls = map[uintptr]call{
	uapi.QueryCap:           {"querycap", video, of((*Kernel).querycap)},
	uapi.EnumFmt:            {"enum_fmt", video, of((*Kernel).enumFmt)},
	uapi.EnumFrameSizes:     {"enum_framesizes", video, of((*Kernel).enumSizes)},
	uapi.EnumFrameIntervals: {"enum_frameintervals", video, of((*Kernel).enumIntervals)},
	uapi.GetFmt:             {"g_fmt", video, of((*Kernel).getFmt)},
	uapi.SetFmt:             {"s_fmt", video, of((*Kernel).setFmt)},
	uapi.TryFmt:             {"try_fmt", video, of((*Kernel).tryFmt)},
	uapi.GetParm:            {"g_parm", video, of((*Kernel).getParm)},
	uapi.SetParm:            {"s_parm", video, of((*Kernel).setParm)},
	uapi.GetSelection:       {"g_selection", video, of((*Kernel).getSelection)},
	uapi.SetSelection:       {"s_selection", video, of((*Kernel).setSelection)},

	uapi.EnumInput:        {"enuminput", video, of((*Kernel).enumInput)},
	uapi.GetInput:         {"g_input", video, of((*Kernel).getInput)},
	uapi.SetInput:         {"s_input", video, of((*Kernel).setInput)},
	uapi.QueryDVTimings:   {"query_dv_timings", video | subdev, of((*Kernel).queryTimings)},
	uapi.GetDVTimings:     {"g_dv_timings", video | subdev, of((*Kernel).getTimings)},
	uapi.SetDVTimings:     {"s_dv_timings", video | subdev, of((*Kernel).setTimings)},
	uapi.EnumDVTimings:    {"enum_dv_timings", video | subdev, of((*Kernel).enumTimings)},
	uapi.GetEDID:          {"g_edid", video | subdev, of((*Kernel).getEDID)},
	uapi.SetEDID:          {"s_edid", video | subdev, of((*Kernel).setEDID)},
	uapi.SubscribeEvent:   {"subscribe_event", video | subdev, of((*Kernel).subscribe)},
	uapi.UnsubscribeEvent: {"unsubscribe_event", video | subdev, of((*Kernel).unsubscribe)},
	uapi.DQEvent:          {"dqevent", video | subdev, of((*Kernel).dqevent)},

	uapi.PadEnumCodes:     {"enum_mbus_code", subdev, of((*Kernel).enumCodes)},
	uapi.PadGetFmt:        {"subdev_g_fmt", subdev, of((*Kernel).getPad)},
	uapi.PadSetFmt:        {"subdev_s_fmt", subdev, of((*Kernel).setPad)},
	uapi.PadEnumSizes:     {"enum_frame_size", subdev, of((*Kernel).enumPadSizes)},
	uapi.PadEnumIntervals: {"enum_frame_interval", subdev, of((*Kernel).enumPadIntervals)},
	uapi.PadGetInterval:   {"g_frame_interval", subdev, of((*Kernel).getPadInterval)},
	uapi.PadSetInterval:   {"s_frame_interval", subdev, of((*Kernel).setPadInterval)},

	uapi.MediaGetTopology: {"g_topology", media, of((*Kernel).topology)},
	uapi.MediaSetupLink:   {"setup_link", media, of((*Kernel).setupLink)},

	uapi.QueryExtCtrl: {"query_ext_ctrl", video | subdev, of((*Kernel).queryExtCtrl)},
	uapi.QueryCtrl:    {"queryctrl", video | subdev, of((*Kernel).queryCtrl)},
	uapi.QueryMenu:    {"querymenu", video | subdev, of((*Kernel).queryMenu)},
	uapi.GetExtCtrls:  {"g_ext_ctrls", video | subdev, of((*Kernel).getExtCtrls)},
	uapi.SetExtCtrls:  {"s_ext_ctrls", video | subdev, of((*Kernel).setExtCtrls)},
	uapi.GetCtrl:      {"g_ctrl", video | subdev, of((*Kernel).getCtrl)},
	uapi.SetCtrl:      {"s_ctrl", video | subdev, of((*Kernel).setCtrl)},

	uapi.ReqBufs:    {"reqbufs", video, of((*Kernel).reqbufs)},
	uapi.QueryBuf:   {"querybuf", video, of((*Kernel).querybuf)},
	uapi.ExpBuf:     {"expbuf", video, of((*Kernel).expbuf)},
	uapi.QBuf:       {"qbuf", video, of((*Kernel).qbuf)},
	uapi.DQBuf:      {"dqbuf", video, of((*Kernel).dqbuf)},
	uapi.StreamOn:   {"streamon", video, of((*Kernel).streamon)},
	uapi.StreamOff:  {"streamoff", video, of((*Kernel).streamoff)},
	uapi.EncoderCmd: {"encoder_cmd", video, of((*Kernel).encoderCmd)},
}

// Ioctl serves the calls that nodes answer.
func (k *Kernel) Ioctl(fd int, req uintptr, arg unsafe.Pointer) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if b, ok := k.fds[fd].(*dmabuf); ok && req == hw.SyncDMABuf {
		return k.access(b, *(*uint64)(arg))
	}
	c, known := calls[req]
	if err := k.call(c.name); err != nil {
		return err
	}
	f, ok := k.fds[fd].(*file)
	if ok {
		k.lock(f.node)
	}
	switch {
	case !ok:
		return unix.EBADF
	case f.gone():
		return unix.ENODEV
	case !known, c.on&f.node.kind() == 0:
		return unix.ENOTTY
	case f.node.Refuse[c.name] != 0:
		return f.node.Refuse[c.name]
	}
	defer k.moved.Broadcast()
	return c.serve(k, f, arg)
}

func (k *Kernel) reqbufs(f *file, arg *uapi.RequestBuffers) error {
	s := f.inst.side(arg.Type)
	switch {
	case s == nil:
		return unix.EINVAL
	case arg.Memory != uapi.MemoryMMAP && arg.Memory != uapi.MemoryDMABUF:
		return unix.EINVAL
	case arg.Memory == uapi.MemoryDMABUF && f.node.NoImport:
		return unix.EINVAL
	}
	if n := f.node.MostBuffers; n > 0 {
		arg.Count = min(arg.Count, uint32(n))
	}
	if arg.Count > 0 {
		arg.Count = max(arg.Count, uint32(s.least))
	}
	arg.Capabilities = uapi.BufCapMMAP | uapi.BufCapOrphanedBufs
	if !f.node.NoImport {
		arg.Capabilities |= uapi.BufCapDMABUF
	}
	return s.reqbufs(f, arg.Memory, int(arg.Count), s.sizes())
}

func (k *Kernel) querybuf(f *file, arg *uapi.Buffer) error {
	if s := f.inst.side(arg.Type); s != nil {
		return s.querybuf(arg)
	}
	return unix.EINVAL
}

func (k *Kernel) expbuf(f *file, arg *uapi.ExportBuffer) error {
	if s := f.inst.side(arg.Type); s != nil {
		return s.export(k, arg)
	}
	return unix.EINVAL
}

func (k *Kernel) qbuf(f *file, arg *uapi.Buffer) error {
	if f.node.RefuseQBuf > 0 {
		f.node.RefuseQBuf--
		return unix.EINVAL
	}
	if s := f.inst.side(arg.Type); s != nil {
		return s.qbuf(k, f, arg)
	}
	return unix.EINVAL
}

func (k *Kernel) dqbuf(f *file, arg *uapi.Buffer) error {
	if s := f.inst.side(arg.Type); s != nil {
		return s.dqbuf(f, arg)
	}
	return unix.EINVAL
}

func (k *Kernel) streamon(f *file, typ *int32) error {
	s := f.inst.side(uint32(*typ))
	if s == nil {
		return unix.EINVAL
	}
	if f.inst.job != nil {
		return f.inst.job.streamon(f, s)
	}
	if !s.streaming && s.owner == f {
		if err := k.startPipeline(f.node); err != nil {
			return err
		}
	}
	f.node.frames, f.node.sequence = 0, 0
	return s.streamon(f)
}

func (k *Kernel) streamoff(f *file, typ *int32) error {
	s := f.inst.side(uint32(*typ))
	if s == nil {
		return unix.EINVAL
	}
	k.hang(f.node)
	if f.gone() {
		return unix.ENODEV
	}
	if f.inst.job != nil {
		return f.inst.job.streamoff(f, s)
	}
	if f.inst.conv != nil && s == f.inst.out {
		f.inst.conv.stopped()
	}
	return s.streamoff(f)
}

// hang waits for as long as the node's driver does not come back, with its lock.
func (k *Kernel) hang(n *Node) {
	k.hanging++
	n.held++
	for n.HangStreamOff {
		k.asleep.Broadcast()
		k.moved.Wait()
	}
	n.held--
	k.hanging--
	k.moved.Broadcast()
}

// lock waits until nobody hangs with the lock of the node's device, under which
// the V4L2 core makes all calls.
func (k *Kernel) lock(n *Node) {
	for n.held > 0 {
		k.moved.Wait()
	}
}

func (k *Kernel) encoderCmd(f *file, arg *uapi.EncoderCommand) error {
	if f.inst.job == nil {
		return unix.ENOTTY
	}
	return f.inst.job.command(k, arg.Command)
}
