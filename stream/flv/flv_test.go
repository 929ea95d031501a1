package flv_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"encoderd.example/stream"
	"encoderd.example/stream/flv"
	"encoderd.example/stream/flv/amf0"
	"encoderd.example/stream/streamtest"
	"encoderd.example/stream/streamtest/peer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	video = &stream.Track{Codec: stream.H264, Setup: []byte{1, 0x64, 0, 0x1f}, Width: 1920, Height: 1080, FPS: 25, Bitrate: 6_000_000}
	hevc  = &stream.Track{Codec: stream.H265, Setup: []byte{1, 2, 3}}
	sound = &stream.Track{Codec: stream.AAC, Setup: []byte{0x11, 0x90}, Rate: 48000, Channels: 2, Bitrate: 128_000}
)

func ExampleMuxer() {
	mux, _ := flv.NewMuxer([]*stream.Track{video, sound}, "example")
	file := flv.AppendFileHeader(nil, mux.HasAudio())
	key := &stream.Unit{Track: video, Key: true, PTS: time.Hour, DTS: time.Hour, Data: []byte{0, 0, 0, 1, 0x65}}
	_ = mux.Next(key, func(t flv.Tag) error {
		fmt.Println(t.Kind, t.Time, t.Config)
		file = flv.AppendFrame(file, t)
		return nil
	})
	// Output:
	// 18 0 true
	// 9 0 true
	// 8 0 true
	// 9 0 false
}

func TestWritersWriteTheBytesOfTheSpecification(t *testing.T) {
	tag := flv.Tag{Kind: flv.Video, Time: 0x12345678, Head: []byte{1, 2}, Data: []byte{3}}
	tests := []struct {
		name string
		got  []byte
		want string
	}{
		{"key picture", flv.AppendVideo(nil, true, 40*time.Millisecond), "17 01 000028"},
		{"picture that is shown before it is decoded", flv.AppendVideo(nil, false, -time.Millisecond), "27 01 ffffff"},
		{"composition time is rounded", flv.AppendVideo(nil, false, 33_600*time.Microsecond), "27 01 000022"},
		{"AVC sequence header", flv.AppendVideoConfig(nil, video), "17 00 000000 0164001f"},
		{"key picture of H.265", flv.AppendEnhanced(nil, true, 40*time.Millisecond), "91 68766331 000028"},
		{"picture of H.265", flv.AppendEnhanced(nil, false, 0), "a1 68766331 000000"},
		{"HEVC sequence start", flv.AppendVideoConfig(nil, hevc), "90 68766331 010203"},
		{"sound", flv.AppendAudio(nil), "af 01"},
		{"AAC sequence header", flv.AppendAudioConfig(nil, sound), "af 00 1190"},
		{"file header with sound", flv.AppendFileHeader(nil, true), "464c56 01 05 00000009 00000000"},
		{"file header without sound", flv.AppendFileHeader(nil, false), "464c56 01 01 00000009 00000000"},
		{"tag with all 32 bits of time", flv.AppendFrame(nil, tag), "09 000003 345678 12 000000 010203 0000000e"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if want := unhex(t, tt.want); !bytes.Equal(tt.got, want) {
				t.Errorf("got %x, want %x", tt.got, want)
			}
		})
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMetadataSaysWhatIsInside(t *testing.T) {
	values, err := amf0.Decode(flv.AppendMetadata(nil, video, sound, "encoderd"))
	if err != nil || len(values) != 2 || values[0] != amf0.String("onMetaData") {
		t.Fatal(values, err)
	}
	want := "[{duration 0} {width 1920} {height 1080} {framerate 25} {videodatarate 6000} {videocodecid 7} " +
		"{audiodatarate 128} {audiosamplerate 48000} {audiosamplesize 16} {audiochannels 2} {stereo true} {audiocodecid 10} {encoder encoderd}]"
	if got := fmt.Sprint(values[1]); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := flv.AppendMetadata(nil, video, nil, "encoderd"); bytes.Contains(got, []byte("audio")) {
		t.Error("a picture without sound has sound in its metadata")
	}
}

// unit writes "v" for a picture, "V" for a key picture, "a" for sound, with a
// digit for the track: the test's shorthand.
func unit(t *testing.T, tracks map[byte]*stream.Track, short string, at time.Duration) *stream.Unit {
	t.Helper()
	track := tracks[strings.ToLower(short)[0]+short[1]]
	if track == nil {
		t.Fatalf("no track for %q", short)
	}
	return &stream.Unit{Track: track, Key: short[0] == 'V', PTS: at, DTS: at, Data: []byte(short)}
}

func TestMuxerDecidesWhatIsSent(t *testing.T) {
	video2, sound2 := *video, *sound
	opus := &stream.Track{Codec: stream.Opus}
	tracks := map[byte]*stream.Track{'v' + '1': video, 'v' + '2': &video2, 'a' + '1': sound, 'a' + '2': &sound2, 'o' + '1': opus}
	tests := []struct{ name, in, want string }{
		{"begins with a key picture", "v1 V1 v1", "M0 vh0 ah0 V0 v40"},
		{"sound comes after the first picture", "a1 V1 a1", "M0 vh0 ah0 V0 a40"},
		{"the encoder's new track brings metadata and header", "V1 v1 V2 v2", "M0 vh0 ah0 V0 v40 M80 vh80 V80 v120"},
		{"a new track that begins in mid-group waits for its key", "V1 v2 a1 v2 V2", "M0 vh0 ah0 V0 a80 M160 vh160 V160"},
		{"new sound brings metadata and header", "V1 a1 a2 v1 a2", "M0 vh0 ah0 V0 a40 M80 ah80 a80 v120 a160"},
		{"sound that changed before the start is not announced twice", "a2 V1 a2", "M0 vh0 ah0 V0 a40"},
		{"other codecs are left out", "o1 V1 o1 v1", "M0 vh0 ah0 V0 v80"},
		{"a pause ends at a key picture, until which there is no sound", "V1 v1 || v1 a1 V1 a1", "M0 vh0 ah0 V0 v40 M200 vh200 V200 a240"},
		{"a pause before anything was sent is none", "|| a1 V1 v1", "M0 vh0 ah0 V0 v40"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mux, err := flv.NewMuxer([]*stream.Track{video, sound, opus}, "encoderd")
			if err != nil {
				t.Fatal(err)
			}
			inOneGo, err := flv.NewMuxer([]*stream.Track{video, sound, opus}, "encoderd")
			if err != nil {
				t.Fatal(err)
			}
			var got, plain []string
			for i, short := range strings.Fields(tt.in) {
				if short == "||" {
					mux.Resume()
					inOneGo.Resume()
					continue
				}
				u := unit(t, tracks, short, time.Hour+time.Duration(i)*40*time.Millisecond)
				if err := mux.Next(u, func(tag flv.Tag) error { got = append(got, describe(tag)); return nil }); err != nil {
					t.Fatal(err)
				}
				if err := next(inOneGo, u, func(tag flv.Tag) error { plain = append(plain, describe(tag)); return nil }); err != nil {
					t.Fatal(err)
				}
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("got %s, want %s", s, tt.want)
			}
			if s := strings.Join(plain, " "); s != tt.want {
				t.Errorf("with plain units in one go: %s, want %s", s, tt.want)
			}
		})
	}
}

// next is Next by way of Plain, where that will do.
func next(mux *flv.Muxer, u *stream.Unit, emit func(flv.Tag) error) error {
	if at, ok := mux.Plain(u); ok {
		return emit(flv.Tag{Kind: flv.KindOf(u), Time: at, Key: u.Key, Head: flv.AppendHead(nil, u), Data: u.Data})
	}
	return mux.Next(u, emit)
}

func TestAPlainUnitIsTheTagThatNextMakes(t *testing.T) {
	for _, picture := range []*stream.Track{video, hevc} {
		var muxers [2]*flv.Muxer
		for i := range muxers {
			var err error
			if muxers[i], err = flv.NewEnhancedMuxer([]*stream.Track{picture, sound}, "encoderd"); err != nil {
				t.Fatal(err)
			}
		}
		plain := 0
		for i := range 8 {
			at := time.Hour + time.Duration(i)*33*time.Millisecond
			for _, u := range []*stream.Unit{
				{Track: picture, Key: i%3 == 0, PTS: at + 40*time.Millisecond, DTS: at, Data: []byte{1, 2}},
				{Track: sound, PTS: at, DTS: at, Data: []byte{3}},
			} {
				var want flv.Tag
				if err := muxers[0].Next(u, func(tag flv.Tag) error { want = tag; return nil }); err != nil {
					t.Fatal(err)
				}
				if _, ok := muxers[1].Plain(u); ok {
					plain++
					if err := next(muxers[1], u, func(tag flv.Tag) error {
						if !reflect.DeepEqual(tag, want) {
							t.Errorf("got %+v, want %+v", tag, want)
						}
						return nil
					}); err != nil {
						t.Fatal(err)
					}
				} else if err := muxers[1].Next(u, func(flv.Tag) error { return nil }); err != nil {
					t.Fatal(err)
				}
			}
		}
		if plain != 15 {
			t.Errorf("%d of 16 units are plain", plain)
		}
	}
}

// describe names a tag: kind, then time in milliseconds.
func describe(tag flv.Tag) string {
	name := map[flv.Kind]string{flv.Video: "v", flv.Audio: "a", flv.Script: "M"}[tag.Kind]
	switch {
	case tag.Config && tag.Kind != flv.Script:
		name += "h"
	case tag.Key:
		name = "V"
	}
	return fmt.Sprint(name, tag.Time)
}

func TestTimeIsRoundedFromTheStartAndWraps(t *testing.T) {
	mux, err := flv.NewMuxer([]*stream.Track{video}, "encoderd")
	if err != nil {
		t.Fatal(err)
	}
	const start = 17 * time.Hour
	var last uint32
	note := func(tag flv.Tag) error { last = tag.Time; return nil }
	for _, tt := range []struct {
		at   time.Duration
		want uint32
	}{
		{0, 0},
		{time.Second / 30, 33},
		{2 * time.Second / 30, 67},
		{0xffffff * time.Millisecond, 0xffffff},
		{1<<32*time.Millisecond - time.Millisecond, 0xffffffff},
		{1<<32*time.Millisecond + 40*time.Millisecond, 40},
		{-time.Second, 0},
	} {
		if err := mux.Next(&stream.Unit{Track: video, Key: true, PTS: start + tt.at, DTS: start + tt.at}, note); err != nil {
			t.Fatal(err)
		}
		if last != tt.want {
			t.Errorf("%v became %d, want %d", tt.at, last, tt.want)
		}
	}
}

func TestARenditionWithoutH264CannotBeMuxed(t *testing.T) {
	if _, err := flv.NewMuxer([]*stream.Track{sound}, "encoderd"); err == nil {
		t.Error("accepted")
	}
}

func TestH265NeedsAnEnhancedMuxer(t *testing.T) {
	if _, err := flv.NewMuxer([]*stream.Track{hevc, sound}, "encoderd"); !errors.Is(err, flv.ErrNoVideo) {
		t.Errorf("got %v", err)
	}
	mux, err := flv.NewEnhancedMuxer([]*stream.Track{hevc, sound}, "encoderd")
	if err != nil {
		t.Fatal(err)
	}
	var heads []string
	key := &stream.Unit{Track: hevc, Key: true, PTS: time.Hour, DTS: time.Hour, Data: []byte{0, 0, 0, 1, 0x26}}
	if err := mux.Next(key, func(tag flv.Tag) error { heads = append(heads, hex.EncodeToString(tag.Head)); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(heads) != 4 || heads[1] != "9068766331010203" || heads[2] != "af001190" || heads[3] != "9168766331000000" {
		t.Errorf("got %v", heads)
	}
	if !strings.Contains(heads[0], "41da1d98cc400000") { // 'hvc1' as a number
		t.Errorf("metadata %s", heads[0])
	}
}

func TestAMuxerWithoutSoundLeavesItOut(t *testing.T) {
	mux, err := flv.NewMuxer([]*stream.Track{video}, "encoderd")
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range []*stream.Unit{{Track: video, Key: true}, {Track: sound, DTS: time.Second}} {
		if err := mux.Next(u, func(tag flv.Tag) error {
			if tag.Kind == flv.Audio || bytes.Contains(tag.Head, []byte("audio")) {
				t.Errorf("a tag of kind %d: %x", tag.Kind, tag.Head)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTagsShareTheMemoryOfTheUnit(t *testing.T) {
	mux, _ := flv.NewMuxer([]*stream.Track{video}, "encoderd")
	u := &stream.Unit{Track: video, Key: true, Data: []byte{1}}
	errCopied := errors.New("the media was copied")
	emit := func(tag flv.Tag) error {
		if !tag.Config && &tag.Data[0] != &u.Data[0] {
			return errCopied
		}
		return nil
	}
	var err error
	if n := testing.AllocsPerRun(100, func() { err = errors.Join(err, mux.Next(u, emit)) }); n > 0 || err != nil {
		t.Errorf("%v allocations a unit, %v", n, err)
	}
}

func TestFFprobeReadsTheFile(t *testing.T) {
	m := streamtest.NewMedia(t, 75)
	mux, err := flv.NewMuxer([]*stream.Track{m.Video, m.Audio}, "encoderd")
	if err != nil {
		t.Fatal(err)
	}
	b := flv.AppendFileHeader(nil, mux.HasAudio())
	for _, u := range m.Units {
		if err := mux.Next(u, func(tag flv.Tag) error { b = flv.AppendFrame(b, tag); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "out.flv")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := peer.PictureMD5(t, file); !slices.Equal(got, peer.PictureMD5(t, m.File)) {
		t.Errorf("%d pictures, and not the ones that went in", len(got))
	}
	if got := len(peer.SoundMD5(t, file)); got != m.Count(stream.AAC) {
		t.Errorf("%d frames of sound, want %d", got, m.Count(stream.AAC))
	}
	streams := peer.Probe(t, file)
	if len(streams) != 2 || streams[0].Width != streamtest.Width || streams[0].FrameRate != "25/1" || streams[1].SampleRate != "48000" {
		t.Errorf("streams: %+v", streams)
	}
}
