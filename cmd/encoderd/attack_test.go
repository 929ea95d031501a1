package main

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/stream/streamtest/peer"
)

// A door is one of a box's ports, and what those say who come in by it.
type door struct {
	name, address string
	secure        bool
	half          string // of a request or a handshake
	whole         string // which is answered
}

// greeting is the plain handshake of an RTMP player, both of its parts.
var greeting = "\x03" + strings.Repeat("\x00", 2*1536)

func (v venue) doors() []door {
	const describe = "DESCRIBE rtsp://box/main RTSP/1.0\r\nCSeq: 1\r\n"
	return []door{
		{"web", v.web, false, "GET /live/main.flv HTTP/1.1\r\nHost: localhost\r\n", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"},
		{"rtsp", v.rtsp, false, describe, describe + "\r\n"},
		{"rtmp", v.rtmp, false, greeting[:1000], greeting},
		{"webrtc", v.webrtc, false, "\x00\x40\x00", ""},
		{"rtsps", v.rtsps, true, "\x16\x03\x01\x02\x00\x01", describe + "\r\n"},
		{"rtmps", v.rtmps, true, "\x16\x03\x01\x02\x00\x01", greeting},
	}
}

// come opens a connection, from an address of this machine if not "".
func come(t *testing.T, address, from string) net.Conn {
	t.Helper()
	d := net.Dialer{Timeout: patience}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	nc, err := d.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return nc
}

// answered wants a newcomer to get an answer.
func (d door) answered(t *testing.T) {
	t.Helper()
	if d.whole == "" {
		return // it takes players only
	}
	nc := come(t, d.address, "")
	defer nc.Close()
	if d.secure {
		nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	}
	if _, err := io.WriteString(nc, d.whole); err != nil {
		t.Errorf("%s: a newcomer: %v", d.name, err)
	}
	if _, err := nc.Read(make([]byte, 1)); err != nil {
		t.Errorf("%s: a newcomer gets no answer: %v", d.name, err)
	}
}

// descriptors counts what the program has open.
func (p *process) descriptors() int {
	p.tb.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		p.tb.Fatal(err)
	}
	return len(list)
}

func TestAttackersHarmNobody(t *testing.T) {
	v := open(t, settings{})
	v.begin()
	for _, d := range v.doors() {
		d.answered(t)
	}
	w := v.view("main", "tcp")
	v.until("the watcher", func(b status.Box) bool { return watched(1)(b) && b.Readers[0].Bytes > 0 })
	calm, goroutines := v.descriptors(), v.goroutines()
	for name, attack := range map[string]func(*testing.T, venue){
		"requests that never end":                                 slowly,
		"callers who only knock":                                  knock,
		"what is no request":                                      rave,
		"readers that take nothing":                               gape,
		"a WebSocket that promises a lot":                         promise,
		"offers that promise a lot or rot":                        bargain,
		"WebRTC lines that take nothing, stay half open or flood": block,
	} {
		t.Run(name, func(t *testing.T) { attack(t, v) })
	}
	v.frames(30)
	// By their addresses, for attackers read too.
	alone := v.until("attackers to be gone", watched(1))
	if r := alone.Readers[0]; r.Protocol != "rtsp/tcp" || r.Lost > 0 {
		t.Errorf("the watcher is %+v", r)
	}
	peer.Await(t, "the box to be as before", func() bool {
		return v.descriptors() <= calm+2 && v.goroutines() <= goroutines+10
	})
	w.Kill()
	after := v.now()
	v.stop()
	m := decode(t, w.file, 320, 180)
	if lost := m.lost(t); lost > dropped(after) || len(m.pictures) == 0 {
		t.Errorf("of %d pictures the watcher lost %d, and the box had none of %d", len(m.pictures), lost, dropped(after))
	}
}

// goroutines returns how many the program has, by its metrics.
func (p *process) goroutines() (n int) {
	p.tb.Helper()
	code, doc := p.overTCP(http.MethodGet, "/metrics")
	if code != http.StatusOK {
		p.tb.Fatalf("metrics: %d", code)
	}
	for line := range strings.Lines(string(doc)) {
		if rest, ok := strings.CutPrefix(line, "go_goroutines "); ok {
			if _, err := fmt.Sscan(rest, &n); err != nil {
				p.tb.Fatal(err)
			}
			return n
		}
	}
	p.tb.Fatal("the metrics count no goroutines")
	return 0
}

// slowly opens more connections from four addresses than may wait at a door,
// and says half of what is to be said on each.
func slowly(t *testing.T, v venue) {
	t.Helper()
	for _, d := range v.doors() {
		var slow []net.Conn
		for i := range 4 * 150 {
			nc := come(t, d.address, fmt.Sprintf("127.0.1.%d", 1+i%4))
			if _, err := io.WriteString(nc, d.half); err == nil {
				slow = append(slow, nc)
			}
		}
		d.answered(t)
		for _, nc := range slow {
			_, _ = nc.Write([]byte{'a'}) // some have lost their place
		}
		d.answered(t)
		for _, nc := range slow {
			nc.Close()
		}
	}
}

// knock connects and vanishes, a thousand times at each door.
func knock(t *testing.T, v venue) {
	t.Helper()
	for _, d := range v.doors() {
		for i := range 1000 {
			nc := come(t, d.address, "")
			if i%2 == 0 {
				_, _ = io.WriteString(nc, d.half)
			}
			_ = nc.(*net.TCPConn).SetLinger(0) // no port is left waiting
			nc.Close()
		}
		d.answered(t)
	}
}

// raving is what is no request, or one that comes too early, by the door that
// it is said at, with how the answer begins: "" if there is only the end.
var raving = []struct{ door, name, say, hear string }{
	{"web", "a path outside", "GET /live/..%2f..%2fetc%2fpasswd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "HTTP/1.1 404"},
	{"web", "a path that is none", "GET /live/nobody/index.m3u8 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "HTTP/1.1 404"},
	{"web", "a segment that is none", "GET /live/main/hls/v/99999999999999999999.m4s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "HTTP/1.1 404"},
	{"web", "HTTP/2 by prior knowledge", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08", 500), "HTTP/1.1 4"},
	{"web", "an endless header", "GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 32<<10), "HTTP/1.1 431"},
	{"web", "bytes", strings.Repeat("\x00\xff\n", 2000), "HTTP/1.1 400"},
	{"web", "a method that is none", "FOO /live/main.flv HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "HTTP/1.1 405"},
	{"rtsp", "a version that is none", "GET / HTTP/1.1\r\n\r\n", "RTSP/1.0 505"},
	{"rtsp", "an endless line", "OPTIONS " + strings.Repeat("x", 8<<10), "RTSP/1.0 414"},
	{"rtsp", "an endless header", "OPTIONS * RTSP/1.0\r\n" + strings.Repeat("X: "+strings.Repeat("x", 1000)+"\r\n", 40), "RTSP/1.0 400"},
	{"rtsp", "a body too large", "OPTIONS * RTSP/1.0\r\nContent-Length: 99999999\r\n\r\n", "RTSP/1.0 413"},
	{"rtsp", "junk, then a play too early", strings.Repeat("$\x00\x00\x01x", 10_000) + "PLAY rtsp://box/main RTSP/1.0\r\nCSeq: 1\r\n\r\n", "RTSP/1.0 454"},
	{"rtsp", "a path outside", "DESCRIBE rtsp://box/../../etc/passwd RTSP/1.0\r\nCSeq: 1\r\n\r\n", "RTSP/1.0 404"},
	{"rtsp", "the answer's side", "RTSP/1.0 200 OK\r\n\r\n", "RTSP/1.0 400"},
	{"rtmp", "another protocol", "GET / HTTP/1.1\r\n\r\n", ""},
	{"rtmp", "a chunk of 16 MB", greeting + "\x03\x00\x00\x00\xff\xff\xff\x14\x00\x00\x00\x00", "\x03"},
	{"rtmp", "a chunk without its head", greeting + "\xc3x", "\x03"},
	{"rtmp", "a chunk size of zero", greeting + "\x02\x00\x00\x00\x00\x00\x04\x01\x00\x00\x00\x00\x00\x00\x00\x00", "\x03"},
	{"rtmp", "a word that never ends", greeting + "\x03\x00\x00\x00\x00\x00\x05\x14\x00\x00\x00\x00\x0c\xff\xff\xff\xff", "\x03"},
	{"rtmp", "a list of four thousand million", greeting + "\x03\x00\x00\x00\x00\x00\x15\x14\x00\x00\x00\x00\x02\x00\x04play\x00" + strings.Repeat("\x00", 8) + "\x0a\xff\xff\xff\xff", "\x03"},
	{"rtmp", "a play too early", greeting + "\x03\x00\x00\x00\x00\x00\x10\x14\x00\x00\x00\x00\x02\x00\x04play\x00" + strings.Repeat("\x00", 8), "\x03"},
	{"webrtc", "empty packets", strings.Repeat("\x00\x00", 1000), ""},
	{"webrtc", "a packet too long", "\xff\xff" + strings.Repeat("x", 70_000), ""},
	{"rtsps", "no TLS", "OPTIONS * RTSP/1.0\r\n\r\n", ""},
	{"rtmps", "no TLS", greeting, ""},
	{"rtsps", "a record too long", "\x16\x03\x01\xff\xff" + strings.Repeat("x", 70_000), "\x15"},
}

// rave wants an answer, if there can be one, or the end of the connection to
// what is no request.
func rave(t *testing.T, v venue) {
	t.Helper()
	doors := map[string]door{}
	for _, d := range v.doors() {
		doors[d.name] = d
	}
	for _, r := range raving {
		nc := come(t, doors[r.door].address, "")
		said := make(chan struct{})
		go func() {
			defer close(said)
			_, _ = io.WriteString(nc, r.say) // it may be hung up on before the end
			_ = nc.(*net.TCPConn).CloseWrite()
		}()
		heard, err := io.ReadAll(io.LimitReader(nc, 64<<10))
		if err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s, %s: %v after %d bytes", r.door, r.name, err, len(heard))
		}
		if !strings.HasPrefix(string(heard), r.hear) {
			t.Errorf("%s, %s: %.60q, want %q", r.door, r.name, heard, r.hear)
		}
		nc.Close()
		<-said
	}
	for _, d := range doors {
		d.answered(t)
	}
}

// gape reads nothing of endless answers.
func gape(t *testing.T, v venue) {
	t.Helper()
	var asleep []net.Conn
	for _, ending := range []string{"flv", "ts", "mp4", "mjpeg"} {
		for range 10 {
			nc := come(t, v.web, "")
			_ = nc.(*net.TCPConn).SetReadBuffer(2 << 10)
			if _, err := fmt.Fprintf(nc, "GET /live/main.%s HTTP/1.1\r\nHost: localhost\r\n\r\n", ending); err != nil {
				t.Fatal(err)
			}
			asleep = append(asleep, nc)
		}
	}
	v.until("those who take nothing", watched(1+len(asleep)))
	v.frames(60)
	for _, nc := range asleep {
		_ = nc.(*net.TCPConn).SetLinger(0)
		nc.Close()
	}
}

// promise announces a message of more bytes than there are.
func promise(t *testing.T, v venue) {
	t.Helper()
	nc := come(t, v.web, "")
	const ask = "GET /live/main.flv HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
	if _, err := io.WriteString(nc, ask+"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00"); err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(nc)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp.Status)
	}
	rest, err := io.ReadAll(br)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("not hung up on: %v", err)
	}
	const tooBig = 1009 // RFC 6455, 7.4.1
	if !strings.Contains(string(rest), string(binary.BigEndian.AppendUint16(nil, tooBig))) {
		t.Error("it is not told why")
	}
}

// bargain sends offers to browsers' door that are none.
func bargain(t *testing.T, v venue) {
	t.Helper()
	for _, r := range []struct{ length, body, want string }{
		{"9999999999", "v=0", "HTTP/1.1 413"},
		{"5", "v=0\r\n", "HTTP/1.1 400"},
		{"10", "\x00\xff\r\n\x00m=\r\n\n", "HTTP/1.1 400"},
	} {
		nc := come(t, v.web, "")
		if _, err := fmt.Fprintf(nc, "POST /live/main/whep HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/sdp\r\nContent-Length: %s\r\n\r\n%s", r.length, r.body); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(nc).ReadString('\n'); err != nil || !strings.HasPrefix(line, r.want) {
			t.Errorf("an offer of %s bytes gets %q (%v), want %s", r.length, line, err, r.want)
		}
		nc.Close()
	}
}
