package panel

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"encoderd.example/daemon/status"
)

var update = flag.Bool("update", false, "write the golden files and docs/panel.md anew")

// busy is a box of which there is much to tell.
func busy() status.Box {
	ago := func(s int) *time.Time { t := noon.Add(-time.Duration(s) * time.Second); return &t }
	b := show(outputs(status.Live, status.Backoff))
	b.Name = "Main hall"
	b.Outputs[0].Bitrate, b.Outputs[0].LagMS, b.Outputs[0].Lost = 6_110_000, 41.7, 3
	b.Outputs[1].Attempt, b.Outputs[1].Error, b.Outputs[1].RetryAt = 5, "connection refused", ago(-14)
	b.Keys = map[string]status.Key{
		"STREAM": {Gesture: "press", Action: "stream.start", At: ago(83), Edge: ago(82)},
		"MUTE":   {Error: "bouncing: it moves by itself"},
		"RESET":  {Down: true, Holding: "factory.reset", Armed: "network.reset"},
	}
	b.Tally = status.Tally{State: status.Preview, Reason: "atem says preview", Sources: []status.TallySource{
		{Name: "atem", Protocol: "tsl3.1", Address: "udp://:8900", Input: "3", State: status.Preview, Heard: ago(2), Changed: ago(61), Sender: "10.0.0.7", Bad: 4, Senders: []status.TallySender{
			{Sender: "10.0.0.7", State: status.Preview}, {Sender: "10.0.0.9", State: status.Off},
		}},
		{Name: "obs", Protocol: "obs", Address: "ws://10.0.0.5:4455", Input: "Cam 1", State: status.Off, Error: "connection refused"},
	}}
	b.Lamps = Lamps(b, DefaultLamps(), noon)
	return b
}

func TestThePanelAsText(t *testing.T) {
	nasty := busy()
	nasty.Name, nasty.Outputs[1].Error = "A\x1b[2J\nB", "\x1b]0;title\x07\u202eabc\u009b"
	tests := []struct {
		file   string
		box    status.Box
		screen Screen
		now    time.Time
	}{
		{"busy", busy(), Screen{}, noon},
		{"busy-later", busy(), Screen{Width: 200}, noon.Add(1900 * time.Millisecond)},
		{"narrow", busy(), Screen{Width: 40}, noon},
		{"color", busy(), Screen{Color: true}, noon},
		{"narrow-color", busy(), Screen{Width: 12, Color: true}, noon},
		{"nasty", nasty, Screen{}, noon},
		{"empty", status.Box{}, Screen{Width: 80, Color: true}, noon},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			got := Text(tt.box, tt.screen, tt.now)
			golden(t, filepath.Join("testdata", tt.file+".txt"), got)
			if strings.Contains(got, "\x1b") != (tt.screen.Color && tt.file != "empty") {
				t.Error("colors are not as asked for")
			}
			for line := range strings.Lines(got) {
				if n := utf8.RuneCountInString(line) - 1; !tt.screen.Color && tt.screen.Width > 0 && n > tt.screen.Width {
					t.Errorf("%d signs in %q", n, line)
				}
			}
		})
	}
}

// golden compares with a file, or with -update writes it.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; run with -update if that is meant. Got\n%s", path, got)
	}
}
