package daemon

import (
	"context"
	"testing"
	"time"

	"encoderd.example/stream"
)

// stoppingEncoder ends the mixer's context at its first block.
type stoppingEncoder struct {
	stop  context.CancelFunc
	calls int
}

func (e *stoppingEncoder) Encode([]int16, time.Duration, func(*stream.Unit)) error {
	e.calls++
	e.stop()
	return nil
}

func (e *stoppingEncoder) Track() *stream.Track { return nil }
func (e *stoppingEncoder) Reset()               {}
func (e *stoppingEncoder) Close() error         { return nil }

func TestMixerStopsAtOnceHoweverMuchSoundWaits(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	m := newMixer()
	var clock time.Duration
	m.now = func() time.Duration { // each look at it is 4 s later
		clock += 4 * time.Second
		return clock
	}
	enc := &stoppingEncoder{stop: stop}
	if err := m.run(ctx, enc, func(*stream.Unit) {}); err != nil {
		t.Fatal(err)
	}
	if enc.calls != 1 {
		t.Errorf("%d blocks were coded after the order to stop", enc.calls-1)
	}
}
