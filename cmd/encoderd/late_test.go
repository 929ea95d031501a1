package main

import (
	"net/http"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"encoderd.example/hw/sim/picture"
	"encoderd.example/stream"
	"encoderd.example/stream/streamtest/peer"
)

// With ten seconds from key picture to key picture, who has to wait for the
// next one would show a picture that was taken after the request.
func TestWhoComesLateGetsTheKeyPictureThatIsThere(t *testing.T) {
	v := open(t, settings{gop: "10s"})
	v.begin()
	v.frames(15)
	live := "http://" + v.web + "/live/main"
	for name, input := range map[string][]string{
		"RTSP TCP":     {"-rtsp_transport", "tcp", "-i", "rtsp://" + v.rtsp + "/main"},
		"RTSP UDP":     {"-rtsp_transport", "udp", "-i", "rtsp://" + v.rtsp + "/main"},
		"RTSPS":        {"-rtsp_transport", "tcp", "-i", "rtsps://" + v.rtsps + "/main"},
		"RTMP":         {"-i", "rtmp://" + v.rtmp + "/live/main"},
		"RTMPS":        {"-i", "rtmps://" + v.rtmps + "/live/main"},
		"HTTP-FLV":     {"-i", live + ".flv"},
		"HTTP MPEG-TS": {"-i", live + ".ts"},
		"HTTP MP4":     {"-i", live + ".mp4"},
	} {
		t.Run(name, func(t *testing.T) {
			asked := stream.Monotonic()
			first(t, asked, input...)
		})
	}
	t.Run("HLS", func(t *testing.T) {
		asked := stream.Monotonic()
		file := filepath.Join(t.TempDir(), "part.mp4")
		if err := os.WriteFile(file, v.firstPart(t), 0o600); err != nil {
			t.Fatal(err)
		}
		first(t, asked, "-i", file)
	})
}

// first wants the first picture of an input to be older than the wish for it.
func first(t *testing.T, asked time.Duration, input ...string) {
	t.Helper()
	const w, h = 320, 180
	args := append([]string{"-v", "error"}, input...)
	luma := peer.Output(t, "ffmpeg", append(args, "-map", "0:v:0", "-frames:v", "1", "-pix_fmt", "gray", "-f", "rawvideo", "-")...)
	if len(luma) != w*h {
		t.Fatalf("%d bytes of a picture, want %d", len(luma), w*h)
	}
	code, ok := picture.Read(luma, w, w, h)
	if !ok {
		t.Fatal("the picture carries no code")
	}
	taken := code.Clock(stream.Monotonic())
	t.Logf("picture %d, taken %v before it was asked for", code.Counter, (asked - taken).Round(time.Millisecond))
	if taken >= asked {
		t.Errorf("the first picture was taken %v after it was asked for", taken-asked)
	}
}

// firstPart returns the beginning of the HLS stream: header and the part with
// the key picture, which a list that is asked for now must hold.
func (v venue) firstPart(t *testing.T) []byte {
	t.Helper()
	find := func(list []byte, pattern string) string {
		m := regexp.MustCompile(pattern).FindSubmatch(list)
		if m == nil {
			t.Fatalf("no %s in\n%s", pattern, list)
		}
		return string(m[1])
	}
	fetch := func(address string) []byte {
		code, body := v.overTCP(http.MethodGet, address)
		if code != http.StatusOK {
			t.Fatalf("%s: %d\n%s", address, code, body)
		}
		return body
	}
	const root = "/live/main/"
	list := root + find(fetch(root+"index.m3u8"), `(?m)^(hls/.*video\.m3u8)$`)
	dir := path.Dir(list) + "/"
	media := fetch(list)
	header := fetch(dir + find(media, `#EXT-X-MAP:URI="([^"]+)"`))
	return append(header, fetch(dir+find(media, `#EXT-X-PART:[^\n]*URI="([^"]+)"[^\n]*INDEPENDENT=YES`))...)
}
