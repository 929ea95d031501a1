package alsa

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"encoderd.example/hw"
)

func TestChannelsArePicked(t *testing.T) {
	tests := []struct {
		name        string
		channels    [2]uint32 // that the card can do
		left, right int
		want        [2]int // channels heard, from 1
		opened      string
	}{
		{"the usual ones", [2]uint32{2, 2}, 1, 2, [2]int{1, 2}, "S16_LE, 2 channels, 48000 Hz"},
		{"crossed", [2]uint32{2, 2}, 2, 1, [2]int{2, 1}, "S16_LE, 2 channels, 48000 Hz"},
		{"one on both sides", [2]uint32{2, 2}, 2, 2, [2]int{2, 2}, "S16_LE, 2 channels, 48000 Hz"},
		{"a card of one channel", [2]uint32{1, 1}, 1, 2, [2]int{1, 1}, "S16_LE, 1 channels, 48000 Hz"},
		{"two of a mixer that has all or nothing", [2]uint32{18, 18}, 17, 3, [2]int{17, 3}, "S16_LE, 18 channels, 48000 Hz"},
		{"two of a mixer that would give fewer", [2]uint32{2, 8}, 3, 5, [2]int{3, 5}, "S16_LE, 5 channels, 48000 Hz"},
		{"one of a card of four", [2]uint32{1, 4}, 4, 4, [2]int{4, 4}, "S16_LE, 4 channels, 48000 Hz"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			f.channels, f.spread = tt.channels, 1000
			s := openFake(t, f)
			if err := s.Pick(tt.left, tt.right); err != nil {
				t.Fatal(err)
			}
			if got := s.Format(); got != tt.opened {
				t.Errorf("the card gives %s, want %s", got, tt.opened)
			}
			buf := make([]int16, 1920)
			for range 3 {
				mustRead(t, s, buf)
			}
			n, _ := mustRead(t, s, buf)
			first := (int(buf[0]) - 1000*(tt.want[0]-1))
			for i := range n {
				left, right := first+i+1000*(tt.want[0]-1), first+i+1000*(tt.want[1]-1)
				if int(buf[2*i]) != left || int(buf[2*i+1]) != right {
					t.Fatalf("frame %d is %d, %d; want %d, %d", i, buf[2*i], buf[2*i+1], left, right)
				}
			}
			if first < 1000 || first > 3000 {
				t.Errorf("the fourth block begins with sample %d", first)
			}
		})
	}
}

func TestPickGoesOverWithoutAClick(t *testing.T) {
	f := newFake(t)
	f.channels, f.spread = [2]uint32{18, 18}, 1200
	s := openFake(t, f)
	var out []int16
	buf := make([]int16, 1920)
	for _, pick := range [][2]int{{1, 2}, {9, 10}, {9, 9}, {3, 18}, {1, 2}} {
		if err := s.Pick(pick[0], pick[1]); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			n, _ := mustRead(t, s, buf)
			out = append(out, buf[:2*n]...)
		}
	}
	for i := 2; i < len(out); i++ {
		if d := int(out[i]) - int(out[i-2]); d > 60 || d < -60 {
			t.Fatalf("sample %d jumps from %d to %d", i/2, out[i-2], out[i])
		}
	}
	if end := out[len(out)-2:]; !slices.Equal(end, []int16{9599, 9599 + 1200}) {
		t.Errorf("ends with %v", end)
	}
}

func TestPickSaysWhatTheCardHas(t *testing.T) {
	f := newFake(t)
	for _, pick := range [][2]int{{5, 1}, {1, 3}, {0, 1}, {-1, -1}} {
		s := openFake(t, f)
		err := s.Pick(pick[0], pick[1])
		if !errors.Is(err, hw.ErrUnsupported) || !strings.HasPrefix(err.Error(), "sound card alsa:Fake") {
			t.Errorf("%v: got %v, want hw.ErrUnsupported", pick, err)
		}
		if max(pick[0], pick[1]) > 2 && !strings.Contains(err.Error(), "the card offers") {
			t.Errorf("%v does not say what there is", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Pick(1, 2); !errors.Is(err, os.ErrClosed) {
			t.Errorf("after Close: got %v", err)
		}
	}
}
