package rtp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/bluenviron/gortsplib/v5/pkg/format/rtph264"
	"github.com/bluenviron/gortsplib/v5/pkg/format/rtpmpeg4audio"
	"github.com/pion/rtcp"
	pion "github.com/pion/rtp"
	"go.uber.org/goleak"

	"encoderd.example/stream"
	"encoderd.example/stream/h264"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The parameter sets of a 640×360 baseline picture as libx264 writes them.
var (
	sps = unhex("6742c01ed900a02ff9610000030001000003003c0f162e48")
	pps = unhex("68cb8cb2")
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func videoTrack(tb testing.TB) *stream.Track {
	tb.Helper()
	avcC, err := h264.ConfigRecord(sps, pps)
	if err != nil {
		tb.Fatal(err)
	}
	return &stream.Track{Codec: stream.H264, Setup: avcC, Width: 640, Height: 360, FPS: 30}
}

func aacTrack() *stream.Track {
	return &stream.Track{Codec: stream.AAC, Setup: []byte{0x11, 0x90}, Rate: 48000, Channels: 2}
}

// fixed returns a packetizer whose random numbers count from 1.
func fixed(tb testing.TB, size int, tracks ...*stream.Track) *Packetizer {
	tb.Helper()
	n := uint32(0)
	count := func() uint32 { n++; return n }
	wall := func(at time.Duration) time.Time { return time.Unix(1_700_000_000, 0).Add(at) }
	p, err := newPacketizer(size, count, wall, tracks)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func picture(nals ...[]byte) []byte {
	var data []byte
	for _, nal := range nals {
		data = h264.AppendNAL(data, nal)
	}
	return data
}

// nal returns a NAL unit of n bytes that looks like noise.
func nal(header byte, n int) []byte {
	r := rand.New(rand.NewPCG(uint64(header), uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32()) | 1
	}
	b[0] = header
	return b
}

func batch(tb testing.TB, p *Packetizer, u *stream.Unit) *Batch {
	tb.Helper()
	b, err := p.Batch(u)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestGoldenBytes(t *testing.T) {
	video, hevc, sound := videoTrack(t), hevcTrack(t), aacTrack()
	opus := &stream.Track{Codec: stream.Opus, Rate: 48000, Channels: 2}
	tests := []struct {
		name   string
		tracks []*stream.Track
		unit   *stream.Unit
	}{
		{
			"key picture with reports, parameter sets and fragments",
			[]*stream.Track{video, sound},
			&stream.Unit{Track: video, Key: true, PTS: 2 * time.Second, Data: picture(nal(0x65, 300))},
		},
		{
			"small slices share a packet",
			[]*stream.Track{video},
			&stream.Unit{Track: video, Key: true, PTS: time.Second, Data: picture(sps, pps, nal(0x65, 20), nal(0x65, 21), nal(0x65, 90))},
		},
		{
			"hevc key picture with parameter sets and fragments",
			[]*stream.Track{hevc},
			&stream.Unit{Track: hevc, Key: true, PTS: time.Second, Data: picture(nal(0x4e, 20), nal(0x28, 250))},
		},
		{
			"aac frame in two pieces",
			[]*stream.Track{video, sound},
			&stream.Unit{Track: sound, PTS: time.Second, Data: nal(0x21, 150)},
		},
		{
			"opus packet",
			[]*stream.Track{opus},
			&stream.Unit{Track: opus, PTS: time.Second, Data: nal(0xfc, 40)},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := fixed(t, MinSize, tt.tracks...)
			golden(t, batch(t, p, tt.unit).Bytes(Set(0).With(Video).With(Sound)))
		})
	}
	t.Run("goodbye", func(t *testing.T) {
		golden(t, fixed(t, MinSize, video, sound).Goodbye().Bytes(Set(0).With(Video).With(Sound)))
	})
}

func golden(t *testing.T, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", filepath.Base(t.Name())+".hex")
	dump := hex.Dump(got)
	if *update {
		if err := os.WriteFile(file, []byte(dump), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if dump != string(want) {
		t.Errorf("bytes differ from %s:\n%s", file, dump)
	}
}

// packets parses the RTP packets of one medium with an independent parser.
func packets(t *testing.T, b *Batch, m Medium) []*pion.Packet {
	t.Helper()
	var all []*pion.Packet
	for ch, raw := range b.Packets(Set(0).With(m)) {
		if ch != uint8(2*m) {
			continue
		}
		p := &pion.Packet{}
		if err := p.Unmarshal(raw); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func TestPicturesSurviveAnIndependentReader(t *testing.T) {
	idr := func(n int) []byte { return nal(0x65, n) }
	tests := []struct {
		name string
		nals [][]byte
	}{
		{"one tiny slice", [][]byte{idr(1)}},
		{"one slice of exactly one packet", [][]byte{idr(188)}},
		{"one byte more than a packet", [][]byte{idr(189)}},
		{"pair that just fits a STAP-A", [][]byte{idr(91), idr(92)}},
		{"pair that just does not", [][]byte{idr(92), idr(92)}},
		{"large slice between small ones", [][]byte{idr(5), idr(5000), idr(5), idr(6)}},
		{"many slices", slices.Repeat([][]byte{idr(40)}, 30)},
		{"no slice at all", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			video := videoTrack(t)
			p := fixed(t, 200, video)
			dec := rtph264.Decoder{PacketizationMode: 1}
			if err := dec.Init(); err != nil {
				t.Fatal(err)
			}
			all := packets(t, batch(t, p, &stream.Unit{Track: video, Key: true, Data: picture(tt.nals...)}), Video)
			var got [][]byte
			for i, pkt := range all {
				if n := pkt.MarshalSize(); n > 200 {
					t.Errorf("packet %d has %d bytes, want at most 200", i, n)
				}
				if last := i == len(all)-1; pkt.Marker != last {
					t.Errorf("marker of packet %d of %d is %v", i, len(all), pkt.Marker)
				}
				au, err := dec.Decode(pkt)
				if err != nil && !errors.Is(err, rtph264.ErrMorePacketsNeeded) {
					t.Fatal(err)
				}
				got = append(got, au...)
			}
			want := append([][]byte{sps, pps}, tt.nals...)
			if !slices.EqualFunc(got, want, bytes.Equal) {
				t.Errorf("got %d NAL units, want %d, or their bytes differ", len(got), len(want))
			}
		})
	}
}

func TestSoundSurvivesAnIndependentReader(t *testing.T) {
	sound := aacTrack()
	p := fixed(t, 0, sound)
	dec := rtpmpeg4audio.Decoder{SizeLength: 13, IndexLength: 3, IndexDeltaLength: 3}
	if err := dec.Init(); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 200, 1384} {
		want := nal(0x21, size)
		all := packets(t, batch(t, p, &stream.Unit{Track: sound, Data: want}), Sound)
		got, err := dec.Decode(all[0])
		if err != nil || len(all) != 1 || len(got) != 1 || !bytes.Equal(got[0], want) {
			t.Errorf("frame of %d bytes: %d packets, %v", size, len(all), err)
		}
	}
}

// The independent reader takes the size in a fragment for the fragment's own;
// RFC 3640, 3.2.1.1 and ffmpeg take it for that of the whole.
func TestSoundFragmentsTellTheSizeOfTheWhole(t *testing.T) {
	for size, count := range map[int]int{184: 1, 185: 2, 368: 2, 369: 3, maxAAC: 45} {
		sound := aacTrack()
		want := nal(0x21, size)
		var got []byte
		all := packets(t, batch(t, fixed(t, 200, sound), &stream.Unit{Track: sound, Data: want}), Sound)
		for i, pkt := range all {
			if told := int(binary.BigEndian.Uint16(pkt.Payload[2:]) >> 3); told != size {
				t.Errorf("fragment %d tells %d bytes, want %d", i, told, size)
			}
			if pkt.Marker != (i == len(all)-1) {
				t.Errorf("marker of fragment %d of %d is %v", i, len(all), pkt.Marker)
			}
			got = append(got, pkt.Payload[4:]...)
		}
		if len(all) != count || !bytes.Equal(got, want) {
			t.Errorf("frame of %d bytes: %d packets, want %d, or its bytes differ", size, len(all), count)
		}
	}
}

func TestSequenceNumbersCountOnAcrossBatches(t *testing.T) {
	video, sound := videoTrack(t), aacTrack()
	p := fixed(t, 200, video, sound)
	var next [mediums]uint16
	for i := range 100_000 / 30 {
		u := &stream.Unit{Track: video, Key: i%30 == 0, PTS: time.Duration(i) * time.Second / 30, Data: picture(nal(0x41, 20*188))}
		if i%3 == 0 {
			u = &stream.Unit{Track: sound, PTS: u.PTS, Data: nal(0x21, 30)}
		}
		b := batch(t, p, u)
		if i > 1 && b.Seq != next {
			t.Fatalf("batch %d announces %v, want %v", i, b.Seq, next)
		}
		next = b.Seq
		for _, pkt := range packets(t, b, b.medium) {
			if pkt.SequenceNumber != next[b.medium] || pkt.Timestamp != b.Time[b.medium] {
				t.Fatalf("batch %d: packet %d at %d, want %d at %d", i, pkt.SequenceNumber, pkt.Timestamp, next[b.medium], b.Time[b.medium])
			}
			next[b.medium]++
		}
	}
}

func TestTimeStampsComeFromTheAbsoluteTime(t *testing.T) {
	f := flow{clock: 48000}
	for _, n := range []int64{0, 1, 47, 1_000_000, 48000 * 3600 * 24 * 400 / 1024} {
		at := time.Duration(n * 1024 / 48000 * 1e9)
		at += time.Duration(n * 1024 % 48000 * 1e9 / 48000)
		if got, want := f.stamp(at), uint32(n*1024); got != want {
			t.Errorf("frame %d at %v: stamp %d, want %d", n, at, got, want)
		}
	}
}

func TestReportsTieSoundToPicture(t *testing.T) {
	video, sound := videoTrack(t), aacTrack()
	p := fixed(t, 0, video, sound)
	both := Set(0).With(Video).With(Sound)
	key := func(at time.Duration) *stream.Unit {
		return &stream.Unit{Track: video, Key: true, PTS: at, Data: picture(nal(0x65, 100))}
	}
	delta := func(at time.Duration) *stream.Unit {
		return &stream.Unit{Track: video, PTS: at, Data: picture(nal(0x41, 100))}
	}
	tests := []struct {
		name string
		unit *stream.Unit
		want bool
	}{
		{"first unit", delta(10 * time.Second), true},
		{"picture after it", delta(11 * time.Second), false},
		{"key picture", key(12 * time.Second), true},
		{"just before five seconds", delta(17*time.Second - 1), false},
		{"five seconds, by sound", &stream.Unit{Track: sound, PTS: 17 * time.Second, Data: []byte{1, 2}}, true},
		{"clock went back", delta(time.Second), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reports := map[uint8]*rtcp.SenderReport{}
			for ch, raw := range batch(t, p, tt.unit).Packets(both) {
				if ch%2 == 0 {
					continue
				}
				all, err := rtcp.Unmarshal(raw)
				if err != nil {
					t.Fatal(err)
				}
				if c := rtcp.CompoundPacket(all); c.Validate() != nil {
					t.Errorf("compound packet: %v", c.Validate())
				}
				reports[ch] = all[0].(*rtcp.SenderReport)
			}
			if got := len(reports) == 2; got != tt.want {
				t.Fatalf("%d reports, want two: %v", len(reports), tt.want)
			}
			if !tt.want {
				return
			}
			if reports[1].NTPTime != reports[3].NTPTime {
				t.Error("the media tell different instants")
			}
			at := tt.unit.PTS
			if got, want := reports[1].RTPTime, p.flows[Video].stamp(at); got != want {
				t.Errorf("video report at %d, want %d", got, want)
			}
			if got, want := reports[3].RTPTime, p.flows[Sound].stamp(at); got != want {
				t.Errorf("sound report at %d, want %d", got, want)
			}
		})
	}
}

func TestReaderOfOneMediumGetsItAlone(t *testing.T) {
	video, sound := videoTrack(t), aacTrack()
	for _, u := range []*stream.Unit{
		{Track: video, Key: true, Data: picture(nal(0x65, 3000))},
		{Track: sound, Data: nal(0x21, 100)},
	} {
		b := batch(t, fixed(t, 0, video, sound), u)
		for m := range mediums {
			count := 0
			for ch := range b.Packets(Set(0).With(m)) {
				if Medium(ch/2) != m {
					t.Errorf("%v: reader of medium %d got channel %d", u.Track.Codec, m, ch)
				}
				count++
			}
			if count == 0 {
				t.Errorf("%v: reader of medium %d got no report", u.Track.Codec, m)
			}
		}
		if b.Bytes(0) != nil {
			t.Errorf("%v: reader of nothing got bytes", u.Track.Codec)
		}
	}
}

func TestTrackChanges(t *testing.T) {
	video, sound := videoTrack(t), aacTrack()
	p := fixed(t, 0, video, sound)

	next := videoTrack(t)
	next.Setup = bytes.Clone(next.Setup)
	next.Setup[len(next.Setup)-1]++ // another PPS
	b := batch(t, p, &stream.Unit{Track: next, Key: true, Data: picture(nal(0x65, 10))})
	if !bytes.Contains(b.buf, next.Setup[len(next.Setup)-len(pps):]) {
		t.Error("key picture of the new track does not carry the new parameter sets")
	}
	if _, err := p.Batch(&stream.Unit{Track: aacTrack(), Data: []byte{1}}); err != nil {
		t.Errorf("equal sound under a new pointer: %v", err)
	}
	faster := aacTrack()
	faster.Rate = 44100
	if _, err := p.Batch(&stream.Unit{Track: faster, Data: []byte{1}}); !errors.Is(err, ErrChanged) {
		t.Errorf("sound of another rate: %v, want ErrChanged", err)
	}
	opus := &stream.Unit{Track: &stream.Track{Codec: stream.Opus}, Data: []byte{1}}
	if b, err := p.Batch(opus); b != nil || err != nil {
		t.Errorf("codec outside the session: %v, %v; want nothing", b, err)
	}
}

func TestWhatCannotBeSentIsRefused(t *testing.T) {
	video, sound := videoTrack(t), aacTrack()
	tests := []struct {
		name   string
		size   int
		tracks []*stream.Track
	}{
		{"packets too small", MinSize - 1, []*stream.Track{video}},
		{"packets too large", 1 << 16, []*stream.Track{video}},
		{"two sounds", 0, []*stream.Track{sound, {Codec: stream.Opus}}},
		{"broken avcC", 0, []*stream.Track{{Codec: stream.H264, Setup: []byte{1, 2}}}},
		{"aac without setup", 0, []*stream.Track{{Codec: stream.AAC, Rate: 48000}}},
		{"broken hvcC", 0, []*stream.Track{{Codec: stream.H265, Setup: []byte{1, 2}}}},
		{"unknown codec", 0, []*stream.Track{{Codec: 99}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := NewPacketizer(tt.size, tt.tracks...); err == nil {
				t.Error("was taken")
			}
		})
	}
	p := fixed(t, 0, sound)
	if _, err := p.Batch(&stream.Unit{Track: sound, Data: make([]byte, maxAAC+1)}); err == nil {
		t.Error("aac frame beyond 13 bits was taken")
	}
}

func TestBatchTakesItsMemoryOnce(t *testing.T) {
	video, sound := videoTrack(t), aacTrack()
	p := fixed(t, 0, video, sound)
	units := []*stream.Unit{
		{Track: video, Key: true, Data: picture(nal(0x65, 90_000))},
		{Track: video, Data: picture(nal(0x06, 20), nal(0x41, 9000), nal(0x41, 9000))},
		{Track: video, Data: picture(slices.Repeat([][]byte{nal(0x41, 3)}, 500)...)},
		{Track: sound, Data: nal(0x21, 340)},
	}
	testMemory(t, p, units)
	video = hevcTrack(t)
	testMemory(t, fixed(t, 0, video), []*stream.Unit{
		{Track: video, Key: true, Data: picture(nal(0x28, 90_000))},
		{Track: video, Data: picture(slices.Repeat([][]byte{nal(0x02, 3)}, 500)...)},
	})
}

func testMemory(t *testing.T, p *Packetizer, units []*stream.Unit) {
	t.Helper()
	for i, u := range units {
		if n := p.bound(u); len(batch(t, p, u).buf) > n {
			t.Errorf("unit %d needs more than its bound of %d bytes", i, n)
		}
		if n := testing.AllocsPerRun(100, func() { batch(t, p, u) }); n > 4 {
			t.Errorf("unit %d: %v allocations, want at most 4", i, n)
		}
	}
}

func TestParseRTCP(t *testing.T) {
	block := rtcp.ReceptionReport{SSRC: 7, FractionLost: 128, TotalLost: 0xfffffe, LastSequenceNumber: 99, Jitter: 5}
	rr, err := rtcp.Marshal([]rtcp.Packet{
		&rtcp.ReceiverReport{SSRC: 1, Reports: []rtcp.ReceptionReport{block}},
		rtcp.NewCNAMESourceDescription(1, "x"),
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseRTCP(rr)
	want := ReceiverReport{SSRC: 7, Fraction: 128, Lost: -2, Highest: 99, Jitter: 5}
	if err != nil || len(got) != 1 || got[0] != want {
		t.Fatalf("got %+v, %v; want %+v", got, err, want)
	}
	for name, bad := range map[string][]byte{
		"empty":                nil,
		"cut inside the block": rr[:20],
		"wrong version":        append([]byte{0x41}, rr[1:]...),
		"begins with SDES":     rr[32:],
		"more blocks than fit": append([]byte{0x9f}, rr[1:]...),
		"trailing byte":        append(bytes.Clone(rr), 0),
	} {
		if _, err := ParseRTCP(bad); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
}

func FuzzParseRTCP(f *testing.F) {
	f.Add(unhex("81c9000700000001000000078000000200000063000000050000000000000000"))
	f.Add(unhex("80c9000100000001"))
	f.Add(unhex("80c9000100000001ffcbffff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		reports, err := ParseRTCP(b)
		if err == nil && len(reports)*4*reportWords > len(b) {
			t.Errorf("%d reports out of %d bytes", len(reports), len(b))
		}
	})
}

// FuzzPackets checks the framing of whatever an encoder may publish.
func FuzzPackets(f *testing.F) {
	f.Add(picture(nal(0x65, 500)), true, uint16(200), false)
	f.Add(picture(nal(0x28, 500)), true, uint16(200), true)
	f.Add(picture(sps, pps, nal(0x65, 1), nal(0x65, 1)), false, uint16(128), false)
	f.Add([]byte{0, 0, 0, 9, 1}, true, uint16(0), true)
	f.Fuzz(func(t *testing.T, data []byte, key bool, size uint16, hevc bool) {
		video, sound := videoTrack(t), aacTrack()
		if hevc {
			video = hevcTrack(t)
		}
		p, err := NewPacketizer(int(size), video, sound)
		if err != nil {
			return
		}
		for _, u := range []*stream.Unit{{Track: video, Key: key, Data: data}, {Track: sound, Data: data}} {
			bound := p.bound(u)
			b, err := p.Batch(u)
			if err != nil {
				continue
			}
			if len(b.buf) > bound {
				t.Errorf("%d bytes exceed the bound of %d", len(b.buf), bound)
			}
			for rest := b.buf; len(rest) > 0; {
				n := int(binary.BigEndian.Uint16(rest[2:]))
				if rest[0] != '$' || n > p.size && rest[1]%2 == 0 {
					t.Fatalf("frame header % x", rest[:4])
				}
				rest = rest[4+n:]
			}
		}
	})
}

// BenchmarkBatch measures the one packetisation per unit that all readers of a
// rendition share: 25 kB is a picture of 6 Mbit/s at 30 pictures a second.
func BenchmarkBatch(b *testing.B) {
	video, sound := videoTrack(b), aacTrack()
	for name, u := range map[string]*stream.Unit{
		"picture of 25 kB":      {Track: video, Data: picture(nal(0x41, 25_000))},
		"key picture of 100 kB": {Track: video, Key: true, Data: picture(nal(0x65, 100_000))},
		"aac frame":             {Track: sound, Data: nal(0x21, 340)},
	} {
		b.Run(name, func(b *testing.B) {
			p := fixed(b, 0, video, sound)
			b.SetBytes(int64(len(u.Data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.Batch(u); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
