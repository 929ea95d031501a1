package pcm

import "math"

// Floor is the level reported for digital silence, in dBFS and LUFS.
const Floor = -120.0

// Levels are the levels of the left and the right channel, and how loud both
// are together. In dBFS 0 is the largest sample value, so a full-scale sine has
// a peak of 0 and an RMS of -3.
type Levels struct {
	Peak [channels]float64 // dBFS, falling by 20 dB a second
	RMS  [channels]float64 // dBFS, of the last 400 ms
	// Momentary and ShortTerm are the loudness of the last 400 ms and of the
	// last 3 s (EBU Tech 3341), in LUFS.
	Momentary, ShortTerm float64
}

// The windows in hops: levels move ten times a second.
const (
	hop       = rate / 10
	momentary = 4
	shortTerm = 30
)

// fallRate is how fast the peak falls, in dB a second, so that a page that
// looks once a second sees it.
const fallRate = 20

// A Meter measures level and loudness. The zero value is ready. It is for one
// goroutine.
//
//	samples ─┬─► peak
//	         └─┬─────────────► squares ─► hops ─► RMS
//	           └─► weighting ─► squares ─► hops ─► loudness (ITU-R BS.1770-4)
type Meter struct {
	peak   [channels]float64 // amplitude
	weight [channels]weighting
	open   energy            // of the hop that is not yet full
	frames int               // in open
	hops   [shortTerm]energy // a ring; what was before the first sample is silence
	latest int               // index of the newest hop
}

// energy is a sum of squares over a hop.
type energy struct {
	plain    [channels]float64
	weighted float64 // of both channels
}

// Add takes interleaved stereo into account.
func (m *Meter) Add(pcm []int16) {
	for len(pcm) >= channels {
		n := min(hop-m.frames, len(pcm)/channels)
		for ch := range channels {
			m.channel(ch, pcm[:channels*n])
		}
		pcm = pcm[channels*n:]
		if m.frames += n; m.frames == hop {
			m.latest = (m.latest + 1) % shortTerm
			m.hops[m.latest], m.open, m.frames = m.open, energy{}, 0
		}
	}
}

func (m *Meter) channel(ch int, pcm []int16) {
	w := m.weight[ch]
	peak, plain, weighted := int32(0), int64(0), 0.0
	for i := ch; i < len(pcm); i += channels {
		v := int32(pcm[i])
		peak = max(peak, v, -v)
		plain += int64(v) * int64(v)
		y := w.next(float64(v))
		weighted += y * y
	}
	w.settle()
	m.weight[ch] = w
	m.open.plain[ch] += float64(plain)
	m.open.weighted += weighted
	fallen := math.Pow(10, -fallRate/20.0*float64(len(pcm)/channels)/rate)
	m.peak[ch] = max(m.peak[ch]*fallen, float64(peak))
}

// Read returns the levels now.
func (m *Meter) Read() Levels {
	var l Levels
	short, long := m.sum(momentary), m.sum(shortTerm)
	for ch := range channels {
		l.Peak[ch] = decibel(m.peak[ch])
		l.RMS[ch] = decibel(math.Sqrt(short.plain[ch] / (momentary * hop)))
	}
	l.Momentary = loudness(short.weighted / (momentary * hop))
	l.ShortTerm = loudness(long.weighted / (shortTerm * hop))
	return l
}

// sum adds up the newest hops.
func (m *Meter) sum(hops int) energy {
	var s energy
	for i := range hops {
		e := m.hops[(m.latest-i+shortTerm)%shortTerm]
		for ch := range channels {
			s.plain[ch] += e.plain[ch]
		}
		s.weighted += e.weighted
	}
	return s
}

// full is the amplitude of 0 dBFS.
const full = 1 << 15

func decibel(amplitude float64) float64 {
	return max(20*math.Log10(amplitude/full), Floor)
}

// loudness returns LUFS for the mean of weighted squares, added over channels.
func loudness(square float64) float64 {
	const offset = -0.691 // a stereo sine of 997 Hz at -23 dBFS has -23 LUFS
	return max(offset+10*math.Log10(square/(full*full)), Floor)
}

// A weighting is the filter before loudness (ITU-R BS.1770-4, annex 1, for
// 48 kHz): a shelf for the head, then a high pass.
type weighting struct{ shelf, pass [2]float64 }

const (
	shelfB0, shelfB1, shelfB2 = 1.53512485958697, -2.69169618940638, 1.19839281085285
	shelfA1, shelfA2          = -1.69065929318241, 0.73248077421585
	passA1, passA2            = -1.99004745483398, 0.99007225036621 // its B are 1, -2, 1
)

// next filters a sample (transposed direct form II).
func (w *weighting) next(x float64) float64 {
	y := shelfB0*x + w.shelf[0]
	w.shelf[0] = shelfB1*x - shelfA1*y + w.shelf[1]
	w.shelf[1] = shelfB2*x - shelfA2*y
	z := y + w.pass[0]
	w.pass[0] = -2*y - passA1*z + w.pass[1]
	w.pass[1] = y - passA2*z
	return z
}

// settle ends what is left of sound in a filter after it has become silent:
// some processors take a hundred times as long over numbers next to zero.
func (w *weighting) settle() {
	const inaudible = 1e-9 // of one step of 16 bits
	if max(math.Abs(w.shelf[0]), math.Abs(w.shelf[1]), math.Abs(w.pass[0]), math.Abs(w.pass[1])) < inaudible {
		*w = weighting{}
	}
}
