package webrtc

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/pion/webrtc/v4"

	"encoderd.example/stream"
)

// FuzzRequests asks for sessions by whatever methods, addresses and offers.
func FuzzRequests(f *testing.F) {
	s := newShow(f, 50)
	s.publish()
	srv := &Server{Find: func(string) *stream.Rendition { return s.Rendition }}
	var err error
	if srv.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		f.Fatal(err)
	}
	if srv.Packets, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	live := make(chan struct{})
	srv.Live = func() { close(live) }
	var running sync.WaitGroup
	running.Go(func() {
		if err := srv.Run(ctx); err != nil {
			f.Error(err)
		}
	})
	f.Cleanup(func() {
		cancel()
		running.Wait()
	})
	<-live

	good := someOffer(f)
	f.Add(http.MethodPost, "", offerType, good)
	f.Add(http.MethodPost, "", offerType, strings.ReplaceAll(good, "H264", "VP8"))
	f.Add(http.MethodPost, "", offerType, "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n")
	f.Add(http.MethodPatch, "/nobody", candidateType, "a=mid:0\r\na=candidate:1 1 udp 1 127.0.0.1 1 typ host\r\n")
	f.Add(http.MethodDelete, "/..%2f", "", "")
	f.Fuzz(func(t *testing.T, method, id, kind, body string) {
		send := func(method, path, kind, body string) *httptest.ResponseRecorder {
			r := httptest.NewRequest(http.MethodPost, "http://box/", strings.NewReader(body))
			r.Method, r.URL.Path = method, path
			r.Header.Set("Content-Type", kind)
			w := httptest.NewRecorder()
			srv.ServeHTTP(w, r)
			return w
		}
		w := send(method, "/live/main/whep"+id, kind, body)
		session := w.Header().Get("Location")
		switch {
		case w.Code == http.StatusCreated:
			if end := send(http.MethodDelete, session, "", ""); end.Code != http.StatusOK {
				t.Errorf("its end is answered with %d", end.Code)
			}
		case session != "":
			t.Errorf("%d, and a session at %q", w.Code, session)
		case w.Code == http.StatusOK, w.Code == http.StatusInternalServerError:
			t.Errorf("%s %q is answered with %d", method, id, w.Code)
		}
	})
}

// someOffer is what a browser sends.
func someOffer(tb testing.TB) string {
	tb.Helper()
	pc, err := webrtc.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		tb.Fatal(err)
	}
	defer func() {
		if err := pc.GracefulClose(); err != nil {
			tb.Error(err)
		}
	}()
	if _, err := pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
		tb.Fatal(err)
	}
	offer, err := pc.CreateOffer(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return offer.SDP
}
