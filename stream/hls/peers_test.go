package hls

import (
	"bytes"
	"context"
	"net/http/httptest"
	"strings"
	"testing"

	"encoderd.example/stream"
	"encoderd.example/stream/cmaf"
	"encoderd.example/stream/streamtest"
	"encoderd.example/stream/streamtest/peer"
)

// play serves media in real time, over and over, and returns the address. past
// changes the units of the round before the first player comes.
func play(t *testing.T, m *streamtest.Media, past func(*stream.Unit)) string {
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
	for _, u := range source.Round() {
		past(u)
		r.Publish(u)
	}
	runAll(t, s.Segments.Run, s.Run, func(ctx context.Context) error {
		source.Run(ctx, r)
		return nil
	})
	web := httptest.NewServer(s.Handler())
	t.Cleanup(web.Close)
	return web.URL
}

func TestFFprobeGetsEveryUnitOnceAndInOrder(t *testing.T) {
	for index, newMedia := range map[string]func(testing.TB, int) *streamtest.Media{
		"/live/index.m3u8": streamtest.NewMedia, "/live/test/index.m3u8": streamtest.NewMediaH265,
	} {
		t.Run(index, func(t *testing.T) {
			m := newMedia(t, 4*streamtest.FPS)
			m.CheckLive(t, play(t, m, asItIs)+index, 6)
		})
	}
}

func asItIs(*stream.Unit) {}

func TestFFprobeReadsOverABreak(t *testing.T) {
	m := streamtest.NewMedia(t, 4*streamtest.FPS)
	other := *m.Video
	other.Setup = bytes.Clone(other.Setup)
	other.Setup[3]++ // a higher level of H.264, which changes nothing for the decoder
	address := play(t, m, func(u *stream.Unit) {
		if u.Track == m.Video {
			u.Track = &other
		}
	})
	m.CheckLive(t, address+"/live/test/index.m3u8", 6)
}

func TestFFmpegDecodesEveryPictureUndamaged(t *testing.T) {
	m := streamtest.NewMedia(t, 4*streamtest.FPS)
	out := peer.Output(t, "ffmpeg", "-v", "error", "-i", play(t, m, asItIs)+"/live/test/index.m3u8", "-map", "0:v",
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
