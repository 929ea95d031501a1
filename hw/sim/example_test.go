package sim_test

import (
	"context"
	"errors"
	"fmt"

	"encoderd.example/hw"
	"encoderd.example/hw/sim"
	"encoderd.example/hw/sim/picture"
)

func ExampleBoard() {
	ctx := context.Background()
	board := sim.New(sim.Options{Name: "Main hall"})

	camera, err := board.Hardware().TestCamera.Open(ctx, hw.Mode{Width: 640, Height: 360})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = camera.Close() }()

	frame, err := camera.Read(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	luma := frame.Planes[0]
	code, ok := picture.Read(luma.Data, luma.Stride, frame.Width, frame.Height)
	fmt.Println(frame.Mode, "frame", code.Counter, ok)
	frame.Release()

	_ = board.SetFault("camera-unplugged", true)
	_, err = camera.Read(ctx)
	fmt.Println(err, errors.Is(err, hw.ErrGone))
	// Output:
	// 640x360 30 fps NV12 frame 0 true
	// read camera test: device is gone true
}
