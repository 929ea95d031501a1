package uevent

import (
	"context"
	"time"
)

// When to look after an event: once devices stop coming, which for a camera with
// its sound card takes some tens of milliseconds, and again when udev must have
// finished with links and permissions.
const (
	quiet   = 300 * time.Millisecond
	settled = 2 * time.Second
)

// Watch calls changed whenever cameras or sound cards may have come or gone,
// until ctx ends (nil) or the kernel's socket fails. A burst of events makes two
// calls: one when it is over and one after udev has set permissions. changed
// must not block; it runs on one goroutine at a time and never after Watch has
// returned. Watch has the signature of hw.Board.Watch.
func Watch(ctx context.Context, changed func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := make(chan struct{}, 1)
	over := make(chan struct{})
	go func() {
		defer close(over)
		settle(ctx, events, changed)
	}()
	err := Listen(ctx, []string{"video4linux", "sound"}, func(Event) {
		select {
		case events <- struct{}{}:
		default: // one is waiting already
		}
	})
	cancel()
	<-over
	return err
}

// settle calls changed quiet and settled after the last of a burst of events.
func settle(ctx context.Context, events <-chan struct{}, changed func()) {
	soon, late := stoppedTimer(), stoppedTimer()
	defer soon.Stop()
	defer late.Stop()
	for {
		select {
		case <-events:
			soon.Reset(quiet)
			late.Reset(settled)
		case <-soon.C:
			changed()
		case <-late.C:
			changed()
		case <-ctx.Done():
			return
		}
	}
}

func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}
