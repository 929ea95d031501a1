package convert

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
)

// Ahead returns driver with scalers in front of it: opened for an
// [hw.EncoderConfig].Input of another size or format than it codes, it has a
// scaler make its pictures, in the encoder's memory where that goes. Without
// hardware that can, it is driver as it was. scalers is asked at each opening.
// The Importer of the result is an [hw.ScalingImporter].
func Ahead(driver hw.EncoderDriver, scalers func() ([]*Device, error)) hw.EncoderDriver {
	if driver.Importer == nil {
		return driver
	}
	in := importer{Importer: driver.Importer, name: driver.Name, scalers: scalers}
	open := driver.Open
	driver.Importer = in
	driver.Open = func(c hw.EncoderConfig) (hw.Encoder, error) {
		if c.Input.Pixel == 0 || in.codes(c) {
			return open(c)
		}
		e, err := in.open(c, open)
		if errors.Is(err, errNoScaler) {
			c.Input = hw.Layout{}
			return open(c)
		}
		return e, err
	}
	return driver
}

// errNoScaler says that the encoder has to do without.
var errNoScaler = errors.New("no scaler")

// An importer is the input of an encoder and of the scalers before it.
type importer struct {
	hw.Importer
	name    string
	scalers func() ([]*Device, error)
}

// Parent implements [hw.Attached] for encoders that are a part of something.
func (in importer) Parent() string {
	if a, ok := in.Importer.(hw.Attached); ok {
		return a.Parent()
	}
	return ""
}

// codes says that the encoder takes the pictures without a scaler.
func (in importer) codes(c hw.EncoderConfig) bool {
	return c.Input.Width == c.Width && c.Input.Height == c.Height && slices.Contains(in.Takes(), c.Input.Pixel)
}

// Scaled implements [hw.ScalingImporter].
func (in importer) Scaled(src hw.Layout, width, height int) (hw.Layout, string, error) {
	c, err := in.choose(src, width, height)
	return c.in, c.name(), err
}

// A choice is a scaler and what it shall do.
type choice struct {
	device  *Device
	in, out hw.Layout
}

func (c choice) name() string {
	if c.device == nil {
		return ""
	}
	return c.device.Name()
}

// choose returns the first scaler that makes what the encoder takes of src.
func (in importer) choose(src hw.Layout, width, height int) (choice, error) {
	unsupported := fmt.Errorf("scale %s to %dx%d for %s: %w", src, width, height, in.name, hw.ErrUnsupported)
	if !alike(src.Width, src.Height, width, height) {
		return choice{}, unsupported // hardware would stretch it
	}
	all, err := in.scalers()
	for _, d := range all {
		for _, pixel := range in.Takes() {
			if !slices.Contains(d.Gives(), pixel) {
				continue
			}
			out, e := in.Layout(hw.Layout{Pixel: pixel, Width: width, Height: height})
			if e != nil {
				continue
			}
			l, e := d.rehearse(src, out)
			if e == nil {
				return choice{d, l, out}, nil
			}
			err = errors.Join(err, e)
		}
	}
	return choice{}, errors.Join(unsupported, err)
}

// rehearse returns how the device reads pictures like src, if it makes those
// like out of them. It starts nothing.
func (d *Device) rehearse(src, out hw.Layout) (_ hw.Layout, err error) {
	node, err := v4l2.OpenDevice(d.sys, d.path)
	if err != nil {
		return hw.Layout{}, err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	_, l, err := d.setInput(node, src)
	if err != nil {
		return hw.Layout{}, err
	}
	_, _, err = d.setOutput(node, job{out: out})
	return l, err
}

// alike says that two sizes have one aspect, but for the even numbers of
// pixels that a small picture is rounded to.
func alike(w1, h1, w2, h2 int) bool {
	if h1 == 0 || h2 == 0 {
		return false
	}
	off := w1*h2 - w2*h1
	return off < 2*h1 && off > -2*h1
}

// aheadBuffers is how many pictures between scaler and encoder there are: two
// at either, and one on its way.
const aheadBuffers = 5

// open opens a scaler and the encoder behind it.
func (in importer) open(c hw.EncoderConfig, open func(hw.EncoderConfig) (hw.Encoder, error)) (_ hw.Encoder, err error) {
	how, err := in.choose(c.Input, c.Width, c.Height)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoScaler, err)
	}
	conv, pool, err := in.start(how, c.Input)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoScaler, err)
	}
	input := c.Input
	c.Input = conv.Layout()
	enc, err := open(c)
	if err != nil {
		return nil, errors.Join(err, conv.Close(), pool.Close())
	}
	e := &encoder{Encoder: enc, conv: conv, pool: pool, input: input}
	ctx, cancel := context.WithCancel(context.Background())
	e.end = cancel
	e.pump.Go(func() { e.run(ctx) })
	return e, nil
}

// start opens the scaler into memory of the encoder's, or, where their lines
// differ, into its own if the encoder reads that.
func (in importer) start(how choice, src hw.Layout) (*Converter, hw.Pool, error) {
	pool, err := in.Allocate(how.out, aheadBuffers)
	if err == nil {
		conv, e := how.device.OpenInto(src, pool)
		if e == nil {
			return conv, pool, nil
		}
		err = errors.Join(e, pool.Close())
	}
	conv, e := how.device.Open(src, how.out)
	if e != nil {
		return nil, nil, errors.Join(err, e)
	}
	if l, e := in.Layout(conv.Layout()); e != nil || !l.Reads(conv.Layout()) {
		return nil, nil, errors.Join(fmt.Errorf("%s gives %s, %s reads %s: %w", how.name(), conv.Layout(), in.name, l, hw.ErrUnsupported), err, conv.Close())
	}
	return conv, noPool{}, nil
}

// noPool stands for memory of the scaler's own.
type noPool struct{ hw.Pool }

func (noPool) Close() error { return nil }

// An encoder is one with a scaler before it; it implements [hw.Encoder]. Its
// pump carries pictures from one to the other. If the scaler fails, pictures go
// to the encoder as they are, which scales them with the processor.
type encoder struct {
	hw.Encoder
	conv  *Converter
	pool  hw.Pool
	input hw.Layout
	pump  sync.WaitGroup
	end   context.CancelFunc
	close sync.Once
	err   error // of Close

	mu     sync.Mutex
	direct uint64        // pictures that went past the scaler
	late   uint64        // pictures that were overtaken
	last   time.Duration // stamp of the last picture that the encoder got
	began  bool
	failed error // of the scaler
}

// Submit implements [hw.Encoder].
func (e *encoder) Submit(f *hw.Frame) error {
	if e.scales(f) {
		return e.conv.Submit(f)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	err := e.pass(f)
	if err == nil {
		e.direct++
	}
	return err
}

// scales says that a picture is of the kind that the scaler was opened for.
func (e *encoder) scales(f *hw.Frame) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.failed == nil && f.Pixel == e.input.Pixel && f.Width == e.input.Width && f.Height == e.input.Height
}

// pass hands a picture to the encoder unless a later one was there before it,
// under mu: one that went past the scaler overtakes those inside.
func (e *encoder) pass(f *hw.Frame) error {
	if e.began && f.Stamp <= e.last {
		e.late++
		return fmt.Errorf("a later picture has overtaken it: %w", hw.ErrBusy)
	}
	err := e.Encoder.Submit(f)
	if err == nil {
		e.last, e.began = f.Stamp, true
	}
	return err
}

// run is the pump.
func (e *encoder) run(ctx context.Context) {
	for {
		f, err := e.conv.Next(ctx)
		if ctx.Err() != nil {
			if f != nil {
				f.Release()
			}
			return
		}
		e.mu.Lock()
		if err != nil {
			e.failed = err
			e.mu.Unlock()
			return
		}
		_ = e.pass(f) // it counts what is dropped
		e.mu.Unlock()
		f.Release()
	}
}

// Stats implements [hw.Encoder]: of both together.
func (e *encoder) Stats() hw.EncoderStats {
	e.mu.Lock()
	direct, late := e.direct, e.late
	e.mu.Unlock()
	conv, st := e.conv.Stats(), e.Encoder.Stats()
	st.Submitted = direct + conv.Submitted
	st.Dropped += conv.Dropped + late
	st.Swallowed += conv.Swallowed + conv.Damaged
	st.CopiedBytes += conv.CopiedBytes
	return st
}

// CopyReason says, for people, why the processor copies or scales pictures; ""
// while it does not.
func (e *encoder) CopyReason() string {
	e.mu.Lock()
	failed := e.failed
	e.mu.Unlock()
	if failed != nil {
		return fmt.Sprintf("the processor scales, because the scaler failed: %v", failed)
	}
	if why := e.conv.CopyReason(); why != "" {
		return why
	}
	if c, ok := e.Encoder.(interface{ CopyReason() string }); ok {
		return c.CopyReason()
	}
	return ""
}

// Close implements [hw.Encoder]. The memory between the two goes last.
func (e *encoder) Close() error {
	e.close.Do(func() {
		e.end()
		e.pump.Wait()
		e.err = errors.Join(e.conv.Close(), e.Encoder.Close(), e.pool.Close())
	})
	return e.err
}
