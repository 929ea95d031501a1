// Package record keeps a rendition as files that play everywhere: fragmented
// MP4 (ISO/IEC 14496-12), picture and sound in one.
//
//	Rendition ─► cutter ──► queue ──► writer ─► 2026-11-21T203015Z-main.mp4
//	             a fragment  bounded   write, fdatasync, once for all that waits
//	             a second
//
// A file is whole up to its last fragment, whatever happens: a power cut costs
// what was not on the medium yet, two seconds at most while the medium keeps up.
// A medium that does not keep up holds up nobody: whole fragments are left out,
// and the recording goes on at a key picture.
package record

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"encoderd.example/stream"
)

// Defaults of [Settings].
const (
	DefaultLength = time.Hour
	// DefaultSize leaves a group of pictures room below the 4 GiB that a file of
	// FAT can have.
	DefaultSize  = 3840 << 20
	DefaultQueue = 32 << 20
)

const (
	// drainTime is how long what waits may take to be written once a recording
	// ends, closeTime the end altogether, with the time that a medium has not
	// answered for by then; leastTime it always has.
	drainTime = 2500 * time.Millisecond
	closeTime = 4 * time.Second
	leastTime = time.Second
	// stuckTime is after what time a medium that does not return from a call
	// counts as broken.
	stuckTime = 30 * time.Second
	// lagging is how long media waits for a medium that is too slow. Slow lasts
	// for calmTime after the last sign of it.
	lagging  = 5 * time.Second
	calmTime = 10 * time.Second
	// quiet is after what time without a picture nothing is being recorded, and
	// lookTime how often that and the medium is looked after if nothing comes.
	quiet    = 3 * time.Second
	lookTime = time.Second
)

// Settings say what to record where.
type Settings struct {
	// Dir is the folder, and Make whether it is made if it is not there. A folder
	// on a medium that may be out should not be; it must not be on the box's own
	// disk then, see [OpenDir].
	Dir  string
	Make bool
	// Name ends the names of files. It must be fit for that.
	Name string
	// Length and Size bound a file: at the next key picture another one begins,
	// without a picture lost or twice. Zero means the default.
	Length time.Duration
	Size   int64
	// Queue bounds the bytes of media that wait for the medium; zero means the
	// default.
	Queue int
}

// State is how a recording does.
type State uint8

// The states.
const (
	Waiting   State = iota // no picture is on the medium yet, or none has come for three seconds
	Recording              // all that came so far is, but for what came just now
	Slow                   // the medium takes less than comes
	Stuck                  // the medium has not answered for long
)

// A Report says how a recording does.
type Report struct {
	State State
	File  string // the name of the open file, "" before the first
	// Bytes are those on the medium, Pictures those in them, and Lost the
	// pictures that came and were left out, by a failure too, all since Run began.
	// What comes after a Run that failed and before the next is in nobody's.
	Bytes, Pictures, Lost uint64
	// Free and Total are the medium's bytes; zero Total means unknown.
	Free, Total uint64
}

// A Recorder records. Its zero value is ready for use. Set its fields before
// Run.
type Recorder struct {
	// Open gets a medium ready; nil means [OpenDir].
	Open func(dir string, create bool) (Medium, error)
	// Log takes what begins and ends; nil means nobody cares.
	Log *slog.Logger

	mu   sync.Mutex
	left int // media that hung when a Run ended, and still do
}

// Errors of Run, beside those of the medium.
var (
	// ErrFull says that there is too little space.
	ErrFull = errors.New("the storage is full")
	// ErrGone says that the medium, or the file on it, is not there any more.
	ErrGone = errors.New("the medium is gone")
	// ErrNotMounted says that the folder is the box's own.
	ErrNotMounted = errors.New("no medium is mounted there")
	// ErrHangs says that the medium does not answer.
	ErrHangs = errors.New("the medium does not answer")
)

// Run records src from its latest key unit on until ctx ends, and returns nil
// then, within 4 s even if the medium hangs. What it has written is closed and
// on the medium by then, unless it returns an error, which says in words what
// to do. Whatever stood in the folder before stays as it is. report is called
// whenever something changed, from several goroutines, one at a time; it must
// not block. Only one Run may go on at a time.
func (r *Recorder) Run(ctx context.Context, src *stream.Rendition, to Settings, report func(Report)) error {
	to.Length = cmp.Or(to.Length, DefaultLength)
	to.Size = cmp.Or(to.Size, DefaultSize)
	to.Queue = cmp.Or(to.Queue, DefaultQueue)
	if r.hangs() {
		return remedy(to.Dir, ErrHangs)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	units := src.Reader()
	s := &session{report: report, queue: newQueue(to.Queue)}
	defer s.watch(context.WithoutCancel(ctx))()
	written := r.write(to, s, cancel)
	err := cutAll(ctx, src, units, to, s)
	if ended := r.finish(s, written); ended != nil {
		return remedy(to.Dir, ended)
	}
	return err
}

// write starts the writer, the only one that touches the medium. If it fails
// it ends the rest by cancel.
func (r *Recorder) write(to Settings, s *session, cancel context.CancelCauseFunc) <-chan error {
	written := make(chan error, 1)
	w := &writer{open: r.Open, to: to, session: s, log: cmp.Or(r.Log, slog.New(slog.DiscardHandler))}
	if w.open == nil {
		w.open = OpenDir
	}
	r.count(+1)
	go func() {
		err := w.run()
		if err != nil {
			cancel(err)
		}
		r.count(-1)
		written <- err
	}()
	return written
}

// finish waits until all is written, or as much as there is time for. A medium
// that hangs already has less.
func (r *Recorder) finish(s *session, written <-chan error) error {
	s.queue.close()
	drain := time.AfterFunc(drainTime, func() { s.lose(s.queue.discard()) })
	defer drain.Stop()
	late := time.NewTimer(closeTime)
	defer late.Stop()
	since := s.waits()
	hung := time.NewTimer(grace(since))
	defer hung.Stop()
	for {
		select {
		case err := <-written:
			s.lose(s.queue.discard())
			return err
		case <-hung.C:
			if now := s.waits(); now.IsZero() || !now.Equal(since) {
				continue // it has answered since
			}
		case <-late.C:
		}
		s.lose(s.queue.discard() + s.queue.flying())
		s.mute()
		return ErrHangs
	}
}

// grace returns how long a medium may take from now on that has been waited for
// since a time.
func grace(since time.Time) time.Duration {
	if since.IsZero() {
		return closeTime
	}
	return min(max(closeTime-time.Since(since), leastTime), closeTime)
}

func (r *Recorder) count(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left += n
}

// hangs reports whether a medium that was left behind still does.
func (r *Recorder) hangs() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.left > 0
}

// cutAll reads units of src until ctx ends, or src does.
func cutAll(ctx context.Context, src *stream.Rendition, units *stream.Reader[*stream.Unit], to Settings, s *session) error {
	c := &cutter{src: src, to: to, session: s, wall: stream.Wall, waiting: true}
	for lost := units.Lost(); ; {
		u, err := units.Next(ctx)
		if err != nil {
			c.end()
			if ctx.Err() != nil {
				return nil //nolint:nilerr // the end, or the writer's error, which is told by it
			}
			return fmt.Errorf("record %s: %w", src.Name, err)
		}
		if n := units.Lost(); n != lost {
			lost = n
			c.miss()
		}
		if err := c.take(u); err != nil {
			c.end()
			return fmt.Errorf("record %s: %w", src.Name, err)
		}
		s.look()
	}
}

// A session is what cutter and writer know together. Its methods may be called
// from any goroutine.
type session struct {
	queue *queue

	mu     sync.Mutex
	report func(Report) // nil: nobody listens any more
	now    Report
	slow   time.Time // when there was a sign of slowness last
	fed    time.Time // when a picture was taken last
	busy   time.Time // since when the medium is being waited for; zero: it is not
}

// watch looks from time to time, until stop is called.
func (s *session) watch(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var g sync.WaitGroup
	g.Go(func() {
		t := time.NewTicker(lookTime)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				s.look()
			}
		}
	})
	return func() {
		cancel()
		g.Wait()
	}
}

// update changes what is so, and tells.
func (s *session) update(change func(*Report)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.now
	change(&s.now)
	s.judge()
	if s.report != nil && s.now != before {
		s.report(s.now)
	}
}

// judge finds the state. The caller holds mu.
func (s *session) judge() {
	now := time.Now()
	if s.queue.lag(now) > lagging {
		s.slow = now
	}
	switch {
	case !s.busy.IsZero() && now.Sub(s.busy) > stuckTime:
		s.now.State = Stuck
	case s.now.Pictures == 0, now.Sub(s.fed) > quiet:
		s.now.State = Waiting
	case !s.slow.IsZero() && now.Sub(s.slow) < calmTime:
		s.now.State = Slow
	default:
		s.now.State = Recording
	}
}

// feed notes that a picture was taken.
func (s *session) feed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fed = time.Now()
}

// look finds out what the time alone has changed.
func (s *session) look() { s.update(func(*Report) {}) }

// lose counts pictures that are left out.
func (s *session) lose(pictures int) {
	if pictures > 0 {
		s.update(func(r *Report) { r.Lost += uint64(pictures) })
	}
}

// drop counts pictures that are left out because the medium is slow.
func (s *session) drop(pictures int) {
	s.update(func(r *Report) {
		s.slow = time.Now()
		r.Lost += uint64(pictures)
	})
}

// wait says whether the medium is being waited for from now on.
func (s *session) wait(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = time.Time{}
	if yes {
		s.busy = time.Now()
	}
}

// waits returns since when the medium is being waited for; zero: it is not.
func (s *session) waits() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.busy
}

// mute is for the end of Run while the medium still hangs.
func (s *session) mute() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report = nil
}
