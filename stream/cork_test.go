package stream

import (
	"bytes"
	"context"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tcpEnds returns both ends of a connection over loopback.
func tcpEnds(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// segmentsOut returns how many segments with data a connection has sent.
func segmentsOut(t *testing.T, c *net.TCPConn) (n uint32) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = info.Data_segs_out
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// The kernel holds back for 200 ms at most, and sends again what it takes for
// lost: on a busy machine one attempt may fail.
func TestAHeaderLeavesWithItsBody(t *testing.T) {
	near, far := tcpEnds(t)
	ctx := WithCork(context.Background(), &gatedTCP{TCPConn: near})
	if err := far.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		before := segmentsOut(t, near)
		draw := Cork(ctx)
		for _, piece := range []string{"header ", "body ", "end"} {
			if _, err := near.Write([]byte(piece)); err != nil {
				t.Fatal(err)
			}
		}
		draw()
		got := make([]byte, 15)
		if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, []byte("header body end")) {
			t.Fatalf("%q, %v", got, err)
		}
		if segmentsOut(t, near)-before == 1 {
			return
		}
	}
	t.Error("three writes never leave together")
}

func TestCorkTakesWhateverItFinds(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	Cork(WithCork(context.Background(), near))()
	near.Close()
	Cork(context.Background())()
	gone, _ := tcpEnds(t)
	ctx := WithCork(context.Background(), gone)
	draw := Cork(ctx)
	gone.Close()
	draw()
	Cork(ctx)()
}
