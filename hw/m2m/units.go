package m2m

import (
	"bytes"
	"fmt"
	"slices"

	"encoderd.example/hw"
	"encoderd.example/hw/v4l2"
	"encoderd.example/hw/v4l2/uapi"
	"encoderd.example/stream"
	"encoderd.example/stream/h264"
)

// headRoom is kept before the bitstream, for the parameter sets of a key unit.
const headRoom = 192

// nearFull is how near to its end a buffer is filled by a picture that did not
// fit into it.
const nearFull = 4096

// A joiner collects the buffers of one picture.
type joiner struct {
	micro int64
	data  []byte // headRoom, then the byte stream
	open  bool
	more  bool  // the rest of the picture is in the next buffer
	late  bool  // the rest of a picture once came when it was thought whole
	sent  int64 // stamp of the latest picture that went out
}

// take reads a buffer of the bitstream.
func (w *worker) take(d v4l2.Done) {
	mem := w.out.Memory(d.Index)[0]
	used := min(d.Used[0], len(mem))
	part := mem[min(d.DataStart[0], used):used]
	micro := d.Stamp.Microseconds()
	if w.joined.open && w.joined.micro != micro {
		w.emitWhole()
	}
	switch {
	case d.Flags&uapi.BufFlagError != 0:
		w.joined.open = false
		w.lose(micro)
	case len(part) == 0:
		if !d.Last {
			w.lose(micro)
		}
	case w.joined.open || w.pictures.has(micro):
		w.join(micro, part)
		w.joined.more = w.joined.late || w.node.quirks.splits && used >= len(mem)-nearFull
	default:
		w.stray(micro, part)
	}
}

// join copies a part of a picture out of memory that may be slow to read byte
// by byte.
func (w *worker) join(micro int64, part []byte) {
	j := &w.joined
	if !j.open {
		j.open, j.micro = true, micro
		j.data = make([]byte, headRoom, headRoom+len(part))
	}
	j.data = append(j.data, part...)
}

// stray looks at a buffer that belongs to no picture that we wait for: headers
// of their own, garbage, the rest of a picture that is out already, or a
// picture whose stamp was lost.
func (w *worker) stray(micro int64, part []byte) {
	units := split(bytes.Clone(part), 0)
	w.headers.keep(units, false)
	switch {
	case micro == w.joined.sent && (len(units) == 0 || w.headers.syntax.hasPicture(units)):
		if !w.joined.late {
			w.node.log.Warn("the driver splits pictures: each waits for the next one from now on", "encoder", w.node.name)
		}
		w.joined.late = true
		w.damage()
	case w.headers.syntax.hasPicture(units):
		w.damage()
	}
}

// lose gives up the picture of that stamp.
func (w *worker) lose(micro int64) {
	if _, lost, ok := w.pictures.take(micro); ok {
		w.swallowed.Add(uint64(lost + 1))
	}
	w.damage()
}

// damage is what follows when a picture is lost that others may refer to:
// nothing can be shown until the next key picture, which is ordered.
func (w *worker) damage() {
	w.waiting = true
	if w.asked == 0 {
		w.wantKey = true
	}
}

// emitJoined sends the picture that was collected, if it is one: headers alone
// wait for theirs.
func (w *worker) emitJoined() {
	if !w.joined.open || w.joined.late && !w.draining && !w.ending {
		return
	}
	units := split(w.joined.data, headRoom)
	if w.headers.syntax.hasPicture(units) {
		w.emit(units)
	} else {
		w.headers.keep(units, true)
	}
}

// emitWhole sends what was collected, because another picture begins.
func (w *worker) emitWhole() {
	units := split(w.joined.data, headRoom)
	if w.headers.syntax.hasPicture(units) {
		w.emit(units)
		return
	}
	w.headers.keep(units, true)
	w.joined.open = false
}

// emit sends the collected picture.
func (w *worker) emit(units []unit) {
	data := w.joined.data
	w.joined.open, w.joined.sent = false, w.joined.micro
	w.headers.keep(units, true)
	in, lost, _ := w.pictures.take(w.joined.micro)
	w.swallowed.Add(uint64(lost))
	if !w.headers.syntax.whole(units) {
		w.swallowed.Add(1)
		w.damage()
		return
	}
	key := w.headers.syntax.isKey(units)
	w.reckon(in, key)
	if w.waiting || w.broken != nil {
		w.swallowed.Add(1)
		return
	}
	out := &stream.Unit{Key: key, PTS: in.pts, DTS: in.pts, Track: w.headers.track}
	sets := w.headers.sets
	if !key {
		sets = nil
	}
	out.Data = w.headers.syntax.assemble(data, units, sets)
	if w.ending {
		return
	}
	w.coded.Add(1)
	select {
	case w.units <- out:
	case <-w.closing:
	}
}

// reckon follows what was asked of the driver and what came of it.
func (w *worker) reckon(in picture, key bool) {
	switch {
	case key && !w.headers.known():
		w.asked = 0
		w.damage() // nobody could decode it
	case key:
		w.waiting, w.asked = false, 0
		w.broken = w.headers.describe(in.colors, w.now)
	case w.asked != 0 && in.micro > w.asked: // the one that was ordered did not come
		w.asked, w.wantKey = 0, true
	case w.asked == 0 && w.waiting:
		w.wantKey = true
	}
}

// A unit is a NAL unit in a byte stream.
type unit struct {
	code       int // where its start code begins
	start, end int
	nal        []byte
}

var startCode = []byte{0, 0, 1}

// split finds the NAL units in data from an offset on.
func split(data []byte, from int) []unit {
	var units []unit
	at := bytes.Index(data[from:], startCode)
	for at >= 0 {
		u := unit{code: from + at, start: from + at + 3}
		if u.code > from && data[u.code-1] == 0 {
			u.code--
		}
		from = u.start
		at = bytes.Index(data[from:], startCode)
		u.end = len(data)
		if at >= 0 {
			u.end = from + at
		}
		for u.end > u.start && data[u.end-1] == 0 {
			u.end--
		}
		u.nal = data[u.start:u.end]
		if len(u.nal) > 0 {
			units = append(units, u)
		}
	}
	return units
}

// assemble makes the data of a unit: sets, in length-prefixed form, and then
// the wanted ones of units, which lie in data. It writes the lengths over the
// start codes if these have four bytes and nothing unwanted lies in between,
// as it mostly is.
func (s *syntax) assemble(data []byte, units []unit, sets []byte) []byte {
	for len(units) > 0 && !s.wanted(units[0].nal) {
		units = units[1:]
	}
	begin := units[0].code
	in := begin >= len(sets)
	for i, u := range units {
		in = in && s.wanted(u.nal) && u.start-u.code == 4 && (i == 0 || units[i-1].end == u.code)
	}
	if !in {
		out := append(make([]byte, 0, len(sets)+len(data)), sets...)
		for _, u := range units {
			if s.wanted(u.nal) {
				out = h264.AppendNAL(out, u.nal)
			}
		}
		return out
	}
	for _, u := range units {
		n := len(u.nal)
		data[u.code], data[u.code+1], data[u.code+2], data[u.code+3] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	}
	copy(data[begin-len(sets):], sets)
	return data[begin-len(sets) : units[len(units)-1].end : units[len(units)-1].end]
}

// headers are the parameter sets and what is told of them.
type headers struct {
	cfg    hw.EncoderConfig
	syntax *syntax
	raw    [][]byte // as the driver wrote them, in the order of syntax.sets

	from  made          // what track and sets were made from
	track *stream.Track // nil until the first key picture
	sets  []byte        // as they are sent, in length-prefixed form
}

// A made is everything that goes into a track.
type made struct {
	sets   [3]string
	colors colors
	rate   hw.Rate
}

func newHeaders(s *syntax, cfg hw.EncoderConfig) headers {
	return headers{cfg: cfg, syntax: s, raw: make([][]byte, len(s.sets))}
}

// keep notes parameter sets. Those of a buffer that belongs to no picture may
// be garbage.
func (h *headers) keep(units []unit, sure bool) {
	for _, u := range units {
		i := h.syntax.set(u.nal)
		if i >= 0 && (sure || h.syntax.sane(u.nal)) {
			h.raw[i] = bytes.Clone(u.nal)
		}
	}
}

// known reports whether all parameter sets have come.
func (h *headers) known() bool {
	for _, set := range h.raw {
		if set == nil {
			return false
		}
	}
	return true
}

// describe makes the track of a key picture, a new one only if the parameter
// sets or the rate differ. bitrate is the nominal one, in bit/s.
func (h *headers) describe(c colors, bitrate int) error {
	from := made{colors: c, rate: h.cfg.FPS}
	for i, set := range h.raw {
		from.sets[i] = string(set)
	}
	if h.track != nil && from == h.from {
		return nil
	}
	d, err := h.syntax.describe(slices.Clone(h.raw), c, h.cfg.FPS)
	if err != nil {
		return err
	}
	if d.width != h.cfg.Width || d.height != h.cfg.Height {
		return fmt.Errorf("the driver codes %dx%d instead of %dx%d: %w", d.width, d.height, h.cfg.Width, h.cfg.Height, hw.ErrUnsupported)
	}
	h.from, h.sets = from, nil
	for _, set := range d.sets {
		h.sets = h264.AppendNAL(h.sets, set)
	}
	if h.track != nil && bytes.Equal(h.track.Setup, d.setup) && h.track.FPS == h.cfg.FPS.Float() {
		return nil
	}
	h.track = &stream.Track{
		Codec: h.syntax.codec, Setup: d.setup, Width: d.width, Height: d.height,
		FPS: h.cfg.FPS.Float(), Bitrate: bitrate,
	}
	return nil
}
