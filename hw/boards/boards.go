// Package boards is the list of boards: one literal for each, found by name or
// by the device tree's "compatible" property.
package boards

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"

	"encoderd.example/hw"
)

// A maker builds a board. Making one touches no device.
type maker func(log *slog.Logger) hw.Board

// all lists the boards; the last one is what an unknown machine is.
var all = []maker{
	simBoard, virtBoard,
	raspberryPi, raspberryPi5, imx6, imx8qm, am62p, genio, rockchip,
	genericBoard,
}

// ErrUnknown says that there is no board of that name.
var ErrUnknown = errors.New("unknown board")

// Find returns the board called name, or for "" the one that the device tree
// under root (as of os.DirFS("/")) names, or else "generic".
func Find(name string, root fs.FS, log *slog.Logger) (hw.Board, error) {
	if name == "" {
		return detect(all, compatible(root), log), nil
	}
	var names []string
	for _, m := range all {
		b := m(log)
		if b.Name == name {
			return b, nil
		}
		names = append(names, b.Name)
	}
	return hw.Board{}, fmt.Errorf("%q: %w; there are: %s", name, ErrUnknown, strings.Join(names, ", "))
}

// compatible returns what the device tree calls this machine, most exact first.
func compatible(root fs.FS) []string {
	b, err := fs.ReadFile(root, "proc/device-tree/compatible")
	if err != nil {
		return nil // a PC has none
	}
	return strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
}

// detect returns the board with the most exact of the names, or the last one.
func detect(makers []maker, names []string, log *slog.Logger) hw.Board {
	var best hw.Board
	rank := len(names)
	for _, m := range makers {
		b := m(log)
		i := slices.IndexFunc(names, func(n string) bool { return slices.Contains(b.Compatible, n) })
		if i >= 0 && i < rank {
			best, rank = b, i
		}
	}
	if rank == len(names) {
		return makers[len(makers)-1](log)
	}
	return best
}

// root is the machine's own file system.
func root() fs.FS { return os.DirFS("/") }

// orDiscard keeps a nil logger usable.
func orDiscard(log *slog.Logger) *slog.Logger {
	return cmp.Or(log, slog.New(slog.DiscardHandler))
}
