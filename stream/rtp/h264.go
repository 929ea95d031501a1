package rtp

import (
	"encoderd.example/stream"
	"encoderd.example/stream/h264"
)

// Packet types of RFC 6184, table 1.
const (
	stapA = 24
	fuA   = 28
)

// writeH264 writes a picture in packetization mode 1 (RFC 6184, 6.3): NAL
// units that fit into one packet together share it (STAP-A), one that fits in
// no packet is cut (FU-A). Key pictures carry their parameter sets.
func (p *Packetizer) writeH264(w *writer, u *stream.Unit) {
	start, room := len(w.buf), p.size-headerSize
	used := 0 // payload bytes of the pending units as a STAP-A
	add := func(nal []byte) {
		if used+2+len(nal) > room || used == 0 {
			p.flushH264(w, used)
			used = 1
		}
		if len(nal) > room {
			fragmentH264(w, nal, room)
			used = 0
			return
		}
		p.pending = append(p.pending, nal)
		used += 2 + len(nal)
	}
	if u.Key && !hasSPS(u.Data) {
		for _, set := range p.sets {
			add(set)
		}
	}
	for nal := range h264.NALs(u.Data) {
		add(nal)
	}
	p.flushH264(w, used)
	if len(w.buf) > start {
		w.mark()
	}
}

// hasSPS reports whether a picture brings its own parameter sets. They stand
// before its first slice (H.264, 7.4.1.2.3).
func hasSPS(data []byte) bool {
	for nal := range h264.NALs(data) {
		switch h264.Type(nal) {
		case h264.TypeSPS:
			return true
		case h264.TypeSlice, h264.TypeIDR:
			return false
		}
	}
	return false
}

// flushH264 writes the pending units: one as it is, several as a STAP-A of
// used bytes.
func (p *Packetizer) flushH264(w *writer, used int) {
	switch len(p.pending) {
	case 0:
		return
	case 1:
		w.packet(len(p.pending[0]))
		w.buf = append(w.buf, p.pending[0]...)
	default:
		w.packet(used)
		at := len(w.buf)
		w.buf = append(w.buf, stapA)
		for _, nal := range p.pending {
			w.buf[at] = w.buf[at]&0x9f | max(w.buf[at]&0x60, nal[0]&0x60) | nal[0]&0x80
			w.buf = append(w.buf, byte(len(nal)>>8), byte(len(nal)))
			w.buf = append(w.buf, nal...)
		}
	}
	clear(p.pending) // keeps no unit alive
	p.pending = p.pending[:0]
}

// fragmentH264 cuts nal into FU-A packets, all full but the last: equal sizes
// are what UDP_SEGMENT asks for.
func fragmentH264(w *writer, nal []byte, room int) {
	const start, end = 0x80, 0x40
	indicator, header := nal[0]&0xe0|fuA, nal[0]&0x1f|start
	for rest := nal[1:]; len(rest) > 0; header &^= start {
		n := min(len(rest), room-2)
		if n == len(rest) {
			header |= end
		}
		w.packet(2 + n)
		w.buf = append(w.buf, indicator, header)
		w.buf = append(w.buf, rest[:n]...)
		rest = rest[n:]
	}
}
