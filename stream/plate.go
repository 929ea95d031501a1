package stream

import "bytes"

// A Plate is a message laid out in memory once for many readers that are sent
// nearly the same: only bytes at its head differ from one to the next, and are
// set anew for each.
//
//	Lay ─► [head│the same for all………] ─┬─► set the head ─► Line.OfferPlate ─► Push
//	                                   ├─► set the head ─► …
//	                                   └─► …
//
// What a reader's socket does not take at once keeps a head of its own and the
// rest of the plate's memory, which is not used again. A [Fanout] gives sinks
// their plates, one for each value and goroutine; they need no lock.
type Plate struct {
	bytes []byte
	head  int
	kept  bool // somebody is on the way through bytes
}

// Blank reports whether nothing was laid out yet.
func (p *Plate) Blank() bool { return len(p.bytes) == 0 }

// Lay copies a message, of which the first head bytes are each reader's own. It
// is for a plate that is blank.
func (p *Plate) Lay(head int, pieces ...[]byte) {
	for _, b := range pieces {
		p.bytes = append(p.bytes, b...)
	}
	p.head = head
}

// Size returns how many bytes were laid out.
func (p *Plate) Size() int { return len(p.bytes) }

// Head returns the bytes that may be set, the latest reader's in them.
func (p *Plate) Head() []byte { return p.bytes[:p.head] }

// clean makes p blank.
func (p *Plate) clean() {
	if p.kept {
		p.bytes, p.kept = nil, false
	}
	p.bytes = p.bytes[:0]
}

// rest returns what follows the first n bytes, for the reader whose head is set,
// to keep.
func (p *Plate) rest(n int) [][]byte {
	p.kept = true
	if n >= p.head {
		return [][]byte{p.bytes[n:]}
	}
	return [][]byte{bytes.Clone(p.bytes[n:p.head]), p.bytes[p.head:]}
}
