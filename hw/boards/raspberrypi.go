package boards

import (
	"log/slog"

	"encoderd.example/hw"
)

// twoLanes is what a bridge sends over two lanes of 972 Mbit/s: 1920x1080 at
// 50 Hz as 16 bits a pixel. At 60 Hz it would be too much.
const twoLanes = 1920 * 1080 * 50

// raspberryPi is every Raspberry Pi whose VideoCore codes H.264: 1080p30 in
// all (level 4.0, 245,760 macroblocks a second), by Raspberry Pi's own kernel.
func raspberryPi(log *slog.Logger) hw.Board {
	return expect(linux(log, hw.Board{
		Name: "raspberrypi", Title: "Raspberry Pi 4, CM4, 400, 3 or Zero 2 W",
		Compatible: []string{
			"raspberrypi,4-model-b", "raspberrypi,4-compute-module", "raspberrypi,400",
			"raspberrypi,model-zero-2-w", "raspberrypi,3-model-b", "raspberrypi,3-model-b-plus", "raspberrypi,3-compute-module",
			"brcm,bcm2711", "brcm,bcm2837",
		},
		MaxPixels: twoLanes,
	}), encoder{
		drivers: []string{"bcm2835-codec"},
		remedy:  "boot Raspberry Pi's kernel (mainline has no driver), with start_x=1 and cma=256M",
	})
}

// raspberryPi5 has no H.264 encoder.
func raspberryPi5(log *slog.Logger) hw.Board {
	return linux(log, hw.Board{
		Name: "raspberrypi5", Title: "Raspberry Pi 5 (no H.264 encoder: codes in software)",
		Compatible: []string{"raspberrypi,5-model-b", "raspberrypi,5-compute-module", "raspberrypi,500", "brcm,bcm2712"},
		MaxPixels:  1920 * 1080 * 60, // four lanes
	})
}
