package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"encoderd.example/daemon/config"
	"encoderd.example/stream"
	"encoderd.example/stream/access"
	"encoderd.example/stream/cmaf"
	"encoderd.example/stream/dash"
	"encoderd.example/stream/hls"
	"encoderd.example/stream/httplive"
	"encoderd.example/stream/mjpeg"
	"encoderd.example/stream/visit"
	"encoderd.example/stream/webrtc"
)

// A site is everything that is served below /live/ by HTTP.
type site struct {
	segments cmaf.Segmenter
	hls      hls.Server
	dash     dash.Server
	mux      *http.ServeMux
}

// newSite makes a site of the daemon's renditions.
func (d *Daemon) newSite() *site {
	log := func(protocol string) *slog.Logger { return d.Log.With("service", protocol) }
	s := &site{segments: cmaf.Segmenter{Log: log("segments")}, mux: http.NewServeMux()}
	s.hls = hls.Server{Find: d.Rendition, Names: d.names, Segments: &s.segments, Audience: &d.audience, Log: log("hls")}
	s.dash = dash.Server{Find: d.Rendition, Names: d.names, Segments: &s.segments, Audience: &d.audience, Log: log("dash")}
	endless := (&httplive.Server{
		Find: d.Rendition, Audience: &d.audience, Log: log("http"), MaxReaders: maxCallers, MaxReadersPerIP: maxCallersEach,
	}).Handler()
	stills := (&mjpeg.Server{Find: d.Rendition, Shoot: d.Snapshot, Audience: &d.audience, Log: log("mjpeg")}).Handler()

	lists, manifests := s.hls.Handler(), s.dash.Handler()
	s.mux.Handle("/live/index.m3u8", lists)
	s.mux.Handle("/live/{name}/{file}", lists)
	s.mux.Handle("/live/{name}/hls/", lists)
	s.mux.Handle("/live/manifest.mpd", manifests)
	s.mux.Handle("/live/time", manifests)
	s.mux.Handle("/live/{name}/manifest.mpd", manifests)
	s.mux.Handle("/live/{name}/dash/", manifests)
	s.mux.Handle("/live/{name}/whep", http.HandlerFunc(d.serveWHEP))
	s.mux.Handle("/live/{name}/whep/{id}", http.HandlerFunc(d.serveWHEP))
	s.mux.HandleFunc("/live/{file}", func(w http.ResponseWriter, r *http.Request) {
		switch path.Ext(r.URL.Path) {
		case ".jpg", ".mjpeg":
			stills.ServeHTTP(w, r)
		default:
			endless.ServeHTTP(w, r)
		}
	})
	return s
}

// run looks after what the site has made until ctx ends.
func (s *site) run(ctx context.Context) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	parts := []func(context.Context) error{s.segments.Run, s.hls.Run, s.dash.Run}
	errs := make([]error, len(parts))
	var running sync.WaitGroup
	for i, run := range parts {
		running.Go(func() {
			defer end()
			errs[i] = run(ctx)
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

// ServeLive answers everything below /live/: what players fetch by HTTP.
func (d *Daemon) ServeLive(w http.ResponseWriter, r *http.Request) {
	s := d.site.Load()
	if s == nil {
		w.Header().Set("Retry-After", "1")
		visit.Fail(w, http.StatusServiceUnavailable, "the box is starting")
		return
	}
	s.mux.ServeHTTP(w, r)
}

// serveLive keeps a site while the page's server runs.
func (d *Daemon) serveLive(liveConfig) run {
	return func(ctx context.Context, live func()) error {
		s := d.newSite()
		d.site.Store(s)
		defer d.site.Store(nil)
		live()
		return s.run(ctx)
	}
}

func (d *Daemon) serveWHEP(w http.ResponseWriter, r *http.Request) {
	s := d.browsers.Load()
	if s == nil {
		visit.Fail(w, http.StatusNotFound, `WebRTC is off: write webrtc = ":8189" under [serve] in the config`)
		return
	}
	s.ServeHTTP(w, r)
}

// serveWebRTC serves browsers; the requests come by the page's server.
func (d *Daemon) serveWebRTC(c webrtcConfig) run {
	return func(ctx context.Context, live func()) error {
		s := &webrtc.Server{
			Addr: c.Addr, Live: live, Hosts: strings.Fields(c.Public), Loopback: true, Find: d.browserRendition, Audience: &d.audience,
			MaxVisitors: maxCallers, MaxVisitorsPerIP: maxCallersEach, Log: d.Log.With("service", "webrtc"),
		}
		d.browsers.Store(s)
		defer d.browsers.Store(nil)
		return portRemedy(s.Run(ctx))
	}
}

// names lists the renditions as the config does, the main one first.
func (d *Daemon) names() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	for _, r := range d.config.Renditions {
		names = append(names, r.Name)
	}
	return names
}

// browserRendition returns what browsers get of a rendition: its picture with
// Opus, which is coded while they are there. Where there is no Opus it is
// silent.
func (d *Daemon) browserRendition(name string) *stream.Rendition {
	r := d.Rendition(name)
	d.mu.Lock()
	c, _ := d.config.Rendition(name)
	sound := d.config.Audio.Source != "none"
	d.mu.Unlock()
	if r == nil || !sound || !d.opus.wanted() {
		return r
	}
	return r.Branch(codecs[c.Codec], stream.Opus)
}

// turnDoor turns the config's words about viewers into rules.
func (d *Daemon) turnDoor(c config.Config) {
	rule := func(mode string) access.Rule {
		return access.Rule{Mode: access.Mode(mode), User: c.Watch.User, Password: c.Watch.Password.Reveal()}
	}
	rules := &access.Rules{Default: rule(c.Watch.Access), By: map[string]access.Rule{}, Key: d.LinkKey}
	for _, r := range c.Renditions {
		rules.By[r.Name] = rule(cmp.Or(r.Access, c.Watch.Access))
	}
	d.audience.SetDoor(rules, stream.Limits{Total: c.Watch.Readers, Each: c.Watch.ReadersPerAddress})
	d.rules.Store(rules)
}

// Link returns a token that opens a rendition, or every one if the name is
// [access.All], for so long.
func (d *Daemon) Link(rendition string, length time.Duration) (token string, until time.Time, err error) {
	if rendition != access.All && d.Rendition(rendition) == nil {
		return "", time.Time{}, fmt.Errorf("%q: %w", rendition, ErrNoRendition)
	}
	if length <= 0 || length > maxLink {
		return "", time.Time{}, fmt.Errorf("%w: a link lasts from a second to %d days", ErrBadArgument, int(maxLink.Hours()/24))
	}
	until = time.Now().Add(length).Truncate(time.Second)
	token, err = d.rules.Load().Sign(rendition, until)
	return token, until, err
}

const maxLink = 366 * 24 * time.Hour
