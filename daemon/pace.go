package daemon

import (
	"sync/atomic"
	"time"

	"encoderd.example/hw"
	"encoderd.example/stream"
)

// A pace is at which rate an encoder works, and how often it makes key frames.
// An encoder that believes in 30 pictures a second while 15 come spends half of
// its bits, writes the wrong timing into its parameter sets, and makes key
// frames half as often as the config wants.
type pace struct {
	wanted hw.EncoderConfig // as configured
	opened hw.EncoderConfig // as the encoder was opened: wanted at the rate of that time, or at the highest
	now    *atomic.Pointer[hw.Rate]
	key    time.Duration // DTS of the last key unit, or of the last time that one was asked for
}

// newPace returns that of an encoder that is to be opened while the source has
// that rate. One that is live can be told another rate later, but none that is
// higher: it is opened for the highest that is foreseen, so that a hall that
// gets light does not cost a new encoder.
func newPace(c hw.EncoderConfig, source hw.Rate, live bool) pace {
	p := pace{wanted: c, opened: c, now: &atomic.Pointer[hw.Rate]{}}
	p.opened.FPS = rateOf(c.FPS, source)
	if live {
		p.opened.FPS = faster(c.FPS, p.opened.FPS)
	}
	p.opened.GOP = max(int(float64(c.GOP)*p.opened.FPS.Float()/c.FPS.Float()+0.5), 1)
	p.now.Store(&p.opened.FPS)
	return p
}

// rate is the one that the encoder knows.
func (p *pace) rate() hw.Rate { return *p.now.Load() }

// keyDue reports whether a key frame is to be asked for, because the encoder
// counts frames and they come more slowly than when it was opened. It is for
// the goroutine that takes the units.
func (p *pace) keyDue(u *stream.Unit) bool {
	if u.Key || p.key == 0 {
		p.key = u.DTS
		return false
	}
	period := p.rate().Period()
	gop := time.Duration(p.wanted.GOP) * p.wanted.FPS.Period()
	if period <= p.opened.FPS.Period() || u.DTS-p.key < gop-period*3/2 {
		return false
	}
	p.key = u.DTS
	return true
}

// A rater is an encoder that can be told at which rate pictures come.
type rater interface {
	// SetRate changes the rate from the next frames on, which begins a key
	// frame. It fails if the encoder must be opened anew for that.
	SetRate(r hw.Rate) error
}

// follow tells the encoder the rate at which pictures reach it and reports
// whether that is another one. It fails with errNewRate if the encoder must be
// opened anew: it has no such knob, or was opened for a level that is too low.
func (s *session) follow() (changed bool, err error) {
	rate := rateOf(s.config.FPS, s.d.hub.rate())
	if rate == s.pace.rate() {
		return false, nil
	}
	if s.tell(rate) {
		s.d.Log.Info("encoder follows the rate", "rendition", s.config.Rendition, "encoder", s.driver.Name, "fps", rate.Float())
		return true, nil
	}
	if s.driver.Hardware && time.Since(s.opened) < reopenAfter {
		return false, nil
	}
	return false, errNewRate
}

// tell tells the encoder a rate and reports whether it took it. One that does
// not take a lower one has no knob, whatever its driver says.
func (s *session) tell(rate hw.Rate) bool {
	if rate.Float() > s.pace.opened.FPS.Float() {
		return false
	}
	if e, ok := s.enc.(rater); !ok || e.SetRate(rate) != nil {
		s.ladder.fixed = true
		return false
	}
	s.pace.now.Store(&rate)
	return true
}
