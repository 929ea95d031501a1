package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec" //nolint:depguard // a tool for developers: peers are programs
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/stream/streamtest/peer"
)

// A process is a running program. Its methods may be called from any goroutine.
type process struct {
	name  string
	cmd   *exec.Cmd
	stdin io.Closer
	done  chan struct{}
	err   error // of Wait, once done is closed
	log   lockedBuffer
}

// start starts a program; stop must be called. Its output goes to the log, or
// its standard output to stdout if that is not nil.
func start(stdout io.Writer, name string, args ...string) (*process, error) {
	path, err := peer.Find(name)
	if err != nil {
		return nil, err
	}
	p := &process{name: filepath.Base(name), done: make(chan struct{})}
	p.cmd = exec.Command(path, args...) //nolint:gosec,noctx // we choose the program; stop ends it
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if stdout != nil {
		p.cmd.Stdout = stdout
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	go func() { // ends with the process, for which stop waits
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// relaxed calls start on a thread with as much timer slack as encoderd gives
// itself (docs/decisions/0009); what start starts inherits it.
func relaxed(start func() error) error {
	const slack = time.Millisecond
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0); err != nil {
		return fmt.Errorf("set the timer slack: %w", err)
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) }() // zero: as it was at first
	return start()
}

// output runs a program to its end and returns what it printed.
func output(ctx context.Context, name string, args ...string) ([]byte, *os.ProcessState, error) {
	path, err := peer.Find(name)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(ctx, path, args...) //nolint:gosec // we choose the program
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return nil, nil, fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(exit.Stderr))
		}
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	return out, cmd.ProcessState, nil
}

// stop asks the process to end, and insists after 5 s.
func (p *process) stop() {
	_ = p.stdin.Close()                       // children of ours end by this
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// alive returns an error with the process's last words if it has ended.
func (p *process) alive() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended too early (%w):\n%s", p.name, orEnded(p.err), p.log.String())
	default:
		return nil
	}
}

var errEnded = errors.New("without an error")

func orEnded(err error) error {
	if err == nil {
		return errEnded
	}
	return err
}

// cpu returns how long the threads of the process have run
// (Documentation/scheduler/sched-stats.rst, first field, ns).
func (p *process) cpu() (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	if err != nil || len(files) == 0 {
		return 0, errors.Join(p.alive(), err)
	}
	var sum time.Duration
	for _, f := range files {
		doc, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has just ended
		}
		first, _, _ := strings.Cut(string(doc), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", f, err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

// memory returns the resident memory and its high-water mark in MB of 2²⁰
// (proc(5), VmRSS and VmHWM), each with what files of memory hold now.
func (p *process) memory() (now, most float64, err error) {
	doc, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, errors.Join(p.alive(), err)
	}
	for line := range strings.Lines(string(doc)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "VmRSS:":
			now, err = strconv.ParseFloat(f[1], 64)
		case "VmHWM:":
			most, err = strconv.ParseFloat(f[1], 64)
		}
		if err != nil {
			return 0, 0, fmt.Errorf("read memory of %s: %w", p.name, err)
		}
	}
	files := p.files()
	return now/1024 + files, most/1024 + files, nil
}

// files returns what files without a name (memfd_create(2)) hold, in MB of 2²⁰:
// it is the process's memory and no part of VmRSS.
func (p *process) files() float64 {
	open, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.cmd.Process.Pid)) // the pattern is a good one
	bytes := int64(0)
	for _, name := range open {
		if to, err := os.Readlink(name); err != nil || !strings.HasPrefix(to, "/memfd:") {
			continue // or it has just been closed
		}
		var st unix.Stat_t
		if unix.Stat(name, &st) == nil {
			bytes += st.Blocks * 512
		}
	}
	return float64(bytes) / (1 << 20)
}

// A usage is what a process took during a window.
type usage struct {
	share     float64 // seconds of CPU a second
	rss, peak float64 // MB
}

// measure watches p for a window, after a time to settle.
func (p *process) measure(ctx context.Context, settle, window time.Duration) (u usage, err error) {
	if err := wait(ctx, settle); err != nil {
		return u, err
	}
	before, err := p.cpu()
	if err != nil {
		return u, err
	}
	began := time.Now()
	if err := wait(ctx, window); err != nil {
		return u, err
	}
	after, err := p.cpu()
	if err != nil {
		return u, err
	}
	u.share = (after - before).Seconds() / time.Since(began).Seconds()
	u.rss, u.peak, err = p.memory()
	return u, errors.Join(err, p.alive())
}

// listening reports whether somebody takes connections at address.
func listening(ctx context.Context, address string) bool {
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

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
