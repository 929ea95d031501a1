package rtmp

import (
	"net"
	"sync/atomic"
	"time"
)

// A wire is a TCP connection whose end can be set. Reads and writes may run at
// the same time.
type wire struct {
	*net.TCPConn
	end atomic.Pointer[time.Time] // of everything, once set
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
