package v4l2

import (
	"bytes"

	"encoderd.example/stream/h264"
)

// headers keeps the parameter sets of a camera that codes H.264 itself and may
// send them only once.
type headers struct {
	sps, pps []byte // with start codes
}

var startCode = []byte{0, 0, 0, 1}

// complete returns one access unit, in byte-stream form, with parameter sets if
// it holds a key picture. It returns b itself where nothing was lacking. ok is
// false if b does not begin with a start code or holds no picture.
func (h *headers) complete(b []byte) (unit []byte, ok bool) {
	if !bytes.HasPrefix(b, startCode) && !bytes.HasPrefix(b, startCode[1:]) {
		return nil, false
	}
	var sps, pps []byte
	key, picture := false, false
	for nal := range h264.AnnexB(b) {
		switch h264.Type(nal) {
		case h264.TypeSPS:
			sps = appendStarted(sps, nal)
		case h264.TypePPS:
			pps = appendStarted(pps, nal)
		case h264.TypeIDR:
			key, picture = true, true
		case h264.TypeSlice:
			picture = true
		}
	}
	if key && (sps == nil || pps == nil) {
		b = h.insert(b, sps == nil, pps == nil)
	}
	if sps != nil {
		h.sps = sps
	}
	if pps != nil {
		h.pps = pps
	}
	return b, picture
}

// insert copies the unit with the sets that it lacks: after the delimiter,
// which must stay first, and pictures after both.
func (h *headers) insert(unit []byte, sps, pps bool) []byte {
	out := make([]byte, 0, len(unit)+len(h.sps)+len(h.pps)+len(startCode))
	for nal := range h264.AnnexB(unit) {
		kind := h264.Type(nal)
		if sps && kind != h264.TypeAUD {
			out, sps = append(out, h.sps...), false
		}
		if pps && !sps && kind != h264.TypeAUD && kind != h264.TypeSPS {
			out, pps = append(out, h.pps...), false
		}
		out = appendStarted(out, nal)
	}
	return out
}

func appendStarted(b, nal []byte) []byte {
	return append(append(b, startCode...), nal...)
}
