//go:build box

package virt

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A flash as flashbeep prints it; nanoseconds of CLOCK_MONOTONIC.
type flash struct{ At, Beep, Light, Dark, Xruns int64 }

// TestLightAndSoundAreWhereFlashbeepSays records what flashbeep shows and plays
// with the system's own tools and looks for each flash and each beep.
func TestLightAndSoundAreWhereFlashbeepSays(t *testing.T) {
	const count, width, height, fps = 8, 320, 180, 10
	g := Start(t)
	g.Put(t, map[string]string{"flashbeep": Build(t, "./buildroot/virt/flashbeep")})
	g.Sh(t, fmt.Sprintf(`set -e; cd /run/work
v4l2-ctl -d0 -c timestamp_source=1 --set-fmt-video=width=%d,height=%d,pixelformat=NV12 -p %d > /dev/null
v4l2-ctl -d0 --stream-mmap=8 --stream-to=video --verbose > frames 2>&1 & v=$!
arecord -q -D hw:Loopback,1,0 -t raw -f S16_LE -c 2 -r 48000 --buffer-time=2000000 --period-time=100000 sound & a=$!
for i in $(seq 200); do [ -s video ] && [ -s sound ] && break; sleep 0.1; done
./flashbeep -count %d -light 300ms > flashes
sleep 2; kill $v $a; wait || true`, width, height, fps, count))

	var flashes []flash
	for line := range strings.Lines(g.Sh(t, "cat /run/work/flashes")) {
		var f flash
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("flashbeep printed %q: %v", line, err)
		}
		flashes = append(flashes, f)
	}
	if len(flashes) != count || flashes[count-1].Xruns != 0 {
		t.Fatalf("%d flashes, want %d, with breaks in the sound: %+v", len(flashes), count, flashes)
	}
	luma := brightness([]byte(g.Sh(t, "cat /run/work/video")), width, height)
	checkLight(t, flashes, luma, stamps(t, g.Sh(t, "cat /run/work/frames")), time.Second/fps)
	checkSound(t, flashes, []byte(g.Sh(t, "cat /run/work/sound")))
}

// brightness is the mean luma of each NV12 picture.
func brightness(video []byte, width, height int) []float64 {
	var means []float64
	for size := width * height * 3 / 2; len(video) >= size; video = video[size:] {
		sum := 0
		for _, y := range video[:width*height] {
			sum += int(y)
		}
		means = append(means, float64(sum)/float64(width*height))
	}
	return means
}

var dqbufLine = regexp.MustCompile(`cap dqbuf: .*\bts: (\d+)\.(\d{6})`)

// stamps are the capture stamps that v4l2-ctl --verbose printed.
func stamps(t *testing.T, out string) []int64 {
	t.Helper()
	var all []int64
	for lines := bufio.NewScanner(strings.NewReader(out)); lines.Scan(); {
		if m := dqbufLine.FindStringSubmatch(lines.Text()); m != nil {
			us, err := strconv.ParseInt(m[1]+m[2], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, us*1000)
		}
	}
	return all
}

// checkLight finds the flash that each bright run of pictures belongs to. A busy
// host drops pictures, and with them whole flashes: half of them must be there.
func checkLight(t *testing.T, flashes []flash, luma []float64, stamps []int64, interval time.Duration) {
	t.Helper()
	seen, mean := 0, 0.0
	for i := 1; i < min(len(luma), len(stamps)); i++ {
		if luma[i-1] > 160 || luma[i] < 160 {
			continue
		}
		n := sort.Search(len(flashes), func(n int) bool { return flashes[n].Light > stamps[i] }) - 1
		if n < 0 || n < seen {
			t.Errorf("picture %d is bright and belongs to no flash of its own", i)
			continue
		}
		seen++
		mean += time.Duration(stamps[i]-flashes[n].Light).Seconds() * 1000
	}
	if seen < len(flashes)/2 {
		t.Fatalf("%d of %d flashes in %d pictures; brightness %.0f", seen, len(flashes), len(luma), luma)
	}
	t.Logf("%d of %d flashes seen; first bright picture %.1f ms after the light in the mean, half a frame interval is %.1f ms",
		seen, len(flashes), mean/float64(seen), interval.Seconds()*500)
}

func checkSound(t *testing.T, flashes []flash, sound []byte) {
	t.Helper()
	var onsets []int64
	quiet := 0
	for i := 0; i+4 <= len(sound); i += 4 {
		if bytes.Equal(sound[i:i+2], []byte{0, 0}) {
			quiet++
			continue
		}
		if quiet > 4800 {
			onsets = append(onsets, int64(i/4))
		}
		quiet = 0
	}
	if len(onsets) != len(flashes) {
		t.Fatalf("%d beeps in %d bytes of sound, want %d", len(onsets), len(sound), len(flashes))
	}
	var worst float64
	for i, f := range flashes {
		said := float64(f.Beep-flashes[0].Beep) / 1e6
		is := float64(onsets[i]-onsets[0]) / 48
		worst = max(worst, math.Abs(said-is))
	}
	t.Logf("distances of the beeps differ by %.3f ms at most from what flashbeep says", worst)
	if worst > 8 { // two ticks of the loopback's clock
		t.Errorf("the beeps are up to %.3f ms off", worst)
	}
}
