package rtsp

import (
	"net/netip"
	"strconv"
	"strings"
)

// A transport is one choice that a player offers for a medium (RFC 2326,
// 12.39), as far as it is served here.
type transport struct {
	delivery delivery
	secure   bool      // SRTP
	ports    [2]uint16 // the player's for RTP and RTCP, of udp
}

// A delivery is a way for packets to reach a player.
type delivery uint8

const (
	interleaved delivery = iota // with the responses, on their connection
	udp                         // to the player
	multicast                   // to a group that the player joins
)

// protocol names a delivery in the list of viewers.
func (d delivery) protocol() string {
	return [...]string{interleaved: "rtsp/tcp", udp: "rtsp/udp", multicast: "rtsp/multicast"}[d]
}

const maxTransports = 8 // choices looked at in one header

// chooseTransport returns the first choice in a Transport header that can be
// served by one of the ways that may be used. Recording and
// other destinations than the peer itself are passed over: packets never go to
// an address that did not ask for them.
func chooseTransport(header string, may func(transport) bool, peer netip.Addr) (transport, bool) {
	for i, choice := range strings.Split(header, ",") {
		if i == maxTransports {
			break
		}
		if t, ok := parseTransport(choice, peer); ok && may(t) {
			return t, true
		}
	}
	return transport{}, false
}

func parseTransport(choice string, peer netip.Addr) (transport, bool) {
	profile, params, _ := strings.Cut(strings.TrimSpace(choice), ";")
	t, ok := profiles[strings.ToUpper(profile)]
	if !ok {
		return transport{}, false
	}
	unicast, group := t.delivery == interleaved, false
	for param := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(param), "=")
		ok := true
		switch strings.ToLower(name) {
		case "unicast":
			unicast = true
		case "client_port":
			unicast = true // players that forget to say it send this
			t.ports, ok = parsePorts(value)
		case "multicast":
			group = true
		case "destination":
			to, err := netip.ParseAddr(value)
			ok = err == nil && to.Unmap() == peer.WithZone("")
		case "mode":
			ok = strings.EqualFold(strings.Trim(value, `"`), "PLAY")
		}
		if !ok {
			return transport{}, false
		}
	}
	switch {
	case t.delivery == interleaved:
		return t, !group && t.ports[0] == 0
	case group || !unicast: // the default of RFC 2326, 12.39
		return transport{delivery: multicast, secure: t.secure}, true
	default:
		return t, t.ports[0] != 0
	}
}

// profiles are what a choice may begin with.
var profiles = map[string]transport{
	"RTP/AVP/TCP":  {delivery: interleaved},
	"RTP/SAVP/TCP": {delivery: interleaved, secure: true},
	"RTP/AVP":      {delivery: udp},
	"RTP/AVP/UDP":  {delivery: udp},
	"RTP/SAVP":     {delivery: udp, secure: true},
	"RTP/SAVP/UDP": {delivery: udp, secure: true},
}

// parsePorts reads "5000-5001" or "5000", which stands for both.
func parsePorts(s string) (ports [2]uint16, ok bool) {
	first, second, pair := strings.Cut(s, "-")
	a, err := strconv.ParseUint(first, 10, 16)
	if err != nil || a == 0 || a == 0xffff {
		return ports, false
	}
	b := a + 1
	if pair {
		b, err = strconv.ParseUint(second, 10, 16)
	}
	return [2]uint16{uint16(a), uint16(b)}, err == nil && b != 0
}
