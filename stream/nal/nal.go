// Package nal walks the NAL units of H.264 and H.265 and reads and writes the
// bit strings in them: what both recommendations have in common.
//
// It moves no memory that it does not have to: what it returns points into
// what it was given, except where a function says that it copies. All
// functions may be called from any goroutine; a [Reader] and a [Writer] are
// each for one.
package nal

import (
	"bytes"
	"encoding/binary"
	"iter"
)

// Prefixed walks data in length-prefixed form: four bytes of big-endian length
// before each NAL unit. It stops at the first length that does not fit; empty
// units are passed over.
func Prefixed(data []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(data) >= 4 {
			n := binary.BigEndian.Uint32(data)
			data = data[4:]
			if uint64(n) > uint64(len(data)) {
				return
			}
			if n > 0 && !yield(data[:n:n]) {
				return
			}
			data = data[n:]
		}
	}
}

// AnnexB walks data in byte-stream form (annex B of both recommendations):
// start codes of three or four bytes between NAL units. Trailing zero bytes are
// cut off; empty units are passed over.
func AnnexB(data []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		_, rest, found := bytes.Cut(data, startCode)
		for found {
			var unit []byte
			unit, rest, found = bytes.Cut(rest, startCode)
			unit = bytes.TrimRight(unit, "\x00")
			if len(unit) > 0 && !yield(unit) {
				return
			}
		}
	}
}

var startCode = []byte{0, 0, 1}

// Append appends unit in length-prefixed form.
func Append(data, unit []byte) []byte {
	data = binary.BigEndian.AppendUint32(data, uint32(len(unit)))
	return append(data, unit...)
}

// Unescape returns b, a part of a NAL unit after its header, without emulation
// prevention bytes (H.264 7.4.1.1, H.265 7.3.1.1). It copies only if there are
// any.
func Unescape(b []byte) []byte {
	zeros := 0
	for i, c := range b {
		if zeros >= 2 && c == 3 {
			return unescapeFrom(b, i)
		}
		zeros = countZero(zeros, c)
	}
	return b
}

func unescapeFrom(b []byte, at int) []byte {
	out := append(make([]byte, 0, len(b)), b[:at]...)
	zeros := 0
	for _, c := range b[at+1:] {
		if zeros >= 2 && c == 3 {
			zeros = 0
			continue
		}
		out = append(out, c)
		zeros = countZero(zeros, c)
	}
	return out
}

// Escape appends b to unit with emulation prevention bytes (H.264 7.4.1). unit
// must not end with a zero byte.
func Escape(unit, b []byte) []byte {
	zeros := 0
	for _, c := range b {
		if zeros >= 2 && c <= 3 {
			unit = append(unit, 3)
			zeros = 0
		}
		unit = append(unit, c)
		zeros = countZero(zeros, c)
	}
	return unit
}

func countZero(zeros int, c byte) int {
	if c == 0 {
		return zeros + 1
	}
	return 0
}
