package panel

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// An Order is an action of the box with its arguments, as a key gives it. The
// zero Order is none.
type Order struct {
	Action string
	Args   map[string]string // nil if there are none
}

// maxOrder is longer than any order that makes sense.
const maxOrder = 1000

// ParseOrder reads an order as a config writes it: the action, then its
// arguments as NAME=VALUE, all with spaces between. A value with spaces stands
// in double quotes. It does not know which actions there are. An empty text is
// no order and no error.
func ParseOrder(s string) (Order, error) {
	if len(s) > maxOrder {
		return Order{}, fmt.Errorf("an order is at most %d bytes long", maxOrder)
	}
	action, rest, _ := strings.Cut(strings.TrimLeft(s, " "), " ")
	if action == "" {
		return Order{}, nil
	}
	if !isAction(action) {
		return Order{}, fmt.Errorf("%q is no action; write for example stream.start", action)
	}
	o := Order{Action: action}
	for rest = strings.TrimLeft(rest, " "); rest != ""; rest = strings.TrimLeft(rest, " ") {
		name, value, after, err := argument(rest)
		if err != nil {
			return Order{}, err
		}
		if _, twice := o.Args[name]; twice {
			return Order{}, fmt.Errorf("%s= stands there twice", name)
		}
		if o.Args == nil {
			o.Args = map[string]string{}
		}
		o.Args[name], rest = value, after
	}
	return o, nil
}

// argument cuts the first NAME=VALUE off s.
func argument(s string) (name, value, rest string, err error) {
	word, after, _ := strings.Cut(s, " ")
	name, value, ok := strings.Cut(word, "=")
	if !ok || !isName(name) {
		return "", "", "", fmt.Errorf("%q is not NAME=VALUE", word)
	}
	if strings.HasPrefix(value, `"`) {
		return quoted(name, s[len(name)+1:])
	}
	if value == "" {
		return "", "", "", fmt.Errorf("%s= has no value", name)
	}
	if plain(value) {
		return name, value, after, nil
	}
	return "", "", "", fmt.Errorf("%s= has a value that must stand in double quotes", name)
}

func quoted(name, s string) (_, value, rest string, err error) {
	q, err := strconv.QuotedPrefix(s)
	if err != nil {
		return "", "", "", fmt.Errorf("%s= has a value without its second quote", name)
	}
	if rest = s[len(q):]; rest != "" && rest[0] != ' ' {
		return "", "", "", fmt.Errorf("%s= goes on behind its second quote", name)
	}
	if value, err = strconv.Unquote(q); err != nil || value == "" {
		return "", "", "", errors.Join(fmt.Errorf("%s= has no value", name), err)
	}
	return name, value, rest, nil
}

// String writes the order such that ParseOrder reads it, arguments by name.
func (o Order) String() string {
	var b strings.Builder
	b.WriteString(o.Action)
	for _, name := range slices.Sorted(maps.Keys(o.Args)) {
		b.WriteString(" " + name + "=")
		if v := o.Args[name]; plain(v) {
			b.WriteString(v)
		} else {
			b.WriteString(strconv.Quote(v))
		}
	}
	return b.String()
}

// plain reports whether a value needs no quotes.
func plain(v string) bool {
	return v != "" && !strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r == '"' || r == '\\' || !strconv.IsPrint(r) })
}

// isAction reports whether s has the form of an action: words with dots between.
func isAction(s string) bool {
	for word := range strings.SplitSeq(s, ".") {
		if !isName(word) {
			return false
		}
	}
	return true
}

func isName(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_-") == ""
}
