package stream

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// A Feed turns the units of a rendition into values of another kind, packets
// for instance, once for all who watch. It runs from the first watcher to the
// last: nobody watching, no cost. Set the exported fields before use; Watch
// and Ended may be called from any goroutine.
type Feed[T any] struct {
	// Source is what is turned. As many values are kept for readers as it keeps
	// units: more than a group of pictures.
	Source *Rendition
	// Turn returns what stands for a unit, and whether reading can start
	// there; ok is false if nothing does. It is called by one goroutine at a
	// time, in the order of the units, beginning with a key unit. An error
	// ends the feed.
	Turn func(u *Unit) (v T, key, ok bool, err error)
	// Failed, if set, is told of Turn's error.
	Failed func(err error)

	ended atomic.Bool

	mu       sync.Mutex
	watchers int
	ring     *Ring[T]
	stop     func() // ends the goroutine and waits for it
}

// Watch returns a reader placed at the latest key value; leave must be called
// once. What the feed runs ends with the last leave, not with ctx.
func (f *Feed[T]) Watch(ctx context.Context) (rd *Reader[T], leave func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watchers == 0 {
		f.start(ctx)
	}
	f.watchers++
	return f.ring.Reader(), sync.OnceFunc(f.leave)
}

// Ended reports whether no more values will come: the rendition was closed, or
// Turn has failed. Readers get [ErrClosed].
func (f *Feed[T]) Ended() bool { return f.ended.Load() }

// Watched reports whether it runs, for somebody watches.
func (f *Feed[T]) Watched() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.watchers > 0
}

func (f *Feed[T]) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watchers--; f.watchers == 0 {
		f.stop()
		f.ring = nil // the memory of some seconds of media
	}
}

// start runs into a new ring. The caller holds f.mu.
func (f *Feed[T]) start(ctx context.Context) {
	ring := f.Ring()
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() {
		defer ring.Close()
		if err := f.run(ctx, ring); err != nil && f.Failed != nil {
			f.Failed(err)
		}
	})
	f.ring = ring
	f.stop = func() {
		cancel()
		wg.Wait()
	}
}

// Ring returns a ring that is as deep as the source's: for what is made of the
// feed's values one by one, too.
func (f *Feed[T]) Ring() *Ring[T] { return NewRing[T](f.Source.ring.size()) }

// run turns until ctx ends. It never waits for readers.
func (f *Feed[T]) run(ctx context.Context, ring *Ring[T]) error {
	units := f.Source.Reader()
	for {
		u, err := units.Next(ctx)
		if errors.Is(err, ErrClosed) {
			f.ended.Store(true)
			return nil
		}
		if err != nil {
			return nil //nolint:nilerr // nobody watches any more
		}
		v, key, ok, err := f.Turn(u)
		if err != nil {
			f.ended.Store(true)
			return err
		}
		if !ok {
			continue
		}
		if want := f.Source.ring.size(); want != ring.size() { // groups of pictures are longer now, or shorter
			ring.Resize(want)
		}
		ring.Publish(v, key)
	}
}
