// Package httplive serves renditions by endless answers to one HTTP request:
// FLV, MPEG-TS and fragmented MP4, and FLV over WebSocket too.
//
//	           ┌──────────────────────────────────► lane ─┬─► flv.Muxer ─► reader: one write per unit
//	Rendition ─┤                                          └─► …
//	           ├─► feed: ts.Muxer ──► Ring[*chunk] ─► lane ─┬─► reader: one write per unit
//	           └─► feed: fMP4 ──────► …                     └─► …
//	               (each runs only while somebody reads)
//
// Readers of FLV have a clock each, which begins at 0; those of the other forms
// share what is made once for all. Media is never copied for a reader, except
// by TLS and WebSocket; FLV is copied once for all of a lane. A reader that falls behind loses whole groups of
// pictures and goes on at a key picture; one that sleeps stays for minutes, and
// one whose host does not answer for ten seconds is dropped: see [stream.Line].
// Over WebSocket and HTTP/2 both have ten seconds.
package httplive

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/cmaf"
	"encoderd.example/stream/visit"
)

// Defaults of a [Server]'s fields.
const (
	DefaultMaxReaders      = 512
	DefaultMaxReadersPerIP = 64

	trackTime    = 5 * time.Second  // for a rendition's first picture and sound
	writeTimeout = 10 * time.Second // for one unit
	goodbyeTime  = time.Second
)

// prefix is the folder of every address.
const prefix = "/live/"

// A Server serves /live/NAME.flv, .ts and .mp4; ?tracks=video leaves the sound
// out. Set its fields before Handler and leave them alone
// from then on.
type Server struct {
	// Find returns the rendition of a name, nil if there is none. It is called
	// from many goroutines and must not block.
	Find func(name string) *stream.Rendition
	// Audience, if set, says who may read, and lists who does. Readers show
	// ?token= or a password by HTTP Basic.
	Audience *stream.Audience
	// Log takes who came and went; nil means nobody cares. No query is logged.
	Log *slog.Logger

	MaxReaders      int // in all; zero means 512
	MaxReadersPerIP int // per IPv4 address or IPv6 /64; zero means 64

	limits limits // tests shorten them
}

type limits struct{ tracks, write time.Duration }

// site is a Server at work.
type site struct {
	*Server
	log    *slog.Logger
	gate   stream.Gate
	feeds  feeds
	units  stream.Fanout[*stream.Unit]
	chunks stream.Fanout[*chunk]
	write  time.Duration
}

// Handler returns the handler of all addresses; call it once. It takes HTTP/1.1
// connections over from the server that calls it. An answer ends with its
// request's context, so that an [http.Server] has to be given a BaseContext
// that ends; nothing of this package outlives the handler's calls.
func (s *Server) Handler() http.Handler { return visit.Preflight(s.site()) }

func (s *Server) site() *site {
	return &site{
		Server: s,
		log:    cmp.Or(s.Log, slog.New(slog.DiscardHandler)),
		gate: stream.Gate{Limits: stream.Limits{
			Total: cmp.Or(s.MaxReaders, DefaultMaxReaders),
			Each:  cmp.Or(s.MaxReadersPerIP, DefaultMaxReadersPerIP),
		}},
		units:  stream.Fanout[*stream.Unit]{At: func(u *stream.Unit) time.Duration { return u.DTS }},
		chunks: stream.Fanout[*chunk]{At: func(c *chunk) time.Duration { return c.dts }},
		write:  cmp.Or(s.limits.write, writeTimeout),
	}
}

// A form is one way to write a rendition.
type form struct {
	protocol string // of viewers
	mime     string
	// begin says whether tracks can be written in this form, and what players
	// have to know of them beside the MIME type.
	begin func(tracks []*stream.Track) (parameters string, err error)
	read  func(*site, context.Context, *reading, link) error
}

// forms are what is served, by the ending of the address.
var forms = map[string]form{
	"flv": {"http-flv", "video/x-flv", beginTags, (*site).readTags},
	"ts":  {"http-ts", "video/mp2t", beginPackets, (*site).readPackets},
	"mp4": {"http-mp4", "video/mp4", beginFragments, (*site).readFragments},
}

// A reading is one request that is let in.
type reading struct {
	src    *stream.Rendition
	tracks []*stream.Track // that are sent: the picture first
	viewer *stream.Viewer
}

// ServeHTTP answers one request; it returns when the reader has left.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, ending, ok := cut(r.URL.Path)
	f, known := forms[ending]
	if !ok || !known {
		visit.Fail(w, http.StatusNotFound, "there is no such picture")
		return
	}
	src := s.Find(name)
	switch {
	case src == nil:
		visit.Fail(w, http.StatusNotFound, "there is no such picture")
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", visit.Methods)
		visit.Fail(w, http.StatusMethodNotAllowed, "only GET and HEAD")
	case r.Method == http.MethodHead:
		s.head(w, r, src, f)
	default:
		s.get(w, r, src, f)
	}
}

// cut takes /live/NAME.ENDING apart.
func cut(path string) (name, ending string, ok bool) {
	file, ok := strings.CutPrefix(path, prefix)
	dot := strings.LastIndexByte(file, '.')
	if !ok || dot < 1 || strings.Contains(file, "/") {
		return "", "", false
	}
	return file[:dot], file[dot+1:], true
}

// head answers as GET would, without a picture and without joining.
func (s *site) head(w http.ResponseWriter, r *http.Request, src *stream.Rendition, f form) {
	if err := s.Audience.Allow(r.RemoteAddr, src.Name, credentials(r)); err != nil {
		visit.Refuse(w, r, err)
		return
	}
	describe(w.Header(), f)
	w.WriteHeader(http.StatusOK)
}

func (s *site) get(w http.ResponseWriter, r *http.Request, src *stream.Rendition, f form) {
	leaveGate, ok := s.gate.Enter(r.RemoteAddr)
	if !ok {
		visit.Refuse(w, r, stream.ErrFull)
		return
	}
	defer leaveGate()
	rd := &reading{src: src, viewer: &stream.Viewer{Protocol: f.protocol, Rendition: src.Name, Peer: r.RemoteAddr, Since: time.Now()}}
	if upgrades(r) {
		rd.viewer.Protocol = "ws-flv"
	}
	leave, err := s.Audience.Admit(rd.viewer, credentials(r))
	if err != nil {
		s.log.Debug("http reader refused", "peer", r.RemoteAddr, "rendition", src.Name, "err", err)
		visit.Refuse(w, r, err)
		return
	}
	defer leave()
	if rd.tracks, err = s.tracks(r, src); err != nil {
		w.Header().Set("Retry-After", "5")
		visit.Fail(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	parameters, err := f.begin(rd.tracks)
	if err != nil {
		visit.Fail(w, http.StatusNotAcceptable, err.Error())
		return
	}
	f.mime += parameters
	s.stream(w, r, rd, f)
}

// stream sends until the reader leaves, the rendition ends or the request's
// context does.
func (s *site) stream(w http.ResponseWriter, r *http.Request, rd *reading, f form) {
	describe(w.Header(), f)
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	l, err := s.open(ctx, w, r, rd, f, func() { cancel(errLeft) })
	if err == nil {
		if err = f.read(s, ctx, rd, l); errors.Is(err, stream.ErrClosed) {
			err = errEnded
		}
		l.close(err)
	}
	s.log.Debug("http reader left", "peer", r.RemoteAddr, "rendition", rd.src.Name, "protocol", rd.viewer.Protocol, "reason", err)
}

var errNotBegun = errors.New("the picture has not begun yet: try again")

// tracks waits for them and chooses: the picture and one sound.
func (s *site) tracks(r *http.Request, src *stream.Rendition) ([]*stream.Track, error) {
	ctx, cancel := context.WithTimeout(r.Context(), cmp.Or(s.limits.tracks, trackTime))
	defer cancel()
	all, err := src.Wait(ctx)
	if err != nil {
		return nil, errNotBegun
	}
	video, sound := cmaf.Pick(all)
	switch {
	case video == nil:
		return nil, errors.New("this rendition has no picture")
	case sound == nil || r.URL.Query().Get("tracks") == "video":
		return []*stream.Track{video}, nil
	default:
		return []*stream.Track{video, sound}, nil
	}
}

// credentials are what the request shows. A password that a browser adds by
// itself does not count when a page of another site opens a WebSocket, whose
// answer, other than that to a fetch, the page could read.
func credentials(r *http.Request) stream.Credentials {
	c := visit.Credentials(r)
	if origin := r.Header.Get("Origin"); origin != "" && upgrades(r) {
		if u, err := url.Parse(origin); err != nil || !strings.EqualFold(u.Host, r.Host) {
			c.User, c.Password = "", ""
		}
	}
	return c
}

// describe sets what goes with a picture.
func describe(h http.Header, f form) {
	h.Set("Content-Type", f.mime)
	h.Set("Cache-Control", "no-store")
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Accel-Buffering", "no") // proxies that know it pass each unit on at once
}

var errEnded = errors.New("the stream ended")
