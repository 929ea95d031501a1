package record

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/fmp4"
)

const (
	// length is how long fragments are: what is cut off by a power cut at most,
	// beside what is being written. A key picture begins one if the open one is
	// not too short, or if that is how recording can go on.
	length, shortest = time.Second, 500 * time.Millisecond
	// patience is how far sound may lag behind the picture, and ahead how far it
	// may be in front before it is written without.
	patience, ahead = time.Second, 2 * time.Second
	// assumedFPS is for tracks that do not tell.
	assumedFPS = 25
)

// A cutter makes fragments of units, for use by one goroutine. It never waits.
//
//	pictures decide:   a second is over, or a key picture ─► cut
//	sound follows:     a cut waits until sound has passed it
//	each file:         begins with a key picture, and its time at zero
type cutter struct {
	src     *stream.Rendition
	to      Settings
	session *session
	wall    func(time.Duration) time.Time

	track    *stream.Track // the newest of the picture
	waiting  bool          // for a key picture
	turns    bool          // the next key picture begins a file
	plan     *plan         // of the newest file, nil before the first
	opens    *plan         // the open fragment begins this one
	pictures []*stream.Unit
	now      time.Duration  // DTS of the newest picture that was taken
	sounds   []*stream.Unit // in no fragment yet
	cuts     []cut          // that sound has not reached yet

	file    *file // that fragments go to, nil before the first
	starved bool  // the queue was full: the next fragment to go in has a key
}

// A plan is a file as the cutter foresees it.
type plan struct {
	from  time.Duration // DTS of the first picture
	size  int64
	sound *stream.Track // nil: none has come
	begun bool          // its header is made
}

// A cut is where a fragment ends.
type cut struct {
	pictures []*stream.Unit
	at       time.Duration
	opens    *plan // nil: the fragment goes on in the file before
}

// A file is one as it is written.
type file struct {
	*plan

	tracks []*stream.Track // the picture, and the sound if there is any
	base   time.Duration   // what counts as zero
	count  uint32          // fragments
}

func (c *cutter) take(u *stream.Unit) error {
	if u.Track.Codec.Video() {
		return c.picture(u)
	}
	return c.hear(u)
}

// miss is for units that the ring did not keep long enough.
func (c *cutter) miss() { c.waiting = c.waiting || c.track != nil }

func (c *cutter) picture(u *stream.Unit) error {
	first := c.track == nil
	if !first && (!alike(c.track, u.Track) || u.DTS <= c.now) {
		c.waiting, c.turns = true, true
	}
	c.track = u.Track
	if c.waiting && !u.Key {
		if c.plan != nil {
			c.src.WantKey()
		}
		return nil
	}
	if err := c.close(u); err != nil {
		return err
	}
	if c.waiting && c.plan != nil {
		c.session.lose(missing(c.now, u))
	}
	if u.Key && c.begins(u) {
		c.opens = &plan{from: u.DTS, sound: c.sound()}
		c.plan, c.turns = c.opens, false
	}
	c.waiting, c.now = false, u.DTS
	c.session.feed()
	c.pictures = append(c.pictures, u)
	c.plan.size += int64(len(u.Data))
	return c.settle(false)
}

// close cuts in front of u if a fragment is to begin there.
func (c *cutter) close(u *stream.Unit) error {
	if len(c.pictures) == 0 {
		return nil
	}
	if c.waiting {
		return c.cut(c.now + pictureTime(c.pictures[0].Track))
	}
	open := u.DTS - c.pictures[0].DTS
	if open >= length || u.Key && (open >= shortest || c.starved || c.begins(u)) {
		return c.cut(u.DTS)
	}
	return nil
}

// begins reports whether the key picture u begins a file.
func (c *cutter) begins(u *stream.Unit) bool {
	return c.plan == nil || c.turns || u.DTS-c.plan.from >= c.to.Length || c.plan.size >= c.to.Size
}

// missing returns how many pictures should have come between the one of a time
// and u.
func missing(before time.Duration, u *stream.Unit) int {
	return max(int(math.Round(float64(u.DTS-before)/float64(pictureTime(u.Track))))-1, 0)
}

// sound returns the newest track of sound that came in, or that the rendition
// knows.
func (c *cutter) sound() *stream.Track {
	if n := len(c.sounds); n > 0 {
		return c.sounds[n-1].Track
	}
	if c.plan != nil && c.plan.sound != nil {
		return c.plan.sound
	}
	tracks, _ := c.src.Tracks()
	for _, t := range tracks {
		if t != nil && !t.Codec.Video() {
			return t
		}
	}
	return nil
}

// expectsSound reports whether the rendition has sound, at some time.
func (c *cutter) expectsSound() bool {
	tracks, _ := c.src.Tracks()
	return len(tracks) > 1
}

func (c *cutter) hear(u *stream.Unit) error {
	c.sounds = append(c.sounds, u)
	if c.plan != nil {
		c.plan.size += int64(len(u.Data))
		c.match(u.Track)
	}
	if err := c.settle(false); err != nil {
		return err
	}
	if len(c.cuts) > 0 || u.DTS-c.sounds[0].DTS < ahead {
		return nil
	}
	n := len(c.sounds) - 1
	sounds, next := c.sounds[:n], c.sounds[n:]
	c.sounds = next
	if c.file == nil {
		return nil // older than any picture
	}
	return c.send(cut{at: u.DTS}, sounds, next)
}

// match has the sound that the newest file is to have fit what comes.
func (c *cutter) match(t *stream.Track) {
	switch {
	case alike(c.plan.sound, t):
	case c.plan.sound == nil && !c.plan.begun:
		c.plan.sound = t
	case !c.turns:
		c.turns = true
		c.src.WantKey()
	}
}

// cut ends the open fragment at a time.
func (c *cutter) cut(at time.Duration) error {
	c.cuts = append(c.cuts, cut{c.pictures, at, c.opens})
	c.pictures, c.opens = nil, nil
	return c.settle(false)
}

// settle sends the fragments whose sound is there: a later frame has come, or
// the picture is so far in front that none will. At the end there is no waiting.
func (c *cutter) settle(end bool) error {
	for len(c.cuts) > 0 {
		next := c.cuts[0]
		after := slices.IndexFunc(c.sounds, func(u *stream.Unit) bool { return u.DTS >= next.at })
		if after < 0 && !end && c.now-next.at < patience && c.expectsSound() {
			return nil
		}
		if after < 0 {
			after = len(c.sounds)
		}
		sounds, rest := c.sounds[:after], c.sounds[after:]
		c.sounds, c.cuts = rest, c.cuts[1:]
		if err := c.send(next, sounds, rest); err != nil {
			return err
		}
	}
	return nil
}

// end sends what there is.
func (c *cutter) end() {
	if len(c.pictures) > 0 {
		_ = c.cut(c.now + pictureTime(c.pictures[0].Track)) // this is the end
	}
	_ = c.settle(true) // likewise
	if n := len(c.sounds); n > 0 && c.file != nil {
		_ = c.send(cut{at: c.sounds[n-1].DTS}, c.sounds, nil)
	}
}

// send hands a fragment on, or drops it while there is no room. After one that
// was dropped, the next begins with a key picture.
func (c *cutter) send(from cut, sounds, after []*stream.Unit) error {
	if from.opens != nil {
		c.file = nil // its header goes with the first fragment for which there is room
	}
	if !c.fits(from.pictures, sounds) {
		c.starved = true
		c.session.drop(len(from.pictures))
		return nil
	}
	c.starved = false
	f := &fragment{pictures: len(from.pictures)}
	if c.file == nil {
		if err := c.begin(f, from); err != nil {
			return err
		}
	}
	if len(from.pictures) > 0 {
		f.lasts = from.at - from.pictures[0].DTS
	}
	if f.data = c.file.fragment(from, c.fitting(sounds), after); f.data == nil {
		return nil
	}
	for _, b := range f.data {
		f.bytes += len(b)
	}
	c.session.queue.add(f)
	c.session.look()
	return nil
}

// fits reports whether there is room in the queue.
func (c *cutter) fits(pictures, sounds []*stream.Unit) bool {
	size := 0
	for _, u := range pictures {
		size += len(u.Data)
	}
	for _, u := range sounds {
		size += len(u.Data)
	}
	if !c.starved {
		return c.session.queue.room(size, 1)
	}
	const calm = 0.5 // one that was full is to be half empty, or it is full again at once
	return len(pictures) > 0 && pictures[0].Key && c.session.queue.room(size, calm)
}

// begin makes a file that begins with from's first picture, a key.
func (c *cutter) begin(f *fragment, from cut) error {
	p := from.opens
	if p == nil {
		p = c.plan
	}
	open := &file{plan: p, tracks: []*stream.Track{from.pictures[0].Track}, base: from.pictures[0].DTS}
	if p.sound != nil {
		open.tracks = append(open.tracks, p.sound)
	}
	data, err := fmp4.AppendInit(nil, open.tracks...)
	if err != nil {
		return fmt.Errorf("begin a file: %w", err)
	}
	c.file, p.begun = open, true
	f.begins, f.bytes = &heading{began: c.wall(open.base), data: data}, len(data)
	return nil
}

// fitting returns the sounds that the open file can take.
func (c *cutter) fitting(sounds []*stream.Unit) (list []*stream.Unit) {
	for _, u := range sounds {
		if u.DTS >= c.file.base && alike(c.file.sound, u.Track) {
			list = append(list, u)
		}
	}
	return list
}

// fragment makes one of from's pictures and of sounds, before those that come
// after; nil if there is nothing.
func (f *file) fragment(from cut, sounds, after []*stream.Unit) [][]byte {
	var runs []fmp4.Run
	if len(from.pictures) > 0 {
		runs = append(runs, f.run(1, from.pictures, from.at))
	}
	if len(sounds) > 0 {
		last := sounds[len(sounds)-1]
		end := last.DTS + frameTime(last)
		if len(after) > 0 && (after[0].DTS-end).Abs() < frameTime(last) {
			end = after[0].DTS
		}
		runs = append(runs, f.run(2, sounds, end))
	}
	if len(runs) == 0 {
		return nil
	}
	f.count++
	return fmp4.Fragment(f.count, runs...)
}

// run lays out a track's units, of which the last lasts until end.
func (f *file) run(track int, units []*stream.Unit, end time.Duration) fmp4.Run {
	scale := fmp4.Scale(units[0].Track)
	r := fmp4.Run{Track: track, Time: fmp4.Ticks(units[0].DTS-f.base, scale), Samples: make([]fmp4.Sample, len(units))}
	for i, u := range units {
		next := end
		if i+1 < len(units) {
			next = units[i+1].DTS
		}
		moved := *u
		moved.PTS, moved.DTS = u.PTS-f.base, u.DTS-f.base
		r.Samples[i] = fmp4.SampleOf(&moved, next-f.base)
	}
	return r
}

// alike reports whether a file can hold units of both tracks as one: an encoder
// that starts anew as it was changes nothing.
func alike(a, b *stream.Track) bool {
	return a == b || a != nil && b != nil && a.Codec == b.Codec && bytes.Equal(a.Setup, b.Setup) &&
		a.Width == b.Width && a.Height == b.Height && a.Rate == b.Rate && a.Channels == b.Channels
}

// pictureTime returns how long one picture of t is to be shown.
func pictureTime(t *stream.Track) time.Duration {
	fps := t.FPS
	if fps <= 0 || math.IsInf(fps, 0) || math.IsNaN(fps) {
		fps = assumedFPS
	}
	return time.Duration(float64(time.Second) / fps)
}

// frameTime returns how long a frame of sound lasts.
func frameTime(u *stream.Unit) time.Duration {
	const aac = 1024 // samples (ISO/IEC 14496-3)
	switch {
	case u.Duration > 0:
		return u.Duration
	case u.Track.Codec == stream.AAC && u.Track.Rate > 0:
		return aac * time.Second / time.Duration(u.Track.Rate)
	default:
		return 20 * time.Millisecond
	}
}
