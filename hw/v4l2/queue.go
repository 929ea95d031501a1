package v4l2

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/uapi"
)

// A Queue is one buffer queue of a device. Its memory belongs to the driver and
// is mapped here, or, of an import queue, belongs to others who name it by
// dma-buf descriptors with each buffer.
//
//	           Enqueue               driver fills or reads
//	ours ──────────────────► queued ───────────────────► done
//	 ▲                         │ StreamOff                 │
//	 └─────────────────────────┴──────── Dequeue ──────────┘
//
// Teardown goes StreamOff → Unmap each → close what Export gave → Free →
// Device.Close: a buffer that is still mapped keeps the device open.
//
// Enqueue calls for different buffers and one Dequeue may run at once, and
// Unmap beside StreamOff and Free; everything else needs the caller's lock.
type Queue struct {
	dev    *Device
	typ    uint32
	memory uint32 // uapi.Memory…
	planes int    // memory planes of a multi-planar type, else zero
	bufs   []*buffer
	done   buffer // what Dequeue fills, reused
}

// A buffer is made once and stays on the heap, since raw.M may point to planes.
type buffer struct {
	raw    uapi.Buffer
	planes [uapi.MaxPlanes]uapi.Plane
	mem    [][]byte // one mapping for each memory plane
}

// prepare makes b a request of q about buffer index.
func (q *Queue) prepare(b *buffer, index int) {
	b.raw = uapi.Buffer{Index: uint32(index), Type: q.typ, Memory: q.memory}
	if q.planes > 0 {
		b.planes = [uapi.MaxPlanes]uapi.Plane{}
		b.raw.M = uintptr(unsafe.Pointer(&b.planes)) //nolint:gosec // the kernel takes it as a number; b holds what it points to
		b.raw.Length = uint32(q.planes)
	}
}

// A PlaneData says what one memory plane of a buffer holds.
type PlaneData struct {
	// FD is the dma-buf of an import queue, and Length its whole size in bytes
	// ([Sys].Size), not that of the picture. The queue does not own FD; it may
	// be closed once the buffer was dequeued. Both are ignored elsewhere.
	FD, Length int
	// Used is how many bytes count, from the start of the plane; Offset is where
	// in them the data begin. Both are of pictures that go to the driver.
	Used, Offset int
}

// A Done is a buffer that the driver has finished with.
type Done struct {
	Index     int
	Flags     uint32        // uapi.BufFlag…
	Last      bool          // nothing follows it until the queue is stopped and started
	Sequence  uint32        // counts frames, lost ones too
	Stamp     time.Duration // as the driver says; Flags tell on which clock
	Used      [uapi.MaxPlanes]int
	DataStart [uapi.MaxPlanes]int
}

// NewQueue has the driver make about count buffers and maps them. planes is
// the number of memory planes of a multi-planar type, zero for a single-planar
// one.
func NewQueue(d *Device, typ uint32, count, planes int) (*Queue, error) {
	q, err := request(d, typ, count, planes, uapi.MemoryMMAP)
	if err != nil {
		return nil, err
	}
	for i, b := range q.bufs {
		if err := q.mapBuffer(b, i); err != nil {
			return nil, errors.Join(err, q.Discard())
		}
	}
	return q, nil
}

// NewImportQueue makes about count buffers without memory, for dma-bufs of
// others; Memory returns nil for each. planes is as for NewQueue. The error
// wraps [unix.EINVAL] if the driver takes no dma-bufs.
//
// Keep one dma-buf to one index: drivers attach it anew whenever it changes.
func NewImportQueue(d *Device, typ uint32, count, planes int) (*Queue, error) {
	return request(d, typ, count, planes, uapi.MemoryDMABUF)
}

func request(d *Device, typ uint32, count, planes int, memory uint32) (*Queue, error) {
	req := uapi.RequestBuffers{Count: uint32(count), Type: typ, Memory: memory}
	if err := Ioctl(d, "make buffers for", uapi.ReqBufs, &req); err != nil {
		return nil, err
	}
	q := &Queue{dev: d, typ: typ, memory: memory, planes: planes}
	for range int(req.Count) {
		q.bufs = append(q.bufs, &buffer{})
	}
	return q, nil
}

func (q *Queue) mapBuffer(b *buffer, index int) error {
	q.prepare(b, index)
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

// Imports reports whether the memory belongs to others.
func (q *Queue) Imports() bool { return q.memory == uapi.MemoryDMABUF }

// Memory returns the mappings of a buffer, one for each memory plane, until
// Unmap; none of an import queue.
func (q *Queue) Memory(index int) [][]byte { return q.bufs[index].mem }

// Export returns dma-buf descriptors of a buffer of the driver's memory, one
// for each memory plane. The caller closes them by [Sys].Close; until then the
// memory lives on. The error wraps [unix.EINVAL] or [unix.ENOTTY] if the driver
// cannot export.
func (q *Queue) Export(index int) ([]int, error) {
	var fds []int
	for plane := range max(q.planes, 1) {
		e := uapi.ExportBuffer{Type: q.typ, Index: uint32(index), Plane: uint32(plane), Flags: unix.O_CLOEXEC | unix.O_RDWR}
		if err := Ioctl(q.dev, "export a buffer of", uapi.ExpBuf, &e); err != nil {
			for _, fd := range fds {
				err = errors.Join(err, q.dev.sys.Close(fd))
			}
			return nil, err
		}
		fds = append(fds, int(e.FD))
	}
	return fds, nil
}

// Enqueue gives a buffer of the driver's memory to the driver, to be filled.
func (q *Queue) Enqueue(index int) error {
	b := q.bufs[index]
	q.prepare(b, index)
	return Ioctl(q.dev, "queue a buffer of", uapi.QBuf, &b.raw)
}

// EnqueueImport gives dma-bufs to the driver, to be filled: one for each memory
// plane. It is for the capture side of an import queue. The error wraps
// [unix.EINVAL] if the driver cannot use one of them.
func (q *Queue) EnqueueImport(index int, p []PlaneData) error {
	b := q.bufs[index]
	q.prepare(b, index)
	if err := q.name(b, p); err != nil {
		return err
	}
	return Ioctl(q.dev, "queue a dma-buf for", uapi.QBuf, &b.raw)
}

// EnqueueData gives a picture to the driver, to be read: p says what lies in
// each memory plane. stamp comes back with the buffer and with whatever is made
// of the picture, cut to microseconds.
func (q *Queue) EnqueueData(index int, stamp time.Duration, p []PlaneData) error {
	b := q.bufs[index]
	q.prepare(b, index)
	if err := q.name(b, p); err != nil {
		return err
	}
	b.raw.Field = uapi.FieldNone
	b.raw.Timestamp = uapi.Timeval{Sec: int64(stamp / time.Second), Usec: int64(stamp % time.Second / time.Microsecond)}
	if q.planes == 0 {
		b.raw.BytesUsed = uint32(p[0].Used)
	}
	for i := range q.planes {
		b.planes[i].BytesUsed, b.planes[i].DataOffset = uint32(p[i].Used), uint32(p[i].Offset)
	}
	return Ioctl(q.dev, "queue a picture for", uapi.QBuf, &b.raw)
}

// name writes the memory of an import queue into a request, and checks that
// there are as many planes as the queue has.
func (q *Queue) name(b *buffer, p []PlaneData) error {
	switch {
	case len(p) != max(q.planes, 1):
		return fmt.Errorf("queue a buffer for %s: %d planes of memory instead of %d", q.dev.path, len(p), max(q.planes, 1))
	case q.planes == 0 && p[0].Offset != 0:
		return fmt.Errorf("queue a buffer for %s: data that begin at byte %d need the multi-planar API: %w", q.dev.path, p[0].Offset, hw.ErrUnsupported)
	case !q.Imports():
		return nil
	case q.planes == 0:
		b.raw.M, b.raw.Length = uintptr(uint32(p[0].FD)), uint32(p[0].Length)
	}
	for i := range q.planes {
		b.planes[i].M, b.planes[i].Length = uintptr(uint32(p[i].FD)), uint32(p[i].Length)
	}
	return nil
}

// Dequeue takes a finished buffer. The error wraps [unix.EAGAIN] if there is
// none, and [unix.EPIPE] after the last one.
func (q *Queue) Dequeue() (Done, error) {
	b := &q.done
	q.prepare(b, 0)
	if err := Ioctl(q.dev, "take a buffer of", uapi.DQBuf, &b.raw); err != nil {
		return Done{}, err
	}
	if int(b.raw.Index) >= len(q.bufs) {
		return Done{}, fmt.Errorf("take a buffer of %s: the driver names buffer %d of %d", q.dev.path, b.raw.Index, len(q.bufs))
	}
	d := Done{
		Index:    int(b.raw.Index),
		Flags:    b.raw.Flags,
		Last:     b.raw.Flags&uapi.BufFlagLast != 0,
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

// Unmap ends the mappings of a buffer, now or after Device.Close. A second call
// does nothing.
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

// Free has the driver forget the buffers, so that others may use the device, and
// let go of imported memory.
// Memory that is still mapped lives on until Unmap (kernel 4.20 or later).
func (q *Queue) Free() error {
	req := uapi.RequestBuffers{Type: q.typ, Memory: q.memory}
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
