package m2m

import (
	"time"

	"encoderd.example/hw"
)

// A picture is one that went into the encoder and may come out of it. Encoders
// hand back the stamp, cut to microseconds, and nothing else: pictures are told
// apart by it, never by counting.
type picture struct {
	micro  int64 // the stamp that the driver was given
	pts    time.Duration
	colors colors
}

// colors are what the parameter sets say of the colours of pictures.
type colors struct {
	full   bool // luma uses 0–255
	matrix hw.Matrix
}

// pictures are those inside, in the order of their stamps.
type pictures []picture

// add notes that a picture goes in, and returns the stamp for the driver: later
// than all before, at least in microseconds.
func (p *pictures) add(pts time.Duration, last int64, c colors) picture {
	in := picture{max(pts.Microseconds(), last+1), pts, c}
	*p = append(*p, in)
	return in
}

// has reports whether a picture of that stamp is inside.
func (p *pictures) has(micro int64) bool { return p.index(micro) >= 0 }

// take removes the picture of that stamp and those that were before it, which
// will not come out any more; lost says how many these are.
func (p *pictures) take(micro int64) (_ picture, lost int, ok bool) {
	i := p.index(micro)
	if i < 0 {
		return picture{}, 0, false
	}
	out := (*p)[i]
	*p = append((*p)[:0], (*p)[i+1:]...)
	return out, i, true
}

// undo forgets the picture that was added last: the driver did not take it.
func (p *pictures) undo() { *p = (*p)[:len(*p)-1] }

func (p *pictures) index(micro int64) int {
	for i, in := range *p {
		if in.micro == micro {
			return i
		}
	}
	return -1
}
