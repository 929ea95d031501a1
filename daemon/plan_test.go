package daemon

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"encoderd.example/daemon/config"
	"encoderd.example/hw"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the golden files anew")

func parse(t *testing.T, doc string) config.Config {
	t.Helper()
	c, err := config.Parse([]byte(doc), config.Rules{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPlan(t *testing.T) {
	tests := []struct{ name, doc string }{
		{"empty", ``},
		{"no-sound", "[audio]\nsource = \"none\""},
		{"sub-and-outputs", `
[video]
width = 1280
height = 720
fps = "30000/1001"
[[rendition]]
name = "main"
bitrate = "3M"
[[rendition]]
name = "sub"
width = 640
height = 360
fps = 15
encoder = "software"
[[output]]
name = "youtube"
url = "rtmps://a.example.org/live2"
key = "do-not-show-this-key"
[[output]]
name = "church"
url = "rtmp://user:pass@b.example.org/app"
rendition = "sub"
start = "boot"
[serve]
web = ""
rtmp = ":1935"
rtsps = ":8322"
rtmps = ":1936"
webrtc = ":8189"
`},
		{"panel", `
[[key]]
name = "STREAM"
press = "stream.toggle"
[[key]]
name = "PTT"
pin = "sim:PTT"
press = "audio.toggle"
[[lamp]]
name = "RELAY"
pin = "sim:RELAY"
shows = "program"
[[tally]]
name = "hall"
protocol = "obs"
address = "ws://10.0.0.5:4455"
input = "Camera 1"
password = "do-not-show-this-key"
[[tally]]
name = "lobby"
protocol = "obs"
address = "ws://10.0.0.5:4455"
input = "Camera 2"
timeout = "5s"
[[tally]]
name = "desk"
protocol = "contact"
address = "sim:DESK"
[[tally_out]]
name = "monitor"
address = "udp://10.0.0.9:8900"
input = 3
[ptz]
port = "serial:/dev/ttyS1"
model = "sony"
[remote]
port = "serial:/dev/ttyS2"
`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Describe(parse(t, tt.doc), hw.Board{Name: "sim"}, nil)
			golden := filepath.Join("testdata", tt.name+".plan")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestWhatRestartsAtAChange(t *testing.T) {
	const base = `
[video]
width = 1280
height = 720
[[rendition]]
name = "main"
bitrate = "3M"
[[output]]
name = "youtube"
url = "rtmp://a.example.org/live2"
key = "one"
start = "boot"
`
	tests := []struct {
		name, doc string
		want      []string // services whose config differs
	}{
		{"nothing", base, nil},
		{"bit rate", strings.Replace(base, `"3M"`, `"2M"`, 1), nil},
		{"key of an output", strings.Replace(base, `"one"`, `"two"`, 1), []string{"push/youtube"}},
		{"group of pictures", strings.Replace(base, `"3M"`, "\"3M\"\ngop = \"1s\"", 1), []string{"encode/main"}},
		{"web port", base + "[serve]\nweb = \":8081\"\n", []string{"web"}},
		{"sound delay", base + "[audio]\ndelay = \"40ms\"\n", nil},
		{"sound source", base + "[audio]\nsource = \"test\"\n", []string{"mic"}},
		{"host name of the page", base + "[serve]\nhosts = [\"box.example.org\"]\n", []string{"web"}},
		{"source", strings.Replace(base, "height = 720", "height = 720\nsource = \"test\"", 1), []string{"camera"}},
		{"buffers", strings.Replace(base, "height = 720", "height = 720\nbuffers = \"copy\"", 1), []string{"camera"}},
	}
	before := configs(parse(t, base))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, s := range plan(parse(t, tt.doc), hw.Board{}, Wanted{}) {
				if before[s.Name] != s.Config {
					got = append(got, s.Name)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("restarts %v, want %v", got, tt.want)
			}
		})
	}
}

func configs(c config.Config) map[string]any {
	m := map[string]any{}
	for _, s := range plan(c, hw.Board{}, Wanted{}) {
		m[s.Name] = s.Config
	}
	return m
}

func TestOutputsStartByButtonOrAtBoot(t *testing.T) {
	button, boot := config.Output{Name: "a", Start: config.OnButton}, config.Output{Name: "b", Start: config.OnBoot}
	tests := []struct {
		name         string
		w            Wanted
		button, boot bool
	}{
		{"fresh box", Wanted{}, false, true},
		{"button was pressed", Wanted{Outputs: map[string]bool{"a": true}}, true, true},
		{"all were stopped", Wanted{Outputs: map[string]bool{"a": false, "b": false}}, false, false},
	}
	for _, tt := range tests {
		if tt.w.on(button) != tt.button || tt.w.on(boot) != tt.boot {
			t.Errorf("%s: button %v, boot %v", tt.name, tt.w.on(button), tt.w.on(boot))
		}
	}
}

func TestThePlanSaysWhoCodesAndWhyNotTheHardware(t *testing.T) {
	c := parse(t, "[[rendition]]\nname = \"main\"\n[[rendition]]\nname = \"sub\"\nwidth = 640\nheight = 360\n")
	got := Describe(c, hw.Board{Name: "pi"}, pi())
	for _, want := range []string{
		"h264 1920x1080 30 fps, key frame every 60, encoder auto: v4l2:bcm2835-codec, else libx264\n",
		"h264 640x360 30 fps, key frame every 60, encoder auto: libx264; main 1920x1080 30 fps 244800 + sub 640x360 30 fps 27600 = 272400, v4l2:bcm2835-codec codes 245760 macroblocks a second\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("got:\n%s\nwant: %s", got, want)
		}
	}
}
