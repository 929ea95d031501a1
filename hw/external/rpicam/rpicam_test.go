package main

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/external"
	"encoderd.example/hw/external/memory"
	"encoderd.example/hw/sim/picture"
	"encoderd.example/stream"
)

// The test program is installed under other names: as the device program,
// which runs a rpicam-vid of its own, and as that rpicam-vid, which behaves as
// the folder it stands in is called.
func TestMain(m *testing.M) {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	// unix.Exit leaves out a second that the race detector sleeps.
	switch name := filepath.Base(os.Args[0]); {
	case strings.HasPrefix(name, "rpicam-as-"):
		unix.Exit(run(filepath.Join(filepath.Dir(self), "..", strings.TrimPrefix(name, "rpicam-as-"), "rpicam-vid")))
	case name == "rpicam-vid":
		unix.Exit(vid(filepath.Base(filepath.Dir(os.Args[0]))))
	}
	goleak.VerifyTestMain(m)
}

// vid behaves as rpicam-vid does, as far as we know it.
func vid(behaviour string) int {
	var width, height int
	var fps float64
	var metadata, skip string
	var list, yes bool
	flag.CommandLine = flag.NewFlagSet("rpicam-vid", flag.ExitOnError)
	flag.BoolVar(&list, "list-cameras", false, "")
	flag.BoolVar(&yes, "nopreview", false, "")
	flag.BoolVar(&yes, "flush", false, "")
	for _, name := range []string{"timeout", "codec", "metadata-format", "output"} {
		flag.StringVar(&skip, name, "", "")
	}
	flag.IntVar(&width, "width", 0, "")
	flag.IntVar(&height, "height", 0, "")
	flag.Float64Var(&fps, "framerate", 0, "")
	flag.StringVar(&metadata, "metadata", "", "")
	flag.Parse()
	switch {
	case list && behaviour == "none":
		fmt.Println("No cameras available!")
		return 0
	case list:
		fmt.Println("Available cameras\n-----------------\n0 : imx708 [4608x2592 10-bit RGGB]")
		return 0
	case behaviour == "busy":
		fmt.Fprintln(os.Stderr, "ERROR: *** failed to acquire camera ***\nPipeline handler in use by another process")
		return 255
	}
	to, err := os.OpenFile(metadata, os.O_WRONLY|os.O_TRUNC, 0)
	if err == nil {
		err = show(behaviour, width, height, fps, to)
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// show writes pictures and, behind each, its metadata. The picture's own clock
// is the time that the metadata tells.
func show(behaviour string, width, height int, fps float64, metadata *os.File) error {
	if behaviour == "deaf" {
		signal.Ignore(os.Interrupt, unix.SIGTERM)
	}
	rate := hw.Rate{Num: int(fps * 1000), Den: 1000}
	pattern, err := picture.NewPattern(hw.Mode{Pixel: hw.I420, Width: width, Height: height, FPS: rate}, "fake")
	if err != nil {
		return err
	}
	tick := time.NewTicker(rate.Period())
	start := stream.Monotonic()
	for seq := uint32(0); ; seq++ {
		<-tick.C
		if behaviour == "dropping" && seq == 5 {
			seq += 2
			<-tick.C
			<-tick.C
		}
		if behaviour == "dying" && seq == 5 {
			return errors.New("ERROR: *** Camera frontend has timed out! ***")
		}
		stamp := start + time.Duration(seq)*rate.Period()
		f := pattern.Frame(seq, stamp, 0)
		for _, p := range f.Planes {
			if _, err := os.Stdout.Write(p.Data); err != nil {
				return err
			}
		}
		f.Release()
		if behaviour == "mute" {
			continue
		}
		if _, err := fmt.Fprintf(metadata, "AeLocked=true\nSensorTimestamp=%d\nColourTemperature=4000\n\n", stamp); err != nil {
			return err
		}
	}
}

// camera installs the device program with a rpicam-vid of that behaviour.
func camera(t *testing.T, behaviour string) *external.Finder {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	devices, fake := filepath.Join(root, "devices"), filepath.Join(root, behaviour)
	err = errors.Join(os.Mkdir(devices, 0o755), os.Mkdir(fake, 0o755))
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(devices, "rpicam-as-"+behaviour), filepath.Join(fake, "rpicam-vid")} {
		if err := os.WriteFile(path, program, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return &external.Finder{Dir: devices, Owner: uint32(os.Getuid()), Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
}

var small = hw.Mode{Width: 320, Height: 180, FPS: hw.Rate{Num: 30, Den: 1}}

func open(t *testing.T, behaviour string) (hw.CameraStream, error) {
	t.Helper()
	list, err := camera(t, behaviour).Cameras()
	if err != nil || len(list) != 1 {
		t.Fatalf("%d cameras: %v", len(list), err)
	}
	s, err := list[0].Open(t.Context(), small)
	if err == nil {
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return s, err
}

func TestPicturesComeWithTheSensorsStamps(t *testing.T) {
	s, err := open(t, "good")
	if err != nil {
		t.Fatal(err)
	}
	if m := s.Mode(); m != (hw.Mode{Pixel: hw.I420, Width: 320, Height: 180, FPS: hw.Rate{Num: 30, Den: 1}, FullRange: true}) {
		t.Errorf("granted %+v", m)
	}
	for i := range uint32(30) {
		f, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		code, ok := picture.Read(f.Planes[0].Data, f.Planes[0].Stride, f.Width, f.Height)
		if !ok || code.Counter != i || f.Seq != i || time.Duration(code.ClockMS)*time.Millisecond != f.Stamp.Truncate(time.Millisecond)%(time.Millisecond<<24) {
			t.Errorf("picture %d reads %+v, %t, stamped %s, number %d", i, code, ok, f.Stamp, f.Seq)
		}
		f.Release()
	}
}

func TestPicturesGoIntoAPoolWithLongLines(t *testing.T) {
	list, err := camera(t, "good").Cameras()
	if err != nil || len(list) != 1 {
		t.Fatalf("%d cameras: %v", len(list), err)
	}
	layout, err := memory.Tight(hw.I420, 320, 180, 512, 16, 0)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := memory.NewPool(layout, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	c, _ := list[0].(hw.SharingCamera)
	s, err := c.OpenShared(t.Context(), small, func(hw.BufferSource) hw.BufferPlan { return hw.BufferPlan{Way: hw.Import, Pool: pool} })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range uint32(10) {
		f, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if code, ok := picture.Read(f.Planes[0].Data, f.Planes[0].Stride, f.Width, f.Height); !ok || code.Counter != i || f.Planes[2].Stride != 256 {
			t.Errorf("picture %d reads %+v, %t", i, code, ok)
		}
		f.Release()
	}
}

func TestDroppedPicturesAreCounted(t *testing.T) {
	s, err := open(t, "dropping")
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		f, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		f.Release()
	}
	if st := s.Stats(); st.Missed != 2 {
		t.Errorf("stats %+v, two were dropped", st)
	}
}

func TestWithoutMetadataStampsAreThoseOfReading(t *testing.T) {
	s, err := open(t, "mute")
	if err != nil {
		t.Fatal(err)
	}
	var last time.Duration
	for range 10 {
		f, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if age := stream.Monotonic() - f.Stamp; f.Stamp <= last || age < 30*time.Millisecond || age > 5*time.Second {
			t.Errorf("stamped %s ago", age)
		}
		last = f.Stamp
		f.Release()
	}
}

func TestTroubleIsTold(t *testing.T) {
	_, err := open(t, "busy")
	if !errors.Is(err, hw.ErrBusy) || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("busy: %v", err)
	}
	s, err := open(t, "dying")
	for err == nil {
		var f *hw.Frame
		if f, err = s.Read(t.Context()); err == nil {
			f.Release()
		}
	}
	if !errors.Is(err, hw.ErrGone) || !strings.Contains(err.Error(), "Camera frontend has timed out") {
		t.Errorf("dying: %v", err)
	}
	if list, err := camera(t, "none").Cameras(); err != nil || len(list) != 0 {
		t.Errorf("without a camera: %v, %v", list, err)
	}
}

func TestADeafOneEndsToo(t *testing.T) {
	s, err := open(t, "deaf")
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.Release()
	begin := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("close took %s", took)
	}
}

func TestGrant(t *testing.T) {
	for _, c := range []struct{ want, got hw.Mode }{
		{hw.Mode{}, hw.Mode{Width: 1920, Height: 1080, FPS: hw.Rate{Num: 30, Den: 1}}},
		{hw.Mode{Width: 854, Height: 481, FPS: hw.Rate{Num: 30000, Den: 1001}}, hw.Mode{Width: 832, Height: 482, FPS: hw.Rate{Num: 30000, Den: 1001}}},
		{hw.Mode{Width: 1, Height: 1, FPS: hw.Rate{Num: 1000, Den: 1}}, hw.Mode{Width: 64, Height: 2, FPS: hw.Rate{Num: 30, Den: 1}}},
		{hw.Mode{Width: 100_000, Height: 100_000}, hw.Mode{Width: 4096, Height: 3072, FPS: hw.Rate{Num: 30, Den: 1}}},
	} {
		c.got.Pixel, c.got.FullRange = hw.I420, true
		if got := grant(c.want); got != c.got {
			t.Errorf("%s grants %s, want %s", c.want, got, c.got)
		}
	}
}
