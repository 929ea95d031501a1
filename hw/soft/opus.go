package soft

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"

	"encoderd.example/hw"
	"encoderd.example/stream"
)

const (
	opusFrame = 960 // samples: 20 ms, what WebRTC expects
	// opusMost is the largest packet of one frame (RFC 6716, 3.2.1: 1275) with
	// its first byte, rounded up.
	opusMost = 1280
)

// From opus_defines.h.
const (
	opusApplicationAudio = 2049
	opusSetBitrate       = 4002
	opusGetLookahead     = 4027
	opusResetState       = 4028
)

// Opus returns the driver of the system's libopus: packets of 20 ms. A bit
// rate of zero means 96 kbit/s. The first unit lies the codec's pre-skip (312
// samples) before the first stamp.
//
// Open fails with an error that wraps [hw.ErrMissing] if the library is not
// installed.
func Opus() hw.AudioEncoderDriver { return opusDriver([]string{"libopus.so.0"}) }

func opusDriver(names []string) hw.AudioEncoderDriver {
	lib := &lazy[opusLib]{load: func() (*opusLib, error) { return loadOpus(names) }}
	return hw.AudioEncoderDriver{
		Name:  "libopus",
		Codec: stream.Opus,
		Open: func(bitrate int) (hw.AudioEncoder, error) {
			bitrate, err := soundRate(stream.Opus, bitrate, 96_000, 6_000, 510_000)
			if err != nil {
				return nil, err
			}
			l, err := lib.get()
			if err != nil {
				return nil, err
			}
			return l.encoder(bitrate)
		},
	}
}

// An opusLib is a loaded libopus.
type opusLib struct {
	create  func(rate, channels, application int32, rc *int32) uintptr
	destroy func(h uintptr)

	// By address: encode because it is called all the time, ctl because it
	// takes a variable list of arguments.
	encode, ctl uintptr
}

func loadOpus(names []string) (*opusLib, error) {
	handle, name, err := openLibrary(names, "libopus0")
	if err != nil {
		return nil, err
	}
	l := &opusLib{}
	if err := bind(handle, name, []symbol{{"opus_encoder_create", &l.create}, {"opus_encoder_destroy", &l.destroy}}); err != nil {
		return nil, err
	}
	if l.encode, err = address(handle, name, "opus_encode"); err != nil {
		return nil, err
	}
	if l.ctl, err = address(handle, name, "opus_encoder_ctl"); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *opusLib) encoder(bitrate int) (hw.AudioEncoder, error) {
	var rc int32
	c := &opusCodec{lib: l, handle: l.create(hw.SampleRate, hw.Channels, opusApplicationAudio, &rc)}
	if c.handle == 0 || rc != 0 {
		return nil, fmt.Errorf("libopus opens no encoder (%d): %w", rc, hw.ErrUnsupported)
	}
	if rc := c.control(opusSetBitrate, uintptr(bitrate)); rc != 0 {
		c.close()
		return nil, fmt.Errorf("libopus refuses %d bit/s (%d): %w", bitrate, rc, hw.ErrUnsupported)
	}
	if rc := c.control(opusGetLookahead, uintptr(unsafe.Pointer(&c.lookahead))); rc != 0 { //nolint:gosec // G103: C sees our memory during the call only
		c.close()
		return nil, fmt.Errorf("libopus does not tell its delay (%d): %w", rc, hw.ErrUnsupported)
	}
	track := &stream.Track{Codec: stream.Opus, Rate: hw.SampleRate, Channels: hw.Channels, Bitrate: bitrate}
	return newSoundEncoder(c, track, opusFrame, int(c.lookahead)), nil
}

// An opusCodec is a soundCodec over libopus.
type opusCodec struct {
	lib       *opusLib
	handle    uintptr
	lookahead int32
	packet    [opusMost]byte
}

func (c *opusCodec) control(request int, value uintptr) int32 {
	r, _, _ := purego.SyscallN(c.lib.ctl, c.handle, uintptr(request), value)
	runtime.KeepAlive(c)
	return int32(r)
}

func (c *opusCodec) encode(frame []int16) ([]byte, error) {
	r, _, _ := purego.SyscallN(c.lib.encode, c.handle, uintptr(unsafe.Pointer(unsafe.SliceData(frame))), //nolint:gosec // G103: C sees our memory during the call only
		opusFrame, uintptr(unsafe.Pointer(&c.packet)), opusMost) //nolint:gosec // G103: C sees our memory during the call only
	runtime.KeepAlive(frame)
	if n := int32(r); n > 0 {
		return c.packet[:n], nil
	}
	return nil, fmt.Errorf("libopus could not code a frame (%d)", int32(r))
}

func (c *opusCodec) reset() error {
	if rc := c.control(opusResetState, 0); rc != 0 {
		return fmt.Errorf("libopus does not reset (%d)", rc)
	}
	return nil
}

func (c *opusCodec) close() { c.lib.destroy(c.handle) }
