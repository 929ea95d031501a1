package obs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"

	"encoderd.example/daemon/tally"
)

// A session is one connection, once we are let in.
type session struct {
	link Link
	conn *websocket.Conn
	desk tally.Desk
	look chan struct{} // the stage may differ from what we know

	mu      sync.Mutex
	stage   stage
	changes int       // events so far that changed the stage
	moving  time.Time // since when another scene collection is being loaded
	waiting string    // request that waits for its answer
	answers chan response

	requests int // of the asker alone
}

func newSession(l Link, conn *websocket.Conn, d tally.Desk) *session {
	return &session{link: l, conn: conn, desk: d, look: make(chan struct{}, 1), answers: make(chan response, 1)}
}

var (
	errExit   = errors.New("OBS is being closed")
	errMoving = errors.New("OBS is loading another scene collection")
)

// maxMoving is how long a scene collection may take to be loaded.
const maxMoving = 30 * time.Second

// run hears and asks until ctx ends or the connection does.
func (s *session) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var asker sync.WaitGroup
	asker.Go(func() { cancel(s.ask(ctx)) })
	defer asker.Wait()
	defer cancel(nil)
	for {
		kind, b, err := s.conn.Read(ctx)
		if websocket.CloseStatus(err) >= 0 {
			return err // says why, which the asker does not know
		}
		if err != nil {
			return cmp.Or(context.Cause(ctx), err)
		}
		s.desk.Alive("")
		if kind != websocket.MessageText {
			s.desk.Bad("", errors.New("the message is no text"))
			continue
		}
		if err := s.hear(b); err != nil {
			return err
		}
	}
}

// hear takes one message. An error ends the session.
func (s *session) hear(b []byte) error {
	var m message
	if err := json.Unmarshal(b, &m); err != nil {
		s.desk.Bad("", err)
		return nil
	}
	switch m.Op {
	case opEvent:
		var e event
		if err := json.Unmarshal(m.Data, &e); err != nil {
			s.desk.Bad("", err)
			return nil
		}
		return s.happened(e)
	case opResponse:
		var r response
		if err := json.Unmarshal(m.Data, &r); err != nil {
			s.desk.Bad("", err)
			return nil
		}
		s.answered(r)
	}
	return nil
}

// happened takes what an event says, and lets the asker look for what it does
// not say.
func (s *session) happened(e event) error {
	if e.Type == "ExitStarted" {
		return errExit
	}
	s.mu.Lock()
	changed := s.change(e)
	s.mu.Unlock()
	if changed {
		s.report()
		s.lookAgain()
	}
	return nil
}

// change takes what an event says. It reports whether the event matters. The
// caller holds the lock.
func (s *session) change(e event) bool {
	switch e.Type {
	case "CurrentProgramSceneChanged":
		if e.Data.SceneName != nil {
			s.stage.program, s.stage.known = *e.Data.SceneName, true
		}
	case "CurrentPreviewSceneChanged":
		s.stage.preview, s.stage.staged = "", nil
		if e.Data.SceneName != nil {
			s.stage.preview = *e.Data.SceneName
		}
	case "StudioModeStateChanged":
		if on := e.Data.StudioModeOn; on != nil && !*on {
			s.stage.preview, s.stage.staged = "", nil
		}
	case "InputActiveStateChanged":
		if !s.follows(e.Data.InputName) || e.Data.VideoActive == nil {
			return false
		}
		s.stage.active = with(s.stage.active, e.Data.InputName, *e.Data.VideoActive)
	case "InputShowStateChanged":
		return s.follows(e.Data.InputName)
	case "CurrentSceneCollectionChanging":
		s.stage, s.moving = stage{}, time.Now()
	case "CurrentSceneCollectionChanged":
		s.moving = time.Time{}
	case "SceneCreated", "SceneRemoved", "SceneNameChanged", "SceneListChanged",
		"InputCreated", "InputRemoved", "InputNameChanged",
		"SceneTransitionStarted", "SceneTransitionEnded", "SceneTransitionVideoEnded",
		"SceneItemCreated", "SceneItemRemoved", "SceneItemEnableStateChanged":
		// Only asking tells what that means.
	default:
		return false
	}
	s.changes++
	return true
}

// with is a copy of a map with one more entry.
func with(m map[string]bool, key string, value bool) map[string]bool {
	all := map[string]bool{key: value}
	for k, v := range m {
		if k != key {
			all[k] = v
		}
	}
	return all
}

func (s *session) follows(name string) bool {
	for _, in := range s.link.Sources {
		if in.Name == name {
			return true
		}
	}
	return false
}

func (s *session) lookAgain() {
	select {
	case s.look <- struct{}{}:
	default:
	}
}

// report tells the desk what the stage says of every source.
func (s *session) report() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, in := range s.link.Sources {
		switch state, err := s.stage.state(in); {
		case !s.moving.IsZero():
			s.desk.Missing(name, errMoving)
		case err != nil:
			s.desk.Missing(name, err)
		case state != "":
			s.desk.Says(name, "", state)
		}
	}
}

func (s *session) answered(r response) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.ID != s.waiting || r.ID == "" {
		return
	}
	s.waiting = ""
	s.answers <- r
}

// request asks one thing and waits for the answer. An error ends the session;
// that OBS cannot answer is none, and that it must not be asked now is neither.
func (s *session) request(ctx context.Context, kind string, data any) (response, error) {
	s.requests++
	id := strconv.Itoa(s.requests)
	b, err := frame(opRequest, request{Type: kind, ID: id, Data: data})
	if err != nil {
		return response{}, err
	}
	s.mu.Lock()
	s.waiting = id
	moving := !s.moving.IsZero()
	s.mu.Unlock()
	if moving {
		return response{}, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.link.Timeout, fmt.Errorf("OBS has not answered %s for %v", kind, s.link.Timeout))
	defer cancel()
	if err := s.conn.Write(ctx, websocket.MessageText, b); err != nil {
		return response{}, cmp.Or(context.Cause(ctx), err)
	}
	select {
	case r := <-s.answers:
		return r, nil
	case <-ctx.Done():
		return response{}, context.Cause(ctx)
	}
}
