package stream_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/stream"
)

func TestARenditionIsCompleteOnceEveryExpectedCodecPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := stream.NewRendition("main", 16, stream.H264, stream.AAC)
		video, sound := &stream.Track{Codec: stream.H264}, &stream.Track{Codec: stream.AAC}
		go func() {
			r.Publish(&stream.Unit{Track: video, Key: true})
			time.Sleep(time.Second)
			if _, ok := r.Tracks(); ok {
				t.Error("complete without sound")
			}
			r.Publish(&stream.Unit{Track: sound})
		}()
		tracks, err := r.Wait(t.Context())
		if err != nil || len(tracks) != 2 || tracks[0] != video || tracks[1] != sound {
			t.Fatalf("got %v, %v", tracks, err)
		}
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := stream.NewRendition("main", 16, stream.H264)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := r.Wait(ctx); err == nil {
			t.Error("no error")
		}
	})
}

func TestANewTrackReplacesTheOldAndStrangersAreDropped(t *testing.T) {
	r := stream.NewRendition("main", 16, stream.H264)
	first, second := &stream.Track{Codec: stream.H264, Width: 640}, &stream.Track{Codec: stream.H264, Width: 320}
	r.Publish(&stream.Unit{Track: first, Key: true})
	rd := r.Reader()
	r.Publish(&stream.Unit{Track: &stream.Track{Codec: stream.Opus}})
	r.Publish(&stream.Unit{Track: second, Key: true})
	if tracks, ok := r.Tracks(); !ok || tracks[0] != second {
		t.Errorf("got %v, %v", tracks, ok)
	}
	for _, want := range []*stream.Track{first, second} {
		if u, err := rd.Next(t.Context()); err != nil || u.Track != want {
			t.Errorf("got %v, %v", u, err)
		}
	}
}

func TestABranchHasThePictureAndAnotherSound(t *testing.T) {
	video, aac, opus := &stream.Track{Codec: stream.H264}, &stream.Track{Codec: stream.AAC}, &stream.Track{Codec: stream.Opus}
	r := stream.NewRendition("main", 4, stream.H264, stream.AAC)
	b := r.Branch(stream.H264, stream.Opus)
	if b != r.Branch() || b.Name != "main" {
		t.Error("another branch the second time")
	}
	main, side := r.Reader(), b.Reader()
	all := []*stream.Unit{{Track: video, Key: true}, {Track: aac}, {Track: opus}, {Track: video}}
	for _, u := range all {
		r.Publish(u)
	}
	for _, tt := range []struct {
		rd   *stream.Reader[*stream.Unit]
		want []*stream.Unit
	}{{main, []*stream.Unit{all[0], all[1], all[3]}}, {side, []*stream.Unit{all[0], all[2], all[3]}}} {
		for i, want := range tt.want {
			if u, err := tt.rd.Next(t.Context()); u != want || err != nil {
				t.Errorf("unit %d is %v, %v", i, u, err)
			}
		}
	}
	r.Close()
	if _, err := side.Next(t.Context()); !errors.Is(err, stream.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestABranchBeginsWithTheLatestGroup(t *testing.T) {
	video, aac := &stream.Track{Codec: stream.H264}, &stream.Track{Codec: stream.AAC}
	r := stream.NewRendition("main", 8, stream.H264, stream.AAC)
	old := &stream.Unit{Track: video, Key: true}
	group := []*stream.Unit{{Track: video, Key: true}, {Track: aac}, {Track: video}}
	r.Publish(old)
	for _, u := range group {
		r.Publish(u)
	}
	b := r.Branch(stream.H264, stream.Opus)
	late := &stream.Unit{Track: video}
	r.Publish(late)
	units := b.Reader()
	for i, want := range []*stream.Unit{group[0], group[2], late} {
		if u, err := units.Next(t.Context()); u != want || err != nil {
			t.Errorf("unit %d is %v, %v", i, u, err)
		}
	}
	if n := units.Behind(); n > 0 {
		t.Errorf("%d units more", n)
	}
	b.WantKey()
	if len(r.KeyWanted()) > 0 {
		t.Error("a wish right after a key picture counts")
	}
	r.SetKeyInterval(4 * time.Second)
	if got := b.KeyInterval(); got != 4*time.Second {
		t.Errorf("its key units are %v apart", got)
	}
}

func TestABranchMissesNothingAndGetsNothingTwice(t *testing.T) {
	video := &stream.Track{Codec: stream.H264}
	for range 200 {
		r := stream.NewRendition("main", 256, stream.H264)
		var wg sync.WaitGroup
		wg.Go(func() {
			for n := range 100 {
				r.Publish(&stream.Unit{Track: video, Key: n == 0, DTS: time.Duration(n)})
			}
			r.Close()
		})
		units := r.Branch(stream.H264).Reader()
		wg.Wait()
		for n := range 100 {
			if u, err := units.Next(t.Context()); err != nil || u.DTS != time.Duration(n) {
				t.Fatalf("unit %d is %v, %v", n, u, err)
			}
		}
		if _, err := units.Next(t.Context()); !errors.Is(err, stream.ErrClosed) {
			t.Fatalf("after the end: %v", err)
		}
	}
}

func TestWishesForAKeyPictureAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := stream.NewRendition("main", 4, stream.H264)
		b := r.Branch(stream.H264)
		wished := func() bool {
			select {
			case <-r.KeyWanted():
				return true
			default:
				return false
			}
		}
		r.WantKey()
		b.WantKey()
		r.WantKey()
		if !wished() || wished() {
			t.Error("three wishes are not one")
		}
		r.Publish(&stream.Unit{Track: &stream.Track{Codec: stream.H264}, Key: true})
		r.WantKey()
		b.WantKey()
		if wished() {
			t.Error("a wish right after a key picture counts")
		}
	})
}

func TestMonotonicIsTheKernelsClock(t *testing.T) {
	a := stream.Monotonic()
	b := stream.Monotonic()
	if a <= 0 || b < a {
		t.Errorf("%v, then %v", a, b)
	}
	if d := time.Since(stream.Wall(b)); d < 0 || d > time.Minute {
		t.Errorf("wall time of now is %v ago", d)
	}
}
