package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"encoderd.example/daemon/status"
)

func TestTheCommandLineSaysWhatItDoesAndEndsWithTheRightCode(t *testing.T) {
	empty := t.TempDir()
	tests := []struct {
		name           string
		args           []string
		code           int
		stdout, stderr []string
	}{
		{"nothing is wrong use", nil, exitUsage, nil, []string{"usage:", "encoderd run", "encoderd do"}},
		{"help goes to stdout", []string{"help"}, exitOK, []string{"usage:", "probe", "status"}, nil},
		{"help by flag", []string{"--help"}, exitOK, []string{"usage:"}, nil},
		{"help of a command", []string{"run", "-h"}, exitOK, []string{"usage: encoderd run", "--config FILE"}, nil},
		{"unknown command", []string{"fly"}, exitUsage, nil, []string{`"fly"`, "usage:"}},
		{"unknown flag", []string{"run", "--fast"}, exitUsage, nil, []string{"-fast", "usage: encoderd run"}},
		{"flag of another command", []string{"probe", "--watch"}, exitUsage, nil, []string{"-watch"}},
		{"too many words", []string{"status", "more"}, exitUsage, nil, []string{`"more" is too much`}},
		{"version", []string{"version"}, exitOK, []string{"encoderd devel"}, nil},
		{"version takes nothing", []string{"version", "2"}, exitUsage, nil, []string{"no arguments"}},
		{"unknown board", []string{"run", "--board", "toaster", "--state", empty}, exitUsage, nil, []string{`"toaster"`, "sim", "generic"}},
		{"check of an empty box", []string{"check", "--board", "sim", "--state", empty}, exitOK, []string{"config is good", "encode/main", "serve RTSP on :8554"}, nil},
		{"check of a file that is not there", []string{"check", "--board", "sim", "--state", empty, "--config", empty + "/no.toml"}, exitConfig, nil, []string{"no.toml", "no such file"}},
		{"probe", []string{"probe", "--board", "sim"}, exitOK, []string{"sim-camera", "sim-mic", "libx264", "STREAM"}, nil},
		{"probe of a box whose config is gone", []string{"probe", "--board", "sim", "--config", empty + "/no.toml"}, exitOK, []string{"sim-camera", "error    bad config", "no.toml"}, nil},
		{"status of a box that does not run", []string{"status", "--state", empty}, exitFailed, nil, []string{"encoderd does not run", empty}},
		{"watch of a box that does not run", []string{"status", "--watch", "--state", empty}, exitFailed, nil, []string{"encoderd does not run"}},
		{"order to a box that does not run", []string{"do", "--state", empty, "stream.start"}, exitFailed, nil, []string{"encoderd does not run"}},
		{"order without action", []string{"do"}, exitUsage, nil, []string{"needs an action"}},
		{"order with half an argument", []string{"do", "output.start", "name"}, exitUsage, nil, []string{"KEY=VALUE"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), program{&stdout, &stderr}, tt.args)
			if code != tt.code || !containsAll(stdout.String(), tt.stdout...) || !containsAll(stderr.String(), tt.stderr...) {
				t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s", code, tt.code, &stdout, &stderr)
			}
			if tt.stdout == nil && stdout.Len() > 0 || tt.stderr == nil && stderr.Len() > 0 {
				t.Errorf("it says more than it should\nstdout: %s\nstderr: %s", &stdout, &stderr)
			}
		})
	}
}

func TestCheckAndProbeSpeakJSON(t *testing.T) {
	p := prepare(t, settings{sub: true, outputs: hall("rtmp://127.0.0.1/live")})
	var verdict struct {
		OK       bool
		Faults   []struct{ Path, Text, Do string }
		Services []struct{ Name, Does string }
	}
	code, stdout, stderr := p.command("check", "--json", "--board", "sim", "--state", p.state, "--config", p.config)
	if err := json.Unmarshal([]byte(stdout), &verdict); err != nil || code != exitOK || !verdict.OK || len(verdict.Faults) > 0 || len(verdict.Services) < 8 {
		t.Errorf("check: exit code %d, %v: %s%s", code, err, stdout, stderr)
	}
	p.clean("check", stdout+stderr)
	p.write(p.config, "[video]\nwidth = 641\nfsp = 1\n")
	code, stdout, _ = p.command("check", "--json", "--board", "sim", "--state", p.state, "--config", p.config)
	if err := json.Unmarshal([]byte(stdout), &verdict); err != nil || code != exitConfig || verdict.OK || len(verdict.Faults) != 2 || verdict.Faults[1].Path != "video.fsp" {
		t.Errorf("check: exit code %d, %v: %s", code, err, stdout)
	}
	var found struct {
		Board   string
		Cameras []struct {
			ID    string
			Modes []string
		}
		Encoders []struct{ Name, Error string }
	}
	code, stdout, _ = p.command("probe", "--json", "--board", "sim")
	if err := json.Unmarshal([]byte(stdout), &found); err != nil || code != exitOK || found.Board != "sim" ||
		len(found.Cameras) != 1 || len(found.Cameras[0].Modes) == 0 || len(found.Encoders) != 1 || found.Encoders[0].Error != "" {
		t.Errorf("probe: exit code %d, %v: %s", code, err, stdout)
	}
}

func TestOrdersThatCannotBeCarriedOutSayWhatCanBe(t *testing.T) {
	p := start(t, settings{outputs: hall("rtmp://127.0.0.1:1/live")})
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"unknown action", []string{"nonsense"}, `encoderd: "nonsense": no such action; this box knows stream.start`},
		{"unknown output", []string{"output.start", "name=attic"}, `encoderd: bad argument: no output "attic"; there are: hall`},
		{"missing argument", []string{"output.start"}, "encoderd: bad argument: output.start needs name=…"},
		{"argument too many", []string{"stream.start", "now=yes"}, `encoderd: bad argument: stream.start takes no "now"`},
		{"unknown fault", []string{"board.fault", "name=flood", "on=true"}, `encoderd: bad argument: no fault "flood"; there are camera-unplugged`},
		{"neither on nor off", []string{"board.fault", "name=silence", "on=maybe"}, "encoderd: bad argument: on is true or false"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := p.in(t).command(append([]string{"do", "--state", p.state}, tt.args...)...)
			if code != exitFailed || stdout != "" || !bytes.HasPrefix([]byte(stderr), []byte(tt.want)) {
				t.Errorf("exit code %d, %s%swant %s", code, stdout, stderr, tt.want)
			}
		})
	}
	p.until("a frame rate", func(b status.Box) bool { return b.Input.FPS > 0 })
	_, stdout, _ := p.command("status", "--state", p.state)
	for _, want := range []string{"Test hall (sim, encoderd v0.0.0-test)", "Software camera 320x180 ", "main: live 320x180", "by libx264", "hall: off", "lamp     STREAM: off"} {
		if !containsAll(stdout, want) {
			t.Errorf("status does not say %q:\n%s", want, stdout)
		}
	}
}
