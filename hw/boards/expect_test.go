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
	chip := encoder{drivers: []string{"wave5"}, remedy: "load the module"}
	program := encoder{program: "MPP", remedy: "load the module or program"}
	either := encoder{drivers: []string{"wave5"}, program: "MPP", remedy: "load the module or program"}
	tests := []struct {
		name     string
		expected encoder
		found    []string
		err      error
		first    string
		missing  string // what is said to be
	}{
		{"nothing is there", chip, nil, nil, "", "(wave5)"},
		{"only another one", chip, []string{"v4l2:other"}, nil, "v4l2:other", "(wave5)"},
		{"it is there", chip, []string{"v4l2:wave5-enc"}, nil, "v4l2:wave5-enc", ""},
		{"it comes first", chip, []string{"v4l2:other", "v4l2:wave5-enc"}, nil, "v4l2:wave5-enc", ""},
		{"looking failed", chip, nil, broken, "", "(wave5)"},
		{"a program is none of the chip's", chip, []string{"external:mpp"}, nil, "external:mpp", "(wave5)"},
		{"no program is there", program, nil, nil, "", "(MPP)"},
		{"a chip's driver is no program", program, []string{"v4l2:other"}, nil, "v4l2:other", "(MPP)"},
		{"a program of any name", program, []string{"v4l2:other", "external:codes-it"}, nil, "external:codes-it", ""},
		{"the chip before the program", either, []string{"external:mpp", "v4l2:wave5-enc"}, nil, "v4l2:wave5-enc", ""},
		{"neither chip nor program", either, nil, nil, "", "(wave5, MPP)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := expect(hw.Board{FindEncoders: func() (list []hw.EncoderDriver, _ error) {
				for _, name := range tt.found {
					list = append(list, hw.EncoderDriver{Name: name})
				}
				return list, tt.err
			}}, tt.expected)
			got, err := b.FindEncoders()
			if len(got) != len(tt.found) || len(got) > 0 && got[0].Name != tt.first {
				t.Errorf("got %v", got)
			}
			missing := tt.missing != ""
			if errors.Is(err, hw.ErrMissing) != missing || missing && (!strings.Contains(err.Error(), "load the module") || !strings.Contains(err.Error(), tt.missing)) {
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

// A box that codes in software although it was bought for its encoder says so,
// with what to do; boards that have none say nothing.
func TestBoardsWithAnEncoderMissIt(t *testing.T) {
	for name, want := range map[string]string{
		"raspberrypi": "bcm2835-codec", "imx6": "coda", "imx8qm": "amphion", "am62p": "wave5", "genio": "mtk", "rockchip": "Rockchip MPP",
		"raspberrypi5": "", "generic": "", "virt": "", "sim": "",
	} {
		b, err := Find(name, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b.FindEncoders == nil {
			if want != "" {
				t.Errorf("%s looks for no encoder", name)
			}
			continue
		}
		_, err = b.FindEncoders() // of the machine that tests, which has none of these
		missing := errors.Is(err, hw.ErrMissing)
		if missing != (want != "") || missing && !strings.Contains(err.Error(), "("+want+")") {
			t.Errorf("%s says %v, want that %q is missing", name, err, want)
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
