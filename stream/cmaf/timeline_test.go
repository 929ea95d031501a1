package cmaf

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// keysEvery returns when key pictures come that are about so far apart.
func keysEvery(apart, jitter time.Duration, n int) (keys []time.Duration) {
	random := rand.New(rand.NewPCG(1, uint64(apart)))
	for i := range n {
		at := time.Hour + time.Duration(i)*apart
		if jitter > 0 {
			at += time.Duration(random.Int64N(int64(jitter)))
		}
		keys = append(keys, at)
	}
	return keys
}

// follow tells of segments as a cutter does, and returns what was told of each
// in the end, and when it began.
func follow(t *testing.T, keys []time.Duration) (told []Span, began []time.Duration) {
	t.Helper()
	var line timeline
	line.open(keys[0], usual, true)
	began = append(began, keys[0])
	for i, at := range keys[1:] {
		for part := keys[i] + DefaultPart; part < at; part += DefaultPart {
			was := line.Span
			line.goOn(part)
			if line.From != was.From || line.To < was.To {
				t.Fatalf("what was told of a segment goes from %v to %v", was, line.Span)
			}
		}
		apart, before := at-keys[i], usual
		if i > 0 {
			before = keys[i] - keys[i-1]
		}
		if !line.mayEnd(at) {
			continue
		}
		told, began = append(told, line.Span), append(began, at)
		line.open(at, max(apart, before), false)
	}
	return told, began
}

func TestWhatPlayersAreToldOfSegmentsHolds(t *testing.T) {
	const frame = time.Second / 30
	asked := keysEvery(2*time.Second, 0, 200)
	for i := 3; i < 150; i += 7 {
		asked = append(asked, asked[i]+time.Duration(i)*10*time.Millisecond)
	}
	slices.Sort(asked)
	tests := []struct {
		name string
		keys []time.Duration
		off  time.Duration // at most, between what is told and what is
	}{
		{"two seconds apart", keysEvery(2*time.Second, 0, 200), 0},
		{"pictures are dropped", keysEvery(2*time.Second, 3*frame, 500), 300 * time.Millisecond},
		{"a second apart", keysEvery(time.Second, 0, 200), 0},
		{"a second apart, pictures are dropped", keysEvery(time.Second, 3*frame, 500), 600 * time.Millisecond},
		{"a camera that is fast by 0.1 %", keysEvery(999*time.Millisecond, 0, 5000), 600 * time.Millisecond},
		{"half a second apart", keysEvery(500*time.Millisecond, 0, 400), time.Second},
		{"ten seconds apart", keysEvery(10*time.Second, 2*frame, 50), 400 * time.Millisecond},
		{"some are asked for", asked, lead + least},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			told, began := follow(t, tt.keys)
			if n := len(told); n < len(tt.keys)/3 {
				t.Errorf("%d segments of %d key pictures", n, len(tt.keys))
			}
			for i, s := range told {
				if i > 0 && s.From != told[i-1].To {
					t.Fatalf("segment %d is told to begin at %v, after one until %v", i, s.From, told[i-1].To)
				}
				if s.From/time.Second == s.To/time.Second {
					t.Errorf("segments %d and %d begin in the same second, %v and %v", i, i+1, s.From, s.To)
				}
				if off := (s.From - began[i]).Abs(); off > tt.off && i > 2 {
					t.Errorf("segment %d begins at %v and is told to begin %v off", i, began[i], off)
				}
			}
		})
	}
}

func TestATimelineGoesOnAfterABreak(t *testing.T) {
	var line timeline
	line.open(time.Hour, 2*time.Second, true)
	line.open(time.Hour+time.Second, 2*time.Second, true) // the header changed
	if want := (Span{time.Hour + 2*time.Second, time.Hour + 3*time.Second}); line.Span != want {
		t.Errorf("after a new header %v, want %v", line.Span, want)
	}
	line.open(time.Hour+time.Minute, 2*time.Second, true) // no picture for long
	if want := (Span{time.Hour + time.Minute, time.Hour + time.Minute + 2*time.Second}); line.Span != want {
		t.Errorf("after a hole %v, want %v", line.Span, want)
	}
	line.open(time.Minute, 2*time.Second, true) // stamps step back
	if want := (Span{time.Minute, time.Minute + 2*time.Second}); line.Span != want {
		t.Errorf("after a step back %v, want %v", line.Span, want)
	}
}
