package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// state is a fresh state directory with a config file of that text.
func state(t *testing.T, doc string) (path string, keys *Secrets) {
	t.Helper()
	dir := t.TempDir()
	keys, err := OpenSecrets(dir)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "encoderd.toml")
	write(t, path, doc)
	return path, keys
}

func write(t *testing.T, path, doc string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(doc), 0o644); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestSavedFileReadsWell(t *testing.T) {
	path, keys := state(t, "")
	if _, err := keys.Set("youtube", "k"); err != nil {
		t.Fatal(err)
	}
	c, err := Parse([]byte(example), Rules{Secret: keys.Get})
	if err != nil {
		t.Fatal(err)
	}
	c.Video.FPS = Rate{30000, 1001}
	c.Renditions[0].FPS = c.Video.FPS
	if err := Save(path, c, keys); err != nil {
		t.Fatal(err)
	}
	const want = `version = 1

[box]
name = 'Main hall'

[video]
source = 'auto'
width = 1920
height = 1080
fps = "30000/1001"
buffers = 'auto'

[audio]
source = 'auto'
bitrate = '128k'
delay = '0s'
channels = 'stereo'
gain = '0dB'
silence = '-60dB'
silence_after = '30s'

[[rendition]]
name = 'main'
codec = 'h264'
bitrate = '6M'
gop = '2s'
encoder = 'auto'

[[rendition]]
name = 'sub'
codec = 'h264'
width = 640
height = 360
fps = 30
bitrate = '800k'
gop = '2s'
encoder = 'auto'

[[output]]
name = 'youtube'
url = "rtmps://a.rtmps.youtube.com:443/live2"
key = "secret:youtube"
rendition = 'main'
start = 'button'
required = true

[serve]
web = ':8080'
rtsp = ':8554'
rtmp = ':1935'
srt = ':8890'
webrtc = ':8189'
rtsps = ''
rtmps = ''
multicast = true

[watch]
access = 'open'
user = 'viewer'
readers = 500
readers_per_address = 250

[record]
dir = 'recordings'
length = '1h0m0s'

[panel]
double = '400ms'
confirm = '5s'
stuck = '30s'

[ptz]
port = ''
baud = 9600
camera = 1
model = ''

[remote]
port = ''
baud = 9600
`
	if got := content(t, path); got != want {
		t.Errorf("got:\n%s", got)
	}
	ownerOnly(t, path)
	again, err := Load(path, Rules{Secret: keys.Get})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, again, c)
}

func TestAKeyInTheFileMovesIntoTheStoreWhenSaved(t *testing.T) {
	doc := "[watch]\npassword='canary-7f3a'\n[[output]]\nname='a'\nurl='rtmp://h/a'\nkey='canary-7f3a'\n" +
		"[[tally]]\nname='a'\nprotocol='obs'\naddress='ws://h'\ninput='s'\npassword='canary-7f3a'\n"
	path, keys := state(t, doc)
	c, err := Load(path, Rules{Secret: keys.Get})
	if err != nil {
		t.Fatal(err)
	}
	if err := Save(path, c, keys); err != nil {
		t.Fatal(err)
	}
	noCanary(t, content(t, path))
	noCanary(t, content(t, path+".previous"))
	ownerOnly(t, path+".previous")
	c, err = Load(path, Rules{Secret: keys.Get})
	if err != nil {
		t.Fatal(err)
	}
	if k := c.Outputs[0].Key; k.Reveal() != canary || k.Ref() != "a" {
		t.Errorf("key %q under %q", k.Reveal(), k.Ref())
	}
	if w, o := c.Watch.Password, c.Tallies[0].Password; w.Reveal() != canary || o.Reveal() != canary {
		t.Errorf("passwords %q and %q", w.Reveal(), o.Reveal())
	}
}

func TestANewKeyWinsOverTheOneInThePreviousFile(t *testing.T) {
	path, keys := state(t, "[[output]]\nname='a'\nurl='rtmp://h/a'\nkey='old'\n")
	c, err := Load(path, Rules{})
	if err != nil {
		t.Fatal(err)
	}
	c.Outputs[0].Key = NewSecret("new")
	if err := Save(path, c, keys); err != nil {
		t.Fatal(err)
	}
	if k, _ := keys.Get("a"); k.Reveal() != "new" {
		t.Errorf("stored %q", k.Reveal())
	}
}

func TestAfterAPowerCut(t *testing.T) {
	const good, previous = "box.name = 'new'\n", "box.name = 'old'\n"
	tests := []struct {
		name       string
		now, prev  string // "-": no such file
		box        string
		complaint  string
		configDead bool
	}{
		{"all is well", good, previous, "new", "", false},
		{"cut off in the middle", "box.name = 'ne", previous, "old", "not TOML", false},
		{"empty", "", previous, "old", "is empty", false},
		{"zeroes", "\x00\x00\x00", previous, "old", "damaged", false},
		{"gone", "-", previous, "old", "no such file", false},
		{"garbled, nothing before it", "box.name = 'ne", "-", "", "not TOML", true},
		{"both garbled", "x", "y", "", "not TOML", true},
		{"empty, nothing before it", "", "-", "Encoder", "", false},
		{"gone, nothing before it", "-", "-", "", "no such file", true},
		{"wrong, not damaged", "box.nam = 'new'\n", previous, "", `did you mean "name"?`, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "c.toml")
			for file, doc := range map[string]string{path: tt.now, path + ".previous": tt.prev} {
				if doc != "-" {
					write(t, file, doc)
				}
			}
			c, from, err := LoadOrPrevious(path, Rules{})
			if tt.complaint == "" && err != nil || tt.complaint != "" && (err == nil || !strings.Contains(err.Error(), tt.complaint)) {
				t.Errorf("got error %v, want %q", err, tt.complaint)
			}
			if (from == "") != tt.configDead || c.Box.Name != tt.box {
				t.Errorf("got %q from %q, want %q", c.Box.Name, from, tt.box)
			}
		})
	}
}

func TestOnlyAGoodFileBecomesThePreviousOne(t *testing.T) {
	path, keys := state(t, "box.name = 'one'\n# a comment\n")
	c := Default()
	for _, damage := range []string{"", "garb", "box.nam = 'x'\n"} {
		if err := Save(path, c, keys); err != nil {
			t.Fatal(err)
		}
		write(t, path, damage)
	}
	if got := content(t, path+".previous"); got != "box.name = 'one'\n# a comment\n" {
		t.Errorf("previous is %q", got)
	}
}

func TestLoadSaysWhichFile(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.toml"), Rules{})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "none.toml") {
		t.Error(err)
	}
	path, _ := state(t, strings.Repeat("#", maxSize+1))
	if _, err = Load(path, Rules{}); err == nil || !strings.Contains(err.Error(), "larger than 64 KiB") {
		t.Error(err)
	}
}
