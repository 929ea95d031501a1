// Package tsl speaks the TSL UMD protocols, by which switchers light the
// displays under monitors: 3.1 by serial line, UDP and TCP, in and out, and
// 5.0 by UDP and TCP, in.
//
//	bytes ─► splitter: packets, resynchronised ─┐
//	                                            ├─► Dialect: which source is what ─► tally.Desk
//	datagram ───────────────────────────────────┘
//
// The protocols know no greeting, no password and no answer. [Packets] and
// [Listener] believe everybody who can reach their port, as any display does;
// the tally says who spoke last, and what one sender said is not kept fresh by
// another. Let only the network of the switcher reach the port.
package tsl

import (
	"errors"

	"encoderd.example/daemon/status"
)

// A Dialect is one version of the protocol, with the sources to follow: [V31]
// or [V5].
type Dialect interface {
	// datagram reads what came in one piece.
	datagram(b []byte, says func(source, state string)) error
	// splitter reads a stream of bytes from now on.
	splitter(says func(source, state string)) splitter
}

// A splitter finds the packets in a stream of bytes.
type splitter interface {
	// feed takes the bytes that came next. It counts the packets that are whole
	// now, and says why it had to drop something, if it had.
	feed(b []byte) (packets int, dropped error)
}

var errNoPacket = errors.New("no packet begins here")

// state is what two lamps mean together.
func state(program, preview bool) string {
	switch {
	case program:
		return status.Program
	case preview:
		return status.Preview
	default:
		return status.Off
	}
}
