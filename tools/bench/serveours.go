package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	_ "net/http/pprof" //nolint:gosec // G108: a program for developers, on loopback
	"sync"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/cmaf"
	"encoderd.example/stream/hls"
	"encoderd.example/stream/httplive"
	"encoderd.example/stream/rtmp"
	"encoderd.example/stream/rtsp"
)

// A doorway is where a server is reached.
type doorway struct {
	RTSP, RTMP, HTTP string
	Profile          string `json:",omitempty"` // net/http/pprof
}

// serveShow runs the product's servers, wired as the daemon wires them, on a
// show until ctx ends. It prints its doorway.
func serveShow(ctx context.Context, file string, out io.Writer) error {
	s, err := readShow(file)
	if err != nil {
		return err
	}
	return s.serve(ctx, out)
}

func (s *show) serve(ctx context.Context, out io.Writer) (err error) {
	var lns [4]net.Listener
	for i := range lns {
		if lns[i], err = new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
			return fmt.Errorf("listen: %w", err)
		}
	}
	r := s.rendition()
	w := &wiring{r: r, find: func(string) *stream.Rendition { return r }, names: func() []string { return []string{r.Name} }}
	w.segments = &cmaf.Segmenter{}
	w.hls = &hls.Server{Find: w.find, Names: w.names, Segments: w.segments, Audience: &w.audience}
	ctx, end := context.WithCancel(ctx)
	defer end()
	err = json.NewEncoder(out).Encode(doorway{
		RTSP: lns[0].Addr().String(), RTMP: lns[1].Addr().String(), HTTP: lns[2].Addr().String(), Profile: lns[3].Addr().String(),
	})
	if err != nil {
		return err
	}
	return w.run(ctx, end, s, lns)
}

// wiring is what daemon/live.go and daemon/services.go wire.
type wiring struct {
	r        *stream.Rendition
	find     func(string) *stream.Rendition
	names    func() []string
	audience stream.Audience
	segments *cmaf.Segmenter
	hls      *hls.Server
}

// viewers is how many the servers let in, all from one address here.
const viewers = 10_000

func (w *wiring) run(ctx context.Context, end context.CancelFunc, s *show, lns [4]net.Listener) error {
	overRTSP := rtsp.Server{Listener: lns[0], Find: w.find, Audience: &w.audience, MaxConns: viewers, MaxConnsPerIP: viewers}
	overRTMP := rtmp.Server{Listener: lns[1], Find: w.find, Audience: &w.audience, MaxConns: viewers, MaxConnsPerIP: viewers}
	endless := httplive.Server{Find: w.find, Audience: &w.audience, MaxReaders: viewers, MaxReadersPerIP: viewers}
	mux, lists := http.NewServeMux(), w.hls.Handler()
	mux.Handle("/live/index.m3u8", lists)
	mux.Handle("/live/{name}/{file}", lists)
	mux.Handle("/live/{name}/hls/", lists)
	mux.Handle("/live/{file}", endless.Handler())
	parts := []func(context.Context) error{
		overRTSP.Run, overRTMP.Run, w.segments.Run, w.hls.Run,
		func(ctx context.Context) error { return serveHTTP(ctx, lns[2], mux) },
		func(ctx context.Context) error { return serveHTTP(ctx, lns[3], http.DefaultServeMux) },
		func(ctx context.Context) error { s.play(ctx, w.r); return nil },
	}
	errs := make([]error, len(parts))
	var running sync.WaitGroup
	for i, part := range parts {
		running.Go(func() {
			defer end()
			errs[i] = part(ctx)
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

func serveHTTP(ctx context.Context, ln net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ConnContext: stream.WithCork,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("http: %w", err)
	}
	return nil
}
