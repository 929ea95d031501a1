package panel

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/hw"
)

// A hand moves keys and notes what they order, and when.
type hand struct {
	t     *testing.T
	keys  *Keys
	start time.Time
	mu    sync.Mutex // of got, while orders come
	got   []string
	err   error // what orders come back with
}

// inHand runs a test with keys that live, under fake time.
func inHand(t *testing.T, maps []KeyMap, test func(*hand)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := &hand{t: t, start: time.Now()}
		h.keys = NewKeys(maps, h.order, func() {})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- h.keys.Run(ctx) }()
		test(h)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func (h *hand) order(_ context.Context, key string, g Gesture, o Order) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.got = append(h.got, fmt.Sprintf("%v %s %s %v", time.Since(h.start), key, g, o))
	return h.err
}

// does plays a script: "A+" moves key A down, "A-" up, "A=+" and "A=-" find it
// so, "A!" makes it unreadable; a time passes.
func (h *hand) does(script string) {
	h.t.Helper()
	for word := range strings.FieldsSeq(script) {
		if d, err := time.ParseDuration(word); err == nil {
			time.Sleep(d)
			synctest.Wait()
			continue
		}
		name := strings.TrimRight(word, "=+-!")
		e := hw.Edge{Key: name, Down: strings.HasSuffix(word, "+"), Level: strings.Contains(word, "="), Stamp: time.Since(h.start) + time.Hour}
		if strings.HasSuffix(word, "!") {
			e.Err = errors.New("the line is in use")
		}
		h.keys.Edge(e)
		synctest.Wait()
	}
}

func (h *hand) key(name string) status.Key { return h.keys.Status()[name] }

// testKeys has a key of every kind.
func testKeys() []KeyMap {
	orders := func(name string) Order { return Order{Action: name} }
	return append(DefaultKeys(),
		KeyMap{Name: "DOUBLE", Press: orders("one"), Double: orders("two")},
		KeyMap{Name: "ALL", Press: orders("do.press"), Double: orders("do.double"), Hold: orders("do.hold"), Long: orders("do.long"), HoldTime: time.Second, LongTime: 4 * time.Second},
		KeyMap{Name: "LONG", Press: orders("do.press"), Long: orders("do.long")},
		KeyMap{Name: "SURE", Press: orders("do.press"), Hold: orders("do.hold"), Confirm: true, ConfirmTime: 2 * time.Second},
		KeyMap{Name: "NONE"},
	)
}

func TestGestures(t *testing.T) {
	tests := []struct {
		name, script string
		want         []string
	}{
		{"a press starts when the finger leaves", "STREAM+ 1s STREAM- 1m", []string{"1s STREAM press stream.start"}},
		{"a key without other gestures orders when it goes down", "MUTE+ 1s MUTE- 1m", []string{"0s MUTE press audio.toggle"}},
		{"a hold acts before the finger leaves", "STREAM+ 10s STREAM-", []string{"3s STREAM hold stream.stop grace=20s"}},
		{"just short of a hold", "STREAM+ 2999ms STREAM- 1m", []string{"2.999s STREAM press stream.start"}},
		{"presses one after the other", "STREAM+ 1s STREAM- 1s STREAM+ 1s STREAM-", []string{"1s STREAM press stream.start", "3s STREAM press stream.start"}},
		{"a release alone", "STREAM- 1m", nil},
		{"down twice is one press", "STREAM+ 1s STREAM+ 1s STREAM-", []string{"2s STREAM press stream.start"}},
		{"a key nobody knows", "X+ 10s X-", nil},
		{"a key that orders nothing", "NONE+ 10s NONE-", nil},

		{"double", "DOUBLE+ 50ms DOUBLE- 100ms DOUBLE+ 9s DOUBLE- 1m", []string{"150ms DOUBLE double two"}},
		{"a single press waits for a second one", "DOUBLE+ 50ms DOUBLE- 1m", []string{"450ms DOUBLE press one"}},
		{"the second press is too late", "DOUBLE+ DOUBLE- 401ms DOUBLE+ DOUBLE- 1m", []string{"400ms DOUBLE press one", "801ms DOUBLE press one"}},
		{"three presses", "DOUBLE+ DOUBLE- DOUBLE+ DOUBLE- DOUBLE+ DOUBLE- 1m", []string{"0s DOUBLE double two", "400ms DOUBLE press one"}},

		{"hold, then long", "ALL+ 9s ALL- 1m", []string{"1s ALL hold do.hold", "4s ALL long do.long"}},
		{"press, then hold", "ALL+ ALL- 1s ALL+ 2s ALL-", []string{"400ms ALL press do.press", "2s ALL hold do.hold"}},
		{"double with a finger that stays", "ALL+ ALL- ALL+ 9s ALL- 1m", []string{"0s ALL double do.double"}},
		{"too long for a press, too short for a long hold", "LONG+ 4s LONG- 1m", nil},
		{"long without hold", "LONG+ 11s LONG-", []string{"10s LONG long do.long"}},

		{"reset without confirmation", "RESET+ 6s RESET- 1m", nil},
		{"reset confirmed", "RESET+ 6s RESET- 1s RESET+ 100ms RESET- 1m", []string{"7.1s RESET hold network.reset"}},
		{"factory reset confirmed", "RESET+ 11s RESET- 1s RESET+ 100ms RESET- 1m", []string{"12.1s RESET long factory.reset"}},
		{"reset confirmed too late", "RESET+ 6s RESET- 5s RESET+ 100ms RESET- 1m", nil},
		{"a press that begins in time counts", "RESET+ 6s RESET- 4900ms RESET+ 200ms RESET- 1m", []string{"11.1s RESET hold network.reset"}},
		{"a hold is no confirmation, but arms again", "RESET+ 11s RESET- 1s RESET+ 6s RESET- 1s RESET+ RESET- 1m", []string{"19s RESET hold network.reset"}},
		{"confirmed once only", "RESET+ 6s RESET- RESET+ RESET- 1s RESET+ RESET- 1m", []string{"6s RESET hold network.reset"}},
		{"another key disarms", "RESET+ 6s RESET- 1s NONE+ NONE- RESET+ RESET- 1m", nil},
		{"reset too short", "RESET+ 4900ms RESET- 1s RESET+ RESET- 1m", nil},
		{"a press that confirms is no press", "SURE+ 4s SURE- 1s SURE+ SURE- 1s SURE+ SURE- 1m", []string{"5s SURE hold do.hold", "6s SURE press do.press"}},
		{"not confirmed, a press is a press", "SURE+ 4s SURE- 3s SURE+ SURE- 1m", []string{"7s SURE press do.press"}},

		{"two keys at once", "STREAM+ REC+ 5s STREAM- REC- 1m", nil},
		{"two keys, until both are up", "STREAM+ 1s REC+ 1s REC- REC+ 4s REC- STREAM- REC+ REC- 1m", []string{"6s REC press record.start"}},
		{"two keys, one after the other", "STREAM+ 1s STREAM- REC+ 1s REC- 1m", []string{"1s STREAM press stream.start", "2s REC press record.start"}},
		{"a third key while two are down", "STREAM+ REC+ MUTE+ MUTE- REC- STREAM- 1m", nil},
		{"a key that has ordered already takes nothing back", "MUTE+ STREAM+ 5s STREAM- MUTE- 1m", []string{"0s MUTE press audio.toggle"}},
		{"another key while a hold that has acted stays down", "STREAM+ 4s MUTE+ MUTE- STREAM- MUTE+ MUTE-", []string{"3s STREAM hold stream.stop grace=20s", "4s MUTE press audio.toggle"}},
		{"another key takes a waiting press along", "DOUBLE+ DOUBLE- NONE+ DOUBLE+ DOUBLE- NONE- 1m", nil},

		{"down at the start", "STREAM=+ 10s STREAM- 1s STREAM+ STREAM- 1m", []string{"11s STREAM press stream.start"}},
		{"down at the start, other keys work", "STREAM=+ 1s REC+ REC- MUTE+ MUTE- 10s STREAM-", []string{"1s REC press record.start", "1s MUTE press audio.toggle"}},
		{"up at the start", "STREAM=- 1s STREAM+ STREAM-", []string{"1s STREAM press stream.start"}},
		{"movements lost while it is down", "STREAM+ 1s STREAM=+ 9s STREAM- 1s STREAM+ STREAM-", []string{"11s STREAM press stream.start"}},
		{"movements lost, up now", "STREAM+ 1s STREAM=- 9s STREAM+ STREAM-", []string{"10s STREAM press stream.start"}},
		{"movements lost while a press waits", "DOUBLE+ DOUBLE- DOUBLE=- 1m", nil},
		{"movements lost disarm", "RESET+ 6s RESET- RESET=- RESET+ RESET- 1m", nil},

		{"unreadable while it is down", "STREAM+ 1s STREAM! 10s STREAM=- STREAM+ STREAM- 1m", []string{"11s STREAM press stream.start"}},
		{"unreadable, down when it is back", "STREAM! 1s STREAM=+ 10s STREAM- 1s STREAM+ STREAM-", []string{"12s STREAM press stream.start"}},
		{"an unreadable key is not down for the others", "STREAM+ STREAM! REC+ REC- 1m", []string{"0s REC press record.start"}},
		{"a movement without a level after an error is found, not done", "STREAM! 1s STREAM+ 10s STREAM- STREAM+ STREAM-", []string{"11s STREAM press stream.start"}},

		{"stuck, then free", "STREAM+ 40s STREAM- 1s STREAM+ STREAM-", []string{"3s STREAM hold stream.stop grace=20s", "41s STREAM press stream.start"}},
		{"a stuck key does not arm", "RESET+ 31s RESET- RESET+ RESET- 1m", nil},
		{"others work beside a stuck key", "NONE+ 31s MUTE+ MUTE- STREAM+ STREAM- NONE-", []string{"31s MUTE press audio.toggle", "31s STREAM press stream.start"}},
		{"two keys of which one is stuck", "STREAM+ 20s MUTE+ 12s MUTE- MUTE+", []string{"3s STREAM hold stream.stop grace=20s", "32s MUTE press audio.toggle"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inHand(t, testKeys(), func(h *hand) {
				h.does(tt.script)
				if !slices.Equal(h.got, tt.want) {
					t.Errorf("%s\ngot  %q\nwant %q", tt.script, h.got, tt.want)
				}
			})
		})
	}
}

func TestAKeySaysHowItStands(t *testing.T) {
	steps := []struct {
		script string
		want   status.Key
	}{
		{"", status.Key{}},
		{"RESET+ 1s", status.Key{Down: true, Holding: "network.reset"}},
		{"4s", status.Key{Down: true, Holding: "factory.reset", Armed: "network.reset"}},
		{"5s", status.Key{Down: true, Armed: "factory.reset"}},
		{"RESET- 4s", status.Key{Armed: "factory.reset"}},
		{"1s", status.Key{}},
		{"RESET+ 6s RESET- 1s RESET+", status.Key{Down: true, Holding: "network.reset", Armed: "network.reset"}},
		{"RESET-", status.Key{Gesture: "hold", Action: "network.reset"}},
		{"RESET+ 30s", status.Key{Down: true, Gesture: "hold", Action: "network.reset", Error: "stuck: it has been down for more than 30s"}},
		{"RESET!", status.Key{Gesture: "hold", Action: "network.reset", Error: "the line is in use"}},
		{"RESET=-", status.Key{Gesture: "hold", Action: "network.reset"}},
	}
	inHand(t, testKeys(), func(h *hand) {
		for _, s := range steps {
			h.does(s.script)
			got := h.key("RESET")
			got.Edge, got.At = nil, nil
			if got != s.want {
				t.Errorf("%q\ngot  %+v\nwant %+v", s.script, got, s.want)
			}
		}
	})
}

func TestAKeyTellsWhenItMovedAndWhenItOrdered(t *testing.T) {
	inHand(t, testKeys(), func(h *hand) {
		h.does("STREAM=- 1s STREAM+ 1s STREAM- 1s STREAM=-")
		got := h.key("STREAM")
		want := h.start.Add(2 * time.Second)
		if got.Edge == nil || !got.Edge.Equal(want) || got.At == nil || !got.At.Equal(want) {
			t.Errorf("moved %v, ordered %v, want both %v", got.Edge, got.At, want)
		}
	})
}

func TestARefusedOrderShowsUntilTheNextOne(t *testing.T) {
	inHand(t, testKeys(), func(h *hand) {
		h.err = errors.New("no output is configured")
		h.does("STREAM+ STREAM- 1m")
		if got := h.key("STREAM"); got.Error != "no output is configured" || got.Action != "stream.start" {
			t.Errorf("got %+v", got)
		}
		if troubles := h.keys.Troubles(); len(troubles) != 0 {
			t.Errorf("a key that works is in trouble: %v", troubles)
		}
		h.err = nil
		h.does("STREAM+ STREAM-")
		if got := h.key("STREAM"); got.Error != "" {
			t.Errorf("got %+v", got)
		}
	})
}

func TestABouncingKeyIsIgnoredUntilItIsQuiet(t *testing.T) {
	inHand(t, testKeys(), func(h *hand) {
		h.does(strings.Repeat("MUTE+ 20ms MUTE- 20ms ", 10))
		if n := len(h.got); n != 10 || len(h.keys.Troubles()) != 0 {
			t.Errorf("twenty movements: %d orders, troubles %v", n, h.keys.Troubles())
		}
		h.does("MUTE+")
		want := []Trouble{{"MUTE", status.KeyStuck, "bouncing: it moves by itself"}}
		if got := h.keys.Troubles(); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		h.does(strings.Repeat("1900ms MUTE- 100ms MUTE+ ", 3) + "STREAM+ STREAM-")
		if n := len(h.got); n != 11 || h.got[10] != "6.4s STREAM press stream.start" {
			t.Errorf("%d orders, the last %s", n, h.got[n-1])
		}
		h.does("2s") // quiet, but down
		if got := h.keys.Troubles(); len(got) != 0 {
			t.Errorf("a quiet key: %v", got)
		}
		h.does("MUTE- MUTE+ MUTE-")
		if n := len(h.got); n != 12 {
			t.Errorf("%d orders, want one more", n)
		}
	})
}

func TestSlowMovementsDoNotBounce(t *testing.T) {
	inHand(t, testKeys(), func(h *hand) {
		h.does(strings.Repeat("MUTE+ 110ms MUTE- 110ms ", 50))
		if len(h.got) != 50 || len(h.keys.Troubles()) != 0 {
			t.Errorf("%d orders, troubles %v", len(h.got), h.keys.Troubles())
		}
	})
}

func TestTroublesOfTheWires(t *testing.T) {
	inHand(t, testKeys(), func(h *hand) {
		h.does("STREAM! MUTE+ 31s")
		want := []Trouble{{"MUTE", status.KeyStuck, "stuck: it has been down for more than 30s"}, {"STREAM", status.PanelWire, "the line is in use"}}
		if got := h.keys.Troubles(); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		h.does("STREAM=- MUTE-")
		if got := h.keys.Troubles(); len(got) != 0 {
			t.Errorf("got %v", got)
		}
	})
}

// A panel that is opened anew, or lost movements, finds a stuck key down.
func TestAKeyThatIsFoundDownIsStillStuck(t *testing.T) {
	for _, tt := range []struct {
		script string
		want   bool
	}{
		{"NONE+ 31s", true},
		{"NONE+ 31s NONE=+", true},
		{"NONE+ 31s NONE=+ 1m NONE=+", true},
		{"NONE+ 31s NONE=+ NONE-", false},
		{"NONE+ 31s NONE=-", false},
		{"NONE+ 31s NONE=- NONE=+ 29s", false},
		{"NONE+ 31s NONE=- NONE=+ 31s", true},
		{"NONE+ 20s NONE=+ 11s", true},
		{"NONE+ 31s NONE! NONE=+", false}, // another wire, for all that is known
		{"NONE+ 31s NONE! NONE=+ 31s", true},
	} {
		inHand(t, testKeys(), func(h *hand) {
			h.does(tt.script)
			want := []Trouble{{"NONE", status.KeyStuck, "stuck: it has been down for more than 30s"}}
			if !tt.want {
				want = nil
			}
			if got := h.keys.Troubles(); !slices.Equal(got, want) {
				t.Errorf("%s: got %v, want %v", tt.script, got, want)
			}
		})
	}
}

// The kernel's stamps say how long a key was down, however late they are read.
func TestStampsCountNotArrivals(t *testing.T) {
	inHand(t, testKeys(), func(h *hand) {
		late := func(down bool, stamp time.Duration) {
			h.keys.Edge(hw.Edge{Key: "STREAM", Down: down, Stamp: stamp})
			synctest.Wait()
		}
		late(true, time.Second)
		h.does("2s")
		late(false, 1100*time.Millisecond)
		late(true, 10*time.Second)
		late(false, 14*time.Second)
		want := []string{"2s STREAM press stream.start", "2s STREAM hold stream.stop grace=20s"}
		if !slices.Equal(h.got, want) {
			t.Errorf("got %q, want %q", h.got, want)
		}
	})
}

// A box that stood still sees the deadline and the release at once: a short
// press must not become a hold.
func TestABoxThatStoodStillDoesNotHold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hand{t: t, start: time.Now()}
		h.keys = NewKeys(testKeys(), h.order, func() {})
		h.keys.Edge(hw.Edge{Key: "ALL", Down: true, Stamp: time.Second})
		time.Sleep(20 * time.Second) // nothing runs
		if next := h.keys.expire(time.Now()); next != time.Now().Add(catchUp) {
			t.Errorf("waits until %v", next)
		}
		h.keys.Edge(hw.Edge{Key: "ALL", Stamp: 1200 * time.Millisecond})
		time.Sleep(20 * time.Second)
		h.keys.expire(time.Now())
		if g, ok := h.keys.next("ALL"); !ok || g.gesture != Press {
			t.Errorf("got %v", g)
		}
		h.keys.Edge(hw.Edge{Key: "STREAM", Down: true, Stamp: 2 * time.Minute})
		time.Sleep(4 * time.Second)
		h.keys.expire(time.Now())
		time.Sleep(time.Second) // late again, and no release came
		h.keys.expire(time.Now())
		if g, ok := h.keys.next("STREAM"); !ok || g.gesture != Hold {
			t.Errorf("got %v", g)
		}
	})
}

func TestAPanelWithoutStampsWorks(t *testing.T) {
	inHand(t, testKeys(), func(h *hand) {
		bare := func(down bool) { h.keys.Edge(hw.Edge{Key: "STREAM", Down: down}) }
		for range 30 {
			bare(true)
			time.Sleep(time.Second)
			bare(false)
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if len(h.got) != 30 {
			t.Errorf("%d orders, want 30", len(h.got))
		}
	})
}

func TestKeysAreMappedAnew(t *testing.T) {
	inHand(t, testKeys(), func(h *hand) {
		h.does("STREAM+ 1s")
		h.keys.Set(testKeys()) // nothing new
		h.does("1s STREAM- 1s STREAM+ 1s")
		h.keys.Set([]KeyMap{{Name: "STREAM", Press: Order{Action: "one"}}, {Name: "NEW", Press: Order{Action: "two"}}})
		h.does("9s STREAM- MUTE+ MUTE- NEW+ NEW- STREAM+ STREAM-")
		want := []string{"2s STREAM press stream.start", "13s NEW press two", "13s STREAM press one"}
		if !slices.Equal(h.got, want) {
			t.Errorf("got %q, want %q", h.got, want)
		}
		if _, there := h.keys.Status()["MUTE"]; there {
			t.Error("a key that is gone shows")
		}
	})
}

func TestOrdersWaitForEachOtherAndKeysForNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		free := make(chan struct{})
		var got []Gesture
		k := NewKeys(testKeys(), func(ctx context.Context, _ string, g Gesture, _ Order) error {
			select {
			case <-free:
				got = append(got, g)
			case <-ctx.Done():
			}
			return context.Cause(ctx)
		}, func() {})
		ended := make(chan error)
		go func() { ended <- k.Run(ctx) }()
		for range maxOrders + 2 { // one is being carried out
			for _, down := range []bool{true, false} {
				k.Edge(hw.Edge{Key: "MUTE", Down: down})
				synctest.Wait()
			}
			time.Sleep(time.Second)
		}
		if got := k.Status()["MUTE"].Error; got != "too many orders wait" {
			t.Errorf("the last order: %q", got)
		}
		free <- struct{}{}
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil || len(got) != 1 {
			t.Errorf("%v, %d orders carried out", err, len(got))
		}
	})
}

// A camera that does not answer keeps its own key waiting, and no show on air.
func TestOrdersOfOneKeyDoNotWaitForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hand{t: t, start: time.Now()}
		left := 0
		maps := append(testKeys(), KeyMap{Name: "LEFT", Press: Order{Action: "ptz.move"}})
		h.keys = NewKeys(maps, func(ctx context.Context, key string, g Gesture, o Order) error {
			if key == "LEFT" {
				left++
				time.Sleep(2 * time.Second) // it is silent
			}
			return h.order(ctx, key, g, o)
		}, func() {})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- h.keys.Run(ctx) }()
		h.does(strings.Repeat("LEFT+ 50ms LEFT- 450ms ", 8) + "STREAM+ 3s STREAM- 1s")
		if want := "7s STREAM hold stream.stop grace=20s"; !slices.Contains(h.got, want) {
			t.Errorf("got %q, want among them %q", h.got, want)
		}
		if left != 3 { // for what was ordered at 0 s, 0.5 s and 2 s
			t.Errorf("the camera was asked %d times, not 3: %q", left, h.got)
		}
		if got, want := h.key("LEFT").Error, "ptz.move came too late, after 2.5s, and was dropped"; got != want {
			t.Errorf("told %q, not %q", got, want)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestEveryChangeIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []string
		var k *Keys
		told := make(chan struct{}, 100)
		k = NewKeys(testKeys(), func(context.Context, string, Gesture, Order) error { return errors.New("no") }, func() { told <- struct{}{} })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- k.Run(ctx) }()
		look := func() {
			synctest.Wait()
			for len(told) > 0 {
				<-told
				seen = append(seen, "told")
			}
			s := k.Status()["STREAM"]
			seen = append(seen, strings.TrimSpace(fmt.Sprintf("%v %s %s", s.Down, s.Holding, s.Error)))
		}
		k.Edge(hw.Edge{Key: "STREAM", Down: true})
		look()
		time.Sleep(3 * time.Second)
		look()
		want := []string{"told", "true stream.stop grace=20s", "told", "told", "true  no"}
		if !slices.Equal(seen, want) {
			t.Errorf("got %q, want %q", seen, want)
		}
		cancel()
		<-ended
	})
}

func TestTimesThatExcludeEachOther(t *testing.T) {
	o := Order{Action: "x"}
	for _, tt := range []struct {
		m    KeyMap
		want string
	}{
		{KeyMap{}, ""},
		{KeyMap{Hold: o, Long: o}, ""},
		{KeyMap{Hold: o, HoldTime: 30 * time.Second}, "a hold of 30s takes no less than the 30s"},
		{KeyMap{Hold: o, HoldTime: 12 * time.Second, Long: o}, "a long hold of 10s is no longer than a hold of 12s"},
		{KeyMap{Long: o, LongTime: time.Minute}, "a long hold of 1m0s takes no less than the 30s"},
		{KeyMap{Press: o, HoldTime: time.Minute}, ""},
	} {
		err := tt.m.Check()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.m, err, tt.want)
		}
	}
	for _, m := range DefaultKeys() {
		if err := m.Check(); err != nil {
			t.Error(err)
		}
	}
}

// A happening is what came from a panel: a movement, or a key found or lost.
type happening struct {
	at   time.Duration
	key  string
	down bool
	odd  bool // no mere movement
}

// asked reports whether what happened last, but for other keys that came up, is
// a hold of RESET of at least that long, and a short press soon after it.
func asked(log []happening, hold time.Duration) bool {
	log = slices.DeleteFunc(slices.Clone(log), func(h happening) bool { return h.key != "RESET" && !h.down })
	if len(log) < 4 {
		return false
	}
	last := log[len(log)-4:]
	for i, h := range last {
		if h.key != "RESET" || h.odd || h.down != (i%2 == 0) {
			return false
		}
	}
	held, pause, press := last[1].at-last[0].at, last[2].at-last[1].at, last[3].at-last[2].at
	return held >= hold && held < 30*time.Second && pause < 5*time.Second && press < 5*time.Second
}

// Nobody erases a box by accident: whatever is done to its keys, a reset comes
// only after the hold and the press that ask for it.
func TestNoResetComesByAccident(t *testing.T) {
	c := chance{rand.New(rand.NewPCG(3, 4))}
	resets := map[string]int{}
	for range 300 {
		synctest.Test(t, func(t *testing.T) {
			var log []happening
			k := NewKeys(testKeys(), func(_ context.Context, _ string, _ Gesture, o Order) error {
				hold := map[string]time.Duration{"network.reset": 5 * time.Second, "factory.reset": 10 * time.Second}[o.Action]
				if hold > 0 && !asked(log, hold) {
					t.Errorf("%s came after %+v", o.Action, log[max(0, len(log)-6):])
				}
				resets[o.Action]++
				return nil
			}, func() {})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- k.Run(ctx) }()
			start, down := time.Now(), map[string]bool{}
			for range 100 {
				time.Sleep(pick(c, 0, 50*time.Millisecond, 100*time.Millisecond, time.Second, 4*time.Second, 6*time.Second, 11*time.Second, 31*time.Second))
				synctest.Wait() // what is due now comes first
				h := happening{at: time.Since(start), key: pick(c, "RESET", "RESET", "RESET", "RESET", "RESET", "RESET", "RESET", "STREAM", "MUTE")}
				h.odd = h.key == "RESET" && c.IntN(20) == 0
				e := hw.Edge{Key: h.key, Down: !down[h.key], Level: h.odd, Stamp: h.at + time.Hour}
				if h.odd && c.IntN(2) == 0 {
					e.Err, e.Down = errors.New("gone"), false
				}
				down[h.key], h.down = e.Down, e.Down
				log = append(log, h)
				k.Edge(e)
				synctest.Wait()
			}
			cancel()
			<-ended
		})
	}
	if resets["network.reset"] == 0 || resets["factory.reset"] == 0 {
		t.Errorf("nothing was reset on purpose: %v", resets)
	}
	t.Log(resets)
}
