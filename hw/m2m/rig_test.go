package m2m_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/m2m"
	"encoderd.example/hw/v4l2/fakevb2"
	"encoderd.example/hw/v4l2/uapi"
	"encoderd.example/stream"
	"encoderd.example/stream/h264"
	"encoderd.example/stream/h265"
)

func config(width, height int) hw.EncoderConfig {
	return hw.EncoderConfig{Codec: stream.H264, Width: width, Height: height, FPS: hw.Rate{Num: 15, Den: 1}, GOP: 30, Bitrate: 4_000_000}
}

func start(t *testing.T, d hw.EncoderDriver, cfg hw.EncoderConfig) *m2m.Encoder {
	t.Helper()
	e, err := d.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e.(*m2m.Encoder)
}

// A reel makes pictures in memory of its own or of a pool, and hands out those
// that nobody holds.
type reel struct {
	frames chan *hw.Frame
	count  int
}

func newReel(mode hw.Mode, pool hw.Pool) (*reel, error) {
	r := &reel{frames: make(chan *hw.Frame, 6)}
	for i := range 6 {
		f, err := hw.NewMemoryFrame(mode, func(f *hw.Frame) { r.frames <- f })
		if err != nil {
			return nil, err
		}
		if pool != nil {
			b, l := pool.Buffers()[i], pool.Layout()
			for n := range f.Planes {
				p := l.Planes[n]
				f.Planes[n] = hw.Plane{Data: b.Mem[p.Buffer][p.Offset:], Stride: p.Stride, FD: b.FDs[p.Buffer], Offset: p.Offset, Shared: b.Shared[p.Buffer]}
			}
		}
		r.frames <- f
	}
	return r, nil
}

// next draws a bar that moves and lends the picture.
func (r *reel) next() *hw.Frame {
	f := (<-r.frames).Lend()
	y, step, first := f.Planes[0], 1, 0
	if f.Pixel == hw.YUYV || f.Pixel == hw.UYVY {
		step = 2
	}
	if f.Pixel == hw.UYVY {
		first = 1
	}
	for line := range f.Height {
		row := y.Data[line*y.Stride+first:]
		for x := range f.Width {
			row[step*x] = byte(64 + line%64)
		}
		for x := range 16 {
			row[(r.count*16+x)%f.Width*step] = 235
		}
	}
	r.count++
	f.Stamp = stamp(r.count)
	return f
}

// checkUnit looks at the NAL units: a key unit has its parameter sets in front,
// no other has any, and nothing is there that readers have no use for.
func checkUnit(t *testing.T, u *stream.Unit) {
	t.Helper()
	kind, want := h264.Type, []byte{h264.TypeSlice}
	switch {
	case u.Track.Codec == stream.H265 && u.Key:
		kind, want = h265.Type, []byte{h265.TypeVPS, h265.TypeSPS, h265.TypePPS, h265.TypeIDRBare}
	case u.Track.Codec == stream.H265:
		kind, want = h265.Type, []byte{h265.TypeTrailR}
	case u.Key:
		want = []byte{h264.TypeSPS, h264.TypePPS, h264.TypeIDR}
	}
	var types []byte
	for nal := range h264.NALs(u.Data) {
		types = append(types, kind(nal))
	}
	if string(types) != string(want) {
		t.Errorf("unit at %s, key %v: NAL units %d, want %d", u.PTS, u.Key, types, want)
	}
}

// checkTrack reads the parameter sets of a track.
func checkTrack(t *testing.T, track *stream.Track, cfg hw.EncoderConfig) {
	t.Helper()
	sps, _, err := h264.ParameterSets(track.Setup)
	if err != nil {
		t.Fatal(err)
	}
	s, err := h264.ParseSPS(sps)
	if err != nil {
		t.Fatal(err)
	}
	if s.Width != cfg.Width || s.Height != cfg.Height || s.FPS != cfg.FPS.Float() || s.Reorder != 0 || s.Matrix != 6 || s.FullRange {
		t.Errorf("parameter set says %+v, want %dx%d at %v", s, cfg.Width, cfg.Height, cfg.FPS)
	}
	if track.Width != cfg.Width || track.Height != cfg.Height || track.Codec != stream.H264 {
		t.Errorf("track says %+v", track)
	}
}

func keys(units []*stream.Unit) (at []int) {
	for i, u := range units {
		if u.Key {
			at = append(at, i)
		}
	}
	return at
}

// reelOf returns pictures in memory of the encoder's driver, nearest to l.
func reelOf(t *testing.T, d hw.EncoderDriver, l hw.Layout) (*reel, hw.Layout) {
	t.Helper()
	l, err := d.Importer.Layout(l)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := d.Importer.Allocate(l, 6)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	r, err := newReel(hw.Mode{Pixel: l.Pixel, Width: l.Width, Height: l.Height}, pool)
	if err != nil {
		t.Fatal(err)
	}
	return r, l
}

// modest grants small buffers for coded pictures, whatever is asked for.
func modest(f *uapi.Format) {
	switch f.Type {
	case uapi.BufTypeVideoCaptureMplane:
		f.PixMP().Planes[0].SizeImage = 64 << 10
	case uapi.BufTypeVideoCapture:
		f.Pix().SizeImage = 64 << 10
	}
}

// codec returns a node like that of the encoder of driver, composed from
// documentation. Its controls take everything that we want.
func codec(driver string) *fakevb2.Node {
	raw := func(code string, bytes float64) fakevb2.Format {
		return fakevb2.Format{Code: uint32(hw.FourCC(code)), BytesPerPixel: bytes, Align: 16, AnyStride: true}
	}
	number := func(id uint32, name string, most int64) fakevb2.Control {
		return fakevb2.Control{ID: id, Name: name, Type: uapi.CtrlTypeInteger, Max: most}
	}
	menu := func(id uint32, name string, entries int) fakevb2.Control {
		c := fakevb2.Control{ID: id, Name: name, Type: uapi.CtrlTypeMenu, Max: int64(entries) - 1}
		for i := range entries {
			c.Menu = append(c.Menu, fmt.Sprint("entry ", i))
		}
		return c
	}
	return &fakevb2.Node{
		Path: "/dev/video0", Driver: driver, Card: driver, BusInfo: "platform:" + driver,
		Caps: uapi.CapVideoM2MMplane | uapi.CapStreaming, Type: uapi.BufTypeVideoCaptureMplane,
		Grants:  modest,
		Encoder: &fakevb2.Encoder{Raw: []fakevb2.Format{raw("NV12", 1.5), raw("YU12", 1.5), raw("YUYV", 2)}},
		Controls: []fakevb2.Control{
			number(uapi.CIDGOPSize, "GOP", 600),
			menu(uapi.CIDBitrateMode, "Bitrate Mode", 2),
			number(uapi.CIDBitrate, "Bitrate", 100_000_000),
			number(uapi.CIDFrameRCEnable, "Frame RC", 1),
			menu(uapi.CIDHeaderMode, "Header Mode", 2),
			number(uapi.CIDRepeatSeqHeader, "Repeat", 1),
			{ID: uapi.CIDForceKeyFrame, Name: "Force Key", Type: uapi.CtrlTypeButton},
			number(uapi.CIDH264MinQP, "H264 Min QP", 51),
			number(uapi.CIDH264MaxQP, "H264 Max QP", 51),
			menu(uapi.CIDH264Level, "H264 Level", 16),
			menu(uapi.CIDH264Profile, "H264 Profile", 5),
		},
	}
}

// codecHEVC returns a node like [codec]'s that codes HEVC only.
func codecHEVC(driver string) *fakevb2.Node {
	n := codec(driver)
	n.Encoder.Coded = []uint32{uint32(hw.FourCC("HEVC"))}
	n.Controls = slices.DeleteFunc(n.Controls, func(c fakevb2.Control) bool { return strings.HasPrefix(c.Name, "H264") })
	for _, c := range []struct {
		id   uint32
		name string
		most int64
	}{
		{uapi.CIDHEVCProfile, "Profile", 2},
		{uapi.CIDHEVCLevel, "Level", 12},
		{uapi.CIDHEVCTier, "Tier", 1},
		{uapi.CIDHEVCRefreshType, "Refresh Type", 2},
		{uapi.CIDHEVCRefreshPeriod, "Refresh Period", 600},
		{uapi.CIDHEVCMinQP, "Min QP", 51},
		{uapi.CIDHEVCMaxQP, "Max QP", 51},
	} {
		n.Controls = append(n.Controls, fakevb2.Control{ID: c.id, Name: "HEVC " + c.name, Type: uapi.CtrlTypeInteger, Max: c.most})
	}
	return n
}

// A rig is a fake kernel with one encoder. It is used inside a synctest bubble:
// there is no time in it but what is waited for, and settled means settled.
type rig struct {
	*fakevb2.Kernel

	node   *fakevb2.Node
	driver hw.EncoderDriver
	log    bytes.Buffer // what the encoder has logged; read it while nothing runs
}

func sysfs(names ...string) fstest.MapFS {
	files := fstest.MapFS{}
	for _, name := range names {
		files["sys/class/video4linux/"+name+"/dev"] = &fstest.MapFile{Data: []byte("81:0\n")}
	}
	return files
}

func newRig(t *testing.T, n *fakevb2.Node) *rig {
	t.Helper()
	r := &rig{Kernel: fakevb2.New(n), node: n}
	if err := r.find(); err != nil {
		t.Fatal(err)
	}
	r.cleanUp(t)
	return r
}

// find looks for the encoder.
func (r *rig) find() error {
	log := slog.New(slog.NewTextHandler(&r.log, nil))
	list, err := m2m.Finder{Root: sysfs("video0"), Sys: r.Kernel, Log: log}.Encoders()
	if err == nil && len(list) != 1 {
		err = fmt.Errorf("found %d encoders: %w", len(list), hw.ErrGone)
	}
	if err != nil {
		return err
	}
	r.driver = list[0]
	return nil
}

func (r *rig) cleanUp(t *testing.T) {
	t.Helper()
	t.Cleanup(func() { // the last one that runs
		if fds, maps := r.Left(); fds+maps != 0 {
			t.Errorf("%d descriptors and %d mappings are left", fds, maps)
		}
	})
}

// A show is an encoder that pictures are passed through.
type show struct {
	t     *testing.T
	e     hw.Encoder
	reel  *reel
	units []*stream.Unit
	ended chan error
	more  chan *stream.Unit
}

// newShow starts to read units.
func newShow(t *testing.T, e hw.Encoder, r *reel) *show {
	t.Helper()
	s := &show{t: t, e: e, reel: r, ended: make(chan error, 1), more: make(chan *stream.Unit, 1000)}
	go func() {
		for {
			u, err := e.Next(t.Context())
			if err != nil {
				s.ended <- err
				return
			}
			s.more <- u
		}
	}()
	return s
}

// pass submits n pictures, each when all is done that the one before led to,
// and returns the units that came.
func (s *show) pass(n int) []*stream.Unit {
	s.t.Helper()
	begun := len(s.units)
	for range n {
		f := s.reel.next()
		if err := s.e.Submit(f); err != nil {
			f.Release()
			s.t.Fatalf("submit: %v", err)
		}
		f.Release()
		s.settle()
	}
	return s.units[begun:]
}

// settle waits until nothing moves, and for a drain to be given up.
func (s *show) settle() {
	synctest.Wait()
	for len(s.more) > 0 {
		u := <-s.more
		if len(s.units) > 0 && u.PTS <= s.units[len(s.units)-1].PTS {
			s.t.Errorf("unit at %s after one at %s", u.PTS, s.units[len(s.units)-1].PTS)
		}
		checkUnit(s.t, u)
		s.units = append(s.units, u)
	}
}

// close ends the show; all frames must have come back.
func (s *show) close() error {
	s.t.Helper()
	err := s.e.Close()
	<-s.ended
	s.settle()
	if n := len(s.reel.frames); n != cap(s.reel.frames) {
		s.t.Errorf("%d of %d frames came back", n, cap(s.reel.frames))
	}
	return err
}

func stamp(n int) time.Duration { return time.Duration(n) * 66_666_667 }

// at lists the pictures, counted from 1, that the units are.
func at(units []*stream.Unit) (list []int) {
	for _, u := range units {
		list = append(list, int(u.PTS/stamp(1)))
	}
	return list
}
