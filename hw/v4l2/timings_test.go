package v4l2

import (
	"testing"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/uapi"
)

func TestTheRateOfTimings(t *testing.T) {
	// Sizes, total sizes and clocks of CTA-861 and VESA DMT, and as receivers
	// measure them.
	tests := []struct {
		name              string
		width, height     int
		lineLength, total int
		clock             uint64
		interlaced        bool
		flags             uint32
		want              hw.Rate
		text              string
	}{
		{"1080p60", 1920, 1080, 2200, 1125, 148_500_000, false, 0, hw.Rate{Num: 60, Den: 1}, "1920x1080p 60 Hz"},
		{"1080p59.94, reduced and detected", 1920, 1080, 2200, 1125, 148_500_000, false, uapi.DVFlagCanReduceFPS | uapi.DVFlagReducedFPS | uapi.DVFlagCanDetectReduced, hw.Rate{Num: 60000, Den: 1001}, "1920x1080p 59.94 Hz"},
		{"reduced, but nobody can tell", 1920, 1080, 2200, 1125, 148_500_000, false, uapi.DVFlagCanReduceFPS | uapi.DVFlagReducedFPS, hw.Rate{Num: 60, Den: 1}, "1920x1080p 60 Hz"},
		{"1080p59.94, measured", 1920, 1080, 2200, 1125, 148_351_648, false, 0, hw.Rate{Num: 60000, Den: 1001}, "1920x1080p 59.94 Hz"},
		{"1080p59.94, measured badly", 1920, 1080, 2200, 1125, 148_340_000, false, 0, hw.Rate{Num: 60000, Den: 1001}, "1920x1080p 59.94 Hz"},
		{"1080p23.976", 1920, 1080, 2750, 1125, 74_175_824, false, 0, hw.Rate{Num: 24000, Den: 1001}, "1920x1080p 23.98 Hz"},
		{"1080i50: whole pictures", 1920, 1080, 2640, 1125, 74_250_000, true, 0, hw.Rate{Num: 25, Den: 1}, "1920x1080i 25 Hz"},
		{"720p50", 1280, 720, 1980, 750, 74_250_000, false, 0, hw.Rate{Num: 50, Den: 1}, "1280x720p 50 Hz"},
		{"480p", 720, 480, 858, 525, 27_000_000, false, 0, hw.Rate{Num: 60000, Den: 1001}, "720x480p 59.94 Hz"},
		{"800x600 of a computer", 800, 600, 1056, 628, 40_000_000, false, 0, hw.Rate{Num: 312500, Den: 5181}, "800x600p 60.32 Hz"},
		{"no common divisor", 1000, 1000, 1499, 1009, 90_000_001, false, 0, hw.Rate{Num: 90_000_001, Den: 1499 * 1009}, "1000x1000p 59.5 Hz"},
		{"a clock of more than 32 bits", 7680, 4320, 8999, 4399, 5_940_000_001, false, 0, hw.Rate{Num: 150051, Den: 1000}, "7680x4320p 150.1 Hz"},
		{"no clock", 1920, 1080, 2200, 1125, 0, false, 0, hw.Rate{}, "1920x1080p 0 Hz"},
		{"no size", 0, 0, 0, 0, 148_500_000, false, 0, hw.Rate{}, "0x0p 0 Hz"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Timings{timingsOf(tt.width, tt.height, tt.lineLength, tt.total, tt.clock, tt.interlaced, tt.flags)}
			if got.Rate() != tt.want {
				t.Errorf("got %v, want %v", got.Rate(), tt.want)
			}
			if tt.text != "" && got.String() != tt.text {
				t.Errorf("got %q, want %q", got, tt.text)
			}
			if got.Width() != tt.width || got.Height() != tt.height || got.Interlaced() != tt.interlaced {
				t.Errorf("%dx%d, interlaced: %v", got.Width(), got.Height(), got.Interlaced())
			}
		})
	}
}

// timingsOf spreads the blanking over porches and, of half pictures, fields.
func timingsOf(width, height, lineLength, total int, clock uint64, interlaced bool, flags uint32) uapi.DVTimings {
	blank, lines := uint32(lineLength-width), uint32(total-height)
	bt := uapi.BTTimings{Width: uint32(width), Height: uint32(height), HFrontPorch: blank / 3, HSync: blank / 4, Flags: flags}
	bt.HBackPorch = blank - bt.HFrontPorch - bt.HSync
	if interlaced {
		bt.Interlaced = uapi.DVInterlaced
		bt.SecondVFrontPorch, bt.SecondVSync, bt.SecondVBackPorch = 2, 5, 15
		lines -= 22
	}
	bt.VFrontPorch, bt.VSync = lines/3, lines/4
	bt.VBackPorch = lines - bt.VFrontPorch - bt.VSync
	bt.SetPixelClock(clock)
	return uapi.DVTimings{BT: bt}
}
