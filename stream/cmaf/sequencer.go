package cmaf

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/fmp4"
)

// newInit writes the header of a track.
func newInit(t *stream.Track) (*Init, error) {
	codec, err := fmp4.Codec(t)
	if err != nil {
		return nil, fmt.Errorf("cut %v: %w", t.Codec, err)
	}
	data, err := fmp4.AppendInit(nil, t)
	if err != nil {
		return nil, fmt.Errorf("cut %v: %w", t.Codec, err)
	}
	sum := sha256.Sum256(data)
	return &Init{ID: hex.EncodeToString(sum[:4]), Data: data, Track: t, Codec: codec, Scale: fmp4.Scale(t)}, nil
}

// A frame is a unit and what it is decoded with.
type frame struct {
	*stream.Unit
	init *Init
}

// A sequencer makes the parts and segments of one medium.
type sequencer struct {
	feed    *feed
	st      *Stream
	medium  Medium
	init    *Init // of the newest track
	track   *stream.Track
	longest time.Duration // part
	public  bool          // readers may see it

	held  []*Segment // complete ones
	open  *Segment   // nil before the first opening
	told  timeline
	began time.Duration
	count uint32 // fragments
	bytes int    // of held

	scratch []byte // of chunk
}

// retrack makes t the newest track and reports whether its header differs from
// the one before: an encoder that starts anew as it was changes nothing.
func (q *sequencer) retrack(t *stream.Track) (changed bool, err error) {
	if t == q.track && q.init != nil {
		return false, nil
	}
	init, err := newInit(t)
	if err != nil {
		return false, err
	}
	q.track = t
	if q.init != nil && q.init.ID == init.ID {
		return false, nil
	}
	changed = q.init != nil
	q.init = init
	return changed, nil
}

// add makes a part of frames, of which the last lasts until end, and appends it
// to the open segment. Frames that its header does not fit are left out.
func (q *sequencer) add(frames []frame, end time.Duration) {
	if q.open == nil {
		return
	}
	frames = slices.DeleteFunc(slices.Clone(frames), func(f frame) bool { return f.init != q.open.Init })
	if len(frames) == 0 {
		return
	}
	first := frames[0]
	scale := q.open.Init.Scale
	run := fmp4.Run{Track: 1, Time: fmp4.Ticks(first.DTS, scale), Samples: make([]fmp4.Sample, len(frames))}
	length := uint64(0)
	for i, f := range frames {
		next := end
		if i+1 < len(frames) {
			next = frames[i+1].DTS
		}
		run.Samples[i] = fmp4.SampleOf(f.Unit, next)
		length += uint64(run.Samples[i].Duration)
	}
	p := &Part{Time: run.Time, Length: length, Duration: fmp4.Time(length, scale), Independent: run.Samples[0].Key}
	q.longest = max(q.longest, p.Duration)
	q.append(p, q.chunk(first, run))
}

// chunk puts a fragment into one piece of memory, which is good until the next
// one. A segment's first says what it is and when it was captured.
func (q *sequencer) chunk(first frame, run fmp4.Run) []byte {
	q.count++
	fragment := fmp4.Fragment(q.count, run)
	data := q.scratch[:0]
	if len(q.open.Parts) == 0 {
		q.open.Wall = q.st.wall(first.PTS)
		data = fmp4.AppendSegmentType(data)
		data = fmp4.AppendReferenceTime(data, 1, q.open.Wall, fmp4.Ticks(first.PTS, q.open.Init.Scale))
	}
	for _, b := range fragment {
		data = append(data, b...)
	}
	q.scratch = data
	return data
}

func (q *sequencer) append(p *Part, data []byte) {
	g := q.open
	if len(g.Parts) == 0 {
		g.Time, g.store = p.Time, newStore()
	}
	g.store.put(p, data)
	g.Parts = append(g.Parts, p)
	g.Length = p.Time + p.Length - g.Time
	g.Duration = fmp4.Time(g.Length, g.Init.Scale)
	g.Bytes += p.Size
}

// turn publishes what was added; if a segment begins at this DTS, it completes
// the open one.
func (q *sequencer) turn(at time.Duration, next *opening) {
	if next == nil {
		q.told.goOn(at)
		q.publish()
		return
	}
	if !q.public {
		q.told.endAt(at) // nobody was told anything else
	}
	if q.open != nil {
		q.complete(at)
	}
	q.began = at
	q.told.open(at, next.keys, next.discontinuity)
	q.open = &Segment{Number: next.number, Init: next.init[q.medium], Discontinuity: next.discontinuity, before: next.before}
	q.publish()
}

func (q *sequencer) complete(at time.Duration) {
	g := q.open
	g.Complete = true
	g.Told = q.told.Span
	if len(g.Parts) == 0 {
		g.Time, g.Wall = fmp4.Ticks(q.began, g.Init.Scale), q.st.wall(q.began)
		g.Length = fmp4.Ticks(at, g.Init.Scale) - min(g.Time, fmp4.Ticks(at, g.Init.Scale))
		g.Duration = fmp4.Time(g.Length, g.Init.Scale)
	}
	q.open = nil
	q.bytes += g.Bytes
	held := append(slices.Clip(q.held), g) // readers keep the old one
	most := cmp.Or(q.st.sg.Memory, DefaultMemory)
	for len(held) > q.listed(held, long)+spare || q.bytes > most && len(held) > 1 {
		q.bytes -= held[0].Bytes
		held[0].release()
		held = held[1:]
	}
	q.held = held
}

// end lets go of all segments; readers under way still get what they asked for.
func (q *sequencer) end() {
	for _, g := range q.held {
		g.release()
	}
	if q.open != nil {
		q.open.release()
	}
}

// release lets the media go, once readers under way have them.
func (g *Segment) release() {
	if g.store != nil { // a gap has none
		g.store.release()
	}
}

// past returns how long the complete segments last.
func (q *sequencer) past() (d time.Duration) {
	for _, g := range q.held {
		d += g.Duration
	}
	return d
}

// versions counts snapshots.
var versions atomic.Uint64

// publish makes a snapshot for readers.
func (q *sequencer) publish() {
	s := &Sequence{Version: versions.Add(1), Medium: q.medium, Track: q.track, PartTarget: q.longest, held: q.held}
	longest := time.Duration(0)
	if q.open != nil {
		open := *q.open
		open.Parts = slices.Clip(open.Parts) // the next part goes elsewhere
		open.Told = q.told.Span
		if len(open.Parts) > 0 {
			s.held = append(slices.Clip(s.held), &open)
		} else {
			s.Next = &open
		}
		longest = open.Duration
	}
	if len(s.held) == 0 || !q.public {
		return
	}
	for _, g := range q.held {
		longest = max(longest, g.Duration)
	}
	s.Target = q.st.lasted(longest)
	s.Segments = s.held[len(q.held)-q.listed(q.held, 0):]
	s.Long = s.held[len(q.held)-q.listed(q.held, long):]
	s.Discontinuities = s.Segments[0].before
	s.measure()
	q.feed.publish(s)
}

// listed returns how many of the newest complete segments are for new readers:
// as many as are to be kept, or more that last so long.
func (q *sequencer) listed(held []*Segment, long time.Duration) (n int) {
	keep, length := cmp.Or(q.st.sg.Keep, DefaultKeep), time.Duration(0)
	for _, g := range slices.Backward(held) {
		if n >= keep && length >= long {
			break
		}
		n++
		length += g.Duration
	}
	return n
}

// measure finds the bit rates.
func (s *Sequence) measure() {
	var bytes, duration float64
	for _, g := range s.Complete() {
		if g.Duration <= 0 {
			continue
		}
		bytes, duration = bytes+float64(g.Bytes), duration+g.Duration.Seconds()
		s.Peak = max(s.Peak, int(float64(g.Bytes)*8/g.Duration.Seconds()))
	}
	if duration > 0 {
		s.Average = int(bytes * 8 / duration)
	}
	if s.Peak == 0 {
		s.Average, s.Peak = s.Track.Bitrate, s.Track.Bitrate
	}
}
