package config

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

const canary = "canary-7f3a"

// canaryFile holds the canary wherever people put secrets, right or wrong.
const canaryFile = `
[video]
source = "rtsp://user:canary-7f3a@camera/"
[[output]]
name = "a"
url = "rtmp://user:canary-7f3a@host/app/canary-7f3a?key=canary-7f3a"
key = "canary-7f3a"
rendition = 1
[[output]]
name = "b"
url = "canary-7f3a"
key = ["canary-7f3a"]
`

func TestASecretAppearsInNoOutput(t *testing.T) {
	c, err := Parse([]byte("[[output]]\nname='a'\nurl='rtmp://u:canary-7f3a@host/app/canary-7f3a?k=canary-7f3a'\nkey='canary-7f3a'"), Rules{})
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Outputs[0].Key.Reveal(); got != canary {
		t.Fatalf("revealed %q", got)
	}
	hidden := struct{ c Config }{c} // fmt cannot call methods through it
	var out strings.Builder
	for verb := range strings.SplitSeq("v +v #v s q x X d t", " ") {
		fmt.Fprintf(&out, "%"+verb+"\n", c)
		fmt.Fprintf(&out, "%"+verb+"\n", c.Outputs[0].Key)
		fmt.Fprintf(&out, "%"+verb+"\n", &c.Outputs[0].Key)
		fmt.Fprintf(&out, "%"+verb+"\n", hidden.c.Outputs[0].Key)
		fmt.Fprintf(&out, "%"+verb+"\n", struct {
			k Secret
			a Address
		}{c.Outputs[0].Key, c.Outputs[0].URL})
	}
	for _, marshal := range []func(any) ([]byte, error){json.Marshal, toml.Marshal, xml.Marshal} {
		b, err := marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(b)
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("config", "config", c, "key", c.Outputs[0].Key, "url", c.Outputs[0].URL)
	}
	noCanary(t, out.String())
	if !strings.Contains(out.String(), "•••") {
		t.Error("nothing shows that there is a key")
	}
}

func TestASecretAppearsInNoFault(t *testing.T) {
	docs := []string{
		canaryFile,
		"[[output]]\nkey = canary-7f3a",
		"[[output]]\nkey = \"canary-7f3a",
		"[[output]]\nkey = 'canary-7f3a'\nkey = 'canary-7f3a'",
		"[[output]]\nname='o'\nurl='rtmp://host:canary-7f3a/'\nkey = {a='canary-7f3a'}",
		"[[output]]\nname='o'\nurl='rtmp://%zzcanary-7f3a/'",
		"[[rendition]]\nname='canary-7f3a!'\nbitrate='canary-7f3a'\ngop='canary-7f3a'",
		"[serve]\nweb='canary-7f3a'\nhosts=['canary-7f3a/']",
	}
	for _, doc := range docs {
		_, err := Parse([]byte(doc), rules)
		if err == nil {
			t.Fatalf("accepted:\n%s", doc)
		}
		j, _ := json.Marshal(err)
		noCanary(t, fmt.Sprintf("%v %+v %#v %s", err, err, err, j))
	}
}

func noCanary(t *testing.T, out string) {
	t.Helper()
	if i := strings.Index(out, canary); i >= 0 {
		t.Errorf("the secret shows: …%s…", out[max(0, i-80):min(len(out), i+20)])
	}
	// "%x" of the canary
	if i := strings.Index(strings.ToLower(out), fmt.Sprintf("%x", canary)); i >= 0 {
		t.Errorf("the secret shows in hex: …%s…", out[max(0, i-80):])
	}
}

func TestSecretsCompareByNameAndValue(t *testing.T) {
	if NewSecret("a"+canary) != NewSecret("a"+strings.Clone(canary)) || !reflect.DeepEqual(NewSecret("x"), NewSecret("x")) {
		t.Error("equal secrets differ")
	}
	if NewSecret("a") == NewSecret("b") || reflect.DeepEqual(named("n", "a"), named("n", "b")) {
		t.Error("different secrets are equal")
	}
	if s := NewSecret(""); !s.IsZero() || s.String() != "" || s.Reveal() != "" {
		t.Error("an empty secret is not zero")
	}
}

func TestAddressesPrintWhatAnybodyMaySee(t *testing.T) {
	tests := []struct {
		in   string
		want string
	}{
		{"rtmps://a.rtmps.youtube.com:443/live2", "rtmps://a.rtmps.youtube.com:443/live2"},
		{"rtmp://host/app/key", "rtmp://host/app/•••"},
		{"rtmp://user:pass@host/app/", "rtmp://host/app"},
		{"srt://host:9000?passphrase=x", "srt://host:9000"},
		{"not an address", "•••"},
		{"", ""},
	}
	for _, tt := range tests {
		if got := NewAddress(tt.in).String(); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestStoreKeepsSecretsForItsOwnerAlone(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenSecrets(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"youtube": canary, "gone": "x", "odd": "quote\" \\ \n ü"} {
		if _, err := s.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Set("gone", ""); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "secrets.toml")
	ownerOnly(t, file)
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	again, err := OpenSecrets(dir)
	if err != nil {
		t.Fatal(err)
	}
	ownerOnly(t, file)
	if got := again.Names(); !reflect.DeepEqual(got, []string{"odd", "youtube"}) {
		t.Errorf("names %v", got)
	}
	if v, ok := again.Get("odd"); !ok || v.Reveal() != "quote\" \\ \n ü" || v.Ref() != "odd" {
		t.Errorf("got %q, %v", v.Reveal(), ok)
	}
	noCanary(t, fmt.Sprintf("%v %+v %#v", again, again, again))
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
		t.Errorf("files left behind: %v", left)
	}
}

func ownerOnly(t *testing.T, file string) {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("%s has mode %o, want 600", file, got)
	}
}

func TestStoreRefusesWhatItCannotKeep(t *testing.T) {
	tests := []struct{ name, file, want string }{
		{"not TOML", "ok = 'x'\nyoutube = canary-7f3a", "line 2: this is not TOML"},
		{"not text", "youtube = 7", "an entry is not a secret"},
		{"bad name", "'You Tube' = 'canary-7f3a'", "an entry is not a secret"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "secrets.toml"), []byte(tt.file), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := OpenSecrets(dir)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			noCanary(t, err.Error())
		})
	}
	s, _ := OpenSecrets(t.TempDir())
	if _, err := s.Set("../x", "v"); err == nil {
		t.Error("a bad name was stored")
	}
}

func FuzzSecretsFile(f *testing.F) {
	f.Add([]byte("youtube = 'x'\n"))
	f.Add([]byte("a = 1\n[b]\n"))
	f.Fuzz(func(t *testing.T, doc []byte) {
		s := &Secrets{path: "secrets.toml", values: map[string]Secret{}}
		if s.parse(doc) != nil {
			return
		}
		for _, n := range s.Names() {
			if v, ok := s.Get(n); !ok || v.Reveal() == "" {
				t.Errorf("%q is listed but not there", n)
			}
		}
	})
}

func ExampleSecret() {
	key := NewSecret("live_123_abc")
	fmt.Println(key)
	fmt.Println(bytes.Equal([]byte(key.Reveal()), []byte("live_123_abc")))
	// Output:
	// •••
	// true
}
