package rtmp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/bluenviron/gortmplib/pkg/bytecounter"
	"github.com/bluenviron/gortmplib/pkg/rawmessage"

	"encoderd.example/stream"
	"encoderd.example/stream/flv"
	"encoderd.example/stream/flv/amf0"
	"encoderd.example/stream/h264"
)

// startServer runs a server until the test ends and returns its address.
func startServer(t *testing.T, s *Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Listener = l
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("the server ended with %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the server does not end")
		}
	})
	return l.Addr().String()
}

func only(r *stream.Rendition) func(string) *stream.Rendition {
	return func(name string) *stream.Rendition {
		if name == r.Name {
			return r
		}
		return nil
	}
}

// A visitor is a player that takes orders. It reads through gortmplib, so that
// our bytes are read by code that is not ours.
type visitor struct {
	nc net.Conn
	r  *rawmessage.Reader
	w  *writer
}

func visit(t *testing.T, addr string) *visitor {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if err := handshake(nc); err != nil {
		t.Fatal(err)
	}
	bc := bytecounter.NewReadWriter(nc)
	w := &wire{TCPConn: nc.(*net.TCPConn)}
	return &visitor{nc: nc, w: newWriter(w, patience), r: rawmessage.NewReader(bc, bc.Reader, func(uint32) error { return nil })}
}

func (v *visitor) say(t *testing.T, name string, id float64, values ...amf0.Value) {
	t.Helper()
	body := amf0.Append(nil, amf0.String(name), amf0.Number(id))
	if err := v.w.message(csCommand, msgCommand, onlyStream, 0, amf0.Append(body, values...), nil); err != nil {
		t.Fatal(err)
	}
}

// hear returns the next message, after obeying it.
func (v *visitor) hear() (*rawmessage.Message, error) {
	v.nc.SetReadDeadline(time.Now().Add(20 * time.Second))
	m, err := v.r.Read()
	if err == nil && m.Type == msgChunkSize {
		err = v.r.SetChunkSize(binary.BigEndian.Uint32(m.Body))
	}
	return m, err
}

// answer returns the next command of this name.
func (v *visitor) answer(t *testing.T, name string) command {
	t.Helper()
	for {
		m, err := v.hear()
		if err != nil {
			t.Fatalf("waiting for %s: %v", name, err)
		}
		if m.Type != msgCommand {
			continue
		}
		c, err := parseCommand(m.Body)
		if err != nil {
			t.Fatal(err)
		}
		if c.name == name {
			return c
		}
	}
}

// enter goes as far as a stream to play on. about is added to connect.
func (v *visitor) enter(t *testing.T, app string, about ...amf0.Property) {
	t.Helper()
	v.say(t, "connect", 1, append(amf0.Object{{Name: "app", Value: amf0.String(app)}}, about...))
	if c := v.answer(t, "_result"); c.id != 1 {
		t.Fatalf("connect was answered by %+v", c)
	}
	v.say(t, "createStream", 2, amf0.Null{})
	if n, ok := v.answer(t, "_result").number(); !ok || n != onlyStream {
		t.Fatalf("stream %v", n)
	}
}

func (v *visitor) ask(t *testing.T, name string) {
	t.Helper()
	v.say(t, "play", 0, amf0.Null{}, amf0.String(name), amf0.Number(-2000))
}

// play goes all the way with a fake's rendition.
func (v *visitor) play(t *testing.T) {
	t.Helper()
	v.enter(t, application)
	v.ask(t, "main")
	for v.answer(t, "onStatus").status().code != "NetStream.Play.Start" {
	}
}

// closed waits for the server to hang up, whatever it says before.
func (v *visitor) closed(t *testing.T) {
	t.Helper()
	for {
		_, err := v.hear()
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			t.Fatal("the server does not hang up")
		}
		if err != nil {
			return
		}
	}
}

// tags returns the next n media and script messages as short words: M for
// metadata, vh and ah for headers, V for key pictures, v and a.
func (v *visitor) tags(t *testing.T, n int) (words []string, times []time.Duration) {
	t.Helper()
	for len(words) < n {
		m, err := v.hear()
		if err != nil {
			t.Fatalf("after %v: %v", words, err)
		}
		if w := word(m); w != "" {
			words, times = append(words, w), append(times, m.Timestamp)
		}
	}
	return words, times
}

func word(m *rawmessage.Message) string {
	switch {
	case m.Type == msgData && bytes.Contains(m.Body, []byte("onMetaData")):
		return "M"
	case m.Type == byte(flv.Audio) && m.Body[1] == 0:
		return "ah"
	case m.Type == byte(flv.Audio):
		return "a"
	case m.Type != byte(flv.Video):
		return ""
	case m.Body[0]&0x80 != 0 && m.Body[0]&0xf == 0, m.Body[0]&0x80 == 0 && m.Body[1] == 0:
		return "vh"
	case m.Body[0]>>4&7 == 1:
		return "V"
	default:
		return "v"
	}
}

// A fake is an encoder whose pictures carry their number.
type fake struct {
	r            *stream.Rendition
	video, sound *stream.Track
	gop, size    int
	n            uint32
}

func newFake(keep, gop, size int) *fake {
	return &fake{
		r:     stream.NewRendition("main", keep, stream.H264, stream.AAC),
		video: &stream.Track{Codec: stream.H264, Setup: []byte{1, 0x64, 0, 0x1f}, Width: 640, Height: 360, FPS: 25, Bitrate: 1_000_000},
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
	f.r.Publish(&stream.Unit{Track: f.sound, PTS: at, DTS: at, Data: make([]byte, 200)})
}

// number reads what publish wrote.
func number(m *rawmessage.Message) uint32 {
	return binary.BigEndian.Uint32(m.Body[flv.VideoHead+4+1:])
}

// A lockedLog keeps what a logger writes.
type lockedLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *lockedLog) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// rest reads until the far side hangs up.
func rest(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}
