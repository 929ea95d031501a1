package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// lines says on which line of a file each key stands: "video.fps",
// "rendition[1]", "rendition[1].name".
type lines map[string]int

// of returns the line of path, or of the nearest table around it, or zero.
func (l lines) of(path string) int {
	for path != "" {
		if n, ok := l[path]; ok {
			return n
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return 0
}

// locate walks a document that is known to be valid TOML.
func locate(doc []byte) lines {
	w := locator{lines: lines{}, lists: map[string]int{}}
	for i, b := range doc {
		if b == '\n' {
			w.ends = append(w.ends, i)
		}
	}
	w.parser.Reset(doc)
	table := ""
	for w.parser.NextExpression() {
		switch e := w.parser.Expression(); e.Kind {
		case unstable.ArrayTable:
			list := w.enter("", e.Key())
			table = fmt.Sprintf("%s[%d]", list, w.lists[list])
			w.lists[list]++
			w.lines[table] = w.line(e.Child())
		case unstable.Table:
			table = w.enter("", e.Key())
			table = w.last(table)
		case unstable.KeyValue:
			w.keyValue(table, e)
		default: // comments
		}
	}
	return w.lines
}

type locator struct {
	parser unstable.Parser
	lines  lines
	lists  map[string]int // tables seen so far of each [[list]]
	ends   []int          // where the lines end
}

func (w *locator) keyValue(table string, e *unstable.Node) {
	path := w.enter(table, e.Key())
	w.value(path, e.Value())
}

func (w *locator) value(path string, v *unstable.Node) {
	children := v.Children()
	for i := 0; children.Next(); i++ {
		switch v.Kind {
		case unstable.InlineTable:
			w.keyValue(path, children.Node())
		case unstable.Array:
			w.value(fmt.Sprintf("%s[%d]", path, i), children.Node())
		default: // scalars have no children
		}
	}
}

// enter follows a dotted key from table and notes where its parts stand.
func (w *locator) enter(table string, key unstable.Iterator) string {
	path := table
	for key.Next() {
		path = join(w.last(path), string(key.Node().Data))
		if _, seen := w.lines[path]; !seen {
			w.lines[path] = w.line(key.Node())
		}
	}
	return path
}

// last turns the name of a list of tables into its latest table.
func (w *locator) last(path string) string {
	if n := w.lists[path]; n > 0 {
		return fmt.Sprintf("%s[%d]", path, n-1)
	}
	return path
}

// line returns the line on which a part of a key stands.
func (w *locator) line(key *unstable.Node) int {
	n, _ := slices.BinarySearch(w.ends, int(key.Raw.Offset))
	return n + 1
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
