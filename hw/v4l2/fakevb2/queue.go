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
	memory    uint32 // kind, of the buffers
	owner     *file  // who made the buffers: others get EBUSY
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
	size   uint32  // that the driver needs
	mem    *memory // of an import queue: what was queued last
	offset int64   // for mmap
	fd     int     // of an import queue
	length uint32  // as queued with fd
	used   uint32
	start  uint32 // data_offset
}

// data returns the part of the memory that the driver works on.
func (p *plane) data() []byte { return p.mem.data[:p.size:p.size] }

func (q *queue) multiplanar() bool {
	return q.typ == uapi.BufTypeVideoCaptureMplane || q.typ == uapi.BufTypeVideoOutputMplane
}

func (q *queue) capture() bool {
	return q.typ == uapi.BufTypeVideoCapture || q.typ == uapi.BufTypeVideoCaptureMplane
}

// busy says whether the format cannot be changed.
func (q *queue) busy() bool { return len(q.bufs) > 0 }

// reqbufs makes count buffers with planes of these sizes; none for a count of
// zero. Memory that is still mapped or exported lives on without its buffer.
func (q *queue) reqbufs(f *file, memory uint32, count int, sizes []uint32) error {
	if q.owner != nil && q.owner != f {
		return unix.EBUSY
	}
	if q.streaming {
		return unix.EBUSY
	}
	q.stop() // what was queued is forgotten with its buffers
	q.release()
	q.memory = memory
	for range count {
		b := &buffer{}
		for _, size := range sizes {
			p := plane{size: size, fd: -1}
			if memory == uapi.MemoryMMAP {
				p.mem, p.offset = newMemory(size), q.ordinal
				q.ordinal += page
			}
			b.planes = append(b.planes, p)
		}
		b.raw.Index = uint32(len(q.bufs))
		q.bufs = append(q.bufs, b)
		q.owner = f
	}
	return nil
}

// release forgets the buffers and lets go of what was imported.
func (q *queue) release() {
	for _, b := range q.bufs {
		for i := range b.planes {
			q.detach(&b.planes[i])
		}
	}
	q.bufs, q.owner = nil, nil
}

func (q *queue) detach(p *plane) {
	if q.memory != uapi.MemoryDMABUF || p.mem == nil {
		return
	}
	p.mem.attached--
	p.mem.spoil()
	p.mem, p.fd = nil, -1
}

// drop forgets everything that a file had made.
func (q *queue) drop(f *file) {
	if q.owner == f {
		q.stop()
		q.release()
	}
}

// find returns the plane that is mapped at offset.
func (q *queue) find(offset int64) *plane {
	for _, b := range q.bufs {
		for i, p := range b.planes {
			if q.memory == uapi.MemoryMMAP && p.offset == offset {
				return &b.planes[i]
			}
		}
	}
	return nil
}

// named returns the buffer that arg is about.
func (q *queue) named(arg *uapi.Buffer) (*buffer, error) {
	if int(arg.Index) >= len(q.bufs) {
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

// asked returns the planes of a request, whatever the API.
func (q *queue) asked(arg *uapi.Buffer, n int) []uapi.Plane {
	if !q.multiplanar() {
		return []uapi.Plane{{BytesUsed: arg.BytesUsed, Length: arg.Length, M: arg.M}}
	}
	return told(arg, n)
}

// told is the kernel's view of a pointer that user space stored as a number.
func told(arg *uapi.Buffer, n int) []uapi.Plane {
	return unsafe.Slice(*(**uapi.Plane)(unsafe.Pointer(&arg.M)), n) //nolint:gosec // the size was checked against Length
}

func (q *queue) querybuf(arg *uapi.Buffer) error {
	b, err := q.named(arg)
	if err != nil {
		return err
	}
	q.tell(b, arg)
	return nil
}

// export follows vb2_core_expbuf.
func (q *queue) export(k *Kernel, arg *uapi.ExportBuffer) error {
	if q.memory != uapi.MemoryMMAP || int(arg.Index) >= len(q.bufs) || int(arg.Plane) >= len(q.bufs[arg.Index].planes) {
		return unix.EINVAL
	}
	if arg.Flags&^(unix.O_CLOEXEC|unix.O_ACCMODE) != 0 {
		return unix.EINVAL
	}
	arg.FD = int32(k.export(q.bufs[arg.Index].planes[arg.Plane].mem))
	return nil
}

func (q *queue) qbuf(k *Kernel, f *file, arg *uapi.Buffer) error {
	if q.owner != nil && q.owner != f {
		return unix.EBUSY
	}
	b, err := q.named(arg)
	switch {
	case err != nil:
		return err
	case arg.Memory != q.memory, b.state != dequeued:
		return unix.EINVAL
	case q.failed:
		return unix.EIO
	}
	asked := q.asked(arg, len(b.planes))
	if err := q.verify(b, asked); err != nil {
		return err
	}
	for i := range b.planes {
		if err := q.attach(k, &b.planes[i], asked[i]); err != nil {
			return err
		}
	}
	if !q.capture() {
		q.each(b, (*memory).store)
		b.raw.Timestamp = arg.Timestamp
		b.raw.Field = arg.Field
		for i := range b.planes {
			b.planes[i].used, b.planes[i].start = asked[i].BytesUsed, asked[i].DataOffset
		}
	}
	b.state = queued
	q.queued = append(q.queued, b)
	return nil
}

// verify follows __verify_length: what is handed over for reading must fit.
func (q *queue) verify(b *buffer, asked []uapi.Plane) error {
	if q.capture() {
		return nil
	}
	for i, a := range asked {
		length := b.planes[i].size
		if q.memory == uapi.MemoryDMABUF {
			length = a.Length
		}
		if a.BytesUsed > length || a.DataOffset > 0 && a.DataOffset >= a.BytesUsed {
			return unix.EINVAL
		}
	}
	return nil
}

// attach follows __prepare_dmabuf. The same descriptor and length as before
// stay attached.
func (q *queue) attach(k *Kernel, p *plane, asked uapi.Plane) error {
	if q.memory != uapi.MemoryDMABUF {
		return nil
	}
	fd := int(int32(asked.M))
	d, ok := k.fds[fd].(*dmabuf)
	if !ok {
		return unix.EINVAL
	}
	length := asked.Length
	if length == 0 {
		length = uint32(len(d.mem.data))
	}
	switch {
	case length < p.size:
		return unix.EINVAL
	case int(length) > len(d.mem.data):
		return unix.EFAULT
	case p.mem == d.mem && p.length == length:
		return nil
	}
	q.detach(p)
	d.mem.attached++
	k.attached++
	p.mem, p.fd, p.length = d.mem, fd, length
	return nil
}

func (q *queue) dqbuf(f *file, arg *uapi.Buffer) error {
	switch {
	case q.owner != nil && q.owner != f:
		return unix.EBUSY
	case !q.streaming, arg.Memory != q.memory:
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
	if q.capture() {
		q.each(b, (*memory).load)
	}
	q.tell(b, arg)
	return nil
}

// each follows the prepare and finish of videobuf2's memory: it keeps the CPU's
// view of a queue's own buffers in step, and not that of imported ones.
func (q *queue) each(b *buffer, do func(*memory)) {
	for _, p := range b.planes {
		if q.memory == uapi.MemoryMMAP {
			do(p.mem)
		}
	}
}

// tell writes what is known of b into arg.
func (q *queue) tell(b *buffer, arg *uapi.Buffer) {
	m, length := arg.M, arg.Length
	*arg = b.raw
	arg.Type, arg.Memory = q.typ, q.memory
	if !q.multiplanar() {
		p := q.describe(&b.planes[0])
		arg.M, arg.Length, arg.BytesUsed = p.M, p.Length, p.BytesUsed
		return
	}
	arg.M, arg.Length = m, length
	planes := told(arg, len(b.planes))
	for i := range b.planes {
		planes[i] = q.describe(&b.planes[i])
	}
	arg.Length = uint32(len(b.planes))
}

func (q *queue) describe(p *plane) uapi.Plane {
	if q.memory == uapi.MemoryDMABUF {
		return uapi.Plane{BytesUsed: p.used, Length: p.length, M: uintptr(uint32(p.fd)), DataOffset: p.start}
	}
	return uapi.Plane{BytesUsed: p.used, Length: p.size, M: uintptr(p.offset), DataOffset: p.start}
}

func (q *queue) streamon(f *file) error {
	switch {
	case len(q.bufs) == 0:
		return unix.EINVAL
	case q.owner != f:
		return unix.EBUSY
	}
	q.streaming = true
	return nil
}

func (q *queue) streamoff(f *file) error {
	if q.owner != nil && q.owner != f {
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

// idle says that the driver has no buffer, for the rule of m2m devices.
func (q *queue) idle() bool { return !q.streaming || len(q.queued) == 0 && len(q.done) == 0 }

// next returns the buffer that the driver fills or reads next, if it has one.
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
