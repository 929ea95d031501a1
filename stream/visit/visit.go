// Package visit knows which requests belong to one player. Players of HLS and
// DASH come by many small requests; to the audience they are one viewer, from
// the first request to some time after the last.
//
//	        Watch                  no request for a while
//	begun ────────► a viewer ─────────────────────────────► resting
//	  │               ▲                  Watch                │
//	  │               └───────────────────────────────────────┘
//	  └──► forgotten after half a minute      forgotten after five ◄─┘
//
// A viewer whose link's time is over is out at its next request, or ten seconds
// later; its visit is forgotten. So is one that is begun or resting where many
// more begin than players do: see [stream.Gate].
//
// A visit's ID goes into the addresses that the first answer hands down, as a
// folder, so that relative addresses keep it whatever the player does with
// cookies and queries. It stands for the credentials that the first request
// showed: it is as secret as they are.
//
// Some players come back to the first address and show no ID. Two that look the
// same, behind one address, are told apart by their connections.
package visit

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"encoderd.example/stream"
)

// Limits of what is remembered.
const (
	maxVisits  = 8192
	maxPerPeer = 1024 // an IPv4 address or IPv6 /64: a venue's whole network may hide behind one
	unwatched  = 30 * time.Second
	resting    = 5 * time.Minute
	sweepEvery = time.Second
	checkEvery = 10 * time.Second
	maxBusy    = 16              // requests of a visit at a time; one player has about six
	maxShown   = 256             // bytes of a user, password or token: no right one is longer
	maxPeers   = 8               // connections that a visit is known by
	spareAfter = 5 * time.Second // a player begins to watch sooner, or has no use for its visit
)

// ErrOver says that a visit was forgotten: the player has to begin anew.
var ErrOver = errors.New("this visit is over")

var errBusy = fmt.Errorf("%w: this visit has %d requests under way, more than one player needs", stream.ErrFull, maxBusy)

// Visits are the players that are here. Set the exported fields before use. All
// methods may be called from any goroutine.
type Visits struct {
	// Protocol of the viewers, for example "hls".
	Protocol string
	// Audience lists the viewers and says who may watch; nil lets everybody.
	Audience *stream.Audience

	once    sync.Once
	gate    stream.Gate
	changed chan struct{} // there are visits to look after

	mu     sync.Mutex
	byID   map[string]*Visit
	byLook map[look]*Visit
	byPeer map[string]*Visit // by connection, who came over it last
	spares map[look][]*Visit // not watched yet, those handed out longest ago first
	ended  bool
}

// look is what a player without an ID is known by: address, program and
// credentials.
type look [sha256.Size]byte

// A Visit is one player. All methods may be called from any goroutine.
type Visit struct {
	ID string // fit for addresses; secret

	visits      *Visits
	peer        string
	look        look
	credentials stream.Credentials
	place       *stream.Place // kept while there is a viewer

	given time.Time // out by Arrive; guarded by visits.mu
	peers []string  // whose byPeer it is; likewise

	mu      sync.Mutex
	gone    bool           // forgotten
	viewer  *stream.Viewer // nil: nobody's
	leave   func()
	refused error     // not nil: somebody who was let in may watch no more
	checked time.Time // when the credentials were looked at
	busy    int       // requests under way
	last    time.Time
	silence time.Duration // after which the viewer has left
	number  uint64        // segment of the picture fetched last
}

func (v *Visits) init() {
	v.once.Do(func() {
		v.changed = make(chan struct{}, 1)
		v.gate.Limits, v.gate.Fair = stream.Limits{Total: maxVisits, Each: maxPerPeer}, true
		v.byID = make(map[string]*Visit)
		v.byLook = make(map[look]*Visit)
		v.byPeer = make(map[string]*Visit)
		v.spares = make(map[look][]*Visit)
	})
}

// Run ends visits that have fallen silent, until ctx ends: then all leave the
// audience, and it returns nil.
func (v *Visits) Run(ctx context.Context) error {
	v.init()
	v.open()
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if !v.sweep() {
			tick.Stop() // no visit, no cost
		}
		select {
		case <-tick.C:
		case <-v.changed:
			tick.Reset(sweepEvery)
		case <-ctx.Done():
			v.end()
			return nil
		}
	}
}

func (v *Visits) open() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.ended = false
}

// sweep reports whether any visit is left.
func (v *Visits) sweep() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, t := range v.byID {
		if t.over() {
			v.remove(t)
		}
	}
	return len(v.byID) > 0
}

func (v *Visits) end() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.ended = true
	for _, t := range v.byID {
		t.part()
		v.remove(t)
	}
}

// remove forgets t. The caller holds v.mu.
func (v *Visits) remove(t *Visit) {
	delete(v.byID, t.ID)
	if v.byLook[t.look] == t {
		delete(v.byLook, t.look)
	}
	for _, peer := range t.peers {
		delete(v.byPeer, peer)
	}
	t.peers = nil
	v.use(t)
	t.place.Leave()
}

// use takes t off the spares. The caller holds v.mu.
func (v *Visits) use(t *Visit) {
	if t.given.IsZero() {
		return
	}
	t.given = time.Time{}
	rest := slices.DeleteFunc(v.spares[t.look], func(o *Visit) bool { return o == t })
	if v.spares[t.look] = rest; len(rest) == 0 {
		delete(v.spares, t.look)
	}
}

// note remembers that t's player came over the connection of a peer. The caller
// holds v.mu.
func (v *Visits) note(t *Visit, peer string) {
	before := v.byPeer[peer]
	if before == t {
		return
	}
	if before != nil {
		before.peers = slices.DeleteFunc(before.peers, func(p string) bool { return p == peer })
	}
	if len(t.peers) == maxPeers {
		delete(v.byPeer, t.peers[0])
		t.peers = slices.Delete(t.peers, 0, 1)
	}
	v.byPeer[peer] = t
	t.peers = append(t.peers, peer)
}

// Begin returns a new visit of the player that sent r. It joins no audience
// yet. The error is [stream.ErrFull] or [ErrOver].
func (v *Visits) Begin(r *http.Request) (*Visit, error) {
	v.init()
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.begin(r, lookOf(r))
}

// Arrive returns the visit of a player that asks at an address where each begins,
// and some come back to: the one that looks the same and came over the same
// connection, or a new one. Of players that come back over new connections only
// to go on with the addresses they had, the visits that come to nothing are
// handed out again. The error is that of Begin.
func (v *Visits) Arrive(r *http.Request) (*Visit, error) {
	v.init()
	l := lookOf(r)
	v.mu.Lock()
	defer v.mu.Unlock()
	t := v.byPeer[r.RemoteAddr]
	if t != nil && t.look == l && t.roomy() {
		return t, nil
	}
	if t = v.spare(l); t == nil {
		var err error
		if t, err = v.begin(r, l); err != nil {
			return nil, err
		}
	}
	t.given = time.Now()
	v.spares[l] = append(v.spares[l], t)
	v.note(t, r.RemoteAddr)
	return t, nil
}

// spare takes a visit off the spares that nobody will watch any more, nil if
// there is none. The caller holds v.mu.
func (v *Visits) spare(l look) *Visit {
	list := v.spares[l]
	if len(list) == 0 || time.Since(list[0].given) < spareAfter {
		return nil
	}
	t := list[0]
	v.use(t)
	t.renew()
	return t
}

// Guess returns the visit of a player that shows no ID: the one that looks the
// same, or a new one; a new one too where that one is so busy that there must be
// several players, behind one address for instance. The error is [stream.ErrFull] or [ErrOver].
func (v *Visits) Guess(r *http.Request) (*Visit, error) {
	v.init()
	l := lookOf(r)
	v.mu.Lock()
	defer v.mu.Unlock()
	if t := v.byLook[l]; t != nil && t.roomy() {
		return t, nil
	}
	t, err := v.begin(r, l)
	if err == nil {
		v.byLook[l] = t
	}
	return t, err
}

// begin is Begin for callers that hold v.mu.
func (v *Visits) begin(r *http.Request, l look) (*Visit, error) {
	if v.ended {
		return nil, ErrOver
	}
	t := &Visit{ID: rand.Text(), visits: v, peer: r.RemoteAddr, look: l, credentials: Credentials(r), last: time.Now()}
	t.place = v.gate.Wait(r.RemoteAddr, func() { // v.mu is held
		t.part()
		v.remove(t)
	})
	if t.place == nil {
		return nil, stream.ErrFull
	}
	v.byID[t.ID] = t
	select {
	case v.changed <- struct{}{}:
	default:
	}
	return t, nil
}

// Find returns the visit with an ID, whose player came over the connection of a
// peer; nil if there is none.
func (v *Visits) Find(id, peer string) *Visit {
	v.mu.Lock()
	defer v.mu.Unlock()
	t := v.byID[id]
	if t != nil {
		v.use(t)
		v.note(t, peer)
	}
	return t
}

// Credentials returns what the player showed when the visit began.
func (t *Visit) Credentials() stream.Credentials { return t.credentials }

// lookOf hashes, so that no password stays in a map's keys.
func lookOf(r *http.Request) look {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	c := Credentials(r)
	h := sha256.New()
	for _, part := range []string{host, r.UserAgent(), c.User, c.Password, c.Token} {
		sum := sha256.Sum256([]byte(part))
		_, _ = h.Write(sum[:]) // never fails
	}
	return look(h.Sum(nil))
}

// roomy reports whether the visit can be that of one more request.
func (t *Visit) roomy() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refused == nil && t.busy < maxBusy/2
}

// renew has a visit that nobody watched stay as long as a new one.
func (t *Visit) renew() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = time.Now()
}

// Watch makes the visit's player a viewer of a rendition, if it is not yet,
// for as long as requests come at most silence apart. done must be called when
// the request is over. A player that goes over to another rendition is another
// viewer, if lead says that this request decides; requests for its sound do
// not. Now and then the credentials are looked at again, so that the visit ends
// with its link's time. The error is that of [stream.Audience.Admit], which is
// [stream.ErrFull] also for more requests at a time than one player has, or
// [ErrOver].
func (t *Visit) Watch(rendition string, lead bool, silence time.Duration) (viewer *stream.Viewer, done func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.gone:
		return nil, nil, ErrOver
	case t.refused != nil:
		return nil, nil, t.refused
	case t.busy >= maxBusy:
		return nil, nil, errBusy
	}
	if err := t.admit(rendition, lead); err != nil {
		return nil, nil, err
	}
	t.busy++
	t.last, t.silence = time.Now(), silence
	return t.viewer, sync.OnceFunc(t.done), nil
}

// admit sees to it that there is a viewer. The caller holds t.mu.
func (t *Visit) admit(rendition string, lead bool) error {
	switch {
	case t.viewer == nil:
		return t.enter(rendition)
	case t.viewer.Rendition == rendition:
		return t.recheck()
	}
	if err := t.still(rendition); err != nil || !lead {
		return err // and it stays where it is
	}
	t.out()
	return t.enter(rendition)
}

// enter joins the audience. The caller holds t.mu.
func (t *Visit) enter(rendition string) error {
	viewer := &stream.Viewer{Protocol: t.visits.Protocol, Rendition: rendition, Peer: t.peer, Since: time.Now()}
	leave, err := t.visits.Audience.Admit(viewer, t.credentials)
	if err != nil {
		return err
	}
	t.viewer, t.leave, t.number, t.checked = viewer, leave, 0, time.Now()
	t.place.Keep()
	return nil
}

// recheck ends the visit if its viewer may watch no more. The caller holds
// t.mu.
func (t *Visit) recheck() error {
	if time.Since(t.checked) < checkEvery {
		return nil
	}
	t.checked = time.Now()
	if t.refused = t.still(t.viewer.Rendition); t.refused != nil {
		t.out()
	}
	return t.refused
}

func (t *Visit) still(rendition string) error {
	return t.visits.Audience.Still(rendition, t.credentials)
}

func (t *Visit) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busy--
	t.last = time.Now()
}

// Follow notes that the player fetches this segment of its picture, and returns
// how many segments it has skipped since the one before.
func (t *Visit) Follow(number uint64) (skipped uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.number > 0 && number > t.number+1 {
		skipped = number - t.number - 1
	}
	t.number = max(t.number, number)
	return skipped
}

// over reports whether the visit may be forgotten, and lets its viewer leave
// once it has fallen silent.
func (t *Visit) over() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	quiet := time.Since(t.last)
	switch {
	case t.busy > 0:
		return false
	case t.refused != nil:
		t.gone = true
	case t.viewer != nil && quiet < t.silence:
		return false
	case t.silence == 0:
		t.gone = quiet >= unwatched
	default:
		t.out()
		t.gone = quiet >= t.silence+resting
	}
	return t.gone
}

// part ends the visit, whatever is under way.
func (t *Visit) part() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gone = true
	t.out()
}

// out leaves the audience. The caller holds t.mu.
func (t *Visit) out() {
	if t.viewer != nil {
		t.leave()
		t.viewer, t.leave = nil, nil
		t.place.Yield()
	}
}

// Credentials returns what a request shows: the token of a signed link, in the
// address or as a Bearer (RFC 6750, 2), and name and password by HTTP Basic,
// each cut to 256 bytes. They hold no memory of the request's.
func Credentials(r *http.Request) stream.Credentials {
	token := r.URL.Query().Get("token")
	if scheme, bearer, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		token = bearer
	}
	user, password, _ := r.BasicAuth()
	return stream.Credentials{User: keep(user), Password: keep(password), Token: keep(token)}
}

func keep(shown string) string { return strings.Clone(shown[:min(len(shown), maxShown)]) }

// Refuse answers why somebody may not watch: 401 where a password helps, else
// 403 or 503, with a short text.
func Refuse(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusServiceUnavailable
	_, _, basic := r.BasicAuth()
	switch {
	case errors.Is(err, stream.ErrLinkOnly):
		status = http.StatusForbidden
	case errors.Is(err, stream.ErrLocked), basic && errors.Is(err, stream.ErrDenied):
		status = http.StatusUnauthorized
		w.Header().Set("WWW-Authenticate", `Basic realm="live picture", charset="UTF-8"`)
	case errors.Is(err, stream.ErrDenied):
		status = http.StatusForbidden
	default:
		w.Header().Set("Retry-After", "5")
	}
	Fail(w, status, err.Error())
}

// Methods is what may be asked of an address that pictures come from.
const Methods = "GET, HEAD, OPTIONS"

// Preflight answers OPTIONS for h, so that pages of any site may fetch pictures
// (Fetch, CORS protocol) and show a password or a link; h gets all other
// requests.
func Preflight(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodOptions {
			h.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Allow", Methods)
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Access-Control-Allow-Methods", Methods)
		w.Header().Set("Access-Control-Allow-Headers", "Range, Authorization, Content-Type")
		w.Header().Set("Access-Control-Max-Age", "86400")
		w.WriteHeader(http.StatusNoContent)
	})
}

// Fail answers with a status and one line of text, which nobody may keep.
func Fail(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Access-Control-Allow-Origin", "*")
	http.Error(w, text, status)
}
