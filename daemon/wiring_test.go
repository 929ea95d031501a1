package daemon

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"encoderd.example/daemon/panel"
	"encoderd.example/daemon/status"
	"encoderd.example/daemon/tally"
	"encoderd.example/hw"
	"encoderd.example/hw/sim"
)

// face is a board with two keys and two lamps.
func face() hw.Board {
	return hw.Board{
		Keys:  []hw.KeyWire{{Name: "STREAM", Pin: "gpio:A", ActiveLow: true}, {Name: "MUTE", Pin: "gpio:B"}},
		Lamps: []hw.LampWire{{Name: "STREAM", Pin: "gpio:C"}, {Name: "HALL", Pin: "gpio:D"}},
	}
}

func TestAConfigWiresOverAndBesideTheBoard(t *testing.T) {
	w := wire(parse(t, `
[panel]
stuck = "45s"
[[key]]
name = "STREAM"
hold_time = "4s"
[[key]]
name = "MUTE"
pin = "gpio:M"
active = "high"
pull = "down"
debounce = "20ms"
press = "audio.mute"
double = "audio.unmute"
[[key]]
name = "EXTRA"
pin = "gpio:E"
press = "output.start name=\"Main hall\""
[[lamp]]
name = "HALL"
shows = "fault"
[[lamp]]
name = "STAGE"
red = "gpio:R"
green = "led:g"
active = "low"
[[tally]]
name = "desk"
protocol = "contact"
address = "gpio:T"
says = "preview"
`), face())
	want := wiring{
		keys: []hw.KeyWire{
			{Name: "STREAM", Pin: "gpio:A", ActiveLow: true},
			{Name: "MUTE", Pin: "gpio:M", Pull: hw.PullDown, Debounce: 20 * time.Millisecond},
			{Name: "EXTRA", Pin: "gpio:E", ActiveLow: true, Debounce: 5 * time.Millisecond},
			{Name: "tally/desk", Pin: "gpio:T", ActiveLow: true, Debounce: 5 * time.Millisecond},
		},
		lamps: []hw.LampWire{
			{Name: "STREAM", Pin: "gpio:C"},
			{Name: "HALL", Pin: "gpio:D"},
			{Name: "STAGE", Red: "gpio:R", Green: "led:g", ActiveLow: true},
		},
		roles: map[string]panel.Role{"STREAM": panel.RoleStream, "HALL": panel.RoleFault, "STAGE": panel.RoleStage},
		says:  map[string]tally.Source{"tally/desk": {Name: "desk", Protocol: "contact", Address: "gpio:T", Input: "preview", Rule: "low"}},
	}
	times := panel.KeyMap{DoubleTime: 400 * time.Millisecond, ConfirmTime: 5 * time.Second, StuckTime: 45 * time.Second}
	stream, mute, extra := times, times, times
	stream.Name, stream.Press = "STREAM", panel.Order{Action: "stream.start"}
	stream.Hold, stream.HoldTime = panel.Order{Action: "stream.stop", Args: map[string]string{"grace": "20s"}}, 4*time.Second
	mute.Name, mute.Press, mute.Double = "MUTE", panel.Order{Action: "audio.mute"}, panel.Order{Action: "audio.unmute"}
	extra.Name, extra.Press = "EXTRA", panel.Order{Action: "output.start", Args: map[string]string{"name": "Main hall"}}
	want.maps = []panel.KeyMap{stream, mute, extra}
	if diff := cmp.Diff(want, w, cmp.AllowUnexported(wiring{})); diff != "" {
		t.Errorf("- want, + got:\n%s", diff)
	}
	if again := wire(parse(t, ``), face()); again.text() == w.text() {
		t.Error("another wiring has the same text")
	}
}

// Config keeps a list of its own, for it may not import the panel's.
func TestAConfigTakesWhateverALampCanShow(t *testing.T) {
	for _, r := range panel.Roles() {
		w := wire(parse(t, "[[lamp]]\nname = \"X\"\npin = \"gpio:X\"\nshows = \""+string(r)+"\"\n"), hw.Board{})
		if w.roles["X"] != r {
			t.Errorf("%s: the lamp shows %q", r, w.roles["X"])
		}
	}
}

func TestABoxWithoutLampsTellsOfThemAnyway(t *testing.T) {
	w := wire(parse(t, ``), hw.Board{})
	if len(w.lamps) > 0 || w.roles["STREAM"] != panel.RoleStream || w.roles["TALLY"] != panel.RoleTally {
		t.Errorf("%+v", w)
	}
}

func TestSwitchersAreCalledOnceEach(t *testing.T) {
	const obs = "protocol = \"obs\"\naddress = \"ws://10.0.0.5:4455\"\n"
	c := parse(t, "[[tally]]\nname = \"a\"\ninput = \"1\"\ntimeout = \"20s\"\n"+obs+
		"[[tally]]\nname = \"b\"\ninput = \"2\"\npassword = \"p\"\ntimeout = \"5s\"\n"+obs+
		"[[tally]]\nname = \"c\"\ninput = \"3\"\nprotocol = \"tsl3.1\"\naddress = \"udp://:8900\"\n"+
		"[[tally]]\nname = \"d\"\nprotocol = \"contact\"\naddress = \"gpio:T\"\n")
	list := switchers(c)
	if len(list) != 2 || len(list[0].tallies) != 2 || list[0].timeout != 5*time.Second || list[0].password.Reveal() != "p" || list[1].name != "c" {
		t.Errorf("%+v", list)
	}
	for _, s := range list {
		if l, err := newLink(s); err != nil || l == nil {
			t.Errorf("%s: %v", s.key, err)
		}
	}
	want := []tally.Source{
		{Name: "a", Protocol: "obs", Address: "ws://10.0.0.5:4455", Input: "1", Timeout: 20 * time.Second},
		{Name: "b", Protocol: "obs", Address: "ws://10.0.0.5:4455", Input: "2", Timeout: 5 * time.Second},
		{Name: "c", Protocol: "tsl3.1", Address: "udp://:8900", Input: "3", Rule: "preview 1, program 2", Timeout: 10 * time.Second},
		{Name: "d", Protocol: "contact", Address: "gpio:T", Input: "program", Rule: "low"},
	}
	if diff := cmp.Diff(want, sources(c.Tallies)); diff != "" {
		t.Errorf("- want, + got:\n%s", diff)
	}
}

func TestOrdersAreCheckedBeforeAnybodyPresses(t *testing.T) {
	for order, wrong := range map[string]string{
		"stream.stop grace=20s":   "",
		"output.start name=hall":  "",
		"ptz.preset recall=3":     "",
		"ptz.move pan=-0.5":       "",
		"stream.stop grace=soon":  "grace is a time",
		"output.start":            "needs name",
		"stream.start now=yes":    "takes no",
		"stream.strat":            "no such action",
		"ptz.preset":              "recall=N or store=N",
		"ptz.preset recall=200":   "out of range",
		"ptz.zoom speed=fast":     "number",
		"stream.start grace=\"20": "",
	} {
		err := CheckOrder(order)
		if order == "stream.start grace=\"20" {
			if err == nil {
				t.Errorf("%s: accepted", order)
			}
			continue
		}
		if wrong == "" && err != nil || wrong != "" && (err == nil || !strings.Contains(err.Error(), wrong)) {
			t.Errorf("%s: %v, want %q", order, err, wrong)
		}
	}
	for _, m := range panel.DefaultKeys() {
		for _, o := range []panel.Order{m.Press, m.Hold, m.Long} {
			if err := CheckOrder(o.String()); o.Action != "" && err != nil {
				t.Errorf("%s: %v", m.Name, err)
			}
		}
	}
	i, err := CheckKeys(parse(t, "[[key]]\nname = \"A\"\npin = \"gpio:A\"\npress = \"stream.start\"\n[[key]]\nname = \"B\"\npin = \"gpio:B\"\nhold = \"stream.stop\"\nhold_time = \"40s\"\n"))
	if i != 1 || err == nil {
		t.Errorf("a hold longer than a stuck key: %d, %v", i, err)
	}
}

func TestAContactThatMeansAnotherThingIsReadAnew(t *testing.T) {
	const desk = "[[tally]]\nname = \"desk\"\nprotocol = \"contact\"\naddress = \"sim:DESK\"\n"
	inBox(t, small+desk, nil, func(r *rig) {
		r.until("the contact to be read", func(b status.Box) bool { return b.Tally.State == status.Off })
		if err := r.board.Panel.Move("DESK", true); err != nil {
			t.Fatal(err)
		}
		r.until("program", func(b status.Box) bool { return b.Tally.State == status.Program })
		r.apply(small + desk + "says = \"preview\"\n")
		r.until("preview", func(b status.Box) bool { return b.Tally.State == status.Preview })
	})
}

// A contact that closes is program at once, and unknown when its line is lost.
func TestAContactIsTally(t *testing.T) {
	const desk = "[[tally]]\nname = \"desk\"\nprotocol = \"contact\"\naddress = \"sim:DESK\"\n" +
		"[[lamp]]\nname = \"RELAY\"\npin = \"sim:RELAY\"\nshows = \"program\"\n"
	inBox(t, small+desk, nil, func(r *rig) {
		r.until("the contact to be read", func(b status.Box) bool { return b.Tally.State == status.Off })
		move := func(closed bool) {
			if err := r.board.Panel.Move("DESK", closed); err != nil {
				t.Fatal(err)
			}
		}
		move(true)
		b := r.until("program", func(b status.Box) bool { return b.Tally.State == status.Program })
		if s := b.Tally.Sources; len(s) != 1 || s[0].Name != "desk" || s[0].Input != "program" || b.Lamps["STAGE"].Pattern != "red" || b.Lamps["RELAY"].Pattern != "red" {
			t.Errorf("sources %+v, lamps %+v", s, b.Lamps)
		}
		for _, lamp := range []string{sim.LampTally, sim.LampStage, "RELAY"} {
			if err := r.board.Panel.WaitLit(r.t.Context(), lamp, true); err != nil {
				t.Errorf("%s: %v", lamp, err)
			}
		}
		move(false)
		r.until("off again", func(b status.Box) bool { return b.Tally.State == status.Off && b.Lamps["RELAY"].Pattern == "off" })
	})
}
