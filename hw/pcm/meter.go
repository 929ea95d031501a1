package pcm

import (
	"math"
	"sync"
)

// Floor is the level reported for digital silence, in dBFS.
const Floor = -120.0

// Levels are the levels of the left and the right channel in dBFS: 0 is the
// largest sample value, so a full-scale sine has a peak of 0 and an RMS of -3.
type Levels struct {
	Peak, RMS [channels]float64
}

// A Meter measures level. The zero value is ready; its methods may be called
// from any goroutine.
type Meter struct {
	mu     sync.Mutex
	peak   [channels]int32
	square [channels]float64
	frames int
}

// Add takes interleaved stereo into account.
func (m *Meter) Add(pcm []int16) {
	var peak [channels]int32
	var square [channels]int64
	for i := 0; i+1 < len(pcm); i += channels {
		for ch := range channels {
			v := int32(pcm[i+ch])
			peak[ch] = max(peak[ch], v, -v)
			square[ch] += int64(v) * int64(v)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for ch := range channels {
		m.peak[ch] = max(m.peak[ch], peak[ch])
		m.square[ch] += float64(square[ch])
	}
	m.frames += len(pcm) / channels
}

// Read returns the levels since the last Read and begins anew.
func (m *Meter) Read() Levels {
	m.mu.Lock()
	defer m.mu.Unlock()
	var l Levels
	for ch := range channels {
		l.Peak[ch] = decibel(float64(m.peak[ch]))
		l.RMS[ch] = decibel(math.Sqrt(m.square[ch] / float64(max(m.frames, 1))))
	}
	m.peak, m.square, m.frames = [channels]int32{}, [channels]float64{}, 0
	return l
}

func decibel(amplitude float64) float64 {
	const full = 1 << 15
	return max(20*math.Log10(amplitude/full), Floor)
}
