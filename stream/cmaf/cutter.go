package cmaf

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"encoderd.example/stream"
)

// A cutter cuts a rendition, from being asked to being idle. It is for use by
// one goroutine, save for its feeds.
//
//	pictures decide:   key, not too soon ─► new segment
//	                   200 ms after the last cut ─► new part
//	sound follows:     each cut waits until sound has passed it
type cutter struct {
	st    *Stream
	stop  context.CancelFunc // set by Stream, under its lock
	timer *time.Timer        // likewise
	feeds [media]*feed

	video         *sequencer
	sound         *sequencer // nil: none
	length        time.Duration
	latest        *Init         // of the sound when cutting began: the past may be other
	waiting       bool          // for a key picture
	broken        bool          // the next segment does not go on from the one before
	brief         bool          // the segment before the open one lasted hardly longer than shortest
	segment       time.Duration // DTS at which the open one began
	key           time.Duration // DTS of the newest key picture
	apart, before time.Duration // how far it is from the one before, and that one from the one before
	wished        time.Duration // DTS at which a key picture was asked for
	now           time.Duration // DTS of the newest picture
	units         []frame       // pictures of the open part
	cuts          []cut         // that sound has not reached yet
	frames        []frame       // sound that is in no part yet
}

// A cut is a place in time where a part ends.
type cut struct {
	at      time.Duration // DTS of the picture after it
	segment *opening      // nil: only a part ends
}

// An opening is how a segment begins, for both media.
type opening struct {
	number        uint64
	discontinuity bool
	before        uint64        // discontinuities
	keys          time.Duration // how far apart key pictures are expected to be
	init          [media]*Init
}

func newCutter(st *Stream) *cutter {
	return &cutter{st: st, feeds: [media]*feed{newFeed(), newFeed()}, waiting: true, broken: true}
}

// end answers all who still wait, and lets go of what was cut.
func (c *cutter) end(err error) {
	for _, f := range c.feeds {
		f.end(err)
	}
	for _, q := range []*sequencer{c.video, c.sound} {
		if q != nil {
			q.end()
		}
	}
}

// run cuts until ctx ends or the rendition is closed.
func (c *cutter) run(ctx context.Context) error {
	video, sound, err := c.st.Tracks(ctx)
	if err != nil {
		return err
	}
	if err := c.begin(video, sound); err != nil {
		return err
	}
	units := c.st.src.History()
	past, lost := units.Behind(), uint64(0)
	for n := 0; ; n++ {
		if n == past {
			c.publish()
		}
		if n >= past {
			c.wish()
		}
		u, err := units.Next(ctx)
		if err != nil {
			return err
		}
		if n := units.Lost(); n != lost {
			lost = n
			c.waiting, c.broken = true, true
		}
		if err := c.take(u); err != nil {
			return err
		}
	}
}

// wish asks for a key picture, now and then, where one is missed.
func (c *cutter) wish() {
	if c.now-c.wished < shortest || !c.begins() && !c.overdue() {
		return
	}
	c.wished = c.now
	c.st.src.WantKey()
}

// begins reports whether no whole segment is worth the name yet: who asks soon
// after an encoder's start is not to wait for the end of its first group.
func (c *cutter) begins() bool {
	return c.now-c.segment >= enough && c.video.past() < enough
}

// overdue reports whether the next key picture is late: encoders count
// pictures, and a busy machine leaves some out.
func (c *cutter) overdue() bool {
	const late = 150 * time.Millisecond
	apart := c.st.src.KeyInterval()
	return apart > 0 && c.now-c.key > apart+late
}

// publish shows what was cut of the past, all at once, and everything from then
// on: who asks first is not to begin far behind.
func (c *cutter) publish() {
	for _, q := range []*sequencer{c.sound, c.video} { // the picture's playlist tells of both
		if q != nil {
			q.public = true
			q.publish()
		}
	}
}

func (c *cutter) begin(video, sound *stream.Track) (err error) {
	c.video = &sequencer{feed: c.feeds[Video], st: c.st, medium: Video}
	if _, err := c.video.retrack(video); err != nil {
		return err
	}
	// A part is so many whole pictures; half a picture's time allows for their
	// jitter, and a quarter is added to what playlists promise.
	one, want := pictureTime(video), cmp.Or(c.st.sg.Part, DefaultPart)
	n := max(math.Round(float64(want)/float64(one)), 1)
	c.length = time.Duration((n - 0.5) * float64(one))
	c.video.longest = time.Duration((n + 0.25) * float64(one))
	if sound == nil {
		c.feeds[Sound].end(ErrNoSound)
		return nil
	}
	if c.latest, err = newInit(sound); err != nil {
		return err
	}
	c.sound = &sequencer{feed: c.feeds[Sound], st: c.st, medium: Sound, track: sound}
	// Sound is cut between its frames, so up to one longer.
	c.sound.longest = time.Duration(n*float64(one)) + frameTime(sound)
	return nil
}

func (c *cutter) take(u *stream.Unit) error {
	switch {
	case u.Track.Codec.Video():
		return c.picture(u)
	case c.sound != nil && u.Track.Codec == c.sound.track.Codec:
		return c.hear(u)
	default:
		return nil
	}
}

func (c *cutter) picture(u *stream.Unit) error {
	changed, err := c.video.retrack(u.Track)
	if err != nil {
		return err
	}
	if changed || c.jumps(u) {
		c.waiting, c.broken = true, true
	}
	if u.Key {
		c.measure(u)
	}
	switch {
	case c.waiting && !u.Key:
		return nil
	case c.waiting, u.Key && c.turns(u):
		c.open(u)
	case u.DTS-c.units[0].DTS >= c.length:
		c.close(u, nil)
	}
	c.now = u.DTS
	c.units = append(c.units, frame{u, c.video.init})
	return c.bound()
}

// jumps reports whether u does not follow the picture before it in time.
func (c *cutter) jumps(u *stream.Unit) bool {
	return len(c.units) > 0 && (u.DTS-c.now > hole || u.DTS <= c.now)
}

// measure notes how far apart key pictures are.
func (c *cutter) measure(u *stream.Unit) {
	if !c.waiting {
		c.apart, c.before = u.DTS-c.key, cmp.Or(c.apart, usual)
	}
	c.key = u.DTS
}

// turns reports whether the key picture u begins a segment. It does whenever
// the next one would come too late for the target.
func (c *cutter) turns(u *stream.Unit) bool {
	const most = 450 * time.Millisecond // over the target; sound may be a frame longer
	if apart := c.st.src.KeyInterval(); apart > 0 && u.DTS+apart-c.segment > c.st.Target()+most {
		return true
	}
	return (u.DTS-c.segment >= shortest || !c.brief) && c.video.told.mayEnd(u.DTS)
}

// open begins a segment with the key picture u.
func (c *cutter) open(u *stream.Unit) {
	o := c.st.opening(c.broken)
	o.keys = cmp.Or(max(c.apart, c.before), usual) // one that was asked for is no measure
	o.init[Video] = c.video.init
	if c.sound != nil {
		o.init[Sound] = c.sound.init
	}
	c.brief = c.video.open != nil && u.DTS-c.segment < 2*shortest
	c.close(u, o)
	c.waiting, c.broken, c.segment = false, false, u.DTS
}

// close ends the open part in front of u, and the segment if one opens.
func (c *cutter) close(u *stream.Unit, next *opening) {
	if len(c.units) > 0 {
		end := u.DTS
		if c.jumps(u) {
			end = c.now + pictureTime(u.Track)
		}
		c.video.add(c.units, end)
	}
	c.units = nil
	c.video.turn(u.DTS, next)
	if c.sound != nil {
		c.cuts = append(c.cuts, cut{u.DTS, next})
		c.settle()
	}
}

// tooMuch says that a segment would not fit into memory.
var errTooMuch = errors.New("key pictures are too far apart")

// bound gives up a segment that alone exceeds the memory allowed.
func (c *cutter) bound() error {
	if c.video.open == nil || c.video.open.Bytes <= cmp.Or(c.st.sg.Memory, DefaultMemory) {
		return nil
	}
	return errTooMuch
}

func (c *cutter) hear(u *stream.Unit) error {
	changed, err := c.sound.retrack(u.Track)
	if err != nil {
		return err
	}
	if changed {
		c.broken = true // told at the next key picture, which both media share
	}
	// With no picture to cut at, old sound goes.
	const most = 4096
	if len(c.frames) >= most {
		c.frames = slices.Clone(c.frames[most/2:])
	}
	c.frames = append(c.frames, frame{u, c.sound.init})
	c.settle()
	return nil
}

// settle makes the parts of sound whose end is known: a later frame has come,
// or the picture is so far ahead that none will.
func (c *cutter) settle() {
	for len(c.cuts) > 0 {
		at := c.cuts[0].at
		after := slices.IndexFunc(c.frames, func(f frame) bool { return f.DTS >= at })
		if after < 0 && c.now-at < patience {
			return
		}
		if after < 0 {
			after = len(c.frames)
		}
		c.sound.add(c.frames[:after], soundEnd(c.frames, after))
		c.sound.turn(at, c.withSound(c.cuts[0].segment))
		c.frames, c.cuts = c.frames[after:], c.cuts[1:]
	}
}

// withSound gives an opening from before the first frame of sound its header.
func (c *cutter) withSound(o *opening) *opening {
	if o == nil || o.init[Sound] != nil {
		return o
	}
	full := *o
	full.init[Sound] = cmp.Or(c.sound.init, c.latest)
	return &full
}

// soundEnd returns when the last of n frames ends: where the next begins,
// unless sound was missing there.
func soundEnd(frames []frame, n int) time.Duration {
	if n == 0 {
		return 0
	}
	last := frames[n-1]
	end := last.DTS + frameTime(last.Track)
	if n < len(frames) && (frames[n].DTS-end).Abs() < frameTime(last.Track) {
		return frames[n].DTS
	}
	return end
}

// frameTime returns how long a frame of sound lasts.
func frameTime(t *stream.Track) time.Duration {
	const aac = 1024 // samples (ISO/IEC 14496-3)
	if t.Codec == stream.AAC && t.Rate > 0 {
		return aac * time.Second / time.Duration(t.Rate)
	}
	return 20 * time.Millisecond
}
