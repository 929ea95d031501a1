//go:build board

// The example on a real kernel: the guest of the virtual board, with vivid and
// vh264enc.

package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"encoderd.example/hw/boards"
)

// A journal is where the example logs to.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

// watch lets a peer play what the example at an address shows, until n pictures
// are there.
func watch(t *testing.T, address string, n int) {
	t.Helper()
	var network webrtc.SettingEngine
	network.SetIncludeLoopbackCandidate(true)
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(network)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := pc.GracefulClose(); err != nil {
			t.Error(err)
		}
	}()
	enough := make(chan error, 1)
	pc.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for seen := 0; seen < n; {
			p, _, err := track.ReadRTP()
			if err != nil {
				enough <- err
				return
			}
			if p.Marker {
				seen++
			}
		}
		enough <- nil
	})
	if _, err := pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
		t.Fatal(err)
	}
	offer, err := pc.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(offer); err != nil {
		t.Fatal(err)
	}
	<-gathered
	response, err := http.Post(address+"/offer", "application/sdp", strings.NewReader(pc.LocalDescription().SDP))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v: %s", response.Status, err, answer)
	}
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: string(answer)}); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-enough:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(2 * time.Minute):
		t.Errorf("%d pictures never came", n)
	}
}

func TestBoardShowsTheCameraByHardwareWithoutACopy(t *testing.T) {
	board, err := boards.Find("virt", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	log := &journal{}
	go func() {
		ended <- run(ctx, board, options{width: 640, height: 360, fps: 15, bitrate: 500_000}, listener, slog.New(slog.NewTextHandler(log, nil)))
	}()
	watch(t, "http://"+listener.Addr().String(), 30)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	for _, want := range []string{"name=v4l2:vh264enc hardware=true", `msg="encoder ends"`, "swallowed=0 copied_bytes=0"} {
		if !strings.Contains(log.text.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, &log.text)
		}
	}
}
