package gpio

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/warthog618/go-gpiocdev"
	"golang.org/x/sys/unix"

	"encoderd.example/hw"
)

// Errors of pins that lead to no line, or to more than one.
var (
	// ErrNoLine says that there is no line of that name, or no such chip, now.
	ErrNoLine = errors.New("there is no such GPIO line")
	// ErrManyLines says that a name fits more than one line or chip.
	ErrManyLines = errors.New("the name is not unique")
)

// consumer is what others see as the user of our lines.
const consumer = "encoderd"

// A place is where a line is.
type place struct {
	chip   string // "gpiochip0"
	offset int
}

// String returns a pin that means this line and no other until the chip goes.
func (p place) String() string { return fmt.Sprintf("gpio:%s:%d", p.chip, p.offset) }

// find returns where a pin leads to. Numbers of chips change when they are
// plugged: what find returned is for now.
func find(pin hw.Pin) (place, error) {
	kind, name := pin.Kind()
	if kind != "gpio" || name == "" {
		return place{}, fmt.Errorf("%q does not say gpio:NAME or gpio:CHIP:NUMBER: %w", pin, ErrNoLine)
	}
	fits := func(c *gpiocdev.Chip) []int { return named(c, name) }
	if i := strings.LastIndexByte(name, ':'); i > 0 {
		if offset, err := strconv.Atoi(name[i+1:]); err == nil {
			fits = func(c *gpiocdev.Chip) []int { return numbered(c, name[:i], offset) }
		}
	}
	found, err := search(fits)
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return place{}, fmt.Errorf("%s: %w: it is %s and %s", pin, ErrManyLines, found[0], found[1])
	case err != nil: // it may be on a chip that does not let us look
		return place{}, fmt.Errorf("%s: %w: %w", pin, ErrNoLine, err)
	default:
		return place{}, fmt.Errorf("%s: %w", pin, ErrNoLine)
	}
}

// search asks every chip for lines that fit. Chips that cannot be asked make an
// error beside what the others have.
func search(fits func(*gpiocdev.Chip) []int) (found []place, err error) {
	for _, name := range gpiocdev.Chips() {
		c, failed := gpiocdev.NewChip(name)
		if failed != nil {
			err = errors.Join(err, explain(failed))
			continue
		}
		for _, offset := range fits(c) {
			found = append(found, place{c.Name, offset})
		}
		err = errors.Join(err, c.Close())
	}
	return found, err
}

// named returns the lines of c with that name: boards have them more than once.
func named(c *gpiocdev.Chip, name string) (offsets []int) {
	for offset := range c.Lines() {
		if info, err := c.LineInfo(offset); err == nil && info.Name == name {
			offsets = append(offsets, offset)
		}
	}
	return offsets
}

// numbered returns that line of c if it is the chip's name or label.
func numbered(c *gpiocdev.Chip, chip string, offset int) []int {
	if (c.Name != chip && c.Label != chip) || offset < 0 || offset >= c.Lines() {
		return nil
	}
	return []int{offset}
}

// explain gives the kernel's errors the names that the box knows, and says what
// to do where somebody can do something.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("the line is in use: %w", hw.ErrBusy)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("the chip was taken out: %w", hw.ErrGone)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: the user has to be of the group that owns /dev/gpiochip*", err)
	default:
		return err
	}
}

// inUse says who has a line that is busy.
func inUse(at place, err error) error {
	if !errors.Is(err, unix.EBUSY) {
		return explain(err)
	}
	holder := ""
	if c, failed := gpiocdev.NewChip(at.chip); failed == nil {
		if info, failed := c.LineInfo(at.offset); failed == nil {
			holder = info.Consumer
		}
		_ = c.Close() // it was only asked
	}
	return fmt.Errorf("the line is in use by %s: %w", cmp.Or(holder, "the kernel"), hw.ErrBusy)
}
