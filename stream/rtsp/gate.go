package rtsp

import (
	"net"
	"net/netip"
	"sync"
)

// A gate counts connections, in all and per address.
type gate struct {
	total, each int

	mu   sync.Mutex
	in   int
	from map[string]int
}

// enter lets a connection in unless that would exceed a limit. leave must be
// called once.
func (g *gate) enter(addr net.Addr) (leave func(), ok bool) {
	key := origin(addr)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.in >= g.total || g.from[key] >= g.each {
		return nil, false
	}
	if g.from == nil {
		g.from = make(map[string]int)
	}
	g.in++
	g.from[key]++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.in--
		if g.from[key]--; g.from[key] == 0 {
			delete(g.from, key)
		}
	}, true
}

// origin names the household behind an address: an IPv4 address, or the /64
// of an IPv6 address, since one host owns all of it.
func origin(addr net.Addr) string {
	ip := hostOf(addr)
	if !ip.IsValid() {
		return addr.String()
	}
	if ip.Is4() {
		return ip.String()
	}
	return netip.PrefixFrom(ip.WithZone(""), 64).Masked().String()
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
