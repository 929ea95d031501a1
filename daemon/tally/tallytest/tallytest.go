// Package tallytest helps to test links: it gives them sources to follow and
// waits for what these say.
package tallytest

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/daemon/tally"
)

// Patience is how long a [Room] waits for a state, in real time.
const Patience = time.Minute

// Timeout is that of the sources of a [Room].
const Timeout = 10 * time.Second

// A Room is a tracker that runs, with sources that one link serves.
type Room struct {
	*tally.Tracker
	t       *testing.T
	sources []tally.Source
	changed chan struct{}
}

// New returns a Room with sources of these names. It is closed when t ends.
func New(t *testing.T, names ...string) *Room {
	t.Helper()
	r := &Room{t: t, changed: make(chan struct{}, 1)}
	for _, name := range names {
		r.sources = append(r.sources, tally.Source{Name: name, Timeout: Timeout})
	}
	r.Tracker = tally.NewTracker(r.sources, func() {
		select {
		case r.changed <- struct{}{}:
		default:
		}
	})
	r.background(r.Run)
	return r
}

// background runs run until t ends.
func (r *Room) background(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(r.t.Context())
	over := make(chan error, 1)
	go func() { over <- run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-over; err != nil {
			r.t.Error(err)
		}
	})
}

// Start runs a link once, until it or t ends. The returned channel gets what it
// returned.
func (r *Room) Start(link tally.Link) <-chan error {
	r.t.Helper()
	over := make(chan error, 1)
	r.background(func(ctx context.Context) error {
		over <- r.Keep(ctx, r.sources, link, func() {})
		return nil
	})
	return over
}

// States is what every source says now, such as "cam=program other=unknown".
func (r *Room) States() string {
	var all []string
	for _, s := range r.Now(time.Now()).Sources {
		all = append(all, s.Name+"="+s.State)
	}
	return strings.Join(all, " ")
}

// Errors is why sources are unknown, one after the other.
func (r *Room) Errors() string {
	var all []string
	for _, s := range r.Now(time.Now()).Sources {
		if s.Error != "" {
			all = append(all, s.Error)
		}
	}
	return strings.Join(all, "; ")
}

// Bad is how often something was not understood.
func (r *Room) Bad() (n uint64) {
	for _, s := range r.Now(time.Now()).Sources {
		n = max(n, s.Bad)
	}
	return n
}

// Await waits until the sources say want, in real time.
func (r *Room) Await(want string) {
	r.t.Helper()
	r.Until("the sources say "+want, func() bool { return r.States() == want })
}

// Until waits until a condition of the sources holds, in real time.
func (r *Room) Until(what string, holds func() bool) {
	r.t.Helper()
	late := time.NewTimer(Patience)
	defer late.Stop()
	look := time.NewTicker(10 * time.Millisecond) // counts change without a word
	defer look.Stop()
	for !holds() {
		select {
		case <-r.changed:
		case <-look.C:
		case <-late.C:
			r.t.Fatalf("waited in vain until %s: %s; %s", what, r.States(), r.Errors())
		}
	}
}

// A Witness is a [tally.Desk] of Sources that takes only sensible words; it is
// for fuzz tests.
type Witness struct {
	T       *testing.T
	Sources []string
}

// Up implements [tally.Desk].
func (w Witness) Up() {}

// Alive implements [tally.Desk].
func (w Witness) Alive(string) {}

// Bad implements [tally.Desk].
func (w Witness) Bad(string, error) {}

// Gone implements [tally.Desk].
func (w Witness) Gone(_ string, err error) { w.T.Errorf("gone: %v", err) }

// Says implements [tally.Desk].
func (w Witness) Says(source, _, state string) {
	if !slices.Contains(w.Sources, source) || !slices.Contains([]string{status.Off, status.Preview, status.Program}, state) {
		w.T.Errorf("%s says %q", source, state)
	}
}

// Missing implements [tally.Desk].
func (w Witness) Missing(source string, why error) {
	if source == "" || why == nil {
		w.T.Errorf("%q is missing because of %v", source, why)
	}
}
