package panel

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/hw"
)

// A Gesture is what somebody did with a key.
type Gesture string

// The gestures.
const (
	Press  Gesture = "press"
	Double Gesture = "double"
	Hold   Gesture = "hold"
	Long   Gesture = "long" // a hold that goes on
)

// A KeyMap says what a key orders. The zero Order is none, a zero time the
// usual one.
type KeyMap struct {
	Name string // for config and people: STREAM

	// Press acts when the key is let go before HoldTime; at once when it goes
	// down, if the key has no other gesture.
	Press Order
	// Double acts when the key goes down within DoubleTime after a press. A press
	// of such a key waits as long.
	Double Order
	// Hold and Long act at their times, while the key is still down.
	Hold, Long Order
	// Confirm says that Hold and Long do not act, but wait, once the key is up,
	// for a press of the same key within ConfirmTime.
	Confirm bool

	HoldTime    time.Duration // 3 s
	LongTime    time.Duration // 10 s
	DoubleTime  time.Duration // 400 ms
	ConfirmTime time.Duration // 5 s
	StuckTime   time.Duration // 30 s: a key that is down longer is stuck
}

// Check reports times that exclude each other.
func (m KeyMap) Check() error {
	m = m.usual()
	switch {
	case m.holds() && m.HoldTime >= m.StuckTime:
		return fmt.Errorf("key %s: a hold of %v takes no less than the %v after which a key is stuck", m.Name, m.HoldTime, m.StuckTime)
	case m.Long.Action == "":
		return nil
	case m.LongTime <= m.HoldTime:
		return fmt.Errorf("key %s: a long hold of %v is no longer than a hold of %v", m.Name, m.LongTime, m.HoldTime)
	case m.LongTime >= m.StuckTime:
		return fmt.Errorf("key %s: a long hold of %v takes no less than the %v after which a key is stuck", m.Name, m.LongTime, m.StuckTime)
	default:
		return nil
	}
}

// usual puts the usual times where none are given.
func (m KeyMap) usual() KeyMap {
	m.HoldTime = cmp.Or(m.HoldTime, 3*time.Second)
	m.LongTime = cmp.Or(m.LongTime, 10*time.Second)
	m.DoubleTime = cmp.Or(m.DoubleTime, 400*time.Millisecond)
	m.ConfirmTime = cmp.Or(m.ConfirmTime, 5*time.Second)
	m.StuckTime = cmp.Or(m.StuckTime, 30*time.Second)
	return m
}

func (m KeyMap) holds() bool { return m.Hold.Action != "" || m.Long.Action != "" }

// atOnce reports whether the key orders as soon as it goes down.
func (m KeyMap) atOnce() bool { return !m.holds() && m.Double.Action == "" }

// DefaultKeys returns what keys with the usual names order if the config does
// not say otherwise.
func DefaultKeys() []KeyMap {
	return []KeyMap{
		{
			Name: "STREAM", Press: Order{Action: "stream.start"},
			Hold: Order{Action: "stream.stop", Args: map[string]string{"grace": "20s"}}, HoldTime: 3 * time.Second,
		},
		{Name: "REC", Press: Order{Action: "record.start"}, Hold: Order{Action: "record.stop"}, HoldTime: 2 * time.Second},
		{Name: "MUTE", Press: Order{Action: "audio.toggle"}},
		{
			Name: "RESET", Hold: Order{Action: "network.reset"}, HoldTime: 5 * time.Second,
			Long: Order{Action: "factory.reset"}, LongTime: 10 * time.Second, Confirm: true,
		},
	}
}

// Keys turns movements of keys into orders.
//
//	            down                   up before the hold time
//	idle ───────────────────► pressed ──────────────────────► press, or with a double
//	 ▲ ▲                       │   │ hold time                waiting ── down ─► double
//	 │ └── up ── spent ◄───────┘   └► hold (and then long),        └── double time ─► press
//	 │             ▲ another key      or with confirm, once up:
//	 │             │ is down          armed ── short press ─► hold or long
//	 │                                  └── anything else ─► idle
//	 └── up ── ignored: found down, movements lost, stuck, bouncing, mapped anew
//
// While one key is down another one does nothing, nor does the first one any
// more, until all are up; keys that are ignored do not count for this.
//
// A key's own times are measured by the stamps of its movements. Its methods may
// be called from any goroutine.
type Keys struct {
	order   func(ctx context.Context, key string, g Gesture, o Order) error
	changed func()
	wake    chan struct{} // a deadline may be nearer
	given   chan struct{} // an order waits
	born    time.Time

	mu     sync.Mutex
	keys   map[string]*key
	names  []string // of keys, sorted
	chord  bool     // several keys were down, and not all are up
	orders map[string]*queue
}

// A queue is the orders of one key, which wait for each other only.
type queue struct {
	waiting []given
	served  bool // somebody carries them out
}

type given struct {
	gesture Gesture
	order   Order
	at      time.Time
}

// maxOrders is how many orders of a key wait for the one that is being carried
// out, and maxWait how long: who gave an order has given it up by then.
const (
	maxOrders = 16
	maxWait   = 2 * time.Second
)

// NewKeys returns the keys of maps, none of them down. order is called from
// goroutines that Run waits for: for each key one order after the other, for
// several keys at the same time. It may block; what it returns stands in the
// status. An order that has waited for more than two seconds is not carried out,
// which stands there too. changed is called after each change of Status, from
// any goroutine and with no lock held; it must not block.
func NewKeys(maps []KeyMap, order func(ctx context.Context, key string, g Gesture, o Order) error, changed func()) *Keys {
	k := &Keys{
		order: order, changed: changed,
		wake: make(chan struct{}, 1), given: make(chan struct{}, 1),
		born: time.Now(), keys: map[string]*key{}, orders: map[string]*queue{},
	}
	k.set(maps)
	return k
}

// Set changes what keys order. What goes on with a key whose map is another one
// now is abandoned; a key that stays the same does not notice.
func (k *Keys) Set(maps []KeyMap) {
	k.mu.Lock()
	k.set(maps)
	k.settle()
	k.mu.Unlock()
	k.tell()
}

func (k *Keys) set(list []KeyMap) {
	before := k.keys
	k.keys = map[string]*key{}
	for _, m := range list {
		m = m.usual()
		known := before[m.Name]
		if known == nil {
			known = &key{}
		}
		if !reflect.DeepEqual(known.m, m) {
			known.abandon()
		}
		known.m = m
		k.keys[m.Name] = known
	}
	k.names = slices.Sorted(maps.Keys(k.keys))
}

// Edge takes a movement of a key; it never blocks. Keys without a map are
// ignored.
func (k *Keys) Edge(e hw.Edge) {
	k.mu.Lock()
	if key := k.keys[e.Key]; key != nil {
		k.move(key, e, time.Now())
		k.settle()
	}
	k.mu.Unlock()
	k.tell()
}

// tell says that something is new.
func (k *Keys) tell() {
	hint(k.wake)
	k.changed()
}

func hint(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it knows already
	}
}

// Status returns how each key stands, by its name.
func (k *Keys) Status() map[string]status.Key {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make(map[string]status.Key, len(k.keys))
	for name, key := range k.keys {
		all[name] = key.shown()
	}
	return all
}

// A Trouble says why a key does nothing.
type Trouble struct {
	Key  string
	Code status.FaultCode // [status.KeyStuck] or [status.PanelWire]
	Text string           // for people, lower case, without the key's name
}

// Troubles returns the keys that do nothing now, by name.
func (k *Keys) Troubles() []Trouble {
	k.mu.Lock()
	defer k.mu.Unlock()
	var list []Trouble
	for _, name := range k.names {
		if key := k.keys[name]; key.trouble != fine {
			list = append(list, Trouble{name, troubles[key.trouble], key.words})
		}
	}
	return list
}

// Run carries out orders and sees to all that comes with time, until ctx ends,
// which is no error. What goes on then is abandoned, and orders that wait are
// dropped. One Run at a time.
func (k *Keys) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	parts.Go(func() { k.carryOut(ctx) })
	defer k.reset()
	defer parts.Wait()
	for {
		var due <-chan time.Time
		if next := k.expire(time.Now()); !next.IsZero() {
			due = time.After(time.Until(next))
		}
		select {
		case <-due:
		case <-k.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

// carryOut gives orders as they come, those of each key by a goroutine of its
// own: a camera that does not answer must not hold up the end of a show.
func (k *Keys) carryOut(ctx context.Context) {
	var parts sync.WaitGroup
	defer parts.Wait()
	for {
		select {
		case <-k.given:
		case <-ctx.Done():
			return
		}
		for _, name := range k.unserved() {
			parts.Go(func() { k.serve(ctx, name) })
		}
	}
}

// unserved returns the keys whose orders wait and are carried out by nobody; the
// caller does from now on.
func (k *Keys) unserved() (names []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for name, q := range k.orders {
		if !q.served {
			q.served = true
			names = append(names, name)
		}
	}
	return names
}

// serve carries out what waits of a key.
func (k *Keys) serve(ctx context.Context, name string) {
	for g, ok := k.next(name); ok; g, ok = k.next(name) {
		switch waited := time.Since(g.at); {
		case ctx.Err() != nil: // dropped
		case waited > maxWait:
			k.answered(name, fmt.Errorf("%v came too late, after %v, and was dropped", g.order, waited.Round(time.Second/10)))
		default:
			k.answered(name, k.order(ctx, name, g.gesture, g.order))
		}
	}
}

// next takes the next order of a key; without one the key is served no more.
func (k *Keys) next(name string) (given, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	q := k.orders[name]
	if q == nil || len(q.waiting) == 0 {
		delete(k.orders, name)
		return given{}, false
	}
	g := q.waiting[0]
	q.waiting = q.waiting[1:]
	return g, true
}

// answered notes what became of an order.
func (k *Keys) answered(name string, err error) {
	if err == nil {
		return
	}
	k.mu.Lock()
	if key := k.keys[name]; key != nil {
		key.refused = err.Error()
	}
	k.mu.Unlock()
	k.changed()
}

func (k *Keys) reset() {
	k.mu.Lock()
	for _, key := range k.keys {
		key.abandon()
	}
	clear(k.orders)
	k.chord = false
	k.mu.Unlock()
	k.changed()
}

// give queues an order. The caller holds mu.
func (k *Keys) give(key *key, g Gesture, o Order) {
	if o.Action == "" {
		return
	}
	now := time.Now()
	key.st.Gesture, key.st.Action, key.st.At, key.refused = string(g), o.String(), &now, ""
	q := k.orders[key.m.Name]
	if q == nil {
		q = &queue{}
		k.orders[key.m.Name] = q
	}
	if len(q.waiting) >= maxOrders {
		key.refused = "too many orders wait"
		return
	}
	q.waiting = append(q.waiting, given{g, o, now})
	hint(k.given)
}
