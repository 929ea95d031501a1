package fakevb2

import (
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/hw/v4l2/uapi"
)

// A Node is a capture node, or with an Encoder one that codes, or with Subdev
// one that stands for a receiver or another part of a media device, or with
// Media that device. Set its fields before [New]; later only
// inside [Kernel.Do].
type Node struct {
	Path    string // "/dev/video0"
	Driver  string
	Card    string
	BusInfo string
	Caps    uint32 // of the node; CapStreaming is not implied
	Type    uint32 // of its capture queue; that of an encoder's output queue follows
	Inputs  int
	// Receivers are the inputs that receive a digital signal, by number; of a
	// subdevice, the pads.
	Receivers map[int]*Receiver
	// Subdev answers only what a subdevice does: pads, timings, EDID, controls,
	// events.
	Subdev bool
	// Pads of a subdevice that belongs to a media device.
	Pads []Pad
	// Media makes it a media device, which answers nothing else.
	Media *Media
	// Writes are the formats that a node behind a media controller writes of what
	// comes to it.
	Writes []BusPixel
	// Encoder makes it an encoder. Each opening is one of its own.
	Encoder *Encoder
	// Converter makes it a converter. Each opening is one of its own.
	Converter *Converter
	// Controls are its knobs. OldControls serves them by the old calls only,
	// StuckControls lists the first for ever.
	Controls      []Control
	OldControls   bool
	StuckControls bool
	Formats       []Format
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
	// NoImport refuses queues of dma-bufs.
	NoImport bool
	// Refuse fails all calls of a name, such as "expbuf", and does nothing else.
	Refuse map[string]unix.Errno
	// HangStreamOff lets STREAMOFF return only once it is false again. Until then
	// other calls on the node wait, too, and so does its opening with LocksOpen.
	HangStreamOff bool
	// LocksOpen is a driver that takes its device's lock to be opened.
	LocksOpen bool
	// RefuseQBuf makes that many QBUF calls fail with EINVAL.
	RefuseQBuf int
	// Grants changes what S_FMT gives.
	Grants func(*uapi.Format)

	gone     bool
	life     int       // counts unpluggings
	held     int       // who hangs with its device's lock
	openings int       // ever
	shared   *instance // what all openings of a camera use
	running  map[*instance]bool
	pads     []uapi.BusFormat // of the hardware
	interval uapi.Fract       // of a sensor
	pipeline []int            // the entities that it was started with
	input    int32
	settings []Setting
	frames   int
	sequence uint32
	last     uapi.Timeval
}

// reset makes the node as it is when the driver has just bound it.
func (n *Node) reset() {
	n.shared = newInstance(n)
	n.running = map[*instance]bool{}
	n.pads, n.pipeline = n.firstPads(), nil
	for _, p := range n.Pads {
		if len(p.Intervals) > 0 {
			n.interval = p.Intervals[0]
		}
	}
	if n.Media != nil {
		n.Media.flags = nil
		for _, l := range n.Media.Links {
			n.Media.flags = append(n.Media.flags, l.Flags)
		}
	}
}

// Openings returns how often it was opened, inside [Kernel.Do].
func (n *Node) Openings() int { return n.openings }

// opened returns the instance of a new opening.
func (n *Node) opened() *instance {
	if n.Encoder != nil || n.Converter != nil {
		return newInstance(n)
	}
	return n.shared
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
	// BytesPerPixel times the area is the size of each memory plane. Lines of
	// packed formats are as long.
	BytesPerPixel float64
	// Align rounds the stride up, AlignLines the height.
	Align, AlignLines int
	// AnyStride takes longer lines if they are asked for (bytesperline).
	AnyStride bool
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
func (n *Node) produce(k *Kernel, q *queue) bool {
	b := q.next()
	if b == nil || n.Idle || !n.receives() || !k.fedBy(n) {
		return false
	}
	var f Fault
	if n.frames < len(n.Script) {
		f = n.Script[n.frames]
	}
	if f.Fatal {
		q.failed = true
		return true
	}
	n.fill(b, f)
	n.stamp(b, f, k.later()-Delay)
	n.frames++
	q.finish()
	return true
}

func (n *Node) fill(b *buffer, f Fault) {
	var planes [][]byte
	for i := range b.planes {
		planes = append(planes, b.planes[i].data())
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
