package alsa

import (
	"testing"
	"time"
)

// run feeds blocks of 10 ms at 48 kHz whose stamps are late by what off says,
// and returns by how much the smoothed ones are.
func run(d *dll, blocks int, off func(i int) time.Duration) []time.Duration {
	var got []time.Duration
	for i := range blocks {
		truth := time.Hour + time.Duration(i)*10*time.Millisecond
		got = append(got, d.stamp(truth+off(i), 480)-truth)
	}
	return got
}

func TestDLLJudgesStamps(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		name     string
		off      func(i int) time.Duration
		from     int // block from which on the smoothed stamps must lie
		low, top time.Duration
	}{
		{"exact stamps stay exact", func(int) time.Duration { return 0 }, 0, -1000, 1000},
		{"a stall of the position does not move time", func(i int) time.Duration {
			if i >= 300 && i < 304 {
				return 200 * ms
			}
			return 0
		}, 0, -ms, ms},
		{"a late first stamp is put right by the second", func(i int) time.Duration {
			if i == 0 {
				return 100 * ms
			}
			return 0
		}, 1, -ms, ms},
		{"sound lost in the driver shows after 50 ms", func(i int) time.Duration {
			if i >= 300 {
				return 50 * ms
			}
			return 0
		}, 305, 49 * ms, 51 * ms},
		{"one outlier in ten hardly counts", func(i int) time.Duration {
			if i%10 == 0 {
				return 15 * ms
			}
			return 0
		}, 300, 0, ms},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDLL(48000, 480)
			for i, off := range run(&d, 1000, tt.off) {
				if i >= tt.from && (off < tt.low || off > tt.top) {
					t.Fatalf("block %d is stamped %v late, want %v to %v", i, off, tt.low, tt.top)
				}
			}
		})
	}
}

func TestDLLKeepsTheCardsSpeedOverAJump(t *testing.T) {
	d := newDLL(48000, 480)
	run(&d, 6000, func(i int) time.Duration { return time.Duration(i) * time.Microsecond }) // 100 ppm slow
	before := d.period
	d.jump()
	if at := d.stamp(2*time.Hour, 0); at != 2*time.Hour || d.period != before {
		t.Errorf("after a jump the first stamp is %v and the period %v, want 2h and %v", at, d.period, before)
	}
	if ppm := (before*48000 - 1) * 1e6; ppm < 95 || ppm > 105 {
		t.Errorf("learned %.1f ppm, want 100", ppm)
	}
}
