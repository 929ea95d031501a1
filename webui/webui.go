// Package webui shows the box to people and programs over HTTP: one page, the
// API behind it, metrics and health.
//
//	request ─► guard ─────────────► mux ─► handler ─► Box
//	           Host, Origin,         │
//	           headers, read-only    └─► page (embedded files)
//
// Everything shown is a function of the one status value that [Box] hands out;
// the package keeps no state of the box. The same handler serves two places:
// over TCP it is read-only, as there is no login yet; on the control socket,
// which only local users with the right to it can open, actions work.
package webui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/stream"
)

// Box is what the pages need from the running daemon. All methods may be
// called from any goroutine. Errors hold no secrets: people read them.
type Box interface {
	// Status returns the state and its version, Wait the first one newer than
	// version seen.
	Status() (status.Box, uint64)
	Wait(ctx context.Context, seen uint64) (status.Box, uint64, error)
	// Link returns a token that opens a rendition to players for so long, and
	// when it ends. It fails with ErrUnknown if there is no such rendition, and
	// with ErrArguments if there can be no such link.
	Link(rendition string, length time.Duration) (token string, until time.Time, err error)
	// WriteUsage writes the daily report of who watched, as CSV.
	WriteUsage(w io.Writer) error
	// Actions lists what Do can do.
	Actions() []ActionInfo
	// Do carries out an action in the name of by. It fails with ErrUnknown if
	// there is no such action and with ErrArguments if args do not fit.
	Do(ctx context.Context, action string, args map[string]string, by string) error
	// Healthy returns nil while every part of the box makes progress, else
	// the reasons, joined.
	Healthy() error
}

// Errors that a Box wraps, so that they get the right HTTP status.
var (
	ErrUnknown   = errors.New("not known")
	ErrArguments = errors.New("wrong arguments")
)

// ActionInfo describes one action.
type ActionInfo struct {
	Name string   `json:"name"` // "output.start"
	Text string   `json:"text"` // what it does, for people
	Args []string `json:"args"` // names of its arguments
}

// Options are what a handler needs.
type Options struct {
	Box Box
	Log *slog.Logger
	// Hosts are names under which browsers may ask for the box, beside IP
	// addresses, localhost and *.local: its host name and what [serve] hosts
	// lists.
	Hosts []string
	// Live, if set, answers everything below /live/: pictures for players, which
	// pages of other sites may show, too. It says who may watch.
	Live http.Handler
	// Local says that the handler is for the control socket: actions work, and
	// any Host is right.
	Local bool
}

// The limits of the server over TCP.
const (
	maxConns      = 4096 // players of HLS come by here, too
	maxConnsEach  = 1024 // from one IPv4 address or IPv6 /64: a venue's whole network may hide behind one
	maxHeader     = 16 << 10
	headerTimeout = 5 * time.Second
	readTimeout   = 15 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = 60 * time.Second
	// goodbye is how long requests may take to end at a stop.
	goodbye = 2 * time.Second
)

// A Server serves the page over TCP, read-only.
type Server struct {
	Options
	// Addr is where to listen, as HOST:PORT; Listener, if set, is used instead
	// and belongs to Run.
	Addr     string
	Listener net.Listener
	// Live, if set, is called once the server listens.
	Live func()
}

// Run serves until ctx ends, lets requests finish for at most 2 s, and returns
// nil; event streams end at once. It returns an error if it cannot listen or
// serve.
func (s *Server) Run(ctx context.Context) error {
	ln, err := s.listen(ctx)
	if err != nil {
		return fmt.Errorf("web page on %s: %w", s.Addr, err)
	}
	opts := s.Options
	opts.Local = false
	door := stream.Gate{Limits: stream.Limits{Total: maxConns, Each: maxConnsEach}, Fair: true}
	return Serve(ctx, door.Listener(ln), opts, s.Live)
}

func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	if s.Listener != nil {
		return s.Listener, nil
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", s.Addr)
}

// Serve serves opts on ln, which it closes, until ctx ends. It is Run for a
// listener of any kind, such as the control socket. live may be nil.
func Serve(ctx context.Context, ln net.Listener, opts Options, live func()) error {
	// Requests see the end of ctx as their own, so that event streams end.
	requests, endRequests := context.WithCancel(context.WithoutCancel(ctx))
	defer endRequests()
	srv := &http.Server{
		Handler:           seated(Handler(opts)),
		BaseContext:       func(net.Listener) context.Context { return requests },
		ConnContext:       withPlace,
		ErrorLog:          slog.NewLogLogger(opts.Log.Handler(), slog.LevelDebug),
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	if live != nil {
		live()
	}
	select {
	case err := <-served:
		return errors.Join(fmt.Errorf("web page: %w", err), srv.Close())
	case <-ctx.Done():
	}
	endRequests()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
	defer cancel()
	if srv.Shutdown(stop) != nil {
		_ = srv.Close() // cuts off who is too slow; nothing is left to do about an error
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("web page: %w", err)
	}
	return nil
}

// Handler returns the page and everything behind it.
func Handler(opts Options) http.Handler {
	a := &api{
		Options: opts,
		streams: stream.Gate{Limits: stream.Limits{Total: maxStreams, Each: maxStreamsEach}},
	}
	mux := http.NewServeMux()
	for _, r := range a.routes() {
		mux.Handle(r.pattern, r.handler)
	}
	return guard(opts, mux)
}

// A route is one line of the API; openapi.yaml describes the same ones.
type route struct {
	pattern string
	handler http.Handler
}

func (a *api) routes() []route {
	return []route{
		{"GET /healthz", http.HandlerFunc(a.health)},
		{"GET /metrics", metrics(a.Box)},
		{"GET /api/openapi.yaml", asset("openapi.yaml", "application/yaml")},
		{"GET /api/v1/status", http.HandlerFunc(a.status)},
		{"GET /api/v1/events", http.HandlerFunc(a.events)},
		{"GET /api/v1/actions", http.HandlerFunc(a.actions)},
		{"POST /api/v1/actions/{name}", http.HandlerFunc(a.act)},
		{"POST /api/v1/links", http.HandlerFunc(a.link)},
		{"GET /api/v1/usage.csv", http.HandlerFunc(a.usage)},
		{livePath, a.live()},
		{"GET /{$}", asset("page/index.html", "text/html; charset=utf-8")},
		{"GET /page/style.css", asset("page/style.css", "text/css; charset=utf-8")},
		{"GET /page/page.js", asset("page/page.js", "text/javascript; charset=utf-8")},
		{"GET /page/icon.svg", asset("page/icon.svg", "image/svg+xml")},
		{"/", http.HandlerFunc(notFound)},
	}
}
