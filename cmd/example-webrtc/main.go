// Example-webrtc shows the box's camera in a browser, by pion/mediadevices and
// WebRTC: camera and microphone are what mediadevices lists, the box's encoder
// is what it codes with. See the README beside it.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/boards"
)

// options are the flags.
type options struct {
	board, addr        string
	width, height, fps int
	bitrate            int
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var o options
	flag.StringVar(&o.board, "board", "", "board; the device tree says by default, sim is made of software")
	flag.StringVar(&o.addr, "addr", "localhost:8081", "address of the page")
	flag.IntVar(&o.width, "width", 1280, "wanted width of the picture")
	flag.IntVar(&o.height, "height", 720, "wanted height of the picture")
	flag.IntVar(&o.fps, "fps", 30, "wanted pictures a second")
	flag.IntVar(&o.bitrate, "bitrate", 2_500_000, "of the picture, bit/s")
	flag.Parse()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := start(ctx, o, log); err != nil {
		fmt.Fprintln(os.Stderr, "example-webrtc:", err)
		os.Exit(1) //nolint:gocritic // stop only restores signals
	}
}

// start finds the board and opens the page's address.
func start(ctx context.Context, o options, log *slog.Logger) error {
	board, err := boards.Find(o.board, os.DirFS("/"), log)
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.addr)
	if err != nil {
		return err
	}
	log.Info("open the page", "url", "http://"+listener.Addr().String())
	return run(ctx, board, o, listener, log)
}

// run shows the board's camera on the page until ctx ends.
func run(ctx context.Context, board hw.Board, o options, listener net.Listener, log *slog.Logger) error {
	s, err := newStudio(board, o, log)
	if err != nil {
		return err
	}
	p, err := newPeers(s)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler(p, log), ReadHeaderTimeout: patience}
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { s.run(ctx) })
	running.Go(func() {
		<-ctx.Done()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		_ = server.Shutdown(ctx) // who has not asked until now gets no answer
	})
	if err = server.Serve(listener); errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	stop()
	running.Wait()
	return errors.Join(err, p.close())
}

// patience is for browsers that begin a request.
const patience = 5 * time.Second

//go:embed page.html
var page []byte

// handler serves the page, and takes the offers that it makes.
func handler(p *peers, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(page) // whoever left does not mind
	})
	mux.HandleFunc("POST /offer", func(w http.ResponseWriter, r *http.Request) {
		const longest = 64 << 10
		offer, err := io.ReadAll(http.MaxBytesReader(w, r.Body, longest))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer, err := p.answer(r.Context(), string(offer))
		if err != nil {
			log.Warn("cannot answer", "peer", r.RemoteAddr, "err", err)
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/sdp")
		_, _ = io.WriteString(w, answer) // the connection fails, then
	})
	return http.NewCrossOriginProtection().Handler(mux)
}
