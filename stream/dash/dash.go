// Package dash serves renditions to MPEG-DASH players (ISO/IEC 23009-1), with
// the low latency of DASH-IF's guidelines: a segment is sent part by part
// while it is made.
//
//	/live/manifest.mpd        all renditions
//	/live/NAME/manifest.mpd   one
//	   ├─► the same with ?visit=VISIT, when it is loaded again
//	   └─► NAME/dash/VISIT/video-tTIME.m4s, video-init-ID.mp4, audio-…
//	/live/time                the clock that manifests count by
//
// Presentation time is the media clock itself: availabilityStartTime is the
// wall-clock time of its zero, fixed when the server begins, and /live/time
// goes on from there. So players stay in step when the box's wall clock is set.
package dash

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
	// waitTime is how long a manifest request may wait for the first segment.
	waitTime = 10 * time.Second
	// writeTime is how long a player may take for a manifest.
	writeTime = 10 * time.Second
	// silence is how many target durations without a request end a viewer.
	silence = 3
	// maxManifests bounds what is kept, one for each choice of renditions.
	maxManifests = 64
)

// A Server serves DASH. Set its fields before use and leave them alone from
// then on. All methods may be called from any goroutine.
type Server struct {
	// Find returns the rendition of a name, nil if there is none. It must not
	// block.
	Find func(name string) *stream.Rendition
	// Names returns the renditions for the manifest of all, best first. It must
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
	zero   time.Time // wall-clock time of the media clock's zero

	mu        sync.Mutex
	manifests map[string]*manifest // by the choice of renditions
}

func (s *Server) init() {
	s.once.Do(func() {
		s.visits.Protocol, s.visits.Audience = "dash", s.Audience
		s.zero = stream.Wall(0).UTC().Truncate(time.Millisecond)
		s.manifests = make(map[string]*manifest)
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
	mux.HandleFunc("GET /live/manifest.mpd", s.all)
	mux.HandleFunc("GET /live/{name}/manifest.mpd", s.one)
	mux.HandleFunc("GET /live/{name}/dash/{visit}/{file}", s.file)
	mux.HandleFunc("GET /live/time", s.clock)
	return visit.Preflight(mux)
}

// clock tells the time that manifests count by.
func (s *Server) clock(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Access-Control-Allow-Origin", "*")
	_, _ = w.Write([]byte(date(s.zero.Add(stream.Monotonic())))) // the player may have gone
}

// all answers with every rendition that the player may watch and that has
// begun.
func (s *Server) all(w http.ResponseWriter, r *http.Request) {
	var offers []offer
	t, shown := s.visitor(r)
	for _, st := range s.menu.All(w, r, shown) {
		// Dollars mean something in templates.
		folder := strings.ReplaceAll(url.PathEscape(st.Name()), "$", "%24") + "/"
		offers = append(offers, offer{st: st, folder: folder})
	}
	if offers != nil {
		s.manifest(w, r, t, offers, "time")
	}
}

// one answers with one rendition, once its encoder has begun.
func (s *Server) one(w http.ResponseWriter, r *http.Request) {
	t, shown := s.visitor(r)
	if st := s.menu.One(w, r, r.PathValue("name"), shown); st != nil {
		s.manifest(w, r, t, []offer{{st: st}}, "../time")
	}
}

// visitor returns the visit of a player that loads its manifest again from where
// the first one said, nil of any other, and what either shows.
func (s *Server) visitor(r *http.Request) (*visit.Visit, stream.Credentials) {
	if t := s.visits.Find(r.URL.Query().Get("visit"), r.RemoteAddr); t != nil {
		return t, t.Credentials()
	}
	return nil, visit.Credentials(r)
}

// manifest answers with the manifest of what is offered to the player of t, nil
// for one that asks where each begins. Some load it there again: GStreamer over a
// connection that it has, FFmpeg and VLC to go on with the addresses of media that
// they were told first.
func (s *Server) manifest(w http.ResponseWriter, r *http.Request, t *visit.Visit, offers []offer, clock string) {
	ctx, cancel := context.WithTimeout(r.Context(), waitTime)
	defer cancel()
	for i := range offers {
		if err := offers[i].fill(ctx); err != nil {
			cmaf.Unavailable(w, err)
			return
		}
	}
	id := "none"
	if t == nil && r.Method == http.MethodGet {
		var err error
		if t, err = s.visits.Arrive(r); err != nil {
			s.menu.Refuse(w, r, err)
			return
		}
	}
	if t != nil {
		id = t.ID
	}
	s.write(w, r, s.newest(offers, clock, divides(r)), id)
}

// divides reports whether a player is GStreamer, of which dashdemux and
// dashdemux2 (1.22) take the time of a timeline's first segment for a number of
// segments to leave out, and so wait for one that comes in hours:
// gst_mpd_client2_stream_seek in gstmpdclient.c adds segments->pdata[0]->start
// to the time within a segment and divides by its duration. With a first
// segment at zero they play.
func divides(r *http.Request) bool { return strings.Contains(r.UserAgent(), "GStreamer") }

// newest returns the manifest of offers, made anew only if a segment has begun
// since. past is for who [divides].
func (s *Server) newest(offers []offer, clock string, past bool) []string {
	var names, state strings.Builder
	fmt.Fprintln(&names, past)
	for _, o := range offers {
		names.WriteString(o.folder + "\n" + o.st.Name() + "\n")
		state.WriteString(o.state())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.manifests[names.String()]
	if m == nil {
		if len(s.manifests) >= maxManifests {
			clear(s.manifests)
		}
		m = &manifest{zero: s.zero, clock: clock, past: past, breaks: []time.Duration{0}}
		s.manifests[names.String()] = m
	}
	if m.state != state.String() {
		m.state = state.String()
		m.make(offers)
	}
	return m.pieces
}

// write sends a manifest with the visit's ID between its pieces.
func (s *Server) write(w http.ResponseWriter, r *http.Request, pieces []string, id string) {
	h := w.Header()
	h.Set("Content-Type", "application/dash+xml")
	h.Set("Cache-Control", "no-store")
	h.Set("Access-Control-Allow-Origin", "*")
	if r.Method == http.MethodHead {
		return
	}
	// The server lifts the deadline after the answer.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTime)) // where there is one
	_, _ = w.Write([]byte(strings.Join(pieces, id)))                              //nolint:gosec // a manifest, with no word of the request in it
}

// file answers with media of a visit, and has the player counted.
func (s *Server) file(w http.ResponseWriter, r *http.Request) {
	t := s.visits.Find(r.PathValue("visit"), r.RemoteAddr)
	if t == nil {
		visit.Fail(w, http.StatusNotFound, "this visit is over: open manifest.mpd again")
		return
	}
	media, ok := cmaf.ParseFile(r.PathValue("file"))
	if !ok {
		visit.Fail(w, http.StatusNotFound, "no such address")
		return
	}
	st := s.menu.Stream(w, r.PathValue("name"))
	if st == nil {
		return
	}
	viewer, done, err := t.Watch(st.Name(), media.Medium == cmaf.Video, silence*st.Target())
	if err != nil {
		s.menu.Refuse(w, r, err)
		return
	}
	defer done()
	viewer.Lost.Add(missed(t, st, media))
	st.Serve(w, r, media, viewer)
}

// missed returns about how many pictures a player has left out between the last
// segment that it asked for and this one.
func missed(t *visit.Visit, st *cmaf.Stream, media cmaf.File) uint64 {
	seq := st.Latest(cmaf.Video)
	if seq == nil || media.Medium != cmaf.Video || media.Kind != cmaf.SegmentByTime {
		return 0
	}
	g := seq.At(media.Time)
	if g == nil {
		return 0
	}
	return t.Follow(g.Number) * st.Pictures()
}

// An offer is a rendition in a manifest.
type offer struct {
	st           *cmaf.Stream
	folder       string // where its visits are
	video, sound *cmaf.Sequence
}

// fill waits for the first part; sound may be missing.
func (o *offer) fill(ctx context.Context) (err error) {
	some := func(*cmaf.Sequence) bool { return true }
	if o.video, err = o.st.Wait(ctx, cmaf.Video, some); err != nil {
		return err
	}
	o.sound, err = o.st.Wait(ctx, cmaf.Sound, some)
	if errors.Is(err, cmaf.ErrNoSound) {
		return nil
	}
	return err
}

// state is different when a manifest has to be.
func (o *offer) state() string {
	var b strings.Builder
	for _, s := range []*cmaf.Sequence{o.video, o.sound} {
		if s != nil {
			last := cmp.Or(s.Next, s.Last())
			fmt.Fprintf(&b, "%v %d until %d, ", s.Medium, last.Number, last.Told.To)
		}
	}
	return b.String()
}

// A manifest is made once for all players.
type manifest struct {
	zero   time.Time
	clock  string // where it is
	past   bool   // timelines begin with a segment of long ago
	state  string
	breaks []time.Duration // where periods begin, on the media clock, in order
	pieces []string        // the visit's ID goes between them
}

// make writes the manifest anew.
func (m *manifest) make(offers []offer) {
	m.find(offers)
	m.pieces = strings.Split(m.text(offers, m.zero.Add(stream.Monotonic())), visitMark)
}

// find notes where headers change, and forgets what is no longer offered, save
// for the change that the oldest segments come after.
func (m *manifest) find(offers []offer) {
	oldest := segments(offers[0].video)[0].Told.From
	for _, o := range offers {
		oldest = min(oldest, segments(o.video)[0].Told.From)
		for _, s := range []*cmaf.Sequence{o.video, o.sound} {
			m.compare(s)
		}
	}
	for len(m.breaks) > 1 && m.breaks[1] <= oldest {
		m.breaks = m.breaks[1:]
	}
}

// compare notes where the header of a sequence changes; nil has none.
func (m *manifest) compare(s *cmaf.Sequence) {
	if s == nil {
		return
	}
	list := segments(s)
	for i := 1; i < len(list); i++ {
		at := list[i].Told.From
		if j, known := slices.BinarySearch(m.breaks, at); !known && list[i].Init.ID != list[i-1].Init.ID {
			m.breaks = slices.Insert(m.breaks, j, at)
		}
	}
}
