package boards

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"encoderd.example/hw"
)

func TestABoardSaysWhenItsEncoderDoesNotShow(t *testing.T) {
	broken := errors.New("no access")
	tests := []struct {
		name    string
		found   []string
		err     error
		first   string
		missing bool
	}{
		{"nothing is there", nil, nil, "", true},
		{"only another one", []string{"v4l2:other"}, nil, "v4l2:other", true},
		{"it is there", []string{"v4l2:wave5-enc"}, nil, "v4l2:wave5-enc", false},
		{"it comes first", []string{"v4l2:other", "v4l2:wave5-enc"}, nil, "v4l2:wave5-enc", false},
		{"looking failed", nil, broken, "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := expect(hw.Board{FindEncoders: func() (list []hw.EncoderDriver, _ error) {
				for _, name := range tt.found {
					list = append(list, hw.EncoderDriver{Name: name})
				}
				return list, tt.err
			}}, encoder{drivers: []string{"wave5"}, remedy: "load the module"})
			got, err := b.FindEncoders()
			if len(got) != len(tt.found) || len(got) > 0 && got[0].Name != tt.first {
				t.Errorf("got %v", got)
			}
			if errors.Is(err, hw.ErrMissing) != tt.missing || tt.missing && !strings.Contains(err.Error(), "load the module") {
				t.Errorf("it says %v", err)
			}
			if tt.err != nil && !errors.Is(err, tt.err) {
				t.Errorf("it says %v and hides %v", err, tt.err)
			}
		})
	}
}

// What the device trees of these boards say, most exact first (Linux 6.12,
// arch/arm/boot/dts and arch/arm64/boot/dts).
func TestRealBoardsAreKnown(t *testing.T) {
	for names, want := range map[string]string{
		"raspberrypi,4-model-b brcm,bcm2711":                       "raspberrypi",
		"raspberrypi,model-zero-2-w brcm,bcm2837":                  "raspberrypi",
		"raspberrypi,5-model-b brcm,bcm2712":                       "raspberrypi5",
		"toradex,apalis_imx6q-eval toradex,apalis_imx6q fsl,imx6q": "imx6",
		"fsl,imx8qm-mek fsl,imx8qm":                                "imx8qm",
		"ti,am62p5-sk ti,am62p5":                                   "am62p",
		"mediatek,mt8390-evk mediatek,mt8390 mediatek,mt8188":      "genio",
		"radxa,rock-5b rockchip,rk3588":                            "rockchip",
	} {
		if got := detect(all, strings.Fields(names), nil); got.Name != want {
			t.Errorf("%s is taken for %q, want %q", names, got.Name, want)
		}
	}
}

func TestOneFinderThatFailsDoesNotHideTheOthers(t *testing.T) {
	broken := errors.New("no access")
	find := join(
		func() ([]int, error) { return []int{1}, nil },
		func() ([]int, error) { return []int{2}, broken },
		func() ([]int, error) { return []int{3}, nil },
	)
	if got, err := find(); !slices.Equal(got, []int{1, 2, 3}) || !errors.Is(err, broken) {
		t.Errorf("got %v, %v", got, err)
	}
}
