package webui

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzRequests asks over the network for whatever: nothing changes the box, and
// nothing is answered with an error of its own.
func FuzzRequests(f *testing.F) {
	f.Add("GET", "/", "", "application/json", "")
	f.Add("GET", "/page/../../etc/passwd", "", "", "")
	f.Add("GET", "/api/v1/usage.csv", "%zz", "", "")
	f.Add("POST", "/api/v1/actions/stream.start", "", "application/json", "{}")
	f.Add("POST", "/api/v1/links", "", "application/json", `{"rendition": "main", "length": "1h"}`)
	f.Add("GET", "/live/main.flv", "token=x", "", "")
	f.Fuzz(func(t *testing.T, method, path, query, kind, body string) {
		if strings.HasPrefix(path, "/api/v1/events") {
			return // which has no end
		}
		box := onAir()
		h := Handler(options(box))
		r := httptest.NewRequest(http.MethodGet, "http://192.0.2.7:8080/", strings.NewReader(body))
		r.Method, r.URL.Path, r.URL.RawQuery = method, path, query
		r.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code == http.StatusInternalServerError || w.Code == http.StatusNoContent {
			t.Errorf("%s %q is answered with %d", method, path, w.Code)
		}
		if len(box.done) > 0 {
			t.Errorf("%s %q made the box do %v", method, path, box.done)
		}
	})
}
