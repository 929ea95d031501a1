package hw

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A Pin says where a key, a contact or a part of a lamp is wired:
//
//	gpio:NAME           the GPIO line of that name in the device tree
//	gpio:CHIP:OFFSET    a line by chip (name, as gpiochip0, or label) and number
//	led:NAME            a folder of /sys/class/leds (Linux LED class)
//	sim:NAME            the software board
type Pin string

// Kind returns the word before the first colon of p, and what stands behind it.
func (p Pin) Kind() (kind, rest string) {
	kind, rest, _ = strings.Cut(string(p), ":")
	return kind, rest
}

// A Pull is what holds a line while nothing drives it.
type Pull string

// The pulls. PullDefault leaves it to the board.
const (
	PullDefault Pull = ""
	PullUp      Pull = "up"
	PullDown    Pull = "down"
	PullNone    Pull = "none"
)

// A KeyWire says how a key, or a contact that is read like one, is wired.
type KeyWire struct {
	Name string // for config and people: STREAM
	Pin  Pin
	// ActiveLow says that the line is low while the key is down.
	ActiveLow bool
	Pull      Pull
	// Debounce is how long a level must stand to count; the kernel sees to it.
	Debounce time.Duration
}

// A LampWire says how a lamp, or a contact that is closed like one is lit, is
// wired: by Pin, of one color, or by some of Red, Green and Blue.
type LampWire struct {
	Name             string // for config and people: STREAM
	Pin              Pin
	Red, Green, Blue Pin
	// ActiveLow says that the lines are low while the lamp shines. LEDs of the
	// LED class know that by themselves.
	ActiveLow bool
}

// A LampPart is one line or LED of a lamp, and the colors that it can show.
type LampPart struct {
	Pin    Pin
	Colors Color
}

// Parts returns what w is wired by. It fails unless that is either one pin for
// all colors or a pin for at least one of them.
func (w LampWire) Parts() ([]LampPart, error) {
	var parts []LampPart
	for _, p := range []LampPart{{w.Pin, White}, {w.Red, Red}, {w.Green, Green}, {w.Blue, Blue}} {
		if p.Pin != "" {
			parts = append(parts, p)
		}
	}
	switch {
	case len(parts) == 0:
		return nil, fmt.Errorf("lamp %s: %w", w.Name, errNoPin)
	case w.Pin != "" && len(parts) > 1:
		return nil, fmt.Errorf("lamp %s: %w", w.Name, errTwoWays)
	}
	return parts, nil
}

var (
	errNoPin   = errors.New("no pin says where it is wired")
	errTwoWays = errors.New("it has a pin and a pin of one color: it is either")
)

// An Edge is one movement of a key, already debounced, or how it stands.
type Edge struct {
	Key   string
	Down  bool
	Stamp time.Duration // CLOCK_MONOTONIC
	// Level says that nothing moved: the key was found so, at the start, after
	// it could not be read, or after movements were lost.
	Level bool
	// Err says that the key cannot be read now; Down means nothing then. A Level
	// follows once it can.
	Err error
}

// A Color is what a lamp shows, as a sum of Red, Green and Blue. A lamp of one
// color shines for every Color but Dark.
type Color uint8

// The colors.
const (
	Red Color = 1 << iota
	Green
	Blue
	Dark  Color = 0
	Amber       = Red | Green
	White       = Red | Green | Blue
)

// A Light is what a lamp shows from now on: a color, or with On and Off both
// set that color for On, then none for Off, again and again.
type Light struct {
	Color   Color
	On, Off time.Duration
}

// A Panel is the keys and lamps of a box, with the contacts that are wired like
// them. Its methods may be called from any goroutine.
type Panel interface {
	Keys() []string
	Lamps() []string
	// Blinks reports whether a lamp blinks by itself, without this program: only
	// such a lamp may be given a Light that does. It can turn out later that a
	// lamp may not be told to.
	Blinks(lamp string) bool
	// Run reports how each key stands, then edges, until ctx ends, which is no
	// error. A key that cannot be read is reported with its error, once for each
	// error, and tried again; the others go on. told is called by one goroutine at
	// a time and must not block. One Run at a time: a second fails with ErrBusy.
	Run(ctx context.Context, told func(Edge)) error
	// Light sets a lamp; it returns at once. It fails for a lamp that does not
	// exist or cannot be set now; it may be tried again. A lamp that was taken out
	// and comes back while Run runs is lit as it was.
	Light(lamp string, l Light) error
	// Close lets go of the lines and leaves lamps as they are: dark, if the owner
	// set them so, where the driver keeps what a line was set to. Run has ended.
	Close() error
}
