package main

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/sim/picture"
	"encoderd.example/stream"
)

// A recording is what a sink got.
type recording struct {
	frames, lost           int
	soundFrames, soundLost int
	kbps, soundKbps        float64
	psnr                   float64 // of luma, dB, mean over compared pictures
	seen                   float64 // the same, no picture counting for more than visiblePSNR
	compared               int
}

// A flow is one stream of a file: its packets' times in seconds, and bytes.
type flow struct {
	first, last float64
	count       int
	bytes       float64
}

// missing returns how many of the packets that come by rate are not there.
func (f flow) missing(rate float64) int {
	return int(math.Round((f.last-f.first)*rate)) + 1 - f.count
}

func (f flow) kbps() float64 { return f.bytes * 8 / 1000 / max(f.last-f.first, 1e-3) }

// examine reads an FLV recording of the test picture.
func examine(ctx context.Context, file string) (recording, error) {
	out, _, err := output(ctx, "ffprobe", "-v", "error", "-show_entries", "packet=codec_type,pts_time,size", "-of", "csv=p=0", file)
	if err != nil {
		return recording{}, err
	}
	flows := map[string]*flow{"video": {}, "audio": {}}
	for line := range bytes.Lines(out) {
		fields := bytes.Split(bytes.TrimSpace(line), []byte(","))
		if len(fields) < 3 || flows[string(fields[0])] == nil {
			continue
		}
		at, err := strconv.ParseFloat(string(fields[1]), 64)
		if err != nil {
			continue // a packet without a time
		}
		size, err := strconv.ParseFloat(string(fields[2]), 64)
		if err != nil {
			return recording{}, fmt.Errorf("ffprobe says %q: %w", line, err)
		}
		f := flows[string(fields[0])]
		if f.count == 0 {
			f.first = at
		}
		f.last = max(f.last, at)
		f.count++
		f.bytes += size
	}
	v, a := flows["video"], flows["audio"]
	r := recording{
		frames: v.count, lost: v.missing(fps), kbps: v.kbps(),
		soundFrames: a.count, soundLost: a.missing(float64(soundRate) / soundFrame), soundKbps: a.kbps(),
	}
	each, err := quality(ctx, file)
	for _, v := range each {
		r.psnr += v / float64(len(each))
		r.seen += min(v, visiblePSNR) / float64(len(each))
	}
	r.compared = len(each)
	return r, err
}

// visiblePSNR is where a difference ends: at 60 dB one sample in 15 is off by
// one. The easy parts of the test picture go beyond 80 dB.
const visiblePSNR = 60

// The part of a recording that is compared with the source.
const (
	compareFrom  = 60
	compareTo    = 150
	compareEvery = 6
)

// quality decodes some pictures of a recording, reads their number and instant
// from the picture itself, paints what the encoder was given, and returns the
// PSNR of luma of each. The lines of text are left out: they show the time of
// day.
func quality(ctx context.Context, file string) ([]float64, error) {
	raw, _, err := output(ctx, "ffmpeg", "-v", "error", "-nostdin", "-i", file, "-map", "0:v",
		"-vf", fmt.Sprintf("select='between(n,%d,%d)*not(mod(n,%d))'", compareFrom, compareTo, compareEvery),
		"-fps_mode", "passthrough", "-pix_fmt", "yuv420p", "-f", "rawvideo", "-")
	if err != nil {
		return nil, err
	}
	pattern, err := newPattern(hw.NV12)
	if err != nil {
		return nil, err
	}
	const size = width * height * 3 / 2
	var psnr []float64
	for ; len(raw) >= size; raw = raw[size:] {
		coded := raw[:width*height]
		code, ok := picture.Read(coded, width, width, height)
		if !ok {
			return nil, fmt.Errorf("picture %d of %s is not the test picture", len(psnr), file)
		}
		source := pattern.Frame(code.Counter, instant(code), 0)
		psnr = append(psnr, lumaPSNR(coded, source.Planes[0]))
		source.Release()
	}
	return psnr, nil
}

// instant returns when the picture was taken: the picture says it in whole
// milliseconds, and it lies on the camera's grid. Material begins at zero, and
// a camera's clock near now; both agree for as long as both are short.
func instant(c picture.Code) time.Duration {
	at := time.Duration(c.ClockMS) * time.Millisecond
	if at >= seconds*time.Second {
		at = c.Clock(stream.Monotonic())
	}
	n := int64(math.Round(at.Seconds() * fps))
	if time.Duration(n)*time.Second/fps < at {
		n++ // the millisecond was cut off
	}
	return time.Duration(n) * time.Second / fps
}

// lumaPSNR compares the parts above the text.
func lumaPSNR(coded []byte, source hw.Plane) float64 {
	const lines = height * 11 / 16
	var sum float64
	for y := range lines {
		for x, v := range coded[y*width : (y+1)*width] {
			d := float64(v) - float64(source.Data[y*source.Stride+x])
			sum += d * d
		}
	}
	return 10 * math.Log10(255*255*width*lines/max(sum, 1))
}
