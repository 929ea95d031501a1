package rtp

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/bluenviron/gortsplib/v5/pkg/format/rtph265"

	"encoderd.example/stream"
	"encoderd.example/stream/h265"
)

// The parameter sets of a picture of 64×48 pixels as libx265 writes them.
var (
	vpsHEVC = unhex("40010c01ffff01600000030090000003000003001eba0240")
	spsHEVC = unhex("42010101600000030090000003000003001ea02083165ba4a4c270168080000003008000000784")
	ppsHEVC = unhex("4401c0718112")
)

func hevcTrack(tb testing.TB) *stream.Track {
	tb.Helper()
	hvcC, err := h265.ConfigRecord(vpsHEVC, spsHEVC, ppsHEVC)
	if err != nil {
		tb.Fatal(err)
	}
	return &stream.Track{Codec: stream.H265, Setup: hvcC, Width: 64, Height: 48, FPS: 30}
}

func TestHEVCPicturesSurviveAnIndependentReader(t *testing.T) {
	idr := func(n int) []byte { return nal(0x28, n) }
	layered := idr(600)
	layered[0], layered[1] = 0x29, 0x4b // layers and sub-layers are kept in fragments
	sets := [][]byte{vpsHEVC, spsHEVC, ppsHEVC}
	for _, tt := range []struct {
		name       string
		nals, sets [][]byte
		packets    int
	}{
		{"one tiny slice", [][]byte{idr(3)}, sets, 4},
		{"one slice of exactly one packet", [][]byte{idr(188)}, sets, 4},
		{"one byte more than a packet", [][]byte{idr(189)}, sets, 5},
		{"two full fragments", [][]byte{idr(2 + 2*185)}, sets, 5},
		{"one byte more than two", [][]byte{idr(3 + 2*185)}, sets, 6},
		{"large slice between small ones", [][]byte{idr(5), idr(5000), idr(5), idr(6)}, sets, 3 + 1 + 28 + 2},
		{"of another layer", [][]byte{layered}, sets, 3 + 4},
		{"with its own sets", [][]byte{vpsHEVC, spsHEVC, ppsHEVC, idr(20)}, nil, 4},
		{"no slice at all", nil, sets, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			video := hevcTrack(t)
			all := packets(t, batch(t, fixed(t, 200, video), &stream.Unit{Track: video, Key: true, Data: picture(tt.nals...)}), Video)
			if len(all) != tt.packets {
				t.Errorf("%d packets, want %d", len(all), tt.packets)
			}
			dec := rtph265.Decoder{}
			if err := dec.Init(); err != nil {
				t.Fatal(err)
			}
			var got [][]byte
			for i, pkt := range all {
				if n := pkt.MarshalSize(); n > 200 {
					t.Errorf("packet %d has %d bytes, want at most 200", i, n)
				}
				if last := i == len(all)-1; pkt.Marker != last {
					t.Errorf("marker of packet %d of %d is %v", i, len(all), pkt.Marker)
				}
				au, err := dec.Decode(pkt)
				if err != nil && !errors.Is(err, rtph265.ErrMorePacketsNeeded) {
					t.Fatal(err)
				}
				got = append(got, au...)
			}
			if want := slices.Concat(tt.sets, tt.nals); !slices.EqualFunc(got, want, bytes.Equal) {
				t.Errorf("got %d NAL units, want %d, or their bytes differ", len(got), len(want))
			}
		})
	}
}

func TestOtherHEVCPicturesCarryNoParameterSets(t *testing.T) {
	video := hevcTrack(t)
	all := packets(t, batch(t, fixed(t, 0, video), &stream.Unit{Track: video, Data: picture(nal(0x02, 30))}), Video)
	if len(all) != 1 || !bytes.Equal(all[0].Payload, nal(0x02, 30)) {
		t.Errorf("%d packets", len(all))
	}
}
