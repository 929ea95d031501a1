package v4l2

import (
	"testing"
	"time"

	"encoderd.example/hw"
)

func TestWhoseMemoryOthersCanRead(t *testing.T) {
	tests := []struct {
		driver, bus string
		shares      bool
	}{
		{"uvcvideo", "usb-0000:01:00.0-1.4", false},
		{"sonixj", "usb-3f980000.usb-1.2", false},
		{"cx23885", "PCI:0000:03:00.0", false},
		{"unicam", "platform:fe801000.csi", true},
		{"snps_hdmirx", "platform:fdee0000.hdmi_receiver", true},
		{"vivid", "platform:vivid-000", true},
	}
	for _, tt := range tests {
		if got := traitOf(tt.driver, tt.bus); (got.private == "") != tt.shares {
			t.Errorf("%s at %s: %q", tt.driver, tt.bus, got.private)
		}
	}
}

func TestStampsOfTheEndBecomeThoseOfTheBegin(t *testing.T) {
	tests := []struct {
		driver   string
		rate     hw.Rate
		blanking float64
		want     time.Duration
	}{
		{"uvcvideo", hw.Rate{Num: 30, Den: 1}, 0, 0},
		{"unicam", hw.Rate{Num: 50, Den: 1}, 0.04, 0},
		{"mxc-isi", hw.Rate{Num: 25, Den: 1}, 0, 40 * time.Millisecond},
		{"snps_hdmirx", hw.Rate{Num: 50, Den: 1}, 0.04, 19200 * time.Microsecond}, // 1080 of 1125 lines
		{"rockchip-cif", hw.Rate{}, 0, 0},
	}
	for _, tt := range tests {
		if got := traitOf(tt.driver, "platform:x").lag(tt.rate, tt.blanking); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.driver, got, tt.want)
		}
	}
}
