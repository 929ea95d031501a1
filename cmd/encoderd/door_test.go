package main

import (
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/pion/webrtc/v4"

	"encoderd.example/daemon/status"
	"encoderd.example/stream/streamtest/peer"
)

// probe has ffprobe read an address, and reports what it says and whether it
// found picture and sound.
func probe(t *testing.T, url string) (said string, ok bool) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "timeout", "30", "ffprobe", "-v", "info", "-rtsp_transport", "tcp",
		"-show_entries", "stream=codec_name", "-of", "csv", url).CombinedOutput()
	return string(out), err == nil && containsAll(string(out), "stream,h264", "stream,aac")
}

// refused wants an address to be refused to ffprobe with a word.
func refused(t *testing.T, url, word string) {
	t.Helper()
	if said, ok := probe(t, url); ok || !strings.Contains(said, word) {
		t.Errorf("%s: want it refused with %q:\n%s", url, word, said)
	}
}

// welcome wants an address to be served to ffprobe.
func welcome(t *testing.T, url string) {
	t.Helper()
	if said, ok := probe(t, url); !ok {
		t.Errorf("%s is refused:\n%s", url, said)
	}
}

// offer is what a browser sends to watch by WHEP.
func offer(t *testing.T) string {
	t.Helper()
	pc, err := webrtc.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := pc.GracefulClose(); err != nil {
			t.Error(err)
		}
	}()
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeVideo, webrtc.RTPCodecTypeAudio} {
		if _, err := pc.AddTransceiverFromKind(kind, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
			t.Fatal(err)
		}
	}
	sdp, err := pc.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	return sdp.SDP
}

// whepCode sends an offer and returns the answer's status; a session that
// begins is ended.
func (v venue) whepCode(t *testing.T, sdp, authorization string) int {
	t.Helper()
	send := func(method, url, body string) (code int, location string) {
		req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Close = true
		req.Header.Set("Content-Type", "application/sdp")
		if authorization != "" {
			req.Header.Set("Authorization", authorization)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header.Get("Location")
	}
	code, session := send(http.MethodPost, "http://"+v.web+"/live/main/whep", sdp)
	if code == http.StatusCreated {
		if end, _ := send(http.MethodDelete, "http://"+v.web+session, ""); end != http.StatusOK {
			t.Errorf("DELETE is answered with %d", end)
		}
	}
	return code
}

// link asks the command line for a link.
func (v venue) link(rendition string) (token string) {
	v.tb.Helper()
	code, out, stderr := v.command("link", "--state", v.state, "--for", "1h", rendition)
	token = strings.TrimSpace(strings.TrimPrefix(out, "?token="))
	if code != exitOK || token == "" || "?token="+token+"\n" != out {
		v.tb.Fatalf("encoderd link: exit code %d, %q, %s", code, out, stderr)
	}
	return token
}

func TestWhoMayWatch(t *testing.T) {
	const byPassword = "access = \"password\"\nuser = \"hall\"\npassword = \"secret:canary\"\n"
	v := open(t, settings{sub: true, watch: byPassword})
	v.begin()
	main, sub := v.link("main"), v.link("sub")
	sdp := offer(t)
	rtsp, rtmp, live := v.rtsp+"/main", "rtmp://"+v.rtmp+"/live/main", v.web+"/live/main"
	login := "hall:" + canary + "@"

	t.Run("by password", func(t *testing.T) {
		welcome(t, "rtsp://"+login+rtsp) // digest
		refused(t, "rtsp://"+rtsp, "401")
		refused(t, "rtsp://hall:wrong@"+rtsp, "401")
		welcome(t, "http://"+login+live+".flv")
		welcome(t, "http://"+login+live+"/index.m3u8")
		refused(t, "http://"+live+"/index.m3u8", "401")
		refused(t, "http://hall:wrong@"+live+".ts", "401")
		refused(t, rtmp, "needs a password or a link")
		if code := v.whepCode(t, sdp, ""); code != http.StatusUnauthorized {
			t.Errorf("WHEP without credentials: %d", code)
		}
	})
	byLink := func(t *testing.T) {
		t.Helper()
		for _, address := range []string{"http://" + live + "/index.m3u8", "http://" + live + "/manifest.mpd", "http://" + live + ".mp4", "http://" + live + ".flv", rtmp, "rtsp://" + rtsp} {
			welcome(t, address+"?token="+main)
			refused(t, address+"?token="+sub, "")
		}
		if code := v.whepCode(t, sdp, "Bearer "+main); code != http.StatusCreated {
			t.Errorf("WHEP with a link: %d", code)
		}
		if code := v.whepCode(t, sdp, "Bearer "+sub); code != http.StatusForbidden {
			t.Errorf("WHEP with a link to another rendition: %d", code)
		}
		if code, _ := v.overTCP(http.MethodGet, "/live/main.jpg?token="+main); code != http.StatusOK {
			t.Errorf("a still with a link: %d", code)
		}
		if code, _ := v.overTCP(http.MethodGet, "/live/main.jpg"); code != http.StatusUnauthorized {
			t.Errorf("a still without: %d", code)
		}
	}
	t.Run("by link instead", byLink)

	t.Run("the door changes, who is inside stays", func(t *testing.T) {
		w := peer.Start(t, "ffmpeg", "-v", "warning", "-i", "rtsp://"+login+rtsp, "-c", "copy", "-f", "null", "-")
		byRTSP := func(b status.Box) (inside []status.Reader) {
			for _, r := range b.Readers {
				if strings.HasPrefix(r.Protocol, "rtsp") {
					inside = append(inside, r)
				}
			}
			return inside
		}
		q := v.in(t)
		before := q.until("somebody inside", func(b status.Box) bool { return len(byRTSP(b)) == 1 && byRTSP(b)[0].Bytes > 0 })
		v.configure(settings{sub: true, watch: "access = \"link\"\n"})
		q.do("config.reload")
		refused(t, "rtsp://"+login+rtsp, "403")
		refused(t, "http://"+login+live+".flv", "403")
		welcome(t, "http://"+live+".flv?token="+main)
		q.frames(30)
		was, is := byRTSP(before), byRTSP(q.now())
		if len(is) != 1 || is[0].Peer != was[0].Peer || is[0].Bytes <= was[0].Bytes || is[0].Lost > 0 {
			t.Errorf("who was inside was %+v, is %+v\n%s", was, is, w.Log())
		}
	})

	code, report := v.overTCP(http.MethodGet, "/api/v1/usage.csv")
	if code != http.StatusOK || !containsAll(string(report), "main,rtsp", "main,rtmp", "main,hls", "main,dash", "main,webrtc") {
		t.Errorf("the usage report: %d\n%s", code, report)
	}
	_, state, err := v.get("/api/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	v.stop()
	for what, text := range map[string]string{"status": string(state), "log": v.stderr.String(), "usage report": string(report)} {
		for _, secret := range []string{canary, main, sub} {
			if strings.Contains(text, secret) {
				t.Errorf("%s holds %q", what, secret)
			}
		}
	}
}

func TestTheThirdOfTwoViewersIsRefusedByEveryProtocol(t *testing.T) {
	v := open(t, settings{watch: "readers = 2\n"})
	v.begin()
	inside := crowd(t, v.process, 2, false)
	before := v.until("two inside", watched(2))
	rtsp, live := "rtsp://"+v.rtsp+"/main", "http://"+v.web+"/live/main"
	refused(t, rtsp, "453")
	refused(t, "rtmp://"+v.rtmp+"/live/main", "too many viewers")
	for _, address := range []string{live + ".flv", live + ".ts", live + ".mp4", live + "/index.m3u8", live + "/manifest.mpd"} {
		refused(t, address, "503")
	}
	if code := v.whepCode(t, offer(t), ""); code != http.StatusServiceUnavailable {
		t.Errorf("WHEP: %d", code)
	}
	v.configure(settings{watch: "readers = 3\n"})
	v.do("config.reload")
	welcome(t, rtsp)
	sameReaders(t, before, v.until("the two alone again", watched(2)))
	for i, pl := range inside {
		if pl.ended.Load() || pl.lost.Load() > 0 {
			t.Errorf("player %d inside lost %d packets, ended: %t", i, pl.lost.Load(), pl.ended.Load())
		}
	}
}
