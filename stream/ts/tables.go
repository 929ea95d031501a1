package ts

import "encoding/binary"

// The head of a section (2.4.4).
const (
	tablePrograms = 0 // PAT
	tableStreams  = 2 // PMT
	checkSize     = 4
)

// associate is the program association section: one program.
func associate() []byte {
	return section(tablePrograms, 1, 0, func(b []byte) []byte {
		return append(b, 0, program, 0xe0|pidTable>>8, pidTable&0xff)
	})
}

// describe is the program map section. The first stream carries the clock.
func (m *Muxer) describe() []byte {
	return section(tableStreams, program, m.version, func(b []byte) []byte {
		b = append(b, 0xe0|pidFirst>>8, pidFirst&0xff, 0xf0, 0)
		for _, e := range m.streams {
			about := e.descriptors()
			b = append(b, e.kind, 0xe0|byte(e.pid>>8), byte(e.pid), 0xf0, byte(len(about)))
			b = append(b, about...)
		}
		return b
	})
}

// section builds a section that is the only one of its table.
func section(table byte, id uint16, version byte, content func([]byte) []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{table, 0, 0}, id)
	b = append(b, 0xc1|version&0x1f<<1, 0, 0) // it counts now; number 0 of 0
	b = content(b)
	binary.BigEndian.PutUint16(b[1:], 0xb000|uint16(len(b)-3+checkSize))
	return binary.BigEndian.AppendUint32(b, check(b))
}

// check is the CRC of annex A: 0x04c11db7, most significant bit first.
func check(b []byte) uint32 {
	crc := ^uint32(0)
	for _, c := range b {
		crc ^= uint32(c) << 24
		for range 8 {
			if crc&(1<<31) != 0 {
				crc = crc<<1 ^ 0x04c11db7
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}
