package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// A decoder fills structs from a TOML tree by their toml tags. It collects
// faults instead of stopping at the first.
type decoder struct {
	lines  lines
	faults Faults
	faulty map[string]bool // paths that have a fault
}

// fault notes one fault a path: what follows from the first is no news.
func (d *decoder) fault(path, text, do string) {
	if d.faulty[path] {
		return
	}
	d.faulty[path] = true
	d.faults = append(d.faults, Fault{Path: path, Line: d.lines.of(path), Text: text, Do: do})
}

// table fills the struct into from tree. heading is how the file calls it.
func (d *decoder) table(path, heading string, tree map[string]any, into reflect.Value) {
	fields := tagged(into)
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		at := join(path, key)
		field, ok := fields[key]
		if !ok {
			d.fault(at, fmt.Sprintf("unknown key %q %s", key, heading), suggest(key, slices.Sorted(maps.Keys(fields))))
			continue
		}
		d.value(at, key, tree[key], field)
	}
}

// value fills one field.
func (d *decoder) value(path, key string, v any, into reflect.Value) {
	if s, ok := reflect.TypeAssert[setter](into.Addr()); ok {
		if text, do := s.set(v); text != "" {
			d.fault(path, key+" "+text, do)
		}
		return
	}
	if into.Kind() == reflect.Struct {
		d.section(path, key, v, into)
		return
	}
	if into.Kind() == reflect.Slice {
		d.list(path, key, v, into)
		return
	}
	d.scalar(path, key, v, into)
}

func (d *decoder) section(path, key string, v any, into reflect.Value) {
	tree, ok := v.(map[string]any)
	if !ok {
		d.fault(path, fmt.Sprintf("%s is %s, not a section", key, kind(v)), fmt.Sprintf("write [%s] on a line of its own", key))
		return
	}
	d.table(path, "in ["+key+"]", tree, into)
}

// list fills a slice of tables or of texts.
func (d *decoder) list(path, key string, v any, into reflect.Value) {
	elem := into.Type().Elem()
	want := fmt.Sprintf(`write a list of texts, for example %s = ["one", "two"]`, key)
	if elem.Kind() == reflect.Struct {
		want = fmt.Sprintf("write [[%s]] in double brackets", key)
	}
	items, ok := v.([]any)
	if !ok {
		d.fault(path, fmt.Sprintf("%s is %s, not a list", key, kind(v)), want)
		return
	}
	for i, item := range items {
		at := fmt.Sprintf("%s[%d]", path, i)
		e := reflect.New(elem).Elem()
		tree, isTable := item.(map[string]any)
		if elem.Kind() == reflect.Struct && isTable {
			preset(e)
			d.table(at, "in [["+key+"]]", tree, e)
		} else if text, isText := item.(string); isText && elem.Kind() == reflect.String {
			e.SetString(text)
		} else {
			d.fault(at, fmt.Sprintf("%s holds %s", key, kind(item)), want)
		}
		into.Set(reflect.Append(into, e))
	}
}

// preset gives a fresh list element its defaults.
func preset(e reflect.Value) {
	switch e.Interface().(type) {
	case Rendition:
		e.Set(reflect.ValueOf(defaultRendition()))
	case Output:
		e.Set(reflect.ValueOf(defaultOutput()))
	case Key:
		e.Set(reflect.ValueOf(defaultKey()))
	case Lamp:
		e.Set(reflect.ValueOf(defaultLamp()))
	case Tally:
		e.Set(reflect.ValueOf(defaultTally()))
	}
}

func (d *decoder) scalar(path, key string, v any, into reflect.Value) {
	switch v := v.(type) {
	case string:
		if into.Kind() == reflect.String {
			into.SetString(v)
			return
		}
	case int64:
		if into.Kind() == reflect.Int {
			into.SetInt(int64(clampInt(v)))
			return
		}
	case bool:
		if into.Kind() == reflect.Bool {
			into.SetBool(v)
			return
		}
	}
	want := map[reflect.Kind][2]string{
		reflect.String: {"text", "write it in quotes"},
		reflect.Int:    {"a whole number", "write digits without quotes"},
		reflect.Bool:   {"true or false", "write true or false without quotes"},
	}[into.Kind()]
	d.fault(path, fmt.Sprintf("%s is %s, not %s", key, kind(v), want[0]), want[1])
}

// tagged returns the fields of struct v by their TOML names.
func tagged(v reflect.Value) map[string]reflect.Value {
	fields := map[string]reflect.Value{}
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("toml"), ",")
		fields[name] = v.Field(i)
	}
	return fields
}

// suggest names the known key nearest to key, or else all of them.
func suggest(key string, known []string) string {
	best, least := "", 1+min(max(1, len(key)/2), 3)
	for _, k := range known {
		if d := distance(key, k); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return "known keys are " + strings.Join(known, ", ")
	}
	return fmt.Sprintf("did you mean %q?", best)
}

// distance counts the letters to insert, delete or change from a to b
// (Levenshtein), without regard to case.
func distance(a, b string) int {
	a, b = strings.ToLower(a), strings.ToLower(b)
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
