package tsl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
)

const (
	max5     = 2048 // bytes of a packet
	head5    = 6    // PBC, VER, FLAGS, SCREEN
	display5 = 6    // INDEX, CONTROL, LENGTH

	flagUnicode = 1 << 0
	flagControl = 1 << 1
	controlData = 1 << 15 // of a display: no tally and no text, but what 5.0 does not define

	// Broadcast is the screen and the index that mean all of them.
	Broadcast = 0xffff

	dle = 0xfe
	stx = 0x02
)

// A Lamp5 is one tally lamp of TSL 5.0, red, green, or both, which is amber.
type Lamp5 uint8

// The lamps.
const (
	LampRed   Lamp5 = 1
	LampGreen Lamp5 = 2
)

// A Display5 is one display message of TSL 5.0.
type Display5 struct {
	Index      int // 0–65534, or Broadcast
	Right      Lamp5
	Text       Lamp5
	Left       Lamp5
	Brightness int // 0–3
	Words      string
}

// state is the sum of all lamps: some switchers use only one of them.
func (d Display5) state() string {
	sum := d.Right | d.Text | d.Left
	return state(sum&LampRed != 0, sum&LampGreen != 0)
}

// A Packet5 is one packet of TSL 5.0.
type Packet5 struct {
	Screen   int // 0–65534, or Broadcast
	Displays []Display5
}

// ParsePacket5 reads a packet without its wrapper. Screen control messages have
// no displays. An error means that nothing of it counts.
func ParsePacket5(b []byte) (Packet5, error) {
	switch {
	case len(b) < head5:
		return Packet5{}, fmt.Errorf("a packet of TSL 5 has %d bytes at least, not %d", head5, len(b))
	case len(b) > max5:
		return Packet5{}, errTooLong
	}
	if count := int(binary.LittleEndian.Uint16(b)); count != len(b)-2 {
		return Packet5{}, fmt.Errorf("the packet counts %d bytes and has %d", count, len(b)-2)
	}
	if b[2] != 0 {
		return Packet5{}, fmt.Errorf("version 5.%d is not known", b[2])
	}
	p := Packet5{Screen: int(binary.LittleEndian.Uint16(b[4:]))}
	if b[3]&flagControl != 0 {
		return p, nil
	}
	var err error
	p.Displays, err = parseDisplays(b[head5:], b[3]&flagUnicode != 0)
	return p, err
}

var errTooLong = fmt.Errorf("a packet of TSL 5 has %d bytes at most", max5)

func parseDisplays(b []byte, unicode bool) (all []Display5, err error) {
	for len(b) > 0 {
		if len(b) < 4 {
			return nil, errors.New("a display message is cut short")
		}
		control := binary.LittleEndian.Uint16(b[2:])
		if control&controlData != 0 {
			return all, nil // nobody knows how long it is
		}
		if len(b) < display5 {
			return nil, errors.New("a display message is cut short")
		}
		length := int(binary.LittleEndian.Uint16(b[4:]))
		if length > len(b)-display5 {
			return nil, fmt.Errorf("a text counts %d bytes and has %d", length, len(b)-display5)
		}
		all = append(all, Display5{
			Index:      int(binary.LittleEndian.Uint16(b)),
			Right:      Lamp5(control & 3),
			Text:       Lamp5(control >> 2 & 3),
			Left:       Lamp5(control >> 4 & 3),
			Brightness: int(control >> 6 & 3),
			Words:      words(b[display5:display5+length], unicode),
		})
		b = b[display5+length:]
	}
	return all, nil
}

// words reads a text, of UTF-16LE or ASCII.
func words(b []byte, unicode bool) string {
	if !unicode {
		return ascii(b)
	}
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	text, _, _ := strings.Cut(string(utf16.Decode(units)), "\x00")
	return strings.TrimRight(text, " ")
}

// AnyScreen is the Screen of a [Place] that is the same on all of them.
const AnyScreen = -1

// A Place is the display that a source of TSL 5.0 follows.
type Place struct {
	Screen int // 0–65534, or AnyScreen
	Index  int // 0–65534
}

// ParsePlace reads a place as config spells it: INDEX, or SCREEN:INDEX.
func ParsePlace(input string) (Place, error) {
	screen, index, both := strings.Cut(input, ":")
	p := Place{Screen: AnyScreen}
	if both {
		n, err := strconv.ParseUint(screen, 10, 16)
		if err != nil || n == Broadcast {
			return Place{}, fmt.Errorf("%q is not a screen of TSL 5, 0 to 65534", screen)
		}
		p.Screen = int(n)
	} else {
		index = screen
	}
	n, err := strconv.ParseUint(index, 10, 16)
	if err != nil || n == Broadcast {
		return Place{}, fmt.Errorf("%q is not an index of TSL 5, 0 to 65534", index)
	}
	p.Index = int(n)
	return p, nil
}

func (p Place) covers(screen, index int) bool {
	return (p.Screen == AnyScreen || screen == p.Screen || screen == Broadcast) &&
		(index == p.Index || index == Broadcast)
}

// V5 is TSL UMD 5.0: packets of up to 2048 bytes with any number of displays;
// in a stream each is wrapped in DLE and STX. Sources maps their names to what
// they follow.
type V5 struct{ Sources map[string]Place }

func (v V5) told(p Packet5, says func(source, state string)) {
	for _, d := range p.Displays {
		for name, place := range v.Sources {
			if place.covers(p.Screen, d.Index) {
				says(name, d.state())
			}
		}
	}
}

// datagram implements [Dialect]. Some senders wrap datagrams like a stream.
func (v V5) datagram(b []byte, says func(source, state string)) error {
	p, err := ParsePacket5(b)
	if err != nil && len(b) > 2 && b[0] == dle && b[1] == stx {
		return v.wrapped(b, says)
	}
	if err != nil {
		return err
	}
	v.told(p, says)
	return nil
}

// wrapped reads a datagram that is a piece of a stream. An error comes from
// the last packet of it that is bad.
func (v V5) wrapped(b []byte, says func(source, state string)) error {
	packets, dropped := v.splitter(says).feed(b)
	if packets == 0 && dropped == nil {
		return errors.New("the packet is cut short")
	}
	return dropped
}

// splitter implements [Dialect].
func (v V5) splitter(says func(source, state string)) splitter {
	return &splitter5{told: func(p Packet5) { v.told(p, says) }}
}

// splitter5 finds packets between DLE STX, which never stands inside of one: a
// DLE there is doubled.
//
//	outside ──DLE──► mark ──STX──► inside ──count full──► outside
//	                              inside ──DLE──► mark: DLE = a byte, STX = a new packet
type splitter5 struct {
	told   func(Packet5)
	packet []byte
	inside bool
	mark   bool // the last byte was a DLE that is not answered yet
	lost   bool // garbage since the last packet, told already
}

func (s *splitter5) feed(b []byte) (packets int, dropped error) {
	for _, c := range b {
		whole, err := s.take(c)
		if whole {
			packets++
		}
		if err != nil {
			dropped = err
		}
	}
	return packets, dropped
}

// take reads one byte. It reports whether a packet is whole now, and why it
// dropped one.
func (s *splitter5) take(c byte) (whole bool, err error) {
	switch {
	case s.mark && c == stx:
		s.mark = false
		return false, s.begin()
	case s.mark && (c != dle || !s.inside):
		s.mark = c == dle // it may be the first of a pair
		return false, s.drop(errors.New("a DLE stands alone"))
	case !s.mark && c == dle:
		s.mark = true
		return false, nil
	case !s.inside:
		return false, s.drop(errNoPacket)
	}
	s.mark = false
	s.packet = append(s.packet, c)
	return s.full()
}

// begin starts a packet, and says why the one before it is dropped.
func (s *splitter5) begin() (err error) {
	if s.inside {
		err = fmt.Errorf("a packet ends after %d bytes", len(s.packet))
	}
	s.inside, s.lost, s.packet = true, false, s.packet[:0]
	return err
}

// drop leaves the packet, and tells of garbage once.
func (s *splitter5) drop(why error) error {
	told := s.lost && !s.inside
	s.inside, s.lost = false, true
	if told {
		return nil
	}
	return why
}

// full reports whether the packet has all the bytes that it counts.
func (s *splitter5) full() (bool, error) {
	if len(s.packet) < 2 {
		return false, nil
	}
	size := 2 + int(binary.LittleEndian.Uint16(s.packet))
	if size > max5 {
		return false, s.drop(errTooLong)
	}
	if len(s.packet) < max(size, head5) {
		return false, nil
	}
	p, err := ParsePacket5(s.packet)
	s.inside = false
	if err != nil {
		s.lost = true
		return false, err
	}
	s.told(p)
	return true, nil
}
