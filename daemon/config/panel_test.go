package config

import (
	"strings"
	"testing"
)

// Settings, and a show, are not lost by a sleeve that brushes a key.
func TestNoKeyLosesAnythingByAccident(t *testing.T) {
	const byPress, byHold = "happens by accident", "would forget settings, write confirm = true"
	for _, tt := range []struct{ order, want string }{
		{"press = 'factory.reset'", byPress},
		{"press = 'factory.reset'\nconfirm = true", byPress},
		{"double = 'factory.reset'\npress = 'stream.start'", byPress},
		{"press = 'network.reset'", byPress},
		{"double = 'network.reset'", byPress},
		{"press = 'box.restart'", byPress},
		{"double = 'box.restart'", byPress},
		{"hold = 'factory.reset'", byHold},
		{"long = 'network.reset'\nhold = 'stream.stop'", byHold},
		{"hold = 'network.reset'\nhold_time = '10s'", byHold},
		{"press = 'stream.stop'\nconfirm = true", "confirm is for hold and long"},
		{"hold = 'factory.reset'\nconfirm = true", ""},
		{"hold = 'network.reset'\nlong = 'factory.reset'\nconfirm = true", ""},
		{"hold = 'box.restart'", ""},
		{"press = 'stream.start'\nhold = 'stream.stop'\nconfirm = true", ""},
	} {
		_, err := Parse([]byte("[[key]]\nname = 'A'\n"+tt.order), Rules{})
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%q: %v, want %q", tt.order, err, tt.want)
		}
	}
}

func TestADisplayOfTSL5MayBeOfOneScreen(t *testing.T) {
	for input, good := range map[string]bool{
		"0": true, "65534": true, "2:7": true, "65534:0": true,
		"65535": false, "65535:1": false, "1:65535": false, "1:": false, ":1": false, "1:2:3": false, "-1": false, "x": false,
	} {
		_, err := Parse([]byte("[[tally]]\nname = 'a'\nprotocol = 'tsl5'\naddress = 'udp://:8901'\ninput = '"+input+"'"), Rules{})
		if good != (err == nil) || err != nil && !strings.Contains(err.Error(), "SCREEN:INDEX") {
			t.Errorf("%q: %v", input, err)
		}
	}
}

// Several displays of one switcher may be followed by its one serial line, which
// nothing else may have.
func TestTalliesShareTheLineOfTheirSwitcher(t *testing.T) {
	line := func(name, input string) string {
		return "[[tally]]\nname = '" + name + "'\nprotocol = 'tsl3.1'\naddress = 'serial:/dev/ttyS1'\ninput = '" + input + "'\n"
	}
	if _, err := Parse([]byte(line("a", "1")+line("b", "2")), Rules{}); err != nil {
		t.Error(err)
	}
	for name, doc := range map[string]string{
		"a remote":  "[remote]\nport = 'serial:/dev/ttyS1'\n" + line("a", "1"),
		"a display": line("a", "1") + "[[tally_out]]\nname = 'd'\naddress = 'serial:/dev/ttyS1'\n",
	} {
		if _, err := Parse([]byte(doc), Rules{}); err == nil || !strings.Contains(err.Error(), "in use already") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
