package obs

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"encoderd.example/daemon/tally"
	"encoderd.example/daemon/tally/tallytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// follows is a link to a URL whose sources are named like what they follow.
func follows(url string, inputs ...string) Link {
	l := Link{URL: url, Password: password, Sources: map[string]Input{}, Timeout: tallytest.Timeout}
	for _, text := range inputs {
		in, err := ParseInput(text)
		if err != nil {
			panic(err)
		}
		l.Sources[text] = in
	}
	return l
}

// serve starts the studio on a real port.
func serve(t *testing.T, s *studio) string {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	t.Cleanup(func() { s.hangUp(websocket.StatusGoingAway) })
	return "ws" + strings.TrimPrefix(server.URL, "http")
}

func TestAuthenticationIsThatOfTheProtocol(t *testing.T) {
	if got := answer(password, salt, challenge); got != proof {
		t.Errorf("answers %s", got)
	}
}

func TestScenesAndInputsWhereverTheyAre(t *testing.T) {
	s := church(t)
	room := tallytest.New(t, "scene:Altar", "input:Box", "Screen", "Both")
	room.Start(follows(serve(t, s), "scene:Altar", "input:Box", "Screen", "Both"))
	want := func(altar, box, screen, both string) {
		t.Helper()
		room.Await("scene:Altar=" + altar + " input:Box=" + box + " Screen=" + screen + " Both=" + both)
	}
	want("off", "off", "program", "off")
	s.cut("Altar")
	want("program", "program", "off", "off")
	s.cut("Both") // Altar is nested in it, of which no event tells
	want("program", "program", "program", "program")
	s.cut("Slides")
	want("off", "off", "program", "off")
	s.stage("Both")
	want("preview", "preview", "program", "preview")
	s.stage("Singers") // Box is in a group, and hidden beside it
	want("off", "preview", "program", "off")
	s.cut("Singers")
	want("off", "program", "off", "off")
	s.stage("")
	s.cut("Slides")
	want("off", "off", "program", "off")
	s.change(func(s *studio) { s.scenes["Slides"] = append(s.scenes["Slides"], shown{"Box", "input", false}) },
		happens("SceneItemCreated", object{"sceneName": "Slides", "sourceName": "Box"}),
		happens("InputActiveStateChanged", object{"inputName": "Box", "videoActive": true}))
	want("off", "program", "program", "off")
}

func TestDuringATransitionBothScenesAreOnProgram(t *testing.T) {
	s := church(t)
	room := tallytest.New(t, "Slides", "Altar")
	room.Start(follows(serve(t, s), "Slides", "Altar"))
	room.Await("Slides=program Altar=off")
	s.change(func(s *studio) { s.fading = "Slides" }, happens("SceneTransitionStarted", object{"transitionName": "Fade"}))
	s.cut("Altar")
	room.Await("Slides=program Altar=program")
	s.change(func(s *studio) { s.fading = "" }, happens("SceneTransitionEnded", object{"transitionName": "Fade"}))
	room.Await("Slides=off Altar=program")
}

func TestWhatOBSDoesNotHaveIsUnknown(t *testing.T) {
	s := church(t)
	room := tallytest.New(t, "scene:Tower", "input:Altar", "Roof", "Altar")
	room.Start(follows(serve(t, s), "scene:Tower", "input:Altar", "Roof", "Altar"))
	room.Await("scene:Tower=unknown input:Altar=unknown Roof=unknown Altar=off")
	room.Until("it says what is missing", func() bool {
		return room.Errors() == "OBS has no scene Tower; Altar is a scene of OBS, not an input; OBS has no scene or input Roof"
	})
	s.change(func(s *studio) { s.scenes["Tower"] = nil }, happens("SceneCreated", object{"sceneName": "Tower"}))
	room.Await("scene:Tower=off input:Altar=unknown Roof=unknown Altar=off")
}

func TestWithoutAuthentication(t *testing.T) {
	s := church(t)
	s.open = true
	room := tallytest.New(t, "Slides")
	link := follows(serve(t, s), "Slides")
	link.Password = ""
	room.Start(link)
	room.Await("Slides=program")
}

// What can be put right at OBS is tried again: nobody tells us when it is.
func TestRefusalsSayWhatToDoAndAreTriedAgain(t *testing.T) {
	tests := []struct {
		name     string
		password string
		old      bool
		want     string
	}{
		{"wrong password", "guess", false, "OBS does not accept the password: write that of its menu Tools, WebSocket Server Settings"},
		{"no password", "", false, "OBS wants a password: write that of its menu Tools, WebSocket Server Settings"},
		{"an old OBS", password, true, "update it to release 28 or newer"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := church(t)
			s.old = tt.old
			room := tallytest.New(t, "Slides")
			link := follows(serve(t, s), "Slides")
			link.Password = tt.password
			err := <-room.Start(link)
			if err == nil || errors.Is(err, tally.ErrRefused) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("ended by %v", err)
			}
			if got := room.Errors(); !strings.Contains(got, tt.want) || tt.password != "" && strings.Contains(got, tt.password) {
				t.Errorf("says %q", got)
			}
		})
	}
}

func TestAnAddressWithoutPortIsThatOfOBS(t *testing.T) {
	for address, want := range map[string]string{
		"ws://studio":             "ws://studio:4455",
		"ws://studio:":            "ws://studio:4455",
		"ws://studio/":            "ws://studio:4455/",
		"ws://[fe80::1]":          "ws://[fe80::1]:4455",
		"ws://studio:80":          "ws://studio:80",
		"ws://[fe80::1]:4456/obs": "ws://[fe80::1]:4456/obs",
		"wss://studio.example":    "wss://studio.example",
	} {
		if got, err := withPort(address); got != want || err != nil {
			t.Errorf("%s: %s, %v, want %s", address, got, err, want)
		}
	}
	if _, err := withPort("ws://x:sesame%zz@h"); err == nil || strings.Contains(err.Error(), "sesame") {
		t.Errorf("no address: %v", err)
	}
}

// The port is asked for where the connection is made.
func TestTheDefaultPortIsDialled(t *testing.T) {
	asked := make(chan string, 1)
	link := follows("ws://studio", "Slides")
	link.Client = &http.Client{Transport: &http.Transport{DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
		asked <- address
		return nil, errors.New("it is off")
	}}}
	if _, err := link.dial(t.Context()); err == nil {
		t.Error("connected")
	}
	if got := <-asked; got != "studio:4455" {
		t.Errorf("dials %s", got)
	}
}

func TestWhatEndsTheLink(t *testing.T) {
	tests := []struct {
		name    string
		happens func(*studio)
		want    string
		refused bool
	}{
		{"OBS is closed", func(s *studio) { s.change(func(*studio) {}, happens("ExitStarted", nil)) }, "OBS is being closed", false},
		{"thrown out", func(s *studio) { s.hangUp(closedKicked) }, "thrown this box out of OBS: restart the box", true},
		{"hung up", func(s *studio) { s.hangUp(websocket.StatusGoingAway) }, "StatusGoingAway", false},
		{"a message longer than any", func(s *studio) {
			s.change(func(*studio) {}, happens("VendorEvent", object{"text": strings.Repeat("x", maxMessage)}))
		}, "read limited", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := church(t)
			room := tallytest.New(t, "Slides")
			over := room.Start(follows(serve(t, s), "Slides"))
			room.Await("Slides=program")
			tt.happens(s)
			err := <-over
			if err == nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, tally.ErrRefused) != tt.refused {
				t.Errorf("ended by %v", err)
			}
			if got := room.States(); got != "Slides=unknown" {
				t.Errorf("at once: %s", got)
			}
		})
	}
}

func TestWhoIsNoOBS(t *testing.T) {
	talks := func(say string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			conn, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			defer conn.CloseNow()
			_ = conn.Write(r.Context(), websocket.MessageText, []byte(say))
			_, _, _ = conn.Read(r.Context())
		}
	}
	tests := []struct {
		name   string
		server http.Handler
		want   string
	}{
		{"a web server", http.NotFoundHandler(), "404"},
		{"no JSON", talks("hello"), "OBS sends no JSON"},
		{"no Hello", talks(`{"op":2,"d":{}}`), "operation 2 where 0 is due"},
		{"Hello of another kind", talks(`{"op":0,"d":{"rpcVersion":"one"}}`), "operation 0"},
		{"an RPC version of before", talks(`{"op":0,"d":{"rpcVersion":0}}`), "does not speak obs-websocket 5"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(tt.server)
			defer server.Close()
			room := tallytest.New(t, "Slides")
			err := <-room.Start(follows("ws"+strings.TrimPrefix(server.URL, "http"), "Slides"))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("ended by %v", err)
			}
		})
	}
}

func TestWhatOBSCannotAnswerIsTakenFromItsEvents(t *testing.T) {
	s := church(t)
	s.answers = func(string, object) object {
		return object{"requestStatus": object{"result": false, "code": 204, "comment": "Unknown request."}}
	}
	room := tallytest.New(t, "Altar", "Box")
	room.Start(follows(serve(t, s), "Altar", "Box"))
	room.Until("it was asked", func() bool { return s.count("GetSourceActive") > 0 })
	s.cut("Altar")
	s.change(func(*studio) {}, happens("InputActiveStateChanged", object{"inputName": "Box", "videoActive": true}))
	room.Await("Altar=program Box=program")
	s.cut("Slides")
	s.stage("Altar")
	s.change(func(*studio) {}, happens("InputActiveStateChanged", object{"inputName": "Box", "videoActive": false}))
	room.Await("Altar=preview Box=off")
	s.stage("")
	room.Await("Altar=off Box=off")
}

func TestDamagedMessagesAreCountedAndTheRestGoesOn(t *testing.T) {
	s := church(t)
	room := tallytest.New(t, "Altar")
	room.Start(follows(serve(t, s), "Altar"))
	room.Await("Altar=off")
	damaged := []object{
		{"op": "five"},
		{"op": 5, "d": "CurrentProgramSceneChanged"},
		{"op": 5, "d": object{"eventType": "CurrentProgramSceneChanged", "eventData": object{"sceneName": 7}}},
		{"op": 7, "d": []int{1}},
	}
	strange := []object{
		{"op": 99, "d": nil},
		{"op": 7, "d": object{"requestId": "999999", "requestStatus": object{"result": true}}},
		{"op": 7, "d": object{"requestId": "", "requestStatus": object{"result": true}}},
		happens("CurrentProgramSceneChanged", nil),
		happens("InputActiveStateChanged", object{"inputName": "Altar"}),
		happens("NobodyKnows", object{"sceneName": "Altar"}),
	}
	s.change(func(*studio) {}, append(damaged, strange...)...)
	s.cut("Altar")
	room.Await("Altar=program")
	if n := room.Bad(); n != uint64(len(damaged)) {
		t.Errorf("%d bad messages, not %d", n, len(damaged))
	}
}

// underFakeTime is a studio that is reached within the process, for a test in a
// bubble.
func underFakeTime(t *testing.T) (*studio, Link) {
	t.Helper()
	s, h := church(t), newHall()
	server := &http.Server{Handler: s}
	served := make(chan error)
	go func() { served <- server.Serve(h) }()
	t.Cleanup(func() {
		s.hangUp(websocket.StatusGoingAway)
		h.Close()
		server.Close()
		<-served
	})
	link := follows("ws://obs.example:4455", "Slides", "Box")
	link.Client = h.client()
	return s, link
}

func wait(t *testing.T, room *tallytest.Room, want string) {
	t.Helper()
	synctest.Wait()
	if got := room.States(); got != want {
		t.Errorf("%s, not %s: %s", got, want, room.Errors())
	}
}

func TestAnOBSThatAnswersStaysFreshWithoutEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, link := underFakeTime(t)
		room := tallytest.New(t, "Slides", "Box")
		room.Start(link)
		wait(t, room, "Slides=program Box=off")
		time.Sleep(10 * time.Minute)
		wait(t, room, "Slides=program Box=off")
		// What no event told is seen within a third of the timeout.
		s.change(func(s *studio) { s.program = "Altar" })
		time.Sleep(tallytest.Timeout/3 + time.Millisecond)
		wait(t, room, "Slides=off Box=program")
	})
}

func TestAnOBSThatHangsTurnsUnknownAndIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, link := underFakeTime(t)
		room := tallytest.New(t, "Slides", "Box")
		over := room.Start(link)
		wait(t, room, "Slides=program Box=off")
		hangs := make(chan struct{})
		s.change(func(s *studio) {
			s.answers = func(_ string, right object) object {
				<-hangs
				return right
			}
		})
		begin := time.Now()
		err := <-over
		wait(t, room, "Slides=unknown Box=unknown")
		if took := time.Since(begin); took > tallytest.Timeout*4/3+time.Millisecond {
			t.Errorf("%v after %v", err, took)
		}
		if err == nil || !strings.Contains(err.Error(), "has not answered") {
			t.Errorf("ended by %v", err)
		}
		close(hangs)
	})
}

func TestAnOBSThatDoesNotGreet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall()
		done := make(chan struct{})
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, err := websocket.Accept(w, r, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.CloseNow()
			_, _, _ = conn.Read(r.Context())
			close(done)
		})}
		served := make(chan error)
		go func() { served <- server.Serve(h) }()
		link := follows("ws://obs.example:4455", "Slides")
		link.Client = h.client()
		room := tallytest.New(t, "Slides")
		begin := time.Now()
		err := <-room.Start(link)
		if err == nil || !strings.Contains(err.Error(), "does not greet") || time.Since(begin) != dialPatience {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		<-done
		h.Close()
		server.Close()
		<-served
	})
}

func TestOBSIsNotAskedWhileItLoadsAnotherSceneCollection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, link := underFakeTime(t)
		room := tallytest.New(t, "Slides", "Box")
		room.Start(link)
		wait(t, room, "Slides=program Box=off")
		s.change(func(*studio) {}, happens("CurrentSceneCollectionChanging", object{"sceneCollectionName": "Sunday"}))
		wait(t, room, "Slides=unknown Box=unknown")
		if got := room.Errors(); !strings.Contains(got, "loading another scene collection") {
			t.Errorf("says %q", got)
		}
		before := s.count("GetSceneList")
		s.change(func(*studio) {}, happens("InputCreated", object{"inputName": "Box"}))
		time.Sleep(maxMoving / 2)
		if n := s.count("GetSceneList"); n != before {
			t.Errorf("asked %d times meanwhile", n-before)
		}
		s.change(func(s *studio) { s.program = "Altar" }, happens("CurrentSceneCollectionChanged", object{"sceneCollectionName": "Monday"}))
		wait(t, room, "Slides=off Box=program")
	})
}

func TestASceneCollectionThatIsNeverLoaded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, link := underFakeTime(t)
		room := tallytest.New(t, "Slides", "Box")
		over := room.Start(link)
		wait(t, room, "Slides=program Box=off")
		s.change(func(*studio) {}, happens("CurrentSceneCollectionChanging", object{"sceneCollectionName": "Sunday"}))
		if err := <-over; !errors.Is(err, errMoving) {
			t.Errorf("ended by %v", err)
		}
	})
}

func TestParseInput(t *testing.T) {
	tests := map[string]Input{
		"scene:Altar":   {Scene, "Altar"},
		"input:Box 1":   {InputKind, "Box 1"},
		"Altar: left":   {Any, "Altar: left"},
		"scene:input:x": {Scene, "input:x"},
		"":              {},
		"scene:":        {},
		"input:":        {},
	}
	for text, want := range tests {
		if got, err := ParseInput(text); got != want || (err != nil) != (want == Input{}) {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
	}
}

func FuzzMessage(f *testing.F) {
	for _, m := range []string{
		`{"op":5,"d":{"eventType":"StudioModeStateChanged","eventIntent":1,"eventData":{"studioModeEnabled":true}}}`,
		`{"op":5,"d":{"eventType":"CurrentProgramSceneChanged","eventIntent":4,"eventData":{"sceneName":"Altar"}}}`,
		`{"op":5,"d":{"eventType":"InputActiveStateChanged","eventIntent":131072,"eventData":{"inputName":"Box","videoActive":true}}}`,
		`{"op":5,"d":{"eventType":"CurrentSceneCollectionChanging","eventData":{"sceneCollectionName":"Sunday"}}}`,
		`{"op":7,"d":{"requestType":"GetSceneList","requestId":"1","requestStatus":{"result":true,"code":100},"responseData":{"currentProgramSceneName":"Altar","scenes":[{"sceneName":"Altar"}]}}}`,
		`{"op":7,"d":{"requestType":"x","requestId":"1","requestStatus":{"result":false,"code":608,"comment":"Parameter: sceneName"}}}`,
	} {
		f.Add([]byte(m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := newSession(follows("", "Altar", "Box"), nil, tallytest.Witness{T: t, Sources: []string{"Altar", "Box"}})
		s.waiting = "1"
		if err := s.hear(b); err != nil && !errors.Is(err, errExit) {
			t.Fatal(err)
		}
		_ = s.hear(b) // an answer that comes twice holds nobody up
		if len(s.stage.active) > len(s.link.Sources) {
			t.Fatalf("remembers %d inputs", len(s.stage.active))
		}
		s.report()
	})
}
