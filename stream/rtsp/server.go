// Package rtsp serves renditions to RTSP 1.0 players (RFC 2326), over TCP
// interleaved and over UDP unicast.
//
//	Rendition ─► feed: one Packetizer ─► Ring[*rtp.Batch] ─► lane ─┬─► player ─► TCP: one send
//	             (runs only while somebody watches)                ├─► player ─► UDP: one sendmmsg
//	                                                               └─► …
//
// A connection carries at most one session, and the session ends with it: a
// session id is worth nothing on another connection. Each connection has one
// goroutine that reads requests and, while it plays, one that waits for a lane
// of [stream.Fanout] to write media; responses and batches go out whole, by turns.
//
//	         SETUP          PLAY
//	init ───────────► ready ─────► playing
//	  ▲    TEARDOWN     │  ▲ PAUSE    │
//	  └─────────────────┴──┴──────────┘
//
// Batches are immutable and shared; a player keeps none beyond its write. One
// that falls behind the ring goes on at a key batch; see [stream.Ring].
package rtsp

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/rtp"
)

// Defaults of a [Server]'s fields.
const (
	DefaultPort                = 8554
	DefaultUDPPort             = 8000
	DefaultMaxConns            = 512
	DefaultMaxConnsPerIP       = 64
	maxWaiting                 = 512 // connections that do not play yet
	sessionTimeout             = 60 * time.Second
	firstRequestTimeout        = 10 * time.Second
	requestTimeout             = 10 * time.Second
	writeTimeout               = 10 * time.Second
	trackTimeout               = 5 * time.Second
	firstBatchTimeout          = 500 * time.Millisecond
	goodbyeTimeout             = time.Second
	goodbyeDelay               = 100 * time.Millisecond
	paceRate             int64 = 50_000_000 / 8
	paceBurst                  = 64 << 10
	multicastTTL               = 1 // as the kernel has it
)

// A Server serves renditions. Set its fields before Run and leave them alone
// from then on.
type Server struct {
	// Addr is where Run listens, ":8554" if empty. Unused with a Listener.
	Addr string
	// Listener, if set, is where Run accepts; Run closes it. A TLS listener
	// makes the server speak RTSPS, with media over TCP.
	Listener net.Listener
	// TCPOnly refuses media over UDP.
	TCPOnly bool
	// Multicast offers the renditions that are open to everybody to groups, too:
	// 239.195.x.y, ports 20000 to 27999, which MulticastSeed and the
	// rendition's name decide, with a time to live of 1: this network only.
	Multicast     bool
	MulticastSeed string // tells boxes of one network apart; their name, say
	// UDPPort is the port that RTP packets come from; RTCP uses the next one.
	// Zero means 8000 or, if that pair is taken, any free one.
	UDPPort int
	// Find returns the rendition of a name, nil if there is none. It is called
	// from many goroutines and must not block.
	Find func(name string) *stream.Rendition
	// Audience, if set, lists who plays.
	Audience *stream.Audience
	// Live, if set, is called once every port is open.
	Live func()
	// Log takes who came and went; nil means nobody cares.
	Log *slog.Logger

	MaxConns      int // connections in all; zero means 512
	MaxConnsPerIP int // per IPv4 address or IPv6 /64; zero means 64
	PacketSize    int // of RTP, in bytes; zero means rtp.DefaultSize

	limits limits // tests shorten them
}

// limits are the times after which patience ends.
type limits struct {
	session, firstRequest, request, write, tracks time.Duration
}

func (l limits) withDefaults() limits {
	return limits{
		session:      cmp.Or(l.session, sessionTimeout),
		firstRequest: cmp.Or(l.firstRequest, firstRequestTimeout),
		request:      cmp.Or(l.request, requestTimeout),
		write:        cmp.Or(l.write, writeTimeout),
		tracks:       cmp.Or(l.tracks, trackTimeout),
	}
}

// service is one run of a Server.
type service struct {
	*Server
	log    *slog.Logger
	limits limits
	udp    *udpPair // nil: not offered
	feeds  feeds
	fan    stream.Fanout[*rtp.Batch]
	cast   casters
	groups groups
	gate   stream.Gate
	wg     sync.WaitGroup // connections and players
}

// Run serves until ctx ends, then says goodbye to every player, waits for all
// its goroutines and returns nil. It returns an error if it cannot listen.
func (s *Server) Run(ctx context.Context) error {
	if _, err := rtp.NewPacketizer(s.PacketSize); err != nil {
		return err
	}
	ln, err := s.listen(ctx)
	if err != nil {
		return err
	}
	sv := &service{
		Server: s,
		log:    cmp.Or(s.Log, slog.New(slog.DiscardHandler)),
		limits: s.limits.withDefaults(),
		gate: stream.Gate{Limits: stream.Limits{
			Total: cmp.Or(s.MaxConns, DefaultMaxConns),
			Each:  cmp.Or(s.MaxConnsPerIP, DefaultMaxConnsPerIP),
		}, Waiting: maxWaiting, Fair: true},
	}
	sv.fan.At = func(b *rtp.Batch) time.Duration { return b.At }
	var sockets sync.WaitGroup
	if !s.TCPOnly {
		sv.udp, err = listenUDP(ctx, ln.Addr(), s.UDPPort)
		if err != nil {
			_ = ln.Close()
			return err
		}
		sv.udp.serve(&sockets, sv.log)
	}
	if s.Live != nil {
		s.Live()
	}
	sv.log.Info("rtsp server listens", "addr", ln.Addr().String(), "udp_port", sv.udp.port())
	if err = sv.gate.Accept(ctx, ln, sv.log, sv.serve); err != nil {
		err = fmt.Errorf("rtsp: %w", err)
	}
	sv.wg.Wait()
	if sv.udp != nil {
		sv.udp.close() // after the goodbyes
		sockets.Wait()
	}
	return err
}

func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	if s.Listener != nil {
		return s.Listener, nil
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", cmp.Or(s.Addr, fmt.Sprintf(":%d", DefaultPort)))
	if err != nil {
		return nil, fmt.Errorf("rtsp: %w", err)
	}
	return ln, nil
}
