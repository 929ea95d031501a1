package v4l2

import (
	"bytes"
	"strings"
	"testing"
)

// unit makes an access unit of letters: a delimiter, S and P parameter sets, I
// key picture, i other picture, e information. Digits behind tell them apart;
// a dot in front makes the start code a short one.
func unit(s string) []byte {
	kinds := map[byte]byte{'a': 9, 'S': 0x67, 'P': 0x68, 'I': 0x65, 'i': 0x41, 'e': 6}
	var b []byte
	for word := range strings.FieldsSeq(s) {
		start := []byte{0, 0, 0, 1}
		if rest, short := strings.CutPrefix(word, "."); short {
			word, start = rest, start[1:]
		}
		b = append(append(b, start...), kinds[word[0]])
		b = append(append(b, word[1:]...), 0x80)
	}
	return b
}

func TestKeyPicturesHaveTheirParameterSets(t *testing.T) {
	type step struct{ in, out string } // out "" is damaged
	tests := []struct {
		name  string
		steps []step
	}{
		{"sets once, at the start", []step{{"S P I", "S P I"}, {"i", "i"}, {"I", "S P I"}}},
		{"sets with each key picture", []step{{"S P I", "S P I"}, {"S P I", "S P I"}}},
		{"new sets replace the old ones", []step{{"S1 P1 I", "S1 P1 I"}, {"S2 P2 I", "S2 P2 I"}, {"I", "S2 P2 I"}}},
		{"only one of the two was sent again", []step{{"S1 P1 I", "S1 P1 I"}, {"P2 I", "S1 P2 I"}, {"S3 I", "S3 P2 I"}, {"I", "S3 P2 I"}}},
		{"the delimiter stays first", []step{{"a S P I", "a S P I"}, {"a e I", "a S P e I"}}},
		{"several picture sets", []step{{"S P1 P2 I", "S P1 P2 I"}, {"I", "S P1 P2 I"}}},
		{"sets in a buffer of their own are kept and are no picture", []step{{"S P", ""}, {"I", "S P I"}}},
		{"nothing to add yet", []step{{"I", "I"}, {"S P I", "S P I"}}},
		{"short start codes", []step{{".S P .I", ".S P .I"}, {".i", ".i"}, {".I", "S P I"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var h headers
			for i, st := range tt.steps {
				in := unit(st.in)
				before := bytes.Clone(in)
				got, ok := h.complete(in)
				if ok != (st.out != "") || ok && !bytes.Equal(got, unit(st.out)) {
					t.Errorf("step %d, %q: got %x, %v; want %q", i, st.in, got, ok, st.out)
				}
				if !bytes.Equal(in, before) {
					t.Errorf("step %d: the driver's memory was written to", i)
				}
			}
		})
	}
}

func TestWhatIsNoAccessUnit(t *testing.T) {
	for name, in := range map[string][]byte{
		"empty":                nil,
		"begins late":          append([]byte{7}, unit("S P I")...),
		"length instead":       {0, 0, 0, 5, 0x65, 1, 2, 3, 4},
		"a start code only":    {0, 0, 0, 1},
		"information only":     unit("e"),
		"JPEG":                 picture,
		"three zeros, no code": {0, 0, 0, 0, 0, 1, 0x65},
	} {
		var h headers
		if got, ok := h.complete(in); ok {
			t.Errorf("%s: taken as %x", name, got)
		}
	}
}

func FuzzHeaders(f *testing.F) {
	f.Add(unit("S P I"), unit("a I"))
	f.Add(unit(".S P"), unit("I .P"))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var h headers
		h.complete(first)
		got, ok := h.complete(second)
		if !ok {
			return
		}
		again, ok := h.complete(got)
		if !ok || !bytes.Equal(got, again) {
			t.Errorf("%x became %x, and that %x, %v", second, got, again, ok)
		}
	})
}
