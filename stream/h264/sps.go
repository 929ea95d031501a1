package h264

import (
	"errors"
	"fmt"

	"encoderd.example/stream/nal"
)

// SPS is what a sequence parameter set says (H.264 7.3.2.1.1 and annex E).
type SPS struct {
	Profile, Constraints, Level byte
	ID                          uint32
	ChromaFormat                uint32 // 1 = 4:2:0
	BitDepthLuma                uint32
	BitDepthChroma              uint32
	RefFrames                   uint32
	Interlaced                  bool
	Width, Height               int // in luma samples, after cropping
	// FPS is the frame rate from the VUI timing, zero if there is none.
	FPS float64
	// FullRange, Primaries, Transfer and Matrix come from the VUI; 2 means
	// unspecified.
	FullRange                    bool
	Primaries, Transfer, Matrix  byte
	SARWidth, SARHeight          int // zero if there is none
	Reorder                      int // max_num_reorder_frames, -1 if not told
	mbWidth, mapHeight           uint32
	cropL, cropR, cropT, cropBot uint32
}

// ErrSPS says that a sequence parameter set cannot be read.
var ErrSPS = errors.New("bad sequence parameter set")

// ParseSPS reads a sequence parameter set, a whole NAL unit with its header
// byte and emulation prevention bytes.
func ParseSPS(unit []byte) (SPS, error) {
	if Type(unit) != TypeSPS || len(unit) < 4 {
		return SPS{}, fmt.Errorf("%w: no SPS", ErrSPS)
	}
	s := SPS{
		Profile: unit[1], Constraints: unit[2], Level: unit[3],
		ChromaFormat: 1, BitDepthLuma: 8, BitDepthChroma: 8,
		Primaries: 2, Transfer: 2, Matrix: 2, Reorder: -1,
	}
	r := nal.NewReader(nal.Unescape(unit[4:]))
	s.readCoding(r)
	if r.Flag() {
		s.readVUI(r)
	}
	if err := r.Err(); err != nil {
		return SPS{}, fmt.Errorf("%w: %w", ErrSPS, err)
	}
	return s, s.crop()
}

// readCoding reads everything before the VUI.
func (s *SPS) readCoding(r *nal.Reader) {
	s.ID = r.UE()
	if highProfile(s.Profile) {
		s.readHigh(r)
	}
	s.readOrder(r)
	s.readSize(r)
}

func (s *SPS) readHigh(r *nal.Reader) {
	s.ChromaFormat = r.UE()
	if s.ChromaFormat == 3 {
		r.U(1) // separate_colour_plane_flag
	}
	s.BitDepthLuma = r.UE() + 8
	s.BitDepthChroma = r.UE() + 8
	r.U(1) // qpprime_y_zero_transform_bypass_flag
	if s.ChromaFormat > 3 || s.BitDepthLuma > 14 || s.BitDepthChroma > 14 {
		r.Fail("chroma format or bit depth out of range")
	}
	if !r.Flag() {
		return
	}
	lists := 8
	if s.ChromaFormat == 3 {
		lists = 12
	}
	for i := range lists {
		if !r.Flag() {
			continue
		}
		size := 16
		if i >= 6 {
			size = 64
		}
		skipScalingList(r, size)
	}
}

// skipScalingList follows H.264 7.3.2.1.1.1.
func skipScalingList(r *nal.Reader, size int) {
	last, next := int32(8), int32(8)
	for range size {
		if next != 0 {
			next = (last + r.SE() + 256) % 256
		}
		if next != 0 {
			last = next
		}
	}
}

func (s *SPS) readOrder(r *nal.Reader) {
	r.UE() // log2_max_frame_num_minus4
	switch r.UE() {
	case 0:
		r.UE() // log2_max_pic_order_cnt_lsb_minus4
	case 1:
		r.U(1)
		r.SE()
		r.SE()
		n := r.UE()
		if n > 255 {
			r.Fail("too many reference frames in a cycle")
			return
		}
		for range n {
			r.SE()
		}
	}
	s.RefFrames = r.UE()
	r.U(1) // gaps_in_frame_num_value_allowed_flag
}

func (s *SPS) readSize(r *nal.Reader) {
	s.mbWidth = r.UE() + 1
	s.mapHeight = r.UE() + 1
	s.Interlaced = !r.Flag()
	if s.Interlaced {
		r.U(1) // mb_adaptive_frame_field_flag
	}
	r.U(1) // direct_8x8_inference_flag
	if r.Flag() {
		s.cropL, s.cropR, s.cropT, s.cropBot = r.UE(), r.UE(), r.UE(), r.UE()
	}
}

// crop computes the size (H.264 7-19 to 7-22).
func (s *SPS) crop() error {
	if s.mbWidth > 1<<10 || s.mapHeight > 1<<10 {
		return fmt.Errorf("%w: picture is too large", ErrSPS)
	}
	fields := uint32(1)
	if s.Interlaced {
		fields = 2
	}
	unitX, unitY := uint32(1), fields
	if s.ChromaFormat == 1 || s.ChromaFormat == 2 {
		unitX = 2
	}
	if s.ChromaFormat == 1 {
		unitY = 2 * fields
	}
	width := int64(s.mbWidth)*16 - int64(unitX)*(int64(s.cropL)+int64(s.cropR))
	height := int64(s.mapHeight)*16*int64(fields) - int64(unitY)*(int64(s.cropT)+int64(s.cropBot))
	if width <= 0 || height <= 0 {
		return fmt.Errorf("%w: cropping leaves nothing", ErrSPS)
	}
	s.Width, s.Height = int(width), int(height)
	return nil
}

// sampleAspects is H.264 table E-1.
var sampleAspects = [17][2]int{
	{},
	{1, 1},
	{12, 11},
	{10, 11},
	{16, 11},
	{40, 33},
	{24, 11},
	{20, 11},
	{32, 11},
	{80, 33},
	{18, 11},
	{15, 11},
	{64, 33},
	{160, 99},
	{4, 3},
	{3, 2},
	{2, 1},
}

const extendedSAR = 255

func (s *SPS) readVUI(r *nal.Reader) {
	s.readAspect(r)
	if r.Flag() {
		s.readSignal(r)
	}
	skipChromaSites(r)
	if r.Flag() {
		s.readTiming(r)
	}
	skipBuffering(r)
	if r.Flag() {
		s.readRestriction(r)
	}
}

// readAspect reads the sample aspect ratio and the overscan information.
func (s *SPS) readAspect(r *nal.Reader) {
	if r.Flag() {
		switch idc := r.U(8); {
		case idc == extendedSAR:
			s.SARWidth, s.SARHeight = int(r.U(16)), int(r.U(16))
		case int(idc) < len(sampleAspects):
			s.SARWidth, s.SARHeight = sampleAspects[idc][0], sampleAspects[idc][1]
		}
	}
	if r.Flag() {
		r.U(1) // overscan_appropriate_flag
	}
}

// readSignal reads the video signal type and returns video_format.
func (s *SPS) readSignal(r *nal.Reader) (format uint32) {
	format = r.U(3)
	s.FullRange = r.Flag()
	if r.Flag() {
		s.Primaries, s.Transfer, s.Matrix = byte(r.U(8)), byte(r.U(8)), byte(r.U(8))
	}
	return format
}

func skipChromaSites(r *nal.Reader) {
	if r.Flag() {
		r.UE()
		r.UE() // chroma sample locations
	}
}

func (s *SPS) readTiming(r *nal.Reader) {
	units, scale := r.U(32), r.U(32)
	r.U(1) // fixed_frame_rate_flag
	if units > 0 {
		s.FPS = float64(scale) / float64(units) / 2
	}
}

// skipBuffering passes over the reference decoder's parameters.
func skipBuffering(r *nal.Reader) {
	nal := r.Flag()
	if nal {
		skipHRD(r)
	}
	vcl := r.Flag()
	if vcl {
		skipHRD(r)
	}
	if nal || vcl {
		r.U(1) // low_delay_hrd_flag
	}
	r.U(1) // pic_struct_present_flag
}

func (s *SPS) readRestriction(r *nal.Reader) {
	r.U(1) // motion_vectors_over_pic_boundaries_flag
	for range 4 {
		r.UE() // max_bytes_per_pic_denom … log2_max_mv_length_vertical
	}
	s.Reorder = int(min(r.UE(), 16))
	r.UE() // max_dec_frame_buffering
}

// skipHRD follows H.264 E.1.2.
func skipHRD(r *nal.Reader) {
	n := r.UE() + 1
	if n > 32 {
		r.Fail("too many coded picture buffers")
		return
	}
	r.U(8)
	for range n {
		r.UE()
		r.UE()
		r.U(1)
	}
	r.U(20)
}
