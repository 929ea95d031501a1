package v4l2

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/uapi"
)

// An offer is one mode that a driver lists.
type offer struct {
	Format
	hw.Mode
	way *way // how the picture comes to the node; nil if the node sees to it
}

// Bounds for drivers whose lists never end.
const (
	maxFormats   = 64
	maxSizes     = 128
	maxIntervals = 64
)

type size struct{ width, height int }

// What is offered of a continuous or stepwise range, as far as it lies inside.
var (
	commonSizes = []size{
		{3840, 2160},
		{2560, 1440},
		{1920, 1080},
		{1280, 720},
		{1024, 576},
		{960, 540},
		{854, 480},
		{800, 600},
		{720, 576},
		{720, 480},
		{640, 480},
		{640, 360},
		{320, 240},
		{320, 180},
	}
	commonRates = []hw.Rate{{Num: 60, Den: 1}, {Num: 50, Den: 1}, {Num: 30, Den: 1}, {Num: 25, Den: 1}, {Num: 15, Den: 1}, {Num: 10, Den: 1}, {Num: 5, Den: 1}}
)

// listOffers asks for everything that the device offers in formats that this
// box can use. Of ranges it gives common sizes and rates and what lies next to
// want.
func listOffers(d *Device, typ uint32, want hw.Mode) ([]offer, error) {
	found, err := listFormats(d, typ, 0)
	if err != nil {
		return nil, err
	}
	var offers []offer
	for _, f := range found {
		more, err := formatOffers(d, typ, f, want)
		if err != nil {
			return nil, err
		}
		offers = append(offers, more...)
	}
	slices.SortStableFunc(offers, better)
	return offers, nil
}

// listFormats returns the formats of the device that this box can use. If code
// is not zero, they are those that a node behind a media controller writes of
// it.
func listFormats(d *Device, typ, code uint32) ([]Format, error) {
	var found []Format
	for i := range uint32(maxFormats) {
		desc := uapi.FmtDesc{Index: i, Type: typ, MbusCode: code}
		more, err := entry(Ioctl(d, "list the formats of", uapi.EnumFmt, &desc))
		if err != nil || !more {
			return found, err
		}
		f, ok := FormatOf(hw.PixelFormat(desc.PixelFormat))
		if ok && !slices.Contains(found, f) {
			found = append(found, f)
		}
	}
	return found, nil
}

// entry tells the end of a list, EINVAL, and a list that the driver does not
// have, ENOTTY, from trouble.
func entry(err error) (more bool, _ error) {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) {
		return false, nil
	}
	return err == nil, err
}

// formatOffers lists the sizes and rates of one format.
func formatOffers(d *Device, typ uint32, f Format, want hw.Mode) ([]offer, error) {
	sizes, err := listSizes(d, f.code, want)
	if err != nil {
		return nil, err
	}
	if len(sizes) == 0 { // an input that dictates the picture, such as HDMI
		current, err := currentSize(d, typ)
		if err != nil {
			return nil, err
		}
		sizes = []size{current}
	}
	var offers []offer
	for _, s := range sizes {
		rates, err := listRates(d, f.code, s, want)
		if err != nil {
			return nil, err
		}
		if len(rates) == 0 {
			rates = []hw.Rate{{}} // the driver does not say
		}
		for _, r := range rates {
			offers = append(offers, offer{f, hw.Mode{Pixel: f.pixel, Width: s.width, Height: s.height, FPS: r}, nil})
		}
	}
	return offers, nil
}

func currentSize(d *Device, typ uint32) (size, error) {
	f := uapi.Format{Type: typ}
	if err := Ioctl(d, "ask for the format of", uapi.GetFmt, &f); err != nil {
		return size{}, err
	}
	g, err := granted(&f)
	return size{g.width, g.height}, err
}

func listSizes(d *Device, code hw.PixelFormat, want hw.Mode) ([]size, error) {
	var sizes []size
	for i := range uint32(maxSizes) {
		e := uapi.FrmSizeEnum{Index: i, PixelFormat: uint32(code)}
		more, err := entry(Ioctl(d, "list the picture sizes of", uapi.EnumFrameSizes, &e))
		switch {
		case err != nil:
			return nil, err
		case !more:
			return sizes, nil
		case e.Type != uapi.Discrete:
			return sizesWithin(&e, want), nil
		}
		w, h := e.Size()
		sizes = append(sizes, size{int(w), int(h)})
	}
	return sizes, nil
}

// sizesWithin gives the common sizes of a range, its largest, and the one next
// to want.
func sizesWithin(e *uapi.FrmSizeEnum, want hw.Mode) []size {
	fit := func(s size) size {
		return size{
			snap(s.width, int(e.MinWidth), int(e.MaxWidth), int(e.StepWidth)),
			snap(s.height, int(e.MinHeight), int(e.MaxHeight), int(e.StepHeight)),
		}
	}
	var sizes []size
	for _, s := range commonSizes {
		if fit(s) == s {
			sizes = append(sizes, s)
		}
	}
	extra := []size{fit(size{math.MaxInt32, math.MaxInt32})}
	if want.Width > 0 && want.Height > 0 {
		extra = append(extra, fit(size{want.Width, want.Height}))
	}
	for _, s := range extra {
		if !slices.Contains(sizes, s) {
			sizes = append(sizes, s)
		}
	}
	return sizes
}

// snap moves v into lo … hi, and down to a step from lo.
func snap(v, lo, hi, step int) int {
	v = min(max(v, lo), hi)
	return v - (v-lo)%max(step, 1)
}

func listRates(d *Device, code hw.PixelFormat, s size, want hw.Mode) ([]hw.Rate, error) {
	var rates []hw.Rate
	for i := range uint32(maxIntervals) {
		e := uapi.FrmIvalEnum{Index: i, PixelFormat: uint32(code), Width: uint32(s.width), Height: uint32(s.height)}
		more, err := entry(Ioctl(d, "list the frame rates of", uapi.EnumFrameIntervals, &e))
		switch {
		case err != nil:
			return nil, err
		case !more:
			return rates, nil
		case e.Type != uapi.Discrete:
			return ratesWithin(&e, want), nil
		}
		if r := rateOf(e.Min); r.Num > 0 {
			rates = append(rates, r)
		}
	}
	return rates, nil
}

// ratesWithin gives the common rates of a range of intervals, its fastest, and
// the one that is wanted. Steps are left to the driver, which rounds.
func ratesWithin(e *uapi.FrmIvalEnum, want hw.Mode) []hw.Rate {
	fastest, slowest := rateOf(e.Min), rateOf(e.Max)
	var rates []hw.Rate
	for _, r := range append([]hw.Rate{want.FPS, fastest}, commonRates...) {
		inside := r.Num > 0 && r.Float() <= fastest.Float() && r.Float() >= slowest.Float()
		if inside && !slices.ContainsFunc(rates, func(o hw.Rate) bool { return o.Float() == r.Float() }) {
			rates = append(rates, r)
		}
	}
	return rates
}

// rateOf turns an interval into a rate in lowest terms, zero if it is none.
func rateOf(interval uapi.Fract) hw.Rate {
	num, den := int(interval.Den), int(interval.Num)
	if num == 0 || den == 0 {
		return hw.Rate{}
	}
	a, b := num, den
	for b != 0 {
		a, b = b, a%b
	}
	return hw.Rate{Num: num / a, Den: den / a}
}

// smooth is the rate (Hz) from which a picture counts as moving.
const smooth = 24

// better orders offers for somebody without a wish: moving pictures before
// slide shows, then size, rate and format. H.264 comes last, since only who
// asks for it gets it.
func better(a, b offer) int {
	slow := func(o offer) int {
		if r := o.FPS.Float(); r > 0 && r < smooth {
			return 1
		}
		return 0
	}
	finished := func(o offer) int {
		if o.pixel == hw.H264 {
			return 1
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(finished(a), finished(b)),
		cmp.Compare(slow(a), slow(b)),
		cmp.Compare(b.Width*b.Height, a.Width*a.Height),
		cmp.Compare(b.FPS.Float(), a.FPS.Float()),
		cmp.Compare(rank(a.pixel), rank(b.pixel)),
	)
}

// nearest chooses the offer that loses least against want, the first of equal
// ones. Zero fields of want cost nothing. A pixel format that is asked for
// must be there. takes are the formats that cost no conversion, best first;
// without any all are the same.
func nearest(offers []offer, want hw.Mode, takes []hw.PixelFormat) (offer, error) {
	best, least := -1, math.Inf(1)
	for i, o := range offers {
		if c := loss(o.Mode, want) + work(o.pixel, takes); c < least {
			best, least = i, c
		}
	}
	if best < 0 {
		return offer{}, fmt.Errorf("no mode like %s: %w; %s", want, hw.ErrUnsupported, menu(offers))
	}
	return offers[best], nil
}

// What a mode costs, in halvings: losing half of the pixels costs 0.5, half of
// the pictures 0.8, since viewers see that more. What is too much costs little
// as it can be thrown away. Converting and decoding cost more than that, so
// that pictures that need neither come first where they are as many. Among
// formats that the encoder takes its order decides, and nothing else does.
const (
	lossPixels   = 0.5
	lossPictures = 0.8
	lossSurplus  = 0.05
	lossAspect   = 0.15
	lossConvert  = 0.08
	lossDecode   = 0.12
	lossOrder    = 0.0001
)

// loss says how badly m serves want, +Inf if not at all.
func loss(m, want hw.Mode) float64 {
	total := 0.0
	if want.Pixel != 0 && m.Pixel != want.Pixel || m.Pixel == hw.H264 && want.Pixel != hw.H264 {
		return math.Inf(1)
	}
	if want.Width > 0 && want.Height > 0 {
		total += sizeLoss(m, want)
	}
	if have, need := m.FPS.Float(), want.FPS.Float(); have > 0 && need > 0 {
		total += lack(have, need, lossPictures)
	}
	return total
}

// work prices what must be done to pictures before the encoder.
func work(pixel hw.PixelFormat, takes []hw.PixelFormat) float64 {
	switch i := slices.Index(takes, pixel); {
	case i >= 0:
		return lossOrder * float64(i)
	case pixel == hw.MJPEG:
		return lossDecode
	case len(takes) > 0 && pixel != hw.H264:
		return lossConvert
	default:
		return 0
	}
}

func sizeLoss(m, want hw.Mode) float64 {
	seenW, seenH := min(m.Width, want.Width), min(m.Height, want.Height)
	total := lack(float64(seenW*seenH), float64(want.Width*want.Height), lossPixels)
	total += lossSurplus * math.Log2(float64(m.Width*m.Height)/float64(seenW*seenH))
	if aspect := float64(m.Width*want.Height) / float64(m.Height*want.Width); math.Abs(aspect-1) > 0.02 {
		total += lossAspect
	}
	return total
}

// lack prices have against need: each halving costs halving, each doubling
// lossSurplus.
func lack(have, need, halving float64) float64 {
	if have < need {
		return halving * math.Log2(need/have)
	}
	return lossSurplus * math.Log2(have/need)
}

// menu names what there is, for error messages.
func menu(offers []offer) string {
	const most = 6
	if len(offers) == 0 {
		return "the camera offers none of the formats that this box can use"
	}
	var names []string
	for _, o := range offers {
		if !slices.Contains(names, o.String()) {
			names = append(names, o.String())
		}
	}
	rest := ""
	if len(names) > most {
		rest = fmt.Sprintf(" and %d more", len(names)-most)
		names = names[:most]
	}
	return "the camera offers " + strings.Join(names, ", ") + rest
}
