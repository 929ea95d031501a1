package httplive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"encoderd.example/stream"
)

// A link is the way to one reader: a [stream.Sink] but for what is sent.
type link interface {
	// add makes pieces, which must stay as they are until Push says that all is
	// out, part of what goes out next. A link that waits may send them at once. An
	// error ends the link.
	add(pieces [][]byte) error
	Push() (out bool, err error)
	Flush() error
	Waits() bool
	Hold(serve func()) error
	// close ends the answer; reason is what ended it.
	close(reason error)
}

// open begins the answer. left is called, from another goroutine, when the
// reader is known to have gone.
func (s *site) open(ctx context.Context, w http.ResponseWriter, r *http.Request, rd *reading, f form, left func()) (link, error) {
	switch {
	case upgrades(r):
		return s.openWebSocket(ctx, w, r, rd, f, left)
	case r.ProtoMajor == 1:
		return s.openSocket(ctx, w, r, rd, left)
	default: // the request's context tells
		return &answer{w: w, rc: http.NewResponseController(w), patience: s.write}, nil
	}
}

// A socket is an HTTP/1.1 connection taken over from the server, which would
// cut every unit up and copy it. Every unit is one chunk of the answer (RFC
// 9112, 7.1), so that its end can be told from a broken line.
//
//	[size CRLF][piece]…[CRLF] ─► writev, no copy; if small or by TLS: copied
type socket struct {
	*stream.Line
	nc       net.Conn
	chunked  bool     // not with HTTP/1.0
	pieces   [][]byte // of the chunk that goes out next
	own      []byte   // the small ones of them
	mine     bool     // the last piece lies there
	added    int      // bytes of the body
	hurry    func() bool
	watching sync.WaitGroup
}

const (
	smallPiece = 64
	ownPieces  = 1 << 10 // bytes of them in one chunk; more go as they are
	sizeDigits = 8
)

const maxChatter = 64 << 10 // what a reader may say after its request

func (s *site) openSocket(ctx context.Context, w http.ResponseWriter, r *http.Request, rd *reading, left func()) (link, error) {
	nc, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "this server cannot stream", http.StatusInternalServerError)
		return nil, fmt.Errorf("take over the connection: %w", err)
	}
	k := &socket{Line: stream.NewLine(nc, s.write), nc: nc, chunked: r.ProtoAtLeast(1, 1), own: make([]byte, 0, ownPieces)}
	if err := k.Play(stream.Bitrate(rd.tracks)); err != nil {
		s.log.Debug("http send buffer stays as it is", "err", err)
	}
	k.watching.Go(func() { // hanging up ends it, and so does saying more than there is to say
		_, _ = io.CopyN(io.Discard, nc, maxChatter)
		left()
	})
	k.hurry = context.AfterFunc(ctx, k.lastWords)
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
	return k.Write(head.Bytes())
}

// lastWords leaves a little time for what is on its way.
func (k *socket) lastWords() { _ = k.nc.SetWriteDeadline(time.Now().Add(goodbyeTime)) }

var errLeft = errors.New("the reader left")

func (k *socket) add(pieces [][]byte) error {
	if k.added == 0 {
		k.own, k.pieces, k.mine = k.own[:0], k.pieces[:0], false
		if k.chunked {
			k.put(noSize)
		}
	}
	for _, p := range pieces {
		k.put(p)
		k.added += len(p)
	}
	return nil
}

// put appends a piece. Small ones in a row become one: each that the kernel is
// told of costs more than the copy.
func (k *socket) put(p []byte) {
	at := len(k.own)
	if len(p) > smallPiece || at+len(p) > cap(k.own) {
		k.pieces, k.mine = append(k.pieces, p), false
		return
	}
	k.own = append(k.own, p...)
	if !k.mine {
		k.pieces, k.mine = append(k.pieces, k.own[at:]), true
		return
	}
	last := &k.pieces[len(k.pieces)-1]
	*last = (*last)[:len(*last)+len(p)]
}

// Push is [stream.Sink].
func (k *socket) Push() (out bool, err error) {
	k.frame()
	return k.Line.Push()
}

// Flush is [stream.Sink].
func (k *socket) Flush() error {
	k.frame()
	return k.Line.Flush()
}

var (
	lineEnd   = []byte("\r\n")
	noSize    = []byte("00000000\r\n") // filled in once it is known
	lastChunk = []byte("0\r\n\r\n")
)

// frame offers what was added as one chunk.
func (k *socket) frame() {
	if k.added == 0 {
		return
	}
	if k.chunked {
		putSize(k.own, k.added)
		k.put(lineEnd)
	}
	k.added = 0
	k.Offer(k.pieces)
}

// putSize fills noSize in.
func putSize(b []byte, n int) {
	const digits = "0123456789abcdef"
	for i := sizeDigits - 1; i >= 0; i, n = i-1, n>>4 {
		b[i] = digits[n&15]
	}
}

// close ends the answer in order unless the reader has left it.
func (k *socket) close(reason error) {
	k.hurry()
	if k.chunked && (errors.Is(reason, errEnded) || errors.Is(reason, context.Canceled)) {
		k.lastWords()
		_ = k.Write(lastChunk) // a courtesy: it may be gone
	}
	_ = k.nc.Close()
	k.watching.Wait()
}

// An answer is one of HTTP/2, whose connection carries others beside it.
type answer struct {
	w        http.ResponseWriter
	rc       *http.ResponseController
	patience time.Duration
}

func (a *answer) add(pieces [][]byte) error {
	// Not every server knows deadlines; without one, its own count.
	if err := a.rc.SetWriteDeadline(time.Now().Add(a.patience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	for _, p := range pieces {
		if _, err := a.w.Write(p); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}

// Push is [stream.Sink].
func (a *answer) Push() (out bool, err error) { return true, a.rc.Flush() }

// Flush is [stream.Sink].
func (a *answer) Flush() error { return a.rc.Flush() }

// Waits is [stream.Sink].
func (a *answer) Waits() bool { return true }

// Hold is [stream.Sink].
func (a *answer) Hold(serve func()) error {
	serve()
	return nil
}

func (a *answer) close(error) {}
