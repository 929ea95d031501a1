package stream

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Why a viewer is not let in. Servers translate them: 401, 403, 503 and what
// their protocol has.
var (
	// ErrLocked asks for credentials: none came.
	ErrLocked = errors.New("this picture needs a password or a link")
	// ErrDenied says that the credentials are wrong, or a link's time is over.
	ErrDenied = errors.New("wrong or expired password or link")
	// ErrLinkOnly wraps ErrDenied where no password helps: asking for one would
	// be in vain.
	ErrLinkOnly error = linkOnlyError{}
	// ErrFull says that there are as many viewers as allowed.
	ErrFull = errors.New("too many viewers")
)

type linkOnlyError struct{}

func (linkOnlyError) Error() string { return "this picture opens by a link only: ask for one" }
func (linkOnlyError) Unwrap() error { return ErrDenied }

// Credentials are what a viewer shows to be let in. The zero value shows
// nothing. They are secret: never log them.
type Credentials struct {
	User, Password string
	// Token is what a signed link carries.
	Token string
	// Proves, if set, stands for User and Password where a protocol never
	// sends them: it reports whether the viewer knows them (RFC 7616, digest).
	Proves func(user, password string) bool
}

// Empty reports whether nothing was shown.
func (c Credentials) Empty() bool {
	return c.User == "" && c.Password == "" && c.Token == "" && c.Proves == nil
}

// A Guard says who may watch. Its methods are called from many goroutines and
// must not block.
type Guard interface {
	// Allow returns nil, or an error that wraps [ErrLocked] or [ErrDenied].
	Allow(rendition string, c Credentials) error
}

// A Book is told of every viewer, for reports. Its methods are called in the
// order of coming and going, and must not block nor call the audience.
type Book interface {
	Joined(v *Viewer)
	Left(v *Viewer)
}

// Limits bound an audience; zero means no limit.
type Limits struct {
	Total int // viewers in all
	Each  int // viewers from one IPv4 address or IPv6 /64
}

// An Audience is the list of who watches what, and the door that they come in
// by. The zero value lets everybody in, and so does nil, which lists nobody; all
// methods may be called from any goroutine.
type Audience struct {
	mu      sync.Mutex
	viewers []*Viewer
	from    map[string]int // viewers by [Origin]
	guard   Guard
	limits  Limits
	book    Book
	wrong   map[string]*guesses // by [Origin]
}

// A Viewer is one reader of one rendition. Its owner adds to the counters.
type Viewer struct {
	Protocol  string // "rtsp/tcp", "rtsp/udp", "rtmp", "hls" …
	Rendition string
	Peer      string // address of the far side, "host:port"
	Since     time.Time

	Bytes atomic.Uint64 // handed to the network, but for those of the latest quarter second
	Lost  atomic.Uint64 // units skipped because the reader was too slow
	Lag   atomic.Int64  // nanoseconds of media that wait for this reader
}

// SetDoor changes who is let in from now on; guard may be nil. Who is inside
// stays. A nil audience stays open.
func (a *Audience) SetDoor(guard Guard, limits Limits) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.guard, a.limits = guard, limits
}

// SetBook makes book hear of the viewers that come and go from now on. A nil
// audience tells nobody.
func (a *Audience) SetBook(book Book) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.book = book
}

// Allow says whether these credentials of somebody at peer open a rendition,
// without joining: nil, or an error that wraps [ErrLocked] or [ErrDenied].
// After some wrong passwords from one origin no password is looked at for a
// while; links, which nobody guesses, still are.
func (a *Audience) Allow(peer, rendition string, c Credentials) error {
	if a == nil {
		return nil
	}
	origin := Origin(peer)
	guess := c.Token == "" && !c.Empty()
	a.mu.Lock()
	guard := a.guard
	tired := guess && a.tired(origin)
	a.mu.Unlock()
	switch {
	case guard == nil:
		return nil
	case tired && guard.Allow(rendition, Credentials{}) != nil:
		return fmt.Errorf("%w: too many wrong passwords from this address, try again in %v", ErrDenied, guessPause)
	}
	err := guard.Allow(rendition, c)
	if guess && errors.Is(err, ErrDenied) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.guessed(origin)
	}
	return err
}

// Still says whether credentials that once let somebody in yet do, as Allow
// does, but is no guess: others' wrong passwords put nobody out.
func (a *Audience) Still(rendition string, c Credentials) error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	guard := a.guard
	a.mu.Unlock()
	if guard == nil {
		return nil
	}
	return guard.Allow(rendition, c)
}

const (
	maxGuesses = 10
	guessPause = time.Minute
	maxOrigins = 1024 // whose guesses are remembered
)

// guesses counts wrong passwords until its end.
type guesses struct {
	n    int
	ends time.Time
}

// tired reports whether origin has guessed too often. The caller holds a.mu.
func (a *Audience) tired(origin string) bool {
	g := a.wrong[origin]
	return g != nil && g.n >= maxGuesses && time.Now().Before(g.ends)
}

// guessed notes a wrong password. The caller holds a.mu.
func (a *Audience) guessed(origin string) {
	now := time.Now()
	g := a.wrong[origin]
	if g == nil || !now.Before(g.ends) {
		if len(a.wrong) >= maxOrigins {
			maps.DeleteFunc(a.wrong, func(_ string, g *guesses) bool { return !now.Before(g.ends) })
		}
		if a.wrong == nil || len(a.wrong) >= maxOrigins {
			a.wrong = make(map[string]*guesses)
		}
		g = &guesses{}
		a.wrong[origin] = g
	}
	g.n++
	g.ends = now.Add(guessPause)
}

// Admit adds v until leave is called, or says why not by an error that wraps
// [ErrLocked], [ErrDenied] or [ErrFull].
func (a *Audience) Admit(v *Viewer, c Credentials) (leave func(), err error) {
	if a == nil {
		return func() {}, nil
	}
	if err := a.Allow(v.Peer, v.Rendition, c); err != nil {
		return nil, err
	}
	origin := Origin(v.Peer)
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := a.limits.Total; exceeds(len(a.viewers), n) {
		return nil, fmt.Errorf("%w: %d watch, which is the limit of this box", ErrFull, n)
	}
	if n := a.limits.Each; exceeds(a.from[origin], n) {
		return nil, fmt.Errorf("%w: %d watch from %s, which is the limit for one address", ErrFull, n, origin)
	}
	if a.from == nil {
		a.from = make(map[string]int)
	}
	a.from[origin]++
	a.viewers = append(a.viewers, v)
	if a.book != nil {
		a.book.Joined(v)
	}
	return sync.OnceFunc(func() { a.leave(v, origin) }), nil
}

func (a *Audience) leave(v *Viewer, origin string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.viewers = slices.DeleteFunc(a.viewers, func(o *Viewer) bool { return o == v })
	if a.from[origin]--; a.from[origin] == 0 {
		delete(a.from, origin)
	}
	if a.book != nil {
		a.book.Left(v)
	}
}

// Viewers returns who watches now, in the order of joining.
func (a *Audience) Viewers() []*Viewer {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.viewers)
}

// Origin names the household behind an address with or without a port: an
// IPv4 address, or the /64 of an IPv6 address, since one host owns all of it.
// What is no IP address stands for itself.
func Origin(peer string) string {
	ap, err := netip.ParseAddrPort(peer)
	ip := ap.Addr()
	if err != nil {
		ip, err = netip.ParseAddr(peer)
	}
	if err != nil {
		return peer
	}
	ip = ip.Unmap()
	if ip.Is4() {
		return ip.String()
	}
	return netip.PrefixFrom(ip.WithZone(""), 64).Masked().String()
}

func exceeds(n, limit int) bool { return limit > 0 && n >= limit }
