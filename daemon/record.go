package daemon

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/daemon/supervise"
	"encoderd.example/stream/record"
)

// recordNote is about the recorder. It is guarded by [Daemon.mu].
type recordNote struct {
	report record.Report
	since  time.Time // when something was on the medium first; zero: nothing is
	ended  bool      // the last try did, and none has begun
	failed string    // why it did
	torn   string    // what went wrong at the end of one that was to end; nobody waved it off yet
	past   record.Report
}

// record keeps a rendition as files. One that fails is tried again, in a new
// file, for as long as it is wanted.
func (d *Daemon) record(c recordConfig) run {
	return func(ctx context.Context, live func()) error {
		r := d.Rendition(c.Rendition)
		if r == nil {
			return supervise.Permanent(fmt.Errorf("%q: %w", c.Rendition, ErrNoRendition))
		}
		to := record.Settings{Dir: c.Dir, Name: c.Rendition, Length: c.Length}
		if !filepath.IsAbs(c.Dir) {
			to.Dir, to.Make = filepath.Join(d.State, c.Dir), true
		}
		err := d.recorder.Run(ctx, r, to, func(report record.Report) {
			d.noteRecording(report)
			if report.State == record.Recording || report.State == record.Slow {
				live() // what it lives by is noted
			}
		})
		d.noteRecorded(err, ctx.Err() != nil)
		return err
	}
}

func (d *Daemon) noteRecording(report record.Report) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := &d.notes.record
	if n.since.IsZero() && report.Pictures > 0 {
		n.since, n.failed, n.torn = time.Now(), "", ""
	}
	changed := n.report.State != report.State || n.report.File != report.File
	n.report, n.ended = report, false
	if changed {
		d.notes.kick()
	}
}

// noteRecorded is for the end of a try, told says whether it was to end. The
// supervisor has nothing to say of an error then.
func (d *Daemon) noteRecorded(err error, told bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := &d.notes.record
	torn := n.torn
	if told && err != nil {
		d.Log.Error("the end of a recording is missing", "service", "record", "err", err)
		torn = "the end of the last recording is missing: " + text(err)
	}
	*n = recordNote{ended: true, failed: text(err), torn: torn, past: n.sum()}
	d.notes.kick()
}

// sum is what was counted since the daemon began.
func (n *recordNote) sum() record.Report {
	return record.Report{
		Bytes:    n.past.Bytes + n.report.Bytes,
		Pictures: n.past.Pictures + n.report.Pictures,
		Lost:     n.past.Lost + n.report.Lost,
	}
}

// recordNow is what people see of the recorder; b has the renditions already.
// The caller holds mu.
func (d *Daemon) recordNow(b status.Box) status.Record {
	n := &d.notes.record
	sum := n.sum()
	st := status.Record{State: status.Off, Bytes: sum.Bytes, Pictures: sum.Pictures, Lost: sum.Lost}
	s := d.services["record"]
	if s == nil || s.State == supervise.Stopped {
		st.Error = n.torn
		return st
	}
	st.Rendition, st.File = d.config.Recorded(), n.report.File
	st.FreeBytes, st.TotalBytes = n.report.Free, n.report.Total
	st.State, st.Error = recordState(n, s.Status)
	st.RetryAt = retryAt(s.Status)
	if st.State == status.Recording || st.State == status.Slow {
		since := n.since
		st.Since = &since
	}
	if st.State != status.Failed {
		uncoded(&st, b)
	}
	return st
}

// recordState translates the supervisor's word and the recorder's.
func recordState(n *recordNote, s supervise.Status) (state, err string) {
	switch {
	case s.State == supervise.Live && n.ended && n.failed == "":
		return status.Off, "" // the supervisor is about to say so
	case s.State == supervise.Live && n.ended:
		return status.Failed, n.failed
	case s.State == supervise.Starting && s.Attempt > 1 && n.failed != "":
		return status.Failed, n.failed // that it tries again is no better news yet
	case n.report.State == record.Stuck:
		return status.Failed, text(record.ErrHangs)
	case s.State == supervise.Starting:
		return status.Starting, ""
	case s.State != supervise.Live:
		return status.Failed, cmp.Or(text(s.Err), n.failed)
	case n.report.State == record.Slow:
		return status.Slow, ""
	case n.report.State == record.Recording:
		return status.Recording, ""
	default:
		return status.Starting, "" // no picture comes
	}
}

// uncoded has a recording of nothing not pass for one: sound alone keeps a file
// growing.
func uncoded(st *status.Record, b status.Box) {
	i := slices.IndexFunc(b.Renditions, func(r status.Rendition) bool { return r.Name == st.Rendition })
	if i < 0 {
		return
	}
	switch r := b.Renditions[i]; r.State {
	case status.Live:
	case status.Recovering:
		st.State, st.Since, st.Error = status.Starting, nil, notCoded(r)
	case status.Starting, status.Off:
		st.State, st.Since = status.Starting, nil
	default:
		st.State, st.Since, st.Error, st.Uncoded = status.Failed, nil, notCoded(r), true
	}
}

func notCoded(r status.Rendition) string {
	return fmt.Sprintf("no pictures of %s are coded: %s", r.Name, r.Error)
}

// setRecord starts or stops recording; change is told whether it is wanted.
func (d *Daemon) setRecord(change func(bool) bool) error {
	return d.wish(func(w *Wanted) {
		on := change(w.Record)
		if !on && !w.Record {
			d.notes.record.torn = "" // somebody knows
		}
		if s := d.services["record"]; on && w.Record && s != nil && (s.State == supervise.Backoff || s.State == supervise.Failed) {
			w.Recordings++
		}
		w.Record = on
	})
}

// storage says what is wrong with what recordings go to; box says whether that
// is the disk of the state directory.
func (f *faultList) storage(b status.Box, box bool) {
	if scarce(b, box) {
		f.add(status.StorageLow, "", "")
	}
	switch r := b.Record; {
	case r.Uncoded:
		f.add(status.RecordUncoded, "", r.Error)
	case r.State == status.Failed, r.State == status.Off && r.Error != "":
		f.add(status.RecordFailed, "", r.Error)
	case r.State == status.Slow:
		f.add(status.RecordSlow, "", fmt.Sprintf("%d pictures were left out", r.Lost))
	}
}

// scarce reports whether the medium of a recording is almost full, or while
// there is none, whether one could not begin.
func scarce(b status.Box, box bool) bool {
	const low = 0.05
	if r := b.Record; r.TotalBytes > 0 {
		return float64(r.FreeBytes) < low*float64(r.TotalBytes)
	}
	return box && b.Storage.TotalBytes > 0 && b.Storage.FreeBytes < record.Room(b.Storage.TotalBytes)
}
