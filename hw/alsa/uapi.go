package alsa

import "unsafe"

// The kernel's PCM interface, from include/uapi/sound/asound.h (protocol
// 2.0.15). Go's uint is C's unsigned long on every Linux target. An ioctl
// number carries the size of its struct, and on 32-bit systems the kernel
// tells by it that times have 64 bits; the sizes are asserted in a test.

// Parameters of a PCM: masks first, then, from paramInterval on, intervals.
const (
	paramAccess     = 0
	paramFormat     = 1
	paramInterval   = 8
	paramChannels   = 10
	paramRate       = 11
	paramPeriodSize = 13
	paramPeriods    = 15
	paramBufferSize = 17
)

const (
	accessRWInterleaved = 3

	formatS16   = 2
	formatS24   = 6
	formatS32   = 10
	formatS24In = 32 // S24_3LE

	intervalOpenMin = 1 << 0
	intervalOpenMax = 1 << 1
	intervalInteger = 1 << 2
)

// States of a PCM.
const (
	stateOpen         = 0
	stateSetup        = 1
	statePrepared     = 2
	stateRunning      = 3
	stateXrun         = 4
	stateDraining     = 5
	stateSuspended    = 7
	stateDisconnected = 8
)

const (
	tstampEnable    = 1
	tstampMonotonic = 1
	protocol        = 2<<16 | 0<<8 | 13 // from 2.0.12 on tstampType counts
)

type interval struct{ min, max, flags uint32 }

type mask [8]uint32

type hwParams struct {
	flags     uint32
	masks     [3]mask
	_         [5]mask
	intervals [12]interval
	_         [9]interval
	rmask     uint32 // in: what may change
	cmask     uint32 // out: what did
	info      uint32
	msbits    uint32
	rateNum   uint32
	rateDen   uint32
	fifoSize  uint
	_         [64]byte
}

type swParams struct {
	tstampMode       int32
	periodStep       uint32
	sleepMin         uint32
	availMin         uint
	xferAlign        uint
	startThreshold   uint
	stopThreshold    uint
	silenceThreshold uint
	silenceSize      uint
	boundary         uint
	proto            uint32
	tstampType       uint32
	_                [56]byte
}

// timespec has 64-bit fields on every target, unlike unix.Timespec.
type timespec struct{ sec, nsec int64 }

type pcmStatus struct {
	state           int32
	_               uint32
	trigger         timespec
	tstamp          timespec
	applPtr         uint
	hwPtr           uint
	delay           int
	avail           uint
	availMax        uint
	overrange       uint
	suspendedState  int32
	audioTstampData uint32
	audioTstamp     timespec
	driverTstamp    timespec
	audioAccuracy   uint32
	_               [20]byte
}

type pcmInfo struct {
	device    uint32
	subdevice uint32
	stream    int32
	card      int32
	_         [64 + 80 + 32]byte // names
	_         [2]int32           // classes
	_         [2]uint32          // counts
	_         [16 + 64]byte
}

type xferi struct {
	result int
	buf    unsafe.Pointer
	frames uint
}

const (
	dirNone  = 0
	dirWrite = 1
	dirRead  = 2
)

// number builds an ioctl number (include/uapi/asm-generic/ioctl.h).
func number(dir, group, nr, size uintptr) uint {
	return uint(dir<<30 | size<<16 | group<<8 | nr)
}

// The ioctls in use: 'A' on a PCM node, 'U' on a control node.
var (
	ioPCMInfo    = number(dirRead, 'A', 0x01, unsafe.Sizeof(pcmInfo{}))
	ioTTStamp    = number(dirWrite, 'A', 0x03, 4)
	ioHWRefine   = number(dirRead|dirWrite, 'A', 0x10, unsafe.Sizeof(hwParams{}))
	ioHWParams   = number(dirRead|dirWrite, 'A', 0x11, unsafe.Sizeof(hwParams{}))
	ioSWParams   = number(dirRead|dirWrite, 'A', 0x13, unsafe.Sizeof(swParams{}))
	ioStatusExt  = number(dirRead|dirWrite, 'A', 0x24, unsafe.Sizeof(pcmStatus{}))
	ioPrepare    = number(dirNone, 'A', 0x40, 0)
	ioStart      = number(dirNone, 'A', 0x42, 0)
	ioDrop       = number(dirNone, 'A', 0x43, 0)
	ioResume     = number(dirNone, 'A', 0x47, 0)
	ioReadFrames = number(dirRead, 'A', 0x51, unsafe.Sizeof(xferi{}))
	ioPreferSub  = number(dirWrite, 'U', 0x32, 4)
)
