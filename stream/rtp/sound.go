package rtp

import "fmt"

// maxAAC is the largest access unit that the 13-bit size of AAC-hbr can tell
// (RFC 3640, 3.3.6).
const maxAAC = 1<<13 - 1

// writeAAC writes one AAC frame in mode AAC-hbr (RFC 3640, 3.3.6): one access
// unit per packet, since waiting for more would cost 21 ms each; one that is
// too large is cut, and each piece tells the size of the whole.
func (p *Packetizer) writeAAC(w *writer, au []byte) error {
	if len(au) == 0 {
		return nil
	}
	if len(au) > maxAAC {
		return fmt.Errorf("rtp: aac frame of %d bytes; RFC 3640 ends at %d", len(au), maxAAC)
	}
	const unitHeader = 4 // AU-headers-length, then one AU-header
	size := uint16(len(au)) << 3
	for len(au) > 0 {
		n := min(len(au), p.size-headerSize-unitHeader)
		w.packet(unitHeader + n)
		w.buf = append(w.buf, 0, 16, byte(size>>8), byte(size))
		w.buf = append(w.buf, au[:n]...)
		au = au[n:]
	}
	w.mark() // the packet ends an access unit (RFC 3640, 3.1)
	return nil
}

// writeOpus writes one Opus packet as it is (RFC 7587, 4.2), which knows no
// fragments. The marker is for speech after silence only, so it stays clear.
func (p *Packetizer) writeOpus(w *writer, data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if len(data) > p.size-headerSize {
		return fmt.Errorf("rtp: opus packet of %d bytes in packets of %d; choose a lower bit rate", len(data), p.size)
	}
	w.packet(len(data))
	w.buf = append(w.buf, data...)
	return nil
}
