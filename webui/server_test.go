package webui

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/daemon/status"
)

// memory is a listener whose connections are pipes: time in a synctest bubble
// passes while they wait.
type memory struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	from   net.Addr // of callers; nil: a pipe's
}

func newMemory() *memory { return &memory{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (m *memory) Accept() (net.Conn, error) {
	select {
	case c := <-m.conns:
		return c, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

func (m *memory) Close() error   { m.once.Do(func() { close(m.closed) }); return nil }
func (m *memory) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 8080} }

func (m *memory) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	if m.from != nil {
		far = caller{far, m.from}
	}
	select {
	case m.conns <- far:
		return near, nil
	case <-m.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A caller has an address.
type caller struct {
	net.Conn
	addr net.Addr
}

func (c caller) RemoteAddr() net.Addr { return c.addr }

// serve runs a server in memory for a test in a bubble.
func serve(t *testing.T, opts Options) (client *http.Client, stop func() error) {
	t.Helper()
	ln := newMemory()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	s := Server{Options: opts, Listener: ln}
	go func() { done <- s.Run(ctx) }()
	transport := &http.Transport{DialContext: ln.dial}
	return &http.Client{Transport: transport}, func() error {
		cancel()
		err := <-done
		transport.CloseIdleConnections()
		return err
	}
}

// An event is one server-sent event.
type event struct{ name, id, data string }

// listen opens the event stream; next returns one event after the other.
func listen(t *testing.T, c *http.Client) (next func() (event, error), hangUp func() error) {
	t.Helper()
	resp, err := c.Get("http://192.0.2.7:8080/api/v1/events") //nolint:bodyclose // hangUp closes it
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("got %s %v", resp.Status, resp.Header)
	}
	lines := bufio.NewReader(resp.Body)
	return func() (e event, err error) {
		for {
			line, err := lines.ReadString('\n')
			if err != nil || line == "\n" {
				return e, err
			}
			switch key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); key {
			case "event":
				e.name = value
			case "id":
				e.id = value
			case "data":
				e.data = value
			}
		}
	}, resp.Body.Close
}

func TestEventsTellEachStateAtMostFiveTimesASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := onAir()
		client, stop := serve(t, options(f))
		next, hangUp := listen(t, client)
		var wg sync.WaitGroup
		wg.Go(func() { // 100 changes a second for two seconds
			for i := range 200 {
				f.cell.Update(func(b *status.Box) { b.Input.Frames = uint64(i) })
				time.Sleep(10 * time.Millisecond)
			}
		})
		start, last, events := time.Now(), 0, 0
		for last < 201 {
			e, err := next()
			if err != nil {
				t.Fatal(err)
			}
			if e.name != "status" {
				continue
			}
			id, err := strconv.Atoi(e.id)
			if err != nil || id <= last {
				t.Fatalf("version %q after %d", e.id, last)
			}
			last = id
			events++
		}
		if d := time.Since(start); events > int(d/pace)+2 || events < 9 {
			t.Errorf("%d events in %v", events, d)
		}
		wg.Wait()
		_ = hangUp()
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestAQuietBoxSaysThatItIsAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, stop := serve(t, options(onAir()))
		next, hangUp := listen(t, client)
		start := time.Now()
		var got []string
		for range 10 {
			e, err := next()
			if err != nil {
				t.Fatalf("after %v: %v", time.Since(start), err)
			}
			got = append(got, e.name)
		}
		if want := "alive status" + strings.Repeat(" alive", 8); strings.Join(got, " ") != want {
			t.Errorf("got %v", got)
		}
		if d := time.Since(start); d < readTimeout+idleTimeout/4 {
			t.Errorf("the stream was watched for %v only, the server's time-outs are longer", d)
		}
		_ = hangUp()
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestStopEndsEventStreamsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, stop := serve(t, options(onAir()))
		next, hangUp := listen(t, client)
		if _, err := next(); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		ended := make(chan error, 1)
		go func() {
			for {
				if _, err := next(); err != nil {
					ended <- err
					return
				}
			}
		}()
		if err := stop(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
		_ = hangUp()
		if d := time.Since(start); d > goodbye/2 {
			t.Errorf("stopping took %v", d)
		}
	})
}

func TestTooManyPagesAreTurnedAwayAndThePlaceIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, stop := serve(t, options(onAir()))
		var hangUps []func() error
		for range maxStreamsEach {
			_, hangUp := listen(t, client)
			hangUps = append(hangUps, hangUp)
		}
		resp, err := client.Get("http://192.0.2.7:8080/api/v1/events")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
			t.Errorf("got %s", resp.Status)
		}
		_ = hangUps[0]()
		synctest.Wait()
		_, hangUp := listen(t, client)
		for _, h := range append(hangUps, hangUp) {
			_ = h()
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestManyPagesAtOneAddressLeaveRoomForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newMemory()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- (&Server{Options: options(onAir()), Listener: ln}).Run(ctx) }()
		transport := &http.Transport{DialContext: ln.dial}
		var hangUps []func() error
		for host := range byte(maxStreams / maxStreamsEach) {
			ln.from = &net.TCPAddr{IP: net.IPv4(192, 0, 2, 100+host), Port: 5000}
			for range maxStreamsEach {
				_, hangUp := listen(t, &http.Client{Transport: transport})
				hangUps = append(hangUps, hangUp)
			}
		}
		ln.from = &net.TCPAddr{IP: net.IPv4(192, 0, 2, 99), Port: 5000}
		resp, err := (&http.Client{Transport: transport}).Get("http://192.0.2.7:8080/api/v1/events")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("one more than in all: %s", resp.Status)
		}
		for _, h := range hangUps {
			_ = h()
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		transport.CloseIdleConnections()
	})
}

func TestConnectionsThatAskNothingMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newMemory()
		ln.from = &net.TCPAddr{IP: net.IPv4(192, 0, 2, 100), Port: 5000}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- (&Server{Options: options(onAir()), Listener: ln}).Run(ctx) }()
		transport := &http.Transport{DialContext: ln.dial}
		client := &http.Client{Transport: transport}
		next, hangUp := listen(t, client)
		var idle []net.Conn
		for range maxConnsEach {
			c, err := ln.dial(ctx, "", "")
			if err != nil {
				t.Fatal(err)
			}
			idle = append(idle, c)
		}
		synctest.Wait()
		if _, err := idle[0].Write([]byte("GET")); err == nil {
			t.Error("who came first keeps its place")
		}
		resp, err := client.Get("http://192.0.2.7:8080/healthz")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		for range 3 {
			if _, err := next(); err != nil {
				t.Errorf("an answer was cut off: %v", err)
			}
		}
		_ = hangUp()
		for _, c := range idle {
			_ = c.Close()
		}
		transport.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestASlowRequestIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newMemory()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- (&Server{Options: options(onAir()), Listener: ln}).Run(ctx) }()
		c, err := ln.dial(ctx, "", "")
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, _ = c.Write([]byte("GET / HTTP/1.1\r\nHost: 192"))
		_, _ = io.Copy(io.Discard, c) // until the server hangs up
		if d := time.Since(start); d > headerTimeout+time.Second {
			t.Errorf("half a request was kept for %v", d)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestServerListensAndSaysSo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	live := make(chan struct{})
	o := options(onAir())
	o.Local = true // over TCP this has no effect
	s := Server{Options: o, Listener: ln, Live: func() { close(live) }}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	<-live
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Post(fmt.Sprintf("http://%s/api/v1/actions/stream.start", ln.Addr()), "application/json", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("an action over TCP: %s", resp.Status)
	}
	second := Server{Options: o, Addr: ln.Addr().String()}
	if err := second.Run(ctx); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("a port in use: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestActionsWorkOnAUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f := onAir()
	o := options(f)
	o.Local = true
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, ln, o, nil) }()
	var d net.Dialer
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", path) },
	}}
	resp, err := client.Post("http://encoderd/api/v1/actions/stream.start", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent || len(f.done) != 1 {
		t.Errorf("got %s, did %v", resp.Status, f.done)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
