package pion

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"io/fs"
	"slices"
	"sync"

	"encoderd.example/hw"
)

// A Picture lets a raw frame ride through mediadevices as an image: no pixel is
// copied, and whoever knows [hw.Frame] takes the frame out again.
//
// It is valid until the reader's release function is called. mediadevices'
// tracks never call it: then it is valid until the reader is asked for the
// third picture after it, or the recording ends. After that it is black, and
// the frame is back at the driver.
type Picture struct {
	mode hw.Mode

	mu    sync.RWMutex
	frame *hw.Frame // nil once it went back
	look  sync.Once // begins access to its pixels, which few ask for
	seen  bool      // it has begun; of look, then of giveBack
}

// Frame returns the frame with a reference for the caller, who releases it, or
// nil if the picture is no longer valid. It may be called from any goroutine.
func (p *Picture) Frame() *hw.Frame {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.frame == nil {
		return nil
	}
	return p.frame.Retain()
}

// giveBack ends the picture's validity. It may be called more than once.
func (p *Picture) giveBack() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.frame == nil {
		return
	}
	if p.seen {
		hw.EndAccess(p.frame.Planes, hw.Reading)
	}
	p.frame.Release()
	p.frame = nil
}

// ColorModel returns the model of the colours that At gives.
func (*Picture) ColorModel() color.Model { return color.YCbCrModel }

// Bounds returns the picture's size.
func (p *Picture) Bounds() image.Rectangle { return image.Rect(0, 0, p.mode.Width, p.mode.Height) }

// At returns one sample as it stands in the frame: video range is not
// stretched. Outside, and where the memory is not mapped, it is black.
func (p *Picture) At(x, y int) color.Color {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.frame == nil || p.frame.Planes[0].Data == nil || !image.Pt(x, y).In(p.Bounds()) {
		return color.YCbCr{Cb: 128, Cr: 128}
	}
	p.look.Do(func() {
		p.seen = true
		hw.BeginAccess(p.frame.Planes, hw.Reading)
	})
	return sample(p.frame, x, y)
}

func sample(f *hw.Frame, x, y int) color.YCbCr {
	at := func(plane, x, y int) uint8 { return f.Planes[plane].Data[y*f.Planes[plane].Stride+x] }
	pair := x / 2 * 4 // of packed pixels
	switch f.Pixel {
	case hw.NV12:
		return color.YCbCr{Y: at(0, x, y), Cb: at(1, x&^1, y/2), Cr: at(1, x|1, y/2)}
	case hw.NV16:
		return color.YCbCr{Y: at(0, x, y), Cb: at(1, x&^1, y), Cr: at(1, x|1, y)}
	case hw.I420:
		return color.YCbCr{Y: at(0, x, y), Cb: at(1, x/2, y/2), Cr: at(2, x/2, y/2)}
	case hw.I422:
		return color.YCbCr{Y: at(0, x, y), Cb: at(1, x/2, y), Cr: at(2, x/2, y)}
	case hw.UYVY:
		return color.YCbCr{Y: at(0, 2*x+1, y), Cb: at(0, pair, y), Cr: at(0, pair+2, y)}
	default: // YUYV: the camera opens no other
		return color.YCbCr{Y: at(0, 2*x, y), Cb: at(0, pair+1, y), Cr: at(0, pair+3, y)}
	}
}

// lendable is how many pictures that nobody releases are out at once. Readers
// of one track that come second look 33 ms late: two pictures at 60 fps.
const lendable = 3

// A lending keeps the pictures of one recording that are out.
//
//	camera ─► Read ─► [oldest … latest] ─► release, or its turn has come ─► camera
type lending struct {
	mu  sync.Mutex
	out []*Picture // oldest first
	err error      // why there are no more
}

// read returns the next picture that is whole: one that came damaged over the
// cable is no reason to end. After an error it returns the same again.
func (l *lending) read(next func() (*hw.Frame, error)) (image.Image, func(), error) {
	if err := l.makeRoom(); err != nil {
		return nil, nil, err
	}
	for {
		f, err := next()
		if err != nil {
			return nil, nil, l.end(err)
		}
		if f.Pixel != hw.MJPEG {
			return l.lend(f)
		}
		hw.BeginAccess(f.Planes, hw.Reading)
		img, err := jpeg.Decode(bytes.NewReader(f.Planes[0].Data))
		hw.EndAccess(f.Planes, hw.Reading)
		f.Release()
		if err == nil {
			return img, func() {}, nil
		}
	}
}

// makeRoom takes the oldest picture back before the camera needs its memory
// for the next one.
func (l *lending) makeRoom() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.out) >= lendable {
		l.out[0].giveBack()
		l.out = slices.Delete(l.out, 0, 1)
	}
	return l.err
}

func (l *lending) lend(f *hw.Frame) (image.Image, func(), error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		f.Release()
		return nil, nil, l.err
	}
	p := &Picture{mode: f.Mode, frame: f}
	l.out = append(l.out, p)
	return p, func() { l.takeBack(p) }, nil
}

func (l *lending) takeBack(p *Picture) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.giveBack()
	l.out = slices.DeleteFunc(l.out, func(o *Picture) bool { return o == p })
}

// end takes all pictures back and returns why there are no more: the first
// reason stays.
func (l *lending) end(why error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.out {
		p.giveBack()
	}
	l.out = nil
	if l.err == nil {
		l.err = ended(why)
	}
	return l.err
}

// ended marks as [io.EOF] what mediadevices takes for the ordinary end of a
// track: the device was unplugged, or the recording closed.
func ended(err error) error {
	if errors.Is(err, hw.ErrGone) || errors.Is(err, fs.ErrClosed) || errors.Is(err, context.Canceled) {
		return fmt.Errorf("%w: %w", err, io.EOF)
	}
	return err
}
