package daemon

import (
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/daemon/supervise"
	"encoderd.example/hw"
)

func TestStateInOneWord(t *testing.T) {
	out := func(states ...string) (list []status.Output) {
		for _, s := range states {
			list = append(list, status.Output{State: s})
		}
		return list
	}
	fault := func(codes ...status.FaultCode) (list []status.Fault) {
		for _, c := range codes {
			list = append(list, status.Fault{Code: c})
		}
		return list
	}
	watched := []status.Reader{{}}
	starting := []status.Rendition{{State: status.Starting}}
	tests := []struct {
		name string
		box  status.Box
		want string
	}{
		{"idle", status.Box{Outputs: out(status.Off)}, status.Off},
		{"idle without a camera", status.Box{Faults: fault(status.NoPicture)}, status.Off},
		{"watched", status.Box{Readers: watched}, status.Live},
		{"watched, but no camera", status.Box{Readers: watched, Faults: fault(status.NoPicture)}, status.Degraded},
		{"coming up", status.Box{Renditions: starting}, status.Starting},
		{"connecting", status.Box{Outputs: out(status.Starting)}, status.Starting},
		{"sent but not confirmed is not live", status.Box{Outputs: out(status.Unconfirmed)}, status.Starting},
		{"confirmed", status.Box{Outputs: out(status.Live, status.Off)}, status.Live},
		{"one of two is not there", status.Box{Outputs: out(status.Live, status.Starting)}, status.Starting},
		{"one of two is away", status.Box{Outputs: out(status.Live, status.Backoff)}, status.Degraded},
		{"an optional one is refused", status.Box{Outputs: out(status.Live, status.Failed)}, status.Degraded},
		{"a required one is refused", status.Box{Outputs: []status.Output{{State: status.Failed, Required: true}}}, status.Broken},
		{"encoder down", status.Box{Outputs: out(status.Live), Faults: fault(status.EncoderFailed)}, status.Broken},
		{"hanging", status.Box{Faults: fault(status.ServiceStuck)}, status.Broken},
	}
	for _, tt := range tests {
		if got := state(tt.box); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestRateMeasuresTheLastSeconds(t *testing.T) {
	var r rate
	at := time.Unix(1000, 0)
	for i := range 20 { // 30 a second, then 60
		r.measure(at.Add(time.Duration(i)*500*time.Millisecond), uint64(i*15))
	}
	if r.value < 29.9 || r.value > 30.1 {
		t.Errorf("%v a second, want 30", r.value)
	}
	at, base := at.Add(9500*time.Millisecond), uint64(19*15)
	for i := 1; i < 10; i++ {
		r.measure(at.Add(time.Duration(i)*500*time.Millisecond), base+uint64(i*30))
	}
	if r.value < 59.9 || r.value > 60.1 {
		t.Errorf("%v a second, want 60", r.value)
	}
	if v := r.measure(at.Add(time.Minute), 0); v != 0 {
		t.Errorf("a counter that began anew gives %v", v)
	}
}

func testDaemon(t *testing.T) *Daemon {
	t.Helper()
	return New(Options{Board: hw.Board{Name: "test"}, State: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
}

func TestTheWatchdogWantsProgressOfLiveMediaServices(t *testing.T) {
	d := testDaemon(t)
	say := func(name string, s supervise.State) { d.noteService(name, supervise.Status{State: s}) }
	say("picture", supervise.Live)
	say("web", supervise.Live) // no media: needs no progress
	d.hub.passed.Add(1)
	if !d.Alive() {
		t.Error("the first look has nothing to compare with")
	}
	if d.Alive() {
		t.Error("no picture passed, and nobody noticed")
	}
	d.hub.passed.Add(1)
	if !d.Alive() {
		t.Error("a picture passed")
	}
	say("picture", supervise.Backoff)
	d.Alive()
	if !d.Alive() {
		t.Error("a service that is known to be broken is a fault, not a hang")
	}
	say("encode/main", supervise.Starting)
	if !d.Alive() {
		t.Error("an encoder may take its time to start")
	}
	d.services["encode/main"].since = time.Now().Add(-time.Minute)
	if d.Alive() {
		t.Error("an encoder that hangs in its start was not noticed")
	}
	say("encode/main", supervise.Stopped)
	say("web", supervise.Stuck)
	if d.Alive() {
		t.Error("a stuck service was not noticed")
	}
}

func TestFaultsSayWhatAndWhatToDo(t *testing.T) {
	d := testDaemon(t)
	d.config = parse(t, "[[output]]\nname = \"youtube\"\nurl = \"rtmp://a.example.org/live2\"\nkey = \"k\"\nstart = \"boot\"\n")
	d.start = time.Now().Add(-time.Minute)
	d.noteService("camera", supervise.Status{State: supervise.Backoff, Err: errors.New("camera x: device is busy")})
	d.noteService("encode/main", supervise.Status{State: supervise.Backoff, Err: hw.ErrMissing})
	d.noteService("push/youtube", supervise.Status{State: supervise.Backoff, Attempt: 3, Err: errors.New("connection refused")})
	b := d.box(time.Now())
	for code, word := range map[status.FaultCode]string{
		status.NoPicture: "device is busy", status.NoSound: "source auto",
		status.EncoderMissing: "not installed", status.OutputRetrying: "connection refused",
	} {
		found := false
		for _, f := range b.Faults {
			found = found || f.Code == code && strings.Contains(f.Text, word) && strings.HasSuffix(f.Text, status.FaultTable[code].Do)
		}
		if !found {
			t.Errorf("no fault %s with %q in %v", code, word, b.Faults)
		}
	}
	if b.State != status.Broken || b.Lamps["STREAM"].Reason != "no usable encoder" {
		t.Errorf("state %s, lamp %v", b.State, b.Lamps["STREAM"])
	}
}

func TestABoxWhoseStatusStandsStillIsNotAlive(t *testing.T) {
	d := testDaemon(t)
	if !d.Alive() {
		t.Error("dead before the first status")
	}
	d.start = time.Now().Add(-time.Minute)
	d.reported.Store(int64(time.Minute - mute/2))
	if !d.Alive() {
		t.Error("dead soon after a status")
	}
	d.reported.Store(int64(time.Minute - 2*mute))
	if d.Alive() {
		t.Error("alive, with lights that stand still")
	}
}

func TestFaultsKeepTheTimeOfTheirBeginning(t *testing.T) {
	d := testDaemon(t)
	d.config = parse(t, outputs)
	fails := func(name, words string) {
		d.noteService("push/"+name, supervise.Status{State: supervise.Backoff, Err: errors.New(words)})
	}
	since := func(at time.Time) map[string]time.Time {
		list := map[string]time.Time{}
		for _, f := range d.box(at).Faults {
			if f.Code == status.OutputRetrying {
				name, _, _ := strings.Cut(f.Text, ":")
				list[name] = f.Since
			}
		}
		return list
	}
	first := time.Now()
	second, third := first.Add(time.Second), first.Add(2*time.Second)
	fails("hall", "refused, 1 time")
	since(first)
	fails("hall", "refused, 2 times")
	fails("church", "refused, 2 times")
	if got := since(second); !got["hall"].Equal(first) || !got["church"].Equal(second) {
		t.Errorf("since %v, want %v and %v", got, first, second)
	}
	d.noteService("push/hall", supervise.Status{State: supervise.Live})
	since(second)
	fails("hall", "refused, 1 time")
	if got := since(third); !got["hall"].Equal(third) || !got["church"].Equal(second) {
		t.Errorf("since %v; what was over begins anew", got)
	}
}

func TestAnOutputThatTheConfigDropsIsNotOnAirWhenItReturns(t *testing.T) {
	dir := t.TempDir()
	if err := (Wanted{Outputs: map[string]bool{"hall": true, "attic": true}}).save(dir); err != nil {
		t.Fatal(err)
	}
	d := New(Options{State: dir, Log: slog.New(slog.DiscardHandler)})
	d.Apply(parse(t, outputs))
	got, err := loadWanted(dir)
	if want := map[string]bool{"hall": true}; err != nil || !maps.Equal(got.Outputs, want) || !maps.Equal(d.wanted.Outputs, want) {
		t.Errorf("remembered %v, %v, in memory %v; want %v", got.Outputs, err, d.wanted.Outputs, want)
	}
	d.Apply(parse(t, "")) // the hall's output goes, and comes back later
	d.Apply(parse(t, outputs))
	if len(d.wanted.Outputs) > 0 {
		t.Errorf("%v are on air", d.wanted.Outputs)
	}
}

func TestWhatWasOnAirIsRemembered(t *testing.T) {
	dir := t.TempDir()
	w := Wanted{Outputs: map[string]bool{"youtube": true}, Muted: true}
	if err := w.save(dir); err != nil {
		t.Fatal(err)
	}
	once, err := os.Stat(filepath.Join(dir, wantedFile))
	if err = errors.Join(err, w.save(dir)); err != nil {
		t.Fatal(err)
	}
	if again, err := os.Stat(filepath.Join(dir, wantedFile)); err != nil || !os.SameFile(once, again) {
		t.Errorf("what is not new was written again: the medium wears out; %v", err)
	}
	got, err := loadWanted(dir)
	if err != nil || !got.Outputs["youtube"] || !got.Muted {
		t.Errorf("got %v, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, wantedFile), []byte(`{"outputs":`), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err = loadWanted(dir)
	if err == nil || got.Outputs == nil {
		t.Errorf("a damaged file gives %v, %v; want an error and usable wishes", got, err)
	}
	if _, err := loadWanted(t.TempDir()); err != nil {
		t.Errorf("a fresh box: %v", err)
	}
}

func TestActionsRefuseWhatTheyDoNotUnderstand(t *testing.T) {
	d := testDaemon(t)
	d.config = parse(t, "")
	tests := []struct {
		name, action string
		args         map[string]string
		want         error
		words        string
	}{
		{"unknown", "stream.strat", nil, ErrNoAction, "stream.start"},
		{"argument missing", "output.start", nil, ErrBadArgument, "name="},
		{"argument too many", "audio.mute", map[string]string{"x": "y"}, ErrBadArgument, `"x"`},
		{"no such output", "output.start", map[string]string{"name": "x"}, ErrBadArgument, "none"},
		{"nothing to start", "stream.start", nil, ErrBadArgument, "[[output]]"},
		{"no software board", "board.fault", map[string]string{"name": "x", "on": "true"}, ErrNoAction, ""},
	}
	for _, tt := range tests {
		err := d.Do(t.Context(), tt.action, tt.args, "test")
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.words) {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
	if err := d.Do(t.Context(), "audio.toggle", nil, "test"); err != nil || !d.mixer.muted.Load() {
		t.Errorf("toggle: %v, muted %v", err, d.mixer.muted.Load())
	}
}

func TestAReportDoesNotChangeAfterItWasGiven(t *testing.T) {
	d := testDaemon(t)
	d.config = parse(t, "[[output]]\nname = \"youtube\"\nurl = \"rtmp://a.example.org/live2\"\nkey = \"k\"\n")
	first := time.Unix(1, 0)
	d.noteService("push/youtube", supervise.Status{State: supervise.Backoff, Retry: first})
	b := d.box(time.Now())
	d.noteService("push/youtube", supervise.Status{State: supervise.Backoff, Retry: time.Unix(2, 0)})
	if at := *b.Outputs[0].RetryAt; at != first {
		t.Errorf("the output's retry moved from %v to %v", first, at)
	}
	if at := *b.Services[0].RetryAt; at != first {
		t.Errorf("the service's retry moved from %v to %v", first, at)
	}
}
