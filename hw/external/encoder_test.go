package external

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/external/device"
	"encoderd.example/hw/external/memory"
	"encoderd.example/hw/external/wire"
	"encoderd.example/hw/hwtest"
	"encoderd.example/hw/sim/picture"
	"encoderd.example/stream"
	"encoderd.example/stream/h264"
)

var fps30 = hw.Rate{Num: 30, Den: 1}

func config(width, height, bitrate int) hw.EncoderConfig {
	return hw.EncoderConfig{Codec: stream.H264, Width: width, Height: height, FPS: fps30, GOP: 60, Bitrate: bitrate}
}

func openEncoder(t *testing.T, d hw.EncoderDriver, cfg hw.EncoderConfig) hw.Encoder {
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
	return e
}

// scriptedDriver is the encoder of a script, with the usual traits.
func scriptedDriver(t *testing.T, script string) hw.EncoderDriver {
	t.Helper()
	traits, err := readEncoder(device.HelloEncoder(""))
	if err != nil {
		t.Fatal(err)
	}
	return scripted(t, script).driver(traits, func() {})
}

// A reel paints test pictures into frames.
type reel struct {
	t       *testing.T
	pattern *picture.Pattern
	seq     uint32
}

func newReel(t *testing.T, width, height int) *reel {
	t.Helper()
	p, err := picture.NewPattern(hw.Mode{Pixel: hw.NV12, Width: width, Height: height, FPS: fps30}, "reel")
	if err != nil {
		t.Fatal(err)
	}
	return &reel{t: t, pattern: p}
}

// paint makes f the next picture.
func (r *reel) paint(f *hw.Frame) *hw.Frame {
	r.t.Helper()
	stamp := time.Hour + time.Duration(r.seq)*fps30.Period()
	p := r.pattern.Frame(r.seq, stamp, 0)
	defer p.Release()
	f.Seq, f.Stamp = r.seq, stamp
	if memory.Copy(f.Planes, p.Planes, p.Pixel, p.Width, p.Height) == 0 {
		r.t.Fatal("nothing was painted")
	}
	r.seq++
	return f
}

// pooled returns a frame for each buffer of a pool; released counts those that
// came back.
func pooled(pool hw.Pool, released func()) []*hw.Frame {
	l := pool.Layout()
	var frames []*hw.Frame
	for _, b := range pool.Buffers() {
		f := hw.NewFrame(func(*hw.Frame) { released() })
		f.Mode = hw.Mode{Pixel: l.Pixel, Width: l.Width, Height: l.Height, FPS: fps30}
		f.Planes = memory.Planes(l, b)
		frames = append(frames, f)
	}
	return frames
}

func newPool(t *testing.T, d hw.EncoderDriver, width, height, count int) hw.Pool {
	t.Helper()
	l, err := d.Importer.Layout(hw.Layout{Pixel: hw.NV12, Width: width, Height: height})
	if err != nil {
		t.Fatal(err)
	}
	pool, err := d.Importer.Allocate(l, count)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	return pool
}

func next(t *testing.T, e hw.Encoder) *stream.Unit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	u, err := e.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// code submits a frame and waits for its unit and its way back.
func code(t *testing.T, e hw.Encoder, f *hw.Frame, back <-chan struct{}) *stream.Unit {
	t.Helper()
	f.Lend()
	if err := e.Submit(f); err != nil {
		t.Fatal(err)
	}
	f.Release()
	u := next(t, e)
	if u.PTS != f.Stamp || u.DTS != f.Stamp {
		t.Errorf("picture %d stamped %s comes out stamped %s", f.Seq, f.Stamp, u.PTS)
	}
	<-back
	return u
}

// counters decodes units by ffmpeg and reads the numbers of the pictures.
func counters(t *testing.T, units []*stream.Unit) []uint32 {
	t.Helper()
	var in, complaints bytes.Buffer
	for _, u := range units {
		for nal := range h264.NALs(u.Data) {
			in.Write([]byte{0, 0, 0, 1})
			in.Write(nal)
		}
	}
	cmd := exec.CommandContext(t.Context(), "ffmpeg", "-v", "error", "-f", "h264", "-i", "-", "-fps_mode", "passthrough", "-pix_fmt", "gray", "-f", "rawvideo", "-")
	cmd.Stdin, cmd.Stderr = &in, &complaints
	raw, err := cmd.Output()
	if err != nil || complaints.Len() > 0 {
		t.Fatalf("ffmpeg: %v %s", err, &complaints)
	}
	w, h := units[0].Track.Width, units[0].Track.Height
	var list []uint32
	for ; len(raw) >= w*h; raw = raw[w*h:] {
		c, ok := picture.Read(raw[:w*h], w, w, h)
		if !ok {
			t.Errorf("picture %d cannot be read", len(list))
		}
		list = append(list, c.Counter)
	}
	return list
}

func checkCounters(t *testing.T, units []*stream.Unit, first uint32) {
	t.Helper()
	list := counters(t, units)
	if len(list) != len(units) {
		t.Errorf("%d pictures come out of %d units", len(list), len(units))
	}
	for i, n := range list {
		if n != first+uint32(i) {
			t.Errorf("picture %d has the number %d, want %d", i, n, first+uint32(i))
		}
	}
}

func TestPicturesOfAPoolAreCodedWithoutACopy(t *testing.T) {
	noLeaks(t)
	for name, driver := range map[string]hw.EncoderDriver{
		"its memory is the box's":     findEncoder(t, install(t, "x264")),
		"it allocates":                asked(t, "allocates itself"),
		"it aligns strides and lines": asked(t, "aligns to 64 and 16"),
	} {
		t.Run(name, func(t *testing.T) {
			const n = 60
			pool := newPool(t, driver, 322, 180, 6)
			cfg := config(322, 180, 1_000_000)
			cfg.GOP, cfg.Input = 20, pool.Layout()
			e := openEncoder(t, driver, cfg)
			back := make(chan struct{}, 1)
			frames := pooled(pool, func() { back <- struct{}{} })
			reel := newReel(t, 322, 180)
			var units []*stream.Unit
			var keys []int
			for i := range n {
				if i == 25 {
					e.ForceKey()
				}
				u := code(t, e, reel.paint(frames[i%len(frames)]), back)
				units = append(units, u)
				if u.Key {
					keys = append(keys, i)
				}
			}
			checkCounters(t, units, 0)
			if want := "[0 20 25 45]"; fmt.Sprint(keys) != want {
				t.Errorf("key pictures %v, want %s", keys, want)
			}
			if want, got := (hw.EncoderStats{Submitted: n, Coded: n}), e.Stats(); got != want {
				t.Errorf("stats %+v, want %+v", got, want)
			}
		})
	}
}

// asked is the encoder of a script as a Finder would find it.
func asked(t *testing.T, script string) hw.EncoderDriver {
	t.Helper()
	a := scripted(t, script).ask(func() {})
	if a.err != nil || a.driver == nil {
		t.Fatalf("no encoder: %v", a.err)
	}
	return *a.driver
}

func TestOtherPicturesAreCopiedAndCounted(t *testing.T) {
	noLeaks(t)
	driver := findEncoder(t, install(t, "x264"))
	full := hw.Mode{Pixel: hw.NV12, Width: 320, Height: 180, FPS: fps30, FullRange: true}
	for name, c := range map[string]struct {
		in   hw.Mode
		copy int // bytes a picture, at least
		most int
	}{
		"the same on the heap": {hw.Mode{Pixel: hw.NV12, Width: 320, Height: 180, FPS: fps30}, 320 * 180 * 3 / 2, 320 * 180 * 3 / 2},
		"larger":               {hw.Mode{Pixel: hw.NV12, Width: 640, Height: 360, FPS: fps30}, 320 * 180 * 3 / 2, 320 * 180 * 3},
		"full range":           {full, 320 * 180 * 3 / 2, 320 * 180 * 3},
	} {
		t.Run(name, func(t *testing.T) {
			var shared hwtest.Accesses
			e := openEncoder(t, driver, config(320, 180, 1_000_000))
			back := make(chan struct{}, 1)
			f, err := hw.NewMemoryFrame(c.in, func(*hw.Frame) { back <- struct{}{} })
			if err != nil {
				t.Fatal(err)
			}
			reel := newReel(t, c.in.Width, c.in.Height)
			var units []*stream.Unit
			for range 12 {
				units = append(units, code(t, e, reel.paint(shared.Share(f)), back))
			}
			checkCounters(t, units, 0)
			shared.Check(t, hw.Reading, 12)
			if got := int(e.Stats().CopiedBytes); got < 12*c.copy || got > 12*c.most {
				t.Errorf("%d bytes copied, want %d to %d", got, 12*c.copy, 12*c.most)
			}
		})
	}
}

// camera program ─► the encoder's pool ─► encoder program: the box only passes
// numbers on.
func TestACameraProgramFeedsAnEncoderProgram(t *testing.T) {
	noLeaks(t)
	f := install(t, "testcamera", "x264")
	camera, _ := findCamera(t, f).(hw.SharingCamera)
	driver := findEncoder(t, f)
	var pool hw.Pool
	want := hw.Mode{Pixel: hw.NV12, Width: 640, Height: 360, FPS: fps30}
	s, err := camera.OpenShared(t.Context(), want, func(src hw.BufferSource) hw.BufferPlan {
		l, err := driver.Importer.Layout(src.Layout)
		if err == nil {
			pool, err = driver.Importer.Allocate(l, 6)
		}
		if err != nil {
			t.Fatal(err)
		}
		return hw.BufferPlan{Way: hw.Import, Reason: "a test", Pool: pool}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	defer s.Close()
	cfg := config(640, 360, 2_000_000)
	cfg.Input = pool.Layout()
	e := openEncoder(t, driver, cfg)
	defer e.Close()
	var units []*stream.Unit
	var first uint32
	for i := range 60 {
		f, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = f.Seq
		}
		stamp := f.Stamp
		err = e.Submit(f)
		f.Release()
		if err != nil {
			t.Fatal(err)
		}
		u := next(t, e)
		if u.PTS != stamp {
			t.Errorf("stamped %s, comes out stamped %s", stamp, u.PTS)
		}
		units = append(units, u)
	}
	checkCounters(t, units, first)
	if got, want := e.Stats(), (hw.EncoderStats{Submitted: 60, Coded: 60}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
	if st := s.Stats(); st.Missed+st.Damaged > 0 {
		t.Errorf("camera stats %+v", st)
	}
}

// The memory of a camera that was opened again may stand behind the numbers of
// the one before.
func TestNewMemoryBehindOldNumbersIsNew(t *testing.T) {
	noLeaks(t)
	driver := findEncoder(t, install(t, "x264"))
	cfg := config(320, 180, 1_000_000)
	first := newPool(t, driver, 320, 180, 2)
	cfg.Input = first.Layout()
	e := openEncoder(t, driver, cfg)
	back := make(chan struct{}, 1)
	reel := newReel(t, 320, 180)
	var units []*stream.Unit
	numbers := map[int]int{}
	for range 20 { // more buffers than the device knows at a time
		pool, err := driver.Importer.Allocate(cfg.Input, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range pooled(pool, func() { back <- struct{}{} }) {
			numbers[f.Planes[0].FD]++
			units = append(units, code(t, e, reel.paint(f), back))
		}
		if err := pool.Close(); err != nil {
			t.Fatal(err)
		}
	}
	checkCounters(t, units, 0)
	reused := 0
	for _, n := range numbers {
		reused = max(reused, n)
	}
	if s := e.Stats(); s.CopiedBytes > 0 || reused < 2 {
		t.Errorf("stats %+v, a number stood for up to %d buffers", s, reused)
	}
}

// A buffer that is no longer used must not hold a camera's memory.
func TestMemoryThatNoLongerComesIsLetGo(t *testing.T) {
	noLeaks(t)
	driver := findEncoder(t, install(t, "x264"))
	first, second := newPool(t, driver, 320, 180, 3), newPool(t, driver, 320, 180, 2)
	cfg := config(320, 180, 1_000_000)
	cfg.Input = first.Layout()
	opened := openEncoder(t, driver, cfg)
	e, _ := opened.(*encoder)
	back := make(chan struct{}, 1)
	reel := newReel(t, 320, 180)
	attached := func() (n int) {
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, s := range e.slots.list {
			if s.used {
				n++
			}
		}
		return n
	}
	for _, f := range pooled(first, func() { back <- struct{}{} }) {
		code(t, e, reel.paint(f), back)
	}
	frames := pooled(second, func() { back <- struct{}{} })
	var units []*stream.Unit
	e.ForceKey()
	for i := range idle + 10 {
		if want := 3 + min(i, 2); i < idle-3 && attached() != want {
			t.Fatalf("%d buffers after %d pictures, want %d", attached(), i, want)
		}
		units = append(units, code(t, e, reel.paint(frames[i%2]), back))
	}
	if n := attached(); n != 2 {
		t.Errorf("%d buffers are attached, 2 are in use", n)
	}
	checkCounters(t, units, 3)
}

// A dma-buf that is too short for the device and not mapped either.
func TestAPictureThatCannotBeReadIsDropped(t *testing.T) {
	noLeaks(t)
	driver := asked(t, "aligns to 64 and 16")
	pool := newPool(t, driver, 320, 180, 2)
	cfg := config(320, 180, 1_000_000)
	cfg.Input = pool.Layout()
	e := openEncoder(t, driver, cfg)
	back := make(chan struct{}, 1)
	fd, err := memory.Create("short", pool.Layout().Sizes[0]-1)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	short := hw.NewFrame(func(*hw.Frame) { back <- struct{}{} })
	short.Mode = hw.Mode{Pixel: hw.NV12, Width: 320, Height: 180, FPS: fps30}
	short.Planes = memory.Planes(pool.Layout(), hw.Buffer{FDs: [3]int{fd, -1, -1}})
	short.Stamp = time.Second
	for range 10 { // more than it holds
		short.Stamp++
		if err := e.Submit(short.Lend()); err != nil {
			t.Fatal(err)
		}
		short.Release()
		<-back
	}
	f := pooled(pool, func() { back <- struct{}{} })[0]
	code(t, e, newReel(t, 320, 180).paint(f), back)
	if got, want := e.Stats(), (hw.EncoderStats{Submitted: 11, Coded: 1, Dropped: 10}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}

func TestAPictureMayBeSubmittedAgainBeforeItIsBack(t *testing.T) {
	noLeaks(t)
	driver := findEncoder(t, install(t, "x264"))
	pool := newPool(t, driver, 320, 180, 2)
	cfg := config(320, 180, 1_000_000)
	cfg.Input = pool.Layout()
	e := openEncoder(t, driver, cfg)
	var back sync.WaitGroup
	back.Add(3)
	reel := newReel(t, 320, 180)
	for i := range 3 {
		f := pooled(pool, back.Done)[0] // always the same memory
		if i == 0 {
			reel.paint(f)
		}
		f.Stamp = time.Hour + time.Duration(i)
		if err := e.Submit(f.Lend()); err != nil {
			t.Fatal(err)
		}
		f.Release()
	}
	var units []*stream.Unit
	for range 3 {
		units = append(units, next(t, e))
	}
	if got := fmt.Sprint(counters(t, units)); got != "[0 0 0]" {
		t.Errorf("pictures %s", got)
	}
	back.Wait()
}

func TestBitrateTurnsWhileCoding(t *testing.T) {
	noLeaks(t)
	e := openEncoder(t, findEncoder(t, install(t, "x264")), config(320, 180, 400_000))
	back := make(chan struct{}, 1)
	f, err := hw.NewMemoryFrame(hw.Mode{Pixel: hw.NV12, Width: 320, Height: 180, FPS: fps30}, func(*hw.Frame) { back <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	seed := uint32(1)
	for _, want := range []int{1_000_000, 300_000, 2_000_000} {
		if err := e.SetBitrate(want); err != nil {
			t.Fatal(err)
		}
		size := 0
		for i := range 90 {
			for n := range f.Planes[0].Data { // noise takes every bit that it gets
				seed = seed*1664525 + 1013904223
				f.Planes[0].Data[n] = 100 + byte(seed>>26)
			}
			f.Stamp += fps30.Period()
			if u := code(t, e, f, back); i >= 30 { // after a second of settling
				size += len(u.Data)
			}
		}
		if got := size * 8 / 2; got < want*75/100 || got > want*120/100 {
			t.Errorf("at %d bit/s it codes %d", want, got)
		}
	}
}

func TestWhatCannotBeCodedIsRefused(t *testing.T) {
	noLeaks(t)
	driver := findEncoder(t, install(t, "x264"))
	for name, spoil := range map[string]func(*hw.EncoderConfig){
		"another codec":       func(c *hw.EncoderConfig) { c.Codec = stream.H265 },
		"an odd width":        func(c *hw.EncoderConfig) { c.Width = 161 },
		"no height":           func(c *hw.EncoderConfig) { c.Height = 0 },
		"no frame rate":       func(c *hw.EncoderConfig) { c.FPS = hw.Rate{} },
		"no GOP":              func(c *hw.EncoderConfig) { c.GOP = 0 },
		"no bit rate":         func(c *hw.EncoderConfig) { c.Bitrate = 0 },
		"an unknown profile":  func(c *hw.EncoderConfig) { c.Profile = "higher" },
		"an endless profile":  func(c *hw.EncoderConfig) { c.Profile = strings.Repeat("high", 9) },
		"a picture too large": func(c *hw.EncoderConfig) { c.Width = 100_000 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(160, 90, 200_000)
			spoil(&cfg)
			if _, err := driver.Open(cfg); !errors.Is(err, hw.ErrUnsupported) {
				t.Errorf("got %v, want an error that wraps ErrUnsupported", err)
			}
		})
	}
	e := openEncoder(t, driver, config(160, 90, 200_000))
	if err := e.SetBitrate(0); !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("a rate of zero: %v", err)
	}
	for _, m := range []hw.Mode{{Pixel: hw.MJPEG, Width: 160, Height: 90}, {Pixel: hw.NV12, Width: 160, Height: 90}} {
		f := hw.NewFrame(nil) // without memory
		f.Mode = m
		if err := e.Submit(f.Lend()); !errors.Is(err, hw.ErrUnsupported) {
			t.Errorf("a frame of %s without memory: %v", m, err)
		}
		f.Release() // panics if the encoder kept it
	}
	if s := e.Stats(); s.Dropped != 2 || s.Submitted != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestALyingEncoderIsGone(t *testing.T) {
	for script, want := range map[string]struct {
		is   error
		text string
	}{
		"holds no picture":           {wire.ErrProtocol, "holds no picture"},
		"lacks its library":          {hw.ErrMissing, "not installed"},
		"is a camera after all":      {wire.ErrProtocol, "hello of a camera"},
		"exits at once":              {hw.ErrGone, "ended with status 3"},
		"hangs at once":              {hw.ErrGone, "no answer"},
		"returns what it has not":    {wire.ErrProtocol, "picture 9"},
		"returns far out":            {wire.ErrProtocol, "picture 4294967295"},
		"returns twice":              {wire.ErrProtocol, "comes back"},
		"sends an empty unit":        {wire.ErrProtocol, "empty unit"},
		"sends a unit of 4 GB":       {wire.ErrProtocol, "4294967295 bytes"},
		"sends a unit far out":       {wire.ErrProtocol, "of a ring"},
		"sends a unit over the top":  {wire.ErrProtocol, "of a ring"},
		"sends a unit over the edge": {wire.ErrProtocol, "of a ring"},
		"sends a unit of nothing":    {wire.ErrProtocol, "no picture was"},
		"sends a unit of zeros":      {wire.ErrProtocol, "without a picture"},
		"sends no parameter sets":    {wire.ErrProtocol, "no parameter sets"},
		"sends a broken SPS":         {hw.ErrGone, "sequence parameter set"},
		"sends frames":               {wire.ErrProtocol, "frame"},
		"sends descriptors at work":  {wire.ErrProtocol, "descriptors"},
		"says that it has failed":    {hw.ErrGone, ""},
		"exits at work":              {hw.ErrGone, "ended with status 7"},
		"crashes with a signal":      {hw.ErrGone, "was ended by SIGKILL"},
		"codes another size":         {hw.ErrUnsupported, "codes 128x36 instead of 64x36"},
	} {
		t.Run(script, func(t *testing.T) {
			noLeaks(t)
			pool := newPool(t, scriptedDriver(t, script), 64, 36, 2)
			cfg := config(64, 36, 200_000)
			cfg.Input = pool.Layout()
			e, err := scriptedDriver(t, script).Open(cfg)
			if err != nil {
				wantErr(t, err, want.is, want.text)
				return
			}
			back := make(chan struct{}, 1)
			f := pooled(pool, func() { back <- struct{}{} })[0]
			f.Stamp = time.Hour
			if err := e.Submit(f.Lend()); err != nil {
				t.Fatal(err)
			}
			f.Release()
			_, err = e.Next(t.Context())
			wantErr(t, err, want.is, want.text)
			<-back // hangs if the frame is not given back before Close
			f.Stamp++
			if again := e.Submit(f.Lend()); again == nil || again.Error() != err.Error() {
				t.Errorf("submit after %q: %v", err, again)
			}
			f.Release()
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestALyingEncoderIsNotListed(t *testing.T) {
	for script, text := range map[string]string{
		"codes nothing":     "does not code H.264",
		"reads no format":   "0 formats",
		"reads 99 formats":  "99 formats",
		"reads MJPEG":       "MJPG",
		"reads no memory":   "neither",
		"aligns to 3":       "aligned to 3",
		"steps by 0":        "step of 0",
		"codes from 2 to 1": "sizes of 2x16 to 1x8192",
	} {
		t.Run(script, func(t *testing.T) {
			noLeaks(t)
			a := scripted(t, script).ask(func() {})
			if a.err == nil || !strings.Contains(a.err.Error(), text) {
				t.Errorf("got %v, want %q", a.err, text)
			}
		})
	}
}

func TestBuffersThatAnEncoderMakesAreChecked(t *testing.T) {
	for _, script := range []string{"allocates without a buffer", "allocates one too few"} {
		t.Run(script, func(t *testing.T) {
			noLeaks(t)
			d := asked(t, script)
			l, err := d.Importer.Layout(hw.Layout{Pixel: hw.NV12, Width: 64, Height: 36})
			if err != nil {
				t.Fatal(err)
			}
			_, err = d.Importer.Allocate(l, 4)
			wantErr(t, err, wire.ErrProtocol, "descriptors instead of 4")
		})
	}
}

// fill submits frames until the encoder is full, and returns how many it took.
func fill(t *testing.T, e hw.Encoder, frames []*hw.Frame) int {
	t.Helper()
	took := 0
	for i, f := range frames {
		f.Stamp = time.Hour + time.Duration(i)
		f.Lend()
		err := e.Submit(f)
		f.Release()
		if err == nil {
			took++
		} else if !errors.Is(err, hw.ErrBusy) {
			t.Fatal(err)
		}
	}
	return took
}

func TestAHangingEncoderIsFullAndGivesFramesBackAtClose(t *testing.T) {
	noLeaks(t)
	driver := scriptedDriver(t, "hangs at work")
	pool := newPool(t, driver, 64, 36, 16)
	cfg := config(64, 36, 200_000)
	cfg.Input = pool.Layout()
	e := openEncoder(t, driver, cfg)
	var back sync.WaitGroup
	back.Add(16)
	if n := fill(t, e, pooled(pool, back.Done)); n != 4 {
		t.Errorf("it took %d pictures, it said that it holds 4", n)
	}
	if s := e.Stats(); s.Dropped != 12 || s.Submitted != 4 {
		t.Errorf("stats %+v", s)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := e.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("next: %v", err)
	}
	begin := time.Now()
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("close took %s", took)
	}
	back.Wait() // hangs if a frame is not given back
	f := pooled(pool, func() {})[0]
	if err := e.Submit(f.Lend()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("submit after close: %v", err)
	}
	if _, err := e.Next(t.Context()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("next after close: %v", err)
	}
}

func TestAnEncoderThatWantsTooMuchGetsEight(t *testing.T) {
	noLeaks(t)
	driver := scriptedDriver(t, "wants a million in flight")
	pool := newPool(t, driver, 64, 36, 16)
	cfg := config(64, 36, 200_000)
	cfg.Input = pool.Layout()
	if n := fill(t, openEncoder(t, driver, cfg), pooled(pool, func() {})); n != maxInflight {
		t.Errorf("it got %d pictures", n)
	}
}

func TestSwallowedPicturesAreCounted(t *testing.T) {
	noLeaks(t)
	driver := scriptedDriver(t, "swallows every picture")
	pool := newPool(t, driver, 64, 36, 2)
	cfg := config(64, 36, 200_000)
	cfg.Input = pool.Layout()
	e := openEncoder(t, driver, cfg)
	back := make(chan struct{}, 1)
	f := pooled(pool, func() { back <- struct{}{} })[0]
	for i := range maxWaiting + 10 {
		f.Stamp = time.Duration(i + 1)
		if err := e.Submit(f.Lend()); err != nil {
			t.Fatal(err)
		}
		f.Release()
		<-back
	}
	if s := e.Stats(); s.Swallowed != 10 || s.Coded != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestAKilledEncoderIsGone(t *testing.T) {
	noLeaks(t)
	driver := findEncoder(t, install(t, "x264"))
	pool := newPool(t, driver, 320, 180, 4)
	cfg := config(320, 180, 500_000)
	cfg.Input = pool.Layout()
	opened, err := driver.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	e, _ := opened.(*encoder)
	var back sync.WaitGroup
	back.Add(4)
	fill(t, e, pooled(pool, back.Done))
	if err := unix.Kill(e.proc.pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = e.Next(t.Context())
	}
	wantErr(t, err, hw.ErrGone, "was ended by SIGKILL")
	back.Wait()
}

func TestCloseWhileOthersCall(t *testing.T) {
	noLeaks(t)
	driver := findEncoder(t, install(t, "x264"))
	for range 5 {
		e, err := driver.Open(config(160, 90, 200_000))
		if err != nil {
			t.Fatal(err)
		}
		var calls sync.WaitGroup
		calls.Go(func() {
			for i := 1; ; i++ {
				f, _ := hw.NewMemoryFrame(hw.Mode{Pixel: hw.YUYV, Width: 160, Height: 90, FPS: fps30}, nil)
				f.Stamp = time.Duration(i)
				err := e.Submit(f.Lend())
				f.Release()
				if errors.Is(err, os.ErrClosed) {
					return
				}
				if err != nil && !errors.Is(err, hw.ErrBusy) {
					t.Error(err)
					return
				}
				e.ForceKey()
			}
		})
		got := make(chan struct{}, 1)
		calls.Go(func() {
			for {
				if _, err := e.Next(context.Background()); err != nil {
					if !errors.Is(err, os.ErrClosed) {
						t.Error(err)
					}
					return
				}
				select {
				case got <- struct{}{}:
				default:
				}
			}
		})
		<-got
		calls.Go(func() { _ = e.Close() })
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		calls.Wait()
	}
}

func TestAnEncoderSaysWhichDeviceItIsAPartOf(t *testing.T) {
	h := device.HelloEncoder("a stick")
	for parent, good := range map[string]bool{"": true, "/sys/devices/platform/usb1/1-1": true, "/dev/bus/usb": false} {
		wire.PutText(h.Parent[:], parent)
		traits, err := readEncoder(h)
		if (err == nil) != good {
			t.Errorf("%q: %v", parent, err)
			continue
		}
		d := program{id: "external:stick"}.driver(traits, func() {})
		if a, ok := d.Importer.(hw.Attached); good && (!ok || a.Parent() != parent) {
			t.Errorf("a part of %v, want %q", a, parent)
		}
	}
}

func TestAnImporterSaysWhatItReadsInPlace(t *testing.T) {
	layout := func(stride, lines int) hw.Layout {
		l, err := memory.Tight(hw.NV12, 1920, 1080, stride, lines, 0)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	apart := layout(1, 1)
	apart.Planes[1] = hw.PlaneLayout{Buffer: 1, Stride: 1920}
	apart.Sizes = [3]int{1920 * 1080, 1920 * 540}
	wide, err := memory.Tight(hw.NV12, 1920, 1080, 1, 1, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name      string
		format    wire.Format
		src, want hw.Layout
	}{
		{"only a wish", wire.Format{StrideAlign: 64, LinesAlign: 16}, hw.Layout{}, layout(64, 16)},
		{"the tightest", wire.Format{StrideAlign: 64, LinesAlign: 1}, layout(1, 1), layout(1, 1)},
		{"too few lines", wire.Format{StrideAlign: 64, LinesAlign: 16}, layout(1, 1), layout(64, 16)},
		{"1088 lines where 1080 are read", wire.Format{StrideAlign: 64, LinesAlign: 1}, layout(1, 16), layout(1, 1)},
		{"a longer stride", wire.Format{StrideAlign: 64, LinesAlign: 1}, wide, layout(1, 1)},
		{"a longer stride where any will do", wire.Format{StrideAlign: 64, LinesAlign: 1, Flags: wire.AnyStride}, wide, wide},
		{"a stride that is not aligned", wire.Format{StrideAlign: 4096, LinesAlign: 1, Flags: wire.AnyStride | wire.AnyPlace}, wide, layout(4096, 1)},
		{"planes in two buffers", wire.Format{StrideAlign: 64, LinesAlign: 1, Flags: wire.AnyStride}, apart, layout(1, 1)},
		{"planes in two buffers where any place will do", wire.Format{StrideAlign: 64, LinesAlign: 1, Flags: wire.AnyPlace}, apart, apart},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.format.Pixel = uint32(hw.NV12)
			im := importer{traits: traits{minWidth: 16, minHeight: 16, maxWidth: 1920, maxHeight: 1080, step: 2, formats: []wire.Format{c.format}}}
			c.src.Pixel, c.src.Width, c.src.Height = hw.NV12, 1920, 1080
			got, err := im.Layout(c.src)
			if err != nil || got != c.want {
				t.Errorf("got %+v, %v\nwant %+v", got, err, c.want)
			}
			if again, err := im.Layout(got); err != nil || again != got {
				t.Errorf("what it reads becomes %+v, %v", again, err)
			}
			c.src.Width = 1922
			if _, err := im.Layout(c.src); !errors.Is(err, hw.ErrUnsupported) {
				t.Errorf("a picture too wide: %v", err)
			}
		})
	}
}
