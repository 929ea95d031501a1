package daemon

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"encoderd.example/daemon/config"
	"encoderd.example/daemon/panel"
	"encoderd.example/daemon/status"
	"encoderd.example/daemon/supervise"
	"encoderd.example/hw"
	"encoderd.example/stream"
)

// reportEvery is how often measured values are taken anew; changes of state
// are told at once.
const reportEvery = 500 * time.Millisecond

// reportRest is between two reports: whoever makes the box tell of changes
// without end, such as a switcher gone mad, must not take the processor from the
// show. No light notices it.
const reportRest = 4 * time.Millisecond

// report keeps the status true until ctx ends. Whatever the system takes to
// tell of the box's surroundings holds up no light.
func (d *Daemon) report(ctx context.Context) {
	var look sync.WaitGroup
	defer look.Wait()
	look.Go(func() { d.lookAround(ctx) })
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		now := time.Now()
		box := d.box(now)
		d.cell.Update(func(b *status.Box) { *b = box })
		d.reported.Store(int64(now.Sub(d.start)))
		select {
		case <-tick.C:
		case <-d.notes.kicked:
			rest(ctx, reportRest-time.Since(now))
		case <-ctx.Done():
			return
		}
	}
}

// rest waits for a time, if it is one, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// box puts the status together.
func (d *Daemon) box(now time.Time) status.Box {
	keys, tally := d.keys.Status(), d.tracker.Now(now)
	d.mu.Lock()
	defer d.mu.Unlock()
	around := d.around
	b := status.Box{
		Name: d.config.Box.Name, Board: d.Board.Name, Version: d.Version, Since: d.start,
		Input: d.inputNow(now), Sound: d.soundNow(),
		Keys: keys, Tally: tally,
		TemperatureC: around.temperature, Storage: around.storage, Network: around.network, Power: around.power,
		Renditions: []status.Rendition{}, Outputs: []status.Output{}, Readers: []status.Reader{},
		Faults: []status.Fault{}, Services: []status.Service{},
	}
	for _, r := range d.config.Renditions {
		b.Renditions = append(b.Renditions, d.renditionNow(r, now))
	}
	b.Record = d.recordNow(b)
	for _, o := range d.config.Outputs {
		b.Outputs = append(b.Outputs, d.outputNow(o, now))
	}
	for _, v := range d.audience.Viewers() {
		b.Readers = append(b.Readers, status.Reader{
			Protocol: v.Protocol, Rendition: v.Rendition, Peer: v.Peer, Since: v.Since,
			Bytes: v.Bytes.Load(), Lost: v.Lost.Load(), LagMS: round(float64(v.Lag.Load()) / float64(time.Millisecond)),
		})
	}
	if d.config.Audio.Source != "none" && b.Sound.Signal {
		b.AVOffsetMS = float64(d.mixer.levels().late) / float64(time.Millisecond)
	}
	b.Services = d.servicesNow()
	b.Faults = d.faults(b, now)
	b.State = state(b)
	b.Ending = d.graceEnds()
	b.Identify = now.Before(d.identify)
	b.Lamps = panel.Lamps(b, wire(d.config, d.Board).roles, now)
	return b
}

func (d *Daemon) inputNow(now time.Time) status.Input {
	in := status.Input{
		Source: d.config.Video.Source, Signal: d.hub.live(),
		Missed: d.hub.missed.Load(), Damaged: d.notes.badPictures, Slate: d.hub.slates.Load(),
		DecodedBytes: d.notes.decodedBytes,
	}
	if s := d.notes.cameraStream; s != nil {
		in.ID, in.Name = d.notes.camera.ID(), d.notes.camera.Name()
		m, st := s.Mode(), s.Stats()
		in.Width, in.Height, in.Format = m.Width, m.Height, m.Pixel.String()
		in.Frames, in.Missed, in.Damaged = st.Frames, in.Missed+st.Missed, in.Damaged+st.Damaged
		in.FPS = round(d.notes.frameRate.measure(now, st.Frames))
	}
	return in
}

func (d *Daemon) renditionNow(r config.Rendition, now time.Time) status.Rendition {
	st := status.Rendition{
		Name: r.Name, Codec: r.Codec, Width: r.Width, Height: r.Height,
		Target: int(r.Bitrate), State: status.Starting,
	}
	if s := d.services["encode/"+r.Name]; s != nil {
		st.State, st.Error = serviceState(s.Status), text(s.Err)
	}
	if n := d.notes.encoders[r.Name]; n != nil {
		st.Encoder, st.EncoderReason = n.driver.Name, cmp.Or(n.fallback, d.placed[r.Name].Reason)
		if n.buffers.Way != "" {
			st.Buffers = &status.Buffers{Way: string(n.buffers.Way), Reason: n.buffers.Reason}
		}
		if n.recovering && st.State == status.Live {
			st.State, st.Error = status.Recovering, "the encoder "+n.driver.Name+" hangs"
		}
		es := n.stats()
		st.Frames, st.Dropped, st.CopiedBytes = n.frames.Load(), es.Dropped+es.Swallowed, es.CopiedBytes
		st.FPS = round(n.frameRate.measure(now, n.frames.Load()))
		st.Bitrate = int(8 * n.byteRate.measure(now, n.bytes.Load()))
	}
	return st
}

func (d *Daemon) outputNow(o config.Output, now time.Time) status.Output {
	st := status.Output{Name: o.Name, URL: o.URL.String(), Rendition: o.Rendition, Required: o.Required, State: status.Off}
	s := d.services["push/"+o.Name]
	if s == nil {
		return st
	}
	st.State, st.Error, st.Attempt = serviceState(s.Status), text(s.Err), s.Attempt
	st.RetryAt = retryAt(s.Status)
	n := d.notes.outputs[o.Name]
	if s.State != supervise.Live || n == nil {
		return st
	}
	st.LagMS = round(float64(n.report.Lag) / float64(time.Millisecond))
	st.Bitrate = int(8 * n.byteRate.measure(now, n.report.Sent))
	st.Sent, st.Lost = n.report.Sent, n.report.Lost
	st.State = status.Unconfirmed
	if n.report.State == stream.PushConfirmed {
		since := n.since
		st.State, st.Since = status.Live, &since
	}
	return st
}

func (d *Daemon) servicesNow() []status.Service {
	list := []status.Service{}
	for name, s := range d.services {
		v := status.Service{
			Name: name, State: string(s.State), Error: text(s.Err), Attempt: s.Attempt, RetryAt: retryAt(s.Status),
		}
		list = append(list, v)
	}
	for _, name := range d.group.Stuck() {
		list = append(list, status.Service{Name: name, State: string(supervise.Stuck)})
	}
	slices.SortFunc(list, func(a, b status.Service) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// retryAt is when a service that waits will try again: a time of its own, for
// the report is read while the service goes on.
func retryAt(s supervise.Status) *time.Time {
	if s.State != supervise.Backoff {
		return nil
	}
	return &s.Retry
}

// serviceState translates the supervisor's word.
func serviceState(s supervise.Status) string {
	switch s.State {
	case supervise.Live:
		return status.Live
	case supervise.Starting:
		return status.Starting
	case supervise.Backoff:
		return status.Backoff
	case supervise.Failed, supervise.Stuck:
		return status.Failed
	default:
		return status.Off
	}
}

// settle is how long a camera or card has after a start before its absence is
// a fault.
const settle = 3 * time.Second

// faults says what is wrong, in words.
func (d *Daemon) faults(b status.Box, now time.Time) []status.Fault {
	f := faultList{now: now, list: []status.Fault{}, before: d.stand, stand: map[trouble]time.Time{}}
	defer func() { d.stand = f.stand }()
	if now.Sub(d.start) > settle {
		if !b.Input.Signal {
			f.add(status.NoPicture, "", d.why("camera", cmp.Or(d.notes.noSignal, "source "+b.Input.Source+" gives nothing")))
		}
		if b.Sound.Source != "none" && !b.Sound.Signal {
			f.add(status.NoSound, "", d.why("sound", d.why("mic", "source "+b.Sound.Source+" gives nothing")))
		}
		if b.Sound.Silent && !b.Sound.Muted {
			f.add(status.SilentSound, "", silence(b.Sound, d.config.Audio))
		}
	}
	d.encoderFaults(b, &f)
	for _, o := range b.Outputs {
		f.output(o)
	}
	for _, s := range b.Services {
		f.service(s)
	}
	d.panelFaults(b, &f)
	if around := b.Network; !around.Up && slices.ContainsFunc(b.Outputs, away) {
		f.add(status.NoNetwork, "", "")
	}
	if b.Power.UnderVoltage {
		f.add(status.UnderVoltage, "", "")
	}
	if d.around.unanswered {
		f.add(status.NetworkStays, "", "")
	}
	const hot = 85
	if b.TemperatureC > hot {
		f.add(status.TooHot, "", "")
	}
	f.storage(b, !filepath.IsAbs(d.config.Record.Dir))
	return f.list
}

// away reports whether an output is wanted and not there.
func away(o status.Output) bool { return o.State != status.Off && o.State != status.Live }

// panelFaults says what is wrong with keys, lamps and tally. A key that only had
// its last order refused is no fault.
func (d *Daemon) panelFaults(b status.Box, f *faultList) {
	for _, t := range d.keys.Troubles() {
		f.add(t.Code, "key "+t.Key, t.Key+": "+t.Text)
	}
	for _, name := range slices.Sorted(maps.Keys(d.notes.lamps)) {
		f.add(status.PanelWire, "lamp "+name, d.notes.lamps[name].Error())
	}
	for _, name := range slices.Sorted(maps.Keys(d.notes.lighting)) {
		if f.now.Sub(d.notes.lighting[name]) > lampHang {
			f.add(status.PanelWire, "lamp "+name, name+": its driver does not answer, and the light may be wrong")
		}
	}
	for _, s := range b.Tally.Sources {
		if s.State == status.Unknown {
			f.add(status.TallyLost, s.Name, s.Name+": "+cmp.Or(s.Error, "nothing comes from there"))
		}
	}
}

// encoderFaults says what is wrong with encoders and their drivers.
func (d *Daemon) encoderFaults(b status.Box, f *faultList) {
	for _, r := range b.Renditions {
		f.rendition(r, d.services["encode/"+r.Name])
		if n := d.notes.encoders[r.Name]; n != nil && n.fallback != "" {
			f.add(status.EncoderFallback, r.Name, n.fallback+"; "+r.Encoder+" codes in its place")
		}
	}
	if errors.Is(d.encoderTrouble, hw.ErrMissing) && slices.ContainsFunc(d.config.Renditions, wantsHardware) {
		f.add(status.EncoderFallback, "", text(d.encoderTrouble)) // this board should have one
	}
	for _, call := range d.calls.list() {
		f.add(status.DriverHangs, call, call)
	}
}

func wantsHardware(r config.Rendition) bool { return r.Encoder != config.Software }

// why returns a service's error, or else another reason.
func (d *Daemon) why(service, reason string) string {
	if s := d.services[service]; s != nil && s.Err != nil {
		return text(s.Err)
	}
	return reason
}

// A trouble is what makes a fault the same one as before: its words may count
// what goes on.
type trouble struct {
	code    status.FaultCode
	subject string // the output, rendition or part that it is about, or ""
}

type faultList struct {
	now           time.Time
	list          []status.Fault
	before, stand map[trouble]time.Time // since when
}

func (f *faultList) add(code status.FaultCode, subject, detail string) {
	t := trouble{code, subject}
	since, stood := f.before[t]
	if !stood {
		since = f.now
	}
	f.stand[t] = since
	f.list = append(f.list, status.NewFault(code, detail, since))
}

func (f *faultList) rendition(r status.Rendition, s *service) {
	switch {
	case s == nil || s.Err == nil:
	case errors.Is(s.Err, hw.ErrMissing), errors.Is(s.Err, errOverload):
		f.add(status.EncoderMissing, r.Name, r.Name+": "+r.Error)
	case r.State == status.Backoff || r.State == status.Failed:
		f.add(status.EncoderFailed, r.Name, r.Name+": "+r.Error)
	}
	if r.State == status.Recovering {
		f.add(status.EncoderStalled, r.Name, r.Name+": "+r.Error)
	}
}

func (f *faultList) output(o status.Output) {
	switch o.State {
	case status.Backoff:
		f.add(status.OutputRetrying, o.Name, o.Name+": "+o.Error)
	case status.Failed:
		f.add(status.OutputRefused, o.Name, o.Name+": "+o.Error)
	}
}

// servers are the services that listen for viewers and people.
var servers = []string{"rtsp", "rtsps", "rtmp", "rtmps", "webrtc", "live", "web"}

func (f *faultList) service(s status.Service) {
	switch {
	case s.State == string(supervise.Stuck):
		f.add(status.ServiceStuck, s.Name, s.Name)
	case slices.Contains(servers, s.Name) && s.Error != "":
		f.add(status.ServerFailed, s.Name, s.Name+": "+s.Error)
	}
}

// state is the one word for the box.
//
//	fault     an encoder is down, a required output failed for good, or something hangs
//	degraded  on air, but viewers miss something
//	starting  something wanted is not there yet
//	live      every wanted output is confirmed; without outputs: somebody watches
//	off       nothing is wanted
func state(b status.Box) string {
	wanted, up, bad, worst := 0, 0, 0, 0
	for _, o := range b.Outputs {
		switch o.State {
		case status.Off:
			continue
		case status.Live:
			up++
		case status.Backoff, status.Failed:
			bad++
			if o.Required && o.State == status.Failed {
				worst++
			}
		}
		wanted++
	}
	starting := slices.ContainsFunc(b.Renditions, func(r status.Rendition) bool { return r.State == status.Starting })
	switch {
	case worst > 0, b.Has(status.EncoderFailed), b.Has(status.EncoderMissing), b.Has(status.ServiceStuck):
		return status.Broken
	case starting:
		return status.Starting
	case wanted == 0 && len(b.Readers) == 0:
		return status.Off
	case bad > 0, b.Has(status.NoPicture), b.Has(status.NoSound), b.Has(status.EncoderStalled):
		return status.Degraded
	case up < wanted:
		return status.Starting
	default:
		return status.Live
	}
}

// Alive reports whether every media service that is live made progress since
// the last call; it is what feeds the watchdog. Services that are known to be
// broken do not count: they are faults, which people see.
func (d *Daemon) Alive() bool {
	alive := d.tells(time.Now())
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range d.group.Stuck() {
		d.Log.Error("does not stop", "service", name)
		alive = false
	}
	for name, s := range d.services {
		if !d.moved(name, s) {
			d.Log.Error("no progress", "service", name, "state", string(s.State))
			alive = false
		}
	}
	return alive
}

// mute is how long the status may be old, and so the lights.
const mute = 5 * time.Second

// tells reports whether the status is kept up: lights that stand still may lie.
func (d *Daemon) tells(now time.Time) bool {
	last := d.reported.Load()
	if last == 0 || now.Sub(d.start)-time.Duration(last) < mute {
		return true
	}
	d.Log.Error("the status is not told any more")
	return false
}

// startTime is how long a media service may take to come up.
const startTime = 20 * time.Second

func (d *Daemon) moved(name string, s *service) bool {
	if s.State == supervise.Stuck {
		return false
	}
	progress, media := d.progress(name)
	if !media {
		return true
	}
	switch s.State {
	case supervise.Live:
		moved := !s.looked || progress != s.progress
		s.progress, s.looked = progress, true
		return moved
	case supervise.Starting:
		return time.Since(s.since) < startTime
	default:
		return true
	}
}

// progress returns the counter of a media service.
func (d *Daemon) progress(name string) (n uint64, media bool) {
	switch {
	case name == "picture":
		return d.hub.passed.Load(), true
	case name == "sound":
		return d.mixer.coded.Load(), true
	case len(name) > len("encode/") && name[:len("encode/")] == "encode/":
		if n := d.notes.encoders[name[len("encode/"):]]; n != nil {
			return n.frames.Load() + n.steps.Load(), true
		}
		return 0, true
	default:
		return 0, false
	}
}

// Settled reports whether every encoder and server has come up or is known to
// be broken: the moment at which systemd is told that the box is ready.
func (d *Daemon) Settled() bool {
	b, version := d.cell.Get()
	if version == 0 {
		return false
	}
	for _, r := range b.Renditions {
		if r.State == status.Starting || r.State == status.Off {
			return false
		}
	}
	return !slices.ContainsFunc(b.Services, func(s status.Service) bool {
		return (s.Name == "picture" || slices.Contains(servers, s.Name)) && s.State == string(supervise.Starting)
	})
}

func disk(dir string) status.Storage {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return status.Storage{}
	}
	size := uint64(st.Bsize)
	return status.Storage{TotalBytes: st.Blocks * size, FreeBytes: st.Bavail * size}
}

func round(v float64) float64 { return math.Round(v*10) / 10 }

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
