package cmaf

import (
	"errors"
	"log/slog"
	"net/http"

	"encoderd.example/stream"
	"encoderd.example/stream/visit"
)

// A Menu is what players may choose from. Set its fields before use and leave
// them alone from then on. All methods may be called from any goroutine.
type Menu struct {
	// Find returns the rendition of a name, nil if there is none. It must not
	// block.
	Find func(name string) *stream.Rendition
	// Names returns the renditions, best first. It must not block.
	Names func() []string
	// Segments cuts the renditions.
	Segments *Segmenter
	// Audience says who may watch; nil lets everybody.
	Audience *stream.Audience
	// Log takes who was refused.
	Log *slog.Logger
}

// All returns the streams that the player that sent r and shows c may watch and
// that have begun. If there are none it answers why, and returns nil.
func (m *Menu) All(w http.ResponseWriter, r *http.Request, c stream.Credentials) (streams []*Stream) {
	refused := error(nil)
	for _, name := range m.Names() {
		src := m.Find(name)
		if src == nil {
			continue
		}
		if err := m.Allow(r, name, c); err != nil {
			refused = err
			continue
		}
		if _, begun := src.Tracks(); begun {
			streams = append(streams, m.Segments.Of(src))
		}
	}
	switch {
	case len(streams) > 0:
	case refused != nil:
		m.Refuse(w, r, refused)
	default:
		visit.Fail(w, http.StatusServiceUnavailable, "no picture yet")
	}
	return streams
}

// One returns the stream of a name, if the player that sent r and shows c may
// watch it. Otherwise it answers why not, and returns nil.
func (m *Menu) One(w http.ResponseWriter, r *http.Request, name string, c stream.Credentials) *Stream {
	st := m.Stream(w, name)
	if st == nil {
		return nil
	}
	if err := m.Allow(r, name, c); err != nil {
		m.Refuse(w, r, err)
		return nil
	}
	return st
}

// Stream returns the stream of a name, whoever asks. If there is none it
// answers so, and returns nil.
func (m *Menu) Stream(w http.ResponseWriter, name string) *Stream {
	src := m.Find(name)
	if src == nil {
		visit.Fail(w, http.StatusNotFound, "no such rendition")
		return nil
	}
	return m.Segments.Of(src)
}

// Allow says whether the player that sent r and shows c may watch a rendition.
// The error is that of [stream.Audience.Allow].
func (m *Menu) Allow(r *http.Request, name string, c stream.Credentials) error {
	return m.Audience.Allow(r.RemoteAddr, name, c)
}

// Refuse answers why somebody may not watch.
func (m *Menu) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	m.Log.Debug("viewer refused", "peer", r.RemoteAddr, "err", err)
	visit.Refuse(w, r, err)
}

// Unavailable answers why [Stream.Wait] failed: by 404 where waiting longer
// would not help, and else by 503.
func Unavailable(w http.ResponseWriter, err error) {
	if errors.Is(err, ErrNoSound) || errors.Is(err, ErrNoVideo) {
		visit.Fail(w, http.StatusNotFound, err.Error())
		return
	}
	w.Header().Set("Retry-After", "1")
	visit.Fail(w, http.StatusServiceUnavailable, "nothing came in time: is the picture on?")
}
