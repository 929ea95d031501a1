//nolint:thelper // what runs in a bubble is a test: failures belong to their own lines
package face_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"encoderd.example/hw"
	"encoderd.example/hw/face"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errBroken = errors.New("broken")

// A shelf is a kind whose lines and lamps come and go to order. Key lines are
// up; a line that is taken out ends the watch.
type shelf struct {
	mu      sync.Mutex
	out     map[hw.Pin]error         // why a pin cannot be had
	tries   map[hw.Pin]int           // to have it
	pulled  map[hw.Pin]chan struct{} // closed when a key that is watched goes
	lit     map[hw.Pin]hw.Light
	blinker hw.Pin
	blocked map[hw.Pin]chan struct{} // light of these waits
	closed  int
}

func newShelf() *shelf {
	return &shelf{out: map[hw.Pin]error{}, tries: map[hw.Pin]int{}, pulled: map[hw.Pin]chan struct{}{}, lit: map[hw.Pin]hw.Light{}}
}

func (s *shelf) kind() face.Kind { return face.Kind{Key: s.watch, Lamp: s.open} }

// set takes a pin out, or with a nil error puts it back, dark.
func (s *shelf) set(pin hw.Pin, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out[pin] = err
	delete(s.lit, pin)
	if c := s.pulled[pin]; c != nil && err != nil {
		close(c)
		delete(s.pulled, pin)
	}
}

func (s *shelf) have(pin hw.Pin) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries[pin]++
	return s.out[pin]
}

func (s *shelf) tried(pin hw.Pin) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tries[pin]
}

func (s *shelf) shows(pin hw.Pin) hw.Light {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lit[pin]
}

func (s *shelf) watch(ctx context.Context, w hw.KeyWire, told func(hw.Edge)) error {
	if err := s.have(w.Pin); err != nil {
		return err
	}
	s.mu.Lock()
	pulled := make(chan struct{})
	s.pulled[w.Pin] = pulled
	s.mu.Unlock()
	told(hw.Edge{Key: w.Name, Level: true})
	select {
	case <-ctx.Done():
		return nil
	case <-pulled:
		return hw.ErrGone
	}
}

func (s *shelf) open(pin hw.Pin, _ bool) (face.Lamp, error) {
	if err := s.have(pin); err != nil {
		return nil, err
	}
	return bulb{s, pin}, nil
}

type bulb struct {
	*shelf
	pin hw.Pin
}

func (b bulb) Light(l hw.Light) error {
	b.mu.Lock()
	blocked := b.blocked[b.pin]
	b.mu.Unlock()
	if blocked != nil {
		<-blocked
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.out[b.pin]; err != nil {
		return err
	}
	if l.On != 0 && b.pin != b.blinker {
		return hw.ErrUnsupported
	}
	b.lit[b.pin] = l
	return nil
}

func (b bulb) Blinks() bool { return b.pin == b.blinker }

func (b bulb) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed++
	return nil
}

// A running panel, and what it told.
type running struct {
	hw.Panel
	mu   sync.Mutex
	said []string
	ring func() // something was plugged in
}

// run runs a panel of a shelf in a bubble.
func run(t *testing.T, s *shelf, keys []hw.KeyWire, lamps []hw.LampWire, f func(t *testing.T, r *running)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &running{}
		m := face.Maker{Kinds: map[string]face.Kind{"x": s.kind()}, Watch: func(ctx context.Context, changed func()) error {
			r.ring = changed
			<-ctx.Done()
			return errBroken // which nobody hears of
		}}
		p, err := m.Open(keys, lamps)
		if err != nil {
			t.Fatal(err)
		}
		r.Panel = p
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx, r.tell) }()
		synctest.Wait()
		f(t, r)
		cancel()
		if err := errors.Join(<-ended, p.Close()); err != nil {
			t.Error(err)
		}
	})
}

func (r *running) tell(e hw.Edge) {
	r.mu.Lock()
	defer r.mu.Unlock()
	what := "edge"
	switch {
	case e.Err != nil:
		what = e.Err.Error()
	case e.Level:
		what = "level"
	}
	r.said = append(r.said, e.Key+": "+what)
}

// heard returns what was told since it was last called, in the order of keys.
func (r *running) heard() string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	said := r.said
	r.said = nil
	slices.SortStableFunc(said, func(a, b string) int { return strings.Compare(a[:1], b[:1]) })
	return strings.Join(said, ", ")
}

func (r *running) must(t *testing.T, want string) {
	t.Helper()
	if got := r.heard(); got != want {
		t.Errorf("told %q, not %q", got, want)
	}
}

func TestAKeyThatCannotBeReadHindersNoOther(t *testing.T) {
	s := newShelf()
	s.set("x:a", errBroken)
	keys := []hw.KeyWire{{Name: "A", Pin: "x:a"}, {Name: "B", Pin: "x:b"}, {Name: "C", Pin: "y:c"}, {Name: "D"}}
	run(t, s, keys, nil, func(t *testing.T, r *running) {
		r.must(t, `A: broken, B: level, C: a key at "y:c": this board has none of that kind, D: a key at "": this board has none of that kind`)
		time.Sleep(time.Minute)
		r.must(t, "") // an error is told once
		if n := s.tried("x:a"); n < 5 || n > 7 {
			t.Errorf("tried %d times within a minute", n)
		}
		s.set("x:a", nil)
		time.Sleep(30 * time.Second)
		r.must(t, "A: level")
	})
}

func TestAKeyIsTriedAgainMoreAndMoreSeldom(t *testing.T) {
	s := newShelf()
	s.set("x:a", errBroken)
	run(t, s, []hw.KeyWire{{Name: "A", Pin: "x:a"}}, nil, func(t *testing.T, r *running) {
		for i, wait := range []int{1, 2, 4, 8, 16, 30, 30} {
			time.Sleep(time.Duration(wait)*time.Second - time.Millisecond)
			synctest.Wait()
			if n := s.tried("x:a"); n != i+1 {
				t.Fatalf("tried %d times before second try %d was due", n, i+1)
			}
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if n := s.tried("x:a"); n != i+2 {
				t.Fatalf("tried %d times when try %d was due", n, i+1)
			}
		}
		// Somebody plugs something in, and that was it.
		s.set("x:a", nil)
		r.heard()
		r.ring()
		r.must(t, "A: level")
		// What was well begins anew.
		s.set("x:a", hw.ErrGone)
		r.must(t, "A: device is gone")
		s.set("x:a", nil)
		time.Sleep(time.Second)
		r.must(t, "A: level")
	})
}

func TestAnErrorThatChangesIsTold(t *testing.T) {
	s := newShelf()
	s.set("x:a", hw.ErrBusy)
	run(t, s, []hw.KeyWire{{Name: "A", Pin: "x:a"}}, nil, func(t *testing.T, r *running) {
		s.set("x:a", errBroken)
		r.ring()
		synctest.Wait()
		s.set("x:a", hw.ErrBusy)
		r.ring()
		r.must(t, "A: device is busy, A: broken, A: device is busy")
	})
}

func TestLampsOfColorsAreTheSumOfTheirParts(t *testing.T) {
	s := newShelf()
	lamps := []hw.LampWire{{Name: "RGB", Red: "x:r", Green: "x:g", Blue: "x:b"}, {Name: "ONE", Pin: "x:one"}}
	run(t, s, nil, lamps, func(t *testing.T, r *running) {
		for _, color := range []hw.Color{hw.Red, hw.Green, hw.Blue, hw.Amber, hw.White, hw.Dark} {
			light := hw.Light{Color: color}
			if err := errors.Join(r.Light("RGB", light), r.Light("ONE", light)); err != nil {
				t.Error(err)
			}
			if sum := s.shows("x:r").Color | s.shows("x:g").Color | s.shows("x:b").Color; sum != color {
				t.Errorf("three parts show %d, not %d", sum, color)
			}
			if s.shows("x:r").Color&^hw.Red != 0 || s.shows("x:one").Color != color {
				t.Errorf("%d: red shows %d, the single pin %d", color, s.shows("x:r").Color, s.shows("x:one").Color)
			}
		}
		if err := r.Light("NONE", hw.Light{}); err == nil {
			t.Error("a lamp that does not exist was lit")
		}
	})
	if s.closed != 4 {
		t.Errorf("%d parts were closed, not 4", s.closed)
	}
}

// A lamp that shines for preview or for nobody-knows must not be dark because
// nobody wired that color.
func TestALampWithoutTheColorShinesWithAllItHas(t *testing.T) {
	s := newShelf()
	lamps := []hw.LampWire{{Name: "TWO", Red: "x:r", Green: "x:g"}, {Name: "RED", Red: "x:only"}}
	run(t, s, nil, lamps, func(t *testing.T, r *running) {
		for _, tt := range []struct{ wanted, two, red hw.Color }{
			{hw.Blue, hw.Amber, hw.Red},
			{hw.Green, hw.Green, hw.Red},
			{hw.Red | hw.Blue, hw.Red, hw.Red},
			{hw.White, hw.Amber, hw.Red},
			{hw.Dark, hw.Dark, hw.Dark},
		} {
			light := hw.Light{Color: tt.wanted}
			if err := errors.Join(r.Light("TWO", light), r.Light("RED", light)); err != nil {
				t.Error(err)
			}
			if sum := s.shows("x:r").Color | s.shows("x:g").Color; sum != tt.two {
				t.Errorf("%d: red and green show %d, not %d", tt.wanted, sum, tt.two)
			}
			if got := s.shows("x:only").Color; got != tt.red {
				t.Errorf("%d: red shows %d, not %d", tt.wanted, got, tt.red)
			}
		}
	})
}

func TestOnlyALampThatBlinksByItselfIsToldTo(t *testing.T) {
	s := newShelf()
	s.blinker = "x:r"
	lamps := []hw.LampWire{{Name: "LED", Pin: "x:r"}, {Name: "LINE", Pin: "x:l"}, {Name: "TWO", Red: "x:r", Green: "x:g"}}
	run(t, s, nil, lamps, func(t *testing.T, r *running) {
		blink := hw.Light{Color: hw.Red, On: time.Second, Off: time.Second}
		for _, lamp := range append(r.Lamps(), "NONE") {
			err := r.Light(lamp, blink)
			if r.Blinks(lamp) != (lamp == "LED") || (err == nil) != (lamp == "LED") {
				t.Errorf("%s blinks: %v; and when told to: %v", lamp, r.Blinks(lamp), err)
			}
		}
		if s.shows("x:r") != blink || s.tried("x:l") != 1 {
			t.Errorf("the LED shows %+v, the line was opened %d times", s.shows("x:r"), s.tried("x:l"))
		}
	})
}

func TestALampThatFailsIsTriedAgainInTheSameRhythm(t *testing.T) {
	s := newShelf()
	s.set("x:r", errBroken)
	lamps := []hw.LampWire{{Name: "L", Red: "x:r", Green: "x:g"}, {Name: "M", Pin: "x:m"}, {Name: "N", Pin: "q:n"}, {Name: "O"}}
	run(t, s, nil, lamps, func(t *testing.T, r *running) {
		for range 100 { // as a daemon that sees to its lamps
			if err := r.Light("L", hw.Light{Color: hw.Amber}); !errors.Is(err, errBroken) {
				t.Fatalf("a broken lamp: %v", err)
			}
			time.Sleep(70 * time.Millisecond)
		}
		if n := s.tried("x:r"); n != 3 { // at 0, after 1 s and after 2 more
			t.Errorf("tried %d times within 7 s", n)
		}
		if s.shows("x:g").Color != hw.Green {
			t.Error("the green part does not shine")
		}
		if err := r.Light("M", hw.Light{Color: hw.Red}); err != nil {
			t.Error(err)
		}
		if r.Light("N", hw.Light{}) == nil || r.Light("O", hw.Light{}) == nil {
			t.Error("a lamp that is nowhere was lit")
		}
		s.set("x:r", nil)
		r.ring()
		synctest.Wait()
		if s.shows("x:r").Color != hw.Red {
			t.Error("the lamp was plugged in and stayed dark")
		}
	})
}

func TestALampThatIsPutBackShowsWhatItDid(t *testing.T) {
	for _, rung := range []bool{true, false} {
		t.Run(fmt.Sprint("told: ", rung), func(t *testing.T) {
			s := newShelf()
			run(t, s, nil, []hw.LampWire{{Name: "L", Pin: "x:l"}}, func(t *testing.T, r *running) {
				if err := r.Light("L", hw.Light{Color: hw.Red}); err != nil {
					t.Error(err)
				}
				s.set("x:l", hw.ErrGone)
				time.Sleep(time.Minute)
				s.set("x:l", nil)
				if rung {
					r.ring()
				} else {
					time.Sleep(time.Minute)
				}
				synctest.Wait()
				if s.shows("x:l").Color != hw.Red {
					t.Error("the lamp came back and is dark")
				}
			})
		})
	}
}

func TestALampThatHangsHindersNoOther(t *testing.T) {
	s := newShelf()
	lamps := []hw.LampWire{{Name: "HANGS", Pin: "x:h"}, {Name: "L", Pin: "x:l"}}
	run(t, s, nil, lamps, func(t *testing.T, r *running) {
		red := hw.Light{Color: hw.Red}
		if err := errors.Join(r.Light("HANGS", red), r.Light("L", red)); err != nil {
			t.Error(err)
		}
		free := make(chan struct{})
		s.mu.Lock()
		s.blocked = map[hw.Pin]chan struct{}{"x:h": free}
		s.mu.Unlock()
		s.set("x:l", hw.ErrGone)
		s.set("x:l", nil)
		r.ring()
		synctest.Wait()
		if s.shows("x:l") != red {
			t.Error("the lamp came back and is dark")
		}
		close(free)
	})
}

func TestNamesAreUnique(t *testing.T) {
	m := face.Maker{}
	if _, err := m.Open([]hw.KeyWire{{Name: "A"}, {Name: "B"}, {Name: "A"}}, nil); err == nil {
		t.Error("two keys of one name were taken")
	}
	if _, err := m.Open(nil, []hw.LampWire{{Name: "A"}, {Name: "A"}}); err == nil {
		t.Error("two lamps of one name were taken")
	}
}

func TestDarkenDoesAllItCan(t *testing.T) {
	s := newShelf()
	s.set("x:b", hw.ErrBusy)
	s.lit["x:a"], s.lit["x:c"] = hw.Light{Color: hw.Red}, hw.Light{Color: hw.Red}
	m := face.Maker{Kinds: map[string]face.Kind{"x": s.kind()}}
	err := m.Darken([]hw.LampWire{{Name: "A", Pin: "x:a"}, {Name: "B", Pin: "x:b"}, {Name: "C", Green: "x:c"}})
	if !errors.Is(err, hw.ErrBusy) || s.shows("x:a").Color != hw.Dark || s.shows("x:c").Color != hw.Dark || s.closed != 2 {
		t.Errorf("got %v; %+v", err, s)
	}
}

func TestDarkenLeavesALampThatHangsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, free := newShelf(), make(chan struct{})
		s.blocked = map[hw.Pin]chan struct{}{"x:h": free}
		s.lit["x:a"], s.lit["x:z"] = hw.Light{Color: hw.Red}, hw.Light{Color: hw.Red}
		m := face.Maker{Kinds: map[string]face.Kind{"x": s.kind()}}
		began := time.Now()
		err := m.Darken([]hw.LampWire{{Name: "A", Pin: "x:a"}, {Name: "HANGS", Pin: "x:h"}, {Name: "Z", Pin: "x:z"}})
		if err == nil || !strings.Contains(err.Error(), "HANGS") || time.Since(began) != 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if s.shows("x:a").Color != hw.Dark || s.shows("x:z").Color != hw.Dark {
			t.Error("a lamp that hangs keeps others lit")
		}
		close(free)
	})
}

// A line that is told of twice, inverted once, is as the last one says.
func TestDarkenGivesTheLastOfAWireTheLastWord(t *testing.T) {
	s := newShelf()
	var inverted []bool
	kind := s.kind()
	open := kind.Lamp
	kind.Lamp = func(pin hw.Pin, activeLow bool) (face.Lamp, error) {
		if pin == "x:b" {
			inverted = append(inverted, activeLow)
		}
		return open(pin, activeLow)
	}
	m := face.Maker{Kinds: map[string]face.Kind{"x": kind}}
	for range 50 {
		inverted = nil
		err := m.Darken([]hw.LampWire{
			{Name: "A", Pin: "x:a"},
			{Name: "B", Pin: "x:b", ActiveLow: true},
			{Name: "C", Red: "x:c", Green: "x:a"},
			{Name: "D", Red: "x:b", Blue: "x:c"},
		})
		if err != nil || !slices.Equal(inverted, []bool{true, false}) {
			t.Fatalf("%v, opened as %v", err, inverted)
		}
	}
}

func TestOnePanelRunsOnce(t *testing.T) {
	run(t, newShelf(), nil, nil, func(t *testing.T, r *running) {
		if err := r.Run(t.Context(), nil); !errors.Is(err, hw.ErrBusy) {
			t.Errorf("a second Run: %v", err)
		}
	})
}
