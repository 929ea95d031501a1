package httplive

import (
	"context"
	"sync"
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
	mu sync.Mutex
	of map[feedKey]*feed
}

type feedKey struct {
	src  *stream.Rendition
	form string
}

// A feed makes chunks from its first reader to its last.
type feed struct {
	stream.Feed[*chunk]

	readers int // guarded by feeds.mu
}

// open returns a feed until release is called, once.
func (fs *feeds) open(key feedKey, begin func() (maker, error)) (f *feed, release func(), err error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f = fs.of[key]
	if f == nil || f.Ended() {
		m, err := begin()
		if err != nil {
			return nil, nil, err
		}
		f = &feed{Feed: stream.Feed[*chunk]{Source: key.src, Turn: turn(m)}}
		if fs.of == nil {
			fs.of = make(map[feedKey]*feed)
		}
		fs.of[key] = f
	}
	f.readers++
	return f, func() { fs.release(key, f) }, nil
}

func (fs *feeds) release(key feedKey, f *feed) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f.readers--; f.readers == 0 && fs.of[key] == f {
		delete(fs.of, key)
	}
}

func turn(m maker) func(*stream.Unit) (c *chunk, key, ok bool, err error) {
	return func(u *stream.Unit) (c *chunk, key, ok bool, err error) {
		if c, err = m.chunk(u); c == nil {
			return nil, false, false, err
		}
		return c, c.key, true, err
	}
}

// readChunks sends one feed's chunks to one reader, each by one write.
func (s *site) readChunks(ctx context.Context, rd *reading, l link, form string, begin func() (maker, error)) error {
	if len(rd.tracks) == 1 {
		form += " without sound"
	}
	f, release, err := s.feeds.open(feedKey{rd.src, form}, begin)
	if err != nil {
		return err
	}
	defer release()
	chunks, leave := f.Watch(ctx)
	defer leave()
	return s.chunks.Serve(ctx, chunks, rd.viewer, &headed{link: l})
}

// headed is one reader of chunks, who gets a header first.
type headed struct {
	link
	header *[]byte // the latest that was sent
	pieces [][]byte
}

// Take is [stream.Sink].
func (s *headed) Take(c *chunk, _ *stream.Plate) (int, error) {
	s.pieces = s.pieces[:0]
	if c.header != s.header {
		s.header = c.header
		s.pieces = append(s.pieces, *s.header)
	}
	s.pieces = append(s.pieces, c.data...)
	bytes := 0
	for _, p := range s.pieces {
		bytes += len(p)
	}
	return bytes, s.add(s.pieces)
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
