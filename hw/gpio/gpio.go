// Package gpio knows the GPIO lines of the box. It is the only importer of
// warthog618/go-gpiocdev.
package gpio

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/warthog618/go-gpiocdev"
)

// A Chip is one GPIO chip.
type Chip struct {
	Name  string `json:"name"`  // "gpiochip0"; the number may change from boot to boot
	Label string `json:"label"` // what the driver calls it
	Lines []Line `json:"lines"`
}

// A Line is one line of a chip.
type Line struct {
	Offset int    `json:"offset"`
	Name   string `json:"name,omitempty"` // from the device tree, "" if it has none
	// Consumer is who uses the line, "" if nobody does.
	Consumer string `json:"consumer,omitempty"`
}

// List returns the chips that are there. A chip that cannot be asked, for want
// of permission for instance, makes an error beside the list of the others.
func List() ([]Chip, error) {
	var chips []Chip
	var errs []error
	for _, name := range gpiocdev.Chips() {
		c, err := look(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("gpio chip %s: %w", name, err))
			continue
		}
		chips = append(chips, c)
	}
	return chips, errors.Join(errs...)
}

func look(name string) (_ Chip, err error) {
	dev, err := gpiocdev.NewChip(name)
	if err != nil {
		return Chip{}, err
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	c := Chip{Name: dev.Name, Label: dev.Label}
	for offset := range dev.Lines() {
		info, err := dev.LineInfo(offset)
		if err != nil {
			return Chip{}, fmt.Errorf("line %d: %w", offset, err)
		}
		line := Line{Offset: offset, Name: info.Name}
		if info.Used {
			line.Consumer = cmp.Or(info.Consumer, "the kernel")
		}
		c.Lines = append(c.Lines, line)
	}
	return c, nil
}
