package tally

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"encoderd.example/daemon/status"
)

// A Tracker keeps what every source last said, and for how long it counts.
//
// Where several senders speak for one source, each has a word of its own, which
// is fresh or stale by itself: any that says program makes program, else any
// that says preview makes preview. One that fell silent holds nothing up once
// its time is over, and one that only says off takes nothing from the others.
//
// Its methods may be called from any goroutine. [NewTracker] makes one.
type Tracker struct {
	changed func()
	sooner  chan struct{} // Run has to look before t.next

	mu      sync.Mutex
	sources []*source
	next    time.Time // when Run looks again; zero = it waits for sooner
}

// source is what is known of one. Stamps carry the monotonic clock: a step of
// the wall clock makes nothing fresh or stale.
type source struct {
	Source
	words   []word // that count, in the order in which their senders came
	sender  string // who spoke last
	err     error  // why nothing counts
	bad     uint64
	heard   time.Time
	changed time.Time
	last    string // off, preview or program as last said, to tell changes
}

// A word is what one sender last said of a source.
type word struct {
	sender, state string
	heard         time.Time
}

// maxWords is how many senders may speak for one source.
const maxWords = 8

// rank orders what senders of one source say: the highest wins.
var rank = map[string]int{status.Off: 0, status.Preview: 1, status.Program: 2}

var (
	errNothingYet = errors.New("nothing heard yet")
	errNoLink     = errors.New("not connected yet")
	errNotThis    = errors.New("the switcher is heard, but says nothing of this input")
	errGarbage    = errors.New("what comes is not understood")
	errSilent     = errors.New("silent")
	errEnded      = errors.New("nobody listens")
)

// NewTracker returns a Tracker of sources, all unknown. changed is called,
// never under a lock, whenever [Tracker.Now] has something new to say beside
// ages and counts; it must not block.
func NewTracker(sources []Source, changed func()) *Tracker {
	t := &Tracker{changed: changed, sooner: make(chan struct{}, 1)}
	t.Follow(sources)
	return t
}

// Follow makes sources the ones to follow. Those that stay as they are keep
// what they said.
func (t *Tracker) Follow(sources []Source) {
	t.mu.Lock()
	before := t.sources
	t.sources = nil
	for _, s := range sources {
		i := slices.IndexFunc(before, func(o *source) bool { return o.Source == s })
		if i >= 0 {
			t.sources = append(t.sources, before[i])
			continue
		}
		t.sources = append(t.sources, &source{Source: s, err: errNoLink})
	}
	t.mu.Unlock()
	t.changed()
}

// Now says what the sources are at an instant, which should be of [time.Now].
func (t *Tracker) Now(at time.Time) status.Tally {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]status.TallySource, 0, len(t.sources))
	for _, s := range t.sources {
		all = append(all, s.at(at))
	}
	state, reason := Merge(all)
	return status.Tally{State: state, Reason: reason, Sources: all}
}

// Run tells by changed, in the very moment, that sources turn stale, until ctx
// ends.
func (t *Tracker) Run(ctx context.Context) error {
	for {
		wake := time.NewTimer(t.expire())
		select {
		case <-wake.C:
		case <-t.sooner:
			wake.Stop()
		case <-ctx.Done():
			wake.Stop()
			return nil
		}
	}
}

// never is longer than any box runs.
const never = 100 * 365 * 24 * time.Hour

// expire forgets what is stale, and returns how long the rest counts at least.
func (t *Tracker) expire() time.Duration {
	now := time.Now()
	t.mu.Lock()
	t.next = time.Time{}
	stale := false
	for _, s := range t.sources {
		stale = s.expire(now) || stale
		if until := s.until(); !until.IsZero() && (t.next.IsZero() || until.Before(t.next)) {
			t.next = until
		}
	}
	wait := never
	if !t.next.IsZero() {
		wait = t.next.Sub(now)
	}
	t.mu.Unlock()
	if stale {
		t.changed()
	}
	return wait
}

// Keep runs a link that serves sources, and says of them that they are unknown
// as soon as it ends, however it does. live is called once the link stands.
func (t *Tracker) Keep(ctx context.Context, sources []Source, l Link, live func()) error {
	err := errors.New("it broke down")
	defer func() { t.Broken(sources, err) }()
	err = l.Run(ctx, &desk{tracker: t, sources: sources, live: live})
	return err
}

// Desk returns where to tell of sources that no [Link] hears, such as contacts.
func (t *Tracker) Desk(sources ...Source) Desk {
	return &desk{tracker: t, sources: sources, live: func() {}}
}

// Broken says that sources are heard no more, because of err or, if that is
// nil, in order: what was heard of them counts no longer.
func (t *Tracker) Broken(sources []Source, err error) {
	if err == nil {
		err = errEnded
	}
	t.update(sources, func(s *source) { s.forget(err) })
}

// update changes those of some sources that are followed, as they are there.
func (t *Tracker) update(some []Source, change func(*source)) {
	now := time.Now()
	told, sooner := false, false
	t.mu.Lock()
	for _, s := range t.sources {
		if !slices.Contains(some, s.Source) {
			continue
		}
		told = s.expire(now) || told
		before := s.shown()
		change(s)
		s.settle(now)
		told = told || s.shown() != before
		until := s.until()
		sooner = sooner || !until.IsZero() && (t.next.IsZero() || until.Before(t.next))
	}
	t.mu.Unlock()
	if sooner {
		select {
		case t.sooner <- struct{}{}:
		default:
		}
	}
	if told {
		t.changed()
	}
}

// desk is the Desk of some sources. It knows them as they were when it was
// made: one that is followed in another way since is not the same.
type desk struct {
	tracker *Tracker
	sources []Source
	live    func()
}

// Up implements [Desk].
func (d *desk) Up() {
	d.tracker.update(d.sources, func(s *source) {
		if len(s.words) == 0 {
			s.err = errNothingYet
		}
	})
	d.live()
}

// Says implements [Desk].
func (d *desk) Says(name, sender, state string) {
	now := time.Now()
	d.tracker.update(d.sources, func(s *source) {
		if s.Name == name {
			s.says(word{sender, state, now})
		}
	})
}

// Alive implements [Desk].
func (d *desk) Alive(sender string) {
	now := time.Now()
	d.tracker.update(d.sources, func(s *source) {
		if i := s.wordOf(sender); i >= 0 {
			s.words[i].heard, s.heard = now, now
			return
		}
		if len(s.words) > 0 || s.sender != sender && s.sender != "" {
			return
		}
		s.heard = now
		if errors.Is(s.err, errGarbage) || s.quiet() {
			s.err = errNotThis
		}
	})
}

// Bad implements [Desk]. Only the first of several is told, so that a line full
// of garbage keeps nobody busy.
func (d *desk) Bad(sender string, err error) {
	d.tracker.update(d.sources, func(s *source) {
		s.bad++
		if s.quiet() || errors.Is(s.err, errNotThis) {
			s.err = fmt.Errorf("%w: %s%w", errGarbage, from(sender), err)
		}
	})
}

// quiet reports whether nothing is known of the source because nothing came,
// and not for a better reason.
func (s *source) quiet() bool {
	return errors.Is(s.err, errNothingYet) || errors.Is(s.err, errSilent)
}

func from(sender string) string {
	if sender == "" {
		return ""
	}
	return "from " + sender + ": "
}

// Gone implements [Desk].
func (d *desk) Gone(sender string, err error) {
	d.tracker.update(d.sources, func(s *source) {
		i := s.wordOf(sender)
		if i < 0 {
			return
		}
		s.words = slices.Delete(s.words, i, i+1)
		if len(s.words) == 0 {
			s.forget(err)
		}
	})
}

// Missing implements [Desk].
func (d *desk) Missing(name string, why error) {
	now := time.Now()
	d.tracker.update(d.sources, func(s *source) {
		if s.Name == name {
			s.forget(why)
			s.heard = now
		}
	})
}

// wordOf is where the word of a sender is, -1 if it has none.
func (s *source) wordOf(sender string) int {
	return slices.IndexFunc(s.words, func(w word) bool { return w.sender == sender })
}

// says takes a word. It counts as bad if too many others speak already whose
// words weigh as much.
func (s *source) says(w word) {
	i := s.wordOf(w.sender)
	switch {
	case i >= 0:
		s.words[i] = w
	case len(s.words) < maxWords:
		s.words = append(s.words, w)
	default:
		least := slices.IndexFunc(s.words, func(o word) bool { return rank[o.state] < rank[w.state] })
		if least < 0 {
			s.bad++
			return
		}
		s.words = append(slices.Delete(s.words, least, least+1), w)
	}
	s.sender, s.heard, s.err = w.sender, w.heard, nil
}

// settle takes note of when the words together say something new.
func (s *source) settle(now time.Time) {
	if best, ok := weightiest(s.words); ok && best.state != s.last {
		s.changed, s.last = now, best.state
	}
}

// weightiest is the first of the words that win.
func weightiest(words []word) (best word, ok bool) {
	for i, w := range words {
		if i == 0 || rank[w.state] > rank[best.state] {
			best = w
		}
	}
	return best, len(words) > 0
}

// forget makes the source unknown. Only a new word of its own brings it back:
// what it said before may have changed meanwhile.
func (s *source) forget(why error) {
	s.words, s.err = nil, why
}

// until is when the first of its words counts no longer, zero if that is never.
func (s *source) until() time.Time {
	if len(s.words) == 0 || s.Timeout == 0 {
		return time.Time{}
	}
	return slices.MinFunc(s.words, func(a, b word) int { return a.heard.Compare(b.heard) }).heard.Add(s.Timeout)
}

// fresh are the words that count at an instant.
func (s *source) fresh(at time.Time) []word {
	return slices.DeleteFunc(slices.Clone(s.words), func(w word) bool {
		return s.Timeout != 0 && !at.Before(w.heard.Add(s.Timeout))
	})
}

// expire forgets words that are too old, and reports whether there were any.
func (s *source) expire(now time.Time) bool {
	fresh := s.fresh(now)
	if len(fresh) == len(s.words) {
		return false
	}
	s.words = fresh
	if len(fresh) == 0 {
		s.forget(s.silent())
	}
	s.settle(now)
	return true
}

func (s *source) silent() error { return fmt.Errorf("%w for more than %v", errSilent, s.Timeout) }

// shown is what people see of a source, and programs act on.
func (s *source) shown() string {
	all := []string{fmt.Sprint(s.err)}
	for _, w := range s.words {
		all = append(all, w.sender, w.state)
	}
	return strings.Join(all, "\n")
}

// at is the source at an instant.
func (s *source) at(at time.Time) status.TallySource {
	is := status.TallySource{
		Name: s.Name, Protocol: s.Protocol, Address: s.Address, Input: s.Input, State: status.Unknown, Sender: s.sender, Bad: s.bad,
	}
	fresh := s.fresh(at)
	heard := s.heard
	if best, ok := weightiest(fresh); ok {
		is.State, is.Sender, heard = best.state, best.sender, best.heard
	}
	if len(fresh) > 1 {
		is.Senders = senders(fresh, at)
	}
	if s.err != nil {
		is.Error = s.err.Error()
	}
	if len(fresh) == 0 && len(s.words) > 0 {
		is.Error = s.silent().Error()
	}
	if !heard.IsZero() {
		is.Heard, is.AgeMS = &heard, age(heard, at)
	}
	if changed := s.changed; !changed.IsZero() {
		is.Changed = &changed
	}
	return is
}

func senders(words []word, at time.Time) (all []status.TallySender) {
	for _, w := range words {
		all = append(all, status.TallySender{Sender: w.sender, State: w.state, AgeMS: age(w.heard, at)})
	}
	return all
}

// age is in milliseconds.
func age(heard, at time.Time) int64 { return max(0, at.Sub(heard).Milliseconds()) }
