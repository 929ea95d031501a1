package stream

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Line writes whole messages, each of some pieces of memory, to one far side
// by TCP or by TLS over it.
//
//	may wait ──────► Write ─► the rest of what is on its way, then the message
//	must not wait ─► Offer… ─► Push ─► what the kernel takes at once
//	                           ▲ │
//	                           └─┘ until all of it is out
//
// Pieces go to the kernel as they are, by one call, except for messages of some
// hundred bytes and for TLS. A far side that takes nothing is given up after the
// patience; once it plays, later: see [Line.Play]. Reading, closing and read
// deadlines are the owner's, who leaves write deadlines alone except to end all
// writing for good.
//
// What fails, fails for good: a message half out has no end, and all later
// writes return the same error.
//
// Write may be called from any goroutine, Offer and Push by one at a time.
type Line struct {
	// What each push of a crowd needs lies together: it is cold every time.
	mu     sync.Mutex // held while something is written
	fd     int32
	held   bool   // fd is open
	stuck  bool   // a push found the socket full, and none did better since
	flat   []byte // offered in one piece, not begun
	plate  *Plate // whose bytes that is, or nil
	failed error  // of the first write that did; the far side may hold half a message

	next [][]byte        // offered, not begun
	rest [][]byte        // of the message on its way
	raw  syscall.RawConn // nil: every write waits
	io   attempt

	conn     net.Conn
	beneath  syscall.RawConn // for TCP_INFO, of TLS too; nil: nothing is known
	patience time.Duration
	buffer   *bufio.Writer
	small    []byte

	watch   *time.Timer // looks after a write that waits
	wmu     sync.Mutex
	waits   bool
	asleep  time.Duration // how long it may sleep; zero: not at all
	stalled stall
	looked  time.Time
	gone    error // why it was given up
}

const (
	// smallMessage is what costs less to copy than to tell the kernel its pieces.
	smallMessage = 2 << 10
	tlsRecord    = 16 << 10 // the longest one (RFC 8446, 5.1)
	// sleeps is for how many patiences a player may take nothing while its host
	// is there.
	sleeps = 30
	// looks is how often a far side that takes nothing is looked at in the time
	// of one patience.
	looks = 8
)

// ErrStalled says that the far side took nothing for too long, ErrVanished that
// not even its kernel answered.
var (
	ErrStalled  = errors.New("the far side takes no more data")
	ErrVanished = errors.New("the far side does not answer any more")
)

// NewLine returns a line over conn, which stays the caller's to close.
func NewLine(conn net.Conn, patience time.Duration) *Line {
	l := &Line{conn: conn, patience: patience}
	l.raw = rawConn(conn)
	l.beneath = l.raw
	if over, ok := conn.(interface{ NetConn() net.Conn }); ok {
		l.beneath = rawConn(over.NetConn())
	}
	l.io.once = l.io.run
	return l
}

// rawConn returns the kernel's side of conn, nil unless conn is the kernel's own.
func rawConn(conn net.Conn) syscall.RawConn {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// Waits reports whether Push waits, too, so that it needs a goroutine of its own.
func (l *Line) Waits() bool { return l.raw == nil }

// Play says that media of bitrate bit/s begins. From now on the far side may
// sleep for minutes while its kernel answers: a player that is stopped, or a
// laptop whose screen is off. The kernel keeps about a second for it, see
// [LimitSendBuffer], and asks at least every few seconds whether it is there
// where Linux can be told so (since 6.15).
func (l *Line) Play(bitrate int) error {
	l.wmu.Lock()
	l.asleep = sleeps * l.patience
	l.wmu.Unlock()
	if l.beneath != nil {
		ms := int(l.patience.Milliseconds() / 3)
		_ = l.beneath.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, tcpRTOMaxMS, min(max(ms, 1000), 120_000)) // not known to most kernels
		})
	}
	return LimitSendBuffer(l.conn, bitrate)
}

// tcpRTOMaxMS is TCP_RTO_MAX_MS: the most time between two probes (linux/tcp.h).
const tcpRTOMaxMS = 44

// Write writes what is on its way and then the message, and waits for that. It
// keeps no piece, but uses the slice up.
func (l *Line) Write(message ...[]byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	rest := l.rest
	l.rest = nil
	if err := l.wait(rest); err != nil {
		return err
	}
	return l.wait(message)
}

// Hold runs serve with the connection's descriptor kept open, so that Push need
// not see to that each time. Who closes the connection meanwhile waits for serve
// to return; reading and waiting writes end at once. An error says that it was
// closed before. Pushes may come from another goroutine that serve waits for.
func (l *Line) Hold(serve func()) error {
	if l.raw == nil {
		serve()
		return nil
	}
	return l.raw.Control(func(fd uintptr) {
		l.fd, l.held = int32(fd), true
		defer func() { l.held = false }()
		serve()
	})
}

// Offer makes message what Push begins with, which must have said that all
// before is out. The pieces must stay as they are until it says so of this one;
// the slice is used up.
func (l *Line) Offer(message [][]byte) { l.next = message }

// OfferPiece is Offer of one piece that is not empty.
func (l *Line) OfferPiece(message []byte) { l.flat = message }

// OfferPlate is Offer of what p holds behind its first skip bytes, as it is until
// the next Push returns.
func (l *Line) OfferPlate(p *Plate, skip int) { l.flat, l.plate = p.bytes[skip:], p }

// Flush writes what was offered to its end, and waits for that. For who calls
// Offer and Push.
func (l *Line) Flush() error {
	l.settle(0)
	message := l.next
	l.next = nil
	return l.Write(message...)
}

// settle turns what is left, after n bytes, of what was offered in one piece
// into pieces that stay as they are.
func (l *Line) settle(n int) {
	switch {
	case l.flat == nil:
		return
	case l.plate == nil:
		l.next = [][]byte{l.flat[n:]}
	default:
		l.next = l.plate.rest(l.plate.Size() - len(l.flat) + n)
	}
	l.flat, l.plate = nil, nil
}

// Push writes by one call as much of the message on offer as goes out at once,
// and reports whether all of it is out. While somebody else writes, nothing is.
func (l *Line) Push() (out bool, err error) {
	if l.flat == nil || !l.held {
		return l.pushPieces()
	}
	if !l.mu.TryLock() {
		l.settle(0)
		return false, nil
	}
	defer l.mu.Unlock()
	if l.failed != nil {
		return false, l.failed
	}
	n, errno := send(uintptr(l.fd), l.flat)
	if errno == 0 && n == len(l.flat) {
		l.flat, l.plate = nil, nil
		l.unstick()
		return true, nil
	}
	n, err = took(n, errno)
	l.settle(n)
	l.rest, l.next = l.next, nil
	return l.moved(n, err)
}

// pushPieces is Push of anything but one piece by a line that is held.
func (l *Line) pushPieces() (out bool, err error) {
	l.settle(0)
	if l.raw == nil {
		return true, l.Flush()
	}
	if !l.mu.TryLock() {
		return false, nil
	}
	defer l.mu.Unlock()
	if l.failed != nil {
		return false, l.failed
	}
	if l.next != nil {
		l.rest, l.next = consume(l.flatten(l.next), 0), nil
	}
	if len(l.rest) == 0 {
		return true, nil
	}
	n, err := l.io.write(l.raw, l.rest)
	l.rest = consume(l.rest, n)
	return l.moved(n, err)
}

// moved takes note of what a push did, and returns what Push does.
func (l *Line) moved(n int, err error) (out bool, _ error) {
	switch {
	case err != nil:
		l.failed = fmt.Errorf("write: %w", err)
	case n == 0:
		l.stuck = true
		l.failed = l.look(time.Now())
	default:
		l.unstick()
	}
	return l.failed == nil && len(l.rest) == 0, l.failed
}

func (l *Line) unstick() {
	if l.stuck {
		l.stuck, l.stalled.since = false, time.Time{}
	}
}

// flatten copies a small message into one piece.
func (l *Line) flatten(message [][]byte) [][]byte {
	if len(message) == 1 || size(message) > smallMessage {
		return message
	}
	if l.small == nil {
		l.small = make([]byte, 0, smallMessage)
	}
	l.small = l.small[:0]
	for _, p := range message {
		l.small = append(l.small, p...)
	}
	return append(message[:0], l.small)
}

func size(message [][]byte) int {
	n := 0
	for _, p := range message {
		n += len(p)
	}
	return n
}

// consume returns message without its first n bytes and without empty pieces.
func consume(message [][]byte, n int) [][]byte {
	for len(message) > 0 && n >= len(message[0]) {
		n -= len(message[0])
		message = message[1:]
	}
	if n > 0 {
		message[0] = message[0][n:]
	}
	return message
}

// wait writes message to its end or the line's.
func (l *Line) wait(message [][]byte) error {
	if l.failed != nil || len(message) == 0 {
		return l.failed
	}
	l.guard()
	err := l.blocking(message)
	if gone := l.release(); gone != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		err = gone
	}
	if err != nil {
		l.failed = fmt.Errorf("write: %w", err)
	}
	return l.failed
}

func (l *Line) blocking(message [][]byte) error {
	if l.raw != nil && size(message) > smallMessage {
		buffers := net.Buffers(message)
		_, err := buffers.WriteTo(l.conn)
		return err
	}
	if len(message) == 1 {
		_, err := l.conn.Write(message[0])
		return err
	}
	if l.buffer == nil {
		n := smallMessage
		if l.raw == nil {
			n = tlsRecord
		}
		l.buffer = bufio.NewWriterSize(l.conn, n)
	}
	for _, p := range message {
		_, _ = l.buffer.Write(p) // Flush tells
	}
	return l.buffer.Flush()
}

// guard has the timer look after a write that begins.
func (l *Line) guard() {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	l.waits, l.stalled = true, stall{since: time.Now()}
	if l.watch == nil {
		l.watch = time.AfterFunc(l.patience/looks, l.lookAfter)
	} else {
		l.watch.Reset(l.patience / looks)
	}
}

// release ends that and returns why the line was given up, if it was.
func (l *Line) release() error {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	l.waits, l.stalled = false, stall{}
	l.watch.Stop()
	return l.gone
}

// lookAfter ends a write that waits for nobody.
func (l *Line) lookAfter() {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	if !l.waits {
		return
	}
	a, known := answersOf(l.beneath)
	if l.gone = l.stalled.judge(time.Now(), a, known, l.patience, l.asleep); l.gone != nil {
		_ = l.conn.SetWriteDeadline(time.Unix(1, 0)) // the writer says what it means
		return
	}
	l.watch.Reset(l.patience / looks)
}

// look judges a far side whose buffer is full, now and then.
func (l *Line) look(now time.Time) error {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	if l.stalled.since.IsZero() {
		l.stalled, l.looked = stall{since: now}, now
	}
	if now.Sub(l.looked) < l.patience/looks {
		return nil
	}
	l.looked = now
	a, known := answersOf(l.beneath)
	return l.stalled.judge(now, a, known, l.patience, l.asleep)
}
