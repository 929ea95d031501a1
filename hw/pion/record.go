package pion

import (
	"context"
	"errors"
	"fmt"
	"image"
	"io/fs"
	"math"
	"sync"
	"time"

	"github.com/pion/mediadevices/pkg/driver"
	"github.com/pion/mediadevices/pkg/frame"
	"github.com/pion/mediadevices/pkg/io/audio"
	"github.com/pion/mediadevices/pkg/io/video"
	"github.com/pion/mediadevices/pkg/prop"
	"github.com/pion/mediadevices/pkg/wave"

	"encoderd.example/hw"
)

var (
	_ driver.VideoRecorder = (*camera)(nil)
	_ driver.AudioRecorder = (*mic)(nil)
)

// A recording is the context of one Open: Close ends it, and with it every
// Read that waits.
type recording struct {
	mu     sync.Mutex
	cancel context.CancelFunc
	close  func() error
}

// begin opens with a context that lives until end.
func (r *recording) begin(open func(context.Context) (func() error, error)) error {
	ctx, cancel := context.WithCancel(context.Background())
	stop, err := open(ctx)
	if err != nil {
		cancel()
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancel, r.close = cancel, stop
	return nil
}

func (r *recording) end() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancel == nil {
		return nil
	}
	r.cancel()
	err := r.close()
	r.cancel, r.close = nil, nil
	return err
}

// A camera is a mediadevices driver over an hw.Camera.
type camera struct {
	dev   func() (hw.Camera, error)
	modes []hw.Mode
	rec   recording
}

// Open learns what the camera offers.
func (c *camera) Open() error {
	dev, err := c.dev()
	if err != nil {
		return err
	}
	c.modes, err = dev.Modes()
	return err
}

// Close ends the recording.
func (c *camera) Close() error { return c.rec.end() }

// formats pairs the layouts that can be images with mediadevices' names, which
// are four-character codes, too.
var formats = map[hw.PixelFormat]frame.Format{
	hw.I420: frame.FormatI420, hw.NV12: frame.FormatNV12, hw.YUYV: frame.FormatYUYV, hw.MJPEG: frame.FormatMJPEG,
	hw.UYVY: frame.FormatUYVY, hw.NV16: frame.Format(hw.NV16.String()), hw.I422: frame.Format(hw.I422.String()),
}

// Format returns mediadevices' name for a layout, and false if pictures of it
// are no images.
func Format(pixel hw.PixelFormat) (frame.Format, bool) {
	name, ok := formats[pixel]
	return name, ok
}

// Properties lists the modes of the opened camera; coded pictures are no
// images.
func (c *camera) Properties() []prop.Media {
	var list []prop.Media
	for _, m := range c.modes {
		if _, ok := formats[m.Pixel]; !ok {
			continue
		}
		list = append(list, prop.Media{Video: prop.Video{
			Width: m.Width, Height: m.Height, FrameRate: float32(m.FPS.Float()), FrameFormat: formats[m.Pixel],
		}})
	}
	return list
}

// VideoRecord starts capture. Each picture that the reader returns is a
// [*Picture] or, from an MJPEG mode, an *image.YCbCr. The reader fails with
// [io.EOF], and [hw.ErrGone] if that is the reason, once the recording is over.
func (c *camera) VideoRecord(p prop.Media) (video.Reader, error) {
	dev, err := c.dev()
	if err != nil {
		return nil, err
	}
	var read video.ReaderFunc
	err = c.rec.begin(func(ctx context.Context) (func() error, error) {
		s, err := open(ctx, dev, wish(p))
		if err != nil {
			return nil, err
		}
		if _, ok := formats[s.Mode().Pixel]; !ok {
			return nil, errors.Join(fmt.Errorf("record %s from %s: %w", s.Mode(), dev.ID(), hw.ErrUnsupported), s.Close())
		}
		out := &lending{}
		next := func() (*hw.Frame, error) { return s.Read(ctx) }
		read = func() (image.Image, func(), error) { return out.read(next) }
		return func() error {
			_ = out.end(fs.ErrClosed) // the reason is for Read
			return s.Close()
		}, nil
	})
	return read, err
}

// wish returns what p asks of a camera.
func wish(p prop.Media) hw.Mode {
	want := hw.Mode{Width: p.Width, Height: p.Height}
	if p.FrameRate > 0 {
		want.FPS = hw.Rate{Num: int(math.Round(float64(p.FrameRate) * 1000)), Den: 1000}
	}
	for pixel, name := range formats {
		if name == p.FrameFormat {
			want.Pixel = pixel
		}
	}
	return want
}

// open starts capture, so that an encoder can read the camera's memory where
// the camera can share it.
func open(ctx context.Context, dev hw.Camera, want hw.Mode) (hw.CameraStream, error) {
	c, ok := dev.(hw.SharingCamera)
	if !ok {
		return dev.Open(ctx, want)
	}
	return c.OpenShared(ctx, want, func(src hw.BufferSource) hw.BufferPlan {
		if !src.Exports {
			return hw.BufferPlan{Way: hw.Copy, Reason: "the camera cannot share its memory"}
		}
		return hw.BufferPlan{Way: hw.Export, Reason: "whoever takes the pictures can read the camera's memory"}
	})
}

// A mic is a mediadevices driver over an hw.Mic.
type mic struct {
	dev func() (hw.Mic, error)
	rec recording
}

// Open checks that the card is still there.
func (m *mic) Open() error {
	_, err := m.dev()
	return err
}

// Close ends the recording.
func (m *mic) Close() error { return m.rec.end() }

// period is the chunk of sound that one Read gives: 10 ms.
const period = hw.SampleRate / 100

// Properties says that there is one format: the box's.
func (m *mic) Properties() []prop.Media {
	return []prop.Media{{Audio: prop.Audio{
		ChannelCount: hw.Channels, SampleRate: hw.SampleRate, SampleSize: 2, IsInterleaved: true,
	}}}
}

// AudioRecord starts capture. The reader fails as that of VideoRecord does.
func (m *mic) AudioRecord(prop.Media) (audio.Reader, error) {
	dev, err := m.dev()
	if err != nil {
		return nil, err
	}
	var read audio.ReaderFunc
	err = m.rec.begin(func(ctx context.Context) (func() error, error) {
		s, err := dev.Open(ctx)
		if err != nil {
			return nil, err
		}
		h := &hearing{}
		next := func(pcm []int16) (int, time.Duration, error) { return s.Read(ctx, pcm) }
		read = func() (wave.Audio, func(), error) { return h.read(next) }
		return s.Close, nil
	})
	return read, err
}

// Sound that an overrun lost comes as silence, so that it stays in step with
// the picture: chunks have no stamps. Less than leastGap is a card's jitter;
// after more than mostGap it begins anew.
const (
	leastGap = 5 * time.Millisecond
	mostGap  = time.Second
)

// A hearing is the sound of one recording. It is for one goroutine.
type hearing struct {
	begun bool
	due   time.Duration // stamp of the sample after the last one read
	held  *wave.Int16Interleaved
	gap   int // sample frames of silence before held
	err   error
}

// read returns the next chunk. After an error it returns the same again.
func (h *hearing) read(next func([]int16) (int, time.Duration, error)) (wave.Audio, func(), error) {
	if h.held == nil && h.err == nil {
		h.err = h.hear(next)
	}
	if h.err != nil {
		return nil, nil, h.err
	}
	c := h.held
	if n := min(h.gap, period); n > 0 {
		h.gap -= n
		c = chunk(n)
	} else {
		h.held = nil
	}
	return c, func() {}, nil
}

// hear reads one chunk and sees how much was lost before it.
func (h *hearing) hear(next func([]int16) (int, time.Duration, error)) error {
	c := chunk(period)
	n, stamp, err := next(c.Data)
	if err != nil {
		return ended(err)
	}
	if lost := stamp - h.due; h.begun && lost >= leastGap && lost <= mostGap {
		h.gap = int(lost * hw.SampleRate / time.Second)
	}
	c.Data, c.Size.Len = c.Data[:n*hw.Channels], n
	h.begun, h.due, h.held = true, stamp+time.Duration(n)*time.Second/hw.SampleRate, c
	return nil
}

// chunk returns n sample frames of silence.
func chunk(n int) *wave.Int16Interleaved {
	return wave.NewInt16Interleaved(wave.ChunkInfo{Len: n, Channels: hw.Channels, SamplingRate: hw.SampleRate})
}
