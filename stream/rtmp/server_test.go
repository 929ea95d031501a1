package rtmp

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/bluenviron/gortmplib"
	"github.com/bluenviron/gortmplib/pkg/amf0"
	"github.com/bluenviron/gortmplib/pkg/bytecounter"
	theirs "github.com/bluenviron/gortmplib/pkg/handshake"
	"github.com/bluenviron/gortmplib/pkg/rawmessage"

	"encoderd.example/stream"
	"encoderd.example/stream/streamtest"
	"encoderd.example/stream/streamtest/peer"
)

// server is a far side that takes orders. It reads through gortmplib, so that
// our bytes are read by code that is not ours.
type server struct {
	listener net.Listener
	do       streamtest.Behaviour
	over     chan struct{}

	mu     sync.Mutex
	events []streamtest.Event
	conns  []net.Conn
	serve  sync.WaitGroup
}

func newServer(t *testing.T, do streamtest.Behaviour) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{listener: l, do: do, over: make(chan struct{})}
	s.serve.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns = append(s.conns, c)
			s.mu.Unlock()
			s.serve.Go(func() {
				defer c.Close()
				s.talk(c)
			})
		}
	})
	t.Cleanup(func() {
		close(s.over)
		l.Close()
		s.mu.Lock()
		for _, c := range s.conns {
			c.Close()
		}
		s.mu.Unlock()
		s.serve.Wait()
	})
	return s
}

func (s *server) URL() string { return "rtmp://" + s.listener.Addr().String() + "/live" }

func (s *server) Events() []streamtest.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

func (s *server) note(e streamtest.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

// dialogue is one connection of a server.
type dialogue struct {
	*server
	conn net.Conn
	r    *rawmessage.Reader
	w    *rawmessage.Writer
	seen int
}

func (s *server) talk(c net.Conn) {
	if s.do == streamtest.Mute {
		<-s.over
		return
	}
	c.(*net.TCPConn).SetReadBuffer(64 << 10)
	bc := bytecounter.NewReadWriter(c)
	if _, _, err := theirs.DoServer(bc, false); err != nil {
		return
	}
	d := &dialogue{server: s, conn: c, w: rawmessage.NewWriter(bc, bc.Writer, false)}
	d.r = rawmessage.NewReader(bc, bc.Reader, func(count uint32) error {
		return d.w.Write(&rawmessage.Message{ChunkStreamID: 2, Type: msgAck, Body: []byte{byte(count >> 24), byte(count >> 16), byte(count >> 8), byte(count)}})
	})
	d.r.SetWindowAckSize(20_000)
	for {
		m, err := d.r.Read()
		if err != nil || !d.take(m) {
			return
		}
	}
}

// take returns false when the dialogue is over.
func (d *dialogue) take(m *rawmessage.Message) bool {
	switch m.Type {
	case msgChunkSize:
		return d.r.SetChunkSize(uint32(m.Body[0])<<24|uint32(m.Body[1])<<16|uint32(m.Body[2])<<8|uint32(m.Body[3])) == nil
	case msgCommand:
		values, err := amf0.Unmarshal(m.Body)
		return err == nil && d.command(values)
	case 8, 9:
		d.media(m)
		d.seen++
		return d.do != streamtest.HangUp || d.seen < 20
	}
	return true
}

func (d *dialogue) media(m *rawmessage.Message) {
	config := m.Body[1] == 0
	switch {
	case m.Type == 9 && config:
		d.note(streamtest.VideoHeader)
	case m.Type == 8 && config:
		d.note(streamtest.SoundHeader)
	case m.Type == 8:
		d.note(streamtest.Sound)
	case m.Body[0]>>4 == 1:
		d.note(streamtest.KeyPicture)
	default:
		d.note(streamtest.Picture)
	}
}

func (d *dialogue) command(c amf0.Data) bool {
	switch c[0] {
	case "connect":
		return d.say("_result", c[1], amf0.Object{}, info("status", "NetConnection.Connect.Success", ""))
	case "createStream":
		return d.say("_result", c[1], nil, 7.0)
	case "publish":
		return d.publish(c[3].(string))
	case "deleteStream":
		d.note(streamtest.Goodbye)
	}
	return true
}

func (d *dialogue) publish(key string) bool {
	switch d.do {
	case streamtest.Refuse:
		return d.say("onStatus", 0.0, nil, info("error", "NetStream.Publish.Denied", "no such key: "+key))
	case streamtest.Busy:
		return d.say("onStatus", 0.0, nil, info("error", "NetStream.Publish.BadName", key+" is taken"))
	case streamtest.Stall:
		d.say("onStatus", 0.0, nil, info("status", "NetStream.Publish.Start", key))
		<-d.over
		return false
	default:
		return d.say("onStatus", 0.0, nil, info("status", "NetStream.Publish.Start", key))
	}
}

func (d *dialogue) say(values ...any) bool {
	body, err := amf0.Data(values).Marshal()
	return err == nil && d.w.Write(&rawmessage.Message{ChunkStreamID: 3, Type: msgCommand, Body: body}) == nil
}

func info(level, code, text string) amf0.Object {
	return amf0.Object{{Key: "level", Value: level}, {Key: "code", Value: code}, {Key: "description", Value: text}}
}

func TestPushConforms(t *testing.T) {
	const short = 2 * time.Second
	streamtest.Push(t, streamtest.Protocol{
		Patience: short,
		Serve: func(t *testing.T, b streamtest.Behaviour) streamtest.FarSide {
			t.Helper()
			return newServer(t, b)
		},
		Open: func(t *testing.T, url, key string, log *slog.Logger) stream.Push {
			t.Helper()
			p := open(t, Config{URL: url, Key: key, Log: log})
			p.patience = short
			return p
		},
		Closed: func(t *testing.T) string {
			t.Helper()
			return "rtmp://" + peer.FreeAddress(t) + "/live"
		},
	})
}

// The library's server checks the adobe login: another implementation of it.
func TestLoginIsAcceptedByAnotherImplementation(t *testing.T) {
	tests := []struct {
		name, user, want string
		refused          bool
	}{
		{"right", "user:canary-pass@", "", false},
		{"wrong password", "user:canary-wrong@", "does not take this user and password", true},
		{"no user", "", "wants a user and a password", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			address := startLogin(t, "user", "canary-pass")
			m := knownTracks(t)
			r := start(t, open(t, Config{URL: "rtmp://" + tt.user + address + "/live", Key: "canary"}), m)
			if tt.want == "" {
				peer.Await(t, "sending", func() bool { return r.last.Load().State >= stream.PushSending })
				r.stop(t)
				return
			}
			err := <-r.done
			if err == nil || !bytes.Contains([]byte(err.Error()), []byte(tt.want)) || bytes.Contains([]byte(err.Error()), []byte("canary")) {
				t.Errorf("got %v", err)
			}
			if errors.Is(err, stream.ErrRefused) != tt.refused {
				t.Errorf("%v: permanent is wrong", err)
			}
		})
	}
}

func startLogin(t *testing.T, user, pass string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serve := func(c net.Conn) {
		defer c.Close()
		sc := &gortmplib.ServerConn{RW: c}
		if sc.Initialize() != nil || sc.CheckCredentials(user, pass) != nil || sc.Accept() != nil {
			return
		}
		for buf := make([]byte, 4096); ; {
			if _, err := c.Read(buf); err != nil {
				return
			}
		}
	}
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { serve(c) })
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return l.Addr().String()
}
