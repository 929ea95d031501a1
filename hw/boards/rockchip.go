package boards

import (
	"log/slog"

	"encoderd.example/hw"
	"encoderd.example/hw/external"
)

// rockchip codes H.264 by the vendor's MPP only, which a helper program brings
// (docs/external-devices.md): mainline drivers code JPEG at most.
func rockchip(log *slog.Logger) hw.Board {
	return expect(linux(log, hw.Board{
		Name: "rockchip", Title: "Rockchip RK3566, RK3568, RK3576 or RK3588 (H.264 by an installed MPP program, else in software)",
		Compatible: []string{"rockchip,rk3588", "rockchip,rk3588s", "rockchip,rk3576", "rockchip,rk3568", "rockchip,rk3566"},
	}), encoder{
		program: "Rockchip MPP",
		remedy:  "install a device program for MPP in " + external.Dir + " (docs/external-devices.md), on the vendor's kernel",
	})
}
