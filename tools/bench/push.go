package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Targets of pushing, as ratios to ffmpeg.
const (
	mostPushCPU    = 1.05
	mostPushMemory = 0.7
)

// A contender is a program that encodes and pushes.
type contender struct {
	name  string
	start func(url string) (*process, error)
	// pictures asks the running program how many it has coded and dropped; nil
	// for one that waits rather than drop.
	pictures func() (coded, dropped int, err error)

	each, rss, peak []float64 // of each round: CPU-ms for each picture, MB
	recording       string    // of the last round
	dropped         int       // pictures of the last round
}

// push measures encoding and pushing: encoderd, then ffmpeg on the same
// picture, then ffmpeg on its own test picture, in turn.
func (b *bench) push(ctx context.Context) error {
	m, err := b.makeMaterial(ctx)
	if err != nil {
		return err
	}
	s, err := b.startSink(ctx)
	if err != nil {
		return err
	}
	defer s.stop()
	all := b.contenders(ctx, m)
	for round := range b.rounds {
		for i, c := range all {
			if err := b.pushRound(ctx, s, c, fmt.Sprintf("%d-%d", i, round)); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	ours := all[0]
	for _, peer := range all[1:] {
		b.table.compare("push 720p30, CPU, beside "+peer.name, "ms/picture", ours.each, peer.each, mostPushCPU)
		b.table.compare("push 720p30, memory, beside "+peer.name, "MB", ours.rss, peer.rss, mostPushMemory)
		b.table.compare("push 720p30, peak memory, beside "+peer.name, "MB", ours.peak, peer.peak, mostPushMemory)
	}
	return b.judge(ctx, all[0], all[1])
}

func (b *bench) contenders(ctx context.Context, m material) []*contender {
	read := append(append([]string{"-re"}, m.pictureArgs()...), append([]string{"-re"}, m.soundArgs()...)...)
	paint := []string{
		"-re", "-f", "lavfi", "-i", fmt.Sprintf("testsrc2=size=%dx%d:rate=%d,format=yuv420p", width, height, fps),
		"-re", "-f", "lavfi", "-i", fmt.Sprintf("sine=frequency=997:sample_rate=%d,aformat=channel_layouts=stereo", soundRate),
	}
	ffmpeg := func(in []string) func(string) (*process, error) {
		return func(url string) (*process, error) { return start(nil, "ffmpeg", pushArgs(in, url)...) }
	}
	var x *box
	return []*contender{
		{
			name: "encoderd",
			start: func(url string) (_ *process, err error) {
				if x, err = b.startBox(ctx, url, false); err != nil {
					return nil, err
				}
				return x.process, nil
			},
			pictures: func() (coded, dropped int, err error) {
				s, err := x.status(ctx)
				if err != nil {
					return 0, 0, err
				}
				return int(s.Renditions[0].Frames), int(s.Input.Missed + s.Renditions[0].Dropped), nil
			},
		},
		{name: "ffmpeg, raw input", start: ffmpeg(read)},
		{name: "ffmpeg, testsrc2 and sine", start: ffmpeg(paint)},
	}
}

// videoArgs are the settings of hw/soft for libx264, in ffmpeg's words: one
// thread, key frames by the group only, the rate held over any second.
func videoArgs(kbps int) []string {
	rate := strconv.Itoa(kbps) + "k"
	return []string{
		"-c:v", "libx264", "-preset", "veryfast", "-tune", "zerolatency", "-profile:v", "high", "-threads", "1",
		"-g", strconv.Itoa(gop), "-bf", "0", "-b:v", rate, "-maxrate", rate, "-bufsize", rate,
		"-x264-params", "scenecut=0:min-keyint=1:force-cfr=1",
	}
}

func pushArgs(in []string, url string) []string {
	args := append([]string{"-v", "error", "-nostdin"}, in...)
	args = append(append(args, "-map", "0:v", "-map", "1:a"), videoArgs(kbps)...)
	return append(args, "-c:a", "aac", "-b:a", strconv.Itoa(soundKbps)+"k", "-f", "flv", url)
}

// pushRound gives one contender its turn.
func (b *bench) pushRound(ctx context.Context, s *sink, c *contender, key string) error {
	p, err := c.start(s.url(key))
	if err != nil {
		return err
	}
	u, rate, err := b.pushWindow(ctx, p, c)
	p.stop()
	if err != nil {
		return err
	}
	each := 1000 * u.share / rate
	c.each = append(c.each, each)
	c.rss, c.peak = append(c.rss, u.rss), append(c.peak, u.peak)
	c.recording = s.recording(key)
	fmt.Fprintf(b.out, "  %-26s %5.2f ms a picture, %5.2f CPU-s/min, %5.1f pictures/s, %5.1f MB\n", c.name, each, 60*u.share, rate, u.rss)
	return s.alive()
}

// pushWindow measures a running contender, and how many pictures it codes a
// second.
func (b *bench) pushWindow(ctx context.Context, p *process, c *contender) (u usage, rate float64, err error) {
	if err := wait(ctx, b.warm); err != nil {
		return u, 0, err
	}
	if c.pictures == nil {
		u, err = p.measure(ctx, 0, b.window)
		return u, fps, err
	}
	before, _, err := c.pictures()
	if err != nil {
		return u, 0, err
	}
	began := time.Now()
	if u, err = p.measure(ctx, 0, b.window); err != nil {
		return u, 0, err
	}
	after, dropped, err := c.pictures()
	c.dropped = dropped
	return u, float64(after-before) / time.Since(began).Seconds(), err
}

// judge looks at what arrived: whether it is complete, and as good.
func (b *bench) judge(ctx context.Context, ours, peer *contender) error {
	var found [2]recording
	for i, c := range []*contender{ours, peer} {
		r, err := examine(ctx, c.recording)
		if err != nil {
			return fmt.Errorf("examine what %s sent: %w", c.name, err)
		}
		found[i] = r
		b.table.note("%s: %s", c.name, r)
	}
	o, p := found[0], found[1]
	b.table.note("encoderd: %d of the missing pictures were never coded, since the machine gave the encoder no time; CPU counts for each picture coded", ours.dropped)
	b.table.add(row{What: "coded pictures missing at the sink", Unit: "pictures", Ours: float64(max(o.lost-ours.dropped, 0)), Most: 0.5})
	b.table.add(row{What: "video bit rate", Unit: "kbit/s", Ours: o.kbps, Peer: p.kbps, Ratio: o.kbps / p.kbps, Most: 1.1})
	b.table.add(row{What: "PSNR below ffmpeg's, up to 60 dB", Unit: "dB", Ours: max(p.seen-o.seen, 0), Most: 1})
	if o.frames == 0 || p.frames == 0 {
		return errors.New("nothing arrived at the sink")
	}
	return nil
}

func (r recording) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%d pictures (%d missing) and %d sound frames (%d missing) at the sink, %.0f + %.0f kbit/s",
		r.frames, r.lost, r.soundFrames, r.soundLost, r.kbps, r.soundKbps)
	fmt.Fprintf(&s, "; luma PSNR against the source %.1f dB over %d pictures", r.psnr, r.compared)
	return s.String()
}
