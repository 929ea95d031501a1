package stream

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A stall is how a far side that takes nothing is judged. While its program
// sleeps, our kernel asks its kernel at growing intervals whether there is room
// again, by probes or by sending the same once more, and gets an answer.
//
//	nothing taken ─┬─ not a player ──────── stalled after the patience
//	               ├─ asked in vain ─────── vanished after the patience
//	               └─ asleep ────────────── stalled after minutes
type stall struct {
	since   time.Time // when it last took something
	acked   uint64
	in, out uint32 // segments, at the latest answer
}

// vain is how many questions have to stay without an answer: one may be lost, or
// have come too soon after another (Linux, tcp_invalid_ratelimit).
const vain = 2

// answers are what the kernel knows of the far one (tcp(7), TCP_INFO).
type answers struct {
	acked   uint64        // bytes
	last    time.Duration // since the latest acknowledgement
	in, out uint32        // segments from there and to there
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
	if a.in != s.in {
		s.in, s.out = a.in, a.out
	}
	stuck := now.Sub(s.since)
	switch {
	case stuck < patience:
		return nil
	case !known || asleep == 0:
		return ErrStalled
	case a.out-s.out >= vain && a.last >= patience:
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
		in:    info.Segs_in, out: info.Segs_out,
	}, true
}
