package pcm

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ExampleConvert() {
	mono := []byte{0x01, 0x00, 0xff, 0xff} // 1, -1
	dst := make([]int16, 8)
	n := Convert(dst, mono, S16, 1)
	fmt.Println(n, dst[:2*n])
	// Output: 2 [1 1 -1 -1]
}

func TestConvert(t *testing.T) {
	tests := []struct {
		name     string
		format   Format
		channels int
		src      []byte
		want     []int16
	}{
		{"S16 stereo comes through bit for bit", S16, 2, []byte{0x34, 0x12, 0x00, 0x80}, []int16{0x1234, -32768}},
		{"mono goes to both channels", S16, 1, []byte{0x34, 0x12}, []int16{0x1234, 0x1234}},
		{"of four channels the first two count", S16, 4, []byte{1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8, 0}, []int16{1, 2, 5, 6}},
		{"three bytes round to the nearest", S24In3, 2, []byte{0x7f, 0x01, 0x00, 0x80, 0x01, 0x00}, []int16{1, 2}},
		{"three bytes do not wrap at full scale", S24In3, 2, []byte{0xff, 0xff, 0x7f, 0x00, 0x00, 0x80}, []int16{32767, -32768}},
		{"the top byte of S24_LE is ignored", S24, 2, []byte{0x00, 0x34, 0x12, 0xaa, 0x00, 0xff, 0xff, 0x55}, []int16{0x1234, -1}},
		{"S32 uses the upper half", S32, 2, []byte{0xff, 0x7f, 0x34, 0x12, 0x00, 0x80, 0xff, 0xff}, []int16{0x1234, 0}},
		{"S32 does not wrap at full scale", S32, 1, []byte{0xff, 0xff, 0xff, 0x7f}, []int16{32767, 32767}},
		{"a broken last frame is left", S16, 2, []byte{1, 0, 2, 0, 3, 0}, []int16{1, 2}},
		{"nothing gives nothing", S32, 2, nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dst := make([]int16, 16)
			n := Convert(dst, tt.src, tt.format, tt.channels)
			if got := dst[:2*n]; !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestConvertStopsWhereTheRoomEnds(t *testing.T) {
	dst := make([]int16, 5)
	if n := Convert(dst, make([]byte, 400), S16, 2); n != 2 {
		t.Errorf("wrote %d frames into room for two and a half", n)
	}
}

func FuzzConvert(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}, uint8(S24In3), uint8(2), uint8(8))
	f.Add([]byte{}, uint8(S16), uint8(1), uint8(0))
	f.Add(make([]byte, 64), uint8(S32), uint8(7), uint8(3))
	f.Fuzz(func(t *testing.T, src []byte, format, n, room uint8) {
		fm := Format(format % uint8(len(formats)))
		ch := int(n%32) + 1
		dst := make([]int16, room)
		got := Convert(dst, src, fm, ch)
		if want := min(len(src)/(fm.Bytes()*ch), int(room)/2); got != want {
			t.Errorf("%d frames of %s × %d from %d bytes into %d, want %d", got, fm, ch, len(src), room, want)
		}
	})
}

func TestFormatsHaveALSAsNames(t *testing.T) {
	want := []string{"S16_LE", "S24_3LE", "S24_LE", "S32_LE", "format(9)"}
	got := []string{S16.String(), S24In3.String(), S24.String(), S32.String(), Format(9).String()}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestMeter(t *testing.T) {
	sine := make([]int16, 2*rate)
	for i := range rate {
		sine[2*i] = int16(math.Round(32767 * math.Sin(2*math.Pi*1000*float64(i)/rate)))
		sine[2*i+1] = 328 // -40 dBFS
	}
	var m Meter
	m.Add(sine[:len(sine)/2])
	m.Add(sine[len(sine)/2:])
	got := m.Read()
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 0.02 {
			t.Errorf("%s is %.3f dBFS, want %.3f", what, got, want)
		}
	}
	near("peak of a full-scale sine", got.Peak[0], 0)
	near("RMS of a full-scale sine", got.RMS[0], -3.01)
	near("peak of a small constant", got.Peak[1], -40)
	near("RMS of a small constant", got.RMS[1], -40)
	if got := m.Read(); got.Peak[0] != Floor || got.RMS[1] != Floor {
		t.Errorf("after reading the meter says %v, want the floor", got)
	}
	m.Add([]int16{math.MinInt16, 0})
	if got := m.Read(); got.Peak[0] != 0 {
		t.Errorf("the most negative sample reads %v dBFS, want 0", got.Peak[0])
	}
}
