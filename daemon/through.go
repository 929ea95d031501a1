package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"encoderd.example/hw"
	"encoderd.example/stream"
	"encoderd.example/stream/h264"
)

// A camera that codes by itself takes the encoder's place while it is there:
//
//	camera ─ access units ─► hub ─► gate ─► rendition
//	slate  ─ frames ──► encoder ────►┘
//
// The hub knows by the units that the camera is there, and paints the slate
// while it is not. The gate lets one of both through and changes at key units
// only: the track changes, and connections stay.

// A gate is the way of one rendition's video.
type gate struct {
	rendition *stream.Rendition
	live      func()                      // says that units pass
	camera    bool                        // a camera may take the encoder's place
	note      atomic.Pointer[encoderNote] // counts what passes

	mu     sync.Mutex
	coded  bool // what passed last came from the camera
	paused bool // the encoder's units are not wanted: a camera's flow
	begun  bool
	last   time.Duration // DTS of the last unit
}

// encoded publishes a unit of the encoder, unless a camera has its place.
func (g *gate) encoded(u *stream.Unit) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case !g.camera:
		g.publish(u)
	case !g.paused:
		g.pass(u, false)
	}
}

// through publishes a unit of the camera; from here on the encoder's are not
// wanted.
func (g *gate) through(u *stream.Unit) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.camera || !g.pass(u, true) {
		return false
	}
	g.paused = true
	return true
}

// slate says that the camera's units stay away.
func (g *gate) slate() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = false
}

func (g *gate) pass(u *stream.Unit, coded bool) bool {
	if g.begun && (u.DTS <= g.last || coded != g.coded && !u.Key) {
		return false
	}
	g.begun, g.coded, g.last = true, coded, u.DTS
	g.publish(u)
	return true
}

func (g *gate) publish(u *stream.Unit) {
	g.rendition.Publish(u)
	g.live()
	if n := g.note.Load(); n != nil {
		n.frames.Add(1)
		n.bytes.Add(uint64(len(u.Data)))
	}
}

// errNoH264 says that a camera does not code by itself.
var errNoH264 = errors.New(`the camera gives no H.264; choose encoder = "auto"`)

// captureCoded passes on what a camera codes.
func (d *Daemon) captureCoded(ctx context.Context, in *intake, live func()) error {
	if in.Mode().Pixel != hw.H264 {
		return fmt.Errorf("%s: %w", in.Mode(), errNoH264)
	}
	p, lost := &parcel{mode: in.Mode()}, false
	for {
		f, err := in.Read(ctx)
		if err != nil {
			return orCause(ctx, err)
		}
		u, err := p.unit(f)
		f.Release()
		if err != nil {
			d.noteBadPicture()
			continue
		}
		in.heard.Add(1)
		live()
		if lost && !u.Key {
			continue
		}
		lost = !d.hub.deliverUnit(u)
	}
}

// A parcel turns a camera's access units into units.
type parcel struct {
	mode     hw.Mode
	track    *stream.Track
	sps, pps string
}

// typeFiller is a NAL unit of stuffing (H.264 table 7-1).
const typeFiller = 12

// errNoSets says that a picture came before the parameter sets that it needs.
var errNoSets = errors.New("no parameter sets yet")

// unit copies an access unit out of a frame. Delimiters and filler stay behind.
func (p *parcel) unit(f *hw.Frame) (*stream.Unit, error) {
	if len(f.Planes) == 0 {
		return nil, fmt.Errorf("access unit: %w", hw.ErrUnsupported)
	}
	hw.BeginAccess(f.Planes, hw.Reading)
	defer hw.EndAccess(f.Planes, hw.Reading)
	u := &stream.Unit{PTS: f.Stamp, DTS: f.Stamp, Data: make([]byte, 0, len(f.Planes[0].Data)+16)}
	sps, pps, picture := p.sps, p.pps, false
	for nal := range h264.AnnexB(f.Planes[0].Data) {
		switch h264.Type(nal) {
		case h264.TypeAUD, typeFiller:
			continue
		case h264.TypeSPS:
			sps = string(nal)
		case h264.TypePPS:
			pps = string(nal)
		case h264.TypeIDR:
			u.Key, picture = true, true
		case h264.TypeSlice:
			picture = true
		}
		u.Data = h264.AppendNAL(u.Data, nal)
	}
	switch {
	case !picture:
		return nil, fmt.Errorf("access unit without a picture: %w", hw.ErrUnsupported)
	case sps == "" || pps == "":
		return nil, errNoSets
	}
	if p.track == nil || sps != p.sps || pps != p.pps {
		if err := p.begin(sps, pps); err != nil {
			return nil, err
		}
	}
	u.Track = p.track
	return u, nil
}

// begin begins a track.
func (p *parcel) begin(sps, pps string) error {
	info, err := h264.ParseSPS([]byte(sps))
	if err != nil {
		return err
	}
	setup, err := h264.ConfigRecord([]byte(sps), []byte(pps))
	if err != nil {
		return err
	}
	p.sps, p.pps = sps, pps
	p.track = &stream.Track{Codec: stream.H264, Setup: setup, Width: info.Width, Height: info.Height, FPS: p.mode.FPS.Float()}
	return nil
}
