package v4l2

import (
	"slices"

	"encoderd.example/hw/v4l2/uapi"
)

// A colour is how samples describe a picture.
type colour int

const (
	ycbcr colour = iota + 1
	rgb
	coder // coded pictures
)

// A busCode is a code of pictures between subdevices that this box can make use
// of, if a video node writes them as one of our formats.
type busCode struct {
	code   uint32
	colour colour
}

// busCodes in order of preference: what needs the least of the bus comes first,
// and RGB, which encoders seldom take, last.
var busCodes = []busCode{
	{uapi.BusUYYVYY8, ycbcr},
	{uapi.BusUYVY8, ycbcr},
	{uapi.BusYUYV8, ycbcr},
	{uapi.BusVYUY8, ycbcr},
	{uapi.BusYVYU8, ycbcr},
	{uapi.BusUYVY8x2, ycbcr},
	{uapi.BusYUYV8x2, ycbcr},
	{uapi.BusVYUY8x2, ycbcr},
	{uapi.BusYVYU8x2, ycbcr},
	{uapi.BusYUV8, ycbcr},
	{uapi.BusVUY8, ycbcr},
	{uapi.BusRGB888, rgb},
	{uapi.BusBGR888, rgb},
	{uapi.BusRGB888x3, rgb},
	{uapi.BusBGR888x3, rgb},
	{uapi.BusRBG888, rgb},
	{uapi.BusGBR888, rgb},
	{uapi.BusRGB565, rgb},
	{uapi.BusJPEG, coder},
}

// colourOf returns the colour of a code, zero of one that this box cannot use.
func colourOf(code uint32) colour {
	i := slices.IndexFunc(busCodes, func(b busCode) bool { return b.code == code })
	if i < 0 {
		return 0
	}
	return busCodes[i].colour
}

// bayer says whether code is a raw picture of a sensor, which shows one colour
// for each pixel and needs a processor that is led by a program.
func bayer(code uint32) bool { return code >= uapi.BusBayerFirst && code <= uapi.BusBayerLast }

// preferred sorts the codes that this box can use, best first, and drops the
// others; raw ones are kept behind them if raw is set.
func preferred(codes []uint32, raw bool) (list []uint32) {
	for _, b := range busCodes {
		if slices.Contains(codes, b.code) {
			list = append(list, b.code)
		}
	}
	for _, c := range codes {
		if raw && bayer(c) && !slices.Contains(list, c) {
			list = append(list, c)
		}
	}
	return list
}

// colour returns how samples of f describe a picture.
func (f Format) colour() colour {
	switch {
	case f.pixel.Coded():
		return coder
	case f.pixel.RGB():
		return rgb
	default:
		return ycbcr
	}
}

// goesWith says whether a video node that gets code can mean f with it: nodes
// order samples anew, and leave some out, but few change the colour.
func (f Format) goesWith(code uint32) bool { return f.colour() == colourOf(code) }
