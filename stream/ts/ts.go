// Package ts writes coded units as an MPEG-2 transport stream (ISO/IEC
// 13818-1): H.264 and H.265 as byte streams, AAC in ADTS, Opus as ETSI and
// everybody after it put it there.
//
//	stream.Unit ─► Muxer ─► Batch: [PAT PMT] [packet] [packet] … ─► HTTP, SRT, UDP
//
// A batch is made once for all readers of a rendition. It is immutable and
// owns its memory: the one copy of the media that packets of 188 bytes take.
package ts

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"time"

	"encoderd.example/stream"
)

// PacketSize is the length of every packet.
const PacketSize = 188

const (
	syncByte = 0x47
	room     = PacketSize - 4 // for adaptation field and payload
	pidTable = 0x1000         // of the program map
	pidFirst = 0x100          // of the first elementary stream; the others follow
	program  = 1
)

// How time is told.
const (
	// lead is how long before its decoding a unit is said to arrive: more than
	// sound and picture lie apart in the stream, so that none comes too late.
	lead = 300 * time.Millisecond
	// clockEvery is the longest time between two clock references while
	// anything is sent; 13818-1, 2.7.2, allows 100 ms.
	clockEvery = 80 * time.Millisecond
	// tablesEvery is how often the tables come between key pictures: receivers
	// by UDP enter anywhere.
	tablesEvery = 400 * time.Millisecond
)

// A Batch is one unit in whole packets, in front of them the tables if they
// are due: before every key picture, and now and then.
type Batch struct {
	Key  bool          // reading can start here
	DTS  time.Duration // of the unit
	Data []byte        // a multiple of [PacketSize] long; immutable
}

// ErrNoVideo says that there is no picture among the tracks.
var ErrNoVideo = errors.New("ts: no track of H.264 or H.265")

// A Muxer turns the units of one rendition into batches. Time stamps are those
// of the units, by a clock of 90 kHz that wraps after 26.5 hours. For use by
// one goroutine.
type Muxer struct {
	streams []*elementary // the picture first

	tables           [2][]byte // sections: program association, program map
	counters         [2]byte   // of their packets
	version          byte      // of the program map
	told             bool
	clock, tablesDue time.Duration

	pieces [][]byte // of the unit in work, kept for its capacity
	head   []byte   // of its packet
}

// NewMuxer returns a muxer for one track of pictures and any of sound. Units
// of other codecs are left out.
func NewMuxer(tracks ...*stream.Track) (*Muxer, error) {
	m := &Muxer{clock: math.MinInt64 / 2}
	for _, t := range tracks {
		e := &elementary{pid: pidFirst + uint16(len(m.streams))}
		if err := e.open(t); err != nil {
			return nil, err
		}
		m.streams = append(m.streams, e)
	}
	if len(tracks) == 0 || !tracks[0].Codec.Video() {
		return nil, ErrNoVideo
	}
	m.tables = [2][]byte{associate(), m.describe()}
	return m, nil
}

// Batch returns u in packets, or nil if u's codec is none of the muxer's or u
// is no frame that the form allows. An error says that u's track cannot be
// carried.
func (m *Muxer) Batch(u *stream.Unit) (*Batch, error) {
	e := m.find(u.Track.Codec)
	if e == nil || u.Track.Codec == stream.AAC && len(u.Data) > maxFrame {
		return nil, nil
	}
	if err := m.follow(e, u.Track); err != nil {
		return nil, err
	}
	m.payload(e, u)
	size := 0
	for _, p := range m.pieces {
		size += len(p)
	}
	const besides = 2 + 1 + 2 // tables, a clock, what does not fill its packet
	w := writer{buf: make([]byte, 0, (size/room+besides)*PacketSize), pieces: m.pieces}
	m.writeTables(&w, u)
	m.writeUnit(&w, e, u, size)
	clear(m.pieces)
	return &Batch{Key: u.Key, DTS: u.DTS, Data: w.buf}, nil
}

func (m *Muxer) find(c stream.Codec) *elementary {
	for _, e := range m.streams {
		if e.track.Codec == c {
			return e
		}
	}
	return nil
}

// follow goes over to the next track of a stream. Receivers look at the
// program map again only if its version is another.
func (m *Muxer) follow(e *elementary, t *stream.Track) error {
	if e.track == t {
		return nil
	}
	if err := e.open(t); err != nil {
		return err
	}
	now := m.describe()
	if !bytes.Equal(now, m.tables[1]) {
		m.version++
		m.tables[1] = m.describe()
		m.told = false
	}
	return nil
}

func (m *Muxer) writeTables(w *writer, u *stream.Unit) {
	if m.told && !u.Key && (u.DTS < m.tablesDue || !u.Track.Codec.Video()) {
		return
	}
	m.told, m.tablesDue = true, u.DTS+tablesEvery
	for i, pid := range [...]uint16{0, pidTable} {
		w.table(pid, m.counters[i], m.tables[i])
		m.counters[i]++
	}
}

// writeUnit writes the size bytes in w.pieces. The clock goes with the picture;
// sound carries it on while no picture comes.
func (m *Muxer) writeUnit(w *writer, e *elementary, u *stream.Unit, size int) {
	video, first := m.streams[0], adaptation{key: u.Key}
	switch {
	case e == video && u.DTS > m.clock:
		first.clock, first.hasClock = u.DTS, true
		m.clock = u.DTS
	case e != video && u.DTS-m.clock >= clockEvery:
		w.adaptation(video.pid, video.counter-1, adaptation{clock: u.DTS, hasClock: true})
		m.clock = u.DTS
	}
	for start := true; size > 0; start = false {
		size -= w.packet(e.pid, e.counter, start, first, size)
		e.counter++
		first = adaptation{}
	}
}

// errTrack says what is wrong with a track.
func errTrack(t *stream.Track, err error) error {
	return fmt.Errorf("ts: %v: %w", t.Codec, err)
}
