//go:build board

// Tests on a real kernel: the guest of the virtual board, with vh264enc and
// vivid.

package m2m_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/m2m"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/uapi"
	"encoderd.example/stream"
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

func TestBoardCodesPicturesOfItsOwnMemory(t *testing.T) {
	for _, options := range []string{"align=2", "align=16", "align=64", "align=2 multiplanar=0", "align=16 multiplanar=0", "align=64 multiplanar=0"} {
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

func TestBoardCopiesWhatItCannotRead(t *testing.T) {
	d := load(t, "align=16")
	for _, tt := range []struct {
		name   string
		in     hw.Mode
		copied int // bytes a picture
	}{
		{"same form", hw.Mode{Pixel: hw.NV12, Width: 320, Height: 180}, 320 * 180 * 3 / 2},
		{"another form", hw.Mode{Pixel: hw.YUYV, Width: 320, Height: 180}, 320 * 180 * 3},
		{"another size", hw.Mode{Pixel: hw.I420, Width: 640, Height: 360}, 320 * 180 * 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := newReel(tt.in, nil)
			if err != nil {
				t.Fatal(err)
			}
			e := start(t, d, config(320, 180))
			codeAll(t, e, r, 6)
			if got := e.Stats(); got.CopiedBytes != uint64(6*tt.copied) || got.Coded != 6 {
				t.Errorf("%+v, want %d bytes a picture", got, tt.copied)
			}
		})
	}
}

func TestBoardTurnsItsKnobsWhileItRuns(t *testing.T) {
	d := load(t, "align=2")
	r, l := reelOf(t, d, hw.Layout{Pixel: hw.NV12, Width: 320, Height: 180})
	cfg := config(320, 180)
	cfg.Input, cfg.GOP = l, 600
	e := start(t, d, cfg)
	rich := codeAll(t, e, r, 6)
	if err := e.SetBitrate(100_000); err != nil {
		t.Fatal(err)
	}
	e.ForceKey()
	poor := codeAll(t, e, r, 6)
	if len(poor[0].Data)*2 > len(rich[0].Data) {
		t.Errorf("a key picture has %d bytes at a fortieth of the rate, and %d before", len(poor[0].Data), len(rich[0].Data))
	}
	if err := e.SetRate(hw.Rate{Num: 30000, Den: 1001}); err != nil {
		t.Fatal(err)
	}
	faster := codeAll(t, e, r, 6)
	all := append(append(rich, poor...), faster...)
	if got := fmt.Sprint(keys(all)); got != "[0 6 12]" {
		t.Errorf("key units %s", got)
	}
	if rich[0].Track != poor[5].Track || poor[5].Track == faster[0].Track {
		t.Error("a new track must come with the new frame rate, and only then")
	}
	cfg.FPS = hw.Rate{Num: 30000, Den: 1001}
	checkTrack(t, faster[0].Track, cfg)
}

func TestBoardFaults(t *testing.T) {
	t.Run("a picture fails", func(t *testing.T) {
		d := load(t, "align=2")
		r, l := reelOf(t, d, hw.Layout{Pixel: hw.NV12, Width: 320, Height: 180})
		cfg := config(320, 180)
		cfg.Input, cfg.GOP = l, 600
		e := start(t, d, cfg)
		codeAll(t, e, r, 3)
		parameter(t, "fail_in", 1)
		pass(t, e, r.next())
		for e.Stats().Swallowed == 0 {
			<-time.After(time.Millisecond)
		}
		after := codeAll(t, e, r, 5)
		if !after[0].Key || e.Stats().Swallowed != 1 {
			t.Errorf("key %v, %+v", after[0].Key, e.Stats())
		}
	})
	t.Run("slow", func(t *testing.T) {
		d := load(t, "align=2 latency_us=300000")
		r, l := reelOf(t, d, hw.Layout{Pixel: hw.NV12, Width: 320, Height: 180})
		cfg := config(320, 180)
		cfg.Input = l
		e := start(t, d, cfg)
		busy := 0
		for range 6 {
			f := r.next()
			if err := e.Submit(f); errors.Is(err, hw.ErrBusy) {
				busy++
			} else if err != nil {
				t.Fatal(err)
			}
			f.Release()
		}
		if busy != 2 || e.Stats().Dropped != 2 {
			t.Errorf("%d of 6 frames were turned away, %+v", busy, e.Stats())
		}
		for range 4 {
			checkUnit(t, unit(t, e))
		}
	})
	t.Run("a hang ends with Close", func(t *testing.T) {
		d := load(t, "align=2")
		r, l := reelOf(t, d, hw.Layout{Pixel: hw.NV12, Width: 320, Height: 180})
		cfg := config(320, 180)
		cfg.Input = l
		e := start(t, d, cfg)
		codeAll(t, e, r, 2)
		parameter(t, "hang", 1)
		defer parameter(t, "hang", 0)
		for range 5 {
			f := r.next()
			if err := e.Submit(f); err != nil && !errors.Is(err, hw.ErrBusy) {
				t.Fatal(err)
			}
			f.Release()
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		if n := len(r.frames); n != cap(r.frames) {
			t.Errorf("%d of %d frames came back", n, cap(r.frames))
		}
	})
	t.Run("one too many", func(t *testing.T) {
		d := load(t, "align=2 max_instances=1")
		e := start(t, d, config(320, 180))
		if _, err := d.Open(config(320, 180)); !errors.Is(err, hw.ErrBusy) {
			t.Errorf("the second says %v", err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		start(t, d, config(320, 180))
	})
	t.Run("nothing keeps the module", func(t *testing.T) {
		load(t, "align=2") // fails if anybody still holds the device
	})
}

// TestBoardDrains begins a GOP anew the long way, as hardware without an order
// for key pictures needs it, on the only hardware that there is.
func TestBoardDrains(t *testing.T) {
	m2m.ForgetForceKey(t)
	d := load(t, "align=2")
	r, l := reelOf(t, d, hw.Layout{Pixel: hw.NV12, Width: 320, Height: 180})
	cfg := config(320, 180)
	cfg.Input, cfg.GOP = l, 600
	e := start(t, d, cfg)
	units := codeAll(t, e, r, 4)
	for range 3 {
		e.ForceKey()
		units = append(units, codeAll(t, e, r, 4)...)
	}
	if got := fmt.Sprint(keys(units)); got != "[0 4 8 12]" || e.Stats().Swallowed != 0 {
		t.Errorf("key units %s, %+v", got, e.Stats())
	}
}

// TestBoardCameraToEncoder passes pictures of vivid on without touching them,
// in both directions: in the camera's memory and in the encoder's, whose lines
// lie as its alignment and its API want it.
func TestBoardCameraToEncoder(t *testing.T) {
	// an HDMI input, because it scales to any size
	command(t, "modprobe -r vivid")
	command(t, "modprobe vivid n_devs=1 node_types=0x1 num_inputs=1 input_types=0x3")
	command(t, "udevadm settle")
	whole := hw.Mode{Pixel: hw.NV12, Width: 320, Height: 192}  // fits every alignment
	packed := hw.Mode{Pixel: hw.YUYV, Width: 320, Height: 180} // may have memory below it
	for _, options := range []string{
		"align=2", "align=16", "align=64",
		"align=2 multiplanar=0", "align=16 multiplanar=0", "align=64 multiplanar=0",
	} {
		d := load(t, options)
		for _, tt := range []struct {
			way  hw.Way
			mode hw.Mode
		}{{hw.Export, whole}, {hw.Import, whole}, {hw.Import, packed}} {
			t.Run(fmt.Sprintf("%s %s %s", options, tt.way, tt.mode.Pixel), func(t *testing.T) { passOn(t, d, tt.way, tt.mode, 40) })
		}
	}
}

// passOn has n pictures of vivid coded that come by way, and by no other.
func passOn(t *testing.T, d hw.EncoderDriver, way hw.Way, want hw.Mode, n int) {
	t.Helper()
	cfg := config(want.Width, want.Height)
	plan := hw.BufferPlan{Way: way, Reason: "test"}
	s, err := vivid(t).OpenShared(t.Context(), want, func(src hw.BufferSource) hw.BufferPlan {
		var err error
		if cfg.Input, err = d.Importer.Layout(src.Layout); err != nil {
			t.Fatal(err)
		}
		switch {
		case way == hw.Export && !cfg.Input.Reads(src.Layout):
			t.Fatalf("the encoder reads %+v, the camera gives %+v", cfg.Input, src.Layout)
		case way == hw.Import:
			if plan.Pool, err = d.Importer.Allocate(cfg.Input, 6); err != nil {
				t.Fatal(err)
			}
		}
		return plan
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Plan(); got.Way != way {
		t.Fatalf("the camera says %s", got)
	}
	if m := s.Mode(); m.Pixel != want.Pixel || m.Width != want.Width || m.Height != want.Height {
		t.Fatalf("the camera gives %s", m)
	}
	watch(t, s, start(t, d, cfg), n)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if plan.Pool != nil {
		if err := plan.Pool.Close(); err != nil {
			t.Error(err)
		}
	}
}

func vivid(t *testing.T) hw.SharingCamera {
	t.Helper()
	cameras, err := v4l2.Finder{Root: os.DirFS("/"), Log: slog.New(slog.DiscardHandler), Sys: v4l2.Kernel{}}.Cameras()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cameras {
		if c, ok := c.(hw.SharingCamera); ok && strings.HasPrefix(c.Name(), "vivid") {
			return c
		}
	}
	t.Fatalf("vivid is not among %d cameras", len(cameras))
	return nil
}

// watch passes n pictures of a camera to an encoder and closes that.
func watch(t *testing.T, s hw.CameraStream, e *m2m.Encoder, n int) {
	t.Helper()
	for i := range n {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		f, err := s.Read(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		stamp, blocks := f.Stamp, macroblocks(f)
		pass(t, e, f)
		u := unit(t, e)
		if u.PTS.Microseconds() != stamp.Microseconds() {
			t.Errorf("picture %d has stamp %s, its unit %s", i, stamp, u.PTS)
		}
		checkUnit(t, u)
		if u.Key != (i%30 == 0) {
			t.Errorf("picture %d: key %v", i, u.Key)
		}
		if u.Key {
			checkPicture(t, u, blocks)
		}
	}
	if got := e.Stats(); got.Coded != uint64(n) || got.CopiedBytes != 0 || e.CopyReason() != "" {
		t.Errorf("%+v, %q", got, e.CopyReason())
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// macroblocks returns the blocks of 16 × 16 pixels that are whole in a picture,
// each as 256 bytes of luma, 64 of U and 64 of V.
func macroblocks(f *hw.Frame) (blocks [][]byte) {
	for y := 0; y+16 <= f.Height; y += 16 {
		for x := 0; x+16 <= f.Width; x += 16 {
			var luma, u, v []byte
			for i := range 256 {
				luma = append(luma, lumaOf(f, x+i%16, y+i/16))
			}
			for i := range 64 {
				pair := chromaOf(f, x/2+i%8, y/2+i/8)
				u, v = append(u, pair[0]), append(v, pair[1])
			}
			blocks = append(blocks, slices.Concat(luma, u, v))
		}
	}
	return blocks
}

func lumaOf(f *hw.Frame, x, y int) byte {
	p := f.Planes[0]
	if f.Pixel == hw.YUYV {
		x *= 2
	}
	return p.Data[y*p.Stride+x]
}

// chromaOf returns U and V of two by two pixels. Of YUYV the encoder takes
// every other line.
func chromaOf(f *hw.Frame, x, y int) [2]byte {
	if f.Pixel == hw.YUYV {
		p := f.Planes[0]
		at := 2*y*p.Stride + 4*x
		return [2]byte{p.Data[at+1], p.Data[at+3]}
	}
	p := f.Planes[1]
	at := y*p.Stride + 2*x
	return [2]byte{p.Data[at], p.Data[at+1]}
}

// checkPicture looks for the blocks of a picture in its key unit, where the
// board's encoder writes them as they are.
func checkPicture(t *testing.T, u *stream.Unit, blocks [][]byte) {
	t.Helper()
	rest := bytes.ReplaceAll(u.Data, []byte{0, 0, 3}, []byte{0, 0}) // what was put in against false start codes
	for i, b := range blocks {
		at := bytes.Index(rest, b)
		if at < 0 {
			t.Errorf("the unit at %s lacks block %d of %d", u.PTS, i, len(blocks))
			return
		}
		rest = rest[at+len(b):]
	}
}

// A stubborn kernel refuses some calls.
type stubborn struct {
	v4l2.Kernel

	refuses func(req uintptr, arg unsafe.Pointer) bool
}

func (k stubborn) Ioctl(fd int, req uintptr, arg unsafe.Pointer) error {
	if k.refuses(req, arg) {
		return unix.EINVAL
	}
	return k.Kernel.Ioctl(fd, req, arg)
}

// TestBoardWithoutDMABUF has the driver take no memory of others, or change its
// mind: pictures are copied then, and the show goes on.
func TestBoardWithoutDMABUF(t *testing.T) {
	for _, tt := range []struct {
		name    string
		refuses func(req uintptr, arg unsafe.Pointer) bool
		says    string
	}{
		{"no queue for it", func(req uintptr, arg unsafe.Pointer) bool {
			return req == uapi.ReqBufs && (*uapi.RequestBuffers)(arg).Memory == uapi.MemoryDMABUF
		}, "no memory but its own"},
		{"the third picture is refused", func() func(uintptr, unsafe.Pointer) bool {
			n := 0
			return func(req uintptr, arg unsafe.Pointer) bool {
				if req == uapi.QBuf && (*uapi.Buffer)(arg).Memory == uapi.MemoryDMABUF {
					n++
				}
				return n == 3 && req == uapi.QBuf
			}
		}(), "invalid argument"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			load(t, "align=16")
			finder := boardFinder
			finder.Sys = stubborn{refuses: tt.refuses}
			drivers, err := finder.Encoders()
			if err != nil || len(drivers) != 1 {
				t.Fatalf("found %d, %v", len(drivers), err)
			}
			d := drivers[0]
			r, l := reelOf(t, d, hw.Layout{Pixel: hw.NV12, Width: 320, Height: 180})
			cfg := config(320, 180)
			cfg.Input = l
			e := start(t, d, cfg)
			codeAll(t, e, r, 8)
			got := e.Stats()
			if got.Coded != 8 || got.CopiedBytes == 0 || !strings.Contains(e.CopyReason(), tt.says) {
				t.Errorf("%+v, %q", got, e.CopyReason())
			}
			t.Logf("%+v, %q", got, e.CopyReason())
		})
	}
}

func TestBoardEncoderVanishes(t *testing.T) {
	d := load(t, "align=2")
	r, err := newReel(hw.Mode{Pixel: hw.NV12, Width: 320, Height: 180}, nil)
	if err != nil {
		t.Fatal(err)
	}
	e := start(t, d, config(320, 180))
	codeAll(t, e, r, 3)
	driver := "/sys/bus/platform/drivers/vh264enc/"
	if err := os.WriteFile(driver+"unbind", []byte("vh264enc.0"), 0o200); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if u, err := e.Next(ctx); !errors.Is(err, hw.ErrGone) {
		t.Errorf("Next gives %v, %v", u, err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if _, err := d.Open(config(320, 180)); !errors.Is(err, hw.ErrMissing) {
		t.Errorf("Open says %v", err)
	}
	if err := os.WriteFile(driver+"bind", []byte("vh264enc.0"), 0o200); err != nil {
		t.Fatal(err)
	}
	command(t, "udevadm settle")
	again, err := boardFinder.Encoders()
	if err != nil || len(again) != 1 {
		t.Fatalf("found %d, %v", len(again), err)
	}
	codeAll(t, start(t, again[0], config(320, 180)), r, 3)
}
