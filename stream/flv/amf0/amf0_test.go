package amf0

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	other "github.com/bluenviron/gortmplib/pkg/amf0"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func Example() {
	b := Append(nil, String("onStatus"), Number(0), Object{{"code", String("NetStream.Publish.Start")}})
	values, err := Decode(b)
	fmt.Println(values[0], values[2].(Object).Text("code"), err)
	// Output: onStatus NetStream.Publish.Start <nil>
}

func TestAppendWritesTheBytesOfTheSpecification(t *testing.T) {
	tests := []struct {
		name  string
		value Value
		want  string
	}{
		{"number", Number(1.5), "00 3ff8000000000000"},
		{"true", Bool(true), "0101"},
		{"false", Bool(false), "0100"},
		{"string", String("abc"), "02 0003 616263"},
		{"null", Null{}, "05"},
		{"object", Object{{"a", Number(0)}}, "03 0001 61 000000000000000000 000009"},
		{"ECMA array", Array{{"a", Bool(true)}, {"b", Null{}}}, "08 00000002 0001 61 0101 0001 62 05 000009"},
		{"strict array", List{Null{}, Bool(false)}, "0a 00000002 05 0100"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want, err := hex.DecodeString(strings.ReplaceAll(tt.want, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			got := Append([]byte{0xee}, tt.value)
			if !bytes.Equal(got, append([]byte{0xee}, want...)) {
				t.Errorf("got %x, want ee%x", got, want)
			}
		})
	}
}

func TestAnotherImplementationReadsWhatWeWrite(t *testing.T) {
	b := Append(nil, String("connect"), Number(1), Object{{"app", String("live")}, {"n", Number(7)}}, Array{{"x", Bool(true)}}, List{Number(1)}, Null{})
	got, err := other.Unmarshal(b)
	want := other.Data{
		"connect", 1.0,
		other.Object{{Key: "app", Value: "live"}, {Key: "n", Value: 7.0}},
		other.ECMAArray{{Key: "x", Value: true}},
		other.StrictArray{1.0},
		nil,
	}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
}

func TestDecodeReadsBackWhatWasWritten(t *testing.T) {
	values := []Value{
		Number(-2), Bool(true), String("x"), String(strings.Repeat("y", 70000)),
		Null{},
		Object{{"o", Object{{"p", List{Number(1), Null{}}}}}, {"", Number(3)}},
	}
	got, err := Decode(Append(nil, values...))
	if d := cmp.Diff(values, got); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
}

func TestDecodeReadsRareMarkers(t *testing.T) {
	in := "06 0d 070001 0b 3ff0000000000000 0000 10 0001 54 0001 61 05 000009 0f 00000001 41 08 00000000 000009"
	b, _ := hex.DecodeString(strings.ReplaceAll(in, " ", ""))
	got, err := Decode(b)
	want := []Value{Null{}, Null{}, Null{}, Number(1), Object{{"a", Null{}}}, String("A"), Object(nil)}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
}

func TestDecodeIsBounded(t *testing.T) {
	tests := []struct {
		name string
		in   []byte
	}{
		{"objects in objects without end", bytes.Repeat([]byte{markObject, 0, 1, 'a'}, 1<<16)},
		{"lists in lists without end", bytes.Repeat([]byte{markList, 0, 0, 0, 1}, 1<<16)},
		{"a list of four thousand million", []byte{markList, 0xff, 0xff, 0xff, 0xff, 5}},
		{"a string of four thousand million", []byte{markLongString, 0xff, 0xff, 0xff, 0xff, 5}},
		{"an unknown marker", []byte{0x55}},
		{"an object without end", []byte{markObject}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Decode(tt.in); !errors.Is(err, ErrFormat) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestDecodeKeepsWhatCameBeforeTheDamage(t *testing.T) {
	got, err := Decode(append(Append(nil, String("onStatus"), Number(0)), 0x55))
	if len(got) != 2 || err == nil {
		t.Errorf("got %v, %v", got, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Append(nil, String("a"), Number(1), Object{{"b", List{Null{}}}}, Array{{"c", Bool(true)}}))
	f.Add([]byte{markTyped, 0, 0, 0, 0, markEnd})
	f.Fuzz(func(t *testing.T, data []byte) {
		values, err := Decode(data)
		if err != nil {
			return
		}
		b := Append(nil, values...)
		again, err := Decode(b)
		if err != nil || !bytes.Equal(Append(nil, again...), b) {
			t.Errorf("%x became %x: %v", data, b, err)
		}
	})
}
