// Package hls serves renditions to HLS players, with the parts of Low-Latency
// HLS (RFC 8216bis). A player that knows nothing of parts sees plain HLS.
//
//	/live/index.m3u8          all renditions
//	   └─► NAME~NAME/hls/VISIT/NAME/video.m3u8, audio.m3u8
//	/live/NAME/index.m3u8     one
//	   └─► NAME/hls/VISIT/video.m3u8, audio.m3u8
//	          └─► video-N.m4s, video-N.PART.m4s, video-init-ID.mp4
//
// Playlists that a player may go from one to the other tell of each other; the
// address says which those are.
//
// The first answer hands down a visit (package visit) in the addresses, so
// everything below them is the same for all players: playlists are made once
// for each part, compressed once, and segments are sent from shared files.
package hls

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/cmaf"
	"encoderd.example/stream/visit"
)

const (
	// waitTime is how long a playlist request may wait for what is to come.
	waitTime = 10 * time.Second
	// trackTime is how long an encoder may take to begin.
	trackTime = 5 * time.Second
	// writeTime is how long a player may take for a playlist.
	writeTime = 10 * time.Second
	// silence is how many target durations without a request end a viewer.
	silence = 3
)

// A Server serves HLS. Set its fields before use and leave them alone from then
// on. All methods may be called from any goroutine.
type Server struct {
	// Find returns the rendition of a name, nil if there is none. It must not
	// block.
	Find func(name string) *stream.Rendition
	// Names returns the renditions for the playlist of all, best first. It must
	// not block.
	Names func() []string
	// Segments cuts the renditions; its Run must be running.
	Segments *cmaf.Segmenter
	// Audience, if set, lists who watches and says who may.
	Audience *stream.Audience
	// Log takes who was refused; nil means nobody cares.
	Log *slog.Logger

	once   sync.Once
	menu   cmaf.Menu
	visits visit.Visits
	pages  pages
}

func (s *Server) init() {
	s.once.Do(func() {
		s.visits.Protocol, s.visits.Audience = "hls", s.Audience
		if s.Log == nil {
			s.Log = slog.New(slog.DiscardHandler)
		}
		s.menu = cmaf.Menu{Find: s.Find, Names: s.Names, Segments: s.Segments, Audience: s.Audience, Log: s.Log}
	})
}

// Run looks after the viewers until ctx ends, then lets them leave and returns
// nil.
func (s *Server) Run(ctx context.Context) error {
	s.init()
	return s.visits.Run(ctx)
}

// Handler returns the handler of the addresses above. It answers other paths
// by 404 and other methods by 405, save for OPTIONS ([visit.Preflight]).
func (s *Server) Handler() http.Handler {
	s.init()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /live/index.m3u8", s.all)
	mux.HandleFunc("GET /live/{name}/index.m3u8", s.one)
	mux.HandleFunc("GET /live/{name}/{file}", s.direct)
	mux.HandleFunc("GET /live/{name}/hls/{visit}/{file}", s.file)
	mux.HandleFunc("GET /live/{set}/hls/{visit}/{name}/{file}", s.file)
	return visit.Preflight(mux)
}

// all answers with every rendition that the player may watch.
func (s *Server) all(w http.ResponseWriter, r *http.Request) {
	if offers := s.menu.All(w, r, visit.Credentials(r)); offers != nil {
		s.index(w, r, offers, true)
	}
}

// one answers with one rendition, once its encoder has begun.
func (s *Server) one(w http.ResponseWriter, r *http.Request) {
	if st := s.menu.One(w, r, r.PathValue("name"), visit.Credentials(r)); st != nil {
		s.index(w, r, []*cmaf.Stream{st}, false)
	}
}

// index writes a multivariant playlist, of a set or of a single rendition.
func (s *Server) index(w http.ResponseWriter, r *http.Request, offers []*cmaf.Stream, asSet bool) {
	ctx, cancel := context.WithTimeout(r.Context(), trackTime)
	defer cancel()
	var variants []variant
	var names set
	for _, st := range offers {
		v, err := newVariant(ctx, st)
		if err != nil {
			cmaf.Unavailable(w, err)
			return
		}
		variants, names = append(variants, v), append(names, st.Name())
	}
	id := "none"
	if r.Method == http.MethodGet {
		t, err := s.visits.Begin(r)
		if err != nil {
			s.menu.Refuse(w, r, err)
			return
		}
		id = t.ID
	}
	for i := range variants {
		variants[i].folder = "hls/" + id + "/"
		if asSet {
			variants[i].folder = url.PathEscape(names.String()) + "/hls/" + id + "/" + url.PathEscape(names[i]) + "/"
		}
	}
	(&page{text: multivariant(variants)}).write(w, r, "no-store")
}

// A set is the renditions that a player may go over to.
type set []string

// setMark stands between them in addresses, where no name has it.
const setMark = "~"

// String returns what stands in addresses.
func (names set) String() string { return strings.Join(names, setMark) }

// set reads a set from an address. It has no name that is not there, and none
// twice.
func (s *Server) set(text string) (names set) {
	if text == "" {
		return nil
	}
	asked := strings.Split(text, setMark)
	for _, name := range s.Names() {
		if slices.Contains(asked, name) {
			names = append(names, name)
		}
	}
	return names
}

// others returns the streams of a set besides st.
func (s *Server) others(st *cmaf.Stream, names set) (others []*cmaf.Stream) {
	for _, name := range names {
		if src := s.Find(name); src != nil && name != st.Name() {
			others = append(others, s.Segments.Of(src))
		}
	}
	return others
}

// direct answers players that come without a visit: playlists by sending them
// to their visit's, media at once.
func (s *Server) direct(w http.ResponseWriter, r *http.Request) {
	name, file := r.PathValue("name"), r.PathValue("file")
	_, isMedia := cmaf.ParseFile(file)
	_, isList := listOf(file)
	if s.Find(name) == nil || !isMedia && !isList {
		visit.Fail(w, http.StatusNotFound, "no such address")
		return
	}
	if err := s.menu.Allow(r, name, visit.Credentials(r)); err != nil {
		s.menu.Refuse(w, r, err)
		return
	}
	find := s.visits.Arrive
	if isMedia {
		find = s.visits.Guess
	}
	t, err := find(r)
	switch {
	case err != nil:
		s.menu.Refuse(w, r, err)
	case isMedia:
		s.serve(w, r, t)
	default:
		query := r.URL.Query()
		query.Del("token") // the visit stands for it
		to := url.URL{Path: "hls/" + t.ID + "/" + file, RawQuery: query.Encode()}
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Location", to.String()) // relative, whatever proxies call us
		w.WriteHeader(http.StatusFound)
	}
}

// file answers with what belongs to a visit.
func (s *Server) file(w http.ResponseWriter, r *http.Request) {
	t := s.visits.Find(r.PathValue("visit"), r.RemoteAddr)
	if t == nil {
		visit.Fail(w, http.StatusNotFound, "this visit is over: open index.m3u8 again")
		return
	}
	s.serve(w, r, t)
}

// serve answers with a playlist or with media, and has the player counted.
func (s *Server) serve(w http.ResponseWriter, r *http.Request, t *visit.Visit) {
	file := r.PathValue("file")
	media, isMedia := cmaf.ParseFile(file)
	list, isList := listOf(file)
	if !isMedia && !isList {
		visit.Fail(w, http.StatusNotFound, "no such address")
		return
	}
	st := s.menu.Stream(w, r.PathValue("name"))
	if st == nil {
		return
	}
	medium := media.Medium
	if isList {
		medium = list
	}
	viewer, done, err := t.Watch(st.Name(), medium == cmaf.Video, silence*st.Target())
	if err != nil {
		s.menu.Refuse(w, r, err)
		return
	}
	defer done()
	if isList {
		s.playlist(w, r, st, medium, viewer)
		return
	}
	if medium == cmaf.Video && media.Number > 0 {
		viewer.Lost.Add(t.Follow(media.Number) * st.Pictures())
	}
	st.Serve(w, r, media, viewer)
}

// listOf reads the name of a media playlist.
func listOf(file string) (m cmaf.Medium, ok bool) {
	switch medium, _ := strings.CutSuffix(file, ".m3u8"); medium {
	case file:
		return 0, false
	case cmaf.Video.String():
		return cmaf.Video, true
	case cmaf.Sound.String():
		return cmaf.Sound, true
	default:
		return 0, false
	}
}
