package m2m

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"encoderd.example/hw/v4l2"
	"encoderd.example/stream/h264"
	"encoderd.example/stream/h265"
)

// nals joins NAL units to a byte stream; start codes have four bytes, or three
// where short says so.
func nals(short bool, units ...string) []byte {
	data := make([]byte, headRoom)
	for i, u := range units {
		if !short || i == 0 {
			data = append(data, 0)
		}
		data = append(append(data, 0, 0, 1), u...)
	}
	return data
}

func TestAssemble(t *testing.T) {
	const (
		sps, pps, sei = "\x67sps", "\x68pps", "\x06sei"
		idr, slice    = "\x65\x88idr", "\x41\x9aslice"
		aud, filler   = "\x09\xf0", "\x0c\xff\xff\x80"
	)
	sets := h264.AppendNAL(h264.AppendNAL(nil, []byte("\x67SPS'")), []byte("\x68PPS"))
	for _, tt := range []struct {
		name  string
		data  []byte
		sets  []byte
		want  []string
		moved bool // what was not as it mostly is must be copied
	}{
		{"a slice", nals(false, slice), nil, []string{slice}, false},
		{"two slices", nals(false, slice, slice), nil, []string{slice, slice}, false},
		{"a key picture", nals(false, sps, pps, idr), sets, []string{"\x67SPS'", "\x68PPS", idr}, false},
		{"a key picture with all that there is", nals(false, aud, sps, pps, sei, idr, idr), sets, []string{"\x67SPS'", "\x68PPS", sei, idr, idr}, false},
		{"a key picture without sets", nals(false, idr), sets, []string{"\x67SPS'", "\x68PPS", idr}, false},
		{"short start codes", nals(true, sei, slice), nil, []string{sei, slice}, true},
		{"filler between", nals(false, slice, filler, slice), nil, []string{slice, slice}, true},
		{"filler behind", nals(false, slice, filler), nil, []string{slice}, true},
		{"zeros behind", append(nals(false, slice), 0, 0, 0), nil, []string{slice}, false},
		{"zeros between", append(append(nals(false, slice), 0, 0), nals(false, slice)[headRoom:]...), nil, []string{slice, slice}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := syntaxes[0].assemble(tt.data, split(tt.data, headRoom), tt.sets)
			var list []string
			for nal := range h264.NALs(got) {
				list = append(list, string(nal))
			}
			if !slices.Equal(list, tt.want) {
				t.Errorf("got %q, want %q", list, tt.want)
			}
			if inPlace := cap(got) > 0 && bytes.Contains(tt.data, got) && &tt.data[bytes.Index(tt.data, got)] == &got[0]; inPlace == tt.moved {
				t.Errorf("in place: %v", inPlace)
			}
		})
	}
}

func TestAssembleHEVC(t *testing.T) {
	const (
		vps, sps, pps   = "\x40\x01vps", "\x42\x01sps", "\x44\x01pps"
		aud, end        = "\x46\x01\x50", "\x48\x01"
		before, after   = "\x4e\x01sei", "\x50\x01sei"
		filler          = "\x4c\x01\xff\x80"
		cra, more, next = "\x2a\x01\xafcra", "\x2a\x01\x2fcra", "\x02\x01\xd0trail"
	)
	hevc := syntaxes[1]
	sets := h265.AppendNAL(nil, []byte("\x40\x01VPS"))
	for _, tt := range []struct {
		name       string
		data       []byte
		sets       []byte
		want       []string
		key, whole bool
	}{
		{"a picture", nals(false, aud, next, filler), nil, []string{next}, false, true},
		{"a key picture with all that there is", nals(false, aud, vps, sps, pps, before, cra, more, after, end), sets, []string{"\x40\x01VPS", before, cra, more, after}, true, true},
		{"the first slice is lost", nals(false, more), nil, []string{more}, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			units := split(tt.data, headRoom)
			if hevc.isKey(units) != tt.key || hevc.whole(units) != tt.whole || !hevc.hasPicture(units) {
				t.Errorf("key %v, whole %v", hevc.isKey(units), hevc.whole(units))
			}
			var list []string
			for nal := range h265.NALs(hevc.assemble(tt.data, units, tt.sets)) {
				list = append(list, string(nal))
			}
			if !slices.Equal(list, tt.want) {
				t.Errorf("got %q, want %q", list, tt.want)
			}
		})
	}
	if units := split(nals(false, vps, sps, pps, before), headRoom); hevc.hasPicture(units) || hevc.whole(units) {
		t.Error("headers alone are taken for a picture")
	}
}

func FuzzAssemble(f *testing.F) {
	f.Add(nals(false, "\x67sps", "\x68pps", "\x65\x88idr")[headRoom:], true, false)
	f.Add(nals(true, "\x41\x9a", "\x0c\xff", "\x41")[headRoom:], false, false)
	f.Add(nals(false, "\x40\x01vps", "\x42\x01sps", "\x44\x01pps", "\x28\x01\xafidr")[headRoom:], true, true)
	f.Add([]byte{0, 0, 1, 0x65, 0, 0, 0, 1, 0, 0, 1}, true, false)
	f.Fuzz(func(t *testing.T, stream []byte, key, hevc bool) {
		codes := syntaxes[0]
		if hevc {
			codes = syntaxes[1]
		}
		var sets []byte
		var want [][]byte
		if key {
			want = [][]byte{[]byte("\x67set"), []byte("\x68set")}
			for _, s := range want {
				sets = h264.AppendNAL(sets, s)
			}
		}
		for nal := range h264.AnnexB(stream) {
			if codes.wanted(nal) {
				want = append(want, bytes.Clone(nal))
			}
		}
		data := append(make([]byte, headRoom), stream...)
		units := split(data, headRoom)
		if !codes.hasPicture(units) {
			return
		}
		got := slices.Collect(h264.NALs(codes.assemble(data, units, sets)))
		if !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestPicturesAreKnownByTheirStamps(t *testing.T) {
	var p pictures
	last := int64(-1)
	for _, pts := range []time.Duration{1500, 1999, 5 * time.Microsecond, 6 * time.Microsecond, 7 * time.Microsecond} {
		last = p.add(pts, last, colors{}).micro
	}
	// The first two fall on one microsecond: stamps of the driver rise all the same.
	for _, tt := range []struct {
		micro int64
		pts   time.Duration
		lost  int
		ok    bool
	}{{1, 1500, 0, true}, {1, 0, 0, false}, {3, 0, 0, false}, {6, 6 * time.Microsecond, 2, true}, {5, 0, 0, false}, {7, 7 * time.Microsecond, 0, true}} {
		if in, lost, ok := p.take(tt.micro); in.pts != tt.pts || lost != tt.lost || ok != tt.ok {
			t.Errorf("%d: got %v, %d lost, %v", tt.micro, in.pts, lost, ok)
		}
	}
}

// TestMemoryKeepsItsPlace: drivers attach memory anew when it changes places.
func TestMemoryKeepsItsPlace(t *testing.T) {
	w := &worker{slots: make([]slot, 4)}
	put := func(fd int) int {
		planes := []v4l2.PlaneData{{FD: fd}}
		i := w.place(planes)
		w.slots[i].fds = fdsOf(planes)
		return i
	}
	first := []int{put(10), put(11), put(12)}
	if again := []int{put(10), put(11), put(12)}; !slices.Equal(first, again) {
		t.Errorf("first in %v, then in %v", first, again)
	}
	w.slots[first[0]].busy = true
	if got := put(10); got != 3 {
		t.Errorf("while its place is taken it goes to %d, want the one that is empty", got)
	}
	if got := put(13); got == first[0] {
		t.Error("a place that is taken was given away")
	}
}

// TestQuirksOfNames guards the match by parts of names.
func TestQuirksOfNames(t *testing.T) {
	for name, want := range map[string]string{
		"bcm2835-codec": "bcm2835-codec", "coda": "coda", "amphion-vpu": "amphion", "wave5-enc": "wave5", "mtk-vcodec-enc": "mtk-vcodec",
		"qcom-venus": "venus", "iris_driver": "iris", "s5p-mfc": "s5p-mfc", "allegro": "allegro", "st-hva": "hva", "vh264enc": "vh264enc", "vicodec": "",
	} {
		got := quirksOf(name)
		if got.driver != want {
			t.Errorf("%s is taken for %q, want %q", name, got.driver, want)
		}
		if got.buffers < 1 || got.maxQP <= got.minQP {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
