package boards

import (
	"sync/atomic"

	"encoderd.example/hw"
)

// encoderHung is the fault of an encoder that takes frames and gives nothing,
// as wedged hardware does.
const encoderHung = "encoder-hung"

// hangs makes encoders hang while it is on.
type hangs struct{ on atomic.Bool }

func (h *hangs) all(drivers []hw.EncoderDriver) []hw.EncoderDriver {
	for i, d := range drivers {
		open := d.Open
		drivers[i].Open = func(c hw.EncoderConfig) (hw.Encoder, error) {
			e, err := open(c)
			if err != nil {
				return nil, err
			}
			return &hangingEncoder{Encoder: e, hangs: h}, nil
		}
	}
	return drivers
}

// A hangingEncoder swallows what it is given while the fault is on.
type hangingEncoder struct {
	hw.Encoder
	hangs     *hangs
	swallowed atomic.Uint64
}

// Submit swallows the frame while the fault is on.
func (e *hangingEncoder) Submit(f *hw.Frame) error {
	if e.hangs.on.Load() {
		e.swallowed.Add(1)
		return nil
	}
	return e.Encoder.Submit(f)
}

// Stats counts what was swallowed.
func (e *hangingEncoder) Stats() hw.EncoderStats {
	s := e.Encoder.Stats()
	s.Submitted += e.swallowed.Load()
	s.Swallowed += e.swallowed.Load()
	return s
}
