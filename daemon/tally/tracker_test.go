package tally

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/daemon/status"
)

// A room is a tracker that runs, and counts what it tells.
type room struct {
	*Tracker
	told  atomic.Int64
	links map[string][]Source
}

// Desk is that of the sources of a link.
func (r *room) Desk(link string) Desk { return r.Tracker.Desk(r.links[link]...) }

// newRoom follows the sources "a" of link "one", "b" and "c" of link "two", all
// with a timeout of 10 s, and "d", a contact of link "contacts".
func newRoom(t *testing.T) *room {
	t.Helper()
	r := &room{links: map[string][]Source{
		"one": {{Name: "a", Protocol: "obs", Timeout: 10 * time.Second}},
		"two": {
			{Name: "b", Protocol: "tsl3.1", Timeout: 10 * time.Second},
			{Name: "c", Protocol: "tsl3.1", Timeout: 20 * time.Second},
		},
		"contacts": {{Name: "d", Protocol: "contact"}},
	}}
	r.Tracker = NewTracker(slices.Concat(r.links["one"], r.links["two"], r.links["contacts"]), func() { r.told.Add(1) })
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error)
	go func() { over <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
	return r
}

// states are those of the sources and then the merged one.
func (r *room) states() string {
	now := r.Now(time.Now())
	var all []string
	for _, s := range now.Sources {
		all = append(all, s.Name+"="+s.State)
	}
	return strings.Join(all, " ") + ": " + now.State
}

func (r *room) want(t *testing.T, want string) {
	t.Helper()
	synctest.Wait()
	if got := r.states(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func (r *room) errorOf(t *testing.T, name string) string {
	t.Helper()
	for _, s := range r.Now(time.Now()).Sources {
		if s.Name == name {
			return s.Error
		}
	}
	t.Fatalf("no source %s", name)
	return ""
}

func TestEveryPairOfStatesHasOneAnswer(t *testing.T) {
	rank := []string{status.Off, status.Preview, status.Unknown, status.Program} // each wins over those before it
	for i, one := range rank {
		for j, two := range rank {
			sources := []status.TallySource{{Name: "one", State: one, Error: "silent"}, {Name: "two", State: two, Error: "silent"}}
			state, reason := Merge(sources)
			if want := rank[max(i, j)]; state != want {
				t.Errorf("%s and %s make %s, not %s", one, two, state, want)
			}
			if winner := sources[map[bool]int{true: 1}[j > i]].Name; state != status.Off && !strings.Contains(reason, winner) {
				t.Errorf("%s and %s: the reason %q does not name source %s", one, two, reason, winner)
			}
		}
	}
	if state, _ := Merge(nil); state != status.Off {
		t.Errorf("nothing set up makes %s", state)
	}
}

func TestNothingIsKnownBeforeItIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		r.want(t, "a=unknown b=unknown c=unknown d=unknown: unknown")
		if now := r.Now(time.Now()); now.Sources[0].Heard != nil || now.Sources[0].AgeMS != 0 {
			t.Errorf("heard something: %+v", now.Sources[0])
		}
		r.Desk("one").Up()
		if got := r.errorOf(t, "a"); got != "nothing heard yet" {
			t.Errorf("says %q", got)
		}
	})
}

func TestASilentSourceTurnsUnknownByItselfAndIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		r.Desk("one").Says("a", "", status.Program)
		two := r.Desk("two")
		two.Says("b", "x", status.Off)
		two.Says("c", "x", status.Preview)
		r.Desk("contacts").Says("d", "", status.Off)
		r.want(t, "a=program b=off c=preview d=off: program")

		before := r.told.Load()
		time.Sleep(10*time.Second - time.Nanosecond)
		r.want(t, "a=program b=off c=preview d=off: program")
		if r.told.Load() != before {
			t.Error("told without news")
		}
		time.Sleep(time.Nanosecond)
		r.want(t, "a=unknown b=unknown c=preview d=off: unknown")
		if n := r.told.Load() - before; n != 1 {
			t.Errorf("told %d times that two sources are stale", n)
		}
		if got := r.errorOf(t, "a"); got != "silent for more than 10s" {
			t.Errorf("says %q", got)
		}
		time.Sleep(10 * time.Second)
		r.want(t, "a=unknown b=unknown c=unknown d=off: unknown")
		time.Sleep(time.Hour)
		r.want(t, "a=unknown b=unknown c=unknown d=off: unknown")
		if n := r.told.Load() - before; n != 2 {
			t.Errorf("told %d times, not twice", n)
		}
	})
}

// The answer is a function of what was heard and the instant: it does not wait
// for anybody's timer.
func TestStaleIsStaleWithoutATimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := Source{Name: "a", Timeout: time.Second}
		tracker := NewTracker([]Source{a}, func() {})
		tracker.Desk(a).Says("a", "", status.Program)
		heard := time.Now()
		for _, tt := range []struct {
			after time.Duration
			want  string
		}{
			{-time.Hour, status.Program},
			{0, status.Program},
			{time.Second - 1, status.Program},
			{time.Second, status.Unknown},
			{time.Hour, status.Unknown},
			{time.Second / 2, status.Program},
		} {
			now := tracker.Now(heard.Add(tt.after))
			if now.State != tt.want || now.Sources[0].AgeMS != max(0, tt.after.Milliseconds()) {
				t.Errorf("after %v: %s, %d ms old", tt.after, now.State, now.Sources[0].AgeMS)
			}
		}
	})
}

func TestAnyWordKeepsASourceFreshAndOnlyItsOwnBringsItBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		one := r.Desk("one")
		one.Says("a", "", status.Program)
		for range 10 {
			time.Sleep(9 * time.Second)
			one.Alive("")
		}
		r.want(t, "a=program b=unknown c=unknown d=unknown: program")
		time.Sleep(10 * time.Second)
		one.Alive("") // too late: what it said may have changed meanwhile
		r.want(t, "a=unknown b=unknown c=unknown d=unknown: unknown")
		if got := r.errorOf(t, "a"); got != "the switcher is heard, but says nothing of this input" {
			t.Errorf("says %q", got)
		}
		one.Says("a", "", status.Preview)
		r.want(t, "a=preview b=unknown c=unknown d=unknown: unknown")
		time.Sleep(10 * time.Second)
		r.want(t, "a=unknown b=unknown c=unknown d=unknown: unknown")
	})
}

func TestOneSenderDoesNotKeepTheWordOfAnotherFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		two := r.Desk("two")
		two.Says("b", "10.0.0.1", status.Program)
		two.Says("c", "10.0.0.2", status.Off)
		for range 5 {
			time.Sleep(5 * time.Second)
			two.Alive("10.0.0.2")
		}
		r.want(t, "a=unknown b=unknown c=off d=unknown: unknown")
		two.Gone("10.0.0.2", errors.New("hung up"))
		r.want(t, "a=unknown b=unknown c=unknown d=unknown: unknown")
		if got := r.errorOf(t, "c"); got != "hung up" {
			t.Errorf("says %q", got)
		}
		if got := r.errorOf(t, "b"); got != "silent for more than 10s" {
			t.Errorf("another sender's end changed %q", got)
		}
	})
}

// Two switchers send to one port, or somebody pretends to be one: red wins, and
// who says what can be seen.
func TestOfSeveralSendersRedWinsAndEachTurnsStaleByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		one := r.Desk("one")
		say := func(sender, state string) { t.Helper(); one.Says("a", sender, state) }
		want := func(state, sender string, senders ...status.TallySender) {
			t.Helper()
			synctest.Wait()
			got := r.Now(time.Now()).Sources[0]
			if got.State != state || got.Sender != sender || !slices.Equal(got.Senders, senders) {
				t.Errorf("%s by %s, %+v; want %s by %s, %+v", got.State, got.Sender, got.Senders, state, sender, senders)
			}
		}
		say("10.0.0.1", status.Program)
		want(status.Program, "10.0.0.1")
		say("10.0.0.2", status.Off) // the last word wins nothing
		want(status.Program, "10.0.0.1", status.TallySender{Sender: "10.0.0.1", State: status.Program}, status.TallySender{Sender: "10.0.0.2", State: status.Off})
		if reason := r.Now(time.Now()).Reason; reason != "a says program by 10.0.0.1, but 10.0.0.2 says off" {
			t.Errorf("the reason is %q", reason)
		}
		changed := *r.Now(time.Now()).Sources[0].Changed

		time.Sleep(6 * time.Second)
		one.Alive("10.0.0.2") // keeps its own word fresh, not that of the other
		want(status.Program, "10.0.0.1", status.TallySender{Sender: "10.0.0.1", State: status.Program, AgeMS: 6000}, status.TallySender{Sender: "10.0.0.2", State: status.Off})
		before := r.told.Load()
		time.Sleep(4 * time.Second)
		want(status.Off, "10.0.0.2")
		if n := r.told.Load() - before; n != 1 {
			t.Errorf("told %d times that one of two is stale", n)
		}
		if now := r.Now(time.Now()).Sources[0]; !now.Changed.Equal(changed.Add(10 * time.Second)) {
			t.Errorf("changed at %v, first at %v", now.Changed, changed)
		}

		say("10.0.0.1", status.Preview)
		want(status.Preview, "10.0.0.1", status.TallySender{Sender: "10.0.0.2", State: status.Off, AgeMS: 4000}, status.TallySender{Sender: "10.0.0.1", State: status.Preview})
		one.Gone("10.0.0.1", errors.New("hung up"))
		want(status.Off, "10.0.0.2")
		one.Gone("10.0.0.2", errors.New("hung up"))
		want(status.Unknown, "10.0.0.1")
		if got := r.errorOf(t, "a"); got != "hung up" {
			t.Errorf("says %q", got)
		}
	})
}

func TestSendersWithoutEndTakeNothingFromOneOnProgram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		one := r.Desk("one")
		one.Says("a", "switcher", status.Program)
		for i := range 1000 {
			one.Says("a", fmt.Sprint("stranger ", i), status.Off)
		}
		s := r.Now(time.Now()).Sources[0]
		if s.State != status.Program || s.Sender != "switcher" || len(s.Senders) != maxWords || s.Bad != 1000-maxWords+1 {
			t.Errorf("%s by %s of %d senders, %d refused", s.State, s.Sender, len(s.Senders), s.Bad)
		}
		one.Says("a", "another", status.Program) // one that is red finds room
		s = r.Now(time.Now()).Sources[0]
		if last := s.Senders[len(s.Senders)-1]; last.Sender != "another" || len(s.Senders) != maxWords {
			t.Errorf("senders %+v", s.Senders)
		}
	})
}

// The config follows another input, and the link of the one before has not
// ended yet.
func TestALinkOfAnOldConfigSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, next := range map[string]Source{
			"another input":  {Name: "a", Input: "2", Rule: "1 2", Timeout: 10 * time.Second},
			"another rule":   {Name: "a", Input: "1", Rule: "3 4", Timeout: 10 * time.Second},
			"another switch": {Name: "a", Input: "1", Rule: "1 2", Timeout: 10 * time.Second, Address: "udp://:2"},
		} {
			old := Source{Name: "a", Input: "1", Rule: "1 2", Timeout: 10 * time.Second}
			tracker := NewTracker([]Source{old}, func() {})
			states := func() string { return tracker.Now(time.Now()).State }
			err := tracker.Keep(t.Context(), []Source{old}, script(func(_ context.Context, before Desk) error {
				before.Says("a", "", status.Program)
				tracker.Follow([]Source{next})
				before.Says("a", "", status.Program)
				if states() != status.Unknown {
					t.Errorf("%s: the old link's word makes %s", name, states())
				}
				tracker.Desk(next).Says("a", "", status.Preview)
				before.Says("a", "", status.Program)
				before.Alive("")
				return nil
			}), func() {})
			if err != nil || states() != status.Preview {
				t.Errorf("%s: the end of the old link makes %s, %v", name, states(), err)
			}
		}
	})
}

func TestASourceSaysWhoItWasAndWhenItChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		two := r.Desk("two")
		two.Says("b", "10.0.0.1", status.Program)
		changed := time.Now()
		time.Sleep(5 * time.Second)
		two.Says("b", "10.0.0.1", status.Program)
		two.Says("a", "10.0.0.1", status.Program) // not of this link
		two.Says("nobody", "10.0.0.1", status.Program)
		time.Sleep(time.Second)
		s := r.Now(time.Now()).Sources[1]
		if s.Sender != "10.0.0.1" || !s.Changed.Equal(changed) || s.AgeMS != 1000 || !s.Heard.Equal(changed.Add(5*time.Second)) {
			t.Errorf("%+v", s)
		}
		r.want(t, "a=unknown b=program c=unknown d=unknown: program")
	})
}

// Somebody sets the clock, or the network does: nothing becomes fresh or stale.
func TestStampsAreOfTheMonotonicClock(t *testing.T) {
	a := Source{Name: "a", Timeout: time.Hour}
	tracker := NewTracker([]Source{a}, func() {})
	tracker.Desk(a).Says("a", "", status.Program)
	// The package time prints the monotonic reading, where there is one.
	if until := tracker.sources[0].until().String(); !strings.Contains(until, "m=+") {
		t.Errorf("%s is of the wall clock alone", until)
	}
}

func TestWhatIsMissingIsUnknownThoughTheSwitcherIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		one := r.Desk("one")
		one.Says("a", "", status.Program)
		one.Missing("a", errors.New("OBS has no scene Altar"))
		r.want(t, "a=unknown b=unknown c=unknown d=unknown: unknown")
		if got := r.errorOf(t, "a"); got != "OBS has no scene Altar" {
			t.Errorf("says %q", got)
		}
		one.Says("a", "", status.Off)
		if got := r.errorOf(t, "a"); got != "" {
			t.Errorf("still says %q", got)
		}
	})
}

func TestGarbageIsCountedAndToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		two := r.Desk("two")
		two.Up()
		before := r.told.Load()
		for range 1000 {
			two.Bad("10.0.0.9", errors.New("17 bytes"))
		}
		if n := r.told.Load() - before; n != 1 {
			t.Errorf("told %d times", n)
		}
		if got := r.errorOf(t, "b"); got != "what comes is not understood: from 10.0.0.9: 17 bytes" {
			t.Errorf("says %q", got)
		}
		two.Says("b", "10.0.0.1", status.Program)
		two.Gone("10.0.0.1", errors.New("hung up"))
		two.Bad("10.0.0.9", errors.New("17 bytes")) // says nothing of why b is unknown
		if got := r.errorOf(t, "b"); got != "hung up" {
			t.Errorf("says %q", got)
		}
		two.Says("b", "10.0.0.1", status.Program)
		s := r.Now(time.Now()).Sources[1]
		if s.State != status.Program || s.Bad != 1001 || s.Sender != "10.0.0.1" {
			t.Errorf("%+v", s)
		}
	})
}

// A script is a link that does what it is told.
type script func(ctx context.Context, d Desk) error

func (s script) Run(ctx context.Context, d Desk) error { return s(ctx, d) }

func TestALinkThatFlapsNeverLeavesRedBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		lost := errors.New("connection reset")
		live := 0
		for range 20 {
			err := r.Keep(t.Context(), r.links["one"], script(func(_ context.Context, d Desk) error {
				d.Up()
				r.want(t, "a=unknown b=unknown c=unknown d=unknown: unknown")
				d.Says("a", "", status.Program)
				time.Sleep(time.Second)
				r.want(t, "a=program b=unknown c=unknown d=unknown: program")
				return lost
			}), func() { live++ })
			if !errors.Is(err, lost) {
				t.Fatal(err)
			}
			r.want(t, "a=unknown b=unknown c=unknown d=unknown: unknown")
			if got := r.errorOf(t, "a"); got != "connection reset" {
				t.Errorf("says %q", got)
			}
			time.Sleep(time.Second)
		}
		if live != 20 {
			t.Errorf("live %d times", live)
		}
	})
}

func TestALinkThatPanicsLeavesNoRedBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		func() {
			defer func() { _ = recover() }()
			_ = r.Keep(t.Context(), r.links["one"], script(func(_ context.Context, d Desk) error {
				d.Says("a", "", status.Program)
				panic("index out of range")
			}), func() {})
		}()
		r.want(t, "a=unknown b=unknown c=unknown d=unknown: unknown")
	})
}

func TestALinkThatEndsInOrderIsUnknownToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		if err := r.Keep(t.Context(), r.links["one"], script(func(_ context.Context, d Desk) error {
			d.Says("a", "", status.Program)
			return nil
		}), func() {}); err != nil {
			t.Fatal(err)
		}
		r.want(t, "a=unknown b=unknown c=unknown d=unknown: unknown")
	})
}

func TestOtherSourcesDoNotForgetWhatTheyKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		r.Desk("one").Says("a", "", status.Program)
		r.Desk("contacts").Says("d", "", status.Preview)
		r.links["three"] = []Source{{Name: "e", Protocol: "vmix", Timeout: time.Second}}
		r.Follow([]Source{
			{Name: "d", Protocol: "contact"},
			{Name: "a", Protocol: "obs", Timeout: 5 * time.Second}, // not as before
			r.links["three"][0],
		})
		r.want(t, "d=preview a=unknown e=unknown: unknown")
		r.Desk("three").Says("e", "", status.Off) // sooner stale than any before
		time.Sleep(time.Second)
		r.want(t, "d=preview a=unknown e=unknown: unknown")
		if got := r.errorOf(t, "e"); got != "silent for more than 1s" {
			t.Errorf("says %q", got)
		}
	})
}

func TestWordsFromManySendersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoom(t)
		done := make(chan struct{})
		for _, state := range []string{status.Off, status.Preview, status.Program} {
			go func() {
				two := r.Desk("two")
				for range 500 {
					two.Says("b", state, state)
					two.Alive(state)
					two.Bad(state, errors.New("bad"))
					r.Now(time.Now())
					two.Gone("somebody else", errors.New("gone"))
				}
				done <- struct{}{}
			}()
		}
		for range 3 {
			<-done
		}
		s := r.Now(time.Now()).Sources[1]
		if s.Bad != 1500 || s.State != s.Sender || !slices.Contains([]string{status.Off, status.Preview, status.Program}, s.State) {
			t.Errorf("%+v", s)
		}
	})
}

func ExampleTracker() {
	camera := Source{Name: "vision mixer", Protocol: "tsl3.1", Input: "4", Timeout: 10 * time.Second}
	tracker := NewTracker([]Source{camera}, func() {})
	desk := tracker.Desk(camera)

	desk.Up()
	now := tracker.Now(time.Now())
	fmt.Println(now.State, "because", now.Reason)
	desk.Says("vision mixer", "192.0.2.7", status.Program)
	now = tracker.Now(time.Now())
	fmt.Println(now.State, "because", now.Reason)
	now = tracker.Now(time.Now().Add(time.Minute)) // and no word since
	fmt.Println(now.State, "because", now.Reason)
	// Output:
	// unknown because vision mixer: nothing heard yet
	// program because vision mixer says program
	// unknown because vision mixer: silent for more than 10s
}
