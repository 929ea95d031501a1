package stream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"encoderd.example/stream"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func call(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return nc
}

func TestAcceptLetsInAsManyAsTheGateAllowsAndWaitsForThem(t *testing.T) {
	l := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	gate := stream.Gate{Limits: stream.Limits{Each: 1}}
	inside, done := make(chan *stream.Place, 2), make(chan error, 1)
	var left bool
	go func() {
		done <- gate.Accept(ctx, l, slog.New(slog.DiscardHandler), func(ctx context.Context, nc net.Conn, place *stream.Place) {
			inside <- place
			<-ctx.Done()
			left = true
			nc.Close()
		})
	}()
	first := call(t, l)
	(<-inside).Keep()
	if _, err := call(t, l).Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a second caller gets %v", err)
	}
	cancel()
	if err := <-done; err != nil || !left {
		t.Errorf("ended with %v, the caller has left: %v", err, left)
	}
	if _, err := first.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the first caller gets %v", err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("the listener is still open")
	}
}

func TestABrokenListenerEndsItsCallers(t *testing.T) {
	l := listen(t)
	var gate stream.Gate
	inside, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- gate.Accept(t.Context(), l, slog.New(slog.DiscardHandler), func(ctx context.Context, nc net.Conn, _ *stream.Place) {
			close(inside)
			<-ctx.Done()
			nc.Close()
		})
	}()
	call(t, l)
	<-inside
	l.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestAGatedListenerCountsUntilConnectionsAreClosed(t *testing.T) {
	gate := stream.Gate{Limits: stream.Limits{Total: 1}}
	plain := listen(t)
	l := gate.Listener(plain)
	defer l.Close()
	call(t, plain)
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	stream.PlaceOf(first).Keep()
	got := make(chan net.Conn, 1)
	go func() {
		nc, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		got <- nc
	}()
	if _, err := call(t, plain).Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("beyond the limit: %v", err)
	}
	first.Close()
	first.Close()
	third := call(t, plain)
	nc := <-got
	defer nc.Close()
	if nc.RemoteAddr().String() != third.LocalAddr().String() {
		t.Errorf("%v was let in", nc.RemoteAddr())
	}
}

// A tiredListener is out of descriptors for the first few callers.
type tiredListener struct {
	net.Listener
	fails int
}

func (l *tiredListener) Accept() (net.Conn, error) {
	if l.fails > 0 {
		l.fails--
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

func TestAGatedListenerSurvivesALackOfDescriptors(t *testing.T) {
	plain := listen(t)
	l := new(stream.Gate).Listener(&tiredListener{plain, 2})
	call(t, plain)
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	l.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("once closed: %v", err)
	}
}

func TestALackOfDescriptorsIsLoggedOnce(t *testing.T) {
	plain := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	var log strings.Builder
	inside, done := make(chan struct{}), make(chan error, 1)
	go func() {
		var gate stream.Gate
		done <- gate.Accept(ctx, &tiredListener{plain, 3}, slog.New(slog.NewTextHandler(&log, nil)), func(_ context.Context, nc net.Conn, _ *stream.Place) {
			nc.Close()
			close(inside)
		})
	}()
	call(t, plain)
	<-inside
	cancel()
	if err := <-done; err != nil || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("%v, log:\n%s", err, log.String())
	}
}

func TestAGatedConnectionWritesSeveralPiecesByOneCall(t *testing.T) {
	plain := listen(t)
	l := new(stream.Gate).Listener(plain)
	defer l.Close()
	far := call(t, plain)
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	const rounds = 100
	before := writes(t)
	for range rounds {
		pieces := net.Buffers{[]byte("a"), []byte("b"), []byte("c"), []byte("d")}
		if _, err := pieces.WriteTo(near); err != nil {
			t.Fatal(err)
		}
	}
	if n := writes(t) - before; n < rounds || n > 2*rounds {
		t.Errorf("%d calls for %d times four pieces", n, rounds)
	}
	if _, err := io.ReadFull(far, make([]byte, 4*rounds)); err != nil {
		t.Fatal(err)
	}
}

// writes counts this process's calls that write (proc_pid_io(5)).
func writes(t *testing.T) (n int) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "syscw:")
	if _, err := fmt.Sscan(after, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestBitrateIsTheSumOrAGuess(t *testing.T) {
	if got := stream.Bitrate([]*stream.Track{{Bitrate: 2}, {Bitrate: 3}}); got != 5 {
		t.Errorf("got %d", got)
	}
	if got := stream.Bitrate([]*stream.Track{{}}); got < 1_000_000 {
		t.Errorf("guessed %d", got)
	}
}
