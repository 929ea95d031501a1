package rtsp

import (
	"net/netip"
	"strconv"
	"strings"
)

// A transport is one choice that a player offers for a medium (RFC 2326,
// 12.39), as far as it is served here.
type transport struct {
	udp   bool
	ports [2]uint16 // the player's for RTP and RTCP, of UDP
}

const maxTransports = 8 // choices looked at in one header

// chooseTransport returns the first choice in a Transport header that can be
// served: TCP interleaved, or, if udp, UDP unicast back to peer. Multicast,
// secured profiles, recording and other destinations than the peer itself are
// passed over: packets never go to an address that did not ask for them.
func chooseTransport(header string, udp bool, peer netip.Addr) (transport, bool) {
	for i, choice := range strings.Split(header, ",") {
		if i == maxTransports {
			break
		}
		if t, ok := parseTransport(choice, peer); ok && (!t.udp || udp) {
			return t, true
		}
	}
	return transport{}, false
}

func parseTransport(choice string, peer netip.Addr) (transport, bool) {
	profile, params, _ := strings.Cut(strings.TrimSpace(choice), ";")
	var t transport
	switch strings.ToUpper(profile) {
	case "RTP/AVP/TCP":
	case "RTP/AVP", "RTP/AVP/UDP":
		t.udp = true
	default:
		return transport{}, false
	}
	multicast := t.udp // the default of RFC 2326, 12.39, were it not for:
	for param := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(param), "=")
		switch strings.ToLower(name) {
		case "unicast", "client_port": // players that forget the one send the other
			multicast = false
			if value == "" {
				break
			}
			ports, ok := parsePorts(value)
			if !ok {
				return transport{}, false
			}
			t.ports = ports
		case "multicast":
			return transport{}, false
		case "destination":
			if to, err := netip.ParseAddr(value); err != nil || to.Unmap() != peer.WithZone("") {
				return transport{}, false
			}
		case "mode":
			if !strings.EqualFold(strings.Trim(value, `"`), "PLAY") {
				return transport{}, false
			}
		}
	}
	return t, !multicast && t.udp == (t.ports[0] != 0)
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
