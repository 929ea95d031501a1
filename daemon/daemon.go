// Package daemon joins config and board into running services and one status
// value.
//
//	config + board + wanted ─► plan ─► supervise.Group.Apply
//	keys, page, command line ─► Do(action) ─► wanted ─► plan …
//	services ─► report ─► status.Cell ─► lamps, page, metrics
//
// Pictures go camera → hub → encoder → rendition, sound goes mic → mixer →
// encoder → every rendition. Hub, mixer and renditions belong to the [Daemon]
// and outlive the services around them: that is why a lost camera or a
// restarted encoder ends no connection.
package daemon

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"encoderd.example/daemon/config"
	"encoderd.example/daemon/panel"
	"encoderd.example/daemon/status"
	"encoderd.example/daemon/supervise"
	"encoderd.example/daemon/tally"
	"encoderd.example/daemon/visca"
	"encoderd.example/hw"
	"encoderd.example/stream"
	"encoderd.example/stream/access"
	"encoderd.example/stream/record"
	"encoderd.example/stream/usage"
	"encoderd.example/stream/webrtc"
)

// Options are what a daemon is made of.
type Options struct {
	Board hw.Board
	// State is the directory for what outlives a restart.
	State   string
	Version string
	Log     *slog.Logger
	// Web runs the page's server at an address; the program hands it in,
	// because siblings do not know each other.
	Web func(ctx context.Context, addr string, c config.Config, d *Daemon, live func()) error
	// Reload reads the config again, for the action that asks for it.
	Reload func() (config.Config, error)
	// LinkKey signs links to renditions; without one there are none.
	LinkKey []byte
	// Restart ends the program so that systemd starts it again.
	Restart func()
}

// A Daemon is the running box. Its methods may be called from any goroutine.
type Daemon struct {
	Options
	devices  *devices
	hub      *hub
	mixer    *mixer
	audience stream.Audience
	group    supervise.Group
	cell     status.Cell[status.Box]
	start    time.Time
	reported atomic.Int64 // how long after start the status was told last

	keys    *panel.Keys
	tracker *tally.Tracker             // of what switchers say
	camera  atomic.Pointer[visca.Link] // that moves; nil while its port is not open
	lit     *litFile                   // what would shine on if we died now

	source  status.Cell[source] // what comes in
	readers status.Cell[uint64] // sessions that were left behind; its version counts changes of encoders
	calls   calls               // into drivers, that did not come back

	recorder record.Recorder

	site     atomic.Pointer[site]          // nil while it is not served
	browsers atomic.Pointer[webrtc.Server] // likewise
	opus     *demand
	rules    atomic.Pointer[access.Rules] // who may watch
	ledger   *usage.Ledger                // who watched

	certifying sync.Mutex // held while the certificate is read or made

	painting sync.Mutex // held while the hub is told where to paint
	canvas   canvas

	// changed holds a token while config or wishes differ from what runs.
	changed chan struct{}
	saver   saver // of the wishes

	mu      sync.Mutex
	config  config.Config
	wanted  Wanted
	drivers []hw.EncoderDriver   // that are there now
	placed  map[string]placement // by rendition
	booked  map[string]string    // the encoder on which each rendition counts, once it was tried
	// departures are the encoders that said that they are gone.
	departures departures
	// encoderTrouble is what the last search for encoders complained of.
	encoderTrouble error
	renditions     map[string]*stream.Rendition
	retired        []*stream.Rendition // to be closed once nobody writes to them
	tracks         map[string]string   // what each of them carries
	services       map[string]*service
	notes          notes
	identify       time.Time             // until when the lamps say "it is me"
	around         surroundings          // as the system told last
	grace          grace                 // of a show that was stopped
	stand          map[trouble]time.Time // faults that stand, and since when
}

// service is what the group last said about one service.
type service struct {
	supervise.Status
	since    time.Time // of this state
	progress uint64    // at the watchdog's last look
	looked   bool
}

// New returns a daemon that runs nothing yet.
func New(o Options) *Daemon {
	wanted, err := loadWanted(o.State)
	if err != nil {
		o.Log.Warn("forgot what was on air", "err", err)
	}
	d := &Daemon{
		Options:    o,
		hub:        newHub(),
		mixer:      newMixer(),
		start:      time.Now(),
		changed:    make(chan struct{}, 1),
		wanted:     wanted,
		renditions: map[string]*stream.Rendition{},
		tracks:     map[string]string{},
		booked:     map[string]string{},
		departures: departures{},
		services:   map[string]*service{},
		notes:      newNotes(),
		grace:      newGrace(),
		recorder:   record.Recorder{Log: o.Log.With("service", "record")},
		around:     surroundings{network: status.Network{Up: true}}, // no alarm before anybody has looked
	}
	d.keys = panel.NewKeys(nil, d.press, d.notes.kick)
	d.tracker = tally.NewTracker(nil, d.notes.kick)
	d.lit = newLitFile(o.State, o.Log)
	d.opus = newDemand(o.Board.AudioEncoders, &d.audience, o.Log)
	d.mixer.opus = d.opus
	d.rules.Store(&access.Rules{})
	if d.ledger, err = usage.Open(filepath.Join(o.State, usageFile)); err != nil {
		o.Log.Warn("usage report", "err", err)
	}
	d.audience.SetBook(d.ledger)
	d.devices = newDevices(o.Board, &d.calls, o.Log)
	d.devices.encoders = encoderSearch{look: d.findEncoders, open: d.missesEncoders}
	d.mixer.muted.Store(wanted.Muted)
	d.group.Log = o.Log
	d.group.Report = d.noteService
	return d
}

// Run keeps the box as config and wishes have it until ctx ends; then it stops
// the services in the reverse order of their start: web, outputs (which say
// goodbye), encoders, capture, lamps. It moves services by itself, so that
// whoever gives an order, even from within a service, never waits for one.
func (d *Daemon) Run(ctx context.Context) error {
	living, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	d.lit.begin()
	d.findEncoders()
	var report sync.WaitGroup
	report.Go(func() { d.report(living) })
	report.Go(func() { tidyMemory(living) })
	report.Go(func() {
		if err := d.ledger.Run(living, d.Log); err != nil {
			d.Log.Warn("usage report", "err", err)
		}
	})
	d.follow(ctx, living)
	d.group.Apply(living, nil)
	d.hub.end() // the camera stops after the hub
	kill()
	report.Wait()
	return nil
}

// follow moves the box at every change until ctx ends; services live in living.
func (d *Daemon) follow(ctx, living context.Context) {
	for {
		select {
		case <-d.changed:
			d.move(living)
		case <-d.grace.timer.C:
			d.graceOver()
		case <-ctx.Done():
			return
		}
	}
}

// Apply makes c what Run moves the box to; only what differs restarts. It does
// not wait for that, and may be called before Run.
func (d *Daemon) Apply(c config.Config) {
	d.mu.Lock()
	d.keepGrace(d.config.Outputs, c.Outputs)
	d.config = c
	dropped := d.wanted.keep(c.Outputs)
	d.mu.Unlock()
	d.change()
	if !dropped {
		return
	}
	if err := d.remember(); err != nil {
		d.Log.Warn("outputs that are gone are not forgotten", "err", err)
	}
}

// change tells Run that config or wishes are new.
func (d *Daemon) change() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// move makes the running services those that config and wishes ask for.
func (d *Daemon) move(ctx context.Context) {
	d.mu.Lock()
	c, w, b := d.config, d.wanted, d.Board
	w.Outputs, w.Restarts = maps.Clone(w.Outputs), maps.Clone(w.Restarts)
	w.Returns = d.departures.returns()
	w.Lingering = maps.Clone(d.grace.outputs)
	b.Encoders = d.drivers
	d.placed = placements(c, b.Encoders)
	d.mu.Unlock()
	d.turnKnobs(c)
	services := plan(c, b, w)
	for i := range services {
		d.bind(&services[i])
	}
	d.group.Apply(ctx, services)
	d.forget(services)
	d.stopped(w.Lingering)
}

// forget drops what belongs to services that are not wanted any more. Now that
// they have stopped, nothing is cut off in the middle.
func (d *Daemon) forget(services []supervise.Service) {
	names := map[string]bool{}
	for _, s := range services {
		names[s.Name] = true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for name, r := range d.renditions {
		if !names["encode/"+name] {
			d.retired = append(d.retired, r)
			delete(d.renditions, name)
		}
	}
	for _, r := range d.retired {
		r.Close()
	}
	d.retired = nil
	maps.DeleteFunc(d.booked, func(name, _ string) bool { return !names["encode/"+name] })
	maps.DeleteFunc(d.services, func(name string, _ *service) bool { return !names[name] })
	d.notes.keep(names)
}

// turnKnobs passes on what changes without a restart.
func (d *Daemon) turnKnobs(c config.Config) {
	d.mixer.turn(c.Audio)
	d.keys.Set(wire(c, d.Board).maps)
	d.tracker.Follow(sources(c.Tallies))
	d.turnDoor(c)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range c.Renditions {
		if n := d.notes.encoders[r.Name]; n != nil && n.encoder != nil {
			d.turn(n, r)
		}
	}
}

// turn gives an encoder the bit rate that its rendition has now. The caller
// holds mu.
func (d *Daemon) turn(n *encoderNote, r config.Rendition) {
	if n.target == int(r.Bitrate) {
		return
	}
	if err := n.encoder.SetBitrate(int(r.Bitrate)); err != nil {
		d.Log.Warn("bit rate stays", "rendition", r.Name, "err", err)
		return
	}
	n.target = int(r.Bitrate)
}

// Rendition returns the rendition of that name, or nil.
func (d *Daemon) Rendition(name string) *stream.Rendition {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.config.Rendition(name); !ok {
		return nil
	}
	return d.renditions[name]
}

// rendition returns the place where an encoder publishes; it stays the same
// for as long as it carries the same kinds of tracks.
func (d *Daemon) rendition(c encodeConfig) *stream.Rendition {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.renditions[c.Rendition]
	if r != nil && d.tracks[c.Rendition] != c.Tracks {
		d.retired = append(d.retired, r)
		r = nil
	}
	if r != nil {
		r.Resize(ringSize(c))
	} else {
		codecs := []stream.Codec{c.Codec}
		if strings.HasSuffix(c.Tracks, withSound) {
			codecs = append(codecs, stream.AAC)
		}
		r = stream.NewRendition(c.Rendition, ringSize(c), codecs...)
		d.renditions[c.Rendition], d.tracks[c.Rendition] = r, c.Tracks
	}
	r.SetKeyInterval(c.keyInterval())
	return r
}

// keyInterval is how far apart key pictures are ordered to be, zero where a
// camera that codes by itself may decide.
func (c encodeConfig) keyInterval() time.Duration {
	if c.Choice == config.Camera {
		return 0
	}
	return time.Duration(float64(c.GOP) / c.FPS.Float() * float64(time.Second))
}

// ringSize holds two groups of pictures and two seconds, with their sound.
func ringSize(c encodeConfig) int {
	const audioFrames = 100 // a second, of AAC and Opus together
	fps := c.FPS.Float()
	seconds := 2*float64(c.GOP)/fps + 2
	return int(seconds * (fps + audioFrames))
}

// publishSound gives a unit of sound to every rendition.
func (d *Daemon) publishSound(u *stream.Unit) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.renditions {
		r.Publish(u)
	}
}

// Status returns the state of the box and its version.
func (d *Daemon) Status() (status.Box, uint64) { return d.cell.Get() }

// Wait returns the state once it is newer than version seen.
func (d *Daemon) Wait(ctx context.Context, seen uint64) (status.Box, uint64, error) {
	return d.cell.Wait(ctx, seen)
}

// Audience is the list of local viewers.
func (d *Daemon) Audience() *stream.Audience { return &d.audience }

// usageFile is in the state directory.
const usageFile = "usage.json"

// WriteUsage writes the daily report of who watched, as CSV.
func (d *Daemon) WriteUsage(w io.Writer) error { return d.ledger.WriteCSV(w) }
