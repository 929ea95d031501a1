package main

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"slices"

	"encoderd.example/daemon"
	"encoderd.example/daemon/config"
	"encoderd.example/hw"
)

// lampsOff makes the box's lamps dark and opens its contacts, after a daemon
// that could not. It needs no config to do so: what is wrong with that is not
// for now, and the daemon left word of the lamps that it drove.
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
	return board.Darken(allLamps(c, board, daemon.RememberedLamps(o.state)))
}

// allLamps lists, each once, the lamps of the board, those that the last daemon
// drove, which count if no config loads, and those that the config wires, last
// and so with the last word about a line that others know.
func allLamps(c config.Config, b hw.Board, driven []hw.LampWire) []hw.LampWire {
	var wires []hw.LampWire
	add := func(w hw.LampWire) {
		if parts, _ := w.Parts(); len(parts) > 0 { // else it is where the board has it
			wires = append(slices.DeleteFunc(wires, func(o hw.LampWire) bool { return o == w }), w)
		}
	}
	for _, w := range slices.Concat(b.Lamps, driven) {
		add(w)
	}
	for _, l := range c.Lamps {
		add(daemon.LampWire(l))
	}
	return wires
}
