package tsl

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
)

// onAir is screen 1, index 3, all lamps red, full brightness, "CAM 4".
var onAir = []byte("\x0f\x00\x00\x00\x01\x00" + "\x03\x00\xd5\x00\x05\x00CAM 4")

// packet5 writes a packet as a switcher would.
func packet5(p Packet5, unicode bool) []byte {
	b := make([]byte, 4)
	if unicode {
		b[3] = flagUnicode
	}
	b = binary.LittleEndian.AppendUint16(b, uint16(p.Screen))
	for _, d := range p.Displays {
		text := []byte(d.Words)
		if unicode {
			text = nil
			for _, u := range utf16.Encode([]rune(d.Words)) {
				text = binary.LittleEndian.AppendUint16(text, u)
			}
		}
		b = binary.LittleEndian.AppendUint16(b, uint16(d.Index))
		b = binary.LittleEndian.AppendUint16(b, uint16(d.Right)|uint16(d.Text)<<2|uint16(d.Left)<<4|uint16(d.Brightness)<<6)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(text)))
		b = append(b, text...)
	}
	binary.LittleEndian.PutUint16(b, uint16(len(b)-2))
	return b
}

// wrap puts a packet into a stream.
func wrap(packet []byte) []byte {
	return append([]byte{dle, stx}, bytes.ReplaceAll(packet, []byte{dle}, []byte{dle, dle})...)
}

func TestPacket5FromTheWire(t *testing.T) {
	p, err := ParsePacket5(onAir)
	want := Packet5{Screen: 1, Displays: []Display5{{Index: 3, Right: LampRed, Text: LampRed, Left: LampRed, Brightness: 3, Words: "CAM 4"}}}
	if diff := cmp.Diff(want, p); diff != "" || err != nil {
		t.Errorf("%s%v", diff, err)
	}
	if got := packet5(want, false); !bytes.Equal(got, onAir) {
		t.Errorf("these tests write %q", got)
	}
}

func TestAnyLampCounts(t *testing.T) {
	for lamps := range 64 {
		d := Display5{Right: Lamp5(lamps & 3), Text: Lamp5(lamps >> 2 & 3), Left: Lamp5(lamps >> 4 & 3)}
		want := "off"
		if lamps&0b101010 != 0 {
			want = "preview"
		}
		if lamps&0b010101 != 0 { // red, or red and green, which is amber
			want = "program"
		}
		if got := d.state(); got != want {
			t.Errorf("lamps %06b are %s, not %s", lamps, got, want)
		}
	}
}

func TestPackets5(t *testing.T) {
	two := Packet5{Displays: []Display5{{Index: 1, Left: LampGreen, Words: "Kanzel"}, {Index: 2, Text: LampRed | LampGreen, Words: "Altar öst 🎥"}}}
	tests := []struct {
		name, packet string
		displays     int
		wrong        string
	}{
		{"several displays", string(packet5(two, true)), 2, ""},
		{"no display", "\x04\x00\x00\x00\x00\x00", 0, ""},
		{"no text", "\x0a\x00\x00\x00\x00\x00\x01\x00\x01\x00\x00\x00", 1, ""},
		{"half a character of text", "\x0b\x00\x00\x01\x00\x00\x01\x00\x01\x00\x01\x00x", 1, ""},
		{"screen control is left alone", "\x07\x00\x00\x02\x00\x00\x01\x02\x03", 0, ""},
		{"control data ends the packet", string(withControlData()), 1, ""},
		{"nothing", "", 0, "has 6 bytes at least, not 0"},
		{"cut in the header", "\x03\x00\x00\x00\x00", 0, "has 6 bytes at least, not 5"},
		{"counts too much", "\x0b" + string(onAir[1:11]), 0, "the packet counts 11 bytes and has 9"},
		{"counts too little", "\x04" + string(onAir[1:]), 0, "the packet counts 4 bytes and has 15"},
		{"of another version", "\x04\x00\x01\x00\x00\x00", 0, "version 5.1 is not known"},
		{"a display cut short", "\x07\x00\x00\x00\x00\x00\x01\x00\x01", 0, "a display message is cut short"},
		{"a display without its count", "\x09\x00\x00\x00\x00\x00\x01\x00\x01\x00\x00", 0, "a display message is cut short"},
		{"a text cut short", "\x0b\x00\x00\x00\x00\x00\x01\x00\x01\x00\x02\x00x", 0, "a text counts 2 bytes and has 1"},
		{"the second display is bad", "\x0f\x00\x00\x00\x00\x00\x01\x00\x01\x00\x00\x00\x02\x00\x01\x00\x09", 0, "a display message is cut short"},
		{"too long", string(append([]byte{0xff, 0x07}, make([]byte, 2047)...)), 0, "has 2048 bytes at most"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := ParsePacket5([]byte(tt.packet))
			switch {
			case tt.wrong == "" && err != nil:
				t.Error(err)
			case tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong)):
				t.Errorf("wrong because of %v, not %s", err, tt.wrong)
			case len(p.Displays) != tt.displays:
				t.Errorf("%d displays: %+v", len(p.Displays), p)
			}
		})
	}
	p, _ := ParsePacket5(packet5(two, true))
	if diff := cmp.Diff(two, p); diff != "" {
		t.Error(diff)
	}
}

// withControlData is a packet with a display, and then control data that 5.0
// does not define.
func withControlData() []byte {
	b := packet5(Packet5{Displays: []Display5{{Index: 1, Right: LampRed}}}, false)
	b = append(b, 2, 0, 0, 0x80, 0xff)
	binary.LittleEndian.PutUint16(b, uint16(len(b)-2))
	return b
}

func TestParsePlace(t *testing.T) {
	tests := map[string]Place{
		"3": {AnyScreen, 3}, "65534": {AnyScreen, 65534}, "0:0": {0, 0}, "2:7": {2, 7},
		"": {}, "65535": {}, "65535:1": {}, "-1": {}, "1:": {}, ":1": {}, "1:2:3": {}, "camera": {},
	}
	for input, want := range tests {
		if got, err := ParsePlace(input); got != want || (err != nil) != (want == Place{} && input != "0:0") {
			t.Errorf("%q is %+v, %v", input, got, err)
		}
	}
}

func TestAPlaceIsOnItsScreenOrOnAll(t *testing.T) {
	v := V5{Sources: map[string]Place{"any": {AnyScreen, 3}, "one": {1, 3}, "two": {2, 3}, "far": {AnyScreen, 4}}}
	tests := []struct {
		name          string
		screen, index int
		want          string
	}{
		{"its screen", 1, 3, "any one"},
		{"another screen", 7, 3, "any"},
		{"all screens", Broadcast, 3, "any one two"},
		{"all indices", 2, Broadcast, "any far two"},
		{"everything", Broadcast, Broadcast, "any far one two"},
		{"another index", 1, 9, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			packet := packet5(Packet5{Screen: tt.screen, Displays: []Display5{{Index: tt.index, Right: LampRed}}}, false)
			for _, b := range [][]byte{packet, wrap(packet)} {
				got = nil
				if err := v.datagram(b, func(source, state string) {
					if state != "program" {
						t.Errorf("%s is %s", source, state)
					}
					got = append(got, source)
				}); err != nil {
					t.Error(err)
				}
			}
			slices.Sort(got)
			if strings.Join(got, " ") != tt.want {
				t.Errorf("%v heard it", got)
			}
		})
	}
}

// feed5 splits bytes and returns the indices found.
func feed5(b []byte) (found []int, dropped string) {
	s := &splitter5{told: func(p Packet5) {
		for _, d := range p.Displays {
			found = append(found, d.Index)
		}
	}}
	_, err := s.feed(b)
	if err != nil {
		dropped = err.Error()
	}
	return found, dropped
}

func TestAStreamOfPackets5IsResynchronised(t *testing.T) {
	at := func(index int) string {
		return string(wrap(packet5(Packet5{Screen: 1, Displays: []Display5{{Index: index, Right: LampRed, Words: "cam"}}}, false)))
	}
	long := string([]byte{dle, stx, 0xff, 0x07, 0, 0})
	tests := []struct {
		name, stream string
		found        []int
		dropped      string
	}{
		{"one after the other", at(1) + at(2), []int{1, 2}, ""},
		{"DLE in index and count", at(0xfefe) + at(0x02fe) + at(3), []int{0xfefe, 0x02fe, 3}, ""},
		{"begun in the middle", at(1)[4:] + at(2), []int{2}, "no packet begins here"},
		{"cut short", at(1)[:9] + at(2), []int{2}, "a packet ends after 7 bytes"},
		{"cut within a DLE, which makes a pair with the next", at(1)[:4] + "\xfe" + at(2) + at(3), []int{3}, "version 5.254 is not known"},
		{"a byte too many", at(1) + "x" + at(2), []int{1, 2}, "no packet begins here"},
		{"a lone DLE", at(1)[:9] + "\xfex" + at(2), []int{2}, "a DLE stands alone"},
		{"a DLE before the packet", "\xfe" + at(2), []int{2}, "a DLE stands alone"},
		{"counts more than any packet has", long + at(2), []int{2}, "a packet of TSL 5 has 2048 bytes at most"},
		{"counts nothing", "\xfe\x02\x00\x00\x00\x00\x00\x00" + at(2), []int{2}, "the packet counts 0 bytes and has 4"},
		{"bad inside", "\xfe\x02\x05\x00\x00\x00\x00\x00\x01" + at(2), []int{2}, "a display message is cut short"},
		{"garbage alone", strings.Repeat("garbage", 1000), nil, "no packet begins here"},
		{"nothing but DLE", strings.Repeat("\xfe", 999), nil, "a DLE stands alone"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			found, dropped := feed5([]byte(tt.stream))
			if diff := cmp.Diff(tt.found, found); diff != "" || dropped != tt.dropped {
				t.Errorf("%sdropped because of %q, not %q", diff, dropped, tt.dropped)
			}
		})
	}
}

func FuzzPacket5(f *testing.F) {
	f.Add(onAir)
	f.Add(withControlData())
	f.Add(packet5(Packet5{Screen: Broadcast, Displays: []Display5{{Index: Broadcast, Words: "öst"}, {}}}, true))
	f.Fuzz(func(t *testing.T, b []byte) {
		v := V5{Sources: map[string]Place{"cam": {AnyScreen, 3}}}
		said := 0
		if err := v.datagram(b, func(_, state string) { said++ }); err != nil && said > 0 && b[0] != dle {
			t.Fatal("a bad datagram said something")
		}
		p, err := ParsePacket5(b)
		if err != nil {
			if p.Displays != nil {
				t.Fatal("displays of a bad packet")
			}
			return
		}
		if len(p.Displays) > max5/display5 || p.Screen > Broadcast {
			t.Fatalf("%+v of %d bytes", p, len(b))
		}
		for i := range p.Displays {
			p.Displays[i].Words = "" // is not kept to the byte
		}
		again, err := ParsePacket5(packet5(p, false))
		if !slices.Equal(p.Displays, again.Displays) || err != nil {
			t.Fatalf("%+v is read back as %+v, %v", p, again, err)
		}
	})
}

// However a stream is cut and whatever was before, it gives the same packets,
// and one that comes whole is found.
func FuzzStream5(f *testing.F) {
	f.Add([]byte("garbage"), uint8(3))
	f.Add(wrap(onAir), uint8(1))
	f.Add(slices.Concat(wrap(onAir)[:7], []byte{dle}, wrap(onAir), []byte{dle, dle}), uint8(5))
	f.Fuzz(func(t *testing.T, garbage []byte, cut uint8) {
		stream := slices.Concat(garbage, wrap(onAir))
		var whole, pieces []Packet5
		one := &splitter5{told: func(p Packet5) { whole = append(whole, p) }}
		if n, _ := one.feed(stream); n != len(whole) || cap(one.packet) > 4*max5 {
			t.Fatalf("%d packets, %d counted, %d bytes kept", len(whole), n, cap(one.packet))
		}
		two := &splitter5{told: func(p Packet5) { pieces = append(pieces, p) }}
		for b := range slices.Chunk(stream, int(cut)+1) {
			two.feed(b)
		}
		if diff := cmp.Diff(whole, pieces); diff != "" {
			t.Fatal(diff)
		}
		// A DLE right before the packet takes its DLE for a pair, inside of another.
		if n := len(whole); n == 0 || len(whole[n-1].Displays) == 0 || whole[n-1].Displays[0].Words != "CAM 4" {
			if len(garbage) > 0 && garbage[len(garbage)-1] == dle {
				return
			}
			t.Fatalf("the whole packet at the end is lost: %+v", whole)
		}
	})
}
