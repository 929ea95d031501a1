package m2m

import (
	"encoderd.example/hw"
	"encoderd.example/stream"
	"encoderd.example/stream/h264"
	"encoderd.example/stream/h265"
)

// A syntax is what NAL units mean in a codec.
type syntax struct {
	codec stream.Codec
	pixel hw.PixelFormat // the name of the bitstream in V4L2
	sets  []byte         // types of the parameter sets, in the order of sending
	kind  func(nal []byte) byte
	// slice: a part of a picture. first: the part that a picture begins with.
	// key: a part of a picture that decoding can start at.
	slice, first, key func(nal []byte) bool
	extra             func(nal []byte) bool // that readers want beside slices
	sane              func(nal []byte) bool // a parameter set, if it is no garbage
	// limited: parameter sets are the driver's, who was told BT.709 and limited
	// range.
	limited  bool
	describe func(sets [][]byte, c colors, rate hw.Rate) (description, error)
}

// A description is what the parameter sets of a key picture come to.
type description struct {
	sets          [][]byte // as they are sent
	setup         []byte   // of the track
	width, height int
}

// syntaxes, the one that more players know first.
var syntaxes = []*syntax{
	{
		codec: stream.H264, pixel: hw.H264, sets: []byte{h264.TypeSPS, h264.TypePPS}, kind: h264.Type,
		slice: sliceH264, first: firstH264,
		key:      func(nal []byte) bool { return h264.Type(nal) == h264.TypeIDR },
		extra:    func(nal []byte) bool { return h264.Type(nal) == h264.TypeSEI },
		sane:     saneH264,
		describe: describeH264,
	},
	{
		codec: stream.H265, pixel: hw.FourCC("HEVC"), sets: []byte{h265.TypeVPS, h265.TypeSPS, h265.TypePPS}, kind: h265.Type,
		slice: h265.IsSlice, first: h265.FirstSlice, key: h265.IsRandomAccess,
		extra:    func(nal []byte) bool { t := h265.Type(nal); return t == h265.TypeSEI || t == h265.TypeSEIBack },
		sane:     saneH265,
		limited:  true,
		describe: describeH265,
	},
}

func sliceH264(nal []byte) bool {
	t := h264.Type(nal)
	return t == h264.TypeSlice || t == h264.TypeIDR
}

// firstH264: first_mb_in_slice is 0, coded as a single bit.
func firstH264(nal []byte) bool {
	return sliceH264(nal) && len(nal) > 1 && nal[1]&0x80 != 0
}

// saneH264 and saneH265 read what can be read.
func saneH264(nal []byte) bool {
	_, err := h264.ParseSPS(nal)
	return err == nil || h264.Type(nal) != h264.TypeSPS
}

func saneH265(nal []byte) bool {
	_, err := h265.ParseSPS(nal)
	return err == nil || h265.Type(nal) != h265.TypeSPS
}

// set returns the place of a parameter set among those of its codec, or -1.
func (s *syntax) set(nal []byte) int {
	kind := s.kind(nal)
	for i, t := range s.sets {
		if t == kind {
			return i
		}
	}
	return -1
}

// wanted reports whether a NAL unit is for our readers: parameter sets we send
// ourselves, and delimiters, ends and filler are of no use to them.
func (s *syntax) wanted(nal []byte) bool { return s.slice(nal) || s.extra(nal) }

func (s *syntax) hasPicture(units []unit) bool {
	for _, u := range units {
		if s.slice(u.nal) {
			return true
		}
	}
	return false
}

// whole reports whether the first slice of a picture is the one that it begins
// with.
func (s *syntax) whole(units []unit) bool {
	for _, u := range units {
		if s.slice(u.nal) {
			return s.first(u.nal)
		}
	}
	return false
}

// isKey looks at the NAL units: flags of drivers are wrong.
func (s *syntax) isKey(units []unit) bool {
	for _, u := range units {
		if s.key(u.nal) {
			return true
		}
	}
	return false
}

// matrices are the codes of table E-5; a key picture's is never unsaid.
var matrices = map[hw.Matrix]byte{hw.BT709: 1, hw.BT601: 6}

// describeH264 rewrites the SPS.
func describeH264(sets [][]byte, c colors, rate hw.Rate) (description, error) {
	sps, err := h264.RewriteSPS(sets[0], h264.VUI{
		Primaries: 1, Transfer: 1, Matrix: matrices[c.matrix], FullRange: c.full,
		UnitsInTick: uint32(rate.Den), TimeScale: uint32(2 * rate.Num),
	})
	if err != nil {
		return description{}, err
	}
	info, err := h264.ParseSPS(sps)
	if err != nil {
		return description{}, err
	}
	setup, err := h264.ConfigRecord(sps, sets[1])
	return description{[][]byte{sps, sets[1]}, setup, info.Width, info.Height}, err
}

// describeH265 leaves the parameter sets as they are.
func describeH265(sets [][]byte, _ colors, _ hw.Rate) (description, error) {
	info, err := h265.ParseSPS(sets[1])
	if err != nil {
		return description{}, err
	}
	setup, err := h265.ConfigRecord(sets[0], sets[1], sets[2])
	return description{sets, setup, info.Width, info.Height}, err
}
