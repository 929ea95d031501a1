package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"encoderd.example/stream/streamtest/peer"
)

// libraries are the players for pages that others wrote, below node_modules.
var libraries = []string{"hls.js/dist/hls.min.js", "dashjs/dist/modern/umd/dash.all.min.js", "mpegts.js/dist/mpegts.js"}

// fetchLibraries has npm fetch what the lock file pins, once, and returns the
// folder of modules.
func fetchLibraries(t *testing.T) string {
	t.Helper()
	cache := filepath.Join("..", "..", ".cache", "npm")
	changed := false
	for _, name := range []string{"package.json", "package-lock.json"} {
		want, err := os.ReadFile(filepath.Join("testdata", "browser", name))
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(cache, name)
		if have, _ := os.ReadFile(file); string(have) == string(want) {
			continue
		}
		changed = true
		if err := os.MkdirAll(cache, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	modules := filepath.Join(cache, "node_modules")
	for _, l := range libraries {
		_, err := os.Stat(filepath.Join(modules, l))
		changed = changed || err != nil
	}
	if changed {
		peer.Output(t, "npm", "ci", "--prefix", cache, "--ignore-scripts", "--no-audit", "--no-fund")
	}
	return modules
}

// A page is a browser that shows the players' page, which is of another site
// than the box.
type page struct {
	*peer.Chromium
	url  string
	kept string // file of what the page has handed over
}

// newPage serves the page and starts a browser.
func newPage(t *testing.T) *page {
	t.Helper()
	modules := fetchLibraries(t)
	p := &page{kept: filepath.Join(t.TempDir(), "kept.flv")}
	var scripts strings.Builder
	mux := http.NewServeMux()
	for i, l := range libraries {
		fmt.Fprintf(&scripts, "<script src=\"/%d.js\"></script>", i)
		mux.HandleFunc(fmt.Sprintf("GET /%d.js", i), func(w http.ResponseWriter, r *http.Request) {
			http.ServeFile(w, r, filepath.Join(modules, l))
		})
	}
	mux.HandleFunc("GET /page.js", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, filepath.Join("testdata", "browser", "page.js"))
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "<!doctype html><link rel=icon href=data:><video muted playsinline width=320></video>"+scripts.String()+`<script src="/page.js"></script>`)
	})
	mux.HandleFunc("POST /kept", func(_ http.ResponseWriter, r *http.Request) {
		all, err := io.ReadAll(r.Body)
		if err == nil {
			err = os.WriteFile(p.kept, all, 0o600)
		}
		if err != nil {
			t.Error(err)
		}
	})
	site := httptest.NewServer(mux)
	t.Cleanup(func() {
		site.CloseClientConnections()
		site.Close()
	})
	p.url = site.URL + "/"
	p.Chromium = peer.StartChromium(t)
	return p
}

// played is what the page says of its video.
type played struct {
	Frames, Dropped, Width int
	Time                   float64
	Problems               []string
}

// evaluate runs an expression in the page and returns its value.
func evaluate[T any](t *testing.T, p *page, expression string) (v T) {
	t.Helper()
	doc, err := json.Marshal(p.Eval(expression))
	if err == nil {
		err = json.Unmarshal(doc, &v)
	}
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// plays waits until the page has shown so many pictures more.
func (p *page) plays(t *testing.T, more int) played {
	t.Helper()
	first := evaluate[played](t, p, "state()")
	var now played
	peer.Await(t, fmt.Sprintf("%d more pictures in the browser", more), func() bool {
		now = evaluate[played](t, p, "state()")
		if len(now.Problems) > 0 {
			t.Fatalf("the player says %q", now.Problems)
		}
		return now.Frames >= first.Frames+more
	})
	return now
}

func TestABrowserPlaysByEveryMeans(t *testing.T) {
	v := open(t, settings{sub: true})
	v.begin()
	p := newPage(t)
	live := v.web + "/live/"
	t.Run("WHEP", func(t *testing.T) { v.whep(t, p) })
	for name, start := range map[string]string{
		"HLS, hls.js":               fmt.Sprintf("hls('http://%s')", live+"main/index.m3u8"),
		"HTTP-FLV, mpegts.js":       fmt.Sprintf("flv('flv', 'http://%s')", live+"main.flv"),
		"WebSocket-FLV, mpegts.js":  fmt.Sprintf("flv('flv', 'ws://%s')", live+"main.flv"),
		"HTTP MPEG-TS, mpegts.js":   fmt.Sprintf("flv('mpegts', 'http://%s')", live+"main.ts"),
		"DASH, one size, dash.js":   fmt.Sprintf("dash('http://%s')", live+"main/manifest.mpd"),
		"HLS, hls.js, of all sizes": fmt.Sprintf("hls('http://%s')", live+"index.m3u8"),
	} {
		t.Run(name, func(t *testing.T) {
			p.Show(p.url)
			p.Eval(start + "; 1")
			got := p.plays(t, 60)
			t.Logf("%+v", got)
		})
	}
	for name, start := range map[string]string{
		"one viewer, hls.js":  fmt.Sprintf("hls('http://%s')", live+"main/video.m3u8"),
		"one viewer, dash.js": fmt.Sprintf("dash('http://%s')", live+"main/manifest.mpd"),
	} {
		t.Run(name, func(t *testing.T) {
			p.Show(p.url)
			p.Eval(start + "; 1")
			p.plays(t, 30)
			q := v.in(t)
			q.until("one viewer", watched(1))
			p.plays(t, 90)
			q.until("one viewer still", watched(1))
		})
	}
	t.Run("WebSocket-FLV, every picture", func(t *testing.T) { v.keepsFLV(t, p) })
	t.Run("DASH switches when the line is slow", func(t *testing.T) { v.switches(t, p) })
	t.Run("Opus ends", func(t *testing.T) { v.in(t).logged("no browser is left") })
}

// whep plays by WebRTC, with sound that is coded for it alone.
func (v venue) whep(t *testing.T, p *page) {
	t.Helper()
	q := v.in(t)
	if strings.Contains(v.stderr.String(), "for browsers") {
		t.Error("Opus is coded before a browser came")
	}
	p.Show(p.url)
	if code := p.Eval(fmt.Sprintf("whep('http://%s/live/main/whep')", v.web)); code != 201.0 {
		t.Fatalf("the offer is answered with %v", code)
	}
	p.plays(t, 150)
	q.logged("for browsers")
	type medium struct {
		FramesDecoded, FramesDropped, FreezeCount, PacketsLost, PacketsReceived int
		TotalSamplesReceived, ConcealedSamples                                  float64
		TotalAudioEnergy                                                        float64
	}
	var video, audio medium
	defer func() { t.Logf("picture %+v, sound %+v", video, audio) }()
	peer.Await(t, "sound in the browser", func() bool {
		stats := evaluate[map[string]medium](t, p, "received()")
		video, audio = stats["video"], stats["audio"]
		return audio.TotalAudioEnergy > 0 && audio.TotalSamplesReceived > 4*sampleRate
	})
	// A busy machine drops datagrams and holds up the browser; what lasts is
	// ours.
	if video.FramesDecoded < 150 || video.FreezeCount > 3 || video.PacketsLost*100 > video.PacketsReceived {
		t.Errorf("the picture: %+v", video)
	}
	if audio.PacketsLost*100 > audio.PacketsReceived {
		t.Errorf("the sound: %+v", audio)
	}
	if code := p.Eval("hangUp()"); code != 200.0 {
		t.Errorf("DELETE is answered with %v", code)
	}
	q.until("the browser to be gone from the list", watched(0))
}

// keepsFLV counts what a browser's WebSocket gets.
func (v venue) keepsFLV(t *testing.T, p *page) {
	t.Helper()
	p.Show(p.url)
	q := v.in(t)
	before := q.now()
	p.Eval(fmt.Sprintf("keep('ws://%s/live/main.flv', 6000)", v.web))
	m := decode(t, p.kept, 320, 180)
	if n := len(m.pictures); n < 150 {
		t.Errorf("%d pictures", n)
	}
	m.whole(t, before, q.now())
	m.inStep(t, 4)
}

// switches wants dash.js to go down to the small picture on a slow line, and
// up again.
func (v venue) switches(t *testing.T, p *page) {
	t.Helper()
	p.Show(p.url)
	p.Eval(fmt.Sprintf("dash('http://%s/live/manifest.mpd'); 1", v.web))
	width := func(w int) func() bool {
		return func() bool {
			now := evaluate[played](t, p, "state()")
			if len(now.Problems) > 0 {
				t.Fatalf("the player says %q", now.Problems)
			}
			return now.Width == w
		}
	}
	peer.Await(t, "the large picture", width(320))
	p.plays(t, 30)
	const slow = 55_000 // bytes/s: enough for small picture and sound, too little for the large one
	p.Throttle(slow)
	peer.Await(t, "the small picture on a slow line", width(160))
	small := p.plays(t, 30)
	p.Throttle(0)
	peer.Await(t, "the large picture on a fast line", width(320))
	t.Logf("small: %+v, large again: %+v", small, p.plays(t, 30))
}
