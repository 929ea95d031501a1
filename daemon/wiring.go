package daemon

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"encoderd.example/daemon/config"
	"encoderd.example/daemon/panel"
	"encoderd.example/daemon/tally"
	"encoderd.example/hw"
)

// A wiring is what a config makes of the face of a board: its own keys and
// lamps, those that the config adds or puts elsewhere, and the contacts that
// tell of the tally, which are wired like keys.
type wiring struct {
	keys  []hw.KeyWire
	lamps []hw.LampWire
	maps  []panel.KeyMap
	roles map[string]panel.Role
	says  map[string]tally.Source // what closed contacts mean, by name of their key
}

// wire is pure.
func wire(c config.Config, b hw.Board) wiring {
	w := wiring{keys: slices.Clone(b.Keys), lamps: slices.Clone(b.Lamps), roles: map[string]panel.Role{}, says: map[string]tally.Source{}}
	for _, k := range c.Keys {
		w.key(k)
	}
	for _, k := range w.keys {
		w.maps = append(w.maps, keyMap(k.Name, c))
	}
	for _, l := range c.Lamps {
		w.lamp(l)
	}
	usual := panel.DefaultLamps()
	for _, l := range w.lamps {
		w.roles[l.Name] = usual[l.Name]
	}
	if len(w.lamps) == 0 { // the page shows these anyway
		w.roles["STREAM"], w.roles["TALLY"] = panel.RoleStream, panel.RoleTally
	}
	for _, l := range c.Lamps {
		if l.Shows != "" {
			w.roles[l.Name] = panel.Role(l.Shows)
		}
	}
	for _, t := range c.Tallies {
		if t.Protocol == config.Contact {
			w.says[contactPrefix+t.Name] = tallySource(t)
			w.keys = append(w.keys, hw.KeyWire{
				Name: contactPrefix + t.Name, Pin: hw.Pin(t.Address),
				ActiveLow: t.Active == config.Low, Pull: pull(t.Pull), Debounce: t.Debounce.Duration(),
			})
		}
	}
	return w
}

// contactPrefix stands before the name of a contact, which no key can have.
const contactPrefix = "tally/"

// key adds a key, or puts the board's own elsewhere.
func (w *wiring) key(k config.Key) {
	i := slices.IndexFunc(w.keys, func(o hw.KeyWire) bool { return o.Name == k.Name })
	if i >= 0 && k.Pin == "" {
		return // where the board has it
	}
	made := hw.KeyWire{
		Name: k.Name, Pin: hw.Pin(k.Pin),
		ActiveLow: k.Active == config.Low, Pull: pull(k.Pull), Debounce: k.Debounce.Duration(),
	}
	if i < 0 {
		w.keys = append(w.keys, made)
		return
	}
	w.keys[i] = made
}

func pull(word string) hw.Pull {
	if word == config.Auto {
		return hw.PullDefault
	}
	return hw.Pull(word)
}

// lamp adds a lamp, or puts the board's own elsewhere.
func (w *wiring) lamp(l config.Lamp) {
	made := LampWire(l)
	i := slices.IndexFunc(w.lamps, func(o hw.LampWire) bool { return o.Name == l.Name })
	parts, _ := made.Parts()
	switch {
	case i < 0:
		w.lamps = append(w.lamps, made)
	case len(parts) > 0:
		w.lamps[i] = made
	}
}

// LampWire is how a config wires a lamp; without parts if it leaves that to the
// board.
func LampWire(l config.Lamp) hw.LampWire {
	return hw.LampWire{
		Name: l.Name, Pin: hw.Pin(l.Pin), ActiveLow: l.Active == config.Low,
		Red: hw.Pin(l.Red), Green: hw.Pin(l.Green), Blue: hw.Pin(l.Blue),
	}
}

// keyMap says what a key orders: what the config says, or if it names no order,
// what is usual for its name.
func keyMap(name string, c config.Config) panel.KeyMap {
	m := panel.KeyMap{Name: name}
	i := slices.IndexFunc(panel.DefaultKeys(), func(d panel.KeyMap) bool { return d.Name == name })
	if i >= 0 {
		m = panel.DefaultKeys()[i]
	}
	if i := slices.IndexFunc(c.Keys, func(k config.Key) bool { return k.Name == name }); i >= 0 {
		k := c.Keys[i]
		if k.Press+k.Double+k.Hold+k.Long != "" {
			m = panel.KeyMap{Name: name, Press: order(k.Press), Double: order(k.Double), Hold: order(k.Hold), Long: order(k.Long), Confirm: k.Confirm}
		}
		if k.HoldTime > 0 {
			m.HoldTime = k.HoldTime.Duration()
		}
		if k.LongTime > 0 {
			m.LongTime = k.LongTime.Duration()
		}
	}
	m.DoubleTime, m.ConfirmTime, m.StuckTime = c.Panel.Double.Duration(), c.Panel.Confirm.Duration(), c.Panel.Stuck.Duration()
	return m
}

// order reads what a checked config orders.
func order(text string) panel.Order {
	o, err := panel.ParseOrder(text)
	if err != nil {
		return panel.Order{}
	}
	return o
}

// text tells wirings apart.
func (w *wiring) text() string {
	var s strings.Builder
	for _, k := range w.keys {
		fmt.Fprintf(&s, "key %+v\n", k)
	}
	for _, l := range w.lamps {
		fmt.Fprintf(&s, "lamp %+v\n", l)
	}
	fmt.Fprintln(&s, "says", w.says) // maps are printed in order
	return s.String()
}

// CheckKeys says what is wrong with the keys of a config that is good
// otherwise: the index of a key, and why.
func CheckKeys(c config.Config) (index int, err error) {
	for i, k := range c.Keys {
		if err := keyMap(k.Name, c).Check(); err != nil {
			return i, err
		}
	}
	return 0, nil
}

// A switcher is one that several tallies may follow by one link.
type switcher struct {
	name     string // of its first tally
	key      string
	protocol string
	address  string
	password config.Secret
	timeout  time.Duration // the shortest
	tallies  []config.Tally
}

// switchers finds who is to be listened to. It is pure.
func switchers(c config.Config) (list []switcher) {
	for _, t := range c.Tallies {
		if t.Protocol == config.Contact {
			continue
		}
		i := slices.IndexFunc(list, func(s switcher) bool { return s.key == linkKey(t) })
		if i < 0 {
			list = append(list, switcher{name: t.Name, key: linkKey(t), protocol: t.Protocol, address: t.Address, timeout: t.Timeout.Duration()})
			i = len(list) - 1
		}
		s := &list[i]
		s.tallies = append(s.tallies, t)
		s.timeout = min(s.timeout, t.Timeout.Duration())
		if s.password.IsZero() {
			s.password = t.Password
		}
	}
	return list
}

// linkKey names the link of a tally.
func linkKey(t config.Tally) string { return t.Protocol + " " + t.Address }

// sources are all tallies as their tracker follows them.
func sources(tallies []config.Tally) (list []tally.Source) {
	for _, t := range tallies {
		list = append(list, tallySource(t))
	}
	return list
}

func tallySource(t config.Tally) tally.Source {
	s := tally.Source{Name: t.Name, Protocol: t.Protocol, Address: t.Address, Input: t.Input, Timeout: t.Timeout.Duration()}
	switch t.Protocol {
	case config.Contact:
		s.Timeout, s.Input, s.Rule = 0, t.Says, t.Active
	case config.TSL31:
		s.Rule = fmt.Sprintf("preview %d, program %d", t.PreviewBit, t.ProgramBit)
	}
	return s
}
