package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// A row is one line of the result. Peer and Ratio are zero where there is no
// peer; Most is the most that Ratio may be, or Ours without a peer, and zero
// if nothing is asked. Zero says that Ours must be exactly that: no speed of a
// machine excuses it.
type row struct {
	What  string  `json:"what"`
	Unit  string  `json:"unit"`
	Ours  float64 `json:"ours"`
	Peer  float64 `json:"peer,omitempty"`
	Ratio float64 `json:"ratio,omitempty"`
	Most  float64 `json:"most,omitempty"`
	Zero  bool    `json:"zero,omitempty"`
	Met   bool    `json:"met"`
}

// A table is the result of a run.
type table struct {
	Machine machine  `json:"machine"`
	Rows    []row    `json:"rows"`
	Notes   []string `json:"notes"`
}

// compare adds a line whose ratio is the median over rounds.
func (t *table) compare(what, unit string, ours, peer []float64, most float64) {
	ratios := make([]float64, min(len(ours), len(peer)))
	for i := range ratios {
		ratios[i] = ours[i] / peer[i]
	}
	t.add(row{What: what, Unit: unit, Ours: median(ours), Peer: median(peer), Ratio: median(ratios), Most: most})
}

// tell adds a line without a peer.
func (t *table) tell(what, unit string, ours, most float64) {
	t.add(row{What: what, Unit: unit, Ours: ours, Most: most})
}

func (t *table) add(r row) {
	measured := r.Ratio
	if r.Peer == 0 {
		measured = r.Ours
	}
	r.Met = (r.Most == 0 || measured <= r.Most) && (!r.Zero || r.Ours == 0)
	t.Rows = append(t.Rows, r)
}

func (t *table) note(format string, args ...any) {
	t.Notes = append(t.Notes, fmt.Sprintf(format, args...))
}

func (t *table) missed() bool {
	return slices.ContainsFunc(t.Rows, func(r row) bool { return !r.Met })
}

func (t *table) notZero() bool {
	return slices.ContainsFunc(t.Rows, func(r row) bool { return r.Zero && !r.Met })
}

func (t *table) show(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nwhat\tunit\tours\tpeer\tratio\ttarget\t")
	for _, r := range t.Rows {
		ours := number(r.Ours)
		if r.Ours == 0 {
			ours = "0"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.What, r.Unit, ours, number(r.Peer), number(r.Ratio), r.target(), r.verdict())
	}
	_ = w.Flush() // as with every print: nobody is left to tell
	fmt.Fprintln(out)
	for _, n := range t.Notes {
		fmt.Fprintln(out, "-", n)
	}
	fmt.Fprintln(out, "-", t.Machine)
}

func (r row) target() string {
	switch {
	case r.Zero:
		return "= 0"
	case r.Most > 0:
		return "≤ " + number(r.Most)
	default:
		return ""
	}
}

func (r row) verdict() string {
	switch {
	case !r.Met:
		return "NOT MET"
	case r.target() != "":
		return "met"
	default:
		return ""
	}
}

// number prints v with three digits that count; zero is nothing.
func number(v float64) string {
	switch {
	case v == 0 || math.IsNaN(v):
		return ""
	case math.Abs(v) >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	default:
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
}

func (t *table) write(file string) error {
	doc, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	if err := os.WriteFile(file, append(doc, '\n'), 0o644); err != nil { //nolint:gosec // G306: a result for everybody
		return fmt.Errorf("write the table: %w", err)
	}
	return nil
}

func median(v []float64) float64 { return quantile(v, 0.5) }

// quantile returns the value that a part q of v does not exceed.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(v))
	if q == 0.5 && len(v)%2 == 0 {
		return (sorted[len(v)/2-1] + sorted[len(v)/2]) / 2
	}
	return sorted[min(int(q*float64(len(v))), len(v)-1)]
}

// A machine says how busy it was.
type machine struct {
	CPUs  int     `json:"cpus"`
	Arch  string  `json:"arch"`
	Load  float64 `json:"load"`  // average of the last minute, at the end
	Busy  float64 `json:"busy"`  // part of all CPU time in use
	Steal float64 `json:"steal"` // part that the hypervisor kept
	Took  float64 `json:"seconds"`

	at                 time.Time
	idle, steal, total float64 // since boot, in ticks
}

// readMachine reads the counters (proc(5), /proc/stat and /proc/loadavg).
func readMachine() (machine, error) {
	m := machine{CPUs: runtime.NumCPU(), Arch: runtime.GOARCH, at: time.Now()}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return m, fmt.Errorf("read the load: %w", err)
	}
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return m, fmt.Errorf("read the load: %w", err)
	}
	if _, err := fmt.Sscan(string(load), &m.Load); err != nil {
		return m, fmt.Errorf("read the load: %w", err)
	}
	first, _, _ := strings.Cut(string(stat), "\n")
	const idle, iowait, steal, last = 3, 4, 7, 8
	for i, f := range strings.Fields(first)[1:] {
		v, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return m, fmt.Errorf("read the load: %w", err)
		}
		switch i {
		case idle, iowait:
			m.idle += v
		case steal:
			m.steal += v
		}
		if i < last { // guest time is part of user time
			m.total += v
		}
	}
	return m, nil
}

func (m machine) since(before machine) machine {
	total := max(m.total-before.total, 1)
	m.Busy = 1 - (m.idle-before.idle)/total
	m.Steal = (m.steal - before.steal) / total
	m.Took = m.at.Sub(before.at).Seconds()
	return m
}

func (m machine) String() string {
	return fmt.Sprintf("machine: %d CPUs (%s), %.0f %% busy, %.1f %% stolen, load %.1f at the end; the run took %.0f s",
		m.CPUs, m.Arch, 100*m.Busy, 100*m.Steal, m.Load, m.Took)
}
