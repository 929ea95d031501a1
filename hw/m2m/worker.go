package m2m

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/uapi"
)

// How long a driver may take to finish what it has.
const (
	drainWithin = 500 * time.Millisecond
	// emitWithin is per attempt to get the last picture out.
	emitWithin   = 100 * time.Millisecond
	emitAttempts = 8
)

// A worker is the goroutine that owns the device.
type worker struct {
	*Encoder
	*session

	node     *node
	slots    []slot
	copies   *copier
	warned   bool // of pictures that cannot be copied
	pictures pictures
	micro    int64  // stamp of the picture that went in last, for the driver
	colors   colors // of the pictures now: range of those read in place, matrix of all
	joined   joiner
	headers  headers
	broken   error // what is wrong with the bitstream

	now     int     // bit/s that the driver took last
	pace    hw.Rate // at which pictures come
	wantKey bool    // the next picture that goes in is to be a key picture
	asked   int64   // stamp of a picture that was to be one, until one comes; else zero
	ordered bool    // the driver has the order for a key picture
	waiting bool    // pictures cannot be shown until a key picture comes

	fresh    bool        // nothing went in since the GOP was begun
	draining bool        // the GOP begins anew once the driver is empty
	emptied  bool        // it is
	until    time.Time   // when patience with that ends
	alarm    *time.Timer // wakes us then
	ending   bool        // units go nowhere

	newest *hw.Frame // the picture that went in last, of drivers that mustEmit
}

// A slot is one place of the OUTPUT queue.
type slot struct {
	busy  bool
	frame *hw.Frame // retained, of a picture that is read in place
	own   int       // index of the copy in it, or -1
	fds   [3]int    // the memory that was in it last
}

func newWorker(e *Encoder, s *session) *worker {
	w := &worker{
		Encoder: e, session: s, node: s.node, now: s.cfg.Bitrate, pace: s.cfg.FPS,
		slots: make([]slot, s.in.Len()), micro: -1, waiting: true, fresh: true,
		joined:  joiner{sent: -1},
		headers: newHeaders(s.node.syntax(s.cfg.Codec), s.cfg),
	}
	w.copies = &copier{session: s}
	if w.headers.syntax.limited {
		w.colors.matrix = hw.BT709
	}
	if !s.in.Imports() {
		why := s.node.name + " reads no memory but its own"
		e.refused.Store(&why)
	}
	for i := range w.slots {
		w.slots[i].own = -1
	}
	return w
}

// run moves pictures in and units out until Close or an error.
func (w *worker) run() error {
	for {
		select {
		case <-w.closing:
			return nil
		default:
		}
		if err := errors.Join(w.tune(), w.feed()); err != nil {
			return w.named(err)
		}
		moved, err := w.collect()
		if err == nil && !moved {
			err = w.wait()
		}
		if err != nil {
			return w.named(err)
		}
	}
}

func (w *worker) named(err error) error { return fmt.Errorf("%s: %w", w.node.name, err) }

// tune follows the wanted rates.
func (w *worker) tune() error { return errors.Join(w.tuneBitrate(), w.tuneRate()) }

// tuneBitrate follows the wanted bit rate, unless the driver has refused that.
func (w *worker) tuneBitrate() error {
	bps := min(int(w.bitrate.Load()), w.most)
	if bps == w.now || w.fixedBitrate.Load() != 0 {
		return nil
	}
	took, err := w.knobs.bitrate(bps)
	switch {
	case err != nil:
		return err
	case took:
		w.now = bps
	default:
		w.fixedBitrate.Store(int64(w.now))
		w.node.log.Warn("the driver refuses a new bit rate: it counts when the encoder is opened again", "encoder", w.node.name, "wanted", bps, "kept", w.now)
	}
	return nil
}

// tuneRate follows the wanted frame rate. The parameter sets tell at which rate
// pictures come, also if the driver goes on counting by another.
func (w *worker) tuneRate() error {
	r := *w.rate.Load()
	if r == w.pace {
		return nil
	}
	last := w.pace
	w.pace, w.headers.cfg.FPS, w.wantKey = r, r, true
	if w.fixedRate.Load() != nil {
		return nil
	}
	err := w.setRate(r)
	if err == nil || !declined(err) {
		return err
	}
	w.fixedRate.Store(&last)
	w.node.log.Warn("the driver refuses a new frame rate: it counts when the encoder is opened again", "encoder", w.node.name, "wanted", r.Float(), "kept", last.Float())
	return nil
}

// feed hands waiting pictures to the driver.
func (w *worker) feed() error {
	for !w.draining && w.busy() < len(w.slots) {
		r, ok := w.next()
		if !ok {
			return nil
		}
		planes := w.inPlace(r.frame)
		w.wantKey = w.wantKey || r.key
		if begun, err := w.orderKey(); begun || err != nil {
			return err
		}
		w.shift()
		if err := w.put(r.frame, planes); err != nil {
			return err
		}
	}
	return nil
}

// next returns the request that is first in the inbox, and leaves it there.
func (w *worker) next() (request, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.inbox) == 0 {
		return request{}, false
	}
	return w.inbox[0], true
}

// shift takes the first request out of the inbox.
func (w *worker) shift() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inbox[0] = request{}
	w.inbox = w.inbox[1:]
}

// orderKey sees to it that the next picture is a key picture, if one is wanted.
// It reports whether the driver must be emptied first.
func (w *worker) orderKey() (drain bool, err error) {
	if !w.wantKey || w.ordered {
		return false, nil
	}
	if w.node.quirks.forceKey != no {
		took, err := w.knobs.set(uapi.CIDForceKeyFrame, 1)
		if took || err != nil {
			w.ordered = took
			return false, err
		}
	}
	if w.fresh {
		return false, nil // the first picture of a GOP is one anyway
	}
	return true, w.drain()
}

// drain begins a GOP anew for want of a better order. Some drivers do not know
// the command; they are stopped at once.
func (w *worker) drain() error {
	w.draining, w.emptied = true, false
	w.until = time.Now().Add(drainWithin)
	err := w.dev.EncoderStop()
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) {
		return w.restart()
	}
	w.alarm = time.AfterFunc(drainWithin, w.nudge)
	return err
}

// restart begins the bitstream anew after a drain. The START command is no way:
// there are drivers that ignore it, and some that then stay at the end.
func (w *worker) restart() error {
	if w.alarm != nil {
		w.alarm.Stop()
	}
	w.emitJoined()
	w.draining, w.fresh = false, true
	if err := errors.Join(w.out.StreamOff(), w.out.StreamOn()); err != nil {
		return err
	}
	return w.fillCoded()
}

// inPlace returns the memory of a picture that the driver can read where it
// is, or nil.
func (w *worker) inPlace(f *hw.Frame) []v4l2.PlaneData {
	var planes []v4l2.PlaneData
	if w.refused.Load() == nil && (!f.FullRange || !w.headers.syntax.limited) {
		planes = w.shares(f)
	}
	w.follow(f, planes != nil)
	return planes
}

// follow begins a new GOP, whose parameter sets say so, with the first picture
// of other colours. A picture that is copied is brought to the range of those
// before it, and one that does not say its matrix, such as a slate, goes with
// them.
func (w *worker) follow(f *hw.Frame, inPlace bool) {
	if w.headers.syntax.limited {
		return
	}
	now := w.colors
	if inPlace {
		now.full = f.FullRange
	}
	now.matrix = cmp.Or(f.Matrix, now.matrix, f.Colors())
	if now != w.colors {
		w.colors, w.wantKey = now, w.wantKey || !w.fresh
	}
}

// put gives a picture to the driver: the memory that it is in, or if planes is
// nil or the driver refuses it, a copy. It takes over the reference.
func (w *worker) put(f *hw.Frame, planes []v4l2.PlaneData) error {
	if planes == nil {
		return w.putCopy(f)
	}
	index := w.place(planes)
	err := w.enqueue(index, f, planes)
	switch {
	case err == nil:
		w.slots[index].frame = f
		return nil
	case !refusal(err):
		w.giveBack(f)
		return err
	}
	why := fmt.Sprintf("%s refused the picture's memory: %v", w.node.name, err)
	w.refused.Store(&why)
	w.node.log.Warn("pictures are copied from now on", "encoder", w.node.name, "err", err)
	return w.putCopy(f)
}

// putCopy copies a picture and gives the copy to the driver.
func (w *worker) putCopy(f *hw.Frame) error {
	c, err := w.copies.copy(w.place(nil), f, w.colors)
	if errors.Is(err, hw.ErrUnsupported) {
		w.dropped.Add(1)
		if !w.warned {
			w.node.log.Warn("pictures that cannot be read are dropped", "encoder", w.node.name, "err", err)
		}
		w.warned = true
		w.giveBack(f)
		return nil
	}
	if err != nil {
		w.giveBack(f)
		return err
	}
	w.copied.Add(uint64(c.bytes))
	index := c.slot
	if c.own >= 0 {
		index = w.place(c.planes)
	}
	if err := w.enqueue(index, f, c.planes); err != nil {
		w.giveBack(f)
		return err
	}
	w.slots[index].own = c.own
	f.Release()
	return nil
}

// enqueue gives memory with the picture f in it to the driver.
func (w *worker) enqueue(index int, f *hw.Frame, planes []v4l2.PlaneData) error {
	in := w.pictures.add(f.Stamp, w.micro, w.colors)
	if err := w.in.EnqueueData(index, time.Duration(in.micro)*time.Microsecond, planes); err != nil {
		w.pictures.undo()
		return err
	}
	w.micro, w.fresh = in.micro, false
	w.slots[index].busy, w.slots[index].fds = true, fdsOf(planes)
	if w.wantKey {
		w.asked, w.wantKey, w.ordered = in.micro, false, false
	}
	w.keepNewest(f)
	return nil
}

// refusal reports whether an error is about the memory and not the device.
func refusal(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EFAULT) || errors.Is(err, unix.EBADF)
}

// keepNewest holds on to the picture that went in last, where it may have to
// go in again.
func (w *worker) keepNewest(f *hw.Frame) {
	if !w.node.quirks.mustEmit {
		return
	}
	if w.newest != nil {
		w.newest.Release()
	}
	w.newest = f.Retain()
}

// giveBack releases a frame that did not go in.
func (w *worker) giveBack(f *hw.Frame) {
	f.Release()
	w.left()
}

// left counts a picture out.
func (w *worker) left() {
	w.mu.Lock()
	w.inside--
	w.mu.Unlock()
}

// place returns the free slot for memory: the one that it was in before, or one
// that had none yet, or any. There must be one.
func (w *worker) place(planes []v4l2.PlaneData) int {
	want := fdsOf(planes)
	best, worth := -1, -1
	for i, s := range w.slots {
		v := 0
		switch {
		case s.busy:
			continue
		case s.fds == want:
			v = 2
		case s.fds == [3]int{}:
			v = 1
		}
		if v > worth {
			best, worth = i, v
		}
	}
	return best
}

// collect takes back what the driver has done with and reports whether there
// was anything.
func (w *worker) collect() (bool, error) {
	read, err := w.collectRaw()
	if err != nil {
		return read, err
	}
	came, err := w.collectCoded()
	if err != nil {
		return read || came, err
	}
	if w.draining && (w.emptied || !time.Now().Before(w.until)) {
		return true, w.restart()
	}
	return read || came, nil
}

// collectRaw takes back pictures that the driver has read.
func (w *worker) collectRaw() (moved bool, err error) {
	for {
		d, err := w.in.Dequeue()
		if errors.Is(err, unix.EAGAIN) {
			return moved, nil
		}
		if err != nil {
			return moved, err
		}
		moved = true
		s := &w.slots[d.Index]
		if s.frame != nil {
			s.frame.Release()
		}
		w.copies.free(s.own)
		s.busy, s.frame, s.own = false, nil, -1
		w.left()
	}
}

// collectCoded takes what came out and gives the buffers back.
func (w *worker) collectCoded() (moved bool, err error) {
	for {
		d, err := w.out.Dequeue()
		switch {
		case errors.Is(err, unix.EAGAIN):
			if !w.joined.more {
				w.emitJoined()
			}
			return moved, w.broken
		case errors.Is(err, unix.EPIPE):
			w.atEnd()
			return moved, w.broken
		case err != nil:
			return moved, err
		}
		moved = true
		w.take(d)
		if err := w.out.Enqueue(d.Index); err != nil {
			return moved, err
		}
		if d.Last {
			w.atEnd()
			return moved, w.broken
		}
	}
}

// atEnd is told when the driver has given out everything: as it was ordered to,
// or not.
func (w *worker) atEnd() {
	if !w.draining {
		w.draining = true
		w.until = time.Now()
	}
	w.emptied = true
}

// wait sleeps until the device or somebody else has something to do.
func (w *worker) wait() error {
	events := int16(unix.POLLIN)
	if w.busy() > 0 {
		events |= unix.POLLOUT
	}
	came, err := w.dev.Wait(context.Background(), events)
	switch {
	case err != nil:
		return err
	case came&unix.POLLHUP != 0:
		return fmt.Errorf("wait for %s: %w", w.dev.Path(), hw.ErrGone)
	case came&unix.POLLERR != 0 && came&(unix.POLLIN|unix.POLLOUT) == 0:
		return fmt.Errorf("wait for %s: the driver has stopped: %w", w.dev.Path(), unix.EIO)
	default:
		return nil
	}
}

// busy counts the pictures that the driver has.
func (w *worker) busy() int {
	n := 0
	for _, s := range w.slots {
		if s.busy {
			n++
		}
	}
	return n
}

// end stops the device, if it lives quietly, and gives everything back.
func (w *worker) end(cause error) error {
	w.mu.Lock()
	w.closed = true
	waiting := w.inbox
	w.inbox = nil
	w.mu.Unlock()
	for _, r := range waiting {
		w.giveBack(r.frame)
	}
	if cause == nil {
		w.ending = true
		if err := w.quiesce(); err != nil {
			w.node.log.Warn("the encoder did not come to rest", "encoder", w.node.name, "err", err)
		}
	}
	w.mu.Lock()
	w.open = false
	w.mu.Unlock()
	err := w.shut()
	for _, s := range w.slots {
		if s.frame != nil {
			s.frame.Release()
		}
	}
	if w.newest != nil {
		w.newest.Release()
	}
	return errors.Join(err, w.copies.close())
}

// quiesce waits until the driver has read all pictures, and where a driver must
// not be stopped before the last one has come out, sees to that: more bits, and
// the same picture once more.
func (w *worker) quiesce() error {
	if err := w.settle(drainWithin, func() bool { return w.busy() == 0 }); err != nil || !w.node.quirks.mustEmit {
		return err
	}
	done := func() bool { return w.busy() == 0 && !w.pictures.has(w.micro) }
	for range emitAttempts {
		if err := w.settle(emitWithin, done); err != nil || done() || w.newest == nil {
			return err
		}
		w.now = min(w.now, math.MaxInt32/2) * 2
		if _, err := w.knobs.bitrate(w.now); err != nil {
			return err
		}
		if err := w.repeat(); err != nil {
			return err
		}
	}
	return errors.New("the last picture never came out")
}

// repeat gives the last picture to the driver once more, unless that has not
// even read those that it has: memory is never queued twice, and if the driver
// hangs more would not help.
func (w *worker) repeat() error {
	if w.busy() > 0 {
		return nil
	}
	w.mu.Lock()
	w.inside++
	w.mu.Unlock()
	return w.put(w.newest.Retain(), w.inPlace(w.newest))
}

// settle collects until done, and at most for so long.
func (w *worker) settle(most time.Duration, done func() bool) error {
	over := time.Now().Add(most)
	timer := time.AfterFunc(most, w.nudge)
	defer timer.Stop()
	for !done() && time.Now().Before(over) {
		moved, err := w.collect()
		if err == nil && !moved {
			err = w.wait()
		}
		if err != nil {
			return err
		}
	}
	return nil
}
