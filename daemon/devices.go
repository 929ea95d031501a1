package daemon

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/hw"
	"encoderd.example/hw/pion"
)

// devices knows what is plugged in: the board's drivers find it, mediadevices'
// driver manager lists it.
type devices struct {
	board    hw.Board
	registry *pion.Registry
	log      *slog.Logger
	encoders func()                // looks for encoders; it may be slow
	scans    status.Cell[struct{}] // its version counts scans

	mu      sync.Mutex // held while scanning
	trouble string     // of the last scan
}

// rescan is how often the box looks by itself, in case an event was lost.
const rescan = 5 * time.Second

// run keeps the list true until ctx ends.
func (d *devices) run(ctx context.Context, live func()) error {
	kick := make(chan struct{}, 1)
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() {
		d.watch(ctx, func() {
			select {
			case kick <- struct{}{}:
			default:
			}
		})
	})
	tick := time.NewTicker(rescan)
	defer tick.Stop()
	d.scan()
	live()
	for {
		select {
		case <-kick:
		case <-tick.C:
		case <-ctx.Done():
			return d.registry.Sync(nil, nil)
		}
		d.scan()
		d.encoders()
	}
}

// watch listens for events until ctx ends. A board that cannot, for want of a
// right or after too many events at once, costs no picture: the box still looks
// by itself.
func (d *devices) watch(ctx context.Context, changed func()) {
	if d.board.Watch == nil {
		return
	}
	again := time.NewTicker(rescan)
	defer again.Stop()
	for {
		if err := d.board.Watch(ctx, changed); err != nil && ctx.Err() == nil {
			d.log.Warn("cannot hear of devices", "service", "devices", "err", err, "again_in", rescan)
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return
		}
	}
}

// scan lists what is plugged in now.
func (d *devices) scan() {
	d.mu.Lock()
	defer d.mu.Unlock()
	cameras, err := d.board.Cameras()
	mics, err2 := d.board.Mics()
	err3 := d.registry.Sync(cameras, mics)
	words := text(errors.Join(err, err2, err3))
	if words != d.trouble && words != "" {
		d.log.Warn("cannot list all devices", "service", "devices", "err", words)
	}
	d.trouble = words
	d.scans.Update(func(*struct{}) {})
}

// camera waits for the camera that source means.
func (d *devices) camera(ctx context.Context, source string) (hw.Camera, error) {
	if source == "test" {
		return d.board.TestCamera, nil
	}
	return await(ctx, d, func() (hw.Camera, bool) {
		return choose(d.registry.Cameras(), d.board.FindCamera, source, hw.Camera.ID)
	})
}

// mic waits for the microphone that source means. "auto" is rather the one that
// is a part of the device beside.
func (d *devices) mic(ctx context.Context, source, beside string) (hw.Mic, error) {
	if source == "test" {
		return d.board.TestMic, nil
	}
	return await(ctx, d, func() (hw.Mic, bool) {
		list := d.registry.Mics()
		if i := slices.IndexFunc(list, func(m hw.Mic) bool { return partOf(m, beside) }); i > 0 && source == "auto" {
			return list[i], true
		}
		return choose(list, d.board.FindMic, source, hw.Mic.ID)
	})
}

// partOf reports whether v is a part of the device parent, which is not "".
func partOf(v any, parent string) bool {
	a, ok := v.(hw.Attached)
	return ok && parent != "" && a.Parent() == parent
}

// await asks find after every scan until it finds something.
func await[T any](ctx context.Context, d *devices, find func() (T, bool)) (T, error) {
	_, seen := d.scans.Get()
	for {
		if v, ok := find(); ok {
			return v, nil
		}
		var err error
		if _, seen, err = d.scans.Wait(ctx, seen); err != nil {
			var none T
			return none, err
		}
	}
}

// choose returns the device that source names, or for "auto" the first. What
// the list does not show, the board's own find may know.
func choose[T any](list []T, find func(string) (T, error), source string, id func(T) string) (T, bool) {
	var none T
	if source == "auto" {
		if len(list) == 0 {
			return none, false
		}
		return list[0], true
	}
	if i := slices.IndexFunc(list, func(v T) bool { return id(v) == source }); i >= 0 {
		return list[i], true
	}
	if find == nil {
		return none, false
	}
	v, err := find(source)
	return v, err == nil
}
