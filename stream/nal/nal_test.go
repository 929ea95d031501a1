package nal_test

import (
	"bytes"
	"slices"
	"testing"

	"encoderd.example/stream/nal"
)

func TestWalksBothForms(t *testing.T) {
	want := [][]byte{{0x67, 1, 2, 0, 3}, {0x68, 9}, {0x65, 0, 0, 3, 1, 7}}
	var prefixed, annexB []byte
	for i, unit := range want {
		prefixed = nal.Append(prefixed, unit)
		if i == 0 {
			annexB = append(annexB, 0)
		}
		annexB = append(append(annexB, 0, 0, 1), unit...)
	}
	equal := func(got [][]byte) bool { return slices.EqualFunc(got, want, bytes.Equal) }
	if got := slices.Collect(nal.Prefixed(prefixed)); !equal(got) {
		t.Errorf("length-prefixed: got %x", got)
	}
	if got := slices.Collect(nal.AnnexB(annexB)); !equal(got) {
		t.Errorf("annex B: got %x", got)
	}
	if got := slices.Collect(nal.AnnexB(append(slices.Clone(annexB), 0, 0, 0, 0, 1))); !equal(got) {
		t.Errorf("with zeros and an empty unit behind it: got %x", got)
	}
	if got := slices.Collect(nal.Prefixed(prefixed[:len(prefixed)-1])); len(got) != 2 {
		t.Errorf("cut short: got %d units, want the 2 whole ones", len(got))
	}
	if got := slices.Collect(nal.Prefixed(append([]byte{0, 0, 0, 0}, prefixed...))); !equal(got) {
		t.Errorf("with an empty unit before it: got %x", got)
	}
}

func TestEscapesWhatLooksLikeAStartCode(t *testing.T) {
	for _, tt := range []struct {
		name             string
		plain, protected []byte
	}{
		{"nothing to do", []byte{0, 1, 0, 0, 4, 0}, []byte{0, 1, 0, 0, 4, 0}},
		{"a start code", []byte{9, 0, 0, 1}, []byte{9, 0, 0, 3, 1}},
		{"its own mark", []byte{0, 0, 3, 9}, []byte{0, 0, 3, 3, 9}},
		{"many zeros", []byte{0, 0, 0, 0, 0, 0, 7}, []byte{0, 0, 3, 0, 0, 3, 0, 0, 7}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := nal.Escape([]byte{0x67}, tt.plain); !bytes.Equal(got[1:], tt.protected) {
				t.Errorf("protected: got %x, want %x", got[1:], tt.protected)
			}
			if got := nal.Unescape(tt.protected); !bytes.Equal(got, tt.plain) {
				t.Errorf("plain: got %x, want %x", got, tt.plain)
			}
		})
	}
}

func TestUnescapeCopiesOnlyWhatItMust(t *testing.T) {
	clean, marked := []byte{1, 0, 0, 4}, []byte{1, 0, 0, 3, 1}
	if got := nal.Unescape(clean); &got[0] != &clean[0] {
		t.Error("a clean unit was copied")
	}
	if got := nal.Unescape(marked); &got[0] == &marked[0] || !bytes.Equal(marked, []byte{1, 0, 0, 3, 1}) {
		t.Error("the caller's memory was written to")
	}
}

func FuzzWalk(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0x65, 0, 0, 0, 9})
	f.Add([]byte{0, 0, 0, 1, 0x26, 0, 0, 0, 9})
	f.Fuzz(func(t *testing.T, data []byte) {
		total := 0
		for unit := range nal.Prefixed(data) {
			total += 4 + len(unit)
		}
		if total > len(data) {
			t.Errorf("walked %d of %d bytes", total, len(data))
		}
		for unit := range nal.AnnexB(data) {
			if len(unit) == 0 || unit[len(unit)-1] == 0 || bytes.Contains(unit, []byte{0, 0, 1}) {
				t.Errorf("unit %x", unit)
			}
		}
	})
}

func FuzzEscape(f *testing.F) {
	f.Add([]byte{0, 0, 3, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, plain []byte) {
		out := nal.Escape([]byte{0x67}, plain)[1:]
		for _, code := range [][]byte{{0, 0, 0}, {0, 0, 1}, {0, 0, 2}} {
			if bytes.Contains(out, code) {
				t.Errorf("%x holds %x", out, code)
			}
		}
		if back := nal.Unescape(out); !bytes.Equal(back, plain) {
			t.Errorf("got %x back, want %x", back, plain)
		}
	})
}
