package cmaf

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// A store keeps a segment's bytes where the kernel can send them from by itself:
// in a file of memory that has no name (memfd_create(2)). Where it gets none,
// for want of descriptors for instance, parts have bytes of their own.
//
// One goroutine puts parts in. Any goroutine may read what is in, while it holds
// the store.
type store struct {
	file  *os.File     // nil: none
	size  int64        // of what is in the file; for who puts in
	users atomic.Int64 // who puts in, and readers under way; with the last one the file goes
}

// newStore returns an empty store, which the caller holds.
func newStore() *store {
	s := &store{}
	s.users.Store(1)
	if fd, err := unix.MemfdCreate("segment", unix.MFD_CLOEXEC); err == nil {
		s.file = os.NewFile(uintptr(fd), "segment")
	}
	return s
}

// hold keeps what is in the store until release is called. It returns false if
// it has gone already.
func (s *store) hold() bool {
	for n := s.users.Load(); n > 0; n = s.users.Load() {
		if s.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
	return false
}

func (s *store) release() {
	if s.users.Add(-1) == 0 && s.file != nil {
		_ = s.file.Close() // memory: there is nothing to be lost
	}
}

// put adds a part of these bytes, which stay the caller's.
func (s *store) put(p *Part, data []byte) {
	p.Size = len(data)
	if s.file != nil {
		if _, err := s.file.WriteAt(data, s.size); err == nil {
			p.at = s.size
			s.size += int64(len(data))
			return
		}
	}
	p.data = bytes.Clone(data)
}

// body returns parts of the store as one reader is sent them. It is good while
// the store is held.
func (s *store) body(parts []*Part) *body {
	b := &body{file: s.file}
	for _, p := range parts {
		next := extent{p.data, p.at, p.Size}
		if n := len(b.rest) - 1; n >= 0 && b.rest[n].goesOn(next) {
			b.rest[n].n += next.n
		} else {
			b.rest = append(b.rest, next)
		}
	}
	return b
}

// A body is what is left to send to a reader. It is for one goroutine.
type body struct {
	file *os.File
	rest []extent
}

// An extent is so many bytes: these, or some of a file.
type extent struct {
	data []byte // nil: of the file
	at   int64
	n    int
}

// goesOn reports whether next follows e in the file.
func (e extent) goesOn(next extent) bool {
	return e.data == nil && next.data == nil && e.at+int64(e.n) == next.at
}

// took notes that n bytes, of the first extent, are through.
func (b *body) took(n int) {
	e := &b.rest[0]
	if e.data != nil {
		e.data = e.data[n:]
	}
	e.at, e.n = e.at+int64(n), e.n-n
	if e.n == 0 {
		b.rest = b.rest[1:]
	}
}

// Read copies: net/http looks at the beginning of a body.
func (b *body) Read(p []byte) (n int, err error) {
	if len(b.rest) == 0 {
		return 0, io.EOF
	}
	e := b.rest[0]
	p = p[:min(len(p), e.n)]
	if e.data != nil {
		n = copy(p, e.data)
	} else if n, err = b.file.ReadAt(p, e.at); err != nil {
		return 0, err
	}
	b.took(n)
	return n, nil
}

// WriteTo sends all that is left: to a TCP connection without copying it, to any
// other writer by way of some memory.
func (b *body) WriteTo(w io.Writer) (sum int64, err error) {
	raw := tcp(w)
	for len(b.rest) > 0 && err == nil {
		var n int
		switch data := b.rest[0].data; {
		case data != nil:
			n, err = w.Write(data)
			b.took(n)
		case raw != nil:
			n, err = b.sendfile(raw)
		default:
			n, err = b.copy(w)
		}
		sum += int64(n)
	}
	return sum, err
}

// buffers are for what is copied, by TLS and HTTP/2.
var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

func (b *body) copy(w io.Writer) (int, error) {
	buf, _ := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(buf)
	n, err := b.Read(buf[:])
	if err != nil {
		return 0, err
	}
	return w.Write(buf[:n])
}

// tcp returns the socket behind a writer that is a TCP connection, else nil.
func tcp(w io.Writer) syscall.RawConn {
	conn, ok := w.(interface {
		syscall.Conn
		SetNoDelay(noDelay bool) error
	})
	if !ok {
		return nil
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// sendfile sends the first extent, which is the file's, and waits for the socket
// no longer than its deadline. The place in the file is told with every call, for
// other readers use the same descriptor.
func (b *body) sendfile(raw syscall.RawConn) (sum int, err error) {
	e, file := b.rest[0], int(b.file.Fd())
	waited := raw.Write(func(fd uintptr) bool {
		for err == nil && sum < e.n {
			var n int
			n, err = unix.Sendfile(int(fd), file, &e.at, e.n-sum)
			switch {
			case n > 0:
				sum += n
			case errors.Is(err, unix.EINTR):
				err = nil
			case err == nil:
				err = io.ErrUnexpectedEOF
			}
		}
		if errors.Is(err, unix.EAGAIN) {
			err = nil
			return false
		}
		return true
	})
	b.took(sum)
	return sum, errors.Join(err, waited)
}
