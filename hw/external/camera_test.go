package external

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/external/memory"
	"encoderd.example/hw/external/wire"
	"encoderd.example/hw/hwtest"
	"encoderd.example/hw/sim/picture"
)

var discard = slog.New(slog.DiscardHandler)

func TestConformance(t *testing.T) {
	noLeaks(t)
	finder := install(t, "testcamera")
	hwtest.Board(t, func() hw.Board {
		return hw.Board{
			Name: "external", Title: "A camera in a process",
			Cameras: finder.Cameras,
			Mics:    func() ([]hw.Mic, error) { return nil, nil },
			Watch: func(ctx context.Context, _ func()) error {
				<-ctx.Done()
				return nil
			},
		}
	})
}

// openScript opens the camera of a script.
func openScript(t *testing.T, script string) (*capture, error) {
	t.Helper()
	c := &Camera{program: scripted(t, script), gone: func() {}}
	s, err := c.open(t.Context(), hw.Mode{}, nil)
	if s != nil {
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return s, err
}

func TestEveryPictureArrivesWhole(t *testing.T) {
	noLeaks(t)
	c := findCamera(t, install(t, "testcamera"))
	s, err := c.Open(t.Context(), hw.Mode{Pixel: hw.NV12, Width: 640, Height: 360, FPS: hw.Rate{Num: 60, Den: 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 60 {
		f, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		code, ok := picture.Read(f.Planes[0].Data, f.Planes[0].Stride, f.Width, f.Height)
		if !ok || code.Counter != f.Seq&(1<<24-1) {
			t.Errorf("picture %d reads %+v, %t", f.Seq, code, ok)
		}
		if f.Planes[0].FD != -1 {
			t.Errorf("memory that is no dma-buf has the descriptor %d", f.Planes[0].FD)
		}
		f.Release()
	}
}

func TestPicturesAreWrittenIntoAPool(t *testing.T) {
	noLeaks(t)
	c, ok := findCamera(t, install(t, "testcamera")).(hw.SharingCamera)
	if !ok {
		t.Fatal("the camera does not share")
	}
	layout, err := memory.Tight(hw.I420, 320, 180, 512, 64, 0) // not the tightest
	if err != nil {
		t.Fatal(err)
	}
	pool, err := memory.NewPool(layout, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	var source hw.BufferSource
	s, err := c.OpenShared(t.Context(), hw.Mode{Pixel: hw.I420, Width: 320, Height: 180}, func(src hw.BufferSource) hw.BufferPlan {
		source = src
		return hw.BufferPlan{Way: hw.Import, Reason: "a test", Pool: pool}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !source.Imports || source.Exports || source.Private == "" || source.Layout.Width != 320 {
		t.Errorf("source %+v", source)
	}
	if p := s.Plan(); p.Way != hw.Import {
		t.Errorf("plan %s", p)
	}
	for range 12 {
		f, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		code, ok := picture.Read(f.Planes[0].Data, f.Planes[0].Stride, f.Width, f.Height)
		if !ok || code.Counter != f.Seq&(1<<24-1) || f.Planes[0].Stride != 512 {
			t.Errorf("picture %d reads %+v, %t at stride %d", f.Seq, code, ok, f.Planes[0].Stride)
		}
		found := false
		for _, b := range pool.Buffers() {
			found = found || b.FDs[0] == f.Planes[0].FD && &b.Mem[0][0] == &f.Planes[0].Data[0]
		}
		if !found {
			t.Error("the picture is not in the pool's memory")
		}
		f.Release()
	}
}

func TestAPoolThatIsRefusedIsDoneWithout(t *testing.T) {
	noLeaks(t)
	c := &Camera{program: scripted(t, "refuses the pool"), gone: func() {}}
	layout, err := memory.Tight(small.Pixel, small.Width, small.Height, 1, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := memory.NewPool(layout, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	asked := 0
	s, err := c.OpenShared(t.Context(), hw.Mode{}, func(hw.BufferSource) hw.BufferPlan {
		asked++
		return hw.BufferPlan{Way: hw.Import, Pool: pool}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if p := s.Plan(); asked != 1 || p.Way != hw.Copy || !strings.Contains(p.Reason, "not contiguous") {
		t.Errorf("asked %d times, plan %s", asked, p)
	}
	f, err := s.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.Release()
}

func TestALyingCameraIsGone(t *testing.T) {
	for script, want := range map[string]struct {
		is   error
		text string
	}{
		"exits at once":                    {hw.ErrGone, "ended with status 3: giving up"},
		"hangs at once":                    {hw.ErrGone, "no answer"},
		"begins with garbage":              {wire.ErrProtocol, "message type"},
		"begins with bye":                  {wire.ErrProtocol, "bye"},
		"sends a short hello":              {wire.ErrProtocol, "500"},
		"sends a huge datagram":            {wire.ErrProtocol, "4096"},
		"sends descriptors with its hello": {wire.ErrProtocol, "3 descriptors"},
		"sends two hundred descriptors":    {wire.ErrProtocol, "descriptors"},
		"speaks version 9":                 {hw.ErrUnsupported, "version 9"},
		"has no mode":                      {wire.ErrProtocol, "0 modes"},
		"has 4000000000 modes":             {wire.ErrProtocol, "4000000000 modes"},
		"has an endless picture":           {wire.ErrProtocol, "2147483648x36"},
		"says that it is busy":             {hw.ErrBusy, "the sensor is used by [31m another program"},
		"grants another layout":            {wire.ErrProtocol, "layout"},
		"grants a plane outside":           {wire.ErrProtocol, "place of a plane"},
		"grants a stride too short":        {wire.ErrProtocol, "place of a plane"},
		"grants a huge buffer":             {wire.ErrProtocol, "size of a buffer"},
		"never answers":                    {hw.ErrGone, "no answer"},
		"sends too few descriptors":        {wire.ErrProtocol, "3 descriptors for 4 buffers"},
		"sends too many descriptors":       {wire.ErrProtocol, "8 descriptors for 4 buffers"},
		"sends one buffer":                 {wire.ErrProtocol, "1 buffers"},
		"sends buffers of another layout":  {wire.ErrProtocol, "was agreed"},
		"sends memory that is not sealed":  {wire.ErrProtocol, "F_SEAL_SHRINK"},
		"sends memory that is too short":   {wire.ErrProtocol, "100 bytes"},
		"sends a file":                     {wire.ErrProtocol, "neither a dma-buf nor a memfd"},
		"sends sockets":                    {wire.ErrProtocol, "neither a dma-buf nor a memfd"},
		"sends a buffer that is not there": {wire.ErrProtocol, "buffer 4 of 4"},
		"sends a buffer far out":           {wire.ErrProtocol, "buffer 4294967295 of 4"},
		"uses more than there is":          {wire.ErrProtocol, "bytes used"},
		"stamps by the wall clock":         {wire.ErrProtocol, "stamped"},
		"stamps the past":                  {wire.ErrProtocol, "stamped"},
		"lends a buffer twice":             {wire.ErrProtocol, "lent already"},
		"says hello again":                 {wire.ErrProtocol, "hello"},
		"sends buffers again":              {wire.ErrProtocol, "descriptors"},
		"loses its signal":                 {hw.ErrNoSignal, ""},
		"dies of an error":                 {nil, "sensor timeout"},
		"hangs while it runs":              {hw.ErrGone, "sends nothing"},
		"exits while it runs":              {hw.ErrGone, "ended with status 42 and said nothing"},
	} {
		t.Run(script, func(t *testing.T) {
			noLeaks(t)
			s, err := openScript(t, script)
			for err == nil {
				var f *hw.Frame
				if f, err = s.Read(t.Context()); err == nil {
					defer f.Release()
				}
			}
			if want.is == nil {
				want.is = err
			}
			wantErr(t, err, want.is, want.text)
			if errors.Is(err, wire.ErrProtocol) && !errors.Is(err, hw.ErrGone) {
				t.Errorf("%v does not say that the device is gone", err)
			}
		})
	}
}

func TestAKilledCameraIsGoneAndItsFramesStay(t *testing.T) {
	noLeaks(t)
	s, err := openScript(t, "good")
	if err != nil {
		t.Fatal(err)
	}
	held, err := s.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(s.proc.pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		var f *hw.Frame
		if f, err = s.Read(t.Context()); err == nil {
			f.Release()
		}
	}
	wantErr(t, err, hw.ErrGone, "was ended by SIGKILL")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	sum := 0
	for _, p := range held.Planes {
		for _, b := range p.Data {
			sum += int(b)
		}
	}
	if sum != 0 {
		t.Errorf("the picture has changed: %d", sum)
	}
	held.Release()
	if _, err := s.Read(t.Context()); !errors.Is(err, fs.ErrClosed) && !errors.Is(err, hw.ErrGone) {
		t.Errorf("read after close: %v", err)
	}
}

// Who sends may notice the end before who receives does: both say the same.
func TestSendingToAKilledProgramSaysHowItEnded(t *testing.T) {
	noLeaks(t)
	p, _, err := scripted(t, "good").start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	p.signal(unix.SIGKILL)
	<-p.exited
	wantErr(t, p.send(wire.Start{}), hw.ErrGone, "was ended by SIGKILL")
}

func TestDamagedAndMissingPicturesAreCounted(t *testing.T) {
	noLeaks(t)
	s, err := openScript(t, "damages pictures")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []uint32{10, 15} {
		f, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if f.Seq != want {
			t.Errorf("picture %d, want %d", f.Seq, want)
		}
		f.Release()
	}
	if got, want := s.Stats(), (hw.CameraStats{Frames: 2, Missed: 2, Damaged: 2}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
}

func TestASignalIsAwaited(t *testing.T) {
	noLeaks(t)
	c := signalCamera{&Camera{program: scripted(t, "has no signal at first"), gone: func() {}, rest: new(rest)}}
	if err := c.AwaitSignal(t.Context()); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	c = signalCamera{&Camera{program: scripted(t, "never gets a signal"), gone: func() {}, rest: new(rest)}}
	if err := c.AwaitSignal(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a signal: %v", err)
	}
}

// A program that cannot even be asked is asked again ever more rarely, and says
// why in words.
func TestAProgramThatDoesNotStartIsNotStartedAgainAtOnce(t *testing.T) {
	noLeaks(t)
	c := signalCamera{&Camera{program: scripted(t, "exits at once"), gone: func() {}, rest: new(rest)}}
	for _, least := range []time.Duration{500 * time.Millisecond, time.Second} {
		begun := time.Now()
		wantErr(t, c.AwaitSignal(t.Context()), hw.ErrGone, "ended with status 3: giving up")
		if took := time.Since(begun); took < least {
			t.Errorf("it may be started again after %s, want %s", took, least)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // of two to rest
	defer cancel()
	if err := c.AwaitSignal(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it rests on: %v", err)
	}
}

func TestARestGetsLongerUntilItWentWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r rest
		took := func(longest time.Duration) time.Duration {
			begun := time.Now()
			if err := r.take(t.Context(), longest); err != nil {
				t.Error(err)
			}
			return time.Since(begun)
		}
		for _, want := range []float64{0.5, 1, 2, 4, 8, 16, 30, 30} {
			if got := took(longestRest).Seconds(); got != want {
				t.Errorf("%v s, want %v", got, want)
			}
		}
		if got := took(signalRest); got != signalRest {
			t.Errorf("without a signal %s, want %s", got, signalRest)
		}
		r.end()
		if got := took(longestRest); got != firstRest {
			t.Errorf("after it went well %s, want %s", got, firstRest)
		}
	})
}

func TestACameraSaysWhichDeviceItIsAPartOf(t *testing.T) {
	noLeaks(t)
	for script, want := range map[string]string{"good": "", "is a part of another": "/sys/devices/platform/usb1/1-1"} {
		p := scripted(t, script)
		a := p.ask(func() {})
		c, ok := a.camera.(hw.Attached)
		if !ok || c.Parent() != want {
			t.Errorf("%s: a part of %v, want %q, %v", script, c, want, a.err)
		}
		if moved, ok := a.camera.(hw.PreferringCamera).Preferring(nil).(hw.Attached); !ok || moved.Parent() != want {
			t.Errorf("%s: a part of %v once it is preferring", script, moved)
		}
	}
	if a := scripted(t, "is a part of nowhere").ask(func() {}); !errors.Is(a.err, wire.ErrProtocol) {
		t.Errorf("nowhere: %v", a.err)
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	noLeaks(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	time.AfterFunc(50*time.Millisecond, func() { cancel(enough) })
	c := &Camera{program: scripted(t, "never answers"), gone: func() {}}
	c.patience.answer = time.Minute
	if _, err := c.Open(ctx, hw.Mode{}); !errors.Is(err, enough) {
		t.Errorf("open ends with %v", err)
	}
}

// alive waits until a process has ended, and reports whether it is still alive
// after limit.
func alive(t *testing.T, pid int, limit time.Duration) bool {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(limit.Milliseconds()))
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(limit.Milliseconds()))
	}
	return n == 0
}

// childPid starts a script whose name is the number of another process.
func childPid(t *testing.T, script string) (*process, int) {
	t.Helper()
	p, hello, err := scripted(t, script).start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	h, ok := hello.(wire.HelloCamera)
	if !ok {
		t.Fatalf("hello is %T", hello)
	}
	pid, err := strconv.Atoi(wire.Text(h.Name[:]))
	if err != nil || !alive(t, pid, 0) {
		t.Fatalf("no process %q: %v", h.Name, err)
	}
	return p, pid
}

func TestWhatAProgramStartedEndsWithIt(t *testing.T) {
	p, pid := childPid(t, "leaves a child behind")
	p.stop()
	if alive(t, pid, 5*time.Second) {
		t.Error("the program's own child has outlived it")
	}
}

func TestAProgramEndsWithTheBox(t *testing.T) {
	box, pid := childPid(t, "is a box")
	if err := unix.Kill(box.pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if alive(t, pid, 5*time.Second) {
		t.Error("the device program has outlived the box")
	}
}

// Pdeathsig is sent when the starting thread ends: here it ends at once.
func TestAProgramOutlivesTheThreadThatAskedForIt(t *testing.T) {
	noLeaks(t)
	c := &Camera{program: scripted(t, "good"), gone: func() {}}
	opened := make(chan *capture)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		s, err := c.open(context.Background(), hw.Mode{}, nil)
		if err != nil {
			t.Error(err)
		}
		opened <- s
	}()
	s := <-opened
	defer s.Close()
	for range 50 {
		f, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		f.Release()
	}
}

func TestSurroundingsAreClean(t *testing.T) {
	noLeaks(t)
	t.Setenv("SECRET", "of the box")
	inherited, err := memory.Create("of the box", 10)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(inherited)
	p, hello, err := scripted(t, "tells its surroundings").start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	h, _ := hello.(wire.HelloCamera)
	if got := wire.Text(h.Name[:]); got != "3 true / 1" {
		t.Errorf("environment, group, folder, version, memory: %q", got)
	}
}

func TestAFloodOfWordsIsBounded(t *testing.T) {
	j := &journal{}
	p := scripted(t, "floods its log")
	p.log = j.log()
	r, _, err := p.start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.stop()
	text := j.String()
	if lines := strings.Count(text, "\n"); lines > maxLines+2 || !strings.Contains(text, "first words") || !strings.Contains(text, "lines_left_out=4982") {
		t.Errorf("%d lines:\n%s", lines, text[:min(len(text), 4000)])
	}
	if strings.Contains(text, "\x1b") || len(text) > 2*maxLines*maxLine {
		t.Errorf("%d bytes, with control characters %t", len(text), strings.Contains(text, "\x1b"))
	}
}
