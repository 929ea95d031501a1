package m2m

import (
	"errors"
	"testing"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/uapi"
)

func TestLevel(t *testing.T) {
	at := func(fps int) hw.Rate { return hw.Rate{Num: fps, Den: 1} }
	for _, tt := range []struct {
		width, height int
		rate          hw.Rate
		bitrate       int
		profile       string
		want          int
	}{
		{176, 144, at(15), 64_000, "baseline", 10},
		{320, 240, at(20), 768_000, "main", 13},
		{640, 480, at(30), 2_000_000, "high", 30}, // below 3 VGA at 30 fps fails on bcm2835
		{640, 360, at(30), 800_000, "", 30},
		{1280, 720, at(30), 6_000_000, "high", 31},
		{1280, 720, at(60), 6_000_000, "high", 32},
		{1920, 1080, at(30), 6_000_000, "high", 40},
		{1920, 1080, at(30), 20_000_000, "baseline", 40},
		{1920, 1080, at(30), 25_000_000, "baseline", 41}, // at level 4.0 bcm2835 does not start
		{1920, 1080, at(30), 25_000_000, "high", 40},
		{1920, 1080, hw.Rate{Num: 30000, Den: 1001}, 25_000_000, "high", 40},
		{1920, 1080, at(50), 8_000_000, "high", 42},
		{1920, 1080, at(60), 8_000_000, "high", 42},
		{3840, 2160, at(30), 30_000_000, "high", 51},
		{3840, 2160, at(60), 30_000_000, "high", 52},
		{4112, 64, at(1), 1_000_000, "high", 42}, // long pictures need a level for their length
	} {
		if got, err := Level(tt.width, tt.height, tt.rate, tt.bitrate, tt.profile); err != nil || got != tt.want {
			t.Errorf("%dx%d %v %d bit/s %s: got %d, %v, want %d", tt.width, tt.height, tt.rate, tt.bitrate, tt.profile, got, err, tt.want)
		}
	}
	for name, err := range map[string]error{
		"size":    second(Level(16000, 9000, at(60), 1_000_000, "high")),
		"bitrate": second(Level(640, 360, at(30), 2_000_000_000, "high")),
		"profile": second(Level(640, 360, at(30), 1_000_000, "high10")),
	} {
		if !errors.Is(err, hw.ErrUnsupported) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestLevelsRise guards the table: a level carries no less than the one before,
// and the menu counts with it (1b stands between the first two).
func TestLevelsRise(t *testing.T) {
	for i, l := range levels[1:] {
		before := levels[i]
		if l.idc <= before.idc || l.rate < before.rate || l.frame < before.frame || l.kbps < before.kbps {
			t.Errorf("level %d carries less than %d", l.idc, before.idc)
		}
		if l.menu != int64(i+2) {
			t.Errorf("level %d has entry %d of the menu, want %d", l.idc, l.menu, i+2)
		}
	}
	if levels[0].menu != uapi.H264Level1_0 {
		t.Error("the first level is not 1.0")
	}
}

func TestLevelHEVC(t *testing.T) {
	at := func(fps int) hw.Rate { return hw.Rate{Num: fps, Den: 1} }
	for _, tt := range []struct {
		width, height int
		rate          hw.Rate
		bitrate       int
		want          int // thirty times the level
	}{
		{176, 144, at(15), 128_000, 30},
		{640, 360, at(30), 800_000, 63},
		{640, 480, at(30), 2_000_000, 90},
		{1280, 720, at(30), 6_000_000, 93},
		{1280, 720, at(60), 6_000_000, 120},
		{1920, 1080, at(30), 6_000_000, 120},
		{1920, 1080, at(30), 12_000_001, 123},
		{1920, 1080, at(60), 8_000_000, 123},
		{1920, 1080, hw.Rate{Num: 60000, Den: 1001}, 20_000_001, 150},
		{3840, 2160, at(30), 20_000_000, 150},
		{3840, 2160, at(60), 20_000_000, 153},
		{4216, 64, at(1), 1_000_000, 120}, // long pictures need a level for their length
	} {
		if got, err := LevelHEVC(tt.width, tt.height, tt.rate, tt.bitrate); err != nil || got != tt.want {
			t.Errorf("%dx%d %v %d bit/s: got %d, %v, want %d", tt.width, tt.height, tt.rate, tt.bitrate, got, err, tt.want)
		}
	}
	for name, err := range map[string]error{
		"size":    second(LevelHEVC(16000, 9000, at(60), 1_000_000)),
		"bitrate": second(LevelHEVC(640, 360, at(30), 240_000_001)),
	} {
		if !errors.Is(err, hw.ErrUnsupported) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
