package rtsp

import (
	"bytes"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/stream"
	"encoderd.example/stream/h264"
	"encoderd.example/stream/rtp"
	"encoderd.example/stream/streamtest/peer"
)

// here is our address on a line to nobody.
var here = netip.MustParseAddr("198.18.0.1")

// alone puts the test on a machine of its own as far as the network can tell,
// with a line at whose other end no host answers. It needs [peer.Root], and ip
// of iproute2.
func alone(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // for good: the thread, which is elsewhere, ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	ip(t, "link", "set", "lo", "up")
	ip(t, "link", "add", "near", "type", "veth", "peer", "name", "far")
	ip(t, "address", "add", here.String()+"/24", "dev", "near")
	ip(t, "link", "set", "near", "up")
	ip(t, "link", "set", "far", "up")
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	peer.Output(t, "ip", args...)
}

// everywhere opens a pair on all addresses.
func everywhere(t *testing.T) *udpPair {
	t.Helper()
	pair, err := listenUDP(t.Context(), &net.TCPAddr{IP: net.IPv6zero}, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pair.close)
	return pair
}

// sends returns a sender of one session, in no hurry.
func sends(t *testing.T, pair *udpPair, to, from netip.Addr, ports [2]uint16) *udpSender {
	t.Helper()
	s := newUDPSender(pair, rtp.Set(0).With(rtp.Video), to, from, [2][2]uint16{ports}, 0)
	leave, err := s.part(t.Context(), to, from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(leave)
	s.pace.rate = 1_000_000_000
	return s
}

func batchOf(t *testing.T, size int) *rtp.Batch {
	t.Helper()
	video, _ := fakeTracks(t)
	p, err := rtp.NewPacketizer(0, video)
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.Batch(&stream.Unit{Track: video, Key: true, Data: h264.AppendNAL(nil, bytes.Repeat([]byte{0x65}, size))})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// push sends a batch, or what goes at once.
func push(t *testing.T, s *udpSender, b *rtp.Batch) (out bool) {
	t.Helper()
	if _, err := s.Take(b, nil); err != nil {
		t.Fatal(err)
	}
	out, err := s.Push()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestHostsThatAreGoneTakeNobodysRoom(t *testing.T) {
	if !peer.Root(t) {
		return
	}
	alone(t)
	pair, player := everywhere(t), everywhere(t)
	ports := [2]uint16{localPort(player.rtp), localPort(player.rtcp)}
	b := batchOf(t, 40_000)
	for _, gone := range []string{"198.18.0.2", "198.18.0.3", "198.18.0.4"} {
		s := sends(t, pair, netip.MustParseAddr(gone), here, ports)
		for range 20 {
			push(t, s, b)
		}
	}
	for _, there := range []string{"127.0.0.1", "::1"} {
		addr := netip.MustParseAddr(there)
		s := sends(t, pair, addr, addr, ports)
		if !push(t, s, b) {
			t.Errorf("%s: no room for a player that is there", there)
		}
		for ch, want := range b.Packets(s.want) {
			from := player.rtp
			if ch%2 == 1 {
				from = player.rtcp
			}
			if got := receiveOne(t, from); !bytes.Equal(got, want) {
				t.Fatalf("%s: got %d bytes, want %d", there, len(got), len(want))
			}
		}
	}
}

func TestAMomentWithoutARouteIsLoss(t *testing.T) {
	if !peer.Root(t) {
		return
	}
	alone(t)
	pair, player := everywhere(t), everywhere(t)
	ports := [2]uint16{localPort(player.rtp), localPort(player.rtcp)}
	b := batchOf(t, 4000)
	s := sends(t, pair, netip.MustParseAddr("198.19.0.1"), here, ports)
	if !push(t, s, b) { // ENETUNREACH
		t.Error("without a route, packets wait")
	}
	ip(t, "route", "add", "unreachable", "198.19.0.0/24")
	if !push(t, s, b) { // EHOSTUNREACH
		t.Error("with a route to nowhere, packets wait")
	}
	ip(t, "address", "add", "198.19.0.1/32", "dev", "lo")
	if !push(t, s, b) {
		t.Error("packets wait")
	}
	for ch, want := range b.Packets(s.want) {
		if ch%2 == 1 {
			continue
		}
		if got := receiveOne(t, player.rtp); !bytes.Equal(got, want) {
			t.Fatalf("got %d bytes, want %d", len(got), len(want))
		}
	}
}

// A lease that runs out and is given anew ends no session.
func TestAnAddressOfOursThatVanishesAndComesBackIsLoss(t *testing.T) {
	if !peer.Root(t) {
		return
	}
	alone(t)
	pair, player := everywhere(t), everywhere(t)
	ports := [2]uint16{localPort(player.rtp), localPort(player.rtcp)}
	for _, to := range []string{"127.0.0.1", "::1"} {
		ours, more := "198.18.7.1/32", []string{}
		if to == "::1" {
			ours, more = "fd00::7/128", []string{"nodad"} // it is to be had at once
		}
		addr := netip.MustParsePrefix(ours).Addr()
		come := func() { ip(t, append([]string{"address", "add", ours, "dev", "lo"}, more...)...) }
		come()
		for name, size := range map[string]int{"a packet": 500, "many": 40_000} {
			b := batchOf(t, size)
			s := sends(t, pair, netip.MustParseAddr(to), addr, ports)
			s.pace.rate = 1 << 50 // and does not matter
			arrives := func() {
				t.Helper()
				if !push(t, s, b) || !s.gso {
					t.Errorf("%v, %s: packets wait, or go one by one", addr, name)
				}
				for ch, want := range b.Packets(s.want) {
					from := player.rtp
					if ch%2 == 1 {
						from = player.rtcp
					}
					if got := receiveOne(t, from); !bytes.Equal(got, want) {
						t.Fatalf("%v, %s: got %d bytes, want %d", addr, name, len(got), len(want))
					}
				}
			}
			arrives()
			ip(t, "address", "del", ours, "dev", "lo")
			for range 3 {
				if !push(t, s, b) {
					t.Errorf("%v, %s: packets wait for the address", addr, name)
				}
			}
			come()
			arrives()
		}
	}
}

func TestTheWaitForRoomCountsAsNoBytes(t *testing.T) {
	if !peer.Root(t) {
		return
	}
	alone(t)
	pair := everywhere(t)
	s := sends(t, pair, netip.MustParseAddr("198.18.0.2"), here, [2]uint16{5000, 5001})
	if err := control(s.out, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1) }); err != nil {
		t.Fatal(err)
	}
	s.gso = false // many messages, of which some go
	if _, err := s.Take(batchOf(t, 50_000), nil); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if wait, err := s.push(now); wait != socketFull || err != nil {
		t.Fatalf("a full socket: %v, %v", wait, err)
	}
	for range 10 {
		if _, err := s.push(now); err != nil {
			t.Fatal(err)
		}
	}
	sent := 0
	for _, m := range append(s.ctl[:s.gone[0]:s.gone[0]], s.media[:s.gone[1]]...) {
		sent += m.size()
	}
	if booked := s.pace.free.Sub(now); booked != s.pace.time(int64(sent)) {
		t.Errorf("%d bytes have gone, time is booked for %v", sent, booked)
	}
}
