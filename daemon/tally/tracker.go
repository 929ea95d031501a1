package tally

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"encoderd.example/daemon/status"
)

// A Tracker keeps what every source last said, and for how long it counts. Its
// methods may be called from any goroutine. [NewTracker] makes one.
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
	said    string // off, preview or program; "" = nothing that counts
	sender  string // who said so
	err     error  // why nothing counts
	bad     uint64
	heard   time.Time
	changed time.Time
	last    string // off, preview or program as last said, to tell changes
}

var (
	errNothingYet = errors.New("nothing heard yet")
	errNoLink     = errors.New("not connected yet")
	errNotThis    = errors.New("the switcher is heard, but says nothing of this input")
	errGarbage    = errors.New("what comes is not understood")
	errSilent     = errors.New("silent")
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

// Keep runs a link, and says of its sources that they are unknown as soon as
// it ends, however it does. live is called once the link stands.
func (t *Tracker) Keep(ctx context.Context, link string, l Link, live func()) error {
	err := errors.New("it broke down")
	defer func() { t.Broken(link, err) }()
	err = l.Run(ctx, &desk{tracker: t, link: link, live: live})
	return err
}

// Desk returns where to tell of the sources of a link that no [Link] hears,
// such as contacts.
func (t *Tracker) Desk(link string) Desk {
	return &desk{tracker: t, link: link, live: func() {}}
}

// Broken says that a link has ended, by err or, if that is nil, in order: what
// was heard by it counts no longer.
func (t *Tracker) Broken(link string, err error) {
	if err == nil {
		err = errNoLink
	}
	t.update(link, func(s *source) { s.forget(err) })
}

// update changes the sources of a link.
func (t *Tracker) update(link string, change func(*source)) {
	now := time.Now()
	told, sooner := false, false
	t.mu.Lock()
	for _, s := range t.sources {
		if s.Link != link {
			continue
		}
		told = s.expire(now) || told
		before := s.shown()
		change(s)
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

// desk is the Desk of one link.
type desk struct {
	tracker *Tracker
	link    string
	live    func()
}

// Up implements [Desk].
func (d *desk) Up() {
	d.tracker.update(d.link, func(s *source) {
		if s.said == "" {
			s.err = errNothingYet
		}
	})
	d.live()
}

// Says implements [Desk].
func (d *desk) Says(name, sender, state string) {
	now := time.Now()
	d.tracker.update(d.link, func(s *source) {
		if s.Name == name {
			s.says(sender, state, now)
		}
	})
}

// Alive implements [Desk].
func (d *desk) Alive(sender string) {
	now := time.Now()
	d.tracker.update(d.link, func(s *source) {
		if s.sender != sender && s.sender != "" {
			return
		}
		s.heard = now
		if errors.Is(s.err, errNothingYet) || errors.Is(s.err, errGarbage) || errors.Is(s.err, errSilent) {
			s.err = errNotThis
		}
	})
}

// Bad implements [Desk]. Only the first of several is told, so that a line full
// of garbage keeps nobody busy.
func (d *desk) Bad(sender string, err error) {
	d.tracker.update(d.link, func(s *source) {
		s.bad++
		if s.said == "" && !errors.Is(s.err, errGarbage) {
			s.err = fmt.Errorf("%w: %s%w", errGarbage, from(sender), err)
		}
	})
}

func from(sender string) string {
	if sender == "" {
		return ""
	}
	return "from " + sender + ": "
}

// Gone implements [Desk].
func (d *desk) Gone(sender string, err error) {
	d.tracker.update(d.link, func(s *source) {
		if s.sender == sender && s.said != "" {
			s.forget(err)
		}
	})
}

// Missing implements [Desk].
func (d *desk) Missing(name string, why error) {
	now := time.Now()
	d.tracker.update(d.link, func(s *source) {
		if s.Name == name {
			s.forget(why)
			s.heard = now
		}
	})
}

func (s *source) says(sender, state string, now time.Time) {
	if s.last != state {
		s.changed, s.last = now, state
	}
	s.said, s.sender, s.heard, s.err = state, sender, now, nil
}

// forget makes the source unknown. Only a new word of its own brings it back:
// what it said before may have changed meanwhile.
func (s *source) forget(why error) {
	s.said, s.err = "", why
}

// until is when what the source said counts no longer, zero if that is never.
func (s *source) until() time.Time {
	if s.said == "" || s.Timeout == 0 {
		return time.Time{}
	}
	return s.heard.Add(s.Timeout)
}

// stale reports whether what the source said is too old.
func (s *source) stale(at time.Time) bool {
	until := s.until()
	return !until.IsZero() && !at.Before(until)
}

// expire forgets what is too old, and reports whether anything was.
func (s *source) expire(now time.Time) bool {
	if !s.stale(now) {
		return false
	}
	s.forget(s.silent())
	return true
}

func (s *source) silent() error { return fmt.Errorf("%w for more than %v", errSilent, s.Timeout) }

// shown is what people see of a source, and programs act on.
func (s *source) shown() [3]string {
	why := ""
	if s.err != nil {
		why = s.err.Error()
	}
	return [3]string{s.said, why, s.sender}
}

// at is the source at an instant.
func (s *source) at(at time.Time) status.TallySource {
	is := status.TallySource{
		Name: s.Name, Protocol: s.Protocol, Address: s.Address, Input: s.Input, State: s.said, Sender: s.sender, Bad: s.bad,
	}
	if s.err != nil {
		is.Error = s.err.Error()
	}
	if s.stale(at) {
		is.State, is.Error = status.Unknown, s.silent().Error()
	}
	if is.State == "" {
		is.State = status.Unknown
	}
	if heard := s.heard; !heard.IsZero() {
		is.Heard, is.AgeMS = &heard, max(0, at.Sub(heard).Milliseconds())
	}
	if changed := s.changed; !changed.IsZero() {
		is.Changed = &changed
	}
	return is
}
