package rtmp

import (
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/stream"
)

const (
	// ackGrace is how long a server has to acknowledge media by itself before
	// the kernel's word is taken for it.
	ackGrace = 5 * time.Second
	// stillTime without any byte acknowledged takes a confirmation back.
	stillTime = 10 * time.Second
)

// evidence is what is known about receipt at one moment.
type evidence struct {
	now   time.Duration // since some start
	acked uint64        // media bytes that the server has acknowledged (RTMP 1.0, 5.4.3)
	tcp   uint64        // media bytes that its kernel has acknowledged
	sent  uint64        // media bytes handed over
	busy  bool          // a write is under way
}

// A receipt decides whether the far side gets what is sent.
//
//	         acknowledgement moves, or
//	         for 5 s none came but TCP's moved
//	sending ───────────────────────────────────► confirmed
//	   ▲                                             │
//	   └───── bytes wait, none moved for 10 s ◄──────┘
type receipt struct {
	acked, tcp, sent uint64
	first            time.Duration // when TCP's count moved first
	moved            time.Duration // when it moved last
}

// update returns the state that e proves.
func (r *receipt) update(e evidence) stream.PushState {
	if e.tcp > r.tcp {
		if r.tcp == 0 {
			r.first = e.now
		}
		r.tcp, r.moved = e.tcp, e.now
	}
	if e.acked > r.acked {
		r.acked, r.moved = e.acked, e.now
	}
	if e.sent == r.sent && !e.busy {
		r.moved = e.now // nothing to acknowledge
	}
	r.sent = e.sent
	proved := r.acked > 0 || r.tcp > 0 && e.now-r.first >= ackGrace
	if proved && e.now-r.moved < stillTime {
		return stream.PushConfirmed
	}
	return stream.PushSending
}

// tcpCounts reads TCP_INFO (man 7 tcp): the bytes that the far kernel has
// acknowledged, and all that were handed to ours.
func (w *wire) tcpCounts() (acked, handed uint64) {
	raw, err := w.SyscallConn()
	if err != nil {
		return 0, 0
	}
	var info *unix.TCPInfo
	err = raw.Control(func(fd uintptr) {
		info, _ = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) // nil without it
	})
	if err != nil || info == nil {
		return 0, 0
	}
	return info.Bytes_acked, info.Bytes_sent + uint64(info.Notsent_bytes)
}
