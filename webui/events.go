package webui

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"encoderd.example/daemon/status"
)

const (
	// maxStreams leaves most connections to short requests, and maxStreamsEach
	// leaves some of these streams to others than one address.
	maxStreams     = 64
	maxStreamsEach = 16
	// pace is the least time from event to event: five a second.
	pace = 200 * time.Millisecond
	// beat is how often a page hears from the box even if nothing changes, so
	// that it can tell a quiet box from a dead link.
	beat = 5 * time.Second
	// patience is how long one event may take to leave.
	patience = 10 * time.Second
)

// events streams the state as server-sent events: "status" with the whole
// state and its version as id, and "alive" with the box's time. A slow page
// misses states in between but never the latest.
func (a *api) events(w http.ResponseWriter, r *http.Request) {
	leave, ok := a.streams.Enter(r.RemoteAddr)
	if !ok {
		w.Header().Set("Retry-After", "10")
		problem(w, http.StatusServiceUnavailable, "Too many pages are open", "Close some of them.")
		return
	}
	defer leave()
	s := pageStream{w, http.NewResponseController(w)}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	a.follow(r.Context(), s)
}

// follow sends until ctx ends, the page is gone or the box stops.
func (a *api) follow(ctx context.Context, s pageStream) {
	box, seen := a.Box.Status()
	err := s.alive()
	if err == nil {
		err = s.send("status", seen, tidy(box))
	}
	for err == nil && pause(ctx, pace) {
		next, version, waited := a.wait(ctx, seen)
		switch {
		case waited == nil:
			seen = version
			err = s.send("status", seen, tidy(next))
		case ctx.Err() == nil && errors.Is(waited, context.DeadlineExceeded):
			err = s.alive()
		default:
			return
		}
	}
}

// wait waits for the next state, for the time of a beat.
func (a *api) wait(ctx context.Context, seen uint64) (status.Box, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, beat)
	defer cancel()
	return a.Box.Wait(ctx, seen)
}

// pause waits for d, or returns false once ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// A pageStream writes events to one page.
type pageStream struct {
	w   http.ResponseWriter
	ctl *http.ResponseController
}

// alive tells the box's time, by which pages count seconds.
func (s pageStream) alive() error {
	data, err := json.Marshal(map[string]time.Time{"now": time.Now()})
	if err != nil {
		return err
	}
	return s.write("event: alive\ndata: %s\n\n", data)
}

func (s pageStream) send(event string, id uint64, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.write("event: %s\nid: %d\ndata: %s\n\n", event, id, data)
}

func (s pageStream) write(format string, args ...any) error {
	if err := s.ctl.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.w, format, args...); err != nil {
		return err
	}
	return s.ctl.Flush()
}
