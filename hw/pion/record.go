package pion

import (
	"bytes"
	"context"
	"image"
	"image/color"
	"image/jpeg"
	"math"
	"sync"

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

// formats pairs our layouts with mediadevices' names.
var formats = map[hw.PixelFormat]frame.Format{
	hw.I420: frame.FormatI420, hw.NV12: frame.FormatNV12, hw.YUYV: frame.FormatYUYV, hw.MJPEG: frame.FormatMJPEG,
}

// Properties lists the modes of the opened camera.
func (c *camera) Properties() []prop.Media {
	var list []prop.Media
	for _, m := range c.modes {
		list = append(list, prop.Media{Video: prop.Video{
			Width: m.Width, Height: m.Height, FrameRate: float32(m.FPS.Float()), FrameFormat: formats[m.Pixel],
		}})
	}
	return list
}

// VideoRecord starts capture. Each picture that the reader returns is a
// [Picture] or, from an MJPEG mode, an *image.YCbCr.
func (c *camera) VideoRecord(p prop.Media) (video.Reader, error) {
	dev, err := c.dev()
	if err != nil {
		return nil, err
	}
	want := hw.Mode{Width: p.Width, Height: p.Height}
	if p.FrameRate > 0 {
		want.FPS = hw.Rate{Num: int(math.Round(float64(p.FrameRate) * 1000)), Den: 1000}
	}
	for pixel, name := range formats {
		if name == p.FrameFormat {
			want.Pixel = pixel
		}
	}
	var read video.ReaderFunc
	err = c.rec.begin(func(ctx context.Context) (func() error, error) {
		s, err := dev.Open(ctx, want)
		if err != nil {
			return nil, err
		}
		read = func() (image.Image, func(), error) { return next(ctx, s) }
		return s.Close, nil
	})
	return read, err
}

// next returns the next picture that is whole: one that came damaged over the
// cable is no reason to end.
func next(ctx context.Context, s hw.CameraStream) (image.Image, func(), error) {
	for {
		f, err := s.Read(ctx)
		if err != nil {
			return nil, nil, err
		}
		if f.Pixel != hw.MJPEG {
			return Picture{f}, f.Release, nil
		}
		img, err := jpeg.Decode(bytes.NewReader(f.Planes[0].Data))
		f.Release()
		if err == nil {
			return img, func() {}, nil
		}
	}
}

// A Picture lets a raw frame ride through mediadevices as an image: no pixel
// is copied, and whoever knows [hw.Frame] takes the frame out again. It is
// valid until the reader's release function is called.
type Picture struct{ *hw.Frame }

// ColorModel returns the model of the colours that At gives.
func (Picture) ColorModel() color.Model { return color.YCbCrModel }

// Bounds returns the picture's size.
func (p Picture) Bounds() image.Rectangle { return image.Rect(0, 0, p.Width, p.Height) }

// At returns one sample as it stands in the frame: video range is not
// stretched.
func (p Picture) At(x, y int) color.Color {
	if !image.Pt(x, y).In(p.Bounds()) {
		return color.YCbCr{}
	}
	at := func(plane, x, y int) uint8 { return p.Planes[plane].Data[y*p.Planes[plane].Stride+x] }
	switch p.Pixel {
	case hw.NV12:
		return color.YCbCr{Y: at(0, x, y), Cb: at(1, x&^1, y/2), Cr: at(1, x|1, y/2)}
	case hw.I420:
		return color.YCbCr{Y: at(0, x, y), Cb: at(1, x/2, y/2), Cr: at(2, x/2, y/2)}
	case hw.I422:
		return color.YCbCr{Y: at(0, x, y), Cb: at(1, x/2, y), Cr: at(2, x/2, y)}
	case hw.YUYV:
		pair := x / 2 * 4
		return color.YCbCr{Y: at(0, 2*x, y), Cb: at(0, pair+1, y), Cr: at(0, pair+3, y)}
	default:
		return color.YCbCr{}
	}
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

// AudioRecord starts capture.
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
		read = func() (wave.Audio, func(), error) {
			chunk := wave.NewInt16Interleaved(wave.ChunkInfo{Len: period, Channels: hw.Channels, SamplingRate: hw.SampleRate})
			n, _, err := s.Read(ctx, chunk.Data)
			if err != nil {
				return nil, nil, err
			}
			chunk.Data, chunk.Size.Len = chunk.Data[:n*hw.Channels], n
			return chunk, func() {}, nil
		}
		return s.Close, nil
	})
	return read, err
}
