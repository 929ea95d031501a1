package boards

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"encoderd.example/hw"
)

// An encoder is the hardware encoder that a board is built with.
type encoder struct {
	drivers []string // how the kernel driver's name begins, any of them, best first
	program string   // for people, if a device program codes in its place; its name may be any
	remedy  string   // what to do if none shows
}

// rank returns the place of a driver in the board's order; ok is false if it is
// none of the board's own.
func (e encoder) rank(d hw.EncoderDriver) (place int, ok bool) {
	i := slices.IndexFunc(e.drivers, func(name string) bool { return strings.HasPrefix(d.Name, "v4l2:"+name) })
	switch {
	case i >= 0:
		return i, true
	case e.program != "" && strings.HasPrefix(d.Name, "external:"):
		return len(e.drivers), true
	default:
		return len(e.drivers) + 1, false
	}
}

// missing says that none of them showed.
func (e encoder) missing() error {
	names := e.drivers
	if e.program != "" {
		names = append(slices.Clone(names), e.program)
	}
	return fmt.Errorf("this board's encoder (%s): %w: %s", strings.Join(names, ", "), hw.ErrMissing, e.remedy)
}

// expect puts the board's own encoder first, and makes the board say so when it
// does not show: a box that silently codes in software passes for a slow one.
func expect(b hw.Board, e encoder) hw.Board {
	find := b.FindEncoders
	b.FindEncoders = func() ([]hw.EncoderDriver, error) {
		found, err := find()
		slices.SortStableFunc(found, func(x, y hw.EncoderDriver) int {
			first, _ := e.rank(x)
			second, _ := e.rank(y)
			return first - second
		})
		own := func(d hw.EncoderDriver) bool { _, ok := e.rank(d); return ok }
		if !slices.ContainsFunc(found, own) {
			err = errors.Join(err, e.missing())
		}
		return found, err
	}
	return b
}
