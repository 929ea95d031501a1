package httplive

import (
	"bytes"
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
	t := &tags{link: l, mux: *mux}
	t.emit = t.frame
	if k, ok := l.(*socket); ok && k.chunked {
		t.line = k.Line
	}
	return s.units.Serve(ctx, rd.src.Reader(), rd.viewer, t)
}

// tags are what one reader is sent.
type tags struct {
	line    *stream.Line // of a link by chunks; nil: of another
	printed bool         // a plate is on offer
	mux     flv.Muxer
	link

	emit   func(flv.Tag) error
	bytes  int
	around []byte // what is written around the media
	pieces [][]byte
}

// Take is [stream.Sink].
func (s *tags) Take(u *stream.Unit, plate *stream.Plate) (int, error) {
	if plate != nil && s.line != nil {
		if at, ok := s.mux.Plain(u); ok {
			return s.print(u, at, plate), nil
		}
	}
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

// Push is [stream.Sink].
func (s *tags) Push() (out bool, err error) {
	if s.printed {
		s.printed = false
		return s.line.Push()
	}
	return s.link.Push()
}

// print offers the tag of u as a chunk, which is the same for all but its time:
//
//	[size CRLF│tag header]│head│data…│back pointer│CRLF
func (s *tags) print(u *stream.Unit, at uint32, plate *stream.Plate) int {
	if plate.Blank() {
		tag := flv.Tag{Kind: flv.KindOf(u), Head: flv.AppendHead(nil, u), Data: u.Data}
		head := flv.AppendFrameHead(bytes.Clone(noSize), tag)
		tail := flv.AppendFrameTail(nil, tag)
		putSize(head, flv.FrameHead+len(tag.Head)+len(tag.Data)+len(tail))
		plate.Lay(len(head), head, tag.Head, tag.Data, tail, lineEnd)
	}
	flv.PutTime(plate.Head()[len(noSize):], at)
	s.line.OfferPlate(plate, 0)
	s.printed = true
	return plate.Size() - len(noSize) - len(lineEnd)
}
