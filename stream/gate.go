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
	waiting int
	from    map[string]*household
	turn    uint64 // counts who began to wait
}

// A household is what comes from one [Origin].
type household struct {
	in      int
	waiting []*Place // the longest first
}

// A Place is that of one connection in a [Gate]. All methods may be called from
// any goroutine, and on nil, which is no gate's.
type Place struct {
	gate     *Gate
	origin   string
	displace func() // nil once it has left
	kept     bool
	turn     uint64 // since when it waits
}

// Enter lets a connection from peer in for good unless that would exceed a
// limit. leave must be called once.
func (g *Gate) Enter(peer string) (leave func(), ok bool) {
	p, _ := g.enter(peer, func() {}, true)
	return p.Leave, p != nil
}

// Wait lets a connection from peer in that may have to make room until its
// place is kept: displace is called then, at most once, for a place that the
// gate has already given to another, by the goroutine that lets that one in.
// Wait returns nil if there is no room.
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
	h := g.from[p.origin]
	if h == nil {
		h = &household{}
		if g.from == nil {
			g.from = make(map[string]*household)
		}
		g.from[p.origin] = h
	}
	g.in++
	h.in++
	if !kept {
		p.list()
	}
	return p, displaced
}

// loser returns who has to make room for p, nil if nobody can, and whether
// somebody has to. The caller holds g.mu.
func (g *Gate) loser(p *Place) (loser *Place, full bool) {
	h := g.from[p.origin]
	if h == nil {
		h = &household{}
	}
	switch {
	case exceeds(h.in, g.Limits.Each):
		return h.oldest(), true
	case exceeds(g.in, g.Limits.Total), !p.kept && exceeds(g.waiting, g.Waiting):
		return g.greediest(p.origin), true
	case g.Fair && exceeds(h.in, g.Limits.Total-g.in):
		return h.oldest(), true
	}
	return nil, false
}

// greediest returns who waits longest, nil if nobody does, of the origin that
// would have most waiting if one more came from newcomer. The caller holds g.mu.
func (g *Gate) greediest(newcomer string) (loser *Place) {
	most := 0
	for origin, h := range g.from {
		n := len(h.waiting)
		if n == 0 {
			continue
		}
		if origin == newcomer {
			n++
		}
		if first := h.oldest(); n > most || n == most && first.turn < loser.turn {
			most, loser = n, first
		}
	}
	return loser
}

// oldest returns who waits longest, or nil.
func (h *household) oldest() *Place {
	if len(h.waiting) == 0 {
		return nil
	}
	return h.waiting[0]
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
	p.list()
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
	if !p.kept {
		p.unlist()
	}
	g, h := p.gate, p.gate.from[p.origin]
	g.in--
	if h.in--; h.in == 0 {
		delete(g.from, p.origin)
	}
}

// list adds the place to those who wait. The caller holds the gate's mu.
func (p *Place) list() {
	g, h := p.gate, p.gate.from[p.origin]
	g.turn++
	p.turn = g.turn
	h.waiting = append(h.waiting, p)
	g.waiting++
}

// unlist takes the place off the list of those who wait. The caller holds the
// gate's mu.
func (p *Place) unlist() {
	h := p.gate.from[p.origin]
	h.waiting = slices.DeleteFunc(h.waiting, func(o *Place) bool { return o == p })
	p.gate.waiting--
}
