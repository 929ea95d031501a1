package config

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
)

// maxSize is far above any real file. The TOML library takes time in the square
// of the number of keys: seconds for a megabyte.
const maxSize = 64 << 10

// Rules are what only the rest of the program knows. The zero Rules ask no
// more than the file itself can answer.
type Rules struct {
	// Schemes lists the URL schemes that outputs may have; nil allows all.
	Schemes []string
	// CheckURL, if set, says what is wrong with an output's address. Its error
	// is shown to people: it must not repeat user, path or query.
	CheckURL func(string) error
	// CheckOrder, if set, says what is wrong with what a key orders: an action,
	// then its arguments as NAME=VALUE.
	CheckOrder func(string) error
	// CheckKeys, if set, says which key has times that exclude each other, and
	// why. It sees only configs that are good otherwise.
	CheckKeys func(Config) (index int, err error)
	// CameraModels lists the cameras whose lamps [PTZ] can light; nil allows all.
	CameraModels []string
	// Overload, if set, says which rendition is too much for the hardware that
	// must code it: its index, what is wrong and what to do. ok is true if none
	// is. It sees only configs that are good otherwise.
	Overload func(Config) (index int, wrong, do string, ok bool)
	// Secret, if set, finds a stored secret; [Secrets.Get] fits. If nil,
	// references stay unresolved and are no faults.
	Secret func(name string) (Secret, bool)
}

// Parse reads a whole config file. An empty file gives [Default]. The error, if
// any, is a [Faults] with everything that is wrong.
func Parse(doc []byte, rules Rules) (Config, error) {
	tree, err := parseTree(doc)
	if err != nil {
		return Config{}, err
	}
	d := decoder{lines: locate(doc), faulty: map[string]bool{}}
	if err := migrate(tree, migrations); err != nil {
		d.fault("version", err.Error(), fmt.Sprintf("update the box, or write version = %d", currentVersion))
		return Config{}, d.faults.err()
	}
	c := Default()
	c.Renditions = nil
	d.table("", "at the top of the file", tree, reflect.ValueOf(&c).Elem())
	fill(&c)
	v := validator{decoder: &d, rules: rules}
	v.config(&c)
	if rules.Overload != nil && len(d.faults) == 0 {
		if i, wrong, do, ok := rules.Overload(c); !ok {
			v.fault(fmt.Sprintf("rendition[%d].encoder", i), wrong, do)
		}
	}
	if rules.CheckKeys != nil && len(d.faults) == 0 {
		if i, err := rules.CheckKeys(c); err != nil {
			v.fault(fmt.Sprintf("key[%d]", i), err.Error(), "choose other times")
		}
	}
	if err := d.faults.err(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// fill completes what depends on other parts of the file.
func fill(c *Config) {
	if len(c.Renditions) == 0 {
		main := defaultRendition()
		main.Name = "main"
		c.Renditions = []Rendition{main}
	}
	for i := range c.Renditions {
		c.Renditions[i].inherit(c.Video)
	}
	for i := range c.Outputs {
		if c.Outputs[i].Rendition == "" {
			c.Outputs[i].Rendition = c.Renditions[0].Name
		}
	}
}

// parseTree reads the TOML; its error is a Faults with one fault.
func parseTree(doc []byte) (map[string]any, error) {
	if len(doc) > maxSize {
		return nil, Faults{{Text: "the file is larger than 64 KiB", Do: "is it the right file?"}}
	}
	if !utf8.Valid(doc) || bytes.IndexByte(doc, 0) >= 0 {
		return nil, Faults{{Text: "the file is damaged: it holds bytes that are not text", Do: "restore it from a copy"}}
	}
	tree := map[string]any{}
	if err := toml.Unmarshal(doc, &tree); err != nil {
		f := Fault{Text: "this is not TOML", Do: `write KEY = VALUE, texts in "quotes", sections as [NAME]`}
		if at, ok := errors.AsType[*toml.DecodeError](err); ok {
			// The parser's own words can repeat a piece of a key; the line is enough.
			f.Line, _ = at.Position()
		}
		return nil, Faults{f}
	}
	return tree, nil
}

// resolve replaces references by what the store holds.
func (v *validator) resolve(at string, s *Secret) {
	if s.ref == "" || v.rules.Secret == nil {
		return
	}
	stored, ok := v.rules.Secret(s.ref)
	if !ok {
		v.fault(at, fmt.Sprintf("no secret named %q is stored", s.ref),
			fmt.Sprintf(`write %s = "THE KEY" into secrets.toml in the state directory`, s.ref))
		return
	}
	*s = stored
}

// address checks where an output goes.
func (v *validator) address(at string, a Address) {
	if a == (Address{}) {
		v.fault(at, "the output has no url", `write url = "rtmp://SERVER/APP" or another address`)
		return
	}
	u, err := url.Parse(a.Reveal())
	if err != nil || u.Scheme == "" || u.Opaque != "" {
		v.fault(at, "url is not an address", `write it as SCHEME://SERVER/PATH`)
		return
	}
	if v.rules.Schemes != nil && !slices.Contains(v.rules.Schemes, a.Scheme()) {
		v.fault(at, fmt.Sprintf("url has the unknown scheme %q", a.Scheme()), "known are "+list(v.rules.Schemes))
		return
	}
	if u.Hostname() == "" {
		v.fault(at, "url names no server", `write it as SCHEME://SERVER/PATH`)
		return
	}
	if v.rules.CheckURL == nil {
		return
	}
	if err := v.rules.CheckURL(a.Reveal()); err != nil {
		v.fault(at, "url cannot be used: "+err.Error(), "correct it")
	}
}
