package daemon

import (
	"log/slog"
	"sync/atomic"
	"time"

	"encoderd.example/hw"
	"encoderd.example/stream"
)

// opusLinger is how long Opus is coded after the last browser asked for it.
const opusLinger = 30 * time.Second

// A demand says whether browsers want Opus: it is coded beside AAC only then.
// Its methods may be called from any goroutine.
type demand struct {
	open    func() (hw.AudioEncoder, error) // nil: the board has none
	present func() bool                     // whether a browser watches
	now     func() time.Duration
	log     *slog.Logger
	asked   atomic.Int64 // when somebody did last, a reading of now; 0 is never
	broken  atomic.Bool  // it does not open here
}

// newDemand takes the board's first encoder for Opus.
func newDemand(drivers []hw.AudioEncoderDriver, audience *stream.Audience, log *slog.Logger) *demand {
	d := &demand{now: stream.Monotonic, log: log, present: func() bool { return watchedBy(audience, "webrtc") }}
	for _, driver := range drivers {
		if driver.Codec == stream.Opus {
			d.open = func() (hw.AudioEncoder, error) { return driver.Open(opusBitrate) }
			break
		}
	}
	return d
}

// opusBitrate is for stereo that nobody can tell from the original (bit/s).
const opusBitrate = 96_000

func watchedBy(a *stream.Audience, protocol string) bool {
	for _, v := range a.Viewers() {
		if v.Protocol == protocol {
			return true
		}
	}
	return false
}

// wanted notes that a browser came, and reports whether it will get Opus.
func (d *demand) wanted() bool {
	if d.open == nil || d.broken.Load() {
		return false
	}
	d.asked.Store(int64(d.now()))
	return true
}

// due reports whether Opus is to be coded now.
func (d *demand) due() bool {
	asked := time.Duration(d.asked.Load())
	if asked == 0 || d.broken.Load() {
		return false
	}
	if d.now()-asked < opusLinger {
		return true
	}
	if d.present() {
		d.asked.Store(int64(d.now()))
		return true
	}
	d.asked.Store(0)
	return false
}

// A second is the other encoder of a desk, for Opus.
type second struct {
	*demand

	enc     hw.AudioEncoder // nil: not open
	publish func(*stream.Unit)
}

// code codes samples if somebody wants them.
func (s *second) code(samples []int16, stamp time.Duration) {
	if !s.due() {
		if s.enc != nil {
			s.log.Info("opus is coded no more: no browser is left", "service", "sound")
		}
		s.close()
		return
	}
	if s.enc == nil {
		enc, err := s.open()
		if err != nil {
			s.fail(err)
			return
		}
		s.enc = enc
		s.log.Info("opus is coded for browsers", "service", "sound")
	}
	if err := s.enc.Encode(samples, stamp, s.publish); err != nil {
		s.fail(err)
	}
}

// fail gives Opus up until the next start: the other sound goes on.
func (s *second) fail(err error) {
	s.broken.Store(true)
	s.log.Warn("browsers get no sound", "service", "sound", "err", err)
	s.close()
}

// reset begins anew after a gap.
func (s *second) reset() {
	if s.enc != nil {
		s.enc.Reset()
	}
}

func (s *second) close() {
	if s.enc != nil {
		_ = s.enc.Close()
		s.enc = nil
	}
}
