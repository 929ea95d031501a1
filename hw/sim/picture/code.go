package picture

import "time"

const (
	cells     = 32
	valueBits = 24
	valueMask = 1<<valueBits - 1
)

// The smallest picture that [Read] accepts: cells of two samples' width, rows
// of two lines.
const (
	MinWidth  = 64
	MinHeight = 36
)

// A Code is what the test picture says to machines.
type Code struct {
	Counter uint32 // sequence number modulo 2²⁴
	ClockMS uint32 // CLOCK_MONOTONIC in ms modulo 2²⁴ (4 h 39 min)
	Flash   bool
}

// Clock returns the instant that ClockMS stands for: of all the possible ones,
// the one nearest to near.
func (c Code) Clock(near time.Duration) time.Duration {
	const turn = 1 << valueBits
	ms := int64(near / time.Millisecond)
	ahead := (int64(c.ClockMS) - ms) & valueMask
	if ahead >= turn/2 {
		ahead -= turn
	}
	return time.Duration(ms+ahead) * time.Millisecond
}

// word returns the 32 cells of value.
func word(value uint32) uint32 {
	value &= valueMask
	return value<<8 | uint32(crc8(value))
}

// crc8 is CRC-8/I-432-1 over the 24 bits of value.
func crc8(value uint32) byte {
	var crc byte
	for shift := valueBits - 8; shift >= 0; shift -= 8 {
		crc = crc8Step(crc, byte(value>>shift))
	}
	return crc ^ 0x55
}

func crc8Step(crc, b byte) byte {
	crc ^= b
	for range 8 {
		carry := crc >> 7
		crc = crc<<1 ^ carry*0x07
	}
	return crc
}

// Read reads the code of a test picture from its luma plane: w x h samples,
// stride bytes from line to line. The picture may have been scaled and coded;
// limited and full range do equally. It returns false for anything that is
// not surely a test picture: foreign, too small, blended from two, damaged.
func Read(luma []byte, stride, w, h int) (Code, bool) {
	if w < MinWidth || h < MinHeight || stride < w || (len(luma)-w)/stride < h-1 || len(luma) < w {
		return Code{}, false
	}
	parts := layoutOf(w, h)
	counter, middle, ok := readWord(luma, stride, parts.counter)
	if !ok {
		return Code{}, false
	}
	clock, _, ok := readWord(luma, stride, parts.clock)
	if !ok {
		return Code{}, false
	}
	flash := mean(luma, stride, parts.flash.middle()) > middle
	return Code{Counter: counter, ClockMS: clock, Flash: flash}, true
}

// minContrast is the least difference of luma between black and white cells.
const minContrast = 64

// readWord reads a row of cells and returns its value and the luma half way
// between its black and its white.
func readWord(luma []byte, stride int, row rect) (value uint32, middle int, ok bool) {
	var levels [cells]int
	low, high := 255, 0
	for i := range levels {
		levels[i] = mean(luma, stride, row.cell(i).middle())
		low, high = min(low, levels[i]), max(high, levels[i])
	}
	contrast := high - low
	if contrast < minContrast {
		return 0, 0, false
	}
	middle = (low + high) / 2
	var bits uint32
	for _, level := range levels {
		if max(level-middle, middle-level) < contrast/6 {
			return 0, 0, false // neither black nor white
		}
		bits <<= 1
		if level > middle {
			bits |= 1
		}
	}
	value = bits >> 8
	return value, middle, crc8(value) == byte(bits)
}

func mean(luma []byte, stride int, r rect) int {
	sum := 0
	for y := r.y0; y < r.y1; y++ {
		for _, v := range luma[y*stride+r.x0 : y*stride+r.x1] {
			sum += int(v)
		}
	}
	return sum / ((r.x1 - r.x0) * (r.y1 - r.y0))
}
