package out_test

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"encoderd.example/stream/out"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ExampleRedact() {
	fmt.Println(out.Redact("rtmps://user:pass@live.example.org:443/app/key?token=1"))
	// Output: rtmps://live.example.org:443/app/•••
}

func TestCheckSaysWhatIsWrong(t *testing.T) {
	tests := []struct{ name, url, want string }{
		{"a plain address", "rtmp://host/app", ""},
		{"everything at once", "RTMPS://user:p%40ss@[::1]:443/app/more/key?sign=a/b", ""},
		{"the key in the address", "rtmp://host/app/key", ""},
		{"no scheme", "host/app", "the address has no scheme: known are rtmp://, rtmps://"},
		{"an unknown scheme", "rtmpt://host/app", "the address has an unknown scheme: known are rtmp://, rtmps://"},
		{"no host", "rtmp:///app", "the address has no host: write rtmp://host/app"},
		{"no application", "rtmp://host", "the address has no application: write rtmp://host/app"},
		{"no application but a slash", "rtmp://host/", "the address has no application: write rtmp://host/app"},
		{"a bad port", "rtmp://host:canary/app", "the address has a bad host: write rtmp://host/app"},
		{"a port that is too high", "rtmp://host:99999/app", "the address has a bad port: ports go from 1 to 65535"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if err := out.Check(tt.url); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestOpenNeedsAKey(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	if _, err := out.Open("rtmp://host/app", "", log); err == nil || !strings.Contains(err.Error(), "key is missing") {
		t.Errorf("got %v", err)
	}
	for _, url := range []string{"rtmp://host/app/key", "rtmps://host/app/key"} {
		if p, err := out.Open(url, "", log); err != nil || p == nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	if p, err := out.Open("srt+x://host", "k", log); err == nil || p != nil {
		t.Errorf("opened %v", p)
	}
}

func TestEverySchemeOfTheListIsKnown(t *testing.T) {
	if !slices.Equal(out.Schemes(), []string{"rtmp", "rtmps"}) {
		t.Errorf("got %v", out.Schemes())
	}
	for _, s := range out.Schemes() {
		if err := out.Check(s + "://host/app"); err != nil {
			t.Error(err)
		}
	}
}

func FuzzAddressesNeverLeak(f *testing.F) {
	f.Add("app", "key")
	f.Add("app/more?x=1", "")
	f.Add("", "\n")
	f.Add(":1/app", "%zz")
	f.Fuzz(func(t *testing.T, rest, key string) {
		const secret = "canary:canary@"
		url := "rtmp://" + secret + "host/" + rest
		_ = out.Check(rest)
		_, err := out.Open(url, key, slog.New(slog.DiscardHandler))
		if text := fmt.Sprint(out.Redact(url), out.Redact(rest), out.Check(url), err); strings.Contains(text, secret) {
			t.Errorf("%q with %q says %q", url, key, text)
		}
	})
}
