package uapi

// Status of an input (V4L2_IN_ST_) and what it can (V4L2_IN_CAP_).
const (
	InStatusNoPower   = 0x00000001
	InStatusNoSignal  = 0x00000002
	InStatusNoHLock   = 0x00000100
	InStatusNoVLock   = 0x00000400
	InStatusNoSync    = 0x00010000
	InStatusNoCarrier = 0x00040000

	InCapDVTimings = 0x00000002

	InputTypeCamera = 2
)

// Events (V4L2_EVENT_) and what they say has changed.
const (
	EventAll          = 0
	EventEOS          = 2
	EventCtrl         = 3
	EventSourceChange = 5

	EventCtrlValue        = 0x1 // V4L2_EVENT_CTRL_CH_VALUE
	EventSourceResolution = 0x1 // V4L2_EVENT_SRC_CH_RESOLUTION

	EventSubSendInitial   = 0x1 // V4L2_EVENT_SUB_FL_SEND_INITIAL
	EventSubAllowFeedback = 0x2 // V4L2_EVENT_SUB_FL_ALLOW_FEEDBACK
)

// Kinds and flags of timings (V4L2_DV_).
const (
	DVTypeBT656_1120 = 0

	DVInterlaced = 1

	DVVSyncPositive = 1
	DVHSyncPositive = 2

	DVStandardCEA861 = 0x1
	DVStandardDMT    = 0x2

	DVFlagCanReduceFPS     = 0x0002
	DVFlagReducedFPS       = 0x0004
	DVFlagIsCEVideo        = 0x0010
	DVFlagHasCEA861VIC     = 0x0080
	DVFlagCanDetectReduced = 0x0200
)

// Targets of a selection (V4L2_SEL_TGT_).
const (
	SelectionCrop        = 0
	SelectionCropDefault = 1
	SelectionCropBounds  = 2
)

// An Input is struct v4l2_input.
type Input struct {
	Index        uint32
	Name         [32]byte
	Type         uint32
	AudioSet     uint32
	Tuner        uint32
	Standards    uint64
	Status       uint32
	Capabilities uint32
	_            [4]uint32 // C aligns the struct to eight bytes
}

// An Event is struct v4l2_event.
type Event struct {
	Type     uint32
	_        uint32
	Data     [16]uint32 // see EventCtrl and EventSourceChange
	Pending  uint32
	Sequence uint32
	Sec      int64
	Nsec     int64
	ID       uint32
	_        [9]uint32
}

// An EventSubscription is struct v4l2_event_subscription.
type EventSubscription struct {
	Type  uint32
	ID    uint32
	Flags uint32
	_     [5]uint32
}

// A BTTimings is struct v4l2_bt_timings, which is packed. Lengths are in
// pixels and lines.
type BTTimings struct {
	Width, Height      uint32 // active; the height of a whole frame also if it is interlaced
	Interlaced         uint32
	Polarities         uint32
	pixelClock         [2]uint32
	HFrontPorch, HSync uint32
	HBackPorch         uint32
	VFrontPorch, VSync uint32
	VBackPorch         uint32
	SecondVFrontPorch  uint32 // of the second field
	SecondVSync        uint32
	SecondVBackPorch   uint32
	Standards          uint32
	Flags              uint32
	PictureAspect      Fract
	VIC, HDMIVIC       uint8
	_                  [46]uint8
}

// PixelClock returns the clock in Hz.
func (b *BTTimings) PixelClock() uint64 { return uint64(b.pixelClock[0]) | uint64(b.pixelClock[1])<<32 }

// SetPixelClock sets the clock in Hz.
func (b *BTTimings) SetPixelClock(hz uint64) { b.pixelClock = [2]uint32{uint32(hz), uint32(hz >> 32)} }

// A DVTimings is struct v4l2_dv_timings. Two with equal bytes are equal.
type DVTimings struct {
	Type uint32
	BT   BTTimings
	_    uint32
}

// A DVTimingsEntry is struct v4l2_enum_dv_timings.
type DVTimingsEntry struct {
	Index   uint32
	Pad     uint32
	_       [2]uint32
	Timings DVTimings
}

// An EDID is struct v4l2_edid.
type EDID struct {
	Pad        uint32
	StartBlock uint32
	Blocks     uint32 // of 128 bytes
	_          [5]uint32
	Data       uintptr // *byte, the first of Blocks × 128
}

// A Rect is struct v4l2_rect.
type Rect struct {
	Left, Top     int32
	Width, Height uint32
}

// A Selection is struct v4l2_selection.
type Selection struct {
	Type   uint32
	Target uint32
	Flags  uint32
	Rect   Rect
	_      [9]uint32
}
