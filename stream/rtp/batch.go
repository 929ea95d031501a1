package rtp

import (
	"encoding/binary"
	"iter"
)

// A Batch is one unit in RTP packets, with the RTCP packets that go out beside
// it. Its layout lets a reader of one medium, too, take one piece:
//
//	┌───────────────────────────┬──────────────┬────────┬────────┬───
//	│ report on the other medium │ report on own │ packet │ packet │ …
//	└───────────────────────────┴──────────────┴────────┴────────┴───
//	                            ^ split
//
// Most batches hold no reports. All methods may be called from any goroutine.
type Batch struct {
	// Key says that reading can start here.
	Key bool
	// Seq is, of each medium, the number of the first RTP packet in this batch
	// or after it, and Time the RTP time stamp of this batch's instant: what
	// RTP-Info tells a reader that starts here (RFC 2326, 12.33).
	Seq  [2]uint16
	Time [2]uint32

	medium Medium
	buf    []byte
	split  int
}

// Bytes returns what a reader of the media in want is to be sent over TCP, in
// interleaved framing; it may be empty. The bytes belong to the batch.
func (b *Batch) Bytes(want Set) []byte {
	own, other := want.Has(b.medium), want.Has(1-b.medium)
	switch {
	case own && other:
		return b.buf
	case own:
		return b.buf[b.split:]
	case other:
		return b.buf[:b.split]
	default:
		return nil
	}
}

// Packets walks the packets for a reader of the media in want. The channel is
// even for RTP and odd for RTCP. The bytes belong to the batch.
func (b *Batch) Packets(want Set) iter.Seq2[uint8, []byte] {
	return func(yield func(uint8, []byte) bool) {
		for rest := b.Bytes(want); len(rest) > 0; {
			end := frameSize + int(binary.BigEndian.Uint16(rest[2:]))
			if !yield(rest[1], rest[frameSize:end:end]) {
				return
			}
			rest = rest[end:]
		}
	}
}
