package record

import (
	"sync"
	"time"
)

// A fragment is a piece of a file that can be played once it is there.
type fragment struct {
	begins   *heading // nil: it goes on in the file that is open
	data     [][]byte
	bytes    int
	pictures int
	lasts    time.Duration
	came     time.Time // into the queue
}

// A heading is how a file begins.
type heading struct {
	began time.Time // wall-clock time of the first picture
	data  []byte
}

// batchTime is how much media is written before the medium is asked to have it.
const batchTime = 2 * time.Second

// A queue holds what waits for the medium. Its methods may be called from any
// goroutine; only take waits.
type queue struct {
	limit int // bytes
	wake  chan struct{}

	mu     sync.Mutex
	list   []*fragment
	flight []*fragment // taken, and not done
	bytes  int         // of both
	closed bool
}

func newQueue(limit int) *queue { return &queue{limit: limit, wake: make(chan struct{}, 1)} }

// room reports whether so many bytes fit, into a part of the queue.
func (q *queue) room(bytes int, part float64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return float64(q.bytes+bytes) <= part*float64(q.limit)
}

// lag returns how long the oldest has been waiting that is not on the medium
// yet.
func (q *queue) lag(now time.Time) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, list := range [][]*fragment{q.flight, q.list} {
		if len(list) > 0 {
			return now.Sub(list[0].came)
		}
	}
	return 0
}

func (q *queue) add(f *fragment) {
	q.mu.Lock()
	defer q.mu.Unlock()
	f.came = time.Now()
	q.list = append(q.list, f)
	q.bytes += f.bytes
	q.signal()
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signal()
}

// signal wakes take. The caller holds mu.
func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// discard drops what was not taken and returns how many pictures that was.
func (q *queue) discard() (pictures int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, f := range q.list {
		q.bytes -= f.bytes
	}
	pictures = picturesIn(q.list)
	q.list = nil
	return pictures
}

// flying returns how many pictures are taken and not done.
func (q *queue) flying() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return picturesIn(q.flight)
}

func picturesIn(list []*fragment) (n int) {
	for _, f := range list {
		n += f.pictures
	}
	return n
}

// take returns what is to be written in one go, up to batchTime of it, waiting
// for some; nil says that no more comes.
func (q *queue) take() []*fragment {
	for {
		batch, closed := q.batch()
		if batch != nil || closed {
			return batch
		}
		<-q.wake
	}
}

func (q *queue) batch() (batch []*fragment, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for lasts := time.Duration(0); len(q.list) > 0 && lasts < batchTime; q.list = q.list[1:] {
		batch = append(batch, q.list[0])
		lasts += q.list[0].lasts
	}
	q.flight = batch
	return batch, q.closed
}

// done says that what was taken is on the medium, or given up.
func (q *queue) done() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, f := range q.flight {
		q.bytes -= f.bytes
	}
	q.flight = nil
}
