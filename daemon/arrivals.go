package daemon

import (
	"sync"

	"encoderd.example/hw"
	"encoderd.example/stream"
)

// An arrival is what the hub hears of a camera: a frame, a unit of its own
// coding, the rate at which it begins, or that it is gone.
type arrival struct {
	frame *hw.Frame    // whose reference comes along
	unit  *stream.Unit // of a camera that codes by itself
	rate  hw.Rate
	gone  bool
}

// news reports whether a is about the camera and not of it.
func (a arrival) news() bool { return a.frame == nil && a.unit == nil }

// The room for what a busy machine has not passed on yet.
const (
	frameQueue = 2
	codedQueue = 32
)

// A queue keeps arrivals in their order: that a camera is gone must not
// overtake its last frames, or they would take the slate down again.
type queue struct {
	wake chan struct{} // holds a token while there may be arrivals

	mu            sync.Mutex
	list          []arrival
	frames, units int
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

// put adds a and reports whether there was room. News always have some: those
// that nothing followed are replaced.
func (q *queue) put(a arrival) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	last := len(q.list) - 1
	switch {
	case a.frame != nil && q.frames == frameQueue, a.unit != nil && q.units == codedQueue:
		return false
	case a.frame != nil:
		q.frames++
	case a.unit != nil:
		q.units++
	case last >= 0 && q.list[last].news():
		q.list = q.list[:last]
	}
	q.list = append(q.list, a)
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return true
}

// next takes the oldest arrival.
func (q *queue) next() (a arrival, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) == 0 {
		return arrival{}, false
	}
	a = q.list[0]
	q.list[0] = arrival{}
	q.list = q.list[1:]
	switch {
	case a.frame != nil:
		q.frames--
	case a.unit != nil:
		q.units--
	}
	return a, true
}
