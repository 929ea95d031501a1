package convert

import "time"

// A trait is what this box must know of a driver beyond what the driver says
// itself.
type trait struct {
	// patience is how long the driver may take to stop; usual if zero.
	patience time.Duration
	// swallows says that a picture may go in and nothing ever comes of it.
	swallows bool
	// depth is how many pictures must be inside for the hardware to be busy all
	// the time; usualDepth if zero.
	depth int
}

const (
	usualPatience = 2 * time.Second
	usualDepth    = 3
)

// traits by the driver's name in QUERYCAP. Other peculiarities need no entry,
// because the driver tells them when it is asked for a format: that the decoder
// of bcm2835-codec gives 1088 lines for 1080, that it aligns lines to 32 or 64
// bytes, and in which format a decoder gives a picture with 4:2:2 chroma.
var traits = map[string]trait{
	// Its firmware may hang for longer than its own limit of two seconds when it
	// is stopped, and drops pictures without a word when it is overrun.
	"bcm2835-codec": {patience: 5 * time.Second, swallows: true},
}

func (t trait) stop() time.Duration {
	if t.patience > 0 {
		return t.patience
	}
	return usualPatience
}

func (t trait) inside() int {
	if t.depth > 0 {
		return t.depth
	}
	return usualDepth
}
