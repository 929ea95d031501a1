package streamtest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/streamtest/peer"
)

func (s *suite) live(t *testing.T) {
	t.Helper()
	r := s.serve(t, Accept)
	// What stands before the first key picture must not be sent.
	units := r.source.Round()
	for _, u := range units[1:5] {
		r.src.Publish(u)
	}
	r.play(t)
	peer.Await(t, "a whole round of pictures", r.sees(Picture, GOP))
	peer.Await(t, "sound", r.sees(Sound, GOP))
	peer.Await(t, "confirmation", r.reached(stream.PushConfirmed))
	r.stop(t)
	events := r.far.Events()
	first := func(e Event) int { return slices.Index(events, e) }
	if first(VideoHeader) > first(KeyPicture) || first(SoundHeader) > first(Sound) || first(SoundHeader) < 0 || first(VideoHeader) < 0 {
		t.Errorf("headers come late: %q", events[:min(8, len(events))])
	}
	if first(KeyPicture) > first(Picture) || first(KeyPicture) > first(Sound) {
		t.Errorf("it does not begin with a key picture: %q", events[:min(8, len(events))])
	}
	all := r.reports()
	if all[0].State != stream.PushConnecting || all[len(all)-1].Sent == 0 {
		t.Errorf("reports go from %+v to %+v", all[0], all[len(all)-1])
	}
}

// play publishes in real time until the test ends.
func (r *trial) play(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var playing sync.WaitGroup
	playing.Go(func() { r.source.Run(ctx, r.src) })
	t.Cleanup(func() {
		cancel()
		playing.Wait()
	})
}

// enter publishes a round once the push is there to see it.
func (r *trial) enter(t *testing.T) {
	t.Helper()
	r.source.PublishAll(r.src)
	peer.Await(t, "pictures", r.sees(Picture, 1))
}

func (s *suite) retrack(t *testing.T) {
	t.Helper()
	r := s.serve(t, Accept)
	r.enter(t)
	video, sound := count(r.far.Events(), VideoHeader), count(r.far.Events(), SoundHeader)
	r.source.Retrack()
	r.source.PublishAll(r.src)
	peer.Await(t, "another video header", r.sees(VideoHeader, video+1))
	peer.Await(t, "another sound header", r.sees(SoundHeader, sound+1))
	r.stop(t)
}

func (s *suite) goodbye(t *testing.T) {
	t.Helper()
	r := s.serve(t, Accept)
	r.enter(t)
	r.stop(t)
	peer.Await(t, "a goodbye", r.sees(Goodbye, 1))
}

func (s *suite) noSource(t *testing.T) {
	t.Helper()
	r := s.serve(t, Accept)
	peer.Await(t, "a first report", func() bool { return len(r.reports()) > 0 })
	r.stop(t)
}

func (s *suite) mute(t *testing.T) {
	t.Helper()
	r := s.serve(t, Mute)
	r.source.PublishAll(r.src)
	peer.Await(t, "a second report", func() bool { return len(r.reports()) > 1 })
	r.stop(t)
}

func (s *suite) cancelStalled(t *testing.T) {
	t.Helper()
	r := s.serve(t, Stall)
	r.flood(t)
	peer.Await(t, "lag", r.lags)
	r.stop(t)
}

func (s *suite) stall(t *testing.T) {
	t.Helper()
	r := s.serve(t, Stall)
	r.flood(t)
	if err := r.failure(t, s.Patience+peer.Patience); errors.Is(err, stream.ErrRefused) {
		t.Errorf("a stall is not a refusal: %v", err)
	}
}

func (r *trial) lags() bool {
	all := r.reports()
	return len(all) > 0 && all[len(all)-1].Lag > 100*time.Millisecond
}

// flood publishes more than sockets hold until the test ends, and checks that
// the far side holds nobody up.
func (r *trial) flood(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	big := *r.source.Units[0]
	big.Data = make([]byte, 256<<10)
	big.Data[1], big.Data[2], big.Data[3], big.Data[4] = 3, 255, 252, 0x65
	sound := *r.source.Units[1]
	var playing sync.WaitGroup
	playing.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			u, a := big, sound
			u.DTS = stream.Monotonic()
			u.PTS, a.PTS, a.DTS = u.DTS, u.DTS, u.DTS
			r.src.Publish(&u)
			r.src.Publish(&a)
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		playing.Wait()
	})
}

func (s *suite) closed(t *testing.T) {
	t.Helper()
	r := s.begin(t, s.Closed(t), nil)
	r.source.PublishAll(r.src)
	if err := r.failure(t, promptly); errors.Is(err, stream.ErrRefused) {
		t.Errorf("a closed port is not a refusal: %v", err)
	}
}

func (s *suite) refuse(t *testing.T) {
	t.Helper()
	r := s.serve(t, Refuse)
	r.source.PublishAll(r.src)
	if err := r.failure(t, promptly); !errors.Is(err, stream.ErrRefused) {
		t.Errorf("%v is not permanent", err)
	}
}

func (s *suite) busy(t *testing.T) {
	t.Helper()
	r := s.serve(t, Busy)
	r.source.PublishAll(r.src)
	if err := r.failure(t, promptly); errors.Is(err, stream.ErrRefused) {
		t.Errorf("%v is permanent", err)
	}
}

func (s *suite) hangUp(t *testing.T) {
	t.Helper()
	r := s.serve(t, HangUp)
	r.play(t)
	if err := r.failure(t, promptly+peer.Patience); errors.Is(err, stream.ErrRefused) {
		t.Errorf("%v is permanent", err)
	}
}
