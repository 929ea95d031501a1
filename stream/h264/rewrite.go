package h264

import (
	"fmt"

	"encoderd.example/stream/nal"
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

// RewriteSPS returns a copy of unit, a sequence parameter set with its header
// byte, that carries v and says that pictures come out in the order in which
// they were coded: most encoders of chips tell decoders neither, and those then
// guess the colours and wait for pictures. All else stays as it is bit for bit.
// The error wraps [ErrSPS].
func RewriteSPS(unit []byte, v VUI) ([]byte, error) {
	before, err := ParseSPS(unit)
	if err != nil {
		return nil, fmt.Errorf("rewrite: %w", err)
	}
	if unit[1] == 0 || unit[3] == 0 {
		return nil, fmt.Errorf("rewrite: %w: no profile or no level", ErrSPS)
	}
	c := newTranscript(nal.Unescape(unit[4:]))
	c.vui(&before, v)
	if err := c.in.Err(); err != nil {
		return nil, fmt.Errorf("rewrite: %w: %w", ErrSPS, err)
	}
	c.out.U(1, 1) // rbsp_stop_one_bit
	return nal.Escape(append(make([]byte, 0, len(unit)+32), unit[:4]...), c.out.Bytes()), nil
}

// A transcript reads one bit string and writes another: what was read is, part
// by part, either kept or forgotten.
type transcript struct {
	in      nal.Reader
	settled nal.Reader // behind in by what is neither yet
	out     nal.Writer
}

func newTranscript(b []byte) *transcript {
	r := nal.NewReader(b)
	return &transcript{in: *r, settled: *r}
}

// keep writes what was read and is not yet settled.
func (c *transcript) keep() {
	for c.settled.Err() == nil && c.settled.At() < c.in.At() {
		n := min(c.in.At()-c.settled.At(), 32)
		c.out.U(n, c.settled.U(n))
	}
	c.settled = c.in
}

// forget leaves it out.
func (c *transcript) forget() { c.settled = c.in }

// vui writes the whole parameter set of before with v in it.
func (c *transcript) vui(before *SPS, v VUI) {
	var s SPS
	s.Profile, s.ChromaFormat = before.Profile, 1
	s.readCoding(&c.in)
	c.keep()
	had := c.in.Flag()
	c.forget()
	c.out.U(1, 1) // vui_parameters_present_flag
	if !had {
		c.in = *nal.NewReader(make([]byte, 2)) // as if every part were told to be absent
		c.forget()
	}
	s.readAspect(&c.in)
	c.keep()
	c.signal(v)
	skipChromaSites(&c.in)
	c.keep()
	c.timing(v)
	skipBuffering(&c.in)
	c.keep()
	c.restriction(before.RefFrames)
}

func (c *transcript) signal(v VUI) {
	format := uint32(formatUnspecified)
	if c.in.Flag() {
		format = new(SPS).readSignal(&c.in)
	}
	c.forget()
	c.out.U(1, 1) // video_signal_type_present_flag
	c.out.U(3, format)
	c.out.Flag(v.FullRange)
	c.out.U(1, 1) // colour_description_present_flag
	for _, code := range []byte{v.Primaries, v.Transfer, v.Matrix} {
		c.out.U(8, uint32(code))
	}
}

func (c *transcript) timing(v VUI) {
	if c.in.Flag() {
		new(SPS).readTiming(&c.in)
	}
	if v.UnitsInTick == 0 || v.TimeScale == 0 {
		c.keep()
		return
	}
	c.forget()
	c.out.U(1, 1) // timing_info_present_flag
	c.out.U(32, v.UnitsInTick)
	c.out.U(32, v.TimeScale)
	c.out.U(1, 1) // fixed_frame_rate_flag
}

// restriction says that no picture waits for a later one, and that a decoder
// holds no more than the reference pictures.
func (c *transcript) restriction(references uint32) {
	vectorsOverEdges := uint32(1)
	limits := [4]uint32{inferredBytesDenom, inferredBitsDenom, inferredVectorRange, inferredVectorRange}
	if c.in.Flag() {
		vectorsOverEdges = c.in.U(1)
		for i := range limits {
			limits[i] = c.in.UE()
		}
	}
	c.forget()
	c.out.U(1, 1) // bitstream_restriction_flag
	c.out.U(1, vectorsOverEdges)
	for _, limit := range limits {
		c.out.UE(limit)
	}
	c.out.UE(0) // max_num_reorder_frames
	c.out.UE(references)
}
