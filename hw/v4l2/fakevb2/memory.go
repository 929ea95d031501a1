package fakevb2

import (
	"bytes"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
)

// A memory is what buffers, mappings and dma-buf descriptors share.
type memory struct {
	data []byte // whole pages, as devices see them
	// view is what the CPU sees of it; nil where that is always the same.
	view []byte
	open [3]int // accesses of the CPU that have begun, by what they are
	// Who still uses it: mappings, descriptors, and queues that imported it.
	maps, fds, attached int
}

const page = 4096

func newMemory(size uint32) *memory {
	return &memory{data: make([]byte, max(1, (size+page-1)/page)*page)}
}

// spoil overwrites memory that nobody may touch any more, for those who do.
func (m *memory) spoil() {
	if m.maps == 0 && m.fds == 0 && m.attached == 0 {
		Paint(m.data, 0xDB)
		if m.view != nil {
			Paint(m.view, 0xDB)
		}
	}
}

// load makes the CPU see what devices have written. What it sees already is not
// touched: somebody may be reading it.
func (m *memory) load() {
	if m.view != nil && !bytes.Equal(m.view, m.data) {
		copy(m.view, m.data)
	}
}

// store makes devices see what the CPU has written.
func (m *memory) store() {
	if m.view != nil {
		copy(m.data, m.view)
	}
}

// sync follows DMA_BUF_IOCTL_SYNC of an exporter whose memory is not coherent.
func (m *memory) sync(flags uint64) error {
	kind := flags &^ hw.SyncEnd
	switch {
	case kind < 1 || kind > 3:
		return unix.EINVAL
	case flags&hw.SyncEnd == 0:
		m.open[kind-1]++
		m.load()
		return nil
	case m.open[kind-1] == 0:
		return unix.EINVAL // Linux does not care; the caller should
	}
	m.open[kind-1]--
	if kind&uint64(hw.Writing) != 0 {
		m.store()
	}
	return nil
}

// A dmabuf is memory that a descriptor stands for.
type dmabuf struct{ mem *memory }

// A mapping is one or more mmaps of the same memory.
type mapping struct {
	mem   *memory
	files []*file // who is held open by each; nil of a dma-buf
}

// Mmap maps a buffer of a queue, or a dma-buf.
func (k *Kernel) Mmap(fd int, offset int64, length int) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("mmap"); err != nil {
		return nil, err
	}
	switch v := k.fds[fd].(type) {
	case *file:
		if v.gone() {
			return nil, unix.ENODEV
		}
		mem, size := v.inst.memory(offset)
		if mem == nil || length != size {
			return nil, unix.EINVAL
		}
		v.maps++
		return k.mapped(mem, v, length), nil
	case *dmabuf:
		if offset != 0 || length < 1 || length > len(v.mem.data) {
			return nil, unix.EINVAL
		}
		return k.mapped(v.mem, nil, length), nil
	default:
		return nil, unix.EBADF
	}
}

func (k *Kernel) mapped(mem *memory, f *file, length int) []byte {
	if k.Incoherent && mem.view == nil {
		mem.view = append([]byte(nil), mem.data...)
	}
	seen := mem.data
	if mem.view != nil {
		seen = mem.view
	}
	key := &seen[0]
	m := k.maps[key]
	if m == nil {
		m = &mapping{mem: mem}
		k.maps[key] = m
	}
	mem.maps++
	m.files = append(m.files, f)
	return seen[:length:length]
}

// Munmap ends a mapping and spoils its memory, for those who still read it,
// unless it is shared otherwise.
func (k *Kernel) Munmap(mem []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.call("munmap")
	if len(mem) == 0 {
		return unix.EINVAL
	}
	m, ok := k.maps[&mem[0]]
	if !ok {
		return unix.EINVAL
	}
	last := len(m.files) - 1
	f := m.files[last]
	m.files = m.files[:last]
	if last == 0 {
		delete(k.maps, &mem[0])
	}
	m.mem.maps--
	m.mem.spoil()
	if f != nil {
		f.maps--
		f.letGo()
	}
	return err
}

// Size returns how many bytes a dma-buf has.
func (k *Kernel) Size(fd int) (int64, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("lseek"); err != nil {
		return 0, err
	}
	b, ok := k.fds[fd].(*dmabuf)
	if !ok {
		return 0, unix.EBADF
	}
	return int64(len(b.mem.data)), nil
}

// DMABuf makes a dma-buf of at least size bytes, as a heap of the kernel or
// another device would. Close it as any descriptor.
func (k *Kernel) DMABuf(size int) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.export(newMemory(uint32(size)))
}

// Look returns the memory behind a dma-buf, to look at inside [Kernel.Do] only.
func (k *Kernel) Look(fd int) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	b, ok := k.fds[fd].(*dmabuf)
	if !ok {
		return nil
	}
	return b.mem.data
}

func (k *Kernel) export(mem *memory) int {
	mem.fds++
	return k.add(&dmabuf{mem})
}

// Syncs returns how often the CPU began to access a dma-buf, and how many of
// these accesses have not ended.
func (k *Kernel) Syncs() (begun, open int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.accesses, k.opened
}

// access serves DMA_BUF_IOCTL_SYNC.
func (k *Kernel) access(b *dmabuf, flags uint64) error {
	if err := k.call("sync"); err != nil {
		return err
	}
	if err := b.mem.sync(flags); err != nil {
		return err
	}
	if flags&hw.SyncEnd != 0 {
		k.opened--
		return nil
	}
	k.accesses++
	k.opened++
	return nil
}
