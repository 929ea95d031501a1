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
	DQBuf              = both | unsafe.Sizeof(Buffer{})<<16 | 17
	StreamOn           = write | unsafe.Sizeof(int32(0))<<16 | 18
	StreamOff          = write | unsafe.Sizeof(int32(0))<<16 | 19
	GetParm            = both | unsafe.Sizeof(StreamParm{})<<16 | 21
	SetParm            = both | unsafe.Sizeof(StreamParm{})<<16 | 22
	SetCtrl            = both | unsafe.Sizeof(Control{})<<16 | 28
	QueryCtrl          = both | unsafe.Sizeof(CtrlDesc{})<<16 | 36
	SetInput           = both | unsafe.Sizeof(int32(0))<<16 | 39
	EnumFrameSizes     = both | unsafe.Sizeof(FrmSizeEnum{})<<16 | 74
	EnumFrameIntervals = both | unsafe.Sizeof(FrmIvalEnum{})<<16 | 75
)

// Capability bits (V4L2_CAP_).
const (
	CapVideoCapture       = 0x00000001
	CapVideoCaptureMplane = 0x00001000
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
	BufFlagError              = 0x00000040
	BufFlagTimestampMask      = 0x0000e000
	BufFlagTimestampMonotonic = 0x00002000
	BufFlagLast               = 0x00100000
)

// Fields and quantization (enum v4l2_field, enum v4l2_quantization).
const (
	FieldNone      = 1
	FieldAlternate = 7

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

// Control types (enum v4l2_ctrl_type) and the flag that walks all controls.
const (
	CtrlTypeButton   = 4
	CtrlFlagNextCtrl = 0x80000000
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

// A Fract is struct v4l2_fract.
type Fract struct{ Num, Den uint32 }

// A StreamParm is struct v4l2_streamparm with its capture member.
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

// A Control is struct v4l2_control.
type Control struct {
	ID    uint32
	Value int32
}

// A CtrlDesc is struct v4l2_queryctrl.
type CtrlDesc struct {
	ID      uint32
	Type    uint32
	Name    [32]byte
	Minimum int32
	Maximum int32
	Step    int32
	Default int32
	Flags   uint32
	_       [2]uint32
}

// The sizes that differ between 32 and 64 bits, checked by the compiler: a
// wrong one makes an index of the array negative or out of range.
const is64 = ^uintptr(0) >> 63

var (
	_ = [1]struct{}{}[unsafe.Sizeof(Buffer{})-(80+8*is64)]
	_ = [1]struct{}{}[unsafe.Offsetof(Buffer{}.Timestamp)-24]
	_ = [1]struct{}{}[unsafe.Sizeof(Plane{})-(60+4*is64)]
	_ = [1]struct{}{}[unsafe.Sizeof(Format{})-(204+4*is64)]
)
