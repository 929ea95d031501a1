//go:build board

// Tests on the kernel's virtual media controller, vimc: two sensors with
// debayers and an input that all lead to one scaler, and its video node.

package v4l2_test

import (
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/uapi"
)

// vimc loads the driver and returns its cameras by the names of their sources.
func vimc(t *testing.T) map[string]*v4l2.Camera {
	t.Helper()
	command(t, "modprobe vimc")
	t.Cleanup(func() { command(t, "modprobe -r vimc") })
	command(t, "udevadm settle")
	cameras, err := boardFinder.Cameras()
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]*v4l2.Camera{}
	for _, c := range cameras {
		if source, ok := strings.CutPrefix(c.Name(), "vimc, "); ok {
			list[source] = c.(*v4l2.Camera)
			t.Log(c.ID(), c.Name(), c.(*v4l2.Camera).Path())
		}
	}
	return list
}

// linked returns the enabled links that end at an entity, as media-ctl of other
// authors tells them.
func linked(t *testing.T, entity string) (from []string) {
	t.Helper()
	out, err := exec.Command("media-ctl", "-d", "platform:vimc", "-p").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, rest, _ := strings.Cut(string(out), ": "+entity+" (")
	rest, _, _ = strings.Cut(rest, "- entity")
	for line := range strings.Lines(rest) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "<- "); ok && strings.Contains(line, "ENABLED") {
			from = append(from, strings.Split(name, `"`)[1])
		}
	}
	return from
}

func TestBoardMediaDeviceSaysWhatItIs(t *testing.T) {
	vimc(t)
	paths, err := filepath.Glob("/dev/media*")
	if err != nil {
		t.Fatal(err)
	}
	var drivers []string
	for _, path := range paths {
		var info uapi.MediaInfo
		if err := v4l2.Ioctl(boardDevice(t, path), "ask", uapi.MediaDeviceInfo, &info); err != nil {
			t.Fatal(err)
		}
		if info.MediaVersion>>16 != 6 {
			t.Errorf("%s: version %#x", path, info.MediaVersion)
		}
		driver, _, _ := strings.Cut(string(info.Driver[:]), "\x00")
		drivers = append(drivers, driver)
	}
	if !slices.Contains(drivers, "vimc") || !slices.Contains(drivers, "vivid") {
		t.Errorf("there are %v", drivers)
	}
}

func TestBoardMediaControllerLeadsEachSourceToTheNode(t *testing.T) {
	cameras := vimc(t)
	steps := []struct{ source, id, before string }{
		{"Sensor A", "#Sensor-A", "Debayer A"},
		{"RGB/YUV Input", "#RGB-YUV-Input", "RGB/YUV Input"},
		{"Sensor B", "#Sensor-B", "Debayer B"},
		{"Sensor A", "#Sensor-A", "Debayer A"}, // and back again
	}
	for _, step := range steps {
		t.Run(step.source, func(t *testing.T) {
			c := cameras[step.source]
			if c == nil || !strings.HasSuffix(c.ID(), step.id) {
				t.Fatalf("found %v", cameras)
			}
			for _, want := range []hw.Mode{{Width: 320, Height: 240}, {Width: 160, Height: 120}} {
				s := start(t, c, want)
				if m := s.Mode(); m.Width != want.Width || m.Height != want.Height || !m.Pixel.RGB() {
					t.Errorf("granted %s, want %s", m, want)
				}
				if got := linked(t, "Scaler"); !slices.Equal(got, []string{step.before}) {
					t.Errorf("linked to %v, want %s", got, step.before)
				}
				capture(t, s, 5)
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// What nobody has prepared, the kernel does not start.
func TestBoardMediaControllerWantsPadsToAgree(t *testing.T) {
	c := vimc(t)["RGB/YUV Input"]
	d := boardDevice(t, c.Path())
	setFormat(t, d, uapi.BufTypeVideoCapture, code("BGR3"), 320, 240)
	q, err := v4l2.NewQueue(d, uapi.BufTypeVideoCapture, 3, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := q.StreamOn(); !errors.Is(err, unix.EPIPE) {
		t.Errorf("unprepared it starts: %v", err)
	}
	if err := q.Discard(); err != nil {
		t.Error(err)
	}
	s := start(t, c, hw.Mode{Width: 320, Height: 240})
	capture(t, s, 3)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Sensor A also feeds a node of its own, by a link that cannot be cut: who
// streams from there has the sensor.
func TestBoardMediaControllerTellsWhoHasTheSource(t *testing.T) {
	cameras := vimc(t)
	s := start(t, cameras["Sensor A"], hw.Mode{Width: 160, Height: 120})
	capture(t, s, 2)
	if _, err := cameras["RGB/YUV Input"].Open(t.Context(), hw.Mode{}); !errors.Is(err, hw.ErrBusy) {
		t.Errorf("the scaler is ours, and another source gets it: %v", err)
	}
	if modes, err := cameras["RGB/YUV Input"].Modes(); len(modes) == 0 || err != nil { // asking disturbs nobody
		t.Errorf("%v, %v", modes, err)
	}
	capture(t, s, 2)
	if err := s.Close(); err != nil {
		t.Error(err)
	}

	raw := rawCapture(t)
	q, err := v4l2.NewQueue(raw, uapi.BufTypeVideoCapture, 3, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := q.StreamOn(); err != nil {
		t.Fatal(err)
	}
	if _, err := cameras["Sensor A"].Open(t.Context(), hw.Mode{Width: 320, Height: 240}); !errors.Is(err, hw.ErrBusy) {
		t.Errorf("somebody has the sensor: %v", err)
	} else {
		t.Log(err)
	}
	if _, err := cameras["RGB/YUV Input"].Open(t.Context(), hw.Mode{}); !errors.Is(err, hw.ErrBusy) { // what hangs together runs together
		t.Errorf("somebody has the scaler: %v", err)
	} else {
		t.Log(err)
	}
	if err := errors.Join(q.StreamOff(), q.Discard()); err != nil {
		t.Error(err)
	}
	s = start(t, cameras["RGB/YUV Input"], hw.Mode{Width: 160, Height: 120})
	capture(t, s, 2)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// rawCapture opens the node behind Sensor A.
func rawCapture(t *testing.T) *v4l2.Device {
	t.Helper()
	out, err := exec.Command("media-ctl", "-d", "platform:vimc", "-e", "Raw Capture 0").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return boardDevice(t, strings.TrimSpace(string(out)))
}
