package soft

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"

	"encoderd.example/hw"
	"encoderd.example/stream"
	"encoderd.example/stream/h264"
)

// ErrNoStill says that a coded picture could not be decoded. The next one may
// be good.
var ErrNoStill = errors.New("the picture cannot be decoded")

// DecodeKey decodes a key unit of H.264, as an I420 frame on the heap with one
// reference and the unit's stamp. It is for stills: each call begins and ends a
// decoder, of libopenh264. The error wraps [hw.ErrMissing] if that is not
// installed, [hw.ErrUnsupported] for units of other kinds, and else
// [ErrNoStill]. It may be called from any goroutine; a call takes its time on
// the CPU, and calls wait for each other.
func DecodeKey(u *stream.Unit) (*hw.Frame, error) { return openH264.decode(u) }

var openH264 = newOpenH264([]string{"libopenh264.so.7", "libopenh264.so.8", "libopenh264.so.6"})

func newOpenH264(names []string) *keyDecoder {
	return &keyDecoder{lib: &lazy[openH264Lib]{load: func() (*openH264Lib, error) { return loadOpenH264(names) }}}
}

// A keyDecoder lends the library to one caller at a time.
type keyDecoder struct {
	lib *lazy[openH264Lib]
	mu  sync.Mutex
}

func (d *keyDecoder) decode(u *stream.Unit) (*hw.Frame, error) {
	mode, data, err := keyPicture(u)
	if err != nil {
		return nil, err
	}
	lib, err := d.lib.get()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := lib.decode(data, mode)
	if err != nil {
		return nil, err
	}
	f.Stamp = u.PTS
	return f, nil
}

// keyPicture returns what a key unit's parameter sets say of the picture, and
// the unit with them as a stream with start codes.
func keyPicture(u *stream.Unit) (hw.Mode, []byte, error) {
	if u.Track == nil || u.Track.Codec != stream.H264 || !u.Key {
		return hw.Mode{}, nil, fmt.Errorf("decode a unit that is no key picture of H.264: %w", hw.ErrUnsupported)
	}
	sps, pps, err := h264.ParameterSets(u.Track.Setup)
	if err != nil {
		return hw.Mode{}, nil, fmt.Errorf("%w: %w", ErrNoStill, err)
	}
	info, err := h264.ParseSPS(sps)
	if err != nil {
		return hw.Mode{}, nil, fmt.Errorf("%w: %w", ErrNoStill, err)
	}
	if err := checkJPEGSize(info.Width, info.Height); err != nil {
		return hw.Mode{}, nil, err
	}
	data := appendStart(appendStart(nil, sps), pps)
	for nal := range h264.NALs(u.Data) {
		if kind := h264.Type(nal); kind == h264.TypeIDR {
			data = appendStart(data, nal)
		}
	}
	return hw.Mode{Pixel: hw.I420, Width: info.Width, Height: info.Height, FullRange: info.FullRange, Matrix: matrixOf(info.Matrix)}, data, nil
}

func appendStart(data, nal []byte) []byte { return append(append(data, 0, 0, 0, 1), nal...) }

// matrixOf translates matrix_coefficients (H.264 table E-5).
func matrixOf(code byte) hw.Matrix {
	switch code {
	case 1:
		return hw.BT709
	case 5, 6:
		return hw.BT601
	default:
		return hw.MatrixUnsaid
	}
}

// From codec_app_def.h and codec_api.h of OpenH264 2: places in a decoder's
// table of methods, an option, a level of log, and states.
const (
	welsInitialize   = 0
	welsUninitialize = 1
	welsDecode       = 3 // DecodeFrameNoDelay
	welsFlush        = 5
	welsSetOption    = 8
	welsMethods      = 10

	welsTraceLevel   = 9
	welsConcealment  = 0 // ERROR_CON_DISABLE
	welsVideoAVC     = 0
	welsLogQuiet     = 0
	welsPictureReady = 1
)

// welsParams is SDecodingParam.
type welsParams struct {
	file        unsafe.Pointer
	load        uint32
	layer       uint8
	concealment int32
	parseOnly   bool
	size        uint32
	kind        int32
}

// welsPicture is SBufferInfo. C aligns 64 bits to 8 on 32-bit ARM, too.
type welsPicture struct {
	ready         int32
	_             int32
	in, out       uint64
	width, height int32
	format        int32
	strides       [2]int32
	planes        [3]unsafe.Pointer
}

// welsDecoder is ISVCDecoder: a table of methods.
type welsDecoder struct{ methods *[welsMethods]uintptr }

// openH264Lib is libopenh264, of which only the decoder is used.
type openH264Lib struct {
	create  func(decoder **welsDecoder) uintptr
	destroy func(decoder *welsDecoder)

	// What C reads and writes during a call.
	decoder *welsDecoder
	params  welsParams
	quiet   int32
	planes  [3]unsafe.Pointer
	picture welsPicture
}

func loadOpenH264(names []string) (*openH264Lib, error) {
	handle, name, err := openLibrary(names, "libopenh264-7")
	if err != nil {
		return nil, err
	}
	l := &openH264Lib{quiet: welsLogQuiet, params: welsParams{layer: 0xff, concealment: welsConcealment, size: 8, kind: welsVideoAVC}}
	return l, bind(handle, name, []symbol{
		{"WelsCreateDecoder", &l.create},
		{"WelsDestroyDecoder", &l.destroy},
	})
}

// decode decodes one key picture of a mode.
func (l *openH264Lib) decode(data []byte, m hw.Mode) (*hw.Frame, error) {
	if l.create(&l.decoder) != 0 || l.decoder == nil {
		return nil, fmt.Errorf("libopenh264 opens no decoder: %w", ErrNoStill)
	}
	defer func() {
		l.destroy(l.decoder)
		l.decoder, l.planes, l.picture = nil, [3]unsafe.Pointer{}, welsPicture{}
	}()
	l.call(welsSetOption, welsTraceLevel, uintptr(unsafe.Pointer(&l.quiet)))                    //nolint:gosec // G103: C sees our memory during the call only
	if r := l.call(welsInitialize, uintptr(unsafe.Pointer(&l.params))); uint32(r)&0xffff != 0 { //nolint:gosec // G103, G115: likewise; the code is an int
		return nil, fmt.Errorf("libopenh264 begins with code %#x: %w", r, ErrNoStill)
	}
	defer l.call(welsUninitialize)
	state := l.call(welsDecode, uintptr(unsafe.Pointer(unsafe.SliceData(data))), uintptr(len(data)), uintptr(unsafe.Pointer(&l.planes)), uintptr(unsafe.Pointer(&l.picture))) //nolint:gosec // G103: C sees our memory during the call only
	runtime.KeepAlive(data)
	if uint32(state) == 0 && l.picture.ready != welsPictureReady { // it waits for pictures that may come before
		state = l.call(welsFlush, uintptr(unsafe.Pointer(&l.planes)), uintptr(unsafe.Pointer(&l.picture))) //nolint:gosec // G103: C sees our memory during the call only
	}
	if uint32(state) != 0 || l.picture.ready != welsPictureReady {
		return nil, fmt.Errorf("libopenh264 ends with code %#x: %w", uint32(state), ErrNoStill)
	}
	return l.frame(m)
}

// call calls a method of the decoder.
func (l *openH264Lib) call(method int, args ...uintptr) uintptr {
	r, _, _ := purego.SyscallN(l.decoder.methods[method], append([]uintptr{uintptr(unsafe.Pointer(l.decoder))}, args...)...) //nolint:gosec // G103: C owns it
	return r
}

// frame copies the picture out of the library's memory.
func (l *openH264Lib) frame(m hw.Mode) (*hw.Frame, error) {
	p := &l.picture
	if int(p.width) != m.Width || int(p.height) != m.Height || l.planes[0] == nil || l.planes[1] == nil || l.planes[2] == nil {
		return nil, fmt.Errorf("libopenh264 gives %dx%d, the stream says %dx%d: %w", p.width, p.height, m.Width, m.Height, ErrNoStill)
	}
	f, err := hw.NewMemoryFrame(m, nil)
	if err != nil {
		return nil, err
	}
	for i, to := range f.Planes {
		width, lines, stride := m.Width, m.Height, int(p.strides[min(i, 1)])
		if i > 0 {
			width, lines = (width+1)/2, (lines+1)/2
		}
		if stride < width {
			return nil, fmt.Errorf("libopenh264 gives lines of %d bytes: %w", stride, ErrNoStill)
		}
		copyPlane(to, unsafe.Slice((*byte)(l.planes[i]), stride*(lines-1)+width), stride, width, lines) //nolint:gosec // G103: C's until the decoder ends
	}
	return f.Lend(), nil
}
