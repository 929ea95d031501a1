package rtp

import (
	"encoding/binary"
	"errors"
	"time"
)

// RTCP packet types (RFC 3550, 12.1).
const (
	typeSR   = 200
	typeRR   = 201
	typeSDES = 202
	typeBYE  = 203
)

const (
	reportWords = 6          // of a report block, 32 bits each
	ntpEpoch    = 2208988800 // seconds from 1900 to 1970
)

// NTP returns a time as the Network Time Protocol counts it (RFC 5905, 6):
// seconds since 1900 above 32 bits of their fraction.
func NTP(t time.Time) uint64 {
	return uint64(t.Unix()+ntpEpoch)<<32 | uint64(t.Nanosecond())<<32/uint64(time.Second)
}

// reportSize returns the size in bytes of a sender report with its framing.
func reportSize(cname string) int { return frameSize + 28 + sdesSize(cname) }

// sdesSize returns the size of a source description: header, SSRC, type,
// length and text, then zero bytes, at least one, up to a multiple of four.
func sdesSize(cname string) int { return 8 + (2+len(cname))/4*4 + 4 }

// appendReport appends the sender report on m at the instant at, if m is
// carried: a compound packet of SR and SDES (RFC 3550, 6.1, 6.4.1, 6.5). Both
// media tell the same instant by the same clock, so that players can put sound
// to picture from the first report on.
func (p *Packetizer) appendReport(buf []byte, m Medium, at time.Duration) []byte {
	if p.tracks[m] == nil {
		return buf
	}
	f, wall := &p.flows[m], p.wall(at)
	buf = appendFrame(buf, m, 28+sdesSize(p.cname))
	buf = append(buf, 0x80, typeSR, 0, 6)
	buf = binary.BigEndian.AppendUint32(buf, f.ssrc)
	buf = binary.BigEndian.AppendUint64(buf, NTP(wall))
	buf = binary.BigEndian.AppendUint32(buf, f.stamp(at))
	buf = binary.BigEndian.AppendUint32(buf, f.packets)
	buf = binary.BigEndian.AppendUint32(buf, f.octets)
	return appendSDES(buf, f.ssrc, p.cname)
}

// appendFrame appends the interleaved header of an RTCP packet of n bytes.
func appendFrame(buf []byte, m Medium, n int) []byte {
	return append(buf, '$', byte(2*m+1), byte(n>>8), byte(n))
}

// appendSDES appends a source description with the canonical name, which is
// the same for both media: that ties them together (RFC 3550, 6.5.1).
func appendSDES(buf []byte, ssrc uint32, cname string) []byte {
	const itemCNAME = 1
	start := len(buf)
	buf = append(buf, 0x81, typeSDES, 0, byte(sdesSize(cname)/4-1))
	buf = binary.BigEndian.AppendUint32(buf, ssrc)
	buf = append(buf, itemCNAME, byte(len(cname)))
	buf = append(buf, cname...)
	for end := start + sdesSize(cname); len(buf) < end; {
		buf = append(buf, 0)
	}
	return buf
}

// Goodbye returns a batch without media that ends every carried stream: RR,
// SDES and BYE (RFC 3550, 6.6). Any goroutine may call it.
func (p *Packetizer) Goodbye() *Batch {
	b := &Batch{medium: Video}
	for _, m := range []Medium{Sound, Video} {
		b.split = len(b.buf)
		if p.tracks[m] == nil {
			continue
		}
		ssrc := p.flows[m].ssrc
		b.buf = appendFrame(b.buf, m, 8+sdesSize(p.cname)+8)
		b.buf = append(b.buf, 0x80, typeRR, 0, 1)
		b.buf = binary.BigEndian.AppendUint32(b.buf, ssrc)
		b.buf = appendSDES(b.buf, ssrc, p.cname)
		b.buf = append(b.buf, 0x81, typeBYE, 0, 1)
		b.buf = binary.BigEndian.AppendUint32(b.buf, ssrc)
	}
	return b
}

// A ReceiverReport is what a receiver says about one stream (RFC 3550, 6.4.1).
type ReceiverReport struct {
	SSRC     uint32
	Fraction uint8  // of packets lost since its last report, in 1/256
	Lost     int32  // packets in all; negative with duplicates
	Highest  uint32 // sequence number received, extended
	Jitter   uint32 // in units of the stream's clock
}

var errRTCP = errors.New("rtp: malformed RTCP packet")

// ParseRTCP checks a compound RTCP packet from a receiver (RFC 3550, A.2) and
// returns the report blocks in it. Packets of unknown types are passed over.
func ParseRTCP(b []byte) ([]ReceiverReport, error) {
	if len(b) < 8 || b[1] != typeSR && b[1] != typeRR {
		return nil, errRTCP // a compound packet begins with a report
	}
	var reports []ReceiverReport
	for len(b) > 0 {
		if len(b) < 4 || b[0]>>6 != 2 {
			return nil, errRTCP
		}
		n := 4 * (1 + int(binary.BigEndian.Uint16(b[2:])))
		if n > len(b) {
			return nil, errRTCP
		}
		blocks, err := reportBlocks(b[:n])
		if err != nil {
			return nil, err
		}
		for ; len(blocks) > 0; blocks = blocks[4*reportWords:] {
			reports = append(reports, parseBlock(blocks))
		}
		b = b[n:]
	}
	return reports, nil
}

// reportBlocks returns the report blocks of one RTCP packet.
func reportBlocks(packet []byte) ([]byte, error) {
	var start int
	switch packet[1] {
	case typeSR:
		start = 28
	case typeRR:
		start = 8
	default:
		return nil, nil
	}
	end := start + 4*reportWords*int(packet[0]&0x1f)
	if end > len(packet) {
		return nil, errRTCP
	}
	return packet[start:end], nil
}

func parseBlock(b []byte) ReceiverReport {
	lost := binary.BigEndian.Uint32(b[4:])
	return ReceiverReport{
		SSRC:     binary.BigEndian.Uint32(b),
		Fraction: uint8(lost >> 24),
		Lost:     int32(lost<<8) >> 8,
		Highest:  binary.BigEndian.Uint32(b[8:]),
		Jitter:   binary.BigEndian.Uint32(b[12:]),
	}
}
