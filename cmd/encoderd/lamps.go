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
// that could not, and darkens the cameras and displays elsewhere that the daemon
// lit. It needs no config to do so: what is wrong with that is not for now, and
// the daemon left word of what it lit. What hangs holds up nothing else, and the
// whole takes five seconds at most: the daemon is not started again before.
func (p program) lampsOff(ctx context.Context, args []string) error {
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
	if err != nil {
		return err
	}
	c, failed := load(o, quiet)
	if failed != nil {
		c = config.Default()
	}
	lit, left := daemon.ReadLit(o.state)
	if !left {
		lit = daemon.Elsewhere(c)
	}
	elsewhere := make(chan error, 1)
	go func() { elsewhere <- lit.DarkenElsewhere(ctx) }()
	if board.Darken != nil {
		err = board.Darken(allLamps(c, board, lit.Lamps))
	}
	return errors.Join(err, <-elsewhere)
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
