package main

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/daemon"
	"encoderd.example/hw"
	"encoderd.example/stream"
)

// A steadyEncoder needs the same time for each picture and has room for two.
type steadyEncoder struct {
	hw.Encoder
	each   time.Duration
	inside chan time.Duration
	last   time.Duration
}

func (e *steadyEncoder) Submit(f *hw.Frame) error {
	if f.Stamp <= e.last {
		return hw.ErrUnsupported
	}
	select {
	case e.inside <- f.Stamp:
		e.last = f.Stamp
		return nil
	default:
		return hw.ErrBusy
	}
}

func (e *steadyEncoder) Next(ctx context.Context) (*stream.Unit, error) {
	if e.each == 0 {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	time.Sleep(e.each)
	return &stream.Unit{PTS: <-e.inside}, nil
}

func (e *steadyEncoder) Close() error { return nil }

func steady(name string, budget int, each time.Duration) hw.EncoderDriver {
	return hw.EncoderDriver{Name: name, Hardware: true, Budget: budget, Codecs: []stream.Codec{stream.H264}, Open: func(hw.EncoderConfig) (hw.Encoder, error) {
		return &steadyEncoder{each: each, inside: make(chan time.Duration, 2)}, nil
	}}
}

func TestProbeMeasuresHardwareAndKeepsWhatNobodyKnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := t.TempDir()
		drivers := []hw.EncoderDriver{steady("known", 245760, 20*time.Millisecond), steady("unknown", 0, 10*time.Millisecond), steady("hung", 0, 0), {Name: "libx264"}}
		s := survey{Encoders: make([]encoderFound, len(drivers))}
		err := s.measure(t.Context(), drivers, state)
		if err == nil || err.Error() != "measure hung: it gives no picture" {
			t.Errorf("got %v", err)
		}
		const picture = 80 * 45 // macroblocks of 1280x720
		for i, want := range []int{picture * 50, picture * 100, 0, 0} {
			if got := s.Encoders[i].Measured; got < want*98/100 || got > want*102/100 {
				t.Errorf("%s: %d macroblocks a second, want %d", drivers[i].Name, got, want)
			}
		}
		kept, err := daemon.LoadBudgets(state)
		if err != nil || len(kept) != 1 || kept["unknown"] != s.Encoders[1].Measured {
			t.Errorf("kept %v, %v", kept, err)
		}
		if err := s.measure(t.Context(), []hw.EncoderDriver{steady("small", 0, time.Millisecond)}, "/nowhere"); err == nil {
			t.Error("what cannot be kept is no trouble")
		}
		if _, err := measure(t.Context(), hw.EncoderDriver{Open: func(hw.EncoderConfig) (hw.Encoder, error) { return nil, hw.ErrBusy }}); !errors.Is(err, hw.ErrBusy) {
			t.Errorf("got %v", err)
		}
	})
}
