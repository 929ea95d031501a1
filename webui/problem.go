package webui

import (
	"encoding/json"
	"net/http"
)

// A problemDoc is an error as RFC 9457 has it. Its type is about:blank: the
// HTTP status says what kind it is.
type problemDoc struct {
	Title   string   `json:"title"`
	Status  int      `json:"status"`
	Detail  string   `json:"detail,omitempty"`
	Reasons []string `json:"reasons,omitempty"`
}

// problem answers with an error: what is wrong, and what to do next.
func problem(w http.ResponseWriter, code int, title, detail string, reasons ...string) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(problemDoc{title, code, detail, reasons}) // fails only if the client has gone
}

func notFound(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		problem(w, http.StatusMethodNotAllowed, "Not here", "This address does not take "+r.Method+". See /api/openapi.yaml.")
		return
	}
	problem(w, http.StatusNotFound, "Nothing here", "The page is at /, the API is described at /api/openapi.yaml.")
}

// answer sends v as JSON.
func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // fails only if the client has gone
}
