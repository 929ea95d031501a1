// Package device is the other end of the socket: what a device program in Go
// needs to serve a camera or an encoder to encoderd. Vendors who write in C
// read docs/external-devices.md instead.
//
//	func main() {
//		os.Exit(device.Main(func(ctx context.Context, conn *wire.Conn) error {
//			return device.Encoder(ctx, conn, "libx264", soft.X264())
//		}))
//	}
//
// Memory: buffers are sealed memfds that this package makes, or those that the
// box sends. They are mapped for as long as the session lasts.
package device

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/external/wire"
)

// Main runs a device program on the socket that encoderd has left it and
// returns its exit code. SIGTERM and SIGINT end ctx.
func Main(serve func(ctx context.Context, conn *wire.Conn) error) int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	// What the box has left open for us is for us alone.
	unix.CloseOnExec(wire.FD)
	conn, err := wire.NewConn(wire.FD)
	if err == nil {
		err = serve(ctx, conn)
		err = errors.Join(err, conn.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// codes are the errors that the box is told by a number.
var codes = []struct {
	err  error
	code wire.ErrorCode
}{
	{hw.ErrGone, wire.Gone},
	{hw.ErrBusy, wire.Busy},
	{hw.ErrNoSignal, wire.NoSignal},
	{hw.ErrUnsupported, wire.Unsupported},
	{hw.ErrMissing, wire.Missing},
}

// report tells the box how a session ends: goodbye, or an error, which it
// returns.
func report(conn *wire.Conn, err error) error {
	if err == nil {
		_ = conn.Send(wire.Bye{}) // the box may have closed already
		return nil
	}
	m := wire.Error{Code: wire.Failed}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			m.Code = c.code
			break
		}
	}
	wire.PutText(m.Text[:], err.Error())
	_ = conn.Send(m)
	return err
}

// Inbox receives messages in a goroutine of its own, for a loop that waits for
// other things too.
type inbox struct {
	letters chan letter
	err     error // why letters was closed
}

// A letter is a message with its descriptors.
type letter struct {
	m   wire.Message
	fds []int
}

// receive returns an inbox that ends with ctx or the connection.
func receive(ctx context.Context, conn *wire.Conn) *inbox {
	in := &inbox{letters: make(chan letter)}
	go func() {
		defer close(in.letters)
		for {
			m, fds, err := conn.Receive()
			if err != nil {
				in.err = err
				return
			}
			select {
			case in.letters <- letter{m, fds}:
			case <-ctx.Done():
				wire.CloseAll(fds)
				in.err = context.Cause(ctx)
				return
			}
		}
	}()
	return in
}

// ended returns why there are no more messages; nil if the box has closed.
func (in *inbox) ended() error {
	if errors.Is(in.err, io.EOF) {
		return nil
	}
	return in.err
}

// unexpected says that the box sent what has no place here.
func unexpected(m wire.Message) error {
	return fmt.Errorf("%w: unexpected %s", wire.ErrProtocol, wire.Name(m))
}
