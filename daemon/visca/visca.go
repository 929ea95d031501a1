// Package visca speaks VISCA with one camera on a serial line: pan, tilt, zoom
// and presets, and the camera's own tally lamp.
//
// A packet is a byte 0x80 + address, up to 14 bytes, and 0xFF. The camera
// answers with an acknowledgement, later with a completion, or with an error
// (Sony, EVI-H100 technical manual, "VISCA/RS-232C commands"). Lamps are no
// part of the standard: see [Models].
package visca

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

const (
	start      = 0x80 // of a packet of ours; an answer has the camera's address in the high bits
	end        = 0xFF
	maxPacket  = 16 // with both
	maxPreset  = 127
	maxPan     = 0x18
	maxTilt    = 0x17 // 0x14 on older cameras, which take the nearest
	maxZoom    = 7
	minAddress = 1
	maxAddress = 7
)

// A Command is what stands between address and end of a packet.
type Command []byte

// ErrRange says that a command has a number that no camera knows.
var ErrRange = errors.New("out of range")

// Recall moves the camera to a preset, from 0 to 127.
func Recall(preset int) (Command, error) { return memory(2, preset) }

// Store makes a preset, from 0 to 127, of where the camera looks now.
func Store(preset int) (Command, error) { return memory(1, preset) }

func memory(do byte, preset int) (Command, error) {
	if preset < 0 || preset > maxPreset {
		return nil, fmt.Errorf("preset %d: %w, from 0 to %d", preset, ErrRange, maxPreset)
	}
	return Command{0x01, 0x04, 0x3F, do, byte(preset)}, nil
}

// Home moves the camera to its middle.
func Home() Command { return Command{0x01, 0x06, 0x04} }

// Move pans and tilts at a speed from -1 to 1, right and up; 0 and 0 stops.
func Move(pan, tilt float64) (Command, error) {
	if !unit(pan) || !unit(tilt) {
		return nil, fmt.Errorf("pan and tilt: %w, from -1 to 1", ErrRange)
	}
	p, pd := speed(pan, maxPan, 1, 2)
	t, td := speed(tilt, maxTilt, 2, 1)
	return Command{0x01, 0x06, 0x01, p, t, pd, td}, nil
}

// Zoom zooms in, above zero, or out at a speed from -1 to 1; 0 stops.
func Zoom(v float64) (Command, error) {
	switch {
	case !unit(v):
		return nil, fmt.Errorf("zoom: %w, from -1 to 1", ErrRange)
	case v == 0:
		return Command{0x01, 0x04, 0x07, 0x00}, nil
	case v > 0:
		return Command{0x01, 0x04, 0x07, 0x20 | byte(v*maxZoom)}, nil
	default:
		return Command{0x01, 0x04, 0x07, 0x30 | byte(-v*maxZoom)}, nil
	}
}

func unit(v float64) bool { return v >= -1 && v <= 1 } // false for NaN

// speed returns the speed and the direction of one axis; 3 stands still.
func speed(v float64, most, below, above byte) (speed, direction byte) {
	switch {
	case v < 0:
		return max(1, byte(-v*float64(most))), below
	case v > 0:
		return max(1, byte(v*float64(most))), above
	default:
		return 1, 3
	}
}

// A Lamp is how a model lights its tally lamp; a nil command is one that it
// does not have.
type Lamp struct {
	Program, Preview, Off Command
}

// Models are the cameras whose lamps are known.
var Models = map[string]Lamp{
	// Sony SRG and BRC: the lamp is red or off.
	"sony": {Program: Command{0x01, 0x7E, 0x01, 0x0A, 0x00, 0x02}, Off: Command{0x01, 0x7E, 0x01, 0x0A, 0x00, 0x03}},
	// Avonic CM70, p. 69.
	"avonic": {
		Program: Command{0x01, 0x7E, 0x01, 0x0A, 0x00, 0x02, 0x03},
		Preview: Command{0x01, 0x7E, 0x01, 0x0A, 0x00, 0x03, 0x02},
		Off:     Command{0x01, 0x7E, 0x01, 0x0A, 0x00, 0x03, 0x03},
	},
}

// ModelNames lists [Models] in order.
func ModelNames() []string { return slices.Sorted(maps.Keys(Models)) }

// packet puts a command on its way to the camera of that address.
func packet(address int, c Command) []byte {
	p := make([]byte, 0, maxPacket)
	p = append(p, start|byte(address))
	p = append(p, c...)
	return append(p, end)
}

// A replyKind is what an answer of the camera means.
type replyKind int

const (
	acknowledged replyKind = iota + 1
	completed
	refused
)

// A reply is an answer of the camera.
type reply struct {
	from int // 1–7
	kind replyKind
	code byte // of an error
}

// errBusy says that the camera refuses now what it may take in a moment.
var errBusy = fmt.Errorf("%w: the camera has too much to do", ErrRefused)

// busy is its code.
const busy = 0x03

// refusals are the other errors that cameras know.
var refusals = map[byte]string{
	0x01: "the message has a wrong length",
	0x02: "the camera does not know this command",
	0x04: "the command was cancelled",
	0x05: "nothing to cancel",
	0x41: "the camera cannot do this now",
}

func (r reply) err() error {
	if r.kind != refused {
		return nil
	}
	if r.code == busy {
		return errBusy
	}
	if text, ok := refusals[r.code]; ok {
		return fmt.Errorf("%w: %s", ErrRefused, text)
	}
	return fmt.Errorf("%w with code 0x%02X", ErrRefused, r.code)
}

// A splitter finds packets in what comes from a line.
type splitter struct {
	have []byte
	skip bool // until the next end: too much has come without one
}

// next takes one byte and returns the reply that it ends, if it ends one.
func (s *splitter) next(b byte) (r reply, ok bool) {
	if b != end {
		if len(s.have) == maxPacket {
			s.have, s.skip = s.have[:0], true
		}
		s.have = append(s.have, b)
		return reply{}, false
	}
	p, broken := s.have, s.skip
	s.have, s.skip = s.have[:0], false
	if broken {
		return reply{}, false
	}
	return parse(p)
}

// parse reads a packet without its end.
func parse(p []byte) (r reply, ok bool) {
	if len(p) < 2 || p[0]&0x8F != start || p[0] == start {
		return reply{}, false
	}
	r.from = int(p[0]>>4) - 8
	switch p[1] & 0xF0 {
	case 0x40:
		r.kind = acknowledged
	case 0x50:
		r.kind = completed
	case 0x60:
		if len(p) < 3 {
			return reply{}, false
		}
		r.kind, r.code = refused, p[2]
	default:
		return reply{}, false
	}
	return r, true
}
