package boards

import (
	"log/slog"

	"encoderd.example/hw"
	"encoderd.example/hw/sim"
)

// simBoard is made of software: it runs on any developer's machine, and every
// fault comes to order.
func simBoard(*slog.Logger) hw.Board {
	b := sim.New(sim.Options{}).Hardware()
	hang := &hangs{}
	b.Encoders = hang.all(softwareVideo())
	b.AudioEncoders = softwareSound()
	devices := b.Faults
	b.Faults = func(name string, on bool) error {
		if name == encoderHung {
			hang.on.Store(on)
			return nil
		}
		return devices(name, on)
	}
	return b
}
