package external

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/external/wire"
)

// A patience says how long a device program may take.
type patience struct {
	hello  time.Duration // from start to its first message
	answer time.Duration // to any request
	end    time.Duration // from Stop to SIGTERM, from there to SIGKILL
	silent time.Duration // between two pictures of a camera
}

var usual = patience{hello: 5 * time.Second, answer: 10 * time.Second, end: 2 * time.Second, silent: 5 * time.Second}

// A program is an installed device program. It is a value; start makes a
// process of it.
type program struct {
	id       string // "external:NAME"
	path     string
	args     []string // of tests; installed programs get none
	log      *slog.Logger
	patience patience
}

// environment is all that a program inherits beside its socket.
func environment() []string {
	return []string{
		"PATH=/usr/local/bin:/usr/bin:/bin",
		"LANG=C.UTF-8",
		fmt.Sprintf("ENCODERD_DEVICE=%d", wire.Version),
	}
}

// A process is a running program: a child in a process group of its own, a
// socket, and a pipe that carries what it prints to our log.
//
//	start ─► hello ─► … ─► stop: Stop message ─2 s─► SIGTERM ─2 s─► SIGKILL
//	                        or it ends by itself, or the box does: SIGKILL
type process struct {
	program

	conn   *wire.Conn
	exited chan struct{} // closed when the child is reaped and its words are read
	status error         // how it ended, with what it said last; read after exited

	once sync.Once // of stop

	mu     sync.Mutex
	pid    int
	reaped bool
}

// start runs the program and returns with its hello. The error wraps
// [hw.ErrGone] if it ends before, or says what it told.
func (p program) start(ctx context.Context) (*process, wire.Message, error) {
	r, err := p.launch()
	if err != nil {
		return nil, nil, fmt.Errorf("start %s: %w", p.id, err)
	}
	hello, _, err := r.receive(ctx, p.patience.hello)
	if err != nil {
		r.stop()
		return nil, nil, fmt.Errorf("start %s: %w", p.id, err)
	}
	return r, hello, nil
}

// launch starts the child and the goroutines that watch over it.
func (p program) launch() (*process, error) {
	conn, theirs, err := wire.Pair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }()
	words, prints, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	defer func() { _ = prints.Close() }()
	r := &process{program: p, conn: conn, exited: make(chan struct{})}
	cmd := &exec.Cmd{
		Path: p.path, Args: append([]string{p.path}, p.args...), Env: environment(), Dir: "/",
		Stdout: prints, Stderr: prints, ExtraFiles: []*os.File{theirs}, // the first one is wire.FD
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}
	started := make(chan error)
	go r.watch(cmd, words, started)
	if err := <-started; err != nil {
		return nil, errors.Join(err, conn.Close(), words.Close())
	}
	return r, nil
}

// watch starts the child and waits for its end. The kernel sends Pdeathsig
// when the *thread* that started the child ends, not the process: so this
// goroutine keeps its thread for as long as the child lives.
func (r *process) watch(cmd *exec.Cmd, words *os.File, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Start()
	if err == nil {
		r.pid = cmd.Process.Pid
	}
	started <- err
	if err != nil {
		return
	}
	defer close(r.exited)
	last := ""
	told := make(chan struct{})
	go func() {
		defer close(told)
		last = relay(r.log.With("device", r.id), words)
	}()
	r.reap(cmd)
	// Whoever still holds the pipe has left the group: wait for the last words
	// only.
	_ = words.SetReadDeadline(time.Now().Add(lastWords))
	<-told
	_ = words.Close()
	r.status = r.obituary(cmd.ProcessState, last)
}

// obituary says in words for people how the program has ended.
func (r *process) obituary(s *os.ProcessState, last string) error {
	name, how := filepath.Base(r.path), fmt.Sprintf("ended with status %d", s.ExitCode())
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		how = "was ended by " + unix.SignalName(w.Signal())
	}
	if last == "" {
		return fmt.Errorf("program %s %s and said nothing", name, how)
	}
	return fmt.Errorf("program %s %s: %s", name, how, last)
}

// reap waits for the child's end, kills what it has started and left behind,
// and only then gives its number free.
func (r *process) reap(cmd *exec.Cmd) {
	for errors.Is(unix.Waitid(unix.P_PID, r.pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
		continue
	}
	r.mu.Lock()
	_ = unix.Kill(-r.pid, unix.SIGKILL) // usually nobody is left
	r.reaped = true
	r.mu.Unlock()
	_ = cmd.Wait() // its state says how it ended
}

// signal sends sig to the child and all that it has started.
func (r *process) signal(sig unix.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.reaped {
		_ = unix.Kill(-r.pid, sig) // it may end at this moment
	}
}

// stop ends the process, gently first, waits for it, and closes the socket. It
// takes at most three times patience.end, and may be called more than once.
func (r *process) stop() {
	r.once.Do(func() {
		_ = r.conn.Send(wire.Stop{}) // one that does not read gets the signals
		for _, next := range []unix.Signal{unix.SIGTERM, unix.SIGKILL, 0} {
			if r.ended(r.patience.end) {
				break
			}
			if next == 0 {
				r.log.Error("a device program does not end, it is left behind", "device", r.id, "pid", r.pid)
				break
			}
			r.log.Warn("a device program does not end", "device", r.id, "signal", unix.SignalName(next))
			r.signal(next)
		}
		_ = r.conn.Close()
	})
}

// ended waits at most so long for the end.
func (r *process) ended(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-r.exited:
		return true
	case <-timer.C:
		return false
	}
}

// receive waits for a message, no longer than limit and ctx allow. An Error of
// the device is returned as error.
func (r *process) receive(ctx context.Context, limit time.Duration) (wire.Message, []int, error) {
	if err := r.conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = r.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	m, fds, err := r.conn.Receive()
	switch {
	case ctx.Err() != nil:
		wire.CloseAll(fds)
		return nil, nil, context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, nil, fmt.Errorf("no answer for %s: %w", limit, hw.ErrGone)
	case err != nil:
		return nil, nil, r.broken(err)
	}
	if e, ok := m.(wire.Error); ok {
		return nil, nil, told(e)
	}
	return m, fds, nil
}

// send sends a message with descriptors, which stay the caller's. It does not
// wait for room, see [wire.Conn.Send]. If the far side has ended it says how.
func (r *process) send(m wire.Message, fds ...int) error {
	err := r.conn.Send(m, fds...)
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return r.broken(err)
	}
	return err
}

// broken explains why nothing more can be received: the far side has ended, or
// talks nonsense.
func (r *process) broken(err error) error {
	if errors.Is(err, wire.ErrProtocol) {
		return fmt.Errorf("%w: %w", err, hw.ErrGone)
	}
	if !r.ended(r.patience.end) {
		return fmt.Errorf("it has closed its socket: %w", hw.ErrGone)
	}
	return fmt.Errorf("%w: %w", hw.ErrGone, r.status)
}

// expect waits for a message of one type, which no descriptors may accompany.
func expect[M wire.Message](ctx context.Context, r *process) (M, error) {
	m, fds, err := expectFDs[M](ctx, r)
	wire.CloseAll(fds)
	return m, err
}

// expectFDs waits for a message of one type and its descriptors, which are the
// caller's. Signals in between are passed over: a stream begins anew with what
// its hello said.
func expectFDs[M wire.Message](ctx context.Context, r *process) (M, []int, error) {
	var none M
	for {
		m, fds, err := r.receive(ctx, r.patience.answer)
		if err != nil {
			return none, nil, err
		}
		if got, ok := m.(M); ok {
			return got, fds, nil
		}
		wire.CloseAll(fds)
		if _, ok := m.(wire.Signal); !ok {
			return none, nil, violation("%s instead of %s", wire.Name(m), wire.Name(none))
		}
	}
}

// violation says what the device did against the protocol.
func violation(format string, args ...any) error {
	return fmt.Errorf("%w: %s: %w", wire.ErrProtocol, fmt.Sprintf(format, args...), hw.ErrGone)
}

var kinds = map[wire.ErrorCode]error{
	wire.Gone:        hw.ErrGone,
	wire.Busy:        hw.ErrBusy,
	wire.NoSignal:    hw.ErrNoSignal,
	wire.Unsupported: hw.ErrUnsupported,
	wire.Missing:     hw.ErrMissing,
}

// told turns a device's Error into ours.
func told(e wire.Error) error {
	text := wire.Text(e.Text[:])
	kind, known := kinds[e.Code]
	switch {
	case !known:
		return fmt.Errorf("it says %q", text)
	case text == "":
		return kind
	}
	return fmt.Errorf("%w: %s", kind, text)
}

// Bounds of what is logged of a program's words.
const (
	maxLine   = 500              // bytes
	maxLines  = 20               // in each interval
	interval  = 10 * time.Second // of maxLines
	lastWords = 500 * time.Millisecond
)

// relay logs what a program prints, line by line, until it ends, and returns the
// last line. Long lines are cut, and of a flood only the beginning is logged.
func relay(log *slog.Logger, words io.Reader) (last string) {
	in := bufio.NewReaderSize(words, maxLine)
	var begin time.Time
	lines, lost := 0, 0
	for {
		line, err := readLine(in)
		if err != nil {
			break
		}
		last = cmp.Or(line, last)
		if now := time.Now(); now.Sub(begin) >= interval {
			complain(log, lost)
			begin, lines, lost = now, 0, 0
		}
		if lines++; lines > maxLines {
			lost++
			continue
		}
		log.Info("device says", "line", line)
	}
	complain(log, lost)
	return last
}

func complain(log *slog.Logger, lost int) {
	if lost > 0 {
		log.Warn("device prints too much", "lines_left_out", lost)
	}
}

// readLine returns the next line without its end, or the beginning of a long
// one.
func readLine(in *bufio.Reader) (string, error) {
	b, more, err := in.ReadLine()
	if err != nil {
		return "", err
	}
	line := wire.Text(b)
	for more && err == nil {
		_, more, err = in.ReadLine()
	}
	return line, nil
}
