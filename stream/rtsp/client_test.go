package rtsp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"encoderd.example/stream"
	"encoderd.example/stream/h264"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// start runs srv on a free port of the loopback and returns its address. The
// test ends once it has ended well.
func start(tb testing.TB, srv *Server) string {
	tb.Helper()
	var lc net.ListenConfig
	ln, err := lc.Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	srv.Listener = ln
	run(tb, srv)
	return ln.Addr().String()
}

func run(tb testing.TB, srv *Server) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := srv.Run(ctx); err != nil {
			tb.Error(err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	tb.Cleanup(stop)
	return stop
}

// only returns a Find that knows one rendition.
func only(r *stream.Rendition) func(string) *stream.Rendition {
	return func(name string) *stream.Rendition {
		if name == r.Name {
			return r
		}
		return nil
	}
}

// until waits for a condition that another goroutine brings about.
func until(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(end) {
			tb.Fatalf("waited %v in vain: %s", patience, what)
		}
		<-tick.C
	}
}

// A client is a player made of nothing, so that it can misbehave.
type client struct {
	nc      net.Conn
	br      *bufio.Reader
	base    string
	cseq    int
	session string
	frames  []frame // media that came while waiting for a response
}

// A frame is one interleaved packet.
type frame struct {
	channel byte
	packet  []byte
}

type reply struct {
	status int
	header textproto.MIMEHeader
	body   string
}

func dial(tb testing.TB, addr, name string) *client {
	tb.Helper()
	var d net.Dialer
	nc, err := d.DialContext(tb.Context(), "tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	if err := nc.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		tb.Fatal(err)
	}
	return newClient(tb, nc, "rtsp://"+addr+"/"+name)
}

func newClient(tb testing.TB, nc net.Conn, base string) *client {
	tb.Helper()
	tb.Cleanup(func() { nc.Close() })
	return &client{nc: nc, br: bufio.NewReaderSize(nc, 64<<10), base: base}
}

// do sends a request and returns its response.
func (c *client) do(method, url string, header ...string) (reply, error) {
	c.cseq++
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s RTSP/1.0\r\nCSeq: %d\r\n", method, url, c.cseq)
	if c.session != "" {
		fmt.Fprintf(&b, "Session: %s\r\n", c.session)
	}
	for _, h := range header {
		fmt.Fprintf(&b, "%s\r\n", h)
	}
	b.WriteString("\r\n")
	if _, err := c.nc.Write(b.Bytes()); err != nil {
		return reply{}, err
	}
	r, err := c.response()
	if err == nil && r.header.Get("CSeq") != strconv.Itoa(c.cseq) {
		return r, fmt.Errorf("answer to request %q, want %d", r.header.Get("CSeq"), c.cseq)
	}
	if id, _, _ := strings.Cut(r.header.Get("Session"), ";"); id != "" {
		c.session = id
	}
	return r, err
}

func (c *client) response() (reply, error) {
	for {
		head, err := c.br.Peek(1)
		if err != nil {
			return reply{}, err
		}
		if head[0] != '$' {
			break
		}
		f, err := c.readFrame()
		if err != nil {
			return reply{}, err
		}
		c.frames = append(c.frames, f)
	}
	tp := textproto.NewReader(c.br)
	line, err := tp.ReadLine()
	if err != nil {
		return reply{}, err
	}
	var r reply
	if _, err := fmt.Sscanf(line, "RTSP/1.0 %d", &r.status); err != nil {
		return r, fmt.Errorf("status line %q", line)
	}
	if r.header, err = tp.ReadMIMEHeader(); err != nil {
		return r, err
	}
	n, _ := strconv.Atoi(r.header.Get("Content-Length"))
	body := make([]byte, n)
	_, err = io.ReadFull(c.br, body)
	r.body = string(body)
	return r, err
}

// frame returns the next interleaved packet.
func (c *client) frame() (frame, error) {
	if len(c.frames) > 0 {
		f := c.frames[0]
		c.frames = c.frames[1:]
		return f, nil
	}
	return c.readFrame()
}

func (c *client) readFrame() (frame, error) {
	var head [4]byte
	if _, err := io.ReadFull(c.br, head[:]); err != nil {
		return frame{}, err
	}
	if head[0] != '$' {
		return frame{}, fmt.Errorf("framing lost: % x", head)
	}
	f := frame{head[1], make([]byte, binary.BigEndian.Uint16(head[2:]))}
	_, err := io.ReadFull(c.br, f.packet)
	return f, err
}

const tcp = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1"

// must fails the test unless the response has the wanted status.
func (c *client) must(tb testing.TB, want int, method, url string, header ...string) reply {
	tb.Helper()
	r, err := c.do(method, url, header...)
	if err != nil {
		tb.Fatalf("%s: %v", method, err)
	}
	if r.status != want {
		tb.Fatalf("%s: status %d, want %d", method, r.status, want)
	}
	return r
}

// play sets up picture and sound over TCP and plays.
func (c *client) play(tb testing.TB) {
	tb.Helper()
	c.must(tb, 200, "SETUP", c.base+"/trackID=0", tcp)
	c.must(tb, 200, "SETUP", c.base+"/trackID=1", tcp)
	c.must(tb, 200, "PLAY", c.base)
}

// tracks of a rendition that needs no encoder.
func fakeTracks(tb testing.TB) (video, sound *stream.Track) {
	tb.Helper()
	sps := []byte{0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x2f, 0xf9, 0x61, 0, 0, 3, 0, 1, 0, 0, 3, 0, 0x3c, 0x0f, 0x16, 0x2e, 0x48}
	avcC, err := h264.ConfigRecord(sps, []byte{0x68, 0xcb, 0x8c, 0xb2})
	if err != nil {
		tb.Fatal(err)
	}
	video = &stream.Track{Codec: stream.H264, Setup: avcC, Width: 640, Height: 360, FPS: 30, Bitrate: 1_000_000}
	sound = &stream.Track{Codec: stream.AAC, Setup: []byte{0x11, 0x90}, Rate: 48000, Channels: 2, Bitrate: 128_000}
	return video, sound
}

// A fake is an encoder that numbers its pictures.
type fake struct {
	r            *stream.Rendition
	video, sound *stream.Track
	gop, size    int
	n            int
}

func newFake(tb testing.TB, gop, size int) *fake {
	tb.Helper()
	f := &fake{r: stream.NewRendition("main", 1024, stream.H264, stream.AAC), gop: gop, size: size}
	f.video, f.sound = fakeTracks(tb)
	return f
}

// publish publishes a picture, and a frame of sound before it.
func (f *fake) publish() {
	at := time.Duration(f.n) * time.Second / 30
	f.r.Publish(&stream.Unit{Track: f.sound, PTS: at, DTS: at, Data: bytes.Repeat([]byte{0x21}, 200)})
	key := f.n%f.gop == 0
	nal := bytes.Repeat([]byte{0x41}, f.size)
	if key {
		nal[0] = h264.TypeIDR | 0x60
	}
	binary.BigEndian.PutUint32(nal[1:], uint32(f.n))
	f.r.Publish(&stream.Unit{Track: f.video, Key: key, PTS: at, DTS: at, Data: h264.AppendNAL(nil, nal)})
	f.n++
}

// live publishes pictures at a steady pace until the test ends.
func (f *fake) live(tb testing.TB, every time.Duration) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			f.publish()
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	tb.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

// A pipeListener hands out one end of net.Pipe, so that synctest can own time.
type pipeListener struct {
	calls  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{calls: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.calls:
		return nc, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

func (l *pipeListener) dial(tb testing.TB) *client {
	tb.Helper()
	near, far := net.Pipe()
	select {
	case l.calls <- far:
	case <-l.closed:
		tb.Fatal(errors.New("listener is closed"))
	}
	return newClient(tb, near, "rtsp://box/main")
}
