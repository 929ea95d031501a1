package rtmp

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"encoderd.example/stream/flv"
	"encoderd.example/stream/flv/amf0"
)

// Transaction ids of our commands: one of each in a session.
const (
	idConnect = 1 + iota
	idRelease
	idFCPublish
	idCreate
	idPublish
	idUnpublish
	idDelete
)

const (
	// ourWindow asks the server to acknowledge each half million bytes: less
	// than a second of a usual stream, so that receipt is proved soon.
	ourWindow = 500_000
	// peerWindow is the usual value; it only limits what the server sends us.
	peerWindow  = 2_500_000
	bandDynamic = 2 // limit type of Set Peer Bandwidth (RTMP 1.0, 5.4.5)
	flashVer    = "FMLE/3.0 (compatible; " + encoderName + ")"
)

// User control events (RTMP 1.0, 7.1.7).
const (
	eventPing = 6
	eventPong = 7
)

// A session is one connection from its handshake to its end. One goroutine
// reads (start, then watch), another sends.
type session struct {
	addr address
	wire *wire
	conn net.Conn // wire, or TLS over it
	r    *reader
	w    *writer

	stream uint32 // the server's number of our message stream
	window uint32 // the server wants an acknowledgement for so many bytes
	told   uint64 // bytes acknowledged to the server
	script []byte // scratch of the sender

	lastAck uint32
	acked   atomic.Uint64 // bytes that the server has acknowledged
	onAck   func()
}

func newSession(a address, w *wire, conn net.Conn, patience time.Duration) *session {
	return &session{addr: a, wire: w, conn: conn, r: newReader(conn), w: newWriter(conn, patience)}
}

// start does everything up to the permission to send.
func (s *session) start() error {
	steps := [...]struct {
		what string
		do   func() error
	}{
		{"connect", s.connect},
		{"create stream", s.create},
		{"publish", s.publish},
	}
	if err := handshake(s.conn); err != nil {
		return err
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			return fmt.Errorf("rtmp %s: %w", step.what, err)
		}
	}
	return nil
}

func (s *session) connect() error {
	err := errors.Join(
		s.w.control(msgWindow, ourWindow),
		s.w.control(msgPeerWindow, peerWindow, bandDynamic),
		s.w.setChunk(),
		s.call(0, csCommand, "connect", idConnect, amf0.Object{
			{Name: "app", Value: amf0.String(s.addr.app)},
			{Name: "type", Value: amf0.String("nonprivate")},
			{Name: "flashVer", Value: amf0.String(flashVer)},
			{Name: "tcUrl", Value: amf0.String(s.addr.tcURL)},
			{Name: "objectEncoding", Value: amf0.Number(0)},
		}),
	)
	if err != nil {
		return err
	}
	_, err = s.answer(idConnect)
	return err
}

func (s *session) create() error {
	key := amf0.String(s.addr.key)
	err := errors.Join(
		s.call(0, csCommand, "releaseStream", idRelease, amf0.Null{}, key),
		s.call(0, csCommand, "FCPublish", idFCPublish, amf0.Null{}, key),
		s.call(0, csCommand, "createStream", idCreate, amf0.Null{}),
	)
	if err != nil {
		return err
	}
	c, err := s.answer(idCreate)
	if err != nil {
		return err
	}
	number, ok := c.number()
	if !ok || number < 0 || number > 1<<32-1 {
		return fmt.Errorf("%w: no stream number", errProtocol)
	}
	s.stream = uint32(number)
	return nil
}

func (s *session) publish() error {
	err := s.call(s.stream, csPublish, "publish", idPublish, amf0.Null{}, amf0.String(s.addr.key), amf0.String("live"))
	if err != nil {
		return err
	}
	for {
		c, err := s.next()
		if errors.Is(err, errHungUp) {
			return fmt.Errorf("%w without a reason: often it does not know the stream key", err)
		}
		if err != nil {
			return err
		}
		switch st := c.status(); {
		case st.failed(), c.name == "_error" && c.id == idPublish:
			return s.addr.fault(st)
		case c.name == "onStatus":
			return nil
		}
	}
}

// answer waits for the answer to our command id. Some servers answer every
// command with id 0.
func (s *session) answer(id float64) (command, error) {
	for {
		c, err := s.next()
		if err != nil {
			return command{}, err
		}
		st := c.status()
		mine := c.id == id || c.id == 0
		switch {
		case c.name == "_error" && mine, c.name == "onStatus" && st.failed():
			if ask := askedLogin(st); ask != nil {
				return command{}, ask
			}
			return command{}, s.addr.fault(st)
		case c.name == "_result" && mine:
			return c, nil
		}
	}
}

func (s *session) call(stream uint32, chunkStream byte, name string, id float64, values ...amf0.Value) error {
	body := amf0.Append(nil, amf0.String(name), amf0.Number(id))
	return s.w.message(chunkStream, msgCommand, stream, 0, amf0.Append(body, values...), nil)
}

// next returns the next command and does on the way what the protocol asks
// for: answers pings, acknowledges, notes acknowledgements.
func (s *session) next() (command, error) {
	for {
		m, err := s.r.next()
		if err != nil {
			return command{}, err
		}
		if err := s.acknowledge(); err != nil {
			return command{}, err
		}
		switch m.kind {
		case msgCommandAMF3:
			// One byte of format, then AMF0 in practice.
			return parseCommand(m.body[min(1, len(m.body)):])
		case msgCommand:
			return parseCommand(m.body)
		default:
			if err := s.control(m); err != nil {
				return command{}, err
			}
		}
	}
}

// control serves protocol and user control messages and skips the rest.
func (s *session) control(m message) error {
	switch {
	case m.kind == msgAck && len(m.body) >= 4:
		s.noteAck(binary.BigEndian.Uint32(m.body))
	case m.kind == msgWindow && len(m.body) >= 4:
		s.window = binary.BigEndian.Uint32(m.body)
	case m.kind == msgUser && len(m.body) >= 6 && binary.BigEndian.Uint16(m.body) == eventPing:
		pong := append([]byte{0, eventPong}, m.body[2:6]...)
		return s.w.message(csControl, msgUser, 0, 0, pong, nil)
	}
	return nil
}

// noteAck follows the server's count, which wraps at 32 bits.
func (s *session) noteAck(count uint32) {
	if ahead := int32(count - s.lastAck); ahead > 0 {
		s.lastAck = count
		s.acked.Add(uint64(ahead))
		if s.onAck != nil {
			s.onAck()
		}
	}
}

// acknowledge tells the server what has arrived, twice per window as others
// do, so that it never has to wait.
func (s *session) acknowledge() error {
	if s.window == 0 || s.r.count-s.told < uint64(s.window)/2 {
		return nil
	}
	s.told = s.r.count
	return s.w.control(msgAck, uint32(s.told))
}

// watch reads until the connection ends and returns why.
func (s *session) watch() error {
	for {
		c, err := s.next()
		if err != nil {
			return err
		}
		if st := c.status(); c.name == "close" || c.name == "onStatus" && st.failed() {
			return s.addr.fault(st)
		}
	}
}

// send writes one tag as one message.
func (s *session) send(t flv.Tag) error {
	switch t.Kind {
	case flv.Script:
		s.script = append(amf0.Append(s.script[:0], amf0.String("@setDataFrame")), t.Head...)
		return s.w.message(csPublish, msgData, s.stream, t.Time, s.script, t.Data)
	case flv.Audio:
		return s.w.message(csAudio, byte(t.Kind), s.stream, t.Time, t.Head, t.Data)
	default:
		return s.w.message(csVideo, byte(t.Kind), s.stream, t.Time, t.Head, t.Data)
	}
}

// goodbye lets the server end the stream at once, so that the next connection
// does not meet "BadName", and ends our half. The deadline of the wire counts.
func (s *session) goodbye() error {
	err := errors.Join(
		s.call(0, csCommand, "FCUnpublish", idUnpublish, amf0.Null{}, amf0.String(s.addr.key)),
		s.call(0, csCommand, "deleteStream", idDelete, amf0.Null{}, amf0.Number(s.stream)),
	)
	if err != nil {
		return err
	}
	if t, ok := s.conn.(*tls.Conn); ok {
		err = t.CloseWrite()
	}
	return errors.Join(err, s.wire.CloseWrite())
}
