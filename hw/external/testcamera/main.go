// Testcamera is a device program with the test picture: the reference for
// cameras, and what the tests of hw/external run.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/external/device"
	"encoderd.example/hw/external/memory"
	"encoderd.example/hw/external/wire"
	"encoderd.example/hw/sim"
)

func main() {
	os.Exit(device.Main(func(ctx context.Context, conn *wire.Conn) error {
		camera := sim.New(sim.Options{Name: "external"}).Hardware().TestCamera
		return device.Camera(ctx, conn, "Test picture in a process", &source{camera: camera})
	}))
}

// A source copies the pictures of a camera of hw.
type source struct {
	camera hw.Camera
	stream hw.CameraStream
}

// Modes implements [device.Source].
func (s *source) Modes(context.Context) ([]hw.Mode, error) { return s.camera.Modes() }

// Grant implements [device.Source].
func (s *source) Grant(ctx context.Context, want hw.Mode) (hw.Mode, error) {
	stream, err := s.camera.Open(ctx, want)
	if err != nil {
		return hw.Mode{}, err
	}
	s.stream = stream
	return stream.Mode(), nil
}

// Fill implements [device.Source].
func (s *source) Fill(ctx context.Context, planes []hw.Plane) (time.Duration, uint32, error) {
	f, err := s.stream.Read(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer f.Release()
	if planes != nil && memory.Copy(planes, f.Planes, f.Pixel, f.Width, f.Height) == 0 {
		return 0, 0, fmt.Errorf("copy %s: %w", f.Mode, hw.ErrUnsupported)
	}
	return f.Stamp, f.Seq, nil
}

// Close implements [device.Source].
func (s *source) Close() error { return s.stream.Close() }
