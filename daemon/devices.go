package daemon

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/hw"
	"encoderd.example/hw/pion"
)

// devices knows what is plugged in: the board's drivers find it, mediadevices'
// driver manager lists it. A search that hangs holds up nobody: the list stays as
// it was, and what the search finds in the end counts. Boards open a video device
// for it only once, so that one that hangs later hides no other.
type devices struct {
	board    hw.Board
	registry *pion.Registry
	log      *slog.Logger
	calls    *calls
	encoders encoderSearch
	scans    status.Cell[struct{}] // its version counts scans
	wake     chan struct{}         // holds a token if something may have changed
	deaf     atomic.Bool           // nobody tells of events

	mu       sync.Mutex
	running  bool
	cameras  []hw.Camera
	mics     []hw.Mic
	asked    map[plugging]int // calls into drivers of cameras that have not come back
	missed   bool             // one of those was looked for
	troubles map[string]error // by what was tried
	trouble  string           // all of them, as told
}

// An encoderSearch looks for encoders.
type encoderSearch struct {
	look func() // it may be slow
	// open reports whether another look may bring something though nobody told
	// of an event.
	open func() bool
}

// rescan is how often the box looks by itself, in case an event was lost.
// Encoders are opened each time, which some do not like while others code: they
// are looked at less often.
const (
	rescan         = 5 * time.Second
	rescanEncoders = time.Minute
)

// The searches, by the names that people read if they hang.
const (
	findCameras  = "find cameras"
	findMics     = "find sound cards"
	findEncoders = "find encoders"
	listDevices  = "list devices"
)

func newDevices(b hw.Board, c *calls, log *slog.Logger) *devices {
	return &devices{
		board: b, registry: pion.NewRegistry(), calls: c, log: log,
		wake: make(chan struct{}, 1), troubles: map[string]error{}, asked: map[plugging]int{},
	}
}

// run keeps the list true until ctx ends.
func (d *devices) run(ctx context.Context, live func()) error {
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { d.watch(ctx) })
	tick := time.NewTicker(rescan)
	defer tick.Stop()
	d.begin()
	d.scan(ctx)
	live()
	for looked := time.Now(); ; {
		told := false
		select {
		case <-d.wake:
			told = true
		case <-tick.C:
		case <-ctx.Done():
			return d.end()
		}
		d.scan(ctx)
		if told || d.deaf.Load() || d.encoders.open() || time.Since(looked) >= rescanEncoders {
			looked = time.Now()
			d.encoders.look()
		}
	}
}

// changed says that something may have been plugged in or out.
func (d *devices) changed() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// refresh waits until the list has been made anew, or ctx ends.
func (d *devices) refresh(ctx context.Context) {
	_, seen := d.scans.Get()
	d.changed()
	_, _, _ = d.scans.Wait(ctx, seen)
}

// watch listens for events until ctx ends. A board that cannot, for want of a
// right or after too many events at once, costs no picture: the box still looks
// by itself.
func (d *devices) watch(ctx context.Context) {
	if d.board.Watch == nil {
		d.deaf.Store(true)
		return
	}
	again := time.NewTicker(rescan)
	defer again.Stop()
	for {
		d.deaf.Store(false)
		if err := d.board.Watch(ctx, d.changed); err != nil && ctx.Err() == nil {
			d.log.Warn("cannot hear of devices", "service", "devices", "err", err, "again_in", rescan)
		}
		d.deaf.Store(true)
		select {
		case <-again.C:
		case <-ctx.Done():
			return
		}
	}
}

func (d *devices) begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running = true
}

// end takes all devices out of the list; what is still being looked for comes
// too late.
func (d *devices) end() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running, d.cameras, d.mics = false, nil, nil
	return d.registry.Sync(nil, nil)
}

// scan lists what is plugged in now.
func (d *devices) scan(ctx context.Context) {
	look(ctx, d, findCameras, d.board.Cameras, func(list []hw.Camera) { d.cameras = list })
	look(ctx, d, findMics, d.board.Mics, func(list []hw.Mic) { d.mics = list })
	d.scans.Update(func(*struct{}) {})
}

// look makes one kind of the list anew, unless the look before still hangs. keep
// runs under mu.
func look[T any](ctx context.Context, d *devices, what string, find func() ([]T, error), keep func([]T)) {
	if d.calls.hangs(what) {
		return
	}
	type found struct {
		list []T
		err  error
	}
	take := func(f found) {
		d.take(what, f.err, func() { keep(f.list) })
		d.scans.Update(func(*struct{}) {})
	}
	now, err := attempt(d.calls, ctx.Done(), findPatience, what, func() (found, error) {
		list, err := find()
		return found{list, err}, nil
	}, take)
	switch {
	case errors.Is(err, errNotAwaited):
	case err != nil:
		d.take(what, err, func() {})
	default:
		d.take(what, now.err, func() { keep(now.list) })
	}
}

// take takes in what a look has found, or why it has not.
func (d *devices) take(what string, err error, keep func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.running {
		return
	}
	keep()
	d.troubles[what] = err
	d.troubles[listDevices] = d.registry.Sync(d.cameras, d.mics)
	words := text(errors.Join(d.troubles[findCameras], d.troubles[findMics], d.troubles[listDevices]))
	if words != d.trouble && words != "" {
		d.log.Warn("cannot list all devices", "service", "devices", "err", words)
	}
	d.trouble = words
}

// camera waits for the camera that source means. One whose driver hangs is as
// good as none.
func (d *devices) camera(ctx context.Context, source string) (hw.Camera, error) {
	if source == "test" {
		return d.board.TestCamera, nil
	}
	return await(ctx, d, func() (hw.Camera, bool) {
		free := slices.DeleteFunc(d.registry.Cameras(), d.engaged)
		return choose(free, d.free(patient(ctx, d, d.board.FindCamera)), source, hw.Camera.ID)
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
		return choose(list, patient(ctx, d, d.board.FindMic), source, hw.Mic.ID)
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

// patient is a board's own find with an end.
func patient[T any](ctx context.Context, d *devices, find func(string) (T, error)) func(string) (T, error) {
	if find == nil {
		return nil
	}
	return func(source string) (v T, err error) {
		what := "find " + source
		if d.calls.hangs(what) {
			return v, errHangs
		}
		return attempt(d.calls, ctx.Done(), findPatience, what, func() (T, error) { return find(source) }, func(T) {})
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
