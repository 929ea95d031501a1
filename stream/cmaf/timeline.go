package cmaf

import "time"

const (
	// least is how long a segment is told to be at least. Players that count by
	// whole seconds, as FFmpeg does when it loads a timeline again, find each
	// only once if no two begin in the same second.
	least = time.Second
	// lead is how far ahead the end of an open segment is told, so that players
	// have loaded it before it comes.
	lead = 2 * time.Second
	// late is how much longer than told a segment may last. What is told late is
	// news that players may miss, and they would take up the segment again.
	late = 1500 * time.Millisecond
	// behind is how far segments may be behind what is told.
	behind = 500 * time.Millisecond
	// usual is how far apart key pictures are while nobody knows: rather too
	// little, for what is told can only grow.
	usual = least
)

// A Span is a stretch of time on the media clock.
type Span struct{ From, To time.Duration }

// A timeline says where segments are before they are over. Players hold on to
// what they were told: they work out the next segment's time from the last
// one's length, and drop what seems to lie within a segment that they have. So
// each begins where the one before was told to end, though the key picture came
// some frames sooner or later, and what it is off by goes into its length:
//
//	pictures:  │ 2.00 │ 1.93 │ 2.07 │
//	told:      │ 2.00  │ 1.93 │ 2.07 │
//
// Its zero value is ready for use by one goroutine.
type timeline struct {
	Span                // of the open segment
	due   time.Duration // when it is expected to end
	ahead bool          // it is told so late that the next key picture is to begin none
}

// open begins a segment with the key picture of a time; keys is how far apart
// these are expected to be. broken says that it does not go on from the one
// before.
func (t *timeline) open(at, keys time.Duration, broken bool) {
	switch {
	case t.To == 0, broken && (at-t.To).Abs() > lead+least:
		t.From = at
	case broken:
		t.From = max(at, t.To)
	default:
		t.From = t.To
	}
	t.due = at + keys
	t.ahead = t.due < t.soonest()
	for t.due < t.soonest() {
		t.due += keys
	}
	t.due = max(t.due, t.From+least)
	t.To = min(t.due, max(at, t.From)+lead+least)
}

// soonest returns when the open segment may end. Key pictures that are always
// less than a second apart do not each begin one, or what is told would run
// away from them.
func (t *timeline) soonest() time.Duration { return t.From + least - behind }

// mayEnd reports whether the open segment may end at a time.
func (t *timeline) mayEnd(at time.Duration) bool { return !t.ahead || at >= t.soonest() }

// goOn notes that the open segment goes on at a time. Its end moves in whole
// steps, for each is news to players.
func (t *timeline) goOn(at time.Duration) {
	for t.To < t.due && t.To-at < lead {
		t.To = min(t.To+least, t.due)
	}
	if at > t.To+late {
		t.To = at + lead
	}
}

// endAt has the open segment end at a time, or a little later if it is short.
// It is for what nobody was told yet.
func (t *timeline) endAt(at time.Duration) { t.To = max(at, t.From+least) }
