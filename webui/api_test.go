package webui

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"encoderd.example/daemon/status"
)

// ask sends a request as a browser on the box's own address would.
func ask(h http.Handler, method, path, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Host = "192.0.2.7:8080"
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestRoutes(t *testing.T) {
	h := Handler(options(onAir()))
	tests := []struct {
		path, kind, want string
		code             int
	}{
		{"/", "text/html; charset=utf-8", "<h1", 200},
		{"/page/style.css", "text/css; charset=utf-8", ":root", 200},
		{"/page/page.js", "text/javascript; charset=utf-8", "EventSource", 200},
		{"/page/icon.svg", "image/svg+xml", "<svg", 200},
		{"/healthz", "application/json", `{"status":"ok"}`, 200},
		{"/metrics", "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", "encoderd_state", 200},
		{"/api/openapi.yaml", "application/yaml", "openapi: 3.1.0", 200},
		{"/api/v1/status", "application/json", `"state":"live"`, 200},
		{"/api/v1/actions", "application/json", `"name":"stream.start","text":"Go live","args":[]`, 200},
		{"/live/main.jpg", "image/jpeg", "\xff\xd8", 200},
		{"/live/none.jpg", "text/plain; charset=utf-8", "404", 404},
		{"/api/v1/usage.csv", "text/csv; charset=utf-8", "date,rendition\n", 200},
		{"/page/", "application/problem+json", "Nothing here", 404},
		{"/page/../webui.go", "", "", 307},
		{"/api/v2/status", "application/problem+json", "Nothing here", 404},
	}
	for _, tt := range tests {
		t.Run(tt.path, func(t *testing.T) {
			w := ask(h, "GET", tt.path, "")
			kind := w.Header().Get("Content-Type")
			if w.Code != tt.code || (tt.code != 307 && kind != tt.kind) || !strings.Contains(w.Body.String(), tt.want) {
				t.Errorf("got %d %s\n%.300s", w.Code, kind, w.Body)
			}
		})
	}
}

func TestEveryAnswerHasTheSecurityHeaders(t *testing.T) {
	h := Handler(options(onAir()))
	for _, path := range []string{"/", "/api/v1/status", "/nothing", "/live/main.jpg", "/metrics"} {
		w := ask(h, "GET", path, "")
		csp := w.Header().Get("Content-Security-Policy")
		if !strings.HasPrefix(csp, "default-src 'self'") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: policy %q", path, csp)
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s: %s is %q", path, name, got)
			}
		}
	}
}

func TestThePageHasNoInlineCode(t *testing.T) {
	page := ask(Handler(options(onAir())), "GET", "/", "").Body.String()
	for _, bad := range []string{"<style", "style=", "onclick", "onload", "javascript:", "<script>"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page holds %q", bad)
		}
	}
}

func TestBrowsersRevalidateThePage(t *testing.T) {
	h := Handler(options(onAir()))
	tag := ask(h, "GET", "/page/page.js", "").Header().Get("ETag")
	if w := ask(h, "GET", "/page/page.js", "", "If-None-Match", tag); w.Code != 304 || w.Body.Len() != 0 {
		t.Errorf("got %d for a file that the browser has", w.Code)
	}
}

func TestOnlyTheBoxItselfIsServed(t *testing.T) {
	tests := []struct {
		name   string
		header []string
		code   int
	}{
		{"IPv4 address", []string{"Host", "10.0.0.7"}, 200},
		{"IPv4 address and port", []string{"Host", "10.0.0.7:8080"}, 200},
		{"IPv6 address", []string{"Host", "[fd00::1]"}, 200},
		{"IPv6 address and port", []string{"Host", "[fd00::1]:8080"}, 200},
		{"localhost", []string{"Host", "localhost:8080"}, 200},
		{"mDNS name", []string{"Host", "Encoder-4F2A.local"}, 200},
		{"mDNS name with a final dot", []string{"Host", "encoder.local.:8080"}, 200},
		{"host name", []string{"Host", "ENCODER:8080"}, 200},
		{"configured name", []string{"Host", "box.example.org"}, 200},
		{"foreign name", []string{"Host", "evil.example.com"}, 421},
		{"foreign name that ends alike", []string{"Host", "evil-encoder"}, 421},
		{"foreign name that holds .local", []string{"Host", "x.local.evil.com"}, 421},
		{"no name", []string{"Host", ""}, 421},
		{"own page", []string{"Host", "10.0.0.7:8080", "Origin", "http://10.0.0.7:8080"}, 200},
		{"other site", []string{"Host", "10.0.0.7:8080", "Origin", "http://evil.example.com"}, 403},
		{"other port of the box", []string{"Host", "10.0.0.7:8080", "Origin", "http://10.0.0.7:9090"}, 403},
		{"sandboxed frame", []string{"Host", "10.0.0.7:8080", "Origin", "null"}, 403},
	}
	h := Handler(options(onAir()))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := ask(h, "GET", "/api/v1/status", "", tt.header...)
			if w.Code != tt.code {
				t.Errorf("got %d: %s", w.Code, w.Body)
			}
			if tt.code != 200 && strings.Contains(w.Body.String(), "Main hall") {
				t.Error("the state shows")
			}
		})
	}
}

func TestActions(t *testing.T) {
	const json = "application/json"
	local := func(o Options) Options { o.Local = true; return o }
	remote := func(o Options) Options { return o }
	tests := []struct {
		name       string
		where      func(Options) Options
		path, body string
		header     []string
		code       int
		want, done string
	}{
		{"on the box", local, "stream.start", "", nil, 204, "", "stream.start map[] control socket"},
		{"on the box, under any host", local, "stream.start", "", []string{"Host", "encoderd"}, 204, "", "stream.start map[] control socket"},
		{"with arguments", local, "stream.start", `{"name":"a"}`, []string{"Content-Type", json}, 204, "", "stream.start map[name:a] control socket"},
		{"unknown", local, "stream.fly", "", nil, 404, "stream.fly: not known. The actions are listed at /api/v1/actions.", "stream.fly map[] control socket"},
		{"arguments do not fit", local, "output.start", "", nil, 422, "wrong arguments: name is missing", "output.start map[] control socket"},
		{"fails", local, "box.restart", "", nil, 500, "systemd does not answer", "box.restart map[] control socket"},
		{"arguments are no JSON", local, "stream.start", "name=a", []string{"Content-Type", json}, 400, "Send a JSON object", ""},
		{"arguments are no texts", local, "stream.start", `{"n":1}`, []string{"Content-Type", json}, 400, "Send a JSON object", ""},
		{"a form", local, "stream.start", "name=a", []string{"Content-Type", "application/x-www-form-urlencoded"}, 400, "Send a JSON object", ""},
		{"too long", local, "stream.start", strings.Repeat(" ", maxBody+1), []string{"Content-Type", json}, 400, "Send a JSON object", ""},
		{"from another site", local, "stream.start", "", []string{"Origin", "http://evil.example.com"}, 403, "Pages of other sites", ""},
		{"from another site, as fetch says", local, "stream.start", "", []string{"Sec-Fetch-Site", "cross-site"}, 403, "Pages of other sites", ""},
		{"over the network", remote, "stream.start", "", nil, 403, "encoderd do ACTION", ""},
		{"over the network from the box's page", remote, "stream.start", "", []string{"Origin", "http://192.0.2.7:8080"}, 403, "encoderd do ACTION", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := onAir()
			w := ask(Handler(tt.where(options(f))), "POST", "/api/v1/actions/"+tt.path, tt.body, tt.header...)
			if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.want) {
				t.Errorf("got %d: %s", w.Code, w.Body)
			}
			if w.Code >= 400 && w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("error as %s", w.Header().Get("Content-Type"))
			}
			if got := strings.Join(f.done, ";"); got != tt.done {
				t.Errorf("did %q, want %q", got, tt.done)
			}
		})
	}
}

func TestOverTheNetworkOnlyReadingWorks(t *testing.T) {
	h := Handler(options(onAir()))
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS"} {
		for _, path := range []string{"/", "/api/v1/status", "/api/v1/actions/stream.start", "/x"} {
			if w := ask(h, method, path, ""); w.Code != 403 {
				t.Errorf("%s %s: %d", method, path, w.Code)
			}
		}
	}
	if w := ask(h, "HEAD", "/", ""); w.Code != 200 {
		t.Errorf("HEAD: %d", w.Code)
	}
	o := options(onAir())
	o.Local = true
	if w := ask(Handler(o), "DELETE", "/api/v1/status", ""); w.Code != 405 {
		t.Errorf("DELETE on the control socket: %d", w.Code)
	}
}

func TestHealthGivesTheReasons(t *testing.T) {
	f := onAir()
	f.sick = errors.Join(errors.New("camera hangs"), errors.New("web hangs"))
	w := ask(Handler(options(f)), "GET", "/healthz", "")
	var p struct {
		Status  int
		Reasons []string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatal(err)
	}
	if w.Code != 503 || p.Status != 503 || !reflect.DeepEqual(p.Reasons, []string{"camera hangs", "web hangs"}) {
		t.Errorf("got %d %+v", w.Code, p)
	}
}

func TestAnEmptyBoxHasEmptyListsAndNumbersThatJSONKnows(t *testing.T) {
	w := ask(Handler(options(silent())), "GET", "/api/v1/status", "")
	if strings.Contains(w.Body.String(), "null") || !strings.Contains(w.Body.String(), `"peak_dbfs":-120`) {
		t.Errorf("got %s", w.Body)
	}
	var b status.Box
	if err := json.Unmarshal(w.Body.Bytes(), &b); err != nil {
		t.Fatal(err)
	}
}

// Players are everywhere; what they may see is not for this package to say.
func TestPlayersOfOtherSitesComeIn(t *testing.T) {
	h := Handler(options(onAir()))
	foreign := func(method, path string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), method, "http://192.0.2.1"+path, nil)
		r.Header.Set("Origin", "https://player.example.org")
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	if w := foreign("GET", "/live/main.jpg"); w.Code != http.StatusOK || w.Header().Get("Cross-Origin-Resource-Policy") != "cross-origin" {
		t.Errorf("a picture: %d %v", w.Code, w.Header())
	}
	if w := foreign("POST", "/live/main/whep"); w.Code != http.StatusCreated {
		t.Errorf("an offer: %d", w.Code)
	}
	for _, path := range []string{"/api/v1/status", "/api/v1/usage.csv", "/livestock"} {
		if w := foreign("GET", path); w.Code != http.StatusForbidden {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	o := options(onAir())
	o.Live = nil
	if w := ask(Handler(o), "GET", "/live/main.jpg", ""); w.Code != http.StatusNotFound {
		t.Errorf("without players: %d", w.Code)
	}
}

func TestLinks(t *testing.T) {
	o := options(onAir())
	if w := ask(Handler(o), "POST", "/api/v1/links", `{"rendition":"main","length":"1h"}`); w.Code != http.StatusForbidden {
		t.Errorf("over the network: %d", w.Code)
	}
	o.Local = true
	h := Handler(o)
	for _, tt := range []struct {
		body, want string
		code       int
	}{
		{`{"rendition":"main","length":"1h"}`, `{"token":"token","until":"1970-01-01T01:00:00Z"}`, 200},
		{`{"rendition":"none","length":"1h"}`, "No such rendition", 404},
		{`{"rendition":"main","length":"0s"}`, "a link lasts longer", 422},
		{`{"rendition":"main"}`, "Link not understood", 400},
		{`{"rendition":5}`, "Link not understood", 400},
		{``, "Link not understood", 400},
	} {
		if w := ask(h, "POST", "/api/v1/links", tt.body, "Content-Type", "application/json"); w.Code != tt.code || !strings.Contains(w.Body.String(), tt.want) {
			t.Errorf("%s: %d %s", tt.body, w.Code, w.Body)
		}
	}
}

// TestDescriptionIsTrue compares openapi.yaml with the routes and with the
// types that are sent. It reads the few shapes of lines that the file has.
func TestDescriptionIsTrue(t *testing.T) {
	doc, err := files.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	described := map[string]bool{} // "paths GET /x", "schema.property"
	var section, at string
	for line := range strings.Lines(string(doc)) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch indent := len(line) - len(strings.TrimLeft(line, " ")); {
		case indent == 0:
			section = name
		case section == "paths" && indent == 2:
			at = name
		case section == "paths" && indent == 4:
			described[strings.ToUpper(name)+" "+at] = true
		case section == "components" && indent == 4:
			at = name
		case section == "components" && indent == 8:
			described[at+"."+name] = true
		}
	}
	want := map[string]bool{}
	for _, r := range (&api{Options: options(onAir())}).routes() {
		if path := strings.TrimPrefix(r.pattern, "GET "); !strings.HasPrefix(path, "/page/") && path != "/{$}" && path != "/" && path != livePath {
			want[r.pattern] = true
		}
	}
	for name, v := range map[string]any{
		"Box": status.Box{}, "Input": status.Input{}, "Sound": status.Sound{}, "SoundChannel": status.SoundChannel{}, "Rendition": status.Rendition{}, "Buffers": status.Buffers{}, "Output": status.Output{},
		"Reader": status.Reader{}, "Key": status.Key{}, "Lamp": status.Lamp{}, "TallySource": status.TallySource{}, "Tally": status.Tally{}, "Fault": status.Fault{}, "Service": status.Service{},
		"Network": status.Network{}, "Power": status.Power{}, "Record": status.Record{}, "Storage": status.Storage{}, "Action": ActionInfo{}, "Link": Link{}, "Problem": problemDoc{},
	} {
		for f := range reflect.TypeOf(v).Fields() {
			tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			want[name+"."+tag] = true
		}
	}
	for w := range want {
		if !described[w] {
			t.Errorf("not described: %s", w)
		}
	}
	for d := range described {
		if !want[d] && !strings.HasPrefix(d, "Problem.application") && d != "Problem.schema" {
			t.Errorf("described but not there: %s", d)
		}
	}
}
