package daemon

import (
	"errors"
	"maps"
	"sync"
	"time"
)

// saveTime is how long an order waits for its wish to be written. It is carried
// out all the same: a disk that hangs must keep nobody from stopping a show.
const saveTime = 250 * time.Millisecond

var errNotSaved = errors.New("the state directory does not answer: after a power cut this would be forgotten")

// A saver writes, one at a time and for all who ask meanwhile together. Its
// zero value is ready for use, by any goroutine.
type saver struct {
	mu   sync.Mutex
	busy bool
	next *saved // nil: nobody asked since the last write began
}

// saved is one write.
type saved struct {
	done chan struct{} // closed at its end
	err  error         // valid then
}

// ask has write called, from another goroutine, after this moment.
func (s *saver) ask(write func() error) *saved {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.next = &saved{done: make(chan struct{})}
	}
	if !s.busy {
		s.busy = true
		go s.run(write)
	}
	return s.next
}

// run writes until nobody asks any more.
func (s *saver) run(write func() error) {
	for now := s.take(); now != nil; now = s.take() {
		now.err = write()
		close(now.done)
	}
}

func (s *saver) take() *saved {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.next
	s.next, s.busy = nil, now != nil
	return now
}

// remember writes down what is wanted; of several at a time, the last to write
// has the newest. A disk that does not answer is left to it, and the log tells.
func (d *Daemon) remember() error {
	asked := d.saver.ask(d.save)
	late := time.NewTimer(saveTime)
	defer late.Stop()
	select {
	case <-asked.done:
		return asked.err
	case <-late.C:
		d.Log.Warn("what is wanted is not written", "err", errNotSaved)
		return nil
	}
}

func (d *Daemon) save() error {
	d.mu.Lock()
	w := d.wanted
	w.Outputs = maps.Clone(w.Outputs)
	d.mu.Unlock()
	began := time.Now()
	err := w.save(d.State)
	if took := time.Since(began); took > saveTime {
		d.Log.Warn("the state directory answered late", "after", took, "err", err)
	}
	return err
}
