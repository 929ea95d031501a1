package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/h264"
	"encoderd.example/stream/streamtest"
)

func TestAPictureCarriesTheClockOfItsPublication(t *testing.T) {
	at := time.Unix(1_700_000_000, 123_456_789)
	data := append(stamps(at, 6), 0, 0, 0, 2, 0x65, 1)
	for what, data := range map[string][]byte{"whole": data, "without its first message": data[len(stamp(at)):]} {
		if got := stamped(data); !got.Equal(at) {
			t.Errorf("%s: stamped %v, want %v", what, got, at)
		}
	}
	var kinds []byte
	for unit := range h264.NALs(data) {
		kinds = append(kinds, h264.Type(unit))
		if bytes.Contains(unit, []byte{0, 0}) {
			t.Errorf("%x would have to be escaped", unit)
		}
	}
	if want := []byte{h264.TypeSEI, h264.TypeSEI, h264.TypeIDR}; !bytes.Equal(kinds, want) {
		t.Errorf("NAL units %v, want %v", kinds, want)
	}
	for name, data := range map[string][]byte{"no clock": {1, 2, 3}, "cut off": data[:30], "no number": append(stampMark, "0123456789abcdeg"...)} {
		if got := stamped(data); !got.IsZero() {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// seated returns a seat that looks and counts.
func seated() *seat {
	c := &crowd{}
	c.begun.Add(1)
	c.counts.Store(1)
	return &seat{crowd: c, looks: true, came: time.Now().Add(-time.Second)}
}

func rtpPacket(seq uint16, marker bool, payload ...byte) []byte {
	b := make([]byte, rtpHeader, rtpHeader+len(payload))
	b[0], b[1] = 0x80, 96
	if marker {
		b[1] |= 0x80
	}
	binary.BigEndian.PutUint16(b[2:], seq)
	return append(b, payload...)
}

func TestAKeyPictureIsWholeWithItsLastPacket(t *testing.T) {
	sei := stamp(time.Now().Add(-time.Minute))[4:]
	aggregate := append([]byte{typeSTAPA, 0, byte(len(sei))}, sei...)
	tests := []struct {
		name    string
		packets [][]byte
		first   bool
		looks   int // at pictures with a clock
		lost    uint64
	}{
		{"in fragments", [][]byte{rtpPacket(1, false, sei...), rtpPacket(2, false, typeFUA, 0x85, 1), rtpPacket(3, true, typeFUA, 0x45, 1)}, true, 1, 0},
		{"not yet whole", [][]byte{rtpPacket(1, false, sei...), rtpPacket(2, false, typeFUA, 0x85, 1)}, false, 0, 0},
		{"in one packet with the clock", [][]byte{rtpPacket(1, true, append(aggregate, 0, 2, 0x65, 1)...)}, true, 1, 0},
		{"no key picture", [][]byte{rtpPacket(1, false, sei...), rtpPacket(2, true, 0x41, 1, 2)}, false, 1, 0},
		{"no clock", [][]byte{rtpPacket(1, true, 0x65, 1, 2)}, true, 0, 0},
		{"two lost where numbers wrap", [][]byte{rtpPacket(0xffff, false, 0x41, 1, 2), rtpPacket(2, true, 0x41, 1, 2)}, false, 0, 2},
		{"one late", [][]byte{rtpPacket(7, false, 0x41, 1, 2), rtpPacket(6, true, 0x41, 1, 2)}, false, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := seated()
			var w flow264
			for _, p := range tt.packets {
				w.see(s, p)
			}
			if s.began() != tt.first || len(s.latency) != tt.looks || s.lost != tt.lost {
				t.Errorf("began %v, %d clocks, %d lost", s.began(), len(s.latency), s.lost)
			}
			for _, ms := range s.latency {
				if ms < 60_000 || ms > 90_000 {
					t.Errorf("latency %v ms, want a minute", ms)
				}
			}
		})
	}
}

func TestWhatWasPublishedBeforeAllHadBegunTellsNoLatency(t *testing.T) {
	s := seated()
	s.crowd.counts.Store(time.Now().UnixNano())
	s.picture(true, time.Now().Add(-time.Millisecond))
	if len(s.latency) != 0 {
		t.Errorf("latencies %v of a cached picture", s.latency)
	}
}

func TestAMissingPictureIsAGapInFLV(t *testing.T) {
	s := seated()
	var w flowFLV
	for _, ms := range []uint32{0, 33, 67, 100, 200} {
		w.see(s, ms, []byte{0x27, 1, 0, 0, 0, 0, 0, 0, 1})
	}
	w.see(s, 300, []byte{0x27, 0, 0, 0, 0, 0}) // a header has no time that counts
	if s.seen != 5 || s.lost != 2 {
		t.Errorf("%d seen, %d lost, want 5 and 2", s.seen, s.lost)
	}
}

func TestPlaylistsAreReadAsOldPlayersDo(t *testing.T) {
	const media = `#EXTM3U
#EXT-X-PART-INF:PART-TARGET=0.2
#EXT-X-MEDIA-SEQUENCE:41
#EXT-X-MAP:URI="init.mp4"
#EXTINF:1.000,
a.m4s
#EXT-X-PART:DURATION=0.2,URI="b.0.m4s"
#EXTINF:0.500,
b.m4s
#EXT-X-PART:DURATION=0.2,URI="c.0.m4s"
#EXT-X-PRELOAD-HINT:TYPE=PART,URI="c.1.m4s"
`
	first, segments, target := parseMediaList(media)
	if got := strings.Join(segments, " "); first != 41 || got != "a.m4s b.m4s" || target != 500*time.Millisecond {
		t.Errorf("segments %q from %d, each %v", got, first, target)
	}
	const all = `#EXTM3U
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="sound",URI="audio.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO="a"
video.m3u8
`
	lists, err := mediaLists(&url.URL{Path: "/live/main/index.m3u8"}, all)
	if err != nil || len(lists) != 2 || !lists[0].video || lists[0].url.Path != "/live/main/video.m3u8" || lists[1].url.Path != "/live/main/audio.m3u8" {
		t.Errorf("%v, %v", lists, err)
	}
	if _, err := mediaLists(&url.URL{}, "#EXTM3U\n"); err == nil {
		t.Error("a playlist of nothing is taken")
	}
}

func TestReadersOfEveryProtocolGetPicturesFromOurServers(t *testing.T) {
	m := streamtest.NewMedia(t, 60)
	s := &show{tracks: []*stream.Track{m.Video, m.Audio}, length: m.Length()}
	for _, u := range m.Units {
		s.units = append(s.units, *u)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	served := make(chan error, 1)
	go func() { served <- s.serve(ctx, w) }()
	var d doorway
	if err := json.NewDecoder(r).Decode(&d); err != nil {
		t.Fatal(err)
	}
	urls := ourURLs(d)
	for protocol, length := range map[string]time.Duration{
		overRTSP: time.Second, overUDP: time.Second, overRTMP: time.Second, overFLV: time.Second,
		overHLS: 6 * time.Second, // a segment that begins now has to end, and to be found
	} {
		t.Run(protocol, func(t *testing.T) {
			const readers = lookers + 2
			seen := watchFor(t, crowdJob{Protocol: protocol, URL: urls[protocol], Readers: readers}, length)
			if len(seen.First) != readers || seen.Gone != 0 {
				t.Errorf("%d of %d readers got a picture, %d have gone", len(seen.First), readers, seen.Gone)
			}
			if len(seen.Latency) == 0 || seen.Seen == 0 || seen.Bytes == 0 {
				t.Errorf("%d latencies, %d seen, %d bytes", len(seen.Latency), seen.Seen, seen.Bytes)
			}
		})
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// watchFor lets a crowd watch for so long from when all have begun.
func watchFor(t *testing.T, job crowdJob, length time.Duration) (seen crowded) {
	t.Helper()
	doc, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, w := io.Pipe()
	read := make(chan error, 1)
	go func() { read <- runCrowd(ctx, string(doc), w) }()
	lines := bufio.NewReader(r)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(length, cancel).Stop()
	if err := json.NewDecoder(lines).Decode(&seen); err != nil {
		t.Fatal(err)
	}
	if err := <-read; err != nil {
		t.Error(err)
	}
	return seen
}
