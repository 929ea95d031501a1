package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"encoderd.example/daemon"
	"encoderd.example/daemon/config"
	"encoderd.example/daemon/status"
	"encoderd.example/hw"
	"encoderd.example/hw/boards"
	"encoderd.example/stream"
)

// What runs in the virtual board: the daemon, once for each path.

// guestData is the folder that guest-exec copies along with a program.
const guestData = "testdata"

const (
	pathPatience = 2 * time.Minute // for one path on a busy host
	pathSettle   = 20              // pictures until a camera that was just opened runs evenly
)

// walkPaths walks all paths and writes a line of JSON for each.
func walkPaths(dir string, out io.Writer) error {
	// vivid can stamp pictures as most cameras do, when they are taken.
	if _, _, err := output(context.Background(), "v4l2-ctl", "-d", "/dev/video0", "-c", "timestamp_source=1"); err != nil {
		return err
	}
	for _, p := range paths {
		w, err := p.walk(dir, pathPictures)
		if w.Path = p.name; err != nil {
			w.Error = err.Error()
		}
		if err := json.NewEncoder(out).Encode(w); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	return nil
}

// walk runs the daemon on the path's camera until so many pictures came out.
func (p path) walk(dir string, pictures int) (w walk, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), pathPatience)
	defer cancel()
	board, err := p.board(ctx, dir)
	if err != nil {
		return w, err
	}
	conf, err := config.Parse([]byte(p.config()), config.Rules{})
	if err != nil {
		return w, fmt.Errorf("configure: %w", err)
	}
	state, err := os.MkdirTemp("", "encoderd-bench-state-")
	if err != nil {
		return w, fmt.Errorf("make a state directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(state)) }()
	d := daemon.New(daemon.Options{Board: board, State: state, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	d.Apply(conf)
	running, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	var ended error
	group.Go(func() { ended = d.Run(running) })
	w, err = p.watch(ctx, d, pictures)
	stop()
	group.Wait()
	return w, errors.Join(err, ended)
}

// board is the virtual board with the path's camera alone.
func (p path) board(ctx context.Context, dir string) (hw.Board, error) {
	if p.model() {
		return modelBoard(dir)
	}
	if p.module != "" {
		if _, _, err := output(ctx, "sh", "-c", "modprobe "+p.module+" && udevadm settle"); err != nil {
			return hw.Board{}, err
		}
	}
	b, err := boards.Find("virt", os.DirFS("/"), slog.New(slog.DiscardHandler))
	if err != nil {
		return b, fmt.Errorf("find the virtual board: %w", err)
	}
	if p.file() {
		b.TestCamera, err = newFileCamera(captureJob{
			Format: p.camera, Width: pathWidth, Height: pathHeight, FPS: pathFPS, File: filepath.Join(dir, p.camera),
		})
		return b, err
	}
	if p.pixel != 0 {
		b.Cameras = giving(p.pixel, b.Cameras)
	}
	return b, nil
}

const pathConfig = `
[video]
source = %q
width = %d
height = %d
fps = %d
buffers = %q

[audio]
source = "none"

[serve]
web = ""
rtsp = ""
`

const pathRendition = `
[[rendition]]
name = %q
width = %d
height = %d
bitrate = "2M"
gop = "2s"
preset = "ultrafast"
threads = 1
encoder = %q
`

func (p path) config() string {
	source := pathCamera
	switch {
	case p.model():
		source = "auto"
	case p.file():
		source = "test"
	}
	doc := fmt.Sprintf(pathConfig, source, pathWidth, pathHeight, pathFPS, p.buffers)
	if !p.halved {
		doc += fmt.Sprintf(pathRendition, "main", pathWidth, pathHeight, p.encoder)
	}
	if p.halved || p.smaller {
		doc += fmt.Sprintf(pathRendition, p.rendition(), pathWidth/2, pathHeight/2, p.encoder)
	}
	return doc
}

// rendition is the one that counts.
func (p path) rendition() string {
	if p.smaller {
		return "sub"
	}
	return "main"
}

// A count is the state of the path's rendition and its input at one moment.
type count struct {
	input status.Input
	out   status.Rendition
}

func (p path) count(d *daemon.Daemon) (c count) {
	b, _ := d.Status()
	for _, r := range b.Renditions {
		if r.Name == p.rendition() {
			c = count{b.Input, r}
		}
	}
	return c
}

// way is how pictures go at the moment, or "".
func (c count) way() hw.Way {
	if c.out.Buffers == nil {
		return ""
	}
	return hw.Way(c.out.Buffers.Way)
}

// watch waits until pictures go the path's way, and looks at those that come
// from then on.
func (p path) watch(ctx context.Context, d *daemon.Daemon, pictures int) (w walk, err error) {
	var now count
	for now.way() != p.way || !now.input.Signal || now.out.State != status.Live || now.input.Frames < pathSettle {
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return w, fmt.Errorf("wanted %s: %w; the daemon says %+v", p.way, err, now)
		}
		now = p.count(d)
	}
	before, from := p.count(d), stream.Monotonic()
	units := d.Rendition(p.rendition()).Reader()
	for len(w.Latency) < pictures {
		u, err := units.Next(ctx)
		if err != nil {
			return w, fmt.Errorf("after %d pictures: %w", len(w.Latency), err)
		}
		if u.PTS < from { // what the last key picture began, for viewers that come late
			continue
		}
		w.Latency = append(w.Latency, float64(stream.Monotonic()-u.PTS)*pathFPS/float64(time.Second))
	}
	after := p.count(d)
	if after.way() != p.way {
		return w, fmt.Errorf("wanted %s to the end: %w; the daemon says %+v", p.way, hw.ErrUnsupported, after)
	}
	seen := between(before, after)
	seen.Latency = w.Latency
	return seen, nil
}

// between is what happened between two moments.
func between(before, after count) walk {
	return walk{
		Camera:   fmt.Sprintf("%s %dx%d %s", after.input.Name, after.input.Width, after.input.Height, after.input.Format),
		Encoder:  after.out.Encoder,
		Reason:   fmt.Sprintf("%s: %s", after.out.Buffers.Way, after.out.Buffers.Reason),
		Pictures: after.out.Frames - before.out.Frames,
		Copied:   after.out.CopiedBytes - before.out.CopiedBytes,
		Decoded:  after.input.DecodedBytes - before.input.DecodedBytes,
		Dropped:  after.out.Dropped - before.out.Dropped,
		Missed:   after.input.Missed + after.input.Damaged - before.input.Missed - before.input.Damaged,
		Slates:   after.input.Slate - before.input.Slate,
	}
}

// giving leaves the path's camera of a board, in one pixel format.
func giving(pixel hw.PixelFormat, cameras func() ([]hw.Camera, error)) func() ([]hw.Camera, error) {
	return func() ([]hw.Camera, error) {
		list, err := cameras()
		i := slices.IndexFunc(list, func(c hw.Camera) bool { return c.ID() == pathCamera })
		if i < 0 {
			return nil, err
		}
		sharing, ok := list[i].(hw.SharingCamera)
		if !ok {
			return nil, fmt.Errorf("%s: %w", strings.TrimSpace(list[i].Name()), hw.ErrUnsupported)
		}
		return []hw.Camera{oneFormat{sharing, pixel}}, err
	}
}

// A oneFormat is a camera that gives one pixel format.
type oneFormat struct {
	hw.SharingCamera
	pixel hw.PixelFormat
}

// Open implements [hw.Camera].
func (c oneFormat) Open(ctx context.Context, want hw.Mode) (hw.CameraStream, error) {
	want.Pixel = c.pixel
	return c.SharingCamera.Open(ctx, want)
}

// OpenShared implements [hw.SharingCamera].
func (c oneFormat) OpenShared(ctx context.Context, want hw.Mode, decide func(hw.BufferSource) hw.BufferPlan) (hw.SharedStream, error) {
	want.Pixel = c.pixel
	return c.SharingCamera.OpenShared(ctx, want, decide)
}
