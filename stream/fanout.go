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
	// bytes that is. It is called once all before is out, and Push right after it.
	// plate is v's, for who lays it out for many readers; it is nil where only
	// this one is known to want v.
	Take(v T, plate *Plate) (bytes int, err error)
	// Push sends what goes out at once, and reports whether all of it is out.
	Push() (out bool, err error)
	// Flush sends what is left of the value that was taken, and waits for that.
	Flush() error
	// Waits reports whether Push may wait for the far side.
	Waits() bool
	// Hold runs serve, in which values are taken and pushed, with what that needs
	// kept open. An error says that it is closed already.
	Hold(serve func()) error
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
// costs the others a system call for each value, and no time. The lane's [Plate]
// spares readers of the same value to lay it out each for itself. Lanes run from
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
	s := &seat[T]{from: *rd, to: sink, viewer: v, lost: v.Lost.Load(), done: make(chan struct{})}
	defer func() { *rd = s.from }()
	defer s.tellBytes()
	if sink.Waits() {
		return f.follow(ctx, s)
	}
	if err := sink.Hold(func() { f.sit(ctx, s) }); err != nil {
		return err
	}
	if s.err == nil {
		s.err = s.to.Flush()
	}
	if s.err == nil {
		s.err = context.Cause(ctx)
	}
	return s.err
}

// sit has a lane serve the reader until it is done or ctx ends.
func (f *Fanout[T]) sit(ctx context.Context, s *seat[T]) {
	ring := s.from.ring
	l := f.enter(ring, s)
	defer f.leave(ring, l, s)
	select {
	case <-s.done:
	case <-ctx.Done():
	}
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
		n := now[T]{at: f.At}
		_, n.edge = s.from.ring.published()
		if s.step(&n); s.over {
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
	ring  *Ring[T]
	at    func(T) time.Duration
	plate Plate
	came  chan struct{} // somebody has joined
	stop  func()        // ends the goroutine and waits for it

	mu    sync.Mutex // held for a round
	seats []*seat[T]
}

// A seat is one reader in its lane, which alone touches it until it is done or
// has left.
type seat[T any] struct {
	// What every value of a crowd needs lies together: it is cold every time.
	to      Sink[T]
	from    Reader[T]
	pending bool          // a value is on its way
	lags    bool          // the viewer was told so
	over    bool          // it is done
	unsaid  uint64        // bytes that the viewer was not told of
	said    time.Duration // when it was, on the media clock

	viewer *Viewer
	err    error         // why it is done
	lost   uint64        // before
	bytes  int           // of the value on its way
	at     time.Duration // of it
	full   time.Time     // since when
	done   chan struct{} // closed by the lane
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
		published, edge := l.ring.published()
		more, full := l.round(edge)
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
// somebody has more to get of what was published before edge, and otherwise
// when those that are full want to be tried again, 0 if nobody is.
func (l *lane[T]) round(edge uint64) (more bool, full time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := now[T]{edge: edge, at: l.at, plate: &l.plate}
	for _, s := range l.seats {
		if s.over {
			continue // about to leave
		}
		if s.step(&n) {
			more = true
		}
		if s.over {
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

// now is what the seats of a round share.
type now[T any] struct {
	edge  uint64 // the number of the next value, when the round began
	at    func(T) time.Duration
	plate *Plate // of front; nil: nobody shares it
	front T      // the latest value that somebody was given
	next  uint64 // its number plus one; zero: none was given yet
}

// value returns what s gets next, as try does, and its plate. Most readers want
// the value that the one before them got.
func (n *now[T]) value(s *seat[T]) (v T, plate *Plate, ok bool, err error) {
	if s.from.next+1 == n.next && !s.from.lostPlace {
		s.from.next++
		return n.front, n.plate, true, nil
	}
	v, ok, err = s.from.try()
	s.viewer.Lost.Store(s.lost + s.from.Lost())
	if !ok || s.from.next < n.next {
		return v, nil, ok, err
	}
	n.front, n.next = v, s.from.next
	if n.plate != nil {
		n.plate.clean()
	}
	return v, n.plate, true, nil
}

// pause returns when a full seat is tried again.
func (s *seat[T]) pause() time.Duration {
	if time.Since(s.full) > napTime {
		return sleepPause
	}
	return fullPause
}

// step sends one value or the rest of one, and reports whether the next one, or
// the end, waits already.
func (s *seat[T]) step(n *now[T]) (more bool) {
	if s.pending {
		return s.goOn(n)
	}
	v, plate, ok, err := n.value(s)
	if !ok {
		s.over, s.err = err != nil, err
		s.tellLag(0) // nothing is on its way: it waits for a key value, or for the end
		return false
	}
	bytes, err := s.to.Take(v, plate)
	out := false
	if err == nil {
		out, err = s.to.Push()
	}
	at := n.at(v)
	switch {
	case err != nil:
		s.over, s.err = true, err
	case out:
		return s.went(n, bytes, at)
	default:
		s.pending, s.bytes, s.at, s.full = true, bytes, at, time.Now()
		s.tellBytes()
		s.tellLag(age(at))
	}
	return false
}

// goOn is step for a value on its way.
func (s *seat[T]) goOn(n *now[T]) (more bool) {
	out, err := s.to.Push()
	switch {
	case err != nil:
		s.over, s.err = true, err
	case out:
		s.pending = false
		return s.went(n, s.bytes, s.at)
	default:
		s.tellLag(age(s.at))
	}
	return false
}

// went takes note of a value that is out.
func (s *seat[T]) went(n *now[T], bytes int, at time.Duration) (more bool) {
	s.unsaid += uint64(bytes)
	current := s.from.next >= n.edge
	if since := at - s.said; !current || s.lags || since > sayEvery || since < 0 {
		s.said = at
		s.tellBytes()
	}
	if current {
		s.tellLag(0)
		return false
	}
	s.tellLag(age(at))
	return true
}

// age is how far what is on its way lies back, for who does not keep up.
func age(at time.Duration) time.Duration { return max(Monotonic()-at, 0) }

// sayEvery is how often the viewer of a reader that keeps up is told of bytes:
// its memory is elsewhere, and dear to reach for every value.
const sayEvery = 250 * time.Millisecond

func (s *seat[T]) tellBytes() {
	s.viewer.Bytes.Add(s.unsaid)
	s.unsaid = 0
}

func (s *seat[T]) tellLag(lag time.Duration) {
	if lag > 0 || s.lags {
		s.lags = lag > 0
		s.viewer.Lag.Store(int64(lag))
	}
}
