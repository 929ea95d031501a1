package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"encoderd.example/daemon"
	"encoderd.example/daemon/config"
	"encoderd.example/hw"
	"encoderd.example/hw/soft"
	"encoderd.example/stream"
)

// A captureJob is what the child "capture" does.
type captureJob struct {
	Format             string
	Width, Height, FPS int
	KBPS, GOP          int
	File               string
	Warm               time.Duration // before latencies count
}

// captured is what it saw.
type captured struct {
	Pictures  int       // coded, after the time to warm up
	PerSecond float64   // of them
	Dropped   int       // in all
	Copied    uint64    // raw bytes, for those pictures
	Decoded   uint64    // raw bytes of JPEG, meanwhile
	Latency   []float64 // ms from stamp to publication, of each
}

const captureConfig = `
[video]
source = "test"
width = %d
height = %d
fps = %d

[audio]
source = "none"

[[rendition]]
name = "main"
bitrate = "%dk"
gop = "%dms"
preset = "veryfast"
profile = "high"
threads = 1
encoder = "software"

[serve]
web = ""
rtsp = ""
`

// capture runs the daemon on a camera that plays a file, until ctx ends.
func capture(ctx context.Context, doc string, out io.Writer) error {
	var job captureJob
	if err := json.Unmarshal([]byte(doc), &job); err != nil {
		return fmt.Errorf("read the job: %w", err)
	}
	cam, err := newFileCamera(job)
	if err != nil {
		return err
	}
	state, err := os.MkdirTemp(filepath.Dir(job.File), "state-") // our parent's folder, who does not wait for us to tidy up
	if err != nil {
		return fmt.Errorf("make a state directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(state) }()
	d := daemon.New(daemon.Options{Board: fileBoard(cam), State: state, Log: slog.New(slog.DiscardHandler)})
	c, err := config.Parse(fmt.Appendf(nil, captureConfig, job.Width, job.Height, job.FPS, job.KBPS, 1000*job.GOP/job.FPS), config.Rules{})
	if err != nil {
		return fmt.Errorf("configure: %w", err)
	}
	d.Apply(c)
	var running sync.WaitGroup
	running.Go(func() { _ = d.Run(ctx) })
	defer running.Wait()
	fmt.Fprintln(out, "under way")
	seen, err := watchRendition(ctx, d, job.Warm)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(seen)
}

// watchRendition reads every unit until ctx ends.
func watchRendition(ctx context.Context, d *daemon.Daemon, warm time.Duration) (c captured, err error) {
	for d.Rendition("main") == nil {
		if err := wait(ctx, 10*time.Millisecond); err != nil {
			return c, err
		}
	}
	units := d.Rendition("main").Reader()
	var began, last time.Duration
	var copied, decoded uint64
	first := stream.Monotonic()
	for {
		u, err := units.Next(ctx)
		switch now := stream.Monotonic(); {
		case ended(ctx):
			box, _ := d.Status()
			if r := box.Renditions; len(r) == 1 {
				c.Dropped, c.Copied, c.Decoded = int(r[0].Dropped), r[0].CopiedBytes-copied, box.Input.DecodedBytes-decoded
			}
			c.PerSecond = float64(c.Pictures-1) / (last - began).Seconds()
			return c, nil
		case err != nil:
			return c, err
		case now-first < warm:
		case c.Pictures == 0:
			began = now
			if box, _ := d.Status(); len(box.Renditions) == 1 {
				copied, decoded = box.Renditions[0].CopiedBytes, box.Input.DecodedBytes
			}
			fallthrough
		default:
			c.Pictures, last = c.Pictures+1, now
			c.Latency = append(c.Latency, float64(now-u.PTS)/float64(time.Millisecond))
		}
	}
}

func fileBoard(cam hw.Camera) hw.Board {
	return hw.Board{
		Name: "bench", Title: "A camera that plays a file",
		Cameras:       func() ([]hw.Camera, error) { return nil, nil },
		Mics:          func() ([]hw.Mic, error) { return nil, nil },
		Watch:         func(ctx context.Context, _ func()) error { <-ctx.Done(); return nil },
		TestCamera:    cam,
		Encoders:      []hw.EncoderDriver{soft.X264()},
		AudioEncoders: []hw.AudioEncoderDriver{soft.AAC()},
	}
}

// A fileCamera plays the pictures of a file again and again. Each is read into
// memory of the camera's own at the moment at which it is due.
type fileCamera struct {
	mode   hw.Mode
	file   *os.File
	places []place
}

// A place is where a picture stands in the file.
type place struct{ offset, length int64 }

func newFileCamera(job captureJob) (*fileCamera, error) {
	c := &fileCamera{mode: hw.Mode{
		Pixel: hw.FourCC(job.Format), Width: job.Width, Height: job.Height, FPS: hw.Rate{Num: job.FPS, Den: 1},
	}}
	if c.mode.Pixel == hw.MJPEG {
		c.mode.FullRange = true
	}
	doc, err := os.ReadFile(job.File)
	if err != nil {
		return nil, fmt.Errorf("read the camera's pictures: %w", err)
	}
	if c.places = c.split(doc); len(c.places) == 0 {
		return nil, fmt.Errorf("no picture in %s: %w", job.File, errChild)
	}
	if c.file, err = os.Open(job.File); err != nil {
		return nil, fmt.Errorf("read the camera's pictures: %w", err)
	}
	return c, nil
}

// split finds the pictures: raw ones by their size, JPEGs by their end marker,
// which entropy-coded data cannot hold (ITU-T T.81, B.1.1.5), and access units
// by the delimiter that each begins with (H.264, 7.3.2.4).
func (c *fileCamera) split(doc []byte) (places []place) {
	switch c.mode.Pixel {
	case hw.MJPEG:
		return splitAfter(doc, []byte{0xff, 0xd9})
	case hw.H264:
		return splitBefore(doc, []byte{0, 0, 0, 1, 9})
	default:
		_, size, err := c.mode.Layout()
		for at := 0; err == nil && at+size <= len(doc); at += size {
			places = append(places, place{int64(at), int64(size)})
		}
		return places
	}
}

// splitAfter cuts doc behind each mark; what follows the last one is left over.
func splitAfter(doc, mark []byte) (places []place) {
	for at := 0; ; {
		n := bytes.Index(doc[at:], mark)
		if n < 0 {
			return places
		}
		n += len(mark)
		places = append(places, place{int64(at), int64(n)})
		at += n
	}
}

// splitBefore cuts doc, which begins with a mark, before each one.
func splitBefore(doc, mark []byte) (places []place) {
	for at := 0; at+len(mark) <= len(doc); {
		n := bytes.Index(doc[at+len(mark):], mark)
		if n < 0 {
			n = len(doc) - at - len(mark)
		}
		n += len(mark)
		places = append(places, place{int64(at), int64(n)})
		at += n
	}
	return places
}

func (c *fileCamera) ID() string                { return "file" }
func (c *fileCamera) Name() string              { return "file" }
func (c *fileCamera) Modes() ([]hw.Mode, error) { return []hw.Mode{c.mode}, nil }

// memory is how many pictures a camera's driver has room for.
const memory = 6

// Open implements [hw.Camera].
func (c *fileCamera) Open(context.Context, hw.Mode) (hw.CameraStream, error) {
	s := &fileStream{fileCamera: c, due: stream.Monotonic(), free: make(chan *hw.Frame, memory)}
	most := int64(0)
	for _, p := range c.places {
		most = max(most, p.length)
	}
	for range memory {
		f := hw.NewFrame(func(f *hw.Frame) { s.free <- f })
		f.Mode = c.mode
		f.Planes = []hw.Plane{{Data: make([]byte, most), FD: -1}}
		if c.mode.Pixel == hw.YUYV {
			f.Planes[0].Stride = 2 * c.mode.Width
		}
		s.free <- f
	}
	return s, nil
}

// A fileStream plays for one reader. Its pictures are stamped when they are due.
type fileStream struct {
	*fileCamera
	n    int
	due  time.Duration
	free chan *hw.Frame
}

func (s *fileStream) Mode() hw.Mode         { return s.mode }
func (s *fileStream) Close() error          { return nil }
func (s *fileStream) Stats() hw.CameraStats { return hw.CameraStats{Frames: uint64(s.n)} }

// Read implements [hw.CameraStream].
func (s *fileStream) Read(ctx context.Context) (*hw.Frame, error) {
	s.due += s.mode.FPS.Period()
	if err := wait(ctx, s.due-stream.Monotonic()); err != nil {
		return nil, err
	}
	select {
	case f := <-s.free:
		return s.fill(f)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (s *fileStream) fill(f *hw.Frame) (*hw.Frame, error) {
	p := s.places[s.n%len(s.places)]
	data := f.Planes[0].Data[:p.length]
	if _, err := s.file.ReadAt(data, p.offset); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read a picture: %w", err)
	}
	f.Planes[0].Data = data
	f.Stamp, f.Seq = s.due, uint32(s.n)
	s.n++
	return f.Lend(), nil
}
