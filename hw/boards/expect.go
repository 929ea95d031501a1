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
	remedy  string   // what to do if none shows
}

// expect puts the board's own encoder first, and makes the board say so when it
// does not show: a box that silently codes in software passes for a slow one.
func expect(b hw.Board, e encoder) hw.Board {
	find := b.FindEncoders
	b.FindEncoders = func() ([]hw.EncoderDriver, error) {
		found, err := find()
		rank := func(d hw.EncoderDriver) int {
			i := slices.IndexFunc(e.drivers, func(name string) bool { return strings.HasPrefix(d.Name, "v4l2:"+name) })
			if i < 0 {
				return len(e.drivers)
			}
			return i
		}
		slices.SortStableFunc(found, func(x, y hw.EncoderDriver) int { return rank(x) - rank(y) })
		if len(found) == 0 || rank(found[0]) == len(e.drivers) {
			err = errors.Join(err, fmt.Errorf("this board's encoder (%s): %w: %s", strings.Join(e.drivers, ", "), hw.ErrMissing, e.remedy))
		}
		return found, err
	}
	return b
}
