package v4l2

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// golden is the EDID without options, without the zeros of its end and the
// last checksum. edid-decode --check has no complaint.
const golden = `
00ffffffffffff0031d8010000000000
00240103800000780eee91a3544c9926
0f505420000001010101010101010101
010101010101023a801871382d40582c
450000000000001e011d007251d01e20
6e28550000000000001e000000fd0017
3c1b440f000a202020202020000000fc
00656e636f6465720a20202020200192
020324f14c101f222120041312110302
01230907078301000067030c00100000
1ee200ca`

// told is what an EDID says, for the tests only.
type told struct {
	name      string
	preferred string
	codes     []byte
	clock     int // highest, in MHz, of HDMI
	sound     []byte
}

func readEDID(t *testing.T, e []byte) (got told) {
	t.Helper()
	for at := 54; at < 126; at += 18 {
		d := e[at : at+18]
		if d[3] == 0xFC && d[0] == 0 {
			got.name = strings.TrimRight(string(d[5:]), " \n")
		}
	}
	d := e[54:72]
	w, h := int(d[4]&0xF0)<<4|int(d[2]), int(d[7]&0xF0)<<4|int(d[5])
	total := (w + int(d[4]&15)<<8 + int(d[3])) * (h + int(d[7]&15)<<8 + int(d[6]))
	clock := (int(d[1])<<8 | int(d[0])) * 10000
	got.preferred = fmt.Sprintf("%dx%d %.3g", w, h, float64(clock)/float64(total))
	for cta, at := e[128:], 4; at < int(cta[2]); {
		tag, n := cta[at]>>5, int(cta[at]&31)
		b := cta[at+1 : at+1+n]
		switch {
		case tag == 2:
			got.codes = b
		case tag == 1:
			got.sound = b
		case tag == 3 && bytes.HasPrefix(b, []byte{3, 0x0C, 0}):
			got.clock = int(b[6]) * 5
		}
		at += 1 + n
	}
	return got
}

func TestTheEDIDOfABox(t *testing.T) {
	want, err := hex.DecodeString(strings.ReplaceAll(golden, "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	got := NewEDID(EDIDOptions{})
	if rest := bytes.Trim(got[len(want):255], "\x00"); !bytes.HasPrefix(got, want) || len(rest) > 0 {
		t.Errorf("got\n%s", hex.Dump(got))
	}

	all := []byte{16, 31, 34, 33, 32, 4, 19, 18, 17, 3, 2, 1}
	tests := []struct {
		name    string
		options EDIDOptions
		want    told
	}{
		{"nothing said", EDIDOptions{}, told{"encoder", "1920x1080 60", all, 150, nil}},
		{"1080p50 at most", EDIDOptions{Name: "Main hall stage", MaxPixels: 1920 * 1080 * 50}, told{"Main hall sta", "1920x1080 50", all[1:], 150, nil}},
		{"1080p30 at most", EDIDOptions{Name: "Zürich\n", MaxPixels: 1920 * 1080 * 30}, told{"Zrich", "1920x1080 30", all[2:], 75, nil}},
		{"720p50 at most", EDIDOptions{MaxPixels: 1280 * 720 * 50}, told{"encoder", "1280x720 50", all[6:], 75, nil}},
		{"hardly anything", EDIDOptions{MaxPixels: 1}, told{"encoder", "640x480 60", all[11:], 30, nil}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := NewEDID(tt.options)
			if err := checkEDID(e); err != nil {
				t.Error(err)
			}
			tt.want.sound = []byte{9, 7, 7}
			if diff := cmp.Diff(tt.want, readEDID(t, e), cmp.AllowUnexported(told{})); diff != "" {
				t.Error(diff)
			}
		})
	}
	if a, b := NewEDID(EDIDOptions{Serial: 1}), NewEDID(EDIDOptions{Serial: 2}); bytes.Equal(a, b) {
		t.Error("two boxes have one EDID")
	}
}

// A source sends RGB to whoever does not offer YCbCr.
func TestAnEDIDWithoutYCbCr(t *testing.T) {
	for _, rgb := range []bool{false, true} {
		e := NewEDID(EDIDOptions{RGBOnly: rgb})
		base, cta := e[24]&0x18, e[131]&0x30
		if err := checkEDID(e); err != nil || (base == 0) != rgb || (cta == 0) != rgb {
			t.Errorf("RGB only: %v; the base block says %#x, the extension %#x, %v", rgb, base, cta, err)
		}
	}
}

func TestAnEDIDThatSourcesWouldNotTakeIsNotSet(t *testing.T) {
	tests := []struct {
		name  string
		spoil func([]byte) []byte
		words string
	}{
		{"cut", func(e []byte) []byte { return e[:200] }, "not made of blocks"},
		{"too long", func(e []byte) []byte { return bytes.Repeat(e, 129) }, "not made of blocks"},
		{"something else", func(e []byte) []byte { e[0] = 1; return e }, "begin"},
		{"an extension too few", func(e []byte) []byte { return e[:128] }, "claims 1 extensions and has 0"},
		{"a flipped bit in the first block", func(e []byte) []byte { e[20] ^= 1; return e }, "checksum of block 0"},
		{"a flipped bit in the second block", func(e []byte) []byte { e[200] ^= 1; return e }, "checksum of block 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := (&Device{}).SetEDID(0, tt.spoil(NewEDID(EDIDOptions{})))
			if err == nil || !strings.Contains(err.Error(), tt.words) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func FuzzEDID(f *testing.F) {
	f.Add(NewEDID(EDIDOptions{}))
	f.Add(NewEDID(EDIDOptions{})[:128])
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, e []byte) {
		if checkEDID(e) != nil {
			return
		}
		if len(e)%128 != 0 {
			t.Fatalf("%d bytes pass", len(e))
		}
		for i, v := range e {
			flipped := bytes.Clone(e)
			flipped[i] = v ^ 0x10
			if checkEDID(flipped) == nil {
				t.Fatalf("a flipped bit in byte %d passes", i)
			}
		}
	})
}
