package rtsp

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"encoderd.example/stream"
	"encoderd.example/stream/rtp"
)

// A udpPair is an even port that RTP goes out from, and the next one for RTCP.
// What comes in on the first only opens firewalls; on the second, receiver
// reports keep sessions alive. All UDP sessions share its sockets, except that
// RTP goes out from one of each session's own on the same port: see open.
type udpPair struct {
	rtp, rtcp       *net.UDPConn
	rawRTP, rawRTCP syscall.RawConn

	mu    sync.Mutex
	peers map[netip.AddrPort]*reported // by the source of RTCP
}

// A reported is whom the reports from some addresses are for.
type reported struct{ take func([]rtp.ReceiverReport) }

const pairTries = 32

// listenUDP opens a pair on the host of addr. Port 0 prefers 8000 and takes
// any pair that is free.
func listenUDP(ctx context.Context, addr net.Addr, port int) (*udpPair, error) {
	host := ""
	if ip := hostOf(addr); ip.IsValid() && !ip.IsUnspecified() {
		host = ip.String()
	}
	p, err := listenPair(ctx, host, cmp.Or(port, DefaultUDPPort))
	for try := 0; err != nil && port == 0 && try < pairTries; try++ {
		p, err = listenPair(ctx, host, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("rtsp: open udp ports: %w", err)
	}
	return p, nil
}

// listenPair opens RTP on port, RTCP on the one after it. Port 0 means any,
// and fails if the kernel's choice does not make a pair.
func listenPair(ctx context.Context, host string, port int) (*udpPair, error) {
	a, err := listenPacket(ctx, net.ListenConfig{}, host, port)
	if err != nil {
		return nil, err
	}
	p := &udpPair{rtp: a, peers: make(map[netip.AddrPort]*reported)}
	if p.port()%2 != 0 {
		_ = a.Close()
		return nil, fmt.Errorf("port %d is odd; RTP takes an even one", p.port())
	}
	p.rtcp, err = listenPacket(ctx, net.ListenConfig{}, host, p.port()+1)
	if err != nil {
		_ = a.Close()
		return nil, err
	}
	p.rawRTP, err = p.rtp.SyscallConn()
	if err == nil {
		p.rawRTCP, err = p.rtcp.SyscallConn()
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("udp sockets: %w", err)
	}
	return p, nil
}

// open returns a socket for RTP of one session from p's port. What it sends to a
// host that is gone waits, in the kernel, for that host's address on the network
// and takes room of this socket alone. Nothing is to be read from it.
func (p *udpPair) open(ctx context.Context, peer, local netip.Addr) (*net.UDPConn, error) {
	if err := control(p.rawRTP, share); err != nil { // only now: its own binding was for nobody else
		return nil, fmt.Errorf("share udp port: %w", err)
	}
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return errors.Join(control(raw, share), control(raw, deafen))
	}}
	own, err := listenPacket(ctx, lc, local.WithZone(peer.Zone()).String(), p.port())
	if err != nil {
		return nil, fmt.Errorf("open udp port once more: %w", err)
	}
	return own, nil
}

func control(raw syscall.RawConn, set func(fd int) error) (err error) {
	if cerr := raw.Control(func(fd uintptr) { err = set(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

// share lets sockets that agree have one port.
func share(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }

// deafen drops all that comes in, which would fill the socket.
func deafen(fd int) error {
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]})
}

func listenPacket(ctx context.Context, lc net.ListenConfig, host string, port int) (*net.UDPConn, error) {
	pc, err := lc.ListenPacket(ctx, "udp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	conn, ok := pc.(*net.UDPConn)
	if !ok {
		_ = pc.Close()
		return nil, fmt.Errorf("udp socket is a %T", pc)
	}
	return conn, nil
}

// port returns the RTP port, 0 of a nil pair.
func (p *udpPair) port() int {
	if p == nil {
		return 0
	}
	return int(localPort(p.rtp))
}

func localPort(c *net.UDPConn) uint16 {
	addr, ok := c.LocalAddr().(*net.UDPAddr)
	if !ok {
		return 0
	}
	return addr.AddrPort().Port()
}

// serve reads both sockets until close.
func (p *udpPair) serve(wg *sync.WaitGroup, log *slog.Logger) {
	wg.Go(func() { receive(p.rtp, log, func(netip.AddrPort, []byte) {}) })
	wg.Go(func() { receive(p.rtcp, log, p.report) })
}

func (p *udpPair) close() {
	_ = p.rtp.Close()
	_ = p.rtcp.Close()
}

func receive(c *net.UDPConn, log *slog.Logger, take func(netip.AddrPort, []byte)) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			log.Debug("rtsp udp read failed", "err", err)
			continue
		}
		take(netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), buf[:n])
	}
}

// report hands an RTCP packet to the session that it comes from.
func (p *udpPair) report(from netip.AddrPort, packet []byte) {
	p.mu.Lock()
	to := p.peers[from]
	p.mu.Unlock()
	if to == nil {
		return
	}
	if reports, err := rtp.ParseRTCP(packet); err == nil {
		to.take(reports)
	}
}

// join calls take with the reports from each of the addresses, until leave is
// called or somebody else joins for the address: a player that came back, while
// its last session is not over yet. take must not block.
func (p *udpPair) join(from []netip.AddrPort, take func([]rtp.ReceiverReport)) (leave func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	to := &reported{take}
	for _, a := range from {
		p.peers[a] = to
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		maps.DeleteFunc(p.peers, func(_ netip.AddrPort, o *reported) bool { return o == to })
	}
}

// What one message of several segments may hold: the kernel's UDP_MAX_SEGMENTS
// was 64 first; fewer keep a burst inside a receiver's default buffer.
const (
	maxSegments     = 24
	maxSegmentBytes = 40 << 10
)

// A udpSender sends batches to one player. A batch is one sendmmsg per socket:
// packets of equal size in a row make one message that the kernel, or the
// network card, cuts again (UDP_SEGMENT, udp(7), since Linux 4.18); where that
// is not to be had, each packet is a message. It is a [stream.Sink] that never
// waits.
type udpSender struct {
	pair *udpPair
	out  syscall.RawConn // for RTP
	want rtp.Set
	to   [4][]byte // by channel
	src  []byte    // control message: our address that the player knows
	gso  bool
	lost bool // our address, as far as the latest message tells
	pace pacer
	post mailer

	batch *rtp.Batch // on its way
	media []message  // of it, reused
	ctl   []message
	gone  [2]int // of media and ctl, messages
}

// newUDPSender sends the media in want to ports of peer, from our address
// local: a box with two networks must answer from the one that was asked.
func newUDPSender(pair *udpPair, want rtp.Set, peer, local netip.Addr, ports [2][2]uint16, bitrate int) *udpSender {
	s := &udpSender{pair: pair, out: pair.rawRTP, want: want, gso: true, pace: newPacer(bitrate)}
	for ch := range s.to {
		s.to[ch] = sockaddr(netip.AddrPortFrom(peer, ports[ch/2][ch%2]))
	}
	switch {
	case !local.IsValid() || local.IsLinkLocalUnicast(): // the peer's zone says it
	case local.Is4():
		s.src = (&ipv4.ControlMessage{Src: local.AsSlice()}).Marshal()
	default:
		s.src = (&ipv6.ControlMessage{Src: local.AsSlice()}).Marshal()
	}
	return s
}

// part gives s a socket of its own for RTP, until leave is called.
func (s *udpSender) part(ctx context.Context, peer, local netip.Addr) (leave func(), err error) {
	own, err := s.pair.open(ctx, peer, local)
	if err != nil {
		return nil, err
	}
	if s.out, err = own.SyscallConn(); err != nil {
		_ = own.Close()
		return nil, fmt.Errorf("udp socket: %w", err)
	}
	return func() { _ = own.Close() }, nil
}

// Waits is [stream.Sink].
func (s *udpSender) Waits() bool { return false }

// Hold is [stream.Sink]. The sockets outlive the player.
func (s *udpSender) Hold(serve func()) error {
	serve()
	return nil
}

// Take is [stream.Sink].
func (s *udpSender) Take(b *rtp.Batch, _ *stream.Plate) (int, error) {
	s.batch = b
	s.fill(b, 0)
	return len(b.Bytes(s.want)), nil
}

// Push is [stream.Sink]. It sends no more than the pace allows.
func (s *udpSender) Push() (out bool, err error) {
	wait, err := s.push(time.Now())
	return wait == 0, err
}

// Flush is [stream.Sink]. What the kernel has no room for is dropped.
func (s *udpSender) Flush() error {
	_, err := s.push(time.Time{})
	return err
}

// send sends b and returns its bytes. It takes as long as the pace demands,
// but at once what is left when ctx ends.
func (s *udpSender) send(ctx context.Context, b *rtp.Batch) (int, error) {
	n, err := s.Take(b, nil)
	for err == nil {
		var wait time.Duration
		if wait, err = s.push(time.Now()); wait == 0 {
			break
		}
		if !stream.Rest(ctx, wait) {
			return n, s.Flush()
		}
	}
	return n, err
}

// push sends what is left of the batch as far as the pace of now allows, zero
// for haste, and returns how long the rest has to wait: 0 if there is none.
func (s *udpSender) push(now time.Time) (wait time.Duration, err error) {
	wait, err = s.drain(now, s.pair.rawRTCP, s.ctl, &s.gone[0])
	if wait > 0 || err != nil {
		return wait, err
	}
	wait, err = s.drain(now, s.out, s.media, &s.gone[1])
	if s.gso && refusesSegments(err) {
		s.gso = false // a tunnel or a card that cannot: once and for all
		s.fill(s.batch, s.packetsGone())
		s.gone[0] = len(s.ctl)
		wait, err = s.drain(now, s.out, s.media, &s.gone[1])
		s.gso = s.lost // which is answered in the same way, and may pass
	}
	return wait, err
}

// socketFull is how long a socket without room for a packet is left alone.
const socketFull = time.Millisecond

// drain sends all but the first gone of ms and counts on.
func (s *udpSender) drain(now time.Time, raw syscall.RawConn, ms []message, gone *int) (wait time.Duration, err error) {
	for *gone < len(ms) {
		n, size := head(ms[*gone:])
		if wait := s.pace.wait(now, size); wait > 0 && !now.IsZero() {
			return wait, nil
		}
		n, err := s.post.send(raw, ms[*gone:*gone+n])
		s.lost = homeless(err) && len(ms[*gone].packets) == 1
		switch {
		case errors.Is(err, unix.EAGAIN):
			return socketFull, nil
		case dropped(err):
			n = 1
		case s.lost: // and so is the rest
			n = len(ms) - *gone
		case err != nil:
			return 0, fmt.Errorf("send udp: %w", err)
		}
		for _, m := range ms[*gone : *gone+n] {
			s.pace.book(now, m.size())
		}
		*gone += n
	}
	return 0, nil
}

// losses are how a datagram is lost on its way out, as datagrams may be: no
// buffer, a firewall's verdict, or a moment without a route.
var losses = []error{unix.ENOBUFS, unix.EPERM, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.ENETDOWN}

func dropped(err error) bool {
	return slices.ContainsFunc(losses, func(loss error) bool { return errors.Is(err, loss) })
}

// homeless reports whether the address that a datagram without segments was to
// come from may be none of ours any more. It may come back, as when a DHCP server
// gives it anew; until then players are deaf, as those are that vanished.
func homeless(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EADDRNOTAVAIL)
}

// head returns how many of ms go by one call, and their bytes.
func head(ms []message) (n, size int) {
	n, size = 1, ms[0].size()
	for n < len(ms) && size+ms[n].size() <= paceBurst {
		size += ms[n].size()
		n++
	}
	return n, size
}

// packetsGone returns how many packets of media have gone.
func (s *udpSender) packetsGone() (n int) {
	for i := range s.media[:s.gone[1]] {
		n += len(s.media[i].packets)
	}
	return n
}

// fill makes the messages of b, without its first skip RTP packets.
func (s *udpSender) fill(b *rtp.Batch, skip int) {
	s.media, s.ctl, s.gone = s.media[:0], s.ctl[:0], [2]int{}
	segment, total, open := 0, 0, false // of the latest media message
	for ch, packet := range b.Packets(s.want) {
		switch {
		case ch%2 == 1:
			s.ctl = appendMessage(s.ctl, packet, s.to[ch], s.src)
		case skip > 0:
			skip--
		case open && len(packet) <= segment && total+len(packet) <= maxSegmentBytes:
			m := &s.media[len(s.media)-1]
			m.packets = append(m.packets, packet)
			total += len(packet)
			open = len(packet) == segment && len(m.packets) < maxSegments
		default:
			s.media = appendMessage(s.media, packet, s.to[ch], s.src)
			segment, total, open = len(packet), len(packet), s.gso
		}
	}
	for i := range s.media {
		if m := &s.media[i]; len(m.packets) > 1 {
			m.control = appendSegmentSize(m.control, len(m.packets[0]))
		}
	}
}

// appendMessage appends a message of one packet. It reuses the packet list
// and control space of the message that stood in its place before.
func appendMessage(ms []message, packet, to, src []byte) []message {
	if len(ms) < cap(ms) {
		ms = ms[:len(ms)+1]
	} else {
		ms = append(ms, message{})
	}
	m := &ms[len(ms)-1]
	m.packets = append(m.packets[:0], packet)
	m.control = append(m.control[:0], src...)
	m.to = to
	return ms
}

// appendSegmentSize appends the control message that has the kernel cut at
// every size bytes.
func appendSegmentSize(oob []byte, size int) []byte {
	at := len(oob)
	oob = append(oob, make([]byte, unix.CmsgSpace(2))...)
	h := oob[at:]
	// struct cmsghdr: length in the size of a pointer, then level and type.
	if unix.SizeofPtr == 8 {
		binary.NativeEndian.PutUint64(h, uint64(unix.CmsgLen(2)))
	} else {
		binary.NativeEndian.PutUint32(h, uint32(unix.CmsgLen(2)))
	}
	binary.NativeEndian.PutUint32(h[unix.SizeofPtr:], unix.IPPROTO_UDP)
	binary.NativeEndian.PutUint32(h[unix.SizeofPtr+4:], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint16(h[unix.CmsgLen(0):], uint16(size))
	return oob
}

func refusesSegments(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.EOPNOTSUPP)
}

// A pacer spreads bursts, so that a key picture or the cached group of
// pictures that a session begins with does not overrun the player's receive
// buffer, which by default holds some 90 packets on Linux.
type pacer struct {
	rate int64 // bytes per second
	free time.Time
}

// newPacer allows 50 Mbit/s, or four times the nominal bit rate if that is more.
func newPacer(bitrate int) pacer {
	return pacer{rate: max(paceRate, 4*int64(bitrate)/8)}
}

// wait returns how long n more bytes have to wait, so that no more than
// paceBurst are ahead of the rate then.
func (p *pacer) wait(now time.Time, n int) time.Duration {
	return max(p.with(now, n).Sub(now)-p.time(paceBurst), 0)
}

// book takes note of n bytes that have gone.
func (p *pacer) book(now time.Time, n int) { p.free = p.with(now, n) }

// with returns when the line would be free again with n bytes more.
func (p *pacer) with(now time.Time, n int) time.Time {
	if p.free.After(now) {
		now = p.free
	}
	return now.Add(p.time(int64(n)))
}

// time returns how long n bytes take.
func (p *pacer) time(n int64) time.Duration {
	return time.Duration(n * int64(time.Second) / p.rate)
}

// hostOf returns the IP address of a TCP or UDP address, IPv4 in its own form;
// it is not valid for other networks.
func hostOf(addr net.Addr) netip.Addr {
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}
