// Package peer starts the programs that tests talk to: ffmpeg, ffprobe,
// Chromium, and nginx with its RTMP module. They run in the test's temporary folder on free
// ports and end with the test. A program that is missing fails the test.
//
// [Find], [FindAddress], [Until] and [NginxConfig] serve programs that measure,
// too. This is test infrastructure: nothing of the daemon imports it.
package peer

import (
	"bytes"
	"context"
	"errors"
	"os/exec" //nolint:depguard // test infrastructure: real peers are programs
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Patience is how long a peer may take for a single thing.
const Patience = 45 * time.Second

// Output runs a program to its end and returns what it wrote to stdout. The
// test fails unless the program ends well.
func Output(tb testing.TB, name string, args ...string) []byte {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), 2*Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(tb, name), args...) //nolint:gosec // the tests choose the program
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			tb.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, exit.Stderr)
		}
		tb.Fatalf("%s: %v", name, err)
	}
	return out
}

func program(tb testing.TB, name string) string {
	tb.Helper()
	path, err := Find(name)
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

// A Process is a running peer. Its methods may be called from any goroutine.
type Process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait, once done is closed
	out  lockedBuffer
	pipe sync.WaitGroup
}

// Start runs a program until the test ends.
func Start(tb testing.TB, name string, args ...string) *Process {
	tb.Helper()
	p := &Process{name: name, done: make(chan struct{})}
	p.cmd = exec.Command(program(tb, name), args...) //nolint:gosec,noctx // the tests choose the program; Kill ends it
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		tb.Fatalf("start %s: %v", name, err)
	}
	p.pipe.Go(func() {
		p.err = p.cmd.Wait()
		close(p.done)
	})
	tb.Cleanup(func() {
		p.Kill()
		if tb.Failed() {
			tb.Logf("%s wrote:\n%s", name, p.Log())
		}
	})
	return p
}

// Kill ends the process at once, as a power cut would, and waits for it.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended already
	p.pipe.Wait()
}

// Wait waits for the process to end by itself.
func (p *Process) Wait(tb testing.TB) error {
	tb.Helper()
	select {
	case <-p.done:
		return p.err
	case <-time.After(Patience):
		tb.Fatalf("%s did not end within %v:\n%s", p.name, Patience, p.Log())
		return nil
	}
}

// Log returns what the process has written so far.
func (p *Process) Log() string { return p.out.String() }

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// given are the addresses that FreeAddress has returned so far: the kernel
// gives a port anew as soon as it is free, and nobody listens on it yet.
var given sync.Map

// FreeAddress returns a TCP address of this machine that nobody listens on, each
// time another.
func FreeAddress(tb testing.TB) string {
	tb.Helper()
	for {
		address, err := FindAddress(tb.Context())
		if err != nil {
			tb.Fatal(err)
		}
		if _, again := given.LoadOrStore(address, true); !again {
			return address
		}
	}
}

// Await asks until done says yes, and fails the test after [Patience].
func Await(tb testing.TB, what string, done func() bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), Patience)
	defer cancel()
	if !Until(ctx, 20*time.Millisecond, done) {
		tb.Fatalf("waited %v in vain for %s", Patience, what)
	}
}

// awaitListening waits until somebody listens on a TCP address. It reads the
// kernel's table instead of dialling, so that a server that takes a single
// connection still has it to give.
func (p *Process) awaitListening(tb testing.TB, address string) {
	tb.Helper()
	Await(tb, p.name+" to listen on "+address, func() bool {
		select {
		case <-p.done:
			tb.Fatalf("%s ended before it listened:\n%s", p.name, p.Log())
		default:
		}
		return listening(tb, address)
	})
}
