//go:build board

// Tests on a real kernel: the guest of the virtual board, with vh264enc and
// vivid.

package m2m_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/m2m"
	"encoderd.example/hw/v4l2"
	"encoderd.example/stream"
	"encoderd.example/stream/h264"
)

var boardFinder = m2m.Finder{Root: os.DirFS("/"), Log: slog.New(slog.DiscardHandler), Sys: v4l2.Kernel{}}

// patience is for emulated time, which is real time on a slow machine.
const patience = time.Minute

func command(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

// load starts the encoder's module anew and returns its driver.
func load(t *testing.T, options string) hw.EncoderDriver {
	t.Helper()
	command(t, "modprobe -r vh264enc")
	command(t, "modprobe vh264enc "+options)
	command(t, "udevadm settle")
	drivers, err := boardFinder.Encoders()
	if err != nil || len(drivers) != 1 || drivers[0].Name != "v4l2:vh264enc" {
		t.Fatalf("found %+v, %v", drivers, err)
	}
	return drivers[0]
}

// parameter sets one of the module's while it runs.
func parameter(t *testing.T, name string, value int) {
	t.Helper()
	if err := os.WriteFile("/sys/module/vh264enc/parameters/"+name, fmt.Append(nil, value), 0o600); err != nil {
		t.Fatal(err)
	}
}

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
	r := &reel{frames: make(chan *hw.Frame, 8)}
	for i := range 6 {
		f, err := hw.NewMemoryFrame(mode, func(f *hw.Frame) { r.frames <- f })
		if err != nil {
			return nil, err
		}
		if pool != nil {
			b, l := pool.Buffers()[i], pool.Layout()
			for n := range f.Planes {
				p := l.Planes[n]
				f.Planes[n] = hw.Plane{Data: b.Mem[p.Buffer][p.Offset:], Stride: p.Stride, FD: b.FDs[p.Buffer], Offset: p.Offset}
			}
		}
		r.frames <- f
	}
	return r, nil
}

// next draws a bar that moves and lends the picture.
func (r *reel) next() *hw.Frame {
	f := (<-r.frames).Lend()
	y := f.Planes[0]
	for line := range f.Height {
		row := y.Data[line*y.Stride:][:f.Width]
		for x := range row {
			row[x] = byte(64 + line%64)
		}
		for x := range 16 {
			row[(r.count*16+x)%f.Width] = 235
		}
	}
	r.count++
	f.Stamp = time.Duration(r.count) * 66_666_667
	return f
}

// pass submits a picture, waiting for room.
func pass(t *testing.T, e hw.Encoder, f *hw.Frame) {
	t.Helper()
	defer f.Release()
	for over := time.Now().Add(patience); ; {
		err := e.Submit(f)
		if err == nil {
			return
		}
		if !errors.Is(err, hw.ErrBusy) || time.Now().After(over) {
			t.Fatal(err)
		}
		<-time.After(time.Millisecond)
	}
}

func unit(t *testing.T, e hw.Encoder) *stream.Unit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	u, err := e.Next(ctx)
	if err != nil {
		t.Fatalf("%v, %+v", err, e.Stats())
	}
	return u
}

// codeAll passes n pictures and checks that each comes out, in order, under its
// stamp.
func codeAll(t *testing.T, e hw.Encoder, r *reel, n int) (units []*stream.Unit) {
	t.Helper()
	for range n {
		f := r.next()
		stamp := f.Stamp
		pass(t, e, f)
		u := unit(t, e)
		if u.PTS != stamp {
			t.Errorf("unit %d has stamp %s, want %s", len(units), u.PTS, stamp)
		}
		checkUnit(t, u)
		units = append(units, u)
	}
	return units
}

// checkUnit looks at the NAL units: a key unit has its parameter sets in front,
// no other has any, and nothing is there that readers have no use for.
func checkUnit(t *testing.T, u *stream.Unit) {
	t.Helper()
	var types []byte
	for nal := range h264.NALs(u.Data) {
		types = append(types, h264.Type(nal))
	}
	want := []byte{h264.TypeSlice}
	if u.Key {
		want = []byte{h264.TypeSPS, h264.TypePPS, h264.TypeIDR}
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
	if s.Width != cfg.Width || s.Height != cfg.Height || s.FPS != cfg.FPS.Float() || s.Reorder != 0 || s.Matrix != 1 || s.FullRange {
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

func TestBoardCodesPicturesOfItsOwnMemory(t *testing.T) {
	for _, options := range []string{"align=2", "align=16", "align=64", "align=2 multiplanar=0", "align=16 multiplanar=0"} {
		d := load(t, options)
		for _, tt := range []struct {
			pixel         hw.PixelFormat
			width, height int
		}{{hw.NV12, 320, 180}, {hw.I420, 320, 180}, {hw.YUYV, 320, 180}, {hw.NV12, 322, 182}} {
			t.Run(fmt.Sprintf("%s %s %dx%d", options, tt.pixel, tt.width, tt.height), func(t *testing.T) {
				r, l := reelOf(t, d, hw.Layout{Pixel: tt.pixel, Width: tt.width, Height: tt.height})
				cfg := config(tt.width, tt.height)
				cfg.Input = l
				e := start(t, d, cfg)
				units := codeAll(t, e, r, 8)
				checkTrack(t, units[0].Track, cfg)
				if got := keys(units); fmt.Sprint(got) != "[0]" {
					t.Errorf("key units %v", got)
				}
				if got := e.Stats(); got.CopiedBytes != 0 || got.Coded != 8 || got.Swallowed != 0 || e.CopyReason() != "" {
					t.Errorf("%+v, %s", got, e.CopyReason())
				}
			})
		}
	}
}
