package h264

import (
	"bytes"
	"encoding/json"
	"errors"
	"os/exec"
	"reflect"
	"slices"
	"testing"

	"encoderd.example/stream/nal"
)

// bt709 at 29.97 Hz, full range: nothing that encoders write by themselves.
var bt709 = VUI{Primaries: 1, Transfer: 1, Matrix: 1, FullRange: true, UnitsInTick: 1001, TimeScale: 60000}

// virtualEncoder is what the virtual board's encoder makes of four pictures of
// 72×40: SPS, PPS, an IDR picture and three that repeat it.
const virtualEncoder = "000000016742c02895a15f965c05a808080a000003000200000300791e1108d40000000168ce3c80000000016588804a2727272727272727272727272727278000000001419a02282100000001419a04282100000001419a062821"

// withoutVUI cuts the VUI off.
func withoutVUI(tb testing.TB, sps []byte) []byte {
	tb.Helper()
	s, err := ParseSPS(sps)
	if err != nil {
		tb.Fatal(err)
	}
	c := newTranscript(nal.Unescape(sps[4:]))
	s.readCoding(&c.in)
	c.keep()
	c.out.U(2, 0b01) // no VUI, stop bit
	return nal.Escape(slices.Clone(sps[:4]), c.out.Bytes())
}

// rewritten replaces the parameter sets in a byte stream.
func rewritten(tb testing.TB, annexB []byte, rewrite func([]byte) []byte) []byte {
	tb.Helper()
	var out []byte
	for unit := range AnnexB(annexB) {
		if Type(unit) == TypeSPS {
			unit = rewrite(unit)
		}
		out = append(append(out, 0, 0, 0, 1), unit...)
	}
	return out
}

func must(tb testing.TB, v VUI) func([]byte) []byte {
	tb.Helper()
	return func(sps []byte) []byte {
		out, err := RewriteSPS(sps, v)
		if err != nil {
			tb.Fatal(err)
		}
		return out
	}
}

// A probed is what ffprobe says of a stream.
type probed struct {
	Width        int    `json:"width"`
	Height       int    `json:"height"`
	Range        string `json:"color_range"`
	Space        string `json:"color_space"`
	Transfer     string `json:"color_transfer"`
	Primaries    string `json:"color_primaries"`
	Rate         string `json:"r_frame_rate"`
	BFrames      int    `json:"has_b_frames"`
	SampleAspect string `json:"sample_aspect_ratio"`
	Frames       string `json:"nb_read_frames"`
}

func probe(t *testing.T, annexB []byte) probed {
	t.Helper()
	cmd := exec.Command("ffprobe", "-v", "error", "-f", "h264", "-show_streams", "-count_frames", "-of", "json", "-")
	cmd.Stdin = bytes.NewReader(annexB)
	var told bytes.Buffer
	cmd.Stderr = &told
	out, err := cmd.Output()
	if err != nil || told.Len() > 0 {
		t.Fatalf("ffprobe: %v %s (make test installs it)", err, told.String())
	}
	var all struct{ Streams []probed }
	if err := json.Unmarshal(out, &all); err != nil || len(all.Streams) != 1 {
		t.Fatalf("ffprobe: %v %s", err, out)
	}
	return all.Streams[0]
}

// x264 codes a test picture.
func x264(t *testing.T, size string, extra ...string) []byte {
	t.Helper()
	args := append([]string{"-v", "error", "-f", "lavfi", "-i", "testsrc2=size=" + size + ":rate=25", "-frames:v", "6", "-pix_fmt", "yuv420p", "-c:v", "libx264", "-bf", "0"}, extra...)
	out, err := exec.Command("ffmpeg", append(args, "-f", "h264", "-")...).Output()
	if err != nil {
		t.Fatalf("ffmpeg %v: %v (make test installs it)", args, err)
	}
	return out
}

func TestFFprobeReadsWhatWasRewritten(t *testing.T) {
	limited := VUI{Primaries: 1, Transfer: 1, Matrix: 1, UnitsInTick: 1, TimeScale: 100}
	for _, tt := range []struct {
		name   string
		stream []byte
		v      VUI
		bare   bool // the VUI is cut off before
		want   probed
	}{
		{"high profile", x264(t, "640x360"), bt709, false, probed{640, 360, "pc", "bt709", "bt709", "bt709", "30000/1001", 0, "1:1", "6"}},
		{"without a VUI", x264(t, "640x360"), limited, true, probed{640, 360, "tv", "bt709", "bt709", "bt709", "50/1", 0, "", "6"}},
		{"cropped", x264(t, "322x182", "-profile:v", "main"), limited, true, probed{322, 182, "tv", "bt709", "bt709", "bt709", "50/1", 0, "", "6"}},
		{"baseline", x264(t, "320x180", "-profile:v", "baseline"), bt709, false, probed{320, 180, "pc", "bt709", "bt709", "bt709", "30000/1001", 0, "1:1", "6"}},
		{"HRD, scaling lists and wide samples", x264(t, "640x360", "-b:v", "1M", "-maxrate", "1M", "-bufsize", "1M", "-x264-params", "nal-hrd=cbr:cqm=jvt", "-vf", "setsar=4/3"), limited, false, probed{640, 360, "tv", "bt709", "bt709", "bt709", "50/1", 0, "4:3", "6"}},
		{"the virtual encoder", unhex(t, virtualEncoder), bt709, false, probed{72, 40, "pc", "bt709", "bt709", "bt709", "30000/1001", 0, "1:1", "4"}},
		{"the timing stays", unhex(t, virtualEncoder), VUI{Primaries: 9, Transfer: 14, Matrix: 9}, false, probed{72, 40, "tv", "bt2020nc", "bt2020-10", "bt2020", "30/1", 0, "1:1", "4"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stream := tt.stream
			if tt.bare {
				stream = rewritten(t, stream, func(sps []byte) []byte { return withoutVUI(t, sps) })
			}
			if got := probe(t, rewritten(t, stream, must(t, tt.v))); got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestRewriteSPSGolden(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"the virtual encoder", "6742c02895a15f965c05a808080a000003000200000300791e1108d4", "6742c02895a15f965c05b808080a000007d20001d4c11e1108d4"},
		{"x264 high", "6764001facd9405005bb011000000300100000030320f1831960", "6764001facd9405005bb016e020202800001f480007530478c192c"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := RewriteSPS(unhex(t, tt.in), bt709)
			if err != nil || !bytes.Equal(got, unhex(t, tt.want)) {
				t.Errorf("got %x, %v, want %s", got, err, tt.want)
			}
		})
	}
}

func TestRewriteSPSRefusesDamage(t *testing.T) {
	sps := unhex(t, "6764001facd9405005bb011000000300100000030320f1831960")
	for n := range len(sps) - 2 {
		if _, err := RewriteSPS(sps[:n], bt709); !errors.Is(err, ErrSPS) {
			t.Errorf("cut to %d bytes: got %v", n, err)
		}
	}
	for i, what := range map[int]string{1: "profile 0", 3: "level 0"} {
		bad := slices.Clone(sps)
		bad[i] = 0
		if _, err := RewriteSPS(bad, bt709); !errors.Is(err, ErrSPS) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

// TestRewriteSPSKeepsTheNumberOfReferences is what keeps decoders from both
// holding pictures back and dropping some that they still need.
func TestRewriteSPSKeepsTheNumberOfReferences(t *testing.T) {
	stream := x264(t, "320x180", "-refs", "4")
	out, err := RewriteSPS(first(t, stream), bt709)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseSPS(out)
	if err != nil || s.RefFrames != 4 || s.Reorder != 0 {
		t.Fatalf("got %+v, %v", s, err)
	}
	if buffers := lastUE(t, out); buffers != 4 {
		t.Errorf("max_dec_frame_buffering is %d, want 4", buffers)
	}
}

func first(t *testing.T, annexB []byte) []byte {
	t.Helper()
	for nal := range AnnexB(annexB) {
		if Type(nal) == TypeSPS {
			return nal
		}
	}
	t.Fatal("no SPS")
	return nil
}

// lastUE reads max_dec_frame_buffering, the last code of a rewritten SPS.
func lastUE(t *testing.T, sps []byte) uint32 {
	t.Helper()
	var s SPS
	s.Profile, s.ChromaFormat = sps[1], 1
	r := nal.NewReader(nal.Unescape(sps[4:]))
	s.readCoding(r)
	r.U(1)
	s.readAspect(r)
	if r.Flag() {
		s.readSignal(r)
	}
	skipChromaSites(r)
	if r.Flag() {
		s.readTiming(r)
	}
	skipBuffering(r)
	r.U(2)
	for range 5 {
		r.UE()
	}
	v := r.UE()
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	return v
}

func FuzzRewriteSPS(f *testing.F) {
	for _, s := range []string{
		"6764001facd9405005bb011000000300100000030320f1831960", "6742c01ed9005005bb0110000003001000000303c0f162e480",
		"6742c02895a15f965c05a808080a000003000200000300791e1108d4", "674d400a9a740a0b60220000030002000003006478",
	} {
		f.Add(unhex(f, s), byte(1), byte(13), byte(0), true, uint32(0), uint32(3))
		f.Add(unhex(f, s), byte(0), byte(0), byte(0), false, uint32(1), uint32(256))
	}
	f.Fuzz(func(t *testing.T, nal []byte, primaries, transfer, matrix byte, full bool, units, scale uint32) {
		v := VUI{primaries, transfer, matrix, full, units, scale}
		out, err := RewriteSPS(nal, v)
		if err != nil {
			return
		}
		want, err := ParseSPS(nal)
		if err != nil {
			t.Fatalf("rewrote what cannot be read: %v", err)
		}
		want.Primaries, want.Transfer, want.Matrix, want.FullRange, want.Reorder = primaries, transfer, matrix, full, 0
		if units > 0 && scale > 0 {
			want.FPS = float64(scale) / float64(units) / 2
		}
		if got, err := ParseSPS(out); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		if bytes.Contains(out, []byte{0, 0, 0}) || bytes.Contains(out, []byte{0, 0, 1}) || bytes.Contains(out, []byte{0, 0, 2}) {
			t.Errorf("%x looks like a start code", out)
		}
		if twice, err := RewriteSPS(out, v); err != nil || !bytes.Equal(twice, out) {
			t.Errorf("once %x, twice %x, %v", out, twice, err)
		}
	})
}
