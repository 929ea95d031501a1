package rtp

import (
	"errors"
	"fmt"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/h264"
	"encoderd.example/stream/h265"
)

// ErrChanged says that a track now has parameters that a running session
// cannot follow, since they stand in its description only. Readers must set up
// a new session.
var ErrChanged = errors.New("parameters changed: readers have to connect again")

// reportEvery is the longest time between two sender reports, on the media
// clock: the minimum interval of RFC 3550, 6.2, which is also what players
// expect.
const reportEvery = 5 * time.Second

// A Packetizer turns the units of one rendition into batches. It is for use by
// one goroutine at a time, save for [Packetizer.SSRC] and [Packetizer.Goodbye].
type Packetizer struct {
	size   int
	tracks [mediums]*stream.Track // nil: medium not carried
	flows  [mediums]flow
	cname  string
	wall   func(time.Duration) time.Time

	sets     [][]byte // parameter sets of tracks[Video], in the order of sending
	reported bool
	report   time.Duration // PTS at the latest sender report
	pending  [][]byte      // NAL units waiting to share a packet
}

// NewPacketizer returns a packetizer for one track or two, at most one of them
// video, with packets of at most size bytes, RTP header included; zero means
// [DefaultSize]. Sequence numbers and time stamps start at random values.
func NewPacketizer(size int, tracks ...*stream.Track) (*Packetizer, error) {
	return newPacketizer(size, random, stream.Wall, tracks)
}

func newPacketizer(size int, random func() uint32, wall func(time.Duration) time.Time, tracks []*stream.Track) (*Packetizer, error) {
	if size == 0 {
		size = DefaultSize
	}
	if size < MinSize || size > 0xffff {
		return nil, fmt.Errorf("rtp: packet size %d is not in %d to 65535", size, MinSize)
	}
	p := &Packetizer{size: size, wall: wall, cname: fmt.Sprintf("%08x%08x", random(), random())}
	for _, t := range tracks {
		m := MediumOf(t.Codec)
		if p.tracks[m] != nil {
			return nil, fmt.Errorf("rtp: %v and %v in one session", p.tracks[m].Codec, t.Codec)
		}
		if err := p.open(m, t); err != nil {
			return nil, err
		}
		p.flows[m] = flow{
			payloadType: VideoType + byte(m),
			ssrc:        random(),
			seq:         random() & 0xffff,
			offset:      random(),
			clock:       Clock(t),
		}
	}
	return p, nil
}

// SSRC returns the source identifier of a medium. It never changes, so that
// any goroutine may call it.
func (p *Packetizer) SSRC(m Medium) uint32 { return p.flows[m].ssrc }

// Batch returns u in packets, or nil if u's codec is none of this session's.
// Sender reports go in front of every key picture and at least every 5 s. An
// error that wraps [ErrChanged] ends the session.
func (p *Packetizer) Batch(u *stream.Unit) (*Batch, error) {
	m := MediumOf(u.Track.Codec)
	if p.tracks[m] == nil || p.tracks[m].Codec != u.Track.Codec {
		return nil, nil
	}
	if p.tracks[m] != u.Track {
		if err := p.change(m, u.Track); err != nil {
			return nil, err
		}
	}
	w := writer{
		flow:  &p.flows[m],
		frame: [2]byte{'$', byte(2 * m)},
		stamp: p.flows[m].stamp(u.PTS),
		buf:   make([]byte, 0, p.bound(u)),
	}
	b := &Batch{Key: u.Key, At: u.PTS, medium: m}
	for i := range p.flows {
		f := &p.flows[i]
		b.Seq[i], b.Rolls[i], b.Time[i] = uint16(f.seq), f.seq>>16, f.stamp(u.PTS)
	}
	if p.due(u) {
		w.buf = p.appendReport(w.buf, 1-m, u.PTS)
		b.split = len(w.buf)
		w.buf = p.appendReport(w.buf, m, u.PTS)
	}
	if err := p.payload(&w, u); err != nil {
		return nil, err
	}
	b.buf = w.buf
	return b, nil
}

func (p *Packetizer) payload(w *writer, u *stream.Unit) error {
	switch u.Track.Codec {
	case stream.H264:
		p.writeH264(w, u)
		return nil
	case stream.H265:
		p.writeH265(w, u)
		return nil
	case stream.AAC:
		return p.writeAAC(w, u.Data)
	default:
		return p.writeOpus(w, u.Data)
	}
}

// due reports whether sender reports go out with u.
func (p *Packetizer) due(u *stream.Unit) bool {
	if p.reported && !u.Key && (u.PTS-p.report).Abs() < reportEvery {
		return false
	}
	p.reported, p.report = true, u.PTS
	return true
}

// open takes t as the track of m.
func (p *Packetizer) open(m Medium, t *stream.Track) error {
	switch t.Codec {
	case stream.H264:
		sps, pps, err := h264.ParameterSets(t.Setup)
		if err != nil {
			return fmt.Errorf("rtp: %w", err)
		}
		p.sets = [][]byte{sps, pps}
	case stream.H265:
		vps, sps, pps, err := h265.ParameterSets(t.Setup)
		if err != nil {
			return fmt.Errorf("rtp: %w", err)
		}
		p.sets = [][]byte{vps, sps, pps}
	case stream.AAC:
		if t.Rate <= 0 || len(t.Setup) < 2 {
			return fmt.Errorf("rtp: aac track of %d Hz with %d bytes of setup", t.Rate, len(t.Setup))
		}
	case stream.Opus:
	default:
		return fmt.Errorf("rtp: %v has no packet format here", t.Codec)
	}
	p.tracks[m] = t
	return nil
}

// change goes over from one track to the next. Pictures carry their parameter
// sets with them; what sound needs stands in the session description alone.
func (p *Packetizer) change(m Medium, t *stream.Track) error {
	old := p.tracks[m]
	if m == Sound && (t.Rate != old.Rate || t.Channels != old.Channels || string(t.Setup) != string(old.Setup)) {
		return fmt.Errorf("rtp: %v of %d Hz and %d channels: %w", t.Codec, t.Rate, t.Channels, ErrChanged)
	}
	return p.open(m, t)
}

// bound returns a size that u's batch does not exceed, so that its memory is
// taken once.
func (p *Packetizer) bound(u *stream.Unit) int {
	const perPacket = frameSize + headerSize + 4 // 4: the largest payload header
	payload := p.size - headerSize - 4
	n := int(mediums)*reportSize(p.cname) + len(u.Data)
	if !u.Track.Codec.Video() {
		return n + (len(u.Data)/payload+1)*perPacket
	}
	for nal := range h264.NALs(u.Data) { // they lie alike in both codecs
		n += (len(nal)/payload + 1) * perPacket
	}
	for _, set := range p.sets {
		n += len(set) + (len(set)/payload+1)*perPacket
	}
	return n
}

// A writer appends the RTP packets of one unit.
type writer struct {
	flow  *flow
	frame [2]byte
	stamp uint32
	buf   []byte
	last  int // where the latest packet's RTP header starts
}

// packet starts a packet; n bytes of payload are to be appended to buf.
func (w *writer) packet(n int) {
	f, size := w.flow, headerSize+n
	w.last = len(w.buf) + frameSize
	w.buf = append(w.buf,
		w.frame[0], w.frame[1], byte(size>>8), byte(size),
		0x80, f.payloadType, byte(f.seq>>8), byte(f.seq),
		byte(w.stamp>>24), byte(w.stamp>>16), byte(w.stamp>>8), byte(w.stamp),
		byte(f.ssrc>>24), byte(f.ssrc>>16), byte(f.ssrc>>8), byte(f.ssrc))
	f.seq++
	f.packets++
	f.octets += uint32(n)
}

// mark sets the marker bit of the latest packet.
func (w *writer) mark() { w.buf[w.last+1] |= 0x80 }
