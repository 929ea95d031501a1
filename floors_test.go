package encoderd_test

import (
	"encoding/json"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "encoderd.example"

// floors lists what each folder may import from this module. The longest
// matching folder counts; "x/..." means x and all below. Siblings do not know
// each other: they meet in cmd, daemon, hw/boards or stream/out.
var floors = map[string][]string{
	"stream":            {},
	"stream/nal":        {},
	"stream/h264":       {"stream/nal"},
	"stream/h265":       {"stream/nal"},
	"stream/flv":        {"stream", "stream/flv/...", "stream/h264"},
	"stream/access":     {"stream"},
	"stream/usage":      {"stream"},
	"stream/rtp":        {"stream", "stream/h264", "stream/h265"},
	"stream/ts":         {"stream", "stream/nal", "stream/h264", "stream/h265"},
	"stream/rtmp":       {"stream", "stream/flv/...", "stream/h264"},
	"stream/rtsp":       {"stream", "stream/rtp", "stream/h264", "stream/h265"},
	"stream/fmp4":       {"stream"},
	"stream/cmaf":       {"stream", "stream/fmp4", "stream/visit"},
	"stream/visit":      {"stream"},
	"stream/mjpeg":      {"stream", "stream/visit"},
	"stream/webrtc":     {"stream", "stream/rtp", "stream/h264", "stream/visit"},
	"stream/hls":        {"stream", "stream/cmaf", "stream/visit"},
	"stream/dash":       {"stream", "stream/cmaf", "stream/fmp4", "stream/visit"},
	"stream/httplive":   {"stream", "stream/flv/...", "stream/ts", "stream/fmp4", "stream/cmaf", "stream/visit"},
	"stream/out":        {"stream", "stream/rtmp"},
	"stream/record":     {"stream", "stream/fmp4"},
	"stream/streamtest": {"stream", "stream/h264", "stream/h265", "stream/streamtest/..."},

	"hw":         {"stream"},
	"hw/pcm":     {},
	"hw/uevent":  {},
	"hw/alsa":    {"hw", "hw/pcm", "stream"},
	"hw/v4l2":    {"hw", "hw/v4l2/...", "stream", "stream/h264"},
	"hw/yuv":     {"hw"},
	"hw/soft":    {"hw", "hw/yuv", "stream", "stream/h264"},
	"hw/m2m":     {"hw", "hw/v4l2/...", "hw/yuv", "stream", "stream/h264", "stream/h265"},
	"hw/convert": {"hw", "hw/v4l2/..."},
	"hw/sim":     {"hw", "hw/sim/...", "stream"},
	"hw/pion":    {"hw", "stream", "stream/h264"},
	"hw/gpio":    {"hw", "stream"},
	"hw/led":     {"hw"},
	"hw/face":    {"hw", "stream"},
	"hw/serial":  {"hw"},
	"hw/hwtest":  {"hw", "stream"},
	"hw/boards":  {"hw/...", "stream"},

	"hw/external":            {"hw", "hw/yuv", "hw/external/...", "stream", "stream/h264"},
	"hw/external/rpicam":     {"hw", "hw/external/...", "stream"},
	"hw/external/testcamera": {"hw", "hw/external/...", "hw/sim"},
	"hw/external/x264":       {"hw/external/...", "hw/soft"},

	"daemon/status":    {},
	"daemon/config":    {},
	"daemon/supervise": {},
	"daemon/panel":     {"daemon/status", "hw"},
	"daemon/visca":     {"daemon/status"},
	"daemon/remote":    {"daemon/status"},
	"daemon/tally":     {"daemon/status", "daemon/tally"},
	"daemon":           {"daemon/...", "hw/...", "stream/..."},

	"systemd":            {},
	"webui":              {"daemon/config", "daemon/status", "stream"},
	"cmd/example-webrtc": {"hw/..."},
	"cmd":                {"daemon/...", "hw/...", "stream/...", "systemd", "webui"},
	"buildroot":          {"buildroot/...", "hw/..."},
	"tools":              {"daemon/...", "hw/...", "stream/..."},
}

// vendors says which folders alone may import a library.
var vendors = map[string][]string{
	"github.com/pion/mediadevices":      {"hw/pion", "cmd/example-webrtc"},
	"github.com/pion/webrtc":            {"stream/webrtc", "hw/pion/encode", "cmd/example-webrtc"},
	"github.com/pion/ice":               {"stream/webrtc"},
	"github.com/pion/transport":         {"stream/webrtc"},
	"github.com/pion/srtp":              {"stream/rtsp"},
	"github.com/warthog618/go-gpiocdev": {"hw/gpio"},
	"go.bug.st/serial":                  {"hw/serial"},
	"github.com/coreos/go-systemd":      {"systemd"},
	"github.com/coder/websocket":        {"stream/httplive", "daemon/tally/obs"},
	"github.com/ebitengine/purego":      {"hw/soft"},
	"github.com/pelletier/go-toml":      {"daemon/config"},
	"github.com/prometheus":             {"webui"},
	// The product starts device programs only; test infrastructure does more.
	"os/exec": {"hw/external", "buildroot", "tools", "stream/streamtest"},
}

func TestFloors(t *testing.T) {
	for _, p := range packages(t) {
		dir := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		for _, imp := range p.Imports {
			if sub, ours := strings.CutPrefix(imp, module+"/"); ours {
				if f := floor(dir); !slices.ContainsFunc(floors[f], func(may string) bool { return allows(may, sub) }) {
					t.Errorf("%s imports %s: %q may import only %v", dir, sub, f, floors[f])
				}
				continue
			}
			for lib, homes := range vendors {
				if under(imp, lib) && !slices.ContainsFunc(homes, func(home string) bool { return under(dir, home) }) {
					t.Errorf("%s imports %s, which is only for %v", dir, imp, homes)
				}
			}
		}
	}
}

func TestEveryFolderStandsOnAFloor(t *testing.T) {
	for _, p := range packages(t) {
		dir := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		if _, ok := floors[floor(dir)]; !ok && dir != "" {
			t.Errorf("%s is not in the list of floors", dir)
		}
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("%s has no package comment", dir)
		}
	}
}

type listed struct {
	ImportPath, Doc  string
	Imports, GoFiles []string
}

func packages(t *testing.T) (list []listed) {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Doc,Imports,GoFiles", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var p listed
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	return list
}

func floor(dir string) string {
	for d := dir; d != "."; d = path.Dir(d) {
		if _, ok := floors[d]; ok {
			return d
		}
	}
	return dir
}

func allows(may, sub string) bool {
	if tree, ok := strings.CutSuffix(may, "/..."); ok {
		return under(sub, tree)
	}
	return sub == may
}

func under(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }
