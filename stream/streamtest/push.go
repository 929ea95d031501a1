// Package streamtest is the conformance suite of everything that pushes: a new
// protocol brings a far side that takes orders and a way to open a push, and
// gets its tests. It also makes the coded media that tests send.
//
//	Media ─► Source ─► Rendition ─► push under test ─► FarSide ─► Events
//
// This is test infrastructure: nothing of the daemon imports it.
package streamtest

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"encoderd.example/stream"
	"encoderd.example/stream/streamtest/peer"
)

// Behaviour is what a far side is ordered to do.
type Behaviour int

// The orders.
const (
	Accept Behaviour = iota // take everything and say so
	Refuse                  // refuse for good, in words that repeat the key
	Busy                    // refuse for now, in words that repeat the key
	Mute                    // take the connection and never answer
	Stall                   // let the push begin, then read nothing any more
	HangUp                  // let the push begin, then close the connection
)

// Event is a thing that a far side has noticed.
type Event string

// The events. A far side of a protocol without headers or goodbyes reports
// what comes nearest, such as parameter sets or the end of the connection.
const (
	VideoHeader Event = "video header"
	SoundHeader Event = "sound header"
	KeyPicture  Event = "key picture"
	Picture     Event = "picture" // not a key
	Sound       Event = "sound"
	Goodbye     Event = "goodbye"
)

// A FarSide is a server of the protocol under test. It ends with the test.
type FarSide interface {
	URL() string
	// Events returns what was noticed so far, over all connections.
	Events() []Event
}

// A Protocol is what the suite tests.
type Protocol struct {
	Serve func(t *testing.T, b Behaviour) FarSide
	Open  func(t *testing.T, url, key string, log *slog.Logger) stream.Push
	// Patience is after how long a far side that takes nothing is an error.
	Patience time.Duration
	// Closed is a URL at which nobody listens.
	Closed func(t *testing.T) string
}

// secret must never be seen in errors and logs.
const secret = "canary-5e1f"

// promptly is how long a push may take to return when its context ends: two
// seconds for the goodbye and one for a busy machine.
const promptly = 3 * time.Second

// Push runs the suite.
func Push(t *testing.T, p Protocol) {
	t.Helper()
	m := NewMedia(t, 2*GOP)
	s := &suite{Protocol: p, media: m}
	tests := []struct {
		name string
		run  func(*testing.T)
	}{
		{"media arrives, begins with a key picture, and receipt is confirmed", s.live},
		{"a new track brings its header again", s.retrack},
		{"the end is a goodbye", s.goodbye},
		{"a push without a source ends with its context", s.noSource},
		{"a push to a mute server ends with its context", s.mute},
		{"a push to a stalled server ends with its context", s.cancelStalled},
		{"a server that takes nothing is an error", s.stall},
		{"a closed port is an error to try again", s.closed},
		{"a refusal is permanent", s.refuse},
		{"a busy server is an error to try again", s.busy},
		{"a lost connection is an error to try again", s.hangUp},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			leaks := goleak.IgnoreCurrent()
			t.Cleanup(func() { goleak.VerifyNone(t, leaks) }) // runs last
			tt.run(t)
		})
	}
}

type suite struct {
	Protocol
	media *Media
}

// A trial is one push that runs.
type trial struct {
	far    FarSide
	src    *stream.Rendition
	source *Source
	cancel context.CancelFunc
	done   chan struct{}
	err    error // once done is closed
	ended  time.Time

	mu  sync.Mutex
	all []stream.PushReport
	log bytes.Buffer
}

func (s *suite) begin(t *testing.T, url string, far FarSide) *trial {
	t.Helper()
	r := &trial{far: far, src: s.media.Rendition(512), source: &Source{Media: s.media, Start: stream.Monotonic()}, done: make(chan struct{})}
	push := s.Open(t, url, secret, slog.New(slog.NewTextHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug})))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	r.cancel = cancel
	go func() {
		defer close(r.done)
		r.err = push.Run(ctx, r.src, r.tell)
		r.ended = time.Now()
	}()
	t.Cleanup(func() {
		cancel()
		<-r.done
		r.silent(t)
	})
	return r
}

func (s *suite) serve(t *testing.T, b Behaviour) *trial {
	t.Helper()
	far := s.Serve(t, b)
	return s.begin(t, far.URL(), far)
}

// Write takes the log.
func (r *trial) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.Write(p)
}

func (r *trial) tell(report stream.PushReport) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, report)
}

func (r *trial) reports() []stream.PushReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.all)
}

// silent checks that no secret has come out.
func (r *trial) silent(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if strings.Contains(r.log.String(), secret) {
		t.Errorf("the log shows the key: %s", &r.log)
	}
	if r.err != nil && strings.Contains(r.err.Error(), secret) {
		t.Errorf("the error shows the key: %v", r.err)
	}
}

// failure waits for the push to end with an error.
func (r *trial) failure(t *testing.T, within time.Duration) error {
	t.Helper()
	select {
	case <-r.done:
	case <-time.After(within):
		t.Fatalf("no error within %v", within)
	}
	if r.err == nil {
		t.Fatal("the push ended without an error")
	}
	return r.err
}

// stop cancels and wants nil in time.
func (r *trial) stop(t *testing.T) {
	t.Helper()
	begin := time.Now()
	r.cancel()
	select {
	case <-r.done:
	case <-time.After(peer.Patience):
		t.Fatal("the push does not end")
	}
	if took := r.ended.Sub(begin); took > promptly || r.err != nil {
		t.Errorf("ended after %v with %v", took, r.err)
	}
}

func (r *trial) sees(e Event, times int) func() bool {
	return func() bool { return count(r.far.Events(), e) >= times }
}

func (r *trial) reached(state stream.PushState) func() bool {
	return func() bool {
		all := r.reports()
		return len(all) > 0 && all[len(all)-1].State == state
	}
}

func count(events []Event, want Event) (n int) {
	for _, e := range events {
		if e == want {
			n++
		}
	}
	return n
}
