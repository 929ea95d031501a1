package panel

import (
	"cmp"
	"fmt"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/hw"
)

// A key that moves more than bounces times within bounceTime, after the kernel
// has debounced it, is broken, until it was quiet as long.
const (
	bounces    = 20
	bounceTime = 2 * time.Second
)

// A hold that is seen later than stall because the box stood still waits for
// catchUp: the movement that ended it may not have come through.
const (
	stall   = 50 * time.Millisecond
	catchUp = 100 * time.Millisecond
)

// A key is one key and where it stands; see the picture at [Keys].
type key struct {
	m  KeyMap
	st status.Key

	phase phase
	stamp time.Duration // of the movement down
	down  time.Time     // when that came
	// reached is the furthest hold of this time down, armed the one that waits
	// for its confirmation.
	reached, armed Gesture
	due            [deadlines]time.Time // zero: none
	caughtUp       bool                 // a late hold has waited already
	moves          []time.Duration      // stamps of the latest, at most bounces

	trouble        trouble
	words, refused string
}

type phase uint8

const (
	idle phase = iota
	pressed
	waiting // up after a press that may become a double
	spent   // down, and nothing more comes of it
	ignored // as spent, and other keys do not notice
)

type trouble uint8

const (
	fine trouble = iota
	stuck
	bouncing
	unreadable
)

var troubles = [...]status.FaultCode{stuck: status.KeyStuck, bouncing: status.KeyStuck, unreadable: status.PanelWire}

const (
	dueHold = iota
	dueLong
	dueDouble
	dueConfirm
	dueStuck
	dueQuiet
	deadlines
)

// move is where a key's movement comes in. The caller holds mu.
func (k *Keys) move(key *key, e hw.Edge, now time.Time) {
	if e.Stamp == 0 { // of a panel that has none
		e.Stamp = now.Sub(k.born)
	}
	switch {
	case e.Err != nil:
		key.abandon()
		key.st.Down, key.phase = false, ignored
		key.due[dueStuck], key.due[dueQuiet] = time.Time{}, time.Time{}
		key.fails(unreadable, e.Err.Error())
	case e.Level, key.trouble == unreadable:
		key.found(e.Down, now)
	case e.Down == key.st.Down: // nothing new
	default:
		key.st.Down, key.st.Edge = e.Down, &now
		k.moved(key, e, now)
	}
}

func (k *Keys) moved(key *key, e hw.Edge, now time.Time) {
	key.due[dueStuck] = time.Time{}
	if e.Down {
		key.due[dueStuck] = now.Add(key.m.StuckTime)
	}
	switch {
	case key.bounced(e.Stamp):
		key.abandon()
		key.phase = ignored
		key.due[dueQuiet] = now.Add(bounceTime)
		key.fails(bouncing, "bouncing: it moves by itself")
	case e.Down:
		k.pushed(key, e, now)
	default:
		k.released(key, e, now)
	}
}

// bounced counts a movement and reports whether there are too many.
func (key *key) bounced(stamp time.Duration) bool {
	many := len(key.moves) == bounces
	tooMany := many && stamp-key.moves[0] <= bounceTime
	if many {
		key.moves = append(key.moves[:0], key.moves[1:]...)
	}
	key.moves = append(key.moves, stamp)
	return tooMany || key.trouble == bouncing
}

// found takes how a key stands without having seen it move. One that was stuck
// and is down still is: nobody let go of it.
func (key *key) found(down bool, now time.Time) {
	if key.trouble != bouncing && (key.trouble != stuck || !down) {
		key.fails(fine, "")
	}
	switch {
	case !down:
		key.due[dueStuck] = time.Time{}
	case key.due[dueStuck].IsZero():
		key.due[dueStuck] = now.Add(key.m.StuckTime)
	}
	key.st.Down = down
	key.abandon()
}

// pushed is a movement down.
func (k *Keys) pushed(key *key, e hw.Edge, now time.Time) {
	for _, other := range k.keys {
		if other != key {
			other.disarm()
		}
	}
	if k.chord || k.otherIsDown(key) {
		k.together(key)
		return
	}
	key.stamp, key.down, key.reached, key.caughtUp = e.Stamp, now, "", false
	switch {
	case key.phase == waiting:
		key.due[dueDouble] = time.Time{}
		key.phase = spent
		k.give(key, Double, key.m.Double)
	case key.m.atOnce():
		key.phase = spent
		k.give(key, Press, key.m.Press)
	default:
		key.phase = pressed
		key.due[dueConfirm] = time.Time{} // it is this press that counts
		key.await()
	}
}

func (k *Keys) otherIsDown(key *key) bool {
	for _, other := range k.keys {
		if other != key && other.counts() {
			return true
		}
	}
	return false
}

// counts reports whether the key is down for the other ones.
func (key *key) counts() bool { return key.phase == pressed || key.phase == spent }

// together is what happens when a key goes down while others are: nothing, for
// all of them.
func (k *Keys) together(last *key) {
	k.chord = true
	for _, key := range k.keys {
		if key == last || key.counts() {
			key.abandon()
			key.phase = spent
		}
	}
}

// settle ends what lasts until all keys are up. The caller holds mu.
func (k *Keys) settle() {
	for _, key := range k.keys {
		if key.counts() {
			return
		}
	}
	k.chord = false
}

// released is a movement up.
func (k *Keys) released(key *key, e hw.Edge, now time.Time) {
	if key.phase != pressed {
		key.phase = idle
		key.fails(fine, "")
		return
	}
	held := e.Stamp - key.stamp
	if held >= key.m.HoldTime {
		k.reach(key, Hold)
	}
	if held >= key.m.LongTime {
		k.reach(key, Long)
	}
	key.phase, key.st.Holding = idle, ""
	key.due[dueHold], key.due[dueLong] = time.Time{}, time.Time{}
	switch {
	case key.reached != "":
		key.arm(now)
	case key.m.holds() && held >= key.m.HoldTime: // too long for a press, too short for Long
		key.disarm()
	default:
		k.short(key, now)
	}
}

// short is a press: it confirms what is armed, else it orders, unless it may
// become a double.
func (k *Keys) short(key *key, now time.Time) {
	switch {
	case key.armed != "":
		g := key.armed
		key.disarm()
		k.give(key, g, key.m.orderOf(g))
	case key.m.Double.Action != "":
		key.phase = waiting
		key.due[dueDouble] = now.Add(key.m.DoubleTime)
	default:
		k.give(key, Press, key.m.Press)
	}
}

func (m KeyMap) orderOf(g Gesture) Order {
	if g == Long {
		return m.Long
	}
	return m.Hold
}

// await sets when the key's holds are reached, and which one comes next.
func (key *key) await() {
	for _, h := range []struct {
		gesture Gesture
		after   time.Duration
		due     int
	}{{Long, key.m.LongTime, dueLong}, {Hold, key.m.HoldTime, dueHold}} {
		if o := key.m.orderOf(h.gesture); o.Action != "" {
			key.due[h.due] = key.down.Add(h.after)
			key.st.Holding = o.String()
		}
	}
}

// reach is a hold that has lasted long enough. It acts, or with confirm gets
// ready for when the key is up.
func (k *Keys) reach(key *key, g Gesture) {
	o := key.m.orderOf(g)
	if o.Action == "" || key.reached == g || key.reached == Long {
		return
	}
	key.reached = g
	key.st.Holding = ""
	if next := key.m.Long; g == Hold && next.Action != "" {
		key.st.Holding = next.String()
	}
	if key.m.Confirm {
		key.armed, key.st.Armed = "", o.String()
		return
	}
	k.give(key, g, o)
}

// arm makes what was reached wait for its confirmation.
func (key *key) arm(now time.Time) {
	if !key.m.Confirm {
		return
	}
	key.armed = key.reached
	key.due[dueConfirm] = now.Add(key.m.ConfirmTime)
}

func (key *key) disarm() {
	key.armed, key.st.Armed = "", ""
	key.due[dueConfirm] = time.Time{}
}

// abandon ends what goes on with the key: nothing comes of it.
func (key *key) abandon() {
	key.disarm()
	key.st.Holding, key.reached = "", ""
	key.due[dueHold], key.due[dueLong], key.due[dueDouble] = time.Time{}, time.Time{}, time.Time{}
	key.phase = idle
	if key.st.Down || key.trouble == bouncing || key.trouble == unreadable {
		key.phase = ignored
	}
}

func (key *key) fails(t trouble, words string) { key.trouble, key.words = t, words }

// shown is what the status tells of the key.
func (key *key) shown() status.Key {
	st := key.st
	st.Error = cmp.Or(key.words, key.refused)
	return st
}

// expire does what is due and returns when the next thing is, the zero Time if
// nothing waits.
func (k *Keys) expire(now time.Time) (next time.Time) {
	k.mu.Lock()
	changed := false
	for _, name := range k.names {
		key := k.keys[name]
		for what := range key.due {
			if at := key.due[what]; !at.IsZero() && !now.Before(at) {
				key.due[what] = time.Time{}
				k.isDue(key, what, at, now)
				changed = true
			}
		}
	}
	k.settle()
	for _, key := range k.keys {
		for _, at := range key.due {
			if !at.IsZero() && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
	}
	k.mu.Unlock()
	if changed {
		k.changed()
	}
	return next
}

// isDue does what was due at a time.
func (k *Keys) isDue(key *key, what int, at, now time.Time) {
	switch what {
	case dueHold, dueLong:
		if now.Sub(at) > stall && !key.caughtUp {
			key.postpone(what, now)
			return
		}
		k.reach(key, map[int]Gesture{dueHold: Hold, dueLong: Long}[what])
	case dueDouble:
		key.phase = idle
		k.give(key, Press, key.m.Press)
	case dueConfirm:
		key.disarm()
	case dueStuck:
		key.abandon()
		if key.trouble != bouncing {
			key.fails(stuck, fmt.Sprintf("stuck: it has been down for more than %v", key.m.StuckTime))
		}
	case dueQuiet:
		key.fails(fine, "")
		key.abandon() // idle, or ignored until it is up
	}
}

// postpone lets what lies in the queue of the keys come first.
func (key *key) postpone(what int, now time.Time) {
	key.due[what] = now.Add(catchUp)
	if what == dueHold && !key.due[dueLong].IsZero() {
		key.due[dueLong] = laterOf(key.due[dueLong], key.due[what])
	}
	key.caughtUp = true
}

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
