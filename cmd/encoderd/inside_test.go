package main

import (
	"context"
	"log/slog"
	"testing"

	"encoderd.example/hw"
)

// softwareBoard returns a software board of the test's own.
func softwareBoard(t *testing.T) hw.Board {
	t.Helper()
	b, err := findBoard("sim", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// runInside runs the box in the test's own process, on a board of the test's:
// to have devices that the software board has not, and to see its goroutines.
// It ends with the test.
func (v venue) runInside(board hw.Board) {
	v.tb.Helper()
	v.stderr, v.done, v.err = &lockedBuffer{}, make(chan struct{}), new(error)
	o := options{state: v.state, config: v.config}
	log := slog.New(slog.NewTextHandler(v.stderr, nil))
	c, err := load(o, log)
	if err != nil {
		v.tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done, result := v.done, v.err
	go func() {
		defer close(done)
		*result = program{}.runBox(ctx, o, board, c, log)
	}()
	v.tb.Cleanup(func() {
		cancel()
		<-done
		if *result != nil {
			v.tb.Errorf("encoderd ended with %v", *result)
		}
		v.clean("stderr", v.stderr.String())
		if v.tb.Failed() {
			v.tb.Logf("encoderd wrote:\n%s", v.stderr)
		}
	})
}
