package rtp

import (
	"encoding/binary"
	"errors"
	"iter"
	"time"
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

	// Rolls is, of each medium, how often the numbers had begun anew at Seq
	// (RFC 3711, 3.3.1).
	Rolls [2]uint32
	// At is the unit's PTS.
	At time.Duration

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

var errGrown = errors.New("rtp: a packet grew more than was said")

// Rewrite returns a batch like b with other packets, sealed ones for
// instance: rewrite returns what stands for each, appended to the empty slice
// to, whose capacity is the packet's size and grow bytes. b stays as it is.
func (b *Batch) Rewrite(grow int, rewrite func(to []byte, channel uint8, packet []byte) ([]byte, error)) (*Batch, error) {
	packets := 0
	for range b.Packets(everything) {
		packets++
	}
	c := &Batch{Key: b.Key, Seq: b.Seq, Rolls: b.Rolls, Time: b.Time, At: b.At, medium: b.medium}
	c.buf = make([]byte, 0, len(b.buf)+packets*grow)
	for at := 0; at < len(b.buf); {
		if at == b.split {
			c.split = len(c.buf)
		}
		size := int(binary.BigEndian.Uint16(b.buf[at+2:]))
		head, packet := b.buf[at:at+frameSize], b.buf[at+frameSize:at+frameSize+size]
		start := len(c.buf) + frameSize
		out, err := rewrite(c.buf[start:start:start+size+grow], head[1], packet)
		if err != nil {
			return nil, err
		}
		if len(out) > size+grow {
			return nil, errGrown
		}
		c.buf = binary.BigEndian.AppendUint16(append(c.buf, head[:2]...), uint16(len(out)))
		c.buf = append(c.buf, out...) // onto itself, if rewrite appended
		at += frameSize + size
	}
	if b.split == len(b.buf) {
		c.split = len(c.buf)
	}
	return c, nil
}

// everything is the set of both media.
const everything = Set(3)
