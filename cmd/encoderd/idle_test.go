package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/stream/streamtest/peer"
)

// workers counts the goroutines that serve, by the function of ours that each
// began with: what goes on in a box that runs in the test's own process.
func workers() map[string]int {
	all := make([]byte, 1<<20)
	for {
		n := runtime.Stack(all, true)
		if n < len(all) {
			all = all[:n]
			break
		}
		all = make([]byte, 2*len(all))
	}
	count := map[string]int{}
	for stack := range bytes.SplitSeq(all, []byte("\n\n")) {
		if root := rootOf(string(stack)); root != "" {
			count[root]++
		}
	}
	return count
}

// rootOf returns the outermost function of package stream and below in a
// goroutine's stack, "" if there is none.
func rootOf(stack string) (root string) {
	const ours = "encoderd.example/stream"
	for line := range strings.Lines(stack) {
		if name, ok := strings.CutPrefix(line, ours); ok && !strings.HasPrefix(name, "/streamtest") {
			root = name[:max(strings.LastIndex(name, "("), 0)]
		}
	}
	return root
}

// more returns what there is now more than before.
func more(before, now map[string]int) map[string]int {
	maps.DeleteFunc(now, func(root string, n int) bool { return n <= before[root] })
	return now
}

// TestNobodyWatchesNobodyWorks has somebody watch by each protocol for a moment:
// what packs media for that must come with the first and go with the last.
func TestNobodyWatchesNobodyWorks(t *testing.T) {
	v := open(t, settings{})
	v.runInside(softwareBoard(t))
	v.until("the box on duty", onDuty)
	v.frames(30)
	idle := workers()
	addresses := v.addresses("main")
	addresses["MJPEG"] = []string{"-f", "mpjpeg", "-i", "http://" + v.web + "/live/main.mjpeg"}
	for _, c := range []struct{ name, protocol, work string }{
		{"RTSP TCP", "rtsp", "/rtsp."},
		{"RTSP UDP", "rtsp", "/rtsp."},
		{"RTSP multicast", "rtsp", "/rtsp."},
		{"RTSPS", "rtsp", "/rtsp."},
		{"RTMP", "rtmp", "/rtmp."},
		{"RTMPS", "rtmps", "/rtmp."},
		{"HTTP-FLV", "http-flv", "/httplive."},
		{"HTTP MPEG-TS", "http-ts", ".(*Feed"},
		{"HTTP MP4", "http-mp4", ".(*Feed"},
		{"MJPEG", "mjpeg", "/mjpeg."},
	} {
		t.Run(c.name, func(t *testing.T) {
			v.worksFor(t, idle, c.protocol, c.work, addresses[c.name])
			v.in(t).rests(idle)
		})
	}
	t.Run("WebRTC", func(t *testing.T) {
		pg := newPage(t)
		pg.Show(pg.url)
		if code := pg.Eval(fmt.Sprintf("whep('http://%s/live/main/whep')", v.web)); code != 201.0 {
			t.Fatalf("the offer is answered with %v", code)
		}
		pg.plays(t, 30)
		if now := fmt.Sprint(more(idle, workers())); !containsAll(now, "/webrtc.", ".(*Feed") {
			t.Errorf("no feed for WebRTC is at work among %v", now)
		}
		pg.Eval("hangUp()")
		v.in(t).rests(idle)
	})
	t.Run("segments", func(t *testing.T) {
		v.worksFor(t, idle, "hls", "/cmaf.", addresses["HLS"])
		v.worksFor(t, idle, "dash", "/cmaf.", addresses["DASH"])
		v.in(t).rests(idle) // half a minute later: a player that pauses a moment finds them
	})
	t.Run("still", func(t *testing.T) {
		if code, _ := v.overTCP(http.MethodGet, "/live/main.jpg"); code != http.StatusOK {
			t.Errorf("status %d", code)
		}
		v.in(t).rests(idle)
	})
}

// worksFor has ffmpeg watch until it has got something, and wants work to be
// done for it.
func (v venue) worksFor(t *testing.T, idle map[string]int, protocol, work string, input []string) {
	t.Helper()
	began := time.Now()
	args := append([]string{"-v", "error"}, input...)
	pl := peer.Start(t, "ffmpeg", append(args, "-c", "copy", "-f", "null", "-")...)
	v.in(t).until("a viewer by "+protocol, func(b status.Box) bool {
		return slices.ContainsFunc(b.Readers, func(r status.Reader) bool {
			return strings.HasPrefix(r.Protocol, protocol) && r.Since.After(began) && r.Bytes > 0
		})
	})
	now := more(idle, workers())
	t.Logf("at work: %v", now)
	if !strings.Contains(fmt.Sprint(now), work) {
		t.Errorf("nothing of %q is at work among %v", work, now)
	}
	pl.Kill()
}

// rests waits until the box works for nobody.
func (p *process) rests(idle map[string]int) {
	p.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	var now map[string]int
	if !peer.Until(ctx, 50*time.Millisecond, func() bool {
		now = more(idle, workers())
		return len(now) == 0
	}) {
		p.tb.Errorf("nobody watches, yet at work are %v", now)
	}
}
