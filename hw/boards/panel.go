package boards

import (
	"context"
	"time"

	"encoderd.example/hw"
	"encoderd.example/hw/face"
	"encoderd.example/hw/gpio"
	"encoderd.example/hw/led"
	"encoderd.example/hw/uevent"
)

// panels makes panels of what Linux has: GPIO lines and LEDs.
func panels() face.Maker {
	return face.Maker{
		Kinds: map[string]face.Kind{
			"gpio": {Key: gpio.WatchKey, Lamp: gpioLamp},
			"led":  {Lamp: ledLamp},
		},
		Watch: watchPanels,
	}
}

func gpioLamp(pin hw.Pin, activeLow bool) (face.Lamp, error) {
	l, err := gpio.OpenLamp(pin, activeLow)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// ledLamp: LEDs know by themselves whether they are active low.
func ledLamp(pin hw.Pin, _ bool) (face.Lamp, error) {
	l, err := led.Class{}.Open(pin)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// watchPanels hears of chips and LEDs that come and go. Lighting an LED makes
// an event, too, which is none of those.
func watchPanels(ctx context.Context, changed func()) error {
	return uevent.Listen(ctx, []string{"gpio", "leds"}, func(e uevent.Event) {
		if e.Lost || e.Action == "add" || e.Action == "remove" {
			changed()
		}
	})
}

// contactBounce is how long a good key bounces at most.
const contactBounce = 5 * time.Millisecond

// virtKeys and virtLamps are the face of the virtual board, which pulls its keys
// up by itself: a pull that was asked for would press or release them.
func virtKeys() []hw.KeyWire {
	var wires []hw.KeyWire
	for _, k := range []struct {
		name string
		pin  hw.Pin
	}{{"STREAM", "gpio:GO_LIVE"}, {"REC", "gpio:REC"}, {"MUTE", "gpio:MUTE"}, {"RESET", "gpio:RESET"}} {
		wires = append(wires, hw.KeyWire{Name: k.name, Pin: k.pin, ActiveLow: true, Debounce: contactBounce})
	}
	return wires
}

func virtLamps() []hw.LampWire {
	return []hw.LampWire{
		{Name: "STREAM", Pin: "gpio:LAMP_STREAM"},
		{Name: "REC", Pin: "gpio:LAMP_REC"},
		{Name: "TALLY", Pin: "gpio:TALLY"},
		{Name: "STAGE", Pin: "gpio:LAMP_STAGE"},
	}
}
