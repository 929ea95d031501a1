package dash

import (
	"encoding/xml"
	"fmt"
	"math"
	"strings"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/cmaf"
	"encoderd.example/stream/fmp4"
)

// visitMark stands in a manifest's text where the visit's ID goes. XML has no
// such character.
const visitMark = "\x00"

// fileName is the end of every manifest's address.
const fileName = "manifest.mpd"

// usualDelay is how far behind players without low latency are to be: VLC loads
// a manifest every five seconds, and GStreamer begins with ten seconds at hand.
const usualDelay = 10 * time.Second

// text writes a manifest (ISO/IEC 23009-1, 5). Sound is that of the first
// rendition that has some: it is the same in all.
func (m *manifest) text(offers []offer, now time.Time) string {
	target, depth, sound := time.Second, time.Duration(0), (*offer)(nil)
	for i, o := range offers {
		target = max(target, o.video.Target)
		depth = max(depth, listed(o.video))
		if sound == nil && o.sound != nil {
			sound = &offers[i]
		}
	}
	delay := max(min(max(usualDelay, 3*target), depth-2*target), 0) // where there is something
	var b strings.Builder
	b.WriteString(xml.Header)
	fmt.Fprintf(&b, `<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="dynamic" profiles="urn:mpeg:dash:profile:isoff-live:2011,http://www.dashif.org/guidelines/low-latency-live-v5"`+
		` availabilityStartTime="%s" publishTime="%s" minimumUpdatePeriod="%s" minBufferTime="%s" timeShiftBufferDepth="%s" suggestedPresentationDelay="%s" maxSegmentDuration="%s">`+"\n",
		date(m.zero), date(now), duration(target/2), duration(offers[0].video.PartTarget), duration(depth), duration(delay), duration(target))
	// A segment can be had when its first part can. VLC takes this to heart in
	// templates, without loading the manifest as often as it would have to.
	fmt.Fprintf(&b, `<BaseURL availabilityTimeOffset="%.3f" availabilityTimeComplete="false">./</BaseURL>`+"\n", max(target-offers[0].video.PartTarget, 0).Seconds())
	fmt.Fprintf(&b, "<Location>%s?visit=%s</Location>\n", fileName, visitMark) // 5.15: from now on
	fmt.Fprintf(&b, `<ServiceDescription id="0"><Latency target="%d" min="%d" max="%d"/><PlaybackRate min="0.96" max="1.04"/></ServiceDescription>`+"\n",
		(target + time.Second).Milliseconds(), time.Second.Milliseconds(), (3 * target).Milliseconds())
	for i, from := range m.breaks {
		p := period{from: from, to: math.MaxInt64, past: m.past}
		if i+1 < len(m.breaks) {
			p.to = m.breaks[i+1]
		}
		p.write(&b, offers, sound)
	}
	fmt.Fprintf(&b, `<UTCTiming schemeIdUri="urn:mpeg:dash:utc:http-xsdate:2014" value="%s"/>`+"\n</MPD>\n", m.clock)
	return b.String()
}

// segments returns what can be had of a sequence or will be soon: all with
// something in them, and the one that has just begun, so that who has loaded
// the one before finds it in the manifest.
func segments(s *cmaf.Sequence) []*cmaf.Segment {
	var list []*cmaf.Segment
	for _, g := range s.Long {
		if len(g.Parts) > 0 {
			list = append(list, g)
		}
	}
	if s.Next != nil {
		list = append(list, s.Next)
	}
	return list
}

// listed is how long a sequence's segments last together.
func listed(s *cmaf.Sequence) (d time.Duration) {
	for _, g := range segments(s) {
		d += g.Told.To - g.Told.From
	}
	return d
}

// A period is a stretch of time in which nothing breaks.
type period struct {
	from, to time.Duration
	past     bool // timelines begin with one of long ago
}

func (p period) write(b *strings.Builder, offers []offer, sound *offer) {
	var sets strings.Builder
	p.pictures(&sets, offers)
	if sound != nil {
		p.sound(&sets, sound)
	}
	if sets.Len() == 0 {
		return
	}
	// The ID stays as long as the period does.
	fmt.Fprintf(b, `<Period id="p%d" start="%s">`+"\n%s</Period>\n", p.from.Milliseconds(), duration(p.from), sets.String())
}

// pictures writes one set for each codec, of all renditions coded so: players
// change between those of a set only, without a new decoder.
func (p period) pictures(b *strings.Builder, offers []offer) {
	for _, codec := range []stream.Codec{stream.H264, stream.H265} { // what every player knows first
		p.coded(b, offers, codec)
	}
}

func (p period) coded(b *strings.Builder, offers []offer, codec stream.Codec) {
	var representations strings.Builder
	for _, o := range offers {
		segments := p.segments(o.video)
		if len(segments) == 0 || segments[0].Init.Track.Codec != codec {
			continue
		}
		t := segments[0].Init.Track
		fmt.Fprintf(&representations, `<Representation id="%s" codecs="%s" bandwidth="%d" width="%d" height="%d" frameRate="%s" sar="1:1">`+"\n",
			escape(o.st.Name()), segments[0].Init.Codec, o.video.Peak, t.Width, t.Height, frameRate(t.FPS))
		p.template(&representations, o, o.video, segments)
		representations.WriteString("</Representation>\n")
	}
	if representations.Len() > 0 {
		fmt.Fprintf(b, `<AdaptationSet id="%d" contentType="video" mimeType="video/mp4" startWithSAP="1">`+"\n%s</AdaptationSet>\n", codec, representations.String())
	}
}

func (p period) sound(b *strings.Builder, o *offer) {
	segments := p.segments(o.sound)
	if len(segments) == 0 {
		return
	}
	t := segments[0].Init.Track
	fmt.Fprintf(b, `<AdaptationSet id="0" contentType="audio" mimeType="audio/mp4" startWithSAP="1">`+"\n"+
		`<Representation id="%s sound" codecs="%s" bandwidth="%d" audioSamplingRate="%d">`+"\n"+
		`<AudioChannelConfiguration schemeIdUri="urn:mpeg:dash:23003:3:audio_channel_configuration:2011" value="%d"/>`+"\n",
		escape(o.st.Name()), segments[0].Init.Codec, o.sound.Peak, t.Rate, t.Channels)
	p.template(b, *o, o.sound, segments)
	b.WriteString("</Representation>\n</AdaptationSet>\n")
}

// segments returns those with something in the period; the first may begin
// before it. All have one header: that of the last ones.
func (p period) segments(s *cmaf.Sequence) []*cmaf.Segment {
	var found []*cmaf.Segment
	for _, g := range segments(s) {
		if g.Told.From >= p.to || g.Told.To <= p.from {
			continue
		}
		if len(found) > 0 && found[0].Init != g.Init {
			found = found[:0]
		}
		found = append(found, g)
	}
	return found
}

// template writes where segments are (5.3.9.4) and when (5.3.9.6).
func (p period) template(b *strings.Builder, o offer, s *cmaf.Sequence, segments []*cmaf.Segment) {
	init := segments[0].Init
	folder := escape(o.folder) + "dash/" + visitMark + "/"
	fmt.Fprintf(b, `<SegmentTemplate timescale="%d" presentationTimeOffset="%d" initialization="%s%v" media="%s%v-t$Time$.m4s">`+"\n<SegmentTimeline>",
		init.Scale, fmp4.Ticks(p.from, init.Scale),
		folder, cmaf.File{Medium: s.Medium, Kind: cmaf.Header, Init: init.ID}, folder, s.Medium)
	if p.past {
		b.WriteString(`<S t="0" d="1"/>`)
	}
	for _, run := range timeline(segments) {
		fmt.Fprintf(b, `<S t="%d" d="%d"`, run.time, run.length)
		if run.repeats > 0 {
			fmt.Fprintf(b, ` r="%d"`, run.repeats)
		}
		b.WriteString("/>")
	}
	b.WriteString("</SegmentTimeline>\n</SegmentTemplate>\n")
}

// A stretch is some segments of one length, one after another.
type stretch struct {
	time, length uint64
	repeats      int
}

// timeline sums up when segments are.
func timeline(segments []*cmaf.Segment) (list []stretch) {
	for _, g := range segments {
		at := fmp4.Ticks(g.Told.From, g.Init.Scale)
		length := fmp4.Ticks(g.Told.To, g.Init.Scale) - at
		if n := len(list) - 1; n >= 0 && list[n].length == length && list[n].time+length*uint64(list[n].repeats+1) == at {
			list[n].repeats++
			continue
		}
		list = append(list, stretch{at, length, 0})
	}
	return list
}

// frameRate writes a rate of pictures as the fraction that it is.
func frameRate(fps float64) string {
	switch whole, ntsc := math.Round(fps), math.Round(fps*1.001); {
	case fps <= 0:
		return "25"
	case math.Abs(fps-whole) < 0.005:
		return fmt.Sprintf("%.0f", whole)
	case math.Abs(fps*1.001-ntsc) < 0.005:
		return fmt.Sprintf("%.0f/1001", ntsc*1000)
	default:
		return fmt.Sprintf("%.0f/1000", fps*1000)
	}
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// duration writes xs:duration.
func duration(d time.Duration) string { return fmt.Sprintf("PT%.3fS", d.Seconds()) }

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // into memory: never fails
	return b.String()
}
