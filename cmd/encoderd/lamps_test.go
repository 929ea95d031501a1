package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"encoderd.example/daemon/config"
	"encoderd.example/hw"
)

func TestLampsGoOffWithAnyConfig(t *testing.T) {
	for name, doc := range map[string]string{
		"a good one":   "[[lamp]]\nname = \"DOOR\"\npin = \"sim:DOOR\"\n",
		"a broken one": "[[lamp]\n",
		"none":         "",
	} {
		state := t.TempDir()
		if doc != "" {
			if err := os.WriteFile(filepath.Join(state, "config.toml"), []byte(doc), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), program{&stdout, &stderr}, []string{"lamps-off", "--board", "sim", "--state", state})
		if code != exitOK || stdout.Len()+stderr.Len() > 0 {
			t.Errorf("%s: exit code %d, %s%s", name, code, &stdout, &stderr)
		}
	}
}

func TestLampsThatCannotBeReachedAreNamed(t *testing.T) {
	state := t.TempDir()
	doc := "[[lamp]]\nname = \"DOOR\"\npin = \"gpio:no_such_line\"\n"
	if err := os.WriteFile(filepath.Join(state, "config.toml"), []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), program{&stdout, &stderr}, []string{"lamps-off", "--board", "generic", "--state", state})
	if code != exitFailed || !containsAll(stderr.String(), "DOOR", "gpio:no_such_line", "no such GPIO line") {
		t.Errorf("exit code %d, %s", code, &stderr)
	}
}

// A config that does not load hides no lamp that the daemon lit.
func TestLampsThatTheDaemonDroveAreDarkened(t *testing.T) {
	for name, tt := range map[string]struct {
		lamps string
		code  int
	}{
		"word of the lamps": {`{"Lamps": [{"Name": "DOOR", "Pin": "gpio:no_such_line"}]}`, exitFailed},
		"a damaged one":     {`{"Lamps": [{"Name": "DOOR", "Pin": "gpio:no_such_line"}]`, exitOK},
	} {
		state := t.TempDir()
		for file, doc := range map[string]string{"config.toml": "[[lamp]\n", "lamps.json": tt.lamps} {
			if err := os.WriteFile(filepath.Join(state, file), []byte(doc), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), program{&stdout, &stderr}, []string{"lamps-off", "--board", "generic", "--state", state})
		if code != tt.code || strings.Contains(stderr.String(), "DOOR") != (code == exitFailed) {
			t.Errorf("%s: exit code %d, %s", name, code, &stderr)
		}
	}
}

func TestAllLampsAreThoseOfBoardAndConfig(t *testing.T) {
	board := hw.Board{Lamps: []hw.LampWire{{Name: "STREAM", Pin: "gpio:A"}, {Name: "REC", Pin: "gpio:B"}}}
	c := config.Config{Lamps: []config.Lamp{
		{Name: "STREAM", Active: config.High},
		{Name: "REC", Pin: "gpio:B", Active: config.Low},
		{Name: "ON", Red: "led:r", Blue: "led:b", Active: config.High},
	}}
	gone := hw.LampWire{Name: "GONE", Pin: "gpio:G"}
	driven := []hw.LampWire{board.Lamps[0], gone, {Name: "ON", Red: "led:r", Blue: "led:b"}, {Name: "NOWHERE"}}
	want := []hw.LampWire{
		board.Lamps[1],
		board.Lamps[0],
		gone,
		{Name: "REC", Pin: "gpio:B", ActiveLow: true},
		{Name: "ON", Red: "led:r", Blue: "led:b"},
	}
	if got := allLamps(c, board, driven); !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
}
