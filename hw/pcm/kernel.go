package pcm

import "math"

// The filter: 32 taps, Kaiser beta 8. At 48 kHz it is flat to 20 kHz and keeps
// images and aliases 80 dB down below that. Between 256 stored phases the
// coefficients are interpolated linearly, which adds errors near -100 dB.
const (
	zeroCrossings = 16 // on either side
	phases        = 256
	kaiserBeta    = 8
)

// A kernel is a windowed sinc in polyphase form. It is immutable.
type kernel struct {
	half int       // taps on either side of the output's place
	rows []float32 // phases+1 rows of 2*half coefficients
}

// newKernel builds a filter that cuts at the lower of the two Nyquist
// frequencies. At equal rates and a whole-sample place it passes samples
// through unchanged, since a sinc is zero at all other samples.
func newKernel(from, to, crossings int) *kernel {
	scale := min(1, float64(to)/float64(from))
	k := &kernel{half: int(math.Ceil(float64(crossings) / scale))}
	k.rows = make([]float32, 0, (phases+1)*2*k.half)
	for phase := range phases + 1 {
		k.rows = append(k.rows, k.row(float64(phase)/phases, scale)...)
	}
	return k
}

// row returns the coefficients for an output that lies frac after a sample.
func (k *kernel) row(frac, scale float64) []float32 {
	row := make([]float64, 2*k.half)
	sum := 0.0
	for t := range row {
		d := float64(t-k.half+1) - frac
		row[t] = sinc(scale*d) * kaiser(d/float64(k.half))
		sum += row[t]
	}
	out := make([]float32, len(row))
	for t, c := range row {
		out[t] = float32(c / sum) // unity gain at DC in every phase
	}
	return out
}

// at returns the sound at pos, in sample frames from the start of x, which
// must reach half-1 frames before and half frames after it.
func (k *kernel) at(x []float32, pos float64) (left, right float32) {
	i := int(pos)
	phase := (pos - float64(i)) * phases
	row := int(phase)
	frac := float32(phase - float64(row))

	taps := 2 * k.half
	a := k.rows[row*taps:][:taps]
	b := k.rows[(row+1)*taps:][:taps]
	w := x[channels*(i-k.half+1):][:channels*taps]
	for t, c := range a {
		c += frac * (b[t] - c)
		left += c * w[2*t]
		right += c * w[2*t+1]
	}
	return left, right
}

func sinc(x float64) float64 {
	if x == 0 {
		return 1
	}
	return math.Sin(math.Pi*x) / (math.Pi * x)
}

// kaiser returns the window at x in -1…1.
func kaiser(x float64) float64 {
	if x <= -1 || x >= 1 {
		return 0
	}
	return bessel(kaiserBeta*math.Sqrt(1-x*x)) / bessel(kaiserBeta)
}

// bessel is I0, the modified Bessel function of the first kind.
func bessel(x float64) float64 {
	sum, term := 1.0, 1.0
	for n := 1.0; term > 1e-12*sum; n++ {
		term *= x / (2 * n) * x / (2 * n)
		sum += term
	}
	return sum
}
