// Package uapi is the V4L2 user-space ABI of Linux: the numbers and the
// structs of include/uapi/linux/videodev2.h that this box uses, no policy.
//
// The ioctl number carries the size of its struct, so the kernel chooses its
// ABI by it. All structs have the layout with 64-bit time, also on 32-bit ARM
// (kernel 5.6 or later). One definition serves amd64, arm64 and arm: Go aligns
// pointers as C does there, and the padding that C adds before 64-bit numbers
// is written out. An architecture with other rules does not compile.
//
// Memory: the kernel writes through the pointers that it is handed during a
// call and keeps none. Pointers inside structs are uintptr; the caller keeps
// what they point to alive and on the heap.
package uapi

import "unsafe"

// Directions and family of the ioctl numbers (include/uapi/asm-generic/ioctl.h).
const (
	write uintptr = 1<<30 | 'V'<<8
	read  uintptr = 2<<30 | 'V'<<8
	both          = read | write
)

// The ioctls, named as in the kernel without VIDIOC_.
const (
	QueryCap           = read | unsafe.Sizeof(Capability{})<<16
	EnumFmt            = both | unsafe.Sizeof(FmtDesc{})<<16 | 2
	GetFmt             = both | unsafe.Sizeof(Format{})<<16 | 4
	SetFmt             = both | unsafe.Sizeof(Format{})<<16 | 5
	ReqBufs            = both | unsafe.Sizeof(RequestBuffers{})<<16 | 8
	QueryBuf           = both | unsafe.Sizeof(Buffer{})<<16 | 9
	QBuf               = both | unsafe.Sizeof(Buffer{})<<16 | 15
	ExpBuf             = both | unsafe.Sizeof(ExportBuffer{})<<16 | 16
	DQBuf              = both | unsafe.Sizeof(Buffer{})<<16 | 17
	StreamOn           = write | unsafe.Sizeof(int32(0))<<16 | 18
	StreamOff          = write | unsafe.Sizeof(int32(0))<<16 | 19
	GetParm            = both | unsafe.Sizeof(StreamParm{})<<16 | 21
	SetParm            = both | unsafe.Sizeof(StreamParm{})<<16 | 22
	EnumInput          = both | unsafe.Sizeof(Input{})<<16 | 26
	GetCtrl            = both | unsafe.Sizeof(Control{})<<16 | 27
	SetCtrl            = both | unsafe.Sizeof(Control{})<<16 | 28
	QueryCtrl          = both | unsafe.Sizeof(CtrlDesc{})<<16 | 36
	QueryMenu          = both | unsafe.Sizeof(MenuEntry{})<<16 | 37
	GetInput           = read | unsafe.Sizeof(int32(0))<<16 | 38
	SetInput           = both | unsafe.Sizeof(int32(0))<<16 | 39
	GetEDID            = both | unsafe.Sizeof(EDID{})<<16 | 40
	SetEDID            = both | unsafe.Sizeof(EDID{})<<16 | 41
	TryFmt             = both | unsafe.Sizeof(Format{})<<16 | 64
	GetExtCtrls        = both | unsafe.Sizeof(ExtControls{})<<16 | 71
	SetExtCtrls        = both | unsafe.Sizeof(ExtControls{})<<16 | 72
	EnumFrameSizes     = both | unsafe.Sizeof(FrmSizeEnum{})<<16 | 74
	EnumFrameIntervals = both | unsafe.Sizeof(FrmIvalEnum{})<<16 | 75
	EncoderCmd         = both | unsafe.Sizeof(EncoderCommand{})<<16 | 77
	SetDVTimings       = both | unsafe.Sizeof(DVTimings{})<<16 | 87
	GetDVTimings       = both | unsafe.Sizeof(DVTimings{})<<16 | 88
	DQEvent            = read | unsafe.Sizeof(Event{})<<16 | 89
	SubscribeEvent     = write | unsafe.Sizeof(EventSubscription{})<<16 | 90
	UnsubscribeEvent   = write | unsafe.Sizeof(EventSubscription{})<<16 | 91
	GetSelection       = both | unsafe.Sizeof(Selection{})<<16 | 94
	SetSelection       = both | unsafe.Sizeof(Selection{})<<16 | 95
	EnumDVTimings      = both | unsafe.Sizeof(DVTimingsEntry{})<<16 | 98
	QueryDVTimings     = read | unsafe.Sizeof(DVTimings{})<<16 | 99
	QueryExtCtrl       = both | unsafe.Sizeof(ExtCtrlDesc{})<<16 | 103
)

// Capability bits (V4L2_CAP_).
const (
	CapVideoCapture       = 0x00000001
	CapVideoOutput        = 0x00000002
	CapVideoCaptureMplane = 0x00001000
	CapVideoOutputMplane  = 0x00002000
	CapVideoM2MMplane     = 0x00004000
	CapVideoM2M           = 0x00008000
	CapMetaCapture        = 0x00800000
	CapStreaming          = 0x04000000
	CapDeviceCaps         = 0x80000000
	CapTimePerFrame       = 0x1000 // in CaptureParm.Capability
)

// Buffer types and memory kinds (enum v4l2_buf_type, enum v4l2_memory).
const (
	BufTypeVideoCapture       = 1
	BufTypeVideoOutput        = 2
	BufTypeVideoCaptureMplane = 9
	BufTypeVideoOutputMplane  = 10

	MemoryMMAP   = 1
	MemoryDMABUF = 4

	MaxPlanes = 8 // VIDEO_MAX_PLANES
)

// Buffer flags (V4L2_BUF_FLAG_).
const (
	BufFlagMapped             = 0x00000001
	BufFlagQueued             = 0x00000002
	BufFlagDone               = 0x00000004
	BufFlagKeyFrame           = 0x00000008
	BufFlagPFrame             = 0x00000010
	BufFlagBFrame             = 0x00000020
	BufFlagError              = 0x00000040
	BufFlagTimestampMask      = 0x0000e000
	BufFlagTimestampMonotonic = 0x00002000
	BufFlagTimestampCopy      = 0x00004000
	BufFlagLast               = 0x00100000
)

// Flags of formats (V4L2_FMT_FLAG_, in FmtDesc.Flags).
const (
	FmtFlagCompressed = 0x0001
	FmtFlagEmulated   = 0x0002
)

// Capabilities of a queue (V4L2_BUF_CAP_, in RequestBuffers.Capabilities).
const (
	BufCapMMAP         = 0x01
	BufCapDMABUF       = 0x04
	BufCapOrphanedBufs = 0x10
)

// Fields and quantization (enum v4l2_field, enum v4l2_quantization).
const (
	FieldNone       = 1
	FieldInterlaced = 4
	FieldAlternate  = 7

	ColorspaceJPEG    = 7
	QuantizationFull  = 1
	QuantizationLimit = 2
)

// Kinds of frame sizes and intervals (enum v4l2_frmsizetypes and
// v4l2_frmivaltypes, which agree).
const (
	Discrete   = 1
	Continuous = 2
	Stepwise   = 3
)

// A Capability is struct v4l2_capability.
type Capability struct {
	Driver       [16]byte
	Card         [32]byte
	BusInfo      [32]byte
	Version      uint32
	Capabilities uint32
	DeviceCaps   uint32
	_            [3]uint32
}

// A FmtDesc is struct v4l2_fmtdesc.
type FmtDesc struct {
	Index       uint32
	Type        uint32
	Flags       uint32
	Description [32]byte
	PixelFormat uint32
	MbusCode    uint32
	_           [3]uint32
}

// A Format is struct v4l2_format. Pix and PixMP look at the same bytes: which
// of them counts follows from Type.
type Format struct {
	Type uint32
	_    [0]uintptr // the union in C holds pointers
	fmt  [50]uint32
}

// Pix is the view for single-planar types.
func (f *Format) Pix() *PixFormat {
	return (*PixFormat)(unsafe.Pointer(&f.fmt)) //nolint:gosec // a C union
}

// PixMP is the view for multi-planar types.
func (f *Format) PixMP() *PixFormatMplane {
	return (*PixFormatMplane)(unsafe.Pointer(&f.fmt)) //nolint:gosec // a C union
}

// A PixFormat is struct v4l2_pix_format.
type PixFormat struct {
	Width, Height uint32
	PixelFormat   uint32
	Field         uint32
	BytesPerLine  uint32
	SizeImage     uint32
	Colorspace    uint32
	Priv          uint32
	Flags         uint32
	YCbCrEnc      uint32
	Quantization  uint32
	XferFunc      uint32
}

// A PlanePixFormat is struct v4l2_plane_pix_format.
type PlanePixFormat struct {
	SizeImage    uint32
	BytesPerLine uint32
	_            [6]uint16
}

// A PixFormatMplane is struct v4l2_pix_format_mplane.
type PixFormatMplane struct {
	Width, Height uint32
	PixelFormat   uint32
	Field         uint32
	Colorspace    uint32
	Planes        [MaxPlanes]PlanePixFormat
	NumPlanes     uint8
	Flags         uint8
	YCbCrEnc      uint8
	Quantization  uint8
	XferFunc      uint8
	_             [7]uint8
}

// A RequestBuffers is struct v4l2_requestbuffers.
type RequestBuffers struct {
	Count        uint32
	Type         uint32
	Memory       uint32
	Capabilities uint32
	Flags        uint8
	_            [3]uint8
}

// A Timeval is struct __kernel_v4l2_timeval: 64 bits on every architecture,
// unlike the Timeval of the C library.
type Timeval struct{ Sec, Usec int64 }

// A Buffer is struct v4l2_buffer.
type Buffer struct {
	Index     uint32
	Type      uint32
	BytesUsed uint32 // single-planar only
	Flags     uint32
	Field     uint32
	_         uint32
	Timestamp Timeval
	_         [4]uint32 // timecode
	Sequence  uint32
	Memory    uint32
	M         uintptr // offset for mmap, dma-buf descriptor, or *Plane
	Length    uint32  // bytes, or the number of planes
	_         uint32
	RequestFD int32
}

// A Plane is struct v4l2_plane.
type Plane struct {
	BytesUsed  uint32
	Length     uint32
	M          uintptr // offset for mmap, or dma-buf descriptor
	DataOffset uint32
	_          [11]uint32
}

// An ExportBuffer is struct v4l2_exportbuffer.
type ExportBuffer struct {
	Type  uint32
	Index uint32
	Plane uint32
	Flags uint32 // O_CLOEXEC and the access mode
	FD    int32
	_     [11]uint32
}

// Commands of an encoder (V4L2_ENC_CMD_).
const (
	EncoderStart = 0
	EncoderStop  = 1
)

// An EncoderCommand is struct v4l2_encoder_cmd.
type EncoderCommand struct {
	Command uint32
	Flags   uint32
	_       [8]uint32
}

// A Fract is struct v4l2_fract.
type Fract struct{ Num, Den uint32 }

// A StreamParm is struct v4l2_streamparm with its capture member; the output
// member has the same fields at the same places.
type StreamParm struct {
	Type         uint32
	Capability   uint32
	CaptureMode  uint32
	TimePerFrame Fract
	ExtendedMode uint32
	ReadBuffers  uint32
	_            [44]uint32
}

// A FrmSizeEnum is struct v4l2_frmsizeenum with its stepwise member. A
// discrete size lies over the first two fields of it: use Size.
type FrmSizeEnum struct {
	Index       uint32
	PixelFormat uint32
	Type        uint32
	MinWidth    uint32
	MaxWidth    uint32
	StepWidth   uint32
	MinHeight   uint32
	MaxHeight   uint32
	StepHeight  uint32
	_           [2]uint32
}

// Size returns the size of a discrete entry.
func (e *FrmSizeEnum) Size() (width, height uint32) { return e.MinWidth, e.MaxWidth }

// A FrmIvalEnum is struct v4l2_frmivalenum. A discrete interval stands in Min.
type FrmIvalEnum struct {
	Index         uint32
	PixelFormat   uint32
	Width, Height uint32
	Type          uint32
	Min, Max      Fract
	Step          Fract
	_             [2]uint32
}

// The sizes that differ between 32 and 64 bits, checked by the compiler: a
// wrong one makes an index of the array negative or out of range.
const is64 = ^uintptr(0) >> 63

var (
	_ = [1]struct{}{}[unsafe.Sizeof(Buffer{})-(80+8*is64)]
	_ = [1]struct{}{}[unsafe.Offsetof(Buffer{}.Timestamp)-24]
	_ = [1]struct{}{}[unsafe.Sizeof(Plane{})-(60+4*is64)]
	_ = [1]struct{}{}[unsafe.Sizeof(Format{})-(204+4*is64)]
	_ = [1]struct{}{}[unsafe.Sizeof(ExtControls{})-(24+8*is64)]
	_ = [1]struct{}{}[unsafe.Sizeof(EDID{})-(36+4*is64)]
	// No padding may creep into these.
	_ = [1]struct{}{}[unsafe.Sizeof(ExtControl{})-20]
	_ = [1]struct{}{}[unsafe.Sizeof(MenuEntry{})-44]
	_ = [1]struct{}{}[unsafe.Sizeof(BTTimings{})-124]
	_ = [1]struct{}{}[unsafe.Sizeof(DVTimings{})-132]
	_ = [1]struct{}{}[unsafe.Sizeof(Event{})-136]
	_ = [1]struct{}{}[unsafe.Sizeof(Input{})-80]
	_ = [1]struct{}{}[unsafe.Sizeof(ExtCtrlDesc{})-232]
)
