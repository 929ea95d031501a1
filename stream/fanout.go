package stream

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// A Sink takes the values of one reader, one after the other. For one goroutine
// at a time.
type Sink[T any] interface {
	// Take makes v what goes out next, which may be nothing, and returns how many
	// bytes that is. It is called once all before is out.
	Take(v T) (bytes int, err error)
	// Push sends what goes out at once, and reports whether all of it is out.
	Push() (out bool, err error)
	// Flush sends what is left of the value that was taken, and waits for that.
	Flush() error
	// Waits reports whether Push may wait for the far side.
	Waits() bool
}

// A Fanout carries the values of rings to their readers, many by each of a few
// goroutines:
//
//	Ring ─┬─► lane ─┬─► Sink: one write that does not wait
//	      │         ├─► Sink: full, it goes on where it stopped, later
//	      │         └─► …
//	      ├─► lane ─┬─► …
//	      └─► Follow ─► Sink that may wait: a goroutine of its own
//
// Every reader keeps its own place in the ring, so that one that takes nothing
// costs the others a system call for each value, and no time. Lanes run from
// their first reader to their last. Set At before use; Serve may be called from
// any goroutine.
type Fanout[T any] struct {
	// At returns the instant of a value on the media clock.
	At func(v T) time.Duration

	mu    sync.Mutex
	lanes map[*Ring[T]][]*lane[T]
}

const (
	// laneSeats is how many readers one goroutine serves: on a small board, as
	// many as it can write to in the time between two pictures, several times.
	laneSeats = 64
	// fullPause is the time until a full sink is tried again at the latest, and
	// sleepPause until one that was full for longer than napTime.
	fullPause  = 5 * time.Millisecond
	sleepPause = 100 * time.Millisecond
	napTime    = time.Second
)

// Serve hands rd's values to sink until ctx ends: then it flushes the one on its
// way and returns the cause. It returns [ErrClosed] at the end of the ring,
// and an error of the sink, after which the far side may hold half a value. v is
// told of bytes, loss and lag.
func (f *Fanout[T]) Serve(ctx context.Context, rd *Reader[T], v *Viewer, sink Sink[T]) error {
	s := &seat[T]{from: rd, to: sink, viewer: v, lost: v.Lost.Load(), done: make(chan struct{})}
	if sink.Waits() {
		return f.follow(ctx, s)
	}
	l := f.enter(rd.ring, s)
	select {
	case <-s.done:
	case <-ctx.Done():
	}
	f.leave(rd.ring, l, s)
	if s.err == nil {
		s.err = s.to.Flush()
	}
	if s.err == nil {
		s.err = context.Cause(ctx)
	}
	return s.err
}

// follow serves one reader from the caller's goroutine.
func (f *Fanout[T]) follow(ctx context.Context, s *seat[T]) error {
	for {
		if _, err := s.from.Peek(ctx); err != nil && !errors.Is(err, ErrClosed) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if s.step(f.At); s.err != nil {
			return s.err
		}
	}
}

// enter seats a reader in a lane with room.
func (f *Fanout[T]) enter(ring *Ring[T], s *seat[T]) *lane[T] {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.lanes[ring] {
		if l.join(s) {
			return l
		}
	}
	l := &lane[T]{ring: ring, at: f.At, came: make(chan struct{}, 1)}
	l.join(s)
	if f.lanes == nil {
		f.lanes = make(map[*Ring[T]][]*lane[T])
	}
	f.lanes[ring] = append(f.lanes[ring], l)
	l.start()
	return l
}

// leave ends the lane, too, that it empties.
func (f *Fanout[T]) leave(ring *Ring[T], l *lane[T], s *seat[T]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if l.quit(s) > 0 {
		return
	}
	l.stop()
	f.lanes[ring] = slices.DeleteFunc(f.lanes[ring], func(o *lane[T]) bool { return o == l })
	if len(f.lanes[ring]) == 0 {
		delete(f.lanes, ring)
	}
}

// A lane is one goroutine and whom it serves.
type lane[T any] struct {
	ring *Ring[T]
	at   func(T) time.Duration
	came chan struct{} // somebody has joined
	stop func()        // ends the goroutine and waits for it

	mu    sync.Mutex // held for a round
	seats []*seat[T]
}

// A seat is one reader in its lane, which alone touches it until it is done or
// has left.
type seat[T any] struct {
	from    *Reader[T]
	to      Sink[T]
	viewer  *Viewer
	lost    uint64        // before
	at      time.Duration // of the value on its way
	bytes   int
	pending bool
	full    time.Time     // since when; zero: it is not
	err     error         // why it is done
	done    chan struct{} // closed by the lane
}

func (l *lane[T]) join(s *seat[T]) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.seats) == laneSeats {
		return false
	}
	l.seats = append(l.seats, s)
	select {
	case l.came <- struct{}{}:
	default:
	}
	return true
}

// quit returns how many remain.
func (l *lane[T]) quit(s *seat[T]) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seats = slices.DeleteFunc(l.seats, func(o *seat[T]) bool { return o == s })
	return len(l.seats)
}

func (l *lane[T]) start() {
	end := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { l.run(end) })
	l.stop = func() {
		close(end)
		wg.Wait()
	}
}

func (l *lane[T]) run(end <-chan struct{}) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		published := l.ring.published()
		more, full := l.round()
		if more {
			continue
		}
		var again <-chan time.Time
		if full > 0 {
			pause.Reset(full)
			again = pause.C
		}
		select {
		case <-published:
		case <-l.came:
		case <-again:
		case <-end:
			return
		}
	}
}

// round gives everybody one value or the rest of one. It reports whether
// somebody has more to get right now, and otherwise when those that are full
// want to be tried again, 0 if nobody is.
func (l *lane[T]) round() (more bool, full time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.seats {
		if s.err != nil {
			continue // about to leave
		}
		if s.step(l.at) {
			more = true
		}
		if s.err != nil {
			close(s.done)
			continue
		}
		if !s.pending {
			continue
		}
		if pause := s.pause(); full == 0 || pause < full {
			full = pause
		}
	}
	return more, full
}

// pause returns when a full seat is tried again.
func (s *seat[T]) pause() time.Duration {
	now := time.Now()
	if s.full.IsZero() {
		s.full = now
	}
	if now.Sub(s.full) > napTime {
		return sleepPause
	}
	return fullPause
}

// step sends one value or the rest of one, and reports whether the next one, or
// the end, waits already.
func (s *seat[T]) step(at func(T) time.Duration) (more bool) {
	if !s.pending {
		v, ok, err := s.from.try()
		s.viewer.Lost.Store(s.lost + s.from.Lost())
		if !ok {
			s.err = err
			s.viewer.Lag.Store(0) // nothing is on its way: it waits for a key value, or for the end
			return false
		}
		if s.bytes, s.err = s.to.Take(v); s.err != nil {
			return false
		}
		s.at, s.pending = at(v), true
	}
	out, err := s.to.Push()
	current := s.from.current()
	switch {
	case err != nil:
		s.err = err
		return false
	case out:
		s.pending, s.full = false, time.Time{}
		s.viewer.Bytes.Add(uint64(s.bytes))
	}
	s.viewer.Lag.Store(int64(s.lag(out && current)))
	return out && !current
}

// lag is exact while the reader keeps up, and otherwise tells the age of what
// is on its way.
func (s *seat[T]) lag(current bool) time.Duration {
	if current {
		return 0
	}
	return max(Monotonic()-s.at, 0)
}
