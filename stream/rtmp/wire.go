package rtmp

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// A wire is the TCP connection with patience: a write may take as long as it
// likes while the far side takes something, but fails once it has taken
// nothing for the patience. Reads and writes may run at the same time; writes
// one at a time.
type wire struct {
	*net.TCPConn
	patience time.Duration
	end      atomic.Pointer[time.Time] // of everything, once set
	renewed  time.Time                 // when a write got its time; for the writer alone
}

// finish lets no read or write last beyond at. The earliest of several counts.
func (w *wire) finish(at time.Time) {
	for {
		old := w.end.Load()
		if old != nil && old.Before(at) || w.end.CompareAndSwap(old, &at) {
			break
		}
	}
	_ = w.SetDeadline(*w.end.Load()) // fails on a closed connection only
}

// renew gives the next write its time, or a little more: setting a timer for
// each of some thousand writes a second costs more than it is worth. Whichever
// of renew and finish comes last, the deadline of finish stands.
func (w *wire) renew() error {
	now, slack := time.Now(), w.patience/8
	if now.Sub(w.renewed) < slack {
		return nil
	}
	w.renewed = now
	if err := w.SetWriteDeadline(now.Add(w.patience + slack)); err != nil {
		return err
	}
	if end := w.end.Load(); end != nil {
		return w.SetWriteDeadline(*end)
	}
	return nil
}

// Write is for TLS and the handshake.
func (w *wire) Write(p []byte) (n int, err error) {
	for {
		if err := w.renew(); err != nil {
			return n, err
		}
		m, err := w.TCPConn.Write(p[n:])
		n += m
		if err == nil || !w.goOn(m, err) {
			return n, w.explain(err)
		}
	}
}

// writeBuffers writes all of b by as few calls of writev as the socket allows.
// It uses b up.
func (w *wire) writeBuffers(b *net.Buffers) error {
	for {
		if err := w.renew(); err != nil {
			return err
		}
		n, err := b.WriteTo(w.TCPConn)
		if err == nil || !w.goOn(int(n), err) {
			return w.explain(err)
		}
	}
}

// goOn reports whether a write that timed out made progress.
func (w *wire) goOn(n int, err error) bool {
	w.renewed = time.Time{}
	return n > 0 && errors.Is(err, os.ErrDeadlineExceeded) && w.end.Load() == nil
}

// errStalled says that the far side took nothing.
var errStalled = errors.New("the far side takes no more data")

func (w *wire) explain(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errStalled
	}
	return err
}

// readBy limits reading until at; zero is for ever. The deadline of finish
// stands.
func (w *wire) readBy(at time.Time) error {
	if err := w.SetReadDeadline(at); err != nil {
		return err
	}
	if end := w.end.Load(); end != nil {
		return w.SetReadDeadline(*end)
	}
	return nil
}
