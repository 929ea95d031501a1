package stream

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A stall is how a far side that takes nothing is judged. Its kernel may have
// room and acknowledge while the program sleeps; then ours asks, at growing
// intervals, whether there is room again, and each question is answered.
//
//	nothing taken ─┬─ not a player ────────────────────── stalled after the patience
//	               ├─ an answer is due for the patience ─ vanished
//	               └─ asleep ──────────────────────────── stalled after minutes
type stall struct {
	since time.Time // when it last took something
	owed  time.Time // since when an answer is due; zero: none is
	acked uint64
}

// answers are what the kernel knows of the far one (tcp(7), TCP_INFO).
type answers struct {
	acked uint64        // bytes
	last  time.Duration // since the latest acknowledgement
	due   bool          // something was sent since that has to be acknowledged
}

// judge returns nil or why the far side is given up. asleep is how long it may
// sleep, zero for not at all; a is worth something only if known.
func (s *stall) judge(now time.Time, a answers, known bool, patience, asleep time.Duration) error {
	if known && a.acked != s.acked {
		if s.acked != 0 {
			s.since = now
		}
		s.acked = a.acked
	}
	switch {
	case !known || !a.due:
		s.owed = time.Time{}
	case s.owed.IsZero() || now.Add(-a.last).After(s.owed):
		s.owed = now
	}
	stuck := now.Sub(s.since)
	switch {
	case stuck < patience:
		return nil
	case !known || asleep == 0:
		return ErrStalled
	case !s.owed.IsZero() && now.Sub(s.owed) >= patience:
		return ErrVanished
	case stuck >= asleep:
		return ErrStalled
	default:
		return nil
	}
}

// answersOf asks the kernel; known is false if it does not tell.
func answersOf(raw syscall.RawConn) (a answers, known bool) {
	if raw == nil {
		return a, false
	}
	var info *unix.TCPInfo
	err := raw.Control(func(fd uintptr) {
		info, _ = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) // nil without it
	})
	if err != nil || info == nil {
		return a, false
	}
	return answers{
		acked: info.Bytes_acked,
		last:  time.Duration(info.Last_ack_recv) * time.Millisecond,
		due:   info.Unacked > 0 || info.Probes > 0,
	}, true
}
