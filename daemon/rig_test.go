package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"encoderd.example/daemon/status"
	"encoderd.example/hw"
	"encoderd.example/hw/sim"
	"encoderd.example/stream"
)

// A rig is a whole box in a synctest bubble: the software board, encoders that
// code nothing, and no listener.
type rig struct {
	*Daemon
	t     *testing.T
	board *sim.Board
	video *videoDriver
	log   lines // of errors
	ended chan error
	end   context.CancelFunc
}

// small is a config that costs little; what a test needs stands behind it.
const small = `
[video]
width = 128
height = 72
fps = 10
[serve]
web = ""
rtsp = ""
`

const outputs = `
[[output]]
name = "hall"
url = "rtmp://127.0.0.1:9/live"
key = "k"
[[output]]
name = "church"
url = "rtmp://127.0.0.1:9/live"
key = "k"
`

// newRig starts a box; change, if not nil, has a word about its board.
func newRig(t *testing.T, doc string, change func(*hw.Board)) *rig {
	t.Helper()
	clock := bubbleClock()
	r := &rig{t: t, board: sim.New(sim.Options{Now: clock}), video: &videoDriver{}, ended: make(chan error, 1)}
	b := r.board.Hardware()
	b.Encoders = []hw.EncoderDriver{r.video.driver("fake", false)}
	b.AudioEncoders = []hw.AudioEncoderDriver{{Name: "fake", Codec: stream.AAC, Open: newFakeSound}}
	if change != nil {
		change(&b)
	}
	r.Daemon = New(Options{Board: b, State: t.TempDir(), Log: slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelError}))})
	r.hub.now, r.mixer.now = clock, clock
	r.Apply(parse(t, doc))
	ctx, cancel := context.WithCancel(t.Context())
	r.end = cancel
	go func() { r.ended <- r.Run(ctx) }()
	return r
}

// lines are of a log. The zero value has none.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// stop ends the box in order; nothing may take longer than a goodbye.
func (r *rig) stop() {
	r.t.Helper()
	began := time.Now()
	r.end()
	if err := <-r.ended; err != nil {
		r.t.Error(err)
	}
	if d := time.Since(began); d > 4*time.Second {
		r.t.Errorf("the end took %v", d)
	}
}

// until waits for a state of the box.
func (r *rig) until(what string, is func(status.Box) bool) status.Box {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	var seen uint64
	for {
		b, version, err := r.Wait(ctx, seen)
		if err != nil {
			last, _ := r.Status()
			r.t.Fatalf("no %s within a minute: %+v", what, last)
		}
		if is(b) {
			return b
		}
		seen = version
	}
}

// now is the state of the box.
func (r *rig) now() status.Box {
	b, _ := r.Status()
	return b
}

func onDuty(b status.Box) bool {
	for _, r := range b.Renditions {
		if r.State != status.Live {
			return false
		}
	}
	return len(b.Renditions) > 0 && b.Input.Signal
}

// order gives an order that must be taken, and at once.
func (r *rig) order(action string, args map[string]string) {
	r.t.Helper()
	began := time.Now()
	if err := r.Do(r.t.Context(), action, args, "test"); err != nil {
		r.t.Errorf("%s: %v", action, err)
	}
	if d := time.Since(began); d > 0 {
		r.t.Errorf("%s held its caller up for %v", action, d)
	}
}

func (r *rig) fault(name string, on bool) {
	r.t.Helper()
	if err := r.board.SetFault(name, on); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) apply(doc string) { r.Apply(parse(r.t, doc)) }

// A videoDriver makes encoders that code nothing, and knows them.
type videoDriver struct {
	mute     atomic.Bool   // its encoders take pictures and give nothing
	wild     atomic.Bool   // those that are made hang at their end
	busy     atomic.Bool   // none can be made
	gone     atomic.Bool   // it is not there
	instance atomic.Uint64 // what it is told apart by
	slow     atomic.Bool   // none can be made, nor is that said, before free is closed

	mu   sync.Mutex
	made []*fakeVideo
	free chan struct{} // what hanging encoders wait for

	slates chan hw.Plane // if set: luma of the slates that were submitted
}

func (d *videoDriver) driver(name string, hardware bool) hw.EncoderDriver {
	return hw.EncoderDriver{Name: name, Hardware: hardware, Codecs: []stream.Codec{stream.H264}, Open: d.open}
}

func (d *videoDriver) open(c hw.EncoderConfig) (hw.Encoder, error) {
	if d.slow.Load() {
		<-d.free
		return nil, hw.ErrGone
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.busy.Load() {
		return nil, hw.ErrBusy
	}
	e := &fakeVideo{
		EncoderConfig: c, driver: d, opened: time.Now(), units: make(chan *stream.Unit, 4), broken: make(chan struct{}),
		track: &stream.Track{Codec: c.Codec, Setup: []byte{1, 0x64, 0, 0x1f}, Width: c.Width, Height: c.Height, FPS: c.FPS.Float()},
	}
	if d.wild.Load() {
		e.hung = d.free
	}
	e.rate.Store(int64(c.Bitrate))
	d.made = append(d.made, e)
	return e, nil
}

// all returns the encoders made so far.
func (d *videoDriver) all() []*fakeVideo {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]*fakeVideo(nil), d.made...)
}

// latest returns the encoder made last.
func (d *videoDriver) latest() *fakeVideo {
	all := d.all()
	return all[len(all)-1]
}

// A fakeVideo turns each frame into a unit of one byte.
type fakeVideo struct {
	hw.EncoderConfig
	driver *videoDriver
	units  chan *stream.Unit
	track  *stream.Track
	broken chan struct{}
	parted atomic.Bool   // what it broke of is that it is gone
	hung   chan struct{} // if set, Close waits for it
	stuck  bool          // Close says that the device does not stop

	rate, highest    atomic.Int64
	submitted, drops atomic.Uint64
	keys             atomic.Uint64 // asked for
	opened           time.Time
	closed           atomic.Bool
	late             atomic.Uint64 // calls after Close
}

func (e *fakeVideo) Submit(f *hw.Frame) error {
	e.check()
	if e.driver.slates != nil && f.Planes[0].FD >= 0 {
		select {
		case e.driver.slates <- f.Planes[0]:
		default:
		}
	}
	if e.driver.mute.Load() {
		e.submitted.Add(1)
		return nil
	}
	select {
	case e.units <- &stream.Unit{Track: e.track, Key: e.submitted.Add(1)%10 == 1, PTS: f.Stamp, DTS: f.Stamp, Data: []byte{1}}:
		return nil
	default:
		e.drops.Add(1)
		return hw.ErrBusy
	}
}

func (e *fakeVideo) Next(ctx context.Context) (*stream.Unit, error) {
	select {
	case u := <-e.units:
		return u, nil
	case <-e.broken:
		if e.parted.Load() {
			return nil, hw.ErrGone
		}
		return nil, fmt.Errorf("hardware fell over: %w", os.ErrDeadlineExceeded)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (e *fakeVideo) SetBitrate(bps int) error {
	e.check()
	e.rate.Store(int64(bps))
	e.highest.Store(max(e.highest.Load(), int64(bps)))
	return nil
}

func (e *fakeVideo) ForceKey() { e.check(); e.keys.Add(1) }

func (e *fakeVideo) Close() error {
	e.closed.Store(true)
	if e.hung != nil {
		<-e.hung
	}
	if !e.stuck {
		return nil
	}
	select {
	case <-e.driver.free:
		return nil
	default:
		return fmt.Errorf("close: %w", hw.ErrStuck)
	}
}

func (e *fakeVideo) Stats() hw.EncoderStats {
	e.check()
	return hw.EncoderStats{Submitted: e.submitted.Load(), Dropped: 1000 + e.drops.Load()}
}

// depart takes the encoder away, once.
func (e *fakeVideo) depart() {
	if !e.parted.Swap(true) {
		close(e.broken)
	}
}

// check notes calls after Close.
func (e *fakeVideo) check() {
	if e.closed.Load() {
		e.late.Add(1)
	}
}

// A fakeSound turns 1024 sample frames into a unit of one byte.
type fakeSound struct {
	track  *stream.Track
	begin  time.Duration
	begun  bool
	frames int64 // taken
	units  int64 // given
}

func newFakeSound(int) (hw.AudioEncoder, error) {
	return &fakeSound{track: &stream.Track{Codec: stream.AAC, Setup: []byte{0x11, 0x90}, Rate: hw.SampleRate, Channels: hw.Channels}}, nil
}

func (e *fakeSound) Encode(pcm []int16, stamp time.Duration, emit func(*stream.Unit)) error {
	if !e.begun {
		e.begin, e.begun = stamp, true
	}
	const frame = 1024
	for e.frames += int64(len(pcm) / hw.Channels); (e.units+1)*frame <= e.frames; e.units++ {
		at := e.begin + time.Duration(e.units*frame)*time.Second/hw.SampleRate
		emit(&stream.Unit{Track: e.track, PTS: at, DTS: at, Data: []byte{2}})
	}
	return nil
}

func (e *fakeSound) Track() *stream.Track { return e.track }
func (e *fakeSound) Reset()               { *e = fakeSound{track: e.track} }
func (e *fakeSound) Close() error         { return nil }

// inBox runs a test on a box in a bubble.
func inBox(t *testing.T, doc string, change func(*hw.Board), test func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, doc, change)
		defer r.stop()
		r.until("box on duty", onDuty)
		test(r)
	})
}

func named(name string) map[string]string { return map[string]string{"name": name} }
