package main

import (
	"context"
	"errors"
	"flag"
	"log/slog"

	"encoderd.example/daemon"
	"encoderd.example/daemon/config"
	"encoderd.example/hw"
)

// lampsOff makes the box's lamps dark and opens its contacts, after a daemon
// that could not. It needs no config to do so: what is wrong with that is not
// for now.
func (p program) lampsOff(_ context.Context, args []string) error {
	o, rest, err := p.parse("lamps-off", args, func(fs *flag.FlagSet, o *options) {
		configFlag(fs, o)
		stateFlag(fs, o)
		boardFlag(fs, o)
	})
	if err = errors.Join(err, noMore(rest)); err != nil {
		return err
	}
	quiet := slog.New(slog.DiscardHandler)
	board, err := findBoard(o.board, quiet)
	if err != nil || board.Darken == nil {
		return err
	}
	c, err := load(o, quiet)
	if err != nil {
		c = config.Default()
	}
	return board.Darken(allLamps(c, board))
}

// allLamps lists the lamps of the board and those that the config wires, last
// and so with the last word about a line that both know.
func allLamps(c config.Config, b hw.Board) []hw.LampWire {
	wires := append([]hw.LampWire{}, b.Lamps...)
	for _, l := range c.Lamps {
		w := daemon.LampWire(l)
		if parts, _ := w.Parts(); len(parts) > 0 { // else it is where the board has it
			wires = append(wires, w)
		}
	}
	return wires
}
