package h264

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os/exec"
	"testing"
)

func TestOnlyAnIDRPictureIsAKey(t *testing.T) {
	for typ := range byte(32) {
		unit := AppendNAL(AppendNAL(nil, []byte{TypeAUD, 0xf0}), []byte{typ | 0x60, 1})
		if got, want := IsKey(unit), typ == TypeIDR; got != want {
			t.Errorf("type %d: key %v", typ, got)
		}
	}
}

// spsOf lets libx264 write a parameter set, so that the reader is held against
// a writer that is not ours.
func spsOf(t *testing.T, args ...string) []byte {
	t.Helper()
	args = append([]string{"-v", "error", "-f", "lavfi"}, args...)
	args = append(args, "-frames:v", "1", "-f", "h264", "-")
	out, err := exec.Command("ffmpeg", args...).Output()
	if err != nil {
		t.Fatalf("ffmpeg %v: %v (make test installs it)", args, err)
	}
	for nal := range AnnexB(out) {
		if Type(nal) == TypeSPS {
			return nal
		}
	}
	t.Fatal("ffmpeg wrote no SPS")
	return nil
}

func TestParseSPSReadsWhatX264Writes(t *testing.T) {
	tests := []struct {
		name          string
		size, profile string
		rate          string
		extra         []string
		wantProfile   byte
		width, height int
		fps           float64
	}{
		{"high 1080p needs cropping", "1920x1080", "high", "30", nil, 100, 1920, 1080, 30},
		{"main", "1280x720", "main", "50", nil, 77, 1280, 720, 50},
		{"baseline", "320x180", "baseline", "15", nil, 66, 320, 180, 15},
		{"NTSC rate", "640x360", "high", "30000/1001", nil, 100, 640, 360, 30000.0 / 1001},
		{"odd crop", "322x182", "high", "25", nil, 100, 322, 182, 25},
		{"HRD", "640x360", "high", "25", []string{"-b:v", "1M", "-maxrate", "1M", "-bufsize", "1M", "-x264-params", "nal-hrd=cbr"}, 100, 640, 360, 25},
		{"scaling lists", "640x360", "high", "25", []string{"-x264-params", "cqm=jvt"}, 100, 640, 360, 25},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := []string{"-i", "color=size=" + tt.size + ":rate=" + tt.rate, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-profile:v", tt.profile, "-colorspace", "bt709", "-color_range", "tv"}
			s, err := ParseSPS(spsOf(t, append(args, tt.extra...)...))
			if err != nil {
				t.Fatal(err)
			}
			if s.Profile != tt.wantProfile || s.Width != tt.width || s.Height != tt.height {
				t.Errorf("got profile %d %dx%d", s.Profile, s.Width, s.Height)
			}
			if d := s.FPS - tt.fps; d > 0.001 || d < -0.001 {
				t.Errorf("got %v fps, want %v", s.FPS, tt.fps)
			}
			if s.FullRange || s.Matrix != 1 {
				t.Errorf("colour: full range %v, matrix %d; want limited BT.709", s.FullRange, s.Matrix)
			}
		})
	}
}

func TestConfigRecordRoundTrip(t *testing.T) {
	sps := unhex(t, "6764001facd9405005bb011000000300100000030320f1831960")
	pps := unhex(t, "68ebe3cb22c0")
	avcC, err := ConfigRecord(sps, pps)
	if err != nil {
		t.Fatal(err)
	}
	if want := append([]byte{0xfd, 0xf8, 0xf8}, 0); !bytes.HasSuffix(avcC, want) {
		t.Errorf("avcC of a high profile ends with %x, want %x", avcC[len(avcC)-4:], want)
	}
	gotSPS, gotPPS, err := ParameterSets(avcC)
	if err != nil || !bytes.Equal(gotSPS, sps) || !bytes.Equal(gotPPS, pps) {
		t.Fatalf("got %x, %x, %v", gotSPS, gotPPS, err)
	}
	for n := range len(avcC) - 4 {
		if _, _, err := ParameterSets(avcC[:n]); err == nil {
			t.Errorf("accepted an avcC cut to %d bytes", n)
		}
	}
}

func TestParseSPSRefusesDamage(t *testing.T) {
	sps := unhex(t, "6764001facd9405005bb011000000300100000030320f1831960")
	for n := range 8 {
		if _, err := ParseSPS(sps[:n]); !errors.Is(err, ErrSPS) {
			t.Errorf("cut to %d bytes: got %v", n, err)
		}
	}
}

func FuzzParseSPS(f *testing.F) {
	for _, s := range []string{"6764001facd9405005bb011000000300100000030320f1831960", "6742c01ed9005005bb0110000003001000000303c0f162e480"} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, nal []byte) {
		s, err := ParseSPS(nal)
		if err == nil && (s.Width <= 0 || s.Height <= 0 || s.Width > 1<<14 || s.Height > 1<<15) {
			t.Errorf("accepted %dx%d", s.Width, s.Height)
		}
	})
}

func FuzzParameterSets(f *testing.F) {
	f.Add(unhex(f, "0164001fffe1000467640011010002688e"))
	f.Fuzz(func(t *testing.T, avcC []byte) {
		sps, pps, err := ParameterSets(avcC)
		if err == nil && (Type(sps) != TypeSPS || Type(pps) != TypePPS) {
			t.Errorf("accepted %x, %x", sps, pps)
		}
	})
}

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}
