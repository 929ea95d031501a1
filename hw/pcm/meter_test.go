package pcm

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
)

func TestMeter(t *testing.T) {
	sine := make([]int16, 2*rate)
	for i := range rate {
		sine[2*i] = int16(math.Round(32767 * math.Sin(2*math.Pi*1000*float64(i)/rate)))
		sine[2*i+1] = 328 // -40 dBFS
	}
	var m Meter
	m.Add(sine[:len(sine)/2])
	m.Add(sine[len(sine)/2:])
	got := m.Read()
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 0.02 {
			t.Errorf("%s is %.3f, want %.3f", what, got, want)
		}
	}
	near("peak of a full-scale sine", got.Peak[0], 0)
	near("RMS of a full-scale sine", got.RMS[0], -3.01)
	near("peak of a small constant", got.Peak[1], -40)
	near("RMS of a small constant", got.RMS[1], -40)

	m.Add(make([]int16, 2*rate))
	got = m.Read()
	near("peak a second later", got.Peak[0], -20)
	near("RMS a second later", got.RMS[0], Floor)
	m.Add(make([]int16, 2*5*rate))
	if got, want := m.Read(), (Levels{[2]float64{-120, -120}, [2]float64{-120, -120}, -120, -120}); got != want {
		t.Errorf("after six seconds of silence the meter says %v, want the floor", got)
	}
	m.Add([]int16{math.MinInt16, 0})
	near("peak of the most negative sample", m.Read().Peak[0], 0)
}

func TestAMeterThatHeardNothingIsAtTheFloor(t *testing.T) {
	var m Meter
	if got, want := m.Read(), (Levels{[2]float64{Floor, Floor}, [2]float64{Floor, Floor}, Floor, Floor}); got != want {
		t.Errorf("got %v", got)
	}
}

func TestSilenceLeavesNoTinyNumbersInTheFilters(t *testing.T) {
	var m Meter
	m.Add(sine(997, 32767, rate, 0, rate))
	for range 60 * 50 {
		m.Add(make([]int16, 2*960))
	}
	if m.weight != [2]weighting{} {
		t.Errorf("after a minute the filters hold %v", m.weight)
	}
}

// scaled returns seconds of a stereo sine of that peak level in dBFS.
func scaled(hz, db, seconds float64) []int16 {
	return sine(hz, 32768*math.Pow(10, db/20), rate, 0, int(seconds*rate))
}

// The signals of EBU Tech 3341 for momentary and short-term loudness.
func TestLoudnessOfTheStandardsSignals(t *testing.T) {
	tests := []struct {
		name string
		pcm  []int16
		of   func(Levels) float64
		want float64
	}{
		{"case 1: -23 dBFS", scaled(1000, -23, 20), Levels.shortTerm, -23},
		{"case 2: -33 dBFS", scaled(1000, -33, 20), Levels.shortTerm, -33},
		{"case 9: short-term is constant", slices.Repeat(slices.Concat(scaled(1000, -20, 1.34), scaled(1000, -30, 1.66)), 5), Levels.shortTerm, -23},
		{"case 12: momentary is constant", slices.Repeat(slices.Concat(scaled(1000, -20, 0.18), scaled(1000, -30, 0.22)), 25), Levels.momentary, -23},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var m Meter
			m.Add(tt.pcm)
			if got := tt.of(m.Read()); math.Abs(got-tt.want) > 0.1 {
				t.Errorf("got %.2f LUFS, want %g within 0.1", got, tt.want)
			}
		})
	}
}

func (l Levels) momentary() float64 { return l.Momentary }
func (l Levels) shortTerm() float64 { return l.ShortTerm }

func TestLoudnessAgreesWithFFmpeg(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	noise := make([]int16, 2*8*rate)
	for i := range noise {
		noise[i] = int16(rnd.NormFloat64() * 2000)
	}
	speech := make([]int16, 0, 2*9*rate) // tones that come and go, not the same on both sides
	for i := range 9 * rate {
		s := float64(i) / rate
		env := math.Pow(math.Abs(math.Sin(2*math.Pi*0.7*s)), 3)
		v := env * (math.Sin(2*math.Pi*180*s) + 0.5*math.Sin(2*math.Pi*2400*s) + 0.2*math.Sin(2*math.Pi*7000*s))
		speech = append(speech, int16(9000*v), int16(2500*v))
	}
	left := sine(440, 12000, rate, 0, 5*rate)
	for i := 1; i < len(left); i += 2 {
		left[i] = 0
	}
	tests := []struct {
		name string
		pcm  []int16
	}{
		{"noise", noise},
		{"tones that come and go", speech},
		{"left only", left},
		{"bass", scaled(50, -12, 4)},
		{"treble", scaled(12000, -18, 4)},
		{"it ends in silence", slices.Concat(scaled(1000, -14, 4), make([]int16, 2*rate))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var m Meter
			for block := range slices.Chunk(tt.pcm, 2*960) {
				m.Add(block)
			}
			l := m.Read()
			momentary, long := ffmpegLoudness(t, tt.pcm)
			t.Logf("momentary %.2f (ffmpeg %.1f), short-term %.2f (ffmpeg %.1f) LUFS", l.Momentary, momentary, l.ShortTerm, long)
			if math.Abs(l.Momentary-momentary) > 0.1 || math.Abs(l.ShortTerm-long) > 0.1 {
				t.Errorf("got %.2f and %.2f, ffmpeg says %.1f and %.1f", l.Momentary, l.ShortTerm, momentary, long)
			}
		})
	}
}

// A line that ffmpeg's filter writes ten times a second. Of silence it says
// "nan".
var loudnessLine = regexp.MustCompile(`M: *(-[0-9.]+|nan) S: *(-[0-9.]+)`)

// ffmpegLoudness returns what the ebur128 filter says last.
func ffmpegLoudness(t *testing.T, pcm []int16) (momentary, shortTerm float64) {
	t.Helper()
	path, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Fatalf("%v: install ffmpeg", err)
	}
	var raw, said bytes.Buffer
	binary.Write(&raw, binary.LittleEndian, pcm)
	cmd := exec.CommandContext(t.Context(), path, "-hide_banner", "-nostats", "-f", "s16le", "-ar", "48000", "-ac", "2", "-i", "-",
		"-filter_complex", "ebur128=framelog=verbose", "-loglevel", "verbose", "-f", "null", filepath.Join(t.TempDir(), "null"))
	cmd.Stdin, cmd.Stderr = &raw, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("ffmpeg: %v\n%s", err, &said)
	}
	all := loudnessLine.FindAllStringSubmatch(said.String(), -1)
	if len(all) == 0 {
		t.Fatalf("ffmpeg measured nothing:\n%s", &said)
	}
	last := all[len(all)-1]
	momentary, err1 := strconv.ParseFloat(last[1], 64)
	shortTerm, err2 := strconv.ParseFloat(last[2], 64)
	if err1 != nil || err2 != nil {
		t.Fatalf("ffmpeg says %q", last)
	}
	if math.IsNaN(momentary) {
		momentary = Floor
	}
	return momentary, shortTerm
}
