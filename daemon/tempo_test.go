package daemon

import (
	"testing"
	"time"

	"encoderd.example/hw"
)

func fps(num, den int) hw.Rate { return hw.Rate{Num: num, Den: den} }

// A scene is pictures at a real rate, for a time.
type scene struct {
	fps    float64
	length time.Duration
}

func TestTheTempoIsTheModesUntilTheStampsSayOtherwise(t *testing.T) {
	tests := []struct {
		name    string
		granted hw.Rate
		film    []scene
		jitter  time.Duration // of each third stamp
		lost    int           // each so many pictures one is lost before us
		want    hw.Rate
		changes int
		within  time.Duration // of the begin of the last scene, that it is known
	}{
		{"as the mode says", fps(30, 1), []scene{{30, 20 * time.Second}}, 0, 0, fps(30, 1), 0, 0},
		{"uneven stamps", fps(30, 1), []scene{{30, 20 * time.Second}}, 15 * time.Millisecond, 0, fps(30, 1), 0, 0},
		{"lost pictures", fps(30, 1), []scene{{30, 20 * time.Second}}, 0, 5, fps(30, 1), 0, 0},
		{"NTSC in place of the whole rate", fps(30, 1), []scene{{29.97, 20 * time.Second}}, 0, 0, fps(30, 1), 0, 0},
		{"the mode knows it exactly", fps(60000, 1001), []scene{{59.94, 20 * time.Second}}, 0, 0, fps(60000, 1001), 0, 0},
		{"a mode that lies", fps(30, 1), []scene{{25, 20 * time.Second}}, time.Millisecond, 0, fps(25, 1), 1, 3 * time.Second},
		{"night comes", fps(30, 1), []scene{{30, 10 * time.Second}, {15, 10 * time.Second}}, time.Millisecond, 0, fps(15, 1), 1, 4 * time.Second},
		{"night and day", fps(30, 1), []scene{{30, 10 * time.Second}, {15, 10 * time.Second}, {30, 10 * time.Second}}, 0, 0, fps(30, 1), 2, 4 * time.Second},
		{"a dark second", fps(30, 1), []scene{{30, 10 * time.Second}, {15, time.Second}, {30, 10 * time.Second}}, 0, 0, fps(30, 1), 0, 0},
		{"a rate on its way", fps(30, 1), []scene{{30, 4 * time.Second}, {27.5, 4 * time.Second}}, 0, 0, fps(30, 1), 0, 0},
		{"a rate that nobody builds for", fps(30, 1), []scene{{17.3, 20 * time.Second}}, 0, 0, fps(1730, 100), 1, 3 * time.Second},
		{"a mode that says nothing", hw.Rate{}, []scene{{25, 5 * time.Second}}, 0, 0, fps(25, 1), 1, 3 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tm := tempo{rate: fps(30, 1)}
			tm.begin(tt.granted)
			at, seq, changes, known := time.Hour, uint32(0), 0, time.Duration(0)
			var last time.Duration
			for _, p := range tt.film {
				last = at
				for begin := at; at-begin < p.length; seq++ {
					at += time.Duration(float64(time.Second) / p.fps)
					if tt.lost > 0 && int(seq)%tt.lost == 0 {
						continue
					}
					stamp := at
					if seq%3 == 0 {
						stamp += tt.jitter
					}
					if tm.picture(stamp, seq) {
						changes, known = changes+1, stamp-last
					}
				}
			}
			if tm.rate != tt.want || changes != tt.changes || known > tt.within || changes > 0 && known < 2*time.Second {
				t.Errorf("rate %v after %d changes, the last %v after it was so; want %v, %d, within %v", tm.rate, changes, known, tt.want, tt.changes, tt.within)
			}
		})
	}
}

func TestARateThatSwingsIsNotFollowedEachTime(t *testing.T) {
	tm := tempo{rate: fps(30, 1)}
	tm.begin(fps(30, 1))
	at, changes := time.Hour, 0
	for i := range 100 { // a lamp that flickers: 2.5 s of light, 2.5 s of darkness
		for range 75 >> (i % 2) {
			at += time.Second / 30 << (i % 2)
			if tm.picture(at, 0) {
				changes++
			}
		}
	}
	if most := int(250 * time.Second / rateHold); changes > most {
		t.Errorf("%d changes in 250 s, want at most %d", changes, most)
	}
}

func TestNominalRates(t *testing.T) {
	tests := []struct{ said, want hw.Rate }{
		{fps(30, 1), fps(30, 1)},
		{fps(10000000, 333333), fps(30, 1)}, // UVC counts in 100 ns
		{fps(10000000, 333667), fps(30000, 1001)},
		{fps(10000000, 400000), fps(25, 1)},
		{fps(148351648, 2200*1125), fps(60000, 1001)}, // HDMI by its pixel clock
		{fps(24000, 1001), fps(24000, 1001)},
		{fps(15, 2), fps(15, 2)},
		{fps(17, 1), fps(17, 1)},
		{fps(0, 1), hw.Rate{}},
		{fps(1, 0), hw.Rate{}},
		{fps(5000, 1), hw.Rate{}},
	}
	for _, tt := range tests {
		if got := nominal(tt.said); got != tt.want {
			t.Errorf("%v is %v, want %v", tt.said, got, tt.want)
		}
	}
}

func TestTheRateOfARenditionIsTheSourcesUnlessItIsThinnedOut(t *testing.T) {
	tests := []struct{ rendition, source, want hw.Rate }{
		{fps(30, 1), fps(25, 1), fps(25, 1)},
		{fps(30, 1), fps(30000, 1001), fps(30000, 1001)},
		{fps(30000, 1001), fps(30, 1), fps(30, 1)},
		{fps(30, 1), fps(60, 1), fps(30, 1)},
		{fps(30, 1), fps(50, 1), fps(30, 1)},
		{fps(15, 1), fps(30, 1), fps(15, 1)},
		{fps(15, 1), fps(12, 1), fps(12, 1)},
		{fps(25, 1), fps(30, 1), fps(25, 1)},
		{fps(50, 1), fps(60, 1), fps(50, 1)},
		{fps(25, 1), fps(30000, 1001), fps(25, 1)},
		{fps(25, 1), fps(24, 1), fps(24, 1)},
		{fps(24, 1), fps(25, 1), fps(25, 1)},
		{fps(30, 1), hw.Rate{}, fps(30, 1)},
	}
	for _, tt := range tests {
		if got := rateOf(tt.rendition, tt.source); got != tt.want {
			t.Errorf("a rendition of %v from %v has %v, want %v", tt.rendition, tt.source, got, tt.want)
		}
	}
}
