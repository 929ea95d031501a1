package nal

import (
	"errors"
	"math/bits"
)

// A Reader reads a bit string. After the first error it gives zeros, so that
// callers ask for [Reader.Err] once, at the end. A copy reads on by itself.
type Reader struct {
	data []byte
	at   int
	err  error
}

// NewReader reads b, which is without emulation prevention bytes, see
// [Unescape]. b stays the caller's and must not change.
func NewReader(b []byte) *Reader { return &Reader{data: b} }

// Err returns why reading failed first, or nil.
func (r *Reader) Err() error { return r.err }

// Fail makes what was read an error, unless there is one.
func (r *Reader) Fail(why string) {
	if r.err == nil {
		r.err = errors.New(why)
	}
}

// At returns how many bits were read and skipped.
func (r *Reader) At() int { return r.at }

// U reads n bits, at most 32, highest first.
func (r *Reader) U(n int) uint32 {
	var v uint32
	for range n {
		if r.at >= len(r.data)*8 {
			r.Fail("cut short")
			return 0
		}
		v = v<<1 | uint32(r.data[r.at/8]>>(7-r.at%8)&1)
		r.at++
	}
	return v
}

// Flag reads one bit.
func (r *Reader) Flag() bool { return r.U(1) == 1 }

// Skip passes over n bits. What lies behind the end fails when it is read.
func (r *Reader) Skip(n int) { r.at += n }

// UE reads an unsigned Exp-Golomb code (H.264 9.1, H.265 9.2).
func (r *Reader) UE() uint32 {
	n := 0
	for r.U(1) == 0 {
		if n++; n > 31 || r.err != nil {
			r.Fail("code is too long")
			return 0
		}
	}
	return 1<<n - 1 + r.U(n)
}

// SE reads a signed Exp-Golomb code (H.264 9.1.1, H.265 9.2.2).
func (r *Reader) SE() int32 {
	v := r.UE()
	if v%2 == 1 {
		return int32(v/2 + 1)
	}
	return -int32(v / 2)
}

// A Writer writes a bit string. The zero Writer is empty.
type Writer struct {
	out  []byte
	used int // bits in out
}

// Bytes returns what was written, filled up with zero bits. It is the writer's
// memory, good until the next call.
func (w *Writer) Bytes() []byte { return w.out }

// U writes the low n bits of v, at most 32, highest first.
func (w *Writer) U(n int, v uint32) {
	for n > 0 {
		if w.used%8 == 0 {
			w.out = append(w.out, 0)
		}
		room := 8 - w.used%8
		take := min(room, n)
		part := v >> (n - take) & (1<<take - 1)
		w.out[len(w.out)-1] |= byte(part << (room - take))
		w.used, n = w.used+take, n-take
	}
}

// Flag writes one bit.
func (w *Writer) Flag(set bool) {
	v := uint32(0)
	if set {
		v = 1
	}
	w.U(1, v)
}

// UE writes an unsigned Exp-Golomb code (H.264 9.1) of v below 2³²−1.
func (w *Writer) UE(v uint32) {
	n := bits.Len32(v + 1)
	w.U(n-1, 0)
	w.U(n, v+1)
}
