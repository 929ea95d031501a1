package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"encoderd.example/daemon/status"
)

func TestABrokenConfigIsRefusedWithFileLineKeyAndRemedy(t *testing.T) {
	const rendition = "[[rendition]]\nname = \"main\"\n"
	tests := []struct {
		name, config string
		want         []string
	}{
		{"not TOML", "[video\n", []string{"line 1"}},
		{"unknown key", "[video]\nwidht = 640\n", []string{"line 2: ", `"widht"`, "width"}},
		{"unknown table", "[vidoe]\nwidth = 640\n", []string{"line 1: ", `"vidoe"`, "video"}},
		{"odd size", "[video]\nwidth = 641\n", []string{"line 2: ", "width is odd", "640"}},
		{"text where a number belongs", "[video]\nwidth = \"wide\"\n", []string{"line 2: ", "width"}},
		{"bit rate that is none", rendition + "bitrate = \"lots\"\n", []string{"line 3: ", "bitrate is not a bit rate", `"6M"`}},
		{"bit rate out of range", rendition + "bitrate = 1\n", []string{"line 3: ", "bitrate is out of range"}},
		{"group of pictures of a minute", rendition + "gop = \"60s\"\n", []string{"line 3: ", "gop is out of range", `"2s"`}},
		{"encoder that nobody knows", rendition + "encoder = \"fast\"\n", []string{"line 3: ", `"fast"`, `"hardware"`}},
		{"two of the same name", rendition + rendition, []string{"line 4: ", "line 2", "rename"}},
		{"output without an address", "[[output]]\nname = \"a\"\nrendition = \"main\"\n", []string{"line 1: ", "url"}},
		{"output of an unknown protocol", "[[output]]\nname = \"a\"\nurl = \"gopher://x/y\"\nrendition = \"main\"\n", []string{"line 3: ", "rtmp"}},
		{"output of a rendition that is not there", "[[output]]\nname = \"a\"\nurl = \"rtmp://x/y\"\nrendition = \"mian\"\n", []string{"line 4: ", `"mian"`, `"main"`}},
		{"key that is not stored", "[[output]]\nname = \"a\"\nurl = \"rtmp://x/y\"\nkey = \"secret:none\"\nrendition = \"main\"\n", []string{"line 4: ", `"none"`, "secrets.toml"}},
		{"two servers on one port", "[serve]\nweb = \":8080\"\nrtsp = \":8080\"\n", []string{"line 3: ", "same port"}},
		{"everything at once", "[video]\nwidth = 641\nfps = 999\n[audio]\nsource = \"radio\"\n", []string{"line 2: ", "line 3: ", "line 5: "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := &process{tb: t, state: t.TempDir(), config: filepath.Join(t.TempDir(), "hall.toml")}
			p.write(p.config, tt.config)
			for _, command := range []string{"run", "check"} {
				code, stdout, stderr := p.command(command, "--board", "sim", "--state", p.state, "--config", p.config)
				if code != exitConfig || !containsAll(stderr, append(tt.want, p.config)...) || stdout != "" {
					t.Errorf("%s: exit code %d, stdout %q, stderr:\n%swant %q", command, code, stdout, stderr, tt.want)
				}
			}
		})
	}
}

func TestAMissingConfigFileThatWasNamedIsRefused(t *testing.T) {
	p := &process{tb: t, state: t.TempDir()}
	code, _, stderr := p.command("run", "--board", "sim", "--state", p.state, "--config", "/nowhere/hall.toml")
	if code != exitConfig || !containsAll(stderr, "/nowhere/hall.toml", "no such file") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

// Without libx264 the box is of no use, but it says so on its page.
func TestWithoutAnEncoderThePageStaysUpAndSaysWhatToInstall(t *testing.T) {
	p := prepare(t, settings{})
	p.launch("LD_LIBRARY_PATH=" + withoutX264(t))
	b := p.until("the fault", func(b status.Box) bool { return b.Has(status.EncoderMissing) })
	if b.State != status.Broken || !containsAll(b.Faults[0].Text, "apt-get install", "libx264") {
		t.Errorf("state %s, faults %+v", b.State, b.Faults)
	}
	for path, want := range map[string]int{"/": http.StatusOK, "/healthz": http.StatusServiceUnavailable, "/metrics": http.StatusOK, "/api/v1/status": http.StatusOK} {
		if code, body := p.overTCP(http.MethodGet, path); code != want {
			t.Errorf("%s answers %d, want %d: %s", path, code, want, body)
		}
	}
	if answer := p.describe("main"); answer != "RTSP/1.0 404 Not Found" && answer != "RTSP/1.0 503 Service Unavailable" {
		t.Errorf("DESCRIBE of a rendition without encoder: %q", answer)
	}
}

// withoutX264 returns a folder that hides the system's library: the linker
// finds these files first, and they are no libraries.
func withoutX264(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for build := 100; build < 200; build++ {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("libx264.so.%d", build)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// describe returns the first line of the answer to DESCRIBE.
func (p *process) describe(rendition string) string {
	p.tb.Helper()
	c, err := net.DialTimeout("tcp", p.rtsp, patience)
	if err != nil {
		p.tb.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(c, "DESCRIBE rtsp://%s/%s RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n", p.rtsp, rendition)
	buf := make([]byte, 64)
	n, err := io.ReadAtLeast(c, buf, 16)
	if err != nil {
		p.tb.Fatal(err)
	}
	line, _, _ := strings.Cut(string(buf[:n]), "\r\n")
	return line
}
