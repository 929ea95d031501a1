package ts

import (
	"errors"
	"fmt"

	"encoderd.example/stream"
	"encoderd.example/stream/h264"
	"encoderd.example/stream/h265"
	"encoderd.example/stream/nal"
)

// A format says how units of a codec stand in the stream.
type format struct {
	kind byte // stream_type (13818-1, table 2-34)
	id   byte // stream_id (table 2-22)
}

// formats are what can be carried.
var formats = map[stream.Codec]format{
	stream.H264: {0x1b, 0xe0},
	stream.H265: {0x24, 0xe0},
	stream.AAC:  {0x0f, 0xc0},
	stream.Opus: {0x06, 0xbd}, // private; the descriptors tell
}

// An elementary is one stream of the program.
type elementary struct {
	format
	pid     uint16
	counter byte // continuity_counter of the next packet
	track   *stream.Track
	sets    [][]byte // parameter sets of pictures
	adts    [adtsSize]byte
}

// open takes t as the stream's track.
func (e *elementary) open(t *stream.Track) (err error) {
	f, ok := formats[t.Codec]
	if !ok {
		return errTrack(t, errors.New("no place in a transport stream"))
	}
	switch t.Codec {
	case stream.H264:
		var sps, pps []byte
		sps, pps, err = h264.ParameterSets(t.Setup)
		e.sets = [][]byte{sps, pps}
	case stream.H265:
		var vps, sps, pps []byte
		vps, sps, pps, err = h265.ParameterSets(t.Setup)
		e.sets = [][]byte{vps, sps, pps}
	case stream.AAC:
		e.adts, err = adts(t.Setup)
	default:
		if t.Channels < 1 || t.Channels > 2 {
			err = fmt.Errorf("%d channels", t.Channels)
		}
	}
	if err != nil {
		return errTrack(t, err)
	}
	e.format, e.track = f, t
	return nil
}

// descriptors go into the program map: for Opus its registered name and, by
// the descriptor that DVB reserves for it, how many channels there are.
func (e *elementary) descriptors() []byte {
	switch e.track.Codec {
	case stream.Opus:
		return []byte{0x05, 4, 'O', 'p', 'u', 's', 0x7f, 2, 0x80, byte(e.track.Channels)}
	case stream.H265:
		return []byte{0x05, 4, 'H', 'E', 'V', 'C'}
	default:
		return nil
	}
}

// payload puts the header of u and its pieces into m.pieces.
func (m *Muxer) payload(e *elementary, u *stream.Unit) {
	m.pieces = append(m.pieces[:0], nil) // the place of the header
	m.head = m.head[:0]
	switch e.track.Codec {
	case stream.H264, stream.H265:
		m.picture(e, u)
	case stream.AAC:
		head := e.adts
		setLength(&head, len(u.Data))
		m.pieces = append(m.pieces, head[:], u.Data)
	default:
		m.pieces = append(m.pieces, opusHead(len(u.Data)), u.Data)
	}
	size := 0
	for _, p := range m.pieces {
		size += len(p)
	}
	m.head = appendPES(m.head, e.id, u, size)
	m.pieces[0] = m.head
}

var (
	startCode = []byte{0, 0, 0, 1}
	delimiter = map[stream.Codec][]byte{ // access unit delimiters that promise nothing
		stream.H264: {0, 0, 0, 1, h264.TypeAUD, 0xf0},
		stream.H265: {0, 0, 0, 1, h265.TypeAUD << 1, 1, 0x50},
	}
)

// picture is the byte stream form of u: a delimiter, the parameter sets before
// a key picture that brings none, then its own NAL units.
func (m *Muxer) picture(e *elementary, u *stream.Unit) {
	m.pieces = append(m.pieces, delimiter[e.track.Codec])
	if u.Key && !bringsSets(e.track.Codec, u.Data) {
		for _, set := range e.sets {
			m.pieces = append(m.pieces, startCode, set)
		}
	}
	for unit := range nal.Prefixed(u.Data) {
		if !isDelimiter(e.track.Codec, unit) {
			m.pieces = append(m.pieces, startCode, unit)
		}
	}
}

func bringsSets(c stream.Codec, data []byte) bool {
	for unit := range nal.Prefixed(data) {
		if c == stream.H264 && h264.Type(unit) == h264.TypeSPS || c == stream.H265 && h265.Type(unit) == h265.TypeSPS {
			return true
		}
	}
	return false
}

func isDelimiter(c stream.Codec, unit []byte) bool {
	return c == stream.H264 && h264.Type(unit) == h264.TypeAUD || c == stream.H265 && h265.Type(unit) == h265.TypeAUD
}

// opusHead is the control header of one access unit: a sync word, no trimming,
// then the size in steps of 255.
func opusHead(size int) []byte {
	head := []byte{0x7f, 0xe0}
	for ; size >= 255; size -= 255 {
		head = append(head, 255)
	}
	return append(head, byte(size))
}

// What ADTS holds (ISO/IEC 13818-7, 6.2): a header without a check sum, and
// after it as much as 13 bits of length tell.
const (
	adtsSize = 7
	maxFrame = 1<<13 - 1 - adtsSize
)

// adts builds the header for frames of no length from an AudioSpecificConfig
// (ISO/IEC 14496-3, 1.6.2.1). What AAC-LC was extended by is left to receivers
// to find, as ADTS has no word for it.
func adts(config []byte) (head [adtsSize]byte, err error) {
	const (
		lc   = 2
		sbr  = 5
		ps   = 29
		last = 12 // index of the lowest sample rate
	)
	r := nal.NewReader(config)
	object, rate, channels := r.U(5), r.U(4), r.U(4)
	if object == sbr || object == ps {
		if r.U(4) == 15 {
			r.U(24)
		}
		object = r.U(5)
	}
	switch {
	case r.Err() != nil:
		return head, fmt.Errorf("read AudioSpecificConfig: %w", r.Err())
	case object < 1 || object > 4 || rate > last || channels < 1 || channels > 7:
		return head, fmt.Errorf("object type %d, rate index %d and channels %d do not fit into ADTS", object, rate, channels)
	}
	head = [adtsSize]byte{
		0xff, 0xf1, // sync word, MPEG-4, no check sum
		byte(object-1)<<6 | byte(rate)<<2 | byte(channels>>2),
		byte(channels) << 6, 0, 0x1f, 0xfc, // buffer fullness 0x7ff: variable rate
	}
	return head, nil
}

func setLength(head *[adtsSize]byte, frame int) {
	n := frame + adtsSize
	head[3] |= byte(n >> 11)
	head[4] = byte(n >> 3)
	head[5] |= byte(n << 5)
}
