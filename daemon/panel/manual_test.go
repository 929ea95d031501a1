package panel

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

const manual = "../../docs/panel.md"

// TestTheManualSaysWhatTheBoxDoes holds the tables of docs/panel.md to the rows
// that light the lamps and to the keys' maps; -update writes them.
func TestTheManualSaysWhatTheBoxDoes(t *testing.T) {
	page, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	s := string(page)
	for part, table := range map[string]string{"keys": keyTable(t), "lights": lightTable(), "contacts": contactTable()} {
		s = replaced(t, s, part, table)
	}
	golden(t, manual, s)
}

// replaced puts a table between the marks of its part.
func replaced(t *testing.T, page, part, table string) string {
	t.Helper()
	before, rest, ok := strings.Cut(page, "<!-- "+part+":")
	mark, rest, ok2 := strings.Cut(rest, "\n")
	_, after, ok3 := strings.Cut(rest, "<!-- /"+part+" -->")
	if !ok || !ok2 || !ok3 {
		t.Fatalf("%s has no place for the table of %s", manual, part)
	}
	return before + "<!-- " + part + ":" + mark + "\n" + table + "<!-- /" + part + " -->" + after
}

// doing says in plain words what an action does.
var doing = map[string]string{
	"stream.start": "The show starts, or goes on after a stop.", "stream.stop": "The show stops.",
	"record.start": "Recording starts.", "record.stop": "Recording stops.",
	"audio.toggle":  "Silence; once more, sound.",
	"network.reset": "The network is as it was at first.", "factory.reset": "Everything is as it was at first: all settings are lost.",
}

func keyTable(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("| key | what you do | what happens |\n|-|-|-|\n")
	for _, m := range DefaultKeys() {
		m = m.usual()
		sure := ""
		if m.Confirm {
			sure = fmt.Sprintf(", let go, then press once within %s", seconds(m.ConfirmTime))
		}
		for _, g := range []struct {
			how   string
			order Order
		}{
			{"press", m.Press},
			{"press twice", m.Double},
			{"hold for " + seconds(m.HoldTime) + sure, m.Hold},
			{"hold for " + seconds(m.LongTime) + sure, m.Long},
		} {
			if g.order.Action == "" {
				continue
			}
			what, ok := doing[g.order.Action]
			if !ok {
				t.Errorf("nobody can say what %s does", g.order.Action)
			}
			if grace := g.order.Args["grace"]; grace != "" {
				what += fmt.Sprintf(" For %s viewers see a still picture, and a press goes on with the show.", strings.TrimSuffix(grace, "s")+" seconds")
			}
			fmt.Fprintf(&b, "| %s | %s | %s |\n", m.Name, g.how, what)
		}
	}
	return b.String()
}

func seconds(d time.Duration) string { return fmt.Sprintf("%g seconds", d.Seconds()) }

// lightTable has a line for each row of lamps; what several lamps say alike
// stands there once.
func lightTable() string {
	names := map[Role]string{}
	for name, role := range DefaultLamps() {
		names[role] = name
	}
	type light struct {
		pattern   Pattern
		means, do string
	}
	lamps := map[light][]string{}
	var order []light
	for _, r := range rows {
		if r.role.Contact() {
			continue
		}
		l := light{r.pattern, r.means, r.do}
		if lamps[l] == nil {
			order = append(order, l)
		}
		lamps[l] = append(lamps[l], names[r.role])
	}
	var b strings.Builder
	b.WriteString("| lamp | light | meaning | what to do |\n|-|-|-|-|\n")
	for _, l := range order {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", strings.Join(lamps[l], ", "), look(l.pattern), l.means, l.do)
	}
	return b.String()
}

// look describes a pattern and draws two seconds of it.
func look(p Pattern) string {
	if p == (Pattern{}) {
		return "dark"
	}
	drawn := strings.NewReplacer("#", "█", ".", "·").Replace(strip(p, noon))
	return fmt.Sprintf("%s, %s `%s`", colors[p.Color], rhythms[p.Rhythm].words, drawn)
}

func contactTable() string {
	var b strings.Builder
	b.WriteString("| shows | closed | open |\n|-|-|-|\n")
	for _, role := range Roles() {
		if !role.Contact() {
			continue
		}
		means := map[bool]string{}
		for _, r := range rows {
			if r.role == role {
				means[r.pattern != Pattern{}] = r.means
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", role, means[true], means[false])
	}
	return b.String()
}
