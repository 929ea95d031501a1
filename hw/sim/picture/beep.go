package picture

import (
	"math"
	"time"

	"encoderd.example/hw"
)

const (
	beepHz    = 1000
	beepPeak  = 8192 // −12 dBFS
	beepTurn  = hw.SampleRate / beepHz
	sampleNS  = float64(time.Second) / hw.SampleRate
	quietPeak = beepPeak / 32 // what [FindBeeps] takes for silence
)

// Sound adds the beep to pcm, interleaved S16 at 48 kHz with two channels:
// 1 kHz, −12 dBFS, from each whole second of CLOCK_MONOTONIC for
// [FlashLength]. stamp is the instant of the first sample.
func Sound(pcm []int16, stamp time.Duration) {
	for i := range len(pcm) / hw.Channels {
		at := float64(stamp%time.Second) + float64(i)*sampleNS
		if at >= float64(time.Second) { // math.Mod takes long
			at = math.Mod(at, float64(time.Second))
		}
		if at >= float64(FlashLength) {
			continue
		}
		v := int16(math.Round(beepPeak * math.Sin(2*math.Pi*beepHz*at/float64(time.Second))))
		pcm[2*i] += v
		pcm[2*i+1] += v
	}
}

// FindBeeps returns where in pcm, interleaved S16 at 48 kHz with two channels,
// beeps of [Sound] begin, in sample frames from the start, to within less than
// 1 ms, also after lossy coding and at another level. A beep that pcm holds
// only in part does not count.
//
//	pcm ─► both channels ─► 1 kHz level over the last 1 ms ─► level > half of
//	the beep's own, for 90 to 115 ms ─► onset
func FindBeeps(pcm []int16) []int {
	const (
		shortest = 90 * hw.SampleRate / 1000
		longest  = 115 * hw.SampleRate / 1000
	)
	level := toneLevel(pcm)
	var onsets []int
	for n := beepTurn; n+shortest < len(level); n++ {
		if level[n] < quietPeak {
			continue
		}
		half := average(level[n+shortest/4:n+3*shortest/4]) / 2
		begin := skip(level, n, func(v float32) bool { return v < half })
		end := skip(level, begin, func(v float32) bool { return v >= half })
		length := end - begin
		if end < len(level) && n > beepTurn && length >= shortest && length <= longest {
			// The level reaches half its height when half its window is full.
			onsets = append(onsets, begin-beepTurn/2+1)
		}
		n = skip(level, max(end, n), func(v float32) bool { return v >= quietPeak })
	}
	return onsets
}

// skip returns the first index from n on whose value does not match.
func skip(level []float32, n int, match func(float32) bool) int {
	for n < len(level) && match(level[n]) {
		n++
	}
	return n
}

func average(v []float32) float32 {
	var sum float64
	for _, x := range v {
		sum += float64(x)
	}
	return float32(sum / float64(len(v)))
}

// toneLevel returns for each sample frame the peak of the 1 kHz tone in the
// millisecond that ends there: a quadrature detector with a sliding window of
// one turn.
func toneLevel(pcm []int16) []float32 {
	var cosine, sine [beepTurn]float64
	for i := range beepTurn {
		sine[i], cosine[i] = math.Sincos(2 * math.Pi * float64(i) / beepTurn)
	}
	var re, im [beepTurn]float64
	var sumRe, sumIm float64
	level := make([]float32, len(pcm)/hw.Channels)
	for i := range level {
		v := (float64(pcm[2*i]) + float64(pcm[2*i+1])) / 2
		k := i % beepTurn
		sumRe += v*cosine[k] - re[k]
		sumIm += v*sine[k] - im[k]
		re[k], im[k] = v*cosine[k], v*sine[k]
		level[i] = float32(2 * math.Hypot(sumRe, sumIm) / beepTurn)
	}
	return level
}
