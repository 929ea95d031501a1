package streamtest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/h264"
	"encoderd.example/stream/h265"
	"encoderd.example/stream/streamtest/peer"
)

// Media is coded picture and sound, made by ffmpeg: its test picture, in which
// no two frames are alike, and a sine.
type Media struct {
	Video, Audio *stream.Track
	// Units are in decoding order, picture and sound interleaved by DTS, which
	// counts from zero. Every first of GOP pictures is a key.
	Units []*stream.Unit
	// File is an MP4 of the same coded pictures, to compare decoded ones with.
	File string
}

// The make of [NewMedia].
const (
	Width    = 320
	Height   = 180
	FPS      = 25
	GOP      = 25 // pictures
	Rate     = 48000
	aacFrame = 1024 // samples (ISO/IEC 14496-3)
)

// NewMedia makes media of this many pictures of H.264 and as much sound.
func NewMedia(tb testing.TB, pictures int) *Media {
	tb.Helper()
	return newMedia(tb, pictures, &codingH264)
}

// NewMediaH265 makes media of this many pictures of H.265 and as much sound.
func NewMediaH265(tb testing.TB, pictures int) *Media {
	tb.Helper()
	return newMedia(tb, pictures, &codingH265)
}

func newMedia(tb testing.TB, pictures int, c *coding) *Media {
	tb.Helper()
	m := &Media{File: filepath.Join(tb.TempDir(), "media.mp4")}
	length := fmt.Sprint(float64(pictures) / FPS)
	args := []string{
		"-v", "error",
		"-f", "lavfi", "-i", fmt.Sprintf("testsrc2=size=%dx%d:rate=%d", Width, Height, FPS),
		"-f", "lavfi", "-i", fmt.Sprintf("sine=sample_rate=%d:frequency=440", Rate),
		"-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p",
		"-g", strconv.Itoa(GOP), "-keyint_min", strconv.Itoa(GOP), "-sc_threshold", "0", "-b:v", "600k",
		"-c:a", "aac", "-b:a", "96k", "-ac", "2", "-frames:v", strconv.Itoa(pictures), "-t", length,
	}
	peer.Output(tb, "ffmpeg", append(append(args, c.encoder...), m.File)...)
	m.pictures(tb, c, peer.Output(tb, "ffmpeg", "-v", "error", "-i", m.File, "-map", "0:v", "-c", "copy", "-bsf:v", c.filter, "-f", c.format, "-"))
	m.sound(tb, peer.Output(tb, "ffmpeg", "-v", "error", "-i", m.File, "-map", "0:a", "-c", "copy", "-f", "adts", "-"))
	slices.SortStableFunc(m.Units, func(a, b *stream.Unit) int { return cmp.Compare(a.DTS, b.DTS) })
	if n := m.Count(c.codec); n != pictures {
		tb.Fatalf("ffmpeg made %d pictures instead of %d", n, pictures)
	}
	return m
}

// A coding says how ffmpeg makes pictures, and how these are cut.
type coding struct {
	codec          stream.Codec
	encoder        []string
	filter, format string
	kind           func(nal []byte) byte
	delimiter      byte
	sets           []byte // types of the parameter sets
	key            func(unit []byte) bool
	record         func(sets map[byte][]byte) ([]byte, error)
}

var codingH264 = coding{
	codec:   stream.H264,
	encoder: []string{"-c:v", "libx264"},
	filter:  "h264_mp4toannexb,h264_metadata=aud=insert", format: "h264",
	kind: h264.Type, delimiter: h264.TypeAUD, sets: []byte{h264.TypeSPS, h264.TypePPS}, key: h264.IsKey,
	record: func(sets map[byte][]byte) ([]byte, error) {
		return h264.ConfigRecord(sets[h264.TypeSPS], sets[h264.TypePPS])
	},
}

var codingH265 = coding{
	codec:   stream.H265,
	encoder: []string{"-c:v", "libx265", "-x265-params", "log-level=error:scenecut=0:open-gop=0"},
	filter:  "hevc_mp4toannexb,hevc_metadata=aud=insert", format: "hevc",
	kind: h265.Type, delimiter: h265.TypeAUD, sets: []byte{h265.TypeVPS, h265.TypeSPS, h265.TypePPS}, key: h265.IsKey,
	record: func(sets map[byte][]byte) ([]byte, error) {
		return h265.ConfigRecord(sets[h265.TypeVPS], sets[h265.TypeSPS], sets[h265.TypePPS])
	},
}

// pictures cuts a byte stream at its access unit delimiters.
func (m *Media) pictures(tb testing.TB, c *coding, annexB []byte) {
	tb.Helper()
	sets := map[byte][]byte{}
	var units []*stream.Unit
	for nal := range h264.AnnexB(annexB) { // it is the same in both
		switch kind := c.kind(nal); {
		case kind == c.delimiter:
			at := time.Duration(len(units)) * time.Second / FPS
			units = append(units, &stream.Unit{PTS: at, DTS: at})
		case slices.Contains(c.sets, kind):
			sets[kind] = nal
		default:
			u := units[len(units)-1]
			u.Data = h264.AppendNAL(u.Data, nal)
		}
	}
	setup, err := c.record(sets)
	if err != nil {
		tb.Fatal(err)
	}
	m.Video = &stream.Track{Codec: c.codec, Setup: setup, Width: Width, Height: Height, FPS: FPS, Bitrate: 600_000}
	for _, u := range units {
		u.Track, u.Key = m.Video, c.key(u.Data)
	}
	m.Units = append(m.Units, units...)
}

// sound cuts ADTS frames (ISO/IEC 13818-7, 6.2), which have no CRC here.
func (m *Media) sound(tb testing.TB, adts []byte) {
	tb.Helper()
	const head = 7
	for n := 0; len(adts) >= head; n++ {
		size := int(adts[3]&3)<<11 | int(adts[4])<<3 | int(adts[5])>>5
		if adts[0] != 0xff || adts[1]&1 == 0 || size < head || size > len(adts) {
			tb.Fatalf("ffmpeg wrote bad ADTS: %x", adts[:head])
		}
		if m.Audio == nil {
			m.Audio = &stream.Track{Codec: stream.AAC, Setup: audioSetup(adts), Rate: Rate, Channels: 2, Bitrate: 96_000}
		}
		at := time.Duration(n) * aacFrame * time.Second / Rate
		m.Units = append(m.Units, &stream.Unit{
			Track: m.Audio, PTS: at, DTS: at, Duration: aacFrame * time.Second / Rate, Data: adts[head:size:size],
		})
		adts = adts[size:]
	}
}

// audioSetup builds an AudioSpecificConfig from an ADTS header.
func audioSetup(adts []byte) []byte {
	object := uint16(adts[2]>>6) + 1
	rate := uint16(adts[2]>>2) & 0xf
	channels := uint16(adts[2]&1)<<2 | uint16(adts[3]>>6)
	return binary.BigEndian.AppendUint16(nil, object<<11|rate<<7|channels<<3)
}

// Count returns how many units of a codec there are.
func (m *Media) Count(c stream.Codec) (n int) {
	for _, u := range m.Units {
		if u.Track.Codec == c {
			n++
		}
	}
	return n
}

// Bytes returns the size of all units.
func (m *Media) Bytes() (n uint64) {
	for _, u := range m.Units {
		n += uint64(len(u.Data))
	}
	return n
}

// Length is the time from the first picture to after the last.
func (m *Media) Length() time.Duration {
	return time.Duration(m.Count(m.Video.Codec)) * time.Second / FPS
}

// Rendition returns an empty rendition that takes m's codecs and keeps the
// latest units units.
func (m *Media) Rendition(units int) *stream.Rendition {
	return stream.NewRendition("test", units, m.Video.Codec, stream.AAC)
}

// A Source publishes media like an encoder: in real time, over and over. The
// zero value with Media set is ready. For use by one goroutine.
type Source struct {
	*Media
	// Speed is how many times faster than real time; zero means once.
	Speed float64
	// Start is the DTS of the first unit.
	Start time.Duration

	round        int
	video, audio *stream.Track // in place of Media's, after Retrack
}

// PublishAll publishes one round at once.
func (s *Source) PublishAll(r *stream.Rendition) {
	for _, u := range s.Round() {
		r.Publish(u)
	}
}

// Retrack lets later units point to new tracks of the same content, as after
// an encoder's restart.
func (s *Source) Retrack() {
	video, audio := *s.Video, *s.Audio
	video.Setup, audio.Setup = bytes.Clone(video.Setup), bytes.Clone(audio.Setup)
	s.video, s.audio = &video, &audio
}

// Run publishes until ctx ends.
func (s *Source) Run(ctx context.Context, r *stream.Rendition) {
	speed := s.Speed
	if speed == 0 {
		speed = 1
	}
	begin, first := time.Now(), s.Start+time.Duration(s.round)*s.Length()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		for _, u := range s.Round() {
			due := begin.Add(time.Duration(float64(u.DTS-first) / speed))
			timer.Reset(time.Until(due))
			select {
			case <-timer.C:
				r.Publish(u)
			case <-ctx.Done():
				return
			}
		}
	}
}

// Round returns the units of the next round.
func (s *Source) Round() []*stream.Unit {
	shift := s.Start + time.Duration(s.round)*s.Length()
	s.round++
	var units []*stream.Unit
	for _, u := range s.Units {
		if u.DTS >= s.Length() {
			continue // sound that rings on
		}
		c := *u
		c.PTS, c.DTS = c.PTS+shift, c.DTS+shift
		switch {
		case s.video == nil:
		case c.Track == s.Video:
			c.Track = s.video
		default:
			c.Track = s.audio
		}
		units = append(units, &c)
	}
	return units
}
