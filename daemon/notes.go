package daemon

import (
	"errors"
	"sync/atomic"
	"time"

	"encoderd.example/daemon/supervise"
	"encoderd.example/hw"
	"encoderd.example/stream"
)

// notes is what the services left for the status. The maps and pointers are
// guarded by [Daemon.mu].
type notes struct {
	kicked chan struct{}

	camera       hw.Camera
	cameraStream hw.CameraStream
	badPictures  uint64
	decodedBytes uint64
	noSignal     string // what the camera said of its input when it ended last
	frameRate    rate

	mic       hw.Mic
	micStream hw.MicStream

	encoders map[string]*encoderNote
	outputs  map[string]*outputNote
	record   recordNote
	lamps    map[string]error     // why each does not follow
	lighting map[string]time.Time // since when each is being lit, while it is
}

// encoderNote is about one rendition's encoder.
type encoderNote struct {
	driver  hw.EncoderDriver
	encoder hw.Encoder // nil while none is open
	target  int        // bit/s
	past    hw.EncoderStats
	frames  atomic.Uint64
	bytes   atomic.Uint64
	steps   atomic.Uint64 // taken about an encoder that hangs

	buffers    hw.BufferPlan
	fallback   string // why another encoder is in use than the first, or ""
	recovering bool   // an encoder that hung is being brought back

	frameRate, byteRate rate
}

// outputNote is about one output.
type outputNote struct {
	report   stream.PushReport
	since    time.Time // when it was confirmed
	byteRate rate
}

func newNotes() notes {
	return notes{
		kicked:   make(chan struct{}, 1),
		encoders: map[string]*encoderNote{},
		outputs:  map[string]*outputNote{},
		lamps:    map[string]error{},
		lighting: map[string]time.Time{},
	}
}

// kick asks for a report soon.
func (n *notes) kick() {
	select {
	case n.kicked <- struct{}{}:
	default:
	}
}

// keep forgets outputs and encoders whose services are gone.
func (n *notes) keep(services map[string]bool) {
	for name := range n.encoders {
		if !services["encode/"+name] {
			delete(n.encoders, name)
		}
	}
	for name := range n.outputs {
		if !services["push/"+name] {
			delete(n.outputs, name)
		}
	}
}

func (d *Daemon) noteService(name string, s supervise.Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.services[name]
	if v == nil {
		v = &service{}
		d.services[name] = v
	}
	if v.State != s.State {
		v.since, v.looked = time.Now(), false
	}
	v.Status = s
	d.notes.kick()
}

func (d *Daemon) noteCamera(c hw.Camera, s hw.CameraStream) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.notes.camera, d.notes.cameraStream, d.notes.frameRate = c, s, rate{}
	if c != nil {
		d.notes.noSignal = "" // that was before
	}
	d.notes.kick()
}

// noteSignal keeps what a camera says of an input without a signal: nothing may
// come in, or what the box cannot take, which no look at the cable shows.
func (d *Daemon) noteSignal(c hw.Camera, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.notes.noSignal = ""
	if errors.Is(err, hw.ErrNoSignal) || notTaken(c, err) {
		d.notes.noSignal = "camera " + c.ID() + ": " + err.Error()
	}
	d.notes.kick()
}

func (d *Daemon) noteBadPicture() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.notes.badPictures++
}

// noteDecoded counts the bytes that a picture took to be decoded.
func (d *Daemon) noteDecoded(bytes uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.notes.decodedBytes += bytes
}

func (d *Daemon) noteMic(m hw.Mic, s hw.MicStream) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.notes.mic, d.notes.micStream = m, s
	d.notes.kick()
}

// noteEncoder takes in an encoder that was opened at that bit rate. The
// counters of a rendition go on over restarts of its encoder. left says that
// the one before was left behind with what it holds.
func (d *Daemon) noteEncoder(rendition string, driver hw.EncoderDriver, e hw.Encoder, bitrate int, left bool) *encoderNote {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.notes.encoders[rendition]
	if n == nil {
		n = &encoderNote{}
		d.notes.encoders[rendition] = n
	}
	if n.driver.Name != driver.Name || left {
		d.readers.Update(func(behind *uint64) {
			if left {
				*behind++
			}
		})
	}
	n.driver, n.encoder, n.target = driver, e, bitrate
	if r, ok := d.config.Rendition(rendition); ok {
		d.turn(n, r) // it may have changed while the encoder was opened
	}
	return n
}

// noteStep counts a try to open an encoder as progress. A list of encoders ends,
// and so does the patience with each, so it cannot hide what hangs for ever.
func (d *Daemon) noteStep(rendition string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := d.notes.encoders[rendition]; n != nil {
		n.steps.Add(1)
	}
}

// noteBuffers takes in how pictures get to an encoder, and why it is not the
// first one of its rendition.
func (d *Daemon) noteBuffers(n *encoderNote, plan hw.BufferPlan, fallback string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n.buffers, n.fallback = plan, fallback
	d.notes.kick()
}

// noteRecovering says whether an encoder hangs.
func (d *Daemon) noteRecovering(n *encoderNote, yes bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n.recovering != yes {
		n.recovering = yes
		d.notes.kick()
	}
}

// noteEncoderEnd says that the encoder is about to be closed.
func (d *Daemon) noteEncoderEnd(n *encoderNote) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n.past, n.encoder = n.stats(), nil
}

// stats are the counters of all encoders that the rendition has had.
func (n *encoderNote) stats() hw.EncoderStats {
	s := n.past
	if n.encoder == nil {
		return s
	}
	now := n.encoder.Stats()
	s.Submitted += now.Submitted
	s.Coded += now.Coded
	s.Dropped += now.Dropped
	s.Swallowed += now.Swallowed
	s.CopiedBytes += now.CopiedBytes
	return s
}

func (d *Daemon) noteOutput(name string) *outputNote {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := &outputNote{}
	d.notes.outputs[name] = n
	return n
}

func (d *Daemon) notePush(n *outputNote, r stream.PushReport) {
	d.mu.Lock()
	defer d.mu.Unlock()
	changed := n.report.State != r.State
	n.report = r
	if changed {
		if r.State == stream.PushConfirmed {
			n.since = time.Now()
		}
		d.notes.kick()
	}
}

// A rate turns a counter into a number per second over the last seconds.
type rate struct {
	at    [2]time.Time
	count [2]uint64
	value float64
}

// rateWindow is how much time a rate looks back on, at least.
const rateWindow = time.Second

// measure takes the counter's value at now and returns its rate.
func (r *rate) measure(now time.Time, count uint64) float64 {
	if r.at[1].IsZero() || count < r.count[1] {
		*r = rate{at: [2]time.Time{now, now}, count: [2]uint64{count, count}}
		return 0
	}
	if d := now.Sub(r.at[0]); d >= rateWindow {
		r.value = float64(count-r.count[0]) / d.Seconds()
	}
	if now.Sub(r.at[1]) >= rateWindow {
		r.at, r.count = [2]time.Time{r.at[1], now}, [2]uint64{r.count[1], count}
	}
	return r.value
}
