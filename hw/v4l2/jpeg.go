package v4l2

import (
	"bytes"
	"encoding/binary"
)

// Markers of ITU-T T.81, table B.1.
const (
	markerSOI = 0xD8
	markerEOI = 0xD9
	markerSOS = 0xDA
)

// trimJPEG returns the picture at the start of b without the padding that
// cameras append. ok is false if b does not begin with a picture or breaks off
// within it.
func trimJPEG(b []byte) (picture []byte, ok bool) {
	scan, ok := scanStart(b)
	if !ok {
		return nil, false
	}
	// The padding cannot be told from an EOI inside it, so the last one counts:
	// decoders stop at the first.
	end := bytes.LastIndex(b[scan:], []byte{0xFF, markerEOI})
	if end < 0 {
		return nil, false
	}
	return b[:scan+end+2], true
}

// scanStart walks the segments of the header, over thumbnails that hold markers
// of their own, to the first byte of the picture's data.
func scanStart(b []byte) (int, bool) {
	if len(b) < 4 || b[0] != 0xFF || b[1] != markerSOI {
		return 0, false
	}
	for at := 2; at+4 <= len(b) && b[at] == 0xFF; {
		if b[at+1] == 0xFF { // fill byte
			at++
			continue
		}
		marker, length := b[at+1], int(binary.BigEndian.Uint16(b[at+2:]))
		at += 2 + length
		if length < 2 || at > len(b) {
			return 0, false
		}
		if marker == markerSOS {
			return at, true
		}
	}
	return 0, false
}
