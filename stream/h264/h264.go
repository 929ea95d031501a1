// Package h264 knows the NAL units of H.264 and reads its parameter sets (Rec.
// ITU-T H.264). What H.265 has in common with it is in [nal].
//
// It moves no memory that it does not have to: what it returns points into
// what it was given, except where a function says that it copies.
package h264

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"encoderd.example/stream/nal"
)

// NAL unit types (H.264 table 7-1).
const (
	TypeSlice = 1
	TypeIDR   = 5
	TypeSEI   = 6
	TypeSPS   = 7
	TypePPS   = 8
	TypeAUD   = 9
)

// Type returns the type of a NAL unit, zero for an empty one.
func Type(unit []byte) byte {
	if len(unit) == 0 {
		return 0
	}
	return unit[0] & 0x1f
}

// NALs walks data in length-prefixed form, as [nal.Prefixed] does.
func NALs(data []byte) iter.Seq[[]byte] { return nal.Prefixed(data) }

// AnnexB walks data in byte-stream form, as [nal.AnnexB] does.
func AnnexB(data []byte) iter.Seq[[]byte] { return nal.AnnexB(data) }

// AppendNAL appends unit in length-prefixed form.
func AppendNAL(data, unit []byte) []byte { return nal.Append(data, unit) }

// IsKey reports whether data, in length-prefixed form, holds an IDR picture.
func IsKey(data []byte) bool {
	for unit := range NALs(data) {
		if Type(unit) == TypeIDR {
			return true
		}
	}
	return false
}

// ConfigRecord builds the AVCDecoderConfigurationRecord, "avcC", of one SPS
// and one PPS with four-byte lengths (ISO/IEC 14496-15, 5.3.3.1). It copies.
func ConfigRecord(sps, pps []byte) ([]byte, error) {
	if len(sps) < 4 || Type(sps) != TypeSPS || len(pps) == 0 || Type(pps) != TypePPS {
		return nil, errors.New("build avcC: no parameter sets")
	}
	if len(sps) > 0xffff || len(pps) > 0xffff {
		return nil, errors.New("build avcC: parameter set is too long")
	}
	b := []byte{1, sps[1], sps[2], sps[3], 0xff, 0xe1}
	b = binary.BigEndian.AppendUint16(b, uint16(len(sps)))
	b = append(b, sps...)
	b = append(b, 1)
	b = binary.BigEndian.AppendUint16(b, uint16(len(pps)))
	b = append(b, pps...)
	if !highProfile(sps[1]) {
		return b, nil
	}
	s, err := ParseSPS(sps)
	if err != nil {
		return nil, err
	}
	return append(b, 0xfc|byte(s.ChromaFormat), 0xf8|byte(s.BitDepthLuma-8), 0xf8|byte(s.BitDepthChroma-8), 0), nil
}

// ParameterSets returns the first SPS and the first PPS of an avcC.
func ParameterSets(avcC []byte) (sps, pps []byte, err error) {
	bad := errors.New("read avcC: cut short")
	if len(avcC) < 6 {
		return nil, nil, bad
	}
	if avcC[0] != 1 || avcC[4]&3 != 3 {
		return nil, nil, fmt.Errorf("read avcC: version %d with %d-byte lengths is not supported", avcC[0], avcC[4]&3+1)
	}
	rest := avcC[6:]
	take := func(count int) ([]byte, bool) {
		var first []byte
		for i := range count {
			if len(rest) < 2 || len(rest)-2 < int(binary.BigEndian.Uint16(rest)) {
				return nil, false
			}
			n := int(binary.BigEndian.Uint16(rest))
			if i == 0 {
				first = rest[2 : 2+n]
			}
			rest = rest[2+n:]
		}
		return first, true
	}
	sps, ok := take(int(avcC[5] & 0x1f))
	if !ok || len(rest) < 1 {
		return nil, nil, bad
	}
	count := int(rest[0])
	rest = rest[1:]
	pps, ok = take(count)
	if !ok || Type(sps) != TypeSPS || Type(pps) != TypePPS {
		return nil, nil, bad
	}
	return sps, pps, nil
}

func highProfile(idc byte) bool {
	switch idc {
	case 100, 110, 122, 144, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135:
		return true
	}
	return false
}
