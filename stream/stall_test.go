package stream

import (
	"errors"
	"testing"
	"time"
)

func TestWhoTakesNothingIsJudgedByWhatItsKernelSays(t *testing.T) {
	const patience, asleep = 10 * time.Second, 5 * time.Minute
	seen := func(last int, in, out uint32) answers {
		return answers{acked: 7, last: time.Duration(last) * time.Second, in: in, out: out}
	}
	type look struct {
		at int // seconds after it took something last
		a  answers
	}
	tests := []struct {
		name    string
		asleep  time.Duration
		unknown bool
		looks   []look
		want    error // of the last look; nil before
	}{
		{"a player that is asleep for four minutes", asleep, false, []look{{1, seen(1, 5, 5)}, {11, seen(4, 6, 6)}, {60, seen(40, 7, 7)}, {240, seen(100, 8, 8)}}, nil},
		{"and for longer than is good", asleep, false, []look{{1, seen(1, 5, 5)}, {299, seen(1, 9, 9)}, {300, seen(1, 9, 9)}}, ErrStalled},
		{"one question without an answer", asleep, false, []look{{1, seen(1, 5, 5)}, {60, seen(50, 5, 6)}, {70, seen(5, 6, 7)}, {90, seen(25, 6, 8)}}, nil},
		{"who does not play may not sleep", 0, false, []look{{9, seen(1, 5, 5)}, {10, seen(1, 6, 6)}}, ErrStalled},
		{"nothing is known of it", asleep, true, []look{{9, answers{}}, {10, answers{}}}, ErrStalled},
		{"a host that went while data was on its way", asleep, false, []look{{1, seen(1, 5, 5)}, {5, seen(5, 5, 8)}, {11, seen(11, 5, 9)}}, ErrVanished},
		{"a host that went in its sleep", asleep, false, []look{{60, seen(50, 5, 5)}, {63, seen(53, 5, 6)}, {66, seen(56, 5, 7)}}, ErrVanished},
		{"a host that fell asleep, woke and went", asleep, false, []look{{60, seen(50, 5, 5)}, {61, seen(0, 6, 7)}, {70, seen(9, 6, 9)}, {71, seen(10, 6, 9)}}, ErrVanished},
		{"a line that loses much, but not all", asleep, false, []look{{1, seen(1, 5, 5)}, {8, seen(0, 6, 9)}, {16, seen(8, 6, 13)}, {17, seen(0, 7, 14)}, {26, seen(9, 7, 17)}}, nil},
		{"it takes something now and then", 0, false, []look{{9, seen(0, 5, 5)}, {12, answers{acked: 8}}, {21, answers{acked: 8}}, {22, answers{acked: 8}}}, ErrStalled},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			began := time.Now()
			s := stall{since: began}
			for i, l := range tt.looks {
				want := tt.want
				if i < len(tt.looks)-1 {
					want = nil
				}
				if err := s.judge(began.Add(time.Duration(l.at)*time.Second), l.a, !tt.unknown, patience, tt.asleep); !errors.Is(err, want) || (err == nil) != (want == nil) {
					t.Fatalf("after %d s: %v, want %v", l.at, err, want)
				}
			}
		})
	}
}
