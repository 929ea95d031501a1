//nolint:thelper // most functions are checks: failures belong to their own lines
package hwtest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"encoderd.example/hw"
	"encoderd.example/stream"
)

// cameraChecks are run on every camera and on the test camera.
var cameraChecks = []struct {
	name string
	run  func(*testing.T, hw.Camera)
}{
	{"modes can be opened", opensModes},
	{"frames look as the granted mode says", deliversFrames},
	{"numbers and stamps rise", risesSteadily},
	{"a held frame is not painted over", keepsHeldFrames},
	{"frames stay readable after Close", releasesAfterClose},
	{"cancel ends a waiting Read", cancelsRead},
	{"Close ends a waiting Read", closesRead},
	{"a second Open leaves the first alone", opensTwice},
	{"can be opened again after Close", reopens},
	{"buffers are shared as planned", sharesBuffers},
	{"what cannot be shared is copied, and the plan says why", copiesInstead},
	{"a preference makes no other camera of it", keepsItsName},
	{"waiting for a signal ends with its context", endsWaitForSignal},
}

func cameras(t *testing.T, newBoard func() hw.Board) {
	t.Helper()
	for _, id := range cameraIDs(t, newBoard()) {
		for _, c := range cameraChecks {
			check(t, "camera "+id+": "+c.name, newBoard, func(t *testing.T, b hw.Board) {
				c.run(t, findCamera(t, b, id))
			})
		}
	}
	if newBoard().TestCamera == nil {
		return
	}
	for _, c := range cameraChecks {
		check(t, "test camera: "+c.name, newBoard, func(t *testing.T, b hw.Board) { c.run(t, b.TestCamera) })
	}
}

func findCamera(t *testing.T, b hw.Board, id string) hw.Camera {
	t.Helper()
	list := must[[]hw.Camera](t, "list cameras")(b.Cameras())
	i := slices.IndexFunc(list, func(c hw.Camera) bool { return c.ID() == id })
	if i < 0 {
		t.Fatalf("camera %q is no longer listed", id)
	}
	return list[i]
}

// open opens a small mode, so that the suite stays quick on small machines.
func open(t *testing.T, c hw.Camera) hw.CameraStream {
	t.Helper()
	want := hw.Mode{Width: 640, Height: 360, FPS: hw.Rate{Num: 30, Den: 1}}
	return must[hw.CameraStream](t, "open")(c.Open(t.Context(), want))
}

func closeStream(t *testing.T, s interface{ Close() error }) {
	t.Helper()
	within(t, "Close", func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
}

func read(t *testing.T, s hw.CameraStream) *hw.Frame {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return must[*hw.Frame](t, "read")(s.Read(ctx))
}

func opensModes(t *testing.T, c hw.Camera) {
	modes := must[[]hw.Mode](t, "modes")(c.Modes())
	if len(modes) == 0 {
		t.Fatal("the camera offers no mode")
	}
	want := modes[0]
	s := must[hw.CameraStream](t, "open")(c.Open(t.Context(), want))
	defer closeStream(t, s)
	if got := s.Mode(); got.Pixel != want.Pixel || got.Width != want.Width || got.Height != want.Height {
		t.Errorf("offered %s, granted %s", want, got)
	}
}

func deliversFrames(t *testing.T, c hw.Camera) {
	s := must[hw.CameraStream](t, "open with no wish")(c.Open(t.Context(), hw.Mode{}))
	defer closeStream(t, s)
	const frames = 3
	for range frames {
		f := read(t, s)
		if f.Mode != s.Mode() {
			t.Errorf("frame is %s, granted was %s", f.Mode, s.Mode())
		}
		checkPlanes(t, f)
		age := stream.Monotonic() - f.Stamp
		if age < -100*time.Millisecond || age > patience {
			t.Errorf("stamp is %v before now on CLOCK_MONOTONIC", age)
		}
		f.Release()
	}
	if st := s.Stats(); st.Frames < frames {
		t.Errorf("%d frames counted, %d read", st.Frames, frames)
	}
}

// checkPlanes checks that the memory holds what the mode promises.
func checkPlanes(t *testing.T, f *hw.Frame) {
	t.Helper()
	if f.Pixel == hw.MJPEG {
		if len(f.Planes) != 1 || len(f.Planes[0].Data) < 4 {
			t.Errorf("MJPEG frame with %d planes", len(f.Planes))
		}
		return
	}
	shapes := f.Pixel.Planes()
	if len(f.Planes) != len(shapes) {
		t.Fatalf("%d planes, %s has %d", len(f.Planes), f.Mode, len(shapes))
	}
	for i, p := range f.Planes {
		line := shapes[i].Line(f.Width)
		if p.Stride < line {
			t.Errorf("plane %d: stride %d is less than a line of %d bytes", i, p.Stride, line)
		}
		if need := p.Stride*(shapes[i].Lines(f.Height)-1) + line; p.Data != nil && len(p.Data) < need {
			t.Errorf("plane %d: %d bytes, its lines need %d", i, len(p.Data), need)
		}
		if p.Data == nil && p.FD < 0 {
			t.Errorf("plane %d has neither memory nor a descriptor", i)
		}
	}
}

func risesSteadily(t *testing.T, c hw.Camera) {
	s := open(t, c)
	defer closeStream(t, s)
	var lastSeq uint32
	var lastStamp time.Duration
	for i := range 15 {
		f := read(t, s)
		if i > 0 && (f.Seq-lastSeq == 0 || f.Seq-lastSeq > 1<<31) {
			t.Errorf("frame %d follows frame %d", f.Seq, lastSeq)
		}
		if i > 0 && f.Stamp <= lastStamp {
			t.Errorf("stamp %v follows stamp %v", f.Stamp, lastStamp)
		}
		lastSeq, lastStamp = f.Seq, f.Stamp
		f.Release()
	}
}

func keepsHeldFrames(t *testing.T, c hw.Camera) {
	s := open(t, c)
	defer closeStream(t, s)
	held := read(t, s)
	before := slices.Clone(held.Planes[0].Data)
	seq, stamp := held.Seq, held.Stamp
	for range 6 { // three are out at a time, which every driver can do
		a, b := read(t, s), read(t, s)
		if a == held || b == held || a == b {
			t.Fatal("a held frame was lent again")
		}
		a.Release()
		b.Release()
	}
	if !bytes.Equal(held.Planes[0].Data, before) || held.Seq != seq || held.Stamp != stamp {
		t.Error("the held frame has changed")
	}
	held.Release()
}

func releasesAfterClose(t *testing.T, c hw.Camera) {
	s := open(t, c)
	held := read(t, s)
	before := slices.Clone(held.Planes[0].Data)
	closeStream(t, s)
	if !bytes.Equal(held.Planes[0].Data, before) {
		t.Error("the held frame has changed with Close")
	}
	held.Release()
}

func cancelsRead(t *testing.T, c hw.Camera) {
	s := open(t, c)
	defer closeStream(t, s)
	read(t, s).Release()
	ctx, cancel := context.WithCancel(t.Context())
	err := endsRead(t, func() (*hw.Frame, error) { return s.Read(ctx) }, cancel)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("read ended with %v", err)
	}
}

func closesRead(t *testing.T, c hw.Camera) {
	s := open(t, c)
	read(t, s).Release()
	ctx := t.Context()
	err := endsRead(t, func() (*hw.Frame, error) { return s.Read(ctx) }, func() { closeStream(t, s) })
	if errors.Is(err, context.Canceled) {
		t.Errorf("read ended with %v, but only Close was called", err)
	}
}

// endsRead reads until end, called while a Read waits, has ended it, and
// returns the error.
func endsRead(t *testing.T, next func() (*hw.Frame, error), end func()) error {
	t.Helper()
	ended := make(chan error, 1)
	go func() {
		f, err := next()
		for err == nil {
			f.Release()
			f, err = next()
		}
		ended <- err
	}()
	end()
	var err error
	within(t, "Read", func() { err = <-ended })
	return err
}

func opensTwice(t *testing.T, c hw.Camera) {
	first := open(t, c)
	defer closeStream(t, first)
	second, err := c.Open(t.Context(), first.Mode())
	if err == nil {
		defer closeStream(t, second)
	} else if !errors.Is(err, hw.ErrBusy) {
		t.Errorf("second Open fails with %v; want ErrBusy or none", err)
	}
	for range 3 {
		read(t, first).Release()
	}
}

func reopens(t *testing.T, c hw.Camera) {
	for range 3 {
		s := open(t, c)
		read(t, s).Release()
		closeStream(t, s)
	}
}

// openShared opens a small mode with the plan that decide makes.
func openShared(t *testing.T, c hw.SharingCamera, decide func(hw.BufferSource) hw.BufferPlan) hw.SharedStream {
	t.Helper()
	want := hw.Mode{Width: 640, Height: 360, FPS: hw.Rate{Num: 30, Den: 1}}
	asked := 0
	s := must[hw.SharedStream](t, "open shared")(c.OpenShared(t.Context(), want, func(src hw.BufferSource) hw.BufferPlan {
		asked++
		checkSource(t, src)
		return decide(src)
	}))
	if asked != 1 {
		t.Errorf("decide was called %d times", asked)
	}
	return s
}

func checkSource(t *testing.T, src hw.BufferSource) {
	t.Helper()
	if src.Driver == "" || !src.Exports && src.Private == "" {
		t.Errorf("driver %q, exports: %v (%q)", src.Driver, src.Exports, src.Private)
	}
	l := src.Layout
	if l == (hw.Layout{}) {
		if _, _, err := src.Mode.Layout(); err == nil {
			t.Errorf("no layout of %s", src.Mode)
		}
		return
	}
	if l.Pixel != src.Mode.Pixel || l.Width != src.Mode.Width || l.Height != src.Mode.Height || l.Buffers() == 0 || !l.Reads(l) {
		t.Errorf("the layout of %s is %+v", src.Mode, l)
	}
}

func sharesBuffers(t *testing.T, c hw.Camera) {
	sharing, ok := c.(hw.SharingCamera)
	if !ok {
		return
	}
	var source hw.BufferSource
	s := openShared(t, sharing, func(src hw.BufferSource) hw.BufferPlan {
		source = src
		if src.Exports {
			return hw.BufferPlan{Way: hw.Export, Reason: "the suite reads it"}
		}
		return hw.BufferPlan{Way: hw.Copy, Reason: "the suite has no better way"}
	})
	defer closeStream(t, s)
	if s.Plan().Reason == "" || source.Exports != (s.Plan().Way == hw.Export) {
		t.Errorf("the camera says %+v, its stream %s", source, s.Plan())
	}
	for range 4 {
		f := read(t, s)
		if f.Mode != source.Mode {
			t.Errorf("frame is %s, granted was %s", f.Mode, source.Mode)
		}
		checkPlanes(t, f)
		checkPlaces(t, f, source)
		f.Release()
	}
}

// checkPlaces checks that a shared frame lies where the layout says, and one
// that is not shared names no dma-buf.
func checkPlaces(t *testing.T, f *hw.Frame, src hw.BufferSource) {
	t.Helper()
	for i, p := range f.Planes {
		if !src.Exports {
			if p.FD != -1 {
				t.Errorf("plane %d of a frame that is not shared is in dma-buf %d", i, p.FD)
			}
			continue
		}
		at := src.Layout.Planes[i]
		if p.FD < 0 || p.Offset != at.Offset || p.Stride != at.Stride {
			t.Errorf("plane %d: byte %d of dma-buf %d, stride %d; the layout says %+v", i, p.Offset, p.FD, p.Stride, at)
		}
	}
}

func copiesInstead(t *testing.T, c hw.Camera) {
	sharing, ok := c.(hw.SharingCamera)
	if !ok {
		return
	}
	s := openShared(t, sharing, func(hw.BufferSource) hw.BufferPlan {
		return hw.BufferPlan{Way: hw.Import, Reason: "into a pool that is not there"}
	})
	defer closeStream(t, s)
	if p := s.Plan(); p.Way != hw.Copy || p.Reason == "" || p.Pool != nil {
		t.Errorf("the plan is %s", p)
	}
	f := read(t, s)
	checkPlanes(t, f)
	f.Release()
}

func keepsItsName(t *testing.T, c hw.Camera) {
	preferring, ok := c.(hw.PreferringCamera)
	if !ok {
		return
	}
	other := preferring.Preferring([]hw.PixelFormat{hw.H264, hw.I420, hw.YUYV})
	if other.ID() != c.ID() || other.Name() != c.Name() {
		t.Errorf("%s %q became %s %q", c.ID(), c.Name(), other.ID(), other.Name())
	}
	s := must[hw.CameraStream](t, "open")(other.Open(t.Context(), hw.Mode{}))
	defer closeStream(t, s)
	if s.Mode().Pixel == hw.H264 {
		t.Error("H.264 comes without a wish for it")
	}
	read(t, s).Release()
}

func endsWaitForSignal(t *testing.T, c hw.Camera) {
	waiting, ok := c.(hw.SignalCamera)
	if !ok {
		return
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	within(t, "AwaitSignal", func() {
		if err := waiting.AwaitSignal(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("waiting ends with %v", err)
		}
	})
}

func replugsCamera(t *testing.T, b hw.Board) {
	ids := cameraIDs(t, b)
	if len(ids) == 0 {
		t.Fatal("the board knows no camera to unplug")
	}
	c := findCamera(t, b, ids[0])
	s := open(t, c)
	read(t, s).Release()
	replug(t, b, unplugCamera, func() []string { return cameraIDs(t, b) }, func() {
		within(t, "Read of an unplugged camera", func() {
			f, err := s.Read(t.Context())
			for err == nil {
				f.Release()
				f, err = s.Read(t.Context())
			}
			if !errors.Is(err, hw.ErrGone) {
				t.Errorf("read of an unplugged camera: %v; want ErrGone", err)
			}
		})
		closeStream(t, s)
		if _, err := c.Open(t.Context(), hw.Mode{}); !errors.Is(err, hw.ErrGone) {
			t.Errorf("open of an unplugged camera: %v; want ErrGone", err)
		}
	})
	reopens(t, findCamera(t, b, ids[0]))
}

// replug unplugs a device, does while, plugs it in again, and checks that
// Watch and the listing say so.
func replug(t *testing.T, b hw.Board, fault string, list func() []string, while func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	changed, ended := make(chan struct{}, 64), make(chan error, 1)
	go func() {
		ended <- b.Watch(ctx, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("watch: %v", err)
		}
	}()

	before := list()
	for _, on := range []bool{true, false} {
		if err := b.Faults(fault, on); err != nil {
			t.Fatal(err)
		}
		timeout := time.After(patience)
		for slices.Equal(list(), before) == on {
			select {
			case <-changed:
			case <-timeout:
				t.Fatalf("%s %v: neither Watch nor the listing shows it", fault, on)
			}
		}
		if on {
			while()
		}
	}
}
