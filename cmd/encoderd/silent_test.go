package main

import (
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"encoderd.example/daemon/status"
	"encoderd.example/hw/sim/picture"
	"encoderd.example/stream"
	"encoderd.example/stream/streamtest/peer"
)

// silence is a box without sound.
const silence = "[audio]\nsource = \"none\"\n"

// addresses lists what ffmpeg reads of a box, as arguments.
func (v venue) addresses(rendition string) map[string][]string {
	live := "http://" + v.web + "/live/" + rendition
	return map[string][]string{
		"RTSP TCP":       {"-rtsp_transport", "tcp", "-i", "rtsp://" + v.rtsp + "/" + rendition},
		"RTSP UDP":       {"-rtsp_transport", "udp", "-i", "rtsp://" + v.rtsp + "/" + rendition},
		"RTSP multicast": {"-rtsp_transport", "udp_multicast", "-i", "rtsp://" + v.rtsp + "/" + rendition},
		"RTSPS":          {"-rtsp_transport", "tcp", "-i", "rtsps://" + v.rtsps + "/" + rendition},
		"RTMP":           {"-i", "rtmp://" + v.rtmp + "/live/" + rendition},
		"RTMPS":          {"-i", "rtmps://" + v.rtmps + "/live/" + rendition},
		"HTTP-FLV":       {"-i", live + ".flv"},
		"HTTP MPEG-TS":   {"-i", live + ".ts"},
		"HTTP MP4":       {"-i", live + ".mp4"},
		"HLS":            {"-i", live + "/index.m3u8"},
		"DASH":           {"-i", live + "/manifest.mpd"},
	}
}

// ready waits for pictures of the camera, whatever there is to hear.
func (v venue) ready() {
	v.tb.Helper()
	v.until("pictures", func(b status.Box) bool {
		return b.Input.Signal && len(b.Renditions) > 0 &&
			!slices.ContainsFunc(b.Renditions, func(r status.Rendition) bool { return r.State != status.Live || r.Frames == 0 })
	})
	v.frames(45)
}

func TestABoxWithoutSoundPlaysEverywhereAtOnce(t *testing.T) {
	v := open(t, settings{gop: "10s", video: silence})
	v.launch()
	v.ready()
	t.Run("players", func(t *testing.T) {
		for name, input := range v.addresses("main") {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				v.playsPictureOnly(t, name, input)
			})
		}
	})
	t.Run("lists", func(t *testing.T) {
		for path, word := range map[string]string{
			"/live/index.m3u8": "mp4a", "/live/main/index.m3u8": "TYPE=AUDIO", "/live/manifest.mpd": "audio", "/live/main/manifest.mpd": "audio",
		} {
			if code, body := v.overTCP(http.MethodGet, path); code != http.StatusOK || !strings.Contains(string(body), "avc1.") || strings.Contains(string(body), word) {
				t.Errorf("%s: %d, want avc1 and no %q:\n%s", path, code, word, body)
			}
		}
	})
	t.Run("browser", func(t *testing.T) {
		p := newPage(t)
		p.Show(p.url)
		if code := p.Eval(fmt.Sprintf("whep('http://%s/live/main/whep')", v.web)); code != 201.0 {
			t.Fatalf("the offer is answered with %v", code)
		}
		p.plays(t, 60)
		if sound := p.Eval("received().then((all) => 'audio' in all)"); sound != false {
			t.Errorf("there is sound by WebRTC: %v", sound)
		}
		for _, start := range []string{"hls('http://%s/live/main/index.m3u8')", "flv('flv', 'http://%s/live/main.flv')", "dash('http://%s/live/main/manifest.mpd')"} {
			p.Show(p.url)
			p.Eval(fmt.Sprintf(start, v.web) + "; 1")
			p.plays(t, 30)
		}
	})
}

// playsPictureOnly wants an address to give pictures from the key picture on
// that is there, which shows that nobody waits for sound, and no sound.
func (v venue) playsPictureOnly(t *testing.T, name string, input []string) {
	t.Helper()
	p := v.in(t)
	const tries = 3 // a key picture may come between the wish and the connection, or a slate
	for range tries {
		asked := stream.Monotonic()
		codes := p.keepsAll(t, name, "h264", input)
		taken := codes[0].Clock(stream.Monotonic())
		if taken < asked || name == "RTSP multicast" { // what a group is sent is for those who are there
			return
		}
		t.Logf("%s: the first picture was taken %v after it was asked for", name, taken-asked)
	}
	t.Errorf("%s begins with the next key picture", name)
}

// keepsAll wants an address to give ffmpeg media of these kinds, and every
// picture once that the box did not leave out itself; where a player may lose
// some, some.
func (p *process) keepsAll(t *testing.T, name, kinds string, input []string) []picture.Code {
	t.Helper()
	before := p.now()
	file := keep(t, input...)
	if found := kindsOf(t, file); found != kinds {
		t.Errorf("%s: ffmpeg finds %q, want %q", name, found, kinds)
	}
	codes := codesOf(t, luma(t, "-i", file, "-map", "0:v"))
	switch {
	case len(codes) == 0:
		t.Fatalf("%s: no picture can be read", name)
	case mayLose(name):
		return codes
	}
	after := p.now()
	rise(t, "ffmpeg by "+name, codes, 30)
	// A late joiner is shown pictures of before it came, too.
	if n, counted := missing(codes), dropped(after)+after.Input.Slate; uint64(n) > counted {
		t.Errorf("%s: %d pictures are missing between %d, the box left out %d, of which %d before", name, n, len(codes), counted, dropped(before)+before.Input.Slate)
	}
	return codes
}

// keep has ffmpeg keep three seconds of what there is, and returns the file.
func keep(t *testing.T, input ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kept.nut")
	command := append([]string{"60", "ffmpeg", "-v", "warning"}, input...)
	command = append(command, "-map", "0", "-c", "copy", allSound, "-t", "3", file)
	if out, err := exec.CommandContext(t.Context(), "timeout", command...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return file
}

// kindsOf returns the codecs in a file, sorted.
func kindsOf(t *testing.T, file string) string {
	t.Helper()
	out := peer.Output(t, "ffprobe", "-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", file)
	return strings.Join(slices.Sorted(strings.FieldsSeq(string(out))), " ")
}

// mayLose says of which addresses a busy machine may lose pictures: by the
// nature of datagrams, and by that of ffmpeg's reader of DASH.
func mayLose(name string) bool {
	return slices.Contains([]string{"RTSP UDP", "RTSP multicast", "DASH"}, name)
}

// missing counts the gaps between pictures.
func missing(codes []picture.Code) (n uint32) {
	for i := 1; i < len(codes); i++ {
		n += codes[i].Counter - codes[i-1].Counter - 1
	}
	return n
}
