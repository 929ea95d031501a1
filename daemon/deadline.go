package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"encoderd.example/hw"
)

// errHangs says that a driver did not return in time, or said itself that its
// device does not stop. The call is left behind.
var errHangs = errors.New("hangs")

// A calls list holds the calls into drivers that were left behind: a wedged
// device can keep its closer for ever, and must not keep the show.
type calls struct {
	mu   sync.Mutex
	left map[string]int
}

// within calls f and waits at most d for it. If f takes longer, within returns
// an error that wraps errHangs and drops what f returns later.
func within[T any](c *calls, d time.Duration, what string, f func() (T, error), drop func(T)) (T, error) {
	return attempt(c, nil, d, what, f, drop)
}

// errNotAwaited says that a call was left behind because its caller stops.
var errNotAwaited = errors.New("not waited for")

// attempt is within for a caller that stops waiting when stop is closed.
func attempt[T any](c *calls, stop <-chan struct{}, d time.Duration, what string, f func() (T, error), drop func(T)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result)
	abandoned := make(chan struct{})
	go func() {
		v, err := f()
		select {
		case done <- result{v, err}:
		case <-abandoned:
			if err == nil {
				drop(v)
			}
			c.add(what, -1)
		}
	}()
	timer := time.NewTimer(d)
	defer timer.Stop()
	var none T
	var err error
	select {
	case r := <-done:
		return r.v, r.err
	case <-timer.C:
		err = fmt.Errorf("%s: %w: no answer within %v", what, errHangs, d)
	case <-stop:
		err = fmt.Errorf("%s: %w", what, errNotAwaited)
	}
	c.add(what, 1)
	close(abandoned)
	return none, err
}

// lag returns a channel that closes when ctx has ended for as long as grace, for
// calls that mind ctx. Whoever no longer waits calls forget.
func lag(ctx context.Context, grace time.Duration) (stop <-chan struct{}, forget func()) {
	late, end := context.WithCancel(context.WithoutCancel(ctx))
	unhook := context.AfterFunc(ctx, func() { time.AfterFunc(grace, end) })
	return late.Done(), func() {
		unhook()
		end()
	}
}

// askAgain is how often a device that does not stop is asked whether it has.
const askAgain = time.Second

// closeInTime closes a device and waits at most closePatience for that. A device
// that says that it does not stop is on the list until it has.
func (c *calls) closeInTime(what string, closer func() error) error {
	_, err := within(c, closePatience, what, func() (struct{}, error) {
		err := closer()
		if errors.Is(err, hw.ErrStuck) {
			c.add(what, 1)
			go c.await(what, closer)
			err = fmt.Errorf("%s: %w: %w", what, errHangs, err)
		}
		return struct{}{}, err
	}, func(struct{}) {})
	return err
}

// await takes a device off the list once its driver has let it go.
func (c *calls) await(what string, closer func() error) {
	for errors.Is(closer(), hw.ErrStuck) {
		<-time.After(askAgain)
	}
	c.add(what, -1)
}

func (c *calls) add(what string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left == nil {
		c.left = map[string]int{}
	}
	if c.left[what] += n; c.left[what] == 0 {
		delete(c.left, what)
	}
}

// hangs reports whether such a call was left behind and has not come back.
func (c *calls) hangs(what string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.left[what] > 0
}

// list names the calls that still hang.
func (c *calls) list() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.left))
}
