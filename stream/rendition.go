package stream

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Rendition is one coding of the box's picture together with its sound: the
// place where encoders publish and outputs read. It outlives both: an encoder
// that restarts publishes into the same rendition under a new [Track], and no
// reader loses its connection.
//
// All methods may be called from any goroutine.
type Rendition struct {
	Name string

	ring   *Ring[*Unit]
	wanted chan struct{}
	keyed  atomic.Int64  // when the latest key unit came, a reading of Monotonic
	apart  *atomic.Int64 // how far key units are to be apart
	branch *Rendition    // nil until Branch

	mu       sync.Mutex
	expected []Codec
	tracks   []*Track // the latest of each codec, in the order of expected
	changed  chan struct{}
}

// NewRendition returns a rendition that keeps so many units and is
// complete once each of the expected codecs has published.
func NewRendition(name string, units int, expected ...Codec) *Rendition {
	return &Rendition{
		Name:     name,
		ring:     NewRing[*Unit](units),
		wanted:   make(chan struct{}, 1),
		apart:    &atomic.Int64{},
		expected: expected,
		tracks:   make([]*Track, len(expected)),
		changed:  make(chan struct{}),
	}
}

// Publish hands u to all readers and never waits for them. Units of one track
// must come from one goroutine, in decoding order. A unit of a codec that is
// not expected is dropped.
func (r *Rendition) Publish(u *Unit) {
	if b := r.publish(u); b != nil {
		b.Publish(u)
	}
}

// publish returns the branch, which u is not in yet.
func (r *Rendition) publish(u *Unit) *Rendition {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.note(u.Track) {
		if u.Key {
			r.keyed.Store(int64(Monotonic()))
		}
		r.ring.Publish(u, u.Key)
	}
	return r.branch
}

// Branch returns a rendition of the same picture with another sound, the same
// one each time: it gets what is published here as far as it expects that, may
// be published into besides, hands wishes for key units to r's encoder, and is
// resized and closed with r. It begins with the latest key unit of r and what
// came after that.
func (r *Rendition) Branch(expected ...Codec) *Rendition {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.branch == nil {
		r.branch = NewRendition(r.Name, r.ring.size(), expected...)
		r.branch.wanted, r.branch.apart = r.wanted, r.apart
		r.fill(r.branch)
	}
	return r.branch
}

// fill publishes the latest group of pictures into b. The caller holds r.mu.
func (r *Rendition) fill(b *Rendition) {
	units := r.ring.Reader()
	for range units.Behind() {
		u, ok, err := units.try()
		if !ok || err != nil {
			break // the ring was closed, or holds no key unit
		}
		b.Publish(u)
	}
	b.keyed.Store(r.keyed.Load())
	if r.ring.isClosed() {
		b.Close()
	}
}

func (r *Rendition) branched() *Rendition {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.branch
}

// keyDistance is the least time between two key units that readers can cause:
// else one on a bad line would spoil the picture of all.
const keyDistance = time.Second

// WantKey asks the encoder for a key unit, for a reader that has lost some of
// the picture. Wishes of many readers make one key unit; a wish soon after one
// is passed over, and the reader has to ask again.
func (r *Rendition) WantKey() {
	if at := r.keyed.Load(); at != 0 && Monotonic()-time.Duration(at) < keyDistance {
		return
	}
	select {
	case r.wanted <- struct{}{}:
	default:
	}
}

// KeyWanted is where the encoder hears of such wishes, one at a time.
func (r *Rendition) KeyWanted() <-chan struct{} { return r.wanted }

// SetKeyInterval says how far apart key units are ordered from the encoder to
// be from now on. Zero says that nobody knows, as with a camera that codes by
// itself.
func (r *Rendition) SetKeyInterval(d time.Duration) { r.apart.Store(int64(d)) }

// KeyInterval returns what [Rendition.SetKeyInterval] said last, zero before.
// Encoders keep to it about: pictures that are missing make it longer, key units
// that readers want shorter.
func (r *Rendition) KeyInterval() time.Duration { return time.Duration(r.apart.Load()) }

// note keeps t as the latest track of its codec and reports whether that is
// expected. The caller holds r.mu.
func (r *Rendition) note(t *Track) bool {
	i := slices.Index(r.expected, t.Codec)
	if i < 0 {
		return false
	}
	if r.tracks[i] != t {
		r.tracks[i] = t
		close(r.changed)
		r.changed = make(chan struct{})
	}
	return true
}

// Tracks returns the latest track of each expected codec, video first as
// expected; ok is false while one is missing.
func (r *Rendition) Tracks() (tracks []*Track, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.complete()
}

func (r *Rendition) complete() ([]*Track, bool) {
	return slices.Clone(r.tracks), !slices.Contains(r.tracks, nil)
}

// Wait returns the tracks once every expected codec has published.
func (r *Rendition) Wait(ctx context.Context) ([]*Track, error) {
	for {
		r.mu.Lock()
		tracks, ok := r.complete()
		changed := r.changed
		r.mu.Unlock()
		if ok {
			return tracks, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// Reader returns a reader placed at the latest key unit.
func (r *Rendition) Reader() *Reader[*Unit] { return r.ring.Reader() }

// History returns a reader placed at the oldest unit that is kept, key or not.
func (r *Rendition) History() *Reader[*Unit] { return r.ring.History() }

// Resize makes the rendition keep the latest units units; see [Ring.Resize].
func (r *Rendition) Resize(units int) {
	r.ring.Resize(units)
	if b := r.branched(); b != nil {
		b.Resize(units)
	}
}

// Close ends the rendition: readers drain what is left and get [ErrClosed].
func (r *Rendition) Close() {
	r.ring.Close()
	if b := r.branched(); b != nil {
		b.Close()
	}
}

// Closed reports whether [Rendition.Close] was called.
func (r *Rendition) Closed() bool { return r.ring.isClosed() }
