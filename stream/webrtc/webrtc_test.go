package webrtc

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	pionrtp "github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
	"go.uber.org/goleak"

	"encoderd.example/stream"
	"encoderd.example/stream/h264"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// until waits for a condition that another goroutine brings about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain: %s", patience, what)
		}
		<-tick.C
	}
}

// A show is a rendition that needs no encoder: pictures and sounds carry
// their number.
type show struct {
	*stream.Rendition

	video, sound *stream.Track
	gop          int

	mu   sync.Mutex
	n    int
	keys int
	size int
}

var sps = []byte{0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x2f, 0xf9, 0x61, 0, 0, 3, 0, 1, 0, 0, 3, 0, 0x3c, 0x0f, 0x16, 0x2e, 0x48}

func newShow(tb testing.TB, gop int) *show {
	tb.Helper()
	avcC, err := h264.ConfigRecord(sps, []byte{0x68, 0xcb, 0x8c, 0xb2})
	if err != nil {
		tb.Fatal(err)
	}
	return &show{
		Rendition: stream.NewRendition("main", 1024, stream.H264, stream.AAC, stream.Opus),
		video:     &stream.Track{Codec: stream.H264, Setup: avcC, Width: 640, Height: 360, FPS: 50},
		sound:     &stream.Track{Codec: stream.Opus, Rate: 48000, Channels: 2},
		gop:       gop,
		size:      3000,
	}
}

// publish publishes one picture and the sound that goes with it. Somebody's
// wish makes it a key picture.
func (s *show) publish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := s.n%s.gop == 0
	select {
	case <-s.KeyWanted():
		key = true
	default:
	}
	if key {
		s.keys++
	}
	at := time.Hour + time.Duration(s.n)*20*time.Millisecond
	data := make([]byte, 4+s.size)
	binary.BigEndian.PutUint32(data, uint32(s.size))
	data[4] = 0x41
	if key {
		data[4] = 0x65
	}
	binary.BigEndian.PutUint32(data[5:], uint32(s.n)|1<<30) // no start code in it
	s.Publish(&stream.Unit{Track: s.video, Key: key, PTS: at, DTS: at, Data: data})
	s.Publish(&stream.Unit{Track: &stream.Track{Codec: stream.AAC, Rate: 48000, Channels: 2, Setup: []byte{0x11, 0x90}}, PTS: at, DTS: at, Data: []byte{1}})
	s.Publish(&stream.Unit{Track: s.sound, PTS: at, DTS: at, Duration: 20 * time.Millisecond, Data: []byte{0xfc, byte(s.n)}})
	s.n++
}

func (s *show) live(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			s.publish()
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

// start runs srv behind an HTTP server and returns the address of the show.
func start(t *testing.T, s *show, srv *Server) (url string) {
	t.Helper()
	url, _ = begin(t, s, srv)
	return url
}

func listenTCP(t *testing.T, addr string) net.Listener {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// begin is start for tests that end the server: stop returns when Run does,
// while the HTTP server goes on.
func begin(t *testing.T, s *show, srv *Server) (url string, stop func()) {
	t.Helper()
	var lc net.ListenConfig
	var err error
	if srv.Listener == nil {
		srv.Listener = listenTCP(t, cmp.Or(srv.Addr, "127.0.0.1:0"))
	}
	if srv.Packets, err = lc.ListenPacket(t.Context(), "udp", srv.Listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	srv.Find = func(name string) *stream.Rendition {
		if name == s.Name {
			return s.Rendition
		}
		return nil
	}
	srv.Loopback = true
	srv.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := srv.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	web := httptest.NewServer(srv)
	stop = func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(func() {
		web.Close()
		stop()
	})
	until(t, "the server runs", func() bool { return srv.running() != nil })
	return web.URL + "/live/main/whep", stop
}

// A player is a WebRTC client that counts.
type player struct {
	pc                      *webrtc.PeerConnection
	url                     string // of the session
	etag                    string
	video, sound, reports   atomic.Int64
	first, latest, disorder atomic.Int64 // picture numbers; pictures out of order
	lostPackets             atomic.Int64
	ssrc                    atomic.Uint32
}

func newPlayer(t *testing.T, network ...webrtc.NetworkType) *player {
	t.Helper()
	engine := &webrtc.MediaEngine{}
	if err := engine.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	chain := &interceptor.Registry{}
	if err := webrtc.RegisterDefaultInterceptors(engine, chain); err != nil {
		t.Fatal(err)
	}
	var settings webrtc.SettingEngine
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetNetworkTypes(network)
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(engine), webrtc.WithInterceptorRegistry(chain), webrtc.WithSettingEngine(settings)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	p := &player{pc: pc}
	p.first.Store(-1)
	p.latest.Store(-1)
	t.Cleanup(func() { _ = pc.GracefulClose() })
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeVideo, webrtc.RTPCodecTypeAudio} {
		if _, err := pc.AddTransceiverFromKind(kind, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
			t.Fatal(err)
		}
	}
	pc.OnTrack(p.receive)
	return p
}

func (p *player) receive(track *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	go func() {
		for {
			packets, _, err := receiver.ReadRTCP()
			if err != nil {
				return
			}
			for _, r := range packets {
				if sr, ok := r.(*rtcp.SenderReport); ok && sr.SSRC == uint32(track.SSRC()) {
					p.reports.Add(1)
				}
			}
		}
	}()
	if track.Kind() == webrtc.RTPCodecTypeVideo {
		p.ssrc.Store(uint32(track.SSRC()))
	}
	var seq uint16
	for n := 0; ; n++ {
		packet, _, err := track.ReadRTP()
		if err != nil {
			return
		}
		if track.Kind() == webrtc.RTPCodecTypeAudio {
			p.sound.Add(1)
			continue
		}
		if n > 0 && packet.SequenceNumber != seq+1 {
			p.lostPackets.Add(1)
		}
		seq = packet.SequenceNumber
		p.picture(packet)
	}
}

// picture notes the number of the picture that begins in a packet.
func (p *player) picture(packet *pionrtp.Packet) {
	const fuA, start = 28, 0x80
	if b := packet.Payload; len(b) > 6 && b[0]&0x1f == fuA && b[1]&start != 0 {
		n := int64(binary.BigEndian.Uint32(b[2:]) &^ (1 << 30))
		p.first.CompareAndSwap(-1, n)
		if last := p.latest.Swap(n); last >= 0 && n != last+1 {
			p.disorder.Add(1)
		}
		p.video.Add(1)
	}
}

// offer returns what the player asks for.
func (p *player) offer(t *testing.T) string {
	t.Helper()
	offer, err := p.pc.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(p.pc)
	if err := p.pc.SetLocalDescription(offer); err != nil {
		t.Fatal(err)
	}
	<-gathered
	return p.pc.LocalDescription().SDP
}

// post sends an offer and returns the answer.
func post(t *testing.T, url, offer string) (status int, header http.Header, body string) {
	t.Helper()
	return request(t, http.MethodPost, url, offer, "Content-Type", offerType)
}

func request(t *testing.T, method, url, body string, header ...string) (status int, h http.Header, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(b)
}

// connect makes a player that plays.
func connect(t *testing.T, url string, network ...webrtc.NetworkType) *player {
	t.Helper()
	p := newPlayer(t, network...)
	status, header, answer := post(t, url, p.offer(t))
	if status != http.StatusCreated || header.Get("Content-Type") != "application/sdp" {
		t.Fatalf("status %d, %v: %s", status, header, answer)
	}
	base, _, _ := strings.Cut(url, "/live/")
	p.url, p.etag = base+header.Get("Location"), header.Get("ETag")
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPlayersGetEverything(t *testing.T) {
	for name, network := range map[string][]webrtc.NetworkType{"udp": {webrtc.NetworkTypeUDP4}, "tcp": {webrtc.NetworkTypeTCP4}} {
		t.Run(name, func(t *testing.T) {
			s := newShow(t, 50)
			for range 30 {
				s.publish()
			}
			audience := &stream.Audience{}
			url := start(t, s, &Server{Audience: audience})
			p := connect(t, url, network...)
			until(t, "the cached group of pictures", func() bool { return p.video.Load() == 30 })
			if first := p.first.Load(); first != 0 {
				t.Errorf("begins at picture %d", first)
			}
			s.live(t)
			until(t, "200 pictures, sound and reports", func() bool {
				return p.video.Load() >= 200 && p.sound.Load() >= 100 && p.reports.Load() >= 2
			})
			if p.disorder.Load()+p.lostPackets.Load() > 0 {
				t.Errorf("%d pictures out of order, %d packets lost", p.disorder.Load(), p.lostPackets.Load())
			}
			v := audience.Viewers()
			if len(v) != 1 || v[0].Protocol != "webrtc" || v[0].Rendition != "main" || v[0].Bytes.Load() < 200*3000 {
				t.Errorf("audience is %+v", v)
			}
			if status, _, _ := request(t, http.MethodDelete, p.url, ""); status != http.StatusOK {
				t.Errorf("DELETE: %d", status)
			}
			until(t, "nobody", func() bool { return len(audience.Viewers()) == 0 })
		})
	}
}

func TestLostPicturesMakeOneKey(t *testing.T) {
	s := newShow(t, 1<<20)
	url := start(t, s, &Server{})
	s.live(t)
	one, two := connect(t, url, webrtc.NetworkTypeUDP4), connect(t, url, webrtc.NetworkTypeUDP4)
	until(t, "pictures", func() bool { return one.video.Load() > 60 && two.video.Load() > 60 })
	for range 5 {
		for _, p := range []*player{one, two} {
			if err := p.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: p.ssrc.Load()}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	keys := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.keys
	}
	until(t, "a key picture", func() bool { return keys() >= 2 })
	seen := one.video.Load()
	until(t, "more pictures", func() bool { return one.video.Load() > seen+20 })
	if n := keys(); n != 2 {
		t.Errorf("ten wishes made %d key pictures", n-1)
	}
}

func TestPlayersThatVanishAreForgotten(t *testing.T) {
	s := newShow(t, 50)
	audience := &stream.Audience{}
	url := start(t, s, &Server{Audience: audience})
	s.live(t)
	p := connect(t, url, webrtc.NetworkTypeUDP4)
	until(t, "pictures", func() bool { return p.video.Load() > 10 })
	if err := p.pc.Close(); err != nil { // DTLS says goodbye
		t.Fatal(err)
	}
	until(t, "nobody", func() bool { return len(audience.Viewers()) == 0 })
}

func TestTheEndOfTheShow(t *testing.T) {
	s := newShow(t, 50)
	audience := &stream.Audience{}
	url := start(t, s, &Server{Audience: audience})
	for range 30 {
		s.publish()
	}
	p := connect(t, url, webrtc.NetworkTypeUDP4)
	until(t, "pictures", func() bool { return p.video.Load() == 30 })
	closed := make(chan struct{})
	p.pc.OnConnectionStateChange(func(now webrtc.PeerConnectionState) {
		if now == webrtc.PeerConnectionStateClosed || now == webrtc.PeerConnectionStateDisconnected || now == webrtc.PeerConnectionStateFailed {
			select {
			case <-closed:
			default:
				close(closed)
			}
		}
	})
	s.Close()
	until(t, "nobody", func() bool { return len(audience.Viewers()) == 0 })
	<-closed
}

func TestTheEndWaitsForWhoComesIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sv := &service{Server: &Server{}, ctx: t.Context(), entering: map[string]int{}}
		arrived, err := sv.reserve("192.0.2.1")
		if err != nil {
			t.Fatal(err)
		}
		drained := make(chan struct{})
		go func() {
			sv.drain()
			close(drained)
		}()
		synctest.Wait()
		select {
		case <-drained:
			t.Error("the end does not wait")
		default:
		}
		if _, err := sv.reserve("192.0.2.1"); !errors.Is(err, errClosing) {
			t.Errorf("who comes after the end gets %v", err)
		}
		arrived()
		<-drained
	})
}

func TestOffersThatWaitForAPictureEndWithTheServer(t *testing.T) {
	srv := &Server{}
	url, stop := begin(t, newShow(t, 50), srv) // nothing is published
	sv := srv.running()
	offer := newPlayer(t, webrtc.NetworkTypeUDP4).offer(t)
	answer := make(chan *httptest.ResponseRecorder)
	go func() {
		req := httptest.NewRequest(http.MethodPost, url, strings.NewReader(offer))
		req.Header.Set("Content-Type", offerType)
		w := httptest.NewRecorder()
		srv.ServeHTTP(w, req)
		answer <- w
	}()
	until(t, "the offer waits", func() bool {
		sv.mu.Lock()
		defer sv.mu.Unlock()
		return len(sv.entering) == 1
	})
	stop()
	if got := <-answer; got.Code != http.StatusServiceUnavailable || !strings.Contains(got.Body.String(), errClosing.Error()) {
		t.Errorf("status %d: %s", got.Code, got.Body)
	}
}

func TestOffersWhileTheServerEnds(t *testing.T) {
	s := newShow(t, 50)
	s.publish()
	audience := &stream.Audience{}
	srv := &Server{Audience: audience}
	url, stop := begin(t, s, srv)
	sv := srv.running()
	offer := newPlayer(t, webrtc.NetworkTypeUDP4).offer(t)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for status := 0; status != http.StatusServiceUnavailable; {
				req := httptest.NewRequest(http.MethodPost, url, strings.NewReader(offer))
				req.RemoteAddr = fmt.Sprintf("192.0.2.%d:5000", i)
				req.Header.Set("Content-Type", offerType)
				w := httptest.NewRecorder()
				srv.ServeHTTP(w, req)
				if status = w.Code; status != http.StatusCreated && status != http.StatusServiceUnavailable {
					t.Errorf("status %d: %s", status, w.Body)
					return
				}
			}
		})
	}
	until(t, "some are in", func() bool { return len(audience.Viewers()) > 2 })
	stop()
	sv.mu.Lock()
	if n := len(sv.visitors) + len(sv.entering) + len(sv.feeds); n != 0 {
		t.Errorf("when Run has ended %d visitors, %d that enter and %d feeds are left", len(sv.visitors), len(sv.entering), len(sv.feeds))
	}
	sv.mu.Unlock()
	wg.Wait()
	if n := len(audience.Viewers()); n != 0 {
		t.Errorf("%d viewers are left", n)
	}
}

func TestCandidatesThatComeLate(t *testing.T) {
	s := newShow(t, 50)
	url := start(t, s, &Server{})
	s.live(t)
	p := newPlayer(t, webrtc.NetworkTypeUDP4)
	var found, rest []string
	offer := p.offer(t)
	for line := range strings.Lines(offer) {
		if strings.HasPrefix(line, "a=candidate:") {
			found = append(found, line)
			continue
		}
		rest = append(rest, line)
	}
	status, header, answer := post(t, url, strings.Join(rest, ""))
	if status != http.StatusCreated {
		t.Fatal(status, answer)
	}
	base, _, _ := strings.Cut(url, "/live/")
	session := base + header.Get("Location")
	late := "m=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n" + strings.Join(found, "")
	fragment := "a=ice-ufrag:" + ufrag(offer) + "\r\na=ice-pwd:y\r\n" + late
	restart := "a=ice-ufrag:another\r\na=ice-pwd:y\r\n" + late
	const kind = "application/trickle-ice-sdpfrag"
	tag := header.Get("ETag")
	for _, tt := range []struct {
		name   string
		header []string
		body   string
		want   int
	}{
		{"no tag", []string{"Content-Type", kind}, fragment, http.StatusPreconditionRequired},
		{"another session's tag", []string{"Content-Type", kind, "If-Match", `"x"`}, fragment, http.StatusPreconditionFailed},
		{"another type", []string{"Content-Type", "text/plain", "If-Match", tag}, fragment, http.StatusUnsupportedMediaType},
		{"no candidate at all", []string{"Content-Type", kind, "If-Match", tag}, "a=candidate:what\r\n", http.StatusBadRequest},
		{"a restart", []string{"Content-Type", kind, "If-Match", "*"}, restart, http.StatusUnprocessableEntity},
		{"a restart as the draft quotes it", []string{"Content-Type", kind, "If-Match", `"*"`}, restart, http.StatusUnprocessableEntity},
		{"a restart of this session", []string{"Content-Type", kind, "If-Match", tag}, restart, http.StatusUnprocessableEntity},
		{"a restart without a name", []string{"Content-Type", kind, "If-Match", "*"}, late, http.StatusUnprocessableEntity},
		{"any session, under the name offered", []string{"Content-Type", kind, "If-Match", "*"}, fragment, http.StatusNoContent},
		{"candidates alone", []string{"Content-Type", kind, "If-Match", tag}, late, http.StatusNoContent},
		{"well", []string{"Content-Type", kind, "If-Match", tag}, fragment, http.StatusNoContent},
	} {
		if status, _, text := request(t, http.MethodPatch, session, tt.body, tt.header...); status != tt.want {
			t.Errorf("%s: %d %s", tt.name, status, text)
		}
	}
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatal(err)
	}
	until(t, "pictures", func() bool { return p.video.Load() > 10 })
}

// A guard that one token opens.
type guard string

func (g guard) Allow(_ string, c stream.Credentials) error {
	switch {
	case c.Empty():
		return stream.ErrLocked
	case c.Token != string(g):
		return stream.ErrDenied
	}
	return nil
}

func TestBadRequests(t *testing.T) {
	s := newShow(t, 50)
	audience := &stream.Audience{}
	audience.SetDoor(guard("letmein"), stream.Limits{})
	url := start(t, s, &Server{Audience: audience, MaxVisitors: 2})
	s.live(t)
	good := newPlayer(t, webrtc.NetworkTypeUDP4).offer(t)
	noVideo := strings.ReplaceAll(good, "H264/90000", "H263/90000")
	in := "Authorization"
	tests := []struct {
		name, method, url, body string
		header                  []string
		want                    int
	}{
		{"another method", http.MethodGet, url, "", nil, http.StatusMethodNotAllowed},
		{"asking what goes", http.MethodOptions, url, "", nil, http.StatusNoContent},
		{"nothing shown", http.MethodPost, url, good, []string{"Content-Type", offerType}, http.StatusUnauthorized},
		{"a wrong token", http.MethodPost, url + "?token=x", good, []string{"Content-Type", offerType}, http.StatusForbidden},
		{"an unknown rendition", http.MethodPost, strings.ReplaceAll(url, "main", "nobody") + "?token=letmein", good, []string{"Content-Type", offerType}, http.StatusNotFound},
		{"another type", http.MethodPost, url, "{}", []string{"Content-Type", "application/json", in, "Bearer letmein"}, http.StatusUnsupportedMediaType},
		{"no offer", http.MethodPost, url, "hello", []string{"Content-Type", offerType, in, "Bearer letmein"}, http.StatusBadRequest},
		{"an empty offer", http.MethodPost, url, "", []string{"Content-Type", offerType, in, "Bearer letmein"}, http.StatusBadRequest},
		{"another codec", http.MethodPost, url, noVideo, []string{"Content-Type", offerType, in, "Bearer letmein"}, http.StatusBadRequest},
		{"a long line that does not fit", http.MethodPost, url, strings.Replace(good, "m=video", "m="+strings.Repeat("z", 9000), 1), []string{"Content-Type", offerType, in, "Bearer letmein"}, http.StatusBadRequest},
		{"too long", http.MethodPost, url, strings.Repeat("x", maxOffer+1), []string{"Content-Type", offerType, in, "Bearer letmein"}, http.StatusRequestEntityTooLarge},
		{"no such session", http.MethodDelete, url + "/x", "", nil, http.StatusNotFound},
		{"no such session to add to", http.MethodPatch, url + "/x", "", nil, http.StatusNotFound},
		{"another method of a session", http.MethodGet, url + "/x", "", nil, http.StatusMethodNotAllowed},
		{"no address of ours", http.MethodPost, strings.TrimSuffix(url, "/whep"), good, nil, http.StatusNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, header, text := request(t, tt.method, tt.url, tt.body, tt.header...)
			if status != tt.want || header.Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("status %d, want %d: %s", status, tt.want, text)
			}
			if tt.name == "another codec" && !strings.Contains(text, "does not offer to receive h264") {
				t.Errorf("says %q", text)
			}
			if status >= 400 && (text == "" || strings.Count(text, "\n") != 1 || len(text) > 2*maxReason) {
				t.Errorf("says %q", text)
			}
		})
	}
	if n := len(audience.Viewers()); n != 0 {
		t.Errorf("%d viewers are left", n)
	}
	connect(t, url+"?token=letmein", webrtc.NetworkTypeUDP4)
	connect(t, url+"?token=letmein", webrtc.NetworkTypeUDP4)
	if status, _, text := post(t, url+"?token=letmein", good); status != http.StatusServiceUnavailable {
		t.Errorf("a third player: %d %s", status, text)
	}
}

func TestABodyThatIsTooLongIsNotWaitedFor(t *testing.T) {
	url := start(t, newShow(t, 50), &Server{})
	never, hold := io.Pipe()
	defer hold.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, never)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = 1 << 40
	req.Header.Set("Content-Type", offerType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Error(resp.Status)
	}
}

func TestOneAddressLeavesRoomForOthers(t *testing.T) {
	s := newShow(t, 50)
	audience := &stream.Audience{}
	url := start(t, s, &Server{Audience: audience, MaxVisitorsPerIP: 2})
	s.live(t)
	connect(t, url, webrtc.NetworkTypeUDP4)
	connect(t, url, webrtc.NetworkTypeUDP4)
	offer := newPlayer(t, webrtc.NetworkTypeUDP4).offer(t)
	if status, _, text := post(t, url, offer); status != http.StatusServiceUnavailable || !strings.Contains(text, "one address") {
		t.Errorf("a third from one address: %d %s", status, text)
	}
	if n := len(audience.Viewers()); n != 2 {
		t.Errorf("%d viewers", n)
	}
}

func TestAsManyPlayAsTheAudienceTakes(t *testing.T) {
	s := newShow(t, 50)
	audience := &stream.Audience{}
	audience.SetDoor(nil, stream.Limits{Each: 3})
	url := start(t, s, &Server{Audience: audience})
	s.live(t)
	for range 3 {
		connect(t, url, webrtc.NetworkTypeUDP4)
	}
	offer := newPlayer(t, webrtc.NetworkTypeUDP4).offer(t)
	if status, _, text := post(t, url, offer); status != http.StatusServiceUnavailable || !strings.Contains(text, "limit for one address") {
		t.Errorf("a fourth: %d %s", status, text)
	}
	audience.SetDoor(nil, stream.Limits{Each: 4})
	connect(t, url, webrtc.NetworkTypeUDP4)
}

func TestOffersThatNeverConnect(t *testing.T) {
	s := newShow(t, 50)
	audience := &stream.Audience{}
	url := start(t, s, &Server{Audience: audience})
	s.live(t)
	good := connect(t, url, webrtc.NetworkTypeUDP4)
	until(t, "pictures", func() bool { return good.video.Load() > 10 })
	idle := newPlayer(t, webrtc.NetworkTypeUDP4)
	offer := idle.offer(t)
	for i := range maxUnconnected + 3 {
		want := http.StatusCreated
		if i >= maxUnconnected {
			want = http.StatusServiceUnavailable
		}
		if status, _, text := post(t, url, offer); status != want {
			t.Errorf("offer %d: %d %s", i, status, text)
		}
	}
	seen := good.video.Load()
	until(t, "more pictures", func() bool { return good.video.Load() > seen+20 })
	if n := len(audience.Viewers()); n != maxUnconnected+1 {
		t.Errorf("%d viewers", n)
	}
}

func TestTheBoxTriesFewOfAPlayersAddresses(t *testing.T) {
	s := newShow(t, 50)
	url := start(t, s, &Server{})
	s.live(t)
	// A bystander, to whom a player's candidates point, hears what the box sends.
	packets, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	_, port, _ := net.SplitHostPort(packets.LocalAddr().String())
	candidates := func(from, to int) (lines string) {
		for i := from; i < to; i++ {
			lines += fmt.Sprintf("a=candidate:%d 1 udp 2130706431 127.3.%d.%d %s typ host\r\n", i, i/250, 1+i%250, port)
		}
		return lines
	}
	offer := newPlayer(t, webrtc.NetworkTypeUDP4).offer(t)
	status, header, text := post(t, url, offer+candidates(0, maxCandidates))
	if status != http.StatusCreated {
		t.Fatal(status, text)
	}
	base, _, _ := strings.Cut(url, "/live/")
	for i := range 3 {
		more := "a=mid:0\r\n" + candidates(100*(i+1), 100*(i+1)+maxCandidates)
		if i == 2 {
			more = fmt.Sprintf("a=mid:0\r\na=candidate:1 1 udp 2130706431 127.0.0.1 %s typ host\r\n", port)
		}
		status, _, text := request(t, http.MethodPatch, base+header.Get("Location"), more, "Content-Type", candidateType, "If-Match", header.Get("ETag"))
		if status != http.StatusNoContent {
			t.Errorf("patch %d: %d %s", i, status, text)
		}
	}
	if err := packets.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, from, err := packets.ReadFrom(make([]byte, 1500)); err == nil {
		t.Errorf("%v tries one address more than it may", from)
	}
}

func TestOfManyCandidatesSomeAreTaken(t *testing.T) {
	v := &visitor{}
	line := "a=candidate:1 1 udp 2130706431 192.0.2.1 5000 typ host\r\n"
	got := v.spare("v=0\r\n" + strings.Repeat(line, 3*maxCandidates) + "a=mid:0\r\n")
	if want := "v=0\r\n" + strings.Repeat(line, maxCandidates) + "a=mid:0\r\n"; got != want {
		t.Errorf("%d candidates are left", strings.Count(got, line))
	}
	if v.mayTry() {
		t.Error("and more later")
	}
}

func TestLinesThatSayNothingAreFewAndPlayersKeepTheirs(t *testing.T) {
	srv := &Server{MaxVisitorsPerIP: 50}
	s := newShow(t, 50)
	s.publish()
	url := start(t, s, srv)
	player := connect(t, url, webrtc.NetworkTypeTCP4)
	until(t, "a picture", func() bool { return player.video.Load() > 0 })
	var silent []net.Conn
	for range linesEach * srv.MaxVisitorsPerIP {
		nc, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		silent = append(silent, nc)
	}
	if err := silent[0].SetReadDeadline(time.Now().Add(connectTimeout / 2)); err != nil {
		t.Fatal(err)
	}
	if _, err := silent[0].Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("who was there first and says nothing gets %v", err)
	}
	before := player.video.Load()
	s.live(t)
	until(t, "further pictures", func() bool { return player.video.Load() > before+50 })
}

func TestHostsOutside(t *testing.T) {
	s := newShow(t, 50)
	url := start(t, s, &Server{Hosts: []string{"203.0.113.7"}})
	s.publish()
	p := newPlayer(t, webrtc.NetworkTypeUDP4)
	if _, _, answer := post(t, url, p.offer(t)); !strings.Contains(answer, "203.0.113.7") || !strings.Contains(answer, "127.0.0.1") {
		t.Errorf("the answer is %s", answer)
	}
}

func TestTarget(t *testing.T) {
	for p, want := range map[string][2]string{
		"/live/main/whep":     {"main", ""},
		"/live/main/whep/":    {"main", ""},
		"/live/main/whep/abc": {"main", "abc"},
		"/live/main":          {},
		"/":                   {},
		"":                    {},
		"/live/whep/whep":     {"whep", ""},
	} {
		if name, id := target(p); name != want[0] || id != want[1] {
			t.Errorf("%s: %q, %q", p, name, id)
		}
	}
}

func FuzzCandidates(f *testing.F) {
	f.Add("a=mid:0\r\na=candidate:1 1 udp 1 127.0.0.1 1 typ host\r\n")
	f.Add(strings.Repeat("a=candidate:\n", 100))
	f.Fuzz(func(t *testing.T, s string) {
		if n := len(candidates(s)); n > maxCandidates {
			t.Error(fmt.Sprint(n))
		}
	})
}
