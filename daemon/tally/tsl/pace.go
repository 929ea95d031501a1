package tsl

import (
	"context"
	"time"
)

// How much is taken of one port or connection in a second: many times what
// switchers send, and little for the processor, which has a show to carry. What
// comes beyond that waits, and what waits too long the network drops.
const (
	packetsPerSecond = 5_000
	bytesPerSecond   = 1 << 20
)

// paceTime is the shortest time over which a pace is measured.
const paceTime = 100 * time.Millisecond

// A pace holds back who takes too much too fast. It is for one goroutine.
type pace struct {
	perSecond int
	left      int // until then
	until     time.Time
}

// took counts n and waits until more may be taken, or ctx ends.
func (p *pace) took(ctx context.Context, n int) {
	now := time.Now()
	if !now.Before(p.until) {
		p.left, p.until = p.perSecond*int(paceTime)/int(time.Second), now.Add(paceTime)
	}
	if p.left -= n; p.left <= 0 {
		rest(ctx, p.until.Sub(now))
	}
}
