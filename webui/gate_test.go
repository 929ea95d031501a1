package webui

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"encoderd.example/daemon/status"
)

// A gate is a server that can vanish and come back under the same address.
type gate struct {
	*httptest.Server
	closed atomic.Bool
	count  atomic.Int64 // requests so far
	open   atomic.Int64 // requests that are being answered
}

func newGate(t *testing.T, h http.Handler) *gate {
	t.Helper()
	g := &gate{}
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.closed.Load() {
			panic(http.ErrAbortHandler) // as if the box had no power
		}
		g.count.Add(1)
		g.open.Add(1)
		defer g.open.Add(-1)
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		g.CloseClientConnections()
		g.Close()
	})
	return g
}

// shut cuts all connections and refuses new ones.
func (g *gate) shut() {
	g.closed.Store(true)
	g.CloseClientConnections()
}

func setState(f *fakeBox, state string) {
	f.cell.Update(func(b *status.Box) { b.State = state })
}
