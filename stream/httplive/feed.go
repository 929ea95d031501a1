package httplive

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/ts"
)

// A chunk is one unit as it is sent. It is immutable and shared.
type chunk struct {
	key    bool // reading can start here
	dts    time.Duration
	header *[]byte // what has to be sent before, once; another pointer, another header
	data   [][]byte
}

// A maker turns units into chunks, nil for one that has to be left out.
type maker interface {
	chunk(u *stream.Unit) (*chunk, error)
}

// feeds are what runs: one for each rendition and form that is read.
type feeds struct {
	depth int

	mu sync.Mutex
	of map[feedKey]*feed
}

type feedKey struct {
	src  *stream.Rendition
	form string
}

// A feed makes chunks from its first reader to its last.
type feed struct {
	ring    *stream.Ring[*chunk]
	ended   atomic.Bool // cannot go on: readers have to begin anew
	readers int         // guarded by feeds.mu
	stop    func()      // ends the goroutine and waits for it
}

// read returns a reader placed at the latest key chunk of a feed, which it
// starts if need be; leave must be called once. The feed runs until the last
// leave, whenever ctx, the first reader's, ends.
func (fs *feeds) read(ctx context.Context, key feedKey, begin func() (maker, error)) (rd *stream.Reader[*chunk], leave func(), err error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := fs.of[key]
	if f == nil || f.ended.Load() {
		m, err := begin()
		if err != nil {
			return nil, nil, err
		}
		f = startFeed(context.WithoutCancel(ctx), key.src, m, fs.depth)
		if fs.of == nil {
			fs.of = make(map[feedKey]*feed)
		}
		fs.of[key] = f
	}
	f.readers++
	return f.ring.Reader(), func() { fs.leave(key, f) }, nil
}

func (fs *feeds) leave(key feedKey, f *feed) {
	fs.mu.Lock()
	f.readers--
	last := f.readers == 0
	if last && fs.of[key] == f {
		delete(fs.of, key)
	}
	fs.mu.Unlock()
	if last {
		f.stop()
	}
}

func startFeed(ctx context.Context, src *stream.Rendition, m maker, depth int) *feed {
	f := &feed{ring: stream.NewRing[*chunk](depth)}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		defer f.ring.Close()
		defer f.ended.Store(true)
		run(ctx, src.Reader(), m, f.ring)
	})
	f.stop = func() {
		cancel()
		running.Wait()
	}
	return f
}

// run makes chunks until ctx or the rendition ends, or a track comes that
// cannot be written. It never waits for readers.
func run(ctx context.Context, units *stream.Reader[*stream.Unit], m maker, ring *stream.Ring[*chunk]) {
	for {
		u, err := units.Next(ctx)
		if err != nil {
			return
		}
		c, err := m.chunk(u)
		if err != nil {
			return
		}
		if c != nil {
			ring.Publish(c, c.key)
		}
	}
}

// readChunks sends one feed's chunks to one reader, each by one write.
func (s *site) readChunks(ctx context.Context, rd *reading, l link, form string, begin func() (maker, error)) error {
	if len(rd.tracks) == 1 {
		form += " without sound"
	}
	chunks, leave, err := s.feeds.read(ctx, feedKey{rd.src, form}, begin)
	if err != nil {
		return err
	}
	defer leave()
	var header *[]byte
	var pieces [][]byte
	return follow(ctx, chunks, rd.viewer, func(c *chunk) time.Duration { return c.dts }, func(c *chunk) error {
		pieces = pieces[:0]
		if c.header != header {
			header = c.header
			pieces = append(pieces, *header)
		}
		return l.send(ctx, append(pieces, c.data...))
	})
}

func beginPackets(tracks []*stream.Track) (string, error) {
	_, err := ts.NewMuxer(tracks...)
	return "", err
}

func (s *site) readPackets(ctx context.Context, rd *reading, l link) error {
	return s.readChunks(ctx, rd, l, "ts", func() (maker, error) {
		m, err := ts.NewMuxer(rd.tracks...)
		return packets{m}, err
	})
}

// packets makes MPEG-TS, in which every key picture brings its header along.
type packets struct{ mux *ts.Muxer }

func (p packets) chunk(u *stream.Unit) (*chunk, error) {
	b, err := p.mux.Batch(u)
	if b == nil {
		return nil, err
	}
	return &chunk{key: b.Key, dts: b.DTS, data: [][]byte{b.Data}}, nil
}
