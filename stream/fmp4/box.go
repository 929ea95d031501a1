package fmp4

import "encoding/binary"

// boxes is a run of boxes as it grows (ISO/IEC 14496-12, 4.2).
type boxes []byte

// box appends a box with what content appends.
func (b *boxes) box(kind string, content func()) {
	at := len(*b)
	b.u32(0)
	b.text(kind)
	content()
	binary.BigEndian.PutUint32((*b)[at:], uint32(len(*b)-at))
}

// full appends a full box: with a version and flags.
func (b *boxes) full(kind string, version byte, flags uint32, content func()) {
	b.box(kind, func() {
		b.u32(uint32(version)<<24 | flags)
		content()
	})
}

func (b *boxes) u8(v ...byte)   { *b = append(*b, v...) }
func (b *boxes) bytes(v []byte) { *b = append(*b, v...) }
func (b *boxes) text(v string)  { *b = append(*b, v...) }
func (b *boxes) zero(n int)     { *b = append(*b, make([]byte, n)...) }
func (b *boxes) u64(v uint64)   { *b = binary.BigEndian.AppendUint64(*b, v) }
func (b *boxes) u16(values ...int) {
	for _, v := range values {
		*b = binary.BigEndian.AppendUint16(*b, uint16(v))
	}
}

func (b *boxes) u32(values ...uint32) {
	for _, v := range values {
		*b = binary.BigEndian.AppendUint32(*b, v)
	}
}
