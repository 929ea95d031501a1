package cmaf

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/fmp4"
)

// A Sequence is what players can fetch of one medium at one moment. It is
// immutable, and so is all that it points to; but the media of segments that are
// kept no more are gone.
type Sequence struct {
	// Version is unlike that of every other snapshot.
	Version uint64
	Medium  Medium
	Track   *stream.Track // the newest
	// Segments are the ones to list, oldest first, with consecutive numbers.
	// Only the last may be incomplete. There is at least one.
	Segments []*Segment
	// Long is Segments and, before them, what there is of the last 16 s, for
	// players that load a list seldom.
	Long []*Segment
	// Next is the segment that has begun after them and has no part yet, nil
	// if the last of Segments is open.
	Next *Segment
	// Discontinuities counts those before the first of Segments.
	Discontinuities uint64
	// Target is [Stream.Target] at that moment, PartTarget the longest part of
	// those that are and are to be expected.
	Target, PartTarget time.Duration
	// Average and Peak are bit/s over the complete segments, or what the track
	// promises while there is none.
	Average, Peak int

	held []*Segment // Segments, and some that are listed no more
}

// A Segment begins with a key picture, or with the sound at that time.
type Segment struct {
	Number uint64
	Init   *Init
	// Discontinuity says that something does not go on as before: time, or
	// how it is coded.
	Discontinuity bool
	// Complete says that no part is to come. A complete segment without
	// parts is a gap: there was no sound.
	Complete bool
	Parts    []*Part
	// Time is when the first unit is decoded, Length how long the units last,
	// both in ticks of Init's Scale, and Duration is the same as Length.
	Time, Length uint64
	Duration     time.Duration
	// Told is where timelines say that the segment is. What they said of its
	// beginning stays, whatever comes.
	Told Span
	// Wall is the wall-clock time at which the first picture was captured.
	Wall  time.Time
	Bytes int

	before uint64 // discontinuities
	store  *store // of the parts; nil while there is none
}

// A Part is one CMAF chunk: a fragment that a player can append. [Stream.Serve]
// hands out its bytes, as long as its segment is kept.
type Part struct {
	Size         int // in bytes
	Time, Length uint64
	Duration     time.Duration
	Independent  bool // decoding can start here

	at   int64  // in the segment's store
	data []byte // unless it has its bytes here
}

// An Init is the header that segments refer to.
type Init struct {
	// ID is the same for the same bytes, fit for addresses.
	ID    string
	Data  []byte
	Track *stream.Track
	// Codec is the track's name in playlists (RFC 6381), Scale how many ticks
	// a second its times count.
	Codec string
	Scale uint32
}

// Has reports whether part (from 0) of a segment is there, as RFC 8216bis,
// 6.2.5.2 counts: what lies beyond a complete segment's last part is the next
// segment's first, and a negative part stands for the whole segment.
func (s *Sequence) Has(number uint64, part int) bool {
	last := s.Last()
	switch {
	case last.Number != number:
		return last.Number > number
	case part < 0:
		return last.Complete
	default:
		return len(last.Parts) > part
	}
}

// Last returns the newest segment.
func (s *Sequence) Last() *Segment { return s.Segments[len(s.Segments)-1] }

// Complete returns the segments of Segments that are.
func (s *Sequence) Complete() []*Segment {
	if n := len(s.Segments) - 1; !s.Segments[n].Complete {
		return s.Segments[:n]
	}
	return s.Segments
}

// Segment returns the one with a number, nil if it is not kept. It finds some
// that are listed no more.
func (s *Sequence) Segment(number uint64) *Segment {
	if first := s.held[0].Number; number >= first && number-first < uint64(len(s.held)) {
		return s.held[number-first]
	}
	return nil
}

// At returns the held segment that is told to begin at a time in ticks, nil if
// there is none with parts.
func (s *Sequence) At(ticks uint64) *Segment {
	for _, g := range slices.Backward(s.held) {
		if g.began() == ticks && len(g.Parts) > 0 {
			return g
		}
	}
	return nil
}

// began is when the segment is told to begin, in ticks.
func (g *Segment) began() uint64 { return fmp4.Ticks(g.Told.From, g.Init.Scale) }

// Init returns the header with an ID, nil if no kept segment refers to it.
func (s *Sequence) Init(id string) *Init {
	for _, g := range s.held {
		if g.Init.ID == id {
			return g.Init
		}
	}
	return nil
}

// errRest tells waiters to ask anew.
var errRest = errors.New("nobody asked for a while")

// A feed holds the newest snapshot and those who wait for the next.
type feed struct {
	mu   sync.Mutex
	seq  *Sequence     // nil before the first part
	wake chan struct{} // closed and replaced by every publish
	err  error         // nothing more comes
}

func newFeed() *feed { return &feed{wake: make(chan struct{})} }

func (f *feed) latest() (*Sequence, <-chan struct{}, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seq, f.wake, f.err
}

func (f *feed) publish(s *Sequence) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seq = s
	f.signal()
}

// end makes err the answer to all who wait for more; only the first counts.
func (f *feed) end(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
		f.signal()
	}
}

func (f *feed) signal() {
	close(f.wake)
	f.wake = make(chan struct{})
}

func (f *feed) wait(ctx context.Context, enough func(*Sequence) bool) (*Sequence, error) {
	for {
		seq, wake, err := f.latest()
		switch {
		case seq != nil && enough(seq):
			return seq, nil
		case err != nil:
			return nil, err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
