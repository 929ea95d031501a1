package daemon

import (
	"context"
	"errors"
	"fmt"

	"encoderd.example/daemon/config"
	"encoderd.example/hw"
	"encoderd.example/hw/soft"
	"encoderd.example/stream"
	"encoderd.example/stream/mjpeg"
)

// Errors of Snapshot.
var (
	ErrNoRendition = errors.New("no such rendition")
	ErrNoPicture   = errors.New("no picture yet")
)

const (
	snapshotWidth   = 640
	snapshotQuality = 75
)

// Snapshot returns the picture that goes into a rendition now, at most 640
// pixels wide. Of a camera that codes by itself it is the latest key picture,
// or last if that is the same. The error wraps [ErrNoRendition] or
// [ErrNoPicture]. It may be called from any goroutine.
func (d *Daemon) Snapshot(ctx context.Context, name string, last mjpeg.Picture) (mjpeg.Picture, error) {
	src := d.Rendition(name)
	if src == nil {
		return mjpeg.Picture{}, fmt.Errorf("%q: %w", name, ErrNoRendition)
	}
	d.mu.Lock()
	r, _ := d.config.Rendition(name)
	d.mu.Unlock()
	if r.Encoder == config.Camera && d.hub.live() {
		return keyStill(ctx, src, last)
	}
	f, err := d.hub.shot(ctx)
	if err != nil {
		return mjpeg.Picture{}, ErrNoPicture
	}
	return still(f)
}

// still makes a picture of f, which it releases.
func still(f *hw.Frame) (mjpeg.Picture, error) {
	defer f.Release()
	jpeg, err := soft.EncodeJPEG(f, min(f.Width, snapshotWidth), snapshotQuality)
	if err != nil {
		return mjpeg.Picture{}, fmt.Errorf("%w: %w", ErrNoPicture, err)
	}
	return mjpeg.Picture{JPEG: jpeg, Stamp: f.Stamp}, nil
}

// keyStill returns the latest key picture of a rendition, decoded unless it is
// last.
func keyStill(ctx context.Context, src *stream.Rendition, last mjpeg.Picture) (mjpeg.Picture, error) {
	u, err := latestKey(ctx, src)
	if err != nil {
		return mjpeg.Picture{}, ErrNoPicture
	}
	if last.JPEG != nil && u.PTS == last.Stamp {
		return last, nil
	}
	f, err := soft.DecodeKey(u)
	if err != nil {
		return mjpeg.Picture{}, fmt.Errorf("%w: the camera codes by itself: %w", ErrNoPicture, err)
	}
	return still(f)
}

// latestKey returns the latest key unit of a rendition's picture.
func latestKey(ctx context.Context, src *stream.Rendition) (*stream.Unit, error) {
	units := src.Reader()
	for {
		u, err := units.Next(ctx)
		if err != nil || u.Key && u.Track.Codec.Video() {
			return u, err
		}
	}
}
