package daemon

import (
	"testing"
	"time"

	"encoderd.example/daemon/supervise"
)

// onAir is a daemon that does not run, with outputs that are live.
func onAir(t *testing.T, names ...string) *Daemon {
	t.Helper()
	d := testDaemon(t)
	doc := ""
	for _, n := range names {
		doc += "[[output]]\nname = \"" + n + "\"\nurl = \"rtmp://a.example.org/live\"\nkey = \"k\"\n"
	}
	d.config = parse(t, doc)
	caller{d, t}.order("stream.start", "")
	for _, n := range names {
		d.noteService("push/"+n, supervise.Status{State: supervise.Live})
	}
	return d
}

// A caller orders things of a daemon.
type caller struct {
	*Daemon
	t *testing.T
}

func (c caller) order(action, name string, more ...string) {
	c.t.Helper()
	args := map[string]string{}
	if name != "" {
		args["name"] = name
	}
	for _, g := range more {
		args["grace"] = g
	}
	if err := c.Do(c.t.Context(), action, args, "test"); err != nil {
		c.t.Fatal(err)
	}
}

// runs says which outputs run now, behind the still or not.
func (d *Daemon) runs() (outputs string, still bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, o := range d.config.Outputs {
		if d.wanted.on(o) || d.grace.outputs[o.Name] {
			outputs += o.Name
		}
	}
	_, still = d.hub.words()
	if still != d.mixer.hushed.Load() || still != (d.graceEnds() != nil) {
		outputs += ", and picture, sound and status differ"
	}
	return outputs, still
}

func TestTheHallIsNotSeenUntilNobodyLooksAnyMore(t *testing.T) {
	type step struct {
		do    func(caller)
		runs  string
		still bool
	}
	stop := func(c caller) { c.order("stream.stop", "", "20s") }
	start := func(c caller) { c.order("stream.start", "") }
	moved := func(c caller) { c.stopped(c.grace.outputs) }
	for name, steps := range map[string][]step{
		"thought over":                    {{stop, "ab", true}, {start, "ab", false}},
		"meant":                           {{stop, "ab", true}, {stop, "", true}, {moved, "", false}},
		"stopped with no time":            {{func(c caller) { c.order("stream.stop", "") }, "", false}},
		"over, then again":                {{stop, "ab", true}, {stop, "", true}, {start, "ab", false}},
		"one output stops, then the last": {{stop, "ab", true}, {func(c caller) { c.order("output.stop", "a") }, "b", true}, {func(c caller) { c.order("output.stop", "b") }, "", true}, {moved, "", false}},
		"one output goes on":              {{stop, "ab", true}, {func(c caller) { c.order("output.start", "a") }, "a", true}, {moved, "a", false}},
		"toggled twice":                   {{func(c caller) { c.order("stream.toggle", "", "20s") }, "ab", true}, {func(c caller) { c.order("stream.toggle", "", "20s") }, "ab", false}},
		"the move before the stop":        {{stop, "ab", true}, {moved, "ab", true}},
		"a fired timer comes late":        {{stop, "ab", true}, {start, "ab", false}, {stop, "ab", true}, {func(c caller) { c.graceOver() }, "ab", true}},
		"the time is over": {{stop, "ab", true}, {func(c caller) {
			c.grace.until = time.Now()
			c.graceOver()
		}, "", true}, {moved, "", false}},
		"another address": {{stop, "ab", true}, {func(c caller) {
			now := c.configNow()
			now.Outputs = append(now.Outputs[:1:1], parse(t, "[[output]]\nname = \"b\"\nurl = \"rtmp://b.example.org/live\"\nkey = \"k\"\n").Outputs...)
			c.Apply(now)
		}, "a", true}},
		"removed": {{stop, "ab", true}, {func(c caller) {
			now := c.configNow()
			now.Outputs = nil
			c.Apply(now)
		}, "", true}, {moved, "", false}},
	} {
		t.Run(name, func(t *testing.T) {
			d := onAir(t, "a", "b")
			for i, s := range steps {
				s.do(caller{d, t})
				if runs, still := d.runs(); runs != s.runs || still != s.still {
					t.Errorf("after step %d: %q runs, still %v; want %q, %v", i+1, runs, still, s.runs, s.still)
				}
			}
		})
	}
}

func TestWhatIsNotOnAirDoesNotLinger(t *testing.T) {
	d := onAir(t, "a", "b")
	d.noteService("push/b", supervise.Status{State: supervise.Backoff})
	caller{d, t}.order("stream.stop", "", "20s")
	if runs, still := d.runs(); runs != "a" || !still {
		t.Errorf("%q runs, still %v", runs, still)
	}
	d = onAir(t, "a")
	d.noteService("push/a", supervise.Status{State: supervise.Starting})
	caller{d, t}.order("stream.stop", "", "20s")
	if runs, still := d.runs(); runs != "" || still {
		t.Errorf("%q runs, still %v", runs, still)
	}
}
