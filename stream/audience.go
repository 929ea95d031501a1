package stream

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// An Audience is the list of who watches what. The zero value is ready; all
// methods may be called from any goroutine.
type Audience struct {
	mu      sync.Mutex
	viewers []*Viewer
}

// A Viewer is one reader of one rendition. Its owner adds to the counters.
type Viewer struct {
	Protocol  string // "rtsp/tcp", "rtsp/udp", "rtmp" …
	Rendition string
	Peer      string // address of the far side
	Since     time.Time

	Bytes atomic.Uint64 // handed to the network
	Lost  atomic.Uint64 // units skipped because the reader was too slow
}

// Join adds v until the returned function is called.
func (a *Audience) Join(v *Viewer) (leave func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.viewers = append(a.viewers, v)
	return sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.viewers = slices.DeleteFunc(a.viewers, func(o *Viewer) bool { return o == v })
	})
}

// Viewers returns who watches now, in the order of joining.
func (a *Audience) Viewers() []*Viewer {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.viewers)
}
