// Package webrtc serves renditions to browsers and other WebRTC players by
// WHEP (draft-ietf-wish-whep), with one UDP and one TCP port for all of them.
//
//	POST offer ──► visitor: PeerConnection ──► connected ──► playing ──► gone
//	  201, answer      │ 15 s without a line      │ DELETE, line lost, end
//	                   └──────────────────────────┴──────────────────────► gone
//
//	Rendition ─► Feed: one Packetizer ─► Ring[*rtp.Batch] ─┬─► visitor: SRTP of its own
//	             (only while somebody watches)             └─► …
//
// Picture is H.264 (RFC 6184) or H.265 (RFC 7798), sound is Opus (RFC 7587); a
// rendition whose only sound is AAC is silent here, for no browser takes it.
// Sound and picture follow one clock by sender reports. Packets that were lost
// are sent again (NACK); a lost picture makes the visitor wish for a key
// picture, and the wishes of all make one.
package webrtc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/logging"
	"github.com/pion/transport/v4"
	"github.com/pion/webrtc/v4"

	"encoderd.example/stream"
	"encoderd.example/stream/rtp"
)

// Defaults of a [Server]'s fields, and its limits.
const (
	DefaultPort      = 8189
	DefaultVisitors  = 1024
	DefaultPerOrigin = 256 // from one IPv4 address or IPv6 /64
	maxUnconnected   = 8   // visitors of one origin to whom there is no line yet
	maxOffer         = 64 << 10
	maxReason        = 200 // bytes of what is said about a bad offer
	linesEach        = 2   // TCP connections for each visitor that there may be: candidates are many
	connectTimeout   = 15 * time.Second
	silenceTimeout   = 10 * time.Second // until a line that says nothing is lost
	answerTimeout    = 5 * time.Second
	tcpReadBuffer    = 8
	resendPackets    = 1024 // kept for each visitor and medium to be sent again
)

// A Server serves renditions. Set its fields before Run and leave them alone
// from then on.
type Server struct {
	// Addr is where Run opens the UDP and the TCP port, ":8189" if empty.
	// Unused with Packets and Listener.
	Addr string
	// Packets and Listener, if both are set, are the ports; Run closes them.
	Packets  net.PacketConn
	Listener net.Listener
	// Hosts are addresses at which players outside reach these ports, told
	// to them beside the box's own, for a box behind address translation.
	Hosts []string
	// Loopback offers the addresses of this machine to players on it, too.
	Loopback bool
	// Find returns the rendition of a name, nil if there is none. It is called
	// from many goroutines and must not block.
	Find func(name string) *stream.Rendition
	// Audience, if set, lists who plays and says who may.
	Audience *stream.Audience
	// Live, if set, is called once the ports are open.
	Live func()
	// Log takes who came and went; nil means nobody cares.
	Log *slog.Logger

	// MaxVisitors and MaxVisitorsPerIP bound the visitors at a time, also those
	// to whom there is no line yet, in all and from one IPv4 address or IPv6
	// /64; zero means 1024 and 256. How many may watch is for Audience to say,
	// whose limits change without a restart.
	MaxVisitors, MaxVisitorsPerIP int

	network transport.Net // whose addresses are offered; nil means the box's own
	silence time.Duration // until a TCP line that takes nothing is closed; zero means silenceTimeout

	mu      sync.Mutex
	service *service // nil while Run does not run
}

// service is one run of a Server.
type service struct {
	*Server
	log *slog.Logger
	mux webrtc.SettingEngine
	ctx context.Context //nolint:containedctx // the life of Run, which visitors share and requests do not

	places   stream.Gate    // of visitors
	wg       sync.WaitGroup // of visitors, and of requests that make one
	mu       sync.Mutex
	closing  bool           // Run waits for wg, which takes no more
	entering map[string]int // without a line yet, by origin
	visitors map[string]*visitor
	feeds    map[*stream.Rendition]*feed
}

// Run serves until ctx ends, then says goodbye to every visitor, waits for all
// its goroutines and returns nil. It returns an error if it cannot listen.
func (s *Server) Run(ctx context.Context) error {
	packets, listener, err := s.listen(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sv := &service{Server: s, log: s.logger(), ctx: ctx, visitors: map[string]*visitor{}, entering: map[string]int{}, feeds: map[*stream.Rendition]*feed{}}
	sv.places.Limits = stream.Limits{Total: cmp.Or(s.MaxVisitors, DefaultVisitors), Each: cmp.Or(s.MaxVisitorsPerIP, DefaultPerOrigin)}
	sv.mux.SetNet(sv.addresses())
	udp := ice.NewUDPMuxDefault(ice.UDPMuxParams{Logger: quiet{}, UDPConn: packets, Net: sv.addresses()})
	door := stream.Gate{Limits: stream.Limits{Total: linesEach * sv.places.Limits.Total, Each: linesEach * sv.places.Limits.Each}, Fair: true}
	tcp := ice.NewTCPMuxDefault(ice.TCPMuxParams{
		Listener: lines{door.Listener(listener), ctx, cmp.Or(s.silence, silenceTimeout)}, Logger: quiet{}, ReadBufferSize: tcpReadBuffer,
		FirstStunBindTimeout: connectTimeout, AliveDurationForConnFromStun: connectTimeout,
	})
	if err := sv.settle(udp, tcp); err != nil {
		return errors.Join(err, tcp.Close(), udp.Close(), packets.Close())
	}
	s.attach(sv)
	if s.Live != nil {
		s.Live()
	}
	sv.log.Info("webrtc server listens", "addr", listener.Addr().String(), "udp", packets.LocalAddr().String())
	<-ctx.Done()
	s.attach(nil)
	sv.drain()
	return closed(tcp.Close(), udp.Close(), packets.Close())
}

// drain lets nobody in any more and waits for all who are.
func (sv *service) drain() {
	sv.mu.Lock()
	sv.closing = true
	sv.mu.Unlock()
	sv.wg.Wait()
}

// closed passes over the errors of what had been closed already.
func closed(errs ...error) error {
	return errors.Join(slices.DeleteFunc(errs, func(err error) bool { return errors.Is(err, net.ErrClosed) })...)
}

// attach makes sv the one that takes requests.
func (s *Server) attach(sv *service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.service = sv
}

func (s *Server) running() *service {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.service
}

func (s *Server) addresses() transport.Net {
	if s.network == nil {
		return &network{}
	}
	return s.network
}

func (s *Server) logger() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

func (s *Server) listen(ctx context.Context) (net.PacketConn, net.Listener, error) {
	if s.Packets != nil && s.Listener != nil {
		return s.Packets, s.Listener, nil
	}
	addr := s.Addr
	if addr == "" {
		addr = ":" + strconv.Itoa(DefaultPort)
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, fmt.Errorf("webrtc: %w", err)
	}
	packets, err := lc.ListenPacket(ctx, "udp", addr)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("webrtc: %w", err), listener.Close())
	}
	return packets, listener, nil
}

// settle makes every connection use the two ports and nothing else.
func (sv *service) settle(udp ice.UDPMux, tcp ice.TCPMux) error {
	sv.mux.LoggerFactory = quiet{}
	sv.mux.SetICEUDPMux(udp)
	sv.mux.SetICETCPMux(tcp)
	sv.mux.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6, webrtc.NetworkTypeTCP4, webrtc.NetworkTypeTCP6})
	sv.mux.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	sv.mux.SetIncludeLoopbackCandidate(sv.Loopback)
	sv.mux.SetICETimeouts(silenceTimeout/2, silenceTimeout/2, silenceTimeout/5)
	if len(sv.Hosts) == 0 {
		return nil
	}
	rule := webrtc.ICEAddressRewriteRule{External: sv.Hosts, AsCandidateType: webrtc.ICECandidateTypeHost, Mode: webrtc.ICEAddressRewriteAppend}
	if err := sv.mux.SetICEAddressRewriteRules(rule); err != nil {
		return fmt.Errorf("webrtc: addresses outside: %w", err)
	}
	return nil
}

// api returns what makes connections for these tracks.
func (sv *service) api(video, sound *stream.Track) (*webrtc.API, error) {
	engine := &webrtc.MediaEngine{}
	if err := register(engine, video, sound); err != nil {
		return nil, fmt.Errorf("webrtc: %w", err)
	}
	again, err := nack.NewResponderInterceptor(nack.ResponderSize(resendPackets), nack.DisableCopy())
	if err != nil {
		return nil, fmt.Errorf("webrtc: %w", err)
	}
	chain := &interceptor.Registry{}
	chain.Add(again)
	return webrtc.NewAPI(webrtc.WithMediaEngine(engine), webrtc.WithInterceptorRegistry(chain), webrtc.WithSettingEngine(sv.mux)), nil
}

// A feed packetises one rendition for all its visitors.
type feed struct {
	stream.Feed[*rtp.Batch]

	packer       *rtp.Packetizer
	video, sound *stream.Track // sound may be nil
	visitors     int           // guarded by service.mu
	latest       atomic.Int64  // PTS of the newest unit
}

// feedOf returns the feed of a rendition until release is called, once.
func (sv *service) feedOf(src *stream.Rendition, tracks []*stream.Track) (f *feed, release func(), err error) {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	f = sv.feeds[src]
	if f == nil || f.Ended() {
		if f, err = newFeed(src, tracks, sv); err != nil {
			return nil, nil, err
		}
		sv.feeds[src] = f
	}
	f.visitors++
	return f, sync.OnceFunc(func() {
		sv.mu.Lock()
		defer sv.mu.Unlock()
		if f.visitors--; f.visitors == 0 && sv.feeds[src] == f {
			delete(sv.feeds, src)
		}
	}), nil
}

var errNoVideo = errors.New("the rendition has no picture that browsers play")

func newFeed(src *stream.Rendition, tracks []*stream.Track, sv *service) (*feed, error) {
	f := &feed{}
	for _, t := range tracks {
		switch {
		case t.Codec.Video() && f.video == nil:
			f.video = t
		case t.Codec == stream.Opus:
			f.sound = t
		}
	}
	if f.video == nil {
		return nil, errNoVideo
	}
	carried := []*stream.Track{f.video}
	if f.sound != nil {
		carried = append(carried, f.sound)
	}
	packer, err := rtp.NewPacketizer(packetSize, carried...)
	if err != nil {
		return nil, err
	}
	f.packer, f.Source = packer, src
	f.Turn = func(u *stream.Unit) (b *rtp.Batch, key, ok bool, err error) {
		b, err = packer.Batch(u)
		f.latest.Store(int64(u.PTS))
		return b, u.Key, b != nil, err
	}
	f.Failed = func(err error) {
		sv.log.Warn("webrtc players have to connect again", "rendition", src.Name, "err", err)
	}
	return f, nil
}

// packetSize leaves room for SRTP's tag and what tunnels add: browsers never
// send more than 1200 bytes themselves.
const packetSize = 1200

// quiet is a logger for pion, which speaks of every lost candidate: what
// matters is said here.
type quiet struct{}

func (quiet) NewLogger(string) logging.LeveledLogger { return quiet{} }
func (quiet) Trace(string)                           {}
func (quiet) Tracef(string, ...any)                  {}
func (quiet) Debug(string)                           {}
func (quiet) Debugf(string, ...any)                  {}
func (quiet) Info(string)                            {}
func (quiet) Infof(string, ...any)                   {}
func (quiet) Warn(string)                            {}
func (quiet) Warnf(string, ...any)                   {}
func (quiet) Error(string)                           {}
func (quiet) Errorf(string, ...any)                  {}
