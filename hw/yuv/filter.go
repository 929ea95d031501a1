package yuv

import (
	"math"

	"encoderd.example/hw"
)

// A filter says how source samples are weighed to make result samples: result
// i is the sum of weight[i*taps+k] · source[first[i]+k], in 1/256. The weights
// of each result sum to 256, so that no 16-bit lane overflows.
type filter struct {
	taps   int
	first  []int32
	weight []uint16
	plain  bool // one tap, source i for result i
}

// newFilter returns the filter from n to m samples, its centres moved by shift
// source samples.
func newFilter(n, m int, shift float64) *filter {
	scale := float64(n) / float64(m)
	rows := make([][]float64, m)
	f := &filter{first: make([]int32, m), taps: 1, plain: n == m && shift == 0}
	for i := range rows {
		centre := (float64(i)+0.5)*scale + shift
		first, weights := area(centre, scale, n)
		if scale < 1 {
			first, weights = bilinear(centre, n)
		}
		f.first[i], rows[i] = int32(first), weights
		f.taps = max(f.taps, len(weights))
	}
	f.weight = make([]uint16, m*f.taps)
	for i, w := range rows {
		// All results have the same number of taps: near the end of the source
		// the window moves left and begins with weights of zero.
		first := min(int(f.first[i]), n-f.taps)
		quantize(f.weight[i*f.taps+int(f.first[i])-first:(i+1)*f.taps], w)
		f.first[i] = int32(first)
	}
	return f
}

// area weighs the samples that the stretch of width around centre covers.
func area(centre, width float64, n int) (first int, weights []float64) {
	lo := min(max(centre-width/2, 0), float64(n)-1e-9)
	hi := max(min(centre+width/2, float64(n)), lo+1e-9)
	const tiny = 1e-6
	first = int(lo + tiny)
	last := max(int(math.Ceil(hi-tiny))-1, first)
	for s := first; s <= last; s++ {
		weights = append(weights, min(hi, float64(s+1))-max(lo, float64(s)))
	}
	return first, weights
}

// bilinear weighs the two samples beside centre.
func bilinear(centre float64, n int) (first int, weights []float64) {
	at := min(max(centre-0.5, 0), float64(n-1))
	first = min(int(at), max(n-2, 0))
	if n == 1 {
		return 0, []float64{1}
	}
	return first, []float64{1 - (at - float64(first)), at - float64(first)}
}

// quantize writes w in 1/256 of its sum, exactly 256 in all: each weight is
// what the rounded running sum grows by.
func quantize(to []uint16, w []float64) {
	var total, sum float64
	for _, v := range w {
		total += v
	}
	last := 0
	for k, v := range w {
		sum += v
		now := int(math.Round(sum / total * 256))
		to[k] = uint16(now - last)
		last = now
	}
}

// blend returns result line y, made from the rows of p: a row itself if it
// alone counts, else their weighed sum in line.
func (f *filter) blend(line []byte, p hw.Plane, y int) []byte {
	n := len(line)
	first := int(f.first[y])
	weights := f.weight[y*f.taps : (y+1)*f.taps]
	for len(weights) > 1 && weights[0] == 0 {
		weights, first = weights[1:], first+1
	}
	for len(weights) > 1 && weights[len(weights)-1] == 0 {
		weights = weights[:len(weights)-1]
	}
	row := func(k int) []byte { return p.Data[(first+k)*p.Stride:][:n] }
	switch {
	case len(weights) == 1:
		return row(0)
	case len(weights) == 2 && weights[0] == 128:
		average(line, row(0), row(1))
	case len(weights) == 2:
		mix2(line, row(0), row(1), uint64(weights[0]), uint64(weights[1]))
	case len(weights) == 3:
		mix3(line, row(0), row(1), row(2), weights)
	default:
		mixN(line, p, first, weights)
	}
	return line
}
