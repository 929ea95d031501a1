package cmaf

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"encoderd.example/stream"
)

// contents returns the bytes of parts of a segment.
func contents(tb testing.TB, g *Segment, parts []*Part) []byte {
	tb.Helper()
	if !g.store.hold() {
		tb.Fatalf("segment %d has gone", g.Number)
	}
	defer g.store.release()
	data, err := io.ReadAll(struct{ io.Reader }{g.store.body(parts)})
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// serve serves what is cut over TCP. edit may change the server before it starts.
func serve(t *testing.T, st *Stream, edit func(*httptest.Server)) *httptest.Server {
	t.Helper()
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f, ok := ParseFile(path.Base(r.URL.Path)); ok {
			st.Serve(w, r, f, &stream.Viewer{})
		}
	}))
	edit(web)
	t.Cleanup(web.Close)
	return web
}

// memories returns how many files of segments the process has open.
func memories(tb testing.TB) (n int) {
	tb.Helper()
	files, err := filepath.Glob("/proc/self/fd/*")
	if err != nil || len(files) == 0 {
		tb.Fatal(files, err)
	}
	for _, file := range files {
		if to, err := os.Readlink(file); err == nil && strings.HasPrefix(to, "/memfd:segment") {
			n++
		}
	}
	return n
}

func TestAReaderGetsTheRestOfASegmentThatHasLeft(t *testing.T) {
	f, sg := newFake(), &Segmenter{Memory: 3 << 20}
	f.times = 3000
	run(t, sg)
	f.publish(60)
	st := sg.Of(f.r)
	first := wait(t, st, Video, until(2)).Complete()[1]
	want := contents(t, first, first.Parts)
	web := serve(t, st, func(s *httptest.Server) {
		s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
			if tcp, ok := c.(*net.TCPConn); !ok || tcp.SetWriteBuffer(16<<10) != nil {
				t.Error("no small buffer to send from")
			}
			return ctx
		}
		s.Start()
	})
	address := "/" + File{Medium: Video, Kind: WholeSegment, Number: first.Number}.String()
	conn, err := net.Dial("tcp", web.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).SetReadBuffer(16 << 10); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: box\r\nConnection: close\r\n\r\n", address)
	head := make([]byte, 2000)
	if _, err := io.ReadFull(conn, head); err != nil {
		t.Fatal(err)
	}

	for gone := false; !gone; { // while the reader rests
		next := st.Latest(Video).Last().Number
		f.publish(25)
		seq := wait(t, st, Video, func(s *Sequence) bool { return s.Last().Number > next })
		gone = seq.Segment(first.Number) == nil
	}
	if answer, err := http.Get(web.URL + address); err != nil || answer.StatusCode != http.StatusNotFound {
		t.Errorf("the segment has not left: %v, %v", answer, err)
	} else {
		answer.Body.Close()
	}
	if first.store.users.Load() != 1 {
		t.Fatalf("%d users of a segment that one reader is at", first.store.users.Load())
	}

	rest, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	_, got, _ := bytes.Cut(append(head, rest...), []byte("\r\n\r\n"))
	if sha256.Sum256(got) != sha256.Sum256(want) {
		t.Errorf("got %d bytes, want %d, or others", len(got), len(want))
	}
	web.Close() // waits for the handler
	if first.store.hold() {
		t.Error("the segment is kept when its last reader has it")
	}
	if _, err := first.store.file.Stat(); err == nil {
		t.Error("its descriptor is open")
	}
}

func TestASegmentIsTheSameBytesOnAllWays(t *testing.T) {
	f, sg := newFake(), &Segmenter{}
	f.times = 3000
	run(t, sg)
	f.publish(80)
	st := sg.Of(f.r)
	ways := map[string]func(*httptest.Server){
		"TCP":    (*httptest.Server).Start,
		"TLS":    (*httptest.Server).StartTLS,
		"HTTP/2": func(s *httptest.Server) { s.EnableHTTP2 = true; s.StartTLS() },
		"wrapped": func(s *httptest.Server) {
			s.Listener = &wrapping{s.Listener}
			s.Start()
		},
	}
	for name, start := range ways {
		t.Run(name, func(t *testing.T) {
			web := serve(t, st, start)
			seq := wait(t, st, Video, until(3))
			var readers sync.WaitGroup
			for _, g := range seq.Segments {
				for i := range g.Parts {
					part := File{Medium: Video, Kind: SinglePart, Number: g.Number, Part: i}
					want := contents(t, g, g.Parts[i:i+1])
					readers.Go(func() { fetch(t, web, part, want) })
				}
				if g.Complete {
					whole := File{Medium: Video, Kind: WholeSegment, Number: g.Number}
					want := contents(t, g, g.Parts)
					readers.Go(func() { fetch(t, web, whole, want) })
				}
			}
			readers.Wait()
		})
	}
}

// wrapping hides that its connections are TCP.
type wrapping struct{ net.Listener }

func (l *wrapping) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	return struct{ net.Conn }{nc}, err
}

func fetch(t *testing.T, web *httptest.Server, f File, want []byte) {
	t.Helper()
	answer, err := web.Client().Get(web.URL + "/" + f.String())
	if err != nil {
		t.Error(err)
		return
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	if err != nil || !bytes.Equal(got, want) || answer.ContentLength != int64(len(want)) {
		t.Errorf("%v: %d bytes of %d announced and %d made, or others: %v", f, len(got), answer.ContentLength, len(want), err)
	}
}

func TestDescriptorsAreBoundedAndComeBack(t *testing.T) {
	before := memories(t)
	f, sg := newFake(), &Segmenter{Keep: 2}
	stop := run(t, sg)
	f.publish(30)
	st := sg.Of(f.r)
	first := wait(t, st, Video, until(1)).Segments[0].Number
	for i := range uint64(60) {
		f.publish(25)
		wait(t, st, Video, func(s *Sequence) bool { return s.Has(first+i+1, -1) })
	}
	video, sound := wait(t, st, Video, until(1)), wait(t, st, Sound, until(1))
	most := len(video.held) + len(sound.held) + 2 // another may have begun
	if n := memories(t) - before; n == 0 || n > most {
		t.Errorf("%d descriptors for %d segments", n, most)
	}
	stop()
	if n := memories(t) - before; n != 0 {
		t.Errorf("%d descriptors stay", n)
	}
}

func TestPartsThatFindNoFileKeepTheirBytes(t *testing.T) {
	pieces := [][]byte{[]byte("first "), []byte("second "), bytes.Repeat([]byte("third "), 50_000), []byte("fourth")}
	none := &store{}
	none.users.Store(1)
	broken := newStore() // after two parts
	for name, s := range map[string]*store{"none": none, "whole": newStore(), "broken": broken} {
		t.Run(name, func(t *testing.T) {
			defer s.release()
			parts := make([]*Part, len(pieces))
			for i, data := range pieces {
				if s == broken && i == 2 {
					s.file = readOnly(t, s.file)
				}
				parts[i] = &Part{}
				s.put(parts[i], data)
			}
			for from := range parts {
				want := slices.Concat(pieces[from:]...)
				if got := throughTCP(t, s.body(parts[from:])); !bytes.Equal(got, want) {
					t.Errorf("from %d on, over TCP: %d bytes of %d, or others", from, len(got), len(want))
				}
				var got bytes.Buffer
				if n, err := s.body(parts[from:]).WriteTo(&got); err != nil || int(n) != len(want) || !bytes.Equal(got.Bytes(), want) {
					t.Errorf("from %d on, into memory: %d bytes of %d, or others: %v", from, n, len(want), err)
				}
			}
		})
	}
}

// readOnly opens a file anew, as one that takes nothing more, and closes it.
func readOnly(t *testing.T, file *os.File) *os.File {
	t.Helper()
	defer file.Close()
	again, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return again
}

// throughTCP returns what comes out at the other end.
func throughTCP(t *testing.T, b *body) (got []byte) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	near, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var reader sync.WaitGroup
	reader.Go(func() {
		defer far.Close()
		if got, err = io.ReadAll(far); err != nil {
			t.Error(err)
		}
	})
	if tcp(near) == nil {
		t.Error("a TCP connection is not known for one")
	}
	if _, err := b.WriteTo(near); err != nil {
		t.Error(err)
	}
	near.Close()
	reader.Wait()
	return got
}

func TestOnlyBareTCPTakesAFile(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	for _, w := range []io.Writer{near, tls.Client(near, &tls.Config{MinVersion: tls.VersionTLS13}), os.Stdout, httptest.NewRecorder()} {
		if tcp(w) != nil {
			t.Errorf("%T is taken for a TCP connection", w)
		}
	}
}
