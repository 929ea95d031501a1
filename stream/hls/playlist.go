package hls

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/cmaf"
)

// version is the lowest that knows EXT-X-SKIP (RFC 8216bis, 8).
const version = 9

// Distances from the live edge (RFC 8216bis, 4.4.3.8): those recommended, and
// the smallest allowed.
const (
	holdBack     = 3 // target durations
	partHoldBack = 3 // part targets, and at least leastHoldBack
	skipUntil    = 6 // target durations
	partsUntil   = 3 // target durations: older segments' parts are not listed
)

// leastHoldBack is what players need to ride out a radio link's pauses.
const leastHoldBack = time.Second

// A variant is what the multivariant playlist says about a rendition.
type variant struct {
	folder        string // where its playlists are
	video, sound  *stream.Track
	codecs        string
	average, peak int
}

// newVariant waits until the rendition's encoders have begun.
func newVariant(ctx context.Context, st *cmaf.Stream) (v variant, err error) {
	if v.video, v.sound, err = st.Tracks(ctx); err != nil {
		return v, err
	}
	for m, t := range []*stream.Track{v.video, v.sound} {
		if t == nil {
			continue
		}
		codec, average, peak, err := st.Rate(cmaf.Medium(m), t)
		if err != nil {
			return v, err
		}
		v.codecs = strings.TrimPrefix(v.codecs+","+codec, ",")
		v.average, v.peak = v.average+average, v.peak+peak
	}
	return v, nil
}

// multivariant writes the playlist of all renditions (RFC 8216bis, 4.4.6). Each
// has its own sound, since both are cut together and break together.
func multivariant(variants []variant) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "#EXTM3U\n#EXT-X-VERSION:%d\n#EXT-X-INDEPENDENT-SEGMENTS\n", version)
	for i, v := range variants {
		if v.sound != nil {
			fmt.Fprintf(&b, "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"sound-%d\",NAME=\"Sound\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"%d\",URI=\"%saudio.m3u8\"\n",
				i, v.sound.Channels, v.folder)
		}
	}
	for i, v := range variants {
		fmt.Fprintf(&b, "#EXT-X-STREAM-INF:BANDWIDTH=%d,AVERAGE-BANDWIDTH=%d,CODECS=\"%s\",RESOLUTION=%dx%d", v.peak, v.average, v.codecs, v.video.Width, v.video.Height)
		if v.video.FPS > 0 {
			fmt.Fprintf(&b, ",FRAME-RATE=%.3f", v.video.FPS)
		}
		if v.sound != nil {
			fmt.Fprintf(&b, ",AUDIO=\"sound-%d\"", i)
		}
		fmt.Fprintf(&b, "\n%svideo.m3u8\n", v.folder)
	}
	return b.Bytes()
}

// media writes a media playlist (RFC 8216bis, 4.4.3 and 4.4.4), with reports on
// the others that its player knows. With skip it is a delta update.
func media(s *cmaf.Sequence, skip bool, reports []report) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "#EXTM3U\n#EXT-X-VERSION:%d\n#EXT-X-TARGETDURATION:%d\n", version, int(s.Target.Seconds()))
	fmt.Fprintf(&b, "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=%s,HOLD-BACK=%s,CAN-SKIP-UNTIL=%s\n",
		seconds(max(partHoldBack*ceil(s.PartTarget), leastHoldBack)), seconds(holdBack*s.Target), seconds(skipUntil*s.Target))
	fmt.Fprintf(&b, "#EXT-X-PART-INF:PART-TARGET=%s\n", seconds(ceil(s.PartTarget)))
	fmt.Fprintf(&b, "#EXT-X-MEDIA-SEQUENCE:%d\n", s.Segments[0].Number)
	if s.Discontinuities > 0 {
		fmt.Fprintf(&b, "#EXT-X-DISCONTINUITY-SEQUENCE:%d\n", s.Discontinuities)
	}
	b.WriteString("#EXT-X-INDEPENDENT-SEGMENTS\n")
	skipped := 0
	if skip {
		skipped = older(s, skipUntil*s.Target)
	}
	if skipped > 0 {
		fmt.Fprintf(&b, "#EXT-X-SKIP:SKIPPED-SEGMENTS=%d\n", skipped)
	}
	withParts := older(s, partsUntil*s.Target)
	init := (*cmaf.Init)(nil)
	for i, g := range s.Segments[skipped:] {
		if g.Discontinuity {
			b.WriteString("#EXT-X-DISCONTINUITY\n")
		}
		if g.Init != init {
			init = g.Init
			fmt.Fprintf(&b, "#EXT-X-MAP:URI=\"%v\"\n", cmaf.File{Medium: s.Medium, Kind: cmaf.Header, Init: init.ID})
		}
		segment(&b, s, g, skipped+i >= withParts)
	}
	hint(&b, s)
	for _, r := range reports {
		r.write(&b)
	}
	return b.Bytes()
}

// older returns how many segments end longer ago than d.
func older(s *cmaf.Sequence, d time.Duration) int {
	for i, g := range slices.Backward(s.Segments) {
		if d < 0 {
			return i + 1
		}
		d -= g.Duration
	}
	return 0
}

func segment(b *bytes.Buffer, s *cmaf.Sequence, g *cmaf.Segment, parts bool) {
	if !g.Wall.IsZero() {
		fmt.Fprintf(b, "#EXT-X-PROGRAM-DATE-TIME:%s\n", g.Wall.UTC().Format("2006-01-02T15:04:05.000Z"))
	}
	if parts {
		for i, p := range g.Parts {
			fmt.Fprintf(b, "#EXT-X-PART:DURATION=%s,URI=\"%v\"", seconds(p.Duration), cmaf.File{Medium: s.Medium, Kind: cmaf.SinglePart, Number: g.Number, Part: i})
			if p.Independent {
				b.WriteString(",INDEPENDENT=YES")
			}
			b.WriteByte('\n')
		}
	}
	if !g.Complete {
		return
	}
	if len(g.Parts) == 0 {
		b.WriteString("#EXT-X-GAP\n")
	}
	fmt.Fprintf(b, "#EXTINF:%s,\n%v\n", seconds(g.Duration), cmaf.File{Medium: s.Medium, Kind: cmaf.WholeSegment, Number: g.Number})
}

// hint names the part that comes next, so that players ask for it already.
func hint(b *bytes.Buffer, s *cmaf.Sequence) {
	last := s.Last()
	next := cmaf.File{Medium: s.Medium, Kind: cmaf.SinglePart, Number: last.Number, Part: len(last.Parts)}
	if last.Complete {
		next.Number, next.Part = last.Number+1, 0
	}
	fmt.Fprintf(b, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"%v\"\n", next)
}

// A report says how far another playlist is, so that a player that goes over to
// it need not ask first (RFC 8216bis, 4.4.5.4).
type report struct {
	folder string // where the other is, from here
	newest *cmaf.Sequence
}

// reports returns what a playlist of st and m tells of the others: of st's other
// medium, and of both media of the other renditions in the same multivariant
// playlist, whose folders stand beside st's.
func reports(st *cmaf.Stream, m cmaf.Medium, others []*cmaf.Stream) (all []report) {
	add := func(folder string, st *cmaf.Stream, m cmaf.Medium) {
		if s := st.Latest(m); s != nil {
			all = append(all, report{folder, s})
		}
	}
	add("", st, cmaf.Sound-m)
	for _, other := range others {
		other.Ask() // so that it is there when a player goes over
		folder := "../" + url.PathEscape(other.Name()) + "/"
		add(folder, other, cmaf.Video)
		add(folder, other, cmaf.Sound)
	}
	return all
}

func (r report) write(b *bytes.Buffer) {
	last := r.newest.Last()
	fmt.Fprintf(b, "#EXT-X-RENDITION-REPORT:URI=\"%s%v.m3u8\",LAST-MSN=%d", r.folder, r.newest.Medium, last.Number)
	if n := len(last.Parts); n > 0 {
		fmt.Fprintf(b, ",LAST-PART=%d", n-1)
	}
	b.WriteByte('\n')
}

// seconds writes a decimal floating-point number of seconds.
func seconds(d time.Duration) string { return fmt.Sprintf("%.5f", d.Seconds()) }

// ceil rounds up to whole milliseconds, so that no part is longer than told.
func ceil(d time.Duration) time.Duration {
	return (d + time.Millisecond - 1).Truncate(time.Millisecond)
}
