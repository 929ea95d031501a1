package hls

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"encoderd.example/stream"
	"encoderd.example/stream/cmaf"
	"encoderd.example/stream/visit"
)

// A reload is what a player asks of a media playlist by its delivery directives
// (RFC 8216bis, 6.2.5).
type reload struct {
	blocking bool
	number   uint64
	part     int // -1: the whole segment
	skip     bool
}

// readReload reads the directives of a query.
func readReload(query url.Values) (d reload, ok bool) {
	d.part = -1
	number, part := query.Get("_HLS_msn"), query.Get("_HLS_part")
	switch query.Get("_HLS_skip") {
	case "":
	case "YES", "v2":
		d.skip = true
	default:
		return d, false
	}
	if number == "" {
		return d, part == ""
	}
	var err error
	if d.number, err = strconv.ParseUint(number, 10, 63); err != nil {
		return d, false
	}
	d.blocking = true
	if part == "" {
		return d, true
	}
	p, err := strconv.ParseUint(part, 10, 16)
	d.part = int(p)
	return d, err == nil
}

// tooFar reports whether d asks for what is not to come soon: more than two
// segments ahead, or parts for more than three seconds (RFC 8216bis, 6.2.5.2).
func (d reload) tooFar(s *cmaf.Sequence) bool {
	last := s.Last()
	if d.number != last.Number {
		return d.number > last.Number+2
	}
	ahead := int(3*time.Second/max(s.PartTarget, time.Millisecond)) + 1
	return d.part > len(last.Parts)+ahead
}

// met reports whether s has what d asks for.
func (d reload) met(s *cmaf.Sequence) bool {
	// Without a whole segment players take a playlist for empty.
	return len(s.Complete()) > 0 && (!d.blocking || s.Has(d.number, d.part))
}

// playlist answers with a media playlist, as soon as it has what is asked for.
func (s *Server) playlist(w http.ResponseWriter, r *http.Request, st *cmaf.Stream, m cmaf.Medium, viewer *stream.Viewer) {
	d, ok := readReload(r.URL.Query())
	if !ok {
		visit.Fail(w, http.StatusBadRequest, "bad _HLS_msn, _HLS_part or _HLS_skip")
		return
	}
	seq, err := d.wait(r.Context(), st, m)
	switch {
	case errors.Is(err, errTooFar):
		visit.Fail(w, http.StatusBadRequest, err.Error())
		return
	case err != nil:
		cmaf.Unavailable(w, err)
		return
	}
	p := s.page(st, seq, d.skip, s.set(r.PathValue("set")))
	viewer.Bytes.Add(uint64(p.write(w, r, "private, no-cache")))
}

var errTooFar = errors.New("_HLS_msn or _HLS_part is too far ahead")

// wait returns the newest snapshot once it has what d asks for. The error is
// errTooFar or that of [cmaf.Stream.Wait].
func (d reload) wait(ctx context.Context, st *cmaf.Stream, m cmaf.Medium) (*cmaf.Sequence, error) {
	st.Ask()
	if seq := st.Latest(m); seq != nil && d.met(seq) {
		return seq, nil
	}
	begun, cancel := context.WithTimeout(ctx, waitTime)
	defer cancel()
	seq, err := st.Wait(begun, m, reload{}.met)
	if err != nil || !d.blocking {
		return seq, err
	}
	if d.tooFar(seq) {
		return nil, errTooFar
	}
	there, cancel := context.WithTimeout(ctx, holdBack*seq.Target)
	defer cancel()
	return st.Wait(there, m, d.met)
}

// page returns the playlist that shows seq to players of a set, the same for
// all of them.
func (s *Server) page(st *cmaf.Stream, seq *cmaf.Sequence, skip bool, names set) *page {
	name := pageName{st.Name(), names.String(), seq.Medium, skip}
	return s.pages.of(name, seq.Version, func() []byte {
		return media(seq, skip, reports(st, seq.Medium, s.others(st, names)))
	})
}
