package soft

import (
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"

	"encoderd.example/hw"
)

// From turbojpeg.h.
const (
	tjSamp422      = 1
	tjSamp420      = 2
	tjSampGrey     = 3
	tjFlagScans    = 32768 // refuse progressive pictures of more than 500 scans
	tjErrorWarning = 0
)

// turbo decodes by libturbojpeg.
type turbo struct {
	handle uintptr
	header uintptr
	yuv    uintptr

	open      func() uintptr
	errorText func(h uintptr) string
	errorCode func(h uintptr) int32
	destroy   func(h uintptr) int32

	// What C writes and reads during a call.
	width, height, samp, space int32
	planes                     [3]unsafe.Pointer
	strides                    [3]int32
}

func openTurbo(names []string) (*turbo, error) {
	lib, name, err := openLibrary(names, "libturbojpeg0")
	if err != nil {
		return nil, err
	}
	t := &turbo{}
	err = bind(lib, name, []symbol{
		{"tjInitDecompress", &t.open},
		{"tjGetErrorStr2", &t.errorText},
		{"tjGetErrorCode", &t.errorCode},
		{"tjDestroy", &t.destroy},
	})
	if err != nil {
		return nil, err
	}
	if t.header, err = address(lib, name, "tjDecompressHeader3"); err != nil {
		return nil, err
	}
	if t.yuv, err = address(lib, name, "tjDecompressToYUVPlanes"); err != nil {
		return nil, err
	}
	return t, t.reopen()
}

// reopen starts afresh. After a picture that it could not read, the library
// may refuse the next good one ("two SOI markers").
func (t *turbo) reopen() error {
	t.close()
	if t.handle = t.open(); t.handle == 0 {
		return fmt.Errorf("libturbojpeg opens no decoder: %w", hw.ErrUnsupported)
	}
	return nil
}

func (t *turbo) passes() int { return 1 }

func (t *turbo) close() {
	if t.handle != 0 {
		t.destroy(t.handle)
		t.handle = 0
	}
}

func (t *turbo) decode(data []byte, take func(hw.Mode) (*hw.Frame, error)) (*hw.Frame, error) {
	if t.handle == 0 {
		if err := t.reopen(); err != nil {
			return nil, err
		}
	}
	mode, err := t.mode(data)
	if err != nil {
		t.close()
		return nil, err
	}
	f, err := take(mode)
	if err != nil {
		return nil, err
	}
	for i, p := range f.Planes {
		t.planes[i], t.strides[i] = unsafe.Pointer(unsafe.SliceData(p.Data)), int32(p.Stride) //nolint:gosec // G103: C sees our memory during the call only
	}
	r, _, _ := purego.SyscallN(t.yuv, t.handle, uintptr(unsafe.Pointer(unsafe.SliceData(data))), uintptr(len(data)), //nolint:gosec // G103: C sees our memory during the call only
		uintptr(unsafe.Pointer(&t.planes)), uintptr(t.width), uintptr(unsafe.Pointer(&t.strides)), uintptr(t.height), tjFlagScans) //nolint:gosec // G103: C sees our memory during the call only
	runtime.KeepAlive(data)
	clear(t.planes[:])
	if int32(r) != 0 && !t.harmless() {
		err := fmt.Errorf("%w: %s", ErrDamaged, t.errorText(t.handle))
		t.close()
		f.Release()
		return nil, err
	}
	if t.samp == tjSampGrey {
		greyChroma(f)
	}
	return f, nil
}

// mode reads the header.
func (t *turbo) mode(data []byte) (hw.Mode, error) {
	// A stream of tables only counts as good and sets nothing.
	t.width, t.height, t.samp = 0, 0, -1
	r, _, _ := purego.SyscallN(t.header, t.handle, uintptr(unsafe.Pointer(unsafe.SliceData(data))), uintptr(len(data)), //nolint:gosec // G103: C sees our memory during the call only
		uintptr(unsafe.Pointer(&t.width)), uintptr(unsafe.Pointer(&t.height)), uintptr(unsafe.Pointer(&t.samp)), uintptr(unsafe.Pointer(&t.space))) //nolint:gosec // G103: C sees our memory during the call only
	runtime.KeepAlive(data)
	if int32(r) != 0 && !t.harmless() {
		return hw.Mode{}, fmt.Errorf("%w: %s", ErrDamaged, t.errorText(t.handle))
	}
	m := hw.Mode{Width: int(t.width), Height: int(t.height)}
	if m.Width == 0 {
		return hw.Mode{}, fmt.Errorf("%w: no picture in it", ErrDamaged)
	}
	switch t.samp {
	case tjSamp420, tjSampGrey:
		m.Pixel = hw.I420
	case tjSamp422:
		m.Pixel = hw.I422
	default:
		return hw.Mode{}, fmt.Errorf("chroma sampling %d of libturbojpeg: %w", t.samp, hw.ErrUnsupported)
	}
	return m, checkJPEGSize(m.Width, m.Height)
}

// harmless reports whether the latest failure is only the library's grumble
// about stuffing bytes, which many cameras send between picture and end.
func (t *turbo) harmless() bool {
	return t.errorCode(t.handle) == tjErrorWarning && strings.Contains(t.errorText(t.handle), "extraneous bytes before marker 0xd9")
}
