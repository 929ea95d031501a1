package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Fault is one thing that is wrong with a config file. It repeats no values
// of keys and addresses, so that no secret can slip into it.
type Fault struct {
	Path string `json:"path"` // "rendition[0].bitrate", or "" for the file
	Line int    `json:"line"` // counts from 1; 0 = nowhere in the file
	Text string `json:"text"` // what is wrong
	Do   string `json:"do"`   // what to do next
}

// String returns "line 12: what is wrong, what to do next".
func (f Fault) String() string {
	var b strings.Builder
	if f.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", f.Line)
	}
	b.WriteString(f.Text)
	if f.Do != "" {
		b.WriteString(", " + f.Do)
	}
	return b.String()
}

// Faults is everything that is wrong with a file, in the order of its lines.
type Faults []Fault //nolint:errname // a list of faults, not one error

// Error returns one fault a line.
func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// err returns fs sorted as an error, or nil if there are none.
func (fs Faults) err() error {
	if len(fs) == 0 {
		return nil
	}
	slices.SortStableFunc(fs, func(a, b Fault) int { return cmp.Compare(a.Line, b.Line) })
	return fs
}
