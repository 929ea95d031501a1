package stream_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/stream"
)

// numbers is a feed of the presentation times of a rendition's units; odd
// ones have none.
func numbers(r *stream.Rendition) *stream.Feed[time.Duration] {
	return &stream.Feed[time.Duration]{Source: r, Turn: func(u *stream.Unit) (time.Duration, bool, bool, error) {
		if u.PTS < 0 {
			return 0, false, false, errors.New("time runs backwards")
		}
		return u.PTS, u.Key, u.PTS%2 == 0, nil
	}}
}

func TestFeedRunsWhileSomebodyWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		track := &stream.Track{Codec: stream.H264}
		r := stream.NewRendition("main", 16, stream.H264)
		f := numbers(r)
		publish := func(pts time.Duration, key bool) { r.Publish(&stream.Unit{Track: track, PTS: pts, Key: key}) }
		want := func(rd *stream.Reader[time.Duration], pts time.Duration) {
			t.Helper()
			if v, err := rd.Next(t.Context()); v != pts || err != nil {
				t.Errorf("got %v, %v, want %v", v, err, pts)
			}
		}
		publish(0, true)
		publish(1, false)
		publish(2, false)
		one, leaveOne := f.Watch(t.Context())
		want(one, 0) // from the cached key unit on
		want(one, 2)
		synctest.Wait()
		publish(4, true)
		synctest.Wait()
		two, leaveTwo := f.Watch(t.Context())
		want(two, 4)
		leaveOne()
		leaveOne() // twice does no harm
		publish(6, false)
		want(two, 6)
		leaveTwo()
		if f.Watched() {
			t.Error("it runs for nobody")
		}
		publish(8, true) // nobody turns it
		three, leaveThree := f.Watch(t.Context())
		want(three, 8)
		r.Close()
		if _, err := three.Next(t.Context()); !errors.Is(err, stream.ErrClosed) || !f.Ended() {
			t.Errorf("got %v, ended %v", err, f.Ended())
		}
		leaveThree()
	})
}

func TestFeedKeepsAsMuchAsItsSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		track := &stream.Track{Codec: stream.H264}
		r := stream.NewRendition("main", 8, stream.H264)
		f := numbers(r)
		publish := func(from, to time.Duration) {
			for pts := from; pts < to; pts += 2 {
				r.Publish(&stream.Unit{Track: track, PTS: pts, Key: pts == from})
				synctest.Wait()
			}
		}
		want := func(pts time.Duration) {
			t.Helper()
			rd, leave := f.Watch(t.Context())
			defer leave()
			if v, err := rd.Next(t.Context()); v != pts || err != nil {
				t.Errorf("a late reader begins at %v, %v; want %v", v, err, pts)
			}
		}
		_, leave := f.Watch(t.Context())
		defer leave()
		publish(0, 14)
		want(0)
		r.Resize(200) // the config has longer groups of pictures now
		publish(1000, 1300)
		want(1000)
	})
}

func TestFeedEndsWithItsError(t *testing.T) {
	r := stream.NewRendition("main", 16, stream.H264)
	f := numbers(r)
	failed := make(chan error, 1)
	f.Failed = func(err error) { failed <- err }
	r.Publish(&stream.Unit{Track: &stream.Track{Codec: stream.H264}, PTS: -1, Key: true})
	rd, leave := f.Watch(t.Context())
	defer leave()
	if _, err := rd.Next(t.Context()); !errors.Is(err, stream.ErrClosed) || !f.Ended() {
		t.Errorf("got %v, ended %v", err, f.Ended())
	}
	if err := <-failed; err == nil {
		t.Error("no reason was told")
	}
}
