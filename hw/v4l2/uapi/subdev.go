package uapi

import "unsafe"

// The calls of subdevices, named as in the kernel (include/uapi/linux/v4l2-subdev.h)
// without VIDIOC_SUBDEV_. Timings, EDID, controls and events have the numbers
// of the video node's.
const (
	PadEnumCodes     = both | unsafe.Sizeof(PadCodeEnum{})<<16 | 2
	PadGetFmt        = both | unsafe.Sizeof(PadFormat{})<<16 | 4
	PadSetFmt        = both | unsafe.Sizeof(PadFormat{})<<16 | 5
	PadGetInterval   = both | unsafe.Sizeof(PadInterval{})<<16 | 21
	PadSetInterval   = both | unsafe.Sizeof(PadInterval{})<<16 | 22
	PadEnumSizes     = both | unsafe.Sizeof(PadSizeEnum{})<<16 | 74
	PadEnumIntervals = both | unsafe.Sizeof(PadIntervalEnum{})<<16 | 75
)

// CapIOMC says that a video node's inputs are links of a media device
// (V4L2_CAP_IO_MC).
const CapIOMC = 0x20000000

// Whose format is meant (enum v4l2_subdev_format_whence).
const (
	PadTry    = 0 // of this opening alone, to see what would be granted
	PadActive = 1 // of the hardware
)

// Codes of pictures between subdevices (MEDIA_BUS_FMT_): samples by width of
// the bus.
const (
	BusRGB888x3   = 0x101c // RGB888_3X8
	BusBGR888x3   = 0x101b // BGR888_3X8
	BusRGB888     = 0x100a // RGB888_1X24
	BusBGR888     = 0x1013 // BGR888_1X24
	BusRBG888     = 0x100e // RBG888_1X24
	BusGBR888     = 0x1014 // GBR888_1X24
	BusRGB565     = 0x1017 // RGB565_1X16
	BusUYVY8x2    = 0x2006 // UYVY8_2X8
	BusVYUY8x2    = 0x2007 // VYUY8_2X8
	BusYUYV8x2    = 0x2008 // YUYV8_2X8
	BusYVYU8x2    = 0x2009 // YVYU8_2X8
	BusUYVY8      = 0x200f // UYVY8_1X16
	BusVYUY8      = 0x2010 // VYUY8_1X16
	BusYUYV8      = 0x2011 // YUYV8_1X16
	BusYVYU8      = 0x2012 // YVYU8_1X16
	BusVUY8       = 0x2024 // VUY8_1X24
	BusYUV8       = 0x2025 // YUV8_1X24
	BusUYYVYY8    = 0x2026 // UYYVYY8_0_5X24
	BusBayerFirst = 0x3000 // raw pictures of sensors begin here …
	BusBayerLast  = 0x3fff // … and end here
	BusSBGGR8     = 0x3001 // SBGGR8_1X8
	BusSRGGB10    = 0x300f // SRGGB10_1X10
	BusJPEG       = 0x4001 // JPEG_1X8
)

// A BusFormat is struct v4l2_mbus_framefmt.
type BusFormat struct {
	Width, Height uint32
	Code          uint32
	Field         uint32
	Colorspace    uint32
	YCbCrEnc      uint16
	Quantization  uint16
	XferFunc      uint16
	Flags         uint16
	_             [10]uint16
}

// A PadFormat is struct v4l2_subdev_format.
type PadFormat struct {
	Which  uint32
	Pad    uint32
	Format BusFormat
	Stream uint32
	_      [7]uint32
}

// A PadCodeEnum is struct v4l2_subdev_mbus_code_enum.
type PadCodeEnum struct {
	Pad    uint32
	Index  uint32
	Code   uint32
	Which  uint32
	Flags  uint32
	Stream uint32
	_      [6]uint32
}

// A PadSizeEnum is struct v4l2_subdev_frame_size_enum.
type PadSizeEnum struct {
	Index                uint32
	Pad                  uint32
	Code                 uint32
	MinWidth, MaxWidth   uint32
	MinHeight, MaxHeight uint32
	Which                uint32
	Stream               uint32
	_                    [7]uint32
}

// A PadIntervalEnum is struct v4l2_subdev_frame_interval_enum.
type PadIntervalEnum struct {
	Index         uint32
	Pad           uint32
	Code          uint32
	Width, Height uint32
	Interval      Fract
	Which         uint32
	Stream        uint32
	_             [7]uint32
}

// A PadInterval is struct v4l2_subdev_frame_interval.
type PadInterval struct {
	Pad      uint32
	Interval Fract
	Stream   uint32
	Which    uint32
	_        [7]uint32
}

// The sizes are the same on all architectures.
var (
	_ = [1]struct{}{}[unsafe.Sizeof(BusFormat{})-48]
	_ = [1]struct{}{}[unsafe.Sizeof(PadFormat{})-88]
)
