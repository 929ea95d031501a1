package nal_test

import (
	"errors"
	"math"
	"testing"

	"encoderd.example/stream/nal"
)

// The codes are those of H.264 tables 9-2 and 9-3.
func TestReadsExpGolombCodes(t *testing.T) {
	r := nal.NewReader([]byte{0b1_010_011_0, 0b0100_0010, 0b1_00110_00, 0b111_00000})
	for want := range uint32(7) {
		if got := r.UE(); got != want {
			t.Errorf("got %d, want %d", got, want)
		}
	}
	r = nal.NewReader([]byte{0b1_010_011_0, 0b0100_0010, 0b1_0000000})
	for _, want := range []int32{0, 1, -1, 2, -2} {
		if got := r.SE(); got != want {
			t.Errorf("got %d, want %d", got, want)
		}
	}
	if r.Err() != nil {
		t.Error(r.Err())
	}
}

func TestTheFirstErrorStaysAndGivesZeros(t *testing.T) {
	r := nal.NewReader([]byte{0xff})
	if r.U(9) != 0 || r.Err() == nil {
		t.Fatalf("read 9 bits of 8: %v", r.Err())
	}
	first := r.Err()
	r.Fail("another")
	if r.UE() != 0 || r.SE() != 0 || r.Flag() || !errors.Is(r.Err(), first) {
		t.Errorf("after the error: %v", r.Err())
	}
	r = nal.NewReader(make([]byte, 8))
	if r.UE() != 0 || r.Err() == nil {
		t.Error("a code of 64 zeros was taken")
	}
	r = nal.NewReader([]byte{0xff})
	if r.Skip(9); r.Flag() || r.Err() == nil {
		t.Error("read behind the end")
	}
}

func FuzzWriterAndReaderAgree(f *testing.F) {
	f.Add(uint32(0), uint32(1), byte(3), true)
	f.Add(uint32(math.MaxUint32-1), uint32(math.MaxUint32), byte(32), false)
	f.Fuzz(func(t *testing.T, code, plain uint32, n byte, flag bool) {
		bits := int(n % 33)
		code = min(code, math.MaxUint32-1)
		plain = uint32(uint64(plain) & (1<<bits - 1))
		var w nal.Writer
		w.Flag(flag)
		w.UE(code)
		w.U(bits, plain)
		w.UE(code)
		r := nal.NewReader(w.Bytes())
		if r.Flag() != flag || r.UE() != code || r.U(bits) != plain || r.UE() != code || r.Err() != nil {
			t.Errorf("%x: %v", w.Bytes(), r.Err())
		}
		if len(w.Bytes()) != (r.At()+7)/8 {
			t.Errorf("%d bytes for %d bits", len(w.Bytes()), r.At())
		}
	})
}
