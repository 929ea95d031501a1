package picture_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/sim/picture"
)

// sound returns seconds of sound from start on, made in blocks of 10 ms.
func sound(start time.Duration, seconds int) []int16 {
	pcm := make([]int16, seconds*hw.SampleRate*hw.Channels)
	at := start
	for block := range slices.Chunk(pcm, 480*hw.Channels) {
		picture.Sound(block, at)
		at += 10 * time.Millisecond
	}
	return pcm
}

func TestBeepsAreFoundToTheMillisecond(t *testing.T) {
	tests := []struct {
		name   string
		start  time.Duration
		change func(pcm []int16)
		want   []int
	}{
		{"clean", 700 * time.Millisecond, nil, []int{14400, 62400, 110400}},
		{"odd start", 123456789, nil, []int{42074, 90074, 138074}},
		{"40 dB below, in noise", 700 * time.Millisecond, func(pcm []int16) {
			for i, v := range pcm {
				pcm[i] = v/10 + int16(rand.IntN(21)-10)
			}
		}, []int{14400, 62400, 110400}},
		{"one channel only", 700 * time.Millisecond, func(pcm []int16) {
			for i := 0; i < len(pcm); i += 2 {
				pcm[i] = 0
			}
		}, []int{14400, 62400, 110400}},
		{"cut at both ends does not count", 50 * time.Millisecond, func(pcm []int16) {
			clear(pcm[len(pcm)/2:])
		}, []int{45600}},
		{"silence", 700 * time.Millisecond, func(pcm []int16) { clear(pcm) }, nil},
		{"an endless tone is no beep", 0, tone(1000), nil},
		{"an endless tone of another pitch neither", 0, tone(440), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pcm := sound(tt.start, 3)
			if tt.change != nil {
				tt.change(pcm)
			}
			got := picture.FindBeeps(pcm)
			if !slices.EqualFunc(got, tt.want, func(a, b int) bool { return max(a-b, b-a) < 24 }) {
				t.Errorf("onsets %v, want %v", got, tt.want)
			}
		})
	}
}

func tone(hz float64) func(pcm []int16) {
	return func(pcm []int16) {
		for i := range pcm {
			pcm[i] = int16(8000 * math.Sin(2*math.Pi*hz*float64(i/2)/hw.SampleRate))
		}
	}
}

func TestFlashAndBeepAreTheSameMoment(t *testing.T) {
	for ms := range 1000 {
		at := 5*time.Second + time.Duration(ms)*time.Millisecond
		pcm := make([]int16, 2*48)
		picture.Sound(pcm, at)
		if loud := slices.Max(pcm) > 0; loud != picture.Flashing(at) {
			t.Errorf("%v: beep %v, flash %v", at, loud, picture.Flashing(at))
		}
	}
}

func FuzzFindBeeps(f *testing.F) {
	f.Add([]byte{}, 0)
	f.Add([]byte{1, 2, 3}, 100000)
	f.Fuzz(func(t *testing.T, noise []byte, at int) {
		pcm := sound(700*time.Millisecond, 1)
		for i, b := range noise {
			pcm[(i*7+max(at, 0))%len(pcm)] ^= int16(b) << 8
		}
		pcm = pcm[:len(pcm)-len(noise)%len(pcm)]
		for _, n := range picture.FindBeeps(pcm) {
			if n < 0 || n >= len(pcm)/2 {
				t.Fatalf("onset %d of %d frames", n, len(pcm)/2)
			}
		}
	})
}
