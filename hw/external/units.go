package external

import (
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/sys/unix"

	"encoderd.example/hw"
	"encoderd.example/hw/external/memory"
	"encoderd.example/stream"
	"encoderd.example/stream/h264"
)

// minRing is the least size of a ring in bytes.
const minRing = 1 << 20

// A ring is the memory that coded units come through: the device writes, we
// read. It is ours, so nobody can cut it short.
type ring struct {
	fd    int
	mem   []byte
	taken uint64 // everything before is the device's again
	coded []byte // of the latest unit
}

// make makes a ring with room for two pictures that did not shrink at all.
func (r *ring) make(width, height int) error {
	size := 1 << bits.Len(uint(max(width*height*3, minRing)-1))
	fd, err := memory.Create("encoderd-units", size)
	if err != nil {
		return err
	}
	mem, err := memory.Map(fd, size, false)
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	r.fd, r.mem = fd, mem
	return nil
}

func (r *ring) close() error {
	if r.mem == nil {
		return nil
	}
	err := errors.Join(memory.Unmap(r.mem), unix.Close(r.fd))
	r.mem = nil
	return err
}

// take copies a unit out of the ring, at once and before anybody looks at it:
// the device could still change it. The result is good until the next call.
func (r *ring) take(position uint64, length uint32) ([]byte, error) {
	size := uint64(len(r.mem))
	end := position + uint64(length)
	switch {
	case length == 0:
		return nil, violation("an empty unit")
	case position < r.taken || end < position || end-r.taken > size || position%size+uint64(length) > size:
		return nil, violation("a unit of %d bytes at %d of a ring of %d that is free up to %d", length, position, size, r.taken)
	}
	r.coded = append(r.coded[:0], r.mem[position%size:][:length]...)
	r.taken = end
	return r.coded, nil
}

// parameters follow the parameter sets of a stream.
type parameters struct {
	width, height int
	fps           float64
	track         *stream.Track
	sps, pps      []byte
}

// unit makes a unit of an access unit in byte-stream form. It copies.
func (p *parameters) unit(coded []byte, bitrate int) (*stream.Unit, error) {
	u := &stream.Unit{Data: make([]byte, 0, len(coded)+16)}
	picture := false
	var sps, pps []byte
	for nal := range h264.AnnexB(coded) {
		begin := len(u.Data) + 4
		switch h264.Type(nal) {
		case h264.TypeAUD:
			continue // of no use in length-prefixed form
		case h264.TypeSlice:
			picture = true
		case h264.TypeIDR:
			picture, u.Key = true, true
		}
		u.Data = h264.AppendNAL(u.Data, nal)
		switch kept := u.Data[begin:]; h264.Type(nal) {
		case h264.TypeSPS:
			sps = kept
		case h264.TypePPS:
			pps = kept
		}
	}
	if !picture {
		return nil, violation("a unit without a picture")
	}
	if sps != nil && pps != nil && (string(sps) != string(p.sps) || string(pps) != string(p.pps)) {
		if err := p.begin(sps, pps, bitrate); err != nil {
			return nil, err
		}
	}
	if p.track == nil {
		return nil, violation("the first unit has no parameter sets")
	}
	u.Track = p.track
	return u, nil
}

// begin begins a track.
func (p *parameters) begin(sps, pps []byte, bitrate int) error {
	info, err := h264.ParseSPS(sps)
	if err != nil {
		return fmt.Errorf("%w: %w", err, hw.ErrGone)
	}
	if info.Width != p.width || info.Height != p.height {
		return fmt.Errorf("it codes %dx%d instead of %dx%d: %w", info.Width, info.Height, p.width, p.height, hw.ErrUnsupported)
	}
	setup, err := h264.ConfigRecord(sps, pps)
	if err != nil {
		return fmt.Errorf("%w: %w", err, hw.ErrGone)
	}
	p.sps, p.pps = append([]byte(nil), sps...), append([]byte(nil), pps...)
	p.track = &stream.Track{
		Codec:   stream.H264,
		Setup:   setup,
		Width:   info.Width,
		Height:  info.Height,
		FPS:     p.fps,
		Bitrate: bitrate,
	}
	return nil
}
