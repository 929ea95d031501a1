package rtsp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/stream"
	"encoderd.example/stream/h264"
	"encoderd.example/stream/rtp"
)

// sockets opens a player's two UDP ports.
func sockets(tb testing.TB) (pair *udpPair, ports [2]uint16) {
	tb.Helper()
	ln, err := net.ResolveTCPAddr("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	pair, err = listenUDP(tb.Context(), ln, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(pair.close)
	return pair, [2]uint16{localPort(pair.rtp), localPort(pair.rtcp)}
}

func receiveOne(t *testing.T, c *net.UDPConn) []byte {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 65536)
	n, _, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

func TestUDPPacketsAreThoseOfTheBatch(t *testing.T) {
	video, sound := fakeTracks(t)
	both := rtp.Set(0).With(rtp.Video).With(rtp.Sound)
	sizes := map[string][]int{
		"many packets":         {60_000},
		"one packet":           {100},
		"exact multiple":       {1 + 10*1386},
		"slices of all sizes":  {5000, 100, 1380, 1380, 7000, 3},
		"more than one group":  {200_000},
		"nothing but a report": nil,
	}
	for name, slice := range sizes {
		for _, gso := range []bool{true, false} {
			for _, host := range []string{"127.0.0.1", "::1"} {
				t.Run(name, func(t *testing.T) {
					server, _ := sockets(t)
					if host == "::1" {
						server, _ = sockets6(t)
					}
					player, ports := sockets(t)
					if host == "::1" {
						player, ports = sockets6(t)
					}
					if err := player.rtp.SetReadBuffer(1 << 20); err != nil {
						t.Fatal(err)
					}
					var data []byte
					for i, n := range slice {
						nal := bytes.Repeat([]byte{byte(i + 1)}, n)
						nal[0] = 0x65
						data = h264.AppendNAL(data, nal)
					}
					p, err := rtp.NewPacketizer(0, video, sound)
					if err != nil {
						t.Fatal(err)
					}
					b, err := p.Batch(&stream.Unit{Track: video, Key: true, Data: data})
					if err != nil {
						t.Fatal(err)
					}
					ip := netip.MustParseAddr(host)
					s := newUDPSender(server, both, ip, ip, [2][2]uint16{ports, ports}, 0)
					s.gso = gso
					s.pace.rate = 1 << 40
					done := make(chan error, 1)
					go func() {
						_, err := s.send(t.Context(), b)
						done <- err
					}()
					for ch, want := range b.Packets(both) {
						from := player.rtp
						if ch%2 == 1 {
							from = player.rtcp
						}
						if got := receiveOne(t, from); !bytes.Equal(got, want) {
							t.Fatalf("channel %d: got %d bytes % x…, want %d bytes % x…", ch, len(got), got[:16], len(want), want[:16])
						}
					}
					if err := <-done; err != nil {
						t.Error(err)
					}
					if s.gso != gso {
						t.Error("this kernel cuts no segments: the fast path went untested")
					}
				})
			}
		}
	}
}

func sockets6(tb testing.TB) (*udpPair, [2]uint16) {
	tb.Helper()
	pair, err := listenUDP(tb.Context(), &net.TCPAddr{IP: net.IPv6loopback}, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(pair.close)
	return pair, [2]uint16{localPort(pair.rtp), localPort(pair.rtcp)}
}

func TestPacketsAreFewMessages(t *testing.T) {
	video, _ := fakeTracks(t)
	p, err := rtp.NewPacketizer(0, video)
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.Batch(&stream.Unit{Track: video, Data: h264.AppendNAL(nil, make([]byte, 1+50*1386+5))})
	if err != nil {
		t.Fatal(err)
	}
	pair, ports := sockets(t)
	peer := netip.MustParseAddr("127.0.0.1")
	s := newUDPSender(pair, rtp.Set(0).With(rtp.Video), peer, peer, [2][2]uint16{ports, ports}, 0)
	shape := func() (packets []int) {
		for i := range s.media {
			packets = append(packets, len(s.media[i].packets))
		}
		return packets
	}
	s.fill(b, 0)
	if got := shape(); !slices.Equal(got, []int{24, 24, 3}) {
		t.Errorf("messages of %v packets", got)
	}
	s.fill(b, 40)
	if got := shape(); !slices.Equal(got, []int{11}) {
		t.Errorf("after 40 packets, messages of %v packets", got)
	}
	s.gso = false
	s.fill(b, 0)
	if got := shape(); len(got) != 51 || slices.Max(got) != 1 || len(s.media[0].control) != len(s.src) {
		t.Errorf("without segments, messages of %v packets", got)
	}
	if n := testing.AllocsPerRun(20, func() { s.fill(b, 0) }); n > 0 {
		t.Errorf("%v allocations a batch", n)
	}
}

func TestSegmentsRefusedMeansSingles(t *testing.T) {
	video, _ := fakeTracks(t)
	p, err := rtp.NewPacketizer(9000, video)
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.Batch(&stream.Unit{Track: video, Data: h264.AppendNAL(nil, bytes.Repeat([]byte{0x41}, 30_000))})
	if err != nil {
		t.Fatal(err)
	}
	server, _ := sockets(t)
	player, ports := sockets(t)
	peer := netip.MustParseAddr("127.0.0.1")
	s := newUDPSender(server, rtp.Set(0).With(rtp.Video), peer, peer, [2][2]uint16{ports, ports}, 0)
	// Checksums off: the kernel refuses to cut such a socket's messages with EIO.
	raw, err := server.rtp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NO_CHECK, 1) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	if _, err := s.send(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if s.gso {
		t.Fatal("segments were not refused: the test has to find another way")
	}
	for ch, want := range b.Packets(rtp.Set(0).With(rtp.Video)) {
		if ch%2 == 1 {
			continue
		}
		if got := receiveOne(t, player.rtp); !bytes.Equal(got, want) {
			t.Fatalf("got %d bytes, want %d", len(got), len(want))
		}
	}
}

func TestBurstsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(1_000_000)
		take := func(n int) {
			for wait := p.wait(time.Now(), n); wait > 0; wait = p.wait(time.Now(), n) {
				time.Sleep(wait)
			}
			p.book(time.Now(), n)
		}
		start := time.Now()
		for range 100 {
			take(16 << 10)
		}
		want := time.Duration(100*16<<10-paceBurst) * time.Second / time.Duration(paceRate)
		if got := time.Since(start); got != want {
			t.Errorf("1.6 MB took %v, want %v", got, want)
		}
		time.Sleep(time.Second)
		start = time.Now()
		take(paceBurst)
		if got := time.Since(start); got != 0 {
			t.Errorf("a first burst waited %v", got)
		}
	})
	if p := newPacer(80_000_000); p.rate != 40_000_000 {
		t.Errorf("80 Mbit/s is sent at %d bytes a second", p.rate)
	}
}

func TestWhatEndsDoesNotWaitForItsPace(t *testing.T) {
	video, _ := fakeTracks(t)
	p, err := rtp.NewPacketizer(0, video)
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.Batch(&stream.Unit{Track: video, Data: h264.AppendNAL(nil, []byte{0x41, 1, 2})})
	if err != nil {
		t.Fatal(err)
	}
	server, _ := sockets(t)
	player, ports := sockets(t)
	peer := netip.MustParseAddr("127.0.0.1")
	s := newUDPSender(server, rtp.Set(0).With(rtp.Video), peer, peer, [2][2]uint16{ports, ports}, 0)
	s.pace.free = time.Now().Add(time.Hour)
	if _, err := s.Take(b, nil); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Push(); out || err != nil {
		t.Fatalf("sent ahead of its pace: %v, %v", out, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.send(ctx, b); err != nil {
		t.Fatal(err)
	}
	receiveOne(t, player.rtp)
}

// playUDP plays the picture over UDP.
func playUDP(t *testing.T, c *client) (*udpPair, reply) {
	t.Helper()
	pair, ports := sockets(t)
	r := c.must(t, 200, "SETUP", c.base+"/trackID=0", "Transport: RTP/AVP;unicast;client_port="+portRange(ports))
	c.must(t, 200, "PLAY", c.base)
	return pair, r
}

func portRange(ports [2]uint16) string {
	a := netip.AddrPortFrom(netip.IPv4Unspecified(), ports[0]).String()
	b := netip.AddrPortFrom(netip.IPv4Unspecified(), ports[1]).String()
	return strings.TrimPrefix(a, "0.0.0.0:") + "-" + strings.TrimPrefix(b, "0.0.0.0:")
}

func TestUDPSession(t *testing.T) {
	enc := newFake(t, 30, 5000)
	enc.publish()
	addr := start(t, &Server{Find: only(enc.r)})
	c := dial(t, addr, "main")
	pair, r := playUDP(t, c)
	line := r.header.Get("Transport")
	if !strings.HasPrefix(line, "RTP/AVP;unicast;client_port=") || !strings.Contains(line, ";server_port=") {
		t.Errorf("transport is %q", line)
	}
	report := receiveOne(t, pair.rtcp)
	first := receiveOne(t, pair.rtp)
	_, from, err := pair.rtp.ReadFromUDPAddrPort(make([]byte, 2048))
	if err != nil || !strings.Contains(line, fmt.Sprintf(";server_port=%d-", from.Port())) {
		t.Errorf("packets come from %v, %v; transport is %q", from, err, line)
	}
	if !bytes.Equal(report[4:8], first[8:12]) {
		t.Error("report and packets have different sources")
	}
	c.must(t, 200, "TEARDOWN", c.base)
}

func TestUDPSessionEndsWithoutSignsOfLife(t *testing.T) {
	enc := newFake(t, 30, 500)
	enc.publish()
	audience := &stream.Audience{}
	addr := start(t, &Server{Find: only(enc.r), Audience: audience, limits: limits{session: time.Second}})
	silent, talking := dial(t, addr, "main"), dial(t, addr, "main")
	playUDP(t, silent)
	pair, r := playUDP(t, talking)
	_, port, _ := strings.Cut(r.header.Get("Transport"), "server_port=")
	port, _, _ = strings.Cut(port[strings.Index(port, "-")+1:], ";")
	to, err := net.ResolveUDPAddr("udp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	rr := []byte{0x80, 201, 0, 1, 0, 0, 0, 9}
	if r := receiveOne(t, pair.rtcp); binary.BigEndian.Uint16(r[2:]) != 6 {
		t.Errorf("first RTCP packet is % x", r[:8])
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range 25 {
		if _, err := pair.rtcp.WriteTo(rr, to); err != nil {
			t.Fatal(err)
		}
		<-tick.C
	}
	if n := len(audience.Viewers()); n != 1 {
		t.Errorf("%d viewers, want the one that sends receiver reports", n)
	}
	if err := silent.nc.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := silent.br.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("silent player: %v, want the end", err)
	}
	talking.must(t, 200, "GET_PARAMETER", talking.base)
}

func TestWhoCameBackKeepsItsReports(t *testing.T) {
	pair, _ := sockets(t)
	from := netip.MustParseAddrPort("192.0.2.1:5001")
	var before, after int
	leaveBefore := pair.join([]netip.AddrPort{from}, func([]rtp.ReceiverReport) { before++ })
	leaveAfter := pair.join([]netip.AddrPort{from}, func([]rtp.ReceiverReport) { after++ })
	leaveBefore()
	empty := []byte{0x80, 201, 0, 1, 0, 0, 0, 9}
	pair.report(from, empty)
	if before != 0 || after != 1 {
		t.Errorf("the last session got %d reports, this one %d", before, after)
	}
	leaveAfter()
	if pair.report(from, empty); after != 1 || len(pair.peers) != 0 {
		t.Errorf("%d peers are left", len(pair.peers))
	}
}

func TestUDPPlayerGetsAGoodbye(t *testing.T) {
	enc := newFake(t, 30, 500)
	enc.publish()
	addr := start(t, &Server{Find: only(enc.r)})
	c := dial(t, addr, "main")
	pair, _ := playUDP(t, c)
	enc.r.Close()
	for {
		p := receiveOne(t, pair.rtcp)
		if p[len(p)-7] == 203 {
			return
		}
	}
}

func TestClosedConnectionEndsItsUDPSession(t *testing.T) {
	enc := newFake(t, 30, 500)
	enc.publish()
	audience := &stream.Audience{}
	addr := start(t, &Server{Find: only(enc.r), Audience: audience})
	c := dial(t, addr, "main")
	playUDP(t, c)
	if len(audience.Viewers()) != 1 {
		t.Fatal("nobody watches")
	}
	c.nc.Close()
	until(t, "the audience to be empty", func() bool { return len(audience.Viewers()) == 0 })
}
