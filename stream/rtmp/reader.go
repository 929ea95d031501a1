package rtmp

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Message types (RTMP 1.0, 5.4, 6.2 and 7.1).
const (
	msgChunkSize   = 1
	msgAbort       = 2
	msgAck         = 3
	msgUser        = 4
	msgWindow      = 5
	msgPeerWindow  = 6
	msgCommandAMF3 = 17
	msgData        = 18
	msgCommand     = 20
)

// What the far side may make us keep: a server, 32 times 128 KiB; one of many
// players, 8 times 16 KiB. Both send a few hundred bytes.
const (
	maxMessage       = 128 << 10
	maxChunkStreams  = 32
	maxPlayerMessage = 16 << 10
	maxPlayerStreams = 8
	defaultChunk     = 128 // RTMP 1.0, 5.4.1
	extended         = 0xffffff
)

// errProtocol says that the far side broke the rules of RTMP.
var errProtocol = errors.New("the far side sent bad RTMP")

// A message is one RTMP message. Its body is the reader's memory, good until
// the next read.
type message struct {
	kind byte
	body []byte
}

// reader puts chunks together into messages (RTMP 1.0, 5.3). It follows
// changes of the chunk size and aborts by itself. For one goroutine.
type reader struct {
	br         *bufio.Reader
	chunk      uint32
	streams    map[uint32]*chunkStream
	count      uint64 // bytes read, as acknowledgements count them
	maxMessage uint32
	maxStreams int
}

type chunkStream struct {
	kind     byte
	length   uint32
	extended bool
	known    bool // has had a full header
	body     []byte
	partial  bool
}

// newReader returns a reader of what a server sends.
func newReader(r io.Reader) *reader {
	return &reader{
		br: bufio.NewReader(r), chunk: defaultChunk, streams: map[uint32]*chunkStream{},
		maxMessage: maxMessage, maxStreams: maxChunkStreams,
	}
}

// newPlayerReader returns a reader of what a player sends.
func newPlayerReader(rd io.Reader) *reader {
	r := newReader(rd)
	r.maxMessage, r.maxStreams = maxPlayerMessage, maxPlayerStreams
	return r
}

// next returns the next whole message, chunk size changes included.
func (r *reader) next() (message, error) {
	for {
		s, err := r.readChunk()
		if err != nil {
			return message{}, err
		}
		if s.partial {
			continue
		}
		m := message{s.kind, s.body}
		if err := r.follow(m); err != nil {
			return message{}, err
		}
		return m, nil
	}
}

// follow obeys the two messages that change how chunks are read.
func (r *reader) follow(m message) error {
	if m.kind != msgChunkSize && m.kind != msgAbort {
		return nil
	}
	if len(m.body) < 4 {
		return fmt.Errorf("%w: control message %d is cut short", errProtocol, m.kind)
	}
	v := binary.BigEndian.Uint32(m.body)
	if m.kind == msgAbort {
		if s := r.streams[v]; s != nil {
			s.partial = false
		}
		return nil
	}
	if v == 0 || v > 1<<31-1 {
		return fmt.Errorf("%w: chunk size %d", errProtocol, v)
	}
	r.chunk = v
	return nil
}

// readChunk reads one chunk and returns the stream it belongs to.
func (r *reader) readChunk() (*chunkStream, error) {
	format, id, err := r.basicHeader()
	if err != nil {
		return nil, err
	}
	s, err := r.stream(id)
	if err != nil {
		return nil, err
	}
	if err := r.messageHeader(s, format); err != nil {
		return nil, err
	}
	if !s.partial {
		s.body = s.body[:0]
	}
	have := len(s.body)
	n := int(min(s.length-uint32(have), r.chunk))
	s.body = append(s.body, make([]byte, n)...)
	if err := r.full(s.body[have:]); err != nil {
		return nil, err
	}
	s.partial = uint32(len(s.body)) < s.length
	return s, nil
}

// basicHeader reads RTMP 1.0, 5.3.1.1: one to three bytes.
func (r *reader) basicHeader() (format byte, id uint32, err error) {
	var b [2]byte
	if err := r.full(b[:1]); err != nil {
		return 0, 0, err
	}
	format, id = b[0]>>6, uint32(b[0]&0x3f)
	switch id {
	case 0:
		err = r.full(b[:1])
		id = 64 + uint32(b[0])
	case 1:
		err = r.full(b[:2])
		id = 64 + uint32(b[0]) + uint32(b[1])<<8
	default:
	}
	return format, id, err
}

func (r *reader) stream(id uint32) (*chunkStream, error) {
	s := r.streams[id]
	if s == nil {
		if len(r.streams) >= r.maxStreams {
			return nil, fmt.Errorf("%w: more than %d chunk streams", errProtocol, r.maxStreams)
		}
		s = &chunkStream{}
		r.streams[id] = s
	}
	return s, nil
}

// headerSizes is RTMP 1.0, 5.3.1.2, by format.
var headerSizes = [4]int{11, 7, 3, 0}

// messageHeader reads what the format leaves in. Times are read over: nothing
// that is read here depends on them.
func (r *reader) messageHeader(s *chunkStream, format byte) error {
	if format != 0 && !s.known {
		return fmt.Errorf("%w: a chunk stream starts with format %d", errProtocol, format)
	}
	if format != 3 && s.partial {
		return fmt.Errorf("%w: a message starts inside another", errProtocol)
	}
	var b [11]byte
	if err := r.full(b[:headerSizes[format]]); err != nil {
		return err
	}
	if format <= 1 {
		s.length = uint32(b[3])<<16 | uint32(b[4])<<8 | uint32(b[5])
		s.kind, s.known = b[6], true
		if s.length > r.maxMessage {
			return fmt.Errorf("%w: a message of %d bytes", errProtocol, s.length)
		}
	}
	if format <= 2 {
		s.extended = uint32(b[0])<<16|uint32(b[1])<<8|uint32(b[2]) == extended
	}
	if s.extended {
		return r.full(b[:4])
	}
	return nil
}

func (r *reader) full(b []byte) error {
	n, err := io.ReadFull(r.br, b)
	r.count += uint64(n)
	if err != nil {
		return noAnswer(err)
	}
	return nil
}
