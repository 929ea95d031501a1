package rtsp

import (
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
// sources again.
type feed struct {
	stream.Feed[*rtp.Batch]

	packer *rtp.Packetizer
	tracks [2]*stream.Track // by medium; nil: not offered
	latest atomic.Int64     // PTS of the newest unit
	rolls  [2]atomic.Uint32 // rollovers of the newest packets, by medium
	log    *slog.Logger

	sessions int // guarded by feeds.mu

	sealing sync.Mutex
	seal    *seal // nil until somebody wants it
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
	if f == nil || f.Ended() {
		packer, err := rtp.NewPacketizer(sv.PacketSize, tracks...)
		if err != nil {
			return nil, nil, err
		}
		f = newFeed(src, packer, sv)
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
	if f.sessions--; f.sessions == 0 && fs.of[f.Source] == f {
		delete(fs.of, f.Source)
	}
}

func newFeed(src *stream.Rendition, packer *rtp.Packetizer, sv *service) *feed {
	f := &feed{packer: packer, log: sv.log}
	f.Source = src
	f.Turn = func(u *stream.Unit) (b *rtp.Batch, key, ok bool, err error) {
		b, err = packer.Batch(u)
		f.latest.Store(int64(u.PTS))
		if b != nil {
			f.rolls[rtp.Video].Store(b.Rolls[rtp.Video])
			f.rolls[rtp.Sound].Store(b.Rolls[rtp.Sound])
		}
		return b, u.Key, b != nil, err
	}
	f.Failed = func(err error) {
		f.log.Warn("rtsp readers have to connect again", "rendition", src.Name, "err", err)
	}
	return f
}

// bitrate returns the feed's nominal bit rate.
func (f *feed) bitrate() int {
	return stream.Bitrate(slices.DeleteFunc(slices.Clone(f.tracks[:]), func(t *stream.Track) bool { return t == nil }))
}
