package m2m

import (
	"fmt"
	"math"
	"slices"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/uapi"
)

// A profile is one of the ways to code H.264 that live streams use.
type profile struct {
	name  string
	menu  []int64 // values of CIDH264Profile, the best first
	cabac bool
	// perMille times a level's bit rate is what the profile may have at it
	// (cpbBrVclFactor, H.264 table A-2).
	perMille int
}

// profiles, the best first.
var profiles = []profile{
	{"high", []int64{uapi.H264ProfileHigh, uapi.H264ProfileConstrainedHigh}, true, 1250},
	{"main", []int64{uapi.H264ProfileMain}, true, 1000},
	{"baseline", []int64{uapi.H264ProfileConstrainedBaseline, uapi.H264ProfileBaseline}, false, 1000},
}

// profileNamed returns the profile of that name, "" being the best.
func profileNamed(name string) (profile, error) {
	i := slices.IndexFunc(profiles, func(p profile) bool { return p.name == name || name == "" })
	if i < 0 {
		return profile{}, fmt.Errorf("profile %q: %w", name, hw.ErrUnsupported)
	}
	return profiles[i], nil
}

// A level is a row of H.264 table A-1.
type level struct {
	idc   int // ten times its number
	menu  int64
	rate  int // macroblocks a second (MaxMBPS)
	frame int // macroblocks (MaxFS)
	kbps  int // MaxBR
}

// levels without 1b, which level 1.1 covers.
var levels = []level{
	{10, uapi.H264Level1_0, 1_485, 99, 64},
	{11, uapi.H264Level1_1, 3_000, 396, 192},
	{12, uapi.H264Level1_2, 6_000, 396, 384},
	{13, uapi.H264Level1_3, 11_880, 396, 768},
	{20, uapi.H264Level2_0, 11_880, 396, 2_000},
	{21, uapi.H264Level2_1, 19_800, 792, 4_000},
	{22, uapi.H264Level2_2, 20_250, 1_620, 4_000},
	{30, uapi.H264Level3_0, 40_500, 1_620, 10_000},
	{31, uapi.H264Level3_1, 108_000, 3_600, 14_000},
	{32, uapi.H264Level3_2, 216_000, 5_120, 20_000},
	{40, uapi.H264Level4_0, 245_760, 8_192, 20_000},
	{41, uapi.H264Level4_1, 245_760, 8_192, 50_000},
	{42, uapi.H264Level4_2, 522_240, 8_704, 50_000},
	{50, uapi.H264Level5_0, 589_824, 22_080, 135_000},
	{51, uapi.H264Level5_1, 983_040, 36_864, 240_000},
	{52, uapi.H264Level5_2, 2_073_600, 36_864, 240_000},
	{60, uapi.H264Level6_0, 4_177_920, 139_264, 240_000},
	{61, uapi.H264Level6_1, 8_355_840, 139_264, 480_000},
	{62, uapi.H264Level6_2, 16_711_680, 139_264, 800_000},
}

// Level returns the lowest level of H.264, times ten, that carries pictures of
// width × height pixels at rate and bitrate (bit/s) in a profile ("high",
// "main", "baseline", "" = high). Bit rates are held against those of the
// video alone, as encoders do, not of the whole stream, which may have a fifth
// more. The error wraps [hw.ErrUnsupported].
func Level(width, height int, rate hw.Rate, bitrate int, profile string) (int, error) {
	p, err := profileNamed(profile)
	if err != nil {
		return 0, err
	}
	l, err := levelFor(width, height, rate, bitrate, p)
	return l.idc, err
}

func levelFor(width, height int, rate hw.Rate, bitrate int, p profile) (level, error) {
	across, down := (width+15)/16, (height+15)/16
	perSecond := int(math.Ceil(float64(across*down) * rate.Float()))
	for _, l := range levels {
		switch longest := 8 * l.frame; {
		case across*down > l.frame, across*across > longest, down*down > longest:
		case perSecond > l.rate:
		case bitrate > l.most(p):
		default:
			return l, nil
		}
	}
	return level{}, fmt.Errorf("%dx%d at %.4g fps and %d bit/s is above all levels of H.264: %w", width, height, rate.Float(), bitrate, hw.ErrUnsupported)
}

// most returns the highest bit rate of a profile at the level, in bit/s.
func (l level) most(p profile) int { return l.kbps * p.perMille }

// A levelHEVC is a row of H.265 tables A.8 and A.9, main tier.
type levelHEVC struct {
	idc     int // thirty times its number
	menu    int64
	samples int   // of luma in a picture (MaxLumaPs)
	rate    int64 // of luma a second (MaxLumaSr)
	kbps    int   // MaxBR
}

// levelsHEVC of the main tier: the high one begins at level 4, and players of
// the field need not know it.
var levelsHEVC = []levelHEVC{
	{30, uapi.HEVCLevel1, 36_864, 552_960, 128},
	{60, uapi.HEVCLevel2, 122_880, 3_686_400, 1_500},
	{63, uapi.HEVCLevel2_1, 245_760, 7_372_800, 3_000},
	{90, uapi.HEVCLevel3, 552_960, 16_588_800, 6_000},
	{93, uapi.HEVCLevel3_1, 983_040, 33_177_600, 10_000},
	{120, uapi.HEVCLevel4, 2_228_224, 66_846_720, 12_000},
	{123, uapi.HEVCLevel4_1, 2_228_224, 133_693_440, 20_000},
	{150, uapi.HEVCLevel5, 8_912_896, 267_386_880, 25_000},
	{153, uapi.HEVCLevel5_1, 8_912_896, 534_773_760, 40_000},
	{156, uapi.HEVCLevel5_2, 8_912_896, 1_069_547_520, 60_000},
	{180, uapi.HEVCLevel6, 35_651_584, 1_069_547_520, 60_000},
	{183, uapi.HEVCLevel6_1, 35_651_584, 2_139_095_040, 120_000},
	{186, uapi.HEVCLevel6_2, 35_651_584, 4_278_190_080, 240_000},
}

// LevelHEVC returns the lowest level of HEVC, times thirty, that carries
// pictures of width × height pixels at rate and bitrate (bit/s) in the main
// tier. The error wraps [hw.ErrUnsupported].
func LevelHEVC(width, height int, rate hw.Rate, bitrate int) (int, error) {
	l, err := levelHEVCFor(width, height, rate, bitrate)
	return l.idc, err
}

func levelHEVCFor(width, height int, rate hw.Rate, bitrate int) (levelHEVC, error) {
	width, height = (width+7)&^7, (height+7)&^7 // as it is coded
	perSecond := int64(math.Ceil(float64(width*height) * rate.Float()))
	for _, l := range levelsHEVC {
		switch longest := 8 * l.samples; {
		case width*height > l.samples, width*width > longest, height*height > longest:
		case perSecond > l.rate:
		case bitrate > l.most():
		default:
			return l, nil
		}
	}
	return levelHEVC{}, fmt.Errorf("%dx%d at %.4g fps and %d bit/s is above all levels of HEVC: %w", width, height, rate.Float(), bitrate, hw.ErrUnsupported)
}

// most returns the highest bit rate at the level, in bit/s.
func (l levelHEVC) most() int { return l.kbps * 1000 }
