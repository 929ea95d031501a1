package httplive

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/fmp4"
)

// beginFragments names the codecs, which the player of a page has to know before
// it takes the first byte.
func beginFragments(tracks []*stream.Track) (string, error) {
	names := make([]string, len(tracks))
	for i, t := range tracks {
		var err error
		if names[i], err = fmp4.Codec(t); err != nil {
			return "", err
		}
	}
	_, err := newFragments(tracks)
	return fmt.Sprintf(`; codecs="%s"`, strings.Join(names, ", ")), err
}

// readFragments sends fragmented MP4, a fragment for every unit.
func (s *site) readFragments(ctx context.Context, rd *reading, l link) error {
	return s.readChunks(ctx, rd, l, "mp4", func() (maker, error) {
		return newFragments(rd.tracks)
	})
}

// fragments makes MP4. A track of another kind brings a new header, which stands
// in front of the key picture that it comes with.
type fragments struct {
	tracks   []*stream.Track
	header   *[]byte
	sequence uint32
	waiting  bool // for a key picture
}

func newFragments(tracks []*stream.Track) (*fragments, error) {
	f := &fragments{tracks: append([]*stream.Track(nil), tracks...), waiting: true}
	_, err := f.describe()
	return f, err
}

// describe writes the header anew and reports whether it differs: an encoder
// that starts anew as it was changes nothing.
func (f *fragments) describe() (changed bool, err error) {
	header, err := fmp4.AppendInit(nil, f.tracks...)
	if err != nil || f.header != nil && bytes.Equal(*f.header, header) {
		return false, err
	}
	f.header = &header
	return true, nil
}

func (f *fragments) chunk(u *stream.Unit) (*chunk, error) {
	i := f.index(u.Track.Codec)
	if i < 0 {
		return nil, nil
	}
	if f.tracks[i] != u.Track {
		f.tracks[i] = u.Track
		changed, err := f.describe()
		if err != nil {
			return nil, err
		}
		f.waiting = f.waiting || changed
	}
	f.waiting = f.waiting && !u.Key
	if f.waiting {
		return nil, nil
	}
	f.sequence++
	sample := fmp4.SampleOf(u, u.DTS+duration(u))
	run := fmp4.Run{Track: i + 1, Time: fmp4.Ticks(u.DTS, fmp4.Scale(u.Track)), Samples: []fmp4.Sample{sample}}
	return &chunk{key: u.Key, dts: u.DTS, header: f.header, data: fmp4.Fragment(f.sequence, run)}, nil
}

func (f *fragments) index(c stream.Codec) int {
	for i, t := range f.tracks {
		if t.Codec == c {
			return i
		}
	}
	return -1
}

// assumedPicture is how long a picture lasts whose track does not tell.
const assumedPicture = time.Second / 30

// duration is what u is said to last: nobody knows yet when the next comes.
func duration(u *stream.Unit) time.Duration {
	switch {
	case u.Duration > 0:
		return u.Duration
	case u.Track.FPS > 0:
		return time.Duration(float64(time.Second) / u.Track.FPS)
	default:
		return assumedPicture
	}
}
