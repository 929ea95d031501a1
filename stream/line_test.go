package stream

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience of lines in tests is longer than a kernel is silent that is asked
// twice within half a second (Linux, tcp_invalid_ratelimit).
const patience = time.Second

// wires returns both ends of a TCP connection with little room.
func wires(tb testing.TB) (near, far *net.TCPConn) {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer ln.Close()
	a, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	b, err := ln.Accept()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { a.Close(); b.Close() })
	near, far = a.(*net.TCPConn), b.(*net.TCPConn)
	if err := errors.Join(near.SetWriteBuffer(32<<10), far.SetReadBuffer(32<<10)); err != nil {
		tb.Fatal(err)
	}
	return near, far
}

// vanish makes a socket's kernel answer nothing any more: all that comes is
// dropped by a filter (socket(7), SO_ATTACH_FILTER).
func vanish(t *testing.T, c *net.TCPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	if cerr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]})
	}); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
}

// fill pushes messages of pieces until one is on its way, and returns how many
// are out.
func fill(t *testing.T, l *Line, message func() [][]byte) (whole int) {
	t.Helper()
	for {
		l.Offer(message())
		out, err := l.Push()
		if err != nil {
			t.Fatal(err)
		}
		if !out {
			return whole
		}
		whole++
	}
}

func pictures() [][]byte { return [][]byte{{'<'}, nil, bytes.Repeat([]byte{'x'}, 10_000), {'>'}} }

func TestAnAnswerWaitsForTheMessageOnItsWay(t *testing.T) {
	near, far := wires(t)
	l := NewLine(near, time.Minute)
	whole := fill(t, l, pictures)
	var writing sync.WaitGroup
	writing.Go(func() {
		if err := l.Write([]byte("ans"), []byte("wer")); err != nil {
			t.Error(err)
		}
	})
	want := append(bytes.Repeat(bytes.Join(pictures(), nil), whole+1), "answer"...)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the message was cut: %v", err)
	}
	writing.Wait()
	if out, err := l.Push(); !out || err != nil {
		t.Errorf("something is left: %v, %v", out, err)
	}
}

func TestAfterHalfAMessageNothingIsWritten(t *testing.T) {
	near, _ := wires(t)
	l := NewLine(near, time.Minute)
	fill(t, l, pictures)
	if err := near.SetWriteDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	failed := l.Write([]byte("answer"))
	if failed == nil {
		t.Fatal("a full connection took an answer in no time")
	}
	if err := near.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if out, err := l.Push(); out || !errors.Is(err, failed) {
		t.Errorf("the rest of what failed is out: %v, %v", out, err)
	}
	l.Offer(pictures())
	if out, err := l.Push(); out || !errors.Is(err, failed) {
		t.Errorf("pushed behind half a message: %v, %v", out, err)
	}
	if err := l.Write([]byte("answer")); !errors.Is(err, failed) {
		t.Errorf("wrote behind half a message: %v", err)
	}
	if err := l.Flush(); !errors.Is(err, failed) {
		t.Errorf("flushed behind half a message: %v", err)
	}
}

func TestSmallMessagesGoInOnePiece(t *testing.T) {
	near, far := wires(t)
	l := NewLine(near, time.Minute)
	l.Offer([][]byte{[]byte("a"), nil, []byte("bc")})
	if out, err := l.Push(); !out || err != nil {
		t.Fatal(out, err)
	}
	if err := l.Write([]byte("d"), []byte("ef")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 6)
	if _, err := io.ReadFull(far, got); err != nil || string(got) != "abcdef" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestWhileSomebodyWritesNobodyWaitsToPush(t *testing.T) {
	near, far := wires(t)
	l := NewLine(near, time.Minute)
	var writing sync.WaitGroup
	began := make(chan struct{})
	writing.Go(func() {
		close(began)
		_ = l.Write(make([]byte, 8<<20))
	})
	<-began
	if _, err := io.ReadFull(far, make([]byte, 1)); err != nil { // it is under way
		t.Fatal(err)
	}
	l.Offer(pictures())
	if out, err := l.Push(); out || err != nil {
		t.Errorf("pushed into another message: %v, %v", out, err)
	}
	far.Close()
	writing.Wait()
}

// hold holds l until the test ends.
func hold(t *testing.T, l *Line) {
	t.Helper()
	held, end := make(chan struct{}), make(chan struct{})
	var holding sync.WaitGroup
	holding.Go(func() {
		if err := l.Hold(func() { close(held); <-end }); err != nil {
			t.Error(err)
			close(held)
		}
	})
	t.Cleanup(func() { close(end); holding.Wait() })
	<-held
}

// plated lays out a message with a head of four bytes, of which one is skipped.
func plated() *Plate {
	p := new(Plate)
	p.Lay(4, []byte("-<.."), bytes.Repeat([]byte{'x'}, 10_000), []byte{'>'})
	return p
}

// forReader is what reader number r gets of message number n of those.
func forReader(r, n int) []byte {
	return slices.Concat([]byte{'<', byte(r), byte(n)}, bytes.Repeat([]byte{'x'}, 10_000), []byte{'>'})
}

func TestReadersOfOnePlateGetEachTheirOwnHead(t *testing.T) {
	var lines [3]*Line
	var fars [3]*net.TCPConn
	for r := range lines {
		var near *net.TCPConn
		near, fars[r] = wires(t)
		lines[r] = NewLine(near, time.Minute)
		hold(t, lines[r])
	}
	var whole [len(lines)]int
	for n, full := 0, 0; full < len(lines); n++ { // every one is full in the end, each in its own message
		plate := plated()
		for r, l := range lines {
			if len(l.rest) > 0 {
				continue
			}
			copy(plate.Head()[2:], []byte{byte(r), byte(n)})
			l.OfferPlate(plate, 1)
			out, err := l.Push()
			if err != nil {
				t.Fatal(err)
			}
			if whole[r]++; !out {
				full++
			}
		}
	}
	for r, l := range lines {
		var reading sync.WaitGroup
		reading.Go(func() {
			for n := range whole[r] {
				got := make([]byte, len(forReader(r, n)))
				if _, err := io.ReadFull(fars[r], got); err != nil || !bytes.Equal(got, forReader(r, n)) {
					t.Errorf("reader %d, message %d: %.8q… %v", r, n, got, err)
				}
			}
		})
		if err := l.Flush(); err != nil {
			t.Error(err)
		}
		reading.Wait()
	}
}

func TestWhatIsLeftOfAPlateStaysAsItIs(t *testing.T) {
	for n := range 8 {
		p := new(Plate)
		p.Lay(4, []byte("head"), []byte("body"))
		rest := p.rest(n)
		copy(p.Head(), "next")
		p.clean()
		p.Lay(4, []byte("next"), []byte("text"))
		if got, want := string(bytes.Join(rest, nil)), "headbody"[n:]; got != want {
			t.Errorf("after %d bytes %q is left, want %q", n, got, want)
		}
	}
}

func TestAPlateThatNobodyIsOnIsUsedAgain(t *testing.T) {
	p := plated()
	lay := func() {
		p.clean()
		p.Lay(1, []byte("some bytes"))
	}
	if n := testing.AllocsPerRun(10, lay); n > 0 || p.Blank() || p.Size() != len("some bytes") {
		t.Errorf("%v allocations, %d bytes", n, p.Size())
	}
}

func TestAPlateThatFindsTheLineBusyGoesOutLater(t *testing.T) {
	near, far := wires(t)
	l := NewLine(near, time.Minute)
	hold(t, l)
	plate := plated()
	l.mu.Lock() // somebody writes
	l.OfferPlate(plate, 1)
	if out, err := l.Push(); out || err != nil {
		t.Errorf("pushed into another message: %v, %v", out, err)
	}
	l.mu.Unlock()
	copy(plate.Head(), "next")
	plate.clean()
	plate.Lay(4, bytes.Repeat([]byte{'o'}, 10_005))
	if out, err := l.Push(); !out || err != nil {
		t.Fatal(out, err)
	}
	want := slices.Concat([]byte("<.."), bytes.Repeat([]byte{'x'}, 10_000), []byte{'>'})
	got := make([]byte, len(want))
	if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %.8q…, %v", got, err)
	}
}

func TestALineIsHeldOpen(t *testing.T) {
	near, far := wires(t)
	l := NewLine(near, time.Minute)
	closing := make(chan error, 1)
	err := l.Hold(func() {
		go func() { closing <- near.Close() }()
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("reading ended with %v", err)
		}
		l.OfferPiece([]byte("piece"))
		if out, err := l.Push(); !out || err != nil {
			t.Errorf("the descriptor is not open: %v, %v", out, err)
		}
	})
	if err != nil || <-closing != nil {
		t.Error("holding or closing failed", err)
	}
	if got, err := io.ReadAll(far); err != nil || string(got) != "piece" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := l.Hold(func() { t.Error("a line that is closed is held") }); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// pump pushes one message after the other until an error, for at least so long,
// and returns how many are out; one more is on its way.
func pump(l *Line, atLeast time.Duration) (whole int, err error) {
	l.Offer(pictures())
	for end := time.Now().Add(atLeast); time.Now().Before(end); {
		out, err := l.Push()
		switch {
		case err != nil:
			return whole, err
		case out:
			whole++
			l.Offer(pictures())
		default:
			time.Sleep(5 * time.Millisecond)
		}
	}
	return whole, nil
}

// pushOn pushes what is on its way until an error.
func pushOn(l *Line, atMost time.Duration) error {
	for end := time.Now().Add(atMost); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if _, err := l.Push(); err != nil {
			return err
		}
	}
	return nil
}

func TestASleepingPlayerStaysAndAVanishedOneDoesNot(t *testing.T) {
	const long = time.Minute
	t.Run("asleep", func(t *testing.T) {
		t.Parallel()
		near, far := wires(t)
		l := NewLine(near, patience)
		if err := l.Play(0); err != nil {
			t.Fatal(err)
		}
		whole, err := pump(l, 3*patience)
		if err != nil {
			t.Fatalf("a player that sleeps is given up: %v", err)
		}
		var reading sync.WaitGroup
		reading.Go(func() {
			got := make([]byte, (whole+1)*10_002)
			if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, bytes.Repeat(bytes.Join(pictures(), nil), whole+1)) {
				t.Errorf("what comes after the sleep is not whole: %v", err)
			}
		})
		if err := l.Flush(); err != nil {
			t.Error(err)
		}
		reading.Wait()
	})
	t.Run("gone in its sleep", func(t *testing.T) {
		t.Parallel()
		near, far := wires(t)
		l := NewLine(near, patience)
		if err := l.Play(0); err != nil {
			t.Fatal(err)
		}
		if _, err := pump(l, patience); err != nil {
			t.Fatal(err)
		}
		vanish(t, far)
		if err := pushOn(l, long); !errors.Is(err, ErrVanished) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("gone while it takes", func(t *testing.T) {
		t.Parallel()
		near, far := wires(t)
		l := NewLine(near, patience)
		if err := l.Play(0); err != nil {
			t.Fatal(err)
		}
		vanish(t, far)
		if _, err := pump(l, long); !errors.Is(err, ErrVanished) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no player", func(t *testing.T) {
		t.Parallel()
		near, _ := wires(t)
		l := NewLine(near, patience)
		if _, err := pump(l, long); !errors.Is(err, ErrStalled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("who waits for a vanished one", func(t *testing.T) {
		t.Parallel()
		near, far := wires(t)
		l := NewLine(near, patience)
		if err := l.Play(0); err != nil {
			t.Fatal(err)
		}
		vanish(t, far)
		if err := l.Write(make([]byte, 8<<20)); !errors.Is(err, ErrVanished) {
			t.Errorf("got %v", err)
		}
	})
}

func TestASleepingPlayerStaysByTLSToo(t *testing.T) {
	t.Parallel()
	srv := httptest.NewTLSServer(nil) // for its certificate
	defer srv.Close()
	near, far := wires(t)
	secure := tls.Server(near, &tls.Config{Certificates: srv.TLS.Certificates})
	player := tls.Client(far, &tls.Config{InsecureSkipVerify: true})
	var shaking sync.WaitGroup
	shaking.Go(func() {
		if err := player.Handshake(); err != nil {
			t.Error(err)
		}
	})
	if err := secure.Handshake(); err != nil {
		t.Fatal(err)
	}
	shaking.Wait()
	l := NewLine(secure, patience)
	if err := l.Play(0); err != nil {
		t.Fatal(err)
	}
	const size = 4 << 20
	written := make(chan error, 1)
	go func() { written <- l.Write(make([]byte, size/2), make([]byte, size/2)) }()
	select {
	case err := <-written:
		t.Fatalf("a player that sleeps is given up: %v", err)
	case <-time.After(3 * patience):
	}
	if _, err := io.CopyN(io.Discard, player, size); err != nil {
		t.Error(err)
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
}

// numbered is a value of a ring as it goes over the wire: its number, whether
// reading can start there, and something to fill the socket.
func numbered(v int) []byte {
	b := make([]byte, 5000)
	binary.BigEndian.PutUint32(b, uint32(v))
	b[4999] = byte(v)
	return b
}

// A numberSink sends numbers by a line.
type numberSink struct{ *Line }

func (s numberSink) Take(v int, _ *Plate) (int, error) {
	b := numbered(v)
	s.Offer([][]byte{b[:4], b[4:]})
	return len(b), nil
}

func TestAPlayerThatSleptGoesOnAtAKeyValue(t *testing.T) {
	t.Parallel()
	const group = 10
	ring, fan := NewRing[int](40), &Fanout[int]{At: func(int) time.Duration { return 0 }}
	near, far := wires(t)
	l := NewLine(near, patience)
	if err := l.Play(0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	v := &Viewer{}
	ring.Publish(0, true)
	rd := ring.Reader()
	serving.Go(func() {
		if err := fan.Serve(ctx, rd, v, numberSink{l}); !errors.Is(err, context.Canceled) {
			t.Errorf("serving ended: %v", err)
		}
	})
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	n := 1
	publish := func() {
		ring.Publish(n, n%group == 0)
		n++
	}
	for end := time.Now().Add(5 * patience / 2); time.Now().Before(end) || n < 500; <-tick.C {
		publish()
	}
	if v.Bytes.Load() == 0 || v.Lag.Load() == 0 {
		t.Errorf("%d bytes, lag %d: it does not sleep", v.Bytes.Load(), v.Lag.Load())
	}
	var publishing sync.WaitGroup
	publishing.Go(func() {
		for ctx.Err() == nil {
			publish()
			<-tick.C
		}
	})
	last, gaps, b := -1, 0, make([]byte, 5000)
	for gaps == 0 || last < 500 {
		if _, err := io.ReadFull(far, b); err != nil {
			t.Fatal(err)
		}
		got := int(binary.BigEndian.Uint32(b))
		if !bytes.Equal(b, numbered(got)) {
			t.Fatalf("value %d is torn", got)
		}
		if got != last+1 {
			gaps++
			if got%group != 0 {
				t.Errorf("after %d it goes on at %d, which is no key", last, got)
			}
		}
		last = got
	}
	if v.Lost.Load() == 0 {
		t.Error("nobody knows of the loss")
	}
	cancel()
	publishing.Wait()
	far.Close()
	serving.Wait()
}
