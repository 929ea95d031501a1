package hls

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/stream"
)

// A counter is a listener of TCP that counts the writes to its connections; a
// body that the connection itself takes is one.
type counter struct {
	net.Listener
	writes atomic.Int32
}

func (c *counter) Accept() (net.Conn, error) {
	nc, err := c.Listener.Accept()
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return nc, err
	}
	return &counted{tcp, &c.writes}, err
}

type counted struct {
	*net.TCPConn
	writes *atomic.Int32
}

func (c *counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.TCPConn.Write(p)
}

func (c *counted) ReadFrom(r io.Reader) (int64, error) {
	c.writes.Add(1)
	return c.TCPConn.ReadFrom(r)
}

// publishLarge publishes pictures as large as those of 8 Mbit/s.
func (b *box) publishLarge() {
	for n := range 120 {
		at := time.Hour + time.Duration(n)*40*time.Millisecond
		b.r.Publish(&stream.Unit{Track: b.video, Key: n%50 == 0, PTS: at, DTS: at, Data: make([]byte, 40_000)})
		b.r.Publish(&stream.Unit{Track: b.sound, PTS: at, DTS: at, Duration: 40 * time.Millisecond, Data: []byte("sound")})
	}
}

func TestASegmentCostsOneCallAndItsHeader(t *testing.T) {
	b := newBox(t)
	b.publishLarge()
	list := b.open(t, "")
	first := number(t, b.body(t, list), `#EXT-X-MEDIA-SEQUENCE:(\d+)`)
	web := httptest.NewUnstartedServer(b.handler)
	count := &counter{Listener: web.Listener}
	web.Listener = count
	web.Start()
	defer web.Close()
	for file, most := range map[string]int32{
		fmt.Sprintf("video-%d.0.m4s", first): 2,
		fmt.Sprintf("video-%d.m4s", first):   2, // ten parts
		"video.m3u8":                         2,
	} {
		count.writes.Store(0)
		r, err := http.Get(web.URL + path.Dir(list) + "/" + file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil || r.StatusCode != http.StatusOK {
			t.Errorf("%s: status %d, %v", file, r.StatusCode, err)
		}
		r.Body.Close()
		if n := count.writes.Load(); n > most {
			t.Errorf("%s costs %d writes, want %d at most", file, n, most)
		}
	}
}

// pipes is a listener whose callers come through memory.
type pipes struct {
	calls chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case nc := <-p.calls:
		return nc, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

func TestAReaderThatStopsReadingIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		b.publishLarge()
		list := b.open(t, "")
		first := number(t, b.body(t, list), `#EXT-X-MEDIA-SEQUENCE:(\d+)`)
		p := &pipes{calls: make(chan net.Conn), done: make(chan struct{})}
		server := &http.Server{Handler: b.handler}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = server.Serve(p)
		}()
		near, far := net.Pipe()
		p.calls <- far
		fmt.Fprintf(near, "GET %s/video-%d.m4s HTTP/1.1\r\nHost: box\r\n\r\n", path.Dir(list), first)
		if _, err := bufio.NewReaderSize(near, 16).ReadByte(); err != nil { // and no more
			t.Fatal(err)
		}
		time.Sleep(15 * time.Second)
		if len(b.Audience.Viewers()) != 1 {
			t.Error("dropped before its time")
		}
		time.Sleep(20 * time.Second)
		if n := len(b.Audience.Viewers()); n != 0 {
			t.Errorf("%d viewers after 35 s", n)
		}
		close(p.done)
		<-ended
		_ = server.Close()
		_ = near.Close()
	})
}

func TestAnsweringLeavesNoDeadlineOnTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		b.publish(120)
		list := b.open(t, "")
		p := &pipes{calls: make(chan net.Conn), done: make(chan struct{})}
		mux := http.NewServeMux()
		mux.Handle("/live/", b.handler)
		mux.HandleFunc("/other", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "no deadline of its own") })
		server := &http.Server{Handler: mux}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = server.Serve(p)
		}()
		near, far := net.Pipe()
		p.calls <- far
		in := bufio.NewReader(near)
		for _, address := range []string{list, "/other", path.Dir(list) + "/" + tag(t, b.body(t, list), `(?m)^(video.*m4s)$`), "/other"} {
			fmt.Fprintf(near, "GET %s HTTP/1.1\r\nHost: box\r\n\r\n", address)
			r, err := http.ReadResponse(in, nil) //nolint:bodyclose // the connection stays
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, r.Body); err != nil || r.StatusCode != http.StatusOK {
				t.Fatalf("status %d, %v", r.StatusCode, err)
			}
			if address != "/other" {
				time.Sleep(21 * time.Second) // past every deadline
			}
		}
		close(p.done)
		<-ended
		_ = server.Close()
		_ = near.Close()
	})
}
