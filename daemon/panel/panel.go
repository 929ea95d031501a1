// Package panel joins the keys and lamps on the box's face to the daemon: key
// edges become gestures, and the status becomes lamp patterns. It holds no
// state of the box and sets no lamp itself.
package panel

import (
	"context"
	"fmt"
	"slices"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/hw"
)

// A Gesture is what the operator meant.
type Gesture struct {
	Key  string
	Hold bool
}

// HoldTime tells a hold from a press.
const HoldTime = 3 * time.Second

// Gestures turns edges into gestures until ctx ends. A hold is told as soon as
// it is long enough, so that the lamp can answer before the finger leaves.
func Gestures(ctx context.Context, edges <-chan hw.Edge, told func(Gesture)) {
	held := map[string]*time.Timer{}
	holds := make(chan string)
	defer func() {
		for _, t := range held {
			t.Stop()
		}
	}()
	for {
		select {
		case e := <-edges:
			t := held[e.Key]
			switch {
			case e.Down && t == nil:
				held[e.Key] = time.AfterFunc(HoldTime, func() {
					select {
					case holds <- e.Key:
					case <-ctx.Done():
					}
				})
			case !e.Down && t != nil:
				delete(held, e.Key)
				if t.Stop() {
					told(Gesture{Key: e.Key})
				}
			}
		case key := <-holds:
			told(Gesture{Key: key, Hold: true})
		case <-ctx.Done():
			return
		}
	}
}

// ActionOf maps gestures to actions.
var ActionOf = map[Gesture]string{
	{Key: "STREAM"}:             "stream.start",
	{Key: "STREAM", Hold: true}: "stream.stop",
	{Key: "MUTE"}:               "audio.toggle",
}

// The patterns of a lamp.
const (
	Off   = "off"
	On    = "on"
	Pulse = "pulse" // half a second on, half a second off: on the way
	Blink = "blink" // quick: look here
)

// Lit reports whether a lamp of that pattern shines at an instant.
func Lit(pattern string, at time.Time) bool {
	ms := at.UnixMilli()
	switch pattern {
	case On:
		return true
	case Pulse:
		return ms%1000 < 500
	case Blink:
		return ms%250 < 125
	default:
		return false
	}
}

// Lamps says how every lamp shines in a given state, and why. It is the whole
// truth about the lights: no other code sets one. identify is true while the
// box is asked to show itself.
func Lamps(b status.Box, identify bool) map[string]status.Lamp {
	lamps := map[string]status.Lamp{
		"STREAM": stream(b),
		"TALLY":  tally(b.Tally),
	}
	if identify {
		for name := range lamps {
			lamps[name] = status.Lamp{Pattern: Blink, Reason: "identify"}
		}
	}
	return lamps
}

// stream is solid only when every output that is on is confirmed by its far
// side, and the pictures that go there are coded: a light that says "on air"
// must not be wrong, and sound alone keeps a destination content.
func stream(b status.Box) status.Lamp {
	worst := status.Lamp{Pattern: Off, Reason: "nothing is on air"}
	rank := map[string]int{Off: 0, On: 1, Pulse: 2, Blink: 3}
	for _, o := range b.Outputs {
		if l := output(o, b); rank[l.Pattern] > rank[worst.Pattern] {
			worst = l
		}
	}
	return worst
}

func output(o status.Output, b status.Box) status.Lamp {
	switch o.State {
	case status.Live:
		if why := dark(o, b); why != "" {
			return status.Lamp{Pattern: Blink, Reason: why}
		}
		return status.Lamp{Pattern: On, Reason: "on air"}
	case status.Starting:
		return status.Lamp{Pattern: Pulse, Reason: "connecting to " + o.Name}
	case status.Unconfirmed:
		return status.Lamp{Pattern: Pulse, Reason: o.Name + " has not confirmed yet"}
	case status.Backoff:
		return status.Lamp{Pattern: Blink, Reason: fmt.Sprintf("%s is unreachable, attempt %d", o.Name, o.Attempt)}
	case status.Failed:
		return status.Lamp{Pattern: Blink, Reason: o.Name + " refuses the stream"}
	default:
		return status.Lamp{Pattern: Off, Reason: o.Name + " is off"}
	}
}

// dark says why no pictures go to an output, or returns "".
func dark(o status.Output, b status.Box) string {
	i := slices.IndexFunc(b.Renditions, func(r status.Rendition) bool { return r.Name == o.Rendition })
	switch {
	case i >= 0 && b.Renditions[i].State != status.Live:
		return fmt.Sprintf("no pictures of %s are coded", o.Rendition)
	case b.State == status.Broken:
		return "the box has a fault"
	default:
		return ""
	}
}

func tally(t status.Tally) status.Lamp {
	switch t.State {
	case "program":
		return status.Lamp{Pattern: On, Reason: "on program"}
	case "unknown":
		return status.Lamp{Pattern: Blink, Reason: "the switcher is silent"}
	default:
		return status.Lamp{Pattern: Off, Reason: "not on program"}
	}
}
