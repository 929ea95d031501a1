package panel

import (
	"cmp"
	"fmt"
	"strings"
	"time"
	"unicode"

	"encoderd.example/daemon/status"
	"encoderd.example/hw"
)

// A Screen is where the panel is drawn.
type Screen struct {
	Width int  // signs in a line; 0 is as many as it takes
	Color bool // the terminal shows colors by ANSI sequences
}

// Text draws the panel for a terminal: keys, lamps as they shine now, tally and
// outputs, with a newline behind each line. It is pure, and nothing that comes
// from outside can control the terminal.
func Text(b status.Box, s Screen, now time.Time) string {
	d := drawing{screen: s, now: now}
	d.line("", mark{}, fmt.Sprintf("%s: %s, %s", b.Name, strings.ToUpper(b.State), now.Format(time.TimeOnly)))
	for name, k := range sorted(b.Keys) {
		d.line("KEYS", mark{}, columns(name, map[bool]string{true: "DOWN", false: "up"}[k.Down], d.key(k)))
	}
	for name, l := range sorted(b.Lamps) {
		p, _ := ParsePattern(l.Pattern) // one that nobody knows is dark
		d.line("LAMPS", d.dot(p), columns(name, l.Pattern, l.Reason))
	}
	d.line("TALLY", mark{}, columns("", cmp.Or(b.Tally.State, status.Off), b.Tally.Reason))
	for _, t := range b.Tally.Sources {
		d.line("TALLY", mark{}, columns(t.Name, t.State, d.source(t)))
	}
	for _, o := range b.Outputs {
		d.line("OUTPUTS", mark{}, columns(o.Name, o.State, d.output(o)))
	}
	return d.text.String()
}

// A drawing is a text that grows line by line.
type drawing struct {
	screen Screen
	now    time.Time
	text   strings.Builder
	part   string // that is being drawn
}

// A mark is a lamp in the text.
type mark struct {
	sign  string
	color hw.Color
}

func columns(name, state, rest string) string {
	return fmt.Sprintf("%-12s %-16s %s", name, state, rest)
}

// line adds one line; the name of a part stands in its first line only.
func (d *drawing) line(part string, m mark, s string) {
	head := part
	if part == d.part {
		head = ""
	}
	d.part = part
	if part != "" {
		s = fmt.Sprintf("%-8s%-1s %s", head, m.sign, s)
	}
	line := d.fit(strings.TrimRight(s, " "))
	if d.screen.Color && m.color != hw.Dark {
		line = strings.Replace(line, m.sign, inColor(m), 1)
	}
	d.text.WriteString(line + "\n")
}

// fit makes a line as short as the screen is wide, and takes out what a terminal
// would obey.
func (d *drawing) fit(s string) string {
	signs := []rune(s)
	for i, r := range signs {
		if !unicode.IsPrint(r) {
			signs[i] = '?'
		}
	}
	if w := d.screen.Width; w > 0 && len(signs) > w {
		signs = append(signs[:w-1], '…')
	}
	return string(signs)
}

// dot is a lamp as it shines now.
func (d *drawing) dot(p Pattern) mark {
	if lit, _ := p.At(d.now); lit {
		return mark{"●", p.Color}
	}
	return mark{"○", hw.Dark}
}

// ansi are the colors as a terminal counts them; white is its brightest.
var ansi = [...]int{hw.Red: 31, hw.Green: 32, hw.Amber: 33, hw.Blue: 34, hw.Red | hw.Blue: 35, hw.Green | hw.Blue: 36, hw.White: 97}

func inColor(m mark) string { return fmt.Sprintf("\x1b[%dm%s\x1b[0m", ansi[m.color&hw.White], m.sign) }

func (d *drawing) key(k status.Key) string {
	var say []string
	if k.Error != "" {
		say = append(say, k.Error)
	}
	switch {
	case k.Armed == "":
	case awaitsPress(k):
		say = append(say, "press once for "+k.Armed)
	default:
		say = append(say, "let go, then press once for "+k.Armed)
	}
	if k.Holding != "" {
		say = append(say, "keep holding for "+k.Holding)
	}
	if k.Action != "" && k.At != nil {
		say = append(say, fmt.Sprintf("%s %s ago: %s", k.Gesture, d.since(*k.At), k.Action))
	}
	if k.Edge != nil {
		say = append(say, "moved "+d.since(*k.Edge)+" ago")
	}
	return strings.Join(say, "; ")
}

func (d *drawing) source(t status.TallySource) string {
	where := t.Protocol + " " + t.Address
	if t.Input != "" {
		where += " input " + t.Input
	}
	say := []string{where, "never heard"}
	if t.Heard != nil {
		say[1] = "heard " + d.since(*t.Heard) + " ago"
		if t.Sender != "" {
			say[1] += " from " + t.Sender
		}
	}
	if t.Changed != nil {
		say = append(say, "changed "+d.since(*t.Changed)+" ago")
	}
	for _, o := range t.Senders {
		if o.Sender != t.Sender {
			say = append(say, fmt.Sprintf("%s says %s", o.Sender, o.State))
		}
	}
	if t.Bad > 0 {
		say = append(say, fmt.Sprintf("%d not understood", t.Bad))
	}
	return because(strings.Join(say, ", "), t.Error)
}

func (d *drawing) output(o status.Output) string {
	switch o.State {
	case status.Live, status.Unconfirmed:
		s := fmt.Sprintf("%.2f Mbit/s, %.0f ms behind", float64(o.Bitrate)/1e6, o.LagMS)
		if o.Lost > 0 {
			s += fmt.Sprintf(", %d lost", o.Lost)
		}
		return s
	case status.Backoff:
		s := strings.TrimPrefix(attempt(o), ", ")
		if o.RetryAt != nil {
			s += ", again in " + round(o.RetryAt.Sub(d.now))
		}
		return because(strings.TrimPrefix(s, ", "), o.Error)
	default:
		return o.Error
	}
}

func (d *drawing) since(t time.Time) string { return round(d.now.Sub(t)) }

// round writes a time for people; clocks that differ make none of it negative.
func round(t time.Duration) string { return max(t, 0).Round(time.Second).String() }
