package convert

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/uapi"
)

// ErrStuck says that the hardware did not stop in time. Its descriptors are
// closed if it ever does.
var ErrStuck = fmt.Errorf("the hardware does not answer: %w", hw.ErrStuck)

// Stats counts since a converter was opened.
type Stats struct {
	Submitted uint64
	Converted uint64
	Dropped   uint64 // by us: no room
	Swallowed uint64 // by the hardware: went in, never came out
	Damaged   uint64 // by the hardware's own word, or without a known stamp
	// CopiedBytes counts bytes of raw pictures moved by the CPU.
	CopiedBytes uint64
	// CodedBytes counts bytes of JPEG moved by the CPU.
	CodedBytes uint64
}

// A Converter is a context of a converter that runs. Submit and Next may be
// called from different goroutines, one each; the others from any.
//
// One goroutine owns the device. It takes frames from Submit and buffers from
// the last Release, and hands out what is finished; so none of these ever waits
// for the hardware.
type Converter struct {
	name   string
	sys    v4l2.Sys
	device *Device
	dev    *v4l2.Device
	trait  trait
	out    side

	in    *input // for the owner
	coded bool   // JPEG goes in
	poked chan struct{}
	news  chan struct{}
	left  chan struct{} // closed when the owner has left
	// What the owner left behind, good once left is closed.
	errClose error

	// mu guards what the goroutines share.
	mu       sync.Mutex
	shown    *output // the CAPTURE queue of today
	inbox    []submitted
	returned []int // buffers of shown, to be queued again
	inside   int   // frames in the inbox and at the hardware
	pending  []pending
	last     cookie
	finished []outcome
	err      error // why the owner leaves
	closing  bool
	away     bool // the owner has closed the device
	refused  error
	stats    Stats
}

// A cookie is the stamp in microseconds by which a picture is known to the
// hardware. It rises whatever the stamps of frames do.
type cookie int64

func (c cookie) stamp() time.Duration { return time.Duration(c) * time.Microsecond }

// A submitted picture waits for the owner.
type submitted struct {
	cookie cookie
	frame  *hw.Frame
}

// maxPending bounds the list of pictures that are waited for.
const maxPending = 64

// A pending picture went in and has not come out.
type pending struct {
	cookie cookie
	mode   hw.Mode
	stamp  time.Duration
	seq    uint32
}

// An outcome is what became of a picture: a frame, or nil.
type outcome struct {
	cookie cookie
	frame  *hw.Frame
}

// Open starts a scaler for pictures in layout in, of which only Pixel, Width
// and Height must be set, that makes pictures of out's format and size.
// Strides of out are a wish: Layout says what was granted. The error wraps
// [hw.ErrUnsupported] if the device cannot do that.
func (d *Device) Open(in, out hw.Layout) (*Converter, error) {
	return d.open(job{in: in, out: out})
}

// OpenInto is Open with the pictures written into a pool, such as an encoder's,
// whose layout the device must be able to write. The pool stays the caller's,
// who closes it after the last frame has been released.
func (d *Device) OpenInto(in hw.Layout, into hw.Pool) (*Converter, error) {
	return d.open(job{in: in, out: into.Layout(), into: into})
}

// A job is what a converter is opened for.
type job struct {
	in, out hw.Layout
	into    hw.Pool
	coded   bool // JPEG of in's size goes in, and out is only the format wished for most
}

func (d *Device) open(j job) (*Converter, error) {
	if err := d.ready(); err != nil {
		return nil, err
	}
	node, err := v4l2.OpenDevice(d.sys, d.path)
	if err != nil {
		return nil, err
	}
	c := &Converter{
		name: d.Name(), device: d, sys: d.sys, dev: node, trait: d.trait, out: d.out, coded: j.coded,
		poked: make(chan struct{}, 1), news: make(chan struct{}, 1), left: make(chan struct{}),
	}
	if err := c.start(d, j); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", c.name, err), c.tearDown())
	}
	go c.own()
	return c, nil
}

// start brings an open device to streaming: format in → format out → buffers in
// → buffers out → queue all → start. The format of what goes in may reset that
// of what comes out.
func (c *Converter) start(d *Device, j job) error {
	inGrant, inLayout, err := d.setJob(c.dev, j)
	if err != nil {
		return err
	}
	outGrant, outLayout, err := d.setOutput(c.dev, j)
	if err != nil {
		return err
	}
	if c.in, err = newInput(c.sys, c.dev, d.in.typ, inGrant, inLayout); err != nil {
		return err
	}
	c.in.makeCopies = func() (hw.Pool, error) { return d.Allocate(inLayout, mostInside) }
	if c.coded {
		// A driver that does not know the event knows no change either.
		_ = c.dev.Subscribe(uapi.EventSourceChange, 0)
	}
	if err := c.startOutput(outGrant, outLayout, j.into); err != nil {
		return err
	}
	return c.in.queue.StreamOn()
}

// setJob sets the format of what goes in.
func (d *Device) setJob(node *v4l2.Device, j job) (grant, hw.Layout, error) {
	if !j.coded {
		return d.setInput(node, j.in)
	}
	w := wish{pixel: hw.MJPEG, width: j.in.Width, height: j.in.Height, size: codedSize(j.in.Width, j.in.Height)}
	g, err := d.in.askAny(node, w)
	return g, hw.Layout{}, err
}

// setOutput sets the format of what comes out.
func (d *Device) setOutput(node *v4l2.Device, j job) (grant, hw.Layout, error) {
	w := wish{pixel: j.out.Pixel, width: j.out.Width, height: j.out.Height, layout: j.out}
	g, err := d.out.askAny(node, w)
	if err != nil {
		return grant{}, hw.Layout{}, err
	}
	if !j.coded && (g.width != w.width || g.height != w.height) {
		if err := compose(node, d.out.typ, w.width, w.height); err != nil {
			return grant{}, hw.Layout{}, err
		}
	}
	l, err := g.layout(w.width, w.height)
	if err != nil || j.into == nil {
		return g, l, err
	}
	// The driver compares sizes with the dma-bufs themselves, which are rounded up.
	have := j.out
	have.Sizes = l.Sizes
	if !l.Reads(have) || j.out.Buffers() != l.Buffers() {
		return grant{}, hw.Layout{}, fmt.Errorf("%s writes %s, but %s is needed: %w", d.path, l, j.out, hw.ErrUnsupported)
	}
	return g, l, nil
}

// startOutput makes the buffers of what comes out, queues them and starts.
func (c *Converter) startOutput(g grant, l hw.Layout, into hw.Pool) error {
	o, err := newOutput(c.sys, c.dev, c.out.typ, g, l, into, c.release)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.shown, c.returned = o, nil
	for i := range o.state {
		c.returned = append(c.returned, i)
	}
	c.mu.Unlock()
	if err := c.giveBack(); err != nil {
		return err
	}
	return o.queue.StreamOn()
}

// Layout returns where the planes of the pictures lie that come out.
func (c *Converter) Layout() hw.Layout {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shown.layout
}

// Stats may be read at any time.
func (c *Converter) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// CopyReason says, for people, why pictures that came as dma-bufs are copied;
// "" while they are not.
func (c *Converter) CopyReason() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused == nil {
		return ""
	}
	return fmt.Sprintf("%s cannot read them: %v", c.name, c.refused)
}

// Submit hands over a picture of the layout that the converter was opened for;
// where it lies otherwise in memory it is copied. It never blocks: it retains f
// for as long as it needs it, or returns [hw.ErrBusy], counts the drop, and
// leaves f alone.
func (c *Converter) Submit(f *hw.Frame) error {
	_, err := c.submit(f)
	return err
}

func (c *Converter) submit(f *hw.Frame) (cookie, error) {
	if err := c.check(f); err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return 0, c.err
	case c.closing:
		return 0, fmt.Errorf("%s: %w", c.name, fs.ErrClosed)
	case c.inside >= mostInside:
		c.stats.Dropped++
		return 0, fmt.Errorf("%s: %w", c.name, hw.ErrBusy)
	}
	c.stats.Submitted++
	c.inside++
	c.last = max(cookie(f.Stamp/time.Microsecond), c.last+1)
	if len(c.pending) >= maxPending {
		c.swallow(1)
	}
	c.pending = append(c.pending, pending{c.last, f.Mode, f.Stamp, f.Seq})
	c.inbox = append(c.inbox, submitted{c.last, f.Retain()})
	c.poke()
	return c.last, nil
}

// check refuses frames that the converter was not opened for.
func (c *Converter) check(f *hw.Frame) error {
	l := c.in.layout
	switch {
	case c.coded && f.Pixel == hw.MJPEG && len(f.Planes) == 1 && len(f.Planes[0].Data) > 0:
		return nil
	case !c.coded && f.Pixel == l.Pixel && f.Width == l.Width && f.Height == l.Height && len(f.Planes) == len(l.Pixel.Planes()):
		return nil
	default:
		return fmt.Errorf("%s: frame of %s: it was opened for others: %w", c.name, f.Mode, hw.ErrUnsupported)
	}
}

// Next returns the next picture, with stamp, number and rate of the frame that
// it was made of. The caller releases it. Pictures that the hardware damages or
// swallows are counted and passed over. It fails with [hw.ErrGone] or the
// driver's words; after an error other than ctx's only Close may follow.
func (c *Converter) Next(ctx context.Context) (*hw.Frame, error) {
	for {
		o, err := c.outcome(ctx)
		if err != nil || o.frame != nil {
			return o.frame, err
		}
	}
}

func (c *Converter) outcome(ctx context.Context) (outcome, error) {
	for {
		c.mu.Lock()
		if len(c.finished) > 0 {
			o := c.finished[0]
			c.finished = c.finished[1:]
			c.mu.Unlock()
			return o, nil
		}
		err := c.err
		c.mu.Unlock()
		if err != nil {
			return outcome{}, err
		}
		select {
		case <-ctx.Done():
			return outcome{}, context.Cause(ctx)
		case <-c.news:
		case <-c.left:
		}
	}
}

// Close stops the hardware and gives up pictures that are inside. Frames still
// retained stay readable until their last Release. If the hardware does not
// stop in time the error wraps [ErrStuck].
func (c *Converter) Close() error {
	c.abandon()
	patience := time.NewTimer(c.trait.stop())
	defer patience.Stop()
	select {
	case <-c.left:
		return c.errClose
	case <-patience.C:
		c.device.behind.Store(c)
		return fmt.Errorf("close %s: %w", c.name, ErrStuck)
	}
}

// abandon is Close without the wait: the owner gives everything back if the
// hardware ever stops.
func (c *Converter) abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing = true
	c.poke()
}

// hangs reports whether a picture is kept inside that there is a buffer for: if
// all are lent it is not the hardware that is waited for.
func (c *Converter) hangs() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inside > 0 && slices.ContainsFunc(c.shown.state, func(at place) bool { return at != lent })
}

// poke has the owner look again, under mu.
func (c *Converter) poke() {
	select {
	case c.poked <- struct{}{}:
	default:
	}
	if !c.away {
		c.dev.Interrupt()
	}
}

func (c *Converter) tell() {
	select {
	case c.news <- struct{}{}:
	default:
	}
}

// release is the end of a lent frame.
func (c *Converter) release(o *output, index int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o.state[index] = ours
	if o.stopped {
		_ = o.drop(index) // nobody is left to tell
		return
	}
	c.returned = append(c.returned, index)
	c.poke()
}

// own is the owner's life.
func (c *Converter) own() {
	defer close(c.left)
	err := c.serve()
	c.mu.Lock()
	c.err = err
	c.mu.Unlock()
	c.tell()
	c.errClose = c.tearDown()
}

// serve moves pictures until Close or an error.
func (c *Converter) serve() error {
	var events int16
	for {
		if c.isClosing() {
			return fmt.Errorf("%s: %w", c.name, fs.ErrClosed)
		}
		if err := errors.Join(c.giveBack(), c.feed()); err != nil {
			return err
		}
		moved, err := c.collect()
		switch {
		case err != nil:
			return err
		case moved:
			events = 0
		case events&unix.POLLHUP != 0:
			return fmt.Errorf("%s: %w", c.name, hw.ErrGone)
		case events&unix.POLLERR != 0:
			return fmt.Errorf("%s: the driver has stopped: %w", c.name, unix.EIO)
		default:
			if events, err = c.wait(); err != nil {
				return err
			}
		}
	}
}

func (c *Converter) isClosing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing
}

// wait waits for the hardware or for a poke. A memory-to-memory node reports an
// error while none of its buffers is at the driver: then only a poke helps.
func (c *Converter) wait() (int16, error) {
	if !c.queued() {
		<-c.poked
		return 0, nil
	}
	events, err := c.dev.Wait(context.Background(), unix.POLLIN|unix.POLLOUT|unix.POLLPRI)
	if err != nil {
		return 0, err
	}
	if events&unix.POLLPRI != 0 && events&(unix.POLLHUP|unix.POLLERR) == 0 {
		changed, err := c.readEvents()
		if err != nil || !changed {
			return 0, err
		}
		return 0, c.restartOutput()
	}
	return events, nil
}

// queued says that the driver has a buffer.
func (c *Converter) queued() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(c.shown.state, atHardware) || slices.ContainsFunc(c.in.slots, func(s slot) bool { return s.busy })
}

// giveBack queues the buffers that have come back.
func (c *Converter) giveBack() error {
	c.mu.Lock()
	back := c.returned
	c.returned = nil
	c.mu.Unlock()
	for _, i := range back {
		if err := c.shown.enqueue(i); err != nil {
			return err
		}
		c.mu.Lock()
		c.shown.state[i] = atHardware
		c.mu.Unlock()
	}
	return nil
}

// feed gives the frames of the inbox to the hardware.
func (c *Converter) feed() error {
	for {
		c.mu.Lock()
		if len(c.inbox) == 0 || c.in.choose([3]int{}) < 0 {
			c.mu.Unlock()
			return nil
		}
		s := c.inbox[0]
		c.inbox = c.inbox[1:]
		c.mu.Unlock()
		copied, err := c.in.put(s.frame, s.cookie)
		s.frame.Release()
		if err := c.fed(s.cookie, copied, err); err != nil {
			return err
		}
	}
}

// fed counts a picture that went in. A JPEG that the driver refuses outright is
// damage; a raw picture is not.
func (c *Converter) fed(k cookie, copied int, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused = c.in.refused
	switch {
	case err == nil && c.coded:
		c.stats.CodedBytes += uint64(copied)
	case err == nil:
		c.stats.CopiedBytes += uint64(copied)
	case c.coded && (errors.Is(err, unix.EINVAL) || errors.Is(err, ErrDamaged)):
		c.inside--
		c.fail(k)
	default:
		return err
	}
	return nil
}

// fail ends a picture without a frame, under mu.
func (c *Converter) fail(k cookie) {
	i := slices.IndexFunc(c.pending, func(p pending) bool { return p.cookie == k })
	if i < 0 {
		return
	}
	c.pending = slices.Delete(c.pending, i, i+1)
	c.stats.Damaged++
	c.finished = append(c.finished, outcome{cookie: k})
	c.tell()
}

// collect takes what the hardware has finished with.
func (c *Converter) collect() (moved bool, err error) {
	for {
		read, err := c.collectRead()
		if err != nil {
			return moved, err
		}
		made, err := c.collectMade()
		if err != nil {
			return moved, err
		}
		if !read && !made {
			return moved, nil
		}
		moved = true
	}
}

// collectRead takes back a picture that the hardware has read.
func (c *Converter) collectRead() (bool, error) {
	d, err := c.in.queue.Dequeue()
	if errors.Is(err, unix.EAGAIN) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	c.in.done(d.Index)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inside--
	if d.Flags&uapi.BufFlagError != 0 {
		c.fail(cookieOf(d))
	}
	return true, nil
}

// collectMade takes a picture that the hardware has made.
func (c *Converter) collectMade() (bool, error) {
	o := c.shown // only the owner changes it
	d, err := o.queue.Dequeue()
	switch {
	case errors.Is(err, unix.EAGAIN):
		return false, nil
	case errors.Is(err, unix.EPIPE) && c.coded: // the end of pictures of the former format
		if _, err := c.readEvents(); err != nil {
			return false, err
		}
		return true, c.restartOutput()
	case err != nil:
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	o.state[d.Index] = ours
	p, ok := c.match(cookieOf(d))
	switch {
	case ok && o.whole(d):
		o.state[d.Index] = lent
		c.stats.Converted++
		c.finished = append(c.finished, outcome{p.cookie, p.lend(o, d.Index)})
	case ok:
		c.stats.Damaged++
		c.finished = append(c.finished, outcome{cookie: p.cookie})
		c.returned = append(c.returned, d.Index)
	default:
		if d.Used[0] > 0 { // else the mark of an end
			c.stats.Damaged++
		}
		c.returned = append(c.returned, d.Index)
	}
	c.tell()
	return true, nil
}

func cookieOf(d v4l2.Done) cookie { return cookie(d.Stamp / time.Microsecond) }

// match finds the picture that a buffer was made of. Those before it will not
// come any more: the hardware keeps the order. It runs under mu.
func (c *Converter) match(k cookie) (pending, bool) {
	i := slices.IndexFunc(c.pending, func(p pending) bool { return p.cookie == k })
	if i < 0 {
		return pending{}, false
	}
	c.swallow(i)
	p := c.pending[0]
	c.pending = slices.Delete(c.pending, 0, 1)
	return p, true
}

// swallow gives up the n oldest pictures, under mu.
func (c *Converter) swallow(n int) {
	for _, p := range c.pending[:n] {
		c.stats.Swallowed++
		c.finished = append(c.finished, outcome{cookie: p.cookie})
	}
	c.pending = slices.Delete(c.pending, 0, n)
}

// lend makes the frame of a buffer.
func (p pending) lend(o *output, index int) *hw.Frame {
	f := o.frames[index]
	f.FPS = p.mode.FPS
	switch p.mode.Pixel {
	case hw.MJPEG: // by JFIF
		f.FullRange, f.Matrix = true, hw.BT601
	case hw.RGB24, hw.BGR24, hw.RGB565:
		f.FullRange = o.full
	default:
		f.FullRange, f.Matrix = p.mode.FullRange, p.mode.Matrix
	}
	f.Stamp, f.Seq = p.stamp, p.seq
	return f.Lend()
}

// readEvents empties the queue of events and says whether the decoder found
// another format in what it reads.
func (c *Converter) readEvents() (changed bool, err error) {
	for {
		e, err := c.dev.DequeueEvent()
		switch {
		case errors.Is(err, unix.ENOENT):
			return changed, nil
		case err != nil:
			return false, err
		}
		changed = changed || e.Type == uapi.EventSourceChange && e.Changes&uapi.EventSourceResolution != 0
	}
}

// restartOutput makes the buffers anew in the format that the decoder found in
// the picture. Frames that are lent stay readable.
func (c *Converter) restartOutput() error {
	size := c.Layout()
	if err := c.stopOutput(); err != nil {
		return err
	}
	g, err := current(c.dev, c.out.typ)
	if err != nil {
		return err
	}
	if g.width < size.Width || g.height < size.Height {
		return fmt.Errorf("%s: the decoder gives %dx%d instead of %s: %w", c.name, g.width, g.height, size, hw.ErrUnsupported)
	}
	l, err := g.layout(size.Width, size.Height)
	if err != nil {
		return err
	}
	return c.startOutput(g, l, nil)
}

// stopOutput ends the CAPTURE queue: stop → unmap → close dma-bufs → free.
func (c *Converter) stopOutput() error {
	o := c.shown
	off := unlessGone(o.queue.StreamOff())
	c.mu.Lock()
	o.stopped = true
	dropped := o.release()
	held := slices.Contains(o.state, lent)
	c.returned = nil
	c.mu.Unlock()
	freed := unlessGone(o.queue.Free())
	if errors.Is(freed, hw.ErrBusy) && held {
		freed = nil // kernels before 4.20 free them with the last mapping
	}
	return errors.Join(off, dropped, freed)
}

// tearDown ends everything, whatever of it there is.
func (c *Converter) tearDown() error {
	var errs []error
	c.mu.Lock()
	unread, unseen := c.inbox, c.finished
	c.inbox, c.finished = nil, nil
	c.mu.Unlock()
	for _, s := range unread {
		s.frame.Release()
	}
	for _, o := range unseen {
		if o.frame != nil {
			o.frame.Release()
		}
	}
	if c.in != nil {
		errs = append(errs, unlessGone(c.in.queue.StreamOff()))
	}
	if c.shown != nil {
		errs = append(errs, c.stopOutput())
	}
	if c.in != nil {
		errs = append(errs, c.in.discard())
	}
	c.mu.Lock()
	c.away = true
	c.mu.Unlock()
	return errors.Join(append(errs, c.dev.Close())...)
}
