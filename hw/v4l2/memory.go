package v4l2

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/uapi"
)

// A memory is where the pictures of a capture lie: buffers of the driver that
// are mapped and perhaps exported too, or a pool of somebody else's that the
// driver writes into. Calls for different buffers may run at once.
type memory struct {
	queue *Queue
	bufs  []shareable
}

// A shareable is one buffer of a memory, each plane of it at the same index.
type shareable struct {
	data [][]byte     // nil where it is not mapped
	fds  []int        // -1 where there is no dma-buf
	cpu  []*hw.DMABuf // nil where there is none, or it is not mapped
	size []int        // bytes
	lent []PlaneData  // what the driver is told of a buffer of a pool, else nil
}

// newMemory has the driver make buffers for pictures of s, or take those of
// the plan's pool. On error the device is as it was.
func newMemory(d *Device, typ uint32, s setting, plan hw.BufferPlan) (*memory, error) {
	planes := 0
	if multiplanar(typ) {
		planes = len(s.mems)
	}
	switch plan.Way {
	case hw.Import:
		return importMemory(d, typ, planes, s, plan.Pool)
	case hw.Export:
		return exportMemory(d, typ, planes)
	default:
		return mapMemory(d, typ, planes)
	}
}

func mapMemory(d *Device, typ uint32, planes int) (*memory, error) {
	q, err := NewQueue(d, typ, wantBuffers, planes)
	if err != nil {
		return nil, err
	}
	m := &memory{queue: q}
	for i := range q.Len() {
		b := shareable{data: q.Memory(i)}
		for _, mem := range b.data {
			b.size, b.fds, b.cpu = append(b.size, len(mem)), append(b.fds, -1), append(b.cpu, nil)
		}
		m.bufs = append(m.bufs, b)
	}
	return m, nil
}

func exportMemory(d *Device, typ uint32, planes int) (*memory, error) {
	m, err := mapMemory(d, typ, planes)
	if err != nil {
		return nil, err
	}
	for i := range m.bufs {
		fds, err := m.queue.Export(i)
		if err != nil {
			return nil, errors.Join(err, m.discard())
		}
		m.bufs[i].fds = fds
		for j, fd := range fds {
			m.bufs[i].cpu[j] = hw.NewDMABuf(fd, d.sys)
		}
	}
	return m, nil
}

func importMemory(d *Device, typ uint32, planes int, s setting, pool hw.Pool) (*memory, error) {
	if err := fits(s.layout, pool); err != nil {
		return nil, err
	}
	theirs := pool.Buffers()
	q, err := NewImportQueue(d, typ, len(theirs), planes)
	if err != nil {
		return nil, err
	}
	m := &memory{queue: q}
	for i := range min(q.Len(), len(theirs)) {
		b, err := d.borrowed(theirs[i], s.layout.Buffers())
		if err != nil {
			return nil, errors.Join(err, m.discard())
		}
		m.bufs = append(m.bufs, b)
	}
	return m, nil
}

// borrowed describes a buffer of a pool to the driver. The length of a dma-buf
// is always told in full: vb2 refuses less than the picture's size.
func (d *Device) borrowed(b hw.Buffer, planes int) (shareable, error) {
	s := shareable{fds: b.FDs[:planes:planes], data: b.Mem[:planes:planes], cpu: b.Shared[:planes:planes]}
	for _, fd := range s.fds {
		n, err := d.sys.Size(fd)
		if err != nil {
			return s, fmt.Errorf("ask for the size of a buffer for %s: %w", d.path, err)
		}
		s.size = append(s.size, int(n))
		s.lent = append(s.lent, PlaneData{FD: fd, Length: int(n)})
	}
	return s, nil
}

// closeBuffer closes a dma-buf, before or after the device.
func (d *Device) closeBuffer(fd int) error {
	if err := d.sys.Close(fd); err != nil && !errors.Is(err, unix.EINTR) { // it is closed all the same
		return fmt.Errorf("close a dma-buf of %s: %w", d.path, err)
	}
	return nil
}

// fits says whether pictures of layout l can be written into the pool as those
// who read it expect them.
func fits(l hw.Layout, pool hw.Pool) error {
	if pool == nil || len(pool.Buffers()) < minBuffers {
		return fmt.Errorf("there are less than %d buffers to write into", minBuffers)
	}
	theirs := pool.Layout()
	theirs.Sizes = l.Sizes // the driver compares the sizes with the dma-bufs themselves
	if theirs.Buffers() != pool.Layout().Buffers() || !l.Reads(theirs) {
		return fmt.Errorf("the camera gives %s, but %s is needed", l, pool.Layout())
	}
	return nil
}

// len returns how many buffers there are.
func (m *memory) len() int { return len(m.bufs) }

// enqueue gives a buffer to the driver.
func (m *memory) enqueue(index int) error {
	if lent := m.bufs[index].lent; lent != nil {
		return m.queue.EnqueueImport(index, lent)
	}
	return m.queue.Enqueue(index)
}

// plane returns where bytes [begin, end) of a memory plane are.
func (m *memory) plane(index, mem, begin, end int) hw.Plane {
	b := &m.bufs[index]
	p := hw.Plane{FD: b.fds[mem], Offset: begin}
	if b.data[mem] != nil {
		p.Data, p.Shared = b.data[mem][begin:end:end], b.cpu[mem]
	}
	return p
}

// letGo ends the mappings and exports of a buffer: munmap, then the dma-bufs.
// What belongs to a pool is left alone. A second call does nothing.
func (m *memory) letGo(index int) error {
	b := &m.bufs[index]
	if b.lent != nil {
		return nil
	}
	errs := []error{m.queue.Unmap(index)}
	for i, fd := range b.fds {
		if fd >= 0 {
			errs = append(errs, m.queue.dev.closeBuffer(fd))
		}
		b.fds[i] = -1
	}
	return errors.Join(errs...)
}

// free has the driver forget the buffers; those that are still in use live on
// until letGo.
func (m *memory) free() error { return m.queue.Free() }

// discard is the end of a memory of which nothing is lent.
func (m *memory) discard() error {
	var errs []error
	for i := range m.bufs {
		errs = append(errs, m.letGo(i))
	}
	return errors.Join(append(errs, m.free())...)
}

// imports asks whether the driver can write into dma-bufs of others. It makes
// no buffers.
func (c *Camera) imports(d *Device) (bool, error) {
	req := uapi.RequestBuffers{Type: c.typ, Memory: uapi.MemoryDMABUF}
	return entry(Ioctl(d, "ask for the kinds of buffers of", uapi.ReqBufs, &req))
}

// strides returns the distance of lines in each buffer of l, as a driver is
// asked for it.
func strides(l hw.Layout) []int {
	var s []int
	for i := range l.Buffers() {
		first := slices.IndexFunc(l.Planes[:], func(p hw.PlaneLayout) bool { return p.Buffer == i })
		s = append(s, l.Planes[first].Stride)
	}
	return s
}
