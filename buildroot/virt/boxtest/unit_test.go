//go:build box

//nolint:thelper // parts of TestDaemonOnTheBoard and their steps, which are no helpers
package boxtest

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"encoderd.example/buildroot/virt"
	"encoderd.example/daemon/status"
)

// unit looks at what the unit file promises, from start to stop.
func unit(t *testing.T, b *box) {
	for _, part := range []struct {
		name string
		test func(*testing.T, *box)
	}{
		{"probe as the daemon's user lists cameras and sound cards", probe},
		{"start returns after the first coded frame", start},
		{"it runs as its own user in its sandbox", sandbox},
		{"the journal has its fields", journal},
		{"its exposure is at most 2.0", exposure},
		{"stop is clean", stop},
		{"a bad config ends it for good with code 78", badConfig},
	} {
		t.Run(part.name, func(t *testing.T) { part.test(t, b) })
	}
}

func probe(t *testing.T, b *box) {
	var found struct {
		Board   string
		Cameras []struct {
			ID, Error string
			Modes     []string
		}
		Cards    []struct{ ID string } `json:"sound_cards"`
		Encoders []struct{ Name, Error string }
	}
	out := b.Sh(t, "setpriv --reuid=encoderd --regid=encoderd --init-groups encoderd probe --json")
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	if found.Board != "virt" {
		t.Errorf("the board is %q, want virt", found.Board)
	}
	if len(found.Cameras) != 4 {
		t.Errorf("%d cameras, want 2, the first of them with 2 inputs: %+v", len(found.Cameras), found.Cameras)
	}
	for _, c := range found.Cameras {
		mode := "1280x720 30 fps NV12"
		if strings.HasSuffix(c.ID, "#1") { // HDMI: what its source sends
			mode = "1280x720 60 fps NV12"
		}
		if !strings.HasPrefix(c.ID, "v4l2:platform:vivid-00") || c.Error != "" || !slices.Contains(c.Modes, mode) {
			t.Errorf("camera %s, error %q, %d modes; want vivid with %s", c.ID, c.Error, len(c.Modes), mode)
		}
	}
	if len(found.Cards) != 2 || found.Cards[0].ID != "alsa:Loopback" || found.Cards[1].ID != "alsa:Loopback2" {
		t.Errorf("sound cards %v, want both loopbacks", found.Cards)
	}
	var encoders []string
	for _, e := range found.Encoders {
		encoders = append(encoders, e.Name+e.Error)
	}
	if want := []string{board, "libx264"}; !slices.Equal(encoders, want) {
		t.Errorf("encoders %v, want %v, both working", encoders, want)
	}
}

func start(t *testing.T, b *box) {
	out := b.Sh(t, "systemctl start encoderd && encoderd status --state /var/lib/encoderd --json")
	var s status.Box
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	if len(s.Renditions) != 1 || s.Renditions[0].Frames == 0 || s.Renditions[0].Encoder != "libx264" {
		t.Errorf("right after the start the rendition is %+v, want frames coded by libx264", s.Renditions)
	}
	b.until(t, "camera and sound card are on", func(s status.Box) bool {
		return onAir(s) && s.Input.ID == "v4l2:platform:vivid-000" && s.Sound.ID == "alsa:Loopback,1"
	})
	b.wantShown(t, map[string]string{"ActiveState": "active", "SubState": "running", "StatusText": "on duty", "NRestarts": "0"})
}

func sandbox(t *testing.T, b *box) {
	b.wantShown(t, map[string]string{"User": "encoderd", "MemoryDenyWriteExecute": "yes", "NoNewPrivileges": "yes", "DevicePolicy": "closed", "ProtectSystem": "strict"})
	proc := "/proc/" + b.show(t, "MainPID")["MainPID"]
	user := strings.TrimSpace(b.Sh(t, "id -u encoderd"))
	state := b.Sh(t, "cat "+proc+"/status")
	for _, want := range []string{
		`Uid:\s+` + user + `\s`,
		`CapEff:\s+0+\n`, `CapBnd:\s+0+\n`, `CapAmb:\s+0+\n`,
		`NoNewPrivs:\s+1\n`, `Seccomp:\s+2\n`,
	} {
		if !regexp.MustCompile(want).MatchString(state) {
			t.Errorf("the process lacks %q:\n%s", want, state)
		}
	}
	maps := b.Sh(t, "cat "+proc+"/maps")
	if !strings.Contains(maps, "/libx264.so.") {
		t.Error("libx264 is not loaded")
	}
	if got := regexp.MustCompile(`(?m)^\S+ .wx. .*$`).FindString(maps); got != "" {
		t.Errorf("memory can be written and executed: %s", got)
	}
	files := b.Sh(t, "ls -l "+proc+"/fd")
	for _, want := range []string{"/dev/video0", "/dev/snd/pcmC0D1c"} {
		if !strings.Contains(files, want) {
			t.Errorf("%s is not open:\n%s", want, files)
		}
	}
	if got := b.Sh(t, "ls -A "+proc+"/root/home; stat -c %a /var/lib/encoderd"); got != "700\n" {
		t.Errorf("homes as the daemon sees them and its folder's mode: %q, want none and 700", got)
	}
}

func journal(t *testing.T, b *box) {
	services := map[string]bool{}
	for line := range strings.Lines(b.Sh(t, "journalctl _SYSTEMD_UNIT=encoderd.service -o json --no-pager")) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if s, ok := entry["SERVICE"].(string); ok {
			services[s] = true
		}
		for _, field := range []string{"MESSAGE", "PRIORITY", "_UID"} {
			if entry[field] == nil {
				t.Errorf("an entry lacks %s: %s", field, line)
			}
		}
		if entry["_TRANSPORT"] != "journal" {
			t.Errorf("an entry came by %v: %s", entry["_TRANSPORT"], line)
		}
	}
	for _, want := range []string{"camera", "mic", "rtsp"} {
		if !services[want] {
			t.Errorf("no entry has SERVICE=%s, there are %v", want, services)
		}
	}
	if out := b.Sh(t, "journalctl -u encoderd SERVICE=camera -o cat --no-pager"); !strings.Contains(out, "camera opened") {
		t.Errorf("journalctl SERVICE=camera shows %q", out)
	}
}

func exposure(t *testing.T, b *box) {
	out := b.Sh(t, "systemd-analyze security encoderd --no-pager")
	m := regexp.MustCompile(`Overall exposure level for encoderd.service: ([\d.]+)`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("systemd-analyze says:\n%s", out)
	}
	level, err := strconv.ParseFloat(m[1], 64)
	if err != nil || level > 2.0 {
		t.Errorf("the unit's exposure is %s, want at most 2.0", m[1])
	}
	t.Logf("exposure %s", m[1])
}

func stop(t *testing.T, b *box) {
	b.Sh(t, "systemctl stop encoderd")
	b.wantShown(t, map[string]string{"ActiveState": "inactive", "Result": "success", "ExecMainCode": "1", "ExecMainStatus": "0"})
	if out := b.Sh(t, "journalctl -u encoderd -o cat --no-pager | tail -5"); !strings.Contains(out, "encoderd ends") {
		t.Errorf("the journal ends with:\n%s", out)
	}
}

func badConfig(t *testing.T, b *box) {
	b.Sh(t, "rm -f /var/lib/encoderd/config.toml.previous")
	b.configure(t, "[vidio]\nwidth = 320\n")
	if out, rc, err := b.Try("systemctl start encoderd"); err != nil || rc == 0 {
		t.Errorf("start with a bad config: exit code %d, %v, %s", rc, err, out)
	}
	// longer than the unit waits before it starts the program again
	b.Sh(t, "sleep 4")
	b.wantShown(t, map[string]string{"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "78", "NRestarts": "0"})
	if out := b.Sh(t, "journalctl -u encoderd -o cat --no-pager | tail -5"); !strings.Contains(out, "vidio") || !strings.Contains(out, "line 1") {
		t.Errorf("the journal does not say what is wrong:\n%s", out)
	}
	b.run(t, settings{})
	virt.Until(t, soon, "a good config cures it", func() bool { return b.show(t, "ActiveState")["ActiveState"] == "active" })
}
