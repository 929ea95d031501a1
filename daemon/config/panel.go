package config

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Panel holds the times of all keys.
type Panel struct {
	// Double is how long a key with a double press waits for the second one,
	// Confirm how long an armed order waits for its short press, and Stuck after
	// what time a key that stays down counts as broken.
	Double  Span `toml:"double"`
	Confirm Span `toml:"confirm"`
	Stuck   Span `toml:"stuck"`
}

// A Key is a key on the box. One that names no order at all has the usual ones
// of its name, if that is STREAM, REC, MUTE or RESET.
type Key struct {
	Name string `toml:"name"`
	// Pin is "gpio:NAME" or "gpio:CHIP:OFFSET"; "" is where the board has it.
	Pin      string `toml:"pin,omitempty"`
	Active   string `toml:"active"` // low | high
	Pull     string `toml:"pull"`   // up | down | none | auto
	Debounce Span   `toml:"debounce"`
	// Press, Double, Hold and Long are orders: an action, then its arguments as
	// NAME=VALUE; "" is none.
	Press    string `toml:"press,omitempty"`
	Double   string `toml:"double,omitempty"`
	Hold     string `toml:"hold,omitempty"`
	HoldTime Span   `toml:"hold_time,omitempty"` // zero is usual
	Long     string `toml:"long,omitempty"`
	LongTime Span   `toml:"long_time,omitempty"` // zero is usual
	// Confirm says that Hold and Long wait for a short press before they count;
	// resets have to.
	Confirm bool `toml:"confirm,omitempty"`
}

// A Lamp is a lamp on the box, or a contact that the box closes.
type Lamp struct {
	Name string `toml:"name"`
	// Pin is "gpio:NAME", "gpio:CHIP:OFFSET" or "led:NAME"; a lamp of colors has
	// some of Red, Green and Blue instead. None of them is where the board has it.
	Pin    string `toml:"pin,omitempty"`
	Red    string `toml:"red,omitempty"`
	Green  string `toml:"green,omitempty"`
	Blue   string `toml:"blue,omitempty"`
	Active string `toml:"active"` // low | high
	// Shows is what it tells, "" what its name says.
	Shows string `toml:"shows,omitempty"`
}

// A Tally is somebody who knows whether this camera is on program.
type Tally struct {
	Name     string `toml:"name"`
	Protocol string `toml:"protocol"` // contact | tsl3.1 | tsl5 | obs | vmix
	// Address is where to call or to listen, by protocol; of a contact its pin.
	Address string `toml:"address"`
	// Input is which of the switcher's this camera is: an address, a number, for
	// TSL 5 also SCREEN:INDEX, or the name of a scene or input.
	Input    string `toml:"input,omitempty"`
	Password Secret `toml:"password,omitempty"`
	// Timeout is after how long a silence the tally is unknown.
	Timeout Span `toml:"timeout,omitempty"`
	// PreviewBit and ProgramBit say which of the four tallies of TSL 3.1 mean
	// what, from 1.
	PreviewBit int `toml:"preview_bit,omitempty"`
	ProgramBit int `toml:"program_bit,omitempty"`
	// Says is what a closed contact means; Active, Pull and Debounce are as for
	// a [Key].
	Says     string `toml:"says,omitempty"` // program | preview
	Active   string `toml:"active,omitempty"`
	Pull     string `toml:"pull,omitempty"`
	Debounce Span   `toml:"debounce,omitempty"`
}

// A TallyOut is a display elsewhere that shows this camera's tally by TSL 3.1.
type TallyOut struct {
	Name    string `toml:"name"`
	Address string `toml:"address"` // udp://, tcp:// or serial:
	Input   int    `toml:"input"`   // address of the display, 0–126
}

// PTZ is a camera's VISCA port; Port "" is none.
type PTZ struct {
	Port   string `toml:"port"` // serial:PATH
	Baud   int    `toml:"baud"`
	Camera int    `toml:"camera"` // 1–7
	// Model picks the camera's tally commands; "" lights no lamp on the camera.
	Model string `toml:"model"`
}

// Remote is a serial port for START, STOP and STATUS; Port "" is none.
type Remote struct {
	Port string `toml:"port"` // serial:PATH
	Baud int    `toml:"baud"`
}

// The values of Active, Pull, Tally.Protocol and Tally.Says.
const (
	Low  = "low"
	High = "high"

	Up   = "up"
	Down = "down"
	None = "none"

	Contact = "contact"
	TSL31   = "tsl3.1"
	TSL5    = "tsl5"
	OBS     = "obs"
	VMix    = "vmix"

	Program = "program"
	Preview = "preview"
)

func defaultKey() Key   { return Key{Active: Low, Pull: Auto, Debounce: Span(5 * time.Millisecond)} }
func defaultLamp() Lamp { return Lamp{Active: High} }
func defaultTally() Tally {
	return Tally{
		Timeout: Span(10 * time.Second), PreviewBit: 1, ProgramBit: 2,
		Says: Program, Active: Low, Pull: Auto, Debounce: Span(5 * time.Millisecond),
	}
}

const (
	maxDebounce = Span(time.Second)
	minHold     = Span(200 * time.Millisecond)
	maxHold     = Span(time.Minute)
	minTimeout  = Span(time.Second)
	maxTimeout  = Span(time.Hour)
	maxPins     = 64
)

// grave are the actions that no key may order by a press, which happens by
// itself; resets are those of them that need a second look even so.
var (
	grave  = []string{"factory.reset", "network.reset", "box.restart"}
	resets = []string{"factory.reset", "network.reset"}
)

var (
	levels  = []string{Low, High}
	pulls   = []string{Auto, Up, Down, None}
	says    = []string{Program, Preview}
	bauds   = []int{1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200}
	roles   = []string{"stream", "record", "mute", "tally", "stage", "reset", "program", "preview", "live", "recording", "fault"}
	inPins  = []string{"gpio", "sim"}
	outPins = []string{"gpio", "led", "sim"}
)

// dials says which addresses the protocols of tally know, with an example.
var dials = map[string]struct {
	schemes []string
	example string
}{
	Contact: {inPins, "gpio:NAME"},
	TSL31:   {[]string{"udp", "tcp", "serial"}, "udp://:8900"},
	TSL5:    {[]string{"udp", "tcp"}, "udp://:8901"},
	OBS:     {[]string{"ws", "wss"}, "ws://HOST:4455"},
	VMix:    {[]string{"tcp"}, "tcp://HOST:8099"},
}

// panel checks keys, lamps, tally and serial control.
func (v *validator) panel(c *Config) {
	v.span("panel.double", "double", c.Panel.Double, Span(100*time.Millisecond), Span(2*time.Second))
	v.span("panel.confirm", "confirm", c.Panel.Confirm, Span(time.Second), maxHold)
	v.span("panel.stuck", "stuck", c.Panel.Stuck, Span(15*time.Second), Span(10*time.Minute))
	if len(c.Keys)+len(c.Lamps)+len(c.Tallies)+len(c.TallyOuts) > maxPins {
		v.fault("key", fmt.Sprintf("there are more than %d keys, lamps and tallies", maxPins), "remove some")
	}
	names, pins := map[string]string{}, map[string]string{}
	for i, k := range c.Keys {
		at := fmt.Sprintf("key[%d]", i)
		v.label(at, "key", k.Name, names)
		v.key(at, k, pins)
	}
	names = map[string]string{}
	for i, l := range c.Lamps {
		at := fmt.Sprintf("lamp[%d]", i)
		v.label(at, "lamp", l.Name, names)
		v.lamp(at, l, pins)
	}
	ports := map[string]string{}
	v.ptz(c.PTZ, ports)
	v.remote(c.Remote, ports)
	names = map[string]string{}
	passwords := map[string]first{}
	for i := range c.Tallies {
		at := fmt.Sprintf("tally[%d]", i)
		v.name(at, "tally", c.Tallies[i].Name, names)
		v.tally(at, &c.Tallies[i], pins, ports)
		v.samePassword(at+".password", c.Tallies[i], passwords)
	}
	names = map[string]string{}
	for i, o := range c.TallyOuts {
		at := fmt.Sprintf("tally_out[%d]", i)
		v.name(at, "tally_out", o.Name, names)
		v.dial(at+".address", o.Address, dials[TSL31].schemes, "udp://DISPLAY:8900")
		v.port(at+".address", o.Address, ports)
		if u, err := url.Parse(o.Address); err == nil && u.Scheme != "serial" && u.Hostname() == "" {
			v.fault(at+".address", "address names no display", `write for example "udp://10.0.0.5:8900"`)
		}
		if o.Input < 0 || o.Input > 126 {
			v.fault(at+".input", "input is out of range, from 0 to 126", "write the address of the display")
		}
	}
}

// label checks the name of a key or lamp: as it stands on the box.
func (v *validator) label(at, what, name string, seen map[string]string) {
	if name == "" || len(name) > maxNameLength || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
		v.fault(at+".name", fmt.Sprintf("name must be 1 to %d of A–Z, %s", maxNameLength, nameLetters), fmt.Sprintf("name the %s as it is called on the box", what))
		return
	}
	if first, ok := seen[name]; ok {
		v.fault(at+".name", fmt.Sprintf("two %ss have the name %q, the first in line %d", what, name, v.lines.of(first)), "rename one of them")
		return
	}
	seen[name] = at + ".name"
}

func (v *validator) key(at string, k Key, pins map[string]string) {
	v.pin(at+".pin", "pin", k.Pin, inPins, pins)
	v.word(at+".active", "active", k.Active, levels)
	v.word(at+".pull", "pull", k.Pull, pulls)
	v.span(at+".debounce", "debounce", k.Debounce, 0, maxDebounce)
	for _, o := range []struct{ key, order string }{{"press", k.Press}, {"double", k.Double}, {"hold", k.Hold}, {"long", k.Long}} {
		v.order(at+"."+o.key, o.key, o.order)
	}
	v.graveOrders(at, k)
	if k.HoldTime != 0 {
		v.span(at+".hold_time", "hold_time", k.HoldTime, minHold, maxHold)
	}
	if k.LongTime != 0 {
		v.span(at+".long_time", "long_time", k.LongTime, minHold, maxHold)
	}
	if k.HoldTime != 0 && k.LongTime != 0 && k.LongTime <= k.HoldTime {
		v.fault(at+".long_time", "long_time is not longer than hold_time", "choose a longer one")
	}
}

// graveOrders checks that nobody gives an order by accident that costs the
// settings or the show.
func (v *validator) graveOrders(at string, k Key) {
	does := func(order string, actions []string) bool {
		words := strings.Fields(order)
		return len(words) > 0 && slices.Contains(actions, words[0])
	}
	for _, o := range []struct{ key, order string }{{"press", k.Press}, {"double", k.Double}} {
		if does(o.order, grave) {
			v.fault(at+"."+o.key, fmt.Sprintf("%s by %s happens by accident", strings.Fields(o.order)[0], o.key), "write it as hold or long, and confirm = true")
		}
	}
	for _, o := range []struct{ key, order string }{{"hold", k.Hold}, {"long", k.Long}} {
		if does(o.order, resets) && !k.Confirm {
			v.fault(at+"."+o.key, "a key that is held would forget settings", "write confirm = true")
		}
	}
	if k.Confirm && k.Press+k.Double != "" && k.Hold+k.Long == "" {
		v.fault(at+".confirm", "confirm is for hold and long, and the key has neither", "write the order as hold, or leave confirm out")
	}
}

// order checks that an action and its arguments are known.
func (v *validator) order(path, key, order string) {
	if order == "" || v.rules.CheckOrder == nil {
		return
	}
	if err := v.rules.CheckOrder(order); err != nil {
		v.fault(path, key+" cannot be ordered: "+err.Error(), `write an action, for example "stream.start"`)
	}
}

func (v *validator) lamp(at string, l Lamp, pins map[string]string) {
	colors := []struct{ key, pin string }{{"red", l.Red}, {"green", l.Green}, {"blue", l.Blue}}
	v.pin(at+".pin", "pin", l.Pin, outPins, pins)
	for _, c := range colors {
		v.pin(at+"."+c.key, c.key, c.pin, outPins, pins)
		if c.pin != "" && l.Pin != "" {
			v.fault(at+"."+c.key, "the lamp has pin and colors", "write pin for a lamp of one color, else red, green and blue")
		}
	}
	v.word(at+".active", "active", l.Active, levels)
	if l.Shows != "" {
		v.word(at+".shows", "shows", l.Shows, roles)
	}
}

// pin checks where something is wired, and that nothing else is.
func (v *validator) pin(path, key, pin string, kinds []string, taken map[string]string) {
	if pin == "" {
		return
	}
	kind, rest, _ := strings.Cut(pin, ":")
	if !slices.Contains(kinds, kind) || rest == "" || strings.ContainsAny(rest, "/ ") || strings.HasPrefix(rest, ".") {
		v.fault(path, key+" is not a place where a wire can be", fmt.Sprintf("write %s:NAME, as \"encoderd probe\" lists them", strings.Join(kinds, ":NAME or ")))
		return
	}
	if first, ok := taken[pin]; ok {
		v.fault(path, fmt.Sprintf("%s is in use already, in line %d", pin, v.lines.of(first)), "choose another one")
		return
	}
	taken[pin] = path
}

func (v *validator) span(path, key string, s, least, most Span) {
	if s < least || s > most {
		v.fault(path, fmt.Sprintf("%s is out of range, from %v to %v", key, least, most), "choose one within")
	}
}

func (v *validator) tally(at string, t *Tally, pins, ports map[string]string) {
	v.resolve(at+".password", &t.Password)
	protocols := []string{Contact, TSL31, TSL5, OBS, VMix}
	if !slices.Contains(protocols, t.Protocol) {
		v.fault(at+".protocol", fmt.Sprintf("protocol cannot be %q", t.Protocol), "write "+list(protocols))
		return
	}
	v.span(at+".timeout", "timeout", t.Timeout, minTimeout, maxTimeout)
	if t.Protocol == Contact {
		v.contact(at, *t, pins)
		return
	}
	d := dials[t.Protocol]
	v.dial(at+".address", t.Address, d.schemes, d.example)
	if !sharesLine(*t, ports) {
		v.port(at+".address", t.Address, ports)
	}
	v.input(at+".input", *t)
	if min(t.PreviewBit, t.ProgramBit) < 1 || max(t.PreviewBit, t.ProgramBit) > 4 || t.PreviewBit == t.ProgramBit {
		v.fault(at+".program_bit", "preview_bit and program_bit must be two of 1 to 4", "look up which tally of the switcher means what")
	}
}

// sharesLine reports whether an earlier tally listens to the same serial line, which
// they share.
func sharesLine(t Tally, ports map[string]string) bool {
	return strings.HasPrefix(ports[t.Address], "tally[")
}

// A first is the password that a switcher was first given, and where.
type first struct{ value, path string }

// samePassword checks that tallies of one switcher, which share a connection,
// do not have different passwords. One that has none takes that of the others.
func (v *validator) samePassword(path string, t Tally, seen map[string]first) {
	switcher, password := t.Protocol+" "+t.Address, t.Password.Reveal()
	if t.Protocol == Contact || password == "" {
		return
	}
	before, ok := seen[switcher]
	if !ok {
		seen[switcher] = first{password, path}
		return
	}
	if before.value != password {
		v.fault(path, fmt.Sprintf("the switcher has another password already, in line %d", v.lines.of(before.path)), "write the same one, or one only")
	}
}

func (v *validator) contact(at string, t Tally, pins map[string]string) {
	if t.Address == "" {
		v.fault(at+".address", "the contact has no address", `write address = "gpio:NAME"`)
	}
	v.pin(at+".address", "address", t.Address, inPins, pins)
	v.word(at+".says", "says", t.Says, says)
	v.word(at+".active", "active", t.Active, levels)
	v.word(at+".pull", "pull", t.Pull, pulls)
	v.span(at+".debounce", "debounce", t.Debounce, 0, maxDebounce)
}

// input checks which of the switcher's inputs is followed.
func (v *validator) input(path string, t Tally) {
	n, err := strconv.Atoi(t.Input)
	switch {
	case t.Input == "":
		v.fault(path, "the tally does not say which input this camera is", `write input = "3" or its name`)
	case t.Protocol == TSL31 && (err != nil || n < 0 || n > 126):
		v.fault(path, "input is not an address of TSL 3.1", "write a number from 0 to 126 in quotes")
	case t.Protocol == TSL5 && !isPlace(t.Input):
		v.fault(path, "input is not an index of TSL 5", `write a number from 0 to 65534 in quotes, or "SCREEN:INDEX"`)
	case len(t.Input) > 256:
		v.fault(path, "input is longer than any name", "write the name as the switcher shows it")
	}
}

// isPlace reports whether s is INDEX or SCREEN:INDEX of TSL 5.
func isPlace(s string) bool {
	screen, index, both := strings.Cut(s, ":")
	if !both {
		index = screen
	}
	for _, number := range []string{screen, index} {
		if n, err := strconv.ParseUint(number, 10, 16); err != nil || n > 65534 {
			return false
		}
	}
	return true
}

// dial checks the address of a switcher or display. Its words never repeat it:
// a password in the wrong place stays unsaid.
func (v *validator) dial(path, address string, schemes []string, example string) {
	scheme, rest, _ := strings.Cut(address, ":")
	if !slices.Contains(schemes, scheme) {
		v.fault(path, "address is of an unknown kind", fmt.Sprintf("write %s, for example %q", list(schemes), example))
		return
	}
	if scheme == "serial" {
		v.path(path, "address", rest)
		return
	}
	u, err := url.Parse(address)
	if err != nil || u.User != nil || strings.ContainsAny(address, "?#") {
		v.fault(path, "address cannot be used", fmt.Sprintf("write for example %q", example))
		return
	}
	web := scheme == "ws" || scheme == "wss"
	if _, _, err := net.SplitHostPort(u.Host); err != nil && !web {
		v.fault(path, "address has no port", fmt.Sprintf("write for example %q", example))
	}
	if u.Hostname() == "" && (web || strings.Contains(example, "HOST")) {
		v.fault(path, "address names no switcher", fmt.Sprintf("write for example %q", example))
	}
}

// path checks the device of a serial port.
func (v *validator) path(at, key, path string) {
	if !strings.HasPrefix(path, "/dev/") || strings.Contains(path, "..") {
		v.fault(at, key+" is not a serial port", `write "serial:/dev/serial/by-path/…", as "encoderd probe" lists them`)
	}
}

// port checks that a serial port has one user.
func (v *validator) port(path, address string, taken map[string]string) {
	if !strings.HasPrefix(address, "serial:") {
		return
	}
	if first, ok := taken[address]; ok {
		v.fault(path, fmt.Sprintf("the serial port is in use already, in line %d", v.lines.of(first)), "choose another one")
		return
	}
	taken[address] = path
}

// serial checks a port that is for one purpose.
func (v *validator) serial(at, port string, baud int, ports map[string]string) {
	rest, ok := strings.CutPrefix(port, "serial:")
	if !ok {
		v.fault(at+".port", "port is not a serial port", `write "serial:/dev/serial/by-path/…", as "encoderd probe" lists them`)
		return
	}
	v.path(at+".port", "port", rest)
	v.port(at+".port", port, ports)
	if !slices.Contains(bauds, baud) {
		v.fault(at+".baud", "baud is no usual rate", "write 9600, or what the other side has")
	}
}

func (v *validator) ptz(p PTZ, ports map[string]string) {
	if p.Port == "" {
		return
	}
	v.serial("ptz", p.Port, p.Baud, ports)
	if p.Camera < 1 || p.Camera > 7 {
		v.fault("ptz.camera", "camera is out of range, from 1 to 7", "write 1 for the first camera of the chain")
	}
	if p.Model != "" && v.rules.CameraModels != nil {
		v.word("ptz.model", "model", p.Model, v.rules.CameraModels)
	}
}

func (v *validator) remote(r Remote, ports map[string]string) {
	if r.Port != "" {
		v.serial("remote", r.Port, r.Baud, ports)
	}
}
