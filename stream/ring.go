package stream

import (
	"context"
	"errors"
	"sync"
)

// ErrClosed is what readers get once the writer has gone.
var ErrClosed = errors.New("stream: ring closed")

// A Ring passes values from one writer to any number of readers.
//
// The ring is the only store: it is the queue of every reader and the GOP
// cache of every newcomer, so memory does not grow with the number of readers.
type Ring[T any] struct {
	mu     sync.Mutex
	slots  []T
	next   uint64        // number of the next value published
	floor  uint64        // values before this one were lost in a Resize
	key    uint64        // number of the latest key value, plus one; zero if none
	wake   chan struct{} // closed and replaced by every Publish
	closed bool
}

// NewRing returns a ring that keeps the latest n values, at least one.
func NewRing[T any](n int) *Ring[T] {
	return &Ring[T]{slots: make([]T, max(n, 1)), wake: make(chan struct{})}
}

// Publish hands v to all readers and never waits for them. Reading can start
// at a key value.
func (r *Ring[T]) Publish(v T, key bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	*r.slot(r.next) = v
	r.next++
	if key {
		r.key = r.next
	}
	close(r.wake)
	r.wake = make(chan struct{})
}

// Resize makes the ring keep the latest n values, at least one. Values that
// fit stay; readers do not notice.
func (r *Ring[T]) Resize(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.slots
	r.slots = make([]T, max(n, 1))
	kept := min(r.next, uint64(len(old)), uint64(len(r.slots)))
	for i := r.next - kept; i < r.next; i++ {
		*r.slot(i) = old[i%uint64(len(old))]
	}
	r.floor = max(r.floor, r.next-kept)
}

// size returns how many values the ring keeps.
func (r *Ring[T]) size() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.slots)
}

// Close lets readers drain what is left and then get [ErrClosed].
func (r *Ring[T]) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.closed = true
		close(r.wake)
	}
}

// published returns a channel that closes with the next Publish or Close, nil
// once no more will come, and the number of the value that comes then. The end
// counts as a value.
func (r *Ring[T]) published() (wake <-chan struct{}, edge uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, r.next + 1
	}
	return r.wake, r.next
}

func (r *Ring[T]) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// Reader returns a reader placed at the latest key value, or, if the ring
// holds none, at the next one to come.
func (r *Ring[T]) Reader() *Reader[T] {
	r.mu.Lock()
	defer r.mu.Unlock()
	rd := &Reader[T]{ring: r}
	rd.toKey()
	rd.lost = 0
	return rd
}

// History returns a reader placed at the oldest value that is kept, key or not,
// for those who serve the past, too.
func (r *Ring[T]) History() *Reader[T] {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &Reader[T]{ring: r, next: r.oldest()}
}

// oldest returns the number of the oldest value that is still kept.
func (r *Ring[T]) oldest() uint64 {
	n := uint64(len(r.slots))
	if r.next < n {
		return r.floor
	}
	return max(r.floor, r.next-n)
}

func (r *Ring[T]) slot(number uint64) *T { return &r.slots[number%uint64(len(r.slots))] }

// A Reader is one consumer's place in a ring, for use by one goroutine.
type Reader[T any] struct {
	ring      *Ring[T]
	next      uint64
	lost      uint64
	lostPlace bool // the next key value decides where to go on
}

// Next returns the value at the reader's place and moves on, waiting for it if
// need be. A reader that the writer has overtaken goes on at the latest key
// value; [Reader.Lost] counts what it missed.
func (rd *Reader[T]) Next(ctx context.Context) (T, error) {
	v, err := rd.Peek(ctx)
	if err == nil {
		rd.next++
	}
	return v, err
}

// Peek is Next without moving on.
func (rd *Reader[T]) Peek(ctx context.Context) (T, error) {
	for {
		v, wake, err := rd.look()
		if wake == nil {
			return v, err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return v, context.Cause(ctx)
		}
	}
}

// try is Next without waiting: ok is false if nothing is there yet, or err.
func (rd *Reader[T]) try() (v T, ok bool, err error) {
	v, wake, err := rd.look()
	if wake != nil || err != nil {
		return v, false, err
	}
	rd.next++
	return v, true, nil
}

// look returns the value at the reader's place, or else a channel to wait on.
func (rd *Reader[T]) look() (v T, wake <-chan struct{}, err error) {
	r := rd.ring
	r.mu.Lock()
	defer r.mu.Unlock()
	if rd.lostPlace || rd.next < r.oldest() {
		rd.toKey()
	}
	switch {
	case !rd.lostPlace && rd.next < r.next:
		return *r.slot(rd.next), nil, nil
	case r.closed:
		return v, nil, ErrClosed
	default:
		return v, r.wake, nil
	}
}

// toKey moves on to the latest key value, if the ring still holds it.
func (rd *Reader[T]) toKey() {
	r := rd.ring
	at := r.next
	rd.lostPlace = r.key == 0 || r.key-1 < r.oldest()
	if !rd.lostPlace {
		at = r.key - 1
	}
	rd.lost += at - rd.next
	rd.next = at
}

// Lost returns how many values this reader has skipped.
func (rd *Reader[T]) Lost() uint64 { return rd.lost }

// Behind returns how many values wait for this reader: the one number under
// the congestion lamp, the bit-rate control and the graphs.
func (rd *Reader[T]) Behind() int {
	rd.ring.mu.Lock()
	defer rd.ring.mu.Unlock()
	return int(rd.ring.next - rd.next)
}
