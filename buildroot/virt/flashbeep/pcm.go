//go:build board && (arm64 || amd64)

package main

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sound/asound.h, 64-bit layout.
const (
	pcmTTStamp  = 0x40044103 // SNDRV_PCM_IOCTL_TTSTAMP
	pcmHWParams = 0xc2604111 // SNDRV_PCM_IOCTL_HW_PARAMS
	pcmSWParams = 0xc0884113 // SNDRV_PCM_IOCTL_SW_PARAMS
	pcmStatus   = 0x80984120 // SNDRV_PCM_IOCTL_STATUS
	pcmPrepare  = 0x00004140 // SNDRV_PCM_IOCTL_PREPARE
	pcmWriteI   = 0x40184150 // SNDRV_PCM_IOCTL_WRITEI_FRAMES

	maskAccess, maskFormat, maskSubformat                    = 0, 1, 2
	sampleBits, frameBits, channels, rate, periodSize, bufSz = 0, 1, 2, 3, 5, 9 // from FIRST_INTERVAL
	accessRWInterleaved, formatS16LE, subformatStd           = 3, 2, 0
	stampMonotonic                                           = 1
	stateRunning                                             = 3
)

type interval struct{ min, max, flags uint32 }

const intervalInteger = 1 << 2

// The structs name the fields that are used; _ stands for the others.
type hwParams struct {
	_         uint32
	masks     [3 + 5][8]uint32
	intervals [12 + 9]interval
	rmask     uint32
	_         [5]uint32
	_         uint64
	_         [64]byte
}

type swParams struct {
	tstampMode, periodStep        uint32
	_                             uint32
	availMin                      uint64
	_                             uint64
	startThreshold, stopThreshold uint64
	_                             [3]uint64
	proto, tstampType             uint32
	_                             [56]byte
}

type status struct {
	state  uint32
	_      unix.Timespec // trigger
	tstamp unix.Timespec
	_      uint64 // appl_ptr
	hwPtr  uint64
	_      [4]uint64
	_      [2]uint32
	_      [2]unix.Timespec
	_      [24]byte
}

type xferI struct {
	result int64 // frames that were taken
	buf    *int16
	frames uint64
}

// The kernel's sizes, as the ioctl numbers hold them.
var (
	_ [0x260]byte = [unsafe.Sizeof(hwParams{})]byte{}
	_ [0x88]byte  = [unsafe.Sizeof(swParams{})]byte{}
	_ [0x98]byte  = [unsafe.Sizeof(status{})]byte{}
	_ [0x18]byte  = [unsafe.Sizeof(xferI{})]byte{}
)

// pcm is a playback stream, stereo, 16 bits, whose stamps are CLOCK_MONOTONIC.
type pcm struct {
	fd, rate int
}

func openPCM(device string, hz int) (*pcm, error) {
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", device, err)
	}
	p := &pcm{fd: fd, rate: hz}
	if err := p.setUp(); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("set up %s: %w", device, err)
	}
	return p, nil
}

func (p *pcm) setUp() error {
	block := uint32(p.rate / blocks)
	buffer := block * blocks
	hw := hwParams{rmask: math.MaxUint32}
	for i := range hw.masks {
		for j := range hw.masks[i] {
			hw.masks[i][j] = math.MaxUint32
		}
	}
	for i := range hw.intervals {
		hw.intervals[i] = interval{max: math.MaxUint32}
	}
	for mask, bit := range map[int]int{maskAccess: accessRWInterleaved, maskFormat: formatS16LE, maskSubformat: subformatStd} {
		hw.masks[mask] = [8]uint32{1 << bit}
	}
	for i, v := range map[int]uint32{sampleBits: 16, frameBits: 32, channels: 2, rate: uint32(p.rate), periodSize: block, bufSz: buffer} {
		hw.intervals[i] = interval{min: v, max: v, flags: intervalInteger}
	}
	if err := ioctl(p.fd, pcmHWParams, &hw); err != nil {
		return fmt.Errorf("hardware parameters: %w", err)
	}
	sw := swParams{
		tstampMode: 1, periodStep: 1, availMin: uint64(block), startThreshold: uint64(buffer - block),
		stopThreshold: uint64(buffer), proto: 2<<16 | 12, tstampType: stampMonotonic,
	}
	if err := ioctl(p.fd, pcmSWParams, &sw); err != nil {
		return fmt.Errorf("software parameters: %w", err)
	}
	stamps := int32(stampMonotonic)
	if err := ioctl(p.fd, pcmTTStamp, &stamps); err != nil {
		return fmt.Errorf("monotonic stamps: %w", err)
	}
	return p.prepare()
}

func (p *pcm) prepare() error {
	if err := ioctl[byte](p.fd, pcmPrepare, nil); err != nil {
		return fmt.Errorf("prepare the stream: %w", err)
	}
	return nil
}

func (p *pcm) status() (status, error) {
	var s status
	if err := ioctl(p.fd, pcmStatus, &s); err != nil {
		return s, fmt.Errorf("read the stream's status: %w", err)
	}
	return s, nil
}

// write waits until the card has room and hands it interleaved samples. EPIPE
// means that it ran empty before.
func (p *pcm) write(samples []int16) error {
	var pin runtime.Pinner
	pin.Pin(&samples[0])
	defer pin.Unpin()
	for len(samples) > 0 {
		x := xferI{buf: &samples[0], frames: uint64(len(samples) / 2)}
		err := ioctl(p.fd, pcmWriteI, &x)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("write sound: %w", err)
		}
		samples = samples[2*max(x.result, 0):] // the runtime's signals cut a wait short
	}
	return nil
}

func (p *pcm) close() { _ = unix.Close(p.fd) }
