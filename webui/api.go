package webui

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/stream"
)

// by is who did it, in logs: whoever may open the control socket.
const by = "control socket"

// maxBody is far above the arguments of any action.
const maxBody = 64 << 10

// silence stands for a level of minus infinity, in dBFS.
const silence = -120

// api answers requests. Its maps and channels are its own.
type api struct {
	Options
	streams stream.Gate // of event streams
}

func (a *api) status(w http.ResponseWriter, _ *http.Request) {
	box, _ := a.Box.Status()
	answer(w, tidy(box))
}

// tidy makes absent lists empty ones, and numbers such that JSON has them:
// programs need no special case.
func tidy(b status.Box) status.Box {
	b.Renditions = append([]status.Rendition{}, b.Renditions...)
	b.Outputs = append([]status.Output{}, b.Outputs...)
	b.Readers = append([]status.Reader{}, b.Readers...)
	b.Faults = append([]status.Fault{}, b.Faults...)
	b.Services = append([]status.Service{}, b.Services...)
	b.Tally.Sources = append([]status.TallySource{}, b.Tally.Sources...)
	b.Sound.PeakDBFS = max(b.Sound.PeakDBFS, silence)
	b.Sound.LoudnessLUFS, b.Sound.MomentaryLUFS = max(b.Sound.LoudnessLUFS, silence), max(b.Sound.MomentaryLUFS, silence)
	for i, c := range b.Sound.Channels {
		b.Sound.Channels[i] = status.SoundChannel{PeakDBFS: max(c.PeakDBFS, silence), RMSDBFS: max(c.RMSDBFS, silence)}
	}
	b.Record.State = cmp.Or(b.Record.State, status.Off)
	if b.Keys == nil {
		b.Keys = map[string]status.Key{}
	}
	if b.Lamps == nil {
		b.Lamps = map[string]status.Lamp{}
	}
	return b
}

func (a *api) health(w http.ResponseWriter, _ *http.Request) {
	err := a.Box.Healthy()
	if err == nil {
		answer(w, map[string]string{"status": "ok"})
		return
	}
	problem(w, http.StatusServiceUnavailable, "The box is not well", "See its page for what to do.",
		strings.Split(err.Error(), "\n")...)
}

func (a *api) actions(w http.ResponseWriter, _ *http.Request) {
	answer(w, append([]ActionInfo{}, a.Box.Actions()...))
}

// act carries out an action; the guard lets only the control socket come here.
func (a *api) act(w http.ResponseWriter, r *http.Request) {
	args, err := arguments(w, r)
	if err != nil {
		problem(w, http.StatusBadRequest, "Arguments not understood",
			`Send a JSON object of texts as application/json, for example {"name": "youtube"}, or nothing.`)
		return
	}
	name := r.PathValue("name")
	err = a.Box.Do(r.Context(), name, args, by)
	switch {
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, ErrUnknown):
		problem(w, http.StatusNotFound, "Unknown", err.Error()+". The actions are listed at /api/v1/actions.")
	case errors.Is(err, ErrArguments):
		problem(w, http.StatusUnprocessableEntity, "Wrong arguments", err.Error())
	default:
		a.Log.Warn("action failed", "action", name, "err", err)
		problem(w, http.StatusInternalServerError, "The action failed", err.Error())
	}
}

// A Link opens a rendition to players: ?token=TOKEN behind its address.
type Link struct {
	Token string    `json:"token"`
	Until time.Time `json:"until"`
}

// link makes a link; the guard lets only the control socket come here.
func (a *api) link(w http.ResponseWriter, r *http.Request) {
	args, err := arguments(w, r)
	length, bad := time.ParseDuration(args["length"])
	if err != nil || bad != nil {
		problem(w, http.StatusBadRequest, "Link not understood", `Send for example {"rendition": "main", "length": "12h"} as application/json.`)
		return
	}
	token, until, err := a.Box.Link(args["rendition"], length)
	switch {
	case err == nil:
		answer(w, Link{token, until})
	case errors.Is(err, ErrUnknown):
		problem(w, http.StatusNotFound, "No such rendition", "The renditions are listed at /api/v1/status.")
	default:
		problem(w, http.StatusUnprocessableEntity, "No such link", err.Error())
	}
}

// usage answers with the report of who watched.
func (a *api) usage(w http.ResponseWriter, _ *http.Request) {
	var b bytes.Buffer
	if err := a.Box.WriteUsage(&b); err != nil {
		problem(w, http.StatusInternalServerError, "No report", err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="usage.csv"`)
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(b.Bytes()) // fails only if the client has gone
}

// live answers what players ask for.
func (a *api) live() http.Handler {
	if a.Live == nil {
		return http.HandlerFunc(notFound)
	}
	return a.Live
}

// arguments reads the body of an action; an empty one has none.
func arguments(w http.ResponseWriter, r *http.Request) (map[string]string, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil || len(body) == 0 {
		return nil, err
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, errors.New("the body is not application/json")
	}
	var args map[string]string
	if err := json.Unmarshal(body, &args); err != nil {
		return nil, err
	}
	return args, nil
}
