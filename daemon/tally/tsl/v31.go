package tsl

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	size31     = 18
	text31     = 16
	header31   = 0x80
	maxAddress = 126
)

// A Display31 is one packet of TSL 3.1: what a display shows from now on.
type Display31 struct {
	Address    int     // 0–126
	Tally      [4]bool // tally 1 to 4
	Brightness int     // 0 (off) to 3 (full)
	Text       string  // up to 16 ASCII characters
}

// ParseDisplay31 reads a packet of 18 bytes. Characters that are not ASCII
// become "?"; trailing blanks are cut off.
func ParseDisplay31(b []byte) (Display31, error) {
	switch {
	case len(b) != size31:
		return Display31{}, fmt.Errorf("a packet of TSL 3.1 has %d bytes, not %d", size31, len(b))
	case b[0] < header31 || b[0]-header31 > maxAddress:
		return Display31{}, errNoPacket
	case b[1] >= header31:
		return Display31{}, errors.New("the control byte has its high bit set")
	}
	d := Display31{Address: int(b[0] - header31), Brightness: int(b[1] >> 4 & 3), Text: ascii(b[2:])}
	for i := range d.Tally {
		d.Tally[i] = b[1]>>i&1 == 1
	}
	return d, nil
}

// Append adds the packet to b, with the text cut or filled to 16 characters.
// The caller keeps Address and Brightness in their ranges.
func (d Display31) Append(b []byte) []byte {
	control := byte(d.Brightness&3) << 4
	for i, on := range d.Tally {
		if on {
			control |= 1 << i
		}
	}
	b = append(b, header31+byte(d.Address), control)
	text := []byte(fmt.Sprintf("%-*s", text31, d.Text))[:text31]
	return append(b, ascii31(text)...)
}

// ascii31 replaces in place what is no character of the protocol.
func ascii31(text []byte) []byte {
	for i, c := range text {
		if c < ' ' || c > '~' {
			text[i] = '?'
		}
	}
	return text
}

// ascii is the text in b, which may be padded with blanks or zeros.
func ascii(b []byte) string {
	text, _, _ := strings.Cut(string(b), "\x00")
	return strings.TrimRight(string(ascii31([]byte(text))), " ")
}

// A Channel is what a source of TSL 3.1 follows: which of the four tallies of
// an address mean preview and program, from 1; 0 is none.
type Channel struct {
	Address                int
	PreviewBit, ProgramBit int
}

// ParseChannel reads an address as config spells it.
func ParseChannel(input string, previewBit, programBit int) (Channel, error) {
	n, err := strconv.Atoi(input)
	if err != nil || n < 0 || n > maxAddress {
		return Channel{}, fmt.Errorf("%q is not an address of TSL 3.1, 0 to %d", input, maxAddress)
	}
	return Channel{Address: n, PreviewBit: previewBit, ProgramBit: programBit}, nil
}

// state is what a display says of the channel.
func (c Channel) state(d Display31) string {
	on := func(bit int) bool { return bit >= 1 && bit <= len(d.Tally) && d.Tally[bit-1] }
	return state(on(c.ProgramBit), on(c.PreviewBit))
}

// V31 is TSL UMD 3.1: 18 bytes for each display; a serial line has 38400 bit/s,
// 8 bits, even parity, 1 stop bit. Sources maps their names to what they
// follow.
type V31 struct{ Sources map[string]Channel }

func (v V31) told(d Display31, says func(source, state string)) {
	for name, c := range v.Sources {
		if c.Address == d.Address {
			says(name, c.state(d))
		}
	}
}

// datagram implements [Dialect]: some senders put several packets into one.
func (v V31) datagram(b []byte, says func(source, state string)) error {
	if len(b) == 0 || len(b)%size31 != 0 {
		return fmt.Errorf("a packet of TSL 3.1 has %d bytes, not %d", size31, len(b))
	}
	displays := make([]Display31, 0, len(b)/size31)
	for ; len(b) > 0; b = b[size31:] {
		d, err := ParseDisplay31(b[:size31])
		if err != nil {
			return err
		}
		displays = append(displays, d)
	}
	for _, d := range displays {
		v.told(d, says)
	}
	return nil
}

// splitter implements [Dialect].
func (v V31) splitter(says func(source, state string)) splitter {
	return &splitter31{told: func(d Display31) { v.told(d, says) }}
}

// splitter31 finds packets by their first byte, the only one of them with its
// high bit set: after garbage or a lost byte the next packet is whole again.
type splitter31 struct {
	told   func(Display31)
	packet [size31]byte
	n      int
	lost   bool // garbage since the last packet, told already
}

func (s *splitter31) feed(b []byte) (packets int, dropped error) {
	for _, c := range b {
		err := s.take(c)
		if s.n == size31 {
			s.n = 0
			d, _ := ParseDisplay31(s.packet[:])
			s.told(d)
			packets++
		}
		if err != nil {
			dropped = err
		}
	}
	return packets, dropped
}

// take adds one byte to the packet, and says why it dropped any.
func (s *splitter31) take(c byte) error {
	var err error
	if c >= header31 {
		if s.n > 0 {
			err = fmt.Errorf("a packet ends after %d of %d bytes", s.n, size31)
		}
		s.n = 0
	}
	begins := c >= header31 && c-header31 <= maxAddress
	if s.n == 0 && !begins {
		if !s.lost {
			err = errNoPacket
		}
		s.lost = true
		return err
	}
	s.lost = false
	s.packet[s.n] = c
	s.n++
	return err
}
