package ts

import (
	"encoding/binary"
	"time"

	"encoderd.example/stream"
)

// A writer appends packets. What packets carry comes from pieces, which it
// uses up.
type writer struct {
	buf    []byte
	pieces [][]byte
}

// header appends the four bytes of 13818-1, 2.4.3.2. has is what follows them:
// 1 payload, 2 an adaptation field, 3 both.
func (w *writer) header(pid uint16, counter byte, start bool, has byte) {
	b := byte(pid >> 8)
	if start {
		b |= 0x40 // payload_unit_start_indicator
	}
	w.buf = append(w.buf, syncByte, b, byte(pid), has<<4|counter&0xf)
}

// packet appends one packet with as much of the size bytes left in pieces as
// it has room for, and returns how much that is. The last is filled up by the
// adaptation field.
func (w *writer) packet(pid uint16, counter byte, start bool, a adaptation, size int) int {
	field := a.size()
	took := min(size, room-field)
	field = room - took
	if field == 0 {
		w.header(pid, counter, start, 1)
	} else {
		w.header(pid, counter, start, 3)
		w.buf = a.append(w.buf, field)
	}
	w.take(took)
	return took
}

// adaptation appends a packet without payload, which does not count.
func (w *writer) adaptation(pid uint16, counter byte, a adaptation) {
	w.header(pid, counter, false, 2)
	w.buf = a.append(w.buf, room)
}

// table appends a packet with one section, which must fit.
func (w *writer) table(pid uint16, counter byte, section []byte) {
	w.header(pid, counter, true, 1)
	w.buf = append(w.buf, 0) // pointer_field
	w.buf = append(w.buf, section...)
	w.fill(room - 1 - len(section))
}

func (w *writer) fill(n int) { w.buf = appendStuffing(w.buf, n) }

func (w *writer) take(n int) {
	for n > 0 {
		p := w.pieces[0]
		k := min(n, len(p))
		w.buf = append(w.buf, p[:k]...)
		n -= k
		if w.pieces[0] = p[k:]; k == len(p) {
			w.pieces = w.pieces[1:]
		}
	}
}

// An adaptation is what an adaptation field says (2.4.3.4).
type adaptation struct {
	key      bool // random_access_indicator
	hasClock bool
	clock    time.Duration
}

const (
	flagsSize = 2 // with the length
	clockSize = 6
)

// size is the least length of the field, zero if it says nothing.
func (a adaptation) size() int {
	switch {
	case a.hasClock:
		return flagsSize + clockSize
	case a.key:
		return flagsSize
	default:
		return 0
	}
}

// append appends the field with stuffing, size bytes in all.
func (a adaptation) append(b []byte, size int) []byte {
	b = append(b, byte(size-1))
	if size == 1 {
		return b
	}
	end := len(b) + size - 1
	flags := byte(0)
	if a.key {
		flags |= 0x40
	}
	if a.hasClock {
		flags |= 0x10
	}
	b = append(b, flags)
	if a.hasClock {
		b = appendClock(b, a.clock)
	}
	return appendStuffing(b, end-len(b))
}

func appendStuffing(b []byte, n int) []byte {
	for range n {
		b = append(b, 0xff)
	}
	return b
}

// appendClock appends a program clock reference: 33 bits at 90 kHz, then 9 bits
// of 1/300 of that.
func appendClock(b []byte, at time.Duration) []byte {
	fine := scale(at, 27_000_000)
	base, ext := uint64(fine/300)&(1<<33-1), uint64(fine%300)
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint32(b, uint32(base>>1)),
		uint16(base&1)<<15|0x3f<<9|uint16(ext))
}

// scale converts from the absolute value, so that rounding does not add up.
func scale(at time.Duration, hz int64) int64 {
	whole, part := int64(at/time.Second), int64(at%time.Second)
	return whole*hz + (part*hz+int64(time.Second)/2)/int64(time.Second)
}

// appendPES appends the header of a packetised elementary stream's packet
// (2.4.3.6) for a payload of size bytes. A length lets receivers use the unit
// without waiting for the next; one that is too long for the field goes
// without, which is for pictures only.
func appendPES(b []byte, id byte, u *stream.Unit, size int) []byte {
	const (
		optional  = 3
		stampSize = 5
		aligned   = 0x84 // '10', data_alignment_indicator
		onlyPTS   = 0x80
		both      = 0xc0
	)
	flags, stamps := byte(onlyPTS), stampSize
	if u.PTS != u.DTS {
		flags, stamps = both, 2*stampSize
	}
	length := optional + stamps + size
	if length > 0xffff {
		length = 0
	}
	b = append(b, 0, 0, 1, id, byte(length>>8), byte(length), aligned, flags, byte(stamps))
	if flags == onlyPTS {
		return appendStamp(b, 2, u.PTS)
	}
	return appendStamp(appendStamp(b, 3, u.PTS), 1, u.DTS)
}

// appendStamp appends 33 bits at 90 kHz with markers in between.
func appendStamp(b []byte, prefix byte, at time.Duration) []byte {
	t := uint64(scale(at+lead, 90_000))
	return append(b, prefix<<4|byte(t>>29)&0xe|1, byte(t>>22), byte(t>>14)|1, byte(t>>7), byte(t<<1)|1)
}
