package convert

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"encoderd.example/hw"
)

// Decoding returns the camera with a decoder of hardware behind it: where it
// would deliver MJPEG it delivers what the decoder makes of that, in memory
// that encoders may read. Modes and ID stay as they are, and who asks for a
// pixel format gets it. decoders is asked at each opening, so it had better not
// open devices that it knows, see [Known]; without any, or if
// none can decode the camera's first pictures, they come as they are. A decoder
// that hangs ends the stream within a second, and is as good as none at the next
// opening if it still does.
func Decoding(c hw.SharingCamera, decoders func() ([]*Device, error), log *slog.Logger) hw.Camera {
	return camera{SharingCamera: c, decoders: decoders, log: log}
}

// A camera is one with decoders; it implements all that cameras can be.
type camera struct {
	hw.SharingCamera
	decoders func() ([]*Device, error)
	takes    []hw.PixelFormat
	log      *slog.Logger
}

// Preferring implements [hw.PreferringCamera].
func (c camera) Preferring(takes []hw.PixelFormat) hw.Camera {
	c.takes = takes
	if p, ok := c.SharingCamera.(hw.PreferringCamera); ok {
		if s, ok := p.Preferring(takes).(hw.SharingCamera); ok {
			c.SharingCamera = s
		}
	}
	return c
}

// AwaitSignal implements [hw.SignalCamera] for those that are one.
func (c camera) AwaitSignal(ctx context.Context) error {
	if s, ok := c.SharingCamera.(hw.SignalCamera); ok {
		return s.AwaitSignal(ctx)
	}
	return fmt.Errorf("wait for a signal of %s: %w", c.ID(), hw.ErrUnsupported)
}

// SoundRate implements [hw.SoundCamera] for those that are one.
func (c camera) SoundRate() (int, error) {
	if s, ok := c.SharingCamera.(hw.SoundCamera); ok {
		return s.SoundRate()
	}
	return 0, fmt.Errorf("sound of %s: %w", c.ID(), hw.ErrUnsupported)
}

// Parent implements [hw.Attached] for those that are a part of something.
func (c camera) Parent() string {
	if a, ok := c.SharingCamera.(hw.Attached); ok {
		return a.Parent()
	}
	return ""
}

// Instance implements [hw.Instanced] for those that can be told apart.
func (c camera) Instance() uint64 {
	if i, ok := c.SharingCamera.(hw.Instanced); ok {
		return i.Instance()
	}
	return 0
}

// Open implements [hw.Camera].
func (c camera) Open(ctx context.Context, want hw.Mode) (hw.CameraStream, error) {
	return c.OpenShared(ctx, want, func(hw.BufferSource) hw.BufferPlan {
		return hw.BufferPlan{Way: hw.Copy, Reason: "nobody was asked to share"}
	})
}

// OpenShared implements [hw.SharingCamera]. A camera that gives MJPEG is opened
// first; decide is then asked about the decoder's memory.
func (c camera) OpenShared(ctx context.Context, want hw.Mode, decide func(hw.BufferSource) hw.BufferPlan) (hw.SharedStream, error) {
	devices, err := c.decoders()
	if err != nil {
		c.log.Warn("not all JPEG decoders can be listed", "camera", c.ID(), "err", err)
	}
	if len(devices) == 0 || want.Pixel != 0 {
		return c.SharingCamera.OpenShared(ctx, want, decide)
	}
	var coded hw.BufferSource
	s, err := c.SharingCamera.OpenShared(ctx, want, func(src hw.BufferSource) hw.BufferPlan {
		if src.Mode.Pixel != hw.MJPEG {
			return decide(src)
		}
		coded = src
		return hw.BufferPlan{Way: hw.Decode, Reason: "hardware decodes JPEG"}
	})
	if err != nil || coded.Mode.Pixel != hw.MJPEG {
		return s, err
	}
	for _, d := range devices {
		raw, err := c.begin(ctx, s, d, coded.Mode)
		if err == nil {
			raw.plan = decide(raw.source())
			return raw, nil
		}
		if lost := (*cameraError)(nil); errors.As(err, &lost) {
			return nil, errors.Join(lost.err, s.Close())
		}
		c.log.Warn("JPEG decoder is of no use for this camera", "camera", c.ID(), "decoder", d.Name(), "err", err)
	}
	return undecoded{s, decide(coded)}, nil
}

// A cameraError is one that no decoder can help.
type cameraError struct{ err error }

func (e *cameraError) Error() string { return e.err.Error() }
func (e *cameraError) Unwrap() error { return e.err }

// How many pictures in a row a decoder may fail at until it is given up.
const (
	tries     = 10 // the first ones of USB cameras are often cut off
	swallowed = 2  // of them, without a word: each costs decodeLimit
)

// begin decodes the first picture.
func (c camera) begin(ctx context.Context, s hw.SharedStream, d *Device, m hw.Mode) (*decoding, error) {
	raw := &decoding{CameraStream: s, decoder: NewJPEGDecoder(d, c.takes), name: d.Name()}
	f, err := raw.decode(ctx)
	if err != nil {
		return nil, errors.Join(err, raw.decoder.Close())
	}
	raw.first = f
	raw.mode = f.Mode
	raw.mode.FPS = m.FPS
	return raw, nil
}

// An undecoded stream is the camera's own.
type undecoded struct {
	hw.SharedStream
	plan hw.BufferPlan
}

func (u undecoded) Plan() hw.BufferPlan { return u.plan }

// A decoding is a camera and a decoder at work; it implements
// [hw.SharedStream].
type decoding struct {
	hw.CameraStream
	name    string // of the decoder
	mode    hw.Mode
	plan    hw.BufferPlan
	damaged atomic.Uint64

	mu      sync.Mutex // held by Read, and by Close once Read has left for good
	decoder *JPEGDecoder
	first   *hw.Frame // decoded already
}

// source describes the decoder's memory.
func (s *decoding) source() hw.BufferSource {
	src := hw.BufferSource{Driver: s.name, Mode: s.mode, Layout: s.decoder.conv.Layout(), Exports: s.first.Planes[0].FD >= 0}
	if !src.Exports {
		src.Private = "the decoder keeps its memory to itself"
	}
	return src
}

// Mode implements [hw.CameraStream].
func (s *decoding) Mode() hw.Mode { return s.mode }

// Plan implements [hw.SharedStream].
func (s *decoding) Plan() hw.BufferPlan { return s.plan }

// Stats implements [hw.CameraStream]: what cannot be decoded is damaged.
func (s *decoding) Stats() hw.CameraStats {
	st, damaged := s.CameraStream.Stats(), s.damaged.Load()
	st.Frames -= min(damaged, st.Frames)
	st.Damaged += damaged
	return st
}

// Read implements [hw.CameraStream].
func (s *decoding) Read(ctx context.Context) (*hw.Frame, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.first; f != nil {
		s.first = nil
		return f, nil
	}
	f, err := s.decode(ctx)
	if err != nil {
		return nil, err
	}
	if f.Pixel != s.mode.Pixel || f.Width != s.mode.Width || f.Height != s.mode.Height {
		f.Release()
		return nil, fmt.Errorf("the camera's JPEG is %s now, no longer %s: %w", f.Mode, s.mode, hw.ErrUnsupported)
	}
	return f, nil
}

// decode returns the next picture that is not damaged.
func (s *decoding) decode(ctx context.Context) (*hw.Frame, error) {
	silent := 0
	for try := 1; ; try++ {
		f, err := s.CameraStream.Read(ctx)
		if err != nil {
			return nil, &cameraError{err}
		}
		raw, err := s.decoder.Decode(f) //nolint:contextcheck // the device that it may open outlives this call
		f.Release()
		if err == nil {
			return raw, nil
		}
		if !errors.Is(err, ErrDamaged) {
			return nil, err
		}
		s.damaged.Add(1)
		if errors.Is(err, errSwallowed) {
			silent++
		}
		if try == tries || silent == swallowed {
			return nil, fmt.Errorf("%d pictures in a row: %w", try, err)
		}
	}
}

// Close implements [hw.CameraStream]: the camera goes first, which ends a Read.
func (s *decoding) Close() error {
	err := s.CameraStream.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first != nil {
		s.first.Release()
		s.first = nil
	}
	return errors.Join(err, s.decoder.Close())
}
