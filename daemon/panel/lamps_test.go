package panel

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/hw"
)

var (
	noon  = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	shown = func() map[string]Role {
		all := map[string]Role{}
		for _, r := range Roles() {
			all[string(r)] = r
		}
		return all
	}()
)

// show is a box in the middle of a show, changed.
func show(changes ...func(*status.Box)) status.Box {
	b := status.Box{
		State: status.Live, Input: status.Input{Signal: true},
		Renditions: []status.Rendition{{Name: "main", State: status.Live}, {Name: "sub", State: status.Live}},
		Outputs: []status.Output{
			{Name: "youtube", Rendition: "main", State: status.Live, Required: true},
			{Name: "archive", Rendition: "sub", State: status.Live},
		},
		Record: status.Record{State: status.Off},
	}
	for _, change := range changes {
		change(&b)
	}
	return b
}

func fault(codes ...status.FaultCode) func(*status.Box) {
	return func(b *status.Box) {
		for _, code := range codes {
			b.Faults = append(b.Faults, status.NewFault(code, "", noon))
		}
	}
}

// outputs sets the states of youtube, which is required, and archive.
func outputs(youtube, archive string) func(*status.Box) {
	return func(b *status.Box) { b.Outputs[0].State, b.Outputs[1].State = youtube, archive }
}

func coded(main, sub string) func(*status.Box) {
	return func(b *status.Box) { b.Renditions[0].State, b.Renditions[1].State = main, sub }
}

func optional(b *status.Box) { b.Outputs[0].Required = false }

func broken(b *status.Box) { b.State = status.Broken }

func held4(order string) func(*status.Box) {
	return func(b *status.Box) { b.Keys = map[string]status.Key{"STREAM": {Down: true, Holding: order}} }
}

func armed4(order string, down bool) func(*status.Box) {
	return func(b *status.Box) { b.Keys = map[string]status.Key{"STREAM": {Down: down, Armed: order}} }
}

func TestTheStreamLamp(t *testing.T) {
	retry := func(b *status.Box) { b.Outputs[0].Attempt = 3 }
	tests := []struct {
		name          string
		box           status.Box
		light, reason string
	}{
		{"nothing at all", status.Box{}, "off", "nothing is on air"},
		{"idle", show(outputs(status.Off, status.Off)), "off", "nothing is on air"},
		{"idle without a camera", show(outputs(status.Off, status.Off), func(b *status.Box) { b.Input.Signal = false }), "off", "nothing is on air"},
		{"idle without network", show(outputs(status.Off, status.Off), fault(status.NoNetwork)), "off", "nothing is on air"},
		{"idle and hot", show(outputs(status.Off, status.Off), fault(status.TooHot)), "amber blink 6", "the box is too hot"},
		{"on air", show(), "red", "on air: youtube"},
		{"on air to all, none required", show(optional), "red", "on air: youtube, archive"},
		{"on air, an optional one is off on purpose", show(outputs(status.Live, status.Off)), "red", "on air: youtube"},
		{"none required, one off on purpose", show(optional, outputs(status.Live, status.Off)), "red", "on air: youtube"},

		{"connecting", show(outputs(status.Starting, status.Off), retry), "amber pulse", "connecting to youtube, attempt 3"},
		{"sent, not confirmed", show(outputs(status.Unconfirmed, status.Live)), "amber pulse", "youtube has not confirmed yet"},
		{"a state that nobody knows", show(outputs("paused", status.Live)), "amber pulse", "youtube is paused"},
		{"one of two, none required", show(optional, outputs(status.Live, status.Unconfirmed)), "amber pulse", "archive has not confirmed yet"},
		{"the encoder hangs", show(coded(status.Recovering, status.Live)), "amber pulse", "no pictures of main are coded"},
		{"the encoder starts again", show(coded(status.Starting, status.Live)), "amber pulse", "no pictures of main are coded"},

		{"no picture, on air", show(func(b *status.Box) { b.Input.Signal = false }), "amber blink 1", "no picture comes in"},
		{"no picture, connecting", show(outputs(status.Starting, status.Off), func(b *status.Box) { b.Input.Signal = false }), "amber blink 1", "no picture comes in"},
		{"no network", show(outputs(status.Backoff, status.Backoff), fault(status.NoNetwork)), "amber blink 2", "no network"},
		{"refused", show(outputs(status.Failed, status.Live), broken), "amber blink 3", "youtube refuses the stream"},
		{"refused, and another is away", show(optional, outputs(status.Backoff, status.Failed)), "amber blink 3", "archive refuses the stream"},
		{"unreachable", show(outputs(status.Backoff, status.Live), retry), "amber blink 4", "youtube is unreachable, attempt 3"},
		{"unreachable, nothing required is wanted", show(outputs(status.Off, status.Backoff)), "amber blink 4", "archive is unreachable"},
		{"recording to a full medium", show(fault(status.StorageLow), func(b *status.Box) { b.Record.State = status.Recording }), "amber blink 5", "storage is almost full"},
		{"recording to a slow medium", show(func(b *status.Box) { b.Record.State = status.Slow }), "amber blink 5", "recording, but the storage is too slow"},
		{"recording fails", show(func(b *status.Box) { b.Record = status.Record{State: status.Failed, Error: "disk is gone"} }), "amber blink 5", "it cannot record: disk is gone"},
		{"nothing is coded for the recording, which is of another rendition", show(fault(status.RecordUncoded), func(b *status.Box) { b.Record = status.Record{State: status.Failed, Uncoded: true} }), "red", "on air: youtube"},
		{"the end of a recording is missing", show(func(b *status.Box) { b.Record.Error = "the end is missing" }), "red", "on air: youtube"},
		{"weak power", show(func(b *status.Box) { b.Power.UnderVoltage = true }), "amber blink 6", "the power is too weak"},
		{"weak power, as a fault", show(fault(status.UnderVoltage)), "amber blink 6", "the power is too weak"},
		{"encoder failed", show(coded(status.Backoff, status.Live), broken), "amber blink 6", "no pictures of main are coded"},
		{"encoder gone", show(func(b *status.Box) { b.Renditions = nil }), "amber blink 6", "no pictures of main are coded: there is no such rendition"},
		{"something hangs", show(broken), "amber blink 6", "the box has a fault"},

		{"an optional one is away", show(outputs(status.Live, status.Backoff)), "amber occulting", "on air to 1 of 2, but archive is unreachable"},
		{"an optional one refuses", show(outputs(status.Live, status.Failed)), "amber occulting", "on air to 1 of 2, but archive refuses the stream"},
		{"an optional one connects", show(outputs(status.Live, status.Starting)), "amber occulting", "on air to 1 of 2, but connecting to archive"},
		{"pictures for the optional one are not coded", show(coded(status.Live, status.Backoff)), "amber occulting", "on air to 1 of 2, but no pictures of sub are coded"},
		{"the required one is off", show(outputs(status.Off, status.Live)), "amber occulting", "on air to 1 of 1, but youtube is off"},
		{"no sound", show(fault(status.NoSound)), "amber occulting", "on air, but no sound comes in"},
		{"silent sound", show(fault(status.SilentSound)), "amber occulting", "on air, but the sound is silent"},
		{"little storage, nothing recorded", show(fault(status.StorageLow)), "red", "on air: youtube"},
		{"faults that viewers do not notice", show(fault(status.EncoderFallback, status.TallyLost, status.KeyStuck, status.ServerFailed)), "red", "on air: youtube"},

		{"stopped, time to think again", show(func(b *status.Box) { at := noon.Add(13500 * time.Millisecond); b.Ending = &at }), "amber long-short", "press STREAM within 14 s to go on"},
		{"stopped, time is over", show(func(b *status.Box) { b.Ending = &noon }), "amber long-short", "the show ends"},
		{"held", show(held4("stream.stop grace=20s")), "amber fast", "keep holding to stop"},
		{"held within the time to think again", show(held4("stream.stop grace=20s"), func(b *status.Box) { b.Ending = &noon }), "amber double", "let go to go on; keep holding to stop now"},
		{"held to the end within the time to think again", show(held4(""), func(b *status.Box) { b.Ending = &noon }), "amber long-short", "the show ends"},
		{"held for something else within the time to think again", show(held4("output.start name=x"), func(b *status.Box) { b.Ending = &noon }), "amber fast", "keep holding for output.start name=x"},
		{"held while there is nothing to stop", show(outputs(status.Off, status.Off), held4("stream.stop")), "off", "nothing is on air"},
		{"held for something else", show(outputs(status.Off, status.Off), held4("output.start name=x")), "amber fast", "keep holding for output.start name=x"},
		{"another key held", show(held4("record.stop")), "red", "on air: youtube"},
		{"a key without a lamp held", show(outputs(status.Off, status.Off), held4("ptz.home")), "amber fast", "keep holding for ptz.home"},
		{"held to be confirmed", show(armed4("stream.stop", true)), "amber long-short-short", "let go of STREAM, then press it once for stream.stop"},
		{"to be confirmed", show(armed4("stream.stop", false)), "amber long-short-short", "press STREAM once for stream.stop"},
		{"to be confirmed in the time to think again", show(armed4("stream.stop", false), func(b *status.Box) { b.Ending = &noon }), "amber long-short-short", "press STREAM once for stream.stop"},
		{"a key without a lamp to be confirmed", show(armed4("box.restart", false), func(b *status.Box) { b.Identify = true }), "amber long-short-short", "press STREAM once for box.restart"},
		{"another lamp's key to be confirmed", show(armed4("record.stop", false)), "red", "on air: youtube"},
		{"a reset to be confirmed", show(armed4("network.reset", false)), "red", "on air: youtube"},
		{"identify", show(func(b *status.Box) { b.Identify = true }), "white call", "here is the box"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Lamps(tt.box, shown, noon)[string(RoleStream)]
			if got.Pattern != tt.light || got.Reason != tt.reason {
				t.Errorf("got %q, %q, want %q, %q", got.Pattern, got.Reason, tt.light, tt.reason)
			}
		})
	}
}

func TestTheOtherLamps(t *testing.T) {
	key := func(k status.Key) status.Box { return status.Box{Keys: map[string]status.Key{"RESET": k}} }
	record := func(state string, more ...func(*status.Box)) status.Box {
		return show(append(more, func(b *status.Box) { b.Record.State = state })...)
	}
	disk := func(free, total uint64) func(*status.Box) {
		return func(b *status.Box) { b.Record.FreeBytes, b.Record.TotalBytes = free, total }
	}
	why := func(err string) func(*status.Box) { return func(b *status.Box) { b.Record.Error = err } }
	uncodedFor := func(err string) func(*status.Box) {
		return func(b *status.Box) { b.Record.Error, b.Record.Uncoded = err, true }
	}
	tally := func(state string) status.Box { return status.Box{Tally: status.Tally{State: state}} }
	tests := []struct {
		name          string
		role          Role
		box           status.Box
		light, reason string
	}{
		{"not recording", RoleRecord, show(), "off", "nothing is recorded"},
		{"begins to record", RoleRecord, record(status.Starting), "amber pulse", "the recording begins"},
		{"recording", RoleRecord, record(status.Recording, disk(15e9, 100e9)), "red", "recording"},
		{"recording to a stick while the box's own disk is full", RoleRecord, record(status.Recording, disk(90e9, 100e9), func(b *status.Box) { b.Storage = status.Storage{FreeBytes: 1, TotalBytes: 100e9} }), "red", "recording"},
		{"recording, little space", RoleRecord, record(status.Recording, disk(14.9e9, 100e9)), "amber occulting", "recording, but only 14.9 GB are free"},
		{"recording, hardly any space", RoleRecord, record(status.Recording, fault(status.StorageLow)), "amber occulting", "recording, but storage is almost full"},
		{"recording slowly", RoleRecord, record(status.Slow), "amber occulting", "recording, but the storage is too slow"},
		{"recording failed", RoleRecord, record(status.Failed), "amber blink 5", "it cannot record"},
		{"nothing is coded for the recording", RoleRecord, record(status.Failed, uncodedFor("no pictures of main are coded: busy")), "amber blink 6", "nothing is recorded: no pictures of main are coded: busy"},
		{"waits for an encoder that hangs", RoleRecord, record(status.Starting, why("no pictures of main are coded: it hangs")), "amber pulse", "no pictures of main are coded: it hangs"},
		{"the end of a recording is missing", RoleRecord, record(status.Off, why("the end is missing")), "amber blink 5", "the end is missing"},
		{"REC held after a missing end", RoleRecord, record(status.Off, why("the end is missing"), held4("record.stop")), "amber fast", "keep holding to stop"},
		{"no space to record", RoleRecord, show(fault(status.StorageLow)), "amber blink 5", "storage is almost full"},
		{"REC held", RoleRecord, record(status.Recording, held4("record.stop")), "amber fast", "keep holding to stop"},
		{"REC held while nothing is recorded", RoleRecord, show(held4("record.stop")), "off", "nothing is recorded"},

		{"REC to be confirmed", RoleRecord, record(status.Recording, armed4("record.stop", false)), "amber long-short-short", "press STREAM once for record.stop"},
		{"MUTE held", RoleMute, show(held4("audio.mute")), "amber fast", "keep holding for audio.mute"},
		{"MUTE to be confirmed", RoleMute, show(armed4("audio.mute", true)), "amber long-short-short", "let go of STREAM, then press it once for audio.mute"},
		{"another lamp's key held", RoleMute, show(held4("stream.stop")), "off", "not muted"},
		{"muted", RoleMute, show(fault(status.NoSound), func(b *status.Box) { b.Sound.Muted = true }), "red", "muted"},
		{"no sound", RoleMute, show(fault(status.NoSound)), "amber pulse", "no sound comes in"},
		{"silent", RoleMute, show(fault(status.SilentSound)), "amber pulse", "the sound is silent"},
		{"sound", RoleMute, show(), "off", "not muted"},

		{"program", RoleTally, tally(status.Program), "red", "on program"},
		{"preview", RoleTally, tally(status.Preview), "green pulse", "on preview"},
		{"unknown", RoleTally, tally(status.Unknown), "blue double", "a switcher is silent"},
		{"tally off", RoleTally, tally(status.Off), "off", "not on program"},
		{"the tally's own reason", RoleTally, status.Box{Tally: status.Tally{State: status.Program, Reason: "atem says program"}}, "red", "atem says program"},
		{"identify leaves the tally alone", RoleTally, status.Box{Identify: true, Tally: status.Tally{State: status.Program}}, "red", "on program"},
		{"stage, program", RoleStage, tally(status.Program), "red", "on program"},
		{"stage, preview", RoleStage, tally(status.Preview), "green pulse", "on preview"},
		{"stage, unknown", RoleStage, tally(status.Unknown), "off", "not known to be on program"},
		{"stage, identify", RoleStage, status.Box{Identify: true}, "off", "not known to be on program"},

		{"RESET down", RoleReset, key(status.Key{Down: true, Holding: "network.reset"}), "amber occulting", "keep holding for network.reset"},
		{"RESET 5 s", RoleReset, key(status.Key{Down: true, Holding: "factory.reset", Armed: "network.reset"}), "white", "let go of RESET, then press it once for network.reset"},
		{"RESET 10 s", RoleReset, key(status.Key{Down: true, Armed: "factory.reset"}), "red fast", "let go of RESET, then press it once for factory.reset"},
		{"network reset armed", RoleReset, key(status.Key{Armed: "network.reset"}), "white pulse", "press RESET once for network.reset"},
		{"factory reset armed", RoleReset, key(status.Key{Armed: "factory.reset"}), "red double", "press RESET once for factory.reset"},
		{"network reset being confirmed", RoleReset, key(status.Key{Down: true, Holding: "network.reset", Armed: "network.reset"}), "white pulse", "press RESET once for network.reset"},
		{"factory reset being confirmed", RoleReset, key(status.Key{Down: true, Holding: "network.reset", Armed: "factory.reset"}), "red double", "press RESET once for factory.reset"},
		{"a key that is no reset held long enough", RoleReset, key(status.Key{Down: true, Armed: "stream.stop"}), "off", "no reset is asked for"},
		{"a key that is no reset armed", RoleReset, key(status.Key{Armed: "stream.stop grace=20s"}), "off", "no reset is asked for"},
		{"a reset armed beside another key", RoleReset, status.Box{Keys: map[string]status.Key{"A": {Armed: "stream.stop"}, "RESET": {Armed: "factory.reset"}}}, "red double", "press RESET once for factory.reset"},
		{"identify hides no reset that waits", RoleReset, status.Box{Identify: true, Keys: map[string]status.Key{"RESET": {Armed: "factory.reset"}}}, "red double", "press RESET once for factory.reset"},
		{"identify hides no reset that was held for", RoleReset, status.Box{Identify: true, Keys: map[string]status.Key{"RESET": {Down: true, Armed: "network.reset"}}}, "white", "let go of RESET, then press it once for network.reset"},
		{"identify", RoleReset, status.Box{Identify: true, Keys: map[string]status.Key{"RESET": {Down: true, Holding: "network.reset"}}}, "white call", "here is the box"},
		{"RESET up", RoleReset, key(status.Key{}), "off", "no reset is asked for"},

		{"contact: on preview", RolePreview, tally(status.Preview), "green", "on preview"},
		{"contact: not on preview", RolePreview, tally(status.Unknown), "off", "not known to be on preview"},
		{"contact: on air", RoleLive, show(fault(status.NoSound)), "red", "on air: youtube"},
		{"contact: not on air", RoleLive, show(outputs(status.Unconfirmed, status.Live)), "off", "not everything that is required is on air"},
		{"contact: recording slowly", RoleRecording, record(status.Slow), "red", "recording"},
		{"contact: a fault", RoleFault, show(fault(status.StorageLow, status.NoSound)), "amber", "no sound comes in"},
		{"contact: a fault without a name", RoleFault, show(broken), "amber", "the box has a fault"},
		{"contact: a fault that nobody notices", RoleFault, show(fault(status.StorageLow)), "off", "no fault that viewers notice"},
		{"a role that nobody knows", "disco", show(), "off", "it is for nothing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Lamps(tt.box, map[string]Role{"X": tt.role}, noon)["X"]
			if got.Pattern != tt.light || got.Reason != tt.reason {
				t.Errorf("got %q, %q, want %q, %q", got.Pattern, got.Reason, tt.light, tt.reason)
			}
		})
	}
}

// Who cannot tell the colors apart, or has a lamp of one color, sees the same.
func TestNoLightNeedsColors(t *testing.T) {
	seen := map[Role]map[string]row{}
	for _, r := range rows {
		if seen[r.role] == nil {
			seen[r.role] = map[string]row{}
		}
		looks := strip(r.pattern, noon)
		if other, twice := seen[r.role][looks]; twice {
			t.Errorf("%s: %q and %q differ in color only, if at all", r.role, r.pattern, other.pattern)
		}
		seen[r.role][looks] = r
		if r.role.Contact() && r.pattern.Rhythm != Steady {
			t.Errorf("%s is a contact and blinks", r.role)
		}
		if r.means == "" {
			t.Errorf("%s, %v: no meaning", r.role, r.pattern)
		}
	}
	for _, role := range Roles() {
		i := slices.IndexFunc(rows, func(r row) bool { return r.role == role && r.pattern == Pattern{} })
		if i < 0 {
			t.Fatalf("%s has no darkness", role)
		}
		if _, ok := rows[i].when(status.Box{}, noon); !ok {
			t.Errorf("%s is not dark when nothing else fits", role)
		}
	}
}

// chance makes boxes of all kinds, also such as never come.
type chance struct{ *rand.Rand }

func pick[T any](c chance, of ...T) T { return of[c.IntN(len(of))] }

func (c chance) box() status.Box {
	states := []string{status.Off, status.Starting, status.Unconfirmed, status.Live, status.Live, status.Live, status.Live, status.Backoff, status.Failed, "", "odd"}
	b := status.Box{
		State:    pick(c, status.Off, status.Starting, status.Live, status.Live, status.Degraded, status.Broken),
		Input:    status.Input{Signal: c.IntN(4) > 0},
		Sound:    status.Sound{Muted: c.IntN(4) == 0},
		Tally:    status.Tally{State: pick(c, "", status.Off, status.Preview, status.Program, status.Unknown, "odd"), Reason: pick(c, "", "atem says so")},
		Record:   status.Record{State: pick(c, "", status.Off, status.Starting, status.Recording, status.Slow, status.Failed)},
		Identify: c.IntN(10) == 0,
		Power:    status.Power{UnderVoltage: c.IntN(10) == 0},
	}
	b.Record.TotalBytes, b.Record.FreeBytes = 100, c.Uint64N(100)
	b.Record.Error, b.Record.Uncoded = pick(c, "", "", "it is so"), c.IntN(4) == 0
	for _, name := range []string{"main", "sub"} {
		if c.IntN(10) > 0 {
			b.Renditions = append(b.Renditions, status.Rendition{Name: name, State: pick(c, append(states, status.Recovering, status.Live, status.Live, status.Live, status.Live)...)})
		}
	}
	for i := range c.IntN(4) {
		b.Outputs = append(b.Outputs, status.Output{
			Name: fmt.Sprint("out", i), State: pick(c, states...), Required: c.IntN(2) == 0,
			Rendition: pick(c, "main", "main", "main", "sub", "none"), Attempt: c.IntN(3),
		})
	}
	for code := range status.FaultTable {
		if c.IntN(40) == 0 {
			b.Faults = append(b.Faults, status.NewFault(code, "", noon))
		}
	}
	if c.IntN(6) == 0 {
		at := noon.Add(time.Duration(c.IntN(40)-10) * time.Second)
		b.Ending = &at
	}
	if c.IntN(4) == 0 {
		orders := []string{"", "", "stream.stop grace=20s", "stream.start", "record.stop", "audio.mute", "network.reset", "factory.reset", "x"}
		b.Keys = map[string]status.Key{"A": {Down: c.IntN(2) == 0, Holding: pick(c, orders...), Armed: pick(c, orders...)}, "B": {Holding: pick(c, orders...)}}
	}
	return b
}

// confirmed says it anew and in another way than the code: may a light say that
// this box is on air?
func confirmed(b status.Box) bool {
	live := map[bool]int{} // by whether they are required
	for _, o := range b.Outputs {
		coded := slices.ContainsFunc(b.Renditions, func(r status.Rendition) bool { return r.Name == o.Rendition && r.State == status.Live })
		if o.State == status.Live && coded {
			live[o.Required]++
		}
	}
	required := slices.DeleteFunc(slices.Clone(b.Outputs), func(o status.Output) bool { return !o.Required })
	on := slices.DeleteFunc(slices.Clone(b.Outputs), func(o status.Output) bool { return o.State == status.Off })
	if b.Ending != nil {
		return false
	}
	if len(required) > 0 {
		return live[true] == len(required)
	}
	return live[false] > 0 && live[false] == len(on)
}

// A wrong light is the worst fault: what must never be, over many boxes.
func TestLightsNeverLie(t *testing.T) {
	c := chance{rand.New(rand.NewPCG(1, 2))}
	seen := map[string]int{}
	for range 50_000 {
		b := c.box()
		lamps := Lamps(b, shown, noon)
		wrong := func(format string, args ...any) { t.Helper(); t.Fatalf(format+"\n%+v\n%+v", append(args, b, lamps)...) }
		for role, l := range lamps {
			seen[role+": "+l.Pattern]++
			if l.Reason == "" || strings.Contains(l.Reason, "%!") {
				wrong("%s is %s without a reason: %q", role, l.Pattern, l.Reason)
			}
			if _, err := ParsePattern(l.Pattern); err != nil {
				wrong("%s: %v", role, err)
			}
		}
		steady := func(r Role) bool {
			p, _ := ParsePattern(lamps[string(r)].Pattern)
			return p.Color != hw.Dark && p.Rhythm == Steady
		}
		red := func(r Role) bool { p, _ := ParsePattern(lamps[string(r)].Pattern); return p.Color&hw.Red != 0 }
		lit := func(r Role) bool { return lamps[string(r)].Pattern != "off" }
		program, preview := b.Tally.State == status.Program, b.Tally.State == status.Preview
		switch {
		case steady(RoleStream) && !confirmed(b):
			wrong("the stream lamp says on air")
		case lit(RoleLive) && (!confirmed(b) || b.State == status.Broken):
			wrong("the contact says on air")
		case red(RoleTally) != program, red(RoleStage) != program, lit(RoleProgram) != program:
			wrong("program is shown wrongly")
		case lit(RoleStage) != (program || preview), lit(RolePreview) != preview:
			wrong("preview is shown wrongly")
		case steady(RoleRecord) && b.Record.State != status.Recording:
			wrong("the record lamp says recording")
		case lit(RoleRecording) != (b.Record.State == status.Recording || b.Record.State == status.Slow):
			wrong("the contact says recording")
		case steady(RoleMute) && !b.Sound.Muted:
			wrong("the mute lamp says muted")
		}
	}
	for _, r := range rows { // the boxes reached every row
		if seen[string(r.role)+": "+r.pattern.String()] == 0 {
			t.Errorf("never seen: %s %v", r.role, r.pattern)
		}
	}
}

func TestDefaultLampsHaveRoles(t *testing.T) {
	for name, l := range Lamps(show(), DefaultLamps(), noon) {
		if l.Reason == "it is for nothing" {
			t.Errorf("%s is for nothing", name)
		}
	}
}
