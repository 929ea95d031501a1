package stream

import (
	"context"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

type corkKey struct{}

// WithCork returns a context by which [Cork] finds a connection. It is for
// [net/http.Server.ConnContext]. Only plain TCP connections can be found.
func WithCork(ctx context.Context, nc net.Conn) context.Context {
	if _, ok := nc.(interface{ SetNoDelay(noDelay bool) error }); !ok {
		return ctx
	}
	return context.WithValue(ctx, corkKey{}, rawConn(nc))
}

// Cork holds back what does not fill a packet, on the connection that ctx was
// made with, until draw is called, so that a header leaves together with the
// beginning of its body (tcp(7), TCP_CORK). draw must be called, once all is
// written. Without such a connection nothing is held back. Both may be called
// from any goroutine.
func Cork(ctx context.Context) (draw func()) {
	raw, ok := ctx.Value(corkKey{}).(syscall.RawConn)
	if !ok {
		return func() {}
	}
	cork(raw, 1)
	return func() { cork(raw, 0) }
}

func cork(raw syscall.RawConn, on int) {
	_ = raw.Control(func(fd uintptr) { // it may be closed already
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, on)
	})
}
