package uapi

// Control types (enum v4l2_ctrl_type).
const (
	CtrlTypeInteger     = 1
	CtrlTypeBoolean     = 2
	CtrlTypeMenu        = 3
	CtrlTypeButton      = 4
	CtrlTypeInteger64   = 5
	CtrlTypeClass       = 6
	CtrlTypeString      = 7
	CtrlTypeBitmask     = 8
	CtrlTypeIntegerMenu = 9
	CtrlTypeCompound    = 0x100 // V4L2_CTRL_COMPOUND_TYPES: this and all above hold more than a number
)

// Flags of controls (V4L2_CTRL_FLAG_); the last two go into the ID of a query
// that walks all controls.
const (
	CtrlFlagDisabled       = 0x0001
	CtrlFlagGrabbed        = 0x0002
	CtrlFlagReadOnly       = 0x0004
	CtrlFlagUpdate         = 0x0008
	CtrlFlagInactive       = 0x0010
	CtrlFlagWriteOnly      = 0x0040
	CtrlFlagVolatile       = 0x0080
	CtrlFlagHasPayload     = 0x0100
	CtrlFlagExecuteOnWrite = 0x0200
	CtrlFlagNextCompound   = 0x40000000
	CtrlFlagNextCtrl       = 0x80000000
)

// CtrlClassMask cuts the class out of a control's ID (V4L2_CTRL_ID2WHICH).
const CtrlClassMask = 0x0fff0000

// Control classes (V4L2_CTRL_CLASS_).
const (
	CtrlClassUser  = 0x00980000
	CtrlClassCodec = 0x00990000
	CtrlClassDV    = 0x00a00000
)

// User controls (V4L2_CID_).
const (
	CIDMinBuffersForCapture = 0x00980927
	CIDMinBuffersForOutput  = 0x00980928
)

// Codec controls (V4L2_CID_MPEG_VIDEO_).
const (
	CIDBFrames             = 0x009909ca
	CIDGOPSize             = 0x009909cb
	CIDGOPClosure          = 0x009909cc
	CIDBitrateMode         = 0x009909ce
	CIDBitrate             = 0x009909cf // bit/s
	CIDBitratePeak         = 0x009909d0 // bit/s
	CIDFrameRCEnable       = 0x009909d7
	CIDHeaderMode          = 0x009909d8
	CIDMBRCEnable          = 0x009909da
	CIDVBVSize             = 0x009909de
	CIDVBVDelay            = 0x009909e1
	CIDRepeatSeqHeader     = 0x009909e2
	CIDForceKeyFrame       = 0x009909e5 // a button
	CIDAUDelimiter         = 0x009909e7
	CIDPrependSPSPPSToIDR  = 0x00990b84
	CIDFrameSkipMode       = 0x00990b86
	CIDH264IFrameQP        = 0x00990a5e
	CIDH264PFrameQP        = 0x00990a5f
	CIDH264MinQP           = 0x00990a61
	CIDH264MaxQP           = 0x00990a62
	CIDH264Transform8x8    = 0x00990a63
	CIDH264CPBSize         = 0x00990a64
	CIDH264EntropyMode     = 0x00990a65
	CIDH264IPeriod         = 0x00990a66
	CIDH264Level           = 0x00990a67
	CIDH264LoopFilterMode  = 0x00990a6a
	CIDH264Profile         = 0x00990a6b
	CIDH264VUIExtSARHeight = 0x00990a6c
	CIDH264VUIExtSARWidth  = 0x00990a6d
	CIDH264VUISAREnable    = 0x00990a6e
	CIDH264VUISARIDC       = 0x00990a6f
	CIDHEVCMinQP           = 0x00990b58
	CIDHEVCMaxQP           = 0x00990b59
	CIDHEVCProfile         = 0x00990b67
	CIDHEVCLevel           = 0x00990b68
	CIDHEVCTier            = 0x00990b6a
	CIDHEVCRefreshType     = 0x00990b6f
	CIDHEVCRefreshPeriod   = 0x00990b70
)

// Digital video controls (V4L2_CID_DV_RX_).
const (
	CIDDVRxPowerPresent = 0x00a00964 // a bit for each input
	CIDDVRxRGBRange     = 0x00a00965
)

// Values of CIDBitrateMode.
const (
	BitrateModeVBR = 0
	BitrateModeCBR = 1
	BitrateModeCQ  = 2
)

// Values of CIDHeaderMode.
const (
	HeaderModeSeparate = 0
	HeaderModeJoined   = 1 // with the first frame
)

// Values of CIDH264EntropyMode.
const (
	H264EntropyCAVLC = 0
	H264EntropyCABAC = 1
)

// Values of CIDH264Profile.
const (
	H264ProfileBaseline            = 0
	H264ProfileConstrainedBaseline = 1
	H264ProfileMain                = 2
	H264ProfileExtended            = 3
	H264ProfileHigh                = 4
	H264ProfileConstrainedHigh     = 17
)

// Values of CIDH264Level, in the order of the standard's table A-1.
const (
	H264Level1_0 = 0
	H264Level1B  = 1
	H264Level1_1 = 2
	H264Level1_2 = 3
	H264Level1_3 = 4
	H264Level2_0 = 5
	H264Level2_1 = 6
	H264Level2_2 = 7
	H264Level3_0 = 8
	H264Level3_1 = 9
	H264Level3_2 = 10
	H264Level4_0 = 11
	H264Level4_1 = 12
	H264Level4_2 = 13
	H264Level5_0 = 14
	H264Level5_1 = 15
	H264Level5_2 = 16
	H264Level6_0 = 17
	H264Level6_1 = 18
	H264Level6_2 = 19
)

// Values of CIDHEVCLevel, in the order of the standard's table A.8.
const (
	HEVCLevel1   = 0
	HEVCLevel2   = 1
	HEVCLevel2_1 = 2
	HEVCLevel3   = 3
	HEVCLevel3_1 = 4
	HEVCLevel4   = 5
	HEVCLevel4_1 = 6
	HEVCLevel5   = 7
	HEVCLevel5_1 = 8
	HEVCLevel5_2 = 9
	HEVCLevel6   = 10
	HEVCLevel6_1 = 11
	HEVCLevel6_2 = 12
)

// Values of CIDHEVCProfile, CIDHEVCTier and CIDHEVCRefreshType.
const (
	HEVCProfileMain = 0
	HEVCTierMain    = 0
	HEVCRefreshNone = 0
	HEVCRefreshCRA  = 1
	HEVCRefreshIDR  = 2
)

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

// An ExtCtrlDesc is struct v4l2_query_ext_ctrl.
type ExtCtrlDesc struct {
	ID        uint32
	Type      uint32
	Name      [32]byte
	Minimum   int64
	Maximum   int64
	Step      uint64
	Default   int64
	Flags     uint32
	ElemSize  uint32
	Elems     uint32
	NrOfDims  uint32
	Dimension [4]uint32
	_         [32]uint32
}

// An ExtControl is struct v4l2_ext_control, which is packed: its 64-bit value
// stands on no boundary of eight.
type ExtControl struct {
	ID    uint32
	Size  uint32
	_     uint32
	value [2]uint32
}

// Value64 returns the value of a control of 64 bits.
func (c *ExtControl) Value64() int64 { return int64(c.value[0]) | int64(c.value[1])<<32 }

// Value returns the value of a control of 32 bits, the upper half aside.
func (c *ExtControl) Value() int32 { return int32(c.value[0]) }

// SetValue sets both members of the union: drivers read the one of the
// control's type.
func (c *ExtControl) SetValue(v int64) { c.value = [2]uint32{uint32(v), uint32(v >> 32)} }

// An ExtControls is struct v4l2_ext_controls.
type ExtControls struct {
	Class     uint32 // of all controls in the list
	Count     uint32
	ErrorIdx  uint32
	RequestFD int32
	_         uint32
	Controls  uintptr // *ExtControl, the first of Count
}

// A MenuEntry is struct v4l2_querymenu.
type MenuEntry struct {
	ID    uint32
	Index uint32
	Name  [32]byte // of an integer menu: eight bytes of an int64
	_     uint32
}
