//go:build box

//nolint:thelper // parts of TestDaemonOnTheBoard and their steps, which are no helpers
package boxtest

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"encoderd.example/stream/streamtest/peer"
)

// inStep has the camera flash and the sound card beep at the same instants and
// looks for both in what a viewer gets.
//
//	flashbeep   light ────► vivid ─► … ─► picture's stamp ─┐
//	            beep ─────► aloop ─► … ─► sample's stamp ──┴─► distance
//
// The first bright picture belongs to the instant between 0 and one frame
// interval after the light, half an interval in the mean.
func inStep(t *testing.T, b *box) {
	const count = 40
	fps := b.carried(t)
	b.Put(t, map[string]string{"flashbeep": b.flashbeep})
	v := b.watch(t)
	shown := flashes(t, b.Sh(t, fmt.Sprintf("cd /run/work; ./flashbeep -count %d -light 400ms", count)))
	b.Sh(t, "sleep 2")
	s := b.status(t)
	v.Kill()
	lights, beeps := brightenings(t, v.file), onsets(t, v.file)
	t.Logf("%d flashes and %d beeps seen of %d at %d fps; the box says %.1f ms, drift %.1f ppm, xruns %d",
		len(lights), len(beeps), count, fps, s.AVOffsetMS, s.Sound.DriftPPM, s.Sound.Xruns)
	var offsets []float64
	for _, beep := range beeps {
		i := nearest(lights, beep)
		if i >= 0 && math.Abs(lights[i]-beep) < 0.4 {
			offsets = append(offsets, 1000*(beep-lights[i]+0.5/float64(fps)+shown))
		}
	}
	if len(offsets) < count/2 {
		t.Fatalf("%d pairs of flash and beep, want at least %d", len(offsets), count/2)
	}
	slices.Sort(offsets)
	median := offsets[len(offsets)/2]
	t.Logf("sound is %+.1f ms after the picture in the median of %d, from %+.1f to %+.1f", median, len(offsets), offsets[0], offsets[len(offsets)-1])
	if math.Abs(median) >= 40 {
		t.Errorf("sound is %+.1f ms off the picture, want less than 40", median)
	}
}

// carried starts the daemon at the highest rate at which nothing is lost for
// some seconds, else at the lowest.
func (b *box) carried(t *testing.T) int {
	t.Helper()
	for _, fps := range rates {
		b.run(t, settings{fps: fps})
		b.settle(t)
		before := lossesOf(b.status(t))
		b.Sh(t, "sleep 8")
		if lost := lossesOf(b.status(t)).since(before); lost == (losses{}) {
			return fps
		}
	}
	return rates[len(rates)-1]
}

// flashes reads what flashbeep printed and returns by how much the lights came
// after their beeps in the median, in seconds.
func flashes(t *testing.T, out string) float64 {
	t.Helper()
	var late []float64
	for line := range strings.Lines(out) {
		var f struct{ Beep, Light, Xruns int64 }
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("flashbeep printed %q: %v", line, err)
		}
		if f.Beep != 0 {
			late = append(late, time.Duration(f.Light-f.Beep).Seconds())
		}
	}
	if len(late) == 0 {
		t.Fatalf("flashbeep played nothing:\n%s", out)
	}
	slices.Sort(late)
	return late[len(late)/2]
}

// brightenings are the stamps of the first pictures that are bright.
func brightenings(t *testing.T, file string) []float64 {
	t.Helper()
	const w, h = 32, 18
	at := stamps(t, file, "v:0")
	var means []float64
	for _, p := range pictures(t, file, fmt.Sprintf("scale=%d:%d:flags=area", w, h), w*h) {
		sum := 0
		for _, y := range p {
			sum += int(y)
		}
		means = append(means, float64(sum)/(w*h))
	}
	if len(at) != len(means) {
		t.Fatalf("%d pictures in %d packets", len(means), len(at))
	}
	middle := (slices.Min(means) + slices.Max(means)) / 2
	var found []float64
	for i := 1; i < len(means); i++ {
		if means[i-1] < middle && means[i] >= middle {
			found = append(found, at[i])
		}
	}
	return found
}

// onsets are the times at which loud sound begins after quiet.
func onsets(t *testing.T, file string) []float64 {
	t.Helper()
	const rate, frame, loud, quiet = 48000, 1024, 6000, 9600
	pcm := peer.Output(t, "ffmpeg", "-v", "error", "-i", file, "-map", "0:a", "-ac", "1", "-f", "s16le", "-")
	at := stamps(t, file, "a:0")
	if got := len(pcm) / 2 / frame; got != len(at) {
		t.Fatalf("%d frames of sound in %d packets", got, len(at))
	}
	var found []float64
	last := -quiet
	for i := range len(pcm) / 2 {
		v := int(int16(uint16(pcm[2*i]) | uint16(pcm[2*i+1])<<8))
		if v < loud && v > -loud {
			continue
		}
		if i-last > quiet {
			found = append(found, at[i/frame]+float64(i%frame)/rate)
		}
		last = i
	}
	return found
}

// nearest returns the index of the value next to x, -1 if there is none.
func nearest(values []float64, x float64) int {
	best := -1
	for i, v := range values {
		if best < 0 || math.Abs(v-x) < math.Abs(values[best]-x) {
			best = i
		}
	}
	return best
}
