package soft

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"

	"encoderd.example/hw"
	"encoderd.example/stream"
)

// voDelay is the priming of libvo-aacenc in samples: what FFmpeg's wrapper
// called ENC_DELAY, measured in the tests.
const voDelay = 1600

// From voAAC.h and voIndex.h.
const (
	voCodingAAC = 8
	voParam     = 0x42211040
)

// VOAAC returns the driver of the system's libvo-aacenc: AAC-LC in fixed-point
// C, the cheapest there is, for small cores. A bit rate of zero means 128
// kbit/s.
//
// Open fails with an error that wraps [hw.ErrMissing] if the library is not
// installed.
func VOAAC() hw.AudioEncoderDriver { return voAACDriver([]string{"libvo-aacenc.so.0"}) }

func voAACDriver(names []string) hw.AudioEncoderDriver {
	lib := &lazy[voLib]{load: func() (*voLib, error) { return loadVO(names) }}
	return hw.AudioEncoderDriver{
		Name:  "libvo-aacenc",
		Codec: stream.AAC,
		Open: func(bitrate int) (hw.AudioEncoder, error) {
			bitrate, err := soundRate(stream.AAC, bitrate, aacUsual, aacLeast, 320_000)
			if err != nil {
				return nil, err
			}
			l, err := lib.get()
			if err != nil {
				return nil, err
			}
			c := &voCodec{lib: l, bitrate: bitrate}
			if err := c.open(); err != nil {
				return nil, err
			}
			// AAC-LC, 48 kHz, two channels (ISO/IEC 14496-3, 1.6.2.1).
			return newSoundEncoder(c, aacTrack([]byte{0x11, 0x90}, bitrate), aacFrame, voDelay), nil
		},
	}
}

// A voLib is a loaded libvo-aacenc: its table of functions, and the table of
// memory functions that it wants to be handed, which are its own.
type voLib struct {
	init, setInput, getOutput, setParam, _, uninit uintptr // VO_AUDIO_CODECAPI

	memory [7]uintptr // VO_MEM_OPERATOR
	pinner runtime.Pinner
}

func loadVO(names []string) (*voLib, error) {
	handle, name, err := openLibrary(names, "libvo-aacenc0")
	if err != nil {
		return nil, err
	}
	l := &voLib{}
	l.pinner.Pin(l) // for good: the library keeps the address of the table
	for i, f := range []string{"Alloc", "Free", "Set", "Copy", "Check", "Compare", "Move"} {
		if l.memory[i], err = address(handle, name, "cmnMem"+f); err != nil {
			return nil, err
		}
	}
	get, err := address(handle, name, "voGetAACEncAPI")
	if err != nil {
		return nil, err
	}
	if rc, _, _ := purego.SyscallN(get, uintptr(unsafe.Pointer(&l.init))); int32(rc) != 0 { //nolint:gosec // G103: C sees pinned memory only
		return nil, fmt.Errorf("%s gives no encoder (%#x): %w", name, uint32(rc), hw.ErrUnsupported)
	}
	return l, nil
}

// A voCodec is a soundCodec over libvo-aacenc. Its structures are those of
// voType.h and voAudio.h, where VO_U32 and VO_S32 are long, 8 bytes on 64-bit
// machines; C sees them during a call only.
type voCodec struct {
	lib     *voLib
	bitrate int
	handle  uintptr
	pinner  runtime.Pinner

	user struct { // VO_CODEC_INIT_USERDATA
		flag int32
		data unsafe.Pointer
		_, _ uintptr
	}
	param struct { // AACENC_PARAM
		rate, bitrate  int32
		channels, adts int16
	}
	in, out struct { // VO_CODECBUFFER
		buffer unsafe.Pointer
		length uintptr
		_      int64 // time
	}
	info [5]uintptr // VO_AUDIO_OUTPUTINFO
	au   [2048]byte
}

func (c *voCodec) open() error {
	c.pinner.Pin(c)
	c.user.data = unsafe.Pointer(&c.lib.memory)                                                                                //nolint:gosec // G103: C sees pinned memory only
	rc, _, _ := purego.SyscallN(c.lib.init, uintptr(unsafe.Pointer(&c.handle)), voCodingAAC, uintptr(unsafe.Pointer(&c.user))) //nolint:gosec // G103: C sees pinned memory only
	if uint32(rc) != 0 {
		c.pinner.Unpin()
		c.handle = 0
		return fmt.Errorf("libvo-aacenc does not open (%#x): %w", uint32(rc), hw.ErrUnsupported)
	}
	c.param.rate, c.param.bitrate, c.param.channels = hw.SampleRate, int32(c.bitrate), hw.Channels
	rc, _, _ = purego.SyscallN(c.lib.setParam, c.handle, voParam, uintptr(unsafe.Pointer(&c.param))) //nolint:gosec // G103: C sees pinned memory only
	if uint32(rc) != 0 {
		c.close()
		return fmt.Errorf("libvo-aacenc refuses %d bit/s (%#x): %w", c.bitrate, uint32(rc), hw.ErrUnsupported)
	}
	return nil
}

func (c *voCodec) encode(frame []int16) ([]byte, error) {
	c.in.buffer, c.in.length = unsafe.Pointer(unsafe.SliceData(frame)), uintptr(2*len(frame)) //nolint:gosec // G103: C sees pinned memory only
	c.out.buffer, c.out.length = unsafe.Pointer(&c.au), uintptr(len(c.au))                    //nolint:gosec // G103: C sees pinned memory only
	rc, _, _ := purego.SyscallN(c.lib.setInput, c.handle, uintptr(unsafe.Pointer(&c.in)))     //nolint:gosec // G103: C sees pinned memory only
	if uint32(rc) == 0 {
		rc, _, _ = purego.SyscallN(c.lib.getOutput, c.handle, uintptr(unsafe.Pointer(&c.out)), uintptr(unsafe.Pointer(&c.info))) //nolint:gosec // G103: C sees pinned memory only
	}
	runtime.KeepAlive(frame)
	c.in.buffer = nil
	if uint32(rc) != 0 || int(c.out.length) > len(c.au) {
		return nil, fmt.Errorf("libvo-aacenc could not code a frame (%#x)", uint32(rc))
	}
	return c.au[:c.out.length], nil
}

func (c *voCodec) reset() error {
	c.close()
	return c.open()
}

func (c *voCodec) close() {
	if c.handle == 0 {
		return
	}
	purego.SyscallN(c.lib.uninit, c.handle)
	c.handle = 0
	c.pinner.Unpin()
}
