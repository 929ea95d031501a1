package h264

import (
	"fmt"
	mathbits "math/bits"
)

// VUI is what RewriteSPS writes into a sequence parameter set (H.264 annex E).
type VUI struct {
	// Primaries, Transfer and Matrix are codes of tables E-3 to E-5: 1 is
	// BT.709, 2 unspecified.
	Primaries, Transfer, Matrix byte
	FullRange                   bool // luma uses 0–255 instead of 16–235
	// TimeScale ÷ (2 × UnitsInTick) is the fixed frame rate in Hz. If either is
	// zero the timing stays as it was.
	UnitsInTick, TimeScale uint32
}

// What annex E.2.1 infers of a bitstream restriction that is not there.
const (
	inferredBytesDenom  = 2
	inferredBitsDenom   = 1
	inferredVectorRange = 15
	formatUnspecified   = 5 // video_format
)

// RewriteSPS returns a copy of nal, a sequence parameter set with its header
// byte, that carries v and says that pictures come out in the order in which
// they were coded: most encoders of chips tell decoders neither, and those then
// guess the colours and wait for pictures. All else stays as it is bit for bit.
// The error wraps [ErrSPS].
func RewriteSPS(nal []byte, v VUI) ([]byte, error) {
	before, err := ParseSPS(nal)
	if err != nil {
		return nil, fmt.Errorf("rewrite: %w", err)
	}
	if nal[1] == 0 || nal[3] == 0 {
		return nil, fmt.Errorf("rewrite: %w: no profile or no level", ErrSPS)
	}
	c := &transcript{bits: bits{data: unescape(nal[4:])}}
	c.vui(&before, v)
	if c.err != nil {
		return nil, fmt.Errorf("rewrite: %w", c.err)
	}
	c.put(1, 1) // rbsp_stop_one_bit
	return escape(append(make([]byte, 0, len(nal)+32), nal[:4]...), c.out), nil
}

// A transcript reads one bit string and writes another. What was read since
// the last mark is either kept or forgotten.
type transcript struct {
	bits

	mark int // of the bits read, how many are settled
	out  []byte
	used int // bits in out
}

// keep writes what was read since the last mark.
func (c *transcript) keep() {
	end := c.at
	for c.at = c.mark; c.at < end && c.err == nil; {
		n := min(end-c.at, 32)
		c.put(n, c.u(n))
	}
	c.mark = end
}

// forget leaves out what was read since the last mark.
func (c *transcript) forget() { c.mark = c.at }

// put writes the low n bits of v.
func (c *transcript) put(n int, v uint32) {
	for n > 0 {
		if c.used%8 == 0 {
			c.out = append(c.out, 0)
		}
		room := 8 - c.used%8
		take := min(room, n)
		part := v >> (n - take) & (1<<take - 1)
		c.out[len(c.out)-1] |= byte(part << (room - take))
		c.used, n = c.used+take, n-take
	}
}

func (c *transcript) putFlag(set bool) {
	v := uint32(0)
	if set {
		v = 1
	}
	c.put(1, v)
}

// putUE writes an unsigned Exp-Golomb code (H.264 9.1) of v below 2³²−1.
func (c *transcript) putUE(v uint32) {
	n := mathbits.Len32(v + 1)
	c.put(n-1, 0)
	c.put(n, v+1)
}

// vui writes the whole parameter set of before with v in it.
func (c *transcript) vui(before *SPS, v VUI) {
	var s SPS
	s.Profile, s.ChromaFormat = before.Profile, 1
	s.readCoding(&c.bits)
	c.keep()
	had := c.flag()
	c.forget()
	c.put(1, 1) // vui_parameters_present_flag
	if !had {
		c.data, c.at, c.mark = make([]byte, 2), 0, 0 // as if every part were told to be absent
	}
	s.readAspect(&c.bits)
	c.keep()
	c.signal(v)
	skipChromaSites(&c.bits)
	c.keep()
	c.timing(v)
	skipBuffering(&c.bits)
	c.keep()
	c.restriction(before.RefFrames)
}

func (c *transcript) signal(v VUI) {
	format := uint32(formatUnspecified)
	if c.flag() {
		format = new(SPS).readSignal(&c.bits)
	}
	c.forget()
	c.put(1, 1) // video_signal_type_present_flag
	c.put(3, format)
	c.putFlag(v.FullRange)
	c.put(1, 1) // colour_description_present_flag
	for _, code := range []byte{v.Primaries, v.Transfer, v.Matrix} {
		c.put(8, uint32(code))
	}
}

func (c *transcript) timing(v VUI) {
	if c.flag() {
		new(SPS).readTiming(&c.bits)
	}
	if v.UnitsInTick == 0 || v.TimeScale == 0 {
		c.keep()
		return
	}
	c.forget()
	c.put(1, 1) // timing_info_present_flag
	c.put(32, v.UnitsInTick)
	c.put(32, v.TimeScale)
	c.put(1, 1) // fixed_frame_rate_flag
}

// restriction says that no picture waits for a later one, and that a decoder
// holds no more than the reference pictures.
func (c *transcript) restriction(references uint32) {
	vectorsOverEdges := uint32(1)
	limits := [4]uint32{inferredBytesDenom, inferredBitsDenom, inferredVectorRange, inferredVectorRange}
	if c.flag() {
		vectorsOverEdges = c.u(1)
		for i := range limits {
			limits[i] = c.ue()
		}
	}
	c.forget()
	c.put(1, 1) // bitstream_restriction_flag
	c.put(1, vectorsOverEdges)
	for _, limit := range limits {
		c.putUE(limit)
	}
	c.putUE(0) // max_num_reorder_frames
	c.putUE(references)
}

// escape appends b to nal with emulation prevention bytes (H.264 7.4.1). nal
// must not end with a zero byte.
func escape(nal, b []byte) []byte {
	zeros := 0
	for _, v := range b {
		if zeros >= 2 && v <= 3 {
			nal = append(nal, 3)
			zeros = 0
		}
		nal = append(nal, v)
		zeros = countZero(zeros, v)
	}
	return nal
}
