package h265

import (
	"errors"
	"fmt"

	"encoderd.example/stream/nal"
)

// SPS is what the first part of a sequence parameter set says (H.265
// 7.3.2.2.1, up to the orders of pictures). Colours and rates come after it and
// are not read.
type SPS struct {
	ID             uint32
	ProfileSpace   byte
	HighTier       bool
	Profile        byte // 1 = Main, 2 = Main 10
	Level          byte // 30 times its number
	SubLayers      int  // temporal ones, 1 to 7
	ChromaFormat   uint32
	BitDepthLuma   uint32
	BitDepthChroma uint32
	Width, Height  int // in luma samples, inside the conformance window
	// Reorder is how many pictures may come before one that is shown earlier;
	// zero if pictures are shown in the order of their coding.
	Reorder uint32

	general                      [12]byte // profile, tier and level as they stand
	nested                       bool
	lumaWidth, lumaHeight        uint32
	cropL, cropR, cropT, cropBot uint32
}

// ErrSPS says that a sequence parameter set cannot be read.
var ErrSPS = errors.New("bad sequence parameter set")

// largest bounds the sides of pictures: more than level 6.2 allows.
const largest = 1 << 15

// ParseSPS reads a sequence parameter set, a whole NAL unit with its header and
// emulation prevention bytes.
func ParseSPS(unit []byte) (SPS, error) {
	if Type(unit) != TypeSPS {
		return SPS{}, fmt.Errorf("%w: no SPS", ErrSPS)
	}
	var s SPS
	r := nal.NewReader(nal.Unescape(unit[headerSize:]))
	r.U(4) // sps_video_parameter_set_id
	s.SubLayers = int(r.U(3)) + 1
	s.nested = r.Flag()
	s.readProfile(r)
	s.ID = r.UE()
	s.readPicture(r)
	s.readOrder(r)
	switch {
	case r.Err() != nil:
		return SPS{}, fmt.Errorf("%w: %w", ErrSPS, r.Err())
	case s.SubLayers > 7 || s.ID > 15:
		return SPS{}, fmt.Errorf("%w: more sub-layers or sets than there are", ErrSPS)
	}
	return s, s.crop()
}

// readProfile follows H.265 7.3.3, profile_tier_level.
func (s *SPS) readProfile(r *nal.Reader) {
	for i := range s.general {
		s.general[i] = byte(r.U(8))
	}
	s.ProfileSpace, s.HighTier, s.Profile = s.general[0]>>6, s.general[0]&0x20 != 0, s.general[0]&0x1f
	s.Level = s.general[len(s.general)-1]
	upper := s.SubLayers - 1
	if upper == 0 {
		return
	}
	var profile, level [8]bool
	for i := range 8 {
		p, l := r.Flag(), r.Flag() // reserved bits from upper on
		profile[i], level[i] = p && i < upper, l && i < upper
	}
	for i := range upper {
		if profile[i] {
			r.Skip(88)
		}
		if level[i] {
			r.Skip(8)
		}
	}
}

// readPicture reads size, window and sample formats.
func (s *SPS) readPicture(r *nal.Reader) {
	s.ChromaFormat = r.UE()
	if s.ChromaFormat == 3 {
		r.U(1) // separate_colour_plane_flag
	}
	s.lumaWidth, s.lumaHeight = r.UE(), r.UE()
	if r.Flag() {
		s.cropL, s.cropR, s.cropT, s.cropBot = r.UE(), r.UE(), r.UE(), r.UE()
	}
	s.BitDepthLuma, s.BitDepthChroma = r.UE()+8, r.UE()+8
	if s.ChromaFormat > 3 || s.BitDepthLuma > 16 || s.BitDepthChroma > 16 {
		r.Fail("chroma format or bit depth out of range")
	}
	if s.BitDepthLuma < 8 || s.BitDepthChroma < 8 {
		r.Fail("bit depth out of range")
	}
}

// readOrder reads how many pictures are held back, of the highest sub-layer,
// which comes last.
func (s *SPS) readOrder(r *nal.Reader) {
	r.UE() // log2_max_pic_order_cnt_lsb_minus4
	told := 1
	if r.Flag() {
		told = s.SubLayers
	}
	for range told {
		r.UE() // sps_max_dec_pic_buffering_minus1
		s.Reorder = r.UE()
		r.UE() // sps_max_latency_increase_plus1
	}
}

// crop computes the size (H.265 7.4.3.2.1).
func (s *SPS) crop() error {
	if s.lumaWidth > largest || s.lumaHeight > largest {
		return fmt.Errorf("%w: picture is too large", ErrSPS)
	}
	unitX, unitY := int64(1), int64(1)
	if s.ChromaFormat == 1 || s.ChromaFormat == 2 {
		unitX = 2
	}
	if s.ChromaFormat == 1 {
		unitY = 2
	}
	width := int64(s.lumaWidth) - unitX*(int64(s.cropL)+int64(s.cropR))
	height := int64(s.lumaHeight) - unitY*(int64(s.cropT)+int64(s.cropBot))
	if width <= 0 || height <= 0 {
		return fmt.Errorf("%w: the window leaves nothing", ErrSPS)
	}
	s.Width, s.Height = int(width), int(height)
	return nil
}
