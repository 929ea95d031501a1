package rtp

import (
	"encoderd.example/stream"
	"encoderd.example/stream/h265"
)

// fu is the packet type of fragments (RFC 7798, 4.4.3).
const fu = 49

// writeH265 writes a picture as RFC 7798, 4.4 says, without decoding order
// numbers: a NAL unit that fits into a packet is one (4.4.1), one that does not
// is cut (4.4.3). Key pictures carry their parameter sets.
func (p *Packetizer) writeH265(w *writer, u *stream.Unit) {
	start, room := len(w.buf), p.size-headerSize
	add := func(nal []byte) {
		if len(nal) > room {
			fragmentH265(w, nal, room)
			return
		}
		w.packet(len(nal))
		w.buf = append(w.buf, nal...)
	}
	if u.Key && !hasSetsH265(u.Data) {
		for _, set := range p.sets {
			add(set)
		}
	}
	for nal := range h265.NALs(u.Data) {
		add(nal)
	}
	if len(w.buf) > start {
		w.mark()
	}
}

// hasSetsH265 reports whether a picture brings its own parameter sets. They
// stand before its first slice (H.265, 7.4.2.4.4).
func hasSetsH265(data []byte) bool {
	for nal := range h265.NALs(data) {
		switch {
		case h265.Type(nal) == h265.TypeSPS:
			return true
		case h265.IsSlice(nal):
			return false
		}
	}
	return false
}

// fragmentH265 cuts nal into fragments, all full but the last.
func fragmentH265(w *writer, nal []byte, room int) {
	const start, end = 0x80, 0x40
	header := [2]byte{nal[0]&0x81 | fu<<1, nal[1]}
	part := h265.Type(nal) | start
	for rest := nal[2:]; len(rest) > 0; part &^= start {
		n := min(len(rest), room-3)
		if n == len(rest) {
			part |= end
		}
		w.packet(3 + n)
		w.buf = append(w.buf, header[0], header[1], part)
		w.buf = append(w.buf, rest[:n]...)
		rest = rest[n:]
	}
}
