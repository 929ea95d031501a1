package fakevb2

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"encoderd.example/hw/v4l2/uapi"
)

// A Node is a capture node. Set its fields before [New]; later only inside
// [Kernel.Do].
type Node struct {
	Path    string // "/dev/video0"
	Driver  string
	Card    string
	BusInfo string
	Caps    uint32 // of the node; CapStreaming is not implied
	Type    uint32 // of its queue
	Inputs  int
	Formats []Format
	// Script spoils frames: the n-th frame since the start suffers Script[n].
	Script []Fault
	// Fill writes a picture and returns how many bytes of each memory plane it
	// used; all of them, each byte the frame's number, if nil.
	Fill func(frame int, planes [][]byte) []int
	// Idle stops the frames, as a camera without light or cable.
	Idle bool
	// Locked refuses to be opened, as before udev has set permissions.
	Locked bool
	// MostBuffers limits what REQBUFS gives; no limit if zero.
	MostBuffers int
	// RefuseQBuf makes that many QBUF calls fail with EINVAL.
	RefuseQBuf int
	// Grants changes what S_FMT gives.
	Grants func(*uapi.Format)

	gone     bool
	life     int // counts unpluggings
	queue    queue
	format   uapi.Format
	interval uapi.Fract
	input    int32
	frames   int
	sequence uint32
	last     uapi.Timeval
}

// A Format is one format that a node offers.
type Format struct {
	Code  uint32
	Split int // memory planes; 1 if zero
	Sizes []Size
	// Range offers all sizes up to the only one of Sizes, in steps of two.
	Range bool
	// Silent lists neither sizes nor rates, as inputs that dictate the picture.
	Silent bool
	// BytesPerPixel times the area is the size of each memory plane.
	BytesPerPixel float64
	// Align rounds the stride up.
	Align int
}

// A Size is one picture size with its rates.
type Size struct {
	Width, Height int
	Intervals     []uapi.Fract
	// Range offers all intervals between the first and the second.
	Range bool
}

// A Fault spoils one frame.
type Fault struct {
	Error   bool          // the error flag
	Empty   bool          // no bytes
	Short   int           // so many bytes less
	Skip    int           // so many sequence numbers are lost before it; less than zero goes back
	Repeat  bool          // sequence and stamp of the frame before
	Jump    time.Duration // stamp is off by that
	NoClock bool          // stamp on no known clock
	Last    bool          // the last frame before the stream ends
	Fatal   bool          // vb2_queue_error instead of a frame
}

// Step is the time from frame to frame on the kernel's clock, and Delay that
// from stamp to dequeue.
const (
	Step  = 40 * time.Millisecond
	Delay = 15 * time.Millisecond
)

// produce makes one frame, and says whether there was a buffer for it.
func (n *Node) produce(now func() time.Duration) bool {
	b := n.queue.next()
	if b == nil || n.Idle {
		return false
	}
	var f Fault
	if n.frames < len(n.Script) {
		f = n.Script[n.frames]
	}
	if f.Fatal {
		n.queue.failed = true
		return true
	}
	n.fill(b, f)
	n.stamp(b, f, now()-Delay)
	n.frames++
	n.queue.finish()
	return true
}

func (n *Node) fill(b *buffer, f Fault) {
	var planes [][]byte
	for _, p := range b.planes {
		planes = append(planes, p.mem)
	}
	fill := n.Fill
	if fill == nil {
		fill = flat
	}
	for i, used := range fill(n.frames, planes) {
		used -= f.Short
		if f.Empty {
			used = 0
		}
		b.planes[i].used = uint32(max(used, 0))
	}
}

// flat fills every byte with the frame's number.
func flat(frame int, planes [][]byte) []int {
	var used []int
	for _, mem := range planes {
		Paint(mem, byte(frame))
		used = append(used, len(mem))
	}
	return used
}

func (n *Node) stamp(b *buffer, f Fault, at time.Duration) {
	at += f.Jump
	tv := uapi.Timeval{Sec: int64(at / time.Second), Usec: int64(at % time.Second / time.Microsecond)}
	if f.Repeat {
		n.sequence--
		tv = n.last
	}
	n.sequence += uint32(f.Skip)
	b.raw.Sequence, b.raw.Timestamp = n.sequence, tv
	b.raw.Flags = uapi.BufFlagTimestampMonotonic
	if f.NoClock {
		b.raw.Flags = 0
	}
	if f.Error {
		b.raw.Flags |= uapi.BufFlagError
	}
	if f.Last {
		b.raw.Flags |= uapi.BufFlagLast
	}
	n.sequence++
	n.last = tv
}

// Ioctl serves the calls that a capture node answers.
func (k *Kernel) Ioctl(fd int, req uintptr, arg unsafe.Pointer) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call(names[req]); err != nil {
		return err
	}
	f, ok := k.fds[fd].(*file)
	switch {
	case !ok:
		return unix.EBADF
	case f.gone():
		return unix.ENODEV
	}
	if serve, ok := buffering[req]; ok {
		err := serve(f, arg)
		k.moved.Broadcast()
		return err
	}
	if serve, ok := describing[req]; ok {
		return serve(f.node, arg)
	}
	return unix.ENOTTY
}

// names of the calls, as Calls returns them.
var names = map[uintptr]string{
	uapi.QueryCap: "querycap", uapi.EnumFmt: "enum_fmt", uapi.GetFmt: "g_fmt", uapi.SetFmt: "s_fmt",
	uapi.ReqBufs: "reqbufs", uapi.QueryBuf: "querybuf", uapi.QBuf: "qbuf", uapi.DQBuf: "dqbuf",
	uapi.StreamOn: "streamon", uapi.StreamOff: "streamoff", uapi.GetParm: "g_parm", uapi.SetParm: "s_parm",
	uapi.SetInput: "s_input", uapi.EnumFrameSizes: "enum_framesizes", uapi.EnumFrameIntervals: "enum_frameintervals",
}

// buffering are the calls on the queue, which depend on who makes them.
var buffering = map[uintptr]func(*file, unsafe.Pointer) error{
	uapi.ReqBufs:   func(f *file, arg unsafe.Pointer) error { return f.node.reqbufs(f, (*uapi.RequestBuffers)(arg)) },
	uapi.QueryBuf:  func(f *file, arg unsafe.Pointer) error { return f.node.queue.querybuf((*uapi.Buffer)(arg)) },
	uapi.QBuf:      func(f *file, arg unsafe.Pointer) error { return f.node.qbuf(f, (*uapi.Buffer)(arg)) },
	uapi.DQBuf:     func(f *file, arg unsafe.Pointer) error { return f.node.queue.dqbuf(f, (*uapi.Buffer)(arg)) },
	uapi.StreamOn:  func(f *file, arg unsafe.Pointer) error { return f.node.streamon(f, *(*int32)(arg)) },
	uapi.StreamOff: func(f *file, arg unsafe.Pointer) error { return f.node.queue.streamoff(f, uint32(*(*int32)(arg))) },
}

func (n *Node) reqbufs(f *file, arg *uapi.RequestBuffers) error {
	if arg.Type != n.Type || arg.Memory != uapi.MemoryMMAP {
		return unix.EINVAL
	}
	if n.MostBuffers > 0 {
		arg.Count = min(arg.Count, uint32(n.MostBuffers))
	}
	return n.queue.reqbufs(f, int(arg.Count), n.sizes())
}

func (n *Node) qbuf(f *file, arg *uapi.Buffer) error {
	if n.RefuseQBuf > 0 {
		n.RefuseQBuf--
		return unix.EINVAL
	}
	return n.queue.qbuf(f, arg)
}

func (n *Node) streamon(f *file, typ int32) error {
	n.frames, n.sequence = 0, 0
	return n.queue.streamon(f, uint32(typ))
}

// sizes returns the sizes of the memory planes of the current format.
func (n *Node) sizes() []uint32 {
	if !n.queue.multiplanar() {
		return []uint32{n.format.Pix().SizeImage}
	}
	p := n.format.PixMP()
	var sizes []uint32
	for _, m := range p.Planes[:p.NumPlanes] {
		sizes = append(sizes, m.SizeImage)
	}
	return sizes
}
