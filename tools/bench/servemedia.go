package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/h264"
	"encoderd.example/stream/rtmp"
	"encoderd.example/stream/rtp"
)

// A show is coded material that is published again and again, in real time. It
// is immutable; [show.play] hands out units of their own.
type show struct {
	tracks []*stream.Track
	units  []stream.Unit // with times from zero on
	length time.Duration
}

// What the material of "serve" is.
const (
	showFPS     = 30
	showSeconds = 20
)

// makeShow codes the material: 1080p30 at 4 Mbit/s, a key picture a second, and
// AAC at 128 kbit/s.
func (b *bench) makeShow(ctx context.Context) (file string, err error) {
	file = filepath.Join(b.dir, "show.flv")
	_, _, err = output(ctx, "ffmpeg", "-v", "error", "-nostdin",
		"-f", "lavfi", "-i", "testsrc2=size=1920x1080:rate="+strconv.Itoa(showFPS)+",noise=alls=4:allf=t",
		"-f", "lavfi", "-i", "sine=frequency=997:sample_rate=48000,aformat=channel_layouts=stereo",
		"-t", strconv.Itoa(showSeconds),
		"-c:v", "libx264", "-preset", "veryfast", "-profile:v", "main", "-pix_fmt", "yuv420p",
		"-b:v", "4M", "-maxrate", "4M", "-bufsize", "4M", "-x264-params", "nal-hrd=cbr:scenecut=0:bframes=0",
		"-g", strconv.Itoa(showFPS), "-keyint_min", strconv.Itoa(showFPS), "-c:a", "aac", "-b:a", "128k", file)
	return file, err
}

var errShow = errors.New("the material is not what it should be")

// readShow reads an FLV file (Adobe FLV 10.1, annex E).
func readShow(file string) (*show, error) {
	doc, err := os.ReadFile(file) //nolint:gosec // G304: our parent names it
	if err != nil {
		return nil, fmt.Errorf("read the material: %w", err)
	}
	s := &show{length: showSeconds * time.Second}
	video := &stream.Track{Codec: stream.H264, Width: 1920, Height: 1080, FPS: showFPS, Bitrate: 4_000_000}
	sound := &stream.Track{Codec: stream.AAC, Rate: 48000, Channels: 2, Bitrate: 128_000}
	s.tracks = []*stream.Track{video, sound}
	const fileHead, tagHead, tagSize = 13, 11, 4
	for at := fileHead; at+tagHead <= len(doc); {
		kind, n := doc[at], int(number24(doc[at+1:]))
		ms := number24(doc[at+4:]) | uint32(doc[at+7])<<24
		at += tagHead
		if at+n > len(doc) {
			return nil, fmt.Errorf("a tag is cut off: %w", errShow)
		}
		s.add(kind, time.Duration(ms)*time.Millisecond, doc[at:at+n:at+n])
		at += n + tagSize
	}
	if len(s.units) == 0 || video.Setup == nil || sound.Setup == nil {
		return nil, fmt.Errorf("%d units: %w", len(s.units), errShow)
	}
	return s, nil
}

// Tags of FLV.
const (
	tagSound = 8
	tagVideo = 9
)

func (s *show) add(kind byte, at time.Duration, body []byte) {
	switch {
	case kind == tagVideo && len(body) > 5 && body[1] == 0:
		s.tracks[0].Setup = body[5:]
	case kind == tagVideo && len(body) > 5 && body[1] == 1:
		s.units = append(s.units, stream.Unit{Track: s.tracks[0], Key: body[0]>>4 == 1, PTS: at, DTS: at, Data: body[5:]})
	case kind == tagSound && len(body) > 2 && body[1] == 0:
		s.tracks[1].Setup = body[2:]
	case kind == tagSound && len(body) > 2:
		s.units = append(s.units, stream.Unit{Track: s.tracks[1], PTS: at, DTS: at, Duration: time.Second * 1024 / 48000, Data: body[2:]})
	}
}

func number24(b []byte) uint32 {
	return uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2])
}

// play publishes the show until ctx ends. Every picture carries the wall clock
// of the moment before its publication.
func (s *show) play(ctx context.Context, r *stream.Rendition) {
	for begin := stream.Monotonic(); ; begin += s.length {
		for _, u := range s.units {
			u.PTS, u.DTS = u.PTS+begin, u.DTS+begin
			if wait(ctx, u.DTS-stream.Monotonic()) != nil {
				return
			}
			if u.Track.Codec.Video() {
				u.Data = append(stamps(time.Now(), len(u.Data)), u.Data...)
			}
			r.Publish(&u)
		}
	}
}

// stampMark begins the payload of the SEI message that carries the clock.
var stampMark = []byte("encoderd bench: ")

// stampDigits is how long the clock is: hexadecimal, so that nothing in it has
// to be escaped.
const stampDigits = 16

// stamps returns the clock twice, with room for more bytes: go2rtc takes a
// message that begins a picture away, as FFmpeg puts one there.
func stamps(now time.Time, room int) []byte {
	one := stamp(now)
	return append(append(make([]byte, 0, 2*len(one)+room), one...), one...)
}

// stamp returns a NAL unit of user data (H.264, D.1.7) in length-prefixed form
// that says what time it is.
func stamp(now time.Time) []byte {
	const unregistered, nalHead, messageHead, trailing = 5, 1, 2, 1
	payload := len(stampMark) + stampDigits
	size := nalHead + messageHead + payload + trailing
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 4+size), uint32(size))
	b = append(b, h264.TypeSEI, unregistered, byte(payload))
	b = append(b, stampMark...)
	b = fmt.Appendf(b, "%0*x", stampDigits, now.UnixNano())
	return append(b, 0x80)
}

// stamped returns the first clock in data, zero if there is none.
func stamped(data []byte) time.Time {
	_, rest, _ := bytes.Cut(data, stampMark)
	if len(rest) < stampDigits {
		return time.Time{}
	}
	ns, err := strconv.ParseInt(string(rest[:stampDigits]), 16, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// rendition returns one that keeps some groups of pictures.
func (s *show) rendition() *stream.Rendition {
	const depth = 512
	return stream.NewRendition("main", depth, stream.H264, stream.AAC)
}

// batches returns how many bytes RTSP over TCP makes of each unit, and when.
func (s *show) batches() ([]unit, error) {
	p, err := rtp.NewPacketizer(0, s.tracks...)
	if err != nil {
		return nil, err
	}
	var set rtp.Set
	var units []unit
	for _, u := range s.units {
		if u.Track.Codec.Video() {
			u.Data = append(stamps(time.Now(), len(u.Data)), u.Data...)
		}
		batch, err := p.Batch(&u)
		if err != nil {
			return nil, err
		}
		units = append(units, unit{u.DTS, len(batch.Bytes(set.With(rtp.Video).With(rtp.Sound)))})
	}
	return append(units, unit{At: s.length}), nil
}

// publish pushes a show to an RTMP server until ctx ends.
func publish(ctx context.Context, doc string, out io.Writer) error {
	var job publishJob
	if err := json.Unmarshal([]byte(doc), &job); err != nil {
		return fmt.Errorf("read the job: %w", err)
	}
	s, err := readShow(job.File)
	if err != nil {
		return err
	}
	push, err := rtmp.New(rtmp.Config{URL: job.URL, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	r := s.rendition()
	var playing sync.WaitGroup
	defer playing.Wait()
	playing.Go(func() { s.play(ctx, r) })
	var once sync.Once
	return push.Run(ctx, r, func(p stream.PushReport) {
		if p.State >= stream.PushSending {
			once.Do(func() { fmt.Fprintln(out, "under way") })
		}
	})
}

// A publishJob is what the child "publish" does.
type publishJob struct{ File, URL string }
