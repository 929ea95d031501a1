package httplive

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"encoderd.example/stream"
	"encoderd.example/stream/flv"
	"encoderd.example/stream/h264"
	"encoderd.example/stream/streamtest"
	"encoderd.example/stream/streamtest/peer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func only(r *stream.Rendition) func(string) *stream.Rendition {
	return func(name string) *stream.Rendition {
		if name == r.Name {
			return r
		}
		return nil
	}
}

// start serves over the given kind of server until the test ends, when all
// requests see the end of their context.
func start(t *testing.T, s *Server, begin func(*httptest.Server)) *httptest.Server {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var requests sync.WaitGroup
	h := s.Handler()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		defer requests.Done()
		h.ServeHTTP(w, r)
	}))
	srv.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	begin(srv)
	t.Cleanup(func() {
		cancel()
		srv.Client().CloseIdleConnections()
		srv.Close()
		requests.Wait()
	})
	return srv
}

func plain(s *httptest.Server) { s.Start() }

// A fake is an encoder whose pictures carry their number.
type fake struct {
	r            *stream.Rendition
	video, sound *stream.Track
	gop, size    int
	n            uint32
}

func newFake(keep, gop, size int) *fake {
	return &fake{
		r: stream.NewRendition("main", keep, stream.H264, stream.AAC),
		video: &stream.Track{Codec: stream.H264, Width: 640, Height: 360, FPS: 25, Bitrate: 1_000_000, Setup: []byte{
			1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 5, 0x67, 0x42, 0xc0, 0x1e, 0xd9, 1, 0, 3, 0x68, 0xcb, 0x83,
		}},
		sound: &stream.Track{Codec: stream.AAC, Setup: []byte{0x11, 0x90}, Rate: 48000, Channels: 2, Bitrate: 96_000},
		gop:   gop, size: size,
	}
}

// publish publishes a picture and as much sound.
func (f *fake) publish() {
	at := time.Hour + time.Duration(f.n)*40*time.Millisecond
	nal := make([]byte, f.size)
	nal[0] = 0x41
	key := int(f.n)%f.gop == 0
	if key {
		nal[0] = 0x65
	}
	f.n++
	binary.BigEndian.PutUint32(nal[1:], f.n)
	f.r.Publish(&stream.Unit{Track: f.video, Key: key, PTS: at, DTS: at, Data: h264.AppendNAL(nil, nal)})
	f.r.Publish(&stream.Unit{Track: f.sound, PTS: at, DTS: at, Duration: 40 * time.Millisecond, Data: make([]byte, 200)})
}

// A tag is one of an FLV file, as it was read.
type tag struct {
	kind flv.Kind
	time uint32
	body []byte
}

// readTag also checks the back pointer.
func readTag(r io.Reader) (tag, error) {
	var head [flv.FrameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return tag{}, err
	}
	n := int(head[1])<<16 | int(head[2])<<8 | int(head[3])
	body := make([]byte, n+flv.FrameTail)
	if _, err := io.ReadFull(r, body); err != nil {
		return tag{}, err
	}
	if back := binary.BigEndian.Uint32(body[n:]); back != uint32(n+flv.FrameHead) {
		return tag{}, errors.New("bad back pointer")
	}
	at := uint32(head[4])<<16 | uint32(head[5])<<8 | uint32(head[6]) | uint32(head[7])<<24
	return tag{flv.Kind(head[0]), at, body[:n]}, nil
}

// word names a tag: M for metadata, vh and ah for headers, V for key pictures,
// v and a.
func (t tag) word() string {
	switch {
	case t.kind == flv.Script:
		return "M"
	case t.body[1] == 0:
		return map[flv.Kind]string{flv.Video: "vh", flv.Audio: "ah"}[t.kind]
	case t.kind == flv.Audio:
		return "a"
	case t.body[0]>>4 == 1:
		return "V"
	default:
		return "v"
	}
}

// An answer that is still coming; it ends with the test.
type coming struct {
	code   int
	header http.Header
	body   io.ReadCloser
}

func get(t *testing.T, c *http.Client, url string) coming {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return coming{res.StatusCode, res.Header, res.Body}
}

func TestFLVStartsAtTheCachedKeyPictureAtTimeZero(t *testing.T) {
	servers := map[string]func(*httptest.Server){
		"HTTP/1.1":      plain,
		"HTTP/1.1, TLS": (*httptest.Server).StartTLS,
		"HTTP/2":        func(s *httptest.Server) { s.EnableHTTP2 = true; s.StartTLS() },
	}
	for name, begin := range servers {
		t.Run(name, func(t *testing.T) {
			enc := newFake(64, 10, 40_000)
			for range 13 {
				enc.publish()
			}
			audience := &stream.Audience{}
			srv := start(t, &Server{Find: only(enc.r), Audience: audience}, begin)
			res := get(t, srv.Client(), srv.URL+"/live/main.flv")
			if res.code != http.StatusOK || res.header.Get("Content-Type") != "video/x-flv" || res.header.Get("Access-Control-Allow-Origin") != "*" {
				t.Fatalf("%d %v", res.code, res.header)
			}
			head := make([]byte, 13)
			if _, err := io.ReadFull(res.body, head); err != nil || !bytes.Equal(head, flv.AppendFileHeader(nil, true)) {
				t.Fatalf("head %x, %v", head, err)
			}
			var words []string
			for len(words) < 6 {
				tag, err := readTag(res.body)
				if err != nil {
					t.Fatal(err)
				}
				words = append(words, tag.word())
				if want := uint32(len(words) / 6 * 40); tag.time != want {
					t.Errorf("%s at %d ms", tag.word(), tag.time)
				}
			}
			if got := strings.Join(words, " "); got != "M vh ah V a v" {
				t.Errorf("got %s", got)
			}
			v := audience.Viewers()
			if len(v) != 1 || v[0].Protocol != "http-flv" || v[0].Rendition != "main" {
				t.Fatalf("viewers %+v", v)
			}
			peer.Await(t, "the viewer's bytes to be booked", func() bool { return v[0].Bytes.Load() >= 80_000 })
			res.body.Close()
			peer.Await(t, "the reader to leave", func() bool { return len(audience.Viewers()) == 0 })
		})
	}
}

// A guard that knows one token and one password.
type guard struct{}

func (guard) Allow(_ string, c stream.Credentials) error {
	switch {
	case c.Empty():
		return stream.ErrLocked
	case c.Token == "canary" || c.User == "u" && c.Password == "canary":
		return nil
	default:
		return stream.ErrDenied
	}
}

func TestAnswers(t *testing.T) {
	enc := newFake(8, 1, 100)
	enc.publish()
	silent := stream.NewRendition("silent", 8, stream.H264)
	audience := &stream.Audience{}
	audience.SetDoor(guard{}, stream.Limits{})
	var log bytes.Buffer
	s := &Server{
		Audience: audience, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		limits: limits{tracks: time.Millisecond},
		Find: func(name string) *stream.Rendition {
			return map[string]*stream.Rendition{"main": enc.r, "silent": silent}[name]
		},
	}
	srv := start(t, s, plain)
	tests := []struct {
		name, method, path, user string
		want                     int
		header                   [2]string
	}{
		{"no such picture", "GET", "/live/other.flv", "", 404, [2]string{}},
		{"no such form", "GET", "/live/main.avi", "", 404, [2]string{}},
		{"no ending", "GET", "/live/main", "", 404, [2]string{}},
		{"a folder", "GET", "/live/a/main.flv", "", 404, [2]string{}},
		{"another place", "GET", "/main.flv", "", 404, [2]string{}},
		{"writing", "POST", "/live/main.flv", "", 405, [2]string{"Allow", "GET, HEAD, OPTIONS"}},
		{"asking what may be asked", "OPTIONS", "/live/main.ts", "", 204, [2]string{"Access-Control-Allow-Methods", "GET, HEAD, OPTIONS"}},
		{"with what", "OPTIONS", "/live/main.flv", "", 204, [2]string{"Access-Control-Allow-Headers", "Range, Authorization, Content-Type"}},
		{"nothing shown", "GET", "/live/main.flv", "", 401, [2]string{"Www-Authenticate", `Basic realm="live picture", charset="UTF-8"`}},
		{"nothing shown for the head", "HEAD", "/live/main.mp4", "", 401, [2]string{}},
		{"a wrong token", "GET", "/live/main.ts?token=nope", "", 403, [2]string{}},
		{"a wrong password", "GET", "/live/main.ts", "nope", 401, [2]string{}},
		{"the head", "HEAD", "/live/main.mp4?token=canary", "", 200, [2]string{"Content-Type", "video/mp4"}},
		{"the head by password", "HEAD", "/live/main.ts", "canary", 200, [2]string{"Content-Type", "video/mp2t"}},
		{"not begun", "GET", "/live/silent.mp4?token=canary", "", 503, [2]string{"Retry-After", "5"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tt.method, srv.URL+tt.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if tt.user != "" {
				req.SetBasicAuth("u", tt.user)
			}
			res, err := srv.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != tt.want || tt.header[0] != "" && res.Header.Get(tt.header[0]) != tt.header[1] {
				t.Errorf("%s %v", res.Status, res.Header)
			}
			if body, _ := io.ReadAll(res.Body); len(body) > 100 {
				t.Errorf("says %q", body)
			}
		})
	}
	if strings.Contains(log.String(), "canary") || strings.Contains(log.String(), "nope") {
		t.Errorf("the log shows a secret:\n%s", log.String())
	}
	if n := len(audience.Viewers()); n > 0 {
		t.Errorf("%d viewers are left", n)
	}
}

func TestWhatAFormCannotCarryIsRefusedBeforeTheAnswerBegins(t *testing.T) {
	r := stream.NewRendition("odd", 8, stream.H264)
	r.Publish(&stream.Unit{Track: &stream.Track{Codec: stream.H264}, Key: true, Data: []byte{0, 0, 0, 1, 0x65}})
	srv := start(t, &Server{Find: only(r)}, plain)
	for _, ending := range []string{"ts", "mp4"} {
		if res := get(t, srv.Client(), srv.URL+"/live/odd."+ending); res.code != http.StatusNotAcceptable {
			t.Errorf("%s: %d", ending, res.code)
		}
	}
}

func TestMP4NamesItsCodecs(t *testing.T) {
	enc := newFake(8, 1, 100)
	enc.publish()
	srv := start(t, &Server{Find: only(enc.r)}, plain)
	for query, want := range map[string]string{
		"":              `video/mp4; codecs="avc1.42c01e, mp4a.40.2"`,
		"?tracks=video": `video/mp4; codecs="avc1.42c01e"`,
	} {
		if got := get(t, srv.Client(), srv.URL+"/live/main.mp4"+query).header.Get("Content-Type"); got != want {
			t.Errorf("%q: %s", query, got)
		}
	}
}

func TestACrowdIsHeldBack(t *testing.T) {
	enc := newFake(8, 1, 100)
	enc.publish()
	srv := start(t, &Server{Find: only(enc.r), MaxReadersPerIP: 1}, plain)
	get(t, srv.Client(), srv.URL+"/live/main.flv")
	if res := get(t, srv.Client(), srv.URL+"/live/main.flv"); res.code != http.StatusServiceUnavailable {
		t.Errorf("a second reader got %d", res.code)
	}
}

func dialWebSocket(t *testing.T, srv *httptest.Server, path, origin, password string) (c *websocket.Conn, status int, err error) {
	t.Helper()
	h := http.Header{}
	if origin != "" {
		h.Set("Origin", origin)
	}
	if password != "" {
		req := http.Request{Header: h}
		req.SetBasicAuth("u", password)
	}
	ctx, cancel := context.WithTimeout(t.Context(), peer.Patience)
	defer cancel()
	c, res, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(srv.URL, "http")+path, &websocket.DialOptions{HTTPHeader: h, HTTPClient: srv.Client()})
	if res == nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c != nil {
			c.CloseNow()
		}
		if res.Body != nil {
			res.Body.Close()
		}
	})
	if err == nil {
		c.SetReadLimit(1 << 20)
	}
	return c, res.StatusCode, err
}

func TestWebSocketCarriesATagInEveryMessage(t *testing.T) {
	enc := newFake(64, 10, 5000)
	enc.publish()
	audience := &stream.Audience{}
	srv := start(t, &Server{Find: only(enc.r), Audience: audience}, plain)
	c, _, err := dialWebSocket(t, srv, "/live/main.flv", "http://elsewhere.example", "")
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for i := range 6 {
		kind, m, err := c.Read(t.Context())
		if err != nil || kind != websocket.MessageBinary {
			t.Fatal(kind, err)
		}
		if i == 0 {
			if !bytes.Equal(m, flv.AppendFileHeader(nil, true)) {
				t.Errorf("head %x", m)
			}
			continue
		}
		r := bytes.NewReader(m)
		tag, err := readTag(r)
		if err != nil || r.Len() > 0 {
			t.Fatalf("message %d is not one tag: %v", i, err)
		}
		words = append(words, tag.word())
	}
	if got := strings.Join(words, " "); got != "M vh ah V a" {
		t.Errorf("got %s", got)
	}
	if v := audience.Viewers(); len(v) != 1 || v[0].Protocol != "ws-flv" {
		t.Errorf("viewers %+v", v)
	}
	enc.r.Close()
	_, _, err = c.Read(t.Context())
	if websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("the end is %v", err)
	}
	peer.Await(t, "the reader to leave", func() bool { return len(audience.Viewers()) == 0 })
}

func TestAnotherSitesPageCannotUseThePasswordThatABrowserKnows(t *testing.T) {
	enc := newFake(64, 10, 100)
	enc.publish()
	audience := &stream.Audience{}
	audience.SetDoor(guard{}, stream.Limits{})
	srv := start(t, &Server{Find: only(enc.r), Audience: audience}, plain)
	for _, tt := range []struct {
		name, path, origin string
		want               int
	}{
		{"own page", "/live/main.flv", srv.URL, 101},
		{"no page", "/live/main.flv", "", 101},
		{"another site's page", "/live/main.flv", "http://elsewhere.example", 401},
		{"another site's page with a link", "/live/main.flv?token=canary", "http://elsewhere.example", 101},
		{"another form", "/live/main.ts", srv.URL, 400},
	} {
		if _, status, err := dialWebSocket(t, srv, tt.path, tt.origin, "canary"); status != tt.want {
			t.Errorf("%s: %d %v", tt.name, status, err)
		}
	}
}

func TestAReaderThatHangsUpIsMissedWhileNoPictureComes(t *testing.T) {
	enc := newFake(64, 10, 100)
	enc.publish()
	for _, ending := range []string{"flv", "ts", "mp4"} {
		audience := &stream.Audience{}
		s := (&Server{Find: only(enc.r), Audience: audience}).site()
		srv := httptest.NewServer(s)
		res := get(t, srv.Client(), srv.URL+"/live/main."+ending)
		if _, err := io.ReadFull(res.body, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		if n := s.running(); ending != "flv" && n != 1 || ending == "flv" && n != 0 {
			t.Errorf("%s: %d feeds run", ending, n)
		}
		res.body.Close()
		peer.Await(t, "the reader to leave", func() bool { return len(audience.Viewers()) == 0 && s.running() == 0 })
		srv.Close()
	}
}

func (s *site) running() int {
	s.feeds.mu.Lock()
	defer s.feeds.mu.Unlock()
	return len(s.feeds.of)
}

func TestReadersOfOneFormShareAFeed(t *testing.T) {
	enc := newFake(64, 10, 100)
	enc.publish()
	h := (&Server{Find: only(enc.r)}).site()
	srv := httptest.NewServer(h)
	defer srv.Close()
	var bodies []io.ReadCloser
	for range 3 {
		bodies = append(bodies, get(t, srv.Client(), srv.URL+"/live/main.ts").body)
	}
	bodies = append(bodies, get(t, srv.Client(), srv.URL+"/live/main.ts?tracks=video").body)
	first := make([][]byte, len(bodies))
	for i, b := range bodies {
		first[i] = make([]byte, 4*188)
		if _, err := io.ReadFull(b, first[i][:3*188]); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first[0], first[1]) || !bytes.Equal(first[0], first[2]) || bytes.Equal(first[0], first[3]) {
		t.Error("readers of one form do not get the same packets")
	}
	if n := h.running(); n != 2 {
		t.Errorf("%d feeds run", n)
	}
	for _, b := range bodies {
		b.Close()
	}
}

func TestAnEncoderThatBeginsAnewBringsANewHeader(t *testing.T) {
	enc := newFake(64, 2, 100)
	enc.publish()
	srv := start(t, &Server{Find: only(enc.r)}, plain)
	for ending, header := range map[string]string{"mp4": "moov", "flv": "onMetaData"} {
		res := get(t, srv.Client(), srv.URL+"/live/main."+ending)
		r := bufio.NewReader(res.body)
		skipTo(t, r, header)
		for enc.n%2 != 0 {
			enc.publish()
		}
		video := *enc.video
		video.Width = 2 * enc.video.Width
		enc.video = &video
		enc.publish()
		skipTo(t, r, header)
	}
}

func TestAnEncoderThatBeginsAnewAsItWasChangesNothingOfMP4(t *testing.T) {
	enc := newFake(64, 2, 100)
	f, err := newFragments([]*stream.Track{enc.video})
	if err != nil {
		t.Fatal(err)
	}
	took := func(track stream.Track, key bool) *chunk {
		t.Helper()
		c, err := f.chunk(&stream.Unit{Track: &track, Key: key, Data: []byte("picture")})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first, again := took(*enc.video, true), took(*enc.video, false)
	if first == nil || again == nil || again.header != first.header {
		t.Errorf("an equal track brings %+v after %+v", again, first)
	}
	other := *enc.video
	other.Width *= 2
	if c := took(other, false); c != nil {
		t.Error("another track begins without a key picture")
	}
	if c := took(other, true); c == nil || c.header == first.header {
		t.Errorf("another track brings %+v", c)
	}
}

func skipTo(t *testing.T, r *bufio.Reader, text string) {
	t.Helper()
	for n := 0; n < len(text); {
		b, err := r.ReadByte()
		switch {
		case err != nil:
			t.Fatalf("waiting for %s: %v", text, err)
		case b == text[n]:
			n++
		default:
			n = 0
		}
	}
}

func TestStalledReadersHarmNobody(t *testing.T) {
	const readers, stalled, pictures = 50, 10, 300
	enc := newFake(64, 20, 5000)
	enc.publish()
	srv := start(t, &Server{Find: only(enc.r), limits: limits{write: time.Minute}}, plain)
	conns := make([]net.Conn, readers)
	for i := range conns {
		nc, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if i < stalled {
			nc.(*net.TCPConn).SetReadBuffer(4 << 10)
		}
		io.WriteString(nc, "GET /live/main.flv HTTP/1.1\r\nHost: x\r\n\r\n")
		conns[i] = nc
	}
	tallies := make([]tally, readers)
	var wg sync.WaitGroup
	ready := make(chan struct{}, readers)
	follow := func(i int) {
		r := bufio.NewReader(conns[i])
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Errorf("reader %d: %v", i, err)
			ready <- struct{}{}
			return
		}
		defer func() {
			conns[i].Close() // or else Close reads on to the end
			res.Body.Close()
		}()
		io.ReadFull(res.Body, make([]byte, 13))
		ready <- struct{}{}
		for tallies[i].last.Load() < pictures {
			conns[i].SetReadDeadline(time.Now().Add(20 * time.Second))
			tag, err := readTag(res.Body)
			if err != nil {
				t.Errorf("reader %d: %v", i, err)
				return
			}
			if w := tag.word(); w == "v" || w == "V" {
				tallies[i].take(binary.BigEndian.Uint32(tag.body[flv.VideoHead+5:]), w == "V", len(tag.body) == enc.size+4+flv.VideoHead)
			}
		}
	}
	for i := stalled; i < readers; i++ {
		wg.Go(func() { follow(i) })
	}
	for range readers - stalled {
		<-ready
	}
	before := heap()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range pictures {
		enc.publish()
		<-tick.C
		for !t.Failed() && enc.n > slowest(tallies[stalled:])+20 { // a busy machine is no stalled reader
			<-tick.C
		}
	}
	wg.Wait()
	for i := stalled; i < readers; i++ {
		if s := &tallies[i]; s.gaps > 0 || s.torn > 0 {
			t.Errorf("reader %d: %d gaps, %d torn", i, s.gaps, s.torn)
		}
	}
	if grown := heap() - before; grown > 1<<20 {
		t.Errorf("heap grew by %d kB beside %d stalled readers", grown>>10, stalled)
	}
	for i := range stalled {
		conns[i].(*net.TCPConn).SetReadBuffer(1 << 20)
		wg.Go(func() { follow(i) })
	}
	for range 3 * enc.gop {
		enc.publish()
		<-tick.C
	}
	wg.Wait()
	for i := range stalled {
		if s := &tallies[i]; s.gaps == 0 || s.torn > 0 {
			t.Errorf("stalled reader %d: %d gaps, %d torn; want gaps, and nothing torn", i, s.gaps, s.torn)
		}
	}
}

func TestAUnitIsOneWrite(t *testing.T) {
	const pictures = 200
	enc := newFake(64, 10, 40_000)
	enc.publish()
	srv := start(t, &Server{Find: only(enc.r)}, func(s *httptest.Server) {
		s.Listener = new(stream.Gate).Listener(s.Listener)
		s.Start()
	})
	client, wire := tapped()
	for _, ending := range []string{"flv", "ts", "mp4"} {
		body := get(t, client, srv.URL+"/live/main."+ending).body
		if _, err := io.ReadFull(body, make([]byte, 40_000)); err != nil {
			t.Fatal(err)
		}
		before := segments(t, wire())
		for range pictures {
			enc.publish()
			if _, err := io.ReadFull(body, make([]byte, 40_000)); err != nil {
				t.Fatal(err)
			}
		}
		// Each picture comes with a frame of sound; some wait in the socket.
		if n := segments(t, wire()) - before; n < pictures || n > 2*pictures*5/4 {
			t.Errorf("%s: %d writes for %d units", ending, n, 2*pictures)
		}
		body.Close()
	}
}

// tapped returns a client and how to get at its latest connection.
func tapped() (client *http.Client, latest func() net.Conn) {
	var nc atomic.Pointer[net.Conn]
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err == nil {
			nc.Store(&c)
		}
		return c, err
	}
	return &http.Client{Transport: &http.Transport{DialContext: dial}}, func() net.Conn { return *nc.Load() }
}

// segments counts the segments with data that have come (tcp(7), TCP_INFO):
// over loopback, each write of less than 64 KiB is one.
func segments(t *testing.T, nc net.Conn) int {
	t.Helper()
	raw, err := nc.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	if cerr := raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	return int(info.Data_segs_in)
}

// A tally checks the pictures that one reader gets.
type tally struct {
	last       atomic.Uint32
	gaps, torn int
}

// slowest returns the number of the picture that all have.
func slowest(tallies []tally) uint32 {
	least := ^uint32(0)
	for i := range tallies {
		least = min(least, tallies[i].last.Load())
	}
	return least
}

func (s *tally) take(n uint32, key, whole bool) {
	last := s.last.Swap(n)
	gap := last != 0 && n != last+1
	if gap {
		s.gaps++
	}
	if !whole || gap && !key {
		s.torn++
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestAReaderThatTakesNothingIsDropped(t *testing.T) {
	for name, path := range map[string]string{"socket": "/live/main.ts", "web socket": "/live/main.flv"} {
		t.Run(name, func(t *testing.T) {
			enc := newFake(64, 5, 200_000)
			enc.publish()
			audience := &stream.Audience{}
			srv := start(t, &Server{Find: only(enc.r), Audience: audience, limits: limits{write: 100 * time.Millisecond}}, plain)
			if name == "socket" {
				get(t, srv.Client(), srv.URL+path)
			} else if _, _, err := dialWebSocket(t, srv, path, "", ""); err != nil {
				t.Fatal(err)
			}
			peer.Await(t, "the reader to be dropped", func() bool {
				enc.publish()
				return len(audience.Viewers()) == 0
			})
		})
	}
}

// live publishes all units: those of the first half second at once, the rest
// in real time as soon as somebody watches. Then it closes the rendition.
func live(t *testing.T, r *stream.Rendition, units []*stream.Unit, audience *stream.Audience) *sync.WaitGroup {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), peer.Patience)
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	wg.Go(func() {
		defer r.Close()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		var begin time.Time
		for _, u := range units {
			for u.DTS-units[0].DTS > time.Second/2 && (begin.IsZero() || time.Since(begin) < u.DTS-units[0].DTS-time.Second/2) {
				if begin.IsZero() && len(audience.Viewers()) > 0 {
					begin = time.Now()
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
			}
			r.Publish(u)
		}
	})
	return &wg
}

func TestFFmpegReadsEveryPictureOnceInEveryForm(t *testing.T) {
	h264, h265 := streamtest.NewMedia(t, 4*streamtest.FPS), streamtest.NewMediaH265(t, 4*streamtest.FPS)
	for _, tt := range []struct {
		name, ending, query string
		media               *streamtest.Media
		begin               func(*httptest.Server)
		streams             int
	}{
		{"FLV", "flv", "", h264, plain, 2},
		{"FLV over TLS", "flv", "", h264, func(s *httptest.Server) { s.TLS = &tls.Config{}; s.StartTLS() }, 2},
		{"TS", "ts", "", h264, plain, 2},
		{"TS of H.265", "ts", "", h265, plain, 2},
		{"MP4", "mp4", "", h264, plain, 2},
		{"MP4 of H.265", "mp4", "", h265, plain, 2},
		{"MP4 without sound", "mp4", "?tracks=video", h264, plain, 1},
		{"FLV without sound", "flv", "?tracks=video", h264, plain, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // they mostly wait for real time to pass
			r, audience := tt.media.Rendition(1024), &stream.Audience{}
			srv := start(t, &Server{Find: only(r), Audience: audience}, tt.begin)
			file := filepath.Join(t.TempDir(), "out.mkv")
			wg := live(t, r, (&streamtest.Source{Media: tt.media, Start: time.Hour}).Round(), audience)
			p := peer.Start(t, "ffmpeg", "-v", "warning", "-xerror", "-i", srv.URL+"/live/test."+tt.ending+tt.query, "-map", "0", "-c", "copy", "-y", file)
			wg.Wait()
			if err := p.Wait(t); err != nil {
				t.Errorf("ffmpeg ended with %v", err)
			}
			if got, want := peer.PictureMD5(t, file), peer.PictureMD5(t, tt.media.File); !slices.Equal(got, want) {
				t.Errorf("%d pictures came through, %d were sent, or they are not the same", len(got), len(want))
			}
			if streams := peer.Probe(t, file); len(streams) != tt.streams {
				t.Errorf("streams %+v", streams)
			}
		})
	}
}

func FuzzRequest(f *testing.F) {
	enc := newFake(8, 1, 100)
	enc.publish()
	f.Add("HEAD", "/live/main.flv", "token=x&tracks=video", "websocket", "http://x")
	f.Add("OPTIONS", "/live/.flv", "%zz", "", "")
	f.Add("GET", "/live//main.ts", "", "h2c", "null")
	f.Fuzz(func(t *testing.T, method, path, query, upgrade, origin string) {
		audience := &stream.Audience{}
		audience.SetDoor(guard{}, stream.Limits{})
		r := httptest.NewRequest(http.MethodGet, "http://box/", nil)
		r.Method, r.URL.Path, r.URL.RawQuery = method, path, query
		r.Header.Set("Upgrade", upgrade)
		r.Header.Set("Origin", origin)
		w := httptest.NewRecorder()
		(&Server{Find: only(enc.r), Audience: audience}).Handler().ServeHTTP(w, r)
		if w.Code < 400 && method != http.MethodOptions && !strings.Contains(query, "canary") {
			t.Errorf("%s %q?%q is answered by %d", method, path, query, w.Code)
		}
	})
}
