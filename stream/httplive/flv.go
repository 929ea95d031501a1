package httplive

import (
	"context"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/flv"
)

const encoderName = "encoderd"

func beginTags(tracks []*stream.Track) (string, error) {
	_, err := flv.NewEnhancedMuxer(tracks, encoderName)
	return "", err
}

// readTags sends FLV: the head of the file, then tags, each by one write.
// H.265 goes as Enhanced RTMP has it, which players over HTTP cannot be asked
// about.
func (s *site) readTags(ctx context.Context, rd *reading, l link) error {
	mux, err := flv.NewEnhancedMuxer(rd.tracks, encoderName)
	if err != nil {
		return err
	}
	if err := l.send(ctx, [][]byte{flv.AppendFileHeader(nil, mux.HasAudio())}); err != nil {
		return err
	}
	w := tagWriter{link: l}
	write := func(t flv.Tag) error { return w.write(ctx, t) }
	return follow(ctx, rd.src.Reader(), rd.viewer, func(u *stream.Unit) time.Duration { return u.DTS }, func(u *stream.Unit) error {
		return mux.Next(u, write)
	})
}

// A tagWriter frames tags. It copies no media.
type tagWriter struct {
	link   link
	around []byte // what is written around the media
	pieces [][]byte
}

func (w *tagWriter) write(ctx context.Context, t flv.Tag) error {
	w.around = append(flv.AppendFrameHead(w.around[:0], t), t.Head...)
	tail := len(w.around)
	w.around = flv.AppendFrameTail(w.around, t)
	w.pieces = append(w.pieces[:0], w.around[:tail], t.Data, w.around[tail:])
	return w.link.send(ctx, w.pieces)
}
