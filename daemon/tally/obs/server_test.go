package obs

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"sync"
	"testing"

	"github.com/coder/websocket"
)

// What the published protocol says of an OBS with authentication; see
// docs/generated/protocol.md of obs-websocket 5.
const (
	challenge = "+IxH4CnCiqpX1rM9scsNynZzbOe4KhDeYcTNS3PDaeY="
	salt      = "lM1GncleQOaCu9lT1yeUZhFYnqhsLLP1G5lAGo3ixaI="
	password  = "supersecretpassword"
	proof     = "1Ct943GAT+6YQUUX47Ia/ncufilbe6+oD6lY+5kaCu4="
)

type object = map[string]any

// A studio is an OBS that speaks the protocol from its own model.
type studio struct {
	t *testing.T
	// open lets everybody in; old is an OBS before 28.
	open, old bool
	// answers, if set, makes another answer of the right one.
	answers func(kind string, right object) object

	mu      sync.Mutex
	program string
	preview string // "" = no studio mode
	scenes  map[string][]shown
	fading  string // scene that is seen, too, during a transition
	asked   map[string]int
	conns   map[*websocket.Conn]bool
}

// shown is an item of a scene.
type shown struct {
	name   string
	kind   string // input, scene, group
	hidden bool
}

// church has a scene nested in another, and an input in a group.
func church(t *testing.T) *studio {
	t.Helper()
	return &studio{
		t: t, program: "Slides", conns: map[*websocket.Conn]bool{}, asked: map[string]int{},
		scenes: map[string][]shown{
			"Slides":  {{"Screen", "input", false}},
			"Altar":   {{"Box", "input", false}, {"Title", "input", false}},
			"Both":    {{"Screen", "input", false}, {"Altar", "scene", false}},
			"Singers": {{"Corner", "group", false}, {"Box", "input", true}},
			"Corner":  {{"Box", "input", false}},
		},
	}
}

func (s *studio) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"obswebsocket.json"}})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	if conn.Subprotocol() != "obswebsocket.json" {
		s.t.Errorf("subprotocol %q", conn.Subprotocol())
	}
	ctx := r.Context()
	if !s.letIn(ctx, conn) {
		return
	}
	s.mu.Lock()
	s.conns[conn] = true
	s.mu.Unlock()
	for {
		var m message
		if !s.read(ctx, conn, &m) {
			return
		}
		s.serve(ctx, conn, m)
	}
}

// letIn greets as the protocol says, and refuses with its codes.
func (s *studio) letIn(ctx context.Context, conn *websocket.Conn) bool {
	if s.old {
		conn.Close(closedVersion, "You need to update")
		return false
	}
	hello := object{"obsStudioVersion": "30.2.2", "obsWebSocketVersion": "5.5.2", "rpcVersion": 1}
	if !s.open {
		hello["authentication"] = object{"challenge": challenge, "salt": salt}
	}
	s.write(ctx, conn, object{"op": 0, "d": hello})
	var m struct {
		Op   int `json:"op"`
		Data struct {
			RPCVersion     int    `json:"rpcVersion"`
			Authentication string `json:"authentication"`
			Events         int    `json:"eventSubscriptions"`
		} `json:"d"`
	}
	if !s.read(ctx, conn, &m) {
		return false
	}
	switch {
	case m.Op != 1:
		conn.Close(4007, "Not identified")
		return false
	case m.Data.RPCVersion != 1:
		conn.Close(closedVersion, "Unsupported RPC version")
		return false
	case !s.open && m.Data.Authentication != proof:
		conn.Close(closedPassword, "Authentication failed.")
		return false
	}
	if m.Data.Events&(1<<17) == 0 || m.Data.Events&(1<<2) == 0 || m.Data.Events&(1<<16) != 0 {
		s.t.Errorf("wants events %b", m.Data.Events)
	}
	s.write(ctx, conn, object{"op": 2, "d": object{"negotiatedRpcVersion": 1}})
	return true
}

func (s *studio) read(ctx context.Context, conn *websocket.Conn, v any) bool {
	_, b, err := conn.Read(ctx)
	return err == nil && json.Unmarshal(b, v) == nil
}

func (s *studio) write(ctx context.Context, conn *websocket.Conn, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		s.t.Error(err)
	}
	_ = conn.Write(ctx, websocket.MessageText, b) // who has gone hears nothing
}

func (s *studio) serve(ctx context.Context, conn *websocket.Conn, m message) {
	var r struct {
		Kind string `json:"requestType"`
		ID   string `json:"requestId"`
		Data struct {
			SourceName string `json:"sourceName"`
			SceneName  string `json:"sceneName"`
		} `json:"requestData"`
	}
	if err := json.Unmarshal(m.Data, &r); err != nil || m.Op != 6 {
		s.t.Errorf("operation %d: %s", m.Op, m.Data)
		return
	}
	s.mu.Lock()
	s.asked[r.Kind]++
	right, otherwise := s.answer(r.Kind, r.Data.SourceName+r.Data.SceneName), s.answers
	s.mu.Unlock()
	if otherwise != nil {
		right = otherwise(r.Kind, right)
	}
	right["requestType"], right["requestId"] = r.Kind, r.ID
	s.write(ctx, conn, object{"op": 7, "d": right})
}

// answer is what OBS says. The caller holds the lock.
func (s *studio) answer(kind, name string) object {
	ok := func(data object) object {
		return object{"requestStatus": object{"result": true, "code": 100}, "responseData": data}
	}
	failed := func(code int) object {
		return object{"requestStatus": object{"result": false, "code": code, "comment": "No."}}
	}
	_, isScene := s.scenes[name]
	switch kind {
	case "GetSceneList":
		list := []object{}
		for name := range s.scenes {
			if name != "Corner" { // a group is none
				list = append(list, object{"sceneName": name, "sceneIndex": len(list)})
			}
		}
		var preview any
		if s.preview != "" {
			preview = s.preview
		}
		return ok(object{"currentProgramSceneName": s.program, "currentPreviewSceneName": preview, "scenes": list})
	case "GetCurrentProgramScene":
		return ok(object{"sceneName": s.program, "currentProgramSceneName": s.program})
	case "GetCurrentPreviewScene":
		if s.preview == "" {
			return failed(506)
		}
		return ok(object{"sceneName": s.preview, "currentPreviewSceneName": s.preview})
	case "GetStudioModeEnabled":
		return ok(object{"studioModeEnabled": s.preview != ""})
	case "GetSourceActive":
		if !isScene && !s.has(name) {
			return failed(600)
		}
		active := s.shows(s.program, name) || s.fading != "" && s.shows(s.fading, name)
		return ok(object{"videoActive": active, "videoShowing": true}) // in somebody's multiview
	case "GetSceneItemList", "GetGroupSceneItemList":
		if !isScene || (name == "Corner") != (kind == "GetGroupSceneItemList") {
			return failed(602)
		}
		return ok(object{"sceneItems": s.items(name)})
	}
	s.t.Errorf("asks %s", kind)
	return failed(204)
}

func (s *studio) has(input string) bool {
	for _, items := range s.scenes {
		for _, it := range items {
			if it.name == input {
				return true
			}
		}
	}
	return false
}

// shows reports whether a scene shows a name, by itself or nested.
func (s *studio) shows(scene, name string) bool {
	if scene == name {
		return true
	}
	for _, it := range s.scenes[scene] {
		if !it.hidden && (it.name == name || it.kind != "input" && s.shows(it.name, name)) {
			return true
		}
	}
	return false
}

func (s *studio) items(scene string) []object {
	list := []object{}
	for i, it := range s.scenes[scene] {
		o := object{"sceneItemId": i, "sourceName": it.name, "sceneItemEnabled": !it.hidden, "isGroup": nil, "sourceType": "OBS_SOURCE_TYPE_INPUT"}
		if it.kind != "input" {
			o["sourceType"], o["isGroup"] = "OBS_SOURCE_TYPE_SCENE", it.kind == "group"
		}
		list = append(list, o)
	}
	return list
}

// change changes the studio and tells all who listen.
func (s *studio) change(how func(*studio), events ...object) {
	s.mu.Lock()
	how(s)
	var all []*websocket.Conn
	for c := range s.conns {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, e := range events {
		for _, c := range all {
			s.write(context.Background(), c, e)
		}
	}
}

func happens(kind string, data object) object {
	return object{"op": 5, "d": object{"eventType": kind, "eventIntent": 1, "eventData": data}}
}

// cut takes a scene on program.
func (s *studio) cut(scene string) {
	s.change(func(s *studio) { s.program = scene }, happens("CurrentProgramSceneChanged", object{"sceneName": scene, "sceneUuid": "uuid"}))
}

// stage takes a scene on preview; "" ends studio mode.
func (s *studio) stage(scene string) {
	on := object{"studioModeEnabled": scene != ""}
	s.change(func(s *studio) { s.preview = scene },
		happens("StudioModeStateChanged", on), happens("CurrentPreviewSceneChanged", object{"sceneName": scene}))
}

// hangUp closes all connections with a code.
func (s *studio) hangUp(code websocket.StatusCode) {
	s.change(func(*studio) {})
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.Close(code, "")
		delete(s.conns, c)
	}
}

func (s *studio) count(kind string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[kind]
}

// hall is a listener within the process, for tests under fake time.
type hall struct {
	conns chan net.Conn
	once  sync.Once
	over  chan struct{}
}

func newHall() *hall { return &hall{conns: make(chan net.Conn), over: make(chan struct{})} }

func (h *hall) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.over:
		return nil, net.ErrClosed
	}
}

func (h *hall) Close() error {
	h.once.Do(func() { close(h.over) })
	return nil
}

func (h *hall) Addr() net.Addr { return &net.TCPAddr{} }

// client connects to the hall, whatever the address.
func (h *hall) client() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		near, far := net.Pipe()
		select {
		case h.conns <- far:
			return near, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}}
}
