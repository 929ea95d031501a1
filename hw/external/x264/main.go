// X264 is a device program that codes by the system's libx264: the reference
// for encoders, and what the tests of hw/external run.
package main

import (
	"context"
	"os"

	"encoderd.example/hw/external/device"
	"encoderd.example/hw/external/wire"
	"encoderd.example/hw/soft"
)

func main() {
	os.Exit(device.Main(func(ctx context.Context, conn *wire.Conn) error {
		return device.Encoder(ctx, conn, device.HelloEncoder("libx264 in a process"), soft.X264())
	}))
}
