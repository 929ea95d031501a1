package tsl

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// camera4 is address 4, tally 2, full brightness, "CAM 4".
var camera4 = []byte("\x84\x32CAM 4           ")

func TestDisplay31OnTheWire(t *testing.T) {
	want := Display31{Address: 4, Tally: [4]bool{1: true}, Brightness: 3, Text: "CAM 4"}
	if got := want.Append(nil); !bytes.Equal(got, camera4) {
		t.Errorf("wrote %q", got)
	}
	got, err := ParseDisplay31(camera4)
	if err != nil || got != want {
		t.Errorf("read %+v, %v", got, err)
	}
	cut := Display31{Address: 126, Tally: [4]bool{true, true, true, true}, Text: "0123456789abcdefgh\u00e9"}
	if got, want := cut.Append(nil), []byte("\xfe\x0f0123456789abcdef"); !bytes.Equal(got, want) {
		t.Errorf("wrote %q", got)
	}
	if got, want := (Display31{Text: "Bühne"}).Append(nil), []byte("\x80\x00B??hne"); !bytes.HasPrefix(got, want) {
		t.Errorf("wrote %q", got)
	}
}

func TestWhatIsNoDisplay31(t *testing.T) {
	tests := []struct{ name, packet, want string }{
		{"nothing", "", "has 18 bytes, not 0"},
		{"cut short", string(camera4[:17]), "has 18 bytes, not 17"},
		{"too long", string(camera4) + " ", "has 18 bytes, not 19"},
		{"no header", "\x04" + string(camera4[1:]), "no packet begins here"},
		{"address 127", "\xff" + string(camera4[1:]), "no packet begins here"},
		{"high bit in the control byte", "\x84\xb2" + string(camera4[2:]), "high bit"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if d, err := ParseDisplay31([]byte(tt.packet)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("read %+v, %v", d, err)
			}
		})
	}
}

func TestTextIsAsciiWhateverComes(t *testing.T) {
	d, err := ParseDisplay31([]byte("\x84\x00K\xe4m\x01ra 4\x00rubbish"))
	if err != nil || d.Text != "K?m?ra 4" {
		t.Errorf("read %q, %v", d.Text, err)
	}
}

func TestAnyBitMayMeanProgramOrPreview(t *testing.T) {
	for bits := range 16 {
		var d Display31
		for i := range d.Tally {
			d.Tally[i] = bits>>i&1 == 1
		}
		for preview := range 5 {
			for program := range 5 {
				c := Channel{PreviewBit: preview, ProgramBit: program}
				want := "off"
				if preview > 0 && d.Tally[preview-1] {
					want = "preview"
				}
				if program > 0 && d.Tally[program-1] {
					want = "program"
				}
				if got := c.state(d); got != want {
					t.Errorf("bits %04b with %+v are %s, not %s", bits, c, got, want)
				}
			}
		}
	}
}

func TestParseChannel(t *testing.T) {
	for input, ok := range map[string]bool{"0": true, "126": true, "127": false, "-1": false, "": false, "4x": false} {
		if c, err := ParseChannel(input, 1, 2); (err == nil) != ok {
			t.Errorf("%q is %+v, %v", input, c, err)
		}
	}
}

// feed31 splits bytes, cut into pieces, and returns the addresses found.
func feed31(pieces ...[]byte) (found []int, dropped []string) {
	s := &splitter31{told: func(d Display31) { found = append(found, d.Address) }}
	for _, b := range pieces {
		if _, err := s.feed(b); err != nil {
			dropped = append(dropped, err.Error())
		}
	}
	return found, dropped
}

func TestAStreamOfDisplaysIsResynchronised(t *testing.T) {
	at := func(address int) string { return string(Display31{Address: address, Text: "x"}.Append(nil)) }
	tests := []struct {
		name, stream string
		found        []int
		dropped      string
	}{
		{"one after the other", at(0) + at(126) + at(3), []int{0, 126, 3}, ""},
		{"begun in the middle", at(1)[5:] + at(2), []int{2}, "no packet begins here"},
		{"a byte lost", at(1)[:9] + at(2)[10:] + at(3) + at(4), []int{3, 4}, "a packet ends after 17 of 18 bytes"},
		{"a byte too many", at(1) + "x" + at(2), []int{1, 2}, "no packet begins here"},
		{"cut short", at(1)[:17] + at(2), []int{2}, "a packet ends after 17 of 18 bytes"},
		{"a header twice", at(1)[:1] + at(2), []int{2}, "a packet ends after 1 of 18 bytes"},
		{"a control byte with its high bit set", "\x81\xb0" + at(1)[2:] + at(2), []int{2}, "a packet ends after 17 of 18 bytes"},
		{"address 127 is none", "\xff" + at(1)[1:] + at(2), []int{2}, "no packet begins here"},
		{"garbage alone", strings.Repeat("garbage", 100), nil, "no packet begins here"},
		{"ones", strings.Repeat("\xff", 100), nil, "no packet begins here"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			found, dropped := feed31([]byte(tt.stream))
			if diff := cmp.Diff(tt.found, found); diff != "" {
				t.Error(diff)
			}
			if got := strings.Join(dropped, "; "); got != tt.dropped {
				t.Errorf("dropped because of %q, not %q", got, tt.dropped)
			}
			if one, _ := feed31(slices.Collect(slices.Chunk([]byte(tt.stream), 1))...); !slices.Equal(one, found) {
				t.Errorf("byte by byte: %v", one)
			}
		})
	}
}

func TestADatagramHoldsWholeDisplaysOrNothing(t *testing.T) {
	v := V31{Sources: map[string]Channel{"cam": {Address: 4, PreviewBit: 1, ProgramBit: 2}, "same": {Address: 4, ProgramBit: 1}, "other": {Address: 5, ProgramBit: 2}}}
	other := Display31{Address: 5}.Append(nil)
	tests := []struct {
		name     string
		datagram []byte
		want     []string
		ok       bool
	}{
		{"one", camera4, []string{"cam=program", "same=off"}, true},
		{"two", slices.Concat(camera4, other), []string{"cam=program", "other=off", "same=off"}, true},
		{"another's", Display31{Address: 6}.Append(nil), nil, true},
		{"empty", nil, nil, false},
		{"cut short", camera4[:17], nil, false},
		{"the second one is bad", slices.Concat(camera4, make([]byte, 18)), nil, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			err := v.datagram(tt.datagram, func(source, state string) { got = append(got, source+"="+state) })
			slices.Sort(got)
			if diff := cmp.Diff(tt.want, got); diff != "" || (err == nil) != tt.ok {
				t.Errorf("%s%v", diff, err)
			}
		})
	}
}

// However a stream is cut and whatever was before, it gives the same packets,
// and one that comes whole is found.
func FuzzStream31(f *testing.F) {
	f.Add([]byte("garbage"), uint8(3))
	f.Add(camera4, uint8(1))
	f.Add(slices.Concat(camera4[:7], camera4, []byte("\xff\x00\x84"), camera4), uint8(5))
	f.Fuzz(func(t *testing.T, garbage []byte, cut uint8) {
		stream := slices.Concat(garbage, camera4)
		var whole, pieces []Display31
		one := &splitter31{told: func(d Display31) { whole = append(whole, d) }}
		if n, _ := one.feed(stream); n != len(whole) || n > len(stream)/size31 {
			t.Fatalf("%d packets of %d bytes, %d counted", len(whole), len(stream), n)
		}
		two := &splitter31{told: func(d Display31) { pieces = append(pieces, d) }}
		for b := range slices.Chunk(stream, int(cut)+1) {
			two.feed(b)
		}
		if !slices.Equal(whole, pieces) {
			t.Fatalf("in pieces %v, not %v", pieces, whole)
		}
		if len(whole) == 0 || whole[len(whole)-1].Text != "CAM 4" {
			t.Fatal("the whole packet at the end is lost")
		}
		for _, d := range whole {
			again, err := ParseDisplay31(d.Append(nil))
			if err != nil || again != d {
				t.Fatalf("%+v is read back as %+v, %v", d, again, err)
			}
		}
		v := V31{Sources: map[string]Channel{"cam": {Address: 4, PreviewBit: 1, ProgramBit: 2}}}
		said := 0
		if err := v.datagram(garbage, func(string, string) { said++ }); err != nil && said > 0 {
			t.Fatal("a bad datagram said something")
		}
	})
}

func ExampleDisplay31_Append() {
	d := Display31{Address: 4, Tally: [4]bool{1: true}, Brightness: 3, Text: "CAM 4"}
	fmt.Printf("%q", d.Append(nil))
	// Output: "\x842CAM 4           "
}
