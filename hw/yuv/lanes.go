package yuv

import (
	"encoding/binary"

	"encoderd.example/hw"
)

// Eight bytes of a line are two words of four 16-bit lanes: the bytes at even
// places and those at odd places.
const (
	evens = 0x00FF00FF00FF00FF
	halfs = 0x0080008000800080 // 1/2 in 1/256, in every lane
	ones  = 0x0001000100010001
)

// averagePortable is average in plain Go.
func averagePortable(to, a, b []byte) {
	for len(to) >= 8 && len(a) >= 8 && len(b) >= 8 {
		x, y := binary.LittleEndian.Uint64(a), binary.LittleEndian.Uint64(b)
		// a+b+1 = 2(a|b) - (a^b) + … without leaving eight bits (Dietz).
		binary.LittleEndian.PutUint64(to, (x|y)-((x^y)&0xFEFEFEFEFEFEFEFE)>>1)
		to, a, b = to[8:], a[8:], b[8:]
	}
	for i := range to {
		to[i] = byte((int(a[i]) + int(b[i]) + 1) >> 1)
	}
}

// mix2 writes (wa·a + wb·b)/256, rounded.
func mix2(to, a, b []byte, wa, wb uint64) {
	for len(to) >= 8 && len(a) >= 8 && len(b) >= 8 {
		x, y := binary.LittleEndian.Uint64(a), binary.LittleEndian.Uint64(b)
		even := (x&evens)*wa + (y&evens)*wb + halfs
		odd := (x>>8&evens)*wa + (y>>8&evens)*wb + halfs
		binary.LittleEndian.PutUint64(to, even>>8&evens|odd&^uint64(evens))
		to, a, b = to[8:], a[8:], b[8:]
	}
	for i := range to {
		to[i] = byte((uint64(a[i])*wa + uint64(b[i])*wb + 128) >> 8)
	}
}

// mix3 writes the sum of three lines in 1/256 weights, rounded: the usual case
// of going from 1080 to 360 lines.
func mix3(to, a, b, c []byte, w []uint16) {
	wa, wb, wc := uint64(w[0]), uint64(w[1]), uint64(w[2])
	for len(to) >= 8 && len(a) >= 8 && len(b) >= 8 && len(c) >= 8 {
		x, y, z := binary.LittleEndian.Uint64(a), binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(c)
		even := (x&evens)*wa + (y&evens)*wb + (z&evens)*wc + halfs
		odd := (x>>8&evens)*wa + (y>>8&evens)*wb + (z>>8&evens)*wc + halfs
		binary.LittleEndian.PutUint64(to, even>>8&evens|odd&^uint64(evens))
		to, a, b, c = to[8:], a[8:], b[8:], c[8:]
	}
	for i := range to {
		to[i] = byte((uint64(a[i])*wa + uint64(b[i])*wb + uint64(c[i])*wc + 128) >> 8)
	}
}

// mixN writes the sum of any number of lines of p, from first on, in 1/256
// weights, rounded.
func mixN(to []byte, p hw.Plane, first int, weights []uint16) {
	i := 0
	for ; i+8 <= len(to); i += 8 {
		even, odd := uint64(halfs), uint64(halfs)
		at := first*p.Stride + i
		for _, w := range weights {
			x := binary.LittleEndian.Uint64(p.Data[at:])
			even += (x & evens) * uint64(w)
			odd += (x >> 8 & evens) * uint64(w)
			at += p.Stride
		}
		binary.LittleEndian.PutUint64(to[i:], even>>8&evens|odd&^uint64(evens))
	}
	for ; i < len(to); i++ {
		sum := uint64(128)
		for k, w := range weights {
			sum += uint64(p.Data[(first+k)*p.Stride+i]) * uint64(w)
		}
		to[i] = byte(sum >> 8)
	}
}

// A range256 maps sample v to (v·gain + offset)/256. It is what turns 0–255
// into 16–235 (luma) or 16–240 (chroma) and back (ITU-T H.264, E.2.1,
// video_full_range_flag). Its zero value changes nothing.
type range256 struct{ gain, offset int }

// rangeOf returns the map between full and limited range. The gains are
// 219/255 and 224/255 and their inverses; the offsets hold the half that makes
// the shift round.
func rangeOf(fromFull, toFull, luma bool) range256 {
	switch {
	case fromFull == toFull:
		return range256{}
	case fromFull && luma:
		return range256{220, 16*256 + 128}
	case fromFull:
		return range256{225, 128*256 - 128*225 + 128}
	case luma:
		return range256{298, -16*298 + 128}
	default:
		return range256{291, 128*256 - 128*291 + 128}
	}
}

func (r range256) none() bool { return r.gain == 0 }

// adjust applies r to a line in place.
func (r range256) adjust(line []byte) {
	switch {
	case r.none():
	case r.gain > 256:
		r.expand(line)
	default:
		r.compress(line)
	}
}

// compressPortable is compress in plain Go.
func (r range256) compressPortable(line []byte) {
	gain, offset := uint64(r.gain), uint64(r.offset)*ones
	for len(line) >= 8 {
		x := binary.LittleEndian.Uint64(line)
		even := (x&evens)*gain + offset
		odd := (x>>8&evens)*gain + offset
		binary.LittleEndian.PutUint64(line, even>>8&evens|odd&^uint64(evens))
		line = line[8:]
	}
	for i, v := range line {
		line[i] = byte((int(v)*r.gain + r.offset) >> 8)
	}
}

// expand makes full range, for stills; overshoot is clipped.
func (r range256) expand(line []byte) {
	for i, v := range line {
		line[i] = byte(min(max((int(v)*r.gain+r.offset)>>8, 0), 255))
	}
}
