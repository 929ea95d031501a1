package stream

import (
	"context"
	"syscall"
	"time"
	"unsafe"
)

const clockMonotonic = 1 // CLOCK_MONOTONIC, linux/time.h

// Monotonic reads CLOCK_MONOTONIC, the clock of every PTS and capture stamp.
func Monotonic() time.Duration {
	var ts syscall.Timespec
	// The call cannot fail: the clock always exists and ts is writable.
	_, _, _ = syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&ts)), 0) //nolint:gosec // the kernel writes ts during the call
	return time.Duration(ts.Nano())
}

// Wall returns the wall-clock time of stamp, a reading of CLOCK_MONOTONIC, by
// today's offset between the two clocks. Use it only at the edge: RTCP sender
// reports, playlists, logs.
func Wall(stamp time.Duration) time.Time {
	return time.Now().Add(stamp - Monotonic())
}

// Rest waits for d, or until ctx ends, and reports whether ctx lives on.
func Rest(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
