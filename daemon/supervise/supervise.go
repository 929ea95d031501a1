// Package supervise keeps long-running functions running.
//
// Everything in the box that lives on is one blocking function: it returns
// nil when its context ends and an error when it cannot go on. A [Group] runs
// a set of them, restarts those that fail, and moves from one wanted set to
// the next by touching only what differs.
//
//	          needs live            live()
//	Starting ───────────► running ─────────► Live
//	   ▲                     │ error           │ error, need lost
//	   │   0.5–30 s          ▼                 ▼
//	   └────────────────  Backoff ◄────────────┘
//	Permanent(err) → Failed    ctx ends → Stopped    ignores ctx → Stuck
package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// State is where a service is in its life.
type State string

// The states of a service.
const (
	Starting State = "starting"
	Live     State = "live"
	Backoff  State = "backoff"
	Failed   State = "failed"
	Stopped  State = "stopped"
	Stuck    State = "stuck"
)

// Permanent marks an error that trying again will not cure, such as a refused
// stream key.
func Permanent(err error) error { return permanent{err} }

type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// A Service is one wanted thing.
type Service struct {
	Name string
	// Needs names services earlier in the wanted set that this one cannot
	// outlive: it starts once all of them are live, its context ends when one
	// of them is not any more, and it comes back with them.
	Needs []string
	// Config is everything Run depends on. Apply restarts a service when, and
	// only when, its Config differs (reflect.DeepEqual) or one of its Needs
	// restarts. A service that ended for good runs again once its Config
	// differs.
	Config any
	// Run does the work until ctx ends. It calls live, before it returns, once
	// it is useful. A panic counts as an error.
	Run func(ctx context.Context, live func()) error
	// Grace is how long Run may take to return once ctx has ended; zero means
	// DefaultGrace.
	Grace time.Duration
}

// DefaultGrace is the time a service has to stop.
const DefaultGrace = 5 * time.Second

// Status is what the group says about a service.
type Status struct {
	State   State
	Err     error // why it is in Backoff or Failed
	Attempt int   // counts from 1; forgiven after 30 s live
	Retry   time.Time
}

// A Group runs services. Its methods may be called from any goroutine; Apply
// calls wait for each other.
type Group struct {
	// Report, if set, is called on every change of state, from several
	// goroutines. It must not block.
	Report func(name string, s Status)
	// Log gets one line for each failure.
	Log *slog.Logger

	mu      sync.Mutex
	running []*running // in start order

	leftMu sync.Mutex
	left   []*running // did not stop in time
}

// running is a service that is wanted now.
type running struct {
	Service
	needs  []*running
	cancel context.CancelFunc
	done   chan struct{}
	left   atomic.Bool // behind: another may have its name

	mu      sync.Mutex
	live    bool
	changed chan struct{} // closed at every change of live
}

// Apply makes want, listed in start order, the set of running services. It
// stops what is unwanted or changed, last started first, waits for it, and
// starts what is new or changed. Services that stay as they are do not notice.
// A service that does not stop within its Grace is reported as Stuck and left
// behind; see [Group.Stuck]. Cancelling ctx stops them all.
func (g *Group) Apply(ctx context.Context, want []Service) {
	g.mu.Lock()
	defer g.mu.Unlock()
	keep := g.unchanged(want)
	for _, r := range slices.Backward(g.running) {
		if keep[r.Name] == nil {
			g.stop(r)
		}
	}
	g.running = g.running[:0]
	for _, w := range want {
		r := keep[w.Name]
		if r == nil {
			r = g.start(ctx, w)
		}
		g.running = append(g.running, r)
	}
}

// unchanged returns the services that run as want has them.
func (g *Group) unchanged(want []Service) map[string]*running {
	keep := map[string]*running{}
	for _, w := range want {
		i := slices.IndexFunc(g.running, func(r *running) bool { return r.Name == w.Name })
		if i < 0 || !reflect.DeepEqual(g.running[i].Config, w.Config) || !slices.Equal(g.running[i].Needs, w.Needs) {
			continue
		}
		if slices.ContainsFunc(w.Needs, func(n string) bool { return keep[n] == nil }) {
			continue
		}
		keep[w.Name] = g.running[i]
	}
	return keep
}

func (g *Group) stop(r *running) {
	r.cancel()
	grace := r.Grace
	if grace == 0 {
		grace = DefaultGrace
	}
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case <-r.done:
	case <-late.C:
		g.log().Error("does not stop", "service", r.Name, "after", grace)
		g.leave(r)
	}
}

// leave says that r is stuck, the last word about it.
func (g *Group) leave(r *running) {
	g.report(r, Status{State: Stuck})
	r.left.Store(true)
	g.leftMu.Lock()
	defer g.leftMu.Unlock()
	g.left = append(g.left, r)
}

// Stuck names the services that were told to stop, did not within their Grace,
// and still run, though another service may run under the name by now.
func (g *Group) Stuck() []string {
	g.leftMu.Lock()
	defer g.leftMu.Unlock()
	g.left = slices.DeleteFunc(g.left, func(r *running) bool {
		select {
		case <-r.done:
			return true
		default:
			return false
		}
	})
	var names []string
	for _, r := range g.left {
		names = append(names, r.Name)
	}
	return names
}

func (g *Group) start(ctx context.Context, s Service) *running {
	ctx, cancel := context.WithCancel(ctx)
	r := &running{Service: s, cancel: cancel, done: make(chan struct{}), changed: make(chan struct{})}
	for _, name := range s.Needs {
		if i := slices.IndexFunc(g.running, func(o *running) bool { return o.Name == name }); i >= 0 {
			r.needs = append(r.needs, g.running[i])
		}
	}
	go func() {
		defer close(r.done)
		defer cancel()
		g.keep(ctx, r)
	}()
	return r
}

// keep runs r again and again until it ends well, fails for good, or ctx ends.
func (g *Group) keep(ctx context.Context, r *running) {
	for attempt := 1; ; attempt++ {
		g.report(r, Status{State: Starting, Attempt: attempt})
		lived, err := g.once(ctx, r)
		if lived >= settled {
			attempt = 1
		}
		switch {
		case ctx.Err() != nil, err == nil:
			g.report(r, Status{State: Stopped})
			return
		case errors.Is(err, errNeedLost):
			attempt = 0 // not its own fault
			continue
		case errors.As(err, new(permanent)):
			g.log().Error("failed for good", "service", r.Name, "err", err)
			g.report(r, Status{State: Failed, Err: err, Attempt: attempt})
			return
		}
		wait := delay(attempt)
		g.log().Warn("will retry", "service", r.Name, "err", err, "attempt", attempt, "in", wait)
		g.report(r, Status{State: Backoff, Err: err, Attempt: attempt, Retry: time.Now().Add(wait)})
		if !pause(ctx, wait) {
			g.report(r, Status{State: Stopped})
			return
		}
	}
}

// errNeedLost is the cause of a context that ended because a need was lost.
var errNeedLost = errors.New("a needed service is down")

// once waits for the needs of r, runs it, and returns how long it was live.
func (g *Group) once(parent context.Context, r *running) (lived time.Duration, err error) {
	for _, n := range r.needs {
		if n.await(parent, true) != nil {
			return 0, nil
		}
	}
	ctx, cancel := context.WithCancelCause(parent)
	var guards sync.WaitGroup
	for _, n := range r.needs {
		guards.Go(func() {
			if n.await(ctx, false) == nil {
				cancel(errNeedLost)
			}
		})
	}
	defer guards.Wait()
	defer cancel(nil)

	var since time.Time
	err = guarded(ctx, r.Run, func() {
		if since.IsZero() {
			since = time.Now()
			g.report(r, Status{State: Live})
			r.setLive(true)
		}
	})
	r.setLive(false)
	if !since.IsZero() {
		lived = time.Since(since)
	}
	if parent.Err() == nil && errors.Is(context.Cause(ctx), errNeedLost) {
		err = errNeedLost
	}
	return lived, err
}

// guarded turns a panic of run into an error.
func guarded(ctx context.Context, run func(context.Context, func()) error, live func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return run(ctx, live)
}

func (r *running) setLive(live bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.live != live {
		r.live = live
		close(r.changed)
		r.changed = make(chan struct{})
	}
}

// await returns nil once r is live, or not, as wanted.
func (r *running) await(ctx context.Context, live bool) error {
	for {
		r.mu.Lock()
		is, changed := r.live, r.changed
		r.mu.Unlock()
		if is == live {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// settled is how long a service must have been live for its past failures to
// be forgiven; one that flaps keeps its growing delay.
const settled = 30 * time.Second

// delay doubles from half a second to half a minute, with a quarter of jitter
// so that a fleet does not come back all at once.
func delay(attempt int) time.Duration {
	d := min(500*time.Millisecond<<min(max(attempt, 1)-1, 6), 30*time.Second)
	return d*3/4 + rand.N(d/2)
}

// pause reports whether wait went by before ctx ended.
func pause(ctx context.Context, wait time.Duration) bool {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (g *Group) report(r *running, s Status) {
	if g.Report != nil && !r.left.Load() {
		g.Report(r.Name, s)
	}
}

func (g *Group) log() *slog.Logger {
	if g.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return g.Log
}
