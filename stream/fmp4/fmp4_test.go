package fmp4_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/Eyevinn/mp4ff/mp4"
	"go.uber.org/goleak"

	"encoderd.example/stream"
	"encoderd.example/stream/fmp4"
	"encoderd.example/stream/streamtest"
	"encoderd.example/stream/streamtest/peer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the golden files anew")

// The parameter sets are those of libx264 and libx265 for 320×180 pictures.
var (
	avc  = &stream.Track{Codec: stream.H264, Setup: unhex("0142c00dffe100196742c00dd9014196ffc0080009a80001c2000003000200000300641e2c5a8001000468cb83cb20"), Width: 320, Height: 180, FPS: 25, Bitrate: 600_000}
	hevc = &stream.Track{Codec: stream.H265, Setup: unhex("01" + "01" + "60000000" + "900000000000" + "3c" + "f000fcfdf8f800000f00"), Width: 320, Height: 180, FPS: 25}
	aac  = &stream.Track{Codec: stream.AAC, Setup: []byte{0x11, 0x90}, Rate: 48000, Channels: 2, Bitrate: 128_000}
	opus = &stream.Track{Codec: stream.Opus, Rate: 48000, Channels: 2, Bitrate: 96_000}
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func ExampleFragment() {
	file, _ := fmp4.AppendInit(nil, avc)
	key := &stream.Unit{Track: avc, Key: true, PTS: time.Hour, DTS: time.Hour, Data: []byte{0, 0, 0, 1, 0x65}}
	sample := fmp4.SampleOf(key, time.Hour+40*time.Millisecond)
	chunk := net.Buffers(fmp4.Fragment(1, fmp4.Run{Track: 1, Time: fmp4.Ticks(key.DTS, fmp4.Scale(avc)), Samples: []fmp4.Sample{sample}}))
	fmt.Println(string(file[4:8]), len(chunk), sample.Duration)
	// Output: ftyp 2 3600
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".hex")
	if *update {
		var text bytes.Buffer
		for line := range slices.Chunk(got, 32) {
			fmt.Fprintf(&text, "%x\n", line)
		}
		if err := os.WriteFile(path, text.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := unhex(string(bytes.ReplaceAll(text, []byte("\n"), nil))); !bytes.Equal(got, want) {
		t.Errorf("%s differs from its golden bytes (-update writes them anew):\n%x", name, got)
	}
}

func TestInitSegmentsKeepTheirBytes(t *testing.T) {
	for name, tracks := range map[string][]*stream.Track{
		"init-avc": {avc}, "init-hevc": {hevc}, "init-aac": {aac}, "init-opus": {opus}, "init-avc-aac": {avc, aac},
	} {
		got, err := fmp4.AppendInit(nil, tracks...)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, got)
	}
}

func TestFragmentsKeepTheirBytes(t *testing.T) {
	run := fmp4.Run{Track: 1, Time: 1 << 33, Samples: []fmp4.Sample{
		{Duration: 3600, Offset: 7200, Key: true, Data: []byte("key")},
		{Duration: 3600, Offset: -3600, Data: []byte("other")},
	}}
	sound := fmp4.Run{Track: 2, Time: 5, Samples: []fmp4.Sample{{Duration: 1024, Key: true, Data: []byte("aac")}}}
	chunk := fmp4.Fragment(7, run, sound)
	golden(t, "fragment", slices.Concat(chunk...))
	wall := time.Date(2026, 11, 21, 15, 0, 0, 500_000_000, time.UTC)
	golden(t, "before", fmp4.AppendReferenceTime(fmp4.AppendSegmentType(nil), 1, wall, 1<<33))
}

func TestAFragmentSharesTheUnitsMemory(t *testing.T) {
	u := &stream.Unit{Track: avc, Key: true, Data: []byte("picture")}
	chunk := fmp4.Fragment(1, fmp4.Run{Track: 1, Samples: []fmp4.Sample{fmp4.SampleOf(u, time.Second)}})
	if len(chunk) != 2 || &chunk[1][0] != &u.Data[0] {
		t.Error("the picture was copied")
	}
}

func TestCodecsAreNamedAsInRFC6381(t *testing.T) {
	high := *hevc
	high.Setup = unhex("01" + "62" + "20000000" + "b00000000001" + "78" + "f000fcfdf8f800000f00")
	tests := []struct {
		name  string
		track *stream.Track
		want  string
	}{
		{"H.264 Constrained Baseline 1.3", avc, "avc1.42c00d"},
		{"H.265 Main 2", hevc, "hvc1.1.6.L60.90"},
		{"H.265 in another space, high tier, all constraints", &high, "hvc1.A2.4.H120.B0.0.0.0.0.1"},
		{"AAC-LC", aac, "mp4a.40.2"},
		{"xHE-AAC, by escape", &stream.Track{Codec: stream.AAC, Setup: []byte{0xf9, 0x40}}, "mp4a.40.42"},
		{"Opus", opus, "opus"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := fmp4.Codec(test.track)
			if err != nil || got != test.want {
				t.Errorf("got %q, %v; want %q", got, err, test.want)
			}
		})
	}
}

func TestTracksThatCannotBeWrittenAreRefused(t *testing.T) {
	for name, track := range map[string]stream.Track{
		"no codec":          {},
		"avcC cut short":    {Codec: stream.H264, Setup: []byte{1}, Width: 16, Height: 16},
		"hvcC cut short":    {Codec: stream.H265, Setup: make([]byte, 12), Width: 16, Height: 16},
		"no AAC setup":      {Codec: stream.AAC, Rate: 48000, Channels: 2},
		"AAC setup of 65":   {Codec: stream.AAC, Setup: make([]byte, 65), Rate: 48000, Channels: 2},
		"Opus of no sound":  {Codec: stream.Opus, Rate: 48000},
		"a picture of none": {Codec: stream.H264, Setup: avc.Setup},
		"a picture too big": {Codec: stream.H264, Setup: avc.Setup, Width: 1 << 16, Height: 16},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := fmp4.AppendInit([]byte("kept"), &track)
			if !errors.Is(err, fmp4.ErrTrack) || string(b) != "kept" {
				t.Errorf("got %q, %v", b, err)
			}
		})
	}
}

func TestTicksCountFromTheAbsoluteValue(t *testing.T) {
	tests := []struct {
		at    time.Duration
		scale uint32
		want  uint64
	}{
		{0, 90000, 0},
		{-time.Second, 90000, 0},
		{time.Second, 90000, 90000},
		{33_333_333, 90000, 3000},
		{10 * 365 * 24 * time.Hour, 48000, 10 * 365 * 86400 * 48000},
		{math.MaxInt64, 90000, 830103483316930},
		{math.MaxInt64, math.MaxUint32, math.MaxUint64}, // more than there can be,
	}
	for _, test := range tests {
		got := fmp4.Ticks(test.at, test.scale)
		if got != test.want {
			t.Errorf("%v at %d Hz: %d ticks, want %d", test.at, test.scale, got, test.want)
		}
		if back := fmp4.Time(got, test.scale) - max(test.at, 0); got < math.MaxUint64 && back.Abs() > time.Second/time.Duration(test.scale)+1 {
			t.Errorf("%v at %d Hz: comes back %v off", test.at, test.scale, back)
		}
	}
}

// fileOf writes media as one fragment a picture with the sound around it.
func fileOf(t *testing.T, m *streamtest.Media, shift time.Duration) []byte {
	t.Helper()
	file, err := fmp4.AppendInit(nil, m.Video, m.Audio)
	if err != nil {
		t.Fatal(err)
	}
	sequence := uint32(0)
	for _, u := range m.Units {
		u := *u
		u.PTS, u.DTS = u.PTS+shift, u.DTS+shift
		run := fmp4.Run{Track: 1, Time: fmp4.Ticks(u.DTS, fmp4.Scale(u.Track))}
		next := u.DTS + time.Second/streamtest.FPS
		if u.Track == m.Audio {
			run.Track, next = 2, u.DTS+u.Duration
		}
		run.Samples = []fmp4.Sample{fmp4.SampleOf(&u, next)}
		sequence++
		file = append(file, slices.Concat(fmp4.Fragment(sequence, run)...)...)
	}
	return file
}

func TestFFmpegDecodesEveryPictureAndAllSound(t *testing.T) {
	for name, newMedia := range map[string]func(testing.TB, int) *streamtest.Media{"h264": streamtest.NewMedia, "h265": streamtest.NewMediaH265} {
		t.Run(name, func(t *testing.T) {
			m := newMedia(t, 2*streamtest.FPS)
			path := filepath.Join(t.TempDir(), "out.mp4")
			if err := os.WriteFile(path, fileOf(t, m, 1000*time.Hour), 0o600); err != nil {
				t.Fatal(err)
			}
			if got, want := peer.PictureMD5(t, path), peer.PictureMD5(t, m.File); !slices.Equal(got, want) {
				t.Errorf("%d pictures differ from the %d made", len(got), len(want))
			}
			// The checksum of the first frame has the encoder's delay in it, which no live stream tells.
			if got, want := peer.SoundMD5(t, path), peer.SoundMD5(t, m.File); !slices.Equal(got[1:], want[1:]) {
				t.Errorf("%d frames of sound differ from the %d made", len(got), len(want))
			}
			streams := peer.Probe(t, path)
			if len(streams) != 2 || streams[0].Width != streamtest.Width || streams[0].FrameRate != "25/1" || streams[1].Codec != "aac" {
				t.Errorf("ffprobe sees %+v", streams)
			}
		})
	}
}

func TestAnotherParserReadsWhatWasWritten(t *testing.T) {
	init, err := fmp4.AppendInit(nil, opus)
	if err != nil {
		t.Fatal(err)
	}
	unit := &stream.Unit{Track: opus, PTS: time.Hour, DTS: time.Hour, Data: []byte("opus frame")}
	sample := fmp4.SampleOf(unit, time.Hour+20*time.Millisecond)
	wall := time.Unix(1_800_000_000, 250_000_000)
	media := fmp4.AppendReferenceTime(fmp4.AppendSegmentType(nil), 1, wall, 3600*48000)
	media = append(media, slices.Concat(fmp4.Fragment(9, fmp4.Run{Track: 1, Time: 3600 * 48000, Samples: []fmp4.Sample{sample, sample}})...)...)
	file, err := mp4.DecodeFile(bytes.NewReader(append(init, media...)))
	if err != nil {
		t.Fatal(err)
	}
	if entry := file.Init.Moov.Trak.Mdia.Minf.Stbl.Stsd.Opus; entry == nil || entry.ChannelCount != 2 || entry.Dops == nil {
		t.Errorf("sample entry %+v", entry)
	}
	fragment := file.Segments[0].Fragments[0]
	samples, err := fragment.GetFullSamples(file.Init.Moov.Mvex.Trex)
	if err != nil {
		t.Fatal(err)
	}
	if fragment.Moof.Mfhd.SequenceNumber != 9 || len(samples) != 2 || !bytes.Equal(samples[1].Data, unit.Data) ||
		samples[1].DecodeTime != 3600*48000+960 || !samples[1].IsSync() {
		t.Errorf("read %+v", samples)
	}
	for _, box := range file.Children {
		if prft, ok := box.(*mp4.PrftBox); ok {
			if prft.NTPTimestamp != mp4.NTP64(uint64(1_800_000_000+2_208_988_800)<<32|1<<30) || prft.MediaTime != 3600*48000 {
				t.Errorf("reference time %+v", prft)
			}
			return
		}
	}
	t.Error("no reference time")
}

func FuzzCodec(f *testing.F) {
	f.Add(byte(stream.H264), avc.Setup)
	f.Add(byte(stream.H265), hevc.Setup)
	f.Add(byte(stream.AAC), aac.Setup)
	f.Fuzz(func(t *testing.T, codec byte, setup []byte) {
		track := &stream.Track{Codec: stream.Codec(codec), Setup: setup, Width: 16, Height: 16, Rate: 48000, Channels: 2}
		b, err := fmp4.AppendInit(nil, track)
		if err != nil {
			return
		}
		for rest := b; len(rest) > 0; {
			if len(rest) < 8 || int(binary.BigEndian.Uint32(rest)) > len(rest) {
				t.Fatalf("boxes do not add up: %x", rest)
			}
			rest = rest[binary.BigEndian.Uint32(rest):]
		}
	})
}
