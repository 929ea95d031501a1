package v4l2

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"encoderd.example/hw/v4l2/uapi"
)

// A Queue is one buffer queue of a device, with memory that the driver owns
// and that is mapped here.
//
//	           Enqueue                   driver fills
//	ours ──────────────────► queued ───────────────────► done
//	 ▲                         │ StreamOff                 │
//	 └─────────────────────────┴──────── Dequeue ──────────┘
//
// Teardown goes StreamOff → Unmap each → Free → Device.Close: a buffer that is
// still mapped keeps the device open.
//
// Enqueue calls for different buffers and one Dequeue may run at once;
// everything else needs the caller's lock.
type Queue struct {
	dev    *Device
	typ    uint32
	planes int // memory planes of a multi-planar type, else zero
	bufs   []*buffer
	done   buffer // what Dequeue fills, reused
}

// A buffer is made once and stays on the heap, since raw.M may point to planes.
type buffer struct {
	raw    uapi.Buffer
	planes [uapi.MaxPlanes]uapi.Plane
	mem    [][]byte // one mapping for each memory plane
}

// prepare makes b a request about buffer index. planes is zero for the
// single-planar API.
func (b *buffer) prepare(typ uint32, index, planes int) {
	b.raw = uapi.Buffer{Index: uint32(index), Type: typ, Memory: uapi.MemoryMMAP}
	if planes > 0 {
		b.planes = [uapi.MaxPlanes]uapi.Plane{}
		b.raw.M = uintptr(unsafe.Pointer(&b.planes)) //nolint:gosec // the kernel takes it as a number; b holds what it points to
		b.raw.Length = uint32(planes)
	}
}

// A Done is a buffer that the driver has finished with.
type Done struct {
	Index     int
	Flags     uint32        // uapi.BufFlag…
	Sequence  uint32        // counts frames, lost ones too
	Stamp     time.Duration // as the driver says; Flags tell on which clock
	Used      [uapi.MaxPlanes]int
	DataStart [uapi.MaxPlanes]int
}

// NewQueue has the driver make about count buffers and maps them. planes is
// the number of memory planes of a multi-planar type, zero for a single-planar
// one.
func NewQueue(d *Device, typ uint32, count, planes int) (*Queue, error) {
	req := uapi.RequestBuffers{Count: uint32(count), Type: typ, Memory: uapi.MemoryMMAP}
	if err := Ioctl(d, "make buffers for", uapi.ReqBufs, &req); err != nil {
		return nil, err
	}
	q := &Queue{dev: d, typ: typ, planes: planes}
	for i := range int(req.Count) {
		b := &buffer{}
		q.bufs = append(q.bufs, b)
		if err := q.mapBuffer(b, i); err != nil {
			return nil, errors.Join(err, q.Discard())
		}
	}
	return q, nil
}

func (q *Queue) mapBuffer(b *buffer, index int) error {
	b.prepare(q.typ, index, q.planes)
	if err := Ioctl(q.dev, "ask for a buffer of", uapi.QueryBuf, &b.raw); err != nil {
		return err
	}
	if q.planes == 0 {
		return q.mapPlane(b, b.raw.M, b.raw.Length)
	}
	for _, p := range b.planes[:q.planes] {
		if err := q.mapPlane(b, p.M, p.Length); err != nil {
			return err
		}
	}
	return nil
}

func (q *Queue) mapPlane(b *buffer, m uintptr, length uint32) error {
	// Of the union the kernel writes the low 32 bits only.
	mem, err := q.dev.sys.Mmap(q.dev.fd, int64(uint32(m)), int(length))
	if err != nil {
		return explain("map a buffer of", q.dev.path, err)
	}
	b.mem = append(b.mem, mem)
	return nil
}

// Len returns how many buffers the driver made.
func (q *Queue) Len() int { return len(q.bufs) }

// Memory returns the mappings of a buffer, one for each memory plane, until
// Unmap.
func (q *Queue) Memory(index int) [][]byte { return q.bufs[index].mem }

// Enqueue gives a buffer to the driver.
func (q *Queue) Enqueue(index int) error {
	b := q.bufs[index]
	b.prepare(q.typ, index, q.planes)
	return Ioctl(q.dev, "queue a buffer of", uapi.QBuf, &b.raw)
}

// Dequeue takes a finished buffer; the error wraps [unix.EAGAIN] if there is
// none.
func (q *Queue) Dequeue() (Done, error) {
	b := &q.done
	b.prepare(q.typ, 0, q.planes)
	if err := Ioctl(q.dev, "take a buffer of", uapi.DQBuf, &b.raw); err != nil {
		return Done{}, err
	}
	if int(b.raw.Index) >= len(q.bufs) {
		return Done{}, fmt.Errorf("take a buffer of %s: the driver names buffer %d of %d", q.dev.path, b.raw.Index, len(q.bufs))
	}
	d := Done{
		Index:    int(b.raw.Index),
		Flags:    b.raw.Flags,
		Sequence: b.raw.Sequence,
		Stamp:    time.Duration(b.raw.Timestamp.Sec)*time.Second + time.Duration(b.raw.Timestamp.Usec)*time.Microsecond,
	}
	if q.planes == 0 {
		d.Used[0] = int(b.raw.BytesUsed)
		return d, nil
	}
	for i := range q.planes {
		d.Used[i] = int(b.planes[i].BytesUsed)
		d.DataStart[i] = int(b.planes[i].DataOffset)
	}
	return d, nil
}

// StreamOn starts the queue.
func (q *Queue) StreamOn() error {
	typ := int32(q.typ)
	return Ioctl(q.dev, "start", uapi.StreamOn, &typ)
}

// StreamOff stops the queue; all buffers are ours again.
func (q *Queue) StreamOff() error {
	typ := int32(q.typ)
	return Ioctl(q.dev, "stop", uapi.StreamOff, &typ)
}

// Unmap ends the mappings of a buffer, now or after Device.Close.
func (q *Queue) Unmap(index int) error {
	b := q.bufs[index]
	var errs []error
	for _, mem := range b.mem {
		if err := q.dev.sys.Munmap(mem); err != nil {
			errs = append(errs, fmt.Errorf("unmap a buffer of %s: %w", q.dev.path, err))
		}
	}
	b.mem = nil
	return errors.Join(errs...)
}

// Free has the driver forget the buffers, so that others may use the device.
// Memory that is still mapped lives on until Unmap (kernel 4.20 or later).
func (q *Queue) Free() error {
	req := uapi.RequestBuffers{Type: q.typ, Memory: uapi.MemoryMMAP}
	return Ioctl(q.dev, "free the buffers of", uapi.ReqBufs, &req)
}

// Discard unmaps all buffers and frees them: the end of a queue that is
// stopped and of which nothing is lent.
func (q *Queue) Discard() error {
	var errs []error
	for i := range q.bufs {
		errs = append(errs, q.Unmap(i))
	}
	return errors.Join(append(errs, q.Free())...)
}

func multiplanar(typ uint32) bool {
	return typ == uapi.BufTypeVideoCaptureMplane || typ == uapi.BufTypeVideoOutputMplane
}
