package cmaf

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/visit"
)

const (
	// waitTime is how long a request may wait for what is to come.
	waitTime = 10 * time.Second
	// writeTime is how long a reader may take for what is there, besides twice
	// as long as that is to be shown.
	writeTime = 20 * time.Second
)

// A File is what an address of media names:
//
//	video-init-1f0e2d3c.mp4  the header with this ID
//	video-1795274000.m4s     a segment by its number
//	video-1795274000.3.m4s   a part of it, from 0
//	video-t27000.m4s         a segment by the time it is told to begin, in ticks
//
// and the same with audio.
type File struct {
	Medium Medium
	Kind   Kind
	Init   string // of a Header
	Number uint64 // of a WholeSegment and a SinglePart
	Part   int    // of a SinglePart
	Time   uint64 // of a SegmentByTime
}

// Kind says what a [File] is.
type Kind uint8

// The kinds of files.
const (
	Header Kind = iota + 1
	WholeSegment
	SinglePart
	SegmentByTime
)

// String returns the file's name.
func (f File) String() string {
	switch f.Kind {
	case Header:
		return fmt.Sprintf("%v-init-%s.mp4", f.Medium, f.Init)
	case SinglePart:
		return fmt.Sprintf("%v-%d.%d.m4s", f.Medium, f.Number, f.Part)
	case SegmentByTime:
		return fmt.Sprintf("%v-t%d.m4s", f.Medium, f.Time)
	default:
		return fmt.Sprintf("%v-%d.m4s", f.Medium, f.Number)
	}
}

// ParseFile reads a name; ok is false if it names nothing. It is the inverse of
// [File.String].
func ParseFile(name string) (f File, ok bool) {
	medium, rest, _ := strings.Cut(name, "-")
	switch medium {
	case Video.String():
		f.Medium = Video
	case Sound.String():
		f.Medium = Sound
	default:
		return File{}, false
	}
	if id, is := strings.CutPrefix(rest, "init-"); is {
		f.Kind = Header
		f.Init, ok = strings.CutSuffix(id, ".mp4")
		return f, ok && f.Init != ""
	}
	rest, ok = strings.CutSuffix(rest, ".m4s")
	if !ok {
		return File{}, false
	}
	if ticks, is := strings.CutPrefix(rest, "t"); is {
		f.Kind = SegmentByTime
		f.Time, ok = parseNumber(ticks, 64)
		return f, ok
	}
	number, part, cut := strings.Cut(rest, ".")
	f.Kind = WholeSegment
	if f.Number, ok = parseNumber(number, 63); !ok || !cut {
		return f, ok
	}
	f.Kind = SinglePart
	p, ok := parseNumber(part, 16)
	f.Part = int(p)
	return f, ok
}

// parseNumber reads decimal digits in their one shortest form.
func parseNumber(s string, bits int) (uint64, bool) {
	n, err := strconv.ParseUint(s, 10, bits)
	return n, err == nil && strconv.FormatUint(n, 10) == s
}

// settled reports whether s answers a request for f: it is there, or known
// never to come.
func (f File) settled(s *Sequence) bool {
	last := s.Last()
	switch f.Kind {
	case Header:
		return true
	case SegmentByTime:
		return s.At(f.Time) != nil || last.began() >= f.Time || f.Time-last.began() > farAhead(last)
	default:
		if f.Number > last.Number {
			return f.Number > last.Number+1
		}
		g := s.Segment(f.Number)
		return g == nil || g.Complete || f.Kind == WholeSegment || len(g.Parts) > f.Part
	}
}

// farAhead is, in ticks, how far after the beginning of a segment the next one
// surely has begun.
func farAhead(g *Segment) uint64 { return max(2*g.Length, 10*uint64(g.Init.Scale)) }

// find returns what f names, nil for what is not there.
func (f File) find(s *Sequence) (g *Segment, parts []*Part) {
	if f.Kind == SegmentByTime {
		g = s.At(f.Time)
	} else {
		g = s.Segment(f.Number)
	}
	switch {
	case g == nil || len(g.Parts) == 0:
		return nil, nil
	case f.Kind != SinglePart:
		return g, g.Parts
	case f.Part >= len(g.Parts):
		return nil, nil
	default:
		return g, g.Parts[f.Part : f.Part+1]
	}
}

// Serve answers a GET or HEAD request for a file. One that is to come next is
// waited for; an open segment is sent part by part, as they come. It counts
// bytes and, for pictures, lag to viewer. What is not there, or no longer, is
// answered by 404, and what does not come in time by 503.
func (st *Stream) Serve(w http.ResponseWriter, r *http.Request, f File, viewer *stream.Viewer) {
	seq, err := st.settled(r.Context(), f)
	if err != nil {
		Unavailable(w, err)
		return
	}
	w.Header().Set("Access-Control-Allow-Origin", "*")
	a := &answer{w: w, control: http.NewResponseController(w), viewer: viewer}
	if f.Kind == Header {
		a.header(r, f, seq.Init(f.Init))
		return
	}
	g, parts := f.find(seq)
	if g == nil || !g.store.hold() {
		notFound(w)
		return
	}
	defer g.store.release()
	f.head(w.Header(), f.size(g, parts))
	if r.Method == http.MethodHead {
		return
	}
	a.segment(r.Context(), st, f, g, parts)
	if f.Medium == Video {
		viewer.Lag.Store(int64(seq.behind(g)))
	}
}

// settled returns a snapshot that answers a request for f. The error is that of
// [Stream.Wait].
func (st *Stream) settled(ctx context.Context, f File) (*Sequence, error) {
	st.Ask()
	if seq := st.Latest(f.Medium); seq != nil && f.settled(seq) {
		return seq, nil
	}
	ctx, cancel := context.WithTimeout(ctx, waitTime)
	defer cancel()
	return st.Wait(ctx, f.Medium, f.settled)
}

// size returns how many bytes answer a request for f, -1 if that is not known
// yet.
func (f File) size(g *Segment, parts []*Part) (n int) {
	if !g.Complete && f.Kind != SinglePart {
		return -1
	}
	for _, p := range parts {
		n += p.Size
	}
	return n
}

// behind returns how much there is after g.
func (s *Sequence) behind(g *Segment) (d time.Duration) {
	for _, later := range s.Segments {
		if later.Number > g.Number {
			d += later.Duration
		}
	}
	return d
}

// head writes what never changes: an address names the same bytes for ever.
func (f File) head(h http.Header, size int) {
	h.Set("Content-Type", f.Medium.String()+"/mp4")
	h.Set("Cache-Control", "private, max-age=60, immutable")
	if size >= 0 {
		h.Set("Content-Length", strconv.Itoa(size))
	}
}

func notFound(w http.ResponseWriter) {
	visit.Fail(w, http.StatusNotFound, "no such segment, or no longer")
}

// An answer is the body of one response.
type answer struct {
	w       http.ResponseWriter
	control *http.ResponseController
	viewer  *stream.Viewer
}

// lasts says how long the reader may take for what follows, so that those that
// stopped, or crawl, do not keep old segments in memory. The server lifts the
// deadline after the answer.
func (a *answer) lasts(d time.Duration) {
	_ = a.control.SetWriteDeadline(time.Now().Add(d)) // where there is one
}

// header answers with a header; nil is not there.
func (a *answer) header(r *http.Request, f File, init *Init) {
	if init == nil {
		notFound(a.w)
		return
	}
	f.head(a.w.Header(), len(init.Data))
	if r.Method != http.MethodHead {
		a.lasts(writeTime)
		n, _ := a.w.Write(init.Data) //nolint:gosec // the reader may have gone; no word of the request is in it
		a.viewer.Bytes.Add(uint64(n))
	}
}

// segment writes parts and, of an open segment, what comes after them.
func (a *answer) segment(ctx context.Context, st *Stream, f File, g *Segment, parts []*Part) {
	for n := 0; ; {
		a.lasts(writeTime + 2*g.Duration)
		if a.send(ctx, g.store.body(parts)) != nil {
			return // the reader has gone
		}
		n += len(parts)
		if g.Complete || f.Kind == SinglePart {
			return
		}
		if a.control.Flush() != nil {
			return
		}
		seq, err := st.more(ctx, f.Medium, g.Number, n)
		if err != nil {
			panic(http.ErrAbortHandler) // tells the reader that this is not the whole
		}
		if g = seq.Segment(g.Number); g == nil {
			panic(http.ErrAbortHandler)
		}
		parts = g.Parts[n:]
	}
}

// more waits until a segment has more than n parts, or is complete.
func (st *Stream) more(ctx context.Context, m Medium, number uint64, n int) (*Sequence, error) {
	ctx, cancel := context.WithTimeout(ctx, waitTime)
	defer cancel()
	return st.Wait(ctx, m, func(s *Sequence) bool {
		g := s.Segment(number)
		return g == nil || g.Complete || len(g.Parts) > n
	})
}

// send sends b. net/http reads the beginning, to go with the header, and has b
// write the rest to the connection itself; io.Copy would not let it.
func (a *answer) send(ctx context.Context, b *body) (err error) {
	defer stream.Cork(ctx)()
	var n int64
	if to, ok := a.w.(io.ReaderFrom); ok {
		n, err = to.ReadFrom(b)
	} else {
		n, err = b.WriteTo(a.w)
	}
	a.viewer.Bytes.Add(uint64(n))
	return err
}
