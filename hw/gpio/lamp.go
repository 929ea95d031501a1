package gpio

import (
	"fmt"

	"github.com/warthog618/go-gpiocdev"

	"encoderd.example/hw"
)

// A Lamp is a line that a lamp or the coil of a contact hangs on. Its methods
// may be called from any goroutine.
type Lamp struct {
	pin  hw.Pin
	line *gpiocdev.Line
}

// OpenLamp takes a line for a lamp, which is dark then. The line is pulled to
// where the lamp is dark, too, if the chip can: on chips that make an input of
// a line that nobody holds, the lamp is dark then. Errors are those of
// [WatchKey].
func OpenLamp(pin hw.Pin, activeLow bool) (*Lamp, error) {
	at, err := find(pin)
	if err != nil {
		return nil, err
	}
	level, pull := gpiocdev.AsActiveHigh, gpiocdev.WithPullDown
	if activeLow {
		level, pull = gpiocdev.AsActiveLow, gpiocdev.WithPullUp
	}
	options := []gpiocdev.LineReqOption{gpiocdev.AsOutput(0), gpiocdev.WithConsumer(consumer), level}
	line, err := gpiocdev.RequestLine(at.chip, at.offset, append(options, pull)...)
	if err != nil { // some drivers pull inputs only, and say so
		line, err = gpiocdev.RequestLine(at.chip, at.offset, options...)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", pin, inUse(at, err))
	}
	return &Lamp{pin, line}, nil
}

// Light switches the lamp: it shines for every color but Dark. A Light that
// blinks fails with hw.ErrUnsupported.
func (l *Lamp) Light(light hw.Light) error {
	if light.On != 0 || light.Off != 0 {
		return fmt.Errorf("%s does not blink by itself: %w", l.pin, hw.ErrUnsupported)
	}
	value := 0
	if light.Color != hw.Dark {
		value = 1
	}
	if err := l.line.SetValue(value); err != nil {
		return fmt.Errorf("%s: %w", l.pin, explain(err))
	}
	return nil
}

// Blinks returns false: no line blinks by itself.
func (l *Lamp) Blinks() bool { return false }

// Close lets go of the line. Whether the lamp stays as it is depends on the
// driver: see docs/decisions/0020.
func (l *Lamp) Close() error { return l.line.Close() }
