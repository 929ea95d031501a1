package v4l2

import (
	"time"

	"encoderd.example/hw/v4l2/uapi"
)

// stampsBegin is the buffer flag of drivers that say that they stamp the begin
// of the picture (V4L2_BUF_FLAG_TSTAMP_SRC_SOE).
const stampsBegin = 0x00010000

// oldest is how long before its dequeue a picture may have been taken.
const oldest = 10 * time.Second

// stamps turns the stamps of a driver into ones that rise and lie on
// CLOCK_MONOTONIC: believable ones pass, others are replaced by the time of the
// dequeue less the delay of the last good frame.
type stamps struct {
	last  time.Duration // latest that was given out
	delay time.Duration // from stamp to dequeue, of the latest good frame
	began bool
}

// next returns the stamp to use, and whether it is the driver's own.
func (s *stamps) next(flags uint32, stamp, now time.Duration) (_ time.Duration, own bool) {
	monotonic := flags&uapi.BufFlagTimestampMask == uapi.BufFlagTimestampMonotonic
	own = monotonic && stamp <= now && now-stamp <= oldest && (!s.began || stamp > s.last)
	if own {
		s.delay = now - stamp
	} else {
		stamp = now - s.delay
	}
	if s.began && stamp <= s.last {
		stamp = s.last + time.Microsecond
	}
	s.last, s.began = stamp, true
	return stamp, own
}
