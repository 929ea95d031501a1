package v4l2

import (
	"fmt"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/uapi"
)

// maxCodes bounds the lists of drivers.
const maxCodes = 256

// padFormat returns the format of a pad of a subdevice; which is uapi.PadTry or
// uapi.PadActive.
func (d *Device) padFormat(which, pad uint32) (uapi.BusFormat, error) {
	f := uapi.PadFormat{Which: which, Pad: pad}
	err := Ioctl(d, fmt.Sprintf("ask for the format of pad %d of", pad), uapi.PadGetFmt, &f)
	return f.Format, err
}

// setPadFormat sets the format of a pad, or tries it, and returns what was
// granted.
func (d *Device) setPadFormat(which, pad uint32, want uapi.BusFormat) (uapi.BusFormat, error) {
	f := uapi.PadFormat{Which: which, Pad: pad, Format: want}
	err := Ioctl(d, fmt.Sprintf("set the format of pad %d of", pad), uapi.PadSetFmt, &f)
	return f.Format, err
}

// padCodes lists the codes of a pad; of a source pad they may follow from the
// format of the sink pad in the same which.
func (d *Device) padCodes(which, pad uint32) (codes []uint32, _ error) {
	for i := range uint32(maxCodes) {
		e := uapi.PadCodeEnum{Pad: pad, Index: i, Which: which}
		more, err := entry(Ioctl(d, "list the codes of a pad of", uapi.PadEnumCodes, &e))
		if err != nil || !more {
			return codes, err
		}
		codes = append(codes, e.Code)
	}
	return codes, nil
}

// padSizes lists the sizes of a source: of a range the common ones, the largest
// and what lies next to want.
func (d *Device) padSizes(pad, code uint32, want hw.Mode) (sizes []size, _ error) {
	for i := range uint32(maxSizes) {
		e := uapi.PadSizeEnum{Pad: pad, Index: i, Code: code, Which: uapi.PadActive}
		more, err := entry(Ioctl(d, "list the sizes of a pad of", uapi.PadEnumSizes, &e))
		switch {
		case err != nil:
			return nil, err
		case !more:
			return sizes, nil
		case e.MinWidth != e.MaxWidth || e.MinHeight != e.MaxHeight:
			return sizesWithin(&uapi.FrmSizeEnum{
				MinWidth: e.MinWidth, MaxWidth: e.MaxWidth, StepWidth: 2, MinHeight: e.MinHeight, MaxHeight: e.MaxHeight, StepHeight: 2,
			}, want), nil
		}
		sizes = append(sizes, size{int(e.MaxWidth), int(e.MaxHeight)})
	}
	return sizes, nil
}

// padRates lists the rates of a source at one size, or the one that it is set
// to; none if it does not tell.
func (d *Device) padRates(pad, code uint32, s size) (rates []hw.Rate, _ error) {
	for i := range uint32(maxIntervals) {
		e := uapi.PadIntervalEnum{Pad: pad, Index: i, Code: code, Width: uint32(s.width), Height: uint32(s.height), Which: uapi.PadActive}
		more, err := entry(Ioctl(d, "list the frame rates of a pad of", uapi.PadEnumIntervals, &e))
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
		if r := rateOf(e.Interval); r.Num > 0 {
			rates = append(rates, r)
		}
	}
	if len(rates) > 0 {
		return rates, nil
	}
	e := uapi.PadInterval{Pad: pad, Which: uapi.PadActive}
	known, err := entry(Ioctl(d, "ask for the frame rate of a pad of", uapi.PadGetInterval, &e))
	if r := rateOf(e.Interval); known && r.Num > 0 {
		rates = []hw.Rate{r}
	}
	return rates, err
}

// setPadRate asks a source for a rate and returns what it grants; zero if it has
// no such knob.
func (d *Device) setPadRate(pad uint32, want hw.Rate) (hw.Rate, error) {
	e := uapi.PadInterval{Pad: pad, Which: uapi.PadActive, Interval: uapi.Fract{Num: uint32(want.Den), Den: uint32(want.Num)}}
	known, err := entry(Ioctl(d, "set the frame rate of a pad of", uapi.PadSetInterval, &e))
	if err != nil || !known {
		return hw.Rate{}, err
	}
	return rateOf(e.Interval), nil
}
