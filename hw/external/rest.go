package external

import (
	"context"
	"sync"
	"time"
)

// How long a program that failed is left alone, and one that just has no signal:
// who plugs the cable in wants to see it.
const (
	firstRest   = 500 * time.Millisecond
	longestRest = 30 * time.Second
	signalRest  = 2 * time.Second
)

// A rest is the pause after a program that failed: the more often it did in a
// row, the longer. Its methods may be called from any goroutine.
type rest struct {
	mu   sync.Mutex
	last time.Duration // zero after it went well
}

// take waits, at most so long. It fails with ctx's error if that ends before.
func (r *rest) take(ctx context.Context, longest time.Duration) error {
	r.mu.Lock()
	r.last = min(max(2*r.last, firstRest), longest)
	timer := time.NewTimer(r.last)
	r.mu.Unlock()
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// end says that the program did its work: the next rest is short.
func (r *rest) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = 0
}
