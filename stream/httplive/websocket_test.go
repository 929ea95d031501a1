package httplive

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"encoderd.example/stream"
	"encoderd.example/stream/streamtest/peer"
)

// shake opens a WebSocket by hand.
func shake(t *testing.T, url string) (net.Conn, *bufio.Reader) {
	t.Helper()
	addr := strings.TrimPrefix(url, "http://")
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(peer.Patience)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(nc, "GET /live/main.flv HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", addr)
	br := bufio.NewReader(nc)
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(res.Status)
	}
	return nc, br
}

// lastWord reads frames (RFC 6455, 5.2) up to the end and returns the code of
// a closing one, 0 if none came.
func lastWord(br *bufio.Reader) (code websocket.StatusCode, err error) {
	for {
		var head [2]byte
		if _, err := io.ReadFull(br, head[:]); err != nil {
			return code, err
		}
		size := uint64(head[1])
		if wide := map[byte]int{126: 2, 127: 8}[head[1]]; wide > 0 {
			var b [8]byte
			if _, err := io.ReadFull(br, b[8-wide:]); err != nil {
				return code, err
			}
			size = binary.BigEndian.Uint64(b[:])
		}
		body, err := io.ReadAll(io.LimitReader(br, int64(size)))
		if err != nil {
			return code, err
		}
		if head[0]&0xf == 8 && len(body) >= 2 {
			code = websocket.StatusCode(binary.BigEndian.Uint16(body))
		}
	}
}

// FuzzFrames says whatever by WebSocket: the reader is seen off.
func FuzzFrames(f *testing.F) {
	enc := newFake(64, 10, 100)
	enc.publish()
	audience := &stream.Audience{}
	srv := httptest.NewServer((&Server{Find: only(enc.r), Audience: audience}).Handler())
	f.Cleanup(srv.Close)
	f.Add([]byte("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00"))
	f.Add([]byte("\x89\x82\x01\x02\x03\x04hi\x8a\x80\x00\x00\x00\x00\x88\x82\x00\x00\x00\x00\x03\xe8"))
	f.Add([]byte("\x09\x80\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, said []byte) {
		nc, br := shake(t, srv.URL)
		_, _ = nc.Write(said) // it may be hung up on before the end
		if err := nc.(*net.TCPConn).CloseWrite(); err != nil {
			return // it was, and wholly
		}
		if _, err := lastWord(br); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("not hung up on")
		}
		peer.Await(t, "the reader to leave", func() bool { return len(audience.Viewers()) == 0 })
	})
}

func TestWhoBreaksTheRulesOfWebSocketIsClosedAtOnce(t *testing.T) {
	enc := newFake(64, 10, 5000)
	enc.publish()
	audience := &stream.Audience{}
	srv := start(t, &Server{Find: only(enc.r), Audience: audience}, plain)
	const mask = "\x00\x00\x00\x00"
	for _, tt := range []struct {
		name, frame string
		want        websocket.StatusCode // 0: no word
	}{
		{"a message", "\x81\x82" + mask + "hi", websocket.StatusMessageTooBig},
		{"a huge message that never comes", "\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff" + mask, websocket.StatusMessageTooBig},
		{"a huge message that begins", "\x82\xff\x00\x00\x00\xff\xff\xff\xff\xff" + mask + "begins", websocket.StatusMessageTooBig},
		{"the first of many fragments", "\x02\x80" + mask, websocket.StatusMessageTooBig},
		{"a fragmented ping", "\x09\x80" + mask, websocket.StatusProtocolError},
		{"a long ping", "\x89\xfe\x00\x7e" + mask, websocket.StatusProtocolError},
		{"no mask", "\x81\x02hi", 0},
		{"a reserved bit", "\xc1\x82" + mask + "hi", websocket.StatusProtocolError},
		{"an unknown kind", "\x83\x80" + mask, websocket.StatusProtocolError},
		{"a goodbye", "\x88\x82" + mask + "\x03\xe8", websocket.StatusNormalClosure},
	} {
		t.Run(tt.name, func(t *testing.T) {
			nc, br := shake(t, srv.URL)
			if _, err := io.WriteString(nc, tt.frame); err != nil {
				t.Fatal(err)
			}
			code, err := lastWord(br)
			if code != tt.want {
				t.Errorf("closed with %d (%v), want %d", code, err, tt.want)
			}
			peer.Await(t, "the reader to leave", func() bool { return len(audience.Viewers()) == 0 })
		})
	}
}
