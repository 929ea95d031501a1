package h264

import (
	"errors"
	"fmt"
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
func ParseSPS(nal []byte) (SPS, error) {
	if Type(nal) != TypeSPS || len(nal) < 4 {
		return SPS{}, fmt.Errorf("%w: no SPS", ErrSPS)
	}
	s := SPS{
		Profile: nal[1], Constraints: nal[2], Level: nal[3],
		ChromaFormat: 1, BitDepthLuma: 8, BitDepthChroma: 8,
		Primaries: 2, Transfer: 2, Matrix: 2, Reorder: -1,
	}
	r := &bits{data: unescape(nal[4:])}
	s.readCoding(r)
	if r.flag() {
		s.readVUI(r)
	}
	if r.err != nil {
		return SPS{}, r.err
	}
	return s, s.crop()
}

// readCoding reads everything before the VUI.
func (s *SPS) readCoding(r *bits) {
	s.ID = r.ue()
	if highProfile(s.Profile) {
		s.readHigh(r)
	}
	s.readOrder(r)
	s.readSize(r)
}

func (s *SPS) readHigh(r *bits) {
	s.ChromaFormat = r.ue()
	if s.ChromaFormat == 3 {
		r.u(1) // separate_colour_plane_flag
	}
	s.BitDepthLuma = r.ue() + 8
	s.BitDepthChroma = r.ue() + 8
	r.u(1) // qpprime_y_zero_transform_bypass_flag
	if s.ChromaFormat > 3 || s.BitDepthLuma > 14 || s.BitDepthChroma > 14 {
		r.fail("chroma format or bit depth out of range")
	}
	if !r.flag() {
		return
	}
	lists := 8
	if s.ChromaFormat == 3 {
		lists = 12
	}
	for i := range lists {
		if !r.flag() {
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
func skipScalingList(r *bits, size int) {
	last, next := int32(8), int32(8)
	for range size {
		if next != 0 {
			next = (last + r.se() + 256) % 256
		}
		if next != 0 {
			last = next
		}
	}
}

func (s *SPS) readOrder(r *bits) {
	r.ue() // log2_max_frame_num_minus4
	switch r.ue() {
	case 0:
		r.ue() // log2_max_pic_order_cnt_lsb_minus4
	case 1:
		r.u(1)
		r.se()
		r.se()
		n := r.ue()
		if n > 255 {
			r.fail("too many reference frames in a cycle")
			return
		}
		for range n {
			r.se()
		}
	}
	s.RefFrames = r.ue()
	r.u(1) // gaps_in_frame_num_value_allowed_flag
}

func (s *SPS) readSize(r *bits) {
	s.mbWidth = r.ue() + 1
	s.mapHeight = r.ue() + 1
	s.Interlaced = !r.flag()
	if s.Interlaced {
		r.u(1) // mb_adaptive_frame_field_flag
	}
	r.u(1) // direct_8x8_inference_flag
	if r.flag() {
		s.cropL, s.cropR, s.cropT, s.cropBot = r.ue(), r.ue(), r.ue(), r.ue()
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

func (s *SPS) readVUI(r *bits) {
	s.readAspect(r)
	if r.flag() {
		s.readSignal(r)
	}
	skipChromaSites(r)
	if r.flag() {
		s.readTiming(r)
	}
	skipBuffering(r)
	if r.flag() {
		s.readRestriction(r)
	}
}

// readAspect reads the sample aspect ratio and the overscan information.
func (s *SPS) readAspect(r *bits) {
	if r.flag() {
		switch idc := r.u(8); {
		case idc == extendedSAR:
			s.SARWidth, s.SARHeight = int(r.u(16)), int(r.u(16))
		case int(idc) < len(sampleAspects):
			s.SARWidth, s.SARHeight = sampleAspects[idc][0], sampleAspects[idc][1]
		}
	}
	if r.flag() {
		r.u(1) // overscan_appropriate_flag
	}
}

// readSignal reads the video signal type and returns video_format.
func (s *SPS) readSignal(r *bits) (format uint32) {
	format = r.u(3)
	s.FullRange = r.flag()
	if r.flag() {
		s.Primaries, s.Transfer, s.Matrix = byte(r.u(8)), byte(r.u(8)), byte(r.u(8))
	}
	return format
}

func skipChromaSites(r *bits) {
	if r.flag() {
		r.ue()
		r.ue() // chroma sample locations
	}
}

func (s *SPS) readTiming(r *bits) {
	units, scale := r.u(32), r.u(32)
	r.u(1) // fixed_frame_rate_flag
	if units > 0 {
		s.FPS = float64(scale) / float64(units) / 2
	}
}

// skipBuffering passes over the reference decoder's parameters.
func skipBuffering(r *bits) {
	nal := r.flag()
	if nal {
		skipHRD(r)
	}
	vcl := r.flag()
	if vcl {
		skipHRD(r)
	}
	if nal || vcl {
		r.u(1) // low_delay_hrd_flag
	}
	r.u(1) // pic_struct_present_flag
}

func (s *SPS) readRestriction(r *bits) {
	r.u(1) // motion_vectors_over_pic_boundaries_flag
	for range 4 {
		r.ue() // max_bytes_per_pic_denom … log2_max_mv_length_vertical
	}
	s.Reorder = int(min(r.ue(), 16))
	r.ue() // max_dec_frame_buffering
}

// skipHRD follows H.264 E.1.2.
func skipHRD(r *bits) {
	n := r.ue() + 1
	if n > 32 {
		r.fail("too many coded picture buffers")
		return
	}
	r.u(8)
	for range n {
		r.ue()
		r.ue()
		r.u(1)
	}
	r.u(20)
}

// unescape drops emulation prevention bytes (H.264 7.4.1.1). It copies only if
// there are any.
func unescape(b []byte) []byte {
	zeros := 0
	for i, c := range b {
		if zeros >= 2 && c == 3 {
			return unescapeFrom(b, i)
		}
		zeros = countZero(zeros, c)
	}
	return b
}

func unescapeFrom(b []byte, at int) []byte {
	out := append(make([]byte, 0, len(b)), b[:at]...)
	zeros := 0
	for _, c := range b[at+1:] {
		if zeros >= 2 && c == 3 {
			zeros = 0
			continue
		}
		out = append(out, c)
		zeros = countZero(zeros, c)
	}
	return out
}

func countZero(zeros int, c byte) int {
	if c == 0 {
		return zeros + 1
	}
	return 0
}

// bits reads a bit string; after the first error it gives zeros.
type bits struct {
	data []byte
	at   int
	err  error
}

func (r *bits) fail(why string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrSPS, why)
	}
}

func (r *bits) u(n int) uint32 {
	var v uint32
	for range n {
		if r.at >= len(r.data)*8 {
			r.fail("cut short")
			return 0
		}
		v = v<<1 | uint32(r.data[r.at/8]>>(7-r.at%8)&1)
		r.at++
	}
	return v
}

func (r *bits) flag() bool { return r.u(1) == 1 }

// ue reads an unsigned Exp-Golomb code (H.264 9.1).
func (r *bits) ue() uint32 {
	n := 0
	for r.u(1) == 0 {
		if n++; n > 31 || r.err != nil {
			r.fail("code is too long")
			return 0
		}
	}
	return 1<<n - 1 + r.u(n)
}

func (r *bits) se() int32 {
	v := r.ue()
	if v%2 == 1 {
		return int32(v/2 + 1)
	}
	return -int32(v / 2)
}
