package gpio

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/warthog618/go-gpiocdev"
	"github.com/warthog618/go-gpiocdev/uapi"
	"go.uber.org/goleak"

	"encoderd.example/hw"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAMachineWithoutChipsHasNone(t *testing.T) {
	// What is there differs from machine to machine; that listing it works,
	// and that every chip has a name, holds everywhere.
	chips, err := List()
	for _, c := range chips {
		if c.Name == "" {
			t.Errorf("a chip without a name: %v", c)
		}
	}
	if err != nil {
		t.Logf("some chips cannot be asked here: %v", err)
	}
}

func TestEventsOfALine(t *testing.T) {
	const up, down = gpiocdev.LineEventFallingEdge, gpiocdev.LineEventRisingEdge
	type event struct {
		at   int // ms
		to   gpiocdev.LineEventType
		seq  uint32
		want news
	}
	for _, tt := range []struct {
		name   string
		down   bool // found at 100 ms
		events []event
	}{
		{"a press", false, []event{{110, down, 1, moved}, {150, up, 2, moved}}},
		{"a key that was down", true, []event{{150, up, 1, moved}, {200, down, 2, moved}}},
		{"an edge between request and reading is in the reading", true, []event{{99, down, 1, known}, {150, up, 2, moved}}},
		{"and it was the last of several", false, []event{{98, down, 1, known}, {99, up, 2, known}, {150, down, 3, moved}}},
		{"a pulse too short to be read", false, []event{{110, up, 1, known}, {120, down, 2, moved}}},
		{"events are lost", false, []event{{110, down, 1, moved}, {300, up, 9, lost}, {301, down, 10, moved}}},
		{"the first event is lost", false, []event{{110, up, 2, lost}, {120, down, 3, moved}}},
		{"the count wraps around", false, []event{{110, down, 1, moved}, {120, up, 0xFFFFFFFF, lost}, {130, down, 0, moved}, {140, up, 1, moved}}},
	} {
		tr := track{key: "K"}
		if e := tr.found(tt.down, 100*time.Millisecond); e != (hw.Edge{Key: "K", Down: tt.down, Stamp: 100 * time.Millisecond, Level: true}) {
			t.Errorf("%s: found as %+v", tt.name, e)
		}
		for i, e := range tt.events {
			stamp := time.Duration(e.at) * time.Millisecond
			edge, what := tr.follow(uapi.LineEvent{Timestamp: uint64(stamp), ID: uapi.LineEventID(e.to), LineSeqno: e.seq})
			want := hw.Edge{}
			if e.want == moved {
				want = hw.Edge{Key: "K", Down: e.to == down, Stamp: stamp}
			}
			if what != e.want || edge != want {
				t.Errorf("%s: event %d is %d, %+v", tt.name, i, what, edge)
			}
			if what == lost {
				tr.found(false, stamp)
			}
		}
	}
}

func TestTheKernelIsAskedForWhatTheWireSays(t *testing.T) {
	r := inputRequest(hw.KeyWire{Pull: hw.PullUp, ActiveLow: true, Debounce: 5 * time.Millisecond}, 7)
	want := uapi.LineFlagV2Input | uapi.LineFlagV2EdgeBoth | uapi.LineFlagV2ActiveLow | uapi.LineFlagV2BiasPullUp
	if r.Config.Flags != want || r.Offsets[0] != 7 || r.Lines != 1 || uapi.BytesToString(r.Consumer[:]) != "encoderd" {
		t.Errorf("asked for %+v", r)
	}
	var debounce uapi.DebouncePeriod
	debounce.Decode(r.Config.Attrs[0].Attr)
	if r.Config.NumAttrs != 1 || r.Config.Attrs[0].Mask != 1 || time.Duration(debounce) != 5*time.Millisecond {
		t.Errorf("debounce %v of %d attributes", time.Duration(debounce), r.Config.NumAttrs)
	}
	for pull, flag := range map[hw.Pull]uapi.LineFlagV2{
		hw.PullDown: uapi.LineFlagV2BiasPullDown, hw.PullNone: uapi.LineFlagV2BiasDisabled, hw.PullDefault: 0,
	} {
		r := inputRequest(hw.KeyWire{Pull: pull}, 0)
		if r.Config.Flags != uapi.LineFlagV2Input|uapi.LineFlagV2EdgeBoth|flag || r.Config.NumAttrs != 0 {
			t.Errorf("pull %q: %+v", pull, r.Config)
		}
	}
	if size := binary.Size(uapi.LineEvent{}); size != lineEventSize {
		t.Errorf("an event has %d bytes", size)
	}
}

func TestPinsThatLeadNowhere(t *testing.T) {
	for _, pin := range []hw.Pin{"", "gpio:", "led:GO", "GO", "gpio:no line is called so", "gpio:no chip:0", "gpio::0", "gpio:gpiochip0:-1", "gpio:gpiochip0:99999"} {
		if err := WatchKey(t.Context(), hw.KeyWire{Name: "K", Pin: pin}, nil); !errors.Is(err, ErrNoLine) {
			t.Errorf("a key at %q: %v", pin, err)
		}
		if _, err := OpenLamp(pin, false); !errors.Is(err, ErrNoLine) {
			t.Errorf("a lamp at %q: %v", pin, err)
		}
	}
}
