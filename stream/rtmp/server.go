package rtmp

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"encoderd.example/stream"
)

// Defaults of a [Server]'s fields.
const (
	DefaultPort          = 1935
	DefaultMaxConns      = 512
	DefaultMaxConnsPerIP = 64
	maxWaiting           = 512 // connections that do not play yet

	arrivalTime  = 15 * time.Second // from the connection to the first play
	idleTime     = time.Minute      // for a message, while nothing plays
	trackTime    = 5 * time.Second  // for a rendition's first picture and sound
	farewellTime = time.Second
)

// A Server serves renditions to RTMP players under rtmp://HOST/live/NAME. Set
// its fields before Run and leave them alone from then on.
//
//	Rendition ─► lane ─┬─► player: one Muxer ─► one send per unit
//	                   ├─► player: …
//	                   └─► …
//
// Players share the message of a unit but for its time: each has its own clock,
// which begins at 0 with the key picture that it starts on, and its own place
// in the rendition's ring. One that falls behind loses whole groups of
// pictures; one that sleeps stays for minutes, and one whose
// host does not answer for ten seconds is dropped; see [stream.Line].
type Server struct {
	// Addr is where Run listens, ":1935" if empty. Unused with a Listener.
	Addr string
	// Listener, if set, is a TCP listener where Run accepts; Run closes it.
	Listener net.Listener
	// TLS, if set, makes the server speak RTMPS.
	TLS *tls.Config
	// Find returns the rendition of a name, nil if there is none. It is called
	// from many goroutines and must not block.
	Find func(name string) *stream.Rendition
	// Audience, if set, says who may play, and lists who does. Players show
	// ?token= or ?user=&password= after the name of the rendition.
	Audience *stream.Audience
	// Log takes who came and went; nil means nobody cares.
	Log *slog.Logger

	MaxConns      int // connections in all; zero means 512
	MaxConnsPerIP int // per IPv4 address or IPv6 /64; zero means 64

	limits limits // tests shorten them
}

// limits are the times after which patience ends.
type limits struct {
	arrival, idle, tracks, write time.Duration
}

func (l limits) withDefaults() limits {
	return limits{
		arrival: cmp.Or(l.arrival, arrivalTime),
		idle:    cmp.Or(l.idle, idleTime),
		tracks:  cmp.Or(l.tracks, trackTime),
		write:   cmp.Or(l.write, patience),
	}
}

// service is one run of a Server.
type service struct {
	*Server
	log     *slog.Logger
	limits  limits
	players sync.WaitGroup
	fan     stream.Fanout[*stream.Unit]
}

// Run serves until ctx ends, then says goodbye to every player, waits for all
// its goroutines and returns nil. It returns an error if it cannot listen.
func (s *Server) Run(ctx context.Context) error {
	ln, err := s.listen(ctx)
	if err != nil {
		return err
	}
	sv := &service{Server: s, log: cmp.Or(s.Log, slog.New(slog.DiscardHandler)), limits: s.limits.withDefaults()}
	sv.fan.At = func(u *stream.Unit) time.Duration { return u.DTS }
	gate := stream.Gate{Limits: stream.Limits{
		Total: cmp.Or(s.MaxConns, DefaultMaxConns),
		Each:  cmp.Or(s.MaxConnsPerIP, DefaultMaxConnsPerIP),
	}, Waiting: maxWaiting, Fair: true}
	sv.log.Info("rtmp server listens", "addr", ln.Addr().String(), "tls", s.TLS != nil)
	err = gate.Accept(ctx, ln, sv.log, sv.serve)
	sv.players.Wait()
	if err != nil {
		return fmt.Errorf("rtmp: %w", err)
	}
	return nil
}

func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	if s.Listener != nil {
		return s.Listener, nil
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", cmp.Or(s.Addr, fmt.Sprintf(":%d", DefaultPort)))
	if err != nil {
		return nil, fmt.Errorf("rtmp: %w", err)
	}
	return ln, nil
}
