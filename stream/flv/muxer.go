package flv

import (
	"errors"
	"time"

	"encoderd.example/stream"
)

// A Tag is one FLV tag: its body is Head followed by Data.
type Tag struct {
	Kind Kind
	// Time is the decoding time in milliseconds since the first picture. It
	// wraps after 49.7 days, as RTMP 5.3.1.1 asks.
	Time uint32
	// Key marks a picture at which decoding can start. Config marks metadata
	// and sequence headers.
	Key, Config bool
	// Head is the muxer's own memory, good until its next call; Data is the
	// unit's, immutable, and empty for Config.
	Head, Data []byte
}

// ErrNotEnhanced says that a rendition is H.265, which only Enhanced RTMP
// carries.
var ErrNotEnhanced = errors.New("the rendition is H.265, which this player or server did not say it can take (Enhanced RTMP, hvc1): choose an H.264 rendition")

// ErrNoVideo says that a rendition has no H.264, without which neither the
// rings nor FLV can start.
var ErrNoVideo = errors.New("the rendition has no H.264 picture, which FLV and RTMP need: choose another rendition")

// A Muxer turns units into tags.
//
//	          key picture: metadata, both headers
//	waiting ─────────────────────────────────────► running ─┐ tags
//	   ▲                                              │  ◄──┘
//	   └────────── new track that starts without key ─┘
//
// Pictures that nobody can decode and sound from before the first picture are
// left out, and so are units of codecs other than the muxer's. When a unit
// points to a new Track, metadata and the sequence header of that track come
// before it. For use by one goroutine.
type Muxer struct {
	video, audio *stream.Track // the ones that the far side knows
	start        time.Duration // DTS of the first picture
	newest       time.Duration // DTS of the latest picture sent
	started      bool
	waiting      bool // for a key picture
	silent       bool // no sound before that picture
	head         []byte
	encoder      string
}

// NewMuxer returns a muxer for a rendition with these tracks, of which it takes
// H.264 and AAC. encoder is the name that goes into the metadata. The error is
// [ErrNoVideo] if there is no H.264.
func NewMuxer(tracks []*stream.Track, encoder string) (*Muxer, error) {
	m := newMuxer(tracks, encoder)
	if m.video == nil || m.video.Codec != stream.H264 {
		return nil, ErrNoVideo
	}
	return m, nil
}

// NewEnhancedMuxer is [NewMuxer] for a far side that knows Enhanced RTMP: it
// takes H.265 too.
func NewEnhancedMuxer(tracks []*stream.Track, encoder string) (*Muxer, error) {
	m := newMuxer(tracks, encoder)
	if m.video == nil {
		return nil, ErrNoVideo
	}
	return m, nil
}

func newMuxer(tracks []*stream.Track, encoder string) *Muxer {
	m := &Muxer{encoder: encoder, waiting: true, head: make([]byte, 0, 512)}
	for _, t := range tracks {
		switch {
		case t.Codec.Video() && m.video == nil:
			m.video = t
		case t.Codec == stream.AAC && m.audio == nil:
			m.audio = t
		}
	}
	return m
}

// Resume makes tags go on after a pause: at a key picture later than all that
// was sent, under the same clock.
func (m *Muxer) Resume() { m.waiting, m.silent = true, m.started }

// HasAudio reports whether sound is part of it.
func (m *Muxer) HasAudio() bool { return m.audio != nil }

// Next hands the tags of u to emit, none if u has to be left out. An error of
// emit comes back as it is and ends the muxer's use.
func (m *Muxer) Next(u *stream.Unit, emit func(Tag) error) error {
	switch u.Track.Codec {
	case m.video.Codec:
		return m.picture(u, emit)
	case stream.AAC:
		return m.sound(u, emit)
	default:
		return nil
	}
}

// Plain is Next for the usual unit, which is one tag and nothing else: it
// returns the tag's time, and the tag is of [KindOf] u, has the head that
// [AppendHead] writes, and u's data. Where ok is false nothing has changed, and
// Next has to be asked.
func (m *Muxer) Plain(u *stream.Unit) (at uint32, ok bool) {
	switch {
	case u.Track == m.video && !m.waiting:
		m.newest = u.DTS
	case u.Track == m.audio && m.started && !m.silent && u.DTS >= m.start:
	default:
		return 0, false
	}
	return m.time(u), true
}

func (m *Muxer) picture(u *stream.Unit, emit func(Tag) error) error {
	m.waiting = m.waiting || u.Track != m.video
	if m.waiting && (!u.Key || m.silent && u.DTS <= m.newest) {
		return nil
	}
	if m.waiting {
		if err := m.begin(u, emit); err != nil {
			return err
		}
	}
	m.newest = u.DTS
	m.head = AppendHead(m.head[:0], u)
	return emit(Tag{Kind: Video, Time: m.time(u), Key: u.Key, Head: m.head, Data: u.Data})
}

// begin emits what a decoder has to know before the key picture u.
func (m *Muxer) begin(u *stream.Unit, emit func(Tag) error) error {
	first := !m.started
	if first {
		m.start, m.started = u.DTS, true
	}
	m.video, m.waiting, m.silent = u.Track, false, false
	at := m.time(u)
	if err := m.metadata(at, emit); err != nil {
		return err
	}
	m.head = AppendVideoConfig(m.head[:0], m.video)
	if err := emit(Tag{Kind: Video, Time: at, Key: true, Config: true, Head: m.head}); err != nil {
		return err
	}
	if !first || m.audio == nil {
		return nil
	}
	return m.audioConfig(at, emit)
}

func (m *Muxer) sound(u *stream.Unit, emit func(Tag) error) error {
	if m.audio == nil {
		return nil
	}
	if !m.started {
		m.audio = u.Track
		return nil
	}
	if u.DTS < m.start || m.silent {
		return nil
	}
	at := m.time(u)
	if u.Track != m.audio {
		m.audio = u.Track
		if err := m.metadata(at, emit); err != nil {
			return err
		}
		if err := m.audioConfig(at, emit); err != nil {
			return err
		}
	}
	m.head = AppendHead(m.head[:0], u)
	return emit(Tag{Kind: Audio, Time: at, Head: m.head, Data: u.Data})
}

func (m *Muxer) metadata(at uint32, emit func(Tag) error) error {
	m.head = AppendMetadata(m.head[:0], m.video, m.audio, m.encoder)
	return emit(Tag{Kind: Script, Time: at, Config: true, Head: m.head})
}

func (m *Muxer) audioConfig(at uint32, emit func(Tag) error) error {
	m.head = AppendAudioConfig(m.head[:0], m.audio)
	return emit(Tag{Kind: Audio, Time: at, Config: true, Head: m.head})
}

// time counts from the absolute value, so that rounding does not add up. A
// clock that steps back before the start stays at 0.
func (m *Muxer) time(u *stream.Unit) uint32 {
	return uint32(milliseconds(max(u.DTS-m.start, 0)))
}
