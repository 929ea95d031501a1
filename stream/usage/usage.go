// Package usage keeps the book of who watched: for each day, rendition and
// protocol how many readers there were, how many at once, for how long, and
// how many bytes they got. It names nobody. A player that goes over to another
// rendition, as those of HLS and DASH do by themselves, is a reader of both.
//
//	Audience ─► Ledger ─► file in the state directory, every few minutes
//	                 └──► CSV for the owner
package usage

import (
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"encoderd.example/stream"
)

const (
	// KeepDays is how many days with viewers the ledger remembers: the newest,
	// by their dates.
	KeepDays = 400
	// saveEvery bounds what a power cut costs.
	saveEvery = 5 * time.Minute
	// maxFile is far above what KeepDays of a large box take.
	maxFile  = 16 << 20
	dateForm = time.DateOnly
)

// A Line is one day of one rendition by one protocol.
type Line struct {
	Date      string        `json:"date"` // of the box's time zone, "2026-11-21"
	Rendition string        `json:"rendition"`
	Protocol  string        `json:"protocol"`
	Readers   int           `json:"readers"` // who watched at some time of the day
	Peak      int           `json:"peak"`    // at once
	Watched   time.Duration `json:"watched"` // of all readers together, nanoseconds
	Bytes     uint64        `json:"bytes"`
}

// page is what a line is about.
type page struct{ date, rendition, protocol string }

// A Ledger is a [stream.Book]. Its methods may be called from any goroutine.
type Ledger struct {
	path string
	now  func() time.Time

	mu     sync.Mutex
	lines  map[page]*Line
	inside map[*stream.Viewer]*mark
	dirty  bool
}

// A mark is up to where a viewer is in the book.
type mark struct {
	page  page
	bytes uint64
	at    time.Time
}

// Open returns the ledger that is kept in the file at path, an empty one if
// there is none. A file that cannot be read is set aside under path.bad and
// told by an error beside the usable, empty ledger.
func Open(path string) (*Ledger, error) {
	l := &Ledger{path: path, now: time.Now, lines: map[page]*Line{}, inside: map[*stream.Viewer]*mark{}}
	lines, err := read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return l, nil
	case err != nil:
		aside := path + ".bad"
		return l, errors.Join(fmt.Errorf("the usage report begins anew, the old one is %s: %w", aside, err), os.Rename(path, aside))
	}
	for _, line := range lines {
		l.lines[page{line.Date, line.Rendition, line.Protocol}] = &line
	}
	return l, nil
}

func read(path string) (lines []Line, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if err := json.NewDecoder(io.LimitReader(f, maxFile)).Decode(&lines); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, line := range lines {
		if _, err := time.Parse(dateForm, line.Date); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return lines, nil
}

// Joined notes that v watches from now on.
func (l *Ledger) Joined(v *stream.Viewer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enter(v, l.now(), v.Bytes.Load())
}

// Left notes that v is gone.
func (l *Ledger) Left(v *stream.Viewer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := l.inside[v]; m != nil {
		l.bring(v, m, l.now())
		delete(l.inside, v)
	}
}

// enter begins a page's count of v.
func (l *Ledger) enter(v *stream.Viewer, at time.Time, bytes uint64) {
	p := page{at.Format(dateForm), v.Rendition, v.Protocol}
	l.inside[v] = &mark{page: p, bytes: bytes, at: at}
	line := l.lines[p]
	if line == nil {
		line = &Line{Date: p.date, Rendition: p.rendition, Protocol: p.protocol}
		l.lines[p] = line
	}
	line.Readers++
	line.Peak = max(line.Peak, l.watching(p))
	l.dirty = true
}

func (l *Ledger) watching(p page) (n int) {
	for _, m := range l.inside {
		if m.page == p {
			n++
		}
	}
	return n
}

// bring adds to v's line what came since its mark. A clock that was set back
// takes nothing away.
func (l *Ledger) bring(v *stream.Viewer, m *mark, now time.Time) {
	bytes := v.Bytes.Load()
	line := l.lines[m.page]
	line.Bytes += bytes - m.bytes
	line.Watched += max(0, now.Sub(m.at))
	m.bytes, m.at = bytes, now
	l.dirty = true
}

// settle brings every line up to now. Who watches past midnight is a reader of
// both days.
func (l *Ledger) settle() {
	now := l.now()
	today := now.Format(dateForm)
	for v, m := range l.inside {
		l.bring(v, m, now)
		if m.page.date != today {
			l.enter(v, now, m.bytes)
		}
	}
	l.trim()
}

// trim forgets the oldest days. It asks no clock: a wrong one, from a box that
// has no battery for it, would cost the whole book.
func (l *Ledger) trim() {
	days := map[string]bool{}
	for p := range l.lines {
		days[p.date] = true
	}
	if len(days) <= KeepDays {
		return
	}
	dates := slices.Sorted(maps.Keys(days))
	oldest := dates[len(dates)-KeepDays]
	for p := range l.lines {
		if p.date < oldest && l.watching(p) == 0 {
			delete(l.lines, p)
		}
	}
}

// Lines returns the book up to this moment, by date, rendition and protocol.
func (l *Ledger) Lines() []Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settle()
	return l.sorted()
}

func (l *Ledger) sorted() []Line {
	lines := make([]Line, 0, len(l.lines))
	for _, line := range l.lines {
		lines = append(lines, *line)
	}
	slices.SortFunc(lines, func(a, b Line) int {
		return cmp.Or(cmp.Compare(a.Date, b.Date), cmp.Compare(a.Rendition, b.Rendition), cmp.Compare(a.Protocol, b.Protocol))
	})
	return lines
}

// WriteCSV writes the book as CSV (RFC 4180) with a line of names first; times
// are in hours.
func (l *Ledger) WriteCSV(w io.Writer) error {
	c := csv.NewWriter(w)
	rows := [][]string{{"date", "rendition", "protocol", "readers", "peak", "hours", "bytes"}}
	for _, n := range l.Lines() {
		rows = append(rows, []string{
			n.Date, n.Rendition, n.Protocol, strconv.Itoa(n.Readers), strconv.Itoa(n.Peak),
			strconv.FormatFloat(n.Watched.Hours(), 'f', 3, 64), strconv.FormatUint(n.Bytes, 10),
		})
	}
	return c.WriteAll(rows)
}

// Run writes the file every few minutes and once more when ctx ends. It
// returns the error of that last time only; others are logged and tried again.
func (l *Ledger) Run(ctx context.Context, log *slog.Logger) error {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := l.save(); err != nil {
				log.Warn("the usage report is not on disk yet", "err", err)
			}
		case <-ctx.Done():
			return l.save()
		}
	}
}

// save writes the file if something is new.
func (l *Ledger) save() error {
	l.mu.Lock()
	l.settle()
	lines, dirty := l.sorted(), l.dirty
	l.dirty = false
	l.mu.Unlock()
	if !dirty {
		return nil
	}
	b, err := json.Marshal(lines)
	if err == nil {
		err = renameio.WriteFile(l.path, b, 0o640)
	}
	if err != nil {
		l.mu.Lock()
		l.dirty = true
		l.mu.Unlock()
		return fmt.Errorf("usage report: %w", err)
	}
	return nil
}
