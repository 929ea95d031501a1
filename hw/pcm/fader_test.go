package pcm

import (
	"math"
	"slices"
	"testing"
)

// checkSmooth fails the test if a sample differs from the one before it on the
// same side by more than most.
func checkSmooth(t *testing.T, pcm []int16, most int) {
	t.Helper()
	for i := 2; i < len(pcm); i++ {
		if d := int(pcm[i]) - int(pcm[i-2]); d > most || d < -most {
			t.Fatalf("sample %d jumps from %d to %d", i/2, pcm[i-2], pcm[i])
		}
	}
}

func TestMixes(t *testing.T) {
	tests := []struct {
		name string
		mix  Mix
		want []int16 // for 1000, -20000
	}{
		{"through", Through, []int16{1000, -20000}},
		{"left on both sides", Mix{{1, 0}, {1, 0}}, []int16{1000, 1000}},
		{"right on both sides", Mix{{0, 1}, {0, 1}}, []int16{-20000, -20000}},
		{"swapped", Mix{{0, 1}, {1, 0}}, []int16{-20000, 1000}},
		{"mono", Mix{{0.5, 0.5}, {0.5, 0.5}}, []int16{-9500, -9500}},
		{"6 dB louder clips", Through.Scaled(6), []int16{1995, -32768}},
		{"20 dB softer", Through.Scaled(-20), []int16{100, -2000}},
		{"nothing", Mix{}, []int16{0, 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var f Fader
			f.Set(tt.mix)
			got := []int16{1000, -20000}
			f.Apply(got)
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestNoMixClicks(t *testing.T) {
	const loud = 20000
	mixes := []Mix{Through, {}, Through.Scaled(-60), Through, {{0, 1}, {1, 0}}, Through.Scaled(4), {{0.5, 0.5}, {0.5, 0.5}}, Through}
	var f Fader
	var out []int16
	for _, m := range mixes {
		f.Set(m)
		for range 5 { // in blocks that do not divide 10 ms
			block := slices.Repeat([]int16{loud, -loud}, 131)
			f.Set(m) // again and again changes nothing
			f.Apply(block)
			out = append(out, block...)
		}
		if f.now != m {
			t.Errorf("after 13.6 ms the mix is %v, want %v", f.now, m)
		}
	}
	checkSmooth(t, out, (loud+math.MaxInt16)/rampFrames+2) // the longest way is from -loud to full scale
	if end := out[len(out)-2:]; !slices.Equal(end, []int16{loud, -loud}) {
		t.Errorf("ends with %v", end)
	}
}

func TestAChangeWithinAChangeDoesNotClick(t *testing.T) {
	var f Fader
	var out []int16
	for i := range 40 {
		f.Set(Through.Scaled(float64(-60 * (i % 2))))
		block := slices.Repeat([]int16{20000}, 2*100)
		f.Apply(block)
		out = append(out, block...)
	}
	checkSmooth(t, out, 20000/rampFrames+2)
}

func TestThroughIsBitExact(t *testing.T) {
	var f Fader
	f.Set(Through.Scaled(-6))
	f.Set(Through)
	f.Apply(make([]int16, 2*rampFrames))
	pcm := sine(997, 32767, rate, 0, rate)
	want := slices.Clone(pcm)
	f.Apply(pcm)
	if !slices.Equal(pcm, want) {
		t.Error("samples were changed")
	}
}

func TestGainIsExact(t *testing.T) {
	for db := -60.0; db <= 24; db += 12 {
		amplitude := 1.0
		if db < 0 {
			amplitude = 30000
		}
		if got := float64(Through.Scaled(db)[0][0]) * amplitude; math.Abs(got/(amplitude*math.Pow(10, db/20))-1) > 1e-6 {
			t.Errorf("%g dB makes %g of %g", db, got, amplitude)
		}
	}
}

func BenchmarkFader(b *testing.B) {
	var f Fader
	f.Set(Through.Scaled(3))
	pcm := sine(997, 100, rate, 0, 960)
	b.ReportAllocs()
	for b.Loop() {
		f.Apply(pcm)
	}
}
