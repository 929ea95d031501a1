package fakevb2

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"encoderd.example/hw/v4l2/uapi"
)

// A queue follows drivers/media/common/videobuf2/videobuf2-core.c.
//
//	dequeued ──QBUF──► queued ──driver──► done ──DQBUF──► dequeued
//	                      └──────── STREAMOFF ──────────────►┘
type queue struct {
	typ       uint32
	owner     *file // who made the buffers: others get EBUSY
	streaming bool
	failed    bool // vb2_queue_error: until STREAMOFF
	last      bool // the last buffer was dequeued: until STREAMOFF
	bufs      []*buffer
	queued    []*buffer // in the order of QBUF
	done      []*buffer
	ordinal   int64 // of the next memory, so that offsets are never used twice
}

type state int

const (
	dequeued state = iota
	queued
	done
)

type buffer struct {
	raw    uapi.Buffer
	planes []plane
	state  state
}

type plane struct {
	offset int64
	mem    []byte
	used   uint32
}

const page = 4096

func (q *queue) multiplanar() bool {
	return q.typ == uapi.BufTypeVideoCaptureMplane || q.typ == uapi.BufTypeVideoOutputMplane
}

func (q *queue) capture() bool {
	return q.typ == uapi.BufTypeVideoCapture || q.typ == uapi.BufTypeVideoCaptureMplane
}

// busy says whether the format cannot be changed.
func (q *queue) busy() bool { return len(q.bufs) > 0 }

// reqbufs makes count buffers with planes of these sizes; none for a count of
// zero. Memory that is still mapped lives on without its buffer.
func (q *queue) reqbufs(f *file, count int, sizes []uint32) error {
	if q.owner != nil && q.owner != f {
		return unix.EBUSY
	}
	if q.streaming {
		return unix.EBUSY
	}
	q.bufs, q.owner = nil, nil
	for range count {
		b := &buffer{}
		for _, size := range sizes {
			b.planes = append(b.planes, plane{offset: q.ordinal, mem: make([]byte, size)})
			q.ordinal += page
		}
		b.raw.Index = uint32(len(q.bufs))
		q.bufs = append(q.bufs, b)
		q.owner = f
	}
	return nil
}

// drop forgets everything that a file had made.
func (q *queue) drop(f *file) {
	if q.owner == f {
		q.stop()
		q.bufs, q.owner = nil, nil
	}
}

func (q *queue) memory(offset int64) []byte {
	for _, b := range q.bufs {
		for _, p := range b.planes {
			if p.offset == offset {
				return p.mem
			}
		}
	}
	return nil
}

// named returns the buffer that arg is about.
func (q *queue) named(arg *uapi.Buffer) (*buffer, error) {
	if arg.Type != q.typ || int(arg.Index) >= len(q.bufs) {
		return nil, unix.EINVAL
	}
	return q.bufs[arg.Index], q.checkPlanes(arg, len(q.bufs[arg.Index].planes))
}

func (q *queue) checkPlanes(arg *uapi.Buffer, n int) error {
	if q.multiplanar() && (arg.M == 0 || int(arg.Length) < n) {
		return unix.EINVAL
	}
	return nil
}

func (q *queue) querybuf(arg *uapi.Buffer) error {
	b, err := q.named(arg)
	if err != nil {
		return err
	}
	q.tell(b, arg)
	return nil
}

func (q *queue) qbuf(f *file, arg *uapi.Buffer) error {
	if q.owner != nil && q.owner != f {
		return unix.EBUSY
	}
	b, err := q.named(arg)
	switch {
	case err != nil:
		return err
	case arg.Memory != uapi.MemoryMMAP, b.state != dequeued:
		return unix.EINVAL
	case q.failed:
		return unix.EIO
	}
	b.state = queued
	q.queued = append(q.queued, b)
	return nil
}

func (q *queue) dqbuf(f *file, arg *uapi.Buffer) error {
	switch {
	case q.owner != nil && q.owner != f:
		return unix.EBUSY
	case arg.Type != q.typ, arg.Memory != uapi.MemoryMMAP, !q.streaming:
		return unix.EINVAL
	case q.failed:
		return unix.EIO
	case q.last:
		return unix.EPIPE
	case len(q.done) == 0:
		return unix.EAGAIN
	}
	b := q.done[0]
	if err := q.checkPlanes(arg, len(b.planes)); err != nil {
		return err
	}
	q.done = q.done[1:]
	b.state = dequeued
	q.last = b.raw.Flags&uapi.BufFlagLast != 0
	q.tell(b, arg)
	return nil
}

// tell writes what is known of b into arg.
func (q *queue) tell(b *buffer, arg *uapi.Buffer) {
	m, length := arg.M, arg.Length
	*arg = b.raw
	arg.Type, arg.Memory = q.typ, uapi.MemoryMMAP
	if !q.multiplanar() {
		p := b.planes[0]
		arg.M, arg.Length, arg.BytesUsed = uintptr(p.offset), uint32(len(p.mem)), p.used
		return
	}
	arg.M, arg.Length = m, length
	// The kernel's view of a pointer that user space stored as a number.
	told := unsafe.Slice(*(**uapi.Plane)(unsafe.Pointer(&arg.M)), len(b.planes)) //nolint:gosec // the size was checked against Length
	for i, p := range b.planes {
		told[i].M, told[i].Length, told[i].BytesUsed = uintptr(p.offset), uint32(len(p.mem)), p.used
	}
}

func (q *queue) streamon(f *file, typ uint32) error {
	switch {
	case typ != q.typ, len(q.bufs) == 0:
		return unix.EINVAL
	case q.owner != f:
		return unix.EBUSY
	}
	q.streaming = true
	return nil
}

func (q *queue) streamoff(f *file, typ uint32) error {
	switch {
	case typ != q.typ:
		return unix.EINVAL
	case q.owner != nil && q.owner != f:
		return unix.EBUSY
	}
	q.stop()
	return nil
}

func (q *queue) stop() {
	for _, b := range q.bufs {
		b.state = dequeued
	}
	q.streaming, q.failed, q.last, q.queued, q.done = false, false, false, nil, nil
}

// poll follows vb2_core_poll.
func (q *queue) poll() int16 {
	switch {
	case !q.streaming, q.failed:
		return unix.POLLERR
	case !q.capture() && len(q.queued) < len(q.bufs):
		return unix.POLLOUT // room for another
	case q.capture() && (q.last || len(q.done) > 0):
		return unix.POLLIN
	default:
		return 0
	}
}

// next returns the buffer that the driver fills next, if it has one.
func (q *queue) next() *buffer {
	if !q.streaming || q.failed || q.last || len(q.queued) == 0 {
		return nil
	}
	return q.queued[0]
}

// finish moves the buffer that next returned to those that can be dequeued.
func (q *queue) finish() {
	b := q.queued[0]
	q.queued = q.queued[1:]
	b.state = done
	q.done = append(q.done, b)
}
