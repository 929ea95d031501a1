package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// mostCaptureCPU is the target of capturing and encoding, as a ratio to ffmpeg.
const mostCaptureCPU = 1.0

// A feed is what a USB camera sends, as a file.
type feed struct {
	format string // YUYV, MJPG or H264, V4L2's names
	width  int
	height int
	fps    int
	file   string
}

// feeds are what is compared.
var feeds = []feed{
	{format: "YUYV", width: 1280, height: 720, fps: fps},
	{format: "MJPG", width: 1280, height: 720, fps: fps},
	{format: "YUYV", width: 1920, height: 1080, fps: fps},
	{format: "MJPG", width: 1920, height: 1080, fps: fps},
}

func (f feed) String() string { return fmt.Sprintf("%s %dp%d", f.format, f.height, f.fps) }

// kbps scales the bit rate with the picture.
func (f feed) kbps() int { return kbps * f.width * f.height / (width * height) }

// capture measures camera → encoder in software: our pipeline on a camera that
// plays a file, beside ffmpeg on the same file. Neither packs nor sends.
func (b *bench) capture(ctx context.Context) error {
	for _, f := range feeds {
		if err := b.captureFeed(ctx, f); err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
	}
	b.table.note("capture: both read each picture from a file in the page cache, as a camera's memory would be read, at %d a second; libx264 with the same settings; ours counts what it coded", fps)
	return nil
}

func (b *bench) captureFeed(ctx context.Context, f feed) error {
	f.file = filepath.Join(b.dir, fmt.Sprintf("%s-%d", f.format, f.height))
	if err := f.render(ctx); err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.file) }() // half a gigabyte
	var ours, peer []float64
	var all captured
	for range b.rounds {
		each, c, err := b.captureOurs(ctx, f)
		if err != nil {
			return err
		}
		all.Latency = append(all.Latency, c.Latency...)
		all.Pictures, all.Copied, all.Dropped = all.Pictures+c.Pictures, all.Copied+c.Copied, all.Dropped+c.Dropped
		all.Decoded += c.Decoded
		theirs, err := b.captureFFmpeg(ctx, f)
		if err != nil {
			return err
		}
		ours, peer = append(ours, each), append(peer, theirs)
		fmt.Fprintf(b.out, "  %-12s %5.2f ms a picture, ffmpeg %5.2f; %d pictures, %d dropped\n", f, each, theirs, c.Pictures, c.Dropped)
	}
	b.table.compare(fmt.Sprintf("capture %s, CPU, beside ffmpeg", f), "ms/picture", ours, peer, mostCaptureCPU)
	b.table.tell(fmt.Sprintf("capture %s, raw bytes that the CPU copied", f), "bytes/picture", float64(all.Copied)/float64(max(all.Pictures, 1)), 0)
	if all.Decoded > 0 {
		b.table.tell(fmt.Sprintf("capture %s, raw bytes that the CPU decoded", f), "bytes/picture", float64(all.Decoded)/float64(max(all.Pictures, 1)), 0)
	}
	for _, q := range []struct {
		name string
		part float64
	}{{"median", 0.5}, {"99th percentile", 0.99}} {
		b.table.tell(fmt.Sprintf("capture %s, stamp to unit published, %s", f, q.name), "ms", quantile(all.Latency, q.part), 0)
	}
	if all.Dropped > 0 {
		b.table.note("capture %s: %d of %d pictures were dropped, since the machine gave the encoder no time; what they cost until then, decoding above all, counts as cost of the others, and ffmpeg drops none: believe the ratio of a calm machine", f, all.Dropped, all.Dropped+all.Pictures)
	}
	return nil
}

// captureOurs gives our pipeline, in a process of its own, its turn.
func (b *bench) captureOurs(ctx context.Context, f feed) (each float64, c captured, err error) {
	doc, err := json.Marshal(f.job(b.warm))
	if err != nil {
		return 0, c, fmt.Errorf("tell the child its job: %w", err)
	}
	l, err := b.startLoad("capture", string(doc))
	if err != nil {
		return 0, c, err
	}
	u, err := l.measure(ctx, b.warm, b.window)
	if err != nil {
		l.stop()
		return 0, c, err
	}
	_ = l.stdin.Close()
	if err := json.NewDecoder(l.lines).Decode(&c); err != nil {
		l.stop()
		return 0, c, fmt.Errorf("hear from the pipeline: %w\n%s", err, l.log.String())
	}
	l.stop()
	return 1000 * u.share / c.PerSecond, c, nil
}

// captureFFmpeg counts what ffmpeg coded, too: on a busy machine it falls
// behind instead of dropping.
func (b *bench) captureFFmpeg(ctx context.Context, f feed) (each float64, err error) {
	args := append([]string{"-v", "error", "-nostdin", "-progress", "pipe:1", "-stats_period", "0.1", "-re"}, f.args()...)
	args = append(append(args, "-an", "-pix_fmt", "yuv420p"), videoArgs(f.kbps())...)
	var progress lockedBuffer
	p, err := start(&progress, "ffmpeg", append(args, "-f", "null", "-")...)
	if err != nil {
		return 0, err
	}
	defer p.stop()
	if err := wait(ctx, b.warm); err != nil {
		return 0, err
	}
	before, began := lastFrame(progress.String()), time.Now()
	u, err := p.measure(ctx, 0, b.window)
	if err != nil {
		return 0, err
	}
	coded := float64(lastFrame(progress.String()) - before)
	return 1000 * u.share * time.Since(began).Seconds() / coded, nil
}

// lastFrame returns how many pictures ffmpeg has coded, of its progress.
func lastFrame(progress string) int {
	i := strings.LastIndex(progress, "frame=")
	if i < 0 {
		return 0
	}
	word, _, _ := strings.Cut(progress[i+len("frame="):], "\n")
	n, _ := strconv.Atoi(strings.TrimSpace(word)) // a line cut short counts as none
	return n
}

// args make ffmpeg read the feed again and again.
func (f feed) args() []string {
	loop := []string{"-stream_loop", "-1"}
	rate := []string{"-framerate", strconv.Itoa(f.fps), "-i", f.file}
	if f.format == "MJPG" {
		return append(append(loop, "-f", "mjpeg"), rate...)
	}
	return append(append(loop, "-f", "rawvideo", "-pix_fmt", "yuyv422", "-s", fmt.Sprintf("%dx%d", f.width, f.height)), rate...)
}

// render writes the feed: ffmpeg's moving test picture with a little noise, as
// no camera is without.
func (f feed) render(ctx context.Context) error {
	args := []string{
		"-v", "error", "-y", "-f", "lavfi",
		"-i", fmt.Sprintf("testsrc2=size=%dx%d:rate=%d,noise=alls=4:allf=t", f.width, f.height, f.fps),
		"-t", strconv.Itoa(seconds / 2),
	}
	switch f.format {
	case "MJPG": // as UVC cameras: 4:2:2, about a tenth of the raw size
		args = append(args, "-c:v", "mjpeg", "-q:v", "4", "-pix_fmt", "yuvj422p", "-f", "mjpeg", f.file)
	case "H264": // with a delimiter before each picture
		args = append(append(args, "-pix_fmt", "yuv420p"), videoArgs(f.kbps())...)
		args = append(args, "-bsf:v", "h264_metadata=aud=insert", "-f", "h264", f.file)
	default:
		args = append(args, "-pix_fmt", "yuyv422", "-f", "rawvideo", f.file)
	}
	if out, _, err := output(ctx, "ffmpeg", args...); err != nil {
		return fmt.Errorf("render the camera's pictures: %w %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// job is what the child is told.
func (f feed) job(warm time.Duration) captureJob {
	return captureJob{Format: f.format, Width: f.width, Height: f.height, FPS: f.fps, KBPS: f.kbps(), GOP: gop, File: f.file, Warm: warm}
}
