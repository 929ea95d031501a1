//go:build box

//nolint:thelper // parts of TestDaemonOnTheBoard and their steps, which are no helpers
package boxtest

import (
	"math"
	"slices"
	"testing"
	"time"

	"encoderd.example/daemon/status"
)

// rates are tried from the first: a busy host carries less. vivid knows them all.
var rates = [...]int{15, 10, 5}

// losses are all the places at which the box says that a picture was lost, and
// the slates that it put in.
type losses struct{ missed, damaged, dropped, overtaken, slates uint64 }

func lossesOf(s status.Box) losses {
	l := losses{missed: s.Input.Missed, damaged: s.Input.Damaged, slates: s.Input.Slate}
	for _, r := range s.Renditions {
		l.dropped += r.Dropped
	}
	for _, r := range s.Readers {
		l.overtaken += r.Lost
	}
	return l
}

func (l losses) since(before losses) losses {
	return losses{
		l.missed - before.missed, l.damaged - before.damaged, l.dropped - before.dropped,
		l.overtaken - before.overtaken, l.slates - before.slates,
	}
}

func (l losses) pictures() uint64 { return l.missed + l.damaged + l.dropped + l.overtaken }

// frames shows that each picture of the camera arrives at a viewer, for a
// minute, at the highest rate that the emulation carries. Where the emulated
// camera itself skips pictures even at the lowest rate, because the host gives
// it no time, the box must have counted each of them.
func frames(t *testing.T, b *box) {
	const length = time.Minute
	for i, fps := range rates {
		b.run(t, settings{fps: fps})
		lost, n := b.count(t, fps, length, i == len(rates)-1)
		if lost == (losses{}) {
			t.Logf("%d fps: %d pictures, none lost, none twice", fps, n)
			return
		}
	}
	t.Logf("the host is too busy: the emulated camera skipped pictures at every rate, and the box counted each of them")
}

// settle waits until a camera that has just been opened runs evenly.
func (b *box) settle(t *testing.T) {
	t.Helper()
	first := b.until(t, "the camera delivers", onAir)
	b.until(t, "the camera has delivered for a while", func(s status.Box) bool {
		return s.Input.Frames > first.Input.Frames+20
	})
}

// count lets a viewer watch for length and compares the numbers in its pictures
// with what the box says it lost. Without patience it ends at the first loss.
func (b *box) count(t *testing.T, fps int, length time.Duration, patience bool) (losses, int) {
	t.Helper()
	b.settle(t)
	before := lossesOf(b.status(t))
	b.Sh(t, "sleep 5") // a viewer gets what the last key frame began, up to 2 s ago
	v := b.watch(t)
	end := b.status(t).Input.Frames + uint64(fps)*uint64(length/time.Second)
	var lost losses
	b.within(t, 3*length, "the pictures are watched", func(s status.Box) bool {
		lost = lossesOf(s).since(before)
		return s.Input.Frames >= end || !patience && lost != (losses{})
	})
	whole := patience || lost == (losses{})
	b.Sh(t, "sleep 1") // what is under way arrives first
	v.Kill()
	lost = lossesOf(b.status(t)).since(before)
	seen := numbers(t, v.file)
	t.Logf("%d fps: watched %d pictures; the box counted %+v", fps, len(seen), lost)
	n := checkNumbers(t, seen, lost)
	checkStamps(t, seen, stamps(t, v.file, "v:0"), fps)
	if least := int(0.95 * float64(fps) * length.Seconds()); whole && n+int(lost.pictures()) < least {
		t.Errorf("%d pictures in %v at %d fps, want at least %d", n, length, fps, least)
	}
	return lost, n
}

// checkNumbers returns how many pictures of the camera there are. No number
// may come twice or be missing without being counted.
func checkNumbers(t *testing.T, seen []int, lost losses) (n int) {
	t.Helper()
	last, gaps, others := -1, 0, 0
	for i, number := range seen {
		switch number {
		case noNumber:
			others++
			continue
		case sameNumber:
			n++
			continue
		}
		n++
		switch {
		case last < 0:
		case number <= last:
			t.Errorf("picture %d has the number %d after %d, in %d", i, number, last, seen[max(i-4, 0):min(i+4, len(seen))])
		default:
			gaps += number - last - 1
		}
		last = number
	}
	if gaps > int(lost.pictures()) {
		t.Errorf("%d numbers are missing, the box counted %d", gaps, lost.pictures())
	}
	if others > int(lost.slates) {
		t.Errorf("%d pictures without a number, the box put in %d slates", others, lost.slates)
	}
	return n
}

// checkStamps compares the numbers with the stamps of the protocol: they must be
// as far apart as the count says, give or take a frame at 15 fps, which is how
// late the emulated camera may stamp a picture. On a busy host single ones are
// later.
func checkStamps(t *testing.T, seen []int, stamps []float64, fps int) {
	t.Helper()
	const late, few = 1.0 / 15, 0.05
	if len(seen) != len(stamps) {
		t.Errorf("%d pictures in %d packets", len(seen), len(stamps))
		return
	}
	var starts []float64 // of the count, as each picture has it
	for i, number := range seen {
		if i < 2 {
			continue // ffmpeg leaves the first packet without a stamp and invents one
		}
		if stamps[i] <= stamps[i-1] {
			t.Errorf("picture %d has the stamp %.3f s after %.3f s", i, stamps[i], stamps[i-1])
		}
		if number >= 0 {
			starts = append(starts, stamps[i]-float64(number)/float64(fps))
		}
	}
	if len(starts) == 0 {
		t.Error("no picture has a number")
		return
	}
	slices.Sort(starts)
	middle, off := starts[len(starts)/2], 0
	for _, s := range starts {
		if math.Abs(s-middle) > late {
			off++
		}
	}
	t.Logf("stamps are at most %.0f ms off the camera's count", 1000*max(middle-starts[0], starts[len(starts)-1]-middle))
	if float64(off) > few*float64(len(starts)) {
		t.Errorf("%d stamps of %d are more than %.0f ms off the camera's count at %d fps", off, len(starts), 1000*late, fps)
	}
}
