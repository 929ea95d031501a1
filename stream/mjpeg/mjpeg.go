// Package mjpeg serves renditions as JPEG: one picture, or one after the other
// in an endless multipart answer, which every browser shows in an <img>.
//
//	/live/NAME.jpg      the latest picture
//	/live/NAME.mjpeg    multipart/x-mixed-replace
//
// Pictures are made while somebody looks, once for all who do, and nobody is
// sent the same one twice.
package mjpeg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/visit"
)

// Defaults of a [Server]'s fields, and its limits.
const (
	DefaultEvery = 200 * time.Millisecond
	// fresh is how long one picture serves all that ask for a single one: a page
	// asks once a second, and coding takes the processor's time from the show.
	fresh     = 500 * time.Millisecond
	shootTime = 5 * time.Second
	writeTime = 10 * time.Second
	maxNames  = 64 // renditions that have a camera at a time
	boundary  = "picture"
)

// A Server serves JPEG. Set its fields before use and leave them alone from
// then on.
type Server struct {
	// Find returns the rendition of a name, nil if there is none. It is called
	// from many goroutines and must not block.
	Find func(name string) *stream.Rendition
	// Shoot returns the latest picture of a rendition, which is last if there
	// is no newer one. Its error is for people.
	Shoot func(ctx context.Context, name string, last Picture) (Picture, error)
	// Audience, if set, lists who looks at moving pictures and says who may look
	// at any.
	Audience *stream.Audience
	// Log takes who came and went; nil means nobody cares.
	Log *slog.Logger
	// Every is the time from one picture to the next; zero means 200 ms.
	Every time.Duration

	mu      sync.Mutex
	cameras map[string]*camera
}

// A Picture is one still, which nobody changes. The zero Picture is none.
type Picture struct {
	JPEG []byte
	// Stamp is the CLOCK_MONOTONIC time at which it was taken. Pictures of one
	// rendition with one stamp are the same.
	Stamp time.Duration
}

// A camera takes the pictures of one rendition, one at a time.
type camera struct {
	server *Server
	name   string
	users  int // guarded by Server.mu

	busy    chan struct{} // holds one while a picture is taken or looked up
	picture Picture       // the latest
	asked   time.Time     // when it was found to be that
}

// Handler returns the handler of the addresses above. It answers other paths
// by 404 and other methods by 405, save for OPTIONS ([visit.Preflight]). HEAD
// of moving pictures takes none and joins no audience. An endless answer ends with its request's
// context.
func (s *Server) Handler() http.Handler { return visit.Preflight(http.HandlerFunc(s.serve)) }

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	name, moving, ok := target(r.URL.Path)
	if !ok || s.Find(name) == nil {
		visit.Fail(w, http.StatusNotFound, "no such picture: the renditions are listed at /api/v1/status")
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", visit.Methods)
		visit.Fail(w, http.StatusMethodNotAllowed, "use GET")
		return
	}
	if err := s.allow(r, name); err != nil {
		visit.Refuse(w, r, err)
		return
	}
	if moving && r.Method == http.MethodHead {
		describe(w.Header())
		return
	}
	c, leave, err := s.camera(name)
	if err != nil {
		visit.Refuse(w, r, err)
		return
	}
	defer leave()
	if moving {
		s.film(w, r, c)
	} else {
		s.still(w, r, c)
	}
}

// target returns the rendition that a path names.
func target(path string) (name string, moving, ok bool) {
	file, ok := strings.CutPrefix(path, "/live/")
	if !ok || strings.Contains(file, "/") {
		return "", false, false
	}
	if name, ok = strings.CutSuffix(file, ".jpg"); ok {
		return name, false, true
	}
	name, ok = strings.CutSuffix(file, ".mjpeg")
	return name, true, ok
}

func (s *Server) allow(r *http.Request, name string) error {
	return s.Audience.Allow(r.RemoteAddr, name, visit.Credentials(r))
}

// camera returns the camera of a rendition until leave is called.
func (s *Server) camera(name string) (c *camera, leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c = s.cameras[name]; c == nil {
		if len(s.cameras) >= maxNames {
			return nil, nil, stream.ErrFull
		}
		if s.cameras == nil {
			s.cameras = make(map[string]*camera)
		}
		c = &camera{server: s, name: name, busy: make(chan struct{}, 1)}
		s.cameras[name] = c
	}
	c.users++
	return c, func() { s.leave(c) }, nil
}

// leave forgets a camera that nobody uses and whose picture is too old to
// serve again.
func (s *Server) leave(c *camera) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.users--
	for name, o := range s.cameras {
		if o.users == 0 && (o != c || s.Find(name) == nil) {
			delete(s.cameras, name)
		}
	}
}

// shoot returns the picture that was the latest at most age ago, and when it
// was.
func (c *camera) shoot(ctx context.Context, age time.Duration) (Picture, time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, shootTime)
	defer cancel()
	select {
	case c.busy <- struct{}{}:
		defer func() { <-c.busy }()
	case <-ctx.Done():
		return Picture{}, time.Time{}, context.Cause(ctx)
	}
	if c.picture.JPEG != nil && time.Since(c.asked) < age {
		return c.picture, c.asked, nil
	}
	p, err := c.server.Shoot(ctx, c.name, c.picture)
	if err != nil {
		c.picture = Picture{}
		return Picture{}, time.Time{}, err
	}
	c.picture, c.asked = p, time.Now()
	return c.picture, c.asked, nil
}

// next returns the first picture after last, which was asked for at a time,
// not earlier than every after that.
func (c *camera) next(ctx context.Context, last Picture, asked time.Time, every time.Duration) (Picture, time.Time, error) {
	for {
		if !stream.Rest(ctx, time.Until(asked.Add(every))) {
			return Picture{}, time.Time{}, context.Cause(ctx)
		}
		p, at, err := c.shoot(ctx, every)
		if err != nil {
			return Picture{}, time.Time{}, err
		}
		if p.Stamp > last.Stamp {
			return p, at, nil
		}
		asked = at
	}
}

func (s *Server) still(w http.ResponseWriter, r *http.Request, c *camera) {
	p, _, err := c.shoot(r.Context(), fresh)
	if err != nil {
		none(w, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "image/jpeg")
	h.Set("Cache-Control", "no-store")
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Content-Length", strconv.Itoa(len(p.JPEG)))
	_, _ = w.Write(p.JPEG) // fails only if the client has gone
}

// none answers that there is no picture.
func none(w http.ResponseWriter, err error) {
	w.Header().Set("Retry-After", "1")
	visit.Fail(w, http.StatusServiceUnavailable, err.Error())
}

// film writes pictures until the viewer goes.
func (s *Server) film(w http.ResponseWriter, r *http.Request, c *camera) {
	viewer := &stream.Viewer{Protocol: "mjpeg", Rendition: c.name, Peer: r.RemoteAddr, Since: time.Now()}
	leave, err := s.Audience.Admit(viewer, visit.Credentials(r))
	if err != nil {
		visit.Refuse(w, r, err)
		return
	}
	defer leave()
	every := s.Every
	if every == 0 {
		every = DefaultEvery
	}
	p, asked, err := c.shoot(r.Context(), every)
	if err != nil {
		none(w, err)
		return
	}
	describe(w.Header())
	control := http.NewResponseController(w)
	if _, err := w.Write([]byte("--" + boundary + "\r\n")); err != nil {
		return
	}
	for {
		if err := write(w, control, p.JPEG); err != nil {
			s.note(r, viewer, err)
			return
		}
		viewer.Bytes.Add(uint64(len(p.JPEG)))
		if p, asked, err = c.next(r.Context(), p, asked, every); err != nil {
			s.note(r, viewer, err)
			return
		}
	}
}

// describe sets what goes with moving pictures.
func describe(h http.Header) {
	h.Set("Content-Type", "multipart/x-mixed-replace; boundary="+boundary)
	h.Set("Cache-Control", "no-store")
	h.Set("Access-Control-Allow-Origin", "*")
}

func (s *Server) note(r *http.Request, v *stream.Viewer, err error) {
	if s.Log != nil && r.Context().Err() == nil {
		s.Log.Debug("mjpeg viewer gone", "peer", v.Peer, "rendition", v.Rendition, "err", err)
	}
}

// write writes one part (RFC 2046, 5.1). The boundary of the next one goes out
// with it: browsers show a picture when they see its end.
func write(w http.ResponseWriter, control *http.ResponseController, jpeg []byte) error {
	if err := control.SetWriteDeadline(time.Now().Add(writeTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := io.WriteString(w, "Content-Type: image/jpeg\r\nContent-Length: "+strconv.Itoa(len(jpeg))+"\r\n\r\n"); err != nil {
		return err
	}
	if _, err := w.Write(jpeg); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "\r\n--%s\r\n", boundary); err != nil {
		return err
	}
	return control.Flush()
}
