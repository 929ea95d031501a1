package streamtest

import (
	"encoding/json"
	"math"
	"strconv"
	"testing"

	"encoderd.example/stream"
	"encoderd.example/stream/streamtest/peer"
)

// A received packet is what ffprobe says about one.
type received struct {
	Type string `json:"codec_type"`
	Time string `json:"pts_time"`
	Size string `json:"size"`
}

// CheckLive has ffprobe read an address at which a [Source] of m is served in
// real time, for more seconds of media than m lasts, and checks that every unit
// arrives, once, in order and in time: units are known by their sizes.
func (m *Media) CheckLive(tb testing.TB, address string, seconds int) {
	tb.Helper()
	out := peer.Output(tb, "ffprobe", "-v", "error", "-read_intervals", "%+"+strconv.Itoa(seconds),
		"-show_entries", "packet=codec_type,pts_time,size", "-of", "json", address)
	var found struct{ Packets []received }
	if err := json.Unmarshal(out, &found); err != nil {
		tb.Fatal(err)
	}
	picture, sound := m.circle(tb, m.Video, found.Packets), m.circle(tb, m.Audio, found.Packets)
	if offset := math.Remainder(picture-sound, m.Length().Seconds()); math.Abs(offset) > 0.001 {
		tb.Errorf("sound is %v s off the picture", offset)
	}
}

// circle checks that the packets of a track are consecutive ones of endless
// rounds, and returns the player's time at the beginning of a round.
func (m *Media) circle(tb testing.TB, track *stream.Track, packets []received) (zero float64) {
	tb.Helper()
	var want []*stream.Unit
	for _, u := range m.Units {
		if u.Track == track && u.DTS < m.Length() {
			want = append(want, u)
		}
	}
	kind := map[bool]string{true: "video", false: "audio"}[track.Codec.Video()]
	var got []received
	for _, p := range packets {
		if p.Type == kind {
			got = append(got, p)
		}
	}
	if len(got) < len(want) {
		tb.Fatalf("only %d units of %s", len(got), kind)
	}
	for first := range want {
		if !follows(want, first, got) {
			continue
		}
		at, err := strconv.ParseFloat(got[0].Time, 64)
		if err != nil {
			tb.Fatal(err)
		}
		return at - want[first].PTS.Seconds()
	}
	tb.Fatalf("%d units of %s are not consecutive ones in a circle of %d", len(got), kind, len(want))
	return 0
}

func follows(want []*stream.Unit, first int, got []received) bool {
	for i, p := range got {
		if p.Size != strconv.Itoa(len(want[(first+i)%len(want)].Data)) {
			return false
		}
	}
	return true
}
