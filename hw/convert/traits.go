package convert

import "time"

// mostInside is how many pictures a converter holds: one that the hardware reads,
// the next one, and one that just comes.
const mostInside = 3

// usualPatience is how long a driver may take to stop.
const usualPatience = 2 * time.Second

// A trait is what this box must know of a driver beyond what the driver says
// itself.
type trait struct {
	patience time.Duration // for it to stop; usualPatience if zero
}

// traits by the driver's name in QUERYCAP. Other peculiarities need no entry,
// because they show: that the decoder of bcm2835-codec gives 1088 lines for
// 1080 and that it aligns lines to 32 or 64 bytes, in the format that it grants;
// in which format a decoder gives a picture with 4:2:2 chroma, in the event that
// follows the first one; that a picture is swallowed, in the stamp of the next.
var traits = map[string]trait{
	// Its firmware gives itself two seconds before the driver gives up on it.
	"bcm2835-codec": {patience: 5 * time.Second},
}

func (t trait) stop() time.Duration {
	if t.patience > 0 {
		return t.patience
	}
	return usualPatience
}
