package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A crowdJob is what the child "crowd" does: so many readers of an address come
// at once. The first few look at every picture, the others only until their
// first key picture is whole.
type crowdJob struct {
	Protocol, URL string
	Readers       int
}

// lookers is how many readers look at everything.
const lookers = 4

// crowded is what a crowd saw.
type crowded struct {
	Latency []float64 // ms from the stamp to the last byte, of each picture or segment that a looker got
	First   []float64 // ms from before the dial to the first key picture, of each reader
	Lost    uint64    // packets, pictures or segments that lookers missed, and packets that others did over UDP
	Seen    uint64    // those that they got
	Gone    int       // readers whose connection ended early
	Bytes   uint64    // that all readers got once all had begun
}

// A crowd is readers under way.
type crowd struct {
	job     crowdJob
	begun   sync.WaitGroup  // until everybody has a first picture or has gone
	counts  atomic.Int64    // when all had begun, ns of the wall clock; zero before
	ended   context.Context //nolint:containedctx // asked at the end of each reader, not passed on
	mu      sync.Mutex
	result  crowded
	closers []io.Closer
}

// joinings are how readers of each protocol read.
var joinings = map[string]func(*crowd, context.Context, *seat) error{
	overRTSP: (*crowd).readRTSP,
	overUDP:  (*crowd).readUDP,
	overRTMP: (*crowd).readRTMP,
	overFLV:  (*crowd).readFLV,
	overHLS:  (*crowd).readHLS,
	overBare: (*crowd).readBare,
}

// overBare is for what the floor sends.
const overBare = "bare"

// runCrowd reads until ctx ends. It prints a line once everybody has begun.
func runCrowd(ctx context.Context, doc string, out io.Writer) error {
	var job crowdJob
	if err := json.Unmarshal([]byte(doc), &job); err != nil {
		return fmt.Errorf("read the job: %w", err)
	}
	join, ok := joinings[job.Protocol]
	if !ok {
		return fmt.Errorf("protocol %q: %w", job.Protocol, errChild)
	}
	c := &crowd{job: job, ended: ctx}
	defer context.AfterFunc(ctx, c.closeAll)()
	var readers sync.WaitGroup
	for i := range job.Readers {
		c.begun.Add(1)
		readers.Go(func() {
			s := &seat{crowd: c, looks: i < lookers, came: time.Now()}
			err := join(c, ctx, s)
			c.leave(s, err)
		})
	}
	c.begun.Wait()
	c.counts.Store(time.Now().UnixNano())
	fmt.Fprintln(out, "under way")
	<-ctx.Done()
	readers.Wait()
	return json.NewEncoder(out).Encode(c.result)
}

// own has a connection closed at the end.
func (c *crowd) own(x io.Closer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closers = append(c.closers, x)
	if c.ended.Err() != nil {
		_ = x.Close()
	}
}

func (c *crowd) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.closers {
		_ = x.Close() // may be closed already
	}
}

func (c *crowd) leave(s *seat, err error) {
	s.begin()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.result.Latency = append(c.result.Latency, s.latency...)
	c.result.Lost += s.lost
	c.result.Seen += s.seen
	c.result.Bytes += s.bytes
	if s.first > 0 {
		c.result.First = append(c.result.First, float64(s.first)/float64(time.Millisecond))
	}
	if c.ended.Err() == nil {
		c.result.Gone++
		fmt.Fprintln(os.Stderr, "a reader has gone:", err)
	}
}

// A seat is one reader's account. It is for one goroutine.
type seat struct {
	crowd   *crowd
	looks   bool
	came    time.Time
	once    sync.Once
	first   time.Duration
	latency []float64
	lost    uint64
	seen    uint64
	bytes   uint64
}

// begin says that this reader need not be waited for any more.
func (s *seat) begin() { s.once.Do(s.crowd.begun.Done) }

// began reports whether the reader has a key picture.
func (s *seat) began() bool { return s.first > 0 }

// picture takes note of a whole picture. stamp is when it was published, zero
// if that was not to be seen.
func (s *seat) picture(key bool, stamp time.Time) {
	now := time.Now()
	if key && s.first == 0 {
		s.first = now.Sub(s.came)
		s.begin()
	}
	if since := s.crowd.counts.Load(); since != 0 && s.looks && !stamp.IsZero() && stamp.UnixNano() > since { // what was kept for newcomers is old
		s.latency = append(s.latency, float64(now.Sub(stamp))/float64(time.Millisecond))
	}
}

// got takes note of something that came, and of what should have come before it.
func (s *seat) got(missing uint64) {
	if s.crowd.counts.Load() != 0 {
		s.seen++
		s.lost += missing
	}
}

// took takes note of bytes. It never fails; see [drop].
func (s *seat) took(n int) error {
	if s.crowd.counts.Load() != 0 {
		s.bytes += uint64(n)
	}
	return nil
}

// drop takes what comes by TCP and throws it away in the kernel (tcp(7),
// MSG_TRUNC), until the connection ends. took is told of the bytes.
func drop(conn net.Conn, took func(n int) error) error {
	tcp, ok := conn.(syscall.Conn)
	if !ok {
		return fmt.Errorf("drop: %T: %w", conn, errChild)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return fmt.Errorf("drop: %w", err)
	}
	for {
		n, got := 0, error(nil)
		err := raw.Read(func(fd uintptr) bool {
			n, _, got = unix.Recvfrom(int(fd), scratch[:], unix.MSG_TRUNC|unix.MSG_DONTWAIT)
			return !errors.Is(got, unix.EAGAIN)
		})
		if err = errors.Join(err, got); err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if n == 0 {
			return io.EOF
		}
		if err := took(n); err != nil {
			return err
		}
	}
}

// scratch is what readers that do not look read into. The kernel does not touch
// it: MSG_TRUNC only takes its length.
var scratch [1 << 20]byte

// readBare takes what the floor sends.
func (c *crowd) readBare(ctx context.Context, s *seat) error {
	u, err := url.Parse(c.job.URL)
	if err != nil {
		return err
	}
	conn, err := c.dial(ctx, u.Host)
	if err != nil {
		return err
	}
	s.begin()
	return drop(conn, s.took)
}

func (c *crowd) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	c.own(conn)
	return conn, nil
}

// readRTSP plays over the connection itself.
func (c *crowd) readRTSP(ctx context.Context, s *seat) error {
	p, err := play(ctx, c.job.URL)
	if err != nil {
		return err
	}
	c.own(p.conn)
	var w flow264
	buf := make([]byte, 1<<16)
	for s.looks || !s.began() {
		packet, err := p.next(buf)
		if err != nil {
			return err
		}
		_ = s.took(len(packet.data) + 4)
		if packet.channel == p.video() {
			w.see(s, packet.data)
		}
	}
	return drop(p.conn, s.took)
}

// readUDP plays by UDP: two ports for each track.
func (c *crowd) readUDP(ctx context.Context, s *seat) error {
	p, ports, err := playUDP(ctx, c.job.URL)
	if err != nil {
		return err
	}
	c.own(p.conn)
	for _, port := range ports {
		c.own(port)
	}
	var others sync.WaitGroup
	defer others.Wait()
	defer func() { _ = p.conn.Close() }() // ends who reads it
	video := int(p.video())
	for i, port := range ports {
		if i%2 == 0 && i != video {
			others.Go(func() { dropPackets(port) })
		}
	}
	others.Go(func() { _ = drop(p.conn, func(int) error { return nil }) })
	var w flow264
	buf := make([]byte, 1<<11)
	for {
		if s.began() && !s.looks {
			buf = buf[:rtpHeader] // the rest is cut off
		}
		n, err := readPacket(ports[video], buf)
		if err != nil {
			return err
		}
		_ = s.took(n)
		if s.began() && !s.looks {
			w.count(s, buf[:n])
			continue
		}
		w.see(s, buf[:n])
	}
}

func readPacket(conn net.PacketConn, buf []byte) (int, error) {
	r, ok := conn.(io.Reader)
	if !ok {
		return 0, errChild
	}
	return r.Read(buf)
}

func dropPackets(conn net.PacketConn) {
	var buf [rtpHeader]byte
	for {
		if _, err := readPacket(conn, buf[:]); err != nil {
			return
		}
	}
}

// playUDP plays by UDP to two ports for each track, which it opens.
func playUDP(ctx context.Context, address string) (p *player, ports []net.PacketConn, err error) {
	var failed error
	p, err = playBy(ctx, address, func(int) string {
		rtp, rtcp, err := openSomePair(ctx)
		if err != nil {
			failed = err
			return ""
		}
		ports = append(ports, rtp, rtcp)
		port, err := portOf(rtp)
		failed = errors.Join(failed, err)
		return fmt.Sprintf("RTP/AVP;unicast;client_port=%d-%d", port, port+1)
	})
	if err = errors.Join(failed, err); err != nil {
		for _, port := range ports {
			_ = port.Close()
		}
		return nil, nil, err
	}
	return p, ports, nil
}

// A flow264 puts packets of H.264 together as far as it takes to tell pictures
// (RFC 6184).
type flow264 struct {
	begun bool
	seq   uint16
	key   bool
	stamp time.Time
}

func (w *flow264) count(s *seat, data []byte) {
	if len(data) < rtpHeader {
		return
	}
	seq, missing := binary.BigEndian.Uint16(data[2:]), uint64(0)
	if gap := seq - w.seq - 1; w.begun && gap < 1<<15 {
		missing = uint64(gap)
	}
	w.begun, w.seq = true, seq
	s.got(missing)
}

const (
	typeIDR    = 5
	typeSEI    = 6
	typeSTAPA  = 24
	typeFUA    = 28
	smallWhole = 200 // bytes of a packet that may hold the clock
)

func (w *flow264) see(s *seat, data []byte) {
	if len(data) <= rtpHeader+1 {
		return
	}
	w.count(s, data)
	body, marker := data[rtpHeader+4*int(data[0]&15):], data[1]>>7 == 1
	switch kind := body[0] & 31; {
	case kind == typeIDR, kind == typeFUA && body[1]&31 == typeIDR:
		w.key = true
	case kind == typeSTAPA:
		w.walk(body[1:])
	}
	if w.stamp.IsZero() && (body[0]&31 == typeSEI || body[0]&31 == typeSTAPA || len(body) < smallWhole) {
		w.stamp = stamped(body)
	}
	if marker {
		s.picture(w.key, w.stamp)
		w.key, w.stamp = false, time.Time{}
	}
}

// walk looks for a key picture among the NAL units of an aggregation packet.
func (w *flow264) walk(units []byte) {
	for len(units) > 2 {
		n := int(binary.BigEndian.Uint16(units))
		if units[2]&31 == typeIDR {
			w.key = true
		}
		units = units[min(2+n, len(units)):]
	}
}
