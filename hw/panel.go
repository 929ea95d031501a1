package hw

import (
	"context"
	"time"
)

// A Pin says where a key, a contact or a part of a lamp is wired:
//
//	gpio:NAME           the GPIO line of that name in the device tree
//	gpio:CHIP:OFFSET    a line by chip (name, as gpiochip0, or label) and number
//	led:NAME            a folder of /sys/class/leds (Linux LED class)
//	sim:NAME            the software board
type Pin string

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
	// Blinks reports whether a lamp blinks by itself, without the processor: only
	// such a lamp may be given a Light that does.
	Blinks(lamp string) bool
	// Run reports how each key stands, then edges, until ctx ends, which is no
	// error. A key that cannot be read is reported with its error and tried again;
	// the others go on. told must not block. One Run at a time.
	Run(ctx context.Context, told func(Edge)) error
	// Light sets a lamp; it returns at once. It fails for a lamp that does not
	// exist or cannot be set now; it may be tried again.
	Light(lamp string, l Light) error
	// Close lets go of the lines and leaves lamps as they are: dark, if the owner
	// set them so.
	Close() error
}
