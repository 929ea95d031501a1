package pcm

import (
	"math"
	"slices"
	"strconv"
	"testing"
	"time"
)

// sine returns frames of a stereo sine as a card of that rate samples it,
// beginning at sample number first.
func sine(hz, amplitude, rate float64, first, frames int) []int16 {
	pcm := make([]int16, 0, 2*frames)
	for i := range frames {
		v := int16(math.Round(amplitude * math.Sin(2*math.Pi*hz*float64(first+i)/rate)))
		pcm = append(pcm, v, v)
	}
	return pcm
}

// fit returns amplitude, phase and the signal-to-noise ratio in dB of the
// least-squares sine of that frequency in the left channel of pcm at 48 kHz.
func fit(pcm []int16, hz float64) (amplitude, phase, snr float64) {
	n := len(pcm) / 2
	var ss, cc, sc, xs, xc, xx float64
	for i := range n {
		s, c := math.Sincos(2 * math.Pi * hz * float64(i) / rate)
		x := float64(pcm[2*i])
		ss, cc, sc = ss+s*s, cc+c*c, sc+s*c
		xs, xc, xx = xs+x*s, xc+x*c, xx+x*x
	}
	det := ss*cc - sc*sc
	a, b := (xs*cc-xc*sc)/det, (xc*ss-xs*sc)/det
	signal := a*xs + b*xc
	return math.Hypot(a, b), math.Atan2(b, a), 10 * math.Log10(signal/(xx-signal))
}

func TestResamplerKeepsTone(t *testing.T) {
	for _, from := range []int{8000, 32000, 44100, 88200, 96000, 192000} {
		for _, hz := range []float64{97, 997, 3301} {
			t.Run(strconv.Itoa(from)+" Hz keeps "+strconv.Itoa(int(hz)), func(t *testing.T) {
				r := NewResampler(from)
				var out []int16
				var begin time.Duration // of out, since the first input sample
				block := from / 100
				for i := range 150 {
					before := len(out)
					var offset time.Duration
					out, offset = r.Add(out, sine(hz, 20000, float64(from), i*block, block))
					at := time.Duration(i) * 10 * time.Millisecond
					if i == 0 {
						begin = offset
					}
					want := begin + time.Duration(before/2)*time.Second/rate
					if d := at + offset - want; d.Abs() > time.Microsecond {
						t.Fatalf("block %d says its output begins %v off the count of samples", i, d)
					}
				}
				skip := rate / 10
				amplitude, phase, snr := fit(out[2*skip:], hz)
				if snr < 75 {
					t.Errorf("signal to noise %.1f dB, want 75", snr)
				}
				if math.Abs(20*math.Log10(amplitude/20000)) > 0.05 {
					t.Errorf("amplitude %.0f, want 20000", amplitude)
				}
				at := begin.Seconds() + float64(skip)/rate
				off := math.Remainder(phase-2*math.Pi*hz*at, 2*math.Pi) / (2 * math.Pi * hz)
				if math.Abs(off) > 2e-6 {
					t.Errorf("tone comes %.1f µs late", -off*1e6)
				}
			})
		}
	}
}

func TestResamplerStopsAliases(t *testing.T) {
	r := NewResampler(96000)
	out, _ := r.Add(nil, sine(40000, 20000, 96000, 0, 96000)) // would fold to 8 kHz
	var m Meter
	m.Add(out[rate/5 : len(out)-rate/5])
	if got := m.Read().Peak[0]; got > -75 {
		t.Errorf("40 kHz leaves %.1f dBFS behind, want -75 or less", got)
	}
}

func TestEqualRatesPassThroughUnchanged(t *testing.T) {
	r := NewResampler(rate)
	in := sine(997, 32767, rate, 0, 4800)
	out, offset := r.Add(nil, in)
	if offset != 0 {
		t.Errorf("first sample is moved by %v", offset)
	}
	if want := in[:len(out)]; len(out) < 9000 || !slices.Equal(out, want) {
		t.Errorf("%d of %d samples came out, or not the same", len(out), len(in))
	}
}

func TestResamplerForgetsOnReset(t *testing.T) {
	r := NewResampler(44100)
	loud := slices.Repeat([]int16{30000}, 2*441)
	r.Add(nil, loud)
	r.Reset()
	out, offset := r.Add(nil, make([]int16, 2*441))
	if offset != 0 {
		t.Errorf("after a reset output begins %v off the input", offset)
	}
	if i := slices.IndexFunc(out, func(v int16) bool { return v != 0 }); i >= 0 {
		t.Errorf("sample %d still holds old sound", i)
	}
}

func TestSilenceIsSkippedWithoutATrace(t *testing.T) {
	const from, frames = 44100, 4410
	in := make([]int16, 2*frames)
	copy(in[2*1000:], sine(997, 20000, from, 0, 300))
	in[2*2000], in[2*3000+1] = 30000, -1 // one sample on one side alone
	r := NewResampler(from)
	half := r.line.k.half
	x := make([]float32, 2*half, 2*(half+frames))
	for _, v := range in {
		x = append(x, float32(v))
	}
	var out []int16
	for block := range slices.Chunk(in, 2*441) {
		out, _ = r.Add(out, block)
	}
	if len(out) < 2*4700 {
		t.Fatalf("%d frames came out", len(out)/2)
	}
	pos := float64(half)
	for i := 0; i < len(out); i += 2 {
		left, right := r.line.k.at(x, pos)
		if d := max(math.Abs(float64(out[i])-float64(left)), math.Abs(float64(out[i+1])-float64(right))); d > 0.51 {
			t.Fatalf("frame %d is %d, %d; want %.2f, %.2f", i/2, out[i], out[i+1], left, right)
		}
		pos += float64(from) / rate
	}
}

func BenchmarkResampler(b *testing.B) {
	r := NewResampler(44100)
	in := sine(997, 20000, 44100, 0, 441)
	var out []int16
	b.ReportAllocs()
	for b.Loop() {
		out, _ = r.Add(out[:0], in)
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/1e7*100, "%cpu")
}
