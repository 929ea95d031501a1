package boards

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"encoderd.example/hw"
)

// A program's camera is asked nothing but its name and its place.
type programCamera struct {
	hw.Camera
	id, parent string
}

func (c programCamera) ID() string     { return c.id }
func (c programCamera) Parent() string { return c.parent }

func TestAProgramForASensorIsToldOnce(t *testing.T) {
	grabber := programCamera{id: "external:grabber", parent: "/sys/devices/usb1/1-1"}
	rpicam := programCamera{id: "external:rpicam"}
	var cameras []hw.Camera
	var log bytes.Buffer
	s := newSensors(
		func() ([]hw.Camera, error) { return cameras, errors.New("another does not answer") },
		slog.New(slog.NewTextHandler(&log, nil)),
	)
	steps := []struct {
		name    string
		cameras []hw.Camera
		led     bool
		told    int // so far
	}{
		{"no program", nil, false, 0},
		{"one for a device on USB", []hw.Camera{grabber}, false, 0},
		{"one for sensors", []hw.Camera{grabber, rpicam}, true, 1},
		{"still there", []hw.Camera{grabber, rpicam}, true, 1},
		{"gone", nil, false, 1},
		{"there again", []hw.Camera{rpicam}, true, 2},
	}
	for _, step := range steps {
		cameras = step.cameras
		if led := s.led("imx219 10-0010"); led != step.led {
			t.Errorf("%s: led %v, want %v", step.name, led, step.led)
		}
		if told := strings.Count(log.String(), `level=INFO msg="a device program leads the sensor" sensor="imx219 10-0010" camera=external:rpicam`); told != step.told {
			t.Errorf("%s: told %d times, want %d:\n%s", step.name, told, step.told, &log)
		}
	}
}
