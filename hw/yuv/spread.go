package yuv

import "encoding/binary"

// A spread is the horizontal half of the scaler: it takes n samples out of a
// line, srcStep bytes apart, and puts m samples dstStep bytes apart.
type spread struct {
	*filter

	n, m             int
	srcStep, dstStep int
	gathered         []byte // scratch for samples that do not lie side by side
}

func newSpread(n, m, srcStep, dstStep int, shift float64) spread {
	s := spread{filter: newFilter(n, m, shift), n: n, m: m, srcStep: srcStep, dstStep: dstStep}
	if srcStep > 1 && !s.plain() {
		s.gathered = make([]byte, n*srcStep/2)
	}
	return s
}

// plain reports whether samples are only moved.
func (s *spread) plain() bool { return s.filter.plain }

// spread writes the samples of one line.
func (s *spread) spread(to, line []byte) {
	switch {
	case s.plain() && s.srcStep == 1 && s.dstStep == 1:
		copy(to[:s.m], line)
		return
	case s.plain() && s.srcStep == 2 && s.dstStep == 1:
		everySecond(to[:s.m], line)
		return
	case s.plain():
		s.move(to, line)
		return
	}
	switch line = s.gather(line); s.taps {
	case 2:
		s.weigh2(to, line)
	case 3:
		s.weigh3(to, line)
	default:
		s.weigh(to, line)
	}
}

// gather moves samples that are two or four bytes apart side by side.
func (s *spread) gather(line []byte) []byte {
	for step := s.srcStep; step > 1; step /= 2 {
		to := s.gathered[:s.n*step/2]
		everySecond(to, line)
		line = to
	}
	return line
}

// everySecondPortable is everySecond in plain Go.
func everySecondPortable(to, line []byte) {
	for len(to) >= 8 && len(line) >= 16 {
		a := squeeze(binary.LittleEndian.Uint64(line))
		b := squeeze(binary.LittleEndian.Uint64(line[8:]))
		binary.LittleEndian.PutUint64(to, a|b<<32)
		to, line = to[8:], line[16:]
	}
	for i := range to {
		if 2*i < len(line) {
			to[i] = line[2*i]
		}
	}
}

// squeeze moves the four bytes at even places together.
func squeeze(x uint64) uint64 {
	x &= evens
	x = (x | x>>8) & 0x0000FFFF0000FFFF
	return (x | x>>16) & 0x00000000FFFFFFFF
}

func (s *spread) move(to, line []byte) {
	for i := range s.m {
		to[i*s.dstStep] = line[i*s.srcStep]
	}
}

// weigh2 is weigh for two taps: every enlargement, and 1080p to 720p.
func (s *spread) weigh2(to, line []byte) {
	at, first, weights := 0, s.first[:s.m], s.weight[:2*s.m]
	for i, f := range first {
		px := line[f:][:2]
		to[at] = byte((uint32(px[0])*uint32(weights[2*i]) + uint32(px[1])*uint32(weights[2*i+1]) + 128) >> 8)
		at += s.dstStep
	}
}

// weigh3 is weigh for three taps: 1080p to 360p.
func (s *spread) weigh3(to, line []byte) {
	at, weights := 0, s.weight
	for _, f := range s.first {
		px, w := line[f:][:3], weights[:3]
		to[at] = byte((uint32(px[0])*uint32(w[0]) + uint32(px[1])*uint32(w[1]) + uint32(px[2])*uint32(w[2]) + 128) >> 8)
		at, weights = at+s.dstStep, weights[3:]
	}
}

// weigh makes each sample from its taps.
func (s *spread) weigh(to, line []byte) {
	at, weights := 0, s.weight
	for _, f := range s.first {
		w := weights[:s.taps]
		px := line[f:][:len(w)]
		sum := uint32(128)
		for k, v := range px {
			sum += uint32(v) * uint32(w[k])
		}
		to[at] = byte(sum >> 8)
		at, weights = at+s.dstStep, weights[s.taps:]
	}
}
