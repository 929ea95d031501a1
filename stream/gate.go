package stream

import (
	"slices"
	"sync"
)

// A Gate counts connections, in all and per origin, for servers that take
// callers before they know what these want to watch. Whoever has got what it
// came for keeps its place; the others only wait, and make room for newcomers.
// Set the exported fields before use; zero means no limit. All methods may be
// called from any goroutine.
//
//	       Keep
//	waits ─────► kept        a newcomer at a full gate takes the place of the
//	  ▲            │         one that waits longest, of the origin that has
//	  └────────────┘         most waiting: none of its own making can shut the
//	       Yield             gate to others
type Gate struct {
	Limits Limits
	// Waiting is how many may wait, of all.
	Waiting int
	// Fair keeps the last places for origins that have few: each may hold as
	// many as there are free ones. It takes a crowd of origins, each with half
	// of what the one before left, to shut the gate.
	Fair bool

	mu      sync.Mutex
	in      int
	from    map[string]int
	waiting []*Place // the longest first
}

// A Place is that of one connection in a [Gate]. All methods may be called from
// any goroutine, and on nil, which is no gate's.
type Place struct {
	gate     *Gate
	origin   string
	displace func() // nil once it has left
	kept     bool
}

// Enter lets a connection from peer in for good unless that would exceed a
// limit. leave must be called once.
func (g *Gate) Enter(peer string) (leave func(), ok bool) {
	p, _ := g.enter(peer, func() {}, true)
	return p.Leave, p != nil
}

// Wait lets a connection from peer in that may have to make room until its
// place is kept: displace is called then, at most once, for a place that the
// gate has already given to another. Wait returns nil if there is no room.
func (g *Gate) Wait(peer string, displace func()) *Place {
	p, displaced := g.enter(peer, displace, false)
	if displaced != nil {
		displaced()
	}
	return p
}

func (g *Gate) enter(peer string, displace func(), kept bool) (p *Place, displaced func()) {
	p = &Place{gate: g, origin: Origin(peer), displace: displace, kept: kept}
	g.mu.Lock()
	defer g.mu.Unlock()
	if loser, full := g.loser(p); full {
		if loser == nil {
			return nil, nil
		}
		displaced = loser.displace
		loser.leave()
	}
	if g.from == nil {
		g.from = make(map[string]int)
	}
	g.in++
	g.from[p.origin]++
	if !kept {
		g.waiting = append(g.waiting, p)
	}
	return p, displaced
}

// loser returns who has to make room for p, nil if nobody can, and whether
// somebody has to. The caller holds g.mu.
func (g *Gate) loser(p *Place) (loser *Place, full bool) {
	has := g.from[p.origin]
	switch {
	case exceeds(has, g.Limits.Each):
		return g.oldest(p.origin), true
	case exceeds(g.in, g.Limits.Total), !p.kept && exceeds(len(g.waiting), g.Waiting):
		return g.oldest(g.greediest(p.origin)), true
	case g.Fair && exceeds(has, g.Limits.Total-g.in):
		return g.oldest(p.origin), true
	}
	return nil, false
}

// greediest returns the origin that would have most waiting if one more came
// from newcomer; of several the one that waits longest. The caller holds g.mu.
func (g *Gate) greediest(newcomer string) (origin string) {
	count := map[string]int{newcomer: 1}
	for _, p := range g.waiting {
		count[p.origin]++
	}
	for _, p := range g.waiting {
		if origin == "" || count[p.origin] > count[origin] {
			origin = p.origin
		}
	}
	return origin
}

// oldest returns who of an origin waits longest, or nil. The caller holds g.mu.
func (g *Gate) oldest(origin string) *Place {
	i := slices.IndexFunc(g.waiting, func(p *Place) bool { return p.origin == origin })
	if i < 0 {
		return nil
	}
	return g.waiting[i]
}

// Keep makes the place the connection's own until Yield or Leave.
func (p *Place) Keep() {
	if p == nil {
		return
	}
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	if p.displace == nil || p.kept {
		return
	}
	p.kept = true
	p.unlist()
}

// Yield makes the connection wait again, behind all others.
func (p *Place) Yield() {
	if p == nil {
		return
	}
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	if p.displace == nil || !p.kept {
		return
	}
	p.kept = false
	p.gate.waiting = append(p.gate.waiting, p)
}

// Leave gives the place back. It may be called again.
func (p *Place) Leave() {
	if p == nil {
		return
	}
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	p.leave()
}

// leave is Leave for callers that hold the gate's mu.
func (p *Place) leave() {
	if p.displace == nil {
		return
	}
	p.displace = nil
	g := p.gate
	g.in--
	if g.from[p.origin]--; g.from[p.origin] == 0 {
		delete(g.from, p.origin)
	}
	if !p.kept {
		p.unlist()
	}
}

// unlist takes the place off the list of those who wait. The caller holds the
// gate's mu.
func (p *Place) unlist() {
	p.gate.waiting = slices.DeleteFunc(p.gate.waiting, func(o *Place) bool { return o == p })
}
