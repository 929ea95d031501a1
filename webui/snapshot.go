package webui

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// fresh is how long one picture serves all pages that ask for it: a page asks
// once a second, and coding a JPEG takes the processor's time from the show.
const fresh = 500 * time.Millisecond

// A shot is the latest snapshot of a rendition.
type shot struct {
	jpeg  []byte
	taken time.Time
}

func (a *api) snapshot(w http.ResponseWriter, r *http.Request) {
	name, ok := strings.CutSuffix(r.PathValue("file"), ".jpg")
	if !ok {
		notFound(w, r)
		return
	}
	jpeg, err := a.shoot(r.Context(), name)
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "image/jpeg")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Length", strconv.Itoa(len(jpeg)))
		_, _ = w.Write(jpeg) //nolint:gosec // a picture by its type and nosniff; fails only if the client has gone
	case errors.Is(err, ErrUnknown):
		problem(w, http.StatusNotFound, "No such rendition", "The renditions are listed at /api/v1/status.")
	case errors.Is(err, ErrNotYet):
		w.Header().Set("Retry-After", "1")
		problem(w, http.StatusServiceUnavailable, "No picture yet", err.Error())
	default:
		problem(w, http.StatusInternalServerError, "No picture", err.Error())
	}
}

// shoot takes one snapshot at a time, and only if the last one is not fresh.
func (a *api) shoot(ctx context.Context, name string) ([]byte, error) {
	select {
	case a.camera <- struct{}{}:
		defer func() { <-a.camera }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if s, ok := a.shots[name]; ok && time.Since(s.taken) < fresh {
		return s.jpeg, nil
	}
	jpeg, err := a.Box.Snapshot(ctx, name)
	if err != nil {
		delete(a.shots, name)
		return nil, err
	}
	a.shots[name] = shot{jpeg, time.Now()}
	return jpeg, nil
}
