package httplive

import (
	"context"
	"errors"

	"encoderd.example/stream"
	"encoderd.example/stream/flv"
)

const encoderName = "encoderd"

func beginTags(tracks []*stream.Track) (string, error) {
	_, err := flv.NewEnhancedMuxer(tracks, encoderName)
	return "", err
}

// readTags sends FLV: the head of the file, then tags, those of a unit by one
// write.
// H.265 goes as Enhanced RTMP has it, which players over HTTP cannot be asked
// about.
func (s *site) readTags(ctx context.Context, rd *reading, l link) error {
	mux, err := flv.NewEnhancedMuxer(rd.tracks, encoderName)
	if err != nil {
		return err
	}
	if err := errors.Join(l.add([][]byte{flv.AppendFileHeader(nil, mux.HasAudio())}), l.Flush()); err != nil {
		return err
	}
	t := &tags{link: l, mux: mux}
	t.emit = t.frame
	return s.units.Serve(ctx, rd.src.Reader(), rd.viewer, t)
}

// tags are what one reader is sent. Media is not copied.
type tags struct {
	link
	mux    *flv.Muxer
	emit   func(flv.Tag) error
	bytes  int
	around []byte // what is written around the media
	pieces [][]byte
}

// Take is [stream.Sink].
func (s *tags) Take(u *stream.Unit) (int, error) {
	s.around, s.bytes = s.around[:0], 0
	err := s.mux.Next(u, s.emit)
	return s.bytes, err
}

func (s *tags) frame(t flv.Tag) error {
	head := len(s.around)
	s.around = append(flv.AppendFrameHead(s.around, t), t.Head...)
	tail := len(s.around)
	s.around = flv.AppendFrameTail(s.around, t)
	s.bytes += len(s.around) - head + len(t.Data)
	s.pieces = append(s.pieces[:0], s.around[head:tail], t.Data, s.around[tail:])
	return s.add(s.pieces)
}
