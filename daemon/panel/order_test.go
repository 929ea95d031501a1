package panel

import (
	"maps"
	"strings"
	"testing"
)

func TestOrders(t *testing.T) {
	tests := []struct{ text, want string }{
		{"", ""},
		{"stream.start", "stream.start"},
		{"  stream.stop   grace=20s ", "stream.stop grace=20s"},
		{"ptz.preset recall=1 camera=2", "ptz.preset camera=2 recall=1"},
		{`output.start name="Main hall"`, `output.start name="Main hall"`},
		{`output.start name="hall"`, "output.start name=hall"},
		{`say text="a \"b\" =c" n=1`, `say n=1 text="a \"b\" =c"`},
	}
	for _, tt := range tests {
		if o, err := ParseOrder(tt.text); err != nil || o.String() != tt.want {
			t.Errorf("%q: got %q, %v, want %q", tt.text, o, err, tt.want)
		}
	}
}

func TestOrdersThatAreNone(t *testing.T) {
	tests := []struct{ text, want string }{
		{"Start", `"Start" is no action`},
		{"stream..start", "is no action"},
		{"stream.start now", `"now" is not NAME=VALUE`},
		{"stream.stop grace=", "grace= has no value"},
		{`stream.stop grace=""`, "grace= has no value"},
		{"stream.stop =20s", `"=20s" is not NAME=VALUE`},
		{"stream.stop grace=1s grace=2s", "grace= stands there twice"},
		{`output.start name="Main hall`, "without its second quote"},
		{`output.start name="Main"hall`, "goes on behind its second quote"},
		{`output.start name=a"b`, "must stand in double quotes"},
		{"a\tb", "is no action"},
		{strings.Repeat("a", maxOrder+1), "at most 1000 bytes"},
	}
	for _, tt := range tests {
		if o, err := ParseOrder(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %q, %v, want %q", tt.text, o, err, tt.want)
		}
	}
}

func FuzzOrder(f *testing.F) {
	for _, s := range []string{"", "stream.stop grace=20s", `output.start name="Main hall" x=1`, `a b="\x00é" c=d`, "a b=ä c=\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		o, err := ParseOrder(s)
		if err != nil {
			return
		}
		again, err := ParseOrder(o.String())
		if len(o.String()) > maxOrder { // quoting makes it longer
			return
		}
		if err != nil || again.Action != o.Action || !maps.Equal(again.Args, o.Args) {
			t.Errorf("%q became %q, and that %q, %v", s, o, again, err)
		}
	})
}
