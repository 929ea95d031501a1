// Package cmaf cuts renditions into the segments and parts that HLS and DASH
// players fetch, and recorders keep (ISO/IEC 23000-19).
//
//	Rendition ─► cutter ─┬─► video: │ 7.0 7.1 … │ 8.0 8.1 … │ 9.0 9.1
//	             (runs   │            segment 7   segment 8   open
//	              while  └─► sound: │ 7.0 7.1 … │ 8.0 8.1 … │ 9.0 9.1
//	              asked)              cut at the same times
//
// Picture and sound are cut apart, since CMAF tracks are files of one track.
// A segment begins with a key picture; a part ends where a unit does. Both are
// made once, are immutable from then on and shared by all readers: a [Sequence]
// is a snapshot that anybody may keep.
//
// A rendition is cut while somebody asks, and for some time after; then its
// goroutine and memory go. Who asks first gets what the rendition's ring holds,
// at once.
package cmaf

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/fmp4"
)

// Defaults of a [Segmenter]'s fields.
const (
	DefaultPart   = 200 * time.Millisecond
	DefaultKeep   = 8
	DefaultMemory = 64 << 20
	DefaultIdle   = 30 * time.Second
)

const (
	// spare segments stay for readers that hold an older playlist.
	spare = 2
	// long is how much of the past stays listed, besides the segments asked for.
	long = 16 * time.Second
	// shortest is the time after which every key picture begins a segment. One
	// that comes sooner does so after a segment of twice that time: it was asked
	// for, as for a camera that comes back, and the next may be far.
	shortest = 500 * time.Millisecond
	// enough is how much whole segments are to hold: with less, a key picture
	// is asked for that completes one.
	enough = time.Second
	// hole is the time without pictures that is told as a discontinuity.
	hole = time.Second
	// patience is how far sound may lag behind the picture.
	patience = time.Second
	// assumedFPS is for tracks that do not tell.
	assumedFPS = 25
)

var (
	// ErrStopped says that the segmenter does not run.
	ErrStopped = errors.New("nothing is cut into segments now")
	// ErrNoVideo says that a rendition has no picture to cut at.
	ErrNoVideo = errors.New("the rendition has no picture, which segments begin with")
	// ErrNoSound says that a rendition has no sound.
	ErrNoSound = errors.New("the rendition has no sound")
)

// Medium is what a sequence carries.
type Medium uint8

// The media.
const (
	Video Medium = iota
	Sound
	media
)

// String returns the name that stands in addresses.
func (m Medium) String() string { return [...]string{"video", "audio"}[m] }

// Pick returns the tracks that are cut: the first picture, and AAC before other
// sound, since every player knows it. Either may be nil.
func Pick(tracks []*stream.Track) (video, sound *stream.Track) {
	for _, t := range tracks {
		switch {
		case t == nil:
		case t.Codec.Video():
			video = cmp.Or(video, t)
		case sound == nil || t.Codec == stream.AAC && sound.Codec != stream.AAC:
			sound = t
		}
	}
	return video, sound
}

// A Segmenter cuts renditions, each while somebody asks for it. Set its fields
// before Run and leave them alone from then on. All methods may be called from
// any goroutine.
type Segmenter struct {
	// Part is how long parts are to be; they are whole pictures. Zero means
	// 200 ms.
	Part time.Duration
	// Keep is how many whole segments a sequence lists; zero means 8.
	Keep int
	// Memory bounds the bytes of media kept for a rendition's picture, and as
	// much for its sound; zero means 64 MB.
	Memory int
	// Idle is how long a rendition is cut after somebody asked; zero means
	// 30 s.
	Idle time.Duration
	// Log takes what starts and stops; nil means nobody cares.
	Log *slog.Logger

	mu      sync.Mutex
	spawn   func(work func(context.Context)) (stop context.CancelFunc) // nil: not running
	streams map[*stream.Rendition]*Stream
	numbers numbers
}

// Run lets renditions be cut until ctx ends, then waits for the last goroutine
// and returns nil.
func (s *Segmenter) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	s.setSpawn(func(work func(context.Context)) context.CancelFunc {
		ctx, cancel := context.WithCancel(ctx)
		wg.Go(func() {
			defer cancel()
			work(ctx)
		})
		return cancel
	})
	<-ctx.Done()
	s.setSpawn(nil)
	wg.Wait()
	return nil
}

func (s *Segmenter) setSpawn(spawn func(func(context.Context)) context.CancelFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spawn = spawn
}

// start runs work until stop is called or Run ends.
func (s *Segmenter) start(work func(context.Context)) (stop context.CancelFunc, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spawn == nil {
		return nil, ErrStopped
	}
	return s.spawn(work), nil
}

// Of returns the stream of a rendition, always the same until the rendition is
// closed. It starts nothing.
func (s *Segmenter) Of(r *stream.Rendition) *Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.streams, func(src *stream.Rendition, _ *Stream) bool { return src.Closed() })
	if st := s.streams[r]; st != nil {
		return st
	}
	st := &Stream{sg: s, src: r, wall: stream.Wall, next: s.numbers.first(time.Now())}
	if r.Closed() {
		return st // for this one caller
	}
	if s.streams == nil {
		s.streams = make(map[*stream.Rendition]*Stream)
	}
	s.streams[r] = st
	return st
}

// numbers gives streams the number of their first segment: one that a stream
// of the same name cannot have come to before, in this program or an earlier
// one, for players must never see numbers go back.
type numbers struct{ next atomic.Uint64 } // after the highest used

// numbersBegin keeps numbers small: some players count by 32 bits. No box is
// older.
var numbersBegin = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// numberEvery is a time in which no stream uses up more than one number, though
// each begins with the past that its rendition keeps.
const numberEvery = shortest / 2

func (n *numbers) first(now time.Time) uint64 {
	return max(n.next.Load(), uint64(max(now.Sub(numbersBegin), 0)/numberEvery))
}

func (n *numbers) used(number uint64) {
	for {
		next := n.next.Load()
		if number < next || n.next.CompareAndSwap(next, number+1) {
			return
		}
	}
}

func (s *Segmenter) log() *slog.Logger { return cmp.Or(s.Log, slog.New(slog.DiscardHandler)) }

// A Stream is a rendition as it is cut. All methods may be called from any
// goroutine.
type Stream struct {
	sg   *Segmenter
	src  *stream.Rendition
	wall func(time.Duration) time.Time

	mu     sync.Mutex
	cut    *cutter // nil: idle
	asked  time.Time
	next   uint64        // number of the next segment
	begun  bool          // there was one before
	breaks uint64        // discontinuities so far
	target time.Duration // highest that was told; zero: none yet
}

// Name returns the rendition's name.
func (st *Stream) Name() string { return st.src.Name }

// Tracks returns what is cut, once every track has begun; sound may be nil.
func (st *Stream) Tracks(ctx context.Context) (video, sound *stream.Track, err error) {
	tracks, err := st.src.Wait(ctx)
	if err != nil {
		return nil, nil, err
	}
	video, sound = Pick(tracks)
	if video == nil {
		return nil, nil, ErrNoVideo
	}
	return video, sound, nil
}

// Target returns how long segments are at most, in whole seconds: as the
// encoder's key pictures are ordered to come, which holds from the first segment
// on; the longest so far where that is not known, and two before there was one.
// It never shrinks.
func (st *Stream) Target() time.Duration {
	st.mu.Lock()
	defer st.mu.Unlock()
	if target := max(st.target, ordered(st.src)); target > 0 {
		return target
	}
	return 2 * time.Second
}

// ordered returns the whole seconds that no segment exceeds, rounded to the
// nearest, while key pictures come as ordered; zero if that is not known.
func ordered(r *stream.Rendition) time.Duration {
	apart := r.KeyInterval()
	switch {
	case apart <= 0:
		return 0
	case apart < least: // a segment may hold two groups
		return max((2 * apart).Round(time.Second), time.Second)
	default:
		const odd = 100 * time.Millisecond // 60 pictures of 29.97 a second are more than two seconds
		return (apart - odd + time.Second - 1).Truncate(time.Second)
	}
}

// Pictures returns about how many pictures a segment has.
func (st *Stream) Pictures() uint64 {
	seq := st.Latest(Video)
	if seq == nil {
		return 0
	}
	return uint64(math.Round(frameRate(seq.Track) * st.Target().Seconds()))
}

// Rate returns what playlists say about a track of [Stream.Tracks]: its codec
// (RFC 6381) and bit rates, measured while the rendition is cut and nominal
// otherwise. The error wraps [fmp4.ErrTrack].
func (st *Stream) Rate(m Medium, t *stream.Track) (codec string, average, peak int, err error) {
	if codec, err = fmp4.Codec(t); err != nil {
		return "", 0, 0, err
	}
	if seq := st.Latest(m); seq != nil {
		return codec, seq.Average, seq.Peak, nil
	}
	return codec, t.Bitrate, t.Bitrate, nil
}

// Running reports whether the rendition is being cut.
func (st *Stream) Running() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.cut != nil
}

// Latest returns the newest snapshot, nil if there is none. It starts nothing
// and counts as no asking.
func (st *Stream) Latest(m Medium) *Sequence {
	st.mu.Lock()
	cut := st.cut
	st.mu.Unlock()
	if cut == nil {
		return nil
	}
	seq, _, _ := cut.feeds[m].latest()
	return seq
}

// Ask has the rendition cut from now on, as [Stream.Wait] does, and waits for
// nothing.
func (st *Stream) Ask() {
	_, _ = st.ask() // with the segmenter stopped, nobody can be helped
}

// Wait returns the newest snapshot as soon as enough says yes, and has the
// rendition cut from then on if it was not. enough is called for every new
// part, from the caller's goroutine. The error is ctx's cause, [ErrStopped],
// [ErrNoVideo], [ErrNoSound] or [stream.ErrClosed].
func (st *Stream) Wait(ctx context.Context, m Medium, enough func(*Sequence) bool) (*Sequence, error) {
	for {
		cut, err := st.ask()
		if err != nil {
			return nil, err
		}
		seq, err := cut.feeds[m].wait(ctx, enough)
		if !errors.Is(err, errRest) {
			return seq, err
		}
	}
}

// ask returns the running cutter.
func (st *Stream) ask() (*cutter, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.asked = time.Now()
	if st.cut != nil {
		return st.cut, nil
	}
	c := newCutter(st)
	stop, err := st.sg.start(func(ctx context.Context) { st.run(ctx, c) })
	if err != nil {
		return nil, err
	}
	c.stop = stop
	st.cut = c
	return c, nil
}

// run cuts until ctx ends or nobody has asked for long.
func (st *Stream) run(ctx context.Context, c *cutter) {
	log := st.sg.log().With("rendition", st.src.Name)
	log.Debug("segments begin")
	idle := cmp.Or(st.sg.Idle, DefaultIdle)
	st.mu.Lock()
	c.timer = time.AfterFunc(idle, func() { st.rest(c, idle) })
	st.mu.Unlock()
	err := c.run(ctx)
	c.timer.Stop()
	switch {
	case ctx.Err() != nil:
		err = errRest
	case errors.Is(err, stream.ErrClosed):
	default:
		log.Warn("segments end", "err", err)
	}
	st.drop(c)
	c.end(err)
	log.Debug("segments rest")
}

// rest stops c once nobody has asked for a while, or looks again when that may
// be.
func (st *Stream) rest(c *cutter, idle time.Duration) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if left := idle - time.Since(st.asked); left > 0 {
		c.timer.Reset(left)
		return
	}
	if st.cut == c {
		st.cut = nil
	}
	c.stop()
}

func (st *Stream) drop(c *cutter) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.cut == c {
		st.cut = nil
	}
}

// opening takes the next segment's number. broken says that it does not go on
// from the one before, if there was one.
func (st *Stream) opening(broken bool) *opening {
	st.mu.Lock()
	defer st.mu.Unlock()
	o := &opening{number: st.next, discontinuity: broken && st.begun, before: st.breaks}
	st.sg.numbers.used(st.next)
	st.next++
	st.begun = true
	if o.discontinuity {
		st.breaks++
	}
	return o
}

// lasted notes how long a segment was and returns the target that playlists
// tell. One that is longer than ordered, or than any before where nobody knows
// what is to come, raises it: RFC 8216bis, 6.2.1, allows no such change, but a
// segment longer than told is worse, and one that begins with no key picture
// breaks what EXT-X-INDEPENDENT-SEGMENTS promises.
func (st *Stream) lasted(d time.Duration) time.Duration {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.target = max(st.target, ordered(st.src), d.Round(time.Second), time.Second)
	return st.target
}

// frameRate returns a video track's pictures per second.
func frameRate(t *stream.Track) float64 {
	if t.FPS > 0 && !math.IsInf(t.FPS, 0) {
		return t.FPS
	}
	return assumedFPS
}

// pictureTime returns how long one picture of t is to be shown.
func pictureTime(t *stream.Track) time.Duration {
	return time.Duration(float64(time.Second) / frameRate(t))
}
