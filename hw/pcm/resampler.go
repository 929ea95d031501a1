package pcm

import "time"

// A Resampler brings a card's nominal rate, such as 44.1 kHz, to 48 kHz. It is
// for one goroutine.
type Resampler struct {
	line line
	from int
}

// NewResampler returns a resampler from a rate in Hz, above zero.
func NewResampler(from int) *Resampler {
	r := &Resampler{line: line{k: newKernel(from, rate, zeroCrossings)}, from: from}
	r.Reset()
	return r
}

// Add appends to dst what can be said at 48 kHz once pcm, interleaved stereo,
// has come in. offset is the time of the first sample frame appended relative
// to the first one of pcm; it is negative, since the filter looks ahead.
func (r *Resampler) Add(dst, pcm []int16) (out []int16, offset time.Duration) {
	offset = -time.Duration(r.line.lead() / float64(r.from) * float64(time.Second))
	r.line.push(pcm)
	return r.line.render(dst, float64(r.from)/rate), offset
}

// Reset forgets the past: the next sample follows on silence.
func (r *Resampler) Reset() { r.line.reset(0) }
