package rtsp

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"encoderd.example/stream"
	"encoderd.example/stream/rtp"
)

// playable returns the tracks that a session offers: the first video and the
// first sound. A rendition may carry its sound in two codings for other
// protocols; players would fetch both and play one.
func playable(tracks []*stream.Track) []*stream.Track {
	var taken rtp.Set
	return slices.DeleteFunc(slices.Clone(tracks), func(t *stream.Track) bool {
		m := rtp.MediumOf(t.Codec)
		again := taken.Has(m)
		taken = taken.With(m)
		return again
	})
}

// A feed packetises one rendition for all its sessions. It lives from the
// first session to the last, so that a session that pauses finds the same
// sources again; its goroutine runs from the first watcher to the last.
type feed struct {
	src    *stream.Rendition
	packer *rtp.Packetizer
	tracks [2]*stream.Track // by medium; nil: not offered
	depth  int
	log    *slog.Logger
	ended  atomic.Bool // cannot go on: sessions have to begin anew

	sessions int // guarded by feeds.mu

	mu       sync.Mutex
	watchers int
	ring     *stream.Ring[*rtp.Batch]
	stop     func() // ends the goroutine and waits for it
	seal     *seal  // nil until somebody wants it
}

// feeds holds the feeds that sessions use.
type feeds struct {
	mu sync.Mutex
	of map[*stream.Rendition]*feed
}

// open returns the feed of a rendition until release is called, once.
func (fs *feeds) open(src *stream.Rendition, tracks []*stream.Track, sv *service) (f *feed, release func(), err error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f = fs.of[src]
	if f == nil || f.ended.Load() {
		packer, err := rtp.NewPacketizer(sv.PacketSize, tracks...)
		if err != nil {
			return nil, nil, err
		}
		f = &feed{src: src, packer: packer, depth: orElse(sv.Depth, DefaultDepth), log: sv.log}
		for _, t := range tracks {
			f.tracks[rtp.MediumOf(t.Codec)] = t
		}
		if fs.of == nil {
			fs.of = make(map[*stream.Rendition]*feed)
		}
		fs.of[src] = f
	}
	f.sessions++
	return f, sync.OnceFunc(func() { fs.release(f) }), nil
}

func (fs *feeds) release(f *feed) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f.sessions--; f.sessions == 0 && fs.of[f.src] == f {
		delete(fs.of, f.src)
	}
}

// watch returns a reader placed at the latest key batch, if need be of a
// goroutine that it starts; leave must be called once. The goroutine ends with
// the last leave, whenever ctx, the first watcher's, does.
func (f *feed) watch(ctx context.Context) (rd *stream.Reader[*rtp.Batch], leave func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watchers == 0 {
		f.start(ctx)
	}
	f.watchers++
	return f.ring.Reader(), sync.OnceFunc(f.leave)
}

func (f *feed) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.watchers--; f.watchers == 0 {
		f.stop()
		f.ring = nil // the memory of some seconds of media
	}
}

// start runs the packetizer into a new ring. The caller holds f.mu.
func (f *feed) start(ctx context.Context) {
	ring := stream.NewRing[*rtp.Batch](f.depth)
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() {
		defer ring.Close()
		if err := f.run(ctx, ring); err != nil {
			f.ended.Store(true)
			f.log.Warn("rtsp readers have to connect again", "rendition", f.src.Name, "err", err)
		}
	})
	f.ring = ring
	f.stop = func() {
		cancel()
		wg.Wait()
	}
}

// run packetises until ctx ends. It never waits for readers.
func (f *feed) run(ctx context.Context, ring *stream.Ring[*rtp.Batch]) error {
	units := f.src.Reader()
	for {
		u, err := units.Next(ctx)
		switch {
		case over(ctx):
			return nil
		case errors.Is(err, stream.ErrClosed):
			f.ended.Store(true)
			return nil
		case err != nil:
			return err
		}
		b, err := f.packer.Batch(u)
		if err != nil {
			return err
		}
		if b != nil {
			ring.Publish(b, b.Key)
		}
	}
}

// bitrate returns the feed's nominal bit rate.
func (f *feed) bitrate() int {
	sum := 0
	for _, t := range f.tracks {
		if t != nil {
			sum += t.Bitrate
		}
	}
	return orElse(sum, assumedBitrate)
}
