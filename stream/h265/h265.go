// Package h265 knows the NAL units of H.265 and reads its parameter sets (Rec.
// ITU-T H.265, HEVC). What H.264 has in common with it is in [nal].
//
// It moves no memory that it does not have to: what it returns points into
// what it was given, except where a function says that it copies. All
// functions may be called from any goroutine.
package h265

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"encoderd.example/stream/nal"
)

// NAL unit types (H.265 table 7-1). All below [TypeVPS] are slice segments.
const (
	TypeTrailN  = 0
	TypeTrailR  = 1
	TypeBLA     = 16 // the first picture of those that decoding can start at
	TypeIDR     = 19 // with leading pictures that can be decoded
	TypeIDRBare = 20 // without leading pictures
	TypeCRA     = 21 // the last of those
	TypeVPS     = 32
	TypeSPS     = 33
	TypePPS     = 34
	TypeAUD     = 35
	TypeSEI     = 39 // before the slices
	TypeSEIBack = 40 // after them
)

// headerSize is the length of a NAL unit's header (H.265 7.3.1.2).
const headerSize = 2

// Type returns the type of a NAL unit. One that is shorter than its header has
// a type that no unit has.
func Type(unit []byte) byte {
	if len(unit) < headerSize {
		return 0xff
	}
	return unit[0] >> 1 & 0x3f
}

// IsSlice reports whether a NAL unit is a slice segment: a part of a picture.
func IsSlice(unit []byte) bool { return Type(unit) < TypeVPS }

// FirstSlice reports whether a NAL unit is the slice segment that a picture
// begins with (first_slice_segment_in_pic_flag).
func FirstSlice(unit []byte) bool {
	return IsSlice(unit) && len(unit) > headerSize && unit[headerSize]&0x80 != 0
}

// IsRandomAccess reports whether a NAL unit is part of a picture that decoding
// can start at: IDR, CRA or BLA.
func IsRandomAccess(unit []byte) bool {
	t := Type(unit)
	return t >= TypeBLA && t <= TypeCRA
}

// NALs walks data in length-prefixed form, as [nal.Prefixed] does.
func NALs(data []byte) iter.Seq[[]byte] { return nal.Prefixed(data) }

// AnnexB walks data in byte-stream form, as [nal.AnnexB] does.
func AnnexB(data []byte) iter.Seq[[]byte] { return nal.AnnexB(data) }

// AppendNAL appends unit in length-prefixed form.
func AppendNAL(data, unit []byte) []byte { return nal.Append(data, unit) }

// IsKey reports whether data, in length-prefixed form, holds a picture that
// decoding can start at.
func IsKey(data []byte) bool {
	for unit := range NALs(data) {
		if IsRandomAccess(unit) {
			return true
		}
	}
	return false
}

// fixedSize is the length of an hvcC up to and with its count of arrays.
const fixedSize = 23

// ConfigRecord builds the HEVCDecoderConfigurationRecord, "hvcC", of one
// parameter set of each kind with four-byte lengths (ISO/IEC 14496-15,
// 8.3.3.1). It says that all parameter sets are in it, and nothing of rates
// and of what decoders could do side by side. It copies. The error wraps
// [ErrSPS] if the SPS cannot be read.
func ConfigRecord(vps, sps, pps []byte) ([]byte, error) {
	sets := [...][]byte{vps, sps, pps}
	for i, set := range sets {
		switch {
		case Type(set) != TypeVPS+byte(i):
			return nil, errors.New("build hvcC: no parameter sets")
		case len(set) > 0xffff:
			return nil, errors.New("build hvcC: parameter set is too long")
		}
	}
	s, err := ParseSPS(sps)
	if err != nil {
		return nil, fmt.Errorf("build hvcC: %w", err)
	}
	b := append(make([]byte, 0, fixedSize+3*5+len(vps)+len(sps)+len(pps)), 1)
	b = append(b, s.general[:]...)
	b = append(b, 0xf0, 0, 0xfc, 0xfc|byte(s.ChromaFormat), 0xf8|byte(s.BitDepthLuma-8), 0xf8|byte(s.BitDepthChroma-8), 0, 0)
	layers := byte(s.SubLayers)<<3 | 3
	if s.nested {
		layers |= 1 << 2
	}
	b = append(b, layers, byte(len(sets)))
	for i, set := range sets {
		b = append(b, 0x80|TypeVPS+byte(i), 0, 1)
		b = binary.BigEndian.AppendUint16(b, uint16(len(set)))
		b = append(b, set...)
	}
	return b, nil
}

// errRecord says that an hvcC ends too early.
var errRecord = errors.New("read hvcC: cut short")

// ParameterSets returns the first parameter set of each kind of an hvcC.
func ParameterSets(hvcC []byte) (vps, sps, pps []byte, err error) {
	if len(hvcC) < fixedSize {
		return nil, nil, nil, errRecord
	}
	if hvcC[0] != 1 || hvcC[21]&3 != 3 {
		return nil, nil, nil, fmt.Errorf("read hvcC: version %d with %d-byte lengths is not supported", hvcC[0], hvcC[21]&3+1)
	}
	var sets [3][]byte
	rest := hvcC[fixedSize:]
	for range hvcC[22] {
		var first []byte
		if first, rest, err = readArray(rest); err != nil {
			return nil, nil, nil, err
		}
		if i := int(Type(first)) - TypeVPS; i >= 0 && i < len(sets) && sets[i] == nil {
			sets[i] = first
		}
	}
	for _, set := range sets {
		if set == nil {
			return nil, nil, nil, errors.New("read hvcC: a parameter set is missing")
		}
	}
	return sets[0], sets[1], sets[2], nil
}

// readArray returns the first NAL unit of the array that b begins with, and
// what follows the array.
func readArray(b []byte) (first, rest []byte, err error) {
	if len(b) < 3 {
		return nil, nil, errRecord
	}
	count := int(binary.BigEndian.Uint16(b[1:]))
	b = b[3:]
	for i := range count {
		if len(b) < 2 || len(b)-2 < int(binary.BigEndian.Uint16(b)) {
			return nil, nil, errRecord
		}
		n := int(binary.BigEndian.Uint16(b))
		if i == 0 {
			first = b[2 : 2+n : 2+n]
		}
		b = b[2+n:]
	}
	return first, b, nil
}
