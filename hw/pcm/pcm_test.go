package pcm

import (
	"fmt"
	"slices"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ExampleConvert() {
	mono := []byte{0x01, 0x00, 0xff, 0xff} // 1, -1
	dst := make([]int16, 8)
	n := Convert(dst, mono, S16, 1, 0, 0)
	fmt.Println(n, dst[:2*n])
	// Output: 2 [1 1 -1 -1]
}

func TestConvert(t *testing.T) {
	both, first := [2]int{0, 1}, [2]int{0, 0}
	four := []byte{1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8, 0}
	tests := []struct {
		name     string
		format   Format
		channels int
		pick     [2]int
		src      []byte
		want     []int16
	}{
		{"S16 stereo comes through bit for bit", S16, 2, both, []byte{0x34, 0x12, 0x00, 0x80}, []int16{0x1234, -32768}},
		{"mono goes to both channels", S16, 1, first, []byte{0x34, 0x12}, []int16{0x1234, 0x1234}},
		{"the first two of four channels", S16, 4, both, four, []int16{1, 2, 5, 6}},
		{"the last two of four channels, crossed", S16, 4, [2]int{3, 2}, four, []int16{4, 3, 8, 7}},
		{"the third of three bytes a sample", S24In3, 3, [2]int{2, 2}, []byte{0, 1, 0, 0, 2, 0, 0, 3, 0}, []int16{3, 3}},
		{"three bytes round to the nearest", S24In3, 2, both, []byte{0x7f, 0x01, 0x00, 0x80, 0x01, 0x00}, []int16{1, 2}},
		{"three bytes do not wrap at full scale", S24In3, 2, both, []byte{0xff, 0xff, 0x7f, 0x00, 0x00, 0x80}, []int16{32767, -32768}},
		{"the top byte of S24_LE is ignored", S24, 2, both, []byte{0x00, 0x34, 0x12, 0xaa, 0x00, 0xff, 0xff, 0x55}, []int16{0x1234, -1}},
		{"S32 uses the upper half", S32, 2, both, []byte{0xff, 0x7f, 0x34, 0x12, 0x00, 0x80, 0xff, 0xff}, []int16{0x1234, 0}},
		{"S32 does not wrap at full scale", S32, 1, first, []byte{0xff, 0xff, 0xff, 0x7f}, []int16{32767, 32767}},
		{"a broken last frame is left", S16, 2, both, []byte{1, 0, 2, 0, 3, 0}, []int16{1, 2}},
		{"nothing gives nothing", S32, 2, both, nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dst := make([]int16, 16)
			n := Convert(dst, tt.src, tt.format, tt.channels, tt.pick[0], tt.pick[1])
			if got := dst[:2*n]; !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestConvertStopsWhereTheRoomEnds(t *testing.T) {
	dst := make([]int16, 5)
	if n := Convert(dst, make([]byte, 400), S16, 2, 0, 1); n != 2 {
		t.Errorf("wrote %d frames into room for two and a half", n)
	}
}

func TestCrossfadeLeadsFromOneToTheOther(t *testing.T) {
	from, to := slices.Repeat([]int16{1000, -8000}, 480), slices.Repeat([]int16{-20000, 30000}, 480)
	Crossfade(from, to)
	checkSmooth(t, append(append([]int16{1000, -8000}, from...), to...), 100)
}

func FuzzConvert(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}, uint8(S24In3), uint8(2), uint8(8), uint8(1), uint8(0))
	f.Add([]byte{}, uint8(S16), uint8(1), uint8(0), uint8(0), uint8(0))
	f.Add(make([]byte, 64), uint8(S32), uint8(7), uint8(3), uint8(6), uint8(9))
	f.Fuzz(func(t *testing.T, src []byte, format, n, room, left, right uint8) {
		fm := Format(format % uint8(len(formats)))
		ch := int(n%32) + 1
		dst := make([]int16, room)
		got := Convert(dst, src, fm, ch, int(left)%ch, int(right)%ch)
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
