package webrtc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/pion/webrtc/v4"

	"encoderd.example/stream"
	"encoderd.example/stream/visit"
)

// ServeHTTP takes offers, at any path that ends in NAME/whep, and what players
// say of their sessions later, at the address that the answer hands out:
//
//	POST   …/NAME/whep      an offer; 201 with the answer and the session's address
//	PATCH  …/NAME/whep/ID   candidates of the player's (RFC 8840), If-Match the answer's ETag; 204
//	DELETE …/NAME/whep/ID   the end; 200
//
// While Run does not run it answers 503.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "Location, ETag, Link, Accept-Patch")
	h.Set("Cache-Control", "no-store")
	name, id := target(r.URL.Path)
	sv := s.running()
	switch {
	case name == "":
		visit.Fail(w, http.StatusNotFound, "no such address: WHEP is at …/NAME/whep")
	case r.Method == http.MethodOptions:
		options(h, id)
		w.WriteHeader(http.StatusNoContent)
	case sv == nil:
		h.Set("Retry-After", "5")
		visit.Fail(w, http.StatusServiceUnavailable, "WebRTC does not run")
	case id == "" && r.Method == http.MethodPost:
		sv.post(w, r, name)
	case id == "":
		notAllowed(w, "POST, OPTIONS")
	case r.Method == http.MethodDelete:
		sv.remove(w, id)
	case r.Method == http.MethodPatch:
		sv.patch(w, r, id)
	default:
		notAllowed(w, "PATCH, DELETE, OPTIONS")
	}
}

// target splits …/NAME/whep or …/NAME/whep/ID; name is empty of others.
func target(p string) (name, id string) {
	dir, last := path.Split(strings.TrimSuffix(p, "/"))
	if last != "whep" {
		dir, id = path.Split(strings.TrimSuffix(dir, "/"))
		if id != "whep" {
			return "", ""
		}
		id = last
	}
	return path.Base(dir), id
}

func options(h http.Header, id string) {
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, If-Match")
	h.Set("Access-Control-Max-Age", "86400")
	if id == "" {
		h.Set("Access-Control-Allow-Methods", "POST, OPTIONS")
		h.Set("Accept-Post", offerType)
		return
	}
	h.Set("Access-Control-Allow-Methods", "PATCH, DELETE, OPTIONS")
	h.Set("Accept-Patch", candidateType)
}

const (
	offerType     = "application/sdp"
	candidateType = "application/trickle-ice-sdpfrag"
)

func notAllowed(w http.ResponseWriter, allow string) {
	w.Header().Set("Allow", allow)
	visit.Fail(w, http.StatusMethodNotAllowed, "use "+allow)
}

// post takes an offer.
func (sv *service) post(w http.ResponseWriter, r *http.Request, name string) {
	shown := visit.Credentials(r)
	if err := sv.Audience.Allow(r.RemoteAddr, name, shown); err != nil {
		visit.Refuse(w, r, err)
		return
	}
	src := sv.Find(name)
	if src == nil {
		visit.Fail(w, http.StatusNotFound, fmt.Sprintf("no rendition is called %q", name))
		return
	}
	offer, ok := body(w, r, offerType)
	if !ok {
		return
	}
	viewer := &stream.Viewer{Protocol: "webrtc", Rendition: src.Name, Peer: r.RemoteAddr, Since: time.Now()}
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	v, answer, err := sv.enter(ctx, src, offer, viewer, shown)
	if err != nil {
		sv.log.Debug("webrtc player refused", "peer", r.RemoteAddr, "rendition", name, "err", err)
		refuse(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", offerType)
	h.Set("Location", strings.TrimSuffix(r.URL.Path, "/")+"/"+v.id)
	h.Set("ETag", `"`+v.etag+`"`)
	h.Set("Accept-Patch", candidateType)
	w.WriteHeader(http.StatusCreated)
	_, _ = io.WriteString(w, answer) // who has gone does not connect
}

// refuse answers why there is no session.
func refuse(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, errOffer):
		visit.Fail(w, http.StatusBadRequest, err.Error())
	case errors.Is(err, errNoVideo):
		visit.Fail(w, http.StatusNotAcceptable, err.Error())
	default:
		visit.Refuse(w, r, err)
	}
}

// body returns the request's body, or answers why it will not do.
func body(w http.ResponseWriter, r *http.Request, want string) (text string, ok bool) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != want {
		visit.Fail(w, http.StatusUnsupportedMediaType, "send "+want)
		return "", false
	}
	if r.ContentLength > maxOffer { // it need not come first
		tooLong(w)
		return "", false
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxOffer))
	if _, long := errors.AsType[*http.MaxBytesError](err); long {
		tooLong(w)
		return "", false
	}
	if err != nil {
		visit.Fail(w, http.StatusBadRequest, "the request broke off")
		return "", false
	}
	return string(b), true
}

func tooLong(w http.ResponseWriter) {
	visit.Fail(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("more than %d bytes", maxOffer))
}

func (sv *service) find(id string) *visitor {
	sv.mu.Lock()
	defer sv.mu.Unlock()
	return sv.visitors[id]
}

// remove ends a session. Its address is a secret: knowing it is enough.
func (sv *service) remove(w http.ResponseWriter, id string) {
	v := sv.find(id)
	if v == nil {
		visit.Fail(w, http.StatusNotFound, "no such session")
		return
	}
	v.end(errGone)
	w.WriteHeader(http.StatusOK)
}

// patch takes candidates that the player found after its offer. The box
// itself found all of its own before it answered, so that restarts are the only
// thing that it cannot do.
func (sv *service) patch(w http.ResponseWriter, r *http.Request, id string) {
	v := sv.find(id)
	if v == nil {
		visit.Fail(w, http.StatusNotFound, "no such session")
		return
	}
	match := strings.Trim(r.Header.Get("If-Match"), `"`)
	switch match {
	case "*", v.etag:
	case "":
		visit.Fail(w, http.StatusPreconditionRequired, "say which ICE session is meant: If-Match with the ETag of the answer")
		return
	default:
		visit.Fail(w, http.StatusPreconditionFailed, "that session has another ETag: connect anew")
		return
	}
	text, ok := body(w, r, candidateType)
	if !ok {
		return
	}
	if v.restarts(match, text) {
		visit.Fail(w, http.StatusUnprocessableEntity, "ICE restarts are not supported: connect anew")
		return
	}
	for _, c := range candidates(text) {
		if !v.mayTry() {
			break
		}
		if err := v.pc.AddICECandidate(c); err != nil {
			visit.Fail(w, http.StatusBadRequest, "a candidate cannot be read")
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// restarts reports whether a fragment asks for an ICE restart, by a name that
// the player did not offer or, without one, by matching any session. Some
// players match any for all of their candidates, too: under the name that they
// offered, these restart nothing.
func (v *visitor) restarts(match, fragment string) bool {
	name := ufrag(fragment)
	return name != v.ufrag && (name != "" || match == "*")
}

// ufrag returns the name of an ICE session (RFC 8839, 5.4), "" if there is none.
func ufrag(sdp string) string {
	for line := range strings.Lines(sdp) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "a=ice-ufrag:"); ok {
			return name
		}
	}
	return ""
}

const maxCandidates = 64 // of one player, in its offer and later

// candidates returns those of an SDP fragment (RFC 8840, 9).
func candidates(fragment string) (found []webrtc.ICECandidateInit) {
	var mid *string
	for line := range strings.Lines(fragment) {
		line = strings.TrimSpace(line)
		if id, ok := strings.CutPrefix(line, "a=mid:"); ok {
			mid = &id
		}
		c, ok := strings.CutPrefix(line, "a=candidate:")
		if !ok || len(found) == maxCandidates {
			continue
		}
		first := uint16(0)
		init := webrtc.ICECandidateInit{Candidate: "candidate:" + c, SDPMid: mid}
		if mid == nil {
			init.SDPMLineIndex = &first
		}
		found = append(found, init)
	}
	return found
}
