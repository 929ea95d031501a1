package hls

import (
	"context"
	"encoding/json"
	"math"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"encoderd.example/stream"
	"encoderd.example/stream/cmaf"
	"encoderd.example/stream/streamtest"
	"encoderd.example/stream/streamtest/peer"
)

// A probed packet is what ffprobe says about one.
type probed struct {
	Type string `json:"codec_type"`
	Time string `json:"pts_time"`
	Size string `json:"size"`
}

// play serves media in real time, over and over, and returns the address.
func play(t *testing.T, m *streamtest.Media) string {
	t.Helper()
	r := m.Rendition(2048)
	s := &Server{
		Find:     func(string) *stream.Rendition { return r },
		Names:    func() []string { return []string{r.Name} },
		Segments: &cmaf.Segmenter{},
		Audience: &stream.Audience{},
	}
	source := &streamtest.Source{Media: m, Start: stream.Monotonic() - 2*m.Length()}
	source.PublishAll(r)
	source.PublishAll(r)
	runAll(t, s.Segments.Run, s.Run, func(ctx context.Context) error {
		source.Run(ctx, r)
		return nil
	})
	web := httptest.NewServer(s.Handler())
	t.Cleanup(web.Close)
	return web.URL
}

func TestFFprobeGetsEveryUnitOnceAndInOrder(t *testing.T) {
	for name, newMedia := range map[string]func(testing.TB, int) *streamtest.Media{"h264": streamtest.NewMedia, "h265": streamtest.NewMediaH265} {
		t.Run(name, func(t *testing.T) {
			m := newMedia(t, 4*streamtest.FPS)
			address := play(t, m)
			for _, index := range []string{"/live/index.m3u8", "/live/test/index.m3u8"} {
				out := peer.Output(t, "ffprobe", "-v", "error", "-read_intervals", "%+6",
					"-show_entries", "packet=codec_type,pts_time,size", "-of", "json", address+index)
				var found struct{ Packets []probed }
				if err := json.Unmarshal(out, &found); err != nil {
					t.Fatal(err)
				}
				picture := follow(t, m, m.Video, found.Packets)
				sound := follow(t, m, m.Audio, found.Packets)
				if offset := math.Remainder(picture-sound, m.Length().Seconds()); math.Abs(offset) > 0.001 {
					t.Errorf("sound is %v s off the picture", offset)
				}
			}
		})
	}
}

// follow checks that the packets of a track are consecutive ones of endless
// rounds of media, known by their sizes, and returns the player's time at the
// beginning of a round.
func follow(t *testing.T, m *streamtest.Media, track *stream.Track, packets []probed) (zero float64) {
	t.Helper()
	var want []*stream.Unit
	for _, u := range m.Units {
		if u.Track == track && u.DTS < m.Length() {
			want = append(want, u)
		}
	}
	kind := map[bool]string{true: "video", false: "audio"}[track.Codec.Video()]
	var got []probed
	for _, p := range packets {
		if p.Type == kind {
			got = append(got, p)
		}
	}
	if len(got) < len(want) {
		t.Fatalf("only %d units of %s", len(got), kind)
	}
	for first := range want {
		if fits(want, first, got) {
			at, err := strconv.ParseFloat(got[0].Time, 64)
			if err != nil {
				t.Fatal(err)
			}
			return at - want[first].PTS.Seconds()
		}
	}
	t.Fatalf("%d units of %s are not %d consecutive ones in a circle", len(got), kind, len(want))
	return 0
}

func fits(want []*stream.Unit, first int, got []probed) bool {
	for i, p := range got {
		if p.Size != strconv.Itoa(len(want[(first+i)%len(want)].Data)) {
			return false
		}
	}
	return true
}

func TestFFmpegDecodesEveryPictureUndamaged(t *testing.T) {
	m := streamtest.NewMedia(t, 4*streamtest.FPS)
	out := peer.Output(t, "ffmpeg", "-v", "error", "-i", play(t, m)+"/live/test/index.m3u8", "-map", "0:v",
		"-frames:v", "120", "-fps_mode", "passthrough", "-f", "framemd5", "-")
	want := peer.PictureMD5(t, m.File)
	place := map[string]int{}
	for i, sum := range want {
		place[sum] = i
	}
	next, n := -1, 0
	for line := range strings.Lines(string(out)) {
		if line[0] == '#' {
			continue
		}
		fields := strings.Split(strings.TrimSpace(line), ",")
		at, ok := place[strings.TrimSpace(fields[len(fields)-1])]
		if !ok || next >= 0 && at != next {
			t.Fatalf("picture %d is number %d (known: %v), want %d", n, at, ok, next)
		}
		next, n = (at+1)%len(want), n+1
	}
	if n != 120 {
		t.Errorf("%d pictures", n)
	}
}
