package rtmp

import (
	"encoding/binary"
	"net"
	"sync"
	"time"

	"encoderd.example/stream"
)

// chunkSize is what we send by. OBS and ffmpeg's servers take it; a larger one
// is refused by some.
const chunkSize = 65536

// Chunk streams as Flash and everybody after it numbered them.
const (
	csControl = 2
	csCommand = 3
	csAudio   = 4
	csPublish = 4
	csVideo   = 6
)

// A writer cuts messages into chunks and writes each message whole. All methods
// may be called from any goroutine.
type writer struct {
	line *stream.Line

	mu   sync.Mutex
	cut  cutter
	sent uint64 // bytes that the far side counts
}

// newWriter returns a writer over conn, TCP or TLS over it, whose far side may
// take nothing for so long.
func newWriter(conn net.Conn, patience time.Duration) *writer {
	return &writer{line: stream.NewLine(conn, patience), cut: cutter{chunk: defaultChunk}}
}

// message writes one message whose body is head followed by data. Neither is
// kept.
func (w *writer) message(chunkStream, kind byte, stream, time uint32, head, data []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut.begin()
	w.sent += uint64(w.cut.message(chunkStream, kind, stream, time, head, data))
	return w.line.Write(w.cut.pieces...)
}

// setChunk announces and uses our chunk size.
func (w *writer) setChunk() error {
	if err := w.control(msgChunkSize, chunkSize); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut.chunk = chunkSize
	return nil
}

// control writes a protocol control message of one number and, for some, more.
func (w *writer) control(kind byte, value uint32, more ...byte) error {
	body := append(binary.BigEndian.AppendUint32(make([]byte, 0, 8), value), more...)
	return w.message(csControl, kind, 0, 0, body, nil)
}

// count returns how many bytes the far side can have counted so far.
func (w *writer) count() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent
}

// A cutter lays messages out in chunks:
//
//	[header│head│data…][type 3│data…]…
//
// Headers and heads are copied, data is not. Every message has a full (type 0)
// header: four bytes more than the shortest form, and neither side needs to
// remember anything when time steps back.
type cutter struct {
	chunk  uint32
	own    []byte   // what is copied
	pieces [][]byte // since begin
}

// begin forgets the messages so far, whose memory is used again.
func (c *cutter) begin() { c.own, c.pieces = c.own[:0], c.pieces[:0] }

// message appends a message whose body is head followed by data, and returns
// its size in chunks.
func (c *cutter) message(chunkStream, kind byte, stream, time uint32, head, data []byte) int {
	start, room := len(c.own), int(c.chunk)
	c.own = appendHeader(c.own, chunkStream, kind, stream, time, len(head)+len(data))
	for len(head) > 0 {
		if room == 0 {
			c.own, room = appendContinued(c.own, chunkStream, time), int(c.chunk)
		}
		n := min(room, len(head))
		c.own = append(c.own, head[:n]...)
		head, room = head[n:], room-n
	}
	size := c.add(c.own[start:])
	if len(data) > room { // one for all chunks that follow
		start = len(c.own)
		c.own = appendContinued(c.own, chunkStream, time)
	}
	for again := c.own[start:]; len(data) > 0; {
		if room == 0 {
			size, room = size+c.add(again), int(c.chunk)
		}
		n := min(room, len(data))
		size += c.add(data[:n:n])
		data, room = data[n:], room-n
	}
	return size
}

func (c *cutter) add(piece []byte) int {
	c.pieces = append(c.pieces, piece)
	return len(piece)
}

// appendHeader appends a type 0 header (RTMP 1.0, 5.3.1.2.1).
func appendHeader(h []byte, chunkStream, kind byte, stream, time uint32, length int) []byte {
	short := min(time, extended)
	h = append(h, chunkStream, byte(short>>16), byte(short>>8), byte(short),
		byte(length>>16), byte(length>>8), byte(length), kind)
	h = binary.LittleEndian.AppendUint32(h, stream)
	return appendExtended(h, time)
}

// longHeader is how long a type 0 header with an extended time is.
const longHeader = 16

// headerSize returns how long a type 0 header is.
func headerSize(time uint32) int {
	if time < extended {
		return longHeader - 4
	}
	return longHeader
}

// appendContinued appends a type 3 header (RTMP 1.0, 5.3.1.2.4).
func appendContinued(h []byte, chunkStream byte, time uint32) []byte {
	return appendExtended(append(h, 3<<6|chunkStream), time)
}

// appendExtended appends a time that has no room in the header: after type 3,
// too (RTMP 1.0, 5.3.1.3).
func appendExtended(h []byte, time uint32) []byte {
	if time < extended {
		return h
	}
	return binary.BigEndian.AppendUint32(h, time)
}
