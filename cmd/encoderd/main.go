// Encoderd is the firmware daemon of a live encoder box.
//
// See "encoderd help" for its commands. Exit codes: 0 well, 1 failed, 2 wrong
// use, 78 (EX_CONFIG) bad config.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// version is set by the linker.
var version = "devel"

// Exit codes (sysexits.h for the last).
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitConfig = 78
)

// errUsage marks wrong use of the command line.
var errUsage = errors.New("wrong use")

// errConfig marks a config that cannot be used.
var errConfig = errors.New("bad config")

// program is what a command works with.
type program struct {
	stdout, stderr io.Writer
}

// A command is one word of the command line.
type command struct {
	name, args, text string
	run              func(p program, ctx context.Context, args []string) error
}

// commands lists them in the order of the help.
func commands() []command {
	return []command{
		{"run", "[--config FILE] [--state DIR] [--board NAME]", "run the box until it is told to stop", program.run},
		{"check", "[--config FILE] [--state DIR] [--board NAME] [--json]", "check the config and print the plan; changes nothing", program.check},
		{"probe", "[--config FILE] [--state DIR] [--board NAME] [--json] [--measure]", "list cameras, sound cards and encoders; measure what hardware encoders can do", program.probe},
		{"status", "[--state DIR] [--json] [--watch]", "tell how the running box is", program.status},
		{"do", "[--state DIR] ACTION [KEY=VALUE …]", "order the running box to do something", program.do},
		{"link", "[--state DIR] [--for 12h] RENDITION", "make a link that opens a rendition for some time; * is all", program.link},
		{"lamps-off", "[--config FILE] [--state DIR] [--board NAME]", "make the lamps dark and open the contacts, after a daemon that could not", program.lampsOff},
		{"version", "", "print the version", program.version},
	}
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "run" {
		relaxTimers()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, program{os.Stdout, os.Stderr}, os.Args[1:])) //nolint:gocritic // stop only restores signals
}

// run carries out a command line and returns the exit code.
func run(ctx context.Context, p program, args []string) int {
	if len(args) == 0 {
		p.usage(p.stderr)
		return exitUsage
	}
	switch args[0] {
	case "help", "-h", "--help":
		p.usage(p.stdout)
		return exitOK
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return p.finish(c, c.run(p, ctx, args[1:]))
		}
	}
	fmt.Fprintf(p.stderr, "encoderd: there is no command %q\n", args[0])
	p.usage(p.stderr)
	return exitUsage
}

// finish tells an error and turns it into an exit code.
func (p program) finish(c command, err error) int {
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(p.stdout, "usage: encoderd %s %s\n%s\n", c.name, c.args, c.text)
		return exitOK
	case errors.Is(err, errUsage):
		fmt.Fprintf(p.stderr, "encoderd: %v\nusage: encoderd %s %s\n", err, c.name, c.args)
		return exitUsage
	case errors.Is(err, errConfig):
		fmt.Fprintf(p.stderr, "encoderd: %v\n", err)
		return exitConfig
	default:
		fmt.Fprintf(p.stderr, "encoderd: %v\n", err)
		return exitFailed
	}
}

func (p program) usage(w io.Writer) {
	fmt.Fprintln(w, "usage:")
	for _, c := range commands() {
		fmt.Fprintf(w, "  encoderd %-8s %s\n               %s\n", c.name, c.args, c.text)
	}
}

func (p program) version(_ context.Context, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%w: version takes no arguments", errUsage)
	}
	fmt.Fprintln(p.stdout, "encoderd", version)
	return nil
}

// options are the flags that several commands share.
type options struct {
	config, state, board string
	json, watch, measure bool
	length               time.Duration // of a link
}

// parse reads the flags that a command has, and returns what follows them.
func (p program) parse(name string, args []string, bind func(*flag.FlagSet, *options)) (options, []string, error) {
	var o options
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	bind(fs, &o)
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return o, nil, err
		}
		return o, nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	return o, fs.Args(), nil
}

// noMore refuses arguments that nobody reads.
func noMore(args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%w: %q is too much", errUsage, args[0])
	}
	return nil
}

func configFlag(fs *flag.FlagSet, o *options) {
	fs.StringVar(&o.config, "config", "", "config file")
}

func stateFlag(fs *flag.FlagSet, o *options) {
	fs.StringVar(&o.state, "state", defaultState(), "state directory")
}

func boardFlag(fs *flag.FlagSet, o *options) {
	fs.StringVar(&o.board, "board", "", "board; the device tree says by default")
}

func jsonFlag(fs *flag.FlagSet, o *options) {
	fs.BoolVar(&o.json, "json", false, "print JSON")
}

// defaultState is where the box keeps what outlives a restart.
func defaultState() string {
	if dir := os.Getenv("ENCODERD_STATE"); dir != "" {
		return dir
	}
	if os.Geteuid() == 0 {
		return "/var/lib/encoderd"
	}
	if home, err := os.UserHomeDir(); err == nil {
		return home + "/.local/state/encoderd"
	}
	return "encoderd-state"
}
