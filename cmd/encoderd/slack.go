package main

import (
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// timerSlack is how late the kernel may wake a sleeping thread. Go waits for
// its timers by epoll_pwait, which counts in milliseconds anyhow.
const timerSlack = time.Millisecond

// relaxTimers gives all threads of this process that slack, by which wake-ups
// fall together; see docs/decisions/0009.
//
// A thread inherits slack from the one that starts it (prctl(2),
// PR_SET_TIMERSLACK), and Go's monitor thread, the one that matters, runs
// before main does: so the program starts itself anew, once, under the same
// process id. It runs on as it is where that cannot be done, and where its
// parent has given it the slack (systemd.exec(5), TimerSlackNSec).
func relaxTimers() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	// Real-time threads have none, whatever is asked for: never start anew for ever.
	if err != nil || slack == 0 || time.Duration(slack) >= timerSlack {
		return
	}
	// What the parent asked of the first thread, like a signal at its death,
	// lives on in that thread only.
	if unix.Gettid() != unix.Getpid() {
		return
	}
	exe, err := os.Executable()
	if err != nil || unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(timerSlack), 0, 0, 0) != nil {
		return
	}
	_ = syscall.Exec(exe, os.Args, os.Environ()) //nolint:gosec // G204: this program, with its own arguments; it returns only if it failed
}
