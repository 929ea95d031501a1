package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/stream"
)

const (
	// align is what widths are multiples of: rpicam-vid writes lines as long as
	// they are in memory, which is a multiple of 64 on every model.
	align = 64
	// Limits of what is asked of rpicam-vid, which takes the nearest that the
	// sensor has, and scales.
	maxWidth, maxHeight, maxFPS = 4096, 3072, 120
	// listing is how long it may take to list the cameras.
	listing = 3 * time.Second
	// lateStamp is how long a picture waits for its metadata.
	lateStamp = 200 * time.Millisecond
	// lateWords is how long its end waits for what rpicam-vid says of it.
	lateWords = 500 * time.Millisecond
	// maxAge is how old a picture can be when it is read.
	maxAge = 5 * time.Second
	// pipeSize holds a third of a 1080p picture: fewer turns than the usual.
	pipeSize = 1 << 20
)

// A source reads pictures from a running rpicam-vid; it implements
// [device.Source].
type source struct {
	program string

	mode     hw.Mode
	cmd      *exec.Cmd
	exited   chan struct{} // closed when cmd has ended and its words are read
	status   error         // how; read after exited
	words    *lastWords
	pipe     *os.File
	pictures *bufio.Reader
	stamps   <-chan time.Duration // nil once there are none
	began    bool
	seq      uint32
	last     time.Duration
}

// Modes implements [device.Source]. Any other size is granted too, with a width
// that is a multiple of 64.
func (s *source) Modes(ctx context.Context) ([]hw.Mode, error) {
	ctx, cancel := context.WithTimeout(ctx, listing)
	defer cancel()
	out, err := exec.CommandContext(ctx, s.program, "--list-cameras").CombinedOutput() //nolint:gosec // G204: the program is ours to choose
	switch {
	case errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%s: %w: apt-get install rpicam-apps-lite", s.program, hw.ErrMissing)
	case strings.Contains(string(out), "No cameras available"):
		return nil, fmt.Errorf("%s sees no camera: %w", s.program, hw.ErrGone)
	case err != nil:
		return nil, fmt.Errorf("%s --list-cameras: %w", s.program, err)
	}
	var modes []hw.Mode
	for _, m := range [][3]int{{1920, 1080, 30}, {1280, 720, 60}, {1280, 720, 30}, {640, 480, 30}, {640, 360, 30}} {
		modes = append(modes, grant(hw.Mode{Width: m[0], Height: m[1], FPS: hw.Rate{Num: m[2], Den: 1}}))
	}
	return modes, nil
}

// grant returns the nearest mode that is possible. What rpicam-vid calls
// yuv420 has the colours of JPEG: full range.
func grant(want hw.Mode) hw.Mode {
	got := hw.Mode{Pixel: hw.I420, Width: 1920, Height: 1080, FPS: hw.Rate{Num: 30, Den: 1}, FullRange: true}
	if want.Width > 0 {
		got.Width = min(max((want.Width+align/2)/align, 1)*align, maxWidth)
	}
	if want.Height > 0 {
		got.Height = min(max((want.Height+1)&^1, 2), maxHeight)
	}
	if fps := want.FPS.Float(); fps >= 1 && fps <= maxFPS && want.FPS.Num <= 1_000_000 {
		got.FPS = want.FPS
	}
	return got
}

// Grant implements [device.Source]: it starts rpicam-vid and waits for the
// first byte, for only then is it known that the camera works.
func (s *source) Grant(ctx context.Context, want hw.Mode) (hw.Mode, error) {
	s.mode = grant(want)
	if err := s.start(ctx); err != nil {
		return hw.Mode{}, fmt.Errorf("start %s: %w", s.program, err)
	}
	if _, err := s.pictures.Peek(1); err != nil {
		err = s.ended(err)
		return hw.Mode{}, errors.Join(err, s.Close())
	}
	return s.mode, nil
}

// start runs rpicam-vid with its output in one pipe and its metadata in
// another, which it knows as descriptor 3.
func (s *source) start(ctx context.Context) error {
	pictures, writePictures, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = writePictures.Close() }()
	widen(pictures)
	metadata, writeMetadata, err := os.Pipe()
	if err != nil {
		return errors.Join(err, pictures.Close())
	}
	defer func() { _ = writeMetadata.Close() }()
	s.words = &lastWords{to: os.Stderr}
	cmd := exec.CommandContext(ctx, s.program, //nolint:gosec // G204: the program is ours to choose
		"--nopreview", "--timeout", "0", "--codec", "yuv420", "--flush",
		"--width", strconv.Itoa(s.mode.Width), "--height", strconv.Itoa(s.mode.Height),
		"--framerate", strconv.FormatFloat(s.mode.FPS.Float(), 'f', 3, 64),
		"--metadata", "/dev/fd/3", "--metadata-format", "txt",
		"--output", "-")
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = writePictures, s.words, []*os.File{writeMetadata}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it stops the camera and ends
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return errors.Join(err, pictures.Close(), metadata.Close())
	}
	s.cmd, s.pipe, s.pictures = cmd, pictures, bufio.NewReaderSize(pictures, 1<<16)
	s.exited = make(chan struct{})
	go func() {
		defer close(s.exited)
		s.status = cmd.Wait()
	}()
	stamps := make(chan time.Duration, 64)
	s.stamps = stamps
	go func() {
		readStamps(metadata, stamps)
		close(stamps)
		_ = metadata.Close()
	}()
	return nil
}

// widen gives a pipe more room; where it fails there are more wake-ups.
func widen(pipe *os.File) {
	raw, err := pipe.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
}

// readStamps sends the SensorTimestamp of each paragraph, zero where there is
// none. It gives up when nobody takes them.
func readStamps(metadata io.Reader, stamps chan<- time.Duration) {
	lines := bufio.NewScanner(metadata)
	var stamp time.Duration
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "SensorTimestamp="); ok {
			ns, err := strconv.ParseInt(text, 10, 64)
			if err == nil {
				stamp = time.Duration(ns)
			}
		}
		if lines.Text() != "" {
			continue
		}
		select {
		case stamps <- stamp:
			stamp = 0
		default:
			return
		}
	}
}

// Fill implements [device.Source].
func (s *source) Fill(_ context.Context, planes []hw.Plane) (time.Duration, uint32, error) {
	if err := s.read(planes); err != nil {
		return 0, 0, s.ended(err)
	}
	stamp := s.stamp()
	s.count(stamp)
	s.last = stamp
	return stamp, s.seq, nil
}

// read reads one picture: a plane at once where its lines follow one another,
// else line by line.
func (s *source) read(planes []hw.Plane) error {
	tight, size, err := s.mode.Layout()
	if err != nil {
		return err
	}
	if planes == nil {
		_, err := io.CopyN(io.Discard, s.pictures, int64(size))
		return err
	}
	for i, p := range tight {
		lines := s.mode.Height
		if i > 0 {
			lines = (lines + 1) / 2
		}
		step, n := p.Stride, lines
		if planes[i].Stride == p.Stride {
			step, n = p.Stride*lines, 1
		}
		for y := range n {
			if _, err := io.ReadFull(s.pictures, planes[i].Data[y*planes[i].Stride:][:step]); err != nil {
				return err
			}
		}
	}
	return nil
}

// stamp returns when the picture that was just read was taken: as the sensor's
// driver says, or, once rpicam-vid has failed to say it, one frame before now.
func (s *source) stamp() time.Duration {
	if s.stamps != nil {
		if stamp, ok := s.told(); ok {
			return stamp
		}
		fmt.Fprintln(os.Stderr, "rpicam-vid tells no SensorTimestamp: pictures are stamped when they are read")
		s.stamps = nil
	}
	return max(stream.Monotonic()-s.mode.FPS.Period(), s.last+1)
}

// told waits for the metadata of a picture, which comes right behind it.
func (s *source) told() (time.Duration, bool) {
	late := time.NewTimer(lateStamp)
	defer late.Stop()
	select {
	case stamp := <-s.stamps:
		now := stream.Monotonic()
		return stamp, stamp > s.last && stamp <= now && now-stamp < maxAge
	case <-late.C:
		return 0, false
	}
}

// count numbers the picture by the time since the one before: rpicam-vid does
// not say what it has dropped.
func (s *source) count(stamp time.Duration) {
	if !s.began {
		s.began = true
		return
	}
	frames := uint32(1)
	if period := s.mode.FPS.Period(); s.stamps != nil && period > 0 {
		frames = max(1, uint32((stamp-s.last+period/2)/period))
	}
	s.seq += frames
}

// ended explains why there are no more pictures.
func (s *source) ended(err error) error {
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	late := time.NewTimer(lateWords) // they come by another pipe
	defer late.Stop()
	select {
	case <-s.exited:
	case <-late.C:
	}
	words := s.words.String()
	if strings.Contains(words, "in use by another process") {
		return fmt.Errorf("%s: %w: %s", s.program, hw.ErrBusy, words)
	}
	return fmt.Errorf("%s has ended: %w: %s", s.program, hw.ErrGone, words)
}

// Close implements [device.Source].
func (s *source) Close() error {
	_ = s.cmd.Cancel() // it may have ended
	_ = s.pipe.Close() // a write that waits ends with SIGPIPE
	<-s.exited         // by a signal, or it had ended by itself before
	if exit := (*exec.ExitError)(nil); errors.As(s.status, &exit) {
		return nil
	}
	return s.status
}

// lastWords passes on what is written and keeps the last line.
type lastWords struct {
	to io.Writer

	mu   sync.Mutex
	line string
}

// Write implements [io.Writer].
func (w *lastWords) Write(b []byte) (int, error) {
	w.mu.Lock()
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if last := lines[len(lines)-1]; last != "" {
		w.line = last[:min(len(last), 200)]
	}
	w.mu.Unlock()
	return w.to.Write(b)
}

// String returns the last line.
func (w *lastWords) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.line
}
