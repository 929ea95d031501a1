package h265

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// code lets libx265 write 20 pictures, so that the readers are held against a
// writer that is not ours.
func code(t *testing.T, size, pixels, params string) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "coded.mp4")
	cmd := exec.Command("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=rate=25:size="+size,
		"-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", pixels, "-x265-params", "log-level=error:keyint=5:"+params,
		"-frames:v", "20", "-tag:v", "hvc1", file)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s (make test installs it)", cmd, err, out)
	}
	return file
}

// bytestream returns the pictures of a file as a byte stream with an access
// unit delimiter before each.
func bytestream(t *testing.T, file string) []byte {
	t.Helper()
	out, err := exec.Command("ffmpeg", "-v", "error", "-i", file, "-c", "copy", "-bsf:v", "hevc_mp4toannexb,hevc_metadata=aud=insert", "-f", "hevc", "-").Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func firstOf(t *testing.T, coded []byte, typ byte) []byte {
	t.Helper()
	for nal := range AnnexB(coded) {
		if Type(nal) == typ {
			return nal
		}
	}
	t.Fatalf("x265 wrote no NAL unit of type %d", typ)
	return nil
}

func TestReadsWhatX265Writes(t *testing.T) {
	for _, tt := range []struct {
		name, size, pixels, params string
		want                       SPS
	}{
		{"main, no window", "320x192", "yuv420p", "bframes=0", SPS{Profile: 1, ChromaFormat: 1, BitDepthLuma: 8, BitDepthChroma: 8, Width: 320, Height: 192}},
		{"1080 lines need a window", "1920x1080", "yuv420p", "bframes=0:level-idc=4.1:high-tier=0", SPS{Profile: 1, Level: 123, ChromaFormat: 1, BitDepthLuma: 8, BitDepthChroma: 8, Width: 1920, Height: 1080}},
		{"a window on two sides", "322x182", "yuv420p", "bframes=0", SPS{Profile: 1, ChromaFormat: 1, BitDepthLuma: 8, BitDepthChroma: 8, Width: 322, Height: 182}},
		{"main 10", "320x180", "yuv420p10le", "bframes=0", SPS{Profile: 2, ChromaFormat: 1, BitDepthLuma: 10, BitDepthChroma: 10, Width: 320, Height: 180}},
		{"4:2:2", "322x182", "yuv422p", "bframes=0", SPS{Profile: 4, ChromaFormat: 2, BitDepthLuma: 8, BitDepthChroma: 8, Width: 322, Height: 182}},
		{"4:4:4", "322x182", "yuv444p", "bframes=0", SPS{Profile: 4, ChromaFormat: 3, BitDepthLuma: 8, BitDepthChroma: 8, Width: 322, Height: 182}},
		{"pictures out of order", "320x180", "yuv420p", "bframes=3:b-adapt=0:b-pyramid=1", SPS{Profile: 1, ChromaFormat: 1, BitDepthLuma: 8, BitDepthChroma: 8, Width: 320, Height: 180, Reorder: 2}},
		{"high tier", "640x360", "yuv420p", "bframes=0:level-idc=5:high-tier=1:bitrate=50000:vbv-maxrate=50000:vbv-bufsize=50000", SPS{Profile: 1, HighTier: true, Level: 150, ChromaFormat: 1, BitDepthLuma: 8, BitDepthChroma: 8, Width: 640, Height: 360}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := code(t, tt.size, tt.pixels, tt.params)
			coded := bytestream(t, file)
			sps := firstOf(t, coded, TypeSPS)
			got, err := ParseSPS(sps)
			if err != nil {
				t.Fatal(err)
			}
			want := tt.want
			want.SubLayers = max(want.SubLayers, 1)
			if want.Level == 0 {
				want.Level = got.Level
			}
			if got.general[0] == 0 || got.Level == 0 {
				t.Errorf("no profile or level: %+v", got)
			}
			told := SPS{Profile: got.Profile, HighTier: got.HighTier, Level: got.Level, SubLayers: got.SubLayers, ChromaFormat: got.ChromaFormat, BitDepthLuma: got.BitDepthLuma, BitDepthChroma: got.BitDepthChroma, Width: got.Width, Height: got.Height, Reorder: got.Reorder}
			if told != want {
				t.Errorf("got %+v\nwant %+v", told, want)
			}
			checkRecord(t, file, firstOf(t, coded, TypeVPS), sps, firstOf(t, coded, TypePPS))
			checkPictures(t, coded)
		})
	}
}

// checkRecord compares our hvcC with that in ffmpeg's file. Rates and what
// decoders could do side by side, bytes 13 to 15 and 19 to 20, ffmpeg may say.
func checkRecord(t *testing.T, file string, vps, sps, pps []byte) {
	t.Helper()
	ours, err := ConfigRecord(vps, sps, pps)
	if err != nil {
		t.Fatal(err)
	}
	mp4, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, theirs, ok := bytes.Cut(mp4, []byte("hvcC"))
	if !ok || len(theirs) < len(ours) {
		t.Fatal("ffmpeg wrote no hvcC")
	}
	same := func(from, to int) bool { return bytes.Equal(ours[from:to], theirs[from:to]) }
	if !same(0, 13) || !same(16, 19) || ours[21]&^0xc0 != theirs[21]&^0xc0 {
		t.Errorf("hvcC\nours   %x\ntheirs %x", ours[:fixedSize], theirs[:fixedSize])
	}
	for what, record := range map[string][]byte{"ours": ours, "theirs": theirs} {
		v, s, p, err := ParameterSets(record)
		if err != nil || !bytes.Equal(v, vps) || !bytes.Equal(s, sps) || !bytes.Equal(p, pps) {
			t.Errorf("%s: read back %x, %x, %x, %v", what, v, s, p, err)
		}
	}
	for n := range ours {
		if _, _, _, err := ParameterSets(ours[:n]); err == nil {
			t.Fatalf("accepted an hvcC cut to %d bytes", n)
		}
	}
}

// checkPictures counts pictures and keys: each begins with one first slice.
func checkPictures(t *testing.T, coded []byte) {
	t.Helper()
	pictures, keys := 0, 0
	var unit []byte
	end := func() {
		if IsKey(unit) {
			keys++
		}
		unit = nil
	}
	for nal := range AnnexB(coded) {
		switch {
		case Type(nal) == TypeAUD:
			end()
			continue
		case FirstSlice(nal):
			pictures++
		}
		unit = AppendNAL(unit, nal)
	}
	end()
	if pictures != 20 || keys != 4 {
		t.Errorf("%d pictures with %d keys, want 20 with 4", pictures, keys)
	}
}

// The parameter sets of a picture of 70×50, main profile, as libx265 writes
// them.
const (
	goldenVPS = "40010c01ffff01600000030090000003000003001eba0240"
	goldenSPS = "42010101600000030090000003000003001ea028810734465ba4a4c2f0168080000003008000000784"
	goldenPPS = "4401c073c189"
	// Three temporal sub-layers that each say something else of themselves: put
	// together by hand, 64×48, high tier.
	layeredSPS = "42010521600000030090000003000003005dd00021600000030090000003000003003c5aa02083165ada91e0"
)

func TestConfigRecordGoldenBytes(t *testing.T) {
	vps, sps, pps := unhex(t, goldenVPS), unhex(t, goldenSPS), unhex(t, goldenPPS)
	got, err := ConfigRecord(vps, sps, pps)
	if err != nil {
		t.Fatal(err)
	}
	want := "01" + "01" + "60000000" + "900000000000" + "1e" + "f000" + "fc" + "fd" + "f8" + "f8" + "0000" + "0f" + "03" +
		"a000010018" + goldenVPS + "a100010029" + goldenSPS + "a200010006" + goldenPPS
	if hex.EncodeToString(got) != want {
		t.Errorf("got  %x\nwant %s", got, want)
	}
	for what, sets := range map[string][3][]byte{
		"in the wrong order": {sps, vps, pps}, "none": {}, "the last missing": {vps, sps, nil},
		"too long": {append(bytes.Clone(vps), make([]byte, 1<<16)...), sps, pps}, "SPS cut": {vps, sps[:20], pps},
	} {
		if _, err := ConfigRecord(sets[0], sets[1], sets[2]); err == nil {
			t.Errorf("parameter sets %s were taken", what)
		}
	}
}

func TestKeysAreThePicturesThatDecodingCanStartAt(t *testing.T) {
	for typ := range byte(64) {
		nal := []byte{typ << 1, 1, 0x80}
		if got, want := IsKey(AppendNAL(nil, nal)), typ >= 16 && typ <= 21; got != want {
			t.Errorf("type %d: key %v", typ, got)
		}
		if got, want := FirstSlice(nal), typ < 32; got != want || IsSlice(nal) != want || Type(nal) != typ {
			t.Errorf("type %d: first slice %v", typ, got)
		}
	}
	for _, nal := range [][]byte{nil, {0x26}, {0x26, 1}, {0x26, 1, 0x7f}} {
		if FirstSlice(nal) || len(nal) < 2 && (IsSlice(nal) || IsRandomAccess(nal)) {
			t.Errorf("%x is taken for the first slice of a picture", nal)
		}
	}
}

func TestParseSPSRefusesDamage(t *testing.T) {
	sps := unhex(t, goldenSPS)
	s, err := ParseSPS(sps)
	if err != nil || s.Width != 70 || s.Height != 50 {
		t.Fatalf("whole: %+v, %v", s, err)
	}
	for n := range 20 {
		if _, err := ParseSPS(sps[:n]); !errors.Is(err, ErrSPS) {
			t.Errorf("cut to %d bytes: got %v", n, err)
		}
	}
}

func TestSubLayersArePassedOver(t *testing.T) {
	s, err := ParseSPS(unhex(t, layeredSPS))
	if err != nil {
		t.Fatal(err)
	}
	if s.SubLayers != 3 || !s.HighTier || s.Level != 93 || s.Width != 64 || s.Height != 48 || s.Reorder != 2 {
		t.Errorf("got %+v", s)
	}
}

func FuzzParseSPS(f *testing.F) {
	f.Add(unhex(f, goldenSPS))
	f.Add(unhex(f, layeredSPS))
	f.Fuzz(func(t *testing.T, nal []byte) {
		s, err := ParseSPS(nal)
		if err == nil && (s.Width <= 0 || s.Height <= 0 || s.Width > largest || s.Height > largest || s.SubLayers > 7) {
			t.Errorf("accepted %+v", s)
		}
	})
}

func FuzzParameterSets(f *testing.F) {
	record, err := ConfigRecord(unhex(f, goldenVPS), unhex(f, goldenSPS), unhex(f, goldenPPS))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(record)
	f.Fuzz(func(t *testing.T, hvcC []byte) {
		vps, sps, pps, err := ParameterSets(hvcC)
		if err == nil && (Type(vps) != TypeVPS || Type(sps) != TypeSPS || Type(pps) != TypePPS) {
			t.Errorf("accepted %x, %x, %x", vps, sps, pps)
		}
	})
}
