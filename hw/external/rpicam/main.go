// Rpicam is a device program for the cameras of a Raspberry Pi: it runs
// rpicam-vid, which knows libcamera, and passes its pictures on.
//
//	rpicam-vid ──pictures (I420), a pipe──► buffer of the box
//	           ──metadata, a second pipe──► stamp
//
// It was never run on a Raspberry Pi; see docs/external-devices.md.
package main

import (
	"context"
	"os"

	"encoderd.example/hw/external/device"
	"encoderd.example/hw/external/wire"
)

func main() { os.Exit(run("rpicam-vid")) }

// run serves the camera that a program shows, and returns an exit code.
func run(program string) int {
	return device.Main(func(ctx context.Context, conn *wire.Conn) error {
		return device.Camera(ctx, conn, "Raspberry Pi camera", &source{program: program})
	})
}
