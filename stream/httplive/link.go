package httplive

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"

	"encoderd.example/stream"
)

// A link is the way to one reader.
type link interface {
	// send writes one unit, which lies in several pieces, by one call where the
	// network allows. It keeps none of them. An error ends the link.
	send(ctx context.Context, pieces [][]byte) error
	// close ends the answer; reason is what ended it.
	close(reason error)
}

// open begins the answer. left is called, from another goroutine, when the
// reader is known to have gone.
func (s *site) open(w http.ResponseWriter, r *http.Request, rd *reading, f form, left func()) (link, error) {
	switch {
	case upgrades(r):
		return s.openWebSocket(w, r, rd, f, left)
	case r.ProtoMajor == 1:
		return s.openSocket(w, r, rd, left)
	default: // the request's context tells
		return &answer{w: w, rc: http.NewResponseController(w), viewer: rd.viewer, patience: s.write}, nil
	}
}

// A socket is an HTTP/1.1 connection taken over from the server, which would
// cut every unit up and copy it. Every unit is one chunk of the answer (RFC
// 9112, 7.1), so that its end can be told from a broken line.
//
//	[size CRLF][piece]…[CRLF] ─► writev, no copy; if small or by TLS: copied
type socket struct {
	nc       net.Conn
	plain    bool // the kernel's own
	chunked  bool // not with HTTP/1.0
	viewer   *stream.Viewer
	patience time.Duration
	renewed  time.Time     // when a write got its time
	flat     *bufio.Writer // what is copied, as much as goes out by one write
	size     []byte        // of a chunk
	pieces   [][]byte      // kept for its capacity
	queue    net.Buffers
	watching sync.WaitGroup
}

const (
	smallUnit  = 2 << 10  // copying it costs less than telling the kernel of its pieces
	tlsRecord  = 16 << 10 // the longest one (RFC 8446, 5.1)
	maxChatter = 64 << 10 // what a reader may say after its request
)

func (s *site) openSocket(w http.ResponseWriter, r *http.Request, rd *reading, left func()) (link, error) {
	nc, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "this server cannot stream", http.StatusInternalServerError)
		return nil, fmt.Errorf("take over the connection: %w", err)
	}
	_, plain := nc.(syscall.Conn) // TLS is none
	k := &socket{nc: nc, plain: plain, chunked: r.ProtoAtLeast(1, 1), viewer: rd.viewer, patience: s.write}
	k.flat = bufio.NewWriterSize(nc, smallUnit)
	if !plain {
		k.flat = bufio.NewWriterSize(nc, tlsRecord)
	}
	if err := stream.LimitSendBuffer(nc, stream.Bitrate(rd.tracks)); err != nil {
		s.log.Debug("http send buffer stays as it is", "err", err)
	}
	k.watching.Go(func() { // hanging up ends it, and so does saying more than there is to say
		_, _ = io.CopyN(io.Discard, nc, maxChatter)
		left()
	})
	if err := k.begin(w.Header()); err != nil {
		k.close(err)
		return nil, err
	}
	return k, nil
}

// begin writes the head of an answer that lasts until the connection ends.
func (k *socket) begin(h http.Header) error {
	h.Set("Connection", "close")
	if k.chunked {
		h.Set("Transfer-Encoding", "chunked")
	}
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	var head bytes.Buffer
	head.WriteString("HTTP/1.1 200 OK\r\n")
	_ = h.Write(&head) // to memory
	head.WriteString("\r\n")
	if err := k.renew(); err != nil {
		return err
	}
	_, err := k.nc.Write(head.Bytes())
	return err
}

var errLeft = errors.New("the reader left")

func (k *socket) send(_ context.Context, pieces [][]byte) error {
	size := 0
	for _, p := range pieces {
		size += len(p)
	}
	if err := k.write(k.frame(pieces, size), size); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	k.viewer.Bytes.Add(uint64(size))
	return nil
}

var (
	lineEnd   = []byte("\r\n")
	lastChunk = []byte("0\r\n\r\n")
)

// frame makes a chunk.
func (k *socket) frame(pieces [][]byte, size int) [][]byte {
	if !k.chunked {
		return pieces
	}
	k.size = append(strconv.AppendInt(k.size[:0], int64(size), 16), lineEnd...)
	k.pieces = append(append(append(k.pieces[:0], k.size), pieces...), lineEnd)
	return k.pieces
}

// renew gives the next write its time, or a little more: setting a timer for
// each of some thousand writes a second costs more than it is worth.
func (k *socket) renew() error {
	now, slack := time.Now(), k.patience/8
	if now.Sub(k.renewed) < slack {
		return nil
	}
	k.renewed = now
	return k.nc.SetWriteDeadline(now.Add(k.patience + slack))
}

// write writes pieces by one call or, by TLS, by one for each record.
func (k *socket) write(pieces [][]byte, size int) error {
	if err := k.renew(); err != nil {
		return err
	}
	if k.plain && size > smallUnit {
		k.queue = pieces
		_, err := k.queue.WriteTo(k.nc)
		return err
	}
	for _, p := range pieces {
		_, _ = k.flat.Write(p) // Flush tells
	}
	return k.flat.Flush()
}

// close ends the answer in order unless the reader has left it.
func (k *socket) close(reason error) {
	if k.chunked && (errors.Is(reason, errEnded) || errors.Is(reason, context.Canceled)) {
		_ = k.nc.SetWriteDeadline(time.Now().Add(goodbyeTime))
		_, _ = k.nc.Write(lastChunk) // a courtesy: it may be gone
	}
	_ = k.nc.Close()
	k.watching.Wait()
}

// An answer is one of HTTP/2, whose connection carries others beside it.
type answer struct {
	w        http.ResponseWriter
	rc       *http.ResponseController
	viewer   *stream.Viewer
	patience time.Duration
}

func (a *answer) send(_ context.Context, pieces [][]byte) error {
	// Not every server knows deadlines; without one, its own count.
	if err := a.rc.SetWriteDeadline(time.Now().Add(a.patience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	for _, p := range pieces {
		n, err := a.w.Write(p)
		a.viewer.Bytes.Add(uint64(n))
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	return a.rc.Flush()
}

func (a *answer) close(error) {}
