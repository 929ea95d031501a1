package ts_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"encoderd.example/stream"
	"encoderd.example/stream/h264"
	"encoderd.example/stream/streamtest"
	"encoderd.example/stream/streamtest/peer"
	"encoderd.example/stream/ts"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	video = &stream.Track{Codec: stream.H264, Width: 640, Height: 360, FPS: 25, Setup: []byte{
		1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 5, 0x67, 0x42, 0xc0, 0x1e, 0xd9, 1, 0, 3, 0x68, 0xcb, 0x83,
	}}
	sound = &stream.Track{Codec: stream.AAC, Setup: []byte{0x11, 0x90}, Rate: 48000, Channels: 2}
	opus  = &stream.Track{Codec: stream.Opus, Rate: 48000, Channels: 2}
)

func picture(track *stream.Track, key bool, at time.Duration, size int) *stream.Unit {
	nal := bytes.Repeat([]byte{0xaa}, size)
	nal[0] = 0x41
	if key {
		nal[0] = 0x65
	}
	return &stream.Unit{Track: track, Key: key, PTS: at, DTS: at, Data: h264.AppendNAL(nil, nal)}
}

func frame(track *stream.Track, at time.Duration, size int) *stream.Unit {
	return &stream.Unit{Track: track, PTS: at, DTS: at, Duration: 20 * time.Millisecond, Data: bytes.Repeat([]byte{0xbb}, size)}
}

func newMuxer(t *testing.T, tracks ...*stream.Track) *ts.Muxer {
	t.Helper()
	m, err := ts.NewMuxer(tracks...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func batch(t *testing.T, m *ts.Muxer, u *stream.Unit) []byte {
	t.Helper()
	b, err := m.Batch(u)
	if err != nil {
		t.Fatal(err)
	}
	if b == nil {
		t.Fatal("the unit was left out")
	}
	if len(b.Data)%ts.PacketSize != 0 || b.Key != u.Key || b.DTS != u.DTS {
		t.Errorf("batch of %d bytes, key %v, at %v", len(b.Data), b.Key, b.DTS)
	}
	return b.Data
}

func ExampleMuxer() {
	mux, _ := ts.NewMuxer(video, sound)
	b, _ := mux.Batch(picture(video, true, time.Hour, 1000))
	fmt.Println(b.Key, len(b.Data)/ts.PacketSize, "packets")
	// Output: true 8 packets
}

func TestBytesAreGolden(t *testing.T) {
	second := *sound
	tests := []struct {
		name   string
		tracks []*stream.Track
		units  []*stream.Unit
	}{
		{"key picture, then sound", []*stream.Track{video, sound}, []*stream.Unit{
			picture(video, true, 26*time.Hour, 300), frame(sound, 26*time.Hour+10*time.Millisecond, 20),
		}},
		{"opus of 300 bytes", []*stream.Track{video, opus}, []*stream.Unit{frame(opus, time.Second, 300)}},
		{"picture that is shown later", []*stream.Track{video}, []*stream.Unit{{
			Track: video, PTS: 1040 * time.Millisecond, DTS: time.Second, Data: []byte{0, 0, 0, 2, 0x41, 1},
		}}},
		{"the same sound anew", []*stream.Track{video, sound}, []*stream.Unit{frame(sound, 0, 5), frame(&second, time.Millisecond, 5)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMuxer(t, tt.tracks...)
			var got []byte
			for _, u := range tt.units {
				got = append(got, batch(t, m, u)...)
			}
			golden(t, strings.NewReplacer(" ", "_", ",", "").Replace(tt.name), got)
		})
	}
}

// golden compares packets, one a line, trailing stuffing left out.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	var lines strings.Builder
	for p := range slices.Chunk(got, ts.PacketSize) {
		lines.WriteString(hex.EncodeToString(p) + "\n")
	}
	file := filepath.Join("testdata", name+".hex")
	if *update {
		if err := os.WriteFile(file, []byte(lines.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if lines.String() != string(want) {
		t.Errorf("got\n%swant\n%s", lines.String(), want)
	}
}

// A receiver follows what a decoder's buffer model looks at.
type receiver struct {
	counters map[uint16]byte
	clocks   []time.Duration
	tables   int
}

func (r *receiver) take(t *testing.T, data []byte) {
	t.Helper()
	for p := range slices.Chunk(data, ts.PacketSize) {
		pid := binary.BigEndian.Uint16(p[1:]) & 0x1fff
		counter, payload := p[3]&0xf, p[3]&0x10 != 0
		last, known := r.counters[pid]
		if want := (last + 1) & 0xf; p[0] != 0x47 || payload && known && counter != want || !payload && known && counter != last {
			t.Fatalf("pid %#x: counter %d after %d, payload %v", pid, counter, last, payload)
		}
		if payload {
			r.counters[pid] = counter
		}
		if pid == 0 {
			r.tables++
		}
		if p[3]&0x20 != 0 && p[4] > 0 && p[5]&0x10 != 0 {
			base := uint64(binary.BigEndian.Uint32(p[6:]))<<1 | uint64(p[10]>>7)
			r.clocks = append(r.clocks, time.Duration(base)*time.Second/90_000)
		}
	}
}

func TestClockAndTablesComeInTime(t *testing.T) {
	m := newMuxer(t, video, sound)
	r := &receiver{counters: map[uint16]byte{}}
	for i := range 400 { // 8 s, of which the camera is away for 2
		at := time.Duration(i) * 20 * time.Millisecond
		if i%2 == 0 && (i < 100 || i >= 200) {
			r.take(t, batch(t, m, picture(video, i%100 == 0, at, 100+37*i)))
		}
		r.take(t, batch(t, m, frame(sound, at+30*time.Millisecond, 180)))
	}
	for i := 1; i < len(r.clocks); i++ {
		if d := r.clocks[i] - r.clocks[i-1]; d <= 0 || d > 101*time.Millisecond {
			t.Errorf("clock goes from %v to %v", r.clocks[i-1], r.clocks[i])
		}
	}
	if r.tables < 12 || r.tables > 25 {
		t.Errorf("tables came %d times in 6 s of pictures", r.tables)
	}
}

func TestTracksThatCannotBeCarried(t *testing.T) {
	badADTS, badOpus := *sound, *opus
	badADTS.Setup, badOpus.Channels = []byte{0xf8, 0, 0}, 6
	for name, tracks := range map[string][]*stream.Track{
		"no tracks": nil, "no picture": {sound}, "no parameter sets": {{Codec: stream.H264}}, "odd AAC": {video, &badADTS},
		"AAC without setup": {video, {Codec: stream.AAC}}, "six channels of Opus": {video, &badOpus}, "no codec": {{}},
	} {
		if _, err := ts.NewMuxer(tracks...); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := ts.NewMuxer(sound); !errors.Is(err, ts.ErrNoVideo) {
		t.Errorf("got %v", err)
	}
	m := newMuxer(t, video, sound)
	if b, err := m.Batch(frame(opus, 0, 10)); b != nil || err != nil {
		t.Errorf("a codec that is not carried: %v, %v", b, err)
	}
	if b, err := m.Batch(frame(sound, 0, 9000)); b != nil || err != nil {
		t.Errorf("a frame of 9000 bytes: %v, %v", b, err)
	}
	if _, err := m.Batch(frame(&badADTS, 0, 10)); err == nil {
		t.Error("a track that went bad: no error")
	}
}

func TestAChangedProgramMapHasANewVersion(t *testing.T) {
	m := newMuxer(t, video, opus)
	version := func(data []byte) byte { return data[ts.PacketSize+10] >> 1 & 0x1f }
	before := version(batch(t, m, picture(video, true, 0, 10)))
	mono := *opus
	mono.Channels = 1
	if after := version(batch(t, m, frame(&mono, time.Millisecond, 10))); after != before+1 {
		t.Errorf("version %d after %d", after, before)
	}
}

func TestParameterSetsInTheUnitAreNotDoubled(t *testing.T) {
	m := newMuxer(t, video)
	u := picture(video, true, 0, 10)
	u.Data = append(h264.AppendNAL(h264.AppendNAL(nil, []byte{h264.TypeAUD, 0x10}), []byte{0x67, 0x42, 0xc0, 0x1e, 0xd9}), u.Data...)
	data := batch(t, m, u)
	if n := bytes.Count(data, []byte{0, 0, 0, 1, 0x67}); n != 1 {
		t.Errorf("%d sequence parameter sets", n)
	}
	if n := bytes.Count(data, []byte{0, 0, 0, 1, 9}); n != 1 {
		t.Errorf("%d delimiters", n)
	}
}

// write writes units as a file.
func write(t *testing.T, units []*stream.Unit, tracks ...*stream.Track) string {
	t.Helper()
	m := newMuxer(t, tracks...)
	r := &receiver{counters: map[uint16]byte{}}
	var data []byte
	for _, u := range units {
		b := batch(t, m, u)
		r.take(t, b)
		data = append(data, b...)
	}
	file := filepath.Join(t.TempDir(), "out.ts")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

type probed struct {
	Stream int    `json:"stream_index"`
	PTS    string `json:"pts_time"`
	Size   string `json:"size"`
}

func probe(t *testing.T, file string) (streams []peer.Stream, packets [2][]probed) {
	t.Helper()
	var found struct{ Packets []probed }
	if err := json.Unmarshal(peer.Output(t, "ffprobe", "-v", "error", "-show_packets", "-of", "json", file), &found); err != nil {
		t.Fatal(err)
	}
	for _, p := range found.Packets {
		packets[p.Stream] = append(packets[p.Stream], p)
	}
	return peer.Probe(t, file), packets
}

// The hour of the start makes the 33 bits of time wrap in mid-file.
func TestFFmpegDecodesEveryUnitInStep(t *testing.T) {
	const wrap = time.Duration(1<<33) * time.Second / 90_000
	for name, m := range map[string]*streamtest.Media{
		"h264": streamtest.NewMedia(t, 4*streamtest.FPS), "hevc": streamtest.NewMediaH265(t, 4*streamtest.FPS),
	} {
		for when, start := range map[string]time.Duration{"from the first hour": time.Hour, "over the wrap": wrap - 2*time.Second} {
			t.Run(name+" "+when, func(t *testing.T) {
				units := (&streamtest.Source{Media: m, Start: start}).Round()
				file := write(t, units, m.Video, m.Audio)
				if got, want := peer.PictureMD5(t, file), peer.PictureMD5(t, m.File); !slices.Equal(got, want) {
					t.Errorf("%d pictures came through, %d were sent, or they are not the same", len(got), len(want))
				}
				streams, packets := probe(t, file)
				if len(streams) != 2 || streams[0].Codec != name || streams[1].Codec != "aac" || streams[0].Width != streamtest.Width {
					t.Errorf("streams %+v", streams)
				}
				inStep(t, units, packets)
			})
		}
	}
}

func inStep(t *testing.T, units []*stream.Unit, packets [2][]probed) {
	t.Helper()
	var want [2][]*stream.Unit
	for _, u := range units {
		i := 1
		if u.Track.Codec.Video() {
			i = 0
		}
		want[i] = append(want[i], u)
	}
	first, err := strconv.ParseFloat(packets[0][0].PTS, 64)
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if len(packets[i]) != len(want[i]) {
			t.Fatalf("stream %d: %d packets, want %d", i, len(packets[i]), len(want[i]))
		}
		for n, u := range want[i] {
			pts, err := strconv.ParseFloat(packets[i][n].PTS, 64)
			if err != nil {
				t.Fatal(err)
			}
			if off := pts - first - (u.PTS - units[0].PTS).Seconds(); math.Abs(off) > 0.0001 {
				t.Fatalf("stream %d, packet %d is %v s off its time", i, n, off)
			}
		}
	}
}

func TestFFprobeFindsOpus(t *testing.T) {
	var units []*stream.Unit
	for i := range 100 {
		at := time.Duration(i) * 20 * time.Millisecond
		if i%2 == 0 {
			units = append(units, picture(video, i%50 == 0, at, 500))
		}
		// CELT, 20 ms, stereo: silence, padded to lengths about the step of 255.
		u := frame(opus, at, 3)
		u.Data = append([]byte{0xfc, 0xff, 0xfe}, make([]byte, i*6)...)
		units = append(units, u)
	}
	streams, packets := probe(t, write(t, units, video, opus))
	if len(streams) != 2 || streams[1].Codec != "opus" || streams[1].Channels != 2 {
		t.Fatalf("streams %+v", streams)
	}
	for i, p := range packets[1] {
		if p.Size != strconv.Itoa(3+i*6) {
			t.Fatalf("packet %d has %s bytes, want %d", i, p.Size, 3+i*6)
		}
	}
	if len(packets[1]) != 100 {
		t.Errorf("%d packets of sound", len(packets[1]))
	}
}

func FuzzMuxer(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0x65}, video.Setup, sound.Setup, int64(0), true)
	f.Add([]byte{0, 0, 0, 9, 0x65}, []byte{1}, []byte{0x2b, 0x11, 0x88, 0}, int64(1)<<62, false)
	f.Fuzz(func(t *testing.T, data, avcC, asc []byte, at int64, key bool) {
		v, a := &stream.Track{Codec: stream.H264, Setup: avcC}, &stream.Track{Codec: stream.AAC, Setup: asc}
		m, err := ts.NewMuxer(v, a)
		if err != nil {
			return
		}
		for _, u := range []*stream.Unit{
			{Track: v, Key: key, PTS: time.Duration(at), DTS: time.Duration(at), Data: data},
			{Track: a, PTS: time.Duration(at), DTS: time.Duration(at), Data: data},
		} {
			b, err := m.Batch(u)
			if err != nil {
				t.Fatal(err)
			}
			if b == nil {
				continue
			}
			if len(b.Data)%ts.PacketSize != 0 || len(b.Data) != cap(b.Data) && cap(b.Data)-len(b.Data) > 6*ts.PacketSize {
				t.Errorf("%d bytes of %d", len(b.Data), cap(b.Data))
			}
		}
	})
}
