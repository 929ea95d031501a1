package panel

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"encoderd.example/daemon/status"
)

// What follows answers for the rows: whether it is so, and why.

func always(reason string) func(status.Box, time.Time) (string, bool) {
	return func(status.Box, time.Time) (string, bool) { return reason, true }
}

func identify(b status.Box, _ time.Time) (string, bool) { return "here is the box", b.Identify }

// has gives the title of the first of some faults that stands.
func has(b status.Box, codes ...status.FaultCode) (string, bool) {
	for _, code := range codes {
		if b.Has(code) {
			return lower(status.FaultTable[code].Title), true
		}
	}
	return "", false
}

// lower makes a title part of a sentence.
func lower(title string) string {
	if title == "" {
		return ""
	}
	return strings.ToLower(title[:1]) + title[1:]
}

func ending(b status.Box, now time.Time) (string, bool) {
	if b.Ending == nil {
		return "", false
	}
	left := b.Ending.Sub(now)
	if left <= 0 {
		return "the show ends", true
	}
	return fmt.Sprintf("press STREAM within %.0f s to go on", math.Ceil(left.Seconds())), true
}

// wanted are the outputs that are on, and mains those of them that count most:
// the required ones, or all if none of them is.
func wanted(b status.Box) (all, mains []status.Output) {
	for _, o := range b.Outputs {
		if o.State != status.Off {
			all = append(all, o)
		}
	}
	mains = slices.DeleteFunc(slices.Clone(all), func(o status.Output) bool { return !o.Required })
	if len(mains) == 0 {
		mains = all
	}
	return all, mains
}

// mainIn finds a main output in one of some states.
func mainIn(b status.Box, states ...string) (status.Output, bool) {
	_, mains := wanted(b)
	i := slices.IndexFunc(mains, func(o status.Output) bool { return slices.Contains(states, o.State) })
	if i < 0 {
		return status.Output{}, false
	}
	return mains[i], true
}

// coding returns the state of what codes an output's pictures, "" if nothing
// does.
func coding(b status.Box, o status.Output) (state, err string) {
	for _, r := range b.Renditions {
		if r.Name == o.Rendition {
			return r.State, r.Error
		}
	}
	return "", "there is no such rendition"
}

// notCoded says why no pictures go to an output, or "". Sound alone keeps a
// destination content.
func notCoded(b status.Box, o status.Output) string {
	state, err := coding(b, o)
	if state == status.Live {
		return ""
	}
	return because(fmt.Sprintf("no pictures of %s are coded", o.Rendition), err)
}

// notThere says why an output is not on air, or "".
func notThere(b status.Box, o status.Output) string {
	switch o.State {
	case status.Live:
		return notCoded(b, o)
	case status.Off:
		return o.Name + " is off"
	case status.Starting:
		return "connecting to " + o.Name + attempt(o)
	case status.Unconfirmed:
		return o.Name + " has not confirmed yet"
	case status.Backoff:
		return o.Name + " is unreachable" + attempt(o)
	case status.Failed:
		return because(o.Name+" refuses the stream", o.Error)
	default:
		return o.Name + " is " + o.State
	}
}

func attempt(o status.Output) string {
	if o.Attempt == 0 {
		return ""
	}
	return fmt.Sprintf(", attempt %d", o.Attempt)
}

func because(what, why string) string {
	if why == "" {
		return what
	}
	return what + ": " + why
}

// boxFails covers what no cable heals.
func boxFails(b status.Box, _ time.Time) (string, bool) {
	if reason, ok := has(b, status.UnderVoltage, status.TooHot, status.ServiceStuck, status.EncoderMissing, status.EncoderFailed); ok {
		return reason, true
	}
	if b.Power.UnderVoltage {
		return "the power is too weak", true
	}
	_, mains := wanted(b)
	for _, o := range mains {
		switch state, _ := coding(b, o); state {
		case status.Live, status.Starting, status.Recovering: // these pass
		default:
			return notCoded(b, o), true
		}
	}
	if _, refused := mainIn(b, status.Failed); b.State == status.Broken && !refused {
		return "the box has a fault", true
	}
	return "", false
}

func noNetwork(b status.Box, _ time.Time) (string, bool) {
	_, mains := wanted(b)
	away := slices.ContainsFunc(mains, func(o status.Output) bool { return o.State != status.Live })
	return "no network", away && b.Has(status.NoNetwork)
}

func refused(b status.Box, _ time.Time) (string, bool) {
	o, ok := mainIn(b, status.Failed)
	return notThere(b, o), ok
}

func unreachable(b status.Box, _ time.Time) (string, bool) {
	o, ok := mainIn(b, status.Backoff)
	return notThere(b, o), ok
}

func noInput(b status.Box, _ time.Time) (string, bool) {
	all, _ := wanted(b)
	return "no picture comes in", len(all) > 0 && !b.Input.Signal
}

// storage is for those who stream and record.
func storage(b status.Box, now time.Time) (string, bool) {
	all, _ := wanted(b)
	if len(all) == 0 || cmp.Or(b.Record.State, status.Off) == status.Off {
		return "", false
	}
	if reason, ok := recordFails(b, now); ok {
		return reason, true
	}
	if b.Record.State == status.Slow {
		return tooSlow, true
	}
	return has(b, status.StorageLow)
}

func connecting(b status.Box, _ time.Time) (string, bool) {
	_, mains := wanted(b)
	for _, o := range mains {
		if why := notThere(b, o); why != "" {
			return why, true
		}
	}
	return "", false
}

// degraded is on air with less than all. It comes after connecting: what counts
// most is there.
func degraded(b status.Box, _ time.Time) (string, bool) {
	all, mains := wanted(b)
	if len(mains) == 0 {
		return "", false
	}
	for _, o := range b.Outputs {
		if o.State == status.Off && !o.Required {
			continue
		}
		if why := notThere(b, o); why != "" {
			return fmt.Sprintf("on air to %d of %d, but %s", len(liveOf(b, all)), len(all), why), true
		}
	}
	if reason, ok := has(b, status.SilentSound); ok {
		return "on air, but " + reason, true
	}
	reason, ok := severe(b, time.Time{})
	return "on air, but " + reason, ok
}

func liveOf(b status.Box, outputs []status.Output) []status.Output {
	return slices.DeleteFunc(slices.Clone(outputs), func(o status.Output) bool { return notThere(b, o) != "" })
}

// onAir is so only when every required output, or every one that is on if none
// is required, is confirmed by its far side and the pictures that go there are
// coded: a light that says so must not be wrong.
func onAir(b status.Box, _ time.Time) (string, bool) {
	_, mains := wanted(b)
	off := slices.ContainsFunc(b.Outputs, func(o status.Output) bool { return o.Required && o.State == status.Off })
	if b.Ending != nil || b.State == status.Broken || off || len(mains) == 0 || len(liveOf(b, mains)) < len(mains) {
		return "", false
	}
	names := make([]string, len(mains))
	for i, o := range mains {
		names[i] = o.Name
	}
	return "on air: " + strings.Join(names, ", "), true
}

// severe finds what viewers miss.
func severe(b status.Box, _ time.Time) (string, bool) {
	for _, f := range b.Faults {
		if row := status.FaultTable[f.Code]; row.Severe {
			return lower(row.Title), true
		}
	}
	return "the box has a fault", b.State == status.Broken
}

func records(b status.Box, _ time.Time) (string, bool) {
	return "recording", b.Record.State == status.Recording || b.Record.State == status.Slow
}

func recordState(state, reason string) func(status.Box, time.Time) (string, bool) {
	return func(b status.Box, _ time.Time) (string, bool) { return reason, b.Record.State == state }
}

func recordFails(b status.Box, _ time.Time) (string, bool) {
	switch r := b.Record; r.State {
	case status.Failed:
		return because("it cannot record", r.Error), !r.Uncoded
	case status.Recording, status.Slow, status.Starting:
		return "", false
	default:
		if r.Error != "" {
			return r.Error, true
		}
		return has(b, status.StorageLow)
	}
}

// uncoded is no trouble of the storage.
func uncoded(b status.Box, _ time.Time) (string, bool) {
	return because("nothing is recorded", b.Record.Error), b.Record.State == status.Failed && b.Record.Uncoded
}

func recordBegins(b status.Box, _ time.Time) (string, bool) {
	return cmp.Or(b.Record.Error, "the recording begins"), b.Record.State == status.Starting
}

const tooSlow = "recording, but the storage is too slow"

// scarce is the part of the storage below which there is little left for a show.
const scarce = 0.15

func recordDegraded(b status.Box, now time.Time) (string, bool) {
	if _, ok := records(b, now); !ok {
		return "", false
	}
	if b.Record.State == status.Slow {
		return tooSlow, true
	}
	if reason, ok := has(b, status.StorageLow); ok {
		return "recording, but " + reason, true
	}
	free, total := float64(b.Record.FreeBytes), float64(b.Record.TotalBytes)
	low := total > 0 && free < scarce*total
	return fmt.Sprintf("recording, but only %.1f GB are free", free/1e9), low
}

func muted(b status.Box, _ time.Time) (string, bool) { return "muted", b.Sound.Muted }

func soundMissing(b status.Box, _ time.Time) (string, bool) {
	return has(b, status.NoSound, status.SilentSound)
}

func tally(state, words string) func(status.Box, time.Time) (string, bool) {
	return func(b status.Box, _ time.Time) (string, bool) {
		return cmp.Or(b.Tally.Reason, words), b.Tally.State == state
	}
}

// roles say, by group of actions, which lamp answers whoever orders one with a
// key; STREAM does for all others.
var roles = map[string]Role{"record": RoleRecord, "audio": RoleMute, "network": RoleReset, "factory": RoleReset}

// answers reports whether an order is for the lamp of a role to answer.
func answers(role Role, order string) bool {
	group, _, _ := strings.Cut(order, ".")
	return order != "" && cmp.Or(roles[group], RoleStream) == role
}

// holding finds the order that comes if a key stays down, and that the lamp of a
// role answers.
func holding(b status.Box, role Role) (order string) {
	for _, k := range sorted(b.Keys) {
		if answers(role, k.Holding) {
			return k.Holding
		}
	}
	return ""
}

// waits answers for a role while an order that is no reset waits: for its key to
// come up, or for it to be pressed once more.
func waits(role Role) func(status.Box, time.Time) (string, bool) {
	return func(b status.Box, _ time.Time) (string, bool) {
		for name, k := range sorted(b.Keys) {
			if answers(role, k.Armed) {
				return toConfirm(name, k), true
			}
		}
		return "", false
	}
}

// toConfirm says what is to be done with a key that is armed.
func toConfirm(name string, k status.Key) string {
	if awaitsPress(k) {
		return fmt.Sprintf("press %s once for %s", name, k.Armed)
	}
	return fmt.Sprintf("let go of %s, then press it once for %s", name, k.Armed)
}

// streamHeld answers only if there is something to stop, or something else to
// come.
func streamHeld(b status.Box, _ time.Time) (string, bool) {
	order := holding(b, RoleStream)
	all, _ := wanted(b)
	return held(order, streamStop, len(all) > 0)
}

// endingHeld is streamHeld while a press, and so a hold that ends early, goes on
// with the show.
func endingHeld(b status.Box, _ time.Time) (string, bool) {
	stops := action(holding(b, RoleStream)) == streamStop
	return "let go to go on; keep holding to stop now", stops && b.Ending != nil
}

func recordHeld(b status.Box, _ time.Time) (string, bool) {
	order := holding(b, RoleRecord)
	return held(order, "record.stop", cmp.Or(b.Record.State, status.Off) != status.Off || b.Record.Error != "")
}

func muteHeld(b status.Box, _ time.Time) (string, bool) {
	order := holding(b, RoleMute)
	return "keep holding for " + order, order != ""
}

func held(order, stop string, on bool) (string, bool) {
	if action(order) == stop {
		return "keep holding to stop", on
	}
	return "keep holding for " + order, order != ""
}

// The actions that lamps know.
const (
	streamStop   = "stream.stop"
	networkReset = "network.reset"
	factoryReset = "factory.reset"
)

// action is an order without its arguments.
func action(order string) string {
	name, _, _ := strings.Cut(order, " ")
	return name
}

// armed answers while a reset waits: for the key to come up, or for it to be
// pressed once more.
func armed(reset string, down bool) func(status.Box, time.Time) (string, bool) {
	return func(b status.Box, _ time.Time) (string, bool) {
		for name, k := range sorted(b.Keys) {
			if action(k.Armed) == reset && awaitsPress(k) != down {
				return toConfirm(name, k), true
			}
		}
		return "", false
	}
}

// awaitsPress reports whether what is armed waits for a press, which may be going
// on; else the hold that asked for it still is.
func awaitsPress(k status.Key) bool {
	return !k.Down || k.Holding == k.Armed || k.Armed == factoryReset && k.Holding != ""
}

func resetHeld(b status.Box, _ time.Time) (string, bool) {
	order := holding(b, RoleReset)
	return "keep holding for " + order, order != ""
}

// sorted goes through a map by name.
func sorted[V any](m map[string]V) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			if !yield(name, m[name]) {
				return
			}
		}
	}
}
