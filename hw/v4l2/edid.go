package v4l2

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2/uapi"
)

// Sizes of an EDID, which is what a receiver tells sources that it can take
// (VESA E-EDID, CTA-861). Until it is set nothing comes in.
const (
	edidBlock     = 128
	maxEDIDBlocks = 256
)

var edidHeader = []byte{0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0}

// An edidRequest must be on the heap with its data, as head points to them.
type edidRequest struct {
	head uapi.EDID
	data []byte
}

func newEDIDRequest(pad int, data []byte) *edidRequest {
	r := &edidRequest{uapi.EDID{Pad: uint32(pad), Blocks: uint32(len(data) / edidBlock)}, data}
	if len(data) > 0 {
		r.head.Data = uintptr(unsafe.Pointer(&data[0])) //nolint:gosec // the kernel takes it as a number; r holds what it points to
	}
	return r
}

// EDID returns the EDID of an input: pad is the number of the input on a video
// node, that of the pad on a subdevice. It is empty if none is set. The error
// wraps [unix.ENOTTY] if the device has none ever, and [unix.EINVAL] if that
// input has none.
func (d *Device) EDID(pad int) ([]byte, error) {
	ask := newEDIDRequest(pad, nil) // for no blocks: the driver says how many there are
	err := Ioctl(d, "ask for the EDID of", uapi.GetEDID, &ask.head)
	if errors.Is(err, unix.ENODATA) {
		return nil, nil
	}
	if err != nil || ask.head.Blocks == 0 {
		return nil, err
	}
	r := newEDIDRequest(pad, make([]byte, min(ask.head.Blocks, maxEDIDBlocks)*edidBlock))
	if err := Ioctl(d, "read the EDID of", uapi.GetEDID, &r.head); err != nil {
		return nil, err
	}
	return r.data[:min(int(r.head.Blocks)*edidBlock, len(r.data))], nil
}

// SetEDID gives an input its EDID, or takes it away if edid is empty; pad is as
// for EDID. Sources see the plug pulled and put back. The error wraps
// [hw.ErrUnsupported] if the receiver has no room for it.
func (d *Device) SetEDID(pad int, edid []byte) error {
	if err := checkEDID(edid); err != nil {
		return fmt.Errorf("set the EDID of %s: %w", d.path, err)
	}
	r := newEDIDRequest(pad, bytes.Clone(edid))
	err := Ioctl(d, "set the EDID of", uapi.SetEDID, &r.head)
	if errors.Is(err, unix.E2BIG) {
		return fmt.Errorf("the receiver has room for %d blocks, the EDID has %d: %w: %w", r.head.Blocks, len(edid)/edidBlock, hw.ErrUnsupported, err)
	}
	return err
}

// checkEDID says what is wrong with an EDID that a source would not take.
func checkEDID(edid []byte) error {
	switch {
	case len(edid) == 0:
		return nil
	case len(edid)%edidBlock != 0 || len(edid) > maxEDIDBlocks*edidBlock:
		return fmt.Errorf("an EDID of %d bytes is not made of blocks of %d", len(edid), edidBlock)
	case !bytes.HasPrefix(edid, edidHeader):
		return errors.New("it does not begin like an EDID")
	case int(edid[126])+1 != len(edid)/edidBlock:
		return fmt.Errorf("the EDID claims %d extensions and has %d", edid[126], len(edid)/edidBlock-1)
	}
	for i := 0; i < len(edid); i += edidBlock {
		if sum(edid[i:i+edidBlock]) != 0 {
			return fmt.Errorf("the checksum of block %d is wrong", i/edidBlock)
		}
	}
	return nil
}

func sum(b []byte) (s byte) {
	for _, v := range b {
		s += v
	}
	return s
}

// EDIDOptions is what an EDID says of the box.
type EDIDOptions struct {
	// Name is what sources show: up to 13 letters of ASCII, the rest is cut;
	// "encoder" if empty.
	Name string
	// MaxPixels is how many pixels a second the receiver and what follows can
	// take, blanking aside; 1920 × 1080 × 60 if zero. 640x480 is always offered,
	// as the standard wants.
	MaxPixels int
	// Serial tells boxes of one kind apart; zero says nothing.
	Serial uint32
	// RGBOnly offers no YCbCr. RGB cannot be left out: HDMI wants every input to
	// take it.
	RGBOnly bool
}

// A videoMode is one of CTA-861's; codes of the same mode differ in the shape
// of the pixels.
type videoMode struct {
	vic                  byte
	width, height, rate  int
	clock                int // kHz
	hFront, hSync, hBack int
	vFront, vSync, vBack int
	positive             bool // both syncs
}

// videoModes are offered to sources, best first; interlaced ones are not.
var videoModes = []videoMode{
	{16, 1920, 1080, 60, 148500, 88, 44, 148, 4, 5, 36, true},
	{31, 1920, 1080, 50, 148500, 528, 44, 148, 4, 5, 36, true},
	{34, 1920, 1080, 30, 74250, 88, 44, 148, 4, 5, 36, true},
	{33, 1920, 1080, 25, 74250, 528, 44, 148, 4, 5, 36, true},
	{32, 1920, 1080, 24, 74250, 638, 44, 148, 4, 5, 36, true},
	{4, 1280, 720, 60, 74250, 110, 40, 220, 5, 5, 20, true},
	{19, 1280, 720, 50, 74250, 440, 40, 220, 5, 5, 20, true},
	{18, 720, 576, 50, 27000, 12, 64, 68, 5, 5, 39, false},
	{17, 720, 576, 50, 27000, 12, 64, 68, 5, 5, 39, false},
	{3, 720, 480, 60, 27000, 16, 62, 60, 9, 6, 30, false},
	{2, 720, 480, 60, 27000, 16, 62, 60, 9, 6, 30, false},
	{1, 640, 480, 60, 25175, 16, 96, 48, 10, 2, 33, false},
}

// NewEDID returns an EDID of two blocks: the modes up to the limit, the first
// of them preferred, RGB and mostly YCbCr, and stereo sound at 32, 44.1 and 48 kHz.
func NewEDID(o EDIDOptions) []byte {
	limit := cmp.Or(o.MaxPixels, 1920*1080*60)
	var modes []videoMode
	for _, m := range videoModes {
		if m.vic == 1 || m.width*m.height*m.rate <= limit {
			modes = append(modes, m)
		}
	}
	return append(baseBlock(o, modes), ctaBlock(o, modes)...)
}

// baseBlock is an EDID 1.3 with one extension.
func baseBlock(o EDIDOptions, modes []videoMode) []byte {
	b := bytes.Clone(edidHeader)
	b = append(b, 0x31, 0xD8, 1, 0) // manufacturer LNX, as the kernel's own EDIDs have; product 1
	b = binary.LittleEndian.AppendUint32(b, o.Serial)
	b = append(b, 0, 36, 1, 3)                                                // any week of 2026, version 1.3
	b = append(b, 0x80, 0, 0, 120, features(o))                               // digital, no size, gamma 2.2
	b = append(b, 0xEE, 0x91, 0xA3, 0x54, 0x4C, 0x99, 0x26, 0x0F, 0x50, 0x54) // sRGB
	b = append(b, 0x20, 0, 0)                                                 // established: 640x480 at 60 Hz
	b = append(b, bytes.Repeat([]byte{1, 1}, 8)...)                           // no standard timings
	b = append(b, detailed(modes[0])...)
	second := descriptor(0x10, nil, 0) // nothing
	if next := otherSize(modes); next != nil {
		second = detailed(*next)
	}
	b = append(b, second...)
	b = append(b, rangeLimits(modes)...)
	b = append(b, nameDescriptor(cmp.Or(o.Name, "encoder"))...)
	b = append(b, 1)
	return append(b, -sum(b))
}

// features returns the byte of the base block on colour: sRGB, the first timing
// is preferred.
func features(o EDIDOptions) byte {
	if o.RGBOnly {
		return 0x06
	}
	return 0x0E // and YCbCr 4:4:4
}

// ctaBlock is the extension of CTA-861, revision 3, that HDMI wants.
func ctaBlock(o EDIDOptions, modes []videoMode) []byte {
	var codes []byte
	fastest := 0
	for _, m := range modes {
		codes = append(codes, m.vic)
		fastest = max(fastest, m.clock)
	}
	var data []byte
	add := func(tag byte, b ...byte) { data = append(append(data, tag<<5|byte(len(b))), b...) }
	add(2, codes...)
	add(1, 0x09, 0x07, 0x07)                                              // PCM in two channels; 32, 44.1, 48 kHz; 16, 20, 24 bits
	add(4, 0x01, 0, 0)                                                    // speakers: front left and right
	add(3, 0x03, 0x0C, 0x00, 0x10, 0x00, 0x00, byte((fastest+4999)/5000)) // HDMI: address 1.0.0.0, highest clock in 5 MHz
	add(7, 0x00, 0xCA)                                                    // video capabilities: sources choose the range; nothing is cut off
	can := byte(0xF1)                                                     // underscan, basic sound, YCbCr 4:4:4 and 4:2:2, one native mode
	if o.RGBOnly {
		can &^= 0x30
	}
	b := append([]byte{0x02, 0x03, byte(4 + len(data)), can}, data...)
	b = append(b, make([]byte, edidBlock-1-len(b))...)
	return append(b, -sum(b))
}

// otherSize returns the best mode of another size than the first one's.
func otherSize(modes []videoMode) *videoMode {
	for i, m := range modes {
		if m.width != modes[0].width {
			return &modes[i]
		}
	}
	return nil
}

// detailed returns a detailed timing descriptor.
func detailed(m videoMode) []byte {
	hBlank, vBlank := m.hFront+m.hSync+m.hBack, m.vFront+m.vSync+m.vBack
	flags := byte(0x18) // separate syncs
	if m.positive {
		flags |= 0x06
	}
	b := binary.LittleEndian.AppendUint16(nil, uint16((m.clock+5)/10))
	return append(b,
		byte(m.width), byte(hBlank), byte(m.width>>8<<4|hBlank>>8),
		byte(m.height), byte(vBlank), byte(m.height>>8<<4|vBlank>>8),
		byte(m.hFront), byte(m.hSync), byte(m.vFront<<4|m.vSync&15), byte(m.hFront>>8<<6|m.hSync>>8<<4|m.vFront>>4<<2|m.vSync>>4),
		0, 0, 0, 0, 0, flags)
}

// rangeLimits returns the descriptor of the frequencies of modes.
func rangeLimits(modes []videoMode) []byte {
	lowV, highV, lowH, highH, clock := 255, 0, 255, 0, 0
	for _, m := range modes {
		line := m.width + m.hFront + m.hSync + m.hBack
		lowV, highV = min(lowV, m.rate), max(highV, m.rate)
		lowH, highH = min(lowH, m.clock/line), max(highH, (m.clock+line-1)/line)
		clock = max(clock, m.clock)
	}
	// A rate below the whole one is that of films and American television.
	return descriptor(0xFD, []byte{byte(lowV - 1), byte(highV), byte(lowH), byte(highH), byte((clock + 9999) / 10000), 0}, ' ')
}

// nameDescriptor returns the name of the box as far as it fits.
func nameDescriptor(name string) []byte {
	var b []byte
	for _, c := range []byte(name) {
		if c >= ' ' && c <= '~' && len(b) < 13 {
			b = append(b, c)
		}
	}
	return descriptor(0xFC, b, ' ')
}

// descriptor returns a display descriptor of 18 bytes: text that is too short
// ends with a line feed and is filled up.
func descriptor(tag byte, text []byte, fill byte) []byte {
	b := append([]byte{0, 0, 0, tag, 0}, text...)
	if len(b) < 18 && fill != 0 {
		b = append(b, '\n')
	}
	for len(b) < 18 {
		b = append(b, fill)
	}
	return b
}
