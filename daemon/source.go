package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"encoderd.example/hw"
)

// A source is the camera in use, as encoders see it. It stays when the camera
// goes, because the same one will most likely come back.
type source struct {
	hw.BufferSource                 // of the pictures as they are delivered
	granted         hw.BufferSource // as the driver offered its memory
	wish            hw.Way          // what the encoder would like best; "" if it cannot share
	plan            hw.BufferPlan   // what became of that
	only            hw.Way          // what the config allows, "" = the best
}

// askPatience is how long a driver may take to answer about its memory.
const askPatience = 2 * time.Second

// ask is readerOf for drivers that may hang: then they read no pictures.
func (d *Daemon) ask(driver hw.EncoderDriver, c hw.EncoderConfig, src hw.Layout) reader {
	if driver.Importer == nil {
		return readerOf(driver, c, src)
	}
	r, err := within(&d.calls, askPatience, "ask "+driver.Name, func() (reader, error) { return readerOf(driver, c, src), nil }, func(reader) {})
	if err != nil {
		return reader{Name: driver.Name, Imports: true, Width: c.Width, Height: c.Height}
	}
	return r
}

// allocate gets memory of an encoder.
func (d *Daemon) allocate(driver hw.EncoderDriver, l hw.Layout, count int) (hw.Pool, error) {
	get := func() (hw.Pool, error) { return driver.Importer.Allocate(l, count) }
	return within(&d.calls, openPatience, "get memory of "+driver.Name, get, func(p hw.Pool) { _ = p.Close() })
}

// sourceVersion changes whenever pictures begin to lie differently in memory.
func (d *Daemon) sourceVersion() uint64 {
	_, version := d.source.Get()
	return version
}

// buffersFor plans how the source's pictures get to an encoder, and returns the
// layout that it is to be opened for, zero if that makes no difference.
func (d *Daemon) buffersFor(driver hw.EncoderDriver, c hw.EncoderConfig) (hw.BufferPlan, hw.Layout, uint64) {
	src, version := d.source.Get()
	if version == 0 {
		return hw.BufferPlan{}, d.restLayout(driver, c), version
	}
	r := d.ask(driver, c, src.Layout)
	plan := src.planFor(r)
	if !shares(plan.Way) && plan.Way != hw.Copy {
		return plan, d.restLayout(driver, c), version
	}
	return plan, r.Layout, version
}

// planFor says how the pictures, as they are delivered, get to an encoder.
func (s source) planFor(r reader) hw.BufferPlan {
	plan := planBuffers(s.BufferSource, r, "")
	if plan.Way == hw.Export && s.plan.Way == hw.Import && r.Scaler == "" {
		return s.plan
	}
	if s.only == "" {
		return plan
	}
	if ordered := planBuffers(s.granted, r, s.only); ordered.Way == plan.Way {
		return ordered // and its reason says so
	}
	return plan
}

// restLayout is how slates lie for an encoder while no camera's pictures are
// shared with it; zero if it shares no memory, or codes another size.
func (d *Daemon) restLayout(driver hw.EncoderDriver, c hw.EncoderConfig) hw.Layout {
	d.mu.Lock()
	v := d.config.Video
	d.mu.Unlock()
	if driver.Importer == nil || c.Width != v.Width || c.Height != v.Height {
		return hw.Layout{}
	}
	for _, pixel := range driver.Importer.Takes() {
		if paintable(pixel) {
			return d.ask(driver, c, hw.Layout{Pixel: pixel, Width: c.Width, Height: c.Height}).Layout
		}
	}
	return hw.Layout{}
}

// paintable reports whether the slate can be painted in that format.
func paintable(p hw.PixelFormat) bool { return p == hw.NV12 || p == hw.I420 }

// A canvas says where slates are painted; zero is the heap.
type canvas struct {
	Driver string
	Layout hw.Layout
}

// slateBuffers is how many slates may be on their way to encoders.
const slateBuffers = 6

// paint makes the hub paint slates in the memory of an encoder that was opened
// for pictures in l, if cameras share memory with it: then slates are not
// copied either.
func (d *Daemon) paint(rendition string, l hw.Layout) {
	d.painting.Lock()
	defer d.painting.Unlock()
	d.mu.Lock()
	m := hw.Mode{Width: d.config.Video.Width, Height: d.config.Video.Height}
	d.mu.Unlock()
	name, driver, _ := d.sharer(m)
	if name != rendition {
		return
	}
	want := canvas{driver.Name, l}
	if driver.Importer == nil || !paintable(l.Pixel) {
		want = canvas{}
	}
	if want == d.canvas {
		return
	}
	d.canvas = want
	var pool hw.Pool
	if want != (canvas{}) {
		var err error
		if pool, err = d.allocate(driver, l, slateBuffers); err != nil {
			d.Log.Warn("slates are copied", "encoder", driver.Name, "err", err)
		}
	}
	d.hub.paintOn(pool, d.returnPool)
}

// way says for the log how pictures are shared.
func (s source) way() string {
	if s.plan.Way == "" {
		return "not shared"
	}
	return s.plan.String()
}

// sharer returns the rendition whose encoder a camera in that mode shares memory
// with: the first one of the picture's size that hardware codes, or else the
// first one.
func (d *Daemon) sharer(m hw.Mode) (name string, first hw.EncoderDriver, conf hw.EncoderConfig) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, r := range d.config.Renditions {
		driver, ok := d.driverOf(r.Name)
		c := hw.EncoderConfig{Width: r.Width, Height: r.Height, FPS: hw.Rate(r.FPS)}
		if ok && driver.Importer != nil && r.Width == m.Width && r.Height == m.Height {
			return r.Name, driver, c
		}
		if i == 0 {
			name, first, conf = r.Name, driver, c
		}
	}
	return name, first, conf
}

// driverOf returns the encoder of a rendition: the one that was opened last,
// or the one that will be tried first. The caller holds mu.
func (d *Daemon) driverOf(rendition string) (hw.EncoderDriver, bool) {
	if n := d.notes.encoders[rendition]; n != nil {
		return n.driver, true
	}
	if names := d.placed[rendition].Drivers; len(names) > 0 {
		return d.driverNamed(names[0])
	}
	return hw.EncoderDriver{}, false
}

// poolBuffers is how many pictures an encoder's memory for a camera holds: what
// a camera fills, the hub and two encoders hold at the same time.
const poolBuffers = 8

// offer decides how a camera and its encoder share memory. wish is what they
// would do if there was memory enough.
func (d *Daemon) offer(src hw.BufferSource, only hw.Way) (plan hw.BufferPlan, wish hw.Way) {
	_, driver, conf := d.sharer(src.Mode)
	r := d.ask(driver, conf, src.Layout)
	plan = planBuffers(src, r, only)
	if plan.Way != hw.Import {
		return plan, plan.Way
	}
	pool, err := d.allocate(driver, r.Layout, poolBuffers)
	if err != nil {
		return hw.BufferPlan{Way: hw.Copy, Reason: fmt.Sprintf("%s gives no memory: %v", driver.Name, err)}, hw.Import
	}
	plan.Pool = pool
	return plan, hw.Import
}

// errReplan says that a camera is to be opened anew, because another encoder
// has taken over and wants its pictures elsewhere.
var errReplan = errors.New("another encoder reads the camera's pictures")

// errBehind says that a camera is to be opened anew, because an encoder that
// hangs keeps some of its memory for ever.
var errBehind = errors.New("an encoder that hangs keeps its pictures")

// errSilent says that a camera is to be opened anew, because it gives nothing.
var errSilent = errors.New("the camera is there and gives no pictures")

// How long a camera may be silent: some take seconds to begin, and in the dark
// pictures come seldom.
const (
	leastSilence  = 5 * time.Second
	silentPeriods = 10
	silenceLooks  = 10 // within that time, so that a machine that slept is not a silent camera
)

// overhear ends ctx with errSilent once the camera has been silent for long. One
// that sends nothing but damage is silent, too.
func (in *intake) overhear(ctx context.Context, end context.CancelCauseFunc) {
	tick := time.NewTicker(max(leastSilence, silentPeriods*in.Mode().FPS.Period()) / silenceLooks)
	defer tick.Stop()
	for heard, idle := uint64(0), 0; idle < silenceLooks; idle++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if n := in.heard.Load(); n != heard {
			heard, idle = n, -1
		}
	}
	end(errSilent)
}

// An intake is a camera that is open.
type intake struct {
	hw.CameraStream
	lender *lender // of frames that need more than the camera's own; or nil
	src    source
	end    context.CancelFunc // of the context that it was opened with
	heard  atomic.Uint64      // pictures that came and can be used
}

// openCamera opens a camera so that the encoders read its memory if they can. A
// driver that hangs is left behind; what it opens in the end is closed.
func (d *Daemon) openCamera(ctx context.Context, cam hw.Camera, c cameraConfig) (*intake, error) {
	opening, end := context.WithCancel(ctx)
	in, err := callCamera(ctx, d, cam, "open", cameraPatience, func() (*intake, error) {
		return d.openNow(opening, end, cam, c)
	}, func(late *intake) { d.closeLate(cam, late) })
	if err != nil {
		end() // also for whoever still opens it
		return nil, err
	}
	return d.take(in, onlyWay(c.Buffers)), nil
}

// openNow is openCamera for as long as the driver takes. Once ctx has ended
// nobody waits for the camera any more.
func (d *Daemon) openNow(ctx context.Context, end context.CancelFunc, cam hw.Camera, c cameraConfig) (*intake, error) {
	want := hw.Mode{Width: c.Width, Height: c.Height, FPS: c.FPS}
	if c.Coded {
		want.Pixel = hw.H264
	}
	cam = d.preferring(cam, want)
	if sharing, ok := cam.(hw.SharingCamera); ok && !c.Coded {
		return d.openShared(ctx, end, sharing, want, onlyWay(c.Buffers))
	}
	s, err := cam.Open(ctx, want)
	if err != nil {
		return nil, err
	}
	src := hw.BufferSource{Mode: s.Mode(), Layout: bare(s.Mode())}
	return &intake{CameraStream: s, src: source{BufferSource: src, granted: src}, end: end}, nil
}

func (d *Daemon) openShared(ctx context.Context, end context.CancelFunc, cam hw.SharingCamera, want hw.Mode, only hw.Way) (*intake, error) {
	var granted hw.BufferSource
	var plan hw.BufferPlan
	var wish hw.Way
	s, err := cam.OpenShared(ctx, want, func(src hw.BufferSource) hw.BufferPlan {
		granted = src
		if ctx.Err() != nil {
			return hw.BufferPlan{Way: hw.Copy, Reason: "nobody waits for the camera any more"}
		}
		plan, wish = d.offer(src, only)
		return plan
	})
	if err != nil {
		if plan.Pool != nil {
			d.returnPool(plan.Pool)
		}
		return nil, err
	}
	in := &intake{CameraStream: s, src: delivered(granted, wish, plan, s.Plan()), end: end}
	if plan.Pool != nil {
		in.lender = newLender(plan.Pool, d.returnPool)
	}
	return in, nil
}

// preferring tells a camera which formats its encoder takes.
func (d *Daemon) preferring(cam hw.Camera, want hw.Mode) hw.Camera {
	p, ok := cam.(hw.PreferringCamera)
	if !ok {
		return cam
	}
	if _, driver, _ := d.sharer(want); driver.Importer != nil {
		return p.Preferring(driver.Importer.Takes())
	}
	return cam
}

// bare is the layout of pictures of which only format and size are known.
func bare(m hw.Mode) hw.Layout {
	if m.Pixel == hw.MJPEG || m.Pixel == hw.H264 {
		return hw.Layout{}
	}
	return hw.Layout{Pixel: m.Pixel, Width: m.Width, Height: m.Height}
}

// delivered says how pictures come after a plan was carried out, or was not.
func delivered(granted hw.BufferSource, wish hw.Way, planned, done hw.BufferPlan) source {
	src := granted
	src.Imports = false
	src.Exports = done.Way == hw.Export || done.Way == hw.Import
	switch {
	case done.Way == hw.Import && planned.Pool != nil:
		src.Layout = planned.Pool.Layout()
	case done.Way != wish:
		src.Private = done.Reason
	}
	done.Pool = nil
	return source{BufferSource: src, granted: granted, wish: wish, plan: done}
}

// take makes an open camera the source. Some cameras have memory that can be
// read by others whatever was decided; where the config wants copies, encoders
// are not told.
func (d *Daemon) take(in *intake, only hw.Way) *intake {
	in.src.only = only
	if only != "" && !shares(in.src.plan.Way) && in.lender == nil {
		in.lender = newLender(nil, func(hw.Pool) {})
		in.lender.private = true
	}
	if old, version := d.source.Get(); version == 0 || !old.same(in.src) {
		d.source.Update(func(s *source) { *s = in.src })
	}
	return in
}

// same reports whether encoders see no difference.
func (s source) same(o source) bool {
	return s.BufferSource == o.BufferSource && s.plan.Way == o.plan.Way && s.plan.Reason == o.plan.Reason && s.only == o.only
}

// Read returns the next frame.
func (in *intake) Read(ctx context.Context) (*hw.Frame, error) {
	f, err := in.CameraStream.Read(ctx)
	if err != nil || in.lender == nil {
		return f, err
	}
	return in.lender.lend(f), nil
}

// Close stops the camera; the encoder's memory is given back after the last
// frame.
func (in *intake) Close() error {
	defer in.end()
	err := in.CameraStream.Close()
	if in.lender != nil {
		in.lender.end()
	}
	return err
}

// replan ends ctx with errReplan once an encoder reads the pictures that wants
// them in another way: memory of hardware is slow to read for software. It ends
// ctx with errBehind once an encoder was left behind that had the camera's
// memory.
func (d *Daemon) replan(ctx context.Context, in *intake, end context.CancelCauseFunc) {
	before, seen := d.readers.Get()
	for behind := before; ; {
		switch {
		case behind != before:
			end(errBehind)
			return
		case d.outgrown(in):
			end(errReplan)
			return
		}
		var err error
		if behind, seen, err = d.readers.Wait(ctx, seen); err != nil {
			return
		}
	}
}

// outgrown reports whether the encoder in use wants a camera's pictures in
// another way.
func (d *Daemon) outgrown(in *intake) bool {
	if in.src.wish == "" {
		return false
	}
	_, driver, conf := d.sharer(in.src.Mode)
	want := planBuffers(in.src.granted, d.ask(driver, conf, in.src.granted.Layout), in.src.only).Way
	return want != in.src.wish && (shares(want) || in.src.plan.Way == hw.Import)
}

func shares(w hw.Way) bool { return w == hw.Export || w == hw.Import }

// A lender hands on frames that lie in a pool, and closes the pool after the
// last of them; or frames whose memory nobody else shall read.
type lender struct {
	pool    hw.Pool
	give    func(hw.Pool) // closes it
	private bool          // mapped memory is lent without its descriptor

	mu    sync.Mutex
	mine  map[*hw.Frame]*hw.Frame // by the camera's frame, which comes again and again
	out   int
	ended bool
}

func newLender(pool hw.Pool, give func(hw.Pool)) *lender {
	return &lender{pool: pool, give: give, mine: map[*hw.Frame]*hw.Frame{}}
}

// lend returns a frame that stands for f and takes over the caller's reference.
func (l *lender) lend(f *hw.Frame) *hw.Frame {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.mine[f]
	if m == nil {
		m = hw.NewFrame(func(*hw.Frame) { l.back(f) })
		l.mine[f] = m
	}
	l.out++
	m.Mode, m.Stamp, m.Seq = f.Mode, f.Stamp, f.Seq
	m.Planes = append(m.Planes[:0], f.Planes...)
	for i := range m.Planes {
		if l.private && m.Planes[i].Data != nil {
			m.Planes[i].FD = -1
		}
	}
	return m.Lend()
}

func (l *lender) back(f *hw.Frame) {
	f.Release()
	l.mu.Lock()
	l.out--
	last := l.ended && l.out == 0
	l.mu.Unlock()
	if last {
		l.give(l.pool)
	}
}

// end says that no more frames come.
func (l *lender) end() {
	l.mu.Lock()
	l.ended = true
	idle := l.out == 0
	l.mu.Unlock()
	if idle {
		l.give(l.pool)
	}
}

// returnPool gives an encoder its memory back.
func (d *Daemon) returnPool(p hw.Pool) {
	if err := d.calls.closeInTime("return memory", p.Close); err != nil {
		d.Log.Warn("memory of an encoder is not given back", "err", err)
	}
}

// A PairPlan says how a camera's pictures would get to an encoder, and why so.
type PairPlan struct {
	Encoder string `json:"encoder"`
	Way     hw.Way `json:"way"`
	Reason  string `json:"reason"`
}

// PlanPairs opens a camera for a moment, if it can share memory, and plans how
// pictures of its best mode would get to each of the encoders; buffers is that
// of [config.Video]. It fails with ErrBusy while somebody else holds the camera.
func PlanPairs(ctx context.Context, cam hw.Camera, drivers []hw.EncoderDriver, buffers string) ([]PairPlan, error) {
	src, err := lookAt(ctx, cam)
	if err != nil {
		return nil, err
	}
	var list []PairPlan
	for _, d := range drivers {
		c := hw.EncoderConfig{Width: src.Mode.Width, Height: src.Mode.Height, FPS: src.Mode.FPS}
		p := planBuffers(src, readerOf(d, c, src.Layout), onlyWay(buffers))
		list = append(list, PairPlan{d.Name, p.Way, p.Reason})
	}
	return list, nil
}

// lookAt returns what a camera says of its memory.
func lookAt(ctx context.Context, cam hw.Camera) (src hw.BufferSource, err error) {
	sharing, ok := cam.(hw.SharingCamera)
	if !ok {
		modes, err := cam.Modes()
		if err != nil || len(modes) == 0 {
			return src, err
		}
		return hw.BufferSource{Mode: modes[0], Layout: bare(modes[0])}, nil
	}
	s, err := sharing.OpenShared(ctx, hw.Mode{}, func(of hw.BufferSource) hw.BufferPlan {
		src = of
		return hw.BufferPlan{Way: hw.Heap, Reason: "it is only looked at"}
	})
	if err != nil {
		return src, err
	}
	return src, s.Close()
}
