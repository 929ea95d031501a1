package rtmp

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluenviron/gortmplib/pkg/bytecounter"
	"github.com/bluenviron/gortmplib/pkg/rawmessage"

	"encoderd.example/stream"
	"encoderd.example/stream/flv"
	"encoderd.example/stream/flv/amf0"
)

// pair is a TCP connection with both ends in the test.
func pair(tb testing.TB) (near *wire, far *net.TCPConn) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { a.Close(); b.Close() })
	return &wire{TCPConn: a.(*net.TCPConn)}, b.(*net.TCPConn)
}

func TestAddressIsTakenApart(t *testing.T) {
	tests := []struct {
		name, url, key string
		want           address
	}{
		{"key beside", "rtmp://h/app", "k?x=1", address{host: "h", port: "1935", app: "app", tcURL: "rtmp://h/app", key: "k?x=1"}},
		{"key inside", "rtmps://h/app/k?sign=a/b", "", address{secure: true, host: "h", port: "443", app: "app", tcURL: "rtmps://h/app", key: "k?sign=a/b"}},
		{"two parts", "rtmp://h:80/app/inst/", "k", address{host: "h", port: "80", app: "app/inst", tcURL: "rtmp://h:80/app/inst", key: "k"}},
		{"query of the application", "rtmp://h/app?t=1", "k", address{host: "h", port: "1935", app: "app?t=1", tcURL: "rtmp://h/app?t=1", key: "k"}},
		{"user", "rtmp://u:p%40@[::1]/app", "k", address{host: "::1", port: "1935", user: "u", pass: "p@", app: "app", tcURL: "rtmp://[::1]/app", key: "k"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseAddress(tt.url, tt.key)
			if err != nil || got != tt.want {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestWordsOfAServerAreCleaned(t *testing.T) {
	a, err := parseAddress("rtmp://u:pa%20ss@h/app?token=tok", "key/1?sign=s1gn")
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, in, want string }{
		{"key", "key/1?sign=s1gn is taken", "••• is taken"},
		{"key without its query", "key/1 is taken", "••• is taken"},
		{"key as a query writes it", "x=key%2F1", "x=•••"},
		{"one value of the query", "bad s1gn, bad tok", "bad •••, bad •••"},
		{"password", "pa ss, pa%20ss and pa+ss", "•••, ••• and •••"},
		{"lines of a log cannot be forged", "a\nlevel=ERROR\x1b[2J", "a level=ERROR [2J"},
		{"what goes on for ever", strings.Repeat("x", 1000), strings.Repeat("x", 240) + "…"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := a.hide(tt.in); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestWriterWritesTheChunksOfTheSpecification(t *testing.T) {
	c := cutter{chunk: 4}
	tests := []struct {
		name string
		time uint32
		head string
		want string
	}{
		{"continued by type 3", 0x010203, "HH", "\x06\x01\x02\x03\x00\x00\x06\x09\x07\x00\x00\x00HHdd\xc6dd"},
		{"extended time stands in both", 0x01020304, "HH", "\x06\xff\xff\xff\x00\x00\x06\x09\x07\x00\x00\x00\x01\x02\x03\x04HHdd\xc6\x01\x02\x03\x04dd"},
		{"the first time that is extended", 0xffffff, "HH", "\x06\xff\xff\xff\x00\x00\x06\x09\x07\x00\x00\x00\x00\xff\xff\xffHHdd\xc6\x00\xff\xff\xffdd"},
		{"a head of more than a chunk", 0x010203, "HHHHhh", "\x06\x01\x02\x03\x00\x00\x0a\x09\x07\x00\x00\x00HHHH\xc6hhdd\xc6dd"},
		{"a head of one chunk", 0x010203, "HHHH", "\x06\x01\x02\x03\x00\x00\x08\x09\x07\x00\x00\x00HHHH\xc6dddd"},
		{"no head", 0x010203, "", "\x06\x01\x02\x03\x00\x00\x04\x09\x07\x00\x00\x00dddd"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c.begin()
			size := c.message(csVideo, 9, 7, tt.time, []byte(tt.head), []byte("dddd"))
			if got := string(bytes.Join(c.pieces, nil)); got != tt.want || size != len(got) {
				t.Errorf("got  %x (%d)\nwant %x", got, size, tt.want)
			}
		})
	}
}

func TestAnotherImplementationReadsOurMessages(t *testing.T) {
	near, far := pair(t)
	w := newWriter(near, patience)
	big := make([]byte, 3*chunkSize+1)
	if _, err := rand.Read(big); err != nil {
		t.Fatal(err)
	}
	times := []uint32{0, 0xfffffe, 0xffffff, 0x1000000, 0xffffffff, 5}
	var writing sync.WaitGroup
	writing.Go(func() {
		if err := w.setChunk(); err != nil {
			t.Error(err)
		}
		for _, at := range times {
			if err := w.message(csVideo, 9, 1, at, []byte("HEAD5"), big); err != nil {
				t.Error(err)
			}
		}
	})
	r := rawmessage.NewReader(far, bytecounter.NewReader(far), nil)
	if m, err := r.Read(); err != nil || r.SetChunkSize(binary.BigEndian.Uint32(m.Body)) != nil {
		t.Fatal(m, err)
	}
	for _, at := range times {
		m, err := r.Read()
		if err != nil || m.Timestamp != time.Duration(at)*time.Millisecond || !bytes.Equal(m.Body, append([]byte("HEAD5"), big...)) {
			t.Fatalf("at %d: %v", at, err)
		}
	}
	writing.Wait()
}

func TestReaderFollowsWhatServersDo(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"short headers repeat the last", "\x03\x00\x00\x00\x00\x00\x02\x14\x00\x00\x00\x00ab\x43\x00\x00\x00\x00\x00\x01\x14c\x83\x00\x00\x00d\xc3e", "ab c d e"},
		{"chunk streams of two bytes", "\x00\x10\x00\x00\x00\x00\x00\x02\x14\x00\x00\x00\x00ab", "ab"},
		{"chunk streams of three bytes", "\x01\x10\x10\x00\x00\x00\x00\x00\x02\x14\x00\x00\x00\x00ab", "ab"},
		{"smaller chunks", "\x02\x00\x00\x00\x00\x00\x04\x01\x00\x00\x00\x00\x00\x00\x00\x02\x03\x00\x00\x00\x00\x00\x03\x14\x00\x00\x00\x00ab\xc3c", "\x00\x00\x00\x02 abc"},
		{"interleaved chunk streams", "\x02\x00\x00\x00\x00\x00\x04\x01\x00\x00\x00\x00\x00\x00\x00\x02\x03\x00\x00\x00\x00\x00\x03\x14\x00\x00\x00\x00ab\x04\x00\x00\x00\x00\x00\x01\x14\x00\x00\x00\x00x\xc3c", "\x00\x00\x00\x02 x abc"},
		{"extended time in type 3", "\x02\x00\x00\x00\x00\x00\x04\x01\x00\x00\x00\x00\x00\x00\x00\x02\x03\xff\xff\xff\x00\x00\x03\x14\x00\x00\x00\x00\x01\x00\x00\x00ab\xc3\x01\x00\x00\x00c", "\x00\x00\x00\x02 abc"},
		{"an abort", "\x02\x00\x00\x00\x00\x00\x04\x01\x00\x00\x00\x00\x00\x00\x00\x02\x03\x00\x00\x00\x00\x00\x03\x14\x00\x00\x00\x00ab\x02\x00\x00\x00\x00\x00\x04\x02\x00\x00\x00\x00\x00\x00\xc2\x00\x03\xc3xy\xc3z", "\x00\x00\x00\x02 \x00\x00\x00\x03 xyz"},
		{"an empty message", "\x03\x00\x00\x00\x00\x00\x00\x14\x00\x00\x00\x00", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newReader(strings.NewReader(tt.in))
			var got []string
			for {
				m, err := r.next()
				if err != nil {
					if !errors.Is(err, errHungUp) {
						t.Fatal(err)
					}
					break
				}
				got = append(got, string(m.body))
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("got %q, want %q", s, tt.want)
			}
			if r.count != uint64(len(tt.in)) {
				t.Errorf("counted %d of %d bytes", r.count, len(tt.in))
			}
		})
	}
}

func TestReaderIsBounded(t *testing.T) {
	var streams strings.Builder
	for i := range 40 {
		streams.WriteString(string([]byte{byte(2 + i), 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 0}))
	}
	tests := []struct{ name, in string }{
		{"a message of 16 MB", "\x03\x00\x00\x00\xff\xff\xff\x14\x00\x00\x00\x00"},
		{"chunks of nothing", "\x02\x00\x00\x00\x00\x00\x04\x01\x00\x00\x00\x00\x00\x00\x00\x00"},
		{"forty chunk streams", streams.String()},
		{"a stream that begins in the middle", "\xc3"},
		{"a message inside a message", "\x03\x00\x00\x00\x00\x01\x00\x14\x00\x00\x00\x00" + strings.Repeat("x", 128) + "\x03\x00\x00\x00\x00\x00\x01\x14\x00\x00\x00\x00"},
		{"a control message that is cut short", "\x02\x00\x00\x00\x00\x00\x02\x01\x00\x00\x00\x00ab"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newReader(strings.NewReader(tt.in))
			var err error
			for err == nil {
				_, err = r.next()
			}
			if !errors.Is(err, errProtocol) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("\x02\x00\x00\x00\x00\x00\x04\x01\x00\x00\x00\x00\x00\x00\x00\x02\x03\x00\x00\x00\x00\x00\x03\x14\x00\x00\x00\x00ab\xc3c"))
	f.Add([]byte("\x03\x00\x00\x00\x00\x00\x02\x14\x00\x00\x00\x00ab\x43\x00\x00\x00\x00\x00\x01\x14c\x83\x00\x00\x00d\xc3e"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := newReader(bytes.NewReader(in))
		for {
			m, err := r.next()
			if err != nil {
				break
			}
			if len(m.body) > len(in) {
				t.Fatal("a message out of nothing")
			}
			if m.kind == msgCommand {
				_, _ = parseCommand(m.body)
			}
		}
		if r.count > uint64(len(in)) {
			t.Errorf("counted %d of %d bytes", r.count, len(in))
		}
	})
}

func FuzzCommand(f *testing.F) {
	f.Add(amf0.Append(nil, amf0.String("_result"), amf0.Number(4), amf0.Null{}, amf0.Number(1)))
	f.Add(amf0.Append(nil, amf0.String("onStatus"), amf0.Number(0), amf0.Null{}, amf0.Object{{Name: "code", Value: amf0.String("NetStream.Publish.BadName")}}))
	f.Add(amf0.Append(nil, amf0.String("onBWDone")))
	a := address{key: "canary", app: "app"}
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := parseCommand(body)
		if err != nil {
			return
		}
		if text := a.fault(c.status()).Error(); strings.Contains(text, "canary") {
			t.Errorf("shows the key: %q", text)
		}
		if ask := askedLogin(c.status()); ask != nil {
			_, _ = a.login(ask)
		}
	})
}

// oddServer answers as rare servers do: no ids, few values, AMF3 framing,
// messages that nobody knows, a ping, small chunks, a stream number of its own.
func oddServer(c net.Conn, got chan<- message) {
	hello := make([]byte, 1+handshakeSize)
	if _, err := io.ReadFull(c, hello); err != nil {
		return
	}
	c.Write(append([]byte{version}, make([]byte, 2*handshakeSize)...)) // S2 is not C1
	io.ReadFull(c, make([]byte, handshakeSize))
	w := &wire{TCPConn: c.(*net.TCPConn)}
	out := newWriter(w, patience)
	command := func(prefix string, kind byte, values ...amf0.Value) {
		out.message(csCommand, kind, 0, 0, []byte(prefix), amf0.Append(nil, values...))
	}
	out.control(msgWindow, 4000)
	out.message(9, 99, 0, 0, []byte("unknown"), nil)
	out.message(csControl, msgUser, 0, 0, []byte{0, 31, 1, 2, 3, 4}, nil)
	out.message(csControl, msgUser, 0, 0, []byte{0, eventPing, 1, 2, 3, 4}, nil)
	command("", msgCommand, amf0.String("onBWDone"))
	command("\x00", msgCommandAMF3, amf0.String("_result"), amf0.Number(0))
	command("", msgCommand, amf0.String("_result"), amf0.Number(idRelease))
	command("", msgCommand, amf0.String("_error"), amf0.Number(idFCPublish), amf0.Null{})
	command("", msgCommand, amf0.String("_result"), amf0.Number(idCreate), amf0.Null{}, amf0.Number(77))
	command("", msgCommand, amf0.String("onFCPublish"), amf0.Number(0), amf0.Null{})
	command("", msgCommand, amf0.String("onStatus"), amf0.Number(0), amf0.Null{},
		amf0.Array{{Name: "code", Value: amf0.String("NetStream.Publish.Start")}})
	r := newReader(c)
	for {
		m, err := r.next()
		if err != nil {
			close(got)
			return
		}
		got <- message{m.kind, bytes.Clone(m.body)}
	}
}

func TestOddServersAreTolerated(t *testing.T) {
	near, far := pair(t)
	got := make(chan message, 100)
	var serving sync.WaitGroup
	serving.Go(func() { oddServer(far, got) })
	a, err := parseAddress("rtmp://h/app", "key")
	if err != nil {
		t.Fatal(err)
	}
	s := newSession(a, near, near, patience)
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	if s.stream != 77 {
		t.Errorf("stream %d, the server said 77", s.stream)
	}
	near.Close()
	serving.Wait()
	var pong, publish bool
	for m := range got {
		pong = pong || m.kind == msgUser && bytes.Equal(m.body, []byte{0, eventPong, 1, 2, 3, 4})
		if c, err := parseCommand(m.body); err == nil && c.name == "publish" {
			publish = len(c.values) == 3 && c.values[1] == amf0.String("key") && c.values[2] == amf0.String("live")
		}
	}
	if !pong || !publish {
		t.Errorf("pong %v, publish %v", pong, publish)
	}
}

func TestWhatArrivesIsAcknowledgedTwicePerWindow(t *testing.T) {
	near, far := pair(t)
	s := newSession(address{}, near, near, patience)
	s.window, s.r.count = 1000, 499
	if err := s.acknowledge(); err != nil || s.w.count() != 0 {
		t.Fatalf("acknowledged too early: %v", err)
	}
	s.r.count = 500
	if err := s.acknowledge(); err != nil {
		t.Fatal(err)
	}
	m, err := newReader(far).next()
	if err != nil || m.kind != msgAck || !bytes.Equal(m.body, []byte{0, 0, 1, 0xf4}) {
		t.Errorf("got %d %x, %v", m.kind, m.body, err)
	}
}

func TestAcknowledgementsAreCountedBeyond32Bits(t *testing.T) {
	s := &session{}
	for _, count := range []uint32{1 << 30, 2 << 30, 3 << 30, 0, 1 << 30, 1 << 29} {
		s.noteAck(count)
	}
	if got := s.acked.Load(); got != 5<<30 {
		t.Errorf("counted %d", got)
	}
}

func TestReceipt(t *testing.T) {
	type at = evidence
	const second = time.Second
	tests := []struct {
		name string
		seen []evidence
		want stream.PushState
	}{
		{"nothing yet", []at{{now: 0, sent: 9}}, stream.PushSending},
		{"the server has acknowledged", []at{{now: second, acked: 1, tcp: 1, sent: 9}}, stream.PushConfirmed},
		{"only the kernel has, just now", []at{{now: second, tcp: 1, sent: 9}, {now: 2 * second, tcp: 5, sent: 9}}, stream.PushSending},
		{"only the kernel has, for five seconds", []at{{now: second, tcp: 1, sent: 9}, {now: 6 * second, tcp: 5, sent: 20}}, stream.PushConfirmed},
		{"it does not move for ten seconds", []at{{now: second, acked: 1, tcp: 1, sent: 9}, {now: 11 * second, acked: 1, tcp: 1, sent: 20}}, stream.PushSending},
		{"a write hangs", []at{{now: second, acked: 1, tcp: 1, sent: 9}, {now: 11 * second, acked: 1, tcp: 1, sent: 9, busy: true}}, stream.PushSending},
		{"nothing to send", []at{{now: second, acked: 1, tcp: 1, sent: 9}, {now: 60 * second, acked: 1, tcp: 1, sent: 9}}, stream.PushConfirmed},
		{"it moves again", []at{{now: second, acked: 1, tcp: 1}, {now: 20 * second, acked: 1, tcp: 1, sent: 1}, {now: 21 * second, acked: 1, tcp: 2, sent: 2}}, stream.PushConfirmed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var r receipt
			var got stream.PushState
			for _, e := range tt.seen {
				got = r.update(e)
			}
			if got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestASlowFarSideIsNoFaultWhileItTakesSomething(t *testing.T) {
	near, far := pair(t)
	const patience = 400 * time.Millisecond
	near.SetWriteBuffer(64 << 10)
	far.SetReadBuffer(64 << 10)
	body := make([]byte, 8<<20)
	var reading sync.WaitGroup
	reading.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for left := len(body); left > 0; {
			<-tick.C
			n, err := io.ReadFull(far, make([]byte, min(left, 128<<10)))
			if err != nil {
				t.Error(err)
				return
			}
			left -= n
		}
	})
	begin := time.Now()
	if err := stream.NewLine(near, patience).Write(body[:1<<20], body[1<<20:]); err != nil {
		far.Close()
		t.Error(err)
	}
	if took := time.Since(begin); took < 2*patience {
		t.Errorf("took only %v: the test shows nothing", took)
	}
	reading.Wait()
}

func TestFinishCannotBeRenewed(t *testing.T) {
	near, _ := pair(t)
	near.finish(time.Now())
	near.finish(time.Now().Add(time.Hour))
	if _, err := near.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// BenchmarkSend is one picture of 6 Mbit/s at 25 fps to a reader on loopback.
func BenchmarkSend(b *testing.B) {
	for _, bb := range []struct {
		name string
		size int
	}{{"picture of 30 kB", 30_000}, {"key picture of 300 kB", 300_000}, {"sound", 340}} {
		b.Run(bb.name, func(b *testing.B) {
			near, far := pair(b)
			var reading sync.WaitGroup
			reading.Go(func() { _, _ = io.Copy(io.Discard, far) })
			s := newSession(address{}, near, near, patience)
			if err := s.w.setChunk(); err != nil {
				b.Fatal(err)
			}
			mux, u := benchmarkUnit(b, bb.size)
			emit := func(t flv.Tag) error { return s.send(t) }
			b.ReportAllocs()
			b.SetBytes(int64(bb.size))
			for b.Loop() {
				if err := mux.Next(u, emit); err != nil {
					b.Fatal(err)
				}
			}
			near.Close()
			reading.Wait()
		})
	}
}

func benchmarkUnit(tb testing.TB, size int) (*flv.Muxer, *stream.Unit) {
	tb.Helper()
	track := &stream.Track{Codec: stream.H264}
	mux, err := flv.NewMuxer([]*stream.Track{track}, encoderName)
	if err != nil {
		tb.Fatal(err)
	}
	u := &stream.Unit{Track: track, Key: true, Data: make([]byte, size)}
	return mux, u
}

func TestAUnitCostsAtMostTwoAllocations(t *testing.T) {
	near, far := pair(t)
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(io.Discard, far) })
	s := newSession(address{}, near, near, patience)
	mux, u := benchmarkUnit(t, 300_000)
	s.w.cut.chunk = chunkSize
	emit := func(t flv.Tag) error { return s.send(t) }
	if n := testing.AllocsPerRun(200, func() { _ = mux.Next(u, emit) }); n > 2 {
		t.Errorf("%v allocations", n)
	}
	near.Close()
	reading.Wait()
}

// TestHEVCIsRefusedBeforeAnybodyIsCalled: plain RTMP has no way to carry it.
func TestHEVCIsRefusedBeforeAnybodyIsCalled(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	called := false
	var answering sync.WaitGroup
	answering.Go(func() {
		if c, err := l.Accept(); err == nil {
			called = true
			_ = c.Close()
		}
	})
	r := stream.NewRendition("main", 8, stream.H265)
	r.Publish(&stream.Unit{Track: &stream.Track{Codec: stream.H265}, Key: true, Data: []byte{0, 0, 0, 3, 0x28, 1, 0x80}})
	p, err := New(Config{URL: "rtmp://" + l.Addr().String() + "/live", Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	err = p.Run(t.Context(), r, func(stream.PushReport) {})
	if !errors.Is(err, stream.ErrRefused) || !errors.Is(err, flv.ErrNoVideo) {
		t.Errorf("got %v", err)
	}
	_ = l.Close()
	answering.Wait()
	if called {
		t.Error("the server was called all the same")
	}
}
