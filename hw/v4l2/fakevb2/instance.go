package fakevb2

import (
	"golang.org/x/sys/unix"

	"encoderd.example/hw/v4l2/uapi"
)

// An instance is the queues and settings that an opening uses: one's own of an
// encoder, else those of the node.
type instance struct {
	node   *Node
	out    *side       // where pictures or coded data come out
	in     *side       // where an encoder takes pictures; nil of cameras
	job    *job        // of an encoder
	conv   *conversion // of a converter
	values map[uint32]int64
}

// A side is a queue and what it carries.
type side struct {
	queue
	formats  []Format
	format   uapi.Format
	interval uapi.Fract
	crop     uapi.Rect
	least    int // buffers that REQBUFS makes at the least
}

// inBase is where the mmap offsets of an encoder's output queue begin.
const inBase = 1 << 30

func newInstance(n *Node) *instance {
	i := &instance{node: n, values: map[uint32]int64{}}
	i.out = &side{queue: queue{typ: n.Type}, formats: n.Formats}
	for _, c := range n.Controls {
		i.values[c.ID] = c.Default
	}
	if e := n.Encoder; e != nil {
		i.out.formats, i.out.least = e.coded(), e.LeastOut
		i.in = &side{queue: queue{typ: n.Type + 1, ordinal: inBase}, formats: e.Raw, least: e.LeastIn}
		i.job = &job{inst: i}
	}
	if c := n.Converter; c != nil {
		i.out.formats = c.Out
		i.in = &side{queue: queue{typ: n.Type + 1, ordinal: inBase}, formats: c.In}
		i.conv = &conversion{inst: i}
	}
	return i
}

// side returns the queue of a type, if there is one.
func (i *instance) side(typ uint32) *side {
	switch {
	case typ == i.out.typ:
		return i.out
	case i.in != nil && typ == i.in.typ:
		return i.in
	default:
		return nil
	}
}

// memory returns what is mapped at offset, and how many bytes of it.
func (i *instance) memory(offset int64) (*memory, int) {
	p := i.out.find(offset)
	if p == nil && i.in != nil {
		p = i.in.find(offset)
	}
	if p == nil {
		return nil, 0
	}
	return p.mem, int(p.size)
}

// drop forgets what a file had made.
func (i *instance) drop(f *file) {
	i.out.drop(f)
	if i.in != nil {
		i.in.drop(f)
		delete(i.node.running, i)
	}
}

// poll follows vb2_poll and v4l2_m2m_poll_for_data, which both say nothing of
// buffers unless asked for them.
func (i *instance) poll(asked int16) int16 {
	switch {
	case i.node.Subdev, asked&(unix.POLLIN|unix.POLLOUT) == 0:
		return 0
	case i.in == nil:
		return i.out.poll()
	case i.in.failed || i.out.failed:
		return unix.POLLERR
	case i.in.idle() && i.out.idle() && !i.out.last:
		return unix.POLLERR
	}
	var events int16
	if len(i.in.done) > 0 {
		events |= unix.POLLOUT
	}
	if len(i.out.done) > 0 || i.out.last {
		events |= unix.POLLIN
	}
	return events
}

// work does what the device would do next, if it can do anything.
func (i *instance) work(k *Kernel) bool {
	switch {
	case i.node.Subdev, i.node.Idle && i.in != nil:
		return false
	case i.conv != nil:
		return i.conv.step(k)
	case i.job != nil:
		return i.job.step(k)
	default:
		return i.node.produce(k, &i.out.queue)
	}
}

// sizes returns the sizes of the memory planes of the format.
func (s *side) sizes() []uint32 {
	if !s.multiplanar() {
		return []uint32{s.format.Pix().SizeImage}
	}
	p := s.format.PixMP()
	var sizes []uint32
	for _, m := range p.Planes[:p.NumPlanes] {
		sizes = append(sizes, m.SizeImage)
	}
	return sizes
}
