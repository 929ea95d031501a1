// Bench measures encoderd beside other programs on the same input, as ratios
// inside one run: absolute times say more about the machine than about us.
//
//	push     encode and push 720p30 by RTMP, beside ffmpeg: CPU and memory
//	capture  YUYV and MJPEG pictures of a camera to coded units, beside ffmpeg:
//	         CPU, bytes copied, time from stamp to publication
//	paths    on the virtual board, every way of pictures from a camera to
//	         publication: bytes copied, time from stamp to publication
//	latency  capture of a picture to its last packet at an RTSP reader
//	panel    a key's movement to its action, the status to the lamp
//	allocs   allocations for each unit published, with 0, 1 and 20 readers
//	whole    CPU of the whole box for each RTSP reader, beside a bare program
//	         that writes the same bytes to as many sockets
//	serve    our servers beside others on the same coded material, at 1, 50 and
//	         200 readers of each protocol: CPU, memory, time to the first
//	         picture, latency, loss. PEER_MEDIAMTX and PEER_GO2RTC name programs
//	         that no distribution has
//
// The programs run in turn, and medians of several rounds count. Whatever makes
// load for a test runs in a process of its own, which is this program again
// (see child.go).
//
// Memory: nothing here outlives a part; files live in one temporary folder.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"encoderd.example/stream/streamtest/peer"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 && os.Args[1] == childWord {
		stop() // a child ends when its standard input does
		if err := child(os.Args[2:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1) //nolint:gocritic // stop was called
		}
		return
	}
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A bench is what all parts work with.
type bench struct {
	out      io.Writer
	encoderd string // the program
	self     string // this program
	board    string // folder of the virtual board
	dir      string // for files
	warm     time.Duration
	window   time.Duration
	rounds   int
	show     showOptions
	table    table
}

// A part is one thing to measure.
type part struct {
	name string
	run  func(*bench, context.Context) error
}

// parts in the order in which they run.
var parts = []part{
	{"push", (*bench).push},
	{"capture", (*bench).capture},
	{"paths", (*bench).paths},
	{"latency", (*bench).latency},
	{"panel", (*bench).panel},
	{"allocs", (*bench).allocs},
	{"whole", (*bench).whole},
	{"serve", (*bench).serve},
}

// errMissed says that a target was not met.
var errMissed = errors.New("a target was missed")

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	b := &bench{out: out}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := flags.String("only", "", "parts to run, with commas: "+partNames()+"; all by default")
	file := flags.String("json", "", "write the table to this file as well")
	strict := flags.Bool("strict", false, "fail if a target is missed; one of zero always counts")
	flags.StringVar(&b.encoderd, "encoderd", "build/encoderd", "the program to measure")
	flags.StringVar(&b.board, "board", "buildroot/virt", "the folder of the virtual board")
	flags.DurationVar(&b.warm, "warm", 5*time.Second, "how long a program runs before it is measured")
	flags.DurationVar(&b.window, "window", 20*time.Second, "how long it is measured")
	flags.IntVar(&b.rounds, "rounds", 3, "how often each program has its turn")
	b.show.flags(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if b.self, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if b.dir, err = os.MkdirTemp("", "encoderd-bench-"); err != nil {
		return fmt.Errorf("make a folder for files: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if err := b.runParts(ctx, *only); err != nil {
		return err
	}
	b.table.show(out)
	if *file != "" {
		if err := b.table.write(*file); err != nil {
			return err
		}
	}
	if b.table.missed() && *strict || b.table.notZero() {
		return errMissed
	}
	return nil
}

func partNames() string {
	var names []string
	for _, p := range parts {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}

func (b *bench) runParts(ctx context.Context, only string) error {
	chosen := strings.FieldsFunc(only, func(r rune) bool { return r == ',' })
	for _, name := range chosen {
		if !slices.ContainsFunc(parts, func(p part) bool { return p.name == name }) {
			return fmt.Errorf("there is no part %q; there are %s", name, partNames())
		}
	}
	before, err := readMachine()
	if err != nil {
		return err
	}
	for _, p := range parts {
		if len(chosen) > 0 && !slices.Contains(chosen, p.name) {
			continue
		}
		fmt.Fprintf(b.out, "%s …\n", p.name)
		if err := p.run(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	after, err := readMachine()
	if err != nil {
		return err
	}
	b.table.Machine = after.since(before)
	return nil
}

// wait waits for d, or less if ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// await asks until done says yes, for at most 20 s.
func await(ctx context.Context, what string, done func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second, fmt.Errorf("waited 20 s in vain for %s", what))
	defer cancel()
	if !peer.Until(ctx, 100*time.Millisecond, done) {
		return context.Cause(ctx)
	}
	return nil
}
