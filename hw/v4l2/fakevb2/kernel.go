// Package fakevb2 is a kernel with video nodes made of Go: a model of videobuf2
// and of what the V4L2 core does around it, for tests of the code above the
// calls. There are cameras, HDMI receivers, media controllers with their
// subdevices, and encoders; they share memory by dma-buf. The kernel makes no picture by itself and keeps no time: frames come
// when somebody polls for them, each a fixed step later on a clock of its own,
// and an encoder codes when somebody polls it, so that tests are exact.
//
// It can fail any call, unplug a node at any call, and spoil frames to order,
// and it knows what was not given back.
//
// Memory: buffers are ordinary Go memory, which is overwritten with the end of
// its last mapping and descriptor. Under the race detector somebody who touches
// a buffer that he has given back shows up as a race.
package fakevb2

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/hw/v4l2/uapi"
)

// A Kernel implements the calls of v4l2.Sys. All methods may be called from any
// goroutine. Set its fields before use.
type Kernel struct {
	// FailAt is the number of the call, from 1, that fails with FailWith and does
	// nothing else; zero lets all pass. Only Close and Munmap do their work, as
	// in Linux.
	FailAt   int
	FailWith unix.Errno
	// UnplugAt is the number of the call before which all nodes vanish.
	UnplugAt int
	// Clock stamps frames with real time; if nil the kernel's own clock counts.
	Clock func() time.Duration
	// Incoherent gives the CPU a cache that does not follow what devices do: it
	// sees buffers of a driver as they were when it dequeued them, and a dma-buf as
	// it was when the access began; devices see neither before it is queued or the
	// access has ended.
	Incoherent bool

	mu       sync.Mutex
	moved    *sync.Cond // something that Poll waits for may have happened
	asleep   *sync.Cond // a Poll has begun to wait, or a STREAMOFF hangs
	sleepers int
	hanging  int
	nodes    map[string]*Node
	fds      map[int]any // *file, *event or *dmabuf
	maps     map[*byte]*mapping
	nextFD   int
	attached int // dma-bufs, ever
	accesses int // of the CPU to dma-bufs, ever
	opened   int // those of them that have not ended
	calls    []string
	now      time.Duration
}

// A file is one opening of a node.
type file struct {
	node   *Node
	inst   *instance
	life   int // of the node, at the opening
	closed bool
	maps   int // mappings hold the file open
	inbox  inbox
	try    []uapi.BusFormat // of a subdevice's pads, of this opening alone
}

// gone says that the node was unplugged since the opening.
func (f *file) gone() bool { return f.node.gone || f.life != f.node.life }

// An event is an eventfd.
type event struct{ count uint64 }

// New returns a kernel with these nodes.
func New(nodes ...*Node) *Kernel {
	k := &Kernel{nodes: map[string]*Node{}, fds: map[int]any{}, maps: map[*byte]*mapping{}, nextFD: 100, now: time.Hour}
	k.moved, k.asleep = sync.NewCond(&k.mu), sync.NewCond(&k.mu)
	for _, n := range nodes {
		n.reset()
		k.nodes[n.Path] = n
	}
	return k
}

// Node returns the node at path, which must be there, to change it inside
// [Kernel.Do].
func (k *Kernel) Node(path string) *Node { return k.nodes[path] }

// call counts a call; it fails if that was ordered.
func (k *Kernel) call(name string) error {
	k.calls = append(k.calls, name)
	n := len(k.calls)
	if n == k.UnplugAt {
		k.unplug()
	}
	if n == k.FailAt {
		return k.FailWith
	}
	return nil
}

// Calls returns the names of all calls so far.
func (k *Kernel) Calls() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]string(nil), k.calls...)
}

// Left returns how many descriptors, dma-bufs among them, and mappings were not
// given back.
func (k *Kernel) Left() (descriptors, mappings int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, m := range k.maps {
		mappings += len(m.files)
	}
	return len(k.fds), mappings
}

// Now reads the clock that frames are stamped with.
func (k *Kernel) Now() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.Clock != nil {
		return k.Clock()
	}
	return k.now
}

// Do changes nodes while they are in use.
func (k *Kernel) Do(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
	k.moved.Broadcast()
}

// Unplug takes all nodes away. Openings stay, and fail for ever.
func (k *Kernel) Unplug() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.unplug()
}

func (k *Kernel) unplug() {
	for _, n := range k.nodes {
		n.gone = true
		n.life++
		n.reset()
	}
	k.moved.Broadcast()
}

// Replug brings the nodes back, as new devices.
func (k *Kernel) Replug() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, n := range k.nodes {
		n.gone = false
	}
}

func (k *Kernel) add(v any) int {
	k.nextFD++
	k.fds[k.nextFD] = v
	return k.nextFD
}

// Open opens a node.
func (k *Kernel) Open(path string) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("open"); err != nil {
		return -1, err
	}
	n, ok := k.nodes[path]
	if ok && n.LocksOpen {
		k.lock(n)
	}
	switch {
	case !ok:
		return -1, unix.ENOENT
	case n.gone:
		return -1, unix.ENODEV
	case n.Locked:
		return -1, unix.EACCES
	}
	n.openings++
	return k.add(&file{node: n, inst: n.opened(), life: n.life}), nil
}

// Eventfd makes an event counter.
func (k *Kernel) Eventfd() (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("eventfd"); err != nil {
		return -1, err
	}
	return k.add(&event{}), nil
}

// Notify counts an event counter up.
func (k *Kernel) Notify(fd int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("notify"); err != nil {
		return err
	}
	e, ok := k.fds[fd].(*event)
	if !ok {
		return unix.EBADF
	}
	e.count++
	k.moved.Broadcast()
	return nil
}

// Drain sets an event counter to zero.
func (k *Kernel) Drain(fd int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("drain"); err != nil {
		return err
	}
	e, ok := k.fds[fd].(*event)
	if !ok {
		return unix.EBADF
	}
	e.count = 0
	return nil
}

// Close closes a descriptor.
func (k *Kernel) Close(fd int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.call("close")
	v, ok := k.fds[fd]
	if !ok {
		return unix.EBADF
	}
	delete(k.fds, fd)
	switch v := v.(type) {
	case *file:
		v.closed = true
		v.letGo()
	case *dmabuf:
		v.mem.fds--
		v.mem.spoil()
	}
	return err
}

// letGo is the kernel's release of a file: after its close, and not before its
// last mapping has gone.
func (f *file) letGo() {
	if f.closed && f.maps == 0 {
		f.inst.drop(f)
	}
}

// Poll waits until a descriptor is ready. Nodes make frames while somebody
// waits here.
func (k *Kernel) Poll(fds []unix.PollFd) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.call("poll"); err != nil {
		return err
	}
	for {
		ready := false
		for i := range fds {
			fds[i].Revents = k.ready(int(fds[i].Fd), fds[i].Events) & (fds[i].Events | unix.POLLERR | unix.POLLHUP | unix.POLLNVAL)
			ready = ready || fds[i].Revents != 0
		}
		if ready {
			return nil
		}
		if !k.work(fds) {
			k.sleep()
		}
	}
}

func (k *Kernel) sleep() {
	k.sleepers++
	k.asleep.Broadcast()
	k.moved.Wait()
	k.sleepers--
}

// AwaitSleep returns once somebody waits in Poll and nothing is there for him.
func (k *Kernel) AwaitSleep() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.sleepers == 0 {
		k.asleep.Wait()
	}
}

// AwaitHang returns once somebody hangs in a STREAMOFF.
func (k *Kernel) AwaitHang() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.hanging == 0 {
		k.asleep.Wait()
	}
}

// Attached returns how often a dma-buf was attached to a queue: a queue that
// gets the same one for the same buffer each time attaches it once.
func (k *Kernel) Attached() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.attached
}

// ready says what is to be had from a descriptor now, of the events asked for.
func (k *Kernel) ready(fd int, asked int16) int16 {
	switch v := k.fds[fd].(type) {
	case *event:
		if v.count > 0 {
			return unix.POLLIN
		}
		return 0
	case *file:
		if v.gone() { // v4l2_poll of an unregistered device
			return unix.POLLERR | unix.POLLHUP | unix.POLLPRI
		}
		return v.inbox.poll() | v.inst.poll(asked)
	default:
		return unix.POLLNVAL
	}
}

// work lets the polled nodes make a frame, if one can.
func (k *Kernel) work(fds []unix.PollFd) bool {
	for _, p := range fds {
		if f, ok := k.fds[int(p.Fd)].(*file); ok && !f.gone() && p.Events&(unix.POLLIN|unix.POLLOUT) != 0 && f.inst.work(k) {
			return true
		}
	}
	return false
}

// later moves the clock on to the next frame and reads it.
func (k *Kernel) later() time.Duration {
	k.now += Step
	if k.Clock != nil {
		k.now = k.Clock()
	}
	return k.now
}

// Paint sets all bytes of mem to v.
func Paint(mem []byte, v byte) {
	mem[0] = v
	for n := 1; n < len(mem); n *= 2 {
		copy(mem[n:], mem[:n])
	}
}
