package tsl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"encoderd.example/daemon/tally"
)

// Packets is a link that takes datagrams from anybody who can reach its port.
// A sender is known by its IP address.
type Packets struct {
	Dialect Dialect
	Open    func(ctx context.Context) (net.PacketConn, error)
}

// Run implements [tally.Link].
func (p Packets) Run(ctx context.Context, d tally.Desk) error {
	conn, err := p.Open(ctx)
	if err != nil {
		return err
	}
	defer closing(ctx, conn)()
	d.Up()
	buf := make([]byte, max5+1) // one more, to see that it is too long
	for speed := (pace{perSecond: packetsPerSecond}); ; speed.took(ctx, 1) {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return tally.Ended(ctx, err)
		}
		sender := host(from)
		err = p.Dialect.datagram(buf[:n], func(source, state string) { d.Says(source, sender, state) })
		if err != nil {
			d.Bad(sender, err)
			continue
		}
		d.Alive(sender)
	}
}

// host is an address without its port, which a sender may change at will.
func host(a net.Addr) string {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap().String()
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap().String()
	default:
		return a.String()
	}
}

// closing closes c when ctx ends or the returned function is called.
func closing(ctx context.Context, c io.Closer) func() {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	return func() {
		if stop() {
			_ = c.Close()
		}
	}
}

// Stream is a link by one serial port, or by a connection that it makes.
type Stream struct {
	Dialect Dialect
	Open    tally.Opener
}

// Run implements [tally.Link].
func (s Stream) Run(ctx context.Context, d tally.Desk) error {
	conn, err := s.Open(ctx)
	if err != nil {
		return err
	}
	defer closing(ctx, conn)()
	d.Up()
	return tally.Ended(ctx, read(ctx, conn, s.Dialect, d, "", func() {}))
}

// maxGarbage is how many bytes without one packet are borne.
const maxGarbage = 64 << 10

var errOnlyGarbage = fmt.Errorf("%d KiB came without one packet: check protocol, speed and parity", maxGarbage>>10)

// read tells d what comes from r until that ends; said is called for every
// packet.
func read(ctx context.Context, r io.Reader, dialect Dialect, d tally.Desk, sender string, said func()) error {
	split := dialect.splitter(func(source, state string) { d.Says(source, sender, state) })
	buf := make([]byte, 2048)
	speed := pace{perSecond: bytesPerSecond}
	for garbage := 0; garbage < maxGarbage; {
		n, err := r.Read(buf)
		speed.took(ctx, n)
		garbage += n
		packets, dropped := split.feed(buf[:n])
		if packets > 0 {
			garbage = 0
			d.Alive(sender)
			said()
		}
		if dropped != nil {
			d.Bad(sender, dropped)
		}
		if err != nil {
			return err
		}
		if n == 0 && ctx.Err() != nil { // a port without traffic
			return context.Cause(ctx)
		}
	}
	return errOnlyGarbage
}

// Listener is a link that takes TCP connections from several senders. One that
// says nothing sensible at first is thrown out after a while. When all places are
// taken, the host that has most of them makes room, with the connection that has
// been silent the longest. A sender is known by its IP address and port.
type Listener struct {
	Dialect Dialect
	Open    func(ctx context.Context) (net.Listener, error)
}

const (
	maxSenders = 16
	firstWord  = 30 * time.Second
)

var (
	errMadeRoom = errors.New("made room for another sender")
	errMute     = fmt.Errorf("said nothing sensible within %v", firstWord)
)

// Run implements [tally.Link].
func (l Listener) Run(ctx context.Context, d tally.Desk) error {
	listener, err := l.Open(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	room := room{dialect: l.Dialect, desk: d, senders: map[*sender]bool{}}
	defer room.all.Wait()
	defer cancel()
	defer closing(ctx, listener)()
	d.Up()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return tally.Ended(ctx, err)
		}
		s := room.enter(conn)
		room.all.Go(func() { room.serve(ctx, s) })
	}
}

// A room is the senders that are connected.
type room struct {
	dialect Dialect
	desk    tally.Desk
	all     sync.WaitGroup

	mu      sync.Mutex
	senders map[*sender]bool
}

// A sender is one connection. Its room's lock guards it.
type sender struct {
	conn    net.Conn
	heard   time.Time // zero before its first packet
	entered time.Time
	thrown  error // why it is thrown out, if it is
}

// enter gives a connection its place.
func (r *room) enter(conn net.Conn) *sender {
	s := &sender{conn: conn, entered: time.Now()}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.senders) >= maxSenders {
		r.throw(r.leastMissed(), errMadeRoom)
	}
	r.senders[s] = true
	return s
}

// leastMissed is who makes room: of the host with the most connections, one that
// never spoke, or else has been silent for longest. The caller holds the lock.
func (r *room) leastMissed() *sender {
	places := map[string]int{}
	for s := range r.senders {
		places[host(s.conn.RemoteAddr())]++
	}
	return slices.MinFunc(slices.Collect(maps.Keys(r.senders)), func(a, b *sender) int {
		return cmp.Or(
			places[host(b.conn.RemoteAddr())]-places[host(a.conn.RemoteAddr())],
			a.heard.Compare(b.heard), a.entered.Compare(b.entered))
	})
}

// throw ends a connection. The caller holds the lock.
func (r *room) throw(s *sender, why error) {
	s.thrown = why
	delete(r.senders, s)
	_ = s.conn.Close()
}

// serve reads one connection to its end.
func (r *room) serve(ctx context.Context, s *sender) {
	defer closing(ctx, s.conn)()
	mute := time.AfterFunc(firstWord, func() { r.throwMute(s) })
	defer mute.Stop()
	name := s.conn.RemoteAddr().String()
	err := read(ctx, s.conn, r.dialect, r.desk, name, func() { r.spoke(s) })
	r.desk.Gone(name, r.left(ctx, s, err))
}

func (r *room) spoke(s *sender) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.heard = time.Now()
}

func (r *room) throwMute(s *sender) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.heard.IsZero() {
		r.throw(s, errMute)
	}
}

// left gives the place of a sender back, and says why it left.
func (r *room) left(ctx context.Context, s *sender, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.senders, s)
	return cmp.Or(s.thrown, tally.Ended(ctx, err), context.Cause(ctx))
}

// Link returns the link for an address as config spells it:
//
//	udp://[HOST]:PORT  listens for datagrams
//	tcp://:PORT        listens for connections
//	tcp://HOST:PORT    connects
//	serial:PATH        opens that port by serial
func Link(address string, d Dialect, serial func(path string) tally.Opener) (tally.Link, error) {
	if path, ok := strings.CutPrefix(address, "serial:"); ok {
		return Stream{Dialect: d, Open: serial(path)}, nil
	}
	network, hostport, err := parseAddress(address)
	switch {
	case err != nil:
		return nil, err
	case network == "udp":
		return Packets{Dialect: d, Open: tally.ListenPackets(hostport)}, nil
	case strings.HasPrefix(hostport, ":"):
		return Listener{Dialect: d, Open: tally.Listen(hostport)}, nil
	default:
		return Stream{Dialect: d, Open: tally.Dial(network, hostport)}, nil
	}
}

// Far returns an Opener for the far side at an address as config spells it:
// udp://HOST:PORT, tcp://HOST:PORT, or serial:PATH, which serial opens. The port
// is given a context that never ends: it stays open for the last packet of an
// [Out], which closes it.
func Far(address string, serial func(path string) tally.Opener) (tally.Opener, error) {
	if path, ok := strings.CutPrefix(address, "serial:"); ok {
		open := serial(path)
		return func(ctx context.Context) (io.ReadWriteCloser, error) { return open(context.WithoutCancel(ctx)) }, nil
	}
	network, hostport, err := parseAddress(address)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(hostport, ":") {
		return nil, fmt.Errorf("%s names no far side", address)
	}
	return tally.Dial(network, hostport), nil
}

// parseAddress splits udp://HOST:PORT and tcp://HOST:PORT.
func parseAddress(address string) (network, hostport string, err error) {
	network, hostport, _ = strings.Cut(address, "://")
	hostport = strings.TrimSuffix(hostport, "/")
	if network != "udp" && network != "tcp" {
		return "", "", fmt.Errorf("%s is neither serial nor udp:// nor tcp://…", address)
	}
	if _, _, err := net.SplitHostPort(hostport); err != nil {
		return "", "", fmt.Errorf("%s has no port: %w", address, err)
	}
	return network, hostport, nil
}
