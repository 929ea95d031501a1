package soft

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"

	"encoderd.example/hw"
	"encoderd.example/hw/yuv"
	"encoderd.example/stream"
)

// x264Builds lists the API versions that this binding fits, the usual first
// (164 is Debian 12). The number stands in the file name and in the name of
// the open function.
var x264Builds = []int{164, 165, 163, 162, 161, 160, 159, 158, 157, 156, 155}

func x264Names() []string {
	var names []string
	for _, b := range x264Builds {
		names = append(names, "libx264.so."+strconv.Itoa(b))
	}
	return names
}

// From x264.h.
const (
	x264TypeAuto = 0
	x264TypeIDR  = 1
	x264CSPI420  = 2
	x264CSPNV12  = 4
)

// What libx264 would refuse with a line on standard error (x264.h,
// x264_preset_names and x264_profile_names, those for 8 bits of 4:2:0).
var (
	x264Presets  = []string{"ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"}
	x264Profiles = []string{"baseline", "main", "high"}
)

// x264Matrices are libx264's names.
var x264Matrices = map[hw.Matrix]string{hw.BT601: "smpte170m", hw.BT709: "bt709"}

// x264Params is the start of x264_param_t, of which C knows the rest; it is
// 1024 bytes in build 164. Before these fields stand 4-byte fields only, so
// that the layout is the same on all machines; probe checks it at run time.
type x264Params struct {
	_, threads, _, slicedThreads, _, _, _ int32
	width, height, csp, bitDepth          int32

	_ [8192 - 11*4]byte
}

// x264Picture is x264_picture_t; C uses a part of the rest.
type x264Picture struct {
	kind, qpplus1, picStruct, keyframe int32
	pts, dts                           int64
	param                              unsafe.Pointer
	csp, planes                        int32
	stride                             [4]int32
	plane                              [4]unsafe.Pointer

	_ [512]byte
}

// x264NAL is x264_nal_t.
type x264NAL struct {
	_, _, _, _, _, _ int32 // ref_idc, type, long_startcode, first_mb, last_mb, payload size

	payload unsafe.Pointer
	_       int32 // padding
}

// x264Lib is a loaded libx264. It is safe for use by several encoders at once.
type x264Lib struct {
	name string

	defaultPreset func(p *x264Params, preset, tune string) int32
	parse         func(p *x264Params, key, value string) int32
	applyProfile  func(p *x264Params, profile string) int32
	open          func(p *x264Params) uintptr
	reconfig      func(h uintptr, p *x264Params) int32
	close         func(h uintptr)

	// Called for every frame: by address, which allocates nothing.
	pictureInit, encode uintptr
}

func loadX264(names []string) (*x264Lib, error) {
	handle, name, err := openLibrary(names, "libx264-164")
	if err != nil {
		return nil, err
	}
	_, build, _ := strings.Cut(name, ".so.")
	l := &x264Lib{name: name}
	err = bind(handle, name, []symbol{
		{"x264_param_default_preset", &l.defaultPreset},
		{"x264_param_parse", &l.parse},
		{"x264_param_apply_profile", &l.applyProfile},
		{"x264_encoder_open_" + build, &l.open},
		{"x264_encoder_reconfig", &l.reconfig},
		{"x264_encoder_close", &l.close},
	})
	if err != nil {
		return nil, err
	}
	if l.pictureInit, err = address(handle, name, "x264_picture_init"); err != nil {
		return nil, err
	}
	if l.encode, err = address(handle, name, "x264_encoder_encode"); err != nil {
		return nil, err
	}
	return l, l.probe()
}

// probe checks that the fields that we write by hand stand where we think.
func (l *x264Lib) probe() error {
	p := new(x264Params)
	p.width, p.height, p.csp, p.bitDepth = -1, -1, -1, -1
	if l.defaultPreset(p, "veryfast", "zerolatency") != 0 || l.parse(p, "threads", "3") != 0 {
		return fmt.Errorf("%s refuses its own defaults: %w", l.name, hw.ErrUnsupported)
	}
	if p.width != 0 || p.height != 0 || p.csp != x264CSPI420 || p.bitDepth != 8 || p.threads != 3 || p.slicedThreads != 1 {
		return fmt.Errorf("%s lays out its parameters in another way than builds 155 to 165: install libx264-164: %w", l.name, hw.ErrUnsupported)
	}
	return nil
}

// params returns the parameter block for pictures of that matrix.
func (l *x264Lib) params(cfg hw.EncoderConfig, matrix hw.Matrix) (*x264Params, error) {
	p := new(x264Params)
	if l.defaultPreset(p, cfg.Preset, "zerolatency") != 0 {
		return nil, fmt.Errorf("%s refuses preset %q: %w", l.name, cfg.Preset, hw.ErrUnsupported)
	}
	p.width, p.height, p.csp = int32(cfg.Width), int32(cfg.Height), x264CSPI420
	settings := [][2]string{
		{"fps", fmt.Sprintf("%d/%d", cfg.FPS.Num, cfg.FPS.Den)},
		// Stamps are nanoseconds and only passed through; rate control counts
		// frames.
		{"force-cfr", "1"},
		{"threads", strconv.Itoa(cfg.Threads)},
		{"keyint", strconv.Itoa(cfg.GOP)},
		{"min-keyint", "1"},
		{"scenecut", "0"}, // key frames come by the GOP or on demand only
		{"bframes", "0"},
		{"annexb", "0"},
		{"repeat-headers", "1"},
		{"colorprim", "bt709"},
		{"transfer", "bt709"},
		{"colormatrix", x264Matrices[matrix]},
		{"fullrange", "off"},
		{"log", "-1"},
	}
	if cfg.Threads == 1 {
		settings = append(settings, [2]string{"sliced-threads", "0"})
	}
	for _, s := range settings {
		if l.parse(p, s[0], s[1]) != 0 {
			return nil, fmt.Errorf("%s refuses %s=%s: %w", l.name, s[0], s[1], hw.ErrUnsupported)
		}
	}
	if err := l.rate(p, cfg.Bitrate); err != nil {
		return nil, err
	}
	if l.applyProfile(p, cfg.Profile) != 0 {
		return nil, fmt.Errorf("%s refuses profile %q: %w", l.name, cfg.Profile, hw.ErrUnsupported)
	}
	return p, nil
}

// rate sets the target, and a buffer of one second that it may not exceed.
func (l *x264Lib) rate(p *x264Params, bps int) error {
	kbps := strconv.Itoa(max((bps+500)/1000, 1))
	for _, key := range []string{"bitrate", "vbv-maxrate", "vbv-bufsize"} {
		if l.parse(p, key, kbps) != 0 {
			return fmt.Errorf("%s refuses %s=%s: %w", l.name, key, kbps, hw.ErrUnsupported)
		}
	}
	return nil
}

// An x264Session is one open encoder and the memory that C sees. It is for one
// goroutine.
type x264Session struct {
	lib    *x264Lib
	handle uintptr
	params *x264Params
	pinner runtime.Pinner

	in, out x264Picture
	nals    *x264NAL // C memory, written by encode
	count   int32
}

func (l *x264Lib) session(cfg hw.EncoderConfig, matrix hw.Matrix) (*x264Session, error) {
	p, err := l.params(cfg, matrix)
	if err != nil {
		return nil, err
	}
	s := &x264Session{lib: l, params: p}
	s.pinner.Pin(s)
	s.pinner.Pin(p)
	if s.handle = l.open(p); s.handle == 0 {
		s.pinner.Unpin()
		return nil, fmt.Errorf("%s does not open for %dx%d %d/%d fps, %d bit/s, %s: %w",
			l.name, cfg.Width, cfg.Height, cfg.FPS.Num, cfg.FPS.Den, cfg.Bitrate, cfg.Profile, hw.ErrUnsupported)
	}
	return s, nil
}

func (s *x264Session) close() {
	s.lib.close(s.handle)
	s.pinner.Unpin()
}

// setRate changes the target from the next frame on.
func (s *x264Session) setRate(bps int) error {
	if err := s.lib.rate(s.params, bps); err != nil {
		return err
	}
	if rc := s.lib.reconfig(s.handle, s.params); rc != 0 {
		return fmt.Errorf("%s refuses to change to %d bit/s (%d)", s.lib.name, bps, rc)
	}
	return nil
}

// encode codes one picture and returns the stamp and bytes of the one that
// came out, or no bytes. The bytes are C's until the next call.
func (s *x264Session) encode(p yuv.Picture, pts int64, key bool) (coded []byte, stamp int64, err error) {
	purego.SyscallN(s.lib.pictureInit, uintptr(unsafe.Pointer(&s.in))) //nolint:gosec // G103: C sees pinned memory only, or for the call
	s.in.kind, s.in.pts = x264TypeAuto, pts
	if key {
		s.in.kind = x264TypeIDR
	}
	s.in.csp, s.in.planes = x264CSPI420, int32(len(p.Planes))
	if p.Mode.Pixel == hw.NV12 {
		s.in.csp = x264CSPNV12
	}
	for i, pl := range p.Planes {
		s.in.stride[i] = int32(pl.Stride)
		s.in.plane[i] = unsafe.Pointer(unsafe.SliceData(pl.Data)) //nolint:gosec // G103: C sees pinned memory only, or for the call
	}
	r, _, _ := purego.SyscallN(s.lib.encode, s.handle, uintptr(unsafe.Pointer(&s.nals)), //nolint:gosec // G103: C sees pinned memory only, or for the call
		uintptr(unsafe.Pointer(&s.count)), uintptr(unsafe.Pointer(&s.in)), uintptr(unsafe.Pointer(&s.out))) //nolint:gosec // G103: C sees pinned memory only, or for the call
	runtime.KeepAlive(p)
	clear(s.in.plane[:])
	n := int32(r)
	if n < 0 {
		return nil, 0, fmt.Errorf("%s could not code a picture (%d)", s.lib.name, n)
	}
	if n == 0 || s.count == 0 {
		return nil, 0, nil
	}
	// All NAL units of a picture lie behind one another (x264.h, x264_nal_t).
	return unsafe.Slice((*byte)(s.nals.payload), n), s.out.pts, nil //nolint:gosec // G103: C sees pinned memory only, or for the call
}

// checkX264 fills the defaults of cfg and refuses what cannot be coded.
func checkX264(cfg hw.EncoderConfig) (hw.EncoderConfig, error) {
	switch {
	case cfg.Codec != stream.H264:
		return cfg, fmt.Errorf("libx264 codes h264, not %s: %w", cfg.Codec, hw.ErrUnsupported)
	case cfg.Width < 16 || cfg.Height < 16 || cfg.Width > yuv.MaxSide || cfg.Height > yuv.MaxSide || cfg.Width%2+cfg.Height%2 > 0:
		return cfg, fmt.Errorf("libx264: size %dx%d must be even, 16 to %d: %w", cfg.Width, cfg.Height, yuv.MaxSide, hw.ErrUnsupported)
	case cfg.FPS.Num < 1 || cfg.FPS.Den < 1:
		return cfg, fmt.Errorf("libx264: frame rate %d/%d: %w", cfg.FPS.Num, cfg.FPS.Den, hw.ErrUnsupported)
	case cfg.GOP < 1:
		return cfg, fmt.Errorf("libx264: %d frames from key to key: %w", cfg.GOP, hw.ErrUnsupported)
	}
	cfg.Profile, cfg.Preset = cmp.Or(cfg.Profile, "high"), cmp.Or(cfg.Preset, "veryfast")
	if !slices.Contains(x264Profiles, cfg.Profile) {
		return cfg, fmt.Errorf("libx264: profile %q is none of %v: %w", cfg.Profile, x264Profiles, hw.ErrUnsupported)
	}
	if !slices.Contains(x264Presets, cfg.Preset) {
		return cfg, fmt.Errorf("libx264: preset %q is none of %v: %w", cfg.Preset, x264Presets, hw.ErrUnsupported)
	}
	if cfg.Threads < 1 {
		cfg.Threads = threadsFor(cfg)
	}
	return cfg, checkBitrate(cfg.Bitrate)
}

// checkBitrate bounds a video bit rate by what level 6.2 allows (H.264 table
// A-1) at the upper end.
func checkBitrate(bps int) error {
	if bps < 1000 || bps > 800_000_000 {
		return fmt.Errorf("libx264: %d bit/s must be 1000 to 800000000: %w", bps, hw.ErrUnsupported)
	}
	return nil
}

// threadsFor gives pictures that one core keeps up with one thread, because
// slices cost bits and wake-ups, and others as many slices as there are cores,
// at most four: with zerolatency each thread codes a slice of the same picture.
func threadsFor(cfg hw.EncoderConfig) int {
	oneCore := 40_000.0 // macroblocks a second of a small ARM core: 480p30
	if runtime.GOARCH == "amd64" {
		oneCore = 250_000 // 1080p30
	}
	rate := float64((cfg.Width+15)/16*((cfg.Height+15)/16)) * cfg.FPS.Float()
	if rate <= oneCore {
		return 1
	}
	return min(runtime.NumCPU(), 4)
}
