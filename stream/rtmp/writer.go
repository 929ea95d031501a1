package rtmp

import (
	"bufio"
	"encoding/binary"
	"net"
	"sync"
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

// A writer cuts messages into chunks and writes each message by one call.
//
//	plain: [header│head│data…][type 3│data…]… ─► writev, no copy
//	       the same, if it is small           ─► copied, one write
//	TLS:   the same                           ─► copied, one write per TLS record
//
// Every message has a full (type 0) header: four bytes more than the shortest
// form, and neither side needs to remember anything when time steps back. All
// methods may be called from any goroutine.
type writer struct {
	wire  *wire
	plain bool

	mu     sync.Mutex
	chunk  uint32
	header [32]byte // type 0, and after it what fits of the message
	cont   [5]byte  // type 3
	pieces [][]byte // kept for its capacity
	queue  net.Buffers
	flat   *bufio.Writer // what is copied, as much as goes out by one write
	sent   uint64        // bytes that the far side counts
}

func newWriter(w *wire, conn net.Conn) *writer {
	plain, flat := conn == net.Conn(w), smallMessage
	if !plain {
		flat = tlsRecord
	}
	return &writer{
		wire: w, plain: plain, chunk: defaultChunk,
		pieces: make([][]byte, 0, 16), flat: bufio.NewWriterSize(conn, flat),
	}
}

// message writes one message whose body is head followed by data. Neither is
// kept.
func (w *writer) message(chunkStream, kind byte, stream, time uint32, head, data []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	first, cont := w.headers(chunkStream, kind, stream, time, len(head)+len(data))
	w.cut(first, cont, head, data)
	n := 0
	for _, p := range w.pieces {
		n += len(p)
	}
	w.sent += uint64(n)
	if w.plain && n > smallMessage {
		w.queue = w.pieces
		return w.wire.writeBuffers(&w.queue)
	}
	return w.copyOut()
}

const (
	smallMessage = 2 << 10  // copying it costs less than telling the kernel of its pieces
	tlsRecord    = 16 << 10 // the longest one (RFC 8446, 5.1)
)

// copyOut writes w.pieces from one buffer, which stays small however long they
// are.
func (w *writer) copyOut() error {
	for _, p := range w.pieces {
		_, _ = w.flat.Write(p) // Flush tells
	}
	return w.flat.Flush()
}

// headers fills in both kinds (RTMP 1.0, 5.3.1.2; 5.3.1.3 for the extended
// time, which stands in type 3 too).
func (w *writer) headers(chunkStream, kind byte, stream, time uint32, length int) (first, cont []byte) {
	short := min(time, extended)
	h := append(w.header[:0], chunkStream, byte(short>>16), byte(short>>8), byte(short),
		byte(length>>16), byte(length>>8), byte(length), kind)
	h = binary.LittleEndian.AppendUint32(h, stream)
	c := append(w.cont[:0], 3<<6|chunkStream)
	if short == extended {
		h, c = binary.BigEndian.AppendUint32(h, time), binary.BigEndian.AppendUint32(c, time)
	}
	return h, c
}

// cut lays the message out in w.pieces. A short head goes with the header.
func (w *writer) cut(first, cont, head, data []byte) {
	room := int(w.chunk)
	if len(first)+len(head) <= len(w.header) {
		first, head, room = append(first, head...), nil, room-len(head)
	}
	w.pieces = append(w.pieces[:0], first)
	for _, part := range [2][]byte{head, data} {
		for len(part) > 0 {
			if room == 0 {
				w.pieces = append(w.pieces, cont)
				room = int(w.chunk)
			}
			n := min(room, len(part))
			w.pieces = append(w.pieces, part[:n:n])
			part, room = part[n:], room-n
		}
	}
}

// setChunk announces and uses our chunk size.
func (w *writer) setChunk() error {
	if err := w.control(msgChunkSize, chunkSize); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.chunk = chunkSize
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
